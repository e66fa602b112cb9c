//! The VFS under SQLite: the machine's own, with a few methods of observed files put in front of it.
//!
//! Only here is unsafe code. SQLite calls these functions with a file that [`x_open`] opened, one call at a time for
//! each file. A file's memory is what SQLite reserved for the machine's VFS, and behind it a [`Tail`] of ours.

use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rusqlite::ffi::{
    SQLITE_CANTOPEN, SQLITE_IOERR, SQLITE_OK, SQLITE_OPEN_CREATE, sqlite3_file, sqlite3_io_methods,
    sqlite3_vfs, sqlite3_vfs_find, sqlite3_vfs_register,
};

use crate::disk::{Operation, Watched, find};
use crate::image::Op;

/// The machine's VFS.
struct Base(*mut sqlite3_vfs);

// SAFETY: SQLite never frees or changes a registered VFS, and calls the default one from any thread.
unsafe impl Send for Base {}
// SAFETY: as above.
unsafe impl Sync for Base {}

static BASE: OnceLock<Option<Base>> = OnceLock::new();

/// What is ours of an observed file, behind the memory of the machine's VFS.
struct Tail {
    /// The methods that SQLite calls: those of the machine, but for a few.
    methods: sqlite3_io_methods,
    /// The machine's methods, which are static.
    original: *const sqlite3_io_methods,
    watched: Arc<Watched>,
    name: Arc<str>,
}

/// Makes this the default VFS of the process, once.
pub(crate) fn install() -> std::io::Result<()> {
    let installed = BASE.get_or_init(|| {
        // SAFETY: SQLite initializes itself when it is asked for a VFS; null asks for the default one.
        let base = unsafe { sqlite3_vfs_find(std::ptr::null()) };
        if base.is_null() {
            return None;
        }
        // SAFETY: what SQLite found is a valid VFS for as long as the process lives, and plain data.
        let mut vfs = unsafe { *base };
        vfs.zName = c"watchkeep-faultdisk".as_ptr();
        vfs.szOsFile = c_int::try_from(tail_offset(vfs.szOsFile)? + size_of::<Tail>()).ok()?;
        vfs.xOpen = Some(x_open);
        vfs.xDelete = Some(x_delete);
        // SAFETY: a leaked VFS stays valid and in its place.
        let registered = unsafe { sqlite3_vfs_register(Box::leak(Box::new(vfs)), 1) };
        (registered == SQLITE_OK).then_some(Base(base))
    });
    match installed {
        Some(_) => Ok(()),
        None => Err(std::io::Error::other("SQLite takes no other VFS")),
    }
}

fn base() -> Option<*mut sqlite3_vfs> {
    // While the VFS is being registered another thread may be here already: it waits.
    BASE.wait().as_ref().map(|base| base.0)
}

/// Where our part of a file's memory begins.
fn tail_offset(base_size: c_int) -> Option<usize> {
    usize::try_from(base_size).ok().map(|size| size.next_multiple_of(align_of::<Tail>()))
}

/// # Safety
///
/// The file's memory must be what SQLite reserved for this VFS.
unsafe fn tail_of(file: *mut sqlite3_file) -> Option<*mut Tail> {
    // SAFETY: the machine's VFS is valid for as long as the process lives.
    let offset = tail_offset(unsafe { (*base()?).szOsFile })?;
    // SAFETY: `szOsFile` of this VFS has room for a tail at that place, aligned as SQLite's allocations are, to 8.
    Some(unsafe { file.byte_add(offset) }.cast())
}

/// # Safety
///
/// The name must be null or a C string.
unsafe fn observed(name: *const c_char) -> Option<(Arc<Watched>, String)> {
    if name.is_null() {
        return None;
    }
    // SAFETY: it is a C string.
    find(path(unsafe { CStr::from_ptr(name) }))
}

fn path(name: &CStr) -> &Path {
    Path::new(OsStr::from_bytes(name.to_bytes()))
}

unsafe extern "C" fn x_open(
    _: *mut sqlite3_vfs,
    name: *const c_char,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives a file's memory, which says "not open" until it is opened, and null or a C string as name.
    let (watched, open) = unsafe {
        (*file).pMethods = std::ptr::null();
        (observed(name), base().and_then(|base| Some((base, (*base).xOpen?))))
    };
    let Some((base, open)) = open else { return SQLITE_CANTOPEN };
    let Some((watched, short)) = watched else {
        // SAFETY: handed on as it came.
        return unsafe { open(base, name, file, flags, out_flags) };
    };
    if let Some(code) = watched.failure(Operation::Open) {
        return code;
    }
    // SAFETY: an observed file has a name.
    let is_new = flags & SQLITE_OPEN_CREATE != 0 && !path(unsafe { CStr::from_ptr(name) }).exists();
    // SAFETY: handed on as it came.
    let opened = unsafe { open(base, name, file, flags, out_flags) };
    if opened != SQLITE_OK {
        return opened;
    }
    let name: Arc<str> = short.into();
    if is_new {
        watched.record(Op::Create { file: name.clone() });
    }
    // SAFETY: the file is open, so it has methods, and its memory has room for a tail, which nobody else uses.
    unsafe {
        let Some(tail) = tail_of(file) else { return SQLITE_CANTOPEN };
        let original = (*file).pMethods;
        let mut methods = *original;
        methods.xClose = Some(x_close);
        methods.xRead = Some(x_read);
        methods.xWrite = Some(x_write);
        methods.xTruncate = Some(x_truncate);
        methods.xSync = Some(x_sync);
        tail.write(Tail { methods, original, watched, name });
        (*file).pMethods = &raw const (*tail).methods;
    }
    SQLITE_OK
}

unsafe extern "C" fn x_delete(_: *mut sqlite3_vfs, name: *const c_char, sync_folder: c_int) -> c_int {
    // SAFETY: SQLite gives a C string.
    let watched = unsafe { observed(name) };
    if let Some(code) = watched.as_ref().and_then(|(watched, _)| watched.failure(Operation::Delete)) {
        return code;
    }
    // SAFETY: handed on to the machine's VFS as it came; of an observed file the folder is not really synced.
    let deleted = unsafe {
        let Some((base, delete)) = base().and_then(|base| Some((base, (*base).xDelete?))) else {
            return SQLITE_IOERR;
        };
        delete(base, name, if watched.is_some() { 0 } else { sync_folder })
    };
    if let (SQLITE_OK, Some((watched, name))) = (deleted, watched) {
        let synced = sync_folder != 0 && !watched.lies();
        watched.record(Op::Delete { file: name.into(), synced });
    }
    deleted
}

/// What all methods of observed files begin with: our part of the file, the machine's method, and whether it fails.
macro_rules! method {
    ($file:ident, $name:ident) => {{
        // SAFETY: only files that `x_open` gave a tail have these methods, and the machine's methods are static.
        unsafe {
            match tail_of($file).and_then(|tail| Some((&*tail, (*(*tail).original).$name?))) {
                Some(found) => found,
                None => return SQLITE_IOERR,
            }
        }
    }};
}

unsafe extern "C" fn x_close(file: *mut sqlite3_file) -> c_int {
    let (tail, close) = method!(file, xClose);
    let tail: *const Tail = tail;
    // SAFETY: the tail was written when the file was opened, and is read out once, here. The machine's VFS gets the
    // file back as it was.
    unsafe {
        let tail = tail.read();
        (*file).pMethods = tail.original;
        close(file)
    }
}

unsafe extern "C" fn x_read(file: *mut sqlite3_file, into: *mut c_void, len: c_int, at: i64) -> c_int {
    let (tail, read) = method!(file, xRead);
    if let Some(code) = tail.watched.failure(Operation::Read) {
        return code;
    }
    // SAFETY: handed on as it came.
    unsafe { read(file, into, len, at) }
}

unsafe extern "C" fn x_write(file: *mut sqlite3_file, from: *const c_void, len: c_int, at: i64) -> c_int {
    let (tail, write) = method!(file, xWrite);
    let failure = tail.watched.failure(Operation::Write);
    let len = match failure {
        Some(rusqlite::ffi::SQLITE_FULL) => 0,
        Some(_) => len / 2,
        None => len,
    };
    // SAFETY: handed on, with fewer bytes when the write is to fail.
    let written = if len == 0 { SQLITE_OK } else { unsafe { write(file, from, len, at) } };
    if let (SQLITE_OK, Ok(count), Ok(at)) = (written, usize::try_from(len), usize::try_from(at))
        && count > 0
    {
        // SAFETY: SQLite gives that many bytes to write.
        let bytes = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), count) };
        tail.watched.record(Op::Write { file: tail.name.clone(), at, bytes: bytes.into() });
    }
    failure.unwrap_or(written)
}

unsafe extern "C" fn x_truncate(file: *mut sqlite3_file, len: i64) -> c_int {
    let (tail, truncate) = method!(file, xTruncate);
    if let Some(code) = tail.watched.failure(Operation::Truncate) {
        return code;
    }
    // SAFETY: handed on as it came.
    let truncated = unsafe { truncate(file, len) };
    if let (SQLITE_OK, Ok(len)) = (truncated, usize::try_from(len)) {
        tail.watched.record(Op::Truncate { file: tail.name.clone(), len });
    }
    truncated
}

/// Recorded, and not made: what a sync is worth is decided when the power goes.
unsafe extern "C" fn x_sync(file: *mut sqlite3_file, _flags: c_int) -> c_int {
    let (tail, _) = method!(file, xSync);
    let file = tail.name.clone();
    tail.watched.take_time();
    match tail.watched.failure(Operation::Sync) {
        Some(code) => {
            tail.watched.record(Op::SyncFailed { file });
            code
        }
        None => {
            if !tail.watched.lies() {
                tail.watched.record(Op::Sync { file });
            }
            SQLITE_OK
        }
    }
}
