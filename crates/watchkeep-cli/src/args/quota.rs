//! What a namespace may hold.

use clap::Args;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  watchkeep --namespace tenant-42 quota
  watchkeep --namespace tenant-42 quota --max-keys 1000 --max-bytes 1000000
  watchkeep --namespace tenant-42 quota --none

The quota is kept in the file and binds whoever writes into the namespace. Setting it
replaces the one before: a limit that is not given is none. What is there already stays,
and only what would take more is refused, with exit code 4. The size of an entry is that
of its key and its value. A backup has the quota too; an export has entries only.")]
pub(crate) struct SetQuota {
    /// How many keys, in all groups together
    #[arg(long, value_name = "N", value_parser = limit())]
    pub(crate) max_keys: Option<u64>,
    /// How many groups
    #[arg(long, value_name = "N", value_parser = limit())]
    pub(crate) max_groups: Option<u64>,
    /// How many bytes of keys and values
    #[arg(long, value_name = "N", value_parser = limit())]
    pub(crate) max_bytes: Option<u64>,
    /// Take the quota away
    #[arg(long, conflicts_with_all = ["max_keys", "max_groups", "max_bytes"])]
    pub(crate) none: bool,
}

/// Zero is refused: it would be no limit at all.
fn limit() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=i64::MAX.unsigned_abs())
}
