//! `migrate` and `seal`: what is written meanwhile arrives, what is refused says where to go, and nothing is half done.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use watchkeep::{
    ConsumerOptions, ConsumerStart, Durability, ErrorKind, Filter, Limits, Options, Quota, Retention,
    SetOptions, Store,
};

use crate::sandbox::Sandbox;

/// Far longer than anything takes that goes right, also on a machine that does much else.
const LIMIT: Duration = Duration::from_secs(120);
const ENTRIES: usize = 3_000;

fn open(sandbox: &Sandbox, name: &str) -> Store {
    Store::open(sandbox.path(name)).unwrap()
}

/// Writes until it is refused; what was acknowledged by then, and the refusal. Tells when it has begun.
fn write_until_refused(store: &Store, begun: &mpsc::Sender<()>) -> (Vec<String>, watchkeep::Error) {
    let mut there: Vec<String> = Vec::new();
    let end = Instant::now() + LIMIT;
    for number in 0_u64.. {
        assert!(Instant::now() < end, "it is never refused");
        let key = format!("{number:08}");
        let done = match number % 5 {
            3 => store.delete("live", &there[0]).map(|was| drop((was, there.remove(0)))),
            4 => store
                .transaction(|tx| {
                    tx.delete_group("gone")?;
                    tx.set("gone", &key, "v")
                })
                .map(drop),
            _ => store.set("live", &key, key.as_str()).map(|_| there.push(key)),
        };
        if let Err(error) = done {
            return (there, error);
        }
        if number == 50 {
            begun.send(()).unwrap();
        }
    }
    unreachable!("there are more numbers than that")
}

#[test]
fn a_store_moves_while_another_process_writes_to_it_and_all_that_was_acknowledged_arrives() {
    let sandbox = Sandbox::new();
    let store = open(&sandbox, "app.db");
    for number in 0..500 {
        store.set("old", &number.to_string(), "v").unwrap();
    }
    let picture = SetOptions::new().content_type("image/png").ttl(Duration::from_secs(3600));
    store.set_with("old", "picture", &b"\xff\x00"[..], picture).unwrap();
    store.scoped("tenant").unwrap().set_quota(Quota { max_keys: 7, ..Quota::default() }).unwrap();
    let config = ConsumerOptions::new().filter(Filter::group("config")).start(ConsumerStart::Now);
    store.consumer_with("billing", config.clone()).unwrap().close().unwrap();
    store.scoped("tenant").unwrap().consumer_with("theirs", config).unwrap().close().unwrap();
    let deadline = store.entry("old", "picture").unwrap().unwrap().deadline;

    let (begun, has_begun) = mpsc::channel();
    let writer = thread::spawn({
        let store = store.clone();
        move || write_until_refused(&store, &begun)
    });
    has_begun.recv_timeout(LIMIT).unwrap();
    let told = sandbox.json(&["migrate", "app.db", "copy.db", "--switch", "--json"]);
    let (there, refused) = writer.join().unwrap();
    assert_eq!(told["switched"], json!(true), "{told}");
    assert_eq!((&told["quotas"], &told["consumers"]), (&json!(1), &json!(["billing", "tenant:theirs"])));

    // It was refused by the seal, and not before the last write that was acknowledged had arrived.
    assert_eq!(refused.kind(), ErrorKind::Sealed);
    let why = store.sealed().unwrap().unwrap();
    assert_eq!(why, format!("moved to {}", sandbox.path("copy.db").display()));
    let copy = open(&sandbox, "copy.db");
    let keys: Vec<_> = copy.entries("live").map(|entry| entry.unwrap().key).collect();
    assert_eq!(keys, there);
    assert_eq!((copy.count("old").unwrap(), copy.count("gone").unwrap()), (501, 1));
    let entry = copy.entry("old", "picture").unwrap().unwrap();
    assert_eq!((entry.content_type.as_deref(), entry.deadline), (Some("image/png"), deadline));
    let tenant = copy.scoped("tenant").unwrap();
    assert_eq!(tenant.quota().unwrap().unwrap().max_keys, 7);
    let consumers = copy.consumers().unwrap();
    assert_eq!(
        consumers.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(),
        ["billing", "tenant:theirs"]
    );
    assert_eq!(tenant.consumers().unwrap()[0].filter, Filter::group("config"));
    assert!(copy.check().unwrap().is_ok() && store.check().unwrap().is_ok());

    // What came after the switch is theirs, and only that.
    copy.set("config", "k", "new").unwrap();
    let mut billing = copy.consumer("billing").unwrap();
    assert_eq!(billing.recv().unwrap().unwrap().value().unwrap(), "new");

    let refused = sandbox.fails(4, &["--store", "app.db", "set", "config", "k", "v"]);
    assert!(refused.contains("moved to") && refused.contains("copy.db"), "{refused}");
    let again = sandbox.json(&["migrate", "app.db", "copy.db", "--resume", "--json"]);
    assert_eq!(again["switched"], json!(true));
}

#[test]
fn a_migration_that_was_killed_goes_on_and_writes_only_what_differs() {
    let sandbox = Sandbox::new();
    let store = open(&sandbox, "app.db");
    let filled = store.transaction(|tx| {
        (0..ENTRIES).try_for_each(|number| tx.set("g", &format!("{number:05}"), vec![b'x'; 1_000]))
    });
    filled.unwrap();
    let running = sandbox.start(&["migrate", "app.db", "copy.db"]);
    let end = Instant::now() + LIMIT;
    let is_there =
        || Options::new().create(false).open(sandbox.path("copy.db")).and_then(|copy| copy.count("g"));
    while is_there().unwrap_or(0) == 0 {
        assert!(Instant::now() < end, "it writes nothing");
        thread::yield_now();
    }
    running.signal("KILL");
    running.end();
    let before = open(&sandbox, "copy.db").count("g").unwrap();

    let refused = sandbox.fails(4, &["migrate", "app.db", "copy.db"]);
    assert!(refused.contains("--resume"), "{refused}");
    store.delete("g", "00000").unwrap();
    store.set("g", "00001", "changed").unwrap();
    let copy = open(&sandbox, "copy.db");
    copy.set("g", "stray", "v").unwrap();
    copy.set("stray", "k", "v").unwrap();
    let told = sandbox.json(&["migrate", "app.db", "copy.db", "--resume", "--json"]);
    // One that was deleted, one that was changed, two that are strays.
    let rest = u64::try_from(ENTRIES).unwrap() - before;
    let written = told["written"].as_u64().unwrap();
    assert_eq!(written, rest + 4, "{told}");
    assert_eq!(told["entries"], json!(ENTRIES - 1));
    let told = sandbox.json(&["migrate", "app.db", "copy.db", "--resume", "--switch", "--json"]);
    assert_eq!((&told["written"], &told["switched"]), (&json!(0), &json!(true)));
    assert_eq!(sandbox.ok(&["--store", "copy.db", "export"]), sandbox.ok(&["--store", "app.db", "export"]));
}

#[test]
fn a_switch_that_was_killed_is_made_again_from_wherever_it_was() {
    for word in ["moving", "moved"] {
        let sandbox = Sandbox::new();
        sandbox.ok(&["--store", "app.db", "set", "g", "k", "v"]);
        sandbox.ok(&["migrate", "app.db", "copy.db"]);
        let source = open(&sandbox, "app.db");
        let mark = open(&sandbox, "copy.db").consumers().unwrap().remove(0).name;
        assert_eq!(mark, format!("migrate-from-{}", source.id()));
        let here = sandbox.path("copy.db").to_string_lossy().into_owned();
        source.seal(format!("{word} to {here}")).unwrap();
        let told = sandbox.json(&["migrate", "app.db", "copy.db", "--resume", "--switch", "--json"]);
        assert_eq!(told["switched"], json!(true), "{word}");
        assert_eq!(source.sealed().unwrap().unwrap(), format!("moved to {here}"));
        assert!(open(&sandbox, "copy.db").consumers().unwrap().is_empty());
    }
    let sandbox = Sandbox::new();
    sandbox.ok(&["--store", "app.db", "set", "g", "k", "v"]);
    sandbox.ok(&["--store", "app.db", "seal", "on holiday"]);
    let refused = sandbox.fails(4, &["migrate", "app.db", "copy.db"]);
    assert!(refused.contains("on holiday") && refused.contains("--lift"), "{refused}");
    assert!(!sandbox.path("copy.db").exists());
}

#[test]
fn a_consumer_that_is_behind_is_named_and_the_source_goes_on() {
    let sandbox = Sandbox::new();
    let store = open(&sandbox, "app.db");
    store.set("g", "k", "v").unwrap();
    let all = ConsumerOptions::new().start(ConsumerStart::Beginning);
    store.consumer_with("behind", all.clone().filter(Filter::group("g"))).unwrap().close().unwrap();
    store.consumer_with("elsewhere", all.filter(Filter::group("other"))).unwrap().close().unwrap();
    let snapshot = ConsumerOptions::new().start(ConsumerStart::Snapshot);
    store.consumer_with("snapshot", snapshot).unwrap().close().unwrap();
    let refused = sandbox.fails(4, &["migrate", "app.db", "copy.db", "--switch"]);
    assert!(refused.contains("behind") && !refused.contains("elsewhere"), "{refused}");
    // One that is held may still catch up, until nothing is left to wait for.
    let mut held = store.consumer("behind").unwrap();
    let event = held.recv().unwrap().unwrap();
    let refused = sandbox.fails(4, &["migrate", "app.db", "copy.db", "--resume", "--switch"]);
    assert!(refused.contains("behind"), "{refused}");
    assert_eq!(store.sealed().unwrap(), None);
    held.ack(event.revision()).unwrap();
    store.set("other", "k", "v").unwrap();
    let refused = sandbox.fails(4, &["migrate", "app.db", "copy.db", "--resume", "--switch"]);
    assert!(refused.contains("elsewhere"), "{refused}");
    store.remove_consumer("elsewhere", watchkeep::Force::Yes).unwrap();
    // As an earlier switch may leave it that failed.
    open(&sandbox, "copy.db").consumer("gone").unwrap().close().unwrap();
    let told = sandbox.ok(&["migrate", "app.db", "copy.db", "--resume", "--switch"]);
    assert!(told.contains("has taken the place of app.db"), "{told}");
    let copy = open(&sandbox, "copy.db");
    let begins: Vec<_> =
        copy.consumers().unwrap().into_iter().map(|row| (row.name, row.acked.is_some())).collect();
    assert_eq!(begins, [("behind".to_owned(), true), ("snapshot".to_owned(), false)]);
}

#[test]
fn what_cannot_be_moved_is_told_before_anything_is_written() {
    let sandbox = Sandbox::new();
    let limits = Limits { value: 32 << 20, ..Limits::default() };
    let store = Options::new().limits(limits).open(sandbox.path("app.db")).unwrap();
    store.set("g", "small", "v").unwrap();
    store.set("g", "large", vec![0; 17 << 20]).unwrap();
    let output = sandbox.output(&["migrate", "app.db", "copy.db", "--json"]);
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told, json!({"group": "g", "key": "large", "bytes": 17 << 20, "limit": 16 << 20}));
    assert_eq!(output.status.code(), Some(2));
    assert!(!sandbox.path("copy.db").exists());

    store.delete("g", "large").unwrap();
    sandbox.ok(&["--store", "other.db", "set", "g", "k", "v"]);
    for resume in [&["--resume"][..], &[]] {
        let args = [&["migrate", "app.db", "other.db"], resume].concat();
        let refused = sandbox.fails(4, &args);
        assert!(refused.contains("not touched"), "{refused}");
    }
    assert_eq!(sandbox.ok(&["--store", "other.db", "get", "g", "k"]), "v");
    assert!(sandbox.fails(2, &["migrate", "app.db", "app.db"]).contains("same store"));
    sandbox.fails(3, &["migrate", "missing.db", "copy.db"]);
    assert!(sandbox.fails(2, &["--namespace", "t", "migrate", "app.db", "copy.db"]).contains("--namespace"));
}

#[test]
fn a_sealed_store_says_so_and_is_quiet_about_what_is_due() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["set", "g", "k", "v", "--ttl", "1s"]);
    assert_eq!(sandbox.ok(&["seal"]), "not sealed\n");
    assert_eq!(sandbox.ok(&["seal", "moved to other.db"]), "sealed: moved to other.db\n");
    assert_eq!(sandbox.json(&["seal", "--json"]), json!({"sealed": "moved to other.db"}));
    assert!(sandbox.fails(4, &["set", "g", "k", "w"]).contains("moved to other.db"));
    sandbox.fails(2, &["seal", ""]);
    // It comes due meanwhile, is not announced, and nothing is reported.
    assert_eq!(sandbox.ok(&["watch", "--timeout", "2s"]), "");
    sandbox.fails(3, &["get", "g", "k"]);
    assert_eq!(sandbox.ok(&["seal", "--lift"]), "not sealed\n");
    assert_eq!(sandbox.ok(&["set", "g", "k", "w"]).lines().count(), 1);
    assert!(sandbox.ok(&["history"]).contains("expire"));
}

#[test]
fn two_runs_do_not_write_to_the_same_target() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["--store", "app.db", "set", "g", "k", "v"]);
    sandbox.ok(&["migrate", "app.db", "copy.db"]);
    let (source, copy) = (open(&sandbox, "app.db"), open(&sandbox, "copy.db"));
    let mark = copy.consumers().unwrap().remove(0).name;
    // As a run holds it that goes on.
    let held = copy.consumer(&mark).unwrap();
    copy.set("g", "theirs", "v").unwrap();
    let refused = sandbox.fails(4, &["migrate", "app.db", "copy.db", "--resume", "--switch"]);
    assert!(refused.contains("another run") && refused.contains("process"), "{refused}");
    assert_eq!((source.sealed().unwrap(), copy.count("g").unwrap()), (None, 2));
    held.close().unwrap();
    // The other run has switched, and its target is a store that is used.
    source.seal(format!("moved to {}", sandbox.path("copy.db").display())).unwrap();
    let told = sandbox.json(&["migrate", "app.db", "copy.db", "--resume", "--switch", "--json"]);
    assert_eq!((&told["switched"], &told["written"]), (&json!(true), &json!(0)));
    assert_eq!((copy.count("g").unwrap(), copy.consumers().unwrap().len()), (2, 0));
}

#[test]
fn a_new_file_has_the_settings_of_the_source_and_tokens_that_stay_behind_are_named() {
    let sandbox = Sandbox::new();
    let retention = Retention::events(7_000);
    let options = Options::new().retention(retention).durability(Durability::Relaxed);
    let store = options.open(sandbox.path("app.db")).unwrap();
    store.set("g", "k", "v").unwrap();
    sandbox.ok(&["--store", "app.db", "token", "create", "--read"]);
    sandbox.ok(&["migrate", "app.db", "copy.db"]);
    let copy = open(&sandbox, "copy.db");
    assert_eq!((copy.stats().unwrap().retention, copy.durability()), (retention, Durability::Relaxed));
    let output = sandbox.output(&["migrate", "app.db", "copy.db", "--resume", "--switch", "--json"]);
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    for said in [told["warnings"][0].as_str().unwrap(), &errors] {
        assert!(said.contains("app.db-access") && said.contains("--require-token"), "{said}");
    }
}
