//! What concurrent callers on two stores of one file are told is what one order explains.

use watchkeep_testkit::callers::{Size, history};
use watchkeep_testkit::faults::Row;
use watchkeep_testkit::size::scaled;
use watchkeep_testkit::surface::Fault;
use watchkeep_testkit::witness::faults;

use super::callers::stores;

#[test]
fn what_concurrent_callers_are_told_is_linearizable() -> Result<(), Fault> {
    let folder = tempfile::tempdir()?;
    let size = Size { callers: 8, calls: usize::try_from(scaled(2_500))?, keys: 50 };
    let calls = history(&stores(folder.path())?, "g", size, 1)?;
    let writes = calls.iter().filter(|call| call.wrote().is_some()).count();
    assert!(writes > calls.len() / 4, "only {writes} writes");
    assert_eq!(faults(&calls), Vec::<String>::new());
    Row { rounds: calls.len() as u64, ..Row::default() }.print("linearizable");
    Ok(())
}
