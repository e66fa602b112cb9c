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
        (Condition::Always, Some("*"), None) => Ok(Condition::Absent),
        _ => Err(Problem::bad("a write takes cursors or * in If-Match, or * alone in If-None-Match")),
    }
}

/// What `If-Match` asks, of a read too.
pub(crate) fn if_match(headers: &HeaderMap) -> Condition {
    if !headers.contains_key(IF_MATCH) {
        return Condition::Always;
    }
    let tags: Vec<_> = tags(headers, IF_MATCH).collect();
    if tags.contains(&"*") {
        Condition::Present
    } else {
        Condition::OneOf(tags.into_iter().map(Position::from).collect())
    }
}

/// Whether the reader has what stands at this position.
pub(crate) fn is_known(headers: &HeaderMap, position: &Position) -> bool {
    tags(headers, IF_NONE_MATCH).any(|tag| tag == "*" || *position == *tag)
}

/// The entity tags of a header. One that a proxy made weak by compressing what it passed on is still ours.
fn tags(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let lists = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).map(tag)
}

/// What a tag says: without its quotes, `W/` and the mark of a coding.
pub(crate) fn tag(tag: &str) -> &str {
    let tag = tag.trim();
    let tag = tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"');
    CODINGS.iter().find_map(|coding| tag.strip_suffix(coding)).unwrap_or(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_ours_whatever_proxies_made_of_it() {
        for raw in ["\"a-7\"", " W/\"a-7\" ", "a-7", "\"a-7-gzip\"", "W/\"a-7;br\""] {
            assert_eq!(tag(raw), "a-7", "{raw}");
        }
        assert_eq!(tag("*"), "*");
    }
}
