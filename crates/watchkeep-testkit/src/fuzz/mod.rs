//! What is fuzzed: functions of any bytes, which say what is wrong.
//!
//! libFuzzer finds bytes (`fuzz/` has a target for each function), and what it found worth keeping lies in
//! `fuzz/corpus`; a test runs all of that again.

mod file;
mod filters;
mod text;
mod under_faults;

pub use file::opened_file;
pub use filters::filters;
pub use text::{cursors, import_lines};
pub use under_faults::under_faults;

use crate::ops::Tape;

/// What is wrong, if something is.
pub type Verdict = Result<(), String>;

/// A function of any bytes.
pub type Target = fn(&[u8]) -> Verdict;

/// All of them, by the names of their corpora.
pub const TARGETS: [(&str, Target); 5] = [
    ("cursors", cursors),
    ("filters", filters),
    ("import_lines", import_lines),
    ("opened_file", opened_file),
    ("under_faults", under_faults),
];

/// Decisions from bytes, two for each.
fn tape(bytes: &[u8]) -> Tape {
    Tape::new(
        bytes
            .chunks_exact(2)
            .map(|pair| pair.iter().fold(0, |all, byte| all << 8 | u16::from(*byte)))
            .collect(),
    )
}

fn said(error: impl std::fmt::Debug) -> String {
    format!("failed: {error:?}")
}
