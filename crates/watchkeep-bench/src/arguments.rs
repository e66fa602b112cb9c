//! What the program is asked to do.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::Result;
use crate::data::Values;
use crate::layouts;
use crate::plan::Workload;
use crate::processes::Role;

const EXAMPLES: &str = "\
Examples:
  scripts/bench                      everything, into docs/benchmarks.md
  scripts/bench all --quick          whether all of it works
  scripts/bench set get --repeats 3 --seconds 2
  scripts/bench fanout --json fanout.jsonl
  scripts/bench fanout --json fanout.jsonl --repeats 9 --resume
  scripts/bench get scan --entries 1000000 --values mixed --contenders watchkeep,rusqlite
  scripts/bench count-syncs
  scripts/bench processes --seconds 5 --repeats 3
  scripts/bench cluster --seconds 2 --repeats 5
  scripts/bench layouts --entries 100000 --seconds 1 --json layouts.jsonl
  cargo run --release -p watchkeep-bench -- set    without the peers, which take minutes to build

A single cell, for a profiler (the names are in the JSON lines; the folder must exist):
  perf record --call-graph dwarf watchkeep-bench cell set/relaxed/1/watchkeep FOLDER --seconds 5";

/// Measures watchkeep beside what else a user would take, and writes a report.
#[derive(Debug, Parser)]
#[command(name = "watchkeep-bench", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    /// What to measure; everything unless named.
    #[arg(value_name = "WORKLOAD")]
    pub(crate) workloads: Vec<Choice>,

    #[command(flatten)]
    pub(crate) measure: Measure,

    /// Whom to measure; everybody unless named. What is compared with stands in the tables only if it is named as well.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) contenders: Vec<String>,

    /// How often each cell is measured; the tables show medians.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) repeats: u32,

    /// How often those are measured whose preparation takes long: what writes, reads or deletes a large store.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) heavy_repeats: u32,

    /// Everything once, small and short, without waiting for a quiet machine: whether it works. The figures mean
    /// nothing.
    #[arg(long)]
    pub(crate) quick: bool,

    /// How many seconds to wait, before a cell, for a machine that others use; then it is measured anyway.
    #[arg(long, default_value_t = 20.0, value_parser = seconds)]
    pub(crate) patience: f64,

    /// A cell during which others took more than this, in percent of one core, is measured again, three times at
    /// the most.
    #[arg(long, default_value_t = 15.0)]
    pub(crate) quiet: f64,

    /// Where to write the report, in Markdown; it goes to standard output as well.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,

    /// Where to write every measurement, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Goes on with a run that was stopped: what the JSON file holds is kept, and only what is missing is measured.
    #[arg(long, requires = "json")]
    pub(crate) resume: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Measure {
    /// How long one measurement takes, apart from its preparation.
    #[arg(long, default_value_t = 0.5, value_parser = seconds, global = true)]
    pub(crate) seconds: f64,

    /// How many entries the large stores hold.
    #[arg(long, default_value_t = 1_000_000, global = true)]
    pub(crate) entries: usize,

    /// How large values are: a number of bytes, or `mixed`: 90 of 100 have 100 bytes, 9 have 1,000, and one has 20,000.
    #[arg(long, default_value = "100", global = true)]
    pub(crate) values: Values,

    /// In which folder the data lies, in a fresh folder that is removed afterwards; the build's own unless named.
    /// It must be on a disk.
    #[arg(long, global = true)]
    pub(crate) dir: Option<PathBuf>,
}

impl Measure {
    pub(crate) fn window(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// A fresh folder on a disk, removed when dropped.
    pub(crate) fn folder(&self) -> Result<tempfile::TempDir> {
        let parent = match &self.dir {
            Some(dir) => dir.clone(),
            None => {
                let program = std::env::current_exe()?;
                program.parent().and_then(|profile| profile.parent()).unwrap_or(&program).to_owned()
            }
        };
        let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(&parent).map_err(|error| {
            format!("no folder can be made in {parent:?}: {error}; name another with --dir")
        })?;
        crate::machine::refuse_memory(folder.path())?;
        Ok(folder)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Counts the syncs of one commit, by strace.
    CountSyncs,
    /// Measures several processes on one file: latency, cost of waiting, fairness; tables in Markdown.
    Processes {
        /// How often each figure is measured; the tables show medians.
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
        repeats: u32,
    },
    /// Measures one process with many open stores: threads, descriptors, memory, cost of waiting, latency; a table in
    /// Markdown.
    Stores {
        /// How many stores.
        #[arg(long, default_values_t = [1, 1_000])]
        count: Vec<usize>,
    },
    /// Measures how the entries may lie in the file, over raw SQLite; tables in Markdown.
    Layouts(layouts::Choices),
    /// Measures stores in an etcd cluster beside plain etcd; tables in Markdown.
    #[cfg(feature = "etcd")]
    Cluster {
        /// How often each figure is measured; the tables show medians.
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
        repeats: u32,
    },
    /// Plays a part in those: what the program runs itself with.
    #[command(hide = true)]
    Role {
        #[command(subcommand)]
        role: Role,
    },
    /// Measures one cell and prints it as JSON: what the program runs itself with.
    #[command(hide = true)]
    Cell {
        /// `workload/durability/size/contender`
        name: String,
        /// An empty folder.
        folder: PathBuf,
        /// Where stores that several cells read are kept between them; they are loaded anew without it.
        #[arg(long)]
        kept: Option<PathBuf>,
    },
}

/// A workload, or all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Choice(pub(crate) Option<Workload>);

impl clap::ValueEnum for Choice {
    fn value_variants<'a>() -> &'a [Choice] {
        static ALL: LazyLock<Vec<Choice>> = LazyLock::new(|| {
            let named = Workload::ALL.iter().map(|workload| Choice(Some(*workload)));
            std::iter::once(Choice(None)).chain(named).collect()
        });
        &ALL
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(match self.0 {
            None => clap::builder::PossibleValue::new("all").help("everything"),
            Some(workload) => clap::builder::PossibleValue::new(workload.name()).help(workload.about()),
        })
    }
}

impl Arguments {
    /// As they are written, and as `quick` has them.
    pub(crate) fn read() -> Arguments {
        let mut arguments = Arguments::parse();
        if arguments.quick {
            (arguments.repeats, arguments.heavy_repeats) = (1, 1);
            (arguments.measure.seconds, arguments.measure.entries) = (0.03, 10_000);
            (arguments.patience, arguments.quiet) = (0.0, f64::INFINITY);
        }
        arguments
    }

    pub(crate) fn repeats(&self, workload: Workload) -> u32 {
        if workload.is_heavy() { self.heavy_repeats.min(self.repeats) } else { self.repeats }
    }

    pub(crate) fn chosen(&self) -> Vec<Workload> {
        let all = self.workloads.is_empty() || self.workloads.contains(&Choice(None));
        let chosen = |workload: &Workload| all || self.workloads.contains(&Choice(Some(*workload)));
        Workload::ALL.iter().copied().filter(chosen).collect()
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.01..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number of seconds from 0.01 to 3600 is wanted".to_owned()),
    }
}
