//! Batches: what is written, as plain data.

use std::fmt;
use std::time::Duration;

use super::error::{Error, Reason, Result};
use super::filter::Filter;
use super::limits::{MAX_BATCH_BYTES, MAX_BATCH_OPERATIONS, MAX_FILTER_PARTS, MAX_REVISION};
use super::name::Scope;
use super::revision::{Cursor, Revision, StoreId};
use super::value::Value;
use super::writing::{DeleteOptions, Expected, SetOptions, Ttl};

/// A write as plain data: conditions, and operations that all happen, or none of them.
///
/// All conditions are judged first, against the store as it is before the first operation; an entry whose deadline has
/// come is not there. Conditions in the options of an operation ([`SetOptions::if_absent`]) are judged with them. The
/// operations follow in their order. Names are those that the handle knows which [applies](crate::Store::apply) it; a
/// batch says neither in whose namespace it writes nor under which label.
///
/// At most [`MAX_BATCH_OPERATIONS`](crate::MAX_BATCH_OPERATIONS) conditions and operations together,
/// [`MAX_BATCH_BYTES`](crate::MAX_BATCH_BYTES) of names and values, and [`MAX_FILTER_PARTS`](crate::MAX_FILTER_PARTS)
/// filters that must be [unchanged](Condition::unchanged), of a union each of its parts.
///
/// ```
/// use watchkeep::{Batch, Condition, ErrorKind, Outcome, Store};
/// let store = Store::open_in_memory()?;
/// let apples = store.set("stock", "apples", "3")?;
///
/// let order = Batch::new()
///     .require(Condition::at("stock", "apples", store.cursor(apples)))
///     .require(Condition::absent("orders", "7"))
///     .set("stock", "apples", "2")
///     .set("orders", "7", "1 apple");
/// let applied = store.apply(order.clone())?;
/// assert_eq!(applied.outcomes.len(), 2);
/// assert_eq!(applied.outcomes[1], Outcome::Set(applied.revision));
///
/// // Once more: neither condition holds any longer.
/// let refused = store.apply(order).unwrap_err();
/// assert_eq!(refused.kind(), ErrorKind::Conflict);
/// assert_eq!(refused.unmet().iter().map(|unmet| unmet.condition).collect::<Vec<_>>(), [0, 1]);
/// # Ok::<(), watchkeep::Error>(())
/// ```
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Batch {
    pub(crate) id: Option<BatchId>,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) operations: Vec<Operation>,
}

/// Which batch of which client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BatchId {
    pub(crate) client: String,
    pub(crate) sequence: u64,
}

/// One operation of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operation {
    Set {
        group: String,
        key: String,
        value: Value,
        ttl: Ttl,
        /// Of a write of its own, and in a transaction's closure: judged at the operation.
        expected: Option<Expected>,
        content_type: Option<String>,
    },
    Delete {
        group: String,
        key: String,
        expected: Option<Expected>,
    },
    DeleteGroup {
        group: String,
    },
    /// Every group whose name starts so.
    DeletePrefix {
        prefix: String,
    },
    /// Gives an entry a new deadline, or none.
    Touch {
        group: String,
        key: String,
        ttl: Option<Duration>,
    },
}

/// What must hold before a [`Batch`] for it to be applied.
///
/// ```
/// use watchkeep::{Batch, Condition, Filter, Store};
/// let store = Store::open_in_memory()?;
/// let read = store.cursor(store.set("stock", "apples", "3")?);
/// store.set("orders", "7", "1 apple")?;
/// // Nothing of what was read has changed since.
/// let batch = Batch::new().require(Condition::unchanged(Filter::group("stock"), read)).delete("stock", "apples");
/// assert!(store.apply(batch.clone()).is_ok());
/// assert!(store.apply(batch).is_err());
/// # Ok::<(), watchkeep::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition(pub(crate) Must);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Must {
    /// The entry is as expected; the cursor is that of the revision, where it came from outside.
    Entry { group: String, key: String, be: Expected, at: Option<Cursor> },
    /// The group holds a key, or none.
    Group { group: String, present: bool },
    /// No event of these came after this.
    Unchanged { filter: Filter, since: Cursor },
}

impl Condition {
    fn entry(
        group: impl Into<String>,
        key: impl Into<String>,
        be: Expected,
        at: Option<Cursor>,
    ) -> Condition {
        Condition(Must::Entry { group: group.into(), key: key.into(), be, at })
    }

    /// The key is not there.
    pub fn absent(group: impl Into<String>, key: impl Into<String>) -> Condition {
        Condition::entry(group, key, Expected::Absent, None)
    }

    /// The key is there, at whatever revision.
    pub fn present(group: impl Into<String>, key: impl Into<String>) -> Condition {
        Condition::entry(group, key, Expected::Present, None)
    }

    /// The entry has the revision of this cursor. A batch whose cursor stands for no event of the store is refused.
    pub fn at(group: impl Into<String>, key: impl Into<String>, cursor: Cursor) -> Condition {
        Condition::entry(group, key, Expected::At(cursor.revision()), Some(cursor))
    }

    /// The group holds no key.
    pub fn group_absent(group: impl Into<String>) -> Condition {
        Condition(Must::Group { group: group.into(), present: false })
    }

    /// The group holds a key.
    pub fn group_present(group: impl Into<String>) -> Condition {
        Condition(Must::Group { group: group.into(), present: true })
    }

    /// No event that the filter lets through came after this cursor: what was read there is still so.
    ///
    /// An entry whose deadline has come by then has changed, too.
    ///
    /// It is judged by the change log, of which at most [`MAX_UNCHANGED_EVENTS`](crate::MAX_UNCHANGED_EVENTS) are looked
    /// at: with more after the cursor, or with a log that was trimmed since, it does not hold. A filter lets changes of
    /// deadlines through only when its [`kinds`](Filter::kinds) name [`Touch`](crate::Kind::Touch).
    pub fn unchanged(filter: Filter, since: Cursor) -> Condition {
        Condition(Must::Unchanged { filter, since })
    }

    /// The same under the names that stand in the file.
    fn within(self, scope: &Scope) -> Condition {
        Condition(match self.0 {
            Must::Entry { group, key, be, at } => Must::Entry { group: scope.full(&group), key, be, at },
            Must::Group { group, present } => Must::Group { group: scope.full(&group), present },
            Must::Unchanged { filter, since } => {
                Must::Unchanged { filter: filter.within(|group| scope.full(group)), since }
            }
        })
    }

    fn store(&self) -> Option<StoreId> {
        match &self.0 {
            Must::Entry { at, .. } => at.map(|at| at.store()),
            Must::Group { .. } => None,
            Must::Unchanged { since, .. } => Some(since.store()),
        }
    }

    fn weight(&self) -> usize {
        match &self.0 {
            Must::Entry { group, key, .. } => group.len() + key.len(),
            Must::Group { group, .. } => group.len(),
            Must::Unchanged { filter, .. } => filter.weight(),
        }
    }
}

impl Operation {
    /// What it weighs, to bound a batch and a group commit.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Operation::Set { group, key, value, .. } => group.len() + key.len() + value.len(),
            Operation::Delete { group, key, .. } | Operation::Touch { group, key, .. } => {
                64 + group.len() + key.len()
            }
            Operation::DeleteGroup { group: name } | Operation::DeletePrefix { prefix: name } => {
                64 + name.len()
            }
        }
    }

    /// The same under the names that stand in the file.
    pub(crate) fn within(mut self, scope: &Scope) -> Operation {
        if !scope.is_whole() {
            let (Operation::Set { group: name, .. }
            | Operation::Delete { group: name, .. }
            | Operation::DeleteGroup { group: name }
            | Operation::DeletePrefix { prefix: name }
            | Operation::Touch { group: name, .. }) = &mut self;
            *name = scope.full(name);
        }
        self
    }

    pub(crate) fn set(group: &str, key: &str, value: Value, options: SetOptions) -> Operation {
        let SetOptions { expected, ttl, content_type } = options;
        Operation::Set { group: group.to_owned(), key: key.to_owned(), value, ttl, expected, content_type }
    }

    pub(crate) fn delete(group: &str, key: &str, options: &DeleteOptions) -> Operation {
        Operation::Delete { group: group.to_owned(), key: key.to_owned(), expected: options.expected }
    }

    pub(crate) fn delete_group(group: &str) -> Operation {
        Operation::DeleteGroup { group: group.to_owned() }
    }

    pub(crate) fn delete_prefix(prefix: &str) -> Operation {
        Operation::DeletePrefix { prefix: prefix.to_owned() }
    }

    pub(crate) fn touch(group: &str, key: &str, ttl: Option<Duration>) -> Operation {
        Operation::Touch { group: group.to_owned(), key: key.to_owned(), ttl }
    }
}

impl From<Operation> for Batch {
    fn from(operation: Operation) -> Batch {
        Batch { id: None, conditions: Vec::new(), operations: vec![operation] }
    }
}

impl Batch {
    /// Nothing yet.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Only if this holds before it.
    #[must_use]
    pub fn require(mut self, condition: Condition) -> Batch {
        self.conditions.push(condition);
        self
    }

    /// Makes the batch safe to repeat: one with the same id is applied once, and answered once more with what it did.
    ///
    /// Whoever does not know whether a batch was applied, after an [`UnknownOutcome`](crate::ErrorKind::UnknownOutcome)
    /// or a broken connection, applies the same batch with the same id again. A client has a name of its own within the
    /// namespace (letters, digits, hyphens, dots and underscores, 1 to 128 of them) and numbers its batches upwards, up to
    /// [`MAX_REVISION`](crate::MAX_REVISION). Its last 64 answers are kept in the file, for 24 hours; a batch that was
    /// refused leaves none, and is judged anew.
    ///
    /// ```
    /// use watchkeep::{Batch, Store};
    /// let store = Store::open_in_memory()?;
    /// let batch = Batch::new().id("worker-3", 1).set("jobs", "7", "done");
    /// let first = store.apply(batch.clone())?;
    /// let again = store.apply(batch)?;
    /// assert!(!first.repeated && again.repeated);
    /// assert_eq!((again.revision, again.outcomes), (first.revision, first.outcomes));
    /// # Ok::<(), watchkeep::Error>(())
    /// ```
    #[must_use]
    pub fn id(mut self, client: impl Into<String>, sequence: u64) -> Batch {
        self.id = Some(BatchId { client: client.into(), sequence });
        self
    }

    fn and(mut self, operation: Operation) -> Batch {
        self.operations.push(operation);
        self
    }

    /// The condition in the options of an operation, which is judged with the others.
    fn expect(self, group: &str, key: &str, expected: Option<Expected>) -> Batch {
        match expected {
            Some(be) => self.require(Condition::entry(group, key, be, None)),
            None => self,
        }
    }

    /// Writes an entry, without a deadline.
    #[must_use]
    pub fn set(self, group: &str, key: &str, value: impl Into<Value>) -> Batch {
        self.set_with(group, key, value, SetOptions::new())
    }

    /// Writes an entry under a condition, with a time to live, with a content type. The time to live counts from the
    /// moment of its commit.
    #[must_use]
    pub fn set_with(self, group: &str, key: &str, value: impl Into<Value>, mut options: SetOptions) -> Batch {
        let expected = options.expected.take();
        self.expect(group, key, expected).and(Operation::set(group, key, value.into(), options))
    }

    /// Deletes an entry, if it is there.
    #[must_use]
    pub fn delete(self, group: &str, key: &str) -> Batch {
        self.delete_with(group, key, DeleteOptions::new())
    }

    /// Deletes an entry under a condition.
    #[must_use]
    pub fn delete_with(self, group: &str, key: &str, options: DeleteOptions) -> Batch {
        self.expect(group, key, options.expected).and(Operation::delete(group, key, &DeleteOptions::new()))
    }

    /// Deletes a group with all its entries, as one event.
    #[must_use]
    pub fn delete_group(self, group: &str) -> Batch {
        self.and(Operation::delete_group(group))
    }

    /// Deletes all groups whose name starts so. An empty prefix, which would delete everything, is refused.
    #[must_use]
    pub fn delete_prefix(self, group_prefix: &str) -> Batch {
        self.and(Operation::delete_prefix(group_prefix))
    }

    /// Gives an entry a new deadline, if it is there. The time to live counts from the moment of its commit.
    #[must_use]
    pub fn touch(self, group: &str, key: &str, ttl: Duration) -> Batch {
        self.and(Operation::touch(group, key, Some(ttl)))
    }

    /// Takes an entry's deadline away, if it is there.
    #[must_use]
    pub fn persist(self, group: &str, key: &str) -> Batch {
        self.and(Operation::touch(group, key, None))
    }

    /// Whether it changes nothing and asks for nothing.
    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty() && self.operations.is_empty()
    }

    /// What it weighs, to bound a group commit.
    pub(crate) fn weight(&self) -> usize {
        let conditions = self.conditions.iter().map(Condition::weight);
        conditions.chain(self.operations.iter().map(Operation::weight)).sum()
    }

    /// Whether it is one operation that refuses before its first change: it needs nothing to fall back to.
    pub(crate) fn is_single(&self) -> bool {
        self.id.is_none() && self.conditions.is_empty() && self.operations.len() == 1
    }

    /// The batch as it is applied to a store, under the names that stand in the file.
    ///
    /// # Errors
    ///
    /// `TooLarge`; `ForeignCursor` for a condition of another store; `InvalidArgument` for an empty prefix to delete, and
    /// for a sequence that is too large; `InvalidName` for a client's name.
    pub(crate) fn admitted(self, store: StoreId, scope: &Scope) -> Result<Batch> {
        let (many, bytes) = (self.conditions.len() + self.operations.len(), self.weight());
        for (what, len, limit) in [
            ("batch's list of conditions and operations", many, MAX_BATCH_OPERATIONS),
            ("batch", bytes, MAX_BATCH_BYTES),
        ] {
            if len > limit {
                return Err(Reason::BatchTooLarge { what, len, limit }.into());
            }
        }
        let parts = self.conditions.iter().map(|Condition(must)| match must {
            Must::Unchanged { filter, .. } => filter.parts().len(),
            _ => 0,
        });
        let parts = parts.sum();
        if parts > MAX_FILTER_PARTS {
            // Each looks at the log while others wait.
            let what = "batch's filters that must be unchanged";
            return Err(Reason::BatchTooLarge { what, len: parts, limit: MAX_FILTER_PARTS }.into());
        }
        if let Some(theirs) =
            self.conditions.iter().filter_map(Condition::store).find(|theirs| *theirs != store)
        {
            return Err(Reason::ForeignCursor { theirs, ours: store }.into());
        }
        let all = |operation: &Operation| matches!(operation, Operation::DeletePrefix { prefix } if prefix.is_empty());
        if self.operations.iter().any(all) {
            let what = "an empty prefix deletes every group; name the groups, or a longer prefix".to_owned();
            return Err(Reason::Invalid { what }.into());
        }
        let id = self.id.map(|id| {
            if id.sequence > MAX_REVISION {
                let what = format!(
                    "the sequence {} is larger than {MAX_REVISION}; begin anew as another client",
                    id.sequence
                );
                return Err(Error::from(Reason::Invalid { what }));
            }
            Ok(BatchId { client: scope.client(&id.client)?, ..id })
        });
        let id = id.transpose()?;
        if scope.is_whole() {
            return Ok(Batch { id, ..self });
        }
        Ok(Batch {
            id,
            conditions: self.conditions.into_iter().map(|condition| condition.within(scope)).collect(),
            operations: self.operations.into_iter().map(|operation| operation.within(scope)).collect(),
        })
    }
}

/// What an operation of a [`Batch`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The entry was set, and has this revision.
    Set(Revision),
    /// Whether the entry that was to be deleted or touched was there.
    Was(bool),
    /// How many keys the deleted groups held.
    Keys(u64),
}

impl Outcome {
    /// Of a deletion, or of a new deadline: whether the entry was there.
    pub(crate) fn was_there(self) -> bool {
        self.keys() > 0
    }

    /// How many keys it concerned.
    pub(crate) fn keys(self) -> u64 {
        match self {
            Outcome::Keys(keys) => keys,
            Outcome::Was(was) => u64::from(was),
            Outcome::Set(_) => 1,
        }
    }
}

/// A [`Batch`] that was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Applied {
    /// The revision of its last event; of the store, when it changed nothing.
    pub revision: Revision,
    /// What each operation did, in their order.
    pub outcomes: Vec<Outcome>,
    /// Whether it had been applied before, under the same [id](Batch::id), and nothing was done now.
    pub repeated: bool,
}

/// A condition of a [`Batch`] that did not hold: see [`Error::unmet`](crate::Error::unmet).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unmet {
    /// Its place among the conditions, from 0. Conditions in the options of operations count where they were added.
    pub condition: usize,
    /// The entry's revision, if it is there. Of [`Condition::unchanged`]: the first change that was found.
    pub current: Option<Revision>,
    /// Of [`Condition::unchanged`]: whether too much happened since to tell.
    pub is_too_old: bool,
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "condition {}: ", self.condition)?;
        match (self.current, self.is_too_old) {
            (_, true) => f.write_str("too much happened since to tell"),
            (Some(revision), _) => write!(f, "it is at revision {revision}"),
            (None, _) => f.write_str("it is not there"),
        }
    }
}
