//! Where a file lies, looked at without opening it: what kind of file it is, on what file system, with how much room.

use std::fs::{File, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use crate::types::error::{Error, Reason, Result};
use crate::types::limits::{MIN_FREE, NAME_MAX, SQLITE_PATH};
use crate::types::options::Options;

/// The names of a store's companions end so.
pub(super) const WAL: &str = "-wal";
pub(super) const INDEX: &str = "-shm";
pub(super) const JOURNAL: &str = "-journal";
pub(super) const BALLAST: &str = "-ballast";

/// A companion of a store: its path with something behind it.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(suffix);
    name.into()
}

/// The folder that a file lies in.
pub(super) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Whether a name is taken, also by a link that leads nowhere.
pub(super) fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Refuses places where a store cannot be; whether the file is missing and may be made.
pub(super) fn inspect(path: &Path, options: &Options) -> Result<bool> {
    refuse_long(path, BALLAST.len())?;
    let is_new = match file(path)? {
        Some(file) => {
            refuse_other_names(path, &file)?;
            false
        }
        None if !folder_of(path).is_dir() => {
            return Err(Reason::NoFolder { path: folder_of(path).to_owned() }.into());
        }
        None if !options.create => return Err(Reason::NoFile { path: path.to_owned() }.into()),
        // SQLite would remove what it takes for a left-over, with the newest commits in it. Asked again: another
        // process may just be making both.
        None => match file(&beside(path, WAL))? {
            Some(log) if log.len() > 0 && file(path)?.is_none() => {
                return Err(Reason::Orphaned { log: beside(path, WAL) }.into());
            }
            _ => true,
        },
    };
    if let Some(system) = network_file_system(folder_of(path)).filter(|_| !options.network) {
        return Err(Reason::NetworkFileSystem { path: path.to_owned(), system }.into());
    }
    Ok(is_new)
}

/// Refuses a file that has another name in another folder, as far as that shows: its write-ahead log lies there.
pub(super) fn refuse_other_names(path: &Path, file: &Metadata) -> Result<()> {
    refuse_names(path, file)?;
    if is_mounted(path) { Err(Reason::MountedAlone { path: path.to_owned() }.into()) } else { Ok(()) }
}

/// What is there, if it is a file; none when there is nothing.
pub(super) fn file(path: &Path) -> Result<Option<Metadata>> {
    match std::fs::metadata(path) {
        Ok(file) if file.is_dir() => Err(Reason::IsFolder { path: path.to_owned() }.into()),
        Ok(file) if file.is_file() => Ok(Some(file)),
        Ok(file) => Err(Reason::SpecialFile { path: path.to_owned(), what: special(&file) }.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => {
            let what = format!("{path:?} cannot be looked at; check its permissions");
            Err(Reason::Io { what, cause }.into())
        }
    }
}

#[cfg(unix)]
fn special(file: &Metadata) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    let kind = file.file_type();
    match () {
        () if kind.is_fifo() => "pipe",
        () if kind.is_socket() => "socket",
        () => "device",
    }
}

#[cfg(not(unix))]
fn special(_: &Metadata) -> &'static str {
    "special file"
}

/// The write-ahead log is found by the file's name: under another name the newest commits would be missing.
#[cfg(unix)]
fn refuse_names(path: &Path, file: &Metadata) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    match file.nlink() {
        names @ 2.. => Err(Reason::HardLinks { path: path.to_owned(), names }.into()),
        _ => Ok(()),
    }
}

#[cfg(not(unix))]
fn refuse_names(_: &Path, _: &Metadata) -> Result<()> {
    Ok(())
}

/// Whether something is mounted on the path itself, where the kernel says so. A file can be mounted without the folder
/// that it lies in: then its write-ahead log and its locks are looked for in another folder than its other users do.
#[cfg(target_os = "linux")]
fn is_mounted(path: &Path) -> bool {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    statx(CWD, path, AtFlags::empty(), StatxFlags::empty())
        .is_ok_and(|file| file.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

#[cfg(not(target_os = "linux"))]
fn is_mounted(_: &Path) -> bool {
    false
}

/// Refuses a name that leaves no room for what is put behind it, so many bytes, and a path that SQLite does not take.
/// What it leads to counts, as SQLite follows links.
pub(super) fn refuse_long(path: &Path, behind: usize) -> Result<()> {
    let folder = || folder_of(path).canonicalize().ok();
    let real = path.canonicalize().ok().or_else(|| Some(folder()?.join(path.file_name()?)));
    let real = real.unwrap_or_else(|| path.to_owned());
    let name = real.file_name().unwrap_or_default().len();
    for (part, len, limit) in [
        ("name", name, name_max(folder_of(&real)).saturating_sub(behind)),
        ("path", real.as_os_str().len(), SQLITE_PATH - behind.max(JOURNAL.len())),
    ] {
        if len > limit {
            return Err(Reason::PathTooLong { path: real, part, len, limit }.into());
        }
    }
    Ok(())
}

/// How many bytes a name may have in a folder.
#[cfg(unix)]
fn name_max(folder: &Path) -> usize {
    let max = rustix::fs::statvfs(folder).ok().and_then(|system| usize::try_from(system.f_namemax).ok());
    max.filter(|max| *max > 0).unwrap_or(NAME_MAX)
}

#[cfg(not(unix))]
fn name_max(_: &Path) -> usize {
    NAME_MAX
}

/// Makes an empty file for its owner only, without a moment in which others could open it, and without a descriptor
/// of ours, whose closing would drop the locks of whoever opens it meanwhile.
#[cfg(target_os = "linux")]
pub(super) fn make_private(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    // Where it fails SQLite makes the file, or says why it cannot be made.
    if mknodat(CWD, path, FileType::RegularFile, Mode::RUSR | Mode::WUSR, 0).is_ok() {
        // The umask may have taken even its owner's rights.
        let _ = restrict(path);
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn make_private(_: &Path) {}

/// Only its owner reads and writes a new file, whatever the umask; SQLite gives its companions the same rights.
#[cfg(unix)]
pub(super) fn restrict(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
}

/// The same, of a file that is open.
#[cfg(unix)]
pub(super) fn restrict_open(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))
}

#[cfg(not(unix))]
pub(super) fn restrict(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(not(unix))]
pub(super) fn restrict_open(_: &File) -> io::Result<()> {
    Ok(())
}

/// Gives a file another name, unless that is taken.
pub(super) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use rustix::io::Errno;
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // Not every file system can.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
            done => return Ok(done?),
        }
    }
    std::fs::hard_link(from, to)?;
    std::fs::remove_file(from)
}

/// Gives a file another name, the first that is free: `app.db-replaced`, `app.db-replaced-2` and so on.
pub(super) fn put_aside(path: &Path) -> Result<PathBuf> {
    for number in 1_u32.. {
        let suffix = if number == 1 { "-replaced".to_owned() } else { format!("-replaced-{number}") };
        let aside = beside(path, &suffix);
        match rename_new(path, &aside) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            done => {
                done.map_err(|cause| io_failed(path, cause))?;
                sync_folder(path)?;
                return Ok(aside);
            }
        }
    }
    Err(Reason::TargetExists { path: beside(path, "-replaced") }.into())
}

/// The folder's own entries are on the disk.
pub(super) fn sync_folder(target: &Path) -> Result<()> {
    #[cfg(unix)]
    File::open(folder_of(target))
        .and_then(|folder| folder.sync_all())
        .map_err(|cause| io_failed(target, cause))?;
    Ok(())
}

pub(super) fn io_failed(path: &Path, cause: io::Error) -> Error {
    let full = matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let denied = matches!(cause.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem);
    match () {
        () if full => {
            let free = free(folder_of(path)).unwrap_or(0);
            Reason::NoSpace { path: path.to_owned(), free, needed: free + 1 }.into()
        }
        () if denied => Reason::CannotWrite { path: folder_of(path).to_owned(), cause }.into(),
        () => Reason::Io { what: format!("{path:?} could not be written"), cause }.into(),
    }
}

/// Refuses a disk with less free than this, where that can be asked.
pub(super) fn need_room(path: &Path, needed: u64) -> Result<()> {
    match free(folder_of(path)) {
        Some(free) if free < needed => Err(Reason::NoSpace { path: path.to_owned(), free, needed }.into()),
        _ => Ok(()),
    }
}

/// Whether there is room enough for a store to be opened.
pub(super) fn has_room(path: &Path) -> bool {
    need_room(path, MIN_FREE).is_ok()
}

/// How many bytes a folder's file system has free for us; none where it does not say.
#[cfg(unix)]
pub(super) fn free(folder: &Path) -> Option<u64> {
    let system = rustix::fs::statvfs(folder).ok()?;
    // Part of a file system may be kept for root.
    let blocks = if rustix::process::geteuid().is_root() { system.f_bfree } else { system.f_bavail };
    (system.f_blocks > 0).then(|| blocks.saturating_mul(system.f_frsize))
}

#[cfg(not(unix))]
pub(super) fn free(_: &Path) -> Option<u64> {
    None
}

/// Whether nothing can be written on a folder's file system, whoever tries.
#[cfg(unix)]
pub(super) fn is_read_only(folder: &Path) -> bool {
    use rustix::fs::{StatVfsMountFlags, statvfs};
    statvfs(folder).is_ok_and(|system| system.f_flag.contains(StatVfsMountFlags::RDONLY))
}

#[cfg(not(unix))]
pub(super) fn is_read_only(_: &Path) -> bool {
    false
}

/// Whether this process may write a path, as far as its permissions say.
#[cfg(unix)]
pub(super) fn may_write(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK).is_ok()
}

#[cfg(not(unix))]
pub(super) fn may_write(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| !file.permissions().readonly())
}

/// The network file system that a folder lies on, where the kernel says so. What comes through FUSE cannot be told.
#[cfg(target_os = "linux")]
fn network_file_system(folder: &Path) -> Option<&'static str> {
    let system = rustix::fs::statfs(folder).ok()?;
    // The kernel's numbers have 32 bits, in a field whose size and sign differ between machines.
    network(u32::try_from(system.f_type & 0xffff_ffff).ok()?)
}

#[cfg(not(target_os = "linux"))]
fn network_file_system(_: &Path) -> Option<&'static str> {
    None
}

/// File systems that several machines share, by their magic numbers.
const NETWORK: [(u32, &str); 17] = [
    (0x0000_6969, "NFS"),
    (0x0000_517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x0102_1997, "9p"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "AFS"),
    (0x7375_7245, "Coda"),
    (0x0000_564c, "NCP"),
    (0x00c3_6400, "Ceph"),
    (0x0bd0_0bd0, "Lustre"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
    (0x4750_4653, "GPFS"),
    (0x1983_0326, "BeeGFS"),
    (0x2003_0528, "OrangeFS"),
    (0x786f_4256, "a shared folder of VirtualBox"),
];

fn network(magic: u32) -> Option<&'static str> {
    NETWORK.iter().find(|(known, _)| *known == magic).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_known_by_their_numbers_and_local_ones_are_not_among_them() {
        assert_eq!(network(0x6969), Some("NFS"));
        assert_eq!(network(0xff53_4d42), Some("CIFS"));
        let local = [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x794c_7630, 0x2fc1_2fc1, 0x6573_5546];
        assert!(local.into_iter().all(|magic| network(magic).is_none()));
        for (row, (magic, _)) in NETWORK.iter().enumerate() {
            assert_eq!(
                NETWORK.iter().position(|other| other.0 == *magic),
                Some(row),
                "{magic:x} stands twice"
            );
        }
    }

    #[test]
    fn a_folder_of_this_machine_has_room_and_is_local() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        assert!(has_room(&folder.path().join("new.db")));
        assert_eq!(network_file_system(folder.path()), None);
        assert!(need_room(&folder.path().join("new.db"), u64::MAX).is_err());
        assert!(!is_read_only(folder.path()));
        Ok(())
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_mounted_is_told_from_what_is_not() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("app.db");
        std::fs::write(&file, "")?;
        assert!(
            is_mounted(Path::new("/proc")) && !is_mounted(&file) && !is_mounted(&folder.path().join("none"))
        );
        Ok(())
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_is_made_for_its_owner_at_once() -> io::Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("new.db");
        make_private(&path);
        assert_eq!(path.metadata()?.permissions().mode(), 0o100_600);
        Ok(())
    }
}
