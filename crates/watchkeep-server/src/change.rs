//! A change, encoded once for everybody who is told of it.

use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes, BytesMut};
use watchkeep::{Event, Revision, StoreId, json};

use crate::gate::Position;

const DATA: &[u8] = b"data: ";
const END: &[u8] = b"\n\n";

/// How much of a value a client is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Values {
    All,
    /// The length of each.
    None,
    /// Values up to so many bytes; of longer ones their length.
    UpTo(usize),
}

/// A change with the forms in which it goes out, each made when it is first asked for.
#[derive(Debug)]
pub(crate) struct Change {
    event: Event,
    at: Position,
    store: StoreId,
    whole: OnceLock<Form>,
    /// With the length of its value instead of the value.
    short: OnceLock<Form>,
}

/// A frame of server-sent events. Its data is the JSON object, which is also what other ways send.
#[derive(Debug, Clone)]
struct Form {
    frame: Bytes,
    data: usize,
}

impl Change {
    pub(crate) fn new(event: Event, at: Position, store: StoreId) -> Arc<Change> {
        Arc::new(Change { event, at, store, whole: OnceLock::new(), short: OnceLock::new() })
    }

    pub(crate) fn revision(&self) -> Revision {
        self.event.revision()
    }

    pub(crate) fn at(&self) -> &Position {
        &self.at
    }

    /// The label of who wrote it.
    pub(crate) fn origin(&self) -> Option<&str> {
        self.event.origin()
    }

    /// What it weighs in memory, about.
    pub(crate) fn weight(&self) -> usize {
        256 + self.event.value().map_or(0, |value| 2 * value.len())
    }

    /// The frame of a stream; before `ready` it has no id.
    pub(crate) fn frame(&self, values: Values, with_id: bool) -> Bytes {
        let form = self.form(values);
        if with_id { form.frame.clone() } else { form.frame.slice(form.data - DATA.len()..) }
    }

    /// The JSON object: the one that `watchkeep watch --json` prints.
    pub(crate) fn json(&self, values: Values) -> Bytes {
        let form = self.form(values);
        form.frame.slice(form.data..form.frame.len() - END.len())
    }

    fn form(&self, values: Values) -> &Form {
        match (values, self.event.value()) {
            (Values::None, Some(value)) => self.short.get_or_init(|| self.encode(Some(value.len()))),
            (Values::UpTo(most), Some(value)) if value.len() > most => {
                self.short.get_or_init(|| self.encode(Some(value.len())))
            }
            _ => self.whole.get_or_init(|| self.encode(None)),
        }
    }

    fn encode(&self, instead: Option<usize>) -> Form {
        let mut object = json::event(&self.event, self.store);
        if let (Some(len), Some(object)) = (instead, object.as_object_mut()) {
            object.retain(|name, _| name != "value" && name != "value_base64");
            object.insert("value_bytes".into(), len.into());
        }
        let (id, json) = (format!("id: {}\n", self.at), object.to_string());
        let mut frame = BytesMut::with_capacity(id.len() + DATA.len() + json.len() + END.len());
        for part in [id.as_bytes(), DATA, json.as_bytes(), END] {
            frame.put_slice(part);
        }
        Form { data: id.len() + DATA.len(), frame: frame.freeze() }
    }
}

#[cfg(test)]
mod tests {
    use watchkeep::Store;

    use super::*;

    #[test]
    fn one_encoding_serves_all_forms() -> Result<(), watchkeep::Error> {
        let store = Store::open_in_memory()?;
        let mut watcher = store.watch("*", "*");
        let at = store.cursor(store.set("g", "k", "a\nb")?).to_string();
        let Some(event) = watcher.recv().transpose()? else { return Ok(()) };
        let change = Change::new(event, Position::from(at.clone()), store.id());
        let json = String::from_utf8_lossy(&change.json(Values::All)).into_owned();
        assert!(json.starts_with('{') && json.ends_with('}') && json.contains(r#""value":"a\nb""#), "{json}");
        assert_eq!(change.frame(Values::All, true), format!("id: {at}\ndata: {json}\n\n"));
        assert_eq!(change.frame(Values::UpTo(3), false), format!("data: {json}\n\n"));
        let short = String::from_utf8_lossy(&change.json(Values::UpTo(2))).into_owned();
        assert!(short.contains(r#""value_bytes":3"#) && !short.contains(r#""value":"#), "{short}");
        Ok(())
    }
}
