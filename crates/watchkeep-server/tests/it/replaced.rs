//! A file that is replaced while it is served: the server opens it again, and everybody goes on with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};
use tempfile::TempDir;
use watchkeep::{BackupOptions, Options, Store};

use crate::support::{LIMIT, Result, Stream};
use crate::support_entries::{Answer, Hub};
use crate::support_ws::{Client, PROTOCOL};

/// A server over a file, and another store that is to take its place.
struct Place {
    hub: Hub,
    folder: TempDir,
    /// How often the file was opened again.
    opened: Arc<AtomicUsize>,
}

impl Place {
    fn new() -> Result<Place> {
        let folder = tempfile::tempdir()?;
        let [path, saved, next] = ["app.db", "saved.db", "next.db"].map(|name| folder.path().join(name));
        let other = Store::open_in_memory()?;
        other.set("g", "both", "new")?;
        other.set("g", "new", "2")?;
        other.backup(&saved)?;
        Store::restore(&saved, next, BackupOptions::new())?;
        let store = Store::open(&path)?;
        store.set("g", "both", "old")?;
        store.set("g", "old", "1")?;
        let opened = Arc::new(AtomicUsize::new(0));
        let counted = opened.clone();
        let hub = Hub::with(&store, |server| {
            server.reopen_with(move || {
                counted.fetch_add(1, Ordering::Relaxed);
                Options::new().create(false).open(&path)
            })
        });
        Ok(Place { hub, folder, opened })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts the other store there. The log of the one that goes stays beside it.
    fn replace(&self) -> Result {
        assert!(fs::metadata(self.path("app.db-wal"))?.len() > 0, "there is nothing that could be mixed up");
        Ok(fs::rename(self.path("next.db"), self.path("app.db"))?)
    }

    fn stream(&self, query: &str, headers: &[(&str, &str)]) -> Result<Stream> {
        Stream::open(self.hub.address, query, headers)
    }

    /// What is at a key, once that is `wanted`.
    fn until(&self, key: &str, mut wanted: impl FnMut(&Answer) -> bool) -> Answer {
        let begun = Instant::now();
        loop {
            let answer = self.hub.get(&format!("/v1/entry?group=g&key={key}"));
            if wanted(&answer) {
                return answer;
            }
            assert!(begun.elapsed() < LIMIT, "{answer:?}");
        }
    }
}

/// Any other status than 200 ends a plain `EventSource` for good.
fn is_in_trouble(answer: &Answer) {
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/event-stream")));
    let text = answer.text();
    assert!(text.contains("event: trouble\n") && text.contains(r#""kind":"replaced""#), "{text}");
}

/// The keys and values of a group of a file, which is sound.
fn content(path: &Path) -> Result<Vec<(String, String)>> {
    let store = Options::new().create(false).open(path)?;
    assert!(store.check()?.is_ok());
    let entries = store.entries("g").collect::<watchkeep::Result<Vec<_>>>()?;
    Ok(entries.into_iter().map(|entry| (entry.key, String::from_utf8_lossy(&entry.value).into())).collect())
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn a_stream_heals_by_itself_and_everything_goes_to_the_new_file() -> Result {
    let place = Place::new()?;
    let mut stream = place.stream("snapshot=auto", &[])?;
    stream.upto("ready")?;
    place.replace()?;

    // In the same stream, with nothing asked of the server.
    let (before, reset) = stream.upto("reset")?;
    assert_eq!((before, reset.data, reset.id), (vec![], json!({ "reason": "foreign" }), Some(String::new())));
    let (snapshot, ready) = stream.upto("ready")?;
    let told: Vec<_> = snapshot.iter().map(|frame| (&frame.data["key"], &frame.data["value"])).collect();
    assert_eq!(told, [(&json!("both"), &json!("new")), (&json!("new"), &json!("2"))]);
    assert_eq!(place.hub.get("/v1/entry?group=g&key=both").text(), "new");
    assert_eq!(place.hub.get("/v1/entry?group=g&key=old").status, 404);
    let written = place.hub.put("/v1/entry?group=g&key=live", "3");
    assert_eq!(written.status, 204);
    let live = stream.need()?;
    assert_eq!((&live.data["value"], live.id.as_deref()), (&json!("3"), Some(written.cursor())));
    assert_ne!(ready.id, live.id);
    assert_eq!(place.opened.load(Ordering::Relaxed), 1);

    let Place { hub, folder, .. } = place;
    drop(hub);
    let path = folder.path().join("app.db");
    assert_eq!(content(&path)?, pairs(&[("both", "new"), ("live", "3"), ("new", "2")]));
    // What belonged to the other file is kept, and in nobody's way.
    assert!(fs::metadata(folder.path().join("app.db-wal-replaced"))?.len() > 0);
    Ok(())
}

#[test]
fn a_stream_without_snapshots_ends_and_its_bookmark_is_refused() -> Result {
    let place = Place::new()?;
    let mut stream = place.stream("group=g", &[])?;
    let (_, ready) = stream.upto("ready")?;
    let cursor = ready.id.ok_or("no cursor")?;
    place.replace()?;
    let (_, trouble) = stream.upto("trouble")?;
    assert_eq!(trouble.data["kind"], "replaced");
    assert_eq!(stream.next()?, None);
    place.until("new", |answer| answer.status == 200);
    assert_eq!(place.stream("group=g", &[("Last-Event-ID", &cursor)])?.status, 409);
    let mut healed = place.stream("group=g&snapshot=auto", &[("Last-Event-ID", &cursor)])?;
    assert_eq!(healed.need()?.data, json!({ "reason": "foreign" }));
    assert_eq!(place.hub.get(&format!("/v1/entry?group=g&key=new&min={cursor}")).refusal().0, 409);
    Ok(())
}

#[test]
fn a_connection_goes_on_with_its_subscriptions_and_writes() -> Result {
    let place = Place::new()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let address = place.hub.address.to_string();
        let mut client = Client::open(&address, "/v1/ws?origin=tab", &[PROTOCOL]).await.unwrap();
        client.say(json!({ "type": "subscribe", "id": "auto", "group": "g", "snapshot": "auto" })).await;
        while client.hear().await["type"] != "ready" {}
        place.replace()?;
        assert_eq!(client.expect("reset", "auto").await["reason"], "foreign");
        for (key, value) in [("both", "new"), ("new", "2")] {
            let change = client.expect("change", "auto").await;
            assert_eq!((&change["event"]["key"], &change["event"]["value"]), (&key.into(), &value.into()));
        }
        client.expect("ready", "auto").await;
        client.say(json!({ "type": "set", "id": "w", "group": "g", "key": "live", "value": "3" })).await;
        let mut both = [client.hear().await, client.hear().await];
        both.sort_by_key(|message| message["type"].to_string());
        assert_eq!([&both[0]["type"], &both[1]["type"]], ["change", "done"]);
        assert_eq!((&both[0]["event"]["origin"], &both[0]["cursor"]), (&json!("tab"), &both[1]["cursor"]));
        let never = client.ask(json!({ "type": "subscribe", "id": "never", "group": "g" })).await;
        assert_eq!((&never["type"], &never["id"]), (&Value::from("ready"), &Value::from("never")));
        Ok(())
    })
}

#[test]
fn however_many_ask_the_file_is_opened_once() -> Result {
    let place = Place::new()?;
    let mut streams = Vec::new();
    for group in ["g", "h", "i", "g"] {
        let mut stream = place.stream(&format!("group={group}&snapshot=auto"), &[])?;
        stream.upto("ready")?;
        streams.push(stream);
    }
    place.replace()?;
    let refusals = thread::scope(|scope| {
        let asking = || {
            let mut refusals = Vec::new();
            place.until("both", |answer| {
                if answer.status != 200 {
                    refusals.push(answer.status);
                }
                answer.status == 200 && answer.text() == "new"
            });
            refusals
        };
        let asking: Vec<_> = (0..24).map(|_| scope.spawn(asking)).collect();
        asking.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(refusals.iter().all(|status| *status == 503), "{refusals:?}");
    for stream in &mut streams {
        stream.upto("reset")?;
        stream.upto("ready")?;
    }
    assert_eq!(place.opened.load(Ordering::Relaxed), 1);
    Ok(())
}

#[test]
fn a_file_that_is_away_is_waited_for() -> Result {
    let place = Place::new()?;
    for suffix in ["", "-wal", "-shm"] {
        fs::rename(place.path(&format!("app.db{suffix}")), place.path(&format!("away.db{suffix}")))?;
    }
    // First the store refuses it, then the server, which waits for the file to come.
    let refused =
        place.until("both", |answer| answer.status != 200 && answer.text().contains("not open yet"));
    assert_eq!(refused.refusal(), (503, "replaced".to_owned()));
    assert_eq!(refused.header("retry-after"), Some("1"));
    thread::scope(|scope| -> Result {
        let refused = scope.spawn(|| place.hub.put("/v1/entry?group=g&key=k", "v").refusal());
        let page = scope.spawn(|| place.hub.get("/").status);
        is_in_trouble(&place.hub.get("/v1/watch?snapshot=auto"));
        assert_eq!(refused.join().unwrap(), (503, "replaced".to_owned()));
        assert_eq!(page.join().unwrap(), 200);
        Ok(())
    })?;
    assert_eq!(place.opened.load(Ordering::Relaxed), 0, "nothing is made where nothing is");
    fs::rename(place.path("next.db"), place.path("app.db"))?;
    assert_eq!(place.until("both", |answer| answer.status == 200).text(), "new");
    assert_eq!(content(&place.path("away.db"))?, pairs(&[("both", "old"), ("old", "1")]));
    Ok(())
}

#[test]
fn a_file_that_is_no_store_is_tried_until_it_is_one() -> Result {
    let place = Place::new()?;
    let junk = place.path("junk");
    fs::write(&junk, "no store at all")?;
    fs::rename(&junk, place.path("app.db"))?;
    let begun = Instant::now();
    while place.opened.load(Ordering::Relaxed) < 2 {
        assert!(begun.elapsed() < LIMIT, "it is not tried again");
        thread::yield_now();
    }
    fs::rename(place.path("next.db"), place.path("app.db"))?;
    place.until("both", |answer| answer.status == 200 && answer.text() == "new");
    Ok(())
}

/// Routes in a server of somebody else's, which ends with its runtime.
#[tokio::test]
async fn a_mounted_router_says_so_and_leaves_the_store_to_the_application() -> Result {
    let folder = tempfile::tempdir()?;
    let [path, other] = ["app.db", "other.db"].map(|name| folder.path().join(name));
    Store::open(&other)?.set("g", "k", "theirs")?;
    let store = Store::open(&path)?;
    store.set("g", "k", "ours")?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let router = watchkeep_server::router(&store);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper_util::service::TowerToHyperService::new(router.clone());
            let io = hyper_util::rt::TokioIo::new(stream);
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
        }
    });
    let answers = tokio::task::spawn_blocking(move || -> Result {
        let mut stream = Stream::open(address, "snapshot=auto", &[])?;
        stream.upto("ready")?;
        fs::rename(&other, &path)?;
        assert_eq!(stream.upto("trouble")?.1.data["kind"], "replaced");
        let answer = crate::support_entries::get(address, "/v1/entry?group=g&key=k");
        assert_eq!(answer.refusal(), (503, "replaced".to_owned()));
        is_in_trouble(&crate::support_entries::get(address, "/v1/watch?snapshot=auto"));
        Ok(())
    });
    answers.await??;
    assert_eq!(store.get("g", "k").map_err(|error| error.kind()), Err(watchkeep::ErrorKind::Replaced));
    Ok(())
}
