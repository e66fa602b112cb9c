//! What was written to the source after a pass. Its history says which entries changed, and the source what they are now:
//! what changed meanwhile once more is said later in the history as well, so in the end the two agree.

use std::collections::BTreeSet;

use indicatif::ProgressBar;
use watchkeep::{ErrorKind, Event, Filter, Revision};

use super::changes::{Change, Changes};
use super::{Migration, PASSES, progress};
use crate::exit::{FAILURE, Failure, Result};

/// How many rows of the log are read at once.
const ROWS: usize = 1_000;

impl Migration {
    /// Follows the source until the target is hardly behind; up to where it has come.
    pub(super) fn catch_up(&mut self, after: Revision) -> Result<Revision> {
        self.follow(after, None)
    }

    /// Follows the source up to a revision, after which there is nothing: it is sealed.
    pub(super) fn follow_to(&mut self, after: Revision, end: Revision) -> Result<Revision> {
        self.follow(after, Some(end))
    }

    fn follow(&mut self, mut after: Revision, end: Option<Revision>) -> Result<Revision> {
        let bar = progress("following", None, "events");
        let mut passes = 0;
        loop {
            match self.follow_log(&mut after, end, &bar) {
                Err(Failure::Store(error)) if error.kind() == ErrorKind::Lagged => {
                    passes += 1;
                    if passes > PASSES {
                        let what = "the source trims its history faster than it can be followed; raise its retention (min_events), then go on with --resume";
                        return Err(Failure::new(FAILURE, what));
                    }
                    let snapshot = self.source.snapshot()?;
                    let total = snapshot.count_all("")?;
                    after = self.pass(&snapshot, total)?;
                }
                Err(failure) => return Err(failure),
                Ok(()) => {
                    bar.finish_and_clear();
                    return Ok(after);
                }
            }
        }
    }

    fn follow_log(&mut self, after: &mut Revision, end: Option<Revision>, bar: &ProgressBar) -> Result<()> {
        let mut changes = Changes::new(&self.target);
        loop {
            self.go_on()?;
            let cursor = (*after > Revision::ZERO).then(|| self.source.cursor(*after));
            let page = self.source.changes(Filter::everything(), cursor, ROWS)?;
            let events = page.events.len();
            self.write(&page.events, &mut changes)?;
            *after = page.next.revision();
            bar.inc(u64::try_from(events).unwrap_or(u64::MAX));
            self.summary.followed += u64::try_from(events).unwrap_or(u64::MAX);
            // Whoever writes all the time is never quite caught up with: what there was is enough.
            if page.next == page.end || end.is_some_and(|end| *after >= end) {
                return Ok(());
            }
        }
    }

    /// Writes what the entries of these events are now.
    fn write(&self, events: &[Event], changes: &mut Changes<'_>) -> Result<()> {
        let mut touched = BTreeSet::new();
        for event in events {
            match event.key() {
                Some(key) => drop(touched.insert((event.group(), key))),
                None => {
                    let group = event.group();
                    touched.retain(|(touched, _)| *touched != group);
                    self.write_now(&mut touched, changes)?;
                    changes.push(Change::DeleteGroup { group: group.to_owned() })?;
                }
            }
        }
        self.write_now(&mut touched, changes)?;
        changes.flush()
    }

    fn write_now(&self, touched: &mut BTreeSet<(&str, &str)>, changes: &mut Changes<'_>) -> Result<()> {
        for (group, key) in std::mem::take(touched) {
            let (group, key) = (group.to_owned(), key.to_owned());
            changes.push(match self.source.entry(&group, &key)? {
                Some(entry) => Change::Set { group, entry },
                None => Change::Delete { group, key },
            })?;
        }
        Ok(())
    }
}
