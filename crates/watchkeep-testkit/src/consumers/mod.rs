//! What a named consumer promises, as checkers over the recorded course of its life: a name that is taken, lost, given
//! back and taken again, and what each holder was handed and could acknowledge.

mod round;

use std::collections::BTreeMap;

use watchkeep::Revision;

pub use round::{Load, round};

/// What happened to a holder, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It was handed this event.
    Handed(Revision),
    /// It acknowledged everything up to here, and that was taken.
    Acked(Revision),
    /// It acknowledged, and was told that another has the name.
    Fenced(Revision),
}

/// One taking of the name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Life {
    /// Who it was, to be shown.
    pub holder: String,
    /// Its number.
    pub fence: u64,
    /// When it took the name, in steps of the whole course.
    pub taken: u64,
    /// What happened, and when.
    pub steps: Vec<(u64, Step)>,
}

/// The whole course of a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Course {
    /// The takings, in their order.
    pub lives: Vec<Life>,
    /// The events that concern it, in the order of the log, the first of them after the place where it began.
    pub events: Vec<Revision>,
    /// Up to where everything is acknowledged in the end.
    pub acked: Revision,
    /// For which events something was written together with the acknowledgement, as the log tells it.
    pub effects: Vec<Revision>,
}

/// Something that breaks the promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whose life, or none for the course.
    pub holder: String,
    /// The revisions involved.
    pub revisions: Vec<Revision>,
    /// What is wrong.
    pub what: &'static str,
}

impl Life {
    fn finding(&self, what: &'static str, revisions: Vec<Revision>) -> Option<Finding> {
        let holder = format!("{} (number {})", self.holder, self.fence);
        (!revisions.is_empty()).then_some(Finding { holder, revisions, what })
    }

    fn handed(&self) -> Vec<Revision> {
        self.steps
            .iter()
            .filter_map(|(_, step)| match step {
                Step::Handed(revision) => Some(*revision),
                _ => None,
            })
            .collect()
    }

    /// What it acknowledged, after a moment.
    fn acked_after(&self, moment: u64) -> Vec<Revision> {
        let acked = |&(when, step): &(u64, Step)| match step {
            Step::Acked(revision) if when > moment => Some(revision),
            _ => None,
        };
        self.steps.iter().filter_map(acked).collect()
    }
}

/// Each holder is handed the events after the last acknowledgement, without a gap and in order, until it is over; an
/// acknowledgement is taken from the last holder only; and what is acknowledged in the end was handed out.
pub fn at_least_once(course: &Course) -> Vec<Finding> {
    let mut found = Vec::new();
    let (mut position, mut fence) = (Revision::ZERO, 0);
    let mut ever = Vec::new();
    for (life, next) in course.lives.iter().zip(course.lives.iter().skip(1).map(Some).chain([None])) {
        if life.fence <= fence {
            found.extend(life.finding("its number is not higher than those before", vec![position]));
        }
        fence = life.fence;
        let handed = life.handed();
        let expected = course.events.iter().copied().filter(|revision| *revision > position);
        let wrong = handed.iter().copied().zip(expected).find(|(got, wanted)| got != wanted);
        let what = "was handed the first where the second comes next after the last acknowledgement";
        found.extend(life.finding(what, wrong.map_or_else(Vec::new, |(got, wanted)| vec![got, wanted])));
        if let Some(next) = next {
            let late = life.acked_after(next.taken);
            found.extend(life.finding("was taken although another had the name by then", late));
        }
        position = life.acked_after(0).into_iter().max().map_or(position, |acked| acked.max(position));
        ever.extend(handed);
    }
    let never =
        course.events.iter().copied().filter(|it| *it <= course.acked && !ever.contains(it)).collect();
    let whole = Life { holder: "the course".to_owned(), fence, ..Life::default() };
    found.extend(whole.finding("is acknowledged in the end and was never handed out", never));
    if course.acked < position {
        let what = "was acknowledged, and is not so in the end";
        found.extend(whole.finding(what, vec![position, course.acked]));
    }
    found
}

/// What was written together with acknowledgements is there once for each event that is acknowledged, and not for others.
pub fn exactly_once(course: &Course) -> Vec<Finding> {
    let mut times: BTreeMap<Revision, usize> = BTreeMap::new();
    for effect in &course.effects {
        *times.entry(*effect).or_default() += 1;
    }
    let whole = Life { holder: "the course".to_owned(), ..Life::default() };
    let twice = times.iter().filter(|(_, times)| **times > 1).map(|(revision, _)| *revision).collect();
    let acked = |revision: &Revision| *revision <= course.acked;
    let lost = course.events.iter().copied().filter(|it| acked(it) && !times.contains_key(it)).collect();
    let early = times.keys().copied().filter(|it| !acked(it)).collect();
    [
        whole.finding("took effect more than once", twice),
        whole.finding("is acknowledged without its effect", lost),
        whole.finding("took effect and is not acknowledged", early),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(revision: u64) -> Revision {
        Revision::new(revision)
    }

    /// A life from a moment on, a tick for each step: `h3` was handed 3, `a3` acknowledged it, `f3` could not.
    fn life(fence: u64, taken: u64, steps: &str) -> Life {
        let step = |(tick, word): (u64, &str)| {
            let revision = at(word[1..].parse().unwrap());
            let step = match &word[..1] {
                "h" => Step::Handed(revision),
                "a" => Step::Acked(revision),
                _ => Step::Fenced(revision),
            };
            (tick, step)
        };
        let steps = (taken + 1..).zip(steps.split_whitespace()).map(step).collect();
        Life { holder: "made up".to_owned(), fence, taken, steps }
    }

    fn course(lives: Vec<Life>, acked: u64, effects: &[u64]) -> Course {
        let effects = effects.iter().copied().map(at).collect();
        Course { lives, events: [2, 3, 5, 8].map(at).to_vec(), acked: at(acked), effects }
    }

    fn whats(found: Vec<Finding>) -> Vec<(&'static str, Vec<u64>)> {
        found.into_iter().map(|it| (it.what, it.revisions.iter().map(|it| it.get()).collect())).collect()
    }

    #[test]
    fn what_is_not_at_least_once_is_found() {
        let lives = |first: &str, second: &str| vec![life(1, 0, first), life(4, 10, second)];
        let check = |lives, acked| whats(at_least_once(&course(lives, acked, &[])));
        assert_eq!(check(lives("h2 h3 a2", "h3 h5 h8 a8"), 8), []);
        assert_eq!(check(lives("h2 h3", "h2 h3"), 0), []);
        for (first, second, acked, revisions) in [
            ("h2 h5", "", 0, vec![5, 3]),
            ("h2 a2", "h2 h3", 2, vec![2, 3]),
            ("h2 h3 a2", "h5", 2, vec![5, 3]),
            ("h2 h3", "", 3, vec![]),
            ("h2", "", 3, vec![3]),
            ("h2 h3 a3", "", 2, vec![3, 2]),
        ] {
            let found = check(lives(first, second), acked);
            assert_eq!(
                found.iter().flat_map(|(_, it)| it.clone()).collect::<Vec<_>>(),
                revisions,
                "{first:?}"
            );
        }
        let late = vec![life(1, 0, "h2 f2 a2"), life(2, 2, "h2")];
        let late = check(late, 2);
        assert!(
            late.iter().any(|(what, it)| what.contains("another had the name") && *it == [2]),
            "{late:?}"
        );
        assert_eq!(check(vec![life(4, 0, ""), life(4, 1, "")], 0).len(), 1);
    }

    #[test]
    fn what_is_not_exactly_once_is_found() {
        let check = |acked, effects: &[u64]| whats(exactly_once(&course(Vec::new(), acked, effects)));
        assert_eq!(check(3, &[2, 3]), []);
        assert_eq!(check(4, &[2, 3]), [], "where nothing concerns it, the position moves on");
        assert_eq!(check(3, &[2, 3, 3]), [("took effect more than once", vec![3])]);
        assert_eq!(check(5, &[2, 5]), [("is acknowledged without its effect", vec![3])]);
        assert_eq!(check(2, &[2, 3]), [("took effect and is not acknowledged", vec![3])]);
    }
}
