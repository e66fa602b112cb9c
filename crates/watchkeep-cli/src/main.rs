//! The `watchkeep` command.
fn main() {}
