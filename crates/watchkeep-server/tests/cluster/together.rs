//! Servers of one store that know nothing of each other: what one gives, another takes.

use std::collections::BTreeSet;

use watchkeep::{Filter, Revision};

use super::support::{Frame, Result, Stream};
use super::support_entries::Hub;
use super::{members, patient, place, prefix, until};

fn servers(place: &str) -> Result<[Hub; 2]> {
    Ok([Hub::over(&patient().connect(place)?), Hub::over(&patient().connect(place)?)])
}

#[test]
fn an_etag_and_a_position_of_one_server_are_good_at_another() -> Result {
    let [one, other] = servers(&place()?)?;
    let entry = "/v1/entry?group=g&key=k";
    let first = one.put(entry, "1");
    let etag = first.header("etag").ok_or("no ETag")?.to_owned();
    let got = other.get(&format!("{entry}&min={}", first.cursor()));
    assert_eq!((got.status, got.text(), got.header("etag")), (200, "1", Some(etag.as_str())));
    let unchanged = other.ask("GET", entry, &[("If-None-Match", &etag)], b"");
    assert_eq!(unchanged.status, 304);
    assert_eq!(other.ask("PUT", entry, &[("If-Match", &etag)], b"2").status, 204);
    let late = one.ask("PUT", entry, &[("If-Match", &etag)], b"3");
    assert_eq!(late.refusal(), (412, "conflict".to_owned()));
    assert_eq!(one.get(entry).text(), "2");
    let after = other.get(&format!("/v1/changes?after={}", first.cursor())).json();
    assert_eq!(after["events"].as_array().ok_or("no events")?.len(), 1, "{after}");
    Ok(())
}

/// The next changes, so many. A heartbeat says that nothing is on its way.
fn changes(stream: &mut Stream, many: usize) -> Result<Vec<Frame>> {
    let mut changes = Vec::new();
    let mut beats = 0;
    while changes.len() < many {
        let frame = stream.need()?;
        match frame.event.as_str() {
            "" if frame.data.is_null() => beats += 1,
            "" => changes.push(frame),
            mark => return Err(format!("{mark} instead of a change: {}", frame.data).into()),
        }
        if beats > BEATS {
            return Err(format!("only {} of {many} changes come", changes.len()).into());
        }
    }
    Ok(changes)
}

/// So many heartbeats may come while a busy machine writes.
const BEATS: usize = 3;
/// Writers, by whatever way, of so many keys each.
const WRITES: usize = 40;

#[test]
fn a_stream_that_moves_between_servers_misses_nothing_that_anybody_wrote() -> Result {
    let place = place()?;
    let [one, other] = servers(&place)?;
    let store = patient().connect(&place)?;
    let mut stream = Stream::open(one.address, "group=g", &[])?;
    let mut at = stream.upto("ready")?.1.id.ok_or("no position")?;
    let mut told = Vec::new();
    std::thread::scope(|scope| -> Result {
        for hub in [&one, &other] {
            scope.spawn(move || {
                for number in 0..WRITES {
                    let put = hub.put(&format!("/v1/entry?group=g&key={}-{number}", hub.address), "v");
                    assert_eq!(put.status, 204, "{put:?}");
                }
            });
        }
        scope.spawn(|| {
            for number in 0..WRITES {
                store.set("g", &format!("directly-{number}"), "v").expect("it is written");
            }
        });
        for turn in 0.. {
            let many = (1 + turn % 5).min(3 * WRITES - told.len());
            for change in changes(&mut stream, many)? {
                at = change.id.ok_or("a change without a position")?;
                told.push((
                    change.data["revision"].as_u64().ok_or("no revision")?,
                    change.data["key"].as_str().ok_or("no key")?.to_owned(),
                ));
            }
            if told.len() == 3 * WRITES {
                return Ok(());
            }
            let next = if turn % 2 == 0 { &other } else { &one };
            stream = Stream::open(next.address, "group=g", &[("Last-Event-ID", &at)])?;
            assert_eq!(stream.upto("ready")?.1.id.as_deref(), Some(at.as_str()), "it goes on elsewhere");
        }
        Ok(())
    })?;
    let history = store.history(Filter::group("g"), Revision::ZERO).collect::<watchkeep::Result<Vec<_>>>()?;
    let written =
        history.iter().map(|event| (event.revision().get(), event.key().unwrap_or_default().to_owned()));
    assert_eq!(told, written.collect::<Vec<_>>());
    assert_eq!(told.iter().map(|(_, key)| key).collect::<BTreeSet<_>>().len(), 3 * WRITES);
    Ok(())
}

#[test]
fn a_store_that_is_made_anew_resets_the_streams_of_every_server() -> Result {
    let (members, prefix) = (members()?, prefix());
    let place = format!("etcd://{members}/{prefix}");
    let hub = || -> Result<Hub> {
        let again = place.clone();
        Ok(Hub::with(&patient().connect(&place)?, |server| {
            server.reopen_with(move || patient().connect(&again))
        }))
    };
    let hubs = [hub()?, hub()?];
    assert_eq!(hubs[0].put("/v1/entry?group=g&key=k", "old").status, 204);
    let (mut streams, mut position) = (Vec::new(), String::new());
    for hub in &hubs {
        let mut stream = Stream::open(hub.address, "snapshot=auto", &[])?;
        position = stream.upto("ready")?.1.id.ok_or("no position")?;
        streams.push(stream);
    }
    let done = std::process::Command::new("etcdctl")
        .args(["--endpoints", &members, "del", "--prefix", &format!("{prefix}/")])
        .env("ETCDCTL_API", "3")
        .output()?;
    assert!(done.status.success(), "{done:?}");
    patient().connect(&place)?.set("g", "k", "new")?;
    for (hub, stream) in hubs.iter().zip(&mut streams) {
        // A server that takes long to open it, on a busy machine, says so, and its clients come back.
        let reset = match stream.upto("reset") {
            Ok((_, reset)) => reset,
            Err(ended) if ended.to_string().contains("not open yet") => {
                until("it is open", || hub.get("/readyz").status == 200)?;
                *stream = Stream::open(hub.address, "snapshot=auto", &[("Last-Event-ID", &position)])?;
                stream.upto("reset")?.1
            }
            Err(other) => return Err(other),
        };
        assert_eq!(reset.data["reason"], "foreign");
        // It may be written after the snapshot was taken.
        let (before, _) = stream.upto("ready")?;
        let change = match before.into_iter().next() {
            Some(change) => change,
            None => stream.changes(1)?.remove(0),
        };
        assert_eq!(change.data["value"], "new");
    }
    Ok(())
}
