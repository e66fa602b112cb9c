//! A real ext4 whose power can be cut: a loop device over an export of the storage daemon of qemu, which logs what
//! the kernel writes and flushes.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::ops::{Choices, Dice};
use crate::surface::Fault;

/// What is needed, and the Debian packages that bring it.
const TOOLS: [(&str, &str); 6] = [
    ("qemu-storage-daemon", "qemu-system-common"),
    ("mkfs.ext4", "e2fsprogs"),
    ("mount", "mount"),
    ("umount", "mount"),
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
];
/// What is needed of the kernel.
const DEVICES: [&str; 3] = ["/dev/loop-control", "/dev/fuse", FOLDER];

const SECTOR: u64 = 512;
const DISK_BYTES: u64 = 32 << 20;
/// What is made for a round lies in a file system in memory, which covers this folder for the processes of the round:
/// nothing of it is left, however they end.
const FOLDER: &str = "/dev/shm";

/// Hardly any of it is used: the file is sparse.
const LOG_BYTES: u64 = 1 << 30;

/// An error that says what is missing on this machine.
pub(super) fn needs() -> Result<(), Fault> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |tool: &str| std::env::split_paths(&path).any(|folder| folder.join(tool).is_file());
    if let Some((tool, package)) = TOOLS.iter().find(|(tool, _)| !found(tool)) {
        return Err(format!("{tool} is missing: install the Debian package {package}").into());
    }
    if let Some(device) = DEVICES.iter().find(|device| !Path::new(device).exists()) {
        return Err(format!("{device} is missing: the kernel, or the container, must offer it").into());
    }
    if Command::new("id").arg("-u").output()?.stdout.trim_ascii() != b"0" {
        return Err("mounting a volume takes root".into());
    }
    Ok(())
}

/// A program that ends with the thread that starts it.
pub(super) fn bound(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command
}

/// Runs a command to its end; what it says when it fails is the error. What it prints otherwise.
pub(super) fn run(command: &mut Command) -> Result<String, Fault> {
    let output = command.output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{command:?} failed, {}: {}", output.status, said.trim()).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A process that is killed when it is no longer held.
#[derive(Debug)]
pub(super) struct Held(pub(super) Child);

impl Held {
    /// Ends it, whatever it is doing.
    pub(super) fn kill(&mut self) {
        // It fails only for one that has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A mounted volume. Its mounts belong to the mount namespace of this process, and go with it.
#[derive(Debug)]
pub(super) struct Volume {
    daemon: Held,
}

impl Volume {
    /// An empty one.
    pub(super) fn new() -> Result<Volume, Fault> {
        run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=768m", "tmpfs", FOLDER]))?;
        File::create(at("disk"))?.set_len(DISK_BYTES)?;
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-b", "4096"]).arg(at("disk")))?;
        std::fs::copy(at("disk"), at("base"))?;
        File::create(at("log"))?.set_len(LOG_BYTES)?;
        File::create(at("export"))?;
        std::fs::create_dir(at("mounted"))?;
        let volume = Volume { daemon: Held(daemon()?) };
        mount("export")?;
        Ok(volume)
    }

    /// The folder that it is mounted on.
    pub(super) fn root(&self) -> PathBuf {
        at("mounted")
    }

    /// Cuts the power: from here on nothing reaches the disk.
    pub(super) fn cut(&mut self) {
        self.daemon.kill();
    }

    /// Mounts in its place what the disk may hold after the cut.
    pub(super) fn restore(&self, dice: &mut Dice) -> Result<(), Fault> {
        for mounted in ["mounted", "export"] {
            run(Command::new("umount").arg("-l").arg(at(mounted)))?;
        }
        std::fs::copy(at("base"), at("image"))?;
        let mut log = BufReader::new(File::open(at("log"))?);
        lay_over(&mut File::options().write(true).open(at("image"))?, entries(&mut log)?, dice)?;
        mount("image")
    }

    /// Unmounts it, when all is well.
    pub(super) fn close(self) -> Result<(), Fault> {
        run(Command::new("umount").arg(self.root())).map(drop)
    }
}

fn at(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

/// Mounts what is on a file. The loop device is freed with the mount.
fn mount(file: &str) -> Result<(), Fault> {
    run(Command::new("mount").args(["-t", "ext4", "-o", "loop"]).args([at(file), at("mounted")])).map(drop)
}

/// The daemon, once the disk is there.
fn daemon() -> Result<Child, Fault> {
    let mut command = bound(Path::new("qemu-storage-daemon"));
    command.current_dir(FOLDER).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for (node, file) in [("disk", "disk"), ("log", "log")] {
        command.arg("--blockdev");
        // The machine itself keeps its power: what the log says is flushed need not be.
        command.arg(format!("driver=file,node-name={node},filename={file},cache.no-flush=on"));
    }
    command
        .args(["--blockdev", "driver=blklogwrites,node-name=logged,file=disk,log=log,log-sector-size=512"]);
    command.args(["--export", "type=fuse,id=export,node-name=logged,mountpoint=export,writable=on"]);
    // The monitor comes last: when it greets, the export is there.
    command.args(["--chardev", "stdio,id=monitor", "--monitor", "monitor"]);
    let mut child = command.spawn()?;
    let mut greeting = String::new();
    if let Some(output) = &mut child.stdout {
        BufReader::new(output).read_line(&mut greeting)?;
    }
    if greeting.is_empty() {
        let said = child.wait_with_output()?.stderr;
        return Err(format!("qemu-storage-daemon failed: {}", String::from_utf8_lossy(&said).trim()).into());
    }
    Ok(child)
}

/// What the kernel wrote to the disk at once, and whether it asked for everything before to be kept.
#[derive(Debug)]
struct Entry {
    at: u64,
    data: Vec<u8>,
    flush: bool,
    /// It was to be kept on its own account.
    kept: bool,
}

/// The log, as `driver=blklogwrites` writes it: from the second sector on a sector with sector, number of sectors,
/// flags and length, as little-endian `u64`; then the data, which a discard has none of.
fn entries(log: &mut (impl Read + std::io::Seek)) -> Result<Vec<Entry>, Fault> {
    const FLUSH: u64 = 1;
    const FORCED: u64 = 2;
    const DISCARD: u64 = 4;
    let mut entries = Vec::new();
    log.seek(SeekFrom::Start(SECTOR))?;
    loop {
        let mut header = [0; 512];
        log.read_exact(&mut header)?;
        let mut words =
            header.chunks_exact(8).map(|word| word.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)));
        let mut word = || words.next().unwrap_or(0);
        let (sector, number, flags) = (word(), word(), word());
        if (number, flags) == (0, 0) {
            break;
        }
        if sector + number > DISK_BYTES / SECTOR {
            return Err(format!("the log has {number} sectors from {sector} on, outside of the disk").into());
        }
        let len = if flags & DISCARD == 0 { number * SECTOR } else { 0 };
        let mut data = vec![0; usize::try_from(len)?];
        log.read_exact(&mut data)?;
        entries.push(Entry {
            at: sector * SECTOR,
            data,
            flush: flags & FLUSH != 0,
            kept: flags & FORCED != 0,
        });
    }
    // The cut may have come while the last one was written, and as nothing flushed it, it need not be there.
    entries.pop_if(|last| !last.flush && !last.kept);
    Ok(entries)
}

/// Writes over an image what the disk has of the log: everything up to the last flush, and of what was written later
/// each sector with chance 0, 1/2 or 7/8, one of them for the whole cut.
fn lay_over(image: &mut File, entries: Vec<Entry>, dice: &mut Dice) -> Result<(), Fault> {
    let flushed = entries.iter().rposition(|entry| entry.flush);
    let eighths = [0, 4, 7].get(dice.below(3)).copied().unwrap_or(0);
    for (number, entry) in entries.iter().enumerate() {
        let kept = entry.kept || flushed.is_some_and(|last| number <= last);
        for (at, sector) in (entry.at..).step_by(512).zip(entry.data.chunks(512)) {
            if kept || dice.below(8) < eighths {
                image.seek(SeekFrom::Start(at))?;
                image.write_all(sector)?;
            }
        }
    }
    Ok(())
}
