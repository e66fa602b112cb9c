//! Streams: complete, in order, once; and what becomes of those that cannot be.

use std::sync::mpsc;
use std::thread;

use serde_json::json;
use watchkeep::{Durability, Options, Revision, Store};

use crate::support::{Frame, LIMIT, Result, Served};
use crate::support_entries::{Hub, encoded};

fn open() -> Result<(tempfile::TempDir, Store)> {
    let folder = tempfile::tempdir()?;
    let store = Options::new().durability(Durability::Relaxed).open(folder.path().join("app.db"))?;
    Ok((folder, store))
}

fn revisions(frames: &[Frame]) -> Vec<u64> {
    frames.iter().filter_map(|frame| frame.data.get("revision")?.as_u64()).collect()
}

fn values(frames: &[Frame]) -> Vec<&str> {
    frames.iter().filter_map(|frame| frame.data.get("value")?.as_str()).collect()
}

#[test]
fn every_client_gets_everything_once_and_in_order_whatever_it_reads() -> Result {
    let (_folder, store) = open()?;
    let served = Served::start(&store)?;
    let filters = ["", "group=g0", "group=g1", "group_prefix=g", "group=g1&exclude_origin=me"];
    let mut streams = Vec::new();
    for number in 0..20 {
        let mut stream = served.stream(filters[number % filters.len()], &[])?;
        stream.upto("ready")?;
        streams.push(stream);
    }
    let many = 400;
    thread::scope(|scope| -> Result {
        let readers: Vec<_> = streams
            .into_iter()
            .enumerate()
            .map(|(number, mut stream)| {
                let events = if number % 5 == 0 || number % 5 == 3 { 2 * many } else { many };
                scope.spawn(move || stream.changes(events).map(|changes| (number, revisions(&changes))))
            })
            .collect();
        let writers: Vec<_> = ["g0", "g1"]
            .map(|group| {
                let store = &store;
                scope.spawn(move || {
                    (0..many).try_for_each(|n| store.set(group, &format!("{n}"), "v").map(drop))
                })
            })
            .into();
        for writer in writers {
            writer.join().map_err(|_| "panicked")??;
        }
        let log: Vec<_> = store
            .history(watchkeep::Filter::everything(), Revision::ZERO)
            .collect::<watchkeep::Result<_>>()?;
        for reader in readers {
            let (number, seen) = reader.join().map_err(|_| "panicked")??;
            let group = ["", "g0", "g1", "g", "g1"][number % 5];
            let wanted = log.iter().filter(|event| event.group().starts_with(group));
            assert_eq!(
                seen,
                wanted.map(|event| event.revision().get()).collect::<Vec<_>>(),
                "client {number}"
            );
        }
        Ok(())
    })
}

#[test]
fn a_client_that_falls_out_of_the_ring_is_fed_from_the_log() -> Result {
    let (_folder, store) = open()?;
    let served = Served::start(&store)?;
    let (mut slow, mut quick) = (served.stream("group=g", &[])?, served.stream("group=g", &[])?);
    slow.upto("ready")?;
    quick.upto("ready")?;
    // Far more than the ring and all buffers of the sockets hold.
    let (many, value) = (400, "x".repeat(100_000));
    thread::scope(|scope| -> Result {
        let reader = scope.spawn(move || quick.changes(many).map(|changes| revisions(&changes)));
        for number in 0..many {
            store.set("g", &number.to_string(), value.as_str())?;
        }
        let all: Vec<_> = (1..=400).collect();
        assert_eq!(reader.join().map_err(|_| "panicked")??, all);
        assert_eq!(revisions(&slow.changes(many)?), all);
        store.set("g", "last", "v")?;
        assert_eq!(values(&slow.changes(1)?), ["v"]);
        Ok(())
    })
}

#[test]
fn a_snapshot_comes_first_and_has_no_ids_before_it_is_complete() -> Result {
    let (_folder, store) = open()?;
    for number in 0..600 {
        store.set("g", &format!("{number:03}"), "v")?;
    }
    let served = Served::start(&store)?;
    let mut stream = served.stream("snapshot=auto", &[])?;
    let reset = stream.need()?;
    assert_eq!((reset.event.as_str(), reset.id.as_deref()), ("reset", Some("")));
    assert_eq!(reset.data, json!({ "reason": "start" }));
    let (entries, ready) = stream.upto("ready")?;
    assert_eq!(entries.len(), 600);
    assert!(
        entries.iter().all(|frame| frame.id.is_none() && frame.data.get("snapshot") == Some(&true.into()))
    );
    assert_eq!(ready.id, Some(store.cursor(Revision::new(600)).to_string()));
    store.set("g", "new", "v")?;
    let change = stream.changes(1)?.remove(0);
    assert_eq!(change.id, Some(store.cursor(Revision::new(601)).to_string()));
    Ok(())
}

#[test]
fn a_client_goes_on_after_its_bookmark() -> Result {
    let (_folder, store) = open()?;
    let cursors: Vec<_> = (1..=5)
        .map(|n| Ok(store.cursor(store.set("g", "k", n.to_string())?).to_string()))
        .collect::<Result<_>>()?;
    let served = Served::start(&store)?;
    let after = |query: &str, headers: &[(&str, &str)], last: &str| -> Result<Vec<String>> {
        let mut stream = served.stream(query, headers)?;
        let (before, _) = stream.upto("ready")?;
        assert_eq!(before, []);
        store.set("g", "k", last)?;
        let mut seen = Vec::new();
        while seen.last().is_none_or(|value| value != last) {
            seen.extend(values(&stream.changes(1)?).into_iter().map(str::to_owned));
        }
        Ok(seen)
    };
    assert_eq!(after(&format!("after={}", cursors[3]), &[], "6")?, ["5", "6"]);
    // What the browser remembers is newer than the address.
    let newest = store.cursor(store.last_revision()?).to_string();
    assert_eq!(after(&format!("after={}", cursors[0]), &[("Last-Event-ID", &newest)], "7")?, ["7"]);
    let with_empty = after(&format!("after={newest}"), &[("Last-Event-ID", "")], "8")?;
    assert_eq!(with_empty, ["7", "8"]);
    Ok(())
}

#[test]
fn what_cannot_be_gone_on_from_is_refused_or_healed() -> Result {
    let (folder, store) = open()?;
    let (_other_folder, other) = open()?;
    store.set("g", "k", "v")?;
    let foreign = other.cursor(other.set("g", "k", "v")?).to_string();
    let ahead = store.cursor(Revision::new(99)).to_string();
    // A copy that went its own way has the same identity, and gives the same numbers.
    let copy = folder.path().join("copy.db");
    store.backup(&copy)?;
    std::fs::copy(&copy, folder.path().join("twin.db"))?;
    let [copy, twin] = ["copy.db", "twin.db"].map(|name| Store::open(folder.path().join(name)));
    let (copy, twin) = (copy?, twin?);
    copy.set("g", "k", "v")?;
    let lost = twin.cursor(twin.set("g", "k", "v")?).to_string();
    let (served_copy, twins) = (Served::start(&copy)?, [(&lost, "epoch")]);
    let (hub, hub_copy) = (Hub::over(&store), Hub::over(&copy));
    for request in ["watch?after=", "changes?after=", "groups?min=", "stats?min="] {
        let refusal = |hub: &Hub, cursor: &str| hub.get(&format!("/v1/{request}{cursor}")).refusal();
        assert_eq!(refusal(&hub, &foreign), (409, "foreign_cursor".to_owned()), "{request}");
        assert_eq!(refusal(&hub_copy, &lost), (409, "lost_cursor".to_owned()), "{request}");
    }
    let batch = json!({ "require": [{ "at": { "group": "g", "key": "k", "cursor": lost } }] }).to_string();
    let json = [("Content-Type", "application/json")];
    let refused = hub_copy.ask("POST", "/v1/batch", &json, batch.as_bytes()).refusal();
    assert_eq!(refused, (409, "lost_cursor".to_owned()));
    // Of an epoch that has ended nothing more comes: nobody waits for it.
    twin.set("g", "k", "w")?;
    let never = twin.cursor(twin.set("g", "k", "x")?);
    assert!(never.revision() > copy.last_revision()?);
    assert_eq!(hub_copy.get(&format!("/v1/groups?min={never}")).refusal(), (409, "lost_cursor".to_owned()));
    let served = Served::start(&store)?;
    let ours = [(&foreign, "foreign"), (&ahead, "epoch")].map(|case| (&served, case));
    for (served, (cursor, reason)) in ours.into_iter().chain(twins.map(|case| (&served_copy, case))) {
        assert_eq!(served.stream(&format!("after={cursor}"), &[])?.status, 409);
        let mut stream = served.stream(&format!("after={cursor}&snapshot=auto"), &[])?;
        assert_eq!(stream.need()?.data, json!({ "reason": reason }));
        assert_eq!(values(&stream.upto("ready")?.0), ["v"]);
    }
    for bad in [
        "after=nonsense",
        "snapshot=perhaps",
        "kinds=sett",
        "key_prefix=k",
        "grup=g",
        "values=few",
        "group=a&group=b",
    ] {
        assert_eq!(served.stream(bad, &[])?.status, 400, "{bad}");
    }
    Ok(())
}

#[test]
fn a_loss_is_told_or_healed() -> Result {
    let (_folder, store) = open()?;
    let first = store.cursor(store.set("g", "gone", "v")?).to_string();
    store.delete("g", "gone")?;
    store.set("g", "k", "w")?;
    let last = store.set("g", "k", "x")?;
    store.compact(last)?;
    let served = Served::start(&store)?;
    let mut stream = served.stream(&format!("after={first}"), &[])?;
    let (_, lagged) = stream.upto("lagged")?;
    assert_eq!((&lagged.data["from"], &lagged.data["to"]), (&2.into(), &3.into()));
    assert_eq!(lagged.id.as_deref(), lagged.data["cursor"].as_str());
    assert_eq!(values(&stream.changes(1)?), ["x"]);
    let mut stream = served.stream(&format!("after={first}&snapshot=auto"), &[])?;
    let (_, reset) = stream.upto("reset")?;
    assert_eq!(reset.data, json!({ "reason": "trimmed" }));
    assert_eq!(values(&stream.upto("ready")?.0), ["x"]);
    Ok(())
}

#[test]
fn a_client_chooses_kinds_origins_and_how_much_of_values() -> Result {
    let (_folder, store) = open()?;
    let served = Served::start(&store)?;
    let mut not_mine = served.stream("exclude_origin=me", &[])?;
    let mut deletes = served.stream("kinds=delete,touch", &[])?;
    let mut short = served.stream("values=3", &[])?;
    let mut keys_only = served.stream("group=g&key=k&group_deletions=no", &[])?;
    for stream in [&mut not_mine, &mut deletes, &mut short, &mut keys_only] {
        stream.upto("ready")?;
    }
    store.with_origin("me").set("g", "k", "1")?;
    store.set("g", "k", "four")?;
    store.delete("g", "k")?;
    assert_eq!(values(&not_mine.changes(1)?), ["four"]);
    assert_eq!(deletes.changes(1)?[0].data["kind"], "delete");
    let changes = short.changes(2)?;
    assert_eq!(values(&changes), ["1"]);
    assert_eq!(changes[1].data["value_bytes"], 4);
    store.set("g", "k", "again")?;
    store.delete_group("g")?;
    store.set("g", "k", "last")?;
    assert_eq!(values(&keys_only.changes(5)?), ["1", "four", "again", "last"]);
    Ok(())
}

#[test]
fn a_server_that_ends_says_so_at_once() -> Result {
    let (_folder, store) = open()?;
    let served = Served::start(&store)?;
    let mut streams = [served.stream("", &[])?, served.stream("snapshot=auto", &[])?];
    for stream in &mut streams {
        stream.upto("ready")?;
    }
    served.closer.close();
    for stream in &mut streams {
        let (_, bye) = stream.upto("bye")?;
        assert_eq!(bye.data, json!({ "reason": "ending" }));
        assert_eq!(stream.next()?, None);
    }
    drop(served);
    store.set("g", "k", "the store goes on")?;
    Ok(())
}

#[test]
fn a_stream_begins_while_transactions_wait_for_another_writer() -> Result {
    let folder = tempfile::tempdir()?;
    let options = || Options::new().busy_timeout(LIMIT);
    let store = options().open(folder.path().join("app.db"))?;
    store.set("g", "k", "v")?;
    let served = Served::start(&store)?;
    let (held, holding) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let other = options().open(folder.path().join("app.db"))?;
    let holder = thread::spawn(move || {
        other.transaction(|tx| {
            tx.set("g", "other", "v")?;
            // The test goes on, or is over.
            let _ = (held.send(()), released.recv());
            Ok(())
        })
    });
    holding.recv()?;
    // More of them than there are threads for them.
    let waiting: Vec<_> = (0..40).map(|_| store.to_async().transaction(|tx| tx.set("g", "k", "w"))).collect();
    for query in ["", "snapshot=auto", &format!("after={}", store.cursor(Revision::new(1)))] {
        let mut stream = served.stream(query, &[])?;
        stream.upto("ready")?;
    }
    assert_eq!(served.ask("GET /v1/stats", &[], b"")?, 200);
    drop(release);
    holder.join().map_err(|_| "panicked")??;
    drop(waiting);
    Ok(())
}

#[test]
fn a_bookmark_that_makes_no_sense_is_healed_by_a_snapshot() -> Result {
    let store = Store::open_in_memory()?;
    let old = store.cursor(store.set("g", "k", "v")?).to_string();
    let served = Served::start(&store)?;
    let beyond = format!("{}-9007199254740993", old.split('-').next().ok_or("no cursor")?);
    for bookmark in ["42", "junk", "-", "é", &beyond] {
        // The bookmark is newer than the cursor in the URL, whatever it is.
        for (query, headers) in [
            (format!("snapshot=auto&after={old}"), vec![("Last-Event-ID", bookmark)]),
            (format!("snapshot=auto&after={}", encoded(bookmark)), vec![]),
        ] {
            let mut stream = served.stream(&query, &headers)?;
            let reset = stream.need()?;
            assert_eq!(
                (reset.event.as_str(), &reset.data["reason"]),
                ("reset", &json!("foreign")),
                "{query}"
            );
            assert_eq!(values(&stream.upto("ready")?.0), ["v"]);
            // Without snapshots there is nothing to heal it with.
            let query = query.replace("auto", "never");
            assert_eq!(served.stream(&query, &headers)?.status, 400, "{query} {headers:?}");
        }
    }
    Ok(())
}

#[test]
fn what_is_no_cursor_is_told_from_one() -> Result {
    let store = Store::open_in_memory()?;
    let hub = Hub::over(&store);
    for target in
        ["watch?after=5", "changes?after=5", "changes?upto=5", "groups?min=5", "entry?group=g&key=k&min=5"]
    {
        let answer = hub.get(&format!("/v1/{target}"));
        let problem = answer.json();
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert_eq!(answer.refusal(), (400, "invalid_argument".to_owned()), "{target}");
        assert!(
            detail.contains("looks like k3v9x2mq-4fz8ab-7") && !detail.contains("bare"),
            "{target}: {detail}"
        );
    }
    Ok(())
}
