//! A change, encoded once for everybody who is told of it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use bytes::{BufMut, Bytes, BytesMut};
use watchkeep::{Cursor, Event, Revision, Store, Value, json};

use crate::gate::Position;

const DATA: &[u8] = b"data: ";
const END: &[u8] = b"\n\n";
/// What a change weighs besides its value, about.
const OVERHEAD: usize = 512;

/// How much of a value a client is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Values {
    All,
    /// The length of each.
    None,
    /// Values up to so many bytes; of longer ones their length.
    UpTo(usize),
}

/// The changes that somebody holds: each is made and encoded once, however many rings and clients have it.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    known: Mutex<HashMap<Revision, Weak<Change>>>,
    /// What they weigh, with those of other namespaces of the same file.
    bytes: Arc<AtomicUsize>,
}

impl Changes {
    /// Those of another namespace of the same file.
    pub(crate) fn beside(&self) -> Changes {
        Changes { known: Mutex::default(), bytes: self.bytes.clone() }
    }

    pub(crate) fn share(self: &Arc<Self>, event: Event, store: &Store) -> Arc<Change> {
        // What a snapshot tells of an entry is not the same at all times.
        if event.is_snapshot() {
            return Arc::new(Change::new(event, store, self));
        }
        let mut known = self.known();
        if let Some(change) = known.get(&event.revision()).and_then(Weak::upgrade) {
            return change;
        }
        let change = Arc::new(Change::new(event, store, self));
        known.insert(change.revision(), Arc::downgrade(&change));
        change
    }

    /// What those of the whole file weigh in memory, about.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Revision, Weak<Change>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A change with the forms in which it goes out, each made when it is first asked for.
#[derive(Debug)]
pub(crate) struct Change {
    event: Event,
    at: Position,
    cursor: Cursor,
    weight: usize,
    whole: OnceLock<Form>,
    /// With the length of its value instead of the value.
    short: OnceLock<Form>,
    among: Arc<Changes>,
}

/// A frame of server-sent events. Its data is the JSON object, which is also what other ways send.
#[derive(Debug, Clone)]
struct Form {
    frame: Bytes,
    data: usize,
}

impl Drop for Change {
    fn drop(&mut self) {
        self.among.bytes.fetch_sub(self.weight, Ordering::Relaxed);
        let mut known = self.among.known();
        // Another may have its place already.
        if known.get(&self.revision()).is_some_and(|change| change.strong_count() == 0) {
            known.remove(&self.revision());
        }
    }
}

impl Change {
    fn new(event: Event, store: &Store, among: &Arc<Changes>) -> Change {
        let cursor = store.cursor(event.revision());
        let weight = OVERHEAD + event.value().map_or(0, |value| value.len() + encoded_len(value));
        among.bytes.fetch_add(weight, Ordering::Relaxed);
        let (whole, short, among) = (OnceLock::new(), OnceLock::new(), among.clone());
        Change { event, at: cursor.into(), cursor, weight, whole, short, among }
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
        self.weight
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
        let mut object = json::event(&self.event, self.cursor);
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

/// How long a value is in JSON, about.
fn encoded_len(value: &Value) -> usize {
    match value.as_str() {
        Some(text) => text.bytes().map(|byte| if byte < b' ' { 6 } else { 1 }).sum(),
        None => value.len() / 3 * 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_encoding_serves_all_forms() -> Result<(), watchkeep::Error> {
        let store = Store::open_in_memory()?;
        let mut watcher = store.watch("*", "*");
        let at = store.cursor(store.set("g", "k", "a\nb")?).to_string();
        let Some(event) = watcher.recv().transpose()? else { return Ok(()) };
        let changes = Arc::new(Changes::default());
        let change = changes.share(event.clone(), &store);
        assert!(Arc::ptr_eq(&change, &changes.share(event, &store)));
        let json = String::from_utf8_lossy(&change.json(Values::All)).into_owned();
        assert!(json.starts_with('{') && json.ends_with('}') && json.contains(r#""value":"a\nb""#), "{json}");
        assert_eq!(change.frame(Values::All, true), format!("id: {at}\ndata: {json}\n\n"));
        assert_eq!(change.frame(Values::UpTo(3), false), format!("data: {json}\n\n"));
        let short = String::from_utf8_lossy(&change.json(Values::UpTo(2))).into_owned();
        assert!(short.contains(r#""value_bytes":3"#) && !short.contains(r#""value":"#), "{short}");
        let beside = Arc::new(changes.beside());
        assert!(changes.bytes() > 0 && beside.bytes() == changes.bytes() && beside.known().is_empty());
        drop(change);
        assert!(changes.bytes() == 0 && changes.known().is_empty());
        Ok(())
    }
}
