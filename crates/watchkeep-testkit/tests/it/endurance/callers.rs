//! Two stores of one file, which are like two processes.

use std::path::Path;

use watchkeep::{Durability, Options, Retention, Store};
use watchkeep_testkit::surface::Fault;

/// Two stores of one file.
pub(crate) fn stores(folder: &Path) -> Result<[Store; 2], Fault> {
    let options = Options::new().durability(Durability::Relaxed).retention(Retention::events(10_000));
    let path = folder.join("store.db");
    Ok([options.clone().open(&path)?, options.open(&path)?])
}
