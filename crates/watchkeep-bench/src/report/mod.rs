//! The report: what was measured, on what, and how to do it again.

mod columns;
mod number;
mod plot;
mod table;

use std::collections::BTreeSet;

use crate::Result;
use crate::arguments::Arguments;
use crate::data::Values;
use crate::plan::Workload;
use crate::run::Results;
use crate::samples::median;

pub(crate) use number::{Unit, show};

use number::plain;

/// The whole report in Markdown.
///
/// Where it is written to a file, the plots lie in a folder of the same name beside it.
pub(crate) fn markdown(results: &Results, arguments: &Arguments) -> Result<String> {
    let mut text = String::from("# Benchmarks\n\n");
    text.push_str(
        "One run of `watchkeep-bench`, which wrote this page. Absolute numbers belong to this machine and this hour; the \
         ratios are what to look at. They compare cells of the same round, and are medians over the rounds.\n\n",
    );
    text.push_str(&how(results, arguments));
    for &workload in Workload::ALL {
        if results.cells.iter().any(|cell| cell.workload == workload) {
            text.push('\n');
            text.push_str(&table::section(results, workload));
            if let Some(report) = &arguments.report {
                text.push_str(&plot::plots(results, workload, &report.with_extension(""))?);
            }
        }
    }
    if let Some(syncs) = &results.syncs {
        text.push_str(
            "\n## Syncs of a durable set\n\nCounted by `strace`, which slows everything down; of anything else means \
             checkpoints; for the peers, which name their files otherwise, it means all.\n\n",
        );
        text.push_str(syncs);
    }
    text.push_str(&contenders(results));
    Ok(text)
}

fn how(results: &Results, arguments: &Arguments) -> String {
    let mut text = String::from("## Machine and method\n\n| | |\n|---|---|\n");
    for (what, is) in &results.machine.lines {
        text.push_str(&format!("| {what} | {is} |\n"));
    }
    let began = results.began.strftime("%Y-%m-%d %H:%M UTC");
    let minutes = plain(results.took.as_secs_f64() / 60.0);
    let resumed = if arguments.resume { "; resumed" } else { "" };
    text.push_str(&format!("| measured | {began}, {minutes} minutes{resumed} |\n"));
    text.push_str(&format!("| noise | {} |\n\n", noise(results, arguments)));
    let names: Vec<_> = arguments.chosen().iter().map(|workload| workload.name()).collect();
    let names = if names.len() == Workload::ALL.len() { "all".to_owned() } else { names.join(" ") };
    let (repeats, seconds) = (arguments.repeats, arguments.measure.seconds);
    let (heavy, entries) = (arguments.heavy_repeats, arguments.measure.entries);
    let mut others = String::new();
    if !arguments.contenders.is_empty() {
        others = format!(" --contenders {}", arguments.contenders.join(","));
    }
    let values = arguments.measure.values;
    let of_them = if values == Values::Mixed {
        " sizes: of 100, 90 have 100 bytes, 9 have 1,000, and one has 20,000"
    } else {
        " bytes"
    };
    text.push_str(&format!(
        "Again:\n\n```text\nscripts/bench {names} --repeats {repeats} --heavy-repeats {heavy} --seconds {seconds} --entries {entries} --values {values}{others} \
         --report docs/benchmarks.md\nscripts/bench count-syncs\n```\n\n"
    ));
    text.push_str(&format!(
        "- Names have 20 bytes; values have {values}{of_them}.\n\
         - Each *cell* (workload, durability, size, contender) is a process of its own on fresh files, {seconds} s \
         long after preparation and warm-up, {repeats} times; {heavy} times where a store of {entries} entries is \
         prepared. The rounds go over all cells, every other one backwards, \
         so that drift hits all alike. Shown are medians over the rounds, and the least and the most.\n\
         - The data is on a disk, never in memory; a run on tmpfs is refused.\n\
         - *full*: on the disk when `set` returns (`synchronous=FULL`). *relaxed*: survives the process, not a power \
         cut (`synchronous=NORMAL`).\n\
         - Every cell checks its counts: events that arrived, rows in the log, values read back. A wrong count ends the \
         run.\n\
         - *others*: what else took of the machine meanwhile, in percent of one core, the most over the rounds; the \
         kernel's own threads count. A cell waits for a quiet machine, and is measured again when others took more \
         than {} %.\n",
        plain(arguments.quiet)
    ));
    text
}

fn noise(results: &Results, arguments: &Arguments) -> String {
    let others: Vec<f64> =
        results.outcomes.values().flatten().map(|outcome| outcome.others.max(0.0)).collect();
    let most = others.iter().copied().max_by(f64::total_cmp).unwrap_or(0.0);
    let noisy = others.iter().filter(|others| **others > arguments.quiet).count();
    format!(
        "others took {:.0} % of a core at the median, {most:.0} % at the most; {noisy} of {} measurements above {} %; \
         {} were thrown away and repeated",
        median(&others),
        others.len(),
        plain(arguments.quiet),
        results.thrown_away
    )
}

fn contenders(results: &Results) -> String {
    let mut text = String::from("\n## Contenders\n\n| name | what it is |\n|---|---|\n");
    let mut seen = BTreeSet::new();
    for cell in &results.cells {
        if seen.insert(cell.contender.name()) {
            text.push_str(&format!("| {} | {} |\n", cell.contender.name(), cell.contender.about()));
        }
    }
    text
}
