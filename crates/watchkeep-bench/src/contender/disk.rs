//! What the disk does: the floor under everything that is durable.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Contender, Peer, Session};
use crate::Result;
use crate::data::Name;
use crate::plan::{Cell, Workload};

/// Writes 4 KiB to a file of its own, and syncs: in place, or at the end of a file that grows.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) append: bool,
}

const PAGE: [u8; 4096] = [0x57; 4096];

impl Contender for Disk {
    fn name(&self) -> &'static str {
        if self.append { "disk-append" } else { "disk" }
    }

    fn about(&self) -> String {
        let how = if self.append { "appended" } else { "overwritten in place" };
        format!("4 KiB {how}, then `fdatasync`; each thread has its own file")
    }

    fn takes(&self, cell: &Cell) -> bool {
        cell.workload == Workload::Floor
    }

    fn open(&self, folder: &Path, _: &Cell) -> Result<Box<dyn Peer>> {
        Ok(Box::new(Files { folder: folder.to_owned(), append: self.append, next: AtomicUsize::new(0) }))
    }
}

struct Files {
    folder: PathBuf,
    append: bool,
    next: AtomicUsize,
}

impl Peer for Files {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(format!("floor-{number}"));
        let file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
        file.write_all_at(&PAGE, 0)?;
        file.sync_all()?;
        Ok(Box::new(Page { file, at: 0, append: self.append }))
    }
}

struct Page {
    file: File,
    at: u64,
    append: bool,
}

impl Session for Page {
    fn set(&mut self, _: &Name, value: &str) -> Result<()> {
        let mut page = PAGE;
        if let Some(head) = page.get_mut(..value.len()) {
            head.copy_from_slice(value.as_bytes());
        }
        if self.append {
            self.at += page.len() as u64;
        }
        self.file.write_all_at(&page, self.at)?;
        Ok(self.file.sync_data()?)
    }
}
