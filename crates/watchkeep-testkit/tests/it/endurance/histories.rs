//! The histories of concurrent callers before two checkers: ours, which goes by the revisions, and one of the algorithm
//! of Wing, Gong and Lowe, which tries all orders. They must agree, on what was told and on what is made up.

use std::time::{Duration, Instant};

use todc_utils::{Action, History, Specification, WGLChecker};
use watchkeep::Revision;
use watchkeep_testkit::callers::{Size, history};
use watchkeep_testkit::faults::Row;
use watchkeep_testkit::size::scaled;
use watchkeep_testkit::surface::Fault;
use watchkeep_testkit::witness::{Call, Told, faults};

use super::callers::stores;

/// A caller waits for another process most of the time: so several histories are made at once, each on its own file.
const LANES: u64 = 4;
/// Few keys, so that the callers meet; enough of them that no key has more calls than are quickly searched.
const SIZE: Size = Size { callers: 5, calls: 300, keys: 20 };

/// What one key is: since the last revision that it was given, either there or not.
struct Key;

impl Specification for Key {
    type State = (Revision, bool);
    type Operation = Told;

    fn init() -> Self::State {
        (Revision::ZERO, false)
    }

    fn apply(told: &Told, state: &Self::State) -> (bool, Self::State) {
        let (last, there) = *state;
        let stands = there.then_some(last);
        match *told {
            Told::Set(revision) => (revision > last, (revision, true)),
            Told::SetOver(revision, before) => (revision > last && stands == before, (revision, true)),
            Told::Deleted(revision) => (revision > last && there, (revision, false)),
            Told::Stood(told) => (stands == told, *state),
        }
    }
}

/// Whether both checkers find the calls of one key linearizable.
fn linearizable(calls: &[Call]) -> bool {
    let mut actions = Vec::with_capacity(2 * calls.len());
    for (number, call) in calls.iter().enumerate() {
        // What happens at the same instant may overlap: calls come before returns.
        actions.push((call.called, 0, (number, Action::Call(call.told))));
        actions.push((call.returned, 1, (number, Action::Response(call.told))));
    }
    actions.sort_by_key(|(at, returned, _)| (*at, *returned));
    let actions = actions.into_iter().map(|(_, _, action)| action).collect();
    let searched = WGLChecker::<Key>::is_linearizable(History::from_actions(actions));
    let witnessed = faults(calls);
    assert_eq!(searched, witnessed.is_empty(), "the checkers disagree: {witnessed:#?} in {calls:#?}");
    searched
}

/// The same calls, but two of them were told what the other was.
fn mixed_up(calls: &[Call], seed: u64) -> Vec<Call> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut told: Vec<_> = calls.iter().map(|call| call.told).collect();
    let one = random.usize(..told.len());
    let others: Vec<_> = (0..told.len()).filter(|other| told.get(*other) != told.get(one)).collect();
    if let Some(other) = random.choice(others) {
        told.swap(one, other);
    }
    calls.iter().zip(told).map(|(call, told)| Call { told, ..*call }).collect()
}

/// Some of the histories, on a file of their own; and how many keys of them were refused when they were mixed up.
fn agree(seeds: impl Iterator<Item = u64>) -> Result<u64, Fault> {
    let folder = tempfile::tempdir()?;
    let stores = stores(folder.path())?;
    let mut refused = 0;
    for seed in seeds {
        let calls = history(&stores, &seed.to_string(), SIZE, seed * 1_000)?;
        for key in 0..SIZE.keys {
            let calls: Vec<_> = calls.iter().filter(|call| call.key == key).copied().collect();
            assert!(linearizable(&calls), "history {seed}: {calls:#?}");
            refused += u64::from(!linearizable(&mixed_up(&calls, seed)));
        }
    }
    Ok(refused)
}

#[test]
fn two_checkers_find_the_same_histories_linearizable() -> Result<(), Fault> {
    let histories = scaled(50);
    let refused = std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES)
            .map(|lane| scope.spawn(move || agree((0..histories).filter(move |seed| seed % LANES == lane))))
            .collect();
        lanes
            .into_iter()
            .map(|lane| lane.join().map_err(|_| "a checker panicked")?)
            .sum::<Result<u64, Fault>>()
    })?;
    assert!(refused > histories * u64::from(SIZE.keys) / 2, "only {refused} keys that were mixed up");
    let counts =
        [("keys-mixed-up".to_owned(), histories * u64::from(SIZE.keys)), ("refused".to_owned(), refused)];
    Row { rounds: histories, counts: counts.into(), ..Row::default() }.print("histories");
    Ok(())
}

#[test]
fn a_stale_read_and_a_lost_update_are_found() {
    let at = Revision::new;
    let base = Instant::now();
    // One after the other.
    let linearizable = |told: &[Told]| {
        let calls = (0..).zip(told).map(|(place, &told)| {
            let called = base + Duration::from_millis(2 * place);
            Call { key: 1, called, returned: called + Duration::from_millis(1), told }
        });
        linearizable(&calls.collect::<Vec<_>>())
    };
    let (first, second) = (Told::Set(at(1)), Told::Set(at(2)));
    assert!(linearizable(&[first, second, Told::Stood(Some(at(2)))]));
    assert!(!linearizable(&[first, second, Told::Stood(Some(at(1)))]), "a stale read");
    assert!(linearizable(&[first, second, Told::SetOver(at(3), Some(at(2)))]));
    assert!(!linearizable(&[first, second, Told::SetOver(at(3), Some(at(1)))]), "a lost update");
    assert!(!linearizable(&[first, Told::SetOver(at(2), None)]), "a lost entry");
}
