//! The words of watchkeep: plain data that does no I/O and knows no engine.

pub(crate) mod backup;
pub(crate) mod batch;
pub(crate) mod clock;
pub(crate) mod consumer;
pub(crate) mod counters;
pub(crate) mod digest;
pub(crate) mod entry;
pub(crate) mod error;
pub(crate) mod event;
pub(crate) mod filter;
pub(crate) mod limits;
pub(crate) mod name;
pub(crate) mod options;
pub(crate) mod quota;
pub(crate) mod reason;
pub(crate) mod revision;
pub(crate) mod sync;
pub(crate) mod value;
pub(crate) mod watching;
pub(crate) mod writing;

#[cfg(all(test, any(loom, shuttle)))]
pub(crate) mod tests {
    pub(crate) mod schedules;
}
