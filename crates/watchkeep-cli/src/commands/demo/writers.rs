//! Those who write: configuration, sessions that expire, orders in transactions, a counter for two.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use watchkeep::{Revision, Store};

use super::super::threads;
use super::pace::Pace;
use crate::exit::{Failure, Result};

/// How long a session lives.
pub(super) const SESSION: Duration = Duration::from_millis(900);

/// What the writers were told.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// The revisions that writes returned.
    pub(super) acknowledged: Vec<Revision>,
    /// How often the counter was incremented.
    pub(super) increments: u64,
}

/// Writes from five threads until the time is over. The counter's key is this run's own.
pub(super) fn write(store: &Store, pace: &Pace, counter: &str) -> Result<Written> {
    let acknowledged = Mutex::new(Vec::new());
    let acknowledge = |revision| {
        acknowledged.lock().unwrap_or_else(PoisonError::into_inner).push(revision);
    };
    let increments = thread::scope(|scope| {
        let others = [
            threads::start_in(scope, || configure(store, pace, &acknowledge)),
            threads::start_in(scope, || sign_in(store, pace, &acknowledge)),
            threads::start_in(scope, || order(store, pace, &acknowledge)),
        ];
        let counters = [("web-1", 230), ("web-2", 310)].map(|(name, every)| {
            let store = store.with_origin(name);
            let acknowledge = &acknowledge;
            threads::start_in(scope, move || {
                count(&store, counter, pace, Duration::from_millis(every), acknowledge)
            })
        });
        if others.iter().any(Result::is_err) || counters.iter().any(Result::is_err) {
            // Those that did start are not waited for until the time is over.
            pace.stop();
        }
        let mut increments = 0;
        for other in others {
            super::joined(other?.join())?;
        }
        for counter in counters {
            increments += super::joined(counter?.join())?;
        }
        Ok::<_, Failure>(increments)
    })?;
    let mut acknowledged = acknowledged.into_inner().unwrap_or_else(PoisonError::into_inner);
    acknowledged.sort_unstable();
    Ok(Written { acknowledged, increments })
}

/// Settings that change now and then.
fn configure(store: &Store, pace: &Pace, acknowledge: &impl Fn(Revision)) -> Result<()> {
    let settings = [
        ("theme", "dark"),
        ("font", "12"),
        ("language", "fi"),
        ("theme", "light"),
        ("font", "14"),
        ("language", "pt"),
    ];
    for (key, value) in settings.into_iter().cycle() {
        if !pace.pause(Duration::from_millis(450)) {
            break;
        }
        acknowledge(store.set("config", key, value)?);
    }
    Ok(())
}

/// Sessions that nobody ends: they expire.
fn sign_in(store: &Store, pace: &Pace, acknowledge: &impl Fn(Revision)) -> Result<()> {
    for (number, user) in (1..).zip(["ada", "edsger", "grace", "barbara"].into_iter().cycle()) {
        if !pace.pause(Duration::from_millis(550)) {
            break;
        }
        acknowledge(store.set_with_ttl("session", &format!("s{number}"), user, SESSION)?);
    }
    Ok(())
}

/// An order is written whole, changed, and goes with its group.
fn order(store: &Store, pace: &Pace, acknowledge: &impl Fn(Revision)) -> Result<()> {
    for (percent, customer) in [(10, "ada"), (52, "grace")] {
        if !pace.until_percent(percent) {
            break;
        }
        let order = store.transaction(|tx| {
            tx.set("order", "customer", customer)?;
            tx.set("order", "tea", "2")?;
            tx.set("order", "cake", "1")?;
            tx.set("order", "state", "open")
        })?;
        acknowledge(order.revision);
        if !pace.until_percent(percent + 15) {
            break;
        }
        store.delete("order", "cake")?;
        if !pace.until_percent(percent + 30) {
            break;
        }
        store.delete_group("order")?;
    }
    Ok(())
}

/// One of two threads that increment the same counter.
fn count(
    store: &Store,
    counter: &str,
    pace: &Pace,
    every: Duration,
    acknowledge: &impl Fn(Revision),
) -> Result<u64> {
    let mut increments = 0;
    while pace.pause(every) {
        let done = store.transaction(|tx| {
            let visits = number(tx.get("counter", counter)?);
            tx.set("counter", counter, (visits + 1).to_string())
        })?;
        acknowledge(done.revision);
        increments += 1;
    }
    Ok(increments)
}

/// What the counter shows.
pub(super) fn visits(store: &Store, counter: &str) -> Result<u64> {
    Ok(store.get("counter", counter).map(number)?)
}

fn number(value: Option<watchkeep::Value>) -> u64 {
    value.and_then(|value| value.as_str().and_then(|text| text.parse().ok())).unwrap_or(0)
}
