//! Moving a store, and sealing one.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  watchkeep migrate app.db etcd://10.0.0.1,10.0.0.2,10.0.0.3/app
  watchkeep migrate app.db etcd://10.0.0.1/app --resume --switch    go on, then switch
  watchkeep migrate app.db copy.db --switch

Others go on writing to SOURCE meanwhile. What does not fit the target is listed first,
and then nothing is written. Entries come with their content types and deadlines; what
is written meanwhile is followed until the target has caught up.

--switch seals SOURCE, so that no process writes to it any more, follows the rest, copies
quotas and consumers, and compares the two. The seal stays and says where the store is;
if something is amiss it is lifted, and SOURCE is as before. A consumer is copied when it
has acknowledged all that concerns it: otherwise its position cannot be told in the
target, and the switch is refused. Named consumers go on there, cursors and revisions do
not: whoever kept a cursor starts from a snapshot. Nobody writes to SOURCE while the two
are compared. Who reads or watches it is told nothing: end those programs.

What was interrupted goes on with --resume, which writes only what differs. Until the
switch the target belongs to this command: what is there and not in SOURCE is deleted.")]
pub(crate) struct Migrate {
    /// The store to move
    pub(crate) source: PathBuf,
    /// Where to: a file, or etcd://HOST,HOST,HOST/PREFIX; nothing may be there yet
    pub(crate) target: PathBuf,
    /// Go on with a migration of SOURCE to there that was interrupted
    #[arg(long)]
    pub(crate) resume: bool,
    /// Once the target has caught up, seal SOURCE and make the target take its place
    #[arg(long)]
    pub(crate) switch: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  watchkeep seal                         whether the store is sealed, and why
  watchkeep seal 'moved to other.db'
  watchkeep seal --lift

A sealed store is read and watched as ever. Every write is refused with exit code 4 and
this text, in every process that has the file open. `watchkeep migrate --switch` seals
what it has moved: lift that seal only to go back for good.")]
pub(crate) struct Seal {
    /// Why nobody may write, in a line
    #[arg(conflicts_with = "lift")]
    pub(crate) why: Option<String>,
    /// Let everybody write again
    #[arg(long)]
    pub(crate) lift: bool,
}
