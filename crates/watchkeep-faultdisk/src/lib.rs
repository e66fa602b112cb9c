//! A disk that fails on purpose, for tests: it stands under SQLite, writes down what SQLite does to the files of a
//! folder, and makes any of it fail.
//!
//! [`Disk::watch`] observes a folder. Every write, truncation, sync and deletion of SQLite in it is recorded, in one
//! order, from whichever connection and thread it comes; syncs are recorded and not made. From a [`Recording`] come
//! [images](Image): the files as they might be found after the power went at any moment of it. [`Disk::fail`] makes
//! the Nth operation of a kind fail, once or from then on.
//!
//! It is registered as the default VFS of the process, because that is the one a store opens its file with. Folders
//! that are not observed see the machine's own, unchanged. So tests of one process run side by side.
//!
//! ```
//! use watchkeep_faultdisk::{Disk, Fault, What};
//!
//! let folder = tempfile::tempdir()?;
//! let disk = Disk::watch(folder.path())?;
//! let conn = rusqlite::Connection::open(folder.path().join("a.db"))?;
//! conn.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)")?;
//! let acknowledged = disk.now();
//!
//! disk.fail(Fault { what: What::Sync, nth: 1, sticky: false });
//! assert!(conn.execute_batch("INSERT INTO t VALUES (2)").is_err());
//! drop(conn);
//!
//! // The power goes after the first insert: it is there.
//! let cut = tempfile::tempdir()?;
//! disk.recording().image_at(acknowledged, 7).write_to(cut.path())?;
//! let conn = rusqlite::Connection::open(cut.path().join("a.db"))?;
//! assert_eq!(conn.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0))?, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What is not seen: the `-shm` file, which SQLite maps and which means nothing after a power cut; files that are not
//! opened through SQLite; locks. Names are durable at once when they are made, as on the file systems that SQLite
//! runs on: a sync of a new file brings its name.

mod disk;
mod image;
mod vfs;

pub use disk::{Disk, Fault, What};
pub use image::{Image, Recording};
