//! The switch: the source is sealed, the target gets the rest, and takes its place once the two agree.

use std::path::Path;

use watchkeep::{ConsumerInfo, ConsumerOptions, ConsumerStart, ErrorKind, Filter, Force, Revision, Store};

use super::pass::{Difference, compare, is_same};
use super::{Migration, enter, is_cluster, progress};
use crate::exit::{FAILURE, Failure, REFUSED, Result};
use crate::output::{self, name};

/// How many differences, or consumers, are named.
const NAMED: usize = 20;

/// What the seal says while the source is moving.
pub(super) fn moving(place: &str) -> String {
    format!("moving to {place}")
}

/// What it says from then on.
pub(super) fn moved(place: &str) -> String {
    format!("moved to {place}")
}

/// What a seal says of a target: its address, or its whole path.
pub(super) fn place(target: &Path) -> Result<String> {
    if is_cluster(target) {
        return Ok(target.to_string_lossy().into_owned());
    }
    let failed = |error| Failure::new(FAILURE, format!("{target:?} is no path of a file: {error}; name one"));
    let path = std::path::absolute(target).map_err(failed)?;
    Ok(path.to_string_lossy().into_owned())
}

/// A source that this run has sealed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sealed {
    /// Its last revision.
    end: Revision,
    /// Up to this revision of the target, the source has told its consumers everything.
    told: Revision,
}

impl Migration {
    /// Makes the target take the place of the source. Whatever goes wrong before that, the source takes writes again.
    pub(super) fn switch(&mut self, after: Revision) -> Result<()> {
        let sealed = self.seal()?;
        if let Err(failure) = self.finish(after, sealed) {
            return Err(self.lift(failure));
        }
        self.summary.switched = true;
        // From here on the target is the store, and nothing is undone.
        if let Err(failure) = enter::leave(&self.source, &self.target) {
            output::warn(format_args!(
                "{failure}; a consumer {} is left in the target: remove it with `watchkeep consumers remove`",
                enter::mark_of(&self.source)
            ));
        }
        Ok(())
    }

    /// Seals the source, unless somebody else has.
    pub(super) fn seal(&self) -> Result<Sealed> {
        // Consumers that nobody holds do not catch up by themselves: they are told before anybody is kept from writing.
        let idle = |consumer: &ConsumerInfo| consumer.holder.is_none();
        self.refuse_behind(self.source.consumers()?.into_iter().filter(idle).collect())?;
        let (was, moving) = (self.source.sealed()?, moving(&self.place));
        if let Some(other) = was.as_deref().filter(|was| *was != moving) {
            let what = format!(
                "the source was sealed meanwhile ({other}); when that is lifted, go on with --resume"
            );
            return Err(Failure::new(REFUSED, what));
        }
        // Looked up before the seal: what comes due after it is announced by the target alone. A run that was killed has
        // not left word of when it sealed the source.
        let told = if was.is_none() { self.target.last_revision()? } else { self.mark.begun };
        let end = self.source.change_seal(was.as_deref(), Some(&moving), None)?;
        Ok(Sealed { end, told })
    }

    /// Lifts the seal after a switch that failed, if it is still the one that was put.
    pub(super) fn lift(&self, failure: Failure) -> Failure {
        let what = match self.source.change_seal(Some(&moving(&self.place)), None, None) {
            Ok(_) => return failure,
            Err(error) if error.kind() == ErrorKind::Conflict => {
                format!("{failure}; somebody else has changed the seal meanwhile: {error}")
            }
            Err(error) => format!(
                "{failure}; the source is still sealed ({error}): lift that with `watchkeep seal --lift`"
            ),
        };
        Failure::new(failure.code(), what)
    }

    pub(super) fn finish(&mut self, after: Revision, sealed: Sealed) -> Result<()> {
        self.follow_to(after, sealed.end)?;
        let consumers = self.source.consumers()?;
        self.refuse_behind(consumers.clone())?;
        self.compare()?;
        self.copy_quotas()?;
        for consumer in consumers {
            self.copy_consumer(&consumer, sealed.told)?;
            self.summary.consumers.push(consumer.name);
        }
        self.go_on()?;
        self.mark.hold()?;
        // Had the seal been lifted for a while, what was written then would be missing in the target.
        let moved = moved(&self.place);
        let done = self.source.change_seal(Some(&moving(&self.place)), Some(&moved), Some(sealed.end));
        match done {
            Err(error) if error.kind() == ErrorKind::Conflict => {
                let what = format!(
                    "somebody lifted or changed the seal during the switch: {error}; go on with --resume"
                );
                Err(Failure::new(REFUSED, what))
            }
            done => Ok(done.map(drop)?),
        }
    }

    /// Refuses where one of them has not acknowledged all that concerns it.
    fn refuse_behind(&self, consumers: Vec<ConsumerInfo>) -> Result<()> {
        let mut behind = Vec::new();
        for consumer in consumers {
            if let Some(acked) = consumer.acked
                && (consumer.lost.is_some()
                    || self.source.history(consumer.filter.clone(), acked).next().transpose()?.is_some())
            {
                behind.push(name(&consumer.name));
            }
        }
        if behind.is_empty() {
            return Ok(());
        }
        let what = format!(
            "the consumers that follow have not acknowledged all that concerns them, and their positions cannot be told in the target: {}; let them catch up while nobody writes, or remove them, then switch again",
            listed(&behind)
        );
        Err(Failure::new(REFUSED, what))
    }

    /// Makes a consumer in the target that goes on there with what the source has not told it; one that began with a
    /// snapshot and got none begins with one there.
    fn copy_consumer(&self, consumer: &ConsumerInfo, told: Revision) -> Result<()> {
        let start = match consumer.acked {
            Some(_) => ConsumerStart::After(told),
            None => ConsumerStart::Snapshot,
        };
        let make = |target: &Store, local: &str, filter: Filter| -> Result<()> {
            let options = ConsumerOptions::new().filter(filter).start(start);
            target.consumer_with(local, options)?.close()?;
            // An earlier switch that failed may have left it.
            Ok(target.reset_consumer(local, start, Force::Yes)?)
        };
        let Some((namespace, local)) = consumer.name.split_once(':') else {
            return make(&self.target, &consumer.name, consumer.filter.clone());
        };
        let here = self.source.scoped(namespace)?;
        let filter = here.consumers()?.into_iter().find(|one| one.name == local).map(|one| one.filter);
        make(&self.target.scoped(namespace)?, local, filter.unwrap_or_else(Filter::everything))
    }

    /// Refuses where the two differ.
    fn compare(&self) -> Result<()> {
        let bar = progress("comparing", Some(self.source.count_all("")?), "entries");
        let mut differences = Vec::new();
        let seen = || {
            bar.inc(1);
            self.go_on()
        };
        let differ = |difference| {
            let (group, key) = match difference {
                Difference::Entry { group, entry } => (group, Some(entry.key)),
                Difference::Stray { group, key } => (group, Some(key)),
                Difference::StrayGroup { group } => (group, None),
            };
            if differences.len() <= NAMED && self.differs(&group, key.as_deref())? {
                let key = key.as_deref().map(name).unwrap_or_default();
                differences.push(format!("{} {key}", name(&group)).trim_end().to_owned());
            }
            Ok(())
        };
        compare(&self.source, &self.target, seen, differ)?;
        bar.finish_and_clear();
        if differences.is_empty() {
            return Ok(());
        }
        let what = format!(
            "the target differs from the source, which takes writes again: {}; does somebody else write to the target? see to that, then go on with --resume",
            listed(&differences)
        );
        Err(Failure::new(FAILURE, what))
    }

    /// Looks again: in between something may have come due in one of them. What is there to expire does not count.
    fn differs(&self, group: &str, key: Option<&str>) -> Result<bool> {
        let ends = |key: &str| self.ending.contains(&(group.to_owned(), key.to_owned()));
        let Some(key) = key else {
            for entry in self.target.entries(group) {
                if !ends(&entry?.key) {
                    return Ok(true);
                }
            }
            return Ok(false);
        };
        let (theirs, ours) = (self.target.entry(group, key)?, self.source.entry(group, key)?);
        Ok(match (ours, theirs) {
            (None, None) => false,
            (None, Some(theirs)) => !ends(&theirs.key),
            (Some(ours), Some(theirs)) => !is_same(&ours, &theirs),
            _ => true,
        })
    }
}

fn listed(names: &[String]) -> String {
    let more = if names.len() > NAMED { " and more" } else { "" };
    format!("{}{more}", names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", "))
}
