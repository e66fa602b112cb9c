//! Batches as JSON, in both directions.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use crate::types::batch::{Applied, Batch, Condition, Outcome, Unmet};
use crate::types::error::{Error, Reason, Result};
use crate::types::filter::Filter;
use crate::types::value::Value;
use crate::types::writing::SetOptions;

use super::super::handle::Store;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    id: Option<Id>,
    #[serde(default)]
    require: Vec<Required>,
    #[serde(default)]
    operations: Vec<Operation>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Id {
    client: String,
    sequence: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Required {
    Absent(Place),
    Present(Place),
    At(At),
    Unchanged(Unchanged),
}

/// A key, or a group.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    group: String,
    key: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct At {
    group: String,
    key: String,
    cursor: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchanged {
    group: Option<String>,
    group_prefix: Option<String>,
    key: Option<String>,
    key_prefix: Option<String>,
    since: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Operation {
    Set(Set),
    Delete(Key),
    DeleteGroup(Group),
    DeletePrefix(Prefix),
    Touch(Touch),
    Persist(Key),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Set {
    group: String,
    key: String,
    value: Option<String>,
    value_base64: Option<String>,
    ttl_ms: Option<u64>,
    #[serde(default)]
    keep_ttl: bool,
    content_type: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    group: String,
    key: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    group: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Prefix {
    group_prefix: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Touch {
    group: String,
    key: String,
    ttl_ms: u64,
}

/// Reads a batch: what [`Batch`] builds, as an object with `id`, `require` and `operations`, each of which may be left
/// out.
///
/// A condition is `{"absent":{"group":..,"key":..}}`, `present` alike, both without `key` for a group, or
/// `{"at":{"group":..,"key":..,"cursor":..}}`, or `{"unchanged":{"group":..,"since":CURSOR}}` with the names of a
/// filter: `group`, `group_prefix`, `key`, `group` and `key`, `group` and `key_prefix`, or none for everything.
/// An operation is `{"set":{"group":..,"key":..,"value":..}}` (`value_base64` for bytes; `ttl_ms`, `keep_ttl` and
/// `content_type` if wanted), `delete`, `touch` (with `ttl_ms`) or `persist` of a `group` and `key`, `delete_group` of a
/// `group`, `delete_prefix` of a `group_prefix`.
///
/// ```
/// use watchkeep::{Store, json};
/// let store = Store::open_in_memory()?;
/// let batch = json::batch(
///     r#"{"id": {"client": "web-7", "sequence": 1},
///         "require": [{"absent": {"group": "orders", "key": "7"}}],
///         "operations": [{"set": {"group": "orders", "key": "7", "value": "1 apple", "ttl_ms": 60000}}]}"#,
/// )?;
/// let applied = json::applied(&store.apply(batch)?, &store);
/// assert_eq!(applied["outcomes"][0]["set"], applied["cursor"]);
/// # Ok::<(), watchkeep::Error>(())
/// ```
///
/// # Errors
///
/// `InvalidArgument`, with what is wrong where.
pub fn batch(text: &str) -> Result<Batch> {
    let Written { id, require, operations } =
        serde_json::from_str(text).map_err(|error| invalid(format!("the batch cannot be read: {error}")))?;
    let mut batch = Batch::new();
    if let Some(Id { client, sequence }) = id {
        batch = batch.id(client, sequence);
    }
    for required in require {
        batch = batch.require(condition(required)?);
    }
    operations.into_iter().try_fold(batch, operation)
}

fn condition(required: Required) -> Result<Condition> {
    Ok(match required {
        Required::Absent(Place { group, key: Some(key) }) => Condition::absent(group, key),
        Required::Absent(Place { group, key: None }) => Condition::group_absent(group),
        Required::Present(Place { group, key: Some(key) }) => Condition::present(group, key),
        Required::Present(Place { group, key: None }) => Condition::group_present(group),
        Required::At(At { group, key, cursor }) => Condition::at(group, key, cursor.parse()?),
        Required::Unchanged(Unchanged { group, group_prefix, key, key_prefix, since }) => {
            let filter = Filter::from_names(group, group_prefix, key, key_prefix)?;
            Condition::unchanged(filter, since.parse()?)
        }
    })
}

fn operation(batch: Batch, operation: Operation) -> Result<Batch> {
    Ok(match operation {
        Operation::Set(Set { group, key, value, value_base64, ttl_ms, keep_ttl, content_type }) => {
            let value = match (value, value_base64) {
                (Some(text), None) => Value::from(text),
                (None, Some(bytes)) => Value::from(BASE64_STANDARD.decode(bytes).map_err(|error| {
                    invalid(format!("value_base64 of key {key:?} is not base64 with padding: {error}"))
                })?),
                _ => {
                    return Err(invalid(format!(
                        "the set of key {key:?} takes either value or value_base64"
                    )));
                }
            };
            let options = match (ttl_ms, keep_ttl) {
                (None, false) => SetOptions::new(),
                (Some(ttl), false) => SetOptions::new().ttl(Duration::from_millis(ttl)),
                (None, true) => SetOptions::new().keep_ttl(),
                (Some(_), true) => {
                    return Err(invalid(format!("ttl_ms and keep_ttl of key {key:?} exclude each other")));
                }
            };
            let options = match content_type {
                Some(content_type) => options.content_type(content_type),
                None => options,
            };
            batch.set_with(&group, &key, value, options)
        }
        Operation::Delete(Key { group, key }) => batch.delete(&group, &key),
        Operation::DeleteGroup(Group { group }) => batch.delete_group(&group),
        Operation::DeletePrefix(Prefix { group_prefix }) => batch.delete_prefix(&group_prefix),
        Operation::Touch(Touch { group, key, ttl_ms }) => {
            batch.touch(&group, &key, Duration::from_millis(ttl_ms))
        }
        Operation::Persist(Key { group, key }) => batch.persist(&group, &key),
    })
}

fn invalid(what: impl Into<String>) -> Error {
    Reason::Invalid { what: what.into() }.into()
}

/// What a batch did as a JSON object: `revision` and `cursor` of its last event, `outcomes` in the order of its
/// operations, each `{"set":CURSOR}`, `{"was":true}` or `{"keys":3}`, and whether it was `repeated`.
pub fn applied(applied: &Applied, store: &Store) -> Json {
    let cursor = |revision| store.cursor(revision).to_string();
    let outcome = |outcome: &Outcome| match outcome {
        Outcome::Set(revision) => json!({ "set": cursor(*revision) }),
        Outcome::Was(was) => json!({ "was": was }),
        Outcome::Keys(keys) => json!({ "keys": keys }),
    };
    json!({
        "revision": applied.revision.get(),
        "cursor": cursor(applied.revision),
        "outcomes": applied.outcomes.iter().map(outcome).collect::<Vec<_>>(),
        "repeated": applied.repeated,
    })
}

/// A condition that did not hold as a JSON object: its place in `require`, and the `cursor` of what is there, or null.
pub fn unmet(unmet: &Unmet, store: &Store) -> Json {
    json!({
        "condition": unmet.condition,
        "cursor": unmet.current.map(|revision| store.cursor(revision).to_string()),
        "too_old": unmet.is_too_old,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::revision::Cursor;

    #[test]
    fn what_is_written_is_what_is_built() -> Result<()> {
        let at: Cursor = "k3v9x2mq-4fz8ab-7".parse()?;
        let text = json!({
            "id": { "client": "c", "sequence": 3 },
            "require": [
                { "absent": { "group": "g", "key": "k" } },
                { "present": { "group": "g", "key": "k" } },
                { "at": { "group": "g", "key": "k", "cursor": at.to_string() } },
                { "absent": { "group": "g" } },
                { "present": { "group": "g" } },
                { "unchanged": { "group": "g", "key_prefix": "k", "since": at.to_string() } },
                { "unchanged": { "since": at.to_string() } },
            ],
            "operations": [
                { "set": { "group": "g", "key": "k", "value": "v" } },
                { "set": { "group": "g", "key": "k", "value_base64": "/w==", "ttl_ms": 5, "content_type": "t" } },
                { "set": { "group": "g", "key": "k", "value": "", "keep_ttl": true } },
                { "delete": { "group": "g", "key": "k" } },
                { "delete_group": { "group": "g" } },
                { "delete_prefix": { "group_prefix": "g" } },
                { "touch": { "group": "g", "key": "k", "ttl_ms": 5 } },
                { "persist": { "group": "g", "key": "k" } },
            ],
        });
        let built = Batch::new()
            .id("c", 3)
            .require(Condition::absent("g", "k"))
            .require(Condition::present("g", "k"))
            .require(Condition::at("g", "k", at))
            .require(Condition::group_absent("g"))
            .require(Condition::group_present("g"))
            .require(Condition::unchanged(Filter::key_prefix("g", "k"), at))
            .require(Condition::unchanged(Filter::everything(), at))
            .set("g", "k", "v")
            .set_with("g", "k", vec![0xff], SetOptions::new().ttl(Duration::from_millis(5)).content_type("t"))
            .set_with("g", "k", "", SetOptions::new().keep_ttl())
            .delete("g", "k")
            .delete_group("g")
            .delete_prefix("g")
            .touch("g", "k", Duration::from_millis(5))
            .persist("g", "k");
        assert_eq!(batch(&text.to_string())?, built);
        assert_eq!(batch("{}")?, Batch::new());
        Ok(())
    }

    #[test]
    fn what_makes_no_sense_is_told_where() {
        for (text, word) in [
            ("", "EOF"),
            ("[]", "invalid"),
            (r#"{"operation":[]}"#, "operation"),
            (r#"{"operations":[{"put":{}}]}"#, "put"),
            (r#"{"operations":[{"delete":{"group":"g"}}]}"#, "key"),
            (r#"{"operations":[{"set":{"group":"g","key":"k"}}]}"#, "value_base64"),
            (r#"{"operations":[{"set":{"group":"g","key":"k","value":"v","ttl":1}}]}"#, "ttl"),
            (
                r#"{"operations":[{"set":{"group":"g","key":"k","value":"v","ttl_ms":1,"keep_ttl":true}}]}"#,
                "exclude",
            ),
            (r#"{"operations":[{"set":{"group":"g","key":"k","value_base64":"?"}}]}"#, "base64"),
            (r#"{"require":[{"at":{"group":"g","key":"k","cursor":"7"}}]}"#, "cursor"),
            (r#"{"require":[{"unchanged":{"key_prefix":"k","since":"k3v9x2mq-4fz8ab-7"}}]}"#, "go together"),
            (r#"{"author":"me"}"#, "author"),
        ] {
            let told = batch(text).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(told.contains(word), "{text}: {told}");
        }
    }
}
