//! What each command does, one family a file.

mod backup;
mod consumers;
mod demo;
mod entries;
mod exec;
mod export;
mod go_store;
mod history;
mod import;
mod listing;
mod maintenance;
mod migrate;
mod quota;
mod render;
mod retention;
mod seal;
mod serve;
mod signals;
mod threads;
mod token;
mod watch;

use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory;
use watchkeep::{ErrorKind, Options, Store};

use crate::args::{Cli, Command, Global};
use crate::exit::{Failure, NOT_FOUND, Result, USAGE};
use crate::output::Out;

/// Runs the command and says how it ended.
pub(crate) fn run(cli: Cli, store_is_named: bool) -> ExitCode {
    let mut out = Out::stdout(cli.global.json);
    let result = dispatch(cli, store_is_named, &mut out);
    // What was printed before a failure is shown before it.
    match result.and(out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.end(),
    }
}

fn dispatch(cli: Cli, store_is_named: bool, out: &mut Out) -> Result<()> {
    let global = &cli.global;
    match cli.command {
        Command::Set(args) => entries::set(global, args, out),
        Command::Get(args) => entries::get(global, &args, out),
        Command::Delete(args) => entries::delete(global, &args, out),
        Command::DeleteGroup(args) => entries::delete_group(global, &args, out),
        Command::Touch(args) => entries::touch(global, &args, out),
        Command::Persist(name) => entries::persist(global, &name, out),
        Command::List(args) => listing::list(global, args, out),
        Command::Groups(args) => listing::groups(global, &args, out),
        Command::Count(args) => listing::count(global, &args, out),
        Command::Render(args) => render::render(global, &args, out),
        Command::Watch(args) => watch::watch(global, &args, out),
        Command::Consumers(args) => consumers::consumers(global, args.action, out),
        Command::History(args) => history::history(global, &args, out),
        Command::Export(args) => export::export(global, &args, out),
        Command::Import(args) => import::import(global, &args, out),
        Command::Stats => maintenance::stats(global, out),
        Command::Quota(args) => quota::quota(global, &args, out),
        Command::Retention(args) => retention::retention(global, &args, out),
        Command::Compact(args) => maintenance::compact(global, &args, out),
        Command::Check(args) => maintenance::check(global, &args, out),
        Command::Backup(args) => backup::backup(global, &args, out),
        Command::Restore(args) => backup::restore(global, &args, out),
        Command::Migrate(args) => migrate::migrate(global, &args, out),
        Command::Seal(args) => seal::seal(global, &args, out),
        Command::Serve(args) => serve::serve(global, &args, out),
        Command::Token(args) => token::token(global, args.action, out),
        Command::Demo(args) => demo::demo(global, store_is_named, &args, out),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "watchkeep", &mut script);
            out.raw(&script)
        }
    }
}

/// What a command does to the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    /// Nothing: it must be there.
    Read,
    /// It changes what is there, and does not make it.
    Change,
    /// It writes, and makes the file if it is not there.
    Write,
}

fn no_file(path: &Path) -> Failure {
    Failure::new(NOT_FOUND, format!("{path:?} is not there; `watchkeep set` makes it, --store names another"))
}

/// Opens a store in a cluster.
#[cfg(feature = "etcd")]
fn connect(options: Options, address: &str) -> Result<Store> {
    Ok(options.connect(address)?)
}

#[cfg(not(feature = "etcd"))]
fn connect(_: Options, _: &str) -> Result<Store> {
    let what = "this watchkeep knows no clusters; build it with `--features etcd`, or name a file";
    Err(Failure::new(USAGE, what))
}

/// Opens the store that the command line names.
fn open(global: &Global, access: Access) -> Result<Store> {
    open_with(global, access, Options::new())
}

fn open_with(global: &Global, access: Access, options: Options) -> Result<Store> {
    let name = global.store.to_string_lossy();
    if name == ":memory:" || name.starts_with("file:") {
        let what = format!("{name:?} is SQLite's way to name a database; a store is a file: name its path");
        return Err(Failure::new(USAGE, what));
    }
    let mut options = options.create(access == Access::Write).network(global.network);
    if let Some(origin) = &global.origin {
        options = options.origin(origin);
    }
    let store = if name.starts_with("etcd://") || name.starts_with("etcds://") {
        connect(options, &name)?
    } else {
        options.open(&global.store).map_err(|error| match error.kind() {
            ErrorKind::NotFound if access != Access::Write => no_file(&global.store),
            _ => error.into(),
        })?
    };
    match &global.namespace {
        Some(namespace) => store.scoped(namespace).map_err(Failure::from),
        None => Ok(store),
    }
}
