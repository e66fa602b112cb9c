//! A store's file with other bytes in it.

use std::sync::LazyLock;

use super::{Verdict, said};
use crate::faults::bytes::{Sound, altered};

/// How many places are altered at the most.
const PLACES: usize = 64;

/// Opens a store's file with bytes altered, reads and watches all of it and checks it: no panic, no wrong event, and
/// no wrong entry that a check does not find.
///
/// Four bytes are a place, three for where and one for what to flip there; nothing to flip cuts the file off.
///
/// # Errors
///
/// What is wrong.
pub fn opened_file(bytes: &[u8]) -> Verdict {
    static SOUND: LazyLock<Result<Sound, String>> = LazyLock::new(|| Sound::new(7).map_err(said));
    let sound = SOUND.as_ref().map_err(String::clone)?;
    let places = bytes.chunks_exact(4).take(PLACES).filter_map(|place| match place {
        [high, middle, low, flip] => {
            Some((usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low), *flip))
        }
        _ => None,
    });
    let row = altered(sound, places).map_err(said)?;
    row.wrong.first().map_or(Ok(()), |wrong| Err(wrong.what.clone()))
}
