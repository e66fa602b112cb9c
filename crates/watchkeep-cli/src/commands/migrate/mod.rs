//! `migrate`: moves a store to another place while others write to it. `pass` makes the target what a moment of the
//! source is, `follow` writes what came after it, `switch` makes the target take the source's place. `enter` keeps other
//! runs out of the target meanwhile.

mod changes;
mod enter;
mod fit;
mod follow;
mod pass;
mod quotas;
mod switch;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use watchkeep::{Options, Store};

use changes::Ending;
use enter::Mark;

use super::signals::on_end;
use super::{Access, open_with};
use crate::args::{Global, Migrate};
use crate::exit::{FAILURE, Failure, REFUSED, Result, USAGE};
use crate::output::{self, Out, counted, shell_word, visible};

/// How long a pass may take: the write-ahead log of the source grows meanwhile.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// How often a pass is made anew because the source has trimmed what was to be followed.
const PASSES: u32 = 10;

/// A migration: from where, to where, and how far it is.
struct Migration {
    source: Store,
    target: Store,
    /// What makes it ours.
    mark: Mark,
    /// What the target has only to let it expire.
    ending: Ending,
    /// What seals say of the target.
    place: String,
    stop: Arc<AtomicBool>,
    summary: Summary,
}

/// What came of it.
#[derive(Debug, Default)]
struct Summary {
    entries: u64,
    /// By passes.
    written: u64,
    /// Of the source's history.
    followed: u64,
    quotas: u64,
    consumers: Vec<String>,
    switched: bool,
    warnings: Vec<String>,
}

pub(super) fn migrate(global: &Global, args: &Migrate, out: &mut Out) -> Result<()> {
    if global.namespace.is_some() {
        let what = "a store is moved as a whole; leave --namespace (and WATCHKEEP_NAMESPACE) out";
        return Err(Failure::new(USAGE, what));
    }
    if args.switch && is_cluster(&args.source) {
        let what = "a store in a cluster cannot be sealed, so its writers would be lost; leave --switch out, and end them first";
        return Err(Failure::new(USAGE, what));
    }
    let at = |path: &Path| Global { store: path.to_owned(), origin: None, ..global.clone() };
    let place = switch::place(&args.target)?;
    let source = open_with(&at(&args.source), Access::Change, Options::new().snapshot_age(LONGEST))?;
    let stop = Arc::new(AtomicBool::new(false));
    on_end({
        let stop = stop.clone();
        move || stop.store(true, Ordering::Relaxed)
    })?;
    let sealed = source.sealed()?.filter(|why| *why != switch::moving(&place));
    if sealed == Some(switch::moved(&place)) {
        // All that may be left of it is the mark.
        let target = open_with(&at(&args.target), Access::Change, Options::new())?;
        enter::leave(&source, &target)?;
        let summary = Summary { switched: true, warnings: warnings(&args.source), ..Summary::default() };
        return summary.report(&place, args, out);
    }
    if let Some(why) = &sealed {
        let what = format!(
            "{:?} is sealed ({why}); lift that with `watchkeep --store {} seal --lift` if it is to be moved",
            args.source,
            shell_word(&args.source.to_string_lossy())
        );
        return Err(Failure::new(REFUSED, what));
    }
    let snapshot = source.snapshot()?;
    let total = fit::look(&snapshot, is_cluster(&args.target), &stop, out)?;
    let target = open_with(&at(&args.target), Access::Write, settings(&source, &args.target)?)?;
    let mark = Mark::enter((&source, &target), &place, args.resume, &stop)?;
    let summary = Summary { entries: total, ..Summary::default() };
    let mut migration = Migration { source, target, mark, ending: Ending::new(), place, stop, summary };
    let at = migration.pass(&snapshot, total)?;
    drop(snapshot);
    let at = migration.catch_up(at)?;
    if args.switch {
        migration.switch(at)?;
        migration.summary.warnings = warnings(&args.source);
    }
    migration.summary.report(&migration.place, args, out)
}

/// How a target that is a new file is made: with the settings of the source, where that is a file. One that is there keeps
/// its own.
fn settings(source: &Store, target: &Path) -> Result<Options> {
    if is_cluster(target) || source.path().is_none() || target.exists() {
        return Ok(Options::new());
    }
    Ok(Options::new().retention(source.stats()?.retention).durability(source.durability()))
}

/// What a switch leaves to be done.
fn warnings(source: &Path) -> Vec<String> {
    let mut credentials = source.as_os_str().to_owned();
    credentials.push("-access");
    if !Path::new(&credentials).exists() {
        return Vec::new();
    }
    vec![format!(
        "the tokens of the source are not moved: they are in {credentials:?}, and a server of the target knows none of them; make new ones with `watchkeep token create`, and start its servers with --require-token"
    )]
}

/// Whether a path is the address of a cluster.
fn is_cluster(path: &Path) -> bool {
    let name = path.to_string_lossy();
    name.starts_with("etcd://") || name.starts_with("etcds://")
}

impl Migration {
    fn go_on(&self) -> Result<()> {
        go_on(&self.stop)
    }
}

impl Summary {
    fn report(&self, place: &str, args: &Migrate, out: &mut Out) -> Result<()> {
        let Summary { entries, written, followed, quotas, consumers, switched, warnings } = self;
        warnings.iter().for_each(output::warn);
        if out.is_json() {
            return out.object(&json!({
                "entries": entries,
                "written": written,
                "followed": followed,
                "quotas": quotas,
                "consumers": consumers,
                "switched": switched,
                "warnings": warnings,
            }));
        }
        let target = visible(place);
        if *switched {
            out.line(format_args!(
                "{target} has taken the place of {}, which takes no writes any more; point your programs there",
                visible(&args.source.to_string_lossy())
            ))?;
            return out.line(
                "end those that still read or watch the old place: nothing tells them that it is past",
            );
        }
        out.line(format_args!(
            "{target} has caught up: {} of {} written, {} followed",
            counted(*written, "entry", "entries"),
            counted(*entries, "entry", "entries"),
            counted(*followed, "event", "events"),
        ))?;
        out.line(format_args!(
            "next: watchkeep migrate {} {} --resume --switch",
            shell_word(&args.source.to_string_lossy()),
            shell_word(&args.target.to_string_lossy())
        ))
    }
}

/// Ends a migration that was asked to end.
fn go_on(stop: &AtomicBool) -> Result<()> {
    match stop.load(Ordering::Relaxed) {
        true => Err(Failure::new(FAILURE, "the migration was ended before it was done; go on with --resume")),
        false => Ok(()),
    }
}

/// Drawn on standard error, and only on a terminal.
fn progress(what: &'static str, total: Option<u64>, noun: &str) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => {
            (ProgressBar::new(total), format!("{{msg}} {{wide_bar}} {{human_pos}} of {{human_len}} {noun}"))
        }
        None => (ProgressBar::new_spinner(), format!("{{msg}} {{spinner}} {{human_pos}} {noun}")),
    };
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.with_style(style).with_message(what)
}
