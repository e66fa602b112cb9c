//! Bad bytes: bits that flip, a log that is cut short, files that are exchanged.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use watchkeep::{
    Clock, Durability, Event, Filter, Kind, ManualClock, Options, Revision, Store, StoreId, Timestamp,
    WatchOptions,
};
use watchkeep_faultdisk::Image;

use super::verify::{Judge, verify};
use super::{FILE, Ledger, Row, Stage, Workload, scratch};
use crate::ops::{Choices, Dice};
use crate::record::{Cell, Log, Seen};
use crate::surface::Fault;

/// A store's files as they were, and what is in them.
#[derive(Debug)]
pub struct Sound {
    /// The files of a store that was closed: all is in the one file.
    pub closed: Image,
    /// The files of a store that is in use: the newest is in the write-ahead log.
    pub used: Image,
    closed_ledger: Ledger,
    used_ledger: Ledger,
    id: StoreId,
    now: Timestamp,
}

impl Sound {
    /// A store that was used for a while, the same for the same seed.
    ///
    /// # Errors
    ///
    /// When it could not be.
    pub fn new(seed: u64) -> Result<Sound, Fault> {
        Sound::made(seed, true)
    }

    /// The same, but all that it ever wrote is in its write-ahead log, also who it is.
    ///
    /// # Errors
    ///
    /// When it could not be.
    pub fn young(seed: u64) -> Result<Sound, Fault> {
        Sound::made(seed, false)
    }

    fn made(seed: u64, was_closed_once: bool) -> Result<Sound, Fault> {
        let mut stage = Stage::new(Workload::Puts, Durability::Full)?;
        let mut dice = Dice::new(seed);
        stage.reopen()?;
        for step in 0..80 {
            match step % 4 {
                0 => stage.step_of(Workload::Transactions, step, &mut dice).0?,
                1 if step < 40 => stage.step_of(Workload::Expiry, step, &mut dice).0?,
                _ => stage.step(step, &mut dice).0?,
            }
            if step == 60 && was_closed_once {
                stage.reopen()?;
            }
        }
        let (used, used_ledger) = (stage.recording().whole_at(usize::MAX), stage.ledger().clone());
        let id = stage.store().ok_or("no store")?.id();
        stage.close();
        let (closed, closed_ledger) = (stage.recording().whole_at(usize::MAX), stage.ledger().clone());
        Ok(Sound { closed, used, closed_ledger, used_ledger, id, now: stage.now() })
    }

    /// The write-ahead log of the store in use.
    pub fn write_ahead_log(&self) -> &[u8] {
        self.used.files.get(&format!("{FILE}-wal")).map_or(&[], Vec::as_slice)
    }
}

/// What a damaged store showed.
#[derive(Debug, Default)]
struct Shown {
    refused: bool,
    /// A wrong event, or one missing between others, as good.
    lie: Option<String>,
    /// The beginning of the log is missing, as if it were trimmed.
    begins_late: bool,
    /// Events at the end are missing, as if there were none.
    shortened: bool,
    /// An entry that is not what was written, as good.
    wrong_entry: Option<String>,
    /// Who it says it is; the cursors of any other are refused.
    id: Option<StoreId>,
    /// An error somewhere.
    told: bool,
    /// What `check` found.
    found: bool,
}

/// Flips a bit of a closed store's file at random, so many times, each time of a sound file.
///
/// # Errors
///
/// When the folder cannot be written.
pub fn flip_file(sound: &Sound, seed: u64, flips: u64) -> Result<Row, Fault> {
    let truth = Truth::new(&sound.closed_ledger);
    let (mut dice, folder, mut row) = (Dice::new(seed), scratch()?, Row::default());
    for _ in 0..flips {
        let (image, place) = flipped(&sound.closed, FILE, &mut dice);
        image.write_to(folder.path())?;
        let path = folder.path().join(FILE);
        match catch_unwind(AssertUnwindSafe(|| truth.ask(&path, sound.now))) {
            Ok(shown) => shown.note(&mut row, seed, &place),
            Err(_) => row.wrong(seed, format!("{place}: a panic")),
        }
    }
    Ok(row)
}

/// Opens a closed store's file in which bytes are altered: each at a place, by flipping some of its bits; without a
/// bit to flip, the file is cut off there.
///
/// # Errors
///
/// When the folder cannot be written.
pub fn altered(sound: &Sound, places: impl IntoIterator<Item = (usize, u8)>) -> Result<Row, Fault> {
    let truth = Truth::new(&sound.closed_ledger);
    let (folder, mut row, mut image) = (scratch()?, Row::default(), sound.closed.clone());
    let bytes = image.files.entry(FILE.to_owned()).or_default();
    for (place, flip) in places {
        let place = place % bytes.len().max(1);
        match bytes.get_mut(place) {
            Some(byte) if flip != 0 => *byte ^= flip,
            _ => bytes.truncate(place),
        }
    }
    image.write_to(folder.path())?;
    truth.ask(&folder.path().join(FILE), sound.now).note(&mut row, 0, "altered");
    Ok(row)
}

/// A copy with another bit, and which it is.
fn flipped(image: &Image, name: &str, dice: &mut Dice) -> (Image, String) {
    let mut image = image.clone();
    let bytes = image.files.entry(name.to_owned()).or_default();
    let (at, bit) = (dice.below(bytes.len()), dice.below(8));
    bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << bit);
    (image, format!("bit {bit} of byte {at} of {name}"))
}

/// Flips a bit of the write-ahead log of a store in use at random, so many times: what is found must be whole
/// transactions from the beginning on, as if the last ones had never been written.
///
/// # Errors
///
/// When the folder cannot be written.
pub fn flip_log(sound: &Sound, seed: u64, flips: u64) -> Result<Row, Fault> {
    let (mut dice, folder, mut row) = (Dice::new(seed), scratch()?, Row::default());
    for _ in 0..flips {
        let (image, place) = flipped(&sound.used, &format!("{FILE}-wal"), &mut dice);
        sound.judge(&image, folder.path(), seed, &place, &mut row)?;
    }
    Ok(row)
}

/// Cuts the write-ahead log off at so many places: what is left must be whole transactions.
///
/// # Errors
///
/// When the folder cannot be written.
pub fn cut_log(sound: &Sound, cuts: usize) -> Result<Row, Fault> {
    let (folder, mut row, len) = (scratch()?, Row::default(), sound.write_ahead_log().len());
    // Spread over all of it: its end may be upkeep, which tells nobody anything.
    for cut in (0..=cuts).map(|part| len - len * part / cuts.max(1)) {
        let mut image = sound.used.clone();
        image.files.entry(format!("{FILE}-wal")).or_default().truncate(cut);
        sound.judge(&image, folder.path(), 0, &format!("cut off at {cut} of {len}"), &mut row)?;
    }
    Ok(row)
}

impl Sound {
    /// Opens a copy whose write-ahead log is damaged.
    fn judge(&self, image: &Image, folder: &Path, seed: u64, what: &str, row: &mut Row) -> Result<(), Fault> {
        image.write_to(folder)?;
        let expect = self.used_ledger.expect(usize::MAX - 1);
        match catch_unwind(|| verify(&folder.join(FILE), &expect, Judge::Damaged)) {
            Ok(Ok(found)) => row.fine((found.lost > 0).then_some("lost")),
            Ok(Err(problem)) => row.wrong(seed, format!("{what}: {problem}")),
            Err(_) => row.wrong(seed, format!("{what}: a panic")),
        }
        Ok(())
    }
}

impl Shown {
    /// A wrong event, one that is missing between others, and a wrong entry that `check` does not find break a promise.
    fn note(self, row: &mut Row, seed: u64, place: &str) {
        if let Some(lie) = self.lie {
            return row.wrong(seed, format!("{place}: {lie}"));
        }
        if self.begins_late && !self.told && !self.found {
            return row.wrong(seed, format!("{place}: the log begins late, and nothing says so"));
        }
        if let (Some(wrong), false) = (&self.wrong_entry, self.found) {
            return row.wrong(seed, format!("{place}: {wrong}, and check finds nothing"));
        }
        let worth_counting = [
            (self.refused, "not-opened"),
            (self.told, "told-when-read"),
            (self.found, "found-by-check"),
            (self.shortened, "log-shortened"),
            (self.shortened && !self.found, "log-shortened-unfound"),
            (self.wrong_entry.is_some(), "wrong-by-get"),
        ];
        row.fine(worth_counting.into_iter().filter(|(is, _)| *is).map(|(_, what)| what));
    }
}

/// What was written.
struct Truth<'l> {
    ledger: &'l Ledger,
    log: Log,
}

impl Truth<'_> {
    fn new(ledger: &Ledger) -> Truth<'_> {
        Truth { ledger, log: Log::new(ledger.events().cloned().collect()) }
    }

    /// Opens a store and asks it for everything.
    fn ask(&self, path: &Path, now: Timestamp) -> Shown {
        let mut shown = Shown::default();
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(now));
        let Ok(store) = Options::new().clock(clock).create(false).ballast(false).open(path) else {
            return Shown { refused: true, ..shown };
        };
        shown.id = Some(store.id());
        self.events(&mut shown, store.history(Filter::everything().kinds(Kind::ALL), Revision::ZERO));
        let all = Filter::everything().kinds(Kind::ALL);
        match store.watch_with(all, WatchOptions::new().after(Revision::ZERO)) {
            Ok(mut watcher) => self.events(&mut shown, std::iter::from_fn(|| watcher.try_recv())),
            Err(_) => shown.told = true,
        }
        self.entries(&mut shown, &store, now);
        match store.check() {
            Ok(report) => shown.found = !report.is_ok(),
            Err(_) => shown.found = true,
        }
        shown.told |= store.close().is_err();
        shown
    }

    /// Events up to the first error must be what was written, without a gap.
    fn events(&self, shown: &mut Shown, events: impl Iterator<Item = watchkeep::Result<Event>>) {
        let mut after = Revision::ZERO;
        for event in events {
            let event = match event {
                Ok(event) => Seen::from(&event),
                Err(_) => return shown.told = true,
            };
            if event.revision > self.log.last() {
                // Written by this very store, since it was opened.
                break;
            }
            if after == Revision::ZERO && event.revision.get() > 1 {
                // From the beginning means from where the log begins: told by Lagged, or found by check.
                shown.begins_late = true;
            } else if event.revision.get() != after.get() + 1 {
                shown.lie = Some(format!("{after} is followed by {}", event.revision));
                return;
            }
            if self.ledger.event(event.revision) != Some(&event) {
                shown.lie = Some(format!("{event:?} is not what was written"));
                return;
            }
            after = event.revision;
        }
        shown.shortened |= after < self.log.last();
    }

    fn entries(&self, shown: &mut Shown, store: &Store, now: Timestamp) {
        let state = self.log.state_at(self.log.last());
        let mut wrong = None;
        for (group, key, cell) in state.cells().filter(|(_, _, cell)| !cell.is_due(now)) {
            match store.entry(group, key) {
                Ok(Some(entry)) => {
                    let read = Cell::from(entry);
                    if read != *cell {
                        wrong = Some(format!("{group:?} {key:?} reads as {read:?}, it was {cell:?}"));
                    }
                }
                Ok(None) => wrong = Some(format!("{group:?} {key:?} is gone")),
                Err(_) => shown.told = true,
            }
        }
        for group in store.groups("") {
            let Ok(group) = group else { return shown.told = true };
            for entry in store.entries(&group) {
                let Ok(entry) = entry else { return shown.told = true };
                if state.cell(&group, &entry.key).is_none() {
                    wrong = Some(format!("{group:?} {:?} is listed, and was never written", entry.key));
                }
            }
        }
        shown.wrong_entry = wrong;
    }
}

/// Lays the write-ahead log of another store beside a closed one.
///
/// # Errors
///
/// When the folder cannot be written.
pub fn exchange_log(sound: &Sound, other: &Sound) -> Result<Row, Fault> {
    let (folder, mut row) = (scratch()?, Row::default());
    let mut image = sound.closed.clone();
    image.files.insert(format!("{FILE}-wal"), other.write_ahead_log().to_vec());
    image.write_to(folder.path())?;
    let path = folder.path().join(FILE);
    let mut shown = Truth::new(&sound.closed_ledger).ask(&path, sound.now);
    if shown.id == Some(other.id) {
        // It says that it is the other, and is asked as that one.
        shown = Truth::new(&other.used_ledger).ask(&path, other.now);
        row.note("became-the-other", 1);
    }
    shown.note(&mut row, 0, "the write-ahead log of another store");
    Ok(row)
}
