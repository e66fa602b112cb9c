//! What is written: names of 20 bytes in ten groups, values that tell which write they are.

use std::fmt::{self, Display, Formatter, Write};
use std::str::FromStr;
use std::sync::OnceLock;

use crate::Result;

/// How many different keys the workloads use.
pub(crate) const NAMES: usize = 100_000;
pub(crate) const GROUPS: usize = 10;

/// How large values are, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Values {
    Fixed(usize),
    /// 90 of 100 have 100 bytes, 9 have 1,000, and one has 20,000.
    Mixed,
}

impl Values {
    /// What a value needs, to tell which write it is.
    const LEAST: usize = 22;

    /// The size of the value with this number.
    fn size(self, number: u64) -> usize {
        match self {
            Values::Fixed(size) => size,
            Values::Mixed => match fastrand::Rng::with_seed(number).u8(0..100) {
                0..90 => 100,
                90..99 => 1_000,
                _ => 20_000,
            },
        }
    }

    /// The value of a revision.
    pub(crate) fn text(self, into: &mut String, revision: i64) -> Result<()> {
        into.clear();
        write!(into, "{revision:012} ")?;
        self.fill(into, revision.unsigned_abs());
        Ok(())
    }

    /// Fills a value up to its size.
    fn fill(self, into: &mut String, number: u64) {
        const FILLER: &str = "keep it, watch it; keep it, watch it; keep it, watch it; ";
        let size = self.size(number);
        while into.len() < size {
            into.push_str(FILLER.get(..size - into.len()).unwrap_or(FILLER));
        }
    }
}

impl Display for Values {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Values::Fixed(size) => size.fmt(f),
            Values::Mixed => f.write_str("mixed"),
        }
    }
}

impl FromStr for Values {
    type Err = String;

    fn from_str(text: &str) -> Result<Values, String> {
        match text.parse() {
            Ok(size) if size >= Values::LEAST => Ok(Values::Fixed(size)),
            _ if text == "mixed" => Ok(Values::Mixed),
            _ => Err(format!("a number of bytes, at least {}, or `mixed` is wanted", Values::LEAST)),
        }
    }
}

/// How large the values of this process are: it measures one cell.
static CHOSEN: OnceLock<Values> = OnceLock::new();

/// Says how large values are, before the first is made.
pub(crate) fn choose(values: Values) {
    CHOSEN.get_or_init(|| values);
}

fn chosen() -> Values {
    *CHOSEN.get_or_init(|| Values::Fixed(100))
}

/// The size of the value of the key with this number.
pub(crate) fn value_bytes(number: usize) -> usize {
    chosen().size(number as u64)
}

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
    into.clear();
    write!(into, "{number:08} {serial:012} ")?;
    chosen().fill(into, number as u64);
    Ok(())
}

/// Whether a value that was read is the one of this key, with this serial number where it is known.
pub(crate) fn is_value(read: &[u8], number: usize, serial: Option<u64>) -> bool {
    let parse = |range| std::str::from_utf8(read.get(range)?).ok()?.parse::<u64>().ok();
    read.len() == value_bytes(number)
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
        assert_eq!(text.len(), 100);
        assert!(is_value(text.as_bytes(), 33, Some(7)));
        assert!(is_value(text.as_bytes(), 33, None));
        assert!(!is_value(text.as_bytes(), 33, Some(8)));
        assert!(!is_value(text.as_bytes(), 34, None));
        let sizes: Vec<usize> = (0..1_000).map(|number| Values::Mixed.size(number)).collect();
        let count = |size| sizes.iter().filter(|found| **found == size).count();
        assert_eq!(count(100) + count(1_000) + count(20_000), 1_000);
        assert!(count(100) > 800 && count(1_000) > 40 && count(20_000) > 1, "all sizes come");
        assert_eq!("mixed".parse(), Ok(Values::Mixed));
        assert!("21".parse::<Values>().is_err());
        let name = names(34).pop().ok_or("no name")?;
        assert_eq!((name.group.as_str(), name.key.as_str()), ("grp-003", "key-00000033"));
        Ok(())
    }
}
