//! `render`: a template over the entries of a group.

use std::path::Path;

use super::entries::standard_input;
use super::{Access, open};
use crate::args::{Global, Render};
use crate::exit::{FAILURE, Failure, NOT_FOUND, Result};
use crate::output::Out;

pub(super) fn render(global: &Global, args: &Render, out: &mut Out) -> Result<()> {
    let template = template(&args.template)?;
    let store = open(global, Access::Read)?;
    let text = if args.lenient {
        store.render_lenient(&template, &args.group)?
    } else {
        store.render(&template, &args.group)?
    };
    if out.is_json() {
        return out.object(&serde_json::json!({ "text": text }));
    }
    out.raw(text.as_bytes())
}

fn template(path: &Path) -> Result<String> {
    let bytes = if path == Path::new("-") {
        standard_input()?
    } else {
        std::fs::read(path).map_err(|error| unreadable(path, &error))?
    };
    String::from_utf8(bytes)
        .map_err(|_| Failure::new(FAILURE, format!("the template {path:?} is not UTF-8; convert it first")))
}

/// Why a file of the user's own cannot be read.
pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    let code = if error.kind() == std::io::ErrorKind::NotFound { NOT_FOUND } else { FAILURE };
    Failure::new(code, format!("{path:?} cannot be read: {error}; correct the path or its permissions"))
}
