//! Readers.

use std::time::Duration;

use watchkeep::Revision;

use super::plan::{Pace, WatchPlan};
use super::stage::{Phase, Stage};
use crate::ops::{Dice, Draw};
use crate::record::{Beginning, End, Heard, Note, Recording, Source, Span, WatchSpec};
use crate::surface::{Next, Stream, Wait};

/// How long a stream of a closed store may take to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// One of so many events is looked up in the store.
const LOOKED_UP: usize = 12;

/// A stream under way, and what it was told so far.
#[derive(Debug)]
pub(super) struct Seat {
    stream: Box<dyn Stream>,
    recording: Recording,
    pace: Pace,
    handle: usize,
    leaves: Option<usize>,
    /// When it is read next.
    next: u64,
    generation: usize,
}

impl Seat {
    pub(super) fn take(stage: &Stage, name: &str, plan: &WatchPlan) -> Option<Seat> {
        let (stream, recording) = begin(stage, name.to_owned(), plan.spec.clone(), plan.handle)?;
        let (pace, handle, leaves) = (plan.pace, plan.handle, plan.leaves);
        Some(Seat { stream, recording, pace, handle, leaves, next: plan.from, generation: 0 })
    }

    /// Reads on, without waiting, as far as there is something and patience.
    pub(super) fn read(&mut self, stage: &Stage, most: usize, dice: &mut Dice) {
        for _ in 0..most {
            if !self.one(stage, Wait::No, dice) {
                return;
            }
        }
    }

    /// The next item; whether there was one.
    pub(super) fn one(&mut self, stage: &Stage, wait: Wait, dice: &mut Dice) -> bool {
        let (next, span) = stage.ticker.span(|| self.stream.next(wait));
        let note = match next {
            Next::Note(note) => note,
            Next::Empty if wait == Wait::No => Note::Empty,
            Next::Empty | Next::Pending | Next::Ended => return false,
        };
        let mut heard = Heard { note, span, reading: None };
        match &heard.note {
            Note::Event(_) if Draw::new(dice).one_in(LOOKED_UP) => {
                let namespace = self.recording.spec.want.namespace.clone();
                stage.look_up(self.handle, &mut heard, namespace.as_deref());
            }
            Note::Lagged(_) | Note::Reset => {
                let floor = stage.handle(self.handle).and_then(|handle| handle.oldest().ok());
                heard.reading = Some(crate::record::Reading { floor, ..Default::default() });
            }
            _ => {}
        }
        let anew = heard.note == Note::Reset && self.recording.is_begun();
        let had = heard.note != Note::Empty;
        let heards = &mut self.recording.heard;
        match heards.last_mut() {
            // Only the last of several times that there was nothing tells something.
            Some(last) if !had && last.note == Note::Empty => *last = heard,
            _ => heards.push(heard),
        }
        if anew {
            self.begin_anew(stage, span);
        }
        had
    }

    /// The stream begins again, with a snapshot: what was told so far is a recording by itself.
    fn begin_anew(&mut self, stage: &Stage, armed: Span) {
        let old = &self.recording;
        let spec = WatchSpec { beginning: Beginning::Snapshot, ..old.spec.clone() };
        let recording = Recording {
            name: format!("{} anew", old.name),
            spec,
            armed,
            start: old.position(),
            heard: Vec::new(),
            ..*old
        };
        let old = std::mem::replace(&mut self.recording, recording);
        stage.records().recordings.push(Recording { end: End::Left(stage.ticker.now()), ..old });
    }

    /// Reads when it is time to, and goes and comes again when it is time for that.
    fn serve(&mut self, stage: &Stage, beat: u64, dice: &mut Dice) {
        if let Pace::Every(beats, items) = self.pace
            && beat >= self.next
        {
            self.read(stage, items, dice);
            self.next = beat + beats;
        }
        self.come_and_go(stage, dice);
    }

    fn come_and_go(&mut self, stage: &Stage, dice: &mut Dice) {
        if self.leaves.is_none_or(|leaves| self.recording.heard.len() < leaves) {
            return;
        }
        let mut draw = Draw::new(dice);
        let beginning = match draw.below(4) {
            0 => Beginning::Now,
            1 => Beginning::Snapshot,
            // Where the one before was, or, sometimes, anywhere.
            2 => Beginning::After(Revision::new(draw.below(200).try_into().unwrap_or(0))),
            _ => Beginning::After(self.recording.position()),
        };
        let spec = WatchSpec { beginning, ..self.recording.spec.clone() };
        self.generation += 1;
        let base = self.recording.name.split('+').next().unwrap_or_default();
        let name = format!("{base}+{}", self.generation);
        let Some((stream, recording)) = begin(stage, name, spec, self.handle) else { return };
        let old = std::mem::replace(&mut self.recording, recording);
        drop(std::mem::replace(&mut self.stream, stream));
        stage.records().recordings.push(Recording { end: End::Left(stage.ticker.now()), ..old });
    }

    pub(super) fn recording(&self) -> &Recording {
        &self.recording
    }

    /// Goes away from a stream that was read up to this revision, and to all that was committed before it.
    pub(super) fn leave(self, stage: &Stage, last: Revision) {
        stage.records().recordings.push(Recording { end: End::Drained(last), ..self.recording });
    }

    /// Reads to the end of a stream whose store is closed, after everything up to a revision was committed.
    pub(super) fn drain(mut self, stage: &Stage, last: Revision, dice: &mut Dice) {
        loop {
            let before = self.recording.heard.len();
            if !self.one(stage, Wait::Most(PATIENCE), dice) {
                break;
            }
            // A stream that fails for ever is no stream.
            let failed = |heard: &Heard| matches!(heard.note, Note::Failed(_));
            if self
                .recording
                .heard
                .get(before.saturating_sub(8)..)
                .is_some_and(|last| last.len() > 8 && last.iter().all(failed))
            {
                break;
            }
        }
        if self.stream.next(Wait::No) != Next::Ended {
            let (span, note) = (stage.ticker.span(|| ()).1, Note::Failed("it does not end".to_owned()));
            self.recording.heard.push(Heard { note, span, reading: None });
        }
        let cut_off = |heard: &Heard| matches!(heard.note, Note::Closed | Note::Interrupted);
        let cut_off = self.recording.heard.iter().any(cut_off);
        let end = if cut_off { End::Left(stage.ticker.now()) } else { End::Drained(last) };
        let dropped = self.stream.dropped();
        stage.records().recordings.push(Recording { dropped, end, ..self.recording });
    }
}

fn begin(
    stage: &Stage,
    name: String,
    spec: WatchSpec,
    handle: usize,
) -> Option<(Box<dyn Stream>, Recording)> {
    let surface = stage.handle(handle)?;
    let (stream, armed) = stage.ticker.span(|| surface.watch(&spec));
    let stream = match stream {
        Ok(stream) => stream,
        Err(fault) => {
            // Who comes when the store closes is refused for that, and stays with the stream that it has. Over a wire the
            // stream may just end, or all servers are gone.
            let told = fault.to_string();
            let closed = ["the store is closed", "it does not begin: End", "there is no server"];
            let is_closed = closed.iter().any(|it| told.contains(it));
            if !(is_closed && stage.phase() == Phase::Closed) {
                stage.fault(format!("{name} is refused: {fault}"));
            }
            return None;
        }
    };
    let recording = Recording {
        name,
        spec,
        source: Source::Watcher,
        hub: stage.first_hub + handle,
        armed,
        start: stream.start(),
        heard: Vec::new(),
        dropped: 0,
        end: End::Left(armed.returned),
    };
    Some((stream, recording))
}

/// Serves several streams, each at its pace, until the writers are done; what is left to be drained.
pub(super) fn desk(stage: &Stage, plans: &[(String, WatchPlan)], dice: &mut Dice) -> Vec<Seat> {
    let mut waiting: Vec<&(String, WatchPlan)> = plans.iter().collect();
    let (mut seats, mut beat): (Vec<Seat>, u64) = (Vec::new(), 0);
    loop {
        let (reached, phase) = stage.reached(beat);
        waiting.retain(|(name, plan)| {
            let later = plan.from > reached && phase == Phase::Running;
            if !later {
                seats.extend(Seat::take(stage, name, plan));
            }
            later
        });
        if phase != Phase::Running {
            return seats;
        }
        seats.iter_mut().for_each(|seat| seat.serve(stage, reached, dice));
        beat = reached + 1;
    }
}

/// Reads a stream as it comes, until the store is closed.
pub(super) fn wait(stage: &Stage, name: &str, plan: &WatchPlan, dice: &mut Dice) -> Option<Seat> {
    stage.reached(plan.from);
    let mut seat = Seat::take(stage, name, plan)?;
    loop {
        let had = seat.one(stage, Wait::Most(PATIENCE), dice);
        if stage.phase() == Phase::Closed {
            return Some(seat);
        }
        if had && stage.phase() == Phase::Running {
            seat.come_and_go(stage, dice);
        }
    }
}
