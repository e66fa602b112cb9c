//! Operations for proptest.

use proptest::collection::vec;
use proptest::prelude::{Strategy, any};

use super::{Draw, Step, Tape};

/// How many decisions one operation takes at the most; what comes after is the simplest.
const DECISIONS: usize = 40;

/// Up to so many operations. A failing sequence is shrunk by leaving operations out, and each of them towards the
/// simplest possibilities.
pub fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = vec(any::<u16>(), 1..DECISIONS).prop_map(|tape| Draw::new(&mut Tape::new(tape)).step());
    vec(step, 1..most)
}
