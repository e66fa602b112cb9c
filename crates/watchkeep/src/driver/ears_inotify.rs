//! What tells what other processes do: one inotify for all stores.
//!
//! A file is listened to once: what was heard is over, and whoever wants to hear more listens again. So a file that is
//! written all the time, by this process above all, wakes nobody who does not want to hear it. Two stores on one file
//! share a descriptor of it, and hear together.

use std::collections::{HashMap, HashSet};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init, remove_watch};

use crate::types::sync::{Mutex, lock};

use super::seat::Seat;

#[derive(Default)]
struct Listeners {
    by_watch: HashMap<i32, Vec<Arc<Seat>>>,
    by_seat: HashMap<u64, i32>,
    /// How many are about to listen and do not know yet under which number.
    coming: usize,
    /// What was heard meanwhile: it may be theirs.
    heard: HashSet<i32>,
}

impl Listeners {
    fn remove(&mut self, seat: &Seat) -> Option<i32> {
        let watch = self.by_seat.remove(&seat.id)?;
        let seats = self.by_watch.get_mut(&watch)?;
        seats.retain(|other| other.id != seat.id);
        if !seats.is_empty() {
            return None;
        }
        self.by_watch.remove(&watch);
        Some(watch)
    }

    fn take(&mut self, watch: i32) -> Vec<Arc<Seat>> {
        if self.coming > 0 {
            self.heard.insert(watch);
        }
        let seats = self.by_watch.remove(&watch).unwrap_or_default();
        for seat in &seats {
            self.by_seat.remove(&seat.id);
        }
        seats
    }
}

/// Hears of all files.
#[derive(Default)]
pub(super) struct Ears {
    notify: OnceLock<OwnedFd>,
    listeners: Mutex<Listeners>,
}

impl Ears {
    /// Whether there is a descriptor to wait for already.
    pub(super) fn is_open(&self) -> bool {
        self.notify.get().is_some()
    }

    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.notify.get().map(AsFd::as_fd)
    }

    fn open(&self) -> std::io::Result<&OwnedFd> {
        if let Some(notify) = self.notify.get() {
            return Ok(notify);
        }
        let fresh = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(self.notify.get_or_init(|| fresh))
    }

    /// Whether what a store listens to has not been heard yet.
    pub(super) fn is_listening(&self, seat: &Seat) -> bool {
        lock(&self.listeners).by_seat.contains_key(&seat.id)
    }

    /// Listens to the next that is done to a file; whether something was done already.
    pub(super) fn listen(&self, seat: &Arc<Seat>, path: &Path) -> std::io::Result<bool> {
        let notify = self.open()?;
        lock(&self.listeners).coming += 1;
        // With no lock held: the path may lie where it takes long.
        let watch = add_watch(notify, path, WatchFlags::MODIFY | WatchFlags::ATTRIB | WatchFlags::ONESHOT);
        let mut listeners = lock(&self.listeners);
        listeners.coming -= 1;
        let is_heard = watch.is_ok_and(|watch| listeners.heard.contains(&watch));
        if listeners.coming == 0 {
            listeners.heard.clear();
        }
        let before = listeners.remove(seat);
        if let Ok(watch) = watch
            && !is_heard
        {
            listeners.by_watch.entry(watch).or_default().push(seat.clone());
            listeners.by_seat.insert(seat.id, watch);
        }
        Ears::drop_watch(notify, &listeners, before.filter(|before| Some(*before) != watch.ok()));
        drop(listeners);
        watch?;
        Ok(is_heard)
    }

    pub(super) fn forget(&self, seat: &Seat) {
        let mut listeners = lock(&self.listeners);
        let before = listeners.remove(seat);
        if let Some(notify) = self.notify.get() {
            Ears::drop_watch(notify, &listeners, before);
        }
    }

    /// Nobody listens there any more. Whoever is about to may just have got the same number: then it goes with what is
    /// heard next.
    fn drop_watch(notify: &OwnedFd, listeners: &Listeners, watch: Option<i32>) {
        if let Some(watch) = watch
            && listeners.coming == 0
        {
            let _ = remove_watch(notify, watch);
        }
    }

    /// Who has something to hear.
    pub(super) fn hear(&self) -> Vec<Arc<Seat>> {
        let Some(notify) = self.notify.get() else { return Vec::new() };
        let (mut buffer, mut watches, mut all) = ([MaybeUninit::uninit(); 4096], Vec::new(), false);
        let mut reader = Reader::new(notify, &mut buffer);
        while let Ok(event) = reader.next() {
            all |= event.events().contains(ReadFlags::QUEUE_OVERFLOW);
            watches.push(event.wd());
            if reader.is_buffer_empty() {
                break;
            }
        }
        let mut listeners = lock(&self.listeners);
        if all {
            // Nobody knows who missed what.
            watches.extend(listeners.by_watch.keys());
        }
        watches.into_iter().flat_map(|watch| listeners.take(watch)).collect()
    }
}
