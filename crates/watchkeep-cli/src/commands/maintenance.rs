//! The file as a whole: `stats`, `compact`, `check`.

use std::error::Error as _;

use serde_json::json;
use watchkeep::{Clock, Durability, ErrorKind, Force, Quota, Stats, SystemClock, Waking};

use super::consumers;
use super::{Access, open};
use crate::args::{Check, Compact, Global};
use crate::exit::{BAD_FILE, Failure, Result};
use crate::output::{self, Out, bytes, counted, grouped, style};
use crate::time::{Wall, human};

pub(super) fn stats(global: &Global, out: &mut Out) -> Result<()> {
    let stats = open(global, Access::Read)?.stats()?;
    if out.is_json() { out.object(&watchkeep::json::stats(&stats)) } else { out.fields(&for_people(&stats)) }
}

fn for_people(stats: &Stats) -> Vec<(&'static str, String)> {
    let path = stats.path.as_ref().map(|path| path.to_string_lossy().into_owned());
    let place = path.or_else(|| stats.address.clone()).unwrap_or_default();
    let mut rows = vec![("store", format!("{} ({})", output::visible(&place), stats.store))];
    rows.extend(stats.server.as_ref().map(|server| ("server", output::visible(server).to_string())));
    if let Some(namespace) = &stats.namespace {
        rows.push(("namespace", namespace.clone()));
    }
    let log = match stats.log_events {
        0 => "empty".to_owned(),
        events => format!(
            "{}, revisions {} to {}, {}",
            counted(events, "event", "events"),
            stats.first_revision,
            stats.last_revision,
            bytes(stats.log_bytes)
        ),
    };
    let next = match stats.next_deadline {
        Some(deadline) => {
            let left = human(deadline.since(SystemClock.now()));
            format!("{} (in {left})", Wall::here().date_and_clock(deadline))
        }
        None => "none".to_owned(),
    };
    let entries = format!(
        "{} in {}, {}",
        grouped(stats.entries),
        counted(stats.groups, "group", "groups"),
        bytes(stats.bytes)
    );
    rows.push(("entries", entries));
    rows.extend(stats.quota.map(|quota| ("quota", allowed(&quota))));
    rows.extend([
        ("log", log),
        ("next expiry", next),
        ("consumers", consumers::in_brief(&stats.consumers)),
        ("watchers", format!("{} in this process", stats.watchers)),
        ("file", format!("{}, and {} of write-ahead log", bytes(stats.file_bytes), bytes(stats.wal_bytes))),
        ("durability", durability(stats).to_owned()),
        ("waking", waking(stats.waking).to_owned()),
        ("sqlite", stats.sqlite_version.to_owned()),
    ]);
    rows
}

fn allowed(quota: &Quota) -> String {
    let limits = [
        (quota.max_keys, counted(quota.max_keys, "key", "keys")),
        (quota.max_groups, counted(quota.max_groups, "group", "groups")),
        (quota.max_bytes, bytes(quota.max_bytes)),
    ];
    let limits: Vec<String> =
        limits.into_iter().filter(|(limit, _)| *limit > 0).map(|(_, text)| text).collect();
    limits.join(", ")
}

fn durability(stats: &Stats) -> &'static str {
    match stats.durability {
        Durability::Relaxed => "relaxed",
        _ => "full",
    }
}

fn waking(waking: Waking) -> &'static str {
    match waking {
        Waking::Signal => "other processes' commits are signalled",
        _ => "other processes' commits are looked for",
    }
}

pub(super) fn compact(global: &Global, args: &Compact, out: &mut Out) -> Result<()> {
    let store = open(global, Access::Change)?;
    let removed =
        store.compact_with(args.before.revision(&store)?, if args.force { Force::Yes } else { Force::No })?;
    if out.is_json() { out.object(&json!({ "removed": removed })) } else { out.line(removed) }
}

pub(super) fn check(global: &Global, args: &Check, out: &mut Out) -> Result<()> {
    let store = open(global, if args.repair { Access::Change } else { Access::Read })?;
    let repaired = if args.repair { store.repair_counters() } else { Ok(Vec::new()) };
    let (repaired, report) = match repaired.and_then(|repaired| Ok((repaired, store.check()?))) {
        Ok(both) => both,
        // So damaged that not even the check can be made.
        Err(error) if error.kind() == ErrorKind::Corrupt => return hopeless(error, out),
        Err(error) => return Err(error.into()),
    };
    if out.is_json() {
        out.object(&json!({
            "ok": report.is_ok(),
            "problems": report.problems,
            "repaired": repaired,
            "entries": report.entries,
            "groups": report.groups,
            "events": report.events,
            "sqlite_version": report.sqlite_version,
        }))?;
    } else {
        for change in &repaired {
            out.line(format_args!("repaired: {}", output::visible(change)))?;
        }
        for problem in &report.problems {
            out.line(output::visible(problem))?;
        }
    }
    if !report.is_ok() {
        let count = u64::try_from(report.problems.len()).unwrap_or(u64::MAX);
        let advice = if args.repair {
            "restore a backup"
        } else {
            "`watchkeep check --repair` rebuilds counters; for anything else restore a backup"
        };
        let what = format!("the file has {}; {advice}", counted(count, "problem", "problems"));
        return Err(Failure::new(BAD_FILE, what));
    }
    if out.is_json() {
        return Ok(());
    }
    let checked = format!(
        "{} in {} and {} of the log agree (SQLite {})",
        counted(report.entries, "entry", "entries"),
        counted(report.groups, "group", "groups"),
        counted(report.events, "event", "events"),
        report.sqlite_version
    );
    out.line(format_args!("{} {checked}", out.paint(style::GOOD, "ok:")))
}

fn hopeless(error: watchkeep::Error, out: &mut Out) -> Result<()> {
    let cause = error.source().map_or_else(|| error.to_string(), ToString::to_string);
    if out.is_json() {
        out.object(&json!({ "ok": false, "problems": [cause] }))?;
    }
    Err(Failure::new(BAD_FILE, format!("the file is too damaged to be checked: {cause}; restore a backup")))
}
