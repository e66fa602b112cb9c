//! What goes with a lease: who holds a consumer, and who is the store's keeper. Clocks of machines may differ; leases end by
//! the cluster's.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use watchkeep::{ConsumerOptions, ConsumerStart, ErrorKind, Event, Force, Kind, ManualClock, Store};
use watchkeep_testkit::surface::{Fault, patient};

use crate::far::{AHEAD, store_ahead, stores};
use crate::machines::{etcdctl, next, place, prefix};
use crate::scene::LIMIT;

/// What a child process is told: where the store is whose consumer it is to hold.
const PLACE: &str = "WATCHKEEP_TEST_HOLDER_PLACE";
/// For how long what is due is left to the keeper, at the least.
const HEAD_START: Duration = Duration::from_millis(250);

/// A row of a place, as the servers have it.
fn row(place: &str, key: &str) -> Result<Option<serde_json::Value>, Fault> {
    let said = etcdctl(&["get", &format!("{}{key}", prefix(place)?), "-w", "json"])?;
    let mut said: serde_json::Value = serde_json::from_str(&said)?;
    Ok(said.pointer_mut("/kvs/0").map(serde_json::Value::take))
}

/// The lease that bears a row, as `etcdctl` names it.
fn lease_of(place: &str, key: &str) -> Result<String, Fault> {
    let lease = row(place, key)?.and_then(|row| row.get("lease")?.as_i64());
    Ok(format!("{:x}", lease.ok_or_else(|| format!("no lease bears {key}"))?))
}

/// How many seconds a lease has left: none, or fewer, once it is gone.
fn left(lease: &str) -> Result<i64, Fault> {
    let said = etcdctl(&["lease", "timetolive", lease, "-w", "json"])?;
    let said: serde_json::Value = serde_json::from_str(&said)?;
    said.get("ttl").and_then(serde_json::Value::as_i64).ok_or_else(|| said.to_string().into())
}

fn from_the_beginning() -> ConsumerOptions {
    ConsumerOptions::new().start(ConsumerStart::Beginning)
}

fn refusal<T>(refused: watchkeep::Result<T>) -> Option<ErrorKind> {
    refused.err().map(|error| error.kind())
}

#[test]
fn who_holds_a_name_keeps_it_whatever_the_clock_of_another_machine_says() -> Result<(), Fault> {
    let place = place()?;
    let [(_, behind), (clock, ahead)] = stores(&place)?;
    for (holds, wants) in [(&behind, &ahead), (&ahead, &behind)] {
        let consumer = holds.consumer("c")?;
        clock.advance(Duration::from_secs(86_400));
        assert_eq!(refusal(wants.consumer("c")), Some(ErrorKind::Held));
        for store in [holds, wants] {
            let listed = store.consumers()?.pop().and_then(|it| it.holder);
            assert!(listed.is_some_and(|holder| holder.is_alive));
        }
        consumer.close()?;
    }
    Ok(())
}

#[test]
fn a_holder_whose_lease_is_gone_goes_on_until_another_takes_the_name() -> Result<(), Fault> {
    let place = place()?;
    let (one, other) = (patient().connect(&place)?, patient().connect(&place)?);
    let revisions = (0..2).map(|_| one.set("g", "k", "v")).collect::<watchkeep::Result<Vec<_>>>()?;
    // It is acknowledged, and nothing else, that gives a sign of life.
    let lease = Duration::from_secs(3_600);
    let mut consumer = one.consumer_with("c", from_the_beginning().lease(lease))?;
    for revision in &revisions {
        let event = consumer.recv_timeout(LIMIT).ok_or("no event within the limit")??;
        assert_eq!(event.revision(), *revision);
    }
    let end_it = || etcdctl(&["lease", "revoke", &lease_of(&place, "h/c")?]);
    end_it()?;
    assert!(other.consumers()?.pop().and_then(|it| it.holder).is_some_and(|holder| !holder.is_alive));
    consumer.ack(revisions[0])?;
    assert_eq!(refusal(other.consumer("c")), Some(ErrorKind::Held), "it gave a sign of life");
    end_it()?;
    let taken = other.consumer("c")?;
    assert!(taken.fence() > consumer.fence());
    assert_eq!(refusal(consumer.ack(revisions[1])), Some(ErrorKind::Fenced));
    assert_eq!(other.consumers()?.pop().and_then(|it| it.acked), Some(revisions[0]));
    Ok(())
}

#[test]
fn signs_of_life_renew_the_lease_and_write_nothing() -> Result<(), Fault> {
    let place = place()?;
    let store = patient().connect(&place)?;
    let _held = store.consumer_with("c", ConsumerOptions::new().lease(Duration::from_secs(9)))?;
    let (rows, lease) = ([row(&place, "c/c")?, row(&place, "h/c")?], lease_of(&place, "h/c")?);
    let (until, mut least) = (Instant::now() + LIMIT, left(&lease)?);
    for _ in 0..2 {
        loop {
            let now = left(&lease)?;
            assert!(now > 0 && Instant::now() < until, "it is not renewed: {now} s left");
            if now > least {
                least = now;
                break;
            }
            least = now;
        }
    }
    assert_eq!([row(&place, "c/c")?, row(&place, "h/c")?], rows);
    Ok(())
}

#[test]
fn a_lease_ends_when_nobody_needs_it_any_more() -> Result<(), Fault> {
    let place = place()?;
    let store = patient().connect(&place)?;
    let options = ConsumerOptions::new().lease(Duration::from_secs(86_400));
    let given_back = store.consumer_with("given-back", options.clone())?;
    let _removed = store.consumer_with("removed", options)?;
    let leases = ["h/given-back", "h/removed"].map(|row| lease_of(&place, row));
    given_back.close()?;
    store.remove_consumer("removed", Force::Yes)?;
    store.close()?;
    for lease in leases {
        let left = left(&lease?)?;
        assert!(left <= 0, "{left} s are left");
    }
    Ok(())
}

#[test]
fn a_holders_row_that_cannot_be_read_keeps_nobody_from_a_name() -> Result<(), Fault> {
    let place = place()?;
    let store = patient().connect(&place)?;
    store.consumer("c")?.close()?;
    etcdctl(&["put", &format!("{}h/c", prefix(&place)?), "garbage"])?;
    assert!(store.consumers()?.pop().is_some_and(|it| it.holder.is_none()));
    let consumer = store.consumer("c")?;
    assert_eq!(refusal(store.consumer("c")), Some(ErrorKind::Held));
    consumer.close()?;
    etcdctl(&["put", &format!("{}h/c", prefix(&place)?), "garbage"])?;
    store.remove_consumer("c", Force::No)?;
    assert_eq!(row(&place, "h/c")?, None);
    Ok(())
}

/// The process that holds a consumer: by itself it does nothing.
#[test]
fn holding_child() {
    let Ok(place) = std::env::var(PLACE) else { return };
    let store = patient().connect(&place).expect("the store");
    let lease = ConsumerOptions::new().lease(Duration::from_secs(1)).holder("the killed one");
    let _held = store.consumer_with("c", lease).expect("nobody has it");
    store.set("said", "held", "").expect("the parent waits for it");
    // Until it is killed.
    loop {
        std::thread::park();
    }
}

#[test]
fn the_name_of_a_process_that_was_killed_is_free_when_its_lease_ends() -> Result<(), Fault> {
    let place = place()?;
    let store = patient().connect(&place)?;
    let mut said = store.watch("said", "held");
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--exact", "leases::holding_child", "--nocapture"])
        .env(PLACE, &place)
        .stdout(Stdio::null())
        .spawn()?;
    let heard = next(&mut said);
    child.kill()?;
    child.wait()?;
    heard?;
    assert_eq!(refusal(store.consumer("c")), Some(ErrorKind::Held), "its lease still runs");
    store.consumer_with("c", ConsumerOptions::new().wait(LIMIT))?;
    Ok(())
}

/// Waits until a key expires; how long that took since the clock was set forward to it.
fn expired(clock: &ManualClock, store: &Store) -> Result<Duration, Fault> {
    let mut watcher = store.watch("g", "*");
    store.set_with_ttl("g", "k", "v", Duration::from_secs(1))?;
    assert_eq!(next(&mut watcher)?.kind(), Kind::Set);
    let begun = Instant::now();
    clock.advance(Duration::from_secs(1));
    let event: Event = next(&mut watcher)?;
    assert_eq!(event.kind(), Kind::Expire);
    Ok(begun.elapsed())
}

#[test]
fn what_is_due_is_left_to_the_keeper_and_removed_by_another_when_that_does_nothing() -> Result<(), Fault> {
    let place = place()?;
    let (clock, keeper) = store_ahead(&place, Duration::ZERO)?;
    assert!(expired(&clock, &keeper)? >= HEAD_START, "there may be a keeper");
    let kept = row(&place, "keeper")?.ok_or("nobody is the keeper")?;
    // By its clock an hour has passed, of which the keeper knows nothing.
    let (other_clock, other) = store_ahead(&place, AHEAD)?;
    for _ in 0..3 {
        assert!(expired(&other_clock, &other)? >= HEAD_START, "it is the keeper's turn");
    }
    assert_eq!(row(&place, "keeper")?, Some(kept.clone()));
    keeper.close()?;
    assert_eq!(row(&place, "keeper")?, None, "it goes with its session");
    expired(&other_clock, &other)?;
    assert_ne!(row(&place, "keeper")?.ok_or("nobody took over")?, kept);
    Ok(())
}
