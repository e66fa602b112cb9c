//! The promises of watchkeep as checkers, a model, and the suites that every engine and every surface must pass.
//!
//! Suites, each fed by operations that are made up from a seed:
//!
//! * [`runner`]: one step after another on a store and on a [`model`] of it, with everything compared: every result,
//!   every row of the log, every entry. Steps can be shrunk by proptest.
//! * [`workload`]: many writers, watchers and callbacks at once. What everybody was told is [recorded](record) and
//!   held against the [`promises`] afterwards. The checkers see only plain values, and each of them has a made-up
//!   stream that it finds fault with.
//!
//! * [`witness`]: whether what concurrent [`callers`] were told of single keys is linearizable.
//! * [`availability`]: whether every call is answered, and what was acknowledged is told, in time.
//! * `proxy`: stands between a store and a member of its cluster, and lies; with the feature `etcd`.
//! * [`consumers`]: the course of a named consumer through several handles that die, stand still and come back.
//!
//! The first two talk to a [`surface::Surface`], which a [`surface::Site`] opens. The library is one, on files and in memory,
//! blocking and asynchronous. A server behind its wire, several processes on a file, or another engine take part by
//! implementing these two traits; what they cannot do they say in [`surface::Capabilities`].
//!
//! ```
//! use watchkeep_testkit::surface::Memory;
//! use watchkeep_testkit::workload::{Load, Plan, Report, round};
//!
//! let mut report = Report::default();
//! report.add(&round(&Memory, &Plan::new(1, Load { ops: 20, watchers: 4 }))?);
//! assert!(report.is_clean(), "{report}");
//! # Ok::<(), watchkeep_testkit::surface::Fault>(())
//! ```
//!
//! For long evidence: `cargo run --release -p watchkeep-testkit --bin promises -- --help`.

pub mod availability;
pub mod callers;
pub mod consumers;
pub mod faults;
pub mod fuzz;
pub mod model;
pub mod ops;
#[cfg(unix)]
pub mod processes;
pub mod promises;
#[cfg(feature = "etcd")]
pub mod proxy;
pub mod record;
pub mod runner;
pub mod size;
pub mod surface;
pub mod witness;
pub mod workload;
