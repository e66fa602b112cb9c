//! What the tests of named consumers share.

use std::sync::Arc;
use std::time::Duration;

use crate::support::numbers::number;
use crate::support::{Result, anywhere};
use watchkeep::{
    ConsumerInfo, ConsumerOptions, ConsumerStart, Error, ErrorKind, ManualClock, Options, Revision, Store,
};

/// The default.
pub(crate) const LEASE: Duration = Duration::from_secs(10);

pub(crate) fn from(start: ConsumerStart) -> ConsumerOptions {
    ConsumerOptions::new().start(start)
}

pub(crate) fn from_the_beginning() -> ConsumerOptions {
    from(ConsumerStart::Beginning)
}

pub(crate) fn at(revision: u64) -> Revision {
    Revision::new(revision)
}

pub(crate) fn with(written: u64) -> Result<Store> {
    let store = anywhere()?;
    write(&store, written)?;
    Ok(store)
}

pub(crate) fn write(store: &Store, number: u64) -> Result {
    (0..number).try_for_each(|n| store.set("g", &n.to_string(), "v").map(drop))?;
    Ok(())
}

pub(crate) fn kind<T>(result: std::result::Result<T, Error>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

/// The number of the revision up to which a consumer has acknowledged.
pub(crate) fn acked(store: &Store, name: &str) -> Result<Option<u64>> {
    Ok(listed(store, name)?.acked.map(number))
}

pub(crate) fn listed(store: &Store, name: &str) -> Result<ConsumerInfo> {
    Ok(store.consumers()?.into_iter().find(|row| row.name == name).ok_or("it is not listed")?)
}

/// Two handles on one file, as two processes have them, with one clock.
pub(crate) struct Two {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) one: Store,
    pub(crate) other: Store,
    pub(crate) _folder: tempfile::TempDir,
}

pub(crate) fn two() -> Result<Two> {
    let folder = tempfile::tempdir()?;
    let clock = Arc::new(ManualClock::default());
    let open = || Options::new().clock(clock.clone()).open(folder.path().join("a.db"));
    Ok(Two { one: open()?, other: open()?, clock, _folder: folder })
}
