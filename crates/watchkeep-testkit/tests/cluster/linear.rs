//! What callers of several machines are told of single keys is what one order explains, and stays so while answers are lost.

use std::thread;

use watchkeep::{Revision, SetOptions, Writing};
use watchkeep_testkit::callers::{Size, history};
use watchkeep_testkit::faults::Row;
use watchkeep_testkit::proxy::Proxy;
use watchkeep_testkit::size::scaled;
use watchkeep_testkit::surface::{Fault, block_on};
use watchkeep_testkit::witness::faults;

use super::machines::place;
use super::scene::{Scene, open};

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

/// A closure that only reads is run a second time, to read what is there and not what a member has. Once it has read that,
/// another process writes, and then a write comes that waits for the closure, and goes along with it.
#[test]
fn who_goes_along_with_another_is_not_told_of_what_stood_before_its_own_call() -> Result<(), Fault> {
    let place = place()?;
    let (here, elsewhere) = (open(&place)?, open(&place)?);
    elsewhere.set("g", "k", "old")?;
    let (mut runs, mut written) = (0, None);
    here.transaction(|tx| {
        tx.get("g", "k")?;
        runs += 1;
        if runs == 2 {
            let write = || -> watchkeep::Result<(Revision, Writing<Revision>)> {
                let newer = elsewhere.set("g", "k", "newer")?;
                let over = SetOptions::new().if_revision(newer);
                Ok((newer, here.to_async().set_with("g", "k", "newest", over)))
            };
            // Another thread's, for within a closure nothing else is written.
            written = thread::scope(|scope| scope.spawn(write).join().ok());
        }
        Ok(())
    })?;
    let (newer, newest) = written.ok_or("it was not run again")??;
    assert!(block_on(newest)? > newer, "it stood at what it was expected to");
    Ok(())
}
