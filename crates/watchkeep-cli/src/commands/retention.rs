//! `retention`: how much of the past a store keeps, and who compacts the cluster that it is in.

use std::time::Duration;

#[cfg(feature = "etcd")]
use watchkeep::Compaction;
use watchkeep::{Options, Retention};

use super::{Access, open, open_with};
use crate::args::{Global, SetRetention};
use crate::exit::{Failure, Result, USAGE};
use crate::output::{Out, bytes, grouped};
use crate::time::human;

pub(super) fn retention(global: &Global, args: &SetRetention, out: &mut Out) -> Result<()> {
    let store = open(global, Access::Read)?;
    let mut kept = store.stats()?.retention;
    let wanted = args.over(kept);
    if wanted != kept || args.names_who_compacts() {
        refuse(global, store.address().is_some(), args, kept)?;
        drop(store);
        // Both at once: nobody may compact by one without the other.
        let options = args.who_compacts(Options::new()).retention(wanted);
        kept = open_with(global, Access::Change, options)?.stats()?.retention;
    }
    if out.is_json() {
        return out.object(&watchkeep::json::retention(&kept));
    }
    let age = |age| if age == Duration::MAX { "no limit".to_owned() } else { human(age) };
    let number = |number| if number == u64::MAX { "no limit".to_owned() } else { grouped(number) };
    let size = |size| if size == u64::MAX { "no limit".to_owned() } else { bytes(size) };
    out.fields(&[
        ("at most", number(kept.max_events)),
        ("at most, age", age(kept.max_age)),
        ("at most, size", size(kept.max_bytes)),
        ("at least", grouped(kept.min_events)),
        ("for consumers, age", age(kept.consumer_age)),
        ("for consumers, size", size(kept.consumer_bytes)),
    ])
}

/// Refuses what would change nothing, or more than was meant, before anything is written.
fn refuse(global: &Global, is_in_cluster: bool, args: &SetRetention, kept: Retention) -> Result<()> {
    let what = if global.namespace.is_some() {
        "the retention is that of the whole store; leave --namespace out"
    } else if args.names_who_compacts() && !is_in_cluster {
        "the store is a file, which is no part of a cluster; leave --compaction out"
    } else if is_in_cluster && args.is_held_by_nobody(kept) {
        "no limit holds in this cluster; where nobody else needs the cluster's history, add --compaction own"
    } else {
        return Ok(());
    };
    Err(Failure::new(USAGE, what.to_owned()))
}

impl SetRetention {
    /// What is kept with this instead of what was.
    fn over(&self, kept: Retention) -> Retention {
        Retention {
            max_events: self.max_events.unwrap_or(kept.max_events),
            max_age: self.max_age.unwrap_or(kept.max_age),
            max_bytes: self.max_bytes.unwrap_or(kept.max_bytes),
            min_events: self.min_events.unwrap_or(kept.min_events),
            consumer_age: self.consumer_age.unwrap_or(kept.consumer_age),
            consumer_bytes: self.consumer_bytes.unwrap_or(kept.consumer_bytes),
        }
    }
}

#[cfg(feature = "etcd")]
impl SetRetention {
    fn names_who_compacts(&self) -> bool {
        self.compaction.is_some()
    }

    fn who_compacts(&self, options: Options) -> Options {
        match self.compaction {
            Some(who) => options.compaction(who.into()),
            None => options,
        }
    }

    /// Whether limits are given, and nobody compacts by them. Where nobody does, everything is kept.
    fn is_held_by_nobody(&self, kept: Retention) -> bool {
        let will_compact = match self.compaction.map(Compaction::from) {
            Some(who) => who == Compaction::Own,
            None => kept != Retention::FOREVER,
        };
        !will_compact && self.over(kept) != kept
    }
}

#[cfg(not(feature = "etcd"))]
impl SetRetention {
    fn names_who_compacts(&self) -> bool {
        false
    }

    fn who_compacts(&self, options: Options) -> Options {
        options
    }

    fn is_held_by_nobody(&self, _: Retention) -> bool {
        false
    }
}
