//! `export`: entries as JSON lines.

use std::time::Duration;

use watchkeep::Options;

use super::{Access, open_with};
use crate::args::{Export, Global};
use crate::exit::Result;
use crate::line::exported;
use crate::output::Out;

/// How long the output may be written: the write-ahead log grows meanwhile.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

pub(super) fn export(global: &Global, args: &Export, out: &mut Out) -> Result<()> {
    let store = open_with(global, Access::Read, Options::new().snapshot_age(LONGEST))?;
    let snapshot = store.snapshot()?;
    for group in snapshot.groups(&args.prefix) {
        let group = group?;
        for entry in snapshot.entries(&group) {
            out.object(&exported(&group, &entry?))?;
        }
    }
    Ok(())
}
