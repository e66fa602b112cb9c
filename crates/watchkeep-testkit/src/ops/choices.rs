//! Where decisions come from: dice, for long runs from a seed, or a tape of numbers, which can be made smaller when
//! it led to a failure. Both go through the same code, so that no generator is written twice.

/// Makes decisions. The first of several possibilities should be the simplest, since a failing tape is shrunk
/// towards it.
pub trait Choices {
    /// A number below another, or zero when that is zero.
    fn below(&mut self, limit: usize) -> usize;
}

/// Decisions from a seed.
#[derive(Debug, Clone)]
pub struct Dice(fastrand::Rng);

impl Dice {
    /// The same seed makes the same decisions.
    pub fn new(seed: u64) -> Dice {
        Dice(fastrand::Rng::with_seed(seed))
    }

    /// Dice of their own for a part of the run, so that what one part asks does not change another's answers.
    #[must_use]
    pub fn split(&mut self) -> Dice {
        Dice(self.0.fork())
    }
}

impl Choices for Dice {
    fn below(&mut self, limit: usize) -> usize {
        if limit == 0 { 0 } else { self.0.usize(..limit) }
    }
}

/// Decisions that are written down; zeros when they are used up.
#[derive(Debug, Clone)]
pub struct Tape(std::vec::IntoIter<u16>);

impl Tape {
    /// These decisions.
    pub fn new(decisions: Vec<u16>) -> Tape {
        Tape(decisions.into_iter())
    }
}

impl Choices for Tape {
    /// In proportion, so that a smaller number on the tape is an earlier possibility.
    fn below(&mut self, limit: usize) -> usize {
        usize::from(self.0.next().unwrap_or(0)) * limit / (usize::from(u16::MAX) + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Draw;
    use super::*;

    #[test]
    fn choices_stay_below_and_the_smallest_is_the_first() {
        let mut tape = Tape::new(vec![u16::MAX, 0, u16::MAX / 2]);
        assert_eq!([tape.below(10), tape.below(10), tape.below(10), tape.below(10)], [9, 0, 4, 0]);
        let mut dice = Dice::new(7);
        assert!((0..1_000).all(|_| dice.below(3) < 3) && dice.below(0) == 0);
        assert!((0..1_000).all(|_| Draw::new(&mut dice).weighted(&[1, 0, 2]) != 1));
        assert_eq!(Dice::new(7).split().below(1 << 30), Dice::new(7).split().below(1 << 30));
    }
}
