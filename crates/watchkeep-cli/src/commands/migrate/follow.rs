//! What was written to the source after a pass. Its history says which entries changed, and the source what they are now:
//! what changed meanwhile once more is said later in the history as well, so in the end the two agree.

use std::collections::BTreeMap;

use indicatif::ProgressBar;
use watchkeep::{ChangePage, ErrorKind, Event, Filter, Kind, Revision, Timestamp};

use super::changes::{Change, Changes, State};
use super::{Migration, PASSES, progress};
use crate::exit::{FAILURE, Failure, Result};

/// How many rows of the log are read at once.
const ROWS: usize = 1_000;

/// How often what was written during the last round is followed in another one.
const ROUNDS: u32 = 10;

/// What became of the keys of a page that have an event there, by group and key.
type Touched<'e> = BTreeMap<(&'e str, &'e str), Last>;

/// What the last events of a key made of it.
#[derive(Debug)]
enum Last {
    Gone,
    Set(State),
    /// It was set before these events, and has another deadline.
    Touched(Option<Timestamp>),
}

impl Last {
    fn then(self, event: &Event) -> Last {
        let deadline = event.deadline();
        match (event.kind(), event.value(), self) {
            (Kind::Set, Some(value), _) => {
                let content_type = event.content_type().map(str::to_owned);
                Last::Set(State { value: value.clone(), content_type, deadline })
            }
            (Kind::Touch, _, Last::Set(state)) => Last::Set(State { deadline, ..state }),
            (Kind::Touch, ..) => Last::Touched(deadline),
            _ => Last::Gone,
        }
    }
}

impl Migration {
    /// Follows the source until the target is hardly behind; up to where it has come.
    pub(super) fn catch_up(&mut self, mut after: Revision) -> Result<Revision> {
        let mut distance = u64::MAX;
        for _ in 0..ROUNDS {
            let end = self.source.last_revision()?;
            let left = end.get().saturating_sub(after.get());
            // A source that is faster than this is never caught up with: the rest is followed once it is sealed.
            if left == 0 || left >= distance {
                break;
            }
            distance = left;
            after = self.follow(after, end, false)?;
        }
        Ok(after)
    }

    /// Follows the source up to a revision, after which there is nothing: it is sealed.
    pub(super) fn follow_to(&mut self, after: Revision, end: Revision) -> Result<Revision> {
        self.follow(after, end, true)
    }

    fn follow(&mut self, mut after: Revision, end: Revision, is_sealed: bool) -> Result<Revision> {
        let bar = progress("following", None, "events");
        let mut passes = 0;
        while !self.follow_log(&mut after, end, is_sealed, &bar)? {
            passes += 1;
            if passes > PASSES {
                let what = "the source trims its history faster than it can be followed; raise its retention (min_events), then go on with --resume";
                return Err(Failure::new(FAILURE, what));
            }
            let snapshot = self.source.snapshot()?;
            let total = snapshot.count_all("")?;
            after = self.pass(&snapshot, total)?;
        }
        bar.finish_and_clear();
        Ok(after)
    }

    /// Whether it has come to the end: otherwise the source has trimmed what was to be followed.
    fn follow_log(
        &mut self,
        after: &mut Revision,
        end: Revision,
        is_sealed: bool,
        bar: &ProgressBar,
    ) -> Result<bool> {
        // A page may reach past the end, and what is new there is followed as well.
        while *after < end {
            self.go_on()?;
            let Some(page) = self.page(*after)? else { return Ok(false) };
            self.write(&page.events, is_sealed)?;
            *after = page.next.revision();
            let events = u64::try_from(page.events.len()).unwrap_or(u64::MAX);
            bar.inc(events);
            self.summary.followed += events;
            if page.next == page.end {
                break;
            }
        }
        Ok(true)
    }

    /// What follows a revision; none when some of it is trimmed.
    fn page(&self, after: Revision) -> Result<Option<ChangePage>> {
        let cursor = (after > Revision::ZERO).then(|| self.source.cursor(after));
        // New deadlines as well, which are told to nobody who does not ask.
        match self.source.changes(Filter::everything().kinds(Kind::ALL), cursor, ROWS) {
            // Without a cursor it begins wherever the log does.
            Ok(page) if cursor.is_none() && page.floor.revision() > after => Ok(None),
            Err(error) if error.kind() == ErrorKind::Lagged => Ok(None),
            page => Ok(Some(page?)),
        }
    }

    /// Writes what the entries of these events are now.
    fn write(&mut self, events: &[Event], is_sealed: bool) -> Result<()> {
        let mut ending = std::mem::take(&mut self.ending);
        let mut changes = Changes::new(&self.target, &self.mark).noting(is_sealed.then_some(&mut ending));
        let mut touched = Touched::new();
        for event in events {
            match event.key() {
                Some(key) => {
                    let last = touched.entry((event.group(), key)).or_insert(Last::Gone);
                    *last = std::mem::replace(last, Last::Gone).then(event);
                }
                None => {
                    let group = event.group();
                    touched.retain(|(touched, _), _| *touched != group);
                    self.write_now(&mut touched, is_sealed, &mut changes)?;
                    changes.push(Change::DeleteGroup { group: group.to_owned() })?;
                }
            }
        }
        self.write_now(&mut touched, is_sealed, &mut changes)?;
        changes.flush()?;
        self.ending = ending;
        Ok(())
    }

    fn write_now(&self, touched: &mut Touched<'_>, is_sealed: bool, changes: &mut Changes<'_>) -> Result<()> {
        for ((group, key), last) in std::mem::take(touched) {
            let state = match self.source.entry(group, key)? {
                Some(entry) => Some(entry.into()),
                None if is_sealed => self.came_due(group, key, last)?,
                None => None,
            };
            let (group, key) = (group.to_owned(), key.to_owned());
            changes.push(match state {
                Some(state) => Change::Set { group, key, state },
                None => Change::Delete { group, key },
            })?;
        }
        Ok(())
    }

    /// What an entry was that is not there any more, where no event says so: it came due after the seal, and the target
    /// must have it to announce that. (Or a later page says so.)
    fn came_due(&self, group: &str, key: &str, last: Last) -> Result<Option<State>> {
        let state = match last {
            Last::Gone => None,
            Last::Set(state) => Some(state),
            Last::Touched(deadline) => {
                self.target.entry(group, key)?.map(|entry| State { deadline, ..entry.into() })
            }
        };
        Ok(state.filter(|state| state.deadline.is_some()))
    }
}
