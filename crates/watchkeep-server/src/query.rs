//! What the queries of the routes say: each parameter is named once, and one that is not known is refused.

use std::fmt;
use std::time::Duration;

use axum::extract::{FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use jiff::{Span, SpanRelativeTo};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use watchkeep::{Filter, Kind, MAX_FILTER_PARTS};

use crate::access::Fields;
use crate::change::Values;
use crate::gate::{Position, Ttl};
use crate::limits::{FILTER, FILTER_NAMES};
use crate::problem::Problem;
use crate::subscription::{Snapshots, Wanted};

/// The parameters of a request, percent-decoded, each taken by the route that knows it.
#[derive(Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Query, Problem> {
        let mut query = Query::default();
        for pair in parts.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name)?;
            if query.0.iter().any(|(known, _)| *known == name) {
                return Err(Problem::bad(format!("the parameter {name:?} is there twice; give it once")));
            }
            query.0.push((name, decode(value)?));
        }
        Ok(query)
    }
}

impl Query {
    /// Of the fields of a message, each there once.
    pub(crate) fn of(fields: impl IntoIterator<Item = (&'static str, Option<String>)>) -> Query {
        let given = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Query(given.collect())
    }

    /// What a ticket is for, with the position that is asked for here. Whatever else is asked for must be the same.
    ///
    /// # Errors
    ///
    /// 403 when it is not.
    pub(crate) fn confined_to(mut self, fields: Fields) -> Result<Query, Problem> {
        let after = self.take("after");
        let asked: Fields = self.0.into_iter().collect();
        if !asked.is_empty() && asked != fields {
            let detail = "the ticket is for another watch; make one for this, or give nothing but the ticket";
            return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail));
        }
        let mut query = Query::from(fields);
        query.0.extend(after.map(|after| ("after".to_owned(), after)));
        Ok(query)
    }

    /// Takes a parameter out.
    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        let place = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(place).1)
    }

    pub(crate) fn need(&mut self, name: &str) -> Result<String, Problem> {
        self.take(name).ok_or_else(|| Problem::bad(format!("the parameter {name:?} is missing")))
    }

    /// A flag, off unless given: `?name` or `?name=true`.
    pub(crate) fn flag(&mut self, name: &str) -> Result<bool, Problem> {
        self.switch(name, false)
    }

    fn switch(&mut self, name: &str, unless_given: bool) -> Result<bool, Problem> {
        match self.take(name).as_deref() {
            None => Ok(unless_given),
            Some("false" | "no") => Ok(false),
            Some("" | "true" | "yes") => Ok(true),
            Some(other) => Err(Problem::bad(format!("{name}={other:?} is neither true nor false"))),
        }
    }

    pub(crate) fn duration(&mut self, name: &str) -> Result<Option<Duration>, Problem> {
        let parse = |text: String| {
            duration(&text).ok_or_else(|| {
                Problem::bad(format!(
                    "{name}={text:?} is not a duration; write it like 500ms, 90s, 1h30m or 7d"
                ))
            })
        };
        self.take(name).map(parse).transpose()
    }

    /// Refuses what nobody took: a misspelt parameter must not be passed over.
    pub(crate) fn end(self) -> Result<(), Problem> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(Problem::bad(format!("there is no parameter {name:?} here"))),
        }
    }
}

impl From<Fields> for Query {
    fn from(fields: Fields) -> Query {
        Query(fields.into_iter().collect())
    }
}

/// The fields of an object, each there once.
pub(crate) struct Unrepeated(pub(crate) Fields);

impl<'de> Deserialize<'de> for Unrepeated {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Unrepeated, D::Error> {
        deserializer.deserialize_map(Collect)
    }
}

struct Collect;

impl<'de> Visitor<'de> for Collect {
    type Value = Unrepeated;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unrepeated, A::Error> {
        let mut fields = Fields::new();
        while let Some((name, value)) = map.next_entry::<String, String>()? {
            if fields.contains_key(&name) {
                return Err(A::Error::custom(format_args!("{name:?} is there twice; give it once")));
            }
            fields.insert(name, value);
        }
        Ok(Unrepeated(fields))
    }
}

/// As it stands in a URL behind other parameters: each with a `&` before it.
impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encode = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
        self.0.iter().try_for_each(|(name, value)| write!(f, "&{}={}", encode(name), encode(value)))
    }
}

/// How much of the values: `none`, or a number of bytes.
pub(crate) fn values(query: &mut Query) -> Result<Values, Problem> {
    match query.take("values").as_deref() {
        None | Some("all") => Ok(Values::All),
        Some("none") => Ok(Values::None),
        Some(number) => number.parse().map(Values::UpTo).map_err(|_| {
            Problem::bad(format!("values={number:?} is neither all nor none nor a number of bytes"))
        }),
    }
}

/// Which events: those of one filter, or of any of several; and what it weighs while somebody watches with it.
pub(crate) fn filter(query: &mut Query) -> Result<(Filter, usize), Problem> {
    let Some(any) = query.take("any") else { return one_filter(query) };
    let beside = ["group", "group_prefix", "key", "key_prefix", "kinds", "group_deletions"];
    if let Some(name) = beside.into_iter().find(|name| query.take(name).is_some()) {
        return Err(Problem::bad(format!("{name} does not go with any; give it to the filters in there")));
    }
    let filters: Vec<Unrepeated> = serde_json::from_str(&any)
        .map_err(|error| Problem::bad(format!("any= is no JSON array of objects of strings: {error}")))?;
    if filters.is_empty() || filters.len() > MAX_FILTER_PARTS {
        let len = filters.len();
        return Err(Problem::bad(format!("any= has 1 to {MAX_FILTER_PARTS} filters, this one {len}")));
    }
    let filters = filters.into_iter().map(|Unrepeated(fields)| {
        let mut query = Query::from(fields);
        let filter = one_filter(&mut query)?;
        query.end().map(|()| filter)
    });
    let (filters, weights): (Vec<_>, Vec<_>) = filters.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
    Ok((Filter::any(filters), weights.into_iter().sum()))
}

/// Names are literal, also `*`.
fn one_filter(query: &mut Query) -> Result<(Filter, usize), Problem> {
    let mut weight = FILTER;
    let mut take = |name| {
        let text = query.take(name);
        weight += text.as_ref().map_or(0, |text| text.len() * FILTER_NAMES);
        text
    };
    let mut filter =
        Filter::from_names(take("group"), take("group_prefix"), take("key"), take("key_prefix"))?;
    if let Some(kinds) = query.take("kinds") {
        let kinds = kinds.split(',').map(|name| {
            Kind::ALL.into_iter().find(|kind| kind.as_str() == name).ok_or_else(|| {
                let known = Kind::ALL.map(Kind::as_str).join(", ");
                Problem::bad(format!("there is no kind {name:?}; there are {known}"))
            })
        });
        filter = filter.kinds(kinds.collect::<Result<Vec<_>, _>>()?);
    }
    let with_group_deletions = query.switch("group_deletions", true)?;
    Ok((if with_group_deletions { filter } else { filter.without_group_deletions() }, weight))
}

/// A whole subscription.
pub(crate) fn wanted(query: &mut Query) -> Result<Wanted, Problem> {
    let ((filter, weight), values) = (filter(query)?, values(query)?);
    let snapshots = match query.take("snapshot").as_deref() {
        Some("auto") => Snapshots::Auto,
        None | Some("never") => Snapshots::Never,
        Some(other) => return Err(Problem::bad(format!("snapshot={other:?} is neither auto nor never"))),
    };
    // An empty bookmark is none.
    let after = query.take("after").filter(|after| !after.is_empty()).map(Position::from);
    let exclude_origin = query.take("exclude_origin");
    let weight = weight + exclude_origin.as_ref().map_or(0, String::len);
    Ok(Wanted { filter, weight, snapshots, after, exclude_origin, values })
}

/// How long an entry that is set lives.
pub(crate) fn ttl(query: &mut Query) -> Result<Ttl, Problem> {
    match (query.duration("ttl")?, query.flag("keep_ttl")?) {
        (None, false) => Ok(Ttl::Clear),
        (None, true) => Ok(Ttl::Keep),
        (Some(ttl), false) => Ok(Ttl::For(ttl)),
        (Some(_), true) => Err(Problem::bad("ttl and keep_ttl exclude each other; give one of them")),
    }
}

fn duration(text: &str) -> Option<Duration> {
    let span: Span = text.parse().ok()?;
    let duration = Duration::try_from(span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?).ok()?;
    (duration >= Duration::from_millis(1)).then_some(duration)
}

/// Refuses what cannot be decoded, in a path or a query: passed on, it would stand for itself.
pub(crate) async fn check_escapes(request: Request, next: Next) -> Response {
    let uri = request.uri();
    if [uri.path(), uri.query().unwrap_or_default()].into_iter().any(has_broken_escape) {
        return Problem::bad("a % in the URL is not followed by two hexadecimal digits; write it as %25")
            .into_response();
    }
    next.run(request).await
}

fn has_broken_escape(text: &str) -> bool {
    text.split('%').skip(1).any(|rest| rest.bytes().take(2).filter(u8::is_ascii_hexdigit).count() < 2)
}

fn decode(text: &str) -> Result<String, Problem> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded.map(Into::into).map_err(|_| Problem::bad("the query is not UTF-8 once it is decoded"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_any_utf8() {
        for (raw, name) in [("a%20b", "a b"), ("a+b", "a b"), ("%C3%A9%2F%26", "é/&"), ("", "")] {
            assert_eq!(decode(raw).ok().as_deref(), Some(name));
        }
        assert!(decode("%ff").is_err());
    }

    fn filter_of(any: &str) -> Result<Filter, Problem> {
        filter(&mut Query::of([("any", Some(any.to_owned()))])).map(|(filter, _)| filter)
    }

    #[test]
    fn any_is_a_list_of_filters_each_as_in_a_query() {
        let any = filter_of(
            r#"[{"group":"a","kinds":"set"},{"key":"*","group_deletions":"no"},{"group":"a","kinds":"set"}]"#,
        );
        let expected =
            [Filter::group("a").kinds([Kind::Set]), Filter::key_name("*").without_group_deletions()];
        assert_eq!(any.ok(), Some(Filter::any(expected)));
    }

    #[test]
    fn what_is_no_list_of_filters_is_refused() {
        let too_many = format!("[{}]", vec!["{}"; MAX_FILTER_PARTS + 1].join(","));
        for bad in [
            "",
            "[]",
            "{}",
            "[1]",
            r#"[{"group":1}]"#,
            r#"[{"group":"a","group":"b"}]"#,
            r#"[{"any":"[{}]"}]"#,
            r#"[{"group":"a","group_prefix":"b"}]"#,
            r#"[{"values":"none"}]"#,
            &too_many,
        ] {
            assert!(filter_of(bad).is_err(), "{bad}");
        }
        let beside = [("any", Some("[{}]".to_owned())), ("kinds", Some("set".to_owned()))];
        assert!(filter(&mut Query::of(beside)).is_err());
        assert_eq!(filter_of("[{}]").ok(), Some(Filter::everything()));
    }

    #[test]
    fn durations_are_those_of_the_command_line() {
        assert_eq!(duration("1h30m"), Some(Duration::from_secs(5_400)));
        assert_eq!(duration("7d"), Some(Duration::from_secs(7 * 86_400)));
        for bad in ["", "5", "-1s", "1us", "1mo"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}
