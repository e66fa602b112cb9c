//! What is measured: workloads, and the cells of each.

use watchkeep::Durability;

use crate::contender::{self, Contender};

/// How many events the log holds that is read back.
pub(crate) const LOGGED: usize = 200_000;
const DURABILITIES: [Durability; 2] = [Durability::Full, Durability::Relaxed];

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "`about` says what each is")]
pub enum Workload {
    Floor,
    Set,
    Pipelined,
    Get,
    GetZipf,
    GetBusy,
    GetCold,
    Scan,
    Batch,
    ImportSorted,
    ImportRandom,
    Latency,
    FanOut,
    Selectivity,
    CatchUp,
    History,
    Lagging,
    DeleteGroup,
    Expiry,
    Open,
    Growth,
}

impl Workload {
    pub(crate) const ALL: &[Workload] = &[
        Workload::Floor,
        Workload::Set,
        Workload::Pipelined,
        Workload::Get,
        Workload::GetZipf,
        Workload::GetBusy,
        Workload::GetCold,
        Workload::Scan,
        Workload::Batch,
        Workload::ImportSorted,
        Workload::ImportRandom,
        Workload::Latency,
        Workload::FanOut,
        Workload::Selectivity,
        Workload::CatchUp,
        Workload::History,
        Workload::Lagging,
        Workload::DeleteGroup,
        Workload::Expiry,
        Workload::Open,
        Workload::Growth,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Workload::Floor => "floor",
            Workload::Set => "set",
            Workload::Pipelined => "pipelined",
            Workload::Get => "get",
            Workload::GetZipf => "get-zipf",
            Workload::GetBusy => "get-busy",
            Workload::GetCold => "get-cold",
            Workload::Batch => "batch",
            Workload::Scan => "scan",
            Workload::ImportSorted => "import-sorted",
            Workload::ImportRandom => "import-random",
            Workload::Latency => "latency",
            Workload::FanOut => "fanout",
            Workload::Selectivity => "selectivity",
            Workload::CatchUp => "catch-up",
            Workload::History => "history",
            Workload::Lagging => "lagging",
            Workload::DeleteGroup => "delete-group",
            Workload::Expiry => "expiry",
            Workload::Open => "open",
            Workload::Growth => "growth",
        }
    }

    pub(crate) const fn about(self) -> &'static str {
        match self {
            Workload::Floor => "what the disk does: 4 KiB written and synced",
            Workload::Set => "single sets by 1, 16 and 64 threads, durable and relaxed",
            Workload::Pipelined => "sets of one thread with 16, 64 and 1,000 on their way at once",
            Workload::Get => "single reads from all entries by 1 and 2 threads, each key as often",
            Workload::GetZipf => {
                "single reads from all entries by 1 and 2 threads, few keys most of the time"
            }
            Workload::GetBusy => "the same by 1 and 2 threads beside one that sets 1,000 keys a second",
            Workload::GetCold => "the first single reads of a store of which nothing is in memory",
            Workload::Batch => "transactions of 1,000 sets, in no order, over all entries",
            Workload::Scan => "a group of 10,000 entries, read in order",
            Workload::ImportSorted => "many entries written at once, in the order of their keys",
            Workload::ImportRandom => "many entries written at once, in no order",
            Workload::Latency => "from the begin of a set to its event in a parked watcher",
            Workload::FanOut => "one event to 1, 100, 10,000 and 100,000 watchers",
            Workload::Selectivity => "1 to 1,000,000 watchers of which one matches",
            Workload::CatchUp => "a watcher that reads 200,000 events from the log",
            Workload::History => "200,000 events of the log as an iterator",
            Workload::Lagging => "1 and 1,000 watchers that read 5,000 events from the log together",
            Workload::DeleteGroup => "a large group is deleted beside a writer",
            Workload::Expiry => "many entries expire beside a writer",
            Workload::Open => "a large store is opened, and read for the first time",
            Workload::Growth => "set, get and watch in stores of 10,000, 100,000 and 1,000,000 entries",
        }
    }

    /// Threads, watchers, entries or events, by workload.
    fn sizes(self, entries: usize) -> Vec<usize> {
        let most = |sizes: &[usize]| sizes.iter().copied().filter(|size| *size <= entries).collect();
        match self {
            Workload::Floor | Workload::Set => vec![1, 16, 64],
            Workload::Get | Workload::GetZipf | Workload::GetBusy => vec![1, 2],
            Workload::Latency | Workload::GetCold => vec![1],
            Workload::Batch => vec![1_000],
            Workload::FanOut => most(&[1, 100, 10_000, 100_000]),
            Workload::Selectivity => most(&[1, 1_000, 100_000, 1_000_000]),
            Workload::CatchUp | Workload::History => vec![LOGGED.min(entries)],
            Workload::Pipelined => vec![16, 64, 1_000],
            Workload::Scan => vec![10_000.min(entries / 10)],
            Workload::Lagging => vec![1, 1_000],
            Workload::Growth => most(&[10_000, 100_000, 1_000_000]),
            Workload::ImportSorted
            | Workload::ImportRandom
            | Workload::DeleteGroup
            | Workload::Expiry
            | Workload::Open => vec![entries],
        }
    }

    /// Whether its preparation takes long: it is repeated less often.
    pub(crate) const fn is_heavy(self) -> bool {
        matches!(
            self,
            Workload::Get
                | Workload::GetZipf
                | Workload::GetBusy
                | Workload::GetCold
                | Workload::Batch
                | Workload::ImportSorted
                | Workload::ImportRandom
                | Workload::DeleteGroup
                | Workload::Expiry
                | Workload::Open
                | Workload::Growth
        )
    }

    const fn durabilities(self) -> &'static [Durability] {
        match self {
            Workload::Floor => &[Durability::Full],
            Workload::Set | Workload::Pipelined | Workload::Latency => &DURABILITIES,
            _ => &[Durability::Relaxed],
        }
    }
}

/// One measurement: what, how durable, how much, by whom.
#[derive(Debug, Clone, Copy)]
pub struct Cell {
    /// What is done.
    pub workload: Workload,
    /// What a set that returned survives.
    pub durability: Durability,
    /// Threads, watchers, entries or events, by workload.
    pub size: usize,
    /// Who does it.
    pub contender: &'static dyn Contender,
}

impl Cell {
    pub(crate) fn name(&self) -> String {
        let (workload, contender) = (self.workload.name(), self.contender.name());
        format!("{workload}/{}/{}/{contender}", durability_name(self.durability), self.size)
    }
}

pub(crate) const fn durability_name(durability: Durability) -> &'static str {
    match durability {
        Durability::Relaxed => "relaxed",
        _ => "full",
    }
}

/// Who is measured, and how large the large stores are.
#[derive(Debug)]
pub(crate) struct Plan {
    contenders: Vec<&'static dyn Contender>,
    pub(crate) entries: usize,
}

impl Plan {
    pub(crate) fn new(more: &[&'static dyn Contender], entries: usize) -> Plan {
        Plan { contenders: contender::OURS.iter().chain(more).copied().collect(), entries }
    }

    /// All cells of some workloads; those that are compared stand side by side.
    pub(crate) fn cells(&self, workloads: &[Workload]) -> Vec<Cell> {
        let mut cells = Vec::new();
        for &workload in workloads {
            for &durability in workload.durabilities() {
                for size in workload.sizes(self.entries) {
                    let all = self.contenders.iter();
                    let all = all.map(|&contender| Cell { workload, durability, size, contender });
                    cells.extend(all.filter(|cell| cell.contender.takes(cell)));
                }
            }
        }
        cells
    }

    /// Whether there is a contender of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.contenders.iter().any(|known| known.name() == name)
    }

    /// The cell of this name, of any size, if there is one.
    pub(crate) fn named(&self, name: &str) -> Option<Cell> {
        let mut words = name.splitn(4, '/');
        let (workload, durability, size, contender) =
            (words.next()?, words.next()?, words.next()?.parse().ok()?, words.next()?);
        let workload = *Workload::ALL.iter().find(|known| known.name() == workload)?;
        let durability = DURABILITIES.into_iter().find(|known| durability_name(*known) == durability)?;
        let contender = *self.contenders.iter().find(|known| known.name() == contender)?;
        let cell = Cell { workload, durability, size, contender };
        cell.contender.takes(&cell).then_some(cell)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_has_a_name_of_its_own() {
        let plan = Plan::new(&[], 1_000_000);
        let cells = plan.cells(Workload::ALL);
        for cell in &cells {
            let name = cell.name();
            assert_eq!(cells.iter().filter(|other| other.name() == name).count(), 1, "{name}");
            assert_eq!(plan.named(&name).map(|cell| cell.name()), Some(name));
        }
        for workload in Workload::ALL {
            assert!(cells.iter().any(|cell| cell.workload == *workload), "{workload:?} has no cell");
        }
        assert!(plan.named("set/full/1/nobody").is_none());
        assert!(plan.named("set/full/7/watchkeep").is_some(), "of any size");
    }
}
