//! The target of a migration: whose it is. A consumer of the target, the mark, says what is being moved there, and whoever
//! holds it is the only run that writes there.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use watchkeep::{
    Consumer, ConsumerInfo, ConsumerOptions, ErrorKind, Filter, Force, Quota, Revision, Store, Timestamp,
};

use super::{go_on, progress, quotas, switch};
use crate::exit::{Failure, REFUSED, Result, USAGE};

/// For how long a run that was killed counts as alive.
const LEASE: Duration = Duration::from_secs(10);

/// For how long another run is waited for before it is looked at again.
const LOOK: Duration = Duration::from_millis(100);

/// The name of the consumer that marks a target. It makes no event, and the switch removes it.
pub(super) fn mark_of(source: &Store) -> String {
    format!("migrate-from-{}", source.id())
}

/// The target as this run holds it.
#[derive(Debug)]
pub(super) struct Mark {
    consumer: Consumer,
    /// Where the target was when its first run began.
    pub(super) begun: Revision,
}

impl Mark {
    /// Sees that the target is ours to write: empty, or left by an earlier run for this source that has ended.
    pub(super) fn enter(
        (source, target): (&Store, &Store),
        place: &str,
        resume: bool,
        stop: &AtomicBool,
    ) -> Result<Mark> {
        if source.id() == target.id() {
            return Err(Failure::new(USAGE, "source and target are the same store; name another target"));
        }
        let name = mark_of(source);
        let consumers = target.consumers()?;
        let is_ours = consumers.iter().any(|consumer| consumer.name == name);
        if is_ours && !resume {
            let what = "the target holds what an earlier run has moved; go on with --resume";
            return Err(Failure::new(REFUSED, what));
        }
        // Whatever --resume says: an earlier run may have come to nothing.
        if !is_ours {
            refuse_used(target, &consumers, &name)?;
        }
        let mark = Mark::take(target, &name, stop)?;
        // Another run may have ended, or begun, before the mark was ours.
        let sealed = source.sealed()?;
        let is_moved = sealed.as_deref() == Some(&*switch::moved(place));
        let refused = match is_ours {
            _ if is_moved => Err(moved_meanwhile(place)),
            true => Ok(()),
            false => refuse_used(target, &target.consumers()?, &name),
        };
        if let Err(failure) = refused {
            if is_moved || !is_ours {
                target.remove_consumer(&name, Force::Yes)?;
            }
            return Err(failure);
        }
        // An earlier switch that failed may have brought consumers that are gone from the source by now, and quotas, which
        // would refuse what is moved entry by entry.
        for consumer in target.consumers()?.iter().filter(|consumer| consumer.name != name) {
            target.remove_consumer(&consumer.name, Force::Yes)?;
        }
        for namespace in quotas::namespaces(source, target)? {
            quotas::set(target, &namespace, Quota::default())?;
        }
        Ok(mark)
    }

    /// Takes the mark once no other run holds it. One that gives signs of life is not waited for.
    fn take(target: &Store, name: &str, stop: &AtomicBool) -> Result<Mark> {
        let bar = progress("waiting for an earlier run to end", None, "");
        let options = ConsumerOptions::new().filter(Filter::group(name)).lease(LEASE).wait(LOOK).keys_only();
        let mut until: Option<Timestamp> = None;
        let consumer = loop {
            go_on(stop)?;
            match target.consumer_with(name, options.clone()) {
                Err(error) if error.kind() == ErrorKind::Held => {
                    let holder = row(target, name)?.and_then(|row| row.holder);
                    let Some(holder) = holder else { continue };
                    if holder.until != *until.get_or_insert(holder.until) {
                        let what = format!(
                            "another run ({}) moves this source there; let it end, or end it, then go on with --resume",
                            holder.label
                        );
                        return Err(Failure::new(REFUSED, what));
                    }
                }
                taken => break taken?,
            }
            bar.tick();
        };
        bar.finish_and_clear();
        let begun = row(target, name)?.and_then(|row| row.acked).unwrap_or_default();
        Ok(Mark { consumer, begun })
    }

    /// Refuses when the target is not this run's any more. Until the lease ends after this, nobody else takes it.
    pub(super) fn hold(&self) -> Result<()> {
        // It acknowledges nothing: what was acknowledged stays so.
        self.consumer.ack(Revision::ZERO).map_err(|error| match error.kind() {
            ErrorKind::Fenced => {
                let what = format!("{error}: another run writes to the target; this one has ended");
                Failure::new(REFUSED, what)
            }
            _ => error.into(),
        })
    }
}

/// Takes the mark away: the target is a store like any other.
pub(super) fn leave(source: &Store, target: &Store) -> Result<()> {
    match target.remove_consumer(&mark_of(source), Force::Yes) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn row(target: &Store, name: &str) -> Result<Option<ConsumerInfo>> {
    Ok(target.consumers()?.into_iter().find(|row| row.name == name))
}

/// Refuses a target that holds anything but the mark.
fn refuse_used(target: &Store, consumers: &[ConsumerInfo], mark: &str) -> Result<()> {
    let is_empty =
        consumers.iter().all(|consumer| consumer.name == mark) && target.groups("").next().is_none();
    if is_empty {
        return Ok(());
    }
    let what = "the target holds other entries or consumers, and is not touched; name an empty place";
    Err(Failure::new(REFUSED, what))
}

fn moved_meanwhile(place: &str) -> Failure {
    Failure::new(
        REFUSED,
        format!("another run has moved the source to {place} meanwhile; point your programs there"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use watchkeep::ConsumerStart;

    const PLACE: &str = "/there.db";

    fn enter(stores: (&Store, &Store), resume: bool) -> Result<Mark, String> {
        Mark::enter(stores, PLACE, resume, &AtomicBool::new(false)).map_err(|failure| failure.to_string())
    }

    #[test]
    fn a_target_belongs_to_one_run_at_a_time() -> watchkeep::Result<()> {
        let (source, target) = (Store::open_in_memory()?, Store::open_in_memory()?);
        let first = enter((&source, &target), false).unwrap();
        assert!(first.hold().is_ok());
        // It gives signs of life, and so it is refused long before its lease would end.
        let refused = enter((&source, &target), true).unwrap_err();
        assert!(refused.contains("another run"), "{refused}");
        drop(first);
        let second = enter((&source, &target), true).unwrap();
        // Somebody takes it for dead.
        target.reset_consumer(&mark_of(&source), ConsumerStart::Now, Force::Yes)?;
        assert!(second.hold().unwrap_err().to_string().contains("another run"));
        Ok(())
    }

    #[test]
    fn a_run_that_comes_after_a_switch_leaves_the_target_as_it_is() -> watchkeep::Result<()> {
        let (source, target) = (Store::open_in_memory()?, Store::open_in_memory()?);
        drop(enter((&source, &target), false).unwrap());
        target.set("g", "new", "v")?;
        target.consumer("billing")?.close()?;
        source.seal(switch::moved(PLACE))?;
        for is_marked in [true, false] {
            let refused = enter((&source, &target), true).unwrap_err();
            assert!(refused.contains(if is_marked { "has moved" } else { "not touched" }), "{refused}");
            let names: Vec<_> = target.consumers()?.into_iter().map(|row| row.name).collect();
            assert_eq!((names, target.count("g")?), (vec!["billing".to_owned()], 1));
        }
        Ok(())
    }
}
