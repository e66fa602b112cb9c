//! Generated operations on a store and on the model of it: every result, every row of the log, every entry.
//!
//! A failing seed is replayed with `WATCHKEEP_SEED=<seed> cargo test -p watchkeep-testkit --test it model`; a failing
//! sequence of proptest is shrunk, and drawn again by every run.

use proptest::prelude::{ProptestConfig, TestCaseError, proptest};
use proptest::test_runner::RngSeed;
use watchkeep::{Durability, Options, Retention};
use watchkeep_testkit::ops::{Step, steps};
use watchkeep_testkit::runner::Runner;
use watchkeep_testkit::size::scaled;
use watchkeep_testkit::surface::{Fault, File, Memory, Site};

fn options() -> Options {
    Options::new().durability(Durability::Relaxed)
}

fn run(site: Box<dyn Site>, retention: Retention, seed: u64, steps: u64) -> Result<(), Fault> {
    let mut runner = Runner::new(site, options(), retention)?;
    runner.run(seed, steps).map_err(|mismatch| format!("seed {seed}: {mismatch}").into())
}

/// The given seed, or these.
fn seeds(default: std::ops::Range<u64>) -> Vec<u64> {
    let given = std::env::var("WATCHKEEP_SEED").ok().and_then(|seed| seed.parse().ok());
    given.map_or_else(|| default.collect(), |seed| vec![seed])
}

#[test]
fn a_store_in_a_file_does_what_the_model_does() -> Result<(), Fault> {
    for seed in seeds(0..scaled(2)) {
        run(Box::new(File::new()?), Retention::FOREVER, seed, 700)?;
    }
    Ok(())
}

#[test]
fn a_store_in_memory_does_what_the_model_does() -> Result<(), Fault> {
    for seed in seeds(100..100 + scaled(1)) {
        run(Box::new(Memory), Retention::FOREVER, seed, 700)?;
    }
    Ok(())
}

#[test]
fn a_store_of_futures_does_what_the_model_does() -> Result<(), Fault> {
    for seed in seeds(300..300 + scaled(1)) {
        run(Box::new(File::new()?.asynchronous()), Retention::FOREVER, seed, 700)?;
    }
    Ok(())
}

#[test]
fn a_store_that_trims_its_log_does_what_the_model_does() -> Result<(), Fault> {
    for seed in seeds(200..200 + scaled(1)) {
        run(Box::new(File::new()?), Retention::events(300), seed, 900)?;
        run(Box::new(Memory), Retention::events(300), seed + 50, 900)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        max_shrink_iters: 4_000, failure_persistence: None,
        rng_seed: RngSeed::Fixed(1),
        ..ProptestConfig::default()
    })]

    #[test]
    fn short_sequences_do_what_the_model_does(steps in steps(120)) {
        follow(&steps).map_err(|fault| TestCaseError::fail(fault.to_string()))?;
    }
}

fn follow(steps: &[Step]) -> Result<(), Fault> {
    let mut runner = Runner::new(Box::new(File::new()?), options(), Retention::FOREVER)?;
    steps.iter().try_for_each(|step| runner.step(step))?;
    Ok(runner.finish()?)
}
