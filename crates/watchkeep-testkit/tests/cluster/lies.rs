//! What a watch may get wrong, and what a network may: a proxy lies to every store, and nothing is lost, doubled or out of
//! order.

use watchkeep::{ErrorKind, Event, Kind, SetOptions, Store, Watcher};
use watchkeep_testkit::faults::Row;
use watchkeep_testkit::proxy::{Lie, Opening, Proxy};
use watchkeep_testkit::size::scaled;
use watchkeep_testkit::surface::Fault;

use crate::scene::{LIMIT, Scene, from_the_start, open, through, told};

/// How often each store is lied to in a course.
const TIMES: usize = 3;
/// How often each proxy is asked for a lie, where all of them are mixed, and after how many others at the most.
const MIXED: usize = 12;
const APART: usize = 6;

fn followed(lie: Lie, times: usize) -> Result<(), Fault> {
    let scene = Scene::new()?;
    scene.lie(lie, times);
    scene.run(times)?;
    Ok(())
}

#[test]
fn a_response_that_is_dropped_is_read_back() -> Result<(), Fault> {
    followed(Lie::Drop, TIMES)
}

#[test]
fn a_response_that_comes_twice_is_told_once() -> Result<(), Fault> {
    followed(Lie::Double, TIMES)
}

#[test]
fn responses_that_change_places_are_told_in_order() -> Result<(), Fault> {
    followed(Lie::Swap, TIMES)
}

#[test]
fn a_watch_that_goes_back_in_time_tells_nothing_again() -> Result<(), Fault> {
    followed(Lie::Old, TIMES)
}

#[test]
fn a_watch_that_falls_silent_is_left() -> Result<(), Fault> {
    followed(Lie::Silence, 1)
}

#[test]
fn a_watch_that_says_nothing_but_notices_is_left() -> Result<(), Fault> {
    followed(Lie::Notices, 1)
}

#[test]
fn a_watch_that_says_nothing_but_what_is_known_is_left() -> Result<(), Fault> {
    followed(Lie::Known, 1)
}

#[test]
fn a_watch_that_ends_goes_on_where_it_was() -> Result<(), Fault> {
    followed(Lie::End, TIMES)
}

#[test]
fn a_notice_that_claims_what_was_not_sent_is_not_believed() -> Result<(), Fault> {
    followed(Lie::Notice, TIMES)
}

#[test]
fn fragments_are_put_together() -> Result<(), Fault> {
    followed(Lie::Fragments, TIMES)
}

#[test]
fn half_of_a_response_counts_for_nothing() -> Result<(), Fault> {
    followed(Lie::Half, TIMES)
}

#[test]
fn a_watch_that_is_cancelled_as_compacted_and_is_not_loses_nothing() -> Result<(), Fault> {
    followed(Lie::Compacted, TIMES)
}

#[test]
fn events_from_before_the_start_of_a_watch_are_not_told() -> Result<(), Fault> {
    let scene = Scene::new()?;
    scene.lie(Lie::EndAfter, TIMES);
    for proxy in &scene.proxies {
        (0..TIMES).for_each(|_| proxy.next_opening(Opening::Below));
    }
    scene.run(2 * TIMES)?;
    Ok(())
}

#[test]
fn an_idle_store_whose_watch_is_cancelled_as_compacted_has_lost_nothing() -> Result<(), Fault> {
    let scene = Scene::new()?;
    let (writer, idle) = (open(&scene.place)?, scene.stores.first().ok_or("no store")?);
    let proxy = scene.proxies.first().ok_or("no proxy")?;
    let mut watcher = from_the_start(idle)?;
    proxy.next_watch(Lie::EndAfter);
    proxy.next_opening(Opening::Compacted);
    let first = writer.set("g", "first", "x")?;
    proxy.wait_told(2)?;
    let last = writer.set("g", "last", "x")?;
    assert_eq!(told(&mut watcher, last)?.len(), 2);
    assert!(first < last);
    Ok(())
}

#[test]
fn the_last_event_that_is_dropped_is_missed() -> Result<(), Fault> {
    let scene = Scene::new()?;
    let writer = open(&scene.place)?;
    let mut watchers = Vec::new();
    for (store, proxy) in scene.stores.iter().zip(&scene.proxies) {
        proxy.next_watch(Lie::Drop);
        watchers.push(from_the_start(store)?);
    }
    let only = writer.set("g", "only", "x")?;
    for watcher in &mut watchers {
        assert_eq!(told(watcher, only)?.len(), 1);
    }
    Ok(())
}

/// A store with some past, and one behind a proxy that comes to it late.
struct Past {
    writer: Store,
    late: Store,
    proxy: Proxy,
}

const EVENTS: usize = 20;

impl Past {
    /// With a lie to whoever opens it.
    fn new(at_opening: Option<Lie>) -> Result<Past, Fault> {
        let scene = Scene::new()?;
        let writer = open(&scene.place)?;
        (0..EVENTS).try_for_each(|number| writer.set("g", &number.to_string(), "x").map(drop))?;
        let (proxy, through) = through(&scene.place, 0)?;
        at_opening.into_iter().for_each(|lie| proxy.next_watch(lie));
        let late = open(&through)?;
        Ok(Past { writer, late, proxy })
    }

    /// All of the past, and one event more that comes when the lie is told.
    fn read(&self, lies: usize) -> Result<(), Fault> {
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| -> Result<_, Fault> {
                // It asks for all that is there, and for what comes.
                let mut watcher = from_the_start(&self.late)?;
                let mut events = Vec::new();
                while events.len() <= EVENTS {
                    events.push(next(&mut watcher)?);
                }
                Ok(events)
            });
            self.proxy.wait_told(lies)?;
            self.writer.set("g", &EVENTS.to_string(), "x")?;
            let events = reader.join().map_err(|_| "the reader panicked")??;
            let keys: Vec<_> =
                events.iter().map(|event| event.key().unwrap_or_default().to_owned()).collect();
            assert_eq!(keys, (0..=EVENTS).map(|number| number.to_string()).collect::<Vec<_>>());
            Ok(())
        })
    }
}

fn next(watcher: &mut Watcher) -> Result<Event, Fault> {
    Ok(watcher.recv_timeout(LIMIT).ok_or("no event within the limit")??)
}

fn lied_about(lie: Lie) -> Result<(), Fault> {
    let past = Past::new(None)?;
    past.proxy.next_watch(lie);
    // Of two that change places one has to come first.
    past.read(usize::from(lie != Lie::Swap)).map_err(|fault| format!("{lie:?}: {fault}").into())
}

#[test]
fn a_past_that_is_lied_about_comes_whole() -> Result<(), Fault> {
    std::thread::scope(|scope| {
        let all = Lie::ALL.map(|lie| scope.spawn(move || lied_about(lie)));
        let faults: Vec<_> = all
            .into_iter()
            .filter_map(|one| one.join().unwrap_or_else(|_| Err("it panicked".into())).err())
            .map(|fault| fault.to_string())
            .collect();
        assert!(faults.is_empty(), "{faults:#?}");
        Ok(())
    })
}

#[test]
fn a_store_that_is_lied_to_while_it_is_opened_knows_all_of_its_past() -> Result<(), Fault> {
    for lie in [Lie::End, Lie::Half, Lie::Compacted, Lie::Notice] {
        let past = Past::new(Some(lie)).map_err(|fault| format!("{lie:?}: {fault}"))?;
        past.read(1).map_err(|fault| format!("{lie:?}: {fault}"))?;
    }
    Ok(())
}

#[test]
fn a_write_whose_answer_is_lost_is_found() -> Result<(), Fault> {
    let scene = Scene::new()?;
    for proxy in &scene.proxies {
        // Sometimes that of the fence as well.
        [3, 5, 0, 5, 0, 0].into_iter().for_each(|after| proxy.lose_answer_after(after));
    }
    let told = scene.run(0)?;
    for proxy in scene.proxies.iter().take(2) {
        proxy.wait_told(6)?;
    }
    assert_eq!(told.len(), 121);
    Ok(())
}

/// What became of a key, in order.
fn kinds(watcher: &mut Watcher, upto: watchkeep::Revision, key: &str) -> Result<Vec<Kind>, Fault> {
    let mut kinds = Vec::new();
    loop {
        let event = next(watcher)?;
        if event.key() == Some(key) {
            kinds.push(event.kind());
        }
        if event.revision() >= upto {
            return Ok(kinds);
        }
    }
}

#[test]
fn a_write_that_is_held_back_and_made_again_is_made_once() -> Result<(), Fault> {
    let scene = Scene::new()?;
    let [store, other, ..] = scene.stores.as_slice() else { return Err("too few stores".into()) };
    let proxy = scene.proxies.first().ok_or("no proxy")?;
    store.set("g", "before", "x")?;
    let mut held = proxy.hold_after(0);
    std::thread::scope(|scope| -> Result<(), Fault> {
        let writer = scope.spawn(|| store.set("g", "k", "x"));
        held.wait()?;
        held.refuse();
        writer.join().map_err(|_| "the writer panicked")??;
        Ok(())
    })?;
    // All that it compares is as it was when it was sent, but for the session.
    other.delete("g", "k")?;
    assert!(!held.deliver()?, "a transaction took effect after its session had ended");
    assert_eq!(other.get("g", "k")?, None);
    let last = other.set("g", "last", "x")?;
    for store in &scene.stores {
        let kinds = kinds(&mut from_the_start(store)?, last, "k")?;
        assert_eq!(kinds, [Kind::Set, Kind::Delete]);
    }
    Ok(())
}

#[test]
fn a_write_that_is_held_back_and_refused_is_never_made() -> Result<(), Fault> {
    let scene = Scene::new()?;
    let [store, other, ..] = scene.stores.as_slice() else { return Err("too few stores".into()) };
    let proxy = scene.proxies.first().ok_or("no proxy")?;
    store.set("g", "before", "x")?;
    let mut held = proxy.hold_after(0);
    let refused = std::thread::scope(|scope| -> Result<_, Fault> {
        let writer = scope.spawn(|| store.set_with("g", "k", "mine", SetOptions::new().if_absent()));
        held.wait()?;
        other.set("g", "k", "theirs")?;
        held.refuse();
        Ok(writer.join().map_err(|_| "the writer panicked")?)
    })?;
    assert_eq!(refused.expect_err("it was there").kind(), ErrorKind::Conflict);
    other.delete("g", "k")?;
    assert!(!held.deliver()?, "a write took effect after its caller was told that it did not");
    let last = other.set("g", "last", "x")?;
    for store in &scene.stores {
        assert_eq!(store.get("g", "k")?, None);
        let kinds = kinds(&mut from_the_start(store)?, last, "k")?;
        assert_eq!(kinds, [Kind::Set, Kind::Delete]);
    }
    Ok(())
}

#[test]
fn a_fence_that_is_held_back_harms_nobody() -> Result<(), Fault> {
    let scene = Scene::new()?;
    let store = scene.stores.first().ok_or("no store")?;
    let proxy = scene.proxies.first().ok_or("no proxy")?;
    let mut watcher = from_the_start(store)?;
    store.set("g", "before", "x")?;
    proxy.lose_answer_after(0);
    let mut held = proxy.hold_after(0);
    std::thread::scope(|scope| -> Result<(), Fault> {
        let writer = scope.spawn(|| store.set("g", "k", "x"));
        held.wait()?;
        held.refuse();
        writer.join().map_err(|_| "the writer panicked")??;
        Ok(())
    })?;
    store.set("g", "between", "x")?;
    assert!(held.deliver()?, "a fence compares nothing");
    let last = store.set("g", "last", "x")?;
    assert_eq!(told(&mut watcher, last)?.len(), 4);
    Ok(())
}

#[test]
fn a_lease_that_somebody_revokes_costs_no_write() -> Result<(), Fault> {
    let scene = Scene::new()?;
    let store = scene.stores.first().ok_or("no store")?;
    let proxy = scene.proxies.first().ok_or("no proxy")?;
    let mut watcher = from_the_start(store)?;
    for number in 0..5 {
        store.set("g", &number.to_string(), "x")?;
        assert!(proxy.revoke_leases()? > 0);
    }
    let last = store.set("g", "last", "x")?;
    assert_eq!(told(&mut watcher, last)?.len(), 6);
    Ok(())
}

#[test]
fn a_lease_that_is_said_to_be_kept_and_is_gone_costs_no_write() -> Result<(), Fault> {
    let scene = Scene::new()?;
    let store = scene.stores.first().ok_or("no store")?;
    let proxy = scene.proxies.first().ok_or("no proxy")?;
    let mut watcher = from_the_start(store)?;
    proxy.lie_about_leases();
    store.set("g", "before", "x")?;
    assert!(proxy.revoke_leases()? > 0);
    // The store asks when a quarter of its lease's time is over.
    proxy.wait_told(1)?;
    let last = store.set("g", "last", "x")?;
    assert_eq!(told(&mut watcher, last)?.len(), 2);
    Ok(())
}

/// Draws lies of all kinds for a proxy.
fn mix(proxy: &Proxy, random: &mut fastrand::Rng) {
    for _ in 0..MIXED {
        match random.u8(0..8) {
            0 => proxy.next_opening(Opening::Below),
            1 => proxy.next_opening(Opening::Compacted),
            2 | 3 => proxy.lose_answer_after(random.usize(0..APART)),
            _ => {
                let lie = random.choice(Lie::ALL).unwrap_or(Lie::Drop);
                proxy.watch_after(random.usize(0..APART), lie);
            }
        }
    }
}

#[test]
fn lies_of_all_kinds_at_once_cost_no_write_and_no_event() -> Result<(), Fault> {
    let mut row = Row::default();
    for seed in 800..800 + scaled(1) {
        let (scene, mut random) = (Scene::new()?, fastrand::Rng::with_seed(seed));
        scene.proxies.iter().for_each(|proxy| mix(proxy, &mut random));
        match scene.run(0) {
            Ok(_) => row.fine([]),
            Err(fault) => row.wrong(seed, fault.to_string()),
        }
        let told: usize = scene.proxies.iter().map(Proxy::told).sum();
        row.note("lies", told as u64);
    }
    row.print("lies");
    assert!(row.problem().is_none(), "{:?}", row.problem());
    assert!(row.count("lies") > 0, "no lie was told");
    Ok(())
}
