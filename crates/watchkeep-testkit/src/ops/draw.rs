//! Operations made up from choices.

use std::fmt;

use watchkeep::{Clock, Kind, ManualClock, Quota, Timestamp, Value};

use super::choices::Choices;
use super::names::{GROUPS, KEYS, NAMESPACES};
use super::{Call, Condition, Op, Place, Read, Step, Ttl, Write};
use crate::record::{Target, Want};

/// Makes operations up.
pub struct Draw<'c> {
    choices: &'c mut dyn Choices,
}

impl fmt::Debug for Draw<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draw").finish_non_exhaustive()
    }
}

impl<'c> Draw<'c> {
    /// Draws with these choices.
    pub fn new(choices: &'c mut dyn Choices) -> Draw<'c> {
        Draw { choices }
    }

    /// A number below another, or zero when that is zero.
    pub fn below(&mut self, limit: usize) -> usize {
        self.choices.below(limit)
    }

    /// Yes in one of so many cases.
    pub fn one_in(&mut self, cases: usize) -> bool {
        self.below(cases) + 1 == cases
    }

    /// One of several; the default when there is none.
    pub fn pick<T: Clone + Default>(&mut self, from: &[T]) -> T {
        let place = self.below(from.len());
        from.get(place).cloned().unwrap_or_default()
    }

    /// The place of one of several weights, as often as its weight says.
    pub fn weighted(&mut self, weights: &[usize]) -> usize {
        let mut left = self.below(weights.iter().sum());
        for (place, weight) in weights.iter().enumerate() {
            match left.checked_sub(*weight) {
                Some(rest) => left = rest,
                None => return place,
            }
        }
        0
    }

    /// An operation through some handle.
    pub fn step(&mut self) -> Step {
        let op = match self.weighted(&[40, 20, 12, 4, 4, 3, 3, 8, 2, 2]) {
            0 => Op::Write(self.write()),
            1 => Op::Read(self.read()),
            2 => self.transaction(),
            3 => Op::Snapshot((0..=self.below(4)).map(|_| self.read()).collect()),
            4 => Op::History(self.want(), u64::try_from(self.below(40)).unwrap_or(0)),
            5 => Op::PurgeExpired,
            6 => Op::Compact(self.pick(&[10, 1_000, 3, 1, 0])),
            7 => Op::Advance(self.pick(&[1, 10, 50, 100, 1_000, 60_000])),
            8 => Op::StepBack(self.pick(&[1, 50, 1_000])),
            _ => Op::Restart,
        };
        match op {
            Op::Write(_) | Op::Read(_) | Op::Transaction { .. } | Op::Batch(_) | Op::Snapshot(_) => {
                self.through(op)
            }
            _ => Step::whole(op),
        }
    }

    /// A write or a transaction through some handle.
    pub fn change(&mut self) -> Step {
        let op = if self.one_in(5) { self.transaction() } else { Op::Write(self.write()) };
        self.through(op)
    }

    fn through(&mut self, op: Op) -> Step {
        let namespace = self.one_in(3).then(|| self.pick(NAMESPACES));
        let quota = namespace.and_then(|_| self.quota());
        Step { namespace: namespace.map(str::to_owned), quota, op }
    }

    fn quota(&mut self) -> Option<Quota> {
        match self.below(6) {
            0 => None,
            1 => Some(Quota::default()),
            2 => Some(Quota { max_keys: 4, ..Quota::default() }),
            3 => Some(Quota { max_groups: 2, ..Quota::default() }),
            4 => Some(Quota { max_bytes: 64, ..Quota::default() }),
            _ => Some(Quota { max_keys: 6, max_groups: 3, max_bytes: 400 }),
        }
    }

    /// A write.
    pub fn write(&mut self) -> Write {
        match self.weighted(&[60, 15, 3, 2, 10, 6]) {
            0 => Write::Set {
                place: self.place(),
                value: self.value(),
                ttl: self.ttl(),
                condition: self.condition(),
                content_type: self.one_in(8).then(|| "text/plain".to_owned()),
            },
            1 => Write::Delete {
                place: self.place(),
                condition: match self.weighted(&[8, 1, 1]) {
                    0 => Condition::Always,
                    1 => Condition::Current,
                    _ => Condition::Stale,
                },
            },
            2 => Write::DeleteGroup(self.group()),
            3 => Write::DeletePrefix(self.prefix_of(GROUPS)),
            4 => Write::Touch(self.place(), self.millis()),
            _ => Write::Persist(self.place()),
        }
    }

    fn condition(&mut self) -> Condition {
        match self.weighted(&[12, 2, 2, 1]) {
            0 => Condition::Always,
            1 => Condition::Absent,
            2 => Condition::Current,
            _ => Condition::Stale,
        }
    }

    fn ttl(&mut self) -> Ttl {
        match self.weighted(&[12, 4, 6, 1]) {
            0 => Ttl::Clear,
            1 => Ttl::Keep,
            2 => Ttl::For(self.millis()),
            // Some seconds after a manual clock begins: it may have passed.
            _ => {
                let ahead = self.pick(&[1_000, 20_000, 70_000, 0]);
                Ttl::Until(Timestamp::from_millis(ManualClock::default().now().as_millis() + ahead))
            }
        }
    }

    fn millis(&mut self) -> u64 {
        if self.one_in(200) { 0 } else { self.pick(&[100, 1, 10, 50, 1_000, 100_000]) }
    }

    fn value(&mut self) -> Value {
        match self.weighted(&[8, 2, 1, 1, 1]) {
            0 => Value::from(self.pick(&["v", "w", "dark", "light"])),
            1 => Value::from(""),
            2 => Value::from(vec![0xff, 0, 0xfe]),
            3 => Value::from("a\0b"),
            _ => Value::from("x".repeat(self.pick(&[30, 300, 2_000, 5_000]))),
        }
    }

    /// A read.
    pub fn read(&mut self) -> Read {
        match self.weighted(&[6, 6, 2, 3, 3, 3, 4, 4, 4]) {
            0 => Read::Get(self.place()),
            1 => Read::Entry(self.place()),
            2 => Read::Contains(self.place()),
            3 => Read::RemainingTtl(self.place()),
            4 => Read::Count(self.group()),
            5 => Read::CountAll(self.prefix_of(GROUPS)),
            6 => Read::Groups(self.prefix_of(GROUPS)),
            7 => {
                let (group, prefix, after, limit) = self.listing();
                Read::Entries(group, prefix, after, limit)
            }
            _ => {
                let (group, prefix, after, limit) = self.listing();
                Read::Page(group, prefix, after, limit)
            }
        }
    }

    fn listing(&mut self) -> (String, String, Option<String>, Option<usize>) {
        let group = self.group();
        let prefix = if self.one_in(2) { self.prefix_of(KEYS) } else { String::new() };
        let after = self.one_in(3).then(|| self.key());
        let limit = self.one_in(2).then(|| self.pick(&[2, 1, 5, 0]));
        (group, prefix, after, limit)
    }

    fn transaction(&mut self) -> Op {
        let calls = (0..=self.below(5)).map(|_| match self.weighted(&[3, 1]) {
            0 => Call::Write(self.write()),
            _ => Call::Read(self.read()),
        });
        let calls: Vec<_> = calls.collect();
        let (lenient, abort) = (self.one_in(2), self.one_in(4));
        let writes = calls.iter().map(|call| match call {
            Call::Write(write) => Some(write.clone()),
            Call::Read(_) => None,
        });
        // Drawn from what is drawn already: what was found by fuzzing keeps its meaning.
        match writes.collect() {
            Some(writes) if !lenient && !abort && calls.len() % 2 == 0 => Op::Batch(writes),
            _ => Op::Transaction { calls, lenient, abort },
        }
    }

    /// A place and a filter of every shape, or a union of filters there.
    pub fn want(&mut self) -> Want {
        let place = self.place();
        // Drawn from what is drawn already, as a batch is.
        let also = also(&place);
        let Place { group, key } = place;
        let target = match self.below(9) {
            0 => Target::Everything,
            1 => Target::Group(group),
            2 => Target::GroupPrefix(self.prefix_of(GROUPS)),
            3 => Target::Key(group, key),
            4 => Target::KeyPrefix(group, self.prefix_of(KEYS)),
            5 => Target::KeyName(key),
            6 => Target::Pattern(group, "*".to_owned()),
            7 => Target::Pattern("*".to_owned(), key),
            _ => Target::Pattern(group, key),
        };
        let kinds = match self.below(5) {
            0..=2 => None,
            3 => Some(Kind::ALL.to_vec()),
            _ => Some(Kind::ALL.into_iter().filter(|_| self.one_in(2)).collect()),
        };
        Want { kinds, without_group_deletions: self.one_in(4), also, ..Want::new(target) }
    }
}

/// What a filter at a place is united with: nothing, for most places, or filters that overlap it and one another.
fn also(place: &Place) -> Vec<Want> {
    let Place { group, key } = place;
    let sum = group.bytes().chain(key.bytes()).fold(0, |sum: usize, byte| sum + usize::from(byte));
    let first = |name: &str| name.chars().take(1).collect::<String>();
    let of_key = || Want::new(Target::Key(group.clone(), key.clone()));
    let of_name = || Want::new(Target::KeyName(key.clone()));
    let near = || Want::new(Target::KeyPrefix(group.clone(), first(key)));
    match sum % 8 {
        0 => vec![of_key(), Want::new(Target::GroupPrefix(first(group)))],
        1 => vec![near(), Want { kinds: Some(vec![Kind::Delete, Kind::Touch]), ..of_key() }, of_name()],
        2 => vec![Want { without_group_deletions: true, ..of_name() }, Want::new(Target::Group(key.clone()))],
        _ => Vec::new(),
    }
}
