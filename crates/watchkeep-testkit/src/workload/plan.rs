//! Who does what in a round.

use std::time::Duration;

use watchkeep::{Durability, LagPolicy, Retention};

use crate::ops::{Dice, Draw, NAMESPACES};
use crate::record::{Beginning, Want, WatchSpec};

/// How large a round is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Operations that each writer makes.
    pub ops: usize,
    /// Watchers.
    pub watchers: usize,
}

impl Load {
    /// Some seconds in a debug build.
    pub const SMALL: Load = Load { ops: 90, watchers: 16 };
    /// Long enough for retention to trim by itself.
    pub const LARGE: Load = Load { ops: 500, watchers: 40 };
}

/// When a stream is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// By a thread of its own, which waits for what comes.
    Waiting,
    /// At every so many steps of the writers: at most so many items.
    Every(u64, usize),
    /// Not before all writers are done.
    Stalled,
}

/// A watcher of the round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchPlan {
    /// What it asks for.
    pub spec: WatchSpec,
    /// When it is read.
    pub pace: Pace,
    /// It goes after so many items, and another comes that goes on where it was, or from now on, or with a snapshot.
    pub leaves: Option<usize>,
    /// It is made when the writers have come so far.
    pub from: u64,
    /// Which of the opened stores it hangs on.
    pub handle: usize,
}

/// A round.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What it was drawn from.
    pub seed: u64,
    /// For each writer, which of the opened stores it writes through.
    pub writers: Vec<usize>,
    /// Operations that each writer makes in each life.
    pub ops: usize,
    /// For each life of the store, from its opening to its closing, the watchers.
    pub lives: Vec<Vec<WatchPlan>>,
    /// Callbacks in each life: what they want.
    pub callbacks: Vec<Want>,
    /// How many handles are opened, as by so many processes.
    pub handles: usize,
    /// What the background trims.
    pub retention: Retention,
    /// How many events an explicit trimming leaves.
    pub keep: Option<u64>,
    /// Whether the clock is moved.
    pub clock_moves: bool,
    /// The file's durability.
    pub durability: Durability,
}

impl Plan {
    /// The plan of a seed.
    pub fn new(seed: u64, load: Load) -> Plan {
        let mut dice = Dice::new(seed);
        let mut draw = Draw::new(&mut dice);
        let handles = if draw.one_in(4) { 2 } else { 1 };
        let lives = if draw.one_in(3) { 2 } else { 1 };
        let writers = (0..2 + draw.below(3)).map(|_| draw.below(handles)).collect();
        let retention = match draw.below(3) {
            0 => Retention::FOREVER,
            1 => Retention::default(),
            _ => Retention::events(1_500),
        };
        let keep = [None, Some(10), Some(60), Some(300)].get(draw.below(4)).copied().flatten();
        let durability = if draw.one_in(3) { Durability::Full } else { Durability::Relaxed };
        let clock_moves = !draw.one_in(4);
        let callbacks = (0..draw.below(4)).map(|_| watched(&mut draw)).collect();
        let ops = load.ops / lives;
        let watchers = |draw: &mut Draw<'_>| {
            (0..load.watchers)
                .map(|_| watcher(draw, handles, u64::try_from(ops).unwrap_or(u64::MAX)))
                .collect()
        };
        let lives = (0..lives).map(|_| watchers(&mut draw)).collect();
        Plan { seed, writers, ops, lives, callbacks, handles, retention, keep, clock_moves, durability }
    }
}

impl Plan {
    /// The same over so many handles, each with writers and watchers.
    #[must_use]
    pub fn over(self, handles: usize) -> Plan {
        let handles = handles.max(1);
        let mut plan =
            Plan { handles, writers: (0..self.writers.len()).map(|place| place % handles).collect(), ..self };
        for watchers in &mut plan.lives {
            watchers.iter_mut().enumerate().for_each(|(place, watcher)| watcher.handle = place % handles);
        }
        plan
    }
}

/// A filter that meets what the writers do, since most of them are narrow.
fn watched(draw: &mut Draw<'_>) -> Want {
    let want = match draw.below(3) {
        0 => Want::new(crate::record::Target::Everything),
        1 => Want::log(),
        _ => draw.want(),
    };
    let namespace = draw.one_in(5).then(|| draw.pick(NAMESPACES).to_owned());
    let excluded_origin = draw.one_in(5).then(|| ECHO.to_owned());
    Want { namespace, excluded_origin, ..want }
}

/// The label that some writers share, for those who do not want to hear it.
pub(super) const ECHO: &str = "echo";

fn watcher(draw: &mut Draw<'_>, handles: usize, ops: u64) -> WatchPlan {
    let want = watched(draw);
    let beginning = match draw.below(5) {
        0 | 1 => Beginning::Now,
        2 => Beginning::After(watchkeep::Revision::ZERO),
        _ => Beginning::Snapshot,
    };
    let policy = match draw.below(6) {
        0..=3 => LagPolicy::CatchUp,
        4 => LagPolicy::Drop,
        _ => LagPolicy::Latest,
    };
    let progress = draw.one_in(3).then(|| Duration::from_millis(draw.pick(&[20, 1, 500])));
    let spec = WatchSpec {
        want,
        beginning,
        policy,
        buffer: draw.pick(&[16, 1, 2, 4, 64]),
        progress,
        previous_values: draw.one_in(4),
        keys_only: draw.one_in(6),
    };
    let pace = match draw.below(8) {
        0 | 1 => Pace::Waiting,
        2 | 3 => Pace::Every(1, 1_000),
        4 => Pace::Every(draw.pick(&[3, 10]), 1),
        5 | 6 => Pace::Every(draw.pick(&[30, 7]), draw.pick(&[20, 5])),
        _ => Pace::Stalled,
    };
    let leaves = (pace != Pace::Stalled && draw.one_in(3)).then(|| 1 + draw.below(60));
    let from = if draw.one_in(2) { 0 } else { u64::try_from(draw.below(100)).unwrap_or(0) * ops / 100 };
    WatchPlan { spec, pace, leaves, from, handle: draw.below(handles) }
}
