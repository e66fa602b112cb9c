//! What the command line reads and writes, apart from the commands, so that tests can get at it. It is no interface
//! for programs: that is the library `watchkeep`.

pub mod line;
pub mod time;
