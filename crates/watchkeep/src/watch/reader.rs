//! A watcher's reader: takes from the inbox what the hub put there, and reads the log where the hub did not.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use crate::engine::floors::Floor;
use crate::types::error::{Error, ErrorKind, Reason};
use crate::types::event::{Change, Event, Item, Lagged};
use crate::types::revision::Revision;
use crate::types::watching::LagPolicy;

use super::hub::Hub;
use super::inbox::{Buffer, Inbox, Mode, Shape};
use super::load::{Loaded, Request};
use super::log_cache::Segment;
use super::snapshot::Walk;

/// What a reader does when there is nothing for it.
pub(super) enum Patience<'a> {
    None,
    Until(Option<Instant>),
    Woken(&'a Waker),
}

/// What a reader comes to.
pub(super) enum Step {
    Item(Item),
    Failed(Error),
    /// Nothing now.
    Empty,
    /// Nothing any more.
    Ended,
    /// Something must be fetched from the file first.
    Load(Request),
}

/// How far the reader is with a snapshot.
enum Snapshot {
    /// There is none, or all of it was given.
    Past,
    Walks(Box<Walk>),
    /// The walk is where the next part is fetched.
    Away,
}

/// The reader's own part of a watch.
pub(super) struct Reader {
    pub(super) inbox: Arc<Inbox>,
    /// Items that were read from the log, or of the snapshot, and not handed out yet; at most a buffer's worth, or what
    /// one step of the snapshot gave.
    ahead: VecDeque<Item>,
    snapshot: Snapshot,
    /// After a snapshot keeps in the log what is still to be read, until the hub feeds this watcher.
    floor: Option<Floor>,
    /// An event that waits for its previous value, and one that has it.
    incomplete: Option<Event>,
    complete: Option<Event>,
    failed: bool,
}

impl Reader {
    pub(super) fn new(inbox: Arc<Inbox>, from_snapshot: bool) -> Reader {
        let snapshot = if from_snapshot { Snapshot::Walks(Box::default()) } else { Snapshot::Past };
        Reader {
            inbox,
            ahead: VecDeque::new(),
            snapshot,
            floor: None,
            incomplete: None,
            complete: None,
            failed: false,
        }
    }

    /// The next item, fetching what is needed.
    pub(super) fn next(&mut self, hub: &Hub, patience: &Patience<'_>) -> Step {
        loop {
            match self.step(hub, patience) {
                Step::Load(request) => {
                    let loaded = request.load(&*hub.engine, &hub.log, &self.inbox.shape);
                    if let Err(error) = self.absorb(hub, loaded) {
                        return Step::Failed(error);
                    }
                }
                step => return step,
            }
        }
    }

    /// One step, which does no I/O.
    pub(super) fn step(&mut self, hub: &Hub, patience: &Patience<'_>) -> Step {
        let step = self.advance(hub, patience);
        if let Step::Item(item) = &step
            && !self.inbox.shape.calls_back
        {
            hub.tally.hand_out(item, |after, upto| hub.engine.distance(after, upto));
        }
        step
    }

    fn advance(&mut self, hub: &Hub, patience: &Patience<'_>) -> Step {
        if let Some(event) = self.complete.take() {
            return Step::Item(Item::Event(event));
        }
        let step = self.take(hub, patience);
        let Step::Item(item) = step else { return step };
        if self.inbox.shape.progress.is_some() {
            self.inbox.lock().active_at = hub.clock.now();
        }
        match item {
            Item::Event(event) if self.inbox.shape.previous_values => match event.previous_revision() {
                Some(previous) => {
                    self.incomplete = Some(event);
                    Step::Load(Request::Previous(previous))
                }
                None => Step::Item(Item::Event(event)),
            },
            item => Step::Item(item),
        }
    }

    fn take(&mut self, hub: &Hub, patience: &Patience<'_>) -> Step {
        if let Some(item) = self.ahead.pop_front() {
            return Step::Item(item);
        }
        if self.failed {
            return Step::Ended;
        }
        if self.floor.is_some() && !self.inbox.lock().mode.needs_log() {
            self.floor = None;
        }
        let inbox = self.inbox.clone();
        let mut state = inbox.lock();
        if !matches!(self.snapshot, Snapshot::Past) {
            if state.ended.is_none() {
                drop(state);
                return match std::mem::replace(&mut self.snapshot, Snapshot::Away) {
                    Snapshot::Walks(walk) => Step::Load(Request::Snapshot(walk)),
                    _ => Step::Failed(self.died()),
                };
            }
            self.failed = true;
            let stopped = state.mode == Mode::Live;
            return match state.fault.take() {
                Some(fault) => Step::Failed(fault),
                None if stopped => Step::Ended,
                None => Step::Failed(Reason::Closed.into()),
            };
        }
        loop {
            if let Mode::Joining { after, at } = state.mode {
                if after < at {
                    return Step::Load(Request::Log(after));
                }
                state.mode = Mode::Live;
            }
            if let Some(event) = state.buffer.pop() {
                return Step::Item(Item::Event(event));
            }
            match (state.mode, state.ended) {
                (Mode::Lagging { after }, end) if end.is_none_or(|end| after < end) => {
                    return Step::Load(Request::Log(after));
                }
                (_, Some(_)) => {
                    return state.fault.take().map_or(Step::Ended, |fault| {
                        self.failed = true;
                        Step::Failed(fault)
                    });
                }
                (_, None) => {}
            }
            if std::mem::take(&mut state.progress_due) {
                drop(state);
                match hub.progress_of(&inbox) {
                    Some(seen) => return Step::Item(Item::Progress(seen)),
                    None => state = inbox.lock(),
                }
                continue;
            }
            state = match patience {
                Patience::None => return Step::Empty,
                Patience::Woken(waker) => {
                    state.wake_later(waker);
                    return Step::Empty;
                }
                Patience::Until(deadline) => match inbox.wait(state, *deadline) {
                    Some(state) => state,
                    None => return Step::Empty,
                },
            };
        }
    }

    /// Takes in what was fetched. An error does not end the watch, unless the store is closed.
    pub(super) fn absorb(&mut self, hub: &Hub, loaded: Loaded) -> Result<(), Error> {
        match loaded {
            Loaded::Previous(change) => {
                let value = change.and_then(|change| change.value.clone());
                self.complete = self.incomplete.take().map(|event| match value {
                    Some(value) => event.with_previous_value(value),
                    None => event,
                });
                Ok(())
            }
            Loaded::Snapshot(items, mut walk) => {
                let ready = walk.ready;
                if ready.is_some() {
                    self.floor = walk.floor.take();
                }
                self.snapshot = Snapshot::Walks(walk);
                let items = items.inspect_err(|error| self.give_up(error))?;
                self.ahead.extend(items);
                if let Some(ready) = ready {
                    self.snapshot = Snapshot::Past;
                    self.move_to(ready);
                }
                Ok(())
            }
            Loaded::Log(segment) => {
                let segment = segment.inspect_err(|error| self.give_up(error))?;
                self.read_on(hub, &segment);
                Ok(())
            }
            #[cfg(feature = "async")]
            Loaded::Died => Err(self.died()),
        }
    }

    /// Who fetched something panicked, and what it held is lost: the watch cannot go on.
    fn died(&mut self) -> Error {
        self.failed = true;
        Reason::WorkerDied { what: "a watcher's read" }.into()
    }

    /// After the close, without the file, or where only a newer release can read on, nothing gets better by trying again.
    fn give_up(&mut self, error: &Error) {
        let is_final = matches!(error.kind(), ErrorKind::Replaced | ErrorKind::NewerFormat);
        self.failed = self.inbox.lock().ended.is_some() || is_final;
    }

    /// The revision up to which the log was read.
    fn move_to(&self, to: Revision) {
        let mut state = self.inbox.lock();
        match &mut state.mode {
            Mode::Lagging { after } | Mode::Joining { after, .. } => *after = to,
            Mode::Live => {}
        }
    }

    /// After the loss of everything up to a revision: goes on with a snapshot, if that is asked for and can be had.
    fn begin_again(&mut self, lost: Revision) -> bool {
        let mut state = self.inbox.lock();
        if !self.inbox.shape.snapshot_after_loss || state.ended.is_some() {
            return false;
        }
        // The snapshot has what the hub put into the buffer meanwhile.
        state.fall_behind(lost);
        drop(state);
        self.move_to(lost);
        self.snapshot = Snapshot::Walks(Box::default());
        true
    }

    /// Takes a buffer's worth out of a page of the log.
    fn read_on(&mut self, hub: &Hub, segment: &Segment) {
        let (after, upto) = {
            let state = self.inbox.lock();
            match state.mode {
                Mode::Lagging { after } => (after, state.ended),
                Mode::Joining { after, at } => (after, Some(at)),
                Mode::Live => return,
            }
        };
        let end = |revision: Revision| upto.map_or(revision, |upto| revision.min(upto));
        let mut reached = after;
        if segment.page.trimmed > after {
            let (from, to) = (after.next().unwrap_or(after), end(segment.page.trimmed));
            self.ahead.push_back(Item::Lagged(Lagged { from, to }));
            self.floor = None;
            reached = to;
            if self.begin_again(to) {
                return;
            }
        }
        let begin = segment.page.changes.partition_point(|change| change.revision <= reached);
        let changes = segment.page.changes.get(begin..).unwrap_or_default();
        let within = |change: &&Arc<Change>| upto.is_none_or(|upto| change.revision <= upto);
        let (shape, mut room, mut full) = (&self.inbox.shape, Buffer::default(), false);
        let wanted = wanted(shape, changes.iter().take_while(within));
        for (change, wanted) in changes.iter().zip(wanted) {
            full = wanted && !room.push(shape, shape.event(change));
            if full {
                break;
            }
            reached = change.revision;
        }
        if !full {
            reached = reached.max(end(segment.next));
        }
        self.ahead.extend(std::iter::from_fn(|| room.pop()).map(Item::Event));
        self.move_to(reached);
        if let Some(floor) = &self.floor {
            floor.raise(reached);
        }
        if upto.is_none() && !full {
            hub.join(&self.inbox, reached);
        }
    }
}

/// Which of a page's changes the reader wants: those that match; under `Latest` only the newest of each key, and none
/// that the deletion of its group makes stale.
fn wanted<'c>(shape: &Shape, changes: impl Iterator<Item = &'c Arc<Change>>) -> Vec<bool> {
    let changes: Vec<_> = changes.collect();
    let mut wanted: Vec<_> = changes.iter().map(|change| shape.filter.matches_change(change)).collect();
    if shape.policy == LagPolicy::Latest {
        let (mut newer, mut deleted) = (HashSet::new(), HashSet::new());
        for (change, wanted) in changes.into_iter().zip(&mut wanted).rev().filter(|(_, wanted)| **wanted) {
            let newest = newer.insert((&change.group, &change.key));
            *wanted = newest && !deleted.contains(&change.group);
            if change.key.is_none() {
                deleted.insert(&change.group);
            }
        }
    }
    wanted
}
