//! The command line: what may be asked, and how each command explains itself.

mod access;
mod migrate;
mod quota;
mod retention;
mod serve;
mod transport;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::exit;
use crate::select::{Beginning, Policy, Position, Selection};
use crate::time::parse_duration;

pub(crate) use access::{Exposure, NewToken, Token, TokenAction};
pub(crate) use migrate::{Migrate, Seal};
pub(crate) use quota::SetQuota;
pub(crate) use retention::SetRetention;
pub(crate) use serve::Serve;
pub(crate) use transport::Transport;

/// Keep it. Watch it. A key-value store in one SQLite file that tells you what changed.
#[derive(Debug, Parser)]
#[command(name = "watchkeep", version, max_term_width = 90, after_help = examples())]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Reads the command line; also says whether it names the store, which a variable of the environment does not.
pub(crate) fn parse() -> Result<(Cli, bool), clap::Error> {
    let matches = Cli::command().try_get_matches()?;
    let named = matches.value_source("store") == Some(ValueSource::CommandLine);
    Ok((Cli::from_arg_matches(&matches)?, named))
}

fn examples() -> String {
    format!(
        "\
Examples:
  watchkeep demo                     see it live, with nothing to set up
  watchkeep set config theme dark    write; the file is made if it is not there
  watchkeep get config theme         read
  watchkeep watch                    see every change, here and from other processes
  watchkeep history                  see what happened before

`watchkeep help COMMAND` has more for each command.

{}",
        exit::HELP
    )
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// The store's file, or a store in a cluster: etcd://HOST,HOST,HOST/PREFIX
    #[arg(long, global = true, value_name = "FILE", env = "WATCHKEEP_STORE", hide_env_values = true)]
    #[arg(default_value = "watchkeep.db")]
    pub(crate) store: PathBuf,
    /// See and change only the groups of this namespace, whose names in the file begin with `NS:`
    #[arg(long, global = true, value_name = "NS", env = "WATCHKEEP_NAMESPACE", hide_env_values = true)]
    pub(crate) namespace: Option<String>,
    /// Print JSON, one object a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Label what this command writes, so that a watch can leave it out; at most 256 bytes
    #[arg(long, global = true, value_name = "LABEL")]
    pub(crate) origin: Option<String>,
    /// Open the store although it lies on a network file system, where file locks may not hold
    #[arg(long, global = true)]
    pub(crate) network: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write an entry, and print its revision
    Set(Set),
    /// Print an entry's value
    Get(Get),
    /// Delete an entry
    Delete(Delete),
    /// Delete a group with all its entries, and print how many they were
    DeleteGroup(DeleteGroup),
    /// Give an entry a new time to live, and leave its value
    Touch(Touch),
    /// Take an entry's time to live away
    Persist(Name),
    /// List the keys of a group
    List(List),
    /// List the groups
    Groups(Groups),
    /// Count the entries
    Count(Groups),
    /// Fill a template with the entries of a group
    Render(Render),
    /// Print each change as it happens, also those of other processes
    Watch(Watch),
    /// List, reset or remove named consumers
    Consumers(Consumers),
    /// Print past changes from the change log
    History(History),
    /// Print entries as JSON lines, all as they were at one moment
    Export(Export),
    /// Write entries from JSON lines, or from a store of the Go library go-store
    Import(Import),
    /// Print what the store holds
    Stats,
    /// Show or set what a namespace may hold
    Quota(SetQuota),
    /// Show or set how much of the past the change log keeps
    Retention(SetRetention),
    /// Forget old events of the change log
    Compact(Compact),
    /// Check the file: SQLite's own check, then that counters, log and entries agree
    Check(Check),
    /// Copy the store into a new file, while others write to it
    Backup(Backup),
    /// Make the store of a backup, after checking it
    Restore(Restore),
    /// Move a store to another place, such as a cluster, while others write to it
    Migrate(Migrate),
    /// Keep everybody from writing to the store, or let them write again
    Seal(Seal),
    /// Put the store on the network: entries over HTTP, changes as server-sent events
    Serve(Serve),
    /// Make, list and revoke the tokens of those who use the store over the network
    Token(Token),
    /// Write and watch for some seconds, and prove that no event was missed
    Demo(Demo),
    /// Print a completion script for a shell
    #[command(
        after_help = "Example:\n  watchkeep completions bash > ~/.local/share/bash-completion/completions/watchkeep"
    )]
    Completions {
        /// Which shell
        shell: Shell,
    },
}

/// An entry's name.
#[derive(Debug, Args)]
pub(crate) struct Name {
    /// The group
    pub(crate) group: String,
    /// The key
    pub(crate) key: String,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  watchkeep set config theme dark
  watchkeep set session token abc --ttl 1h30m
  watchkeep set lock nightly me --if-absent --ttl 10m    take it, or exit with 4
  watchkeep set config logo - < logo.png                 bytes as they are
  watchkeep set config offset -- -x                      a value like an option

A value that is left out is an error; an empty one is ''. Without --ttl or --keep-ttl the
entry does not expire, whatever it did before.")]
pub(crate) struct Set {
    #[command(flatten)]
    pub(crate) name: Name,
    /// The value; `-` reads standard input, as it is
    #[arg(allow_negative_numbers = true)]
    pub(crate) value: Option<OsString>,
    /// The entry expires after this time, like 90s, 1h30m or 7d
    #[arg(long, value_name = "TIME", value_parser = parse_duration, conflicts_with = "keep_ttl")]
    pub(crate) ttl: Option<Duration>,
    /// The entry keeps the deadline that it has
    #[arg(long)]
    pub(crate) keep_ttl: bool,
    /// Only if the key is not there
    #[arg(long, conflicts_with = "if_revision")]
    pub(crate) if_absent: bool,
    /// Only if the entry has this revision, or cursor
    #[arg(long, value_name = "N")]
    pub(crate) if_revision: Option<Position>,
    /// A content type to keep with the value, at most 1,024 bytes
    #[arg(long, value_name = "TYPE")]
    pub(crate) content_type: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  watchkeep get config theme
  watchkeep get config logo > logo.png    bytes as they are
  watchkeep get session token --meta      revision, creation, expiry, size
  watchkeep get config theme --json

A newline is added on a terminal only. A key that is not there ends with exit code 3.")]
pub(crate) struct Get {
    #[command(flatten)]
    pub(crate) name: Name,
    /// Show what is known about the entry instead of its value
    #[arg(long)]
    pub(crate) meta: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  watchkeep delete config theme
  watchkeep delete lock nightly --if-revision 7

A key that is not there ends with exit code 3, and announces nothing.")]
pub(crate) struct Delete {
    #[command(flatten)]
    pub(crate) name: Name,
    /// Only if the entry has this revision, or cursor
    #[arg(long, value_name = "N")]
    pub(crate) if_revision: Option<Position>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  watchkeep delete-group session
  watchkeep delete-group --prefix tmp.     every group whose name starts so
  watchkeep delete-group --all             every group

An empty prefix is refused, as a variable that is not set makes one. With --namespace,
--all means those of the namespace. Nothing to delete ends with exit code 3.")]
pub(crate) struct DeleteGroup {
    /// The group
    #[arg(required_unless_present_any = ["prefix", "all"], conflicts_with_all = ["prefix", "all"])]
    pub(crate) group: Option<String>,
    /// Delete every group whose name starts so
    #[arg(long, value_name = "P", conflicts_with = "all")]
    pub(crate) prefix: Option<String>,
    /// Delete every group
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  watchkeep touch session token 30m")]
pub(crate) struct Touch {
    #[command(flatten)]
    pub(crate) name: Name,
    /// The time to live from now on, like 90s, 1h30m or 7d
    #[arg(value_parser = parse_duration)]
    pub(crate) ttl: Duration,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  watchkeep list config
  watchkeep list config --prefix ui. --values    key, tab, value
  watchkeep list config --limit 100 --after ui.font
  watchkeep list config --json --values

In text, control characters, line ends and marks of direction are spelt out, so that an
entry is a line.")]
pub(crate) struct List {
    /// The group
    pub(crate) group: String,
    /// Only keys that start so
    #[arg(long, value_name = "P")]
    pub(crate) prefix: Option<String>,
    /// Only keys after this one, in byte order
    #[arg(long, value_name = "KEY")]
    pub(crate) after: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Show the values too
    #[arg(long)]
    pub(crate) values: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Groups {
    /// Only groups whose names start so
    #[arg(default_value = "", hide_default_value = true)]
    pub(crate) prefix: String,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  watchkeep render nginx.conf.j2 nginx > nginx.conf
  echo 'Dear {{ name }},' | watchkeep render - customer-7

Templates are those of Jinja2. Each key of the group is a variable; one that is
not there is an error, unless --lenient is given.")]
pub(crate) struct Render {
    /// The template's file; `-` reads standard input
    pub(crate) template: PathBuf,
    /// The group
    pub(crate) group: String,
    /// A variable that is not there is empty
    #[arg(long)]
    pub(crate) lenient: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  watchkeep watch                              everything
  watchkeep watch config                       a group
  watchkeep watch config theme                 a key, and the deletion of its group
  watchkeep watch '*' theme                    this key in any group
  watchkeep watch --group-prefix app. --kind delete --kind expire
  watchkeep watch --snapshot --json            what is there, then every change
  watchkeep watch --after k3v9x2mq-4fz8ab-7           go on after an earlier line's cursor
  watchkeep watch config --exec 'systemctl reload nginx'
  watchkeep watch orders --consumer billing --exec ./bill    each order, also after a crash

--exec runs the command through `sh -c` for each event, one after the other. The
event is on its standard input, as JSON, and in WATCHKEEP_REVISION, _CURSOR, _KIND,
_GROUP, _KEY, _VALUE, _TIMESTAMP and _ORIGIN. A variable is unset where there is
nothing to say, and where the text is not UTF-8, holds a NUL or is longer than
64 KiB. WATCHKEEP_STORE names the file and WATCHKEEP_NAMESPACE the namespace, so that
`watchkeep get \"$WATCHKEEP_GROUP\" \"$WATCHKEEP_KEY\"` finds the entry. A command that fails
ends the watch with exit code 1.

--consumer keeps the position in the store: what was acknowledged does not come again,
anything else does. An event is acknowledged when its line is written or its command has
succeeded. A command that fails ends the watch with the command's exit code. Where to
start (--after, --snapshot, --from-start) counts the first time only. Without a
selection the consumer keeps the one that it had.

SIGINT, SIGTERM, SIGHUP and a closed output end the watch with exit code 0; SIGHUP not
where it is ignored, as after nohup.")]
pub(crate) struct Watch {
    #[command(flatten)]
    pub(crate) selection: Selection,
    /// Keep the position in the store under this name, and acknowledge each event once it is dealt with
    #[arg(long, value_name = "NAME", conflicts_with = "policy")]
    pub(crate) consumer: Option<String>,
    /// When another has the consumer, wait for it, for this time or until it lets go; otherwise exit with 4
    #[arg(long, value_name = "TIME", value_parser = parse_duration, num_args = 0..=1, requires = "consumer")]
    pub(crate) wait: Option<Option<Duration>>,
    /// How long the consumer stays ours when we stand still
    #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "consumer")]
    pub(crate) lease: Option<Duration>,
    /// Start where the change log begins
    #[arg(long, requires = "consumer", conflicts_with_all = ["after", "snapshot"])]
    pub(crate) from_start: bool,
    /// Start after this cursor, or revision (which is not checked against the store)
    #[arg(long, value_name = "CURSOR", conflicts_with = "snapshot")]
    pub(crate) after: Option<Position>,
    /// Start with the entries that are there, and a `ready` mark
    #[arg(long)]
    pub(crate) snapshot: bool,
    /// End after so many events
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// End after this time, with exit code 0
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// What to do when the output is read too slowly: miss nothing and read on from the log, drop and count what
    /// does not fit the buffer, or keep the newest pending event of each key
    #[arg(long, value_enum, default_value_t = Policy::CatchUp)]
    pub(crate) policy: Policy,
    /// Print a `progress` mark when nothing happened for this long
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) progress: Option<Duration>,
    /// Show the value that was there before, as long as the log holds it
    #[arg(long)]
    pub(crate) previous: bool,
    /// Leave the values out
    #[arg(long)]
    pub(crate) keys_only: bool,
    /// Run this command for each event instead of printing it
    #[arg(long, value_name = "CMD")]
    pub(crate) exec: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  watchkeep history
  watchkeep history config theme
  watchkeep history --after k3v9x2mq-4fz8ab-7 --limit 100 --json")]
pub(crate) struct History {
    #[command(flatten)]
    pub(crate) selection: Selection,
    /// Start after this cursor, or revision
    #[arg(long, value_name = "CURSOR")]
    pub(crate) after: Option<Position>,
    /// End after so many events
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  watchkeep export > all.jsonl
  watchkeep export app. | watchkeep --store copy.db import -

A line is like {\"group\":\"config\",\"key\":\"theme\",\"value\":\"dark\"}. It has
\"value_base64\" instead where the value is not UTF-8, and \"deadline\" and
\"content_type\" where the entry has them.")]
pub(crate) struct Export {
    /// Only groups whose names start so
    #[arg(value_name = "GROUP-PREFIX", default_value = "", hide_default_value = true)]
    pub(crate) prefix: String,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  watchkeep import all.jsonl
  watchkeep export | watchkeep --store copy.db import -
  watchkeep import big.jsonl --batch 10000
  watchkeep import --from-go-store old.db

The lines are those of `watchkeep export`. Entries whose deadline has passed are left
out and counted; a deadline in the last hours of the year 9999 is none. All lines come
in or none; with --batch, those of the transactions before a bad line are in.

They are written in the order of their keys, a transaction or 64 MiB at a time; of
several lines for one key the last stays.")]
pub(crate) struct Import {
    /// The file of JSON lines; `-` reads standard input
    #[arg(required_unless_present = "from_go_store", conflicts_with = "from_go_store")]
    pub(crate) file: Option<PathBuf>,
    /// Commit after every N entries instead of once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) batch: Option<u64>,
    /// Read a database of go-store, of either of its schemas, without changing it
    #[arg(long, value_name = "OLD.db")]
    pub(crate) from_go_store: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  watchkeep compact --before 1000
  watchkeep compact --before k3v9x2mq-4fz8ab-1000

Entries stay. A watch that still needed a forgotten event is told what it has lost.
Without this the log is trimmed by the store's retention: `watchkeep retention` shows and sets it.")]
pub(crate) struct Compact {
    /// Forget the events before this revision, or cursor; the newest transaction stays
    #[arg(long, value_name = "N")]
    pub(crate) before: Position,
    /// Also those that a named consumer still needs
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  watchkeep consumers
  watchkeep consumers --json
  watchkeep consumers reset billing --to start     all that the change log holds, again
  watchkeep consumers reset billing --to k3v9x2mq-4fz8ab-7
  watchkeep consumers remove billing --force

`watchkeep watch --consumer NAME` makes one. LAG counts the events after the last
acknowledgement, whether they concern the consumer or not; OLDEST is the age of the
oldest of them.")]
pub(crate) struct Consumers {
    #[command(subcommand)]
    pub(crate) action: Option<ConsumerAction>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConsumerAction {
    /// Let a consumer go on from another place
    Reset {
        /// Its name
        name: String,
        /// After this cursor or revision; or `now`, `start` (of the change log) or `snapshot` (the entries first)
        #[arg(long, value_name = "PLACE")]
        to: Beginning,
        /// Also while somebody holds it, who loses it
        #[arg(long)]
        force: bool,
    },
    /// Forget a consumer and its position
    Remove {
        /// Its name
        name: String,
        /// Also while somebody holds it, who loses it
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  watchkeep check
  watchkeep check --repair    rebuild the counters of groups and namespaces first

Nothing but counters is ever repaired, because only they can be told from the rest.
Exit code 5 says that something is wrong.")]
pub(crate) struct Check {
    /// Rebuild wrong counters from the entries, and say which
    #[arg(long)]
    pub(crate) repair: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  watchkeep backup saved.db
  watchkeep --store app.db backup /mnt/backups/app-monday.db

The copy is the store as it was at one moment, in one file. It has a new identity, so
it refuses cursors of this store. A file that is there is never overwritten.")]
pub(crate) struct Backup {
    /// The new file
    pub(crate) target: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  watchkeep restore saved.db
  watchkeep --store app.db restore saved.db --force    the old one becomes app.db-replaced

The backup is checked first, and only read. The store gets a new identity, so cursors of
the old one are refused.")]
pub(crate) struct Restore {
    /// The backup, or any file of a store
    pub(crate) backup: PathBuf,
    /// Put the store that is there aside, if no process has it open
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  watchkeep demo
  watchkeep demo --processes    a reader is killed, and misses nothing
  watchkeep demo --serve        the same in a browser; Ctrl-C ends it early

It writes to watchkeep-demo.db in the current folder, or to --store FILE, and leaves
the file to be looked into. With --processes and without --store the file is a
temporary one.")]
pub(crate) struct Demo {
    /// Kill a process that reads, write ten thousand keys in another, and let it go on from its cursor
    #[arg(long, conflicts_with_all = ["seconds", "serve"])]
    pub(crate) processes: bool,
    /// Serve it too: open the URL that it prints, and see every change in the browser
    #[arg(long)]
    pub(crate) serve: bool,
    /// What this process does in the demo of another
    #[arg(long, hide = true, value_name = "PART")]
    pub(crate) part: Option<Part>,
    /// How long [default: 6, and 60 with --serve]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(3..=600))]
    pub(crate) seconds: Option<u64>,
}

/// What a process does in the demo with several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// It writes.
    Writer,
    /// It watches, from its cursor on.
    Reader,
}
