//! `seal`: keeps everybody from writing to a store.

use serde_json::json;

use super::{Access, open};
use crate::args::{Global, Seal};
use crate::exit::Result;
use crate::output::{Out, visible};

pub(super) fn seal(global: &Global, args: &Seal, out: &mut Out) -> Result<()> {
    let is_change = args.lift || args.why.is_some();
    let store = open(global, if is_change { Access::Change } else { Access::Read })?;
    if args.lift {
        store.unseal()?;
    } else if let Some(why) = &args.why {
        store.seal(why)?;
    }
    let sealed = store.sealed()?;
    if out.is_json() {
        return out.object(&json!({ "sealed": sealed }));
    }
    match sealed {
        Some(why) => out.line(format_args!("sealed: {}", visible(&why))),
        None => out.line("not sealed"),
    }
}
