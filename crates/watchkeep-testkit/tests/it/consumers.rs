//! Generated courses of a named consumer, held against what it promises.
//!
//! A failing seed is run again with `WATCHKEEP_SEED=<seed> cargo test -p watchkeep-testkit --test it consumers`.

use watchkeep_testkit::consumers::{Course, Load, Step, at_least_once, exactly_once, round};
use watchkeep_testkit::size::scaled;
use watchkeep_testkit::surface::Fault;

/// Runs courses and hands each to the checker; how many takings, events handed out and refusals there were.
fn courses(check: impl Fn(u64, &Course)) -> Result<[usize; 3], Fault> {
    let given = std::env::var("WATCHKEEP_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = given.map_or(0..scaled(3), |seed: u64| seed..seed + 1);
    let mut seen = [0; 3];
    for seed in seeds {
        let course = round(seed, Load { steps: 300, holders: 3 })?;
        check(seed, &course);
        let steps = || course.lives.iter().flat_map(|life| &life.steps);
        seen[0] += course.lives.len();
        seen[1] += steps().filter(|(_, step)| matches!(step, Step::Handed(_))).count();
        seen[2] += steps().filter(|(_, step)| matches!(step, Step::Fenced(_))).count();
    }
    Ok(seen)
}

#[test]
fn consumers_get_everything_at_least_once_and_their_effects_are_there_exactly_once() -> Result<(), Fault> {
    let seen = courses(|seed, course| {
        assert_eq!(at_least_once(course), [], "seed {seed}");
        assert_eq!(exactly_once(course), [], "seed {seed}");
    })?;
    let given = std::env::var_os("WATCHKEEP_SEED").is_some();
    assert!(given || (seen[0] > 40 && seen[1] > 400 && seen[2] > 2), "too little happened: {seen:?}");
    Ok(())
}
