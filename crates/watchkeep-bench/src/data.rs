//! What is written: names of 20 bytes in ten groups, values of 100 bytes that tell which write they are.

use std::fmt::Write;

use crate::Result;

/// How many different keys the workloads use.
pub(crate) const NAMES: usize = 100_000;
pub(crate) const GROUPS: usize = 10;
pub(crate) const VALUE_BYTES: usize = 100;

/// The address of an entry.
#[derive(Debug, Clone)]
pub struct Name {
    /// Seven bytes.
    pub group: String,
    /// Twelve bytes.
    pub key: String,
}

pub(crate) fn group(number: usize) -> String {
    format!("grp-{:03}", number % GROUPS)
}

pub(crate) fn names(count: usize) -> Vec<Name> {
    (0..count).map(|number| Name { group: group(number), key: format!("key-{number:08}") }).collect()
}

/// The value of the write with this serial number, to the key with this number.
///
/// # Errors
/// None that comes to pass.
pub fn value(into: &mut String, number: usize, serial: u64) -> Result<()> {
    const FILLER: &str =
        "keep it, watch it; keep it, watch it; keep it, watch it; keep it, watch it; keep it.";
    into.clear();
    write!(into, "{number:08} {serial:012} ")?;
    into.push_str(FILLER.get(..VALUE_BYTES - into.len()).unwrap_or_default());
    Ok(())
}

/// Whether a value that was read is the one of this key, with this serial number where it is known.
pub(crate) fn is_value(read: &[u8], number: usize, serial: Option<u64>) -> bool {
    let parse = |range| std::str::from_utf8(read.get(range)?).ok()?.parse::<u64>().ok();
    read.len() == VALUE_BYTES
        && parse(0..8).and_then(|found| usize::try_from(found).ok()) == Some(number)
        && serial.is_none_or(|serial| parse(9..21) == Some(serial))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_tells_which_write_it_is() -> Result<()> {
        let mut text = String::new();
        value(&mut text, 33, 7)?;
        assert_eq!(text.len(), VALUE_BYTES);
        assert!(is_value(text.as_bytes(), 33, Some(7)));
        assert!(is_value(text.as_bytes(), 33, None));
        assert!(!is_value(text.as_bytes(), 33, Some(8)));
        assert!(!is_value(text.as_bytes(), 34, None));
        let name = names(34).pop().ok_or("no name")?;
        assert_eq!((name.group.as_str(), name.key.as_str()), ("grp-003", "key-00000033"));
        Ok(())
    }
}
