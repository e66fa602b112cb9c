//! Expiry: invisible at the deadline, announced with the last value, in bounded steps.

use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use crate::support::futures::block_on;
use crate::support::needs::{Need, needs};
use crate::support::numbers::number;
use crate::support::{
    Anywhere as _, LIMIT, Result, anywhere, eventually, fill, kinds, line, lines, next, revisions, take,
    within_limit,
};
use watchkeep::{
    Batch, Clock, Durability, ErrorKind, Filter, Item, Kind, ManualClock, Options, Outcome, Retention,
    Revision, SetOptions, Store, Timestamp, WatchOptions,
};

const SECOND: Duration = Duration::from_secs(1);

fn timed() -> Result<(Arc<ManualClock>, Store)> {
    let clock = Arc::new(ManualClock::default());
    let store = Options::new().clock(clock.clone()).anywhere()?;
    Ok((clock, store))
}

/// A clock that nobody is told of: the store's thread finds out when it looks.
#[derive(Debug, Default)]
struct Quiet(Mutex<i64>);

impl Quiet {
    fn set(&self, millis: i64) {
        if let Ok(mut now) = self.0.lock() {
            *now = millis;
        }
    }
}

impl Clock for Quiet {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.lock().map(|now| *now).unwrap_or_default())
    }
}

/// The same for one thread; for all others, the store's own above all, time stands still.
#[derive(Debug)]
struct Mine(Arc<Quiet>, thread::ThreadId);

impl Clock for Mine {
    fn now(&self) -> Timestamp {
        if thread::current().id() == self.1 { self.0.now() } else { Timestamp::from_millis(1_000_000) }
    }
}

fn quiet() -> Result<(Arc<Quiet>, Store)> {
    let clock = Arc::new(Quiet::default());
    clock.set(1_000_000);
    let store = Options::new().clock(clock.clone()).anywhere()?;
    Ok((clock, store))
}

/// The same where only this thread's time goes on: the timer does nothing of its own.
fn mine() -> Result<(Arc<Quiet>, Store)> {
    let clock = Arc::new(Quiet::default());
    clock.set(1_000_000);
    let store = Options::new().clock(Arc::new(Mine(clock.clone(), thread::current().id()))).anywhere()?;
    Ok((clock, store))
}

/// Whether any read sees the key.
fn is_visible(store: &Store, group: &str, key: &str) -> Result<bool> {
    let seen = [
        store.get(group, key)?.is_some(),
        store.entry(group, key)?.is_some(),
        store.contains(group, key)?,
        store.remaining_ttl(group, key)?.is_some(),
        store.count(group)? > 0,
        store.count_all("")? > 0,
        store.groups("").next().is_some(),
        store.entries(group).next().is_some(),
        !store.page(group, Default::default())?.entries.is_empty(),
        store.snapshot()?.get(group, key)?.is_some(),
        store.stats()?.entries > 0,
        !store.render("{% for key in entries %}{{ key }}{% endfor %}", group)?.is_empty(),
    ];
    assert!(seen.iter().all(|read| *read == seen[0]), "reads disagree: {seen:?}");
    Ok(seen[0])
}

#[test]
fn an_entry_is_there_until_its_deadline_and_not_at_it() -> Result {
    needs!(LoneClosures);
    let (clock, store) = quiet()?;
    store.set_with_ttl("g", "k", "v", SECOND)?;
    assert_eq!(store.remaining_ttl("g", "k")?, Some(SECOND));
    // While a transaction is open nobody can remove it: it is for the reads not to see it.
    let mut seen = Vec::new();
    store.transaction(|tx| {
        for now in [1_000_999, 1_001_000, 5_000_000] {
            clock.set(now);
            seen.push(is_visible(&store, "g", "k").map_err(watchkeep::Error::abort)?);
        }
        assert!(tx.contains("g", "k")?, "a transaction has one moment");
        Ok(())
    })?;
    assert_eq!(seen, [true, false, false]);
    assert!(!store.transaction(|tx| tx.contains("g", "k"))?.value && !is_visible(&store, "g", "k")?);
    Ok(())
}

#[test]
fn the_expire_event_bears_the_last_value_and_deadline() -> Result {
    let (clock, store) = timed()?;
    let mut watcher = store.watch("*", "*");
    let options = SetOptions::new().ttl(SECOND).content_type("text/plain");
    store.set("g", "k", "first")?;
    let revision = store.set_with("g", "k", "last", options)?;
    clock.advance(SECOND);
    let event = take(&mut watcher, 3)?.pop().ok_or("none")?;
    assert_eq!(line(&event), "3 expire g/k=last");
    assert_eq!(event.previous_revision(), Some(revision));
    assert_eq!(event.content_type(), Some("text/plain"));
    assert_eq!(event.deadline(), Some(clock.now()));
    assert_eq!(event.timestamp(), clock.now());
    assert!(!store.contains("g", "k")?);
    Ok(())
}

#[test]
fn one_key_after_the_other_expires_in_the_order_of_their_deadlines() -> Result {
    let (clock, store) = timed()?;
    let mut watcher = store.watch_with(Filter::everything().kinds([Kind::Expire]), WatchOptions::new())?;
    for seconds in [3_u64, 1, 2, 5, 4] {
        store.set_with_ttl("g", &seconds.to_string(), "v", SECOND * u32::try_from(seconds)?)?;
    }
    for expected in 1..=5_u64 {
        assert!(watcher.try_recv().is_none());
        clock.advance(SECOND);
        assert_eq!(next(&mut watcher)?.key(), Some(expected.to_string().as_str()));
    }
    Ok(())
}

#[test]
fn what_expired_while_the_store_was_closed_is_announced_after_reopening() -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("app.db");
    let clock = Arc::new(ManualClock::default());
    let open = || Options::new().clock(clock.clone()).durability(Durability::Relaxed).open(&path);
    let store = open()?;
    for key in 0..600 {
        store.set_with_ttl("g", &key.to_string(), "v", SECOND)?;
    }
    store.set_with_ttl("g", "later", "v", SECOND * 10)?;
    let cursor = store.cursor(store.last_revision()?);
    store.close()?;
    clock.advance(SECOND * 2);
    let store = open()?;
    let mut watcher = store.watch_with(Filter::everything(), WatchOptions::new().after_cursor(cursor))?;
    let events = take(&mut watcher, 600)?;
    assert!(events.iter().all(|event| event.kind() == Kind::Expire && event.value().is_some()));
    assert_eq!(revisions(&events), (602..=1201).collect::<Vec<_>>());
    assert_eq!((store.count("g")?, store.stats()?.entries), (1, 1));
    clock.advance(SECOND * 10);
    assert_eq!(line(&next(&mut watcher)?), "1202 expire g/later=v");
    assert!(store.check()?.is_ok());
    Ok(())
}

type Write = fn(&Store) -> watchkeep::Result<()>;

#[test]
fn a_write_that_touches_a_due_key_logs_its_expiry_first_in_the_same_transaction() -> Result {
    let writes: [(&str, Write, &[&str]); 8] = [
        ("set", |store| store.set("g", "k", "new").map(drop), &["2 expire g/k=old", "3 set g/k=new"]),
        (
            "set if absent",
            |store| store.set_with("g", "k", "new", SetOptions::new().if_absent()).map(drop),
            &["2 expire g/k=old", "3 set g/k=new"],
        ),
        (
            "set keeping the deadline",
            |store| store.set_with("g", "k", "new", SetOptions::new().keep_ttl()).map(drop),
            &["2 expire g/k=old", "3 set g/k=new"],
        ),
        ("delete", |store| store.delete("g", "k").map(|there| assert!(!there)), &["2 expire g/k=old"]),
        ("touch", |store| store.touch("g", "k", SECOND).map(|there| assert!(!there)), &["2 expire g/k=old"]),
        ("persist", |store| store.persist("g", "k").map(|there| assert!(!there)), &["2 expire g/k=old"]),
        (
            "delete_group",
            |store| store.delete_group("g").map(|keys| assert_eq!(keys, 0)),
            &["2 expire g/k=old"],
        ),
        (
            "delete_prefix",
            |store| store.delete_prefix("").map(|keys| assert_eq!(keys, 0)),
            &["2 expire g/k=old"],
        ),
    ];
    for (name, write, expected) in writes {
        let (clock, store) = mine()?;
        let mut watcher = store.watch("*", "*");
        store.set_with_ttl("g", "k", "old", SECOND)?;
        clock.set(1_001_000);
        write(&store)?;
        let events = take(&mut watcher, 1 + expected.len())?;
        assert_eq!(lines(&events[1..]), expected, "{name}");
        assert!(
            events[1..].iter().all(|event| event.commit() == events[expected.len()].revision()),
            "{name}"
        );
        if let Some(entry) = store.entry("g", "k")? {
            assert_eq!((entry.created, entry.deadline), (entry.revision, None), "{name}: a new entry");
            assert_eq!(events[2].previous_revision(), None, "{name}");
        }
    }
    Ok(())
}

#[test]
fn a_condition_on_a_due_key_finds_nothing_there() -> Result {
    let (clock, store) = quiet()?;
    let revision = store.set_with_ttl("g", "k", "v", SECOND)?;
    clock.set(1_001_000);
    let refused = store.set_with("g", "k", "w", SetOptions::new().if_revision(revision));
    let error = refused.err().ok_or("it was taken")?;
    assert_eq!((error.kind(), error.current_revision()), (ErrorKind::Conflict, None));
    store.set_with("g", "k", "w", SetOptions::new().if_absent())?;
    Ok(())
}

#[test]
fn set_clears_the_deadline_keep_ttl_keeps_it_touch_moves_it_persist_takes_it_away() -> Result {
    let (clock, store) = timed()?;
    let left = || store.remaining_ttl("g", "k");
    store.set_with_ttl("g", "k", "v", SECOND)?;
    store.set("g", "k", "v")?;
    assert_eq!(left()?, None);
    store.set_with_ttl("g", "k", "v", SECOND * 10)?;
    clock.advance(SECOND);
    let kept = store.set_with("g", "k", "w", SetOptions::new().keep_ttl())?;
    assert_eq!(left()?, Some(SECOND * 9));
    assert!(store.touch("g", "k", SECOND * 100)?);
    let entry = store.entry("g", "k")?.ok_or("gone")?;
    assert_eq!(
        (entry.revision, entry.remaining(clock.now())),
        (kept, Some(SECOND * 100)),
        "touch leaves the revision"
    );
    clock.advance(SECOND * 50);
    assert!(store.persist("g", "k")?);
    clock.advance(SECOND * 1_000);
    assert_eq!((left()?, store.get("g", "k")?.ok_or("gone")?.as_str()), (None, Some("w")));
    assert!(!store.touch("g", "nothing", SECOND)? && !store.persist("g", "nothing")?);
    Ok(())
}

#[test]
fn a_touched_entry_expires_at_its_new_deadline_sooner_or_later() -> Result {
    let (clock, store) = timed()?;
    let mut watcher = store.watch_with(Filter::everything().kinds([Kind::Expire]), WatchOptions::new())?;
    store.set_with_ttl("g", "sooner", "v", SECOND * 100)?;
    store.set_with_ttl("g", "later", "v", SECOND)?;
    store.touch("g", "sooner", SECOND)?;
    store.touch("g", "later", SECOND * 100)?;
    clock.advance(SECOND);
    assert_eq!(next(&mut watcher)?.key(), Some("sooner"));
    assert!(store.contains("g", "later")?);
    clock.advance(SECOND * 99);
    assert_eq!(next(&mut watcher)?.key(), Some("later"));
    Ok(())
}

#[test]
fn a_touch_is_an_event_with_the_new_deadline_and_an_idle_one_is_none() -> Result {
    let (clock, store) = timed()?;
    let mut watcher = store.watch_with(Filter::everything().kinds(Kind::ALL), WatchOptions::new())?;
    store.set("g", "k", "v")?;
    store.touch("g", "k", SECOND)?;
    store.touch("g", "k", SECOND)?;
    store.persist("g", "k")?;
    store.persist("g", "k")?;
    let events = take(&mut watcher, 3)?;
    assert_eq!(lines(&events), ["1 set g/k=v", "2 touch g/k", "3 touch g/k"]);
    let deadline = Timestamp::from_millis(clock.now().as_millis() + 1_000);
    assert_eq!((events[1].deadline(), events[2].deadline()), (Some(deadline), None));
    assert_eq!(number(store.last_revision()?), 3);
    Ok(())
}

#[test]
fn deleting_a_group_with_thousands_of_due_keys_announces_each_first() -> Result {
    for how in ["delete_group", "in a transaction", "delete_prefix", "in a batch", "a future"] {
        let (clock, store) = quiet()?;
        store.set("g", "stays", "v")?;
        fill(&store, 3_000, |tx, n| tx.set_with_ttl("g", &n.to_string(), "v", SECOND))?;
        let mut watcher = store.watch("*", "*");
        clock.set(1_001_000);
        let removed = match how {
            "delete_group" => store.delete_group("g")?,
            "delete_prefix" => store.delete_prefix("g")?,
            "in a batch" => match store.apply(Batch::new().delete_group("g"))?.outcomes[..] {
                [Outcome::Keys(keys)] => keys,
                ref other => return Err(format!("{other:?}").into()),
            },
            "a future" => block_on(store.to_async().delete_group("g"))?,
            _ => {
                let mut runs = 0;
                let done = store.transaction(|tx| {
                    runs += 1;
                    tx.delete_group("g")
                })?;
                // Once to find out, and once when all of it has gone, in however many steps.
                assert!(runs <= 2, "{runs} runs");
                done.value
            }
        };
        let events = take(&mut watcher, 3_001)?;
        assert_eq!(removed, 1, "{how}: what was due was not there");
        assert!(events[..3_000].iter().all(|event| event.kind() == Kind::Expire), "{how}");
        assert_eq!(line(&events[3_000]), "6002 delete_group g", "{how}");
        assert!(watcher.try_recv().is_none() && store.check()?.is_ok());
    }
    Ok(())
}

#[test]
fn purge_expired_returns_how_many_and_only_those_of_its_namespace() -> Result {
    let (clock, store) = mine()?;
    let tenant = store.scoped("t")?;
    for round in 1..=30_i64 {
        for key in 0..10 {
            tenant.set_with_ttl("g", &key.to_string(), "v", SECOND)?;
        }
        for group in ["t", "tt:g", "T:g", "t-1:g"] {
            store.set_with_ttl(group, "k", "v", SECOND)?;
        }
        assert_eq!(store.purge_expired()?, 0);
        clock.set(1_000_000 + round * 1_000);
        let purged = (
            tenant.purge_expired()?,
            tenant.purge_expired()?,
            store.purge_expired()?,
            store.purge_expired()?,
        );
        assert_eq!(purged, (10, 0, 4, 0), "round {round}");
    }
    assert!(store.check()?.is_ok());
    Ok(())
}

#[test]
fn a_deleted_group_has_no_deadline_any_more() -> Result {
    let (_clock, store) = quiet()?;
    (0..2_000).try_for_each(|n| store.set_with_ttl("g", &n.to_string(), "v", SECOND).map(drop))?;
    assert_eq!(store.delete_group("g")?, 2_000);
    assert_eq!(store.stats()?.next_deadline, None);
    Ok(())
}

#[test]
fn what_was_deleted_with_its_group_expires_for_nobody() -> Result {
    let (clock, store) = quiet()?;
    (0..2_000).try_for_each(|n| store.set_with_ttl("g", &n.to_string(), "v", SECOND).map(drop))?;
    let mut watcher = store.watch("*", "*");
    assert_eq!(store.delete_group("g")?, 2_000);
    clock.set(1_001_000);
    assert_eq!(store.purge_expired()?, 0, "nothing was left to expire");
    store.set("g", "0", "again")?;
    assert_eq!(kinds(&take(&mut watcher, 2)?), [(Kind::DeleteGroup, String::new()), (Kind::Set, "0".into())]);
    assert!(watcher.try_recv().is_none());
    assert_eq!(store.count("g")?, 1);
    Ok(())
}

#[test]
fn writers_come_in_between_while_thousands_of_keys_expire() -> Result {
    let clock = Arc::new(ManualClock::default());
    let store = Options::new().clock(clock.clone()).retention(Retention::FOREVER).anywhere()?;
    // A cluster takes a minute for what a file does in a second.
    let thousands = if Need::LargeTransactions.is_met() { 20 } else { 2 };
    for part in 0..thousands {
        fill(&store, 1_000, |tx, n| tx.set_with_ttl("g", &format!("{part}-{n}"), "v", SECOND))?;
    }
    let start = store.last_revision()?;
    clock.advance(SECOND);
    // As long as it goes on, one write after the other.
    let mut written = 0;
    let before = number(start);
    while number(store.last_revision()?) < before + thousands * 1_000 + written {
        store.set("h", "k", written.to_string())?;
        written += 1;
        assert!(written < 1_000_000, "it does not come to an end");
    }
    eventually("the last ones", || {
        Ok(number(store.last_revision()?) == before + thousands * 1_000 + written)
    })?;
    assert!(written > 20, "only {written} writes came in between");
    // No transaction expires many, and between two steps there is room for others.
    let (mut expired, mut steps, mut longest) = (0_u64, 0_u64, 0);
    for event in store.history(Filter::everything(), start) {
        let event = event?;
        let size = event.commit().get() - event.revision().get();
        longest = longest.max(size + 1);
        if event.kind() == Kind::Expire {
            expired += 1;
            steps += u64::from(size == 0);
        }
    }
    assert_eq!(expired, thousands * 1_000);
    assert!(longest <= 256 && steps >= thousands * 1_000 / 256, "{steps} steps, the longest of {longest}");
    assert_eq!(
        (store.count("g")?, store.stats()?.bytes),
        (0, u64::try_from(1 + (written - 1).to_string().len())?)
    );
    Ok(())
}

#[test]
fn a_clock_that_is_set_back_gives_entries_more_time() -> Result {
    let (clock, store) = timed()?;
    let mut watcher = store.watch("*", "*");
    let start = clock.now();
    store.set_with_ttl("g", "k", "v", SECOND * 10)?;
    clock.set(Timestamp::from_millis(start.as_millis() - 3_600_000));
    assert!(store.contains("g", "k")?);
    store.set_with_ttl("g", "early", "v", SECOND * 10)?;
    clock.advance(SECOND * 10);
    assert_eq!(lines(&take(&mut watcher, 3)?)[2], "3 expire g/early=v");
    assert!(store.contains("g", "k")?);
    clock.set(Timestamp::from_millis(start.as_millis() + 10_000));
    assert_eq!(line(&next(&mut watcher)?), "4 expire g/k=v");
    Ok(())
}

#[test]
fn a_step_of_a_clock_that_tells_nobody_is_noticed_within_a_second() -> Result {
    let (clock, store) = quiet()?;
    let mut watcher = store.watch("*", "*");
    store.set_with_ttl("g", "k", "v", SECOND * 3_600)?;
    next(&mut watcher)?;
    clock.set(10_000_000);
    assert_eq!(line(&next(&mut watcher)?), "2 expire g/k=v");
    Ok(())
}

#[test]
fn expiry_comes_on_time_by_the_machine_s_clock() -> Result {
    let store = anywhere()?;
    let mut watcher = store.watch("*", "*");
    for _ in 0..5 {
        store.set_with_ttl("g", "k", "v", Duration::from_millis(60))?;
        let deadline = next(&mut watcher)?.deadline().ok_or("none")?;
        let event = next(&mut watcher)?;
        assert_eq!(event.kind(), Kind::Expire);
        let late = event.timestamp().since(deadline);
        assert!(event.timestamp() >= deadline && late < LIMIT, "{late:?} late");
    }
    Ok(())
}

#[test]
fn who_expires_an_entry_is_not_who_wrote_so_that_skipping_one_s_echo_skips_no_expiry() -> Result {
    let (clock, store) = mine()?;
    let me = store.with_origin("me");
    let mut watcher = store.watch_with(Filter::everything().exclude_origin("me"), WatchOptions::new())?;
    me.set_with_ttl("g", "a", "v", SECOND)?;
    me.set_with_ttl("g", "b", "v", SECOND)?;
    clock.set(1_001_000);
    me.set("g", "a", "new")?;
    me.purge_expired()?;
    assert_eq!(lines(&take(&mut watcher, 2)?), ["3 expire g/a=v", "5 expire g/b=v"]);
    Ok(())
}

#[test]
fn times_to_live_from_a_millisecond_to_the_year_9999_and_no_others() -> Result {
    let (clock, store) = timed()?;
    let end = Duration::from_millis(u64::try_from(watchkeep::MAX_DEADLINE_MS - clock.now().as_millis())?);
    store.set_with_ttl("g", "short", "v", Duration::from_millis(1))?;
    store.set_with_ttl("g", "long", "v", end)?;
    for bad in [Duration::ZERO, Duration::from_nanos(999_999), end + Duration::from_millis(1), Duration::MAX]
    {
        let refused = [
            store.set_with_ttl("g", "bad", "v", bad).map(drop),
            store.touch("g", "long", bad).map(drop),
            store.touch("g", "nothing", bad).map(drop),
            store.transaction(|tx| tx.set_with_ttl("g", "bad", "v", bad)).map(drop),
        ];
        for refused in refused {
            assert_eq!(refused.map_err(|error| error.kind()), Err(ErrorKind::InvalidArgument), "{bad:?}");
        }
    }
    assert_eq!((store.remaining_ttl("g", "long")?, number(store.last_revision()?)), (Some(end), 2));
    Ok(())
}

#[test]
fn an_expiry_in_a_transaction_that_rolls_back_comes_later_once() -> Result {
    let (clock, store) = quiet()?;
    let mut watcher = store.watch("*", "*");
    store.set_with_ttl("g", "k", "v", SECOND)?;
    clock.set(1_001_000);
    let refused = store.transaction(|tx| {
        tx.set("g", "k", "w")?;
        Err::<(), _>(watchkeep::Error::abort("no"))
    });
    assert!(refused.is_err() && !store.contains("g", "k")?);
    assert_eq!(lines(&take(&mut watcher, 2)?), ["1 set g/k=v", "2 expire g/k=v"]);
    store.purge_expired()?;
    assert!(watcher.try_recv().is_none());
    Ok(())
}

#[test]
fn a_snapshot_watch_has_no_entry_that_is_due_and_no_expiry_of_one_that_it_never_gave() -> Result {
    let (clock, store) = quiet()?;
    store.set_with_ttl("g", "due", "v", SECOND)?;
    store.set("g", "stays", "v")?;
    clock.set(1_001_000);
    let mut watcher = store.watch_with(Filter::everything(), WatchOptions::new().snapshot())?;
    let mut items = watcher.items();
    let mut state = Vec::new();
    loop {
        match items.recv_timeout(LIMIT).ok_or("nothing")?? {
            Item::Event(event) if event.kind() == Kind::Set => {
                state.push(event.key().unwrap_or_default().to_owned())
            }
            Item::Event(event) => state.retain(|key| Some(key.as_str()) != event.key()),
            Item::Ready(_) => break,
            other => return Err(format!("unexpected: {other:?}").into()),
        }
    }
    assert_eq!(state, ["stays"]);
    Ok(())
}

#[test]
fn readers_and_writers_that_race_with_expiry_agree_with_the_log() -> Result {
    within_limit(|| {
        let (clock, store) = timed()?;
        let (stop, stopped) = mpsc::channel::<()>();
        let ticking = {
            let clock = clock.clone();
            thread::spawn(move || {
                while stopped.recv_timeout(Duration::from_millis(1)) == Err(mpsc::RecvTimeoutError::Timeout) {
                    clock.advance(Duration::from_millis(5));
                }
            })
        };
        thread::scope(|scope| -> Result {
            let writers: Vec<_> = (0..4_u64)
                .map(|writer| {
                    let store = &store;
                    scope.spawn(move || -> Result {
                        for number in 0..200 {
                            let key = ((number + writer) % 10).to_string();
                            match number % 4 {
                                0 => drop(store.set_with_ttl(
                                    "g",
                                    &key,
                                    "v",
                                    Duration::from_millis(1 + number % 20),
                                )?),
                                1 => drop(store.touch("g", &key, Duration::from_millis(7))?),
                                2 => drop(store.set_with("g", &key, "w", SetOptions::new().keep_ttl())?),
                                _ => drop(store.delete("g", &key)?),
                            }
                        }
                        Ok(())
                    })
                })
                .collect();
            writers.into_iter().try_for_each(|writer| writer.join().map_err(|_| "panicked")?)
        })?;
        stop.send(())?;
        ticking.join().map_err(|_| "panicked")?;
        // Each expiry and each delete ends exactly one life of its key.
        let mut there = std::collections::BTreeMap::new();
        for event in store.history(Filter::everything().kinds(Kind::ALL), Revision::ZERO) {
            let event = event?;
            let key = event.key().unwrap_or_default().to_owned();
            let before = match event.kind() {
                Kind::Set => there.insert(key, event.revision()),
                Kind::Touch => continue,
                _ => Some(there.remove(&key).ok_or("removed twice")?),
            };
            assert_eq!(event.previous_revision(), before, "{}", line(&event));
        }
        store.purge_expired()?;
        assert!(store.check()?.is_ok());
        Ok(())
    })
}
