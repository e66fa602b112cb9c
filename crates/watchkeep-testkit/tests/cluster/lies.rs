//! What a watch may get wrong, and what a network may: a proxy lies to every store, and nothing is lost, doubled or out of
//! order.

use watchkeep::{ErrorKind, Event, Kind, SetOptions, Watcher};
use watchkeep_testkit::proxy::{Lie, Opening};
use watchkeep_testkit::surface::Fault;

use crate::scene::{LIMIT, Scene, from_the_start, open, told};

/// How often each store is lied to in a course.
const TIMES: usize = 3;

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

fn next(watcher: &mut Watcher) -> Result<Event, Fault> {
    Ok(watcher.recv_timeout(LIMIT).ok_or("no event within the limit")??)
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
