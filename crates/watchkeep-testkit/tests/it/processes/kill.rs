//! Processes are killed at random. Longer runs: `cargo run --release -p watchkeep-testkit --bin faults -- kill`.

use watchkeep_testkit::faults::Row;
use watchkeep_testkit::processes::kill::{KILLS, rounds};
use watchkeep_testkit::size::scaled;

use super::crowd::{Result, program};

#[test]
fn kills_lose_nothing_and_delay_nobody() -> Result {
    let half = |seeds: std::ops::RangeInclusive<u64>| -> Result<Row> {
        let mut all = Row::default();
        for seed in seeds {
            all.add(rounds(program(), seed)?);
        }
        Ok(all)
    };
    let mut all = std::thread::scope(|scope| {
        let other = scope.spawn(|| half(scaled(1) + 1..=scaled(2)));
        let mut all = half(1..=scaled(1))?;
        all.add(other.join().map_err(|_| "a thread panicked")??);
        Ok::<_, watchkeep_testkit::surface::Fault>(all)
    })?;
    all.wrong.truncate(3);
    assert_eq!(all.problem(), None);
    assert_eq!(all.rounds, scaled(2) * KILLS);
    all.print("kills");
    Ok(())
}
