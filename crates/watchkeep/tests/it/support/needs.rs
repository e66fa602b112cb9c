//! What a test needs of its engine beyond what every engine does.
//!
//! A test says so in its first line, as `needs!(Trimming)`. On an engine that lacks it the test ends there, and its name
//! goes into the file that `WATCHKEEP_TEST_NEEDS` names. What such an engine does instead is asserted once for each need,
//! in `engines.rs`.

use std::fs::OpenOptions;
use std::io::Write as _;

/// What not every engine has. docs/scale.md says what a cluster does instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Revisions are 1, 2, 3 …: a revision is known before it is there, and none lies between two others.
    DenseRevisions,
    /// The store takes from its log what it is told to, and what its retention lets go.
    Trimming,
    /// A transaction of more than a hundred keys, or of more than a megabyte.
    LargeTransactions,
    /// A closure of `transaction` runs once, and nobody else writes meanwhile.
    LoneClosures,
    /// All rows are at hand: the store is sealed, backed up, and its quotas are listed.
    RowsAtHand,
}

impl Need {
    /// Whether the engine on which the tests run has it.
    pub(crate) fn is_met(self) -> bool {
        !on_cluster()
    }
}

/// Whether `anywhere()` is in a cluster.
pub(crate) fn on_cluster() -> bool {
    cfg!(feature = "etcd") && std::env::var_os("WATCHKEEP_TEST_ETCD").is_some()
}

/// Whether a test has to end for what the engine lacks; notes its name if so. The place is that of a closure in the test.
pub(crate) fn lacks(need: Need, place: &str) -> super::Result<bool> {
    if need.is_met() {
        return Ok(false);
    }
    if let Some(list) = std::env::var_os("WATCHKEEP_TEST_NEEDS") {
        let (_, test) = place.split_once("::").ok_or("a test is in a module")?;
        let test = test.trim_end_matches("::{{closure}}");
        // One write: tests that end at once do not mix their lines.
        let line = format!("{test} {need:?}\n");
        OpenOptions::new().create(true).append(true).open(list)?.write_all(line.as_bytes())?;
    }
    Ok(true)
}

/// Says what a test needs, in its first line. Where that is not there, the test ends.
macro_rules! needs {
    ($need:ident) => {
        if $crate::support::needs::lacks(
            $crate::support::needs::Need::$need,
            std::any::type_name_of_val(&|| ()),
        )? {
            return Ok(());
        }
    };
}
pub(crate) use needs;
