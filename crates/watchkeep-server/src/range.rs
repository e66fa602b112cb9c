//! Parts of a value: one range of bytes (RFC 9110, section 14).

use axum::http::HeaderMap;
use axum::http::header::{IF_RANGE, RANGE};

use crate::gate::Position;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Whole,
    /// From the first to the last byte, both included.
    Bytes(usize, usize),
    /// Nothing of the value lies there.
    Nowhere,
}

/// The part that a request asks for. Whatever is not one range of bytes is passed over, as the RFC allows.
pub(crate) fn of(headers: &HeaderMap, position: &Position, len: usize) -> Part {
    let Some(range) = headers.get(RANGE).and_then(|range| range.to_str().ok()) else { return Part::Whole };
    // What the client has a part of may have changed. Weak tags do not count here: the bytes must be the same.
    let same = headers.get(IF_RANGE).is_none_or(|tag| tag.as_bytes() == format!("\"{position}\"").as_bytes());
    if same { parse(range, len).unwrap_or(Part::Whole) } else { Part::Whole }
}

/// None when it is not one range of bytes.
fn parse(range: &str, len: usize) -> Option<Part> {
    let (from, to) = range.strip_prefix("bytes=")?.trim().split_once('-')?;
    let last = len.checked_sub(1);
    let (first, end) = match (from, to) {
        ("", suffix) => (len.saturating_sub(number(suffix)?), last),
        (from, "") => (number(from)?, last),
        (from, to) => {
            let (from, to) = (number(from)?, number(to)?);
            if to < from {
                return None;
            }
            (from, last.map(|last| to.min(last)))
        }
    };
    // A range of no bytes at the end, or one that begins behind it.
    Some(end.filter(|end| first <= *end).map_or(Part::Nowhere, |end| Part::Bytes(first, end)))
}

/// Only digits; what is more than a number holds lies behind any value.
fn number(text: &str) -> Option<usize> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_of_bytes_is_understood_and_nothing_else() {
        for (range, part) in [
            ("bytes=0-3", Some(Part::Bytes(0, 3))),
            ("bytes=9-9", Some(Part::Bytes(9, 9))),
            ("bytes=4-", Some(Part::Bytes(4, 9))),
            ("bytes=4-99999999999999999999999", Some(Part::Bytes(4, 9))),
            ("bytes=-3", Some(Part::Bytes(7, 9))),
            ("bytes=-30", Some(Part::Bytes(0, 9))),
            ("bytes=10-", Some(Part::Nowhere)),
            ("bytes=99999999999999999999999-", Some(Part::Nowhere)),
            ("bytes=-0", Some(Part::Nowhere)),
            ("bytes=3-1", None),
            ("bytes=0-1,3-4", None),
            ("bytes=-", None),
            ("bytes=+1-2", None),
            ("lines=0-1", None),
            ("", None),
        ] {
            assert_eq!(parse(range, 10), part, "{range}");
        }
        assert_eq!(parse("bytes=0-0", 0), Some(Part::Nowhere));
        assert_eq!(parse("bytes=-1", 0), Some(Part::Nowhere));
    }
}
