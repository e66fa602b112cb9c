//! What callers of several machines are told of single keys is what one order explains, and stays so while answers are lost.

use watchkeep_testkit::callers::{Size, history};
use watchkeep_testkit::faults::Row;
use watchkeep_testkit::proxy::Proxy;
use watchkeep_testkit::size::scaled;
use watchkeep_testkit::surface::Fault;
use watchkeep_testkit::witness::faults;

use super::scene::Scene;

/// Few keys, so that the callers meet.
const SIZE: Size = Size { callers: 6, calls: 40, keys: 5 };

/// One history, while the proxies do what they were asked for.
fn is_linearizable(seed: u64, ask: impl Fn(&Proxy)) -> Result<(), Fault> {
    let scene = Scene::new()?;
    scene.proxies.iter().for_each(ask);
    let calls = history(&scene.stores, "g", SIZE, seed * 1_000)?;
    let writes = calls.iter().filter(|call| call.wrote().is_some()).count();
    assert!(writes > calls.len() / 8, "seed {seed}: only {writes} writes");
    assert_eq!(faults(&calls), Vec::<String>::new(), "seed {seed}");
    Ok(())
}

#[test]
fn what_callers_of_several_machines_are_told_is_linearizable() -> Result<(), Fault> {
    for seed in 0..scaled(2) {
        is_linearizable(seed, |_| {})?;
        is_linearizable(seed, |proxy| (0..4).for_each(|_| proxy.lose_answer_after(6)))?;
    }
    Row { rounds: 2 * scaled(2), ..Row::default() }.print("linear");
    Ok(())
}
