//! Many entries: `list`, `groups`, `count`.

use serde_json::json;
use watchkeep::ListOptions;

use super::{Access, open};
use crate::args::{Global, Groups, List};
use crate::exit::Result;
use crate::line::shown;
use crate::output::{self, Out};

pub(super) fn list(global: &Global, args: List, out: &mut Out) -> Result<()> {
    let store = open(global, Access::Read)?;
    let mut options = ListOptions::new();
    if let Some(prefix) = args.prefix {
        options = options.prefix(prefix);
    }
    if let Some(after) = args.after {
        options = options.after(after);
    }
    if let Some(limit) = args.limit {
        options = options.limit(limit);
    }
    for entry in store.entries_with(&args.group, options) {
        let entry = entry?;
        match (out.is_json(), args.values) {
            (true, values) => out.object(&shown(&store, &args.group, &entry, values))?,
            (false, true) => {
                let value = out.value(&entry.value);
                out.line(format_args!("{}\t{value}", output::visible(&entry.key)))?;
            }
            (false, false) => out.line(output::visible(&entry.key))?,
        }
    }
    Ok(())
}

pub(super) fn groups(global: &Global, args: &Groups, out: &mut Out) -> Result<()> {
    let store = open(global, Access::Read)?;
    for group in store.groups(&args.prefix) {
        let group = group?;
        if out.is_json() {
            out.object(&json!({ "group": group }))?;
        } else {
            out.line(output::visible(&group))?;
        }
    }
    Ok(())
}

pub(super) fn count(global: &Global, args: &Groups, out: &mut Out) -> Result<()> {
    let store = open(global, Access::Read)?;
    let count = store.count_all(&args.prefix)?;
    if out.is_json() { out.object(&json!({ "count": count })) } else { out.line(count) }
}
