//! What happened to the files, and how they may be found after the power went.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use fastrand::Rng;

/// A disk writes a sector wholly or not at all.
const SECTOR: usize = 512;

/// What was done to a file.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Create { file: Arc<str> },
    Write { file: Arc<str>, at: usize, bytes: Arc<[u8]> },
    Truncate { file: Arc<str>, len: usize },
    Sync { file: Arc<str> },
    SyncFailed { file: Arc<str> },
    Delete { file: Arc<str>, synced: bool },
}

/// Everything that happened to an observed folder, in order.
#[derive(Debug, Clone)]
pub struct Recording {
    before: BTreeMap<String, Arc<[u8]>>,
    ops: Vec<Op>,
}

impl Recording {
    pub(crate) fn new(before: BTreeMap<String, Arc<[u8]>>, ops: Vec<Op>) -> Recording {
        Recording { before, ops }
    }

    /// How many operations there are: a cut lies between 0 and this.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether nothing happened.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// The place right after the first sync that failed.
    pub fn first_failed_sync(&self) -> Option<usize> {
        self.ops.iter().position(|op| matches!(op, Op::SyncFailed { .. })).map(|at| at + 1)
    }

    /// The files as they are found when the power went after so many operations.
    ///
    /// What a file's last sync covers is there. Of each later write every 512-byte sector is there by chance, which
    /// for the whole image is 0, 1/2 or 7/8, and so is each later truncation; the file may be longer than the data
    /// that got through. What was written before a sync that failed is lost with chance 1/2, whatever later syncs
    /// said. A deletion that no sync followed may not have happened.
    pub fn image_at(&self, cut: usize, seed: u64) -> Image {
        let mut rng = Rng::with_seed(seed);
        let chance = [0, 4, 7].get(rng.usize(..3)).copied().unwrap_or(0);
        self.replay(cut, rng, chance).image()
    }

    /// The files as the machine sees them after so many operations, as if all had got through.
    pub fn whole_at(&self, cut: usize) -> Image {
        self.replay(cut, Rng::with_seed(0), 8).image()
    }

    fn replay(&self, cut: usize, rng: Rng, chance: u8) -> Replay<'_> {
        let durable = |bytes: &Arc<[u8]>| File { durable: bytes.to_vec(), ..File::default() };
        let files = self.before.iter().map(|(name, bytes)| (name.as_str(), durable(bytes))).collect();
        let mut replay = Replay { files, rng, chance };
        self.ops.iter().take(cut).for_each(|op| replay.apply(op));
        replay
    }
}

/// What is not synced yet.
#[derive(Debug, Clone)]
enum Pending<'r> {
    Write { at: usize, bytes: &'r [u8] },
    Truncate { len: usize },
}

#[derive(Debug, Default)]
struct File<'r> {
    durable: Vec<u8>,
    pending: Vec<Pending<'r>>,
    /// Deleted.
    deleted: bool,
    /// Deleted, and that is sure.
    gone: bool,
}

struct Replay<'r> {
    files: BTreeMap<&'r str, File<'r>>,
    rng: Rng,
    /// Of eight, how many sectors live that are not synced.
    chance: u8,
}

impl<'r> Replay<'r> {
    fn file(&mut self, name: &'r str) -> &mut File<'r> {
        self.files.entry(name).or_default()
    }

    fn apply(&mut self, op: &'r Op) {
        match op {
            // A new file of an old name: the deletion came before it.
            Op::Create { file } => *self.file(file) = File::default(),
            Op::Write { file, at, bytes } => {
                self.file(file).pending.push(Pending::Write { at: *at, bytes });
            }
            Op::Truncate { file, len } => self.file(file).pending.push(Pending::Truncate { len: *len }),
            Op::Sync { file } => {
                let file = self.file(file);
                for pending in std::mem::take(&mut file.pending) {
                    file.make(&pending, |_| true);
                }
                self.files.values_mut().for_each(|file| file.gone |= file.deleted);
            }
            Op::SyncFailed { file } => {
                let rng = &mut self.rng;
                if let Some(file) = self.files.get_mut(&**file) {
                    file.pending = std::mem::take(&mut file.pending)
                        .into_iter()
                        .flat_map(Pending::sectors)
                        .filter(|_| rng.bool())
                        .collect();
                }
            }
            Op::Delete { file, synced } => {
                let file = self.file(file);
                (file.deleted, file.gone) = (true, *synced);
            }
        }
    }

    fn image(mut self) -> Image {
        let mut files = BTreeMap::new();
        for (name, mut file) in self.files {
            if file.gone || (file.deleted && self.rng.bool()) {
                continue;
            }
            let (rng, chance) = (&mut self.rng, self.chance);
            for pending in std::mem::take(&mut file.pending) {
                // The length is kept apart from the data.
                let len = file.durable.len();
                file.make(&pending, |_| rng.u8(..8) < chance);
                if let Pending::Write { at, bytes } = pending
                    && rng.bool()
                {
                    let end = (at + bytes.len()).max(len);
                    file.durable.resize(end.max(file.durable.len()), 0);
                }
            }
            files.insert(name.to_owned(), file.durable);
        }
        Image { files }
    }
}

impl File<'_> {
    /// Makes a change, each sector of it when `lives` says so.
    fn make(&mut self, pending: &Pending<'_>, mut lives: impl FnMut(usize) -> bool) {
        match pending {
            Pending::Truncate { len } => {
                if lives(*len) {
                    self.durable.resize(*len, 0);
                }
            }
            Pending::Write { at, bytes } => {
                for (at, bytes) in sectors(*at, bytes) {
                    if lives(at) {
                        let end = at + bytes.len();
                        self.durable.resize(end.max(self.durable.len()), 0);
                        if let Some(place) = self.durable.get_mut(at..end) {
                            place.copy_from_slice(bytes);
                        }
                    }
                }
            }
        }
    }
}

impl<'r> Pending<'r> {
    /// A write as writes of a sector each.
    fn sectors(self) -> Vec<Pending<'r>> {
        match self {
            Pending::Write { at, bytes } => {
                sectors(at, bytes).map(|(at, bytes)| Pending::Write { at, bytes }).collect()
            }
            truncate => vec![truncate],
        }
    }
}

/// The parts of a write that lie in one sector each.
fn sectors(mut at: usize, mut bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    std::iter::from_fn(move || {
        let (part, rest) = bytes.split_at_checked(SECTOR - at % SECTOR).unwrap_or((bytes, &[]));
        let here = at;
        (at, bytes) = (at + part.len(), rest);
        (!part.is_empty()).then_some((here, part))
    })
}

/// Files as they were found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    /// Their bytes, by name.
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Image {
    /// Puts the files into a folder, and removes what else is in it.
    ///
    /// # Errors
    ///
    /// When the folder cannot be written.
    pub fn write_to(&self, folder: impl AsRef<Path>) -> std::io::Result<()> {
        let folder = folder.as_ref();
        for file in std::fs::read_dir(folder)? {
            std::fs::remove_file(file?.path())?;
        }
        self.files.iter().try_for_each(|(name, bytes)| std::fs::write(folder.join(name), bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(file: &str, at: usize, bytes: &[u8]) -> Op {
        Op::Write { file: file.into(), at, bytes: bytes.into() }
    }

    fn recording(ops: Vec<Op>) -> Recording {
        Recording::new(BTreeMap::new(), ops)
    }

    /// The different images that many seeds make.
    fn images(recording: &Recording, cut: usize) -> Vec<Option<Vec<u8>>> {
        let mut all: Vec<_> = (0..200).map(|seed| recording.image_at(cut, seed).files.remove("a")).collect();
        all.sort();
        all.dedup();
        all
    }

    #[test]
    fn what_is_synced_is_there_and_what_is_not_is_there_by_sectors() {
        let old = write("a", 0, &[1; 1024]);
        let ops = vec![old, Op::Sync { file: "a".into() }, write("a", 256, &[2; 512])];
        let found = images(&recording(ops.clone()), 3);
        assert_eq!(found.len(), 4, "each of the two sectors is old or new");
        assert_eq!(images(&recording(ops), 2), [Some(vec![1; 1024])]);
    }

    #[test]
    fn a_file_may_be_longer_than_what_got_through() {
        let found = images(&recording(vec![write("a", 0, &[1; 512])]), 1);
        assert_eq!(found, [Some(vec![]), Some(vec![0; 512]), Some(vec![1; 512])]);
    }

    #[test]
    fn a_sync_that_failed_loses_what_later_syncs_do_not_bring_back() {
        let sync = || Op::Sync { file: "a".into() };
        let ops = vec![write("a", 0, &[1; 512]), Op::SyncFailed { file: "a".into() }, sync()];
        assert_eq!(images(&recording(ops), 3), [Some(vec![]), Some(vec![1; 512])]);
    }

    #[test]
    fn a_deletion_is_sure_once_something_is_synced() {
        let delete = Op::Delete { file: "a".into(), synced: false };
        let ops = vec![
            write("a", 0, &[1]),
            Op::Sync { file: "a".into() },
            delete,
            Op::Sync { file: "b".into() },
            Op::Create { file: "a".into() },
        ];
        let recording = recording(ops);
        assert_eq!(images(&recording, 3), [None, Some(vec![1])]);
        assert_eq!(images(&recording, 4), [None]);
        assert_eq!(images(&recording, 5), [Some(vec![])]);
    }

    #[test]
    fn the_whole_image_is_what_the_machine_sees() {
        let ops = vec![write("a", 0, &[1; 700]), Op::Truncate { file: "a".into(), len: 600 }];
        assert_eq!(recording(ops).whole_at(2).files.remove("a"), Some(vec![1; 600]));
    }
}
