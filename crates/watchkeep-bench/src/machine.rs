//! The machine that is measured on.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::fs::{Advice, fadvise};

use crate::Result;

/// Takes a file out of the system's memory. Nobody in this process may have it open: closing it here drops their locks.
pub(crate) fn drop_cache(path: &Path) -> Result<()> {
    let file = File::open(path)?;
    file.sync_all()?;
    Ok(fadvise(&file, 0, None, Advice::DontNeed)?)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the pace of what is measured, or a look at it, is a wait and nothing else"
)]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// What the report says of it.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) lines: Vec<(&'static str, String)>,
}

impl Machine {
    pub(crate) fn look(folder: &Path) -> Machine {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let processor = field("/proc/cpuinfo", "model name").unwrap_or_else(unknown);
        let memory = field("/proc/meminfo", "MemTotal")
            .and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok())
            .map_or_else(unknown, |kib| format!("{:.0} GiB", kib / 1_048_576.0));
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")
            .map_or_else(|_| unknown(), |text| text.trim().to_owned());
        let system = os_name().unwrap_or_else(unknown);
        let lines = vec![
            ("processor", format!("{processor}, {cores} cores")),
            ("memory", memory),
            ("system", format!("{system}, Linux {kernel}")),
            ("file system", Mount::of(folder).map_or_else(unknown, |mount| mount.describe())),
            ("compiler", compiler().unwrap_or_else(unknown)),
        ];
        Machine { lines }
    }
}

fn unknown() -> String {
    "unknown".to_owned()
}

/// The first value of a `name : value` file.
fn field(path: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let (_, value) =
        text.lines().filter_map(|line| line.split_once(':')).find(|(key, _)| key.trim() == name)?;
    Some(value.trim().to_owned())
}

fn os_name() -> Option<String> {
    let text = std::fs::read_to_string("/etc/os-release").ok()?;
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(name.trim_matches('"').to_owned())
}

fn compiler() -> Option<String> {
    let output = Command::new("rustc").arg("--version").output().ok()?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

/// A file system that is mounted.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    device: String,
    at: String,
    kind: String,
}

impl Mount {
    /// Where a folder lies.
    fn of(folder: &Path) -> Option<Mount> {
        let folder = folder.canonicalize().ok()?;
        let table = std::fs::read_to_string("/proc/self/mounts").ok()?;
        Mount::find(&folder, &table)
    }

    fn find(folder: &Path, table: &str) -> Option<Mount> {
        let mounts = table.lines().filter_map(|line| {
            let mut words = line.split(' ');
            let (device, at, kind) = (words.next()?, words.next()?, words.next()?);
            Some(Mount { device: device.to_owned(), at: at.replace("\\040", " "), kind: kind.to_owned() })
        });
        // Of several at one place, the last hides the others.
        mounts.filter(|mount| folder.starts_with(&mount.at)).max_by_key(|mount| mount.at.len())
    }

    fn describe(&self) -> String {
        let device = self.device.rsplit('/').next().unwrap_or_default();
        let disk = device.trim_end_matches(|char: char| char.is_ascii_digit());
        let turns = std::fs::read_to_string(format!("/sys/block/{disk}/queue/rotational"));
        let cache = std::fs::read_to_string(format!("/sys/block/{disk}/queue/write_cache"));
        let turns = match turns.as_deref().map(str::trim) {
            Ok("0") => ", not rotational",
            Ok("1") => ", rotational",
            _ => "",
        };
        let cache = cache.map(|cache| format!(", write cache \"{}\"", cache.trim())).unwrap_or_default();
        format!("{} on {device}{turns}{cache}", self.kind)
    }
}

/// A file system that lives in memory syncs nothing: numbers from it would mean nothing.
pub(crate) fn refuse_memory(folder: &Path) -> Result<()> {
    let Some(mount) = Mount::of(folder) else { return Ok(()) };
    if matches!(mount.kind.as_str(), "tmpfs" | "ramfs" | "hugetlbfs" | "devtmpfs") {
        let kind = mount.kind;
        return Err(format!(
            "{folder:?} is on {kind}, which lives in memory and syncs nothing; name a folder on a disk with --dir"
        )
        .into());
    }
    Ok(())
}

/// The memory that this process has in use, in bytes.
pub(crate) fn resident() -> Result<f64> {
    const PAGE: f64 = 4096.0;
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages = text.split_whitespace().nth(1).and_then(|pages| pages.parse::<f64>().ok());
    Ok(pages.ok_or("/proc/self/statm cannot be read")? * PAGE)
}

/// A dependency's version, as it is built in.
pub(crate) fn version_of(package: &str) -> &'static str {
    version_in(include_str!("../../../Cargo.lock"), package)
}

/// A package's version in a `Cargo.lock`: the highest, where there are several.
pub fn version_in<'l>(lock: &'l str, package: &str) -> &'l str {
    let name = format!("name = \"{package}\"");
    lock.lines()
        .zip(lock.lines().skip(1))
        .filter(|(line, _)| *line == name)
        .last()
        .and_then(|(_, next)| next.strip_prefix("version = \""))
        .map_or("unknown", |version| version.trim_end_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_lies_on_the_nearest_mount() {
        let table = "/dev/vda / ext4 rw 0 0\ntmpfs /a tmpfs rw 0 0\n/dev/vdb /a/b xfs rw 0 0\n/dev/vdc /a\\040c xfs rw 0 0\n";
        let kind = |path: &str| Mount::find(Path::new(path), table).map(|mount| (mount.device, mount.kind));
        let is = |device: &str, kind: &str| Some((device.to_owned(), kind.to_owned()));
        assert_eq!(kind("/a/x"), is("tmpfs", "tmpfs"));
        assert_eq!(kind("/a/b/c"), is("/dev/vdb", "xfs"));
        assert_eq!(kind("/a c/d"), is("/dev/vdc", "xfs"));
        assert_eq!(kind("/ab"), is("/dev/vda", "ext4"));
    }

    #[test]
    fn memory_is_refused() {
        let shared = Path::new("/dev/shm");
        if Mount::of(shared).is_some_and(|mount| mount.kind == "tmpfs") {
            let error = refuse_memory(shared).expect_err("it was taken").to_string();
            assert!(error.contains("tmpfs") && error.contains("--dir"), "{error}");
        }
    }

    #[test]
    fn versions_come_from_the_lock_file() {
        assert_ne!(version_of("rusqlite"), "unknown");
        assert_eq!(version_of("no-such-package"), "unknown");
    }
}
