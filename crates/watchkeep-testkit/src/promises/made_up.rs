//! Made-up logs and streams, to show that each checker can fail.

use watchkeep::{Kind, Lagged, Revision, Timestamp, Value};

use crate::record::{
    End, Evidence, Fate, Heard, Log, Note, Recording, Seen, Source, Span, Target, Want, WatchSpec, Write,
};

pub(crate) fn at(revision: u64) -> Revision {
    Revision::new(revision)
}

/// A change of key `k<revision>` in group `g`, alone in its transaction, written under the label `w<revision>`.
pub(crate) fn set(revision: u64) -> Seen {
    Seen {
        revision: at(revision),
        commit: at(revision),
        kind: Kind::Set,
        group: "g".to_owned(),
        key: Some(format!("k{revision}")),
        value: Some(Value::from(format!("v{revision}"))),
        content_type: None,
        deadline: None,
        previous: None,
        previous_value: None,
        origin: Some(format!("w{revision}")),
        timestamp: Timestamp::from_millis(1_000),
        snapshot: false,
    }
}

/// The same as part of a beginning.
pub(crate) fn initial(revision: u64) -> Seen {
    Seen { snapshot: true, ..set(revision) }
}

/// A log of such changes, the first alone, the second and third in one transaction, and so on.
pub(crate) fn log(last: u64) -> Log {
    Log::new((1..=last).map(set).collect())
}

/// Evidence with such a log, in which write r was called at tick 10 r and returned at tick 10 r + 5.
pub(crate) fn evidence(last: u64) -> Evidence {
    let write = |revision: u64| {
        let span = Span::ticks(10 * revision, 10 * revision + 5);
        let label = format!("w{revision}");
        (label.clone(), Write { label, hub: 0, span, cause: None, fate: Fate::Done(Some(at(revision))) })
    };
    Evidence { writes: (1..=last).map(write).collect(), ..Evidence::of(log(last)) }
}

/// What was heard at a tick.
pub(crate) fn heard(tick: u64, note: Note) -> Heard {
    Heard { note, span: Span::ticks(tick, tick + 1), reading: None }
}

/// A watcher of everything, made before the first write, which heard this, three ticks after the write at hand.
pub(crate) fn stream(notes: impl IntoIterator<Item = Note>) -> Recording {
    let mut tick = 3;
    let mut place = |note: Note| {
        tick = match &note {
            Note::Event(seen) if !seen.snapshot => (10 * seen.revision.get() + 3).max(tick),
            _ => tick,
        } + 1;
        heard(tick, note)
    };
    let heard: Vec<Heard> = notes.into_iter().map(&mut place).collect();
    Recording {
        name: "made up".to_owned(),
        spec: WatchSpec::new(Want::new(Target::Everything)),
        source: Source::Watcher,
        hub: 0,
        armed: Span::ticks(1, 2),
        start: Revision::ZERO,
        heard,
        dropped: 0,
        end: End::Left(crate::record::Moment::tick(u64::MAX)),
    }
}

/// A watcher of everything which heard these revisions.
pub(crate) fn stream_of(revisions: impl IntoIterator<Item = u64>) -> Recording {
    stream(revisions.into_iter().map(|revision| Note::Event(set(revision))))
}

pub(crate) fn lagged(from: u64, to: u64) -> Note {
    Note::Lagged(Lagged { from: at(from), to: at(to) })
}
