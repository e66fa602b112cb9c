//! Several processes on one file: how long after a commit in one the event arrives in another, what waiting costs
//! when nothing happens, and how writers share the file.

mod measure;
mod role;
mod stores;

use std::fmt::Write as _;
use std::time::Duration;

use watchkeep::Durability;

use crate::Result;
use crate::arguments::Measure;
use crate::report::{Unit, show};
use crate::samples::median;

pub(crate) use role::{Reader, Role, play};
pub(crate) use stores::run as run_stores;

use measure::{fairness, idle, latency};

/// How far apart the commits are whose way is measured; none between them in the last.
const SPACINGS: [Duration; 3] = [Duration::from_millis(20), Duration::from_millis(1), Duration::ZERO];
const DURABILITIES: [Durability; 2] = [Durability::Full, Durability::Relaxed];

/// Measures it all, each figure so many times, in turns; tables in Markdown.
pub(crate) fn run(settings: &Measure, repeats: u32) -> Result<String> {
    let mut text = String::from(
        "| durability | commits apart | reader | commits | p50 | p99 | most | least ... most p99 | reader's CPU |\n\
         |---|---:|---|---:|---:|---:|---:|---:|---:|\n",
    );
    for durability in DURABILITIES {
        for spacing in SPACINGS {
            let mut runs = Reader::ALL.map(|_| Vec::new());
            for _ in 0..repeats {
                for (reader, runs) in Reader::ALL.into_iter().zip(&mut runs) {
                    runs.push(latency(settings, durability, spacing, reader)?);
                }
            }
            for (reader, runs) in Reader::ALL.into_iter().zip(&runs) {
                let of = |f: fn(&measure::Latency) -> f64| runs.iter().map(f).collect::<Vec<f64>>();
                let p99 = of(|run| run.p99);
                writeln!(
                    text,
                    "| {} | {} | {} | {:.0} | {} | {} | {} | {} ... {} | {:.2} % |",
                    name_of(durability),
                    if spacing.is_zero() { "0".to_owned() } else { format!("{spacing:?}") },
                    reader.name(),
                    median(&of(|run| run.commits)),
                    show(median(&of(|run| run.p50)), Unit::Time),
                    show(median(&p99), Unit::Time),
                    show(of(|run| run.most).into_iter().fold(0.0, f64::max), Unit::Time),
                    show(p99.iter().copied().fold(f64::INFINITY, f64::min), Unit::Time),
                    show(p99.iter().copied().fold(0.0, f64::max), Unit::Time),
                    100.0 * median(&of(|run| run.cpu)),
                )?;
            }
        }
    }
    text.push_str("\n| idle reader | CPU, of one core | least ... most |\n|---|---:|---:|\n");
    for reader in Reader::ALL {
        let runs = (0..repeats).map(|_| idle(settings, reader)).collect::<Result<Vec<f64>>>()?;
        writeln!(
            text,
            "| {} | {:.3} % | {:.3} % ... {:.3} % |",
            reader.name(),
            100.0 * median(&runs),
            100.0 * runs.iter().copied().fold(f64::INFINITY, f64::min),
            100.0 * runs.iter().copied().fold(0.0, f64::max),
        )?;
    }
    text.push_str(
        "\n| durability | writing processes | sets/s, all | least share, of a fair one | longest wait |\n\
         |---|---:|---:|---:|---:|\n",
    );
    for durability in DURABILITIES {
        for writers in [1, 2, 4] {
            let runs = (0..repeats)
                .map(|_| fairness(settings, durability, writers))
                .collect::<Result<Vec<measure::Fairness>>>()?;
            let of = |f: fn(&measure::Fairness) -> f64| runs.iter().map(f).collect::<Vec<f64>>();
            writeln!(
                text,
                "| {} | {writers} | {} | {:.2} | {} |",
                name_of(durability),
                show(median(&of(|run| run.rate)), Unit::Rate),
                of(|run| run.least_share).into_iter().fold(f64::INFINITY, f64::min),
                show(of(|run| run.longest_wait).into_iter().fold(0.0, f64::max), Unit::Time),
            )?;
        }
    }
    Ok(text)
}

fn name_of(durability: Durability) -> &'static str {
    if durability == Durability::Full { "full" } else { "relaxed" }
}
