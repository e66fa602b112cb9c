//! The other policies: what each gives up, and what it does not.

use watchkeep::{Event, Filter, Kind, LagPolicy, WatchOptions};

use super::{Fault, ready, relaxed, revisions};

fn shown(events: &[Event]) -> Vec<String> {
    let one = |event: &Event| match event.value() {
        Some(value) => format!("{}={}", event.key().unwrap_or("*"), value.to_string_lossy()),
        None => format!("{} {}", event.kind(), event.key().unwrap_or("*")),
    };
    events.iter().map(one).collect()
}

#[test]
fn drop_keeps_the_oldest_and_counts_the_rest() -> Result<(), Fault> {
    let (_folder, store) = relaxed()?;
    let options = WatchOptions::new().policy(LagPolicy::Drop).buffer(3);
    let mut watcher = store.watch_with(Filter::everything(), options)?;
    for number in 0..10 {
        store.set("g", "k", number.to_string())?;
        assert_eq!(watcher.dropped(), if number < 3 { 0 } else { number - 2 });
    }
    assert_eq!(revisions(&ready(&mut watcher)?), [1, 2, 3]);
    // With room again, it goes on.
    store.set("g", "k", "v")?;
    assert_eq!(revisions(&ready(&mut watcher)?), [11]);
    assert_eq!(watcher.dropped(), 7);
    Ok(())
}

#[test]
fn latest_keeps_the_newest_of_each_key() -> Result<(), Fault> {
    let (_folder, store) = relaxed()?;
    let options = WatchOptions::new().policy(LagPolicy::Latest);
    let mut watcher = store.watch_with(Filter::everything(), options)?;
    for number in 0..5 {
        for key in ["a", "b", "c"] {
            store.set("g", key, number.to_string())?;
        }
    }
    store.set("other", "k", "v")?;
    store.delete("g", "b")?;
    assert_eq!(shown(&ready(&mut watcher)?), ["a=4", "c=4", "k=v", "delete b"]);
    Ok(())
}

#[test]
fn latest_takes_the_deletion_of_a_group_for_its_keys() -> Result<(), Fault> {
    let (_folder, store) = relaxed()?;
    let options = WatchOptions::new().policy(LagPolicy::Latest);
    let mut watcher = store.watch_with(Filter::everything(), options)?;
    store.set("g", "a", "1")?;
    store.set("other", "k", "v")?;
    store.set("g", "b", "1")?;
    store.delete_group("g")?;
    store.set("g", "b", "2")?;
    let events = ready(&mut watcher)?;
    assert_eq!(shown(&events), ["k=v", "delete_group *", "b=2"]);
    assert_eq!(events[1].kind(), Kind::DeleteGroup);
    Ok(())
}

#[test]
fn latest_with_more_keys_than_room_loses_none() -> Result<(), Fault> {
    let (_folder, store) = relaxed()?;
    let options = WatchOptions::new().policy(LagPolicy::Latest).buffer(4);
    let mut watcher = store.watch_with(Filter::everything(), options)?;
    for number in 0..900 {
        store.set("g", &format!("k{}", number % 30), number.to_string())?;
    }
    let events = ready(&mut watcher)?;
    assert!(events.windows(2).all(|pair| pair[0].revision() < pair[1].revision()));
    let newest: Vec<String> = (870..900).map(|number| format!("k{}={number}", number % 30)).collect();
    let seen = shown(&events);
    for wanted in newest {
        assert!(seen.contains(&wanted), "{wanted} is missing");
    }
    Ok(())
}
