//! One entry, or a group of them: `set`, `get`, `delete`, `delete-group`, `touch`, `persist`.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Read};

use serde_json::json;
use watchkeep::{Clock, DeleteOptions, Entry, Limits, Revision, SetOptions, Store, SystemClock, Value};

use super::{Access, open};
use crate::args::{Delete, DeleteGroup, Get, Global, Name, Set, Touch};
use crate::exit::{FAILURE, Failure, NOT_FOUND, Result, USAGE};
use crate::line::shown;
use crate::output::{self, Out};
use crate::time::{Wall, human};

pub(super) fn set(global: &Global, args: Set, out: &mut Out) -> Result<()> {
    let mut options = SetOptions::new();
    if let Some(ttl) = args.ttl {
        options = options.ttl(ttl);
    }
    if args.keep_ttl {
        options = options.keep_ttl();
    }
    if args.if_absent {
        options = options.if_absent();
    }
    if let Some(content_type) = args.content_type {
        options = options.content_type(content_type);
    }
    // Before the file is opened, so that nobody waits for what is typed.
    let value = value(args.value)?;
    let store = open(global, Access::Write)?;
    if let Some(position) = args.if_revision {
        options = options.if_revision(position.revision(&store)?);
    }
    let revision = store.set_with(&args.name.group, &args.name.key, value, options)?;
    written(&store, revision, out)
}

fn written(store: &Store, revision: Revision, out: &mut Out) -> Result<()> {
    if out.is_json() {
        let cursor = store.cursor(revision).to_string();
        return out.object(&json!({ "revision": revision.get(), "cursor": cursor }));
    }
    out.line(revision)
}

fn value(given: Option<OsString>) -> Result<Value> {
    match given {
        Some(value) if value == "-" => standard_input().map(Value::from),
        Some(value) => Ok(value.into_encoded_bytes().into()),
        None => {
            let what = "the value is missing; add it, '' for an empty one, or `-` to read standard input";
            Err(Failure::new(USAGE, what))
        }
    }
}

/// All of standard input, as it is.
pub(super) fn standard_input() -> Result<Vec<u8>> {
    let mut stdin = io::stdin().lock();
    if stdin.is_terminal() {
        output::warn("reading from the terminal; end with Ctrl-D");
    }
    let (mut bytes, limit) = (Vec::new(), Limits::default().value);
    stdin
        .by_ref()
        .take(limit as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::new(FAILURE, format!("standard input could not be read: {error}")))?;
    if bytes.len() > limit {
        let what = format!("standard input holds more than {limit} bytes, the limit of a value; shorten it");
        return Err(Failure::new(USAGE, what));
    }
    Ok(bytes)
}

pub(super) fn get(global: &Global, args: &Get, out: &mut Out) -> Result<()> {
    let store = open(global, Access::Read)?;
    let Name { group, key } = &args.name;
    let Some(entry) = store.entry(group, key)? else {
        return Err(no_key(&args.name));
    };
    match (out.is_json(), args.meta) {
        (true, meta) => out.object(&shown(&store, group, &entry, !meta)),
        (false, true) => meta(&store, group, &entry, out),
        (false, false) => {
            out.raw(&entry.value)?;
            if out.is_terminal() { out.raw(b"\n") } else { Ok(()) }
        }
    }
}

fn meta(store: &Store, group: &str, entry: &Entry, out: &mut Out) -> Result<()> {
    let wall = Wall::here();
    let expires = match entry.deadline {
        Some(deadline) => {
            let left = human(deadline.since(SystemClock.now()));
            format!("{} (in {left})", wall.date_and_clock(deadline))
        }
        None => "never".to_owned(),
    };
    let mut rows = vec![
        ("group", output::name(group)),
        ("key", output::name(&entry.key)),
        ("revision", format!("{} ({})", entry.revision, store.cursor(entry.revision))),
        ("created", format!("at revision {}", entry.created)),
        ("updated", wall.date_and_clock(entry.updated)),
        ("expires", expires),
        ("size", format!("{} bytes", entry.value.len())),
    ];
    if let Some(content_type) = &entry.content_type {
        rows.push(("type", output::visible(content_type)));
    }
    out.fields(&rows)
}

pub(super) fn delete(global: &Global, args: &Delete, out: &mut Out) -> Result<()> {
    let store = open(global, Access::Change)?;
    let mut options = DeleteOptions::new();
    if let Some(position) = args.if_revision {
        options = options.if_revision(position.revision(&store)?);
    }
    let was_there = store.delete_with(&args.name.group, &args.name.key, options)?;
    done(was_there, &args.name, "deleted", out)
}

pub(super) fn delete_group(global: &Global, args: &DeleteGroup, out: &mut Out) -> Result<()> {
    if args.prefix.as_deref() == Some("") {
        let what =
            "an empty prefix would delete every group; say --all for that, or see what should stand there";
        return Err(Failure::new(USAGE, what));
    }
    let store = open(global, Access::Change)?;
    let (removed, nothing) = match (&args.group, &args.prefix) {
        (Some(group), _) => (store.delete_group(group)?, format!("group {group:?} is not there")),
        (None, Some(prefix)) => (store.delete_prefix(prefix)?, format!("no group starts with {prefix:?}")),
        (None, None) => (store.delete_prefix("")?, "there is no group".to_owned()),
    };
    if removed == 0 {
        return Err(Failure::new(NOT_FOUND, format!("{nothing}; see `watchkeep groups`")));
    }
    if out.is_json() { out.object(&json!({ "deleted": removed })) } else { out.line(removed) }
}

pub(super) fn touch(global: &Global, args: &Touch, out: &mut Out) -> Result<()> {
    let store = open(global, Access::Change)?;
    let was_there = store.touch(&args.name.group, &args.name.key, args.ttl)?;
    done(was_there, &args.name, "touched", out)
}

pub(super) fn persist(global: &Global, name: &Name, out: &mut Out) -> Result<()> {
    let store = open(global, Access::Change)?;
    let was_there = store.persist(&name.group, &name.key)?;
    done(was_there, name, "persisted", out)
}

/// What was asked was done, which is worth no words to people, or the key is not there.
fn done(was_there: bool, name: &Name, what: &str, out: &mut Out) -> Result<()> {
    match (was_there, out.is_json()) {
        (false, _) => Err(no_key(name)),
        (true, true) => out.object(&json!({ what: true })),
        (true, false) => Ok(()),
    }
}

fn no_key(name: &Name) -> Failure {
    let Name { group, key } = name;
    let list = format!("watchkeep list {}", output::shell_word(group));
    Failure::new(NOT_FOUND, format!("group {group:?} has no key {key:?}; see `{list}`"))
}
