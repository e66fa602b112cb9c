//! Filters: what reaches a watcher, through the index of the watchers and in the log, held against a plain judgement.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use watchkeep::{Clock, Filter, Kind, ManualClock, Options, Store, WatchOptions, Watcher};

use super::{Verdict, said, tape};
use crate::ops::{Draw, perform};
use crate::record::{Seen, Want};
use crate::runner::LIMITS;

/// How many watchers there are at once.
const WATCHERS: usize = 4;

/// How many changes are made.
const CHANGES: usize = 24;

/// Registers watchers of drawn filters, makes drawn changes, and looks who was told what.
///
/// # Errors
///
/// Who was told something else.
pub fn filters(bytes: &[u8]) -> Verdict {
    static STORE: LazyLock<Result<Mutex<Store>, String>> = LazyLock::new(|| {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
        Options::new().limits(LIMITS).clock(clock).open_in_memory().map(Mutex::new).map_err(said)
    });
    let store = STORE.as_ref().map_err(String::clone)?.lock().unwrap_or_else(PoisonError::into_inner);
    store.delete_prefix("").map_err(said)?;
    let begin = store.last_revision().map_err(said)?;
    let mut tape = tape(bytes);
    let mut draw = Draw::new(&mut tape);
    let wants: Vec<Want> =
        (0..WATCHERS).map(|_| Want { excluded_origin: Some("odd".to_owned()), ..draw.want() }).collect();
    let options = WatchOptions::new().buffer(4_096);
    let watchers = wants.iter().map(|want| store.watch_with(want.filter(), options.clone()));
    let mut watchers = watchers.collect::<Result<Vec<Watcher>, _>>().map_err(said)?;
    for change in 0..CHANGES {
        let step = draw.change();
        perform(&store, &step, if change % 2 == 0 { "even" } else { "odd" }, false);
    }
    let log = store.history(Filter::everything().kinds(Kind::ALL), begin);
    let log = log
        .map(|event| event.map(|event| Seen::from(&event)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(said)?;
    for (want, watcher) in wants.iter().zip(&mut watchers) {
        let expected: Vec<&Seen> = log.iter().filter(|row| want.wants(row)).collect();
        let told = std::iter::from_fn(|| watcher.try_recv()).collect::<Result<Vec<_>, _>>().map_err(said)?;
        let told: Vec<Seen> = told.iter().map(Seen::from).collect();
        let past = store.history(want.filter(), begin).collect::<Result<Vec<_>, _>>().map_err(said)?;
        let past: Vec<Seen> = past.iter().map(Seen::from).collect();
        for (whence, events) in [("live", told), ("in the log", past)] {
            if !events.iter().eq(expected.iter().copied()) {
                return Err(format!("{want:?} sees {whence} {events:?}, and should see {expected:?}"));
            }
        }
    }
    Ok(())
}
