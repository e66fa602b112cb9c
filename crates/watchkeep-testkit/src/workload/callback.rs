//! Callbacks: they record, and some write back, go by themselves, or panic.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use watchkeep::{LagPolicy, Revision};

use super::stage::Stage;
use super::writer::write;
use crate::ops::{Condition, Op, Place, Step, Ttl, Write};
use crate::record::{Beginning, End, Heard, Moment, Note, Recording, Source, Span, Want, WatchSpec};
use crate::surface::Registered;

/// What a callback does besides recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Habit {
    /// Nothing.
    Quiet,
    /// It writes, sometimes.
    WritesBack,
    /// It panics, sometimes.
    Panics,
    /// It unregisters itself after so many events.
    Goes(usize),
}

/// What it was told, and its registration.
#[derive(Debug, Default)]
struct Told {
    heard: Vec<Heard>,
    registered: Option<Box<dyn Registered>>,
    left: Option<Moment>,
}

/// A registered callback.
#[derive(Debug)]
pub(super) struct Listener {
    told: Arc<Mutex<Told>>,
    recording: Recording,
}

/// Registers a callback on a handle.
pub(super) fn listen(
    stage: &Arc<Stage>,
    name: &str,
    number: usize,
    want: &Want,
    habit: Habit,
) -> Option<Listener> {
    let told: Arc<Mutex<Told>> = Arc::default();
    let handle = stage.handle(number)?;
    // Neither the store nor the stage may be kept alive by what they keep alive.
    let (weak_stage, weak_told): (Weak<Stage>, Weak<Mutex<Told>>) =
        (Arc::downgrade(stage), Arc::downgrade(&told));
    let (prefix, mut count) = (name.to_owned(), 0_usize);
    let callback = Box::new(move |note: Note| {
        let (Some(stage), Some(told)) = (weak_stage.upgrade(), weak_told.upgrade()) else { return };
        let called = stage.ticker.now();
        count += 1;
        let (cause, origin) = match &note {
            Note::Event(seen) => (Some(seen.revision), seen.origin.clone().unwrap_or_default()),
            _ => (None, String::new()),
        };
        // What callbacks wrote is not answered: it would never end.
        if habit == Habit::WritesBack && count.is_multiple_of(9) && !origin.starts_with("callback") {
            let place = Place { group: "callbacks".to_owned(), key: prefix.clone() };
            let (value, ttl, condition) = (format!("{count}").into(), Ttl::Clear, Condition::Always);
            let op = Op::Write(Write::Set { place, value, ttl, condition, content_type: None });
            write(&stage, number, &Step::whole(op), &format!("{prefix}.{count}"), cause);
        }
        let goes = habit == Habit::Goes(count);
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        let registered = if goes { told.registered.take() } else { None };
        if let Some(registered) = registered {
            told.left = Some(stage.ticker.now());
            registered.unregister();
        }
        told.heard.push(Heard { note, span: Span { called, returned: stage.ticker.now() }, reading: None });
        drop(told);
        if habit == Habit::Panics && count.is_multiple_of(7) {
            // Without the hook, which would print it.
            std::panic::resume_unwind(Box::new("as planned"));
        }
    });
    let (registered, armed) = stage.ticker.span(|| handle.on_change(want, callback));
    told.lock().unwrap_or_else(PoisonError::into_inner).registered = registered;
    let spec =
        WatchSpec { beginning: Beginning::Now, policy: LagPolicy::CatchUp, ..WatchSpec::new(want.clone()) };
    let recording = Recording {
        name: name.to_owned(),
        spec,
        source: Source::Callback,
        hub: stage.first_hub + number,
        armed,
        start: Revision::ZERO,
        heard: Vec::new(),
        dropped: 0,
        end: End::Left(armed.returned),
    };
    Some(Listener { told, recording })
}

impl Listener {
    /// What it was told, after the store was closed.
    pub(super) fn leave(self, stage: &Stage, last: Revision) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let end = told.left.map_or(End::Drained(last), End::Left);
        let (heard, registered) = (std::mem::take(&mut told.heard), told.registered.take());
        drop(told);
        drop(registered);
        stage.records().recordings.push(Recording { heard, end, ..self.recording });
    }
}
