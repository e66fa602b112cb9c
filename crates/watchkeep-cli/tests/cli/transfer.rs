//! `export` and `import`, and the original's databases.

use rusqlite::{Connection, params};

use crate::sandbox::{Sandbox, one_error};

const SCHEMAS: [&str; 2] = [
    "CREATE TABLE kv (grp TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, expires_at INTEGER,
     PRIMARY KEY (grp, key))",
    "CREATE TABLE entries (group_name TEXT NOT NULL, entry_key TEXT NOT NULL, entry_value TEXT NOT NULL,
     expires_at INTEGER, PRIMARY KEY (group_name, entry_key))",
];

fn line(key: &str) -> String {
    format!("{{\"group\":\"g\",\"key\":\"{key}\",\"value\":\"v\"}}\n")
}

#[test]
fn what_is_exported_is_imported_again() {
    let at = Sandbox::new();
    at.ok(&["set", "config", "theme", "dark"]);
    at.ok(&["set", "", "*", "line\nbreak"]);
    at.with_input(&["set", "bin", "logo", "-"], b"\xff\0");
    at.ok(&["set", "session", "token", "abc", "--ttl", "1h", "--content-type", "text/plain"]);
    let exported = at.ok(&["export"]);
    let lines: Vec<&str> = exported.lines().collect();
    assert_eq!(lines[0], r#"{"group":"","key":"*","value":"line\nbreak"}"#);
    assert_eq!(lines[1], r#"{"group":"bin","key":"logo","value_base64":"/wA="}"#);
    assert_eq!(lines[2], r#"{"group":"config","key":"theme","value":"dark"}"#);
    assert!(
        lines[3].contains(r#""value":"abc","deadline":"20"#)
            && lines[3].ends_with(r#""content_type":"text/plain"}"#)
    );
    assert_eq!(at.ok(&["export", "con"]).lines().collect::<Vec<_>>(), [lines[2]]);

    let output = at.with_input(&["--store", "copy.db", "import", "-"], &exported);
    assert_eq!(output.stdout, b"imported 4 entries\n");
    let copy = at.ok(&["--store", "copy.db", "export"]);
    let without_deadline = |text: &str| {
        text.lines().map(|it| it.split("deadline").next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(without_deadline(&copy), without_deadline(&exported));
    let file = at.file("all.jsonl", &exported);
    let report = at.json(&["--store", "copy.db", "import", &file, "--json"]);
    assert_eq!((report["imported"].as_u64(), report["expired"].as_u64()), (Some(4), Some(0)));
    assert_eq!(report["revision"], 8);
}

#[test]
fn an_import_is_one_transaction() {
    let at = Sandbox::new();
    let file = at.file("two.jsonl", line("a") + "\n" + &line("b"));
    at.ok(&["import", &file]);
    let stats = at.json(&["stats", "--json"]);
    assert_eq!(stats["last_revision"], 2);
    let commits = Connection::open(at.path("watchkeep.db")).unwrap();
    let commits: i64 = commits
        .query_row("SELECT count(DISTINCT commit_revision) FROM wk_log", [], |row| row.get(0))
        .unwrap();
    assert_eq!(commits, 1);
}

#[test]
fn an_import_is_written_in_the_order_of_its_keys_and_the_last_of_each_stays() {
    for batch in [&["--batch", "100"][..], &[]] {
        let at = Sandbox::new();
        let lines = ["z", "b", "m", "b", "a"].iter().enumerate();
        let line = |(number, key)| format!("{{\"group\":\"g\",\"key\":\"{key}\",\"value\":\"{number}\"}}\n");
        let first = "{\"group\":\"a\",\"key\":\"z\",\"value\":\"v\"}\n".to_owned();
        let file = at.file("lines.jsonl", lines.map(line).collect::<String>() + &first);
        assert_eq!(at.ok(&[&["import", &file], batch].concat()), "imported 6 entries\n");
        let log = Connection::open(at.path("watchkeep.db")).unwrap();
        let mut log = log.prepare("SELECT key || value FROM wk_log ORDER BY revision").unwrap();
        let rows: Vec<String> = log.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        assert_eq!(rows, ["zv", "a4", "b1", "b3", "m2", "z0"]);
        assert_eq!(at.ok(&["get", "g", "b"]), "3");
    }
}

#[test]
fn a_bad_line_names_its_number_and_leaves_nothing_behind() {
    let at = Sandbox::new();
    for (bad, word) in [
        ("{", "EOF"),
        ("{\"group\":\"g\",\"key\":\"k\"}", "neither value nor"),
        ("{\"group\":\"g\",\"key\":\"k\",\"value\":\"v\",\"ttl\":5}", "unknown field"),
        ("{\"group\":\"g\",\"key\":\"k\",\"value\":\"v\",\"deadline\":\"noon\"}", "noon"),
    ] {
        let file = at.file("bad.jsonl", line("a") + "\n" + bad + "\n" + &line("c"));
        let error = at.fails(1, &["import", &file]);
        assert!(error.starts_with("line 3") && error.contains(word), "{error}");
        assert!(!at.path("watchkeep.db").exists());
        let output = at.with_input(&["import", "-"], line("a") + bad);
        assert!(one_error(&[], 1, output).starts_with("line 2 of standard input"));
    }
    // One that only the store refuses.
    let file = at.file("bad.jsonl", line("a") + &line(&"x".repeat(1025)));
    let error = at.fails(2, &["import", &file]);
    assert!(error.starts_with("line 2 (") && error.contains("the key has 1025 bytes"), "{error}");
    assert_eq!(at.ok(&["count"]), "0\n");
    assert_eq!(at.fails(3, &["import", "none.jsonl"]).matches("none.jsonl").count(), 1);
}

#[test]
fn a_batch_says_what_is_in() {
    let at = Sandbox::new();
    let lines: String = ["a", "b", "c", "d", "e"].map(line).concat();
    let file = at.file("bad.jsonl", lines.clone() + "{\n" + &line("f"));
    let error = at.fails(1, &["import", &file, "--batch", "2"]);
    assert!(error.starts_with("line 6") && error.ends_with("what stands up to line 4 is in"), "{error}");
    assert_eq!(at.ok(&["list", "g"]), "a\nb\nc\nd\n");
    let file = at.file("bad.jsonl", "{\n");
    assert!(at.fails(1, &["import", &file, "--batch", "2"]).ends_with("nothing is in"));
    let output = at.with_input(&["import", "-", "--batch", "2"], lines);
    assert_eq!(output.stdout, b"imported 5 entries\n");
    assert_eq!(at.ok(&["count"]), "5\n");
    at.fails(2, &["import", &file, "--batch", "0"]);
}

#[test]
fn entries_whose_deadline_has_passed_are_left_out_and_counted() {
    let at = Sandbox::new();
    let dead = r#"{"group":"g","key":"dead","value":"v","deadline":"2020-01-01T00:00:00Z"}"#;
    let file = at.file("some.jsonl", line("a") + dead + "\n");
    assert_eq!(at.ok(&["import", &file]), "imported 1 entry, left out 1 whose deadline has passed\n");
    assert_eq!(at.ok(&["list", "g"]), "a\n");
}

#[test]
fn both_schemas_of_the_original_are_read_and_left_alone() {
    for (schema, table) in SCHEMAS.into_iter().zip(["kv", "entries"]) {
        let at = Sandbox::new();
        let old = Connection::open(at.path("old.db")).unwrap();
        old.execute_batch(&format!("PRAGMA journal_mode = WAL; {schema}")).unwrap();
        let mut insert = old.prepare(&format!("INSERT INTO {table} VALUES (?1, ?2, ?3, ?4)")).unwrap();
        let never: Option<i64> = None;
        insert.execute(params!["config", "theme", "dark", never]).unwrap();
        insert.execute(params!["config", "zero", "0", 0]).unwrap();
        insert.execute(params!["", "*", "", never]).unwrap();
        insert.execute(params!["bin", "logo", b"\xff\xfe", never]).unwrap();
        insert.execute(params!["session", "alive", "abc", 4_102_444_800_000_i64]).unwrap();
        insert.execute(params!["session", "dead", "abc", 1_000]).unwrap();
        drop(insert);
        drop(old);
        let before = std::fs::read(at.path("old.db")).unwrap();
        let report = at.ok(&["import", "--from-go-store", "old.db"]);
        assert_eq!(report, "imported 5 entries, left out 1 whose deadline has passed\n");
        assert_eq!(std::fs::read(at.path("old.db")).unwrap(), before);
        assert!(!at.path("old.db-shm").exists() && !at.path("old.db-wal").exists());
        assert_eq!(at.ok(&["get", "config", "theme"]), "dark");
        assert_eq!(at.ok(&["get", "", "*"]), "");
        assert_eq!(at.bytes(&["get", "bin", "logo"]), b"\xff\xfe");
        let deadline = at.json(&["get", "session", "alive", "--json"])["deadline"].clone();
        let deadline = deadline.as_str().unwrap();
        assert!(
            deadline.starts_with("2100-01-01T00:00:00") || deadline.starts_with("2099-12-31T23:59:59"),
            "{deadline}"
        );
        assert_eq!(at.ok(&["list", "config"]), "theme\nzero\n");
    }
}

#[test]
fn what_is_no_database_of_the_original_is_refused() {
    let at = Sandbox::new();
    let import = |file: &str| ["import", "--from-go-store", file].map(str::to_owned);
    at.file("text.db", "this is a text, and long enough for SQLite to look at it");
    Connection::open(at.path("other.db")).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    Connection::open(at.path("half.db")).unwrap().execute_batch("CREATE TABLE kv (grp, key)").unwrap();
    for (file, code) in [("text.db", 5), ("other.db", 5), ("half.db", 5), ("none.db", 3)] {
        let args = import(file);
        let error = at.fails(code, &args.each_ref().map(String::as_str));
        assert!(error.contains(file), "{error}");
    }
    assert!(!at.path("watchkeep.db").exists());
    at.fails(2, &["import", "a.jsonl", "--from-go-store", "b.db"]);
}

#[test]
fn a_row_that_cannot_be_written_leaves_nothing_behind() {
    let at = Sandbox::new();
    let old = Connection::open(at.path("old.db")).unwrap();
    old.execute_batch(SCHEMAS[0]).unwrap();
    old.execute("INSERT INTO kv VALUES ('a', 'k', 'v', NULL), (?1, 'k', 'v', NULL)", ["x".repeat(600)])
        .unwrap();
    let error = at.fails(2, &["import", "--from-go-store", "old.db"]);
    assert!(error.starts_with("row 2 (") && error.contains("the group has 600 bytes"), "{error}");
    assert_eq!(at.ok(&["count"]), "0\n");
}

#[test]
fn a_line_longer_than_any_entry_is_refused_before_it_is_in_memory() {
    let at = Sandbox::new();
    let hole = std::fs::File::create(at.path("nolines")).unwrap();
    hole.set_len(3 << 30).unwrap();
    drop(hole);
    for args in [&["import", "nolines"][..], &["import", "nolines", "--batch", "10"]] {
        // In kibibytes, and much less than the file.
        let mut limited = std::process::Command::new("sh");
        limited.args(["-c", r#"ulimit -v 700000 && exec "$0" "$@""#]);
        let command = at.command(args);
        limited.arg(command.get_program()).args(command.get_args()).current_dir(at.path(""));
        limited.env_remove("WATCHKEEP_STORE");
        let error = one_error(args, 1, limited.output().unwrap());
        assert!(error.starts_with("line 1 of \"nolines\" is no entry: it is longer than any"), "{error}");
    }
}

#[test]
fn a_byte_order_mark_is_passed_over_and_only_objects_are_entries() {
    let at = Sandbox::new();
    let file = at.file("marked.jsonl", "\u{feff}".to_owned() + &line("a") + &line("b"));
    assert_eq!(at.ok(&["import", &file]), "imported 2 entries\n");
    let output = at.with_input(&["import", "-", "--batch", "1"], std::fs::read(at.path(&file)).unwrap());
    assert_eq!(output.stdout, b"imported 2 entries\n");
    for bad in [r#"["g","k","v",null,null,null]"#, "[]", "7", "null", "\"g\"", "\u{feff}{}"] {
        let file = at.file("bad.jsonl", line("a") + bad);
        let error = at.fails(1, &["import", &file]);
        assert!(error.contains("line 2 of \"bad.jsonl\" is no entry: it is no JSON object"), "{error}");
    }
}

#[test]
fn a_deadline_past_all_that_can_be_written_is_never() {
    let at = Sandbox::new();
    let with = |key: &str, deadline: &str| line(key).replace('}', &format!(",\"deadline\":\"{deadline}\"}}"));
    let lines = with("zulu", "9999-12-31T23:59:59Z")
        + &with("offset", "9999-12-31T23:59:59.999999999-12:00")
        + &with("early", "9999-12-31T00:00:00+14:00");
    let file = at.file("never.jsonl", lines);
    assert_eq!(at.ok(&["import", &file]), "imported 3 entries\n");
    let old = Connection::open(at.path("old.db")).unwrap();
    old.execute_batch(SCHEMAS[0]).unwrap();
    for (key, expires_at) in
        [("go", 253_402_300_799_000), ("max", i64::MAX), ("last", watchkeep::MAX_DEADLINE_MS)]
    {
        old.execute("INSERT INTO kv VALUES ('g', ?1, 'v', ?2)", params![key, expires_at]).unwrap();
    }
    assert_eq!(at.ok(&["import", "--from-go-store", "old.db"]), "imported 3 entries\n");
    for (key, expected) in [
        ("zulu", None),
        ("offset", None),
        ("early", Some("9999-12-30T10:00:00.000Z")),
        ("go", None),
        ("max", None),
        ("last", Some("9999-12-30T22:00:00.000Z")),
    ] {
        assert_eq!(at.json(&["get", "g", key, "--json"])["deadline"].as_str(), expected, "{key}");
    }
    for wrong in ["9999-12-31", "9999-12-31T23:59:59", "9999-13-31T23:59:59Z", "10000-01-01T00:00:00Z"] {
        let file = at.file("wrong.jsonl", with("a", wrong));
        let error = at.fails(1, &["import", &file]);
        assert!(error.contains("is no time"), "{error}");
    }
}
