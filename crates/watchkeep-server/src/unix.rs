//! A Unix socket, and the file that stands for it: only the owner may use it, and only its server removes it.

use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixSocket, UnixStream};

use crate::limits::BACKLOG;

const OWNERS: u32 = 0o600;

/// The file that stands for a socket.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Its device and its number there: another server may have moved it away, and put its own in its place.
    identity: (u64, u64),
}

impl SocketFile {
    /// Removes it, if it is still there. While the listener is open, no other file gets its number.
    pub(crate) fn remove(&self) {
        if self.path.symlink_metadata().is_ok_and(|file| identity(&file) == self.identity) {
            // Where somebody removed it meanwhile, that is as well.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Listens there. A socket that nobody listens on any more is taken over.
///
/// # Errors
///
/// `AddrInUse` when somebody listens there; `AlreadyExists` when something else is there, which stays.
pub(crate) async fn listen(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    if let Ok(file) = path.symlink_metadata() {
        refuse_other(&file)?;
        let answer = UnixStream::connect(path).await;
        if answer.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            std::fs::remove_file(path)?;
        }
    }
    let socket = UnixSocket::new_stream()?;
    // On Linux, the file gets the mode that the socket has by now. Elsewhere this may fail, and the one below does it.
    let _ = File::from(socket.as_fd().try_clone_to_owned()?).set_permissions(Permissions::from_mode(OWNERS));
    socket.bind(path)?;
    let file = path.symlink_metadata()?;
    if file.mode() & 0o777 != OWNERS {
        std::fs::set_permissions(path, Permissions::from_mode(OWNERS))?;
    }
    let name = SocketFile { path: path.into(), identity: identity(&file) };
    Ok((socket.listen(BACKLOG)?, name))
}

fn refuse_other(file: &Metadata) -> io::Result<()> {
    let kind = file.file_type();
    if kind.is_socket() {
        return Ok(());
    }
    let what = if kind.is_file() {
        "a file"
    } else if kind.is_dir() {
        "a folder"
    } else if kind.is_symlink() {
        "a link"
    } else {
        "something that is no socket"
    };
    Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{what} is there")))
}
