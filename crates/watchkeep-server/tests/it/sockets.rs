//! A Unix socket: what becomes of the file that stands for it.

use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::JoinHandle;

use watchkeep::Store;
use watchkeep_server::{Closer, Listen, Server};

use crate::support::Result;

/// A server on a thread of its own.
struct Served {
    closer: Closer,
    thread: JoinHandle<()>,
}

impl Served {
    fn start(store: &Store, socket: &Path) -> std::io::Result<Served> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let server = runtime.block_on(Server::bind(store, &Listen::Unix(socket.into())))?;
        let closer = server.closer();
        Ok(Served { closer, thread: std::thread::spawn(move || runtime.block_on(server.run())) })
    }

    fn end(self) -> Result {
        self.closer.close();
        self.thread.join().map_err(|_| "it panicked".into())
    }
}

#[test]
fn a_server_removes_its_own_socket_and_no_other() -> Result {
    let (folder, store) = (tempfile::tempdir()?, Store::open_in_memory()?);
    let (socket, old) = (folder.path().join("r.sock"), folder.path().join("old.sock"));
    let first = Served::start(&store, &socket)?;
    assert_eq!(socket.metadata()?.permissions().mode() & 0o777, 0o600);
    std::fs::rename(&socket, &old)?;
    let second = Served::start(&store, &socket)?;
    first.end()?;
    UnixStream::connect(&socket)?;
    second.end()?;
    assert!(!socket.exists());

    // One that nobody listens on is taken over; one in use is not.
    assert!(old.symlink_metadata()?.file_type().is_socket());
    let third = Served::start(&store, &old)?;
    let taken = Served::start(&store, &old).err().ok_or("two servers have one socket")?;
    assert_eq!(taken.kind(), ErrorKind::AddrInUse);
    UnixStream::connect(&old)?;
    third.end()
}

#[test]
fn what_is_no_socket_is_named_and_stays() -> Result {
    let (folder, store) = (tempfile::tempdir()?, Store::open_in_memory()?);
    let place = |name: &str| folder.path().join(name);
    std::fs::write(place("file"), "mine")?;
    std::fs::create_dir(place("folder"))?;
    symlink("nowhere", place("link"))?;
    for (name, what) in [("file", "a file"), ("folder", "a folder"), ("link", "a link")] {
        let refused = Served::start(&store, &place(name)).err().ok_or("it listens there")?;
        assert_eq!(refused.kind(), ErrorKind::AlreadyExists, "{name}: {refused}");
        assert!(refused.to_string().contains(what), "{name}: {refused}");
        place(name).symlink_metadata()?;
    }
    assert_eq!(std::fs::read_to_string(place("file"))?, "mine");
    Ok(())
}
