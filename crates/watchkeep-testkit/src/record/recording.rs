//! What one stream handed out, from its first call to its last.

use std::time::Duration;

use watchkeep::{Item, LagPolicy, Lagged, Revision, Timestamp, WatchOptions};

use super::moment::{Moment, Span};
use super::seen::Seen;
use super::want::Want;

/// Where a stream began.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Beginning {
    /// With what came after the call.
    #[default]
    Now,
    /// After a revision.
    After(Revision),
    /// With the current entries.
    Snapshot,
}

/// How a watch was made, as plain values that can be read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchSpec {
    /// Which events.
    pub want: Want,
    /// From where on.
    pub beginning: Beginning,
    /// What to do when it falls behind.
    pub policy: LagPolicy,
    /// How many events the buffer holds.
    pub buffer: usize,
    /// How often an idle stream asks for a mark.
    pub progress: Option<Duration>,
    /// Whether it asks for the values before.
    pub previous_values: bool,
    /// Whether it asks for no values.
    pub keys_only: bool,
}

impl WatchSpec {
    /// From now on, with 16 events of buffer, nothing lost.
    pub fn new(want: Want) -> WatchSpec {
        WatchSpec {
            want,
            beginning: Beginning::Now,
            policy: LagPolicy::CatchUp,
            buffer: 16,
            progress: None,
            previous_values: false,
            keys_only: false,
        }
    }

    /// The library's options that ask for the same.
    pub fn options(&self) -> WatchOptions {
        let options = WatchOptions::new().buffer(self.buffer).policy(self.policy);
        let options = match self.beginning {
            Beginning::Now => options,
            Beginning::After(revision) => options.after(revision),
            Beginning::Snapshot => options.snapshot(),
        };
        let options = match self.progress {
            Some(every) => options.progress(every),
            None => options,
        };
        let options = if self.previous_values { options.previous_values() } else { options };
        if self.keys_only { options.keys_only() } else { options }
    }
}

/// What a stream handed out, or did not.
#[derive(Debug, Clone, PartialEq)]
pub enum Note {
    /// A change, or an entry of the beginning.
    Event(Seen),
    /// The beginning is complete.
    Ready(Revision),
    /// Everything up to this revision was handed out.
    Progress(Revision),
    /// These revisions are lost.
    Lagged(Lagged),
    /// What was told so far is void: a snapshot follows.
    Reset,
    /// It is cut off before it has told all, and says so.
    Interrupted,
    /// Asked without waiting, it had nothing.
    Empty,
    /// The store was closed before the beginning was complete.
    Closed,
    /// An error that is not one of the above.
    Failed(String),
}

impl From<&Item> for Note {
    fn from(item: &Item) -> Note {
        match item {
            Item::Event(event) => Note::Event(event.into()),
            Item::Ready(revision) => Note::Ready(*revision),
            Item::Progress(revision) => Note::Progress(*revision),
            Item::Lagged(lagged) => Note::Lagged(*lagged),
            unknown => Note::Failed(format!("an item that the test kit does not know: {unknown:?}")),
        }
    }
}

/// What the store answered right after something was received, asked through another handle where there is one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reading {
    /// The last revision of the store, asked after the event came.
    pub last: Revision,
    /// The oldest revision that the log still held, if that was asked.
    pub floor: Option<Revision>,
    /// The revision of the event's entry, if that was asked: none when it was not there.
    pub entry: Option<Option<Revision>>,
    /// The last revision of the store, asked after the entry was read.
    pub after: Revision,
    /// The latest time that the clock may have shown.
    pub now: Timestamp,
}

/// Something heard, and when.
#[derive(Debug, Clone, PartialEq)]
pub struct Heard {
    /// What.
    pub note: Note,
    /// The call that brought it: of a callback, the run of the callback.
    pub span: Span,
    /// What the store answered then.
    pub reading: Option<Reading>,
}

impl Heard {
    /// The event, if it is one.
    pub fn event(&self) -> Option<&Seen> {
        match &self.note {
            Note::Event(seen) => Some(seen),
            _ => None,
        }
    }
}

/// Who was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A watcher.
    Watcher,
    /// A callback.
    Callback,
}

/// How a recording ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The reader went away, at this moment, with something perhaps unread.
    Left(Moment),
    /// The stream was read to its end, after everything up to this revision was committed.
    Drained(Revision),
}

/// What one watcher or callback was told.
#[derive(Debug, Clone)]
pub struct Recording {
    /// Who it is.
    pub name: String,
    /// How it was made.
    pub spec: WatchSpec,
    /// What it is.
    pub source: Source,
    /// Which opened store it hangs on: a restart opens another.
    pub hub: usize,
    /// The call that made it.
    pub armed: Span,
    /// It sees what comes after this revision. Of a callback, the last revision that is known to lie before it.
    pub start: Revision,
    /// What it heard, in order.
    pub heard: Vec<Heard>,
    /// How many events it says it dropped.
    pub dropped: u64,
    /// How it ended.
    pub end: End,
}

impl Recording {
    /// The events that are changes, not entries of the beginning, in order.
    pub fn changes(&self) -> impl Iterator<Item = &Seen> {
        self.heard.iter().filter_map(Heard::event).filter(|seen| !seen.snapshot)
    }

    /// What it says is lost.
    pub fn losses(&self) -> impl Iterator<Item = Lagged> {
        self.heard.iter().filter_map(|heard| match heard.note {
            Note::Lagged(lagged) => Some(lagged),
            _ => None,
        })
    }

    /// Whether it says that this revision is lost.
    pub fn lost(&self, revision: Revision) -> bool {
        self.losses().any(|lagged| (lagged.from..=lagged.to).contains(&revision))
    }

    /// The revision after which it owes events: where it began, or the end of the snapshot that it began with; none
    /// when it did not come so far.
    pub fn owes_after(&self) -> Option<Revision> {
        if self.spec.beginning != Beginning::Snapshot {
            return Some(self.start);
        }
        self.heard.iter().find_map(|heard| match heard.note {
            Note::Ready(revision) => Some(revision),
            _ => None,
        })
    }

    /// Whether it is past its beginning: with a snapshot, that is complete.
    pub fn is_begun(&self) -> bool {
        self.owes_after().is_some()
    }

    /// Whether it owes every event: neither `Drop` nor `Latest`.
    pub fn is_whole(&self) -> bool {
        self.spec.policy == LagPolicy::CatchUp
    }

    /// Up to where it has answered for what it did not hand out: the last revision that it was read to the end of,
    /// told of, or marked.
    pub fn position(&self) -> Revision {
        let heard = self.heard.iter().filter_map(|heard| match &heard.note {
            Note::Event(seen) if !seen.snapshot => Some(seen.revision),
            Note::Ready(revision) | Note::Progress(revision) => Some(*revision),
            Note::Lagged(lagged) => Some(lagged.to),
            _ => None,
        });
        let drained = match self.end {
            End::Drained(revision) => Some(revision),
            End::Left(_) => None,
        };
        heard.chain(drained).max().unwrap_or(Revision::ZERO).max(self.start)
    }
}
