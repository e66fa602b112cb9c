//! Processes are killed at random. Longer runs: `cargo run --release -p watchkeep-testkit --bin faults -- kill`.

use watchkeep_testkit::faults::Row;
use watchkeep_testkit::processes::kill::{KILLS, rounds};

use crate::crowd::{Result, program};

#[test]
fn three_hundred_kills_lose_nothing_and_delay_nobody() -> Result {
    let half = |seeds: std::ops::RangeInclusive<u64>| -> Result<Row> {
        let mut all = Row::default();
        for seed in seeds {
            all.add(rounds(program(), seed)?);
        }
        Ok(all)
    };
    let mut all = std::thread::scope(|scope| {
        let other = scope.spawn(|| half(11..=20));
        let mut all = half(1..=10)?;
        all.add(other.join().map_err(|_| "a thread panicked")??);
        Ok::<_, watchkeep_testkit::surface::Fault>(all)
    })?;
    all.wrong.truncate(3);
    assert_eq!(all.problem(), None);
    assert_eq!(all.rounds, 20 * KILLS);
    Ok(())
}
