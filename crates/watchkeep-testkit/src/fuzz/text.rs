//! Text that comes from outside: cursors, and the lines of an import.

use std::sync::{Arc, LazyLock};

use watchkeep::{
    Clock, Cursor, ErrorKind, MAX_REVISION, ManualClock, Options, Revision, SetOptions, Store, Timestamp,
};
use watchkeep_cli::line::{self, Record};

use super::{Verdict, said};

/// Reads a cursor and a revision, and holds both against how the format describes them.
///
/// # Errors
///
/// What is read otherwise, or not written as it was read.
pub fn cursors(bytes: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(bytes) else { return Ok(()) };
    let revision = text.parse::<Revision>().ok();
    if revision.map(Revision::get) != number(text) {
        return Err(format!("{text:?} is read as {revision:?}"));
    }
    let cursor = text.parse::<Cursor>().ok();
    let parts: Vec<_> = text.splitn(3, '-').collect();
    let parts = match parts.as_slice() {
        [store, epoch, digits] => letters(store, 8).zip(letters(epoch, 6)).zip(number(digits)),
        _ => None,
    };
    let said =
        |cursor: Cursor| ((cursor.store().to_string(), cursor.epoch().to_string()), cursor.revision().get());
    let read = cursor.map(said);
    if read != parts {
        return Err(format!("{text:?} is read as {read:?}"));
    }
    match cursor {
        Some(cursor) if cursor.to_string().parse().ok() != Some(cursor) => {
            Err(format!("{cursor} is not read again"))
        }
        _ => Ok(()),
    }
}

fn letters(text: &str, len: usize) -> Option<String> {
    let letter = |one: char| one.is_ascii_digit() || (one.is_ascii_lowercase() && !"ilou".contains(one));
    (text.len() == len && text.chars().all(letter)).then(|| text.to_owned())
}

fn number(text: &str) -> Option<u64> {
    let mut number = 0_u64;
    for digit in text.chars() {
        number = number.checked_mul(10)?.checked_add(digit.to_digit(10)?.into())?;
    }
    (!text.is_empty() && number <= MAX_REVISION).then_some(number)
}

/// Reads lines of an import. Each that is an entry is written, exported and read again: it must be the same.
///
/// # Errors
///
/// Which is not.
pub fn import_lines(bytes: &[u8]) -> Verdict {
    static STORE: LazyLock<Result<Store, String>> = LazyLock::new(|| {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(Timestamp::from_millis(0)));
        Options::new().clock(clock).open_in_memory().map_err(said)
    });
    let store = STORE.as_ref().map_err(String::clone)?;
    for bytes in bytes.split(|byte| *byte == b'\n') {
        match line::read(bytes) {
            Ok(record) => there_and_back(store, &record)?,
            Err(what) if what.is_empty() => return Err(format!("{bytes:?} is refused without a word")),
            Err(_) => {}
        }
    }
    Ok(())
}

fn there_and_back(store: &Store, record: &Record) -> Verdict {
    if record.deadline.is_some_and(|deadline| deadline <= Timestamp::from_millis(0)) {
        return Ok(());
    }
    let options =
        record.deadline.map_or_else(SetOptions::new, |deadline| SetOptions::new().expires_at(deadline));
    let options = match &record.content_type {
        Some(content_type) => options.content_type(content_type),
        None => options,
    };
    match store.set_with(&record.group, &record.key, &record.value, options) {
        Ok(_) => {}
        Err(error) => {
            return match error.kind() {
                ErrorKind::InvalidName | ErrorKind::TooLarge | ErrorKind::InvalidArgument => Ok(()),
                _ => Err(format!("{record:?}: {error:?}")),
            };
        }
    }
    let entry = store.entry(&record.group, &record.key).map_err(said)?;
    let entry = entry.ok_or_else(|| format!("{record:?} is not there"))?;
    let text = serde_json::to_vec(&line::exported(&record.group, &entry)).map_err(said)?;
    store.delete_group(&record.group).map_err(said)?;
    match line::read(&text) {
        Ok(again) if again == *record => Ok(()),
        again => Err(format!("{record:?} comes back as {again:?}")),
    }
}
