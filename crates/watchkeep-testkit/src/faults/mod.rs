//! Faults below the store: power cuts, failed syncs, errors of the disk, bad bytes.
//!
//! A [`Workload`] runs on a real store in a folder that a [fault disk](watchkeep_faultdisk) observes; a [`Ledger`]
//! notes what was acknowledged and what was delivered, and when. Then:
//!
//! * [`power`]: the power goes at any moment, with or without a failed sync before it. The store is opened on what
//!   the disk may hold, and [held against the ledger](verify).
//! * [`io`]: each single operation of SQLite fails, one after the other.
//! * [`bytes`]: bits flip, logs are cut short, files are exchanged.
//! * [`ext4`]: the power goes under a real file system, on which several processes use one store.

pub mod bytes;
pub mod ext4;
pub mod io;
mod ledger;
pub mod power;
mod row;
mod stage;
pub mod verify;
mod workload;

pub use ledger::{Expect, Ledger};
pub use row::{Row, Wrong};
pub use stage::{Stage, scratch};
pub use workload::{Scene, Workload};

/// The store's file in its folder.
pub const FILE: &str = "store.db";
