//! Revisions, and cursors: revisions that may leave the process.

use std::fmt;
use std::str::FromStr;

use super::error::{Error, Reason, Result};
use super::limits::MAX_REVISION;

/// The number of an event: strictly increasing over the whole store, at most 2^53 − 1.
///
/// Zero stands for "before the first event". Revisions are ordered, not dense: only the order of two of them says
/// something. A power cut may take the last events of a file with relaxed durability, and their numbers come again then;
/// a [`Cursor`] tells one from the other.
///
/// ```
/// use watchkeep::{Revision, Store};
/// let store = Store::open_in_memory()?;
/// let first = store.set("config", "theme", "dark")?;
/// assert!(first > Revision::ZERO);
/// # Ok::<(), watchkeep::Error>(())
/// ```
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(u64);

impl Revision {
    /// Before the first event.
    pub const ZERO: Revision = Revision(0);

    /// The revision with this number; numbers above 2^53 − 1 are cut to it.
    pub const fn new(number: u64) -> Revision {
        Revision(if number > MAX_REVISION { MAX_REVISION } else { number })
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The revision after this one, or none after the last.
    pub(crate) fn next(self) -> Option<Revision> {
        (self.0 < MAX_REVISION).then_some(Revision(self.0 + 1))
    }

    pub(crate) fn as_i64(self) -> i64 {
        // At most 2^53 - 1 by construction.
        self.0.cast_signed()
    }

    /// From a column of the file: what is negative or too large there is damage.
    pub(crate) fn from_i64(number: i64) -> Result<Revision> {
        match u64::try_from(number) {
            Ok(number) if number <= MAX_REVISION => Ok(Revision(number)),
            _ => Err(Reason::Corrupt { what: format!("{number} is no revision") }.into()),
        }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Revision> for u64 {
    fn from(revision: Revision) -> u64 {
        revision.0
    }
}

/// The identity of a store: drawn when its file is made, and again when it is restored from a backup.
///
/// Eight characters of `0-9a-z` without `i`, `l`, `o` and `u`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StoreId([u8; 8]);

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

impl StoreId {
    /// What the models' engine has.
    #[cfg(all(test, any(loom, shuttle)))]
    pub(crate) const MODEL: StoreId = StoreId(*b"00000000");

    /// Drawn by the operating system: that two stores differ is all that keeps one from taking the other's cursors.
    pub(crate) fn random() -> Result<StoreId> {
        Ok(StoreId(letters()?))
    }

    /// The identity as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

fn letters<const N: usize>() -> Result<[u8; N]> {
    let letter = |byte: u8| ALPHABET.get(usize::from(byte) % ALPHABET.len()).copied().unwrap_or(b'0');
    Ok(random()?.map(letter))
}

fn parse_letters<const N: usize>(text: &str) -> Option<[u8; N]> {
    let letters = <[u8; N]>::try_from(text.as_bytes()).ok()?;
    letters.iter().all(|letter| ALPHABET.contains(letter)).then_some(letters)
}

/// Bytes drawn by the operating system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|cause| Reason::Io {
        what: "the operating system draws no random numbers; see that getrandom or /dev/urandom works"
            .to_owned(),
        cause: std::io::Error::other(cause),
    })?;
    Ok(bytes)
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for StoreId {
    type Err = Error;

    fn from_str(text: &str) -> Result<StoreId> {
        parse_letters(text).map(StoreId).ok_or_else(|| Reason::BadCursor { text: text.to_owned() }.into())
    }
}

/// A span of revisions between two boots of the machine, or two copies of the file, in which it was written: part of
/// each [`Cursor`].
///
/// Six characters of `0-9a-z` without `i`, `l`, `o` and `u`, drawn by the operating system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch([u8; 6]);

impl Epoch {
    /// Of no store.
    pub(crate) const NONE: Epoch = Epoch(*b"000000");

    pub(crate) fn random() -> Result<Epoch> {
        Ok(Epoch(letters()?))
    }

    /// The epoch as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Epoch {
    type Err = Error;

    fn from_str(text: &str) -> Result<Epoch> {
        parse_letters(text).map(Epoch).ok_or_else(|| Reason::BadCursor { text: text.to_owned() }.into())
    }
}

/// A revision that may leave the process, as `<store id>-<epoch>-<revision>`.
///
/// This is the form for everything outside the process: command lines, files, the `id` of a browser's event
/// stream. It never means two things: another store refuses it, the same store restored from a backup does, and so does a
/// store whose power was cut before the event was on the disk. [`Store::cursor`](crate::Store::cursor) makes one.
///
/// ```
/// use watchkeep::{Cursor, ErrorKind, Filter, Store, WatchOptions};
/// let store = Store::open_in_memory()?;
/// let cursor = store.cursor(store.set("config", "theme", "dark")?);
/// let text = cursor.to_string();
/// assert_eq!(text.parse::<Cursor>()?, cursor);
///
/// let other = Store::open_in_memory()?;
/// let refused = other.watch_with(Filter::everything(), WatchOptions::new().after_cursor(cursor));
/// assert_eq!(refused.unwrap_err().kind(), ErrorKind::ForeignCursor);
/// # Ok::<(), watchkeep::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cursor {
    store: StoreId,
    epoch: Epoch,
    revision: Revision,
}

impl Cursor {
    pub(crate) const fn new(store: StoreId, epoch: Epoch, revision: Revision) -> Cursor {
        Cursor { store, epoch, revision }
    }

    /// The store that the cursor belongs to.
    pub const fn store(&self) -> StoreId {
        self.store
    }

    /// Refuses the cursor of another store.
    pub(crate) fn refuse_foreign(&self, ours: StoreId) -> Result<()> {
        let theirs = self.store;
        if theirs == ours { Ok(()) } else { Err(Reason::ForeignCursor { theirs, ours }.into()) }
    }

    /// The epoch in which its revision was given.
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The revision.
    pub const fn revision(&self) -> Revision {
        self.revision
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.store, self.epoch, self.revision)
    }
}

impl FromStr for Cursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Cursor> {
        let parse = || {
            let (store, rest) = text.split_once('-')?;
            let (epoch, revision) = rest.split_once('-')?;
            Some(Cursor {
                store: StoreId(parse_letters(store)?),
                epoch: Epoch(parse_letters(epoch)?),
                revision: parse_revision(revision)?,
            })
        };
        parse().ok_or_else(|| Reason::BadCursor { text: text.to_owned() }.into())
    }
}

impl FromStr for Revision {
    type Err = Error;

    fn from_str(text: &str) -> Result<Revision> {
        parse_revision(text).ok_or_else(|| Reason::BadRevision { text: text.to_owned() }.into())
    }
}

/// Digits only: what `u64` reads besides, a sign, is no cursor that we wrote.
fn parse_revision(text: &str) -> Option<Revision> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|&number| number <= MAX_REVISION).map(Revision)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_come_from_the_operating_system() -> Result<()> {
        // Machines that were started from one image may be alike in everything else.
        fastrand::seed(7);
        let first = StoreId::random()?;
        fastrand::seed(7);
        assert_ne!(first, StoreId::random()?);
        assert_eq!(first.as_str().parse::<StoreId>()?, first);
        Ok(())
    }

    #[test]
    fn a_cursor_survives_its_text_and_nothing_else_parses() -> Result<()> {
        let cursor = Cursor::new(StoreId::random()?, Epoch::random()?, Revision::new(77));
        assert_eq!(cursor.to_string().parse::<Cursor>()?, cursor);
        for bad in [
            "",
            "-",
            "7",
            "k3v9x2mq-7",
            "k3v9-4fz8ab-7",
            "k3v9x2mq-4fz8a-7",
            "k3v9x2mq-4fz8ab-",
            "k3v9x2mq-4fz8ab-+7",
            "k3v9x2mq-4fz8ab--7",
            "k3v9x2mi-4fz8ab-7",
            "k3v9x2mq-4fz8al-7",
            "k3v9x2mq-4fz8ab-9007199254740992",
        ] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad:?} parsed");
        }
        Ok(())
    }

    #[test]
    fn the_last_revision_has_no_next() {
        assert_eq!(Revision::new(u64::MAX).get(), MAX_REVISION);
        assert_eq!(Revision::new(MAX_REVISION).next(), None);
        assert!(Revision::from_i64(-1).is_err());
        assert!(Revision::from_i64(i64::MAX).is_err());
    }
}
