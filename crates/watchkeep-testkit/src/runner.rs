//! One step after another on a real store and on the model, with everything compared.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use watchkeep::{Clock, Limits, ManualClock, Options, Retention, Revision, Timestamp};

use crate::model::{Model, Prediction, agree};
use crate::ops::{Dice, Draw, Op, Outcome, Place, Read, Step, Ttl, Write};
use crate::record::{Seen, Want};
use crate::surface::{Fault, Site, Surface};

/// How often all of the store is compared with all of the model.
const WHOLE: u64 = 50;

/// The limits that the generated names and values reach.
pub const LIMITS: Limits = Limits { group: 64, key: 32, value: 4_096 };

/// A store that does not do what the model does.
#[derive(Debug, Clone)]
pub struct Mismatch {
    /// After so many steps.
    pub step: u64,
    /// The step.
    pub during: String,
    /// What is different.
    pub what: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {}: {}\n  during {}", self.step, self.what, self.during)
    }
}

impl std::error::Error for Mismatch {}

/// A real store and the model of it.
///
/// ```
/// use watchkeep::{Options, Retention};
/// use watchkeep_testkit::{runner::Runner, surface::Memory};
///
/// Runner::new(Box::new(Memory), Options::new(), Retention::FOREVER)?.run(7, 50)?;
/// # Ok::<(), watchkeep_testkit::surface::Fault>(())
/// ```
#[derive(Debug)]
pub struct Runner {
    site: Box<dyn Site>,
    options: Options,
    clock: Arc<ManualClock>,
    surface: Arc<dyn Surface>,
    model: Model,
    steps: u64,
}

impl Runner {
    /// An empty store and its model. Retention may trim what the model has seen, but no less than a few hundred
    /// events should stay, so that nothing is trimmed before it was seen.
    ///
    /// # Errors
    ///
    /// When the store cannot be opened.
    pub fn new(site: Box<dyn Site>, options: Options, retention: Retention) -> Result<Runner, Fault> {
        let clock = Arc::new(ManualClock::default());
        let options = options.limits(LIMITS).retention(retention);
        let surface = site.open(options.clone(), clock.clone())?;
        Ok(Runner { site, options, clock, surface, model: Model::new(LIMITS), steps: 0 })
    }

    /// How many steps were made.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Makes so many generated steps.
    ///
    /// # Errors
    ///
    /// The first difference.
    pub fn run(&mut self, seed: u64, steps: u64) -> Result<(), Mismatch> {
        let mut dice = Dice::new(seed);
        for _ in 0..steps {
            let step = Draw::new(&mut dice).step();
            self.step(&step)?;
        }
        self.finish()
    }

    /// Makes a step.
    ///
    /// # Errors
    ///
    /// What is different after it.
    pub fn step(&mut self, step: &Step) -> Result<(), Mismatch> {
        self.steps += 1;
        let step = self.resolve(step);
        let whole = self.steps.is_multiple_of(WHOLE);
        let result = self.attempt(&step).and_then(|()| if whole { self.compare_whole() } else { Ok(()) });
        result.map_err(|what| Mismatch { step: self.steps, during: format!("{step:?}"), what })
    }

    /// Makes a change that a failure of the disk may fall into; `heal` ends the failures, and says whether there was
    /// one. The store is opened again after one. If the change failed with it, then it has happened as a whole or not
    /// at all. The failure may have met the store's own thread first: then the change is refused, and has not happened.
    ///
    /// # Errors
    ///
    /// What is different after it.
    pub fn step_into(&mut self, step: &Step, heal: impl FnOnce() -> bool) -> Result<(), Mismatch> {
        self.steps += 1;
        let step = self.resolve(step);
        let result = self.change_into(&step, heal);
        result.map_err(|what| Mismatch { step: self.steps, during: format!("{step:?}"), what })
    }

    /// Compares all there is, now and after a restart.
    ///
    /// # Errors
    ///
    /// What is different.
    pub fn finish(&mut self) -> Result<(), Mismatch> {
        let result = self.compare_whole().and_then(|()| self.restart()).and_then(|()| self.compare_whole());
        result.map_err(|what| Mismatch { step: self.steps, during: "the end".to_owned(), what })
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn resolve(&self, step: &Step) -> Step {
        let now = self.now();
        step.clone()
            .resolved(|Place { group, key }| self.model.find(step, group, key, now).map(|cell| cell.revision))
    }

    fn attempt(&mut self, step: &Step) -> Result<(), String> {
        match &step.op {
            Op::Advance(millis) => {
                self.clock.advance(Duration::from_millis(*millis));
                self.follow_none()
            }
            Op::StepBack(millis) => self.step_back(*millis),
            Op::Restart => self.restart(),
            Op::History(want, back) => {
                let after = Revision::new(self.model.last().get().saturating_sub(*back));
                self.compare_history(want, after)
            }
            Op::PurgeExpired => self.purge(step),
            Op::Compact(keep) => self.compact(*keep),
            _ => self.plain(step),
        }
    }

    /// A step whose outcome the model predicts.
    fn plain(&mut self, step: &Step) -> Result<(), String> {
        self.follow_none()?;
        let (label, before) = (format!("s{}", self.steps), self.model.last());
        self.model.allot(step);
        let predicted = self.model.predict(step, &label, self.now());
        let actual = self.surface.perform(step, &label);
        let rows = self.new_rows()?;
        self.judge(rows, predicted, &actual, before)
    }

    /// What was logged and given must be what was predicted.
    fn judge(
        &mut self,
        rows: Vec<Seen>,
        predicted: Prediction,
        actual: &Outcome,
        before: Revision,
    ) -> Result<(), String> {
        let now = self.now();
        let expected = self.model.follow(rows, Some(predicted), now);
        let expected = expected.map_err(|what| format!("{what}\n  the call gave {actual:?}"))?;
        match expected {
            Some(expected) if !agree(&expected, actual, before, self.model.last()) => {
                Err(format!("gives    {actual:?}\n  expected {expected:?}"))
            }
            _ => Ok(()),
        }
    }

    fn change_into(&mut self, step: &Step, heal: impl FnOnce() -> bool) -> Result<(), String> {
        let (label, before) = (format!("s{}", self.steps), self.model.last());
        self.model.allot(step);
        let predicted = self.model.predict(step, &label, self.now());
        let actual = self.surface.perform(step, &label);
        let failed = heal();
        if failed {
            // What it says to a close after that is its own affair: it can be opened.
            drop(self.surface.close());
            self.surface = self.site.open(self.options.clone(), self.clock.clone()).map_err(said)?;
            self.allot_again(step)?;
        }
        let (rows, now) = (self.new_rows()?, self.now());
        if !failed || !(actual.is_of_the_disk() || actual.is_poisoned()) {
            return self.judge(rows, predicted, &actual, before);
        }
        let mut happened = self.model.clone();
        if !actual.is_poisoned() && happened.follow(rows.clone(), Some(predicted), now).is_ok() {
            self.model = happened;
            return Ok(());
        }
        let not_at_all = self.model.follow(rows, None, now).map(drop);
        not_at_all.map_err(|what| format!("neither done nor undone: {what}\n  the call gave {actual:?}"))
    }

    /// The disk may have failed before the quota of a step was set: now it is set.
    fn allot_again(&self, step: &Step) -> Result<(), String> {
        if step.quota.is_none() {
            return Ok(());
        }
        let op = Op::Read(Read::CountAll(String::new()));
        match self.surface.perform(&Step { op, ..step.clone() }, "quota") {
            Outcome::Refused(refusal) => Err(format!("the quota cannot be set: {refusal:?}")),
            _ => Ok(()),
        }
    }

    /// Takes in what the store logged by itself.
    fn follow_none(&mut self) -> Result<(), String> {
        let (rows, now) = (self.new_rows()?, self.now());
        self.model.follow(rows, None, now).map(drop)
    }

    fn new_rows(&mut self) -> Result<Vec<Seen>, String> {
        let (lost, rows) = self.surface.history(&Want::log(), self.model.last()).map_err(said)?;
        match lost {
            Some(lost) => Err(format!("the log was trimmed before it was seen: {lost:?}")),
            None => Ok(rows),
        }
    }

    /// Nobody can say whether what was due before the step was announced, or is visible again; but once a write got
    /// through, what the store had begun before the step is over.
    fn step_back(&mut self, millis: u64) -> Result<(), String> {
        self.follow_none()?;
        let back = i64::try_from(millis).unwrap_or(i64::MAX);
        self.clock.set(Timestamp::from_millis(self.now().as_millis().saturating_sub(back)));
        let place = Place { group: "clock".to_owned(), key: "stepped".to_owned() };
        let (value, ttl, condition) = ("back".into(), Ttl::Clear, crate::ops::Condition::Always);
        let mark = Step::whole(Op::Write(Write::Set { place, value, ttl, condition, content_type: None }));
        self.plain(&mark)
    }

    fn purge(&mut self, step: &Step) -> Result<(), String> {
        self.follow_none()?;
        let due = u64::try_from(self.model.due(self.now())).unwrap_or(u64::MAX);
        let outcome = self.surface.perform(step, "purge");
        self.follow_none()?;
        match (outcome, self.model.due(self.now())) {
            (Outcome::Number(purged), 0) if purged <= due => Ok(()),
            (outcome, left) => Err(format!("{outcome:?} of {due} due entries, and {left} are left")),
        }
    }

    fn compact(&mut self, keep: u64) -> Result<(), String> {
        self.follow_none()?;
        // Nothing is logged by the store meanwhile, if nothing is due.
        let quiet = self.model.due(self.now()) == 0;
        let before = self.model.newest(keep);
        let (held, cut) = (self.model.held().len(), self.model.cut(before));
        if !self.site.capabilities().trims {
            return match self.surface.compact(before) {
                Ok(gone) => Err(format!("{gone} events are gone of a log that cannot be trimmed")),
                Err(_) => Ok(()),
            };
        }
        let said_gone = self.surface.compact(before).map_err(said)?;
        self.follow_none()?;
        self.observe_trimming()?;
        let gone = u64::try_from(held - self.model.held().len().min(held)).unwrap_or(u64::MAX);
        if quiet && (said_gone != gone || self.model.trimmed() != cut) {
            let trimmed = self.model.trimmed();
            return Err(format!(
                "{said_gone} events gone, and {gone} really, up to {trimmed}; expected up to {cut}"
            ));
        }
        Ok(())
    }

    /// What the store has trimmed by itself.
    fn observe_trimming(&mut self) -> Result<(), String> {
        let first = self.surface.oldest().map_err(said)?;
        self.model.trim(first)
    }

    fn restart(&mut self) -> Result<(), String> {
        if !self.site.capabilities().restarts {
            return Ok(());
        }
        self.surface.close().map_err(said)?;
        self.surface = self.site.open(self.options.clone(), self.clock.clone()).map_err(said)?;
        self.follow_none()?;
        self.compare_whole()
    }

    fn compare_history(&mut self, want: &Want, after: Revision) -> Result<(), String> {
        self.observe_trimming()?;
        let (lost, events) = self.surface.history(want, after).map_err(said)?;
        self.follow_none()?;
        let (expected_lost, expected) = self.model.past(want, after);
        // What was logged after the reading is not in it. Trimming may have gone on.
        let known = expected.iter().take(events.len());
        let later = expected.iter().skip(events.len()).all(|row| row.kind == watchkeep::Kind::Expire);
        if lost == expected_lost && known.eq(&events) && later {
            return Ok(());
        }
        self.observe_trimming()?;
        match self.model.past(want, after) {
            (now_lost, _) if now_lost != expected_lost => Ok(()),
            _ => Err(format!(
                "{want:?} after {after} gives {lost:?} {events:?}\n  expected {expected_lost:?} {expected:?}"
            )),
        }
    }

    /// Every entry, every count, every row of the log.
    fn compare_whole(&mut self) -> Result<(), String> {
        self.compare_history(&Want::log(), Revision::ZERO)?;
        let mut reads = vec![Read::Groups(String::new()), Read::CountAll(String::new())];
        for group in self.model.state().groups() {
            reads.push(Read::Count(group.to_owned()));
            reads.push(Read::Entries(group.to_owned(), String::new(), None, None));
        }
        for read in reads {
            self.plain(&Step::whole(Op::Read(read.clone()))).map_err(|what| format!("{read:?} {what}"))?;
        }
        let problems = self.surface.check().map_err(said)?;
        if problems.is_empty() { Ok(()) } else { Err(format!("the store finds in itself: {problems:?}")) }
    }
}

fn said(fault: Fault) -> String {
    format!("failed: {fault}")
}

#[cfg(test)]
mod tests {
    use watchkeep::ErrorKind;

    use super::*;
    use crate::ops::Refusal;
    use crate::record::WatchSpec;
    use crate::surface::{Callback, Capabilities, Memory, Past, Placed, Registered, Stream};

    /// What a store may do wrong.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Wrong {
        None,
        /// It says yes to everything.
        Yes,
        /// Its log forgets deletions.
        Forgets,
        /// Its log says everything twice.
        Repeats,
        /// Its log shows other values.
        Changes,
        /// It refuses what it does, as if an earlier write had failed.
        RefusesAndDoes,
        /// It refuses everything in this way.
        Refuses,
    }

    #[derive(Debug)]
    struct Faulty(Wrong, Box<dyn Site>);

    #[derive(Debug)]
    struct Behind(Arc<dyn Surface>, Wrong);

    impl Site for Faulty {
        fn capabilities(&self) -> Capabilities {
            self.1.capabilities()
        }
        fn open(&self, options: Options, clock: Arc<dyn Clock>) -> Result<Arc<dyn Surface>, Fault> {
            Ok(Arc::new(Behind(self.1.open(options, clock)?, self.0)))
        }
    }

    impl Surface for Behind {
        fn perform(&self, step: &Step, label: &str) -> Outcome {
            let poisoned = Outcome::Refused(Refusal::Kind(ErrorKind::Poisoned));
            if self.1 == Wrong::Refuses {
                return poisoned;
            }
            match self.0.perform(step, label) {
                Outcome::Was(_) if self.1 == Wrong::Yes => Outcome::Was(true),
                _ if self.1 == Wrong::RefusesAndDoes => poisoned,
                outcome => outcome,
            }
        }
        fn history(&self, want: &Want, after: Revision) -> Result<Past, Fault> {
            let (lost, mut rows) = self.0.history(want, after)?;
            match self.1 {
                Wrong::Forgets => rows.retain(|row| row.kind != watchkeep::Kind::Delete),
                Wrong::Repeats => rows = rows.iter().flat_map(|row| [row.clone(), row.clone()]).collect(),
                Wrong::Changes => rows.iter_mut().for_each(|row| row.value = Some("other".into())),
                Wrong::None | Wrong::Yes | Wrong::RefusesAndDoes | Wrong::Refuses => {}
            }
            Ok((lost, rows))
        }
        fn last(&self) -> Result<Revision, Fault> {
            self.0.last()
        }
        fn oldest(&self) -> Result<Revision, Fault> {
            self.0.oldest()
        }
        fn compact(&self, before: Revision) -> Result<u64, Fault> {
            self.0.compact(before)
        }
        fn picture(&self) -> Result<(Revision, Vec<Placed>), Fault> {
            self.0.picture()
        }
        fn watch(&self, spec: &WatchSpec) -> Result<Box<dyn Stream>, Fault> {
            self.0.watch(spec)
        }
        fn on_change(&self, want: &Want, callback: Callback) -> Option<Box<dyn Registered>> {
            self.0.on_change(want, callback)
        }
        fn check(&self) -> Result<Vec<String>, Fault> {
            self.0.check()
        }
        fn close(&self) -> Result<(), Fault> {
            self.0.close()
        }
        fn now(&self) -> Timestamp {
            self.0.now()
        }
    }

    #[test]
    fn a_store_that_does_something_else_is_found() -> Result<(), Fault> {
        let run = |fault| {
            let mut runner =
                Runner::new(Box::new(Faulty(fault, Box::new(Memory))), Options::new(), Retention::FOREVER)?;
            Ok::<bool, Fault>(runner.run(1, 300).is_ok())
        };
        assert!(run(Wrong::None)?);
        for fault in [Wrong::Yes, Wrong::Forgets, Wrong::Repeats, Wrong::Changes] {
            assert!(!run(fault)?, "{fault:?} was not found");
        }
        Ok(())
    }

    #[test]
    fn a_change_refused_after_the_disk_failed_has_not_happened() -> Result<(), Fault> {
        let place = Place { group: "g".to_owned(), key: "k".to_owned() };
        let (value, ttl, condition) = ("v".into(), Ttl::Clear, crate::ops::Condition::Always);
        let set = Step::whole(Op::Write(Write::Set { place, value, ttl, condition, content_type: None }));
        let allowed = |wrong, failed: bool| {
            let site = Box::new(Faulty(wrong, Box::new(crate::surface::File::new()?)));
            let mut runner = Runner::new(site, Options::new(), Retention::FOREVER)?;
            Ok::<bool, Fault>(runner.step_into(&set, || failed).is_ok())
        };
        assert!(allowed(Wrong::None, false)?);
        assert!(allowed(Wrong::Refuses, true)?, "the store's own thread met the failure");
        assert!(!allowed(Wrong::Refuses, false)?, "nothing failed, and it is refused");
        assert!(!allowed(Wrong::RefusesAndDoes, true)?, "it is refused, and has happened");
        Ok(())
    }
}
