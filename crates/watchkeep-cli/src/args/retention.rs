//! How much of the past a store keeps.

use std::time::Duration;

use clap::Args;

use crate::time::parse_duration;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  watchkeep retention                                 show it
  watchkeep retention --max-age 30d --max-events none
  watchkeep retention --consumer-age 90d
  watchkeep --store etcd://a,b,c/app retention --compaction own --max-age 1d

The retention is kept in the store and binds everybody who has it open. What is not given
stays as it is. Events go, oldest first, when one of the first three limits is passed; the
newest --min-events stay. A consumer holds back what it has not acknowledged, within the last
two limits. In a cluster it holds only where the store compacts the cluster, which takes the
history of everybody who uses that cluster; until a limit is set, nothing goes.")]
pub(crate) struct SetRetention {
    /// Keep at most so many events, or `none` for no limit
    #[arg(long, value_name = "N", value_parser = number)]
    pub(crate) max_events: Option<u64>,
    /// Keep events for so long, like 12h or 30d, or `none` for no limit
    #[arg(long, value_name = "TIME", value_parser = age)]
    pub(crate) max_age: Option<Duration>,
    /// Keep at most so many bytes of names and values, or `none` for no limit
    #[arg(long, value_name = "N", value_parser = number)]
    pub(crate) max_bytes: Option<u64>,
    /// Keep at least so many events, whatever their age
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=i64::MAX.unsigned_abs()))]
    pub(crate) min_events: Option<u64>,
    /// Keep what a consumer has not acknowledged for so long, or `none` for no limit
    #[arg(long, value_name = "TIME", value_parser = age)]
    pub(crate) consumer_age: Option<Duration>,
    /// Keep what a consumer has not acknowledged within so many bytes, or `none` for no limit
    #[arg(long, value_name = "N", value_parser = number)]
    pub(crate) consumer_bytes: Option<u64>,
    /// Who compacts the cluster that the store is in
    #[cfg(feature = "etcd")]
    #[arg(long, value_name = "WHO")]
    pub(crate) compaction: Option<WhoCompacts>,
}

#[cfg(feature = "etcd")]
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum WhoCompacts {
    /// This store, by its retention: nobody else uses the cluster, or needs its history
    Own,
    /// Somebody else, or nobody
    Never,
}

#[cfg(feature = "etcd")]
impl From<WhoCompacts> for watchkeep::Compaction {
    fn from(who: WhoCompacts) -> Self {
        match who {
            WhoCompacts::Own => Self::Own,
            WhoCompacts::Never => Self::Never,
        }
    }
}

fn number(text: &str) -> Result<u64, String> {
    match text {
        "none" => Ok(u64::MAX),
        _ => text.parse().map_err(|_| format!("'{text}' is not a number; write it like 1000000, or `none`")),
    }
}

fn age(text: &str) -> Result<Duration, String> {
    if text == "none" { Ok(Duration::MAX) } else { parse_duration(text) }
}
