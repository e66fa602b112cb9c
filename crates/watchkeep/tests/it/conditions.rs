//! Conditions on writes, values of every sort, and the limits of names and values.

use std::process::Command;
use std::sync::{Arc, Barrier};
use std::thread;

use crate::support::needs::needs;
use crate::support::numbers::number;
use crate::support::{Result, anywhere, lines, take};
use watchkeep::{
    ConsumerOptions, ConsumerStart, DeleteOptions, Error, ErrorKind, Filter, Limits, MAX_CONTENT_TYPE,
    MAX_LABEL, Options, Revision, SetOptions, Store, Value, WatchOptions,
};

fn kind<T>(result: std::result::Result<T, Error>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn if_absent_writes_once_and_tells_the_current_revision_after_that() -> Result {
    let store = anywhere()?;
    let absent = SetOptions::new().if_absent();
    let revision = store.set_with("g", "k", "v", absent.clone())?;
    let refused = store.set_with("g", "k", "w", absent.clone()).err().ok_or("it was taken")?;
    assert_eq!((refused.kind(), refused.current_revision()), (ErrorKind::Conflict, Some(revision)));
    assert_eq!(store.get("g", "k")?.ok_or("gone")?, "v");
    store.delete("g", "k")?;
    store.set_with("g", "k", "w", absent.clone())?;
    store.delete_group("g")?;
    store.set_with("g", "k", "x", absent)?;
    Ok(())
}

#[test]
fn if_revision_follows_the_value_and_not_the_deadline() -> Result {
    let store = anywhere()?;
    let first = store.set("g", "k", "1")?;
    let second = store.set_with("g", "k", "2", SetOptions::new().if_revision(first))?;
    let refused = store.set_with("g", "k", "3", SetOptions::new().if_revision(first)).err().ok_or("taken")?;
    assert_eq!(refused.current_revision(), Some(second));
    store.touch("g", "k", crate::support::LIMIT)?;
    let third = store.set_with("g", "k", "3", SetOptions::new().if_revision(second))?;
    let refused =
        store.delete_with("g", "k", DeleteOptions::new().if_revision(second)).err().ok_or("taken")?;
    assert_eq!((refused.kind(), refused.current_revision()), (ErrorKind::Conflict, Some(third)));
    assert!(store.delete_with("g", "k", DeleteOptions::new().if_revision(third))?);
    let refused =
        store.delete_with("g", "k", DeleteOptions::new().if_revision(third)).err().ok_or("taken")?;
    assert_eq!((refused.kind(), refused.current_revision()), (ErrorKind::Conflict, None));
    // A key that comes again is another entry.
    let again = store.set("g", "k", "4")?;
    assert!(again > third && store.entry("g", "k")?.is_some_and(|entry| entry.created == again));
    assert_eq!(
        kind(store.set_with("g", "k", "5", SetOptions::new().if_revision(Revision::ZERO))),
        Some(ErrorKind::Conflict)
    );
    Ok(())
}

#[test]
fn of_many_who_compare_and_set_exactly_one_wins_each_round() -> Result {
    let store = anywhere()?;
    let mut current = store.set("g", "k", "0")?;
    for round in 0..100 {
        let start = Arc::new(Barrier::new(4));
        let racers: Vec<_> = (0..4)
            .map(|racer| {
                let (store, start) = (store.clone(), start.clone());
                thread::spawn(move || {
                    start.wait();
                    store.set_with(
                        "g",
                        "k",
                        format!("{round}-{racer}"),
                        SetOptions::new().if_revision(current),
                    )
                })
            })
            .collect();
        let (mut won, mut lost) = (Vec::new(), Vec::new());
        for racer in racers {
            match racer.join().map_err(|_| "panicked")? {
                Ok(revision) => won.push(revision),
                Err(error) => lost.push(error.current_revision()),
            }
        }
        assert_eq!(won.len(), 1, "round {round}");
        assert_eq!(lost, [Some(won[0]); 3], "round {round}");
        current = won[0];
    }
    assert_eq!(number(store.last_revision()?), 101);
    Ok(())
}

#[test]
fn a_refused_write_announces_nothing_and_uses_no_revision() -> Result {
    let store = anywhere()?;
    let mut watcher = store.watch("*", "*");
    store.set("g", "k", "v")?;
    for _ in 0..5 {
        assert!(store.set_with("g", "k", "w", SetOptions::new().if_absent()).is_err());
        assert!(!store.delete("g", "nothing")?);
        assert_eq!((store.delete_group("nothing")?, store.delete_prefix("nothing")?), (0, 0));
    }
    store.set("g", "k", "x")?;
    assert_eq!(lines(&take(&mut watcher, 2)?), ["1 set g/k=v", "2 set g/k=x"]);
    assert!(watcher.try_recv().is_none());
    Ok(())
}

#[test]
fn values_are_any_bytes_and_come_back_as_they_went_in_everywhere() -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("app.db");
    let store = Store::open(&path)?;
    let values: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"\0".to_vec(),
        b"a\0b\0".to_vec(),
        vec![0xff, 0xfe, 0],
        (0..=255).collect(),
        "\u{feff}ä\u{10ffff}\r\n".into(),
        vec![0xed, 0xa0, 0x80],
        b"123".to_vec(),
        b"1e400".to_vec(),
        b"NULL".to_vec(),
        vec![b'x'; 3_000_000],
    ];
    let mut watcher = store.watch("*", "*");
    for (number, value) in values.iter().enumerate() {
        let key = number.to_string();
        store.set("g", &key, value.as_slice())?;
        let event = crate::support::next(&mut watcher)?;
        assert_eq!(event.value().map(Value::as_bytes), Some(value.as_slice()), "watched");
    }
    let bytes: u64 = values.iter().map(|value| value.len() as u64).sum();
    for reopened in [false, true] {
        let again = if reopened { Store::open(&path)? } else { store.clone() };
        let mut history = again.history(Filter::everything(), Revision::ZERO);
        let mut late = again.watch_with(Filter::everything(), WatchOptions::new().after(Revision::ZERO))?;
        for (number, value) in values.iter().enumerate() {
            let key = number.to_string();
            let logged = history.next().ok_or("the log ends early")??;
            let caught_up = crate::support::next(&mut late)?;
            let read = again.get("g", &key)?.ok_or("gone")?;
            let entry = again.entry("g", &key)?.ok_or("gone")?;
            for seen in [&read, &entry.value, logged.value().ok_or("none")?, caught_up.value().ok_or("none")?]
            {
                assert_eq!(seen.as_bytes(), value.as_slice(), "value {number}");
            }
            assert_eq!(read.as_str(), std::str::from_utf8(value).ok());
        }
        assert_eq!(again.stats()?.bytes, bytes + 12, "ten keys of one digit, and one of two");
        let report = again.check()?;
        assert!(report.is_ok(), "{report:?}");
        if !reopened {
            store.close()?;
        }
    }
    Ok(())
}

#[test]
fn the_sqlite3_shell_shows_text_as_text_and_the_rest_as_blobs() -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("app.db");
    let store = Store::open(&path)?;
    for (key, value) in [("text", &b"dark mode"[..]), ("digits", b"0042"), ("empty", b""), ("bytes", &[0xff])]
    {
        store.set("config", key, value)?;
    }
    let sql = "SELECT key, typeof(value), quote(value) FROM wk_entries ORDER BY key; \
               SELECT key, typeof(value), quote(value) FROM wk_log WHERE kind = 1 ORDER BY key; \
               PRAGMA integrity_check;";
    let output = Command::new("sqlite3").arg("-readonly").arg(&path).arg(sql).output()?;
    let rows = ["bytes|blob|X'FF'", "digits|text|'0042'", "empty|text|''", "text|text|'dark mode'"];
    let expected = [rows, rows].concat().join("\n") + "\nok\n";
    assert_eq!(String::from_utf8(output.stdout)?, expected, "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[test]
fn values_may_be_as_long_as_the_limit_and_no_longer() -> Result {
    needs!(LargeTransactions);
    let store = anywhere()?;
    store.set("g", "k", vec![b'x'; 16 << 20])?;
    assert_eq!(store.get("g", "k")?.map(|value| value.len()), Some(16 << 20));
    assert_eq!(kind(store.set("g", "k", vec![b'x'; (16 << 20) + 1])), Some(ErrorKind::TooLarge));
    assert_eq!(store.last_revision()?.get(), 1);
    Ok(())
}

#[test]
fn names_may_be_as_long_as_the_limits_and_no_longer() -> Result {
    let store = anywhere()?;
    let long = |len: usize| "n".repeat(len);
    store.set(&long(512), &long(1024), "value")?;
    assert_eq!(store.get(&long(512), &long(1024))?.map(|value| value.len()), Some(5));
    let last = store.last_revision()?;
    let refused = [
        store.set(&long(513), "k", "v"),
        store.set("g", &long(1025), "v"),
        store.set("g", "k", vec![b'x'; (16 << 20) + 1]),
        // Bytes count, not characters.
        store.set(&"ä".repeat(257), "k", "v"),
        store.scoped("ns")?.set(&long(510), "k", "v"),
    ];
    for (number, refused) in refused.into_iter().enumerate() {
        assert_eq!(kind(refused), Some(ErrorKind::TooLarge), "{number}");
    }
    store.set(&"ä".repeat(256), &"ä".repeat(512), "v")?;
    store.scoped("ns")?.set(&long(509), "k", "v")?;
    assert_eq!((number(last), number(store.last_revision()?)), (1, 3));
    Ok(())
}

#[test]
fn limits_may_be_set_lower_and_do_not_hide_what_is_there() -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("app.db");
    let store = Store::open(&path)?;
    store.set("group", "a key", "some value")?;
    store.close()?;
    let limits = Limits { group: 3, key: 3, value: 3 };
    let store = Options::new().limits(limits).open(&path)?;
    store.set("abc", "abc", "abc")?;
    store.set("", "", "")?;
    assert_eq!(kind(store.set("abcd", "k", "v")), Some(ErrorKind::TooLarge));
    assert_eq!(kind(store.transaction(|tx| tx.set("g", "k", "long"))), Some(ErrorKind::TooLarge));
    assert_eq!(store.get("group", "a key")?.ok_or("gone")?, "some value");
    assert!(store.delete("group", "a key")?);
    Ok(())
}

#[test]
fn names_are_any_text_and_mean_nothing_else() -> Result {
    let store = anywhere()?;
    let names = [
        "",
        " ",
        "*",
        "%",
        "_",
        "''; DROP TABLE wk_entries; --",
        "\"",
        "\\",
        "a%",
        "A%",
        "a_",
        "?1",
        "\0",
        "a\0",
        "a\0b",
        "\n",
        "🦀",
        "🦀🦀",
        "\u{10ffff}",
        "\u{10ffff}\u{10ffff}",
        "\u{d7ff}",
        "\u{e000}",
        "é",
        "e\u{301}",
        "İ",
        "ı",
        "NULL",
        "wk_meta",
        ":",
        "a:",
        ":a",
        "a:b",
    ];
    let mut watcher = store.watch_with(Filter::everything(), WatchOptions::new().buffer(2_000))?;
    for group in names {
        for key in names {
            store.set(group, key, format!("{group}/{key}"))?;
        }
    }
    for group in names {
        for key in names {
            assert_eq!(store.get(group, key)?.ok_or("gone")?, format!("{group}/{key}"), "{group:?} {key:?}");
            let event = crate::support::next(&mut watcher)?;
            assert_eq!((event.group(), event.key()), (group, Some(key)));
        }
        assert_eq!(store.count(group)?, names.len() as u64, "{group:?}");
    }
    let mut sorted = names.map(str::to_owned);
    sorted.sort();
    assert_eq!(store.groups("").collect::<std::result::Result<Vec<_>, _>>()?, sorted);
    for prefix in names {
        let expected: Vec<_> = sorted.iter().filter(|name| name.starts_with(prefix)).cloned().collect();
        let groups: Vec<_> = store.groups(prefix).collect::<std::result::Result<_, _>>()?;
        assert_eq!(groups, expected, "groups from {prefix:?}");
        let keys: Vec<_> = store
            .entries_with("*", watchkeep::ListOptions::new().prefix(prefix))
            .map(|entry| entry.map(|entry| entry.key))
            .collect::<std::result::Result<_, _>>()?;
        assert_eq!(keys, expected, "keys from {prefix:?}");
        assert_eq!(store.count_all(prefix)?, (expected.len() * names.len()) as u64, "{prefix:?}");
    }
    // One at a time they go, and nothing else with them.
    for (gone, group) in names.into_iter().enumerate() {
        assert_eq!(store.delete_group(group)?, names.len() as u64, "{group:?}");
        assert_eq!(store.count_all("")?, ((names.len() - gone - 1) * names.len()) as u64);
    }
    Ok(())
}

#[test]
fn delete_prefix_deletes_what_starts_so_byte_by_byte_and_nothing_else() -> Result {
    let groups =
        ["", "a", "A", "ab", "aB", "a%", "a_b", "b", "a\u{10ffff}", "a\u{10ffff}z", "\u{10ffff}", "ä"];
    for prefix in ["", "a", "A", "a%", "a_", "a\u{10ffff}", "\u{10ffff}", "ä", "x"] {
        let store = anywhere()?;
        for group in groups {
            store.set(group, "k", "v")?;
            store.set(group, "l", "v")?;
        }
        let mut watcher = store.watch("*", "*");
        let mut gone: Vec<_> = groups.into_iter().filter(|group| group.starts_with(prefix)).collect();
        gone.sort_unstable();
        assert_eq!(store.delete_prefix(prefix)?, gone.len() as u64 * 2, "{prefix:?}");
        let events = take(&mut watcher, gone.len())?;
        assert_eq!(events.iter().map(|event| event.group()).collect::<Vec<_>>(), gone, "{prefix:?}");
        assert!(
            events.iter().all(|event| event.commit() == events[events.len() - 1].revision()),
            "one transaction"
        );
        assert_eq!(store.count_all("")?, (groups.len() - gone.len()) as u64 * 2);
    }
    Ok(())
}

#[test]
fn a_content_type_goes_with_the_value_and_with_the_next_one_without() -> Result {
    let store = anywhere()?;
    let mut watcher = store.watch("*", "*");
    store.set_with("g", "k", "{}", SetOptions::new().content_type("application/json"))?;
    assert_eq!(
        store.entry("g", "k")?.and_then(|entry| entry.content_type).as_deref(),
        Some("application/json")
    );
    store.set("g", "k", "plain")?;
    assert_eq!(store.entry("g", "k")?.and_then(|entry| entry.content_type), None);
    let events = take(&mut watcher, 2)?;
    assert_eq!((events[0].content_type(), events[1].content_type()), (Some("application/json"), None));
    Ok(())
}

#[test]
fn content_types_and_labels_are_as_long_as_their_limits_and_no_longer() -> Result {
    let store = anywhere()?;
    let long = |len: usize| "x".repeat(len);
    let typed = |len| store.set_with("g", "k", "v", SetOptions::new().content_type(long(len)));
    let from = |len| store.with_origin(long(len));
    typed(MAX_CONTENT_TYPE)?;
    from(MAX_LABEL).set("g", "k", "v")?;
    let all = || ConsumerOptions::new().start(ConsumerStart::Beginning);
    let skips = |len| all().filter(Filter::everything().exclude_origin(long(len)));
    from(MAX_LABEL).consumer_with("longest", skips(MAX_LABEL).holder(long(MAX_LABEL)))?.close()?;
    // Its own name for itself holds the label, and more.
    from(MAX_LABEL).consumer_with("unnamed", all())?.close()?;
    let last = store.last_revision()?;
    let by = |origin: &Store| origin.transaction(|tx| tx.set("g", "k", "v"));
    let refused = [
        typed(MAX_CONTENT_TYPE + 1).map(drop),
        typed(30 << 20).map(drop),
        from(MAX_LABEL + 1).set("g", "k", "v").map(drop),
        from(MAX_LABEL + 1).delete_group("g").map(drop),
        by(&from(MAX_LABEL + 1)).map(drop),
        store.consumer_with("new", skips(MAX_LABEL + 1)).map(drop),
        store.consumer_with("new", all().holder(long(MAX_LABEL + 1))).map(drop),
        from(MAX_LABEL + 1).consumer("new").map(drop),
    ];
    for (number, refused) in refused.into_iter().enumerate() {
        let error = refused.err().ok_or(format!("{number} was taken"))?;
        assert_eq!(error.kind(), ErrorKind::TooLarge, "{number}");
        assert!(error.to_string().ends_with("; shorten it"), "{error}");
    }
    assert_eq!((store.last_revision()?, store.consumers()?.len()), (last, 2));
    // What is refused changes nothing, so a closure may go on.
    store.transaction(|tx| {
        let refused = tx.set_with("g", "k", "v", SetOptions::new().content_type(long(MAX_CONTENT_TYPE + 1)));
        assert_eq!(kind(refused), Some(ErrorKind::TooLarge));
        tx.set("g", "other", "v")
    })?;
    Ok(())
}
