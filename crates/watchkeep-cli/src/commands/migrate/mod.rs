//! `migrate`: moves a store to another place while others write to it. `pass` makes the target what a moment of the
//! source is, `follow` writes what came after it, `switch` makes the target take the source's place.

mod changes;
mod fit;
mod follow;
mod pass;
mod switch;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use watchkeep::{ConsumerOptions, Force, Options, Quota, Store};

use super::signals::on_end;
use super::{Access, open_with};
use crate::args::{Global, Migrate};
use crate::exit::{FAILURE, Failure, REFUSED, Result, USAGE};
use crate::output::{Out, counted, shell_word, visible};

/// How long a pass may take: the write-ahead log of the source grows meanwhile.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// How often a pass is made anew because the source has trimmed what was to be followed.
const PASSES: u32 = 10;

/// A migration: from where, to where, and how far it is.
struct Migration {
    source: Store,
    target: Store,
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
        let summary = Summary { switched: true, ..Summary::default() };
        let migration = Migration { source, target, place, stop, summary };
        migration.leave()?;
        return migration.report(args, out);
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
    let target = open_with(&at(&args.target), Access::Write, Options::new())?;
    let summary = Summary { entries: total, ..Summary::default() };
    let mut migration = Migration { source, target, place, stop, summary };
    migration.enter(args.resume)?;
    let at = migration.pass(&snapshot, total)?;
    drop(snapshot);
    let at = migration.catch_up(at)?;
    if args.switch {
        migration.switch(at)?;
    }
    migration.report(args, out)
}

/// Whether a path is the address of a cluster.
fn is_cluster(path: &Path) -> bool {
    let name = path.to_string_lossy();
    name.starts_with("etcd://") || name.starts_with("etcds://")
}

impl Migration {
    /// The consumer of the target that says what is being moved there. It makes no event, and the switch removes it.
    fn mark(&self) -> String {
        format!("migrate-from-{}", self.source.id())
    }

    /// Sees that the target is ours to write: empty, or left by an earlier run for this source.
    fn enter(&self, resume: bool) -> Result<()> {
        if self.source.id() == self.target.id() {
            return Err(Failure::new(USAGE, "source and target are the same store; name another target"));
        }
        let consumers = self.target.consumers()?;
        let is_ours = consumers.iter().any(|consumer| consumer.name == self.mark());
        let is_empty = consumers.is_empty() && self.target.groups("").next().is_none();
        let refuse = |what: String| Err(Failure::new(REFUSED, what));
        match (is_ours, resume) {
            // An earlier switch that failed may have brought consumers that are gone from the source by now.
            (true, true) => {
                for consumer in consumers.iter().filter(|consumer| consumer.name != self.mark()) {
                    self.target.remove_consumer(&consumer.name, Force::Yes)?;
                }
            }
            (true, false) => {
                return refuse(
                    "the target holds what an earlier run has moved; go on with --resume".to_owned(),
                );
            }
            (false, _) if !is_empty => {
                let what =
                    "the target holds other entries or consumers, and is not touched; name an empty place";
                return refuse(what.to_owned());
            }
            // Whatever --resume says: an earlier run may have come to nothing.
            (false, _) => self.target.consumer_with(&self.mark(), ConsumerOptions::new())?.close()?,
        }
        // An earlier switch that failed may have brought quotas, which would refuse what is moved entry by entry.
        for (namespace, _) in self.quotas()? {
            let tenant = self.target.scoped(&namespace)?;
            if tenant.quota()?.is_some() {
                tenant.set_quota(Quota::default())?;
            }
        }
        Ok(())
    }

    /// Takes the mark away: the target is a store like any other.
    fn leave(&self) -> Result<()> {
        match self.target.remove_consumer(&self.mark(), Force::Yes) {
            Err(error) if error.kind() != watchkeep::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// The quotas of the source; a cluster does not list its own.
    fn quotas(&self) -> Result<Vec<(String, Quota)>> {
        if self.source.path().is_none() {
            return Ok(Vec::new());
        }
        Ok(self.source.quotas()?)
    }

    fn go_on(&self) -> Result<()> {
        go_on(&self.stop)
    }

    fn report(&self, args: &Migrate, out: &mut Out) -> Result<()> {
        let Summary { entries, written, followed, quotas, consumers, switched } = &self.summary;
        if out.is_json() {
            return out.object(&json!({
                "entries": entries,
                "written": written,
                "followed": followed,
                "quotas": quotas,
                "consumers": consumers,
                "switched": switched,
            }));
        }
        let target = visible(&self.place);
        if *switched {
            return out.line(format_args!(
                "{target} has taken the place of {}, which takes no writes any more; point your programs there",
                visible(&args.source.to_string_lossy())
            ));
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
