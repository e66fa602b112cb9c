//! The promises on the library, in one program, so that SQLite is linked once. Each test has a size at which a bug
//! that is put in shows; `scripts/evidence` runs the same tests larger (`WATCHKEEP_TEST_SCALE`).

mod availability;
mod bad_bytes;
mod consumers;
mod corpus;
mod each;
mod endurance;
mod ext4;
mod io_points;
mod model;
mod power;
#[cfg(unix)]
mod processes;
mod promises;
