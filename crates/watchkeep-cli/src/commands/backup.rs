//! `backup` and `restore`.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use watchkeep::{BackupOptions, ErrorKind, Store};

use super::signals::on_end;
use super::{Access, open};
use crate::args::{Backup, Global, Restore};
use crate::exit::{Failure, Result, USAGE};
use crate::output::{Out, bytes, name};

pub(super) fn backup(global: &Global, args: &Backup, out: &mut Out) -> Result<()> {
    let store = open(global, Access::Read)?;
    let copy = copying("copying", |options| store.backup_with(&args.target, options))?;
    report(&args.target, &copy, out)
}

pub(super) fn restore(global: &Global, args: &Restore, out: &mut Out) -> Result<()> {
    let restored = copying("restoring", |options| {
        Store::restore(&args.backup, &global.store, options.replace(args.force))
    });
    let copy = restored.map_err(|failure| match failure {
        Failure::Store(error) if error.kind() == ErrorKind::InvalidArgument && !args.force => {
            Failure::new(USAGE, format!("{error}, or put it aside with --force"))
        }
        failure => failure,
    })?;
    report(&global.store, &copy, out)
}

/// Runs with a bar on standard error, if that is a terminal; a signal gives the copy up, and then nothing is left of it.
fn copying(
    what: &'static str,
    run: impl FnOnce(BackupOptions) -> watchkeep::Result<watchkeep::Backup>,
) -> Result<watchkeep::Backup> {
    let stop = Arc::new(AtomicBool::new(false));
    on_end({
        let stop = stop.clone();
        move || stop.store(true, Ordering::Relaxed)
    })?;
    let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes} of {total_bytes}, {eta} left");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(0).with_style(style).with_message(what);
    let shown = bar.clone();
    let copy = run(BackupOptions::new().on_progress(move |progress| {
        shown.set_length(progress.total);
        shown.set_position(progress.done);
        if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }));
    bar.finish_and_clear();
    Ok(copy?)
}

fn report(target: &Path, copy: &watchkeep::Backup, out: &mut Out) -> Result<()> {
    let replaced = copy.replaced.as_ref().map(|path| path.to_string_lossy());
    if out.is_json() {
        return out.object(&json!({
            "path": target.to_string_lossy(),
            "store": copy.store.as_str(),
            "revision": copy.revision.get(),
            "bytes": copy.bytes,
            "replaced": replaced,
        }));
    }
    let path = name(&target.to_string_lossy());
    out.line(format_args!(
        "{path}: store {}, up to revision {}, {}",
        copy.store,
        copy.revision,
        bytes(copy.bytes)
    ))?;
    replaced.map_or(Ok(()), |replaced| out.line(format_args!("the store before it is {}", name(&replaced))))
}
