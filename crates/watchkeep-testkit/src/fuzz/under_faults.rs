//! Operations on a store and on the model of it, while the disk fails now and then.

use watchkeep::{Options, Retention};
use watchkeep_faultdisk::Fault;

use super::{Verdict, said, tape};
use crate::faults::io::KINDS;
use crate::ops::Draw;
use crate::runner::Runner;
use crate::surface::File;

/// How often the disk fails.
const FAULTS: usize = 6;

/// Makes drawn steps, lets an operation of the disk fail in a drawn change, opens the store again, and so on: the
/// change has happened as a whole, or not at all, and all else is as in the model.
///
/// # Errors
///
/// What differs from the model.
pub fn under_faults(bytes: &[u8]) -> Verdict {
    let (file, disk) = File::over_a_disk().map_err(said)?;
    let mut runner = Runner::new(Box::new(file), Options::new(), Retention::FOREVER).map_err(said)?;
    let mut tape = tape(bytes);
    let mut draw = Draw::new(&mut tape);
    for _ in 0..FAULTS {
        for _ in 0..draw.below(8) {
            runner.step(&draw.step()).map_err(|mismatch| mismatch.to_string())?;
        }
        let (place, nth) = (draw.below(KINDS.len()), draw.below(40));
        let (Some((what, _)), Ok(nth)) = (KINDS.get(place), u64::try_from(nth + 1)) else { continue };
        disk.fail(Fault { what: *what, nth, sticky: draw.one_in(2) });
        let change = draw.change();
        runner.step_into(&change, || disk.heal() > 0).map_err(|mismatch| mismatch.to_string())?;
    }
    runner.finish().map_err(|mismatch| mismatch.to_string())
}
