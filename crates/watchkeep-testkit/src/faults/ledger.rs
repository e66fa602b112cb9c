//! What a store said, and when: the facts that whatever is found later must agree with.

use std::collections::BTreeMap;

use watchkeep::{Cursor, Revision, StoreId};

use crate::record::Seen;

#[derive(Debug, Clone)]
enum Fact {
    /// `open` returned a store of this identity.
    Opened(StoreId),
    /// A write returned this revision, or its event was received.
    Told(Revision),
    /// Somebody asked for everything up to this revision to be trimmed.
    Trimming(Revision),
}

/// The outcome of a write is unknown: there may be events after a revision that nobody was told of.
#[derive(Debug, Clone)]
struct Doubt {
    after: Revision,
    from: usize,
    to: usize,
}

/// What was said by a store, each fact with its place in the recording of the disk.
#[derive(Debug, Default, Clone)]
pub struct Ledger {
    /// Every event that anyone received.
    known: BTreeMap<Revision, Seen>,
    /// The cursor of every revision that anyone was told of.
    cursors: BTreeMap<Revision, Cursor>,
    told: Revision,
    facts: Vec<(usize, Fact)>,
    doubts: Vec<Doubt>,
    /// What contradicts itself.
    pub problems: Vec<String>,
}

/// What must be found at a cut.
#[derive(Debug)]
pub struct Expect<'l> {
    /// Every event that anyone ever received, later ones included.
    pub known: &'l BTreeMap<Revision, Seen>,
    /// The cursor of every revision that anyone was told of, later ones included.
    pub cursors: &'l BTreeMap<Revision, Cursor>,
    /// The last revision that was acknowledged or delivered.
    pub told: Revision,
    /// The store's identity, once its opening was acknowledged.
    pub id: Option<StoreId>,
    /// Events after this revision may be those of a write whose outcome is unknown.
    pub doubt: Option<Revision>,
    /// Up to where trimming was asked for.
    pub trimmed: Revision,
}

impl Ledger {
    /// `open` returned.
    pub fn opened(&mut self, at: usize, id: StoreId) {
        self.facts.push((at, Fact::Opened(id)));
    }

    /// A write returned a revision.
    pub fn acknowledged(&mut self, at: usize, cursor: Cursor) {
        self.tell(at, cursor);
    }

    /// Somebody received an event.
    pub fn delivered(&mut self, at: usize, event: Seen, cursor: Cursor) {
        let revision = event.revision;
        self.tell(at, cursor);
        match self.known.get(&revision) {
            Some(known) if *known != event => {
                self.problems
                    .push(format!("revision {revision} was delivered as {known:?} and as {event:?}"));
            }
            Some(_) => {}
            None => drop(self.known.insert(revision, event)),
        }
    }

    fn tell(&mut self, at: usize, cursor: Cursor) {
        let revision = cursor.revision();
        let known = *self.cursors.entry(revision).or_insert(cursor);
        if known != cursor {
            self.problems.push(format!("revision {revision} has the cursors {known} and {cursor}"));
        }
        self.told = self.told.max(revision);
        self.facts.push((at, Fact::Told(revision)));
        for doubt in self.doubts.iter_mut().filter(|doubt| doubt.to == usize::MAX && revision > doubt.after) {
            doubt.to = at;
        }
    }

    /// Somebody is about to ask for everything up to this revision to be trimmed.
    pub fn trimming(&mut self, at: usize, to: Revision) {
        self.facts.push((at, Fact::Trimming(to)));
    }

    /// A write began at this place, and its outcome is unknown.
    pub fn doubt(&mut self, from: usize) {
        self.doubts.push(Doubt { after: self.told, from, to: usize::MAX });
    }

    /// The last revision that anyone was told of.
    pub fn told(&self) -> Revision {
        self.told
    }

    /// The event of a revision, if anyone received it.
    pub fn event(&self, revision: Revision) -> Option<&Seen> {
        self.known.get(&revision)
    }

    /// All events that anyone received.
    pub fn events(&self) -> impl Iterator<Item = &Seen> {
        self.known.values()
    }

    /// What must be found after so many operations of the disk.
    pub fn expect(&self, cut: usize) -> Expect<'_> {
        let mut expect = Expect {
            known: &self.known,
            cursors: &self.cursors,
            told: Revision::ZERO,
            id: None,
            doubt: None,
            trimmed: Revision::ZERO,
        };
        for (_, fact) in self.facts.iter().filter(|(at, _)| *at <= cut) {
            match fact {
                Fact::Opened(id) => expect.id = expect.id.or(Some(*id)),
                Fact::Told(revision) => expect.told = expect.told.max(*revision),
                Fact::Trimming(to) => expect.trimmed = expect.trimmed.max(*to),
            }
        }
        let doubts = self.doubts.iter().filter(|doubt| (doubt.from..doubt.to).contains(&cut));
        expect.doubt = doubts.map(|doubt| doubt.after).min();
        expect
    }
}
