//! An entry as JSON: the lines of `export` and `import`, and the object that `get` and `list` print.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value as Json};
use watchkeep::json::{insert_value, timestamp};
use watchkeep::{Entry, Store, Timestamp, Value};

use crate::time::parse_deadline;

/// A line of an export.
pub fn exported(group: &str, entry: &Entry) -> Map<String, Json> {
    let mut line = named(group, entry);
    insert_value(&mut line, "value", &entry.value);
    if let Some(deadline) = entry.deadline {
        line.insert("deadline".to_owned(), timestamp(deadline).into());
    }
    if let Some(content_type) = &entry.content_type {
        line.insert("content_type".to_owned(), content_type.as_str().into());
    }
    line
}

/// An entry with all that is known about it; its value is not always wanted.
pub fn shown(store: &Store, group: &str, entry: &Entry, with_value: bool) -> Map<String, Json> {
    let mut line = named(group, entry);
    if with_value {
        insert_value(&mut line, "value", &entry.value);
    }
    let known: [(&str, Json); 7] = [
        ("bytes", entry.value.len().into()),
        ("revision", entry.revision.get().into()),
        ("cursor", store.cursor(entry.revision).to_string().into()),
        ("created", entry.created.get().into()),
        ("updated", timestamp(entry.updated).into()),
        ("deadline", entry.deadline.map(timestamp).into()),
        ("content_type", entry.content_type.clone().into()),
    ];
    line.extend(known.map(|(name, value)| (name.to_owned(), value)));
    line
}

fn named(group: &str, entry: &Entry) -> Map<String, Json> {
    let names = [("group", group), ("key", &entry.key)];
    names.into_iter().map(|(name, text)| (name.to_owned(), text.into())).collect()
}

/// An entry that is to be written.
#[derive(Debug, PartialEq, Eq)]
pub struct Record {
    /// The group.
    pub group: String,
    /// The key.
    pub key: String,
    /// The value.
    pub value: Value,
    /// When it expires, if it does.
    pub deadline: Option<Timestamp>,
    /// What the value is.
    pub content_type: Option<String>,
}

/// A line of an import, before it is looked at closely.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Imported {
    group: String,
    key: String,
    value: Option<String>,
    value_base64: Option<String>,
    deadline: Option<String>,
    content_type: Option<String>,
}

/// Reads a line of an export.
///
/// # Errors
///
/// What is wrong with it.
pub fn read(line: &[u8]) -> Result<Record, String> {
    // Fields in an array, without their names, would do for the parser.
    if line.trim_ascii_start().first() != Some(&b'{') {
        return Err("it is no JSON object".to_owned());
    }
    let line: Imported = serde_json::from_slice(line).map_err(|error| {
        // The line's own number is known better by the caller; the column is worth having.
        let text = error.to_string();
        match text.rsplit_once(" at line ") {
            Some((what, _)) => format!("{what} (column {})", error.column()),
            None => text,
        }
    })?;
    let value = match (line.value, line.value_base64) {
        (Some(text), None) => Value::from(text),
        (None, Some(coded)) => {
            BASE64_STANDARD.decode(&coded).map_err(|error| format!("value_base64: {error}"))?.into()
        }
        (None, None) => return Err("it has neither value nor value_base64".to_owned()),
        (Some(_), Some(_)) => return Err("it has both value and value_base64".to_owned()),
    };
    let deadline = line.deadline.as_deref().map(parse_deadline).transpose()?.flatten();
    Ok(Record { group: line.group, key: line.key, value, deadline, content_type: line.content_type })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let store = Store::open_in_memory().unwrap();
        let values: [&[u8]; 4] = [b"", b"dark", b"\xff\0", "päivää\n\"".as_bytes()];
        for value in values {
            store.set("", "*", value).unwrap();
            let entry = store.entry("", "*").unwrap().unwrap();
            let line = serde_json::to_vec(&exported("", &entry)).unwrap();
            let record = read(&line).unwrap();
            assert_eq!((record.group.as_str(), record.key.as_str()), ("", "*"));
            assert_eq!(record.value, value);
        }
    }

    #[test]
    fn a_bad_line_says_what_is_wrong() {
        let wrong = |line: &str| read(line.as_bytes()).unwrap_err();
        assert_eq!(wrong(r#"{"group":"g","key":"k"}"#), "it has neither value nor value_base64");
        assert!(wrong(r#"{"group":"g","key":"k","value":"v","value_base64":""}"#).contains("both"));
        assert!(wrong(r#"{"group":"g","value":"v"}"#).starts_with("missing field `key`"));
        assert!(wrong(r#"{"group":"g","key":"k","value":"v","ttl":5}"#).starts_with("unknown field `ttl`"));
        assert!(wrong(r#"{"group":"g","key":"k","value_base64":"?"}"#).starts_with("value_base64"));
        assert!(wrong(r#"{"group":"g","key":"k","value":"v","deadline":"noon"}"#).contains("no time"));
        assert!(wrong("{").contains("column 1"));
    }
}
