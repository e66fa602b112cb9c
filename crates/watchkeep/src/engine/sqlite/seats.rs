//! Seats for those who read: on each is a connection, which one thread uses at a time.
//!
//! A thread comes back to the seat that it had last. As a rule nobody else is there, so readers on several processors do
//! not touch the same memory, and each finds its pages in its processor's. Whoever finds that seat taken sits down where a
//! connection is free, or brings one along; once all seats are taken it stands, and takes its connection away again.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{PoisonError, TryLockError};
use std::time::Instant;

use rusqlite::Connection;

use crate::types::error::{Reason, Result};
use crate::types::limits::IDLE_READER;
use crate::types::sync::{Condvar, Mutex, MutexGuard, lock};

use super::connection::Cache;

thread_local! {
    /// The seats that this thread had last, in any store, among those who read entries and among the rest.
    static LAST: [Cell<usize>; 2] = const { [const { Cell::new(0) }; 2] };
}

/// Who reads.
#[derive(Debug, Clone, Copy)]
pub(super) enum Who {
    /// Those who read entries: they share the page cache.
    Users,
    /// Those who read the log, page after page, or the whole file once, and the store, which looks after itself: a cache is
    /// of little use to them.
    Upkeep,
}

impl Who {
    fn with_last<T>(self, f: impl FnOnce(&Cell<usize>) -> T) -> T {
        LAST.with(|[users, upkeep]| {
            f(match self {
                Who::Users => users,
                Who::Upkeep => upkeep,
            })
        })
    }
}

/// A connection, and how much it may keep in memory as of its last use.
struct Reader {
    conn: Connection,
    cache: Option<Cache>,
}

impl Reader {
    fn keep(&mut self, cache: Cache) -> Result<()> {
        if self.cache != Some(cache) {
            cache.set(&self.conn)?;
            self.cache = Some(cache);
        }
        Ok(())
    }
}

/// What is on a seat.
#[derive(Default)]
struct Place {
    reader: Option<Reader>,
    /// Whether somebody sat here since it was last looked who did.
    is_used: bool,
}

/// Locked by whoever sits there. No two share what a processor fetches at once.
#[derive(Default)]
#[repr(align(128))]
struct Seat(Mutex<Place>);

impl Seat {
    /// Sits down, if nobody sits there.
    fn take(&self) -> Option<MutexGuard<'_, Place>> {
        match self.0.try_lock() {
            Ok(place) => Some(place),
            Err(TryLockError::Poisoned(place)) => Some(place.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// The seats of some who read.
pub(super) struct Seats {
    who: Who,
    seats: Vec<Seat>,
    /// What all connections together keep in memory, in bytes.
    cache: u64,
    /// How many connections there are.
    open: AtomicUsize,
    closed: AtomicBool,
    standing: Mutex<usize>,
    /// One of those who stand has left.
    left: Condvar,
    /// Since when it is noted who sat where.
    since: Mutex<Instant>,
}

impl Seats {
    pub(super) fn new(who: Who, seats: usize, cache: u64) -> Seats {
        Seats {
            who,
            seats: (0..seats).map(|_| Seat::default()).collect(),
            cache,
            open: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            standing: Mutex::new(0),
            left: Condvar::new(),
            since: Mutex::new(Instant::now()),
        }
    }

    /// Takes a connection, and opens one where none is free.
    pub(super) fn sit(&self, connect: impl FnOnce() -> Result<Connection>) -> Result<Sitting<'_>> {
        let last = self.who.with_last(Cell::get);
        let mut free = None;
        for number in [last].into_iter().chain((0..self.seats.len()).filter(|number| *number != last)) {
            let Some(seat) = self.seats.get(number) else { continue };
            let Some(mut place) = seat.take() else { continue };
            self.refuse_closed()?;
            if let Some(mut reader) = place.reader.take() {
                self.who.with_last(|last| last.set(number));
                // Others may have come since, or gone.
                let kept = reader.keep(self.share());
                let sitting = self.seated((seat, place), Some(reader));
                return kept.map(|()| sitting);
            }
            if free.is_none() {
                free = Some((number, seat, place));
            }
        }
        let mut sitting = match free {
            Some((number, seat, place)) => {
                self.who.with_last(|last| last.set(number));
                self.open.fetch_add(1, Ordering::SeqCst);
                self.seated((seat, place), None)
            }
            None => self.stand()?,
        };
        let conn = connect()?;
        self.make_room();
        sitting.reader.insert(Reader { conn, cache: None }).keep(self.share())?;
        Ok(sitting)
    }

    fn seated<'s>(
        &'s self,
        (seat, mut place): (&'s Seat, MutexGuard<'s, Place>),
        reader: Option<Reader>,
    ) -> Sitting<'s> {
        place.is_used = true;
        Sitting { seats: self, seat: Some((seat, place)), reader }
    }

    fn stand(&self) -> Result<Sitting<'_>> {
        let mut standing = lock(&self.standing);
        self.refuse_closed()?;
        *standing += 1;
        self.open.fetch_add(1, Ordering::SeqCst);
        Ok(Sitting { seats: self, seat: None, reader: None })
    }

    pub(super) fn refuse_closed(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(Reason::Closed.into()) } else { Ok(()) }
    }

    /// What each connection may keep in memory, so that all together keep what they may. A free one never keeps more; one
    /// that somebody sat down with when there were fewer does until that one leaves.
    fn share(&self) -> Cache {
        let open = self.open.load(Ordering::SeqCst).max(1);
        Cache::new(self.cache / u64::try_from(open).unwrap_or(u64::MAX))
    }

    /// A connection has come: those that are free keep less from now on.
    fn make_room(&self) {
        fence(Ordering::SeqCst);
        self.seats.iter().for_each(|seat| self.settle(seat));
    }

    /// Gets up from a seat, and leaves the connection there, unless it is no good any more.
    fn leave<'s>(&self, seat: &'s Seat, mut place: MutexGuard<'s, Place>, reader: Option<Reader>) {
        match reader {
            Some(reader) => place.reader = Some(reader),
            None => drop(self.open.fetch_sub(1, Ordering::SeqCst)),
        }
        self.settle_at(seat, place);
    }

    /// Has the connection on a seat keep no more than it may, unless somebody sits there, who sees to it.
    fn settle(&self, seat: &Seat) {
        if let Some(place) = seat.take() {
            self.settle_at(seat, place);
        }
    }

    fn settle_at<'s>(&self, seat: &'s Seat, mut place: MutexGuard<'s, Place>) {
        loop {
            let share = self.share();
            let Some(reader) = &mut place.reader else { return };
            if reader.keep(share).is_err() {
                place.reader = None;
                self.open.fetch_sub(1, Ordering::SeqCst);
                return;
            }
            drop(place);
            // Whoever came in between found the seat taken.
            fence(Ordering::SeqCst);
            if self.share() == share {
                return;
            }
            let Some(again) = seat.take() else { return };
            place = again;
        }
    }

    fn walk_away(&self, reader: Option<Reader>) {
        drop(reader);
        self.open.fetch_sub(1, Ordering::SeqCst);
        *lock(&self.standing) -= 1;
        // Only a close waits; to notify costs a system call even where nobody does.
        if self.closed.load(Ordering::Acquire) {
            self.left.notify_all();
        }
    }

    /// What is told by each connection that nobody uses.
    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(super) fn free<T>(&self, tell: impl Fn(&Connection) -> T) -> Vec<T> {
        let places = self.seats.iter().filter_map(Seat::take);
        places.filter_map(|place| place.reader.as_ref().map(|reader| tell(&reader.conn))).collect()
    }

    /// How many connections there are.
    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(super) fn connections(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Lets the time pass after which it is looked who sat where.
    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(super) fn age(&self) {
        let mut since = lock(&self.since);
        *since = since.checked_sub(IDLE_READER).unwrap_or(*since);
    }

    /// Connections that nobody used for long, but for one.
    pub(super) fn unneeded(&self) -> Vec<Connection> {
        let mut since = lock(&self.since);
        if since.elapsed() < IDLE_READER {
            return Vec::new();
        }
        *since = Instant::now();
        let mut gone = Vec::new();
        for seat in &self.seats {
            let Some(mut place) = seat.take() else { continue };
            let is_used = std::mem::take(&mut place.is_used);
            if !is_used && place.reader.is_some() && self.open.load(Ordering::SeqCst) > 1 {
                gone.extend(place.reader.take().map(|reader| reader.conn));
                self.open.fetch_sub(1, Ordering::SeqCst);
            }
            self.settle_at(seat, place);
        }
        gone
    }

    /// Refuses those who come.
    pub(super) fn refuse(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Waits for those who are there, once those who come are refused; what they leave.
    pub(super) fn close(&self) -> Vec<Connection> {
        let mut standing = lock(&self.standing);
        while *standing > 0 {
            standing = self.left.wait(standing).unwrap_or_else(PoisonError::into_inner);
        }
        drop(standing);
        self.seats.iter().filter_map(|seat| Some(lock(&seat.0).reader.take()?.conn)).collect()
    }
}

/// Who has a connection: it comes back whatever happens, unless it may be ill.
pub(super) struct Sitting<'s> {
    seats: &'s Seats,
    /// None of who stands.
    seat: Option<(&'s Seat, MutexGuard<'s, Place>)>,
    reader: Option<Reader>,
}

impl Sitting<'_> {
    pub(super) fn conn(&self) -> Result<&Connection> {
        self.reader.as_ref().map(|reader| &reader.conn).ok_or_else(|| Reason::Closed.into())
    }

    /// The next reader gets a fresh connection.
    pub(super) fn discard(&mut self) {
        self.reader = None;
    }
}

impl Drop for Sitting<'_> {
    fn drop(&mut self) {
        let reader = self.reader.take().filter(|reader| reader.conn.is_autocommit());
        match self.seat.take() {
            Some((seat, place)) => self.seats.leave(seat, place, reader),
            None => self.seats.walk_away(reader),
        }
    }
}
