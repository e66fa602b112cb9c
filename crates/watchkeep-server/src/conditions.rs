//! Conditions of a request, as its headers say them (RFC 9110, section 13).

use axum::http::HeaderMap;
use axum::http::header::{HeaderName, IF_MATCH, IF_NONE_MATCH};

use crate::gate::{Condition, Position};
use crate::problem::Problem;

/// What proxies append to a tag when they compress what they pass on.
const CODINGS: [&str; 6] = ["-gzip", ";gzip", "-br", ";br", "-zstd", ";zstd"];

/// The condition of a write.
pub(crate) fn of_write(headers: &HeaderMap) -> Result<Condition, Problem> {
    let matching = if_match(headers);
    if !headers.contains_key(IF_NONE_MATCH) {
        return Ok(matching);
    }
    let mut others = tags(headers, IF_NONE_MATCH);
    match (matching, others.next(), others.next()) {
        (Condition::Always, Some(Tag::Any), None) => Ok(Condition::Absent),
        _ => Err(Problem::bad("a write takes cursors or * in If-Match, or * alone in If-None-Match")),
    }
}

/// What `If-Match` asks, of a read too.
pub(crate) fn if_match(headers: &HeaderMap) -> Condition {
    if !headers.contains_key(IF_MATCH) {
        return Condition::Always;
    }
    let mut positions = Vec::new();
    for tag in tags(headers, IF_MATCH) {
        match tag {
            Tag::Any => return Condition::Present,
            Tag::At(position) => positions.push(Position::from(position)),
        }
    }
    Condition::OneOf(positions)
}

/// Whether the reader has what stands at this position.
pub(crate) fn is_known(headers: &HeaderMap, position: &Position) -> bool {
    tags(headers, IF_NONE_MATCH).any(|tag| match tag {
        Tag::Any => true,
        Tag::At(known) => *position == *known,
    })
}

/// One of the list of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tag<'a> {
    /// `*`, without quotes.
    Any,
    At(&'a str),
}

/// The entity tags of a header. A comma parts them, but for one in quotes.
fn tags(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = Tag<'_>> {
    let lists = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    let raw = lists.flat_map(|list| {
        let mut quoted = false;
        list.split(move |letter| {
            quoted ^= letter == '"';
            letter == ',' && !quoted
        })
    });
    raw.map(str::trim).filter(|raw| !raw.is_empty()).map(tag)
}

/// What a tag says: without its quotes, `W/` and the mark of a coding. One that a proxy made weak by compressing what it
/// passed on is still ours.
fn tag(raw: &str) -> Tag<'_> {
    if raw == "*" {
        return Tag::Any;
    }
    let tag = raw.strip_prefix("W/").unwrap_or(raw);
    let tag = tag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(tag);
    Tag::At(CODINGS.iter().find_map(|coding| tag.strip_suffix(coding)).unwrap_or(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_ours_whatever_proxies_made_of_it() {
        for raw in ["\"a-7\"", "W/\"a-7\"", "a-7", "\"a-7-gzip\"", "W/\"a-7;br\""] {
            assert_eq!(tag(raw), Tag::At("a-7"), "{raw}");
        }
        assert_eq!(tag("*"), Tag::Any);
        for raw in ["W/*", "\"*\""] {
            assert_eq!(tag(raw), Tag::At("*"), "{raw}");
        }
    }
}
