//! The tables.

use watchkeep::Durability;

use crate::plan::{Cell, Workload, durability_name};
use crate::run::Results;
use crate::samples::median;

use super::columns::{Other, What};
use super::number::{Unit, plain, show};

/// A workload's section: title, note, a table for each durability.
pub(super) fn section(results: &Results, workload: Workload) -> String {
    let mut text = format!("## {}\n\n{}\n", workload.title(), workload.note());
    let durabilities = [Durability::Full, Durability::Relaxed];
    let cells = |durability| {
        let here = move |cell: &&Cell| cell.workload == workload && cell.durability == durability;
        results.cells.iter().filter(here)
    };
    let several = durabilities.iter().filter(|&&durability| cells(durability).count() > 0).count() > 1;
    for durability in durabilities {
        if cells(durability).count() == 0 {
            continue;
        }
        if several {
            text.push_str(&format!("\n### {}\n", durability_name(durability)));
        }
        text.push_str(&table(results, workload, cells(durability)));
    }
    text
}

fn table<'r>(results: &Results, workload: Workload, cells: impl Iterator<Item = &'r Cell> + Clone) -> String {
    let shown = |(_, what): &&(&str, What)| cells.clone().any(|cell| shows(results, cell, *what).is_some());
    let columns: Vec<_> = workload.columns().iter().filter(shown).collect();
    let titles: Vec<_> = columns.iter().map(|(title, _)| *title).collect();
    let mut text = format!("\n| {} | contender | {} |\n", workload.size_title(), titles.join(" | "));
    text.push_str(&format!("|---:|---|{}\n", "---:|".repeat(columns.len())));
    for cell in cells {
        let numbers: Vec<_> = columns
            .iter()
            .map(|(_, what)| shows(results, cell, *what).unwrap_or_else(|| "–".to_owned()))
            .collect();
        let size = plain(cell.size as f64);
        let size = if cell.size < 1_000 { cell.size.to_string() } else { size };
        text.push_str(&format!("| {size} | {} | {} |\n", cell.contender.name(), numbers.join(" | ")));
    }
    text
}

/// What stands in a field; none when the cell has no such number.
fn shows(results: &Results, cell: &Cell, what: What) -> Option<String> {
    match what {
        What::Median(metric, unit) => Some(show(median(&values(results, cell, metric)?), unit)),
        What::Spread(metric, unit) => {
            let values = values(results, cell, metric)?;
            let least = values.iter().copied().min_by(f64::total_cmp)?;
            let most = values.iter().copied().max_by(f64::total_cmp)?;
            Some(format!("{} ... {}", show(least, unit), show(most, unit)))
        }
        What::Times(metric, other) => {
            let other = other.cell(results, cell)?;
            let (mine, theirs) = (values(results, cell, metric)?, values(results, other, metric)?);
            let ratios: Vec<f64> = mine.iter().zip(&theirs).map(|(mine, theirs)| mine / theirs).collect();
            Some(plain(median(&ratios)))
        }
        What::Rows => Some(cell.contender.rows().to_string()),
        What::Others => {
            let outcomes = results.outcomes.get(&cell.name())?;
            let most = outcomes.iter().map(|outcome| outcome.others).max_by(f64::total_cmp)?;
            Some(show(most.max(0.0), Unit::Percent))
        }
    }
}

impl Other {
    fn cell<'r>(self, results: &'r Results, cell: &Cell) -> Option<&'r Cell> {
        results.cells.iter().find(|other| {
            let alike = other.workload == cell.workload && other.durability == cell.durability;
            match self {
                Other::Contender(name) => alike && other.size == cell.size && other.contender.name() == name,
                Other::One => alike && other.size == 1 && other.contender.name() == cell.contender.name(),
                Other::Floor => {
                    other.workload == Workload::Floor
                        && other.size == 1
                        && cell.durability == Durability::Full
                }
            }
        })
    }
}

/// A metric in all rounds of a cell.
fn values(results: &Results, cell: &Cell, metric: &str) -> Option<Vec<f64>> {
    let outcomes = results.outcomes.get(&cell.name())?;
    outcomes.iter().map(|outcome| outcome.metrics.get(metric).copied()).collect()
}
