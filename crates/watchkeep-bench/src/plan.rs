//! What is measured: workloads, and the cells of each.

use watchkeep::Durability;

use crate::contender::{self, Contender};
use crate::data::NAMES;

/// How many events the log holds that is read back.
pub(crate) const LOGGED: usize = 200_000;

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Workload {
    Floor,
    Set,
    Get,
    Latency,
    FanOut,
    Selectivity,
    CatchUp,
    History,
}

impl Workload {
    pub(crate) const ALL: [Workload; 8] = [
        Workload::Floor,
        Workload::Set,
        Workload::Get,
        Workload::Latency,
        Workload::FanOut,
        Workload::Selectivity,
        Workload::CatchUp,
        Workload::History,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Workload::Floor => "floor",
            Workload::Set => "set",
            Workload::Get => "get",
            Workload::Latency => "latency",
            Workload::FanOut => "fanout",
            Workload::Selectivity => "selectivity",
            Workload::CatchUp => "catch-up",
            Workload::History => "history",
        }
    }

    pub(crate) const fn about(self) -> &'static str {
        match self {
            Workload::Floor => "what the disk does: 4 KiB written and synced",
            Workload::Set => "single sets by 1 and 16 threads, durable and relaxed",
            Workload::Get => "single reads from 100,000 entries by 1 and 2 threads",
            Workload::Latency => "from the begin of a set to its event in a parked watcher",
            Workload::FanOut => "one event to 1, 100 and 10,000 watchers",
            Workload::Selectivity => "1, 1,000 and 100,000 watchers of which one matches",
            Workload::CatchUp => "a watcher that reads 200,000 events from the log",
            Workload::History => "200,000 events of the log as an iterator",
        }
    }

    /// Threads, watchers or events, by workload.
    const fn sizes(self) -> &'static [usize] {
        match self {
            Workload::Floor | Workload::Set => &[1, 16],
            Workload::Get => &[1, 2],
            Workload::Latency => &[1],
            Workload::FanOut => &[1, 100, 10_000],
            Workload::Selectivity => &[1, 1_000, NAMES],
            Workload::CatchUp | Workload::History => &[LOGGED],
        }
    }

    const fn durabilities(self) -> &'static [Durability] {
        match self {
            Workload::Floor => &[Durability::Full],
            Workload::Set | Workload::Latency => &[Durability::Full, Durability::Relaxed],
            _ => &[Durability::Relaxed],
        }
    }
}

/// One measurement: what, how durable, how much, by whom.
#[derive(Clone, Copy)]
pub(crate) struct Cell {
    pub(crate) workload: Workload,
    pub(crate) durability: Durability,
    pub(crate) size: usize,
    pub(crate) contender: &'static dyn Contender,
}

impl Cell {
    pub(crate) fn name(&self) -> String {
        let (workload, contender) = (self.workload.name(), self.contender.name());
        format!("{workload}/{}/{}/{contender}", durability_name(self.durability), self.size)
    }

    /// The cell of this name, if there is one.
    pub(crate) fn named(name: &str) -> Option<Cell> {
        plan(&Workload::ALL).into_iter().find(|cell| cell.name() == name)
    }
}

pub(crate) const fn durability_name(durability: Durability) -> &'static str {
    match durability {
        Durability::Relaxed => "relaxed",
        _ => "full",
    }
}

/// All cells of some workloads; those that are compared stand side by side.
pub(crate) fn plan(workloads: &[Workload]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for &workload in workloads {
        for &durability in workload.durabilities() {
            for &size in workload.sizes() {
                for &contender in contender::ALL {
                    let cell = Cell { workload, durability, size, contender };
                    if contender.takes(&cell) {
                        cells.push(cell);
                    }
                }
            }
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_has_a_name_of_its_own() {
        let cells = plan(&Workload::ALL);
        for cell in &cells {
            assert_eq!(
                cells.iter().filter(|other| other.name() == cell.name()).count(),
                1,
                "{}",
                cell.name()
            );
            assert!(Cell::named(&cell.name()).is_some());
        }
        for workload in Workload::ALL {
            assert!(cells.iter().any(|cell| cell.workload == workload), "{workload:?} has no cell");
        }
        assert!(Cell::named("set/full/1/nobody").is_none());
    }
}
