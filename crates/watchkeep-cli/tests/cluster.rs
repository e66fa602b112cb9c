//! The command line on a real etcd cluster, whose members stand in `WATCHKEEP_TEST_ETCD`:
//! `scripts/cluster cargo test --all-features --test cluster`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "what cannot go on fails the test")]

use std::path::Path;
use std::process::{Command, Output};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use watchkeep::{
    CLUSTER_TRANSACTION, ConsumerOptions, ConsumerStart, Entry, ErrorKind, Limits, Options, Quota,
    SetOptions, Store,
};

const LIMIT: Duration = Duration::from_secs(60);
const ENTRIES: u64 = 150;

/// A place in the cluster where nothing is yet.
fn place(name: &str) -> String {
    let members =
        std::env::var("WATCHKEEP_TEST_ETCD").unwrap_or_else(|_| panic!("run this by scripts/cluster"));
    format!("etcd://{members}/migrate/{}-{name}", std::process::id())
}

fn migrate(source: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("watchkeep"));
    command.env_remove("WATCHKEEP_NAMESPACE").arg("migrate").arg(source).args(args).output().unwrap()
}

fn told(output: &Output) -> Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"))
}

/// What a reader is told of all entries.
fn all(store: &Store) -> watchkeep::Result<Vec<(String, Entry)>> {
    let mut all = Vec::new();
    for group in store.groups("") {
        let group = group?;
        for entry in store.entries(&group) {
            let mut entry = entry?;
            (entry.revision, entry.created) = Default::default();
            entry.updated = Default::default();
            all.push((group.clone(), entry));
        }
    }
    Ok(all)
}

#[test]
fn a_file_moves_into_a_cluster_while_others_write_to_it() -> watchkeep::Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let (path, place) = (folder.path().join("app.db"), place("live"));
    let store = Store::open(&path)?;
    store.transaction(|tx| {
        for number in 0..ENTRIES {
            let options = match number % 3 {
                0 => SetOptions::new().ttl(Duration::from_secs(3600 + number)),
                _ => SetOptions::new().content_type("text/plain"),
            };
            // Each in a group of its own, which costs a transaction of the cluster most.
            tx.set_with(&format!("g{number:04}"), "k", number.to_string(), options)?;
        }
        tx.set("large", "k", vec![7; 1 << 20])
    })?;
    store.scoped("tenant")?.set_quota(Quota { max_keys: 7, ..Quota::default() })?;
    let end = ConsumerOptions::new().filter(watchkeep::Filter::group("config")).start(ConsumerStart::Now);
    store.consumer_with("billing", end)?.close()?;

    let copied = told(&migrate(&path, &[&place, "--json"]));
    assert_eq!(
        copied,
        json!({
            "entries": ENTRIES + 1, "written": ENTRIES + 1, "followed": 0, "quotas": 0, "consumers": [], "switched": false, "warnings": [],
        })
    );

    let (begun, has_begun) = mpsc::channel();
    let writer = thread::spawn({
        let store = store.clone();
        move || {
            let end = Instant::now() + LIMIT;
            for number in 0_u64.. {
                assert!(Instant::now() < end, "it is never refused");
                let done = match number % 4 {
                    3 => store.delete_group(&format!("g{number:04}")).map(drop),
                    _ => store.set("live", &(number % 50).to_string(), number.to_string()).map(drop),
                };
                if let Err(error) = done {
                    return error.kind();
                }
                if number == 20 {
                    begun.send(()).unwrap();
                }
            }
            panic!("there are more numbers than that")
        }
    });
    has_begun.recv_timeout(LIMIT).unwrap();
    let moved = told(&migrate(&path, &[&place, "--resume", "--switch", "--json"]));
    assert_eq!(writer.join().unwrap(), ErrorKind::Sealed);
    assert_eq!(
        (&moved["switched"], &moved["quotas"], &moved["consumers"]),
        (&json!(true), &json!(1), &json!(["billing"]))
    );

    assert_eq!(store.sealed()?, Some(format!("moved to {place}")));
    let there = Store::connect(&place)?;
    assert_eq!(all(&there)?, all(&store)?);
    assert_eq!(there.scoped("tenant")?.quota()?.map(|quota| quota.max_keys), Some(7));
    let consumers: Vec<_> = there.consumers()?.into_iter().map(|consumer| consumer.name).collect();
    assert_eq!(consumers, ["billing"]);
    let mut billing = there.consumer("billing")?;
    there.set("config", "k", "new")?;
    let event = billing.recv_timeout(LIMIT).unwrap_or_else(|| panic!("no event within the limit"))?;
    assert_eq!(event.value().map(|value| value.to_string_lossy().into_owned()).as_deref(), Some("new"));
    Ok(())
}

#[test]
fn what_a_cluster_does_not_take_is_listed_and_the_largest_that_is_not_is_taken() -> watchkeep::Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let (path, place) = (folder.path().join("app.db"), place("large"));
    let store = Options::new().limits(Limits::default()).open(&path)?;
    store.set("g", "large", vec![7; CLUSTER_TRANSACTION])?;
    let refused = migrate(&path, &[&place, "--json"]);
    assert_eq!(refused.status.code(), Some(2));
    let listed: Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!((&listed["group"], &listed["key"]), (&json!("g"), &json!("large")));
    let there = Options::new().create(false).connect(&place);
    assert_eq!(there.err().map(|error| error.kind()), Some(ErrorKind::NotFound));
    let largest = usize::try_from(listed["limit"].as_u64().unwrap()).unwrap();
    store.set("g", "large", vec![7; largest])?;
    assert_eq!(told(&migrate(&path, &[&place, "--json"]))["written"], json!(1));
    Ok(())
}

#[test]
fn compaction_and_retention_of_a_cluster_are_set_from_the_command_line() -> watchkeep::Result<()> {
    let place = place("retention");
    let store = Store::connect(&place)?;
    let revisions =
        (0..20).map(|n| store.set("g", "k", n.to_string())).collect::<watchkeep::Result<Vec<_>>>()?;
    let run = |arguments: &[&str]| {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("watchkeep"));
        command.env_remove("WATCHKEEP_NAMESPACE").args(["--store", &place]).args(arguments).output().unwrap()
    };
    let before = revisions[10].to_string();
    let refused = run(&["compact", "--before", &before]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let refused = run(&["retention", "--max-events", "5"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--compaction own"), "{refused:?}");
    // What was refused is not set, either.
    let set = told(&run(&["retention", "--compaction", "own", "--json"]));
    assert_eq!((&set["max_events"], &set["max_age_ms"]), (&Value::Null, &Value::Null));
    let limits = ["--max-events", "1000", "--min-events", "5", "--json"];
    told(&run(&[&["retention", "--compaction", "own"], &limits[..]].concat()));
    let set = told(&run(&["retention", "--max-age", "1d", "--json"]));
    assert_eq!(
        (&set["max_events"], &set["min_events"], &set["max_age_ms"]),
        (&json!(1000), &json!(5), &json!(86_400_000))
    );
    let refused = run(&["retention", "--compaction", "never", "--max-events", "7"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert_eq!(told(&run(&["retention", "--json"])), set);
    assert!(run(&["compact", "--before", &before]).status.success());
    assert_eq!(Store::connect(&place)?.stats()?.first_revision, revisions[9]);
    let set = told(&run(&["retention", "--compaction", "never", "--json"]));
    assert_eq!(set["max_events"], Value::Null, "nothing goes by itself");
    Ok(())
}
