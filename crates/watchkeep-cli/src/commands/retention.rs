//! `retention`: how much of the past a store keeps, and who compacts the cluster that it is in.

use std::time::Duration;

#[cfg(feature = "etcd")]
use watchkeep::Compaction;
use watchkeep::{Options, Retention};

use super::{Access, open, open_with};
#[cfg(feature = "etcd")]
use crate::args::WhoCompacts;
use crate::args::{Global, SetRetention};
use crate::exit::{Failure, Result, USAGE};
use crate::output::{Out, bytes, grouped};
use crate::time::human;

pub(super) fn retention(global: &Global, args: &SetRetention, out: &mut Out) -> Result<()> {
    #[cfg(feature = "etcd")]
    if let Some(who) = args.compaction {
        set_compaction(global, who)?;
    }
    let mut kept = open(global, Access::Read)?.stats()?.retention;
    let wanted = args.over(kept);
    if wanted != kept {
        let store = open_with(global, Access::Change, Options::new().retention(wanted))?;
        kept = store.stats()?.retention;
        if store.address().is_some() && kept == Retention::FOREVER {
            let what = "the store does not compact its cluster, so no retention holds there; where nobody else needs the \
                        cluster's history, add --compaction own";
            return Err(Failure::new(USAGE, what.to_owned()));
        }
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
fn set_compaction(global: &Global, who: WhoCompacts) -> Result<()> {
    if open(global, Access::Read)?.address().is_none() {
        let what = "the store is a file, which is no part of a cluster; leave --compaction out";
        return Err(Failure::new(USAGE, what.to_owned()));
    }
    let compaction = match who {
        WhoCompacts::Own => Compaction::Own,
        WhoCompacts::Never => Compaction::Never,
    };
    Ok(open_with(global, Access::Change, Options::new().compaction(compaction))?.close()?)
}
