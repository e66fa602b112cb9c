//! What the tests share: results, limits, and the few ways to wait without sleeping.

pub(crate) mod consumers;
pub(crate) mod futures;
pub(crate) mod needs;
pub(crate) mod numbers;
pub(crate) mod seen;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use watchkeep::{Durability, Event, Kind, Options, Store, Transaction, Watcher};

use needs::{Need, on_cluster};
use numbers::number;

/// What a test returns.
pub(crate) type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Far longer than anything takes that goes right, also on a machine that does much else.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// Runs something on a thread of its own: what blocks for ever fails the test instead of hanging it.
pub(crate) fn within_limit<T: Send + 'static>(f: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let (done, result) = mpsc::channel();
    let thread = std::thread::spawn(move || done.send(f()).is_ok());
    let limit = if on_cluster() { LIMIT * 5 } else { LIMIT };
    match result.recv_timeout(limit) {
        Ok(result) => {
            thread.join().map_err(|_| "the thread panicked")?;
            result
        }
        Err(mpsc::RecvTimeoutError::Timeout) => Err("it blocks: nothing within the limit".into()),
        Err(mpsc::RecvTimeoutError::Disconnected) => match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(_) => Err("the thread ended without a result".into()),
        },
    }
}

/// An empty store: in memory, in a file of the folder that `WATCHKEEP_TEST_FOLDER` names, or in the cluster whose members
/// stand in `WATCHKEEP_TEST_ETCD`.
pub(crate) fn anywhere() -> watchkeep::Result<Store> {
    Options::new().anywhere()
}

/// Options of a store for which it does not matter where it is.
pub(crate) trait Anywhere {
    fn anywhere(self) -> watchkeep::Result<Store>;
}

impl Anywhere for Options {
    fn anywhere(self) -> watchkeep::Result<Store> {
        static FILES: AtomicU64 = AtomicU64::new(0);
        #[cfg(feature = "etcd")]
        if let Ok(members) = std::env::var("WATCHKEEP_TEST_ETCD") {
            let number = FILES.fetch_add(1, Ordering::Relaxed);
            let address = format!("etcd://{members}/tests/{}-{number}", std::process::id());
            numbers::remember(&address);
            return patient(self).connect(&address);
        }
        match std::env::var_os("WATCHKEEP_TEST_FOLDER") {
            None => self.open_in_memory(),
            Some(folder) => {
                let name = format!("{}-{}.db", std::process::id(), FILES.fetch_add(1, Ordering::Relaxed));
                let quick = self.durability(Durability::Relaxed).ballast(false);
                quick.open(Path::new(&folder).join(name))
            }
        }
    }
}

/// A write waits while members that share a busy machine elect a leader.
#[cfg(feature = "etcd")]
pub(crate) fn patient(options: Options) -> Options {
    options.busy_timeout(LIMIT)
}

/// A second handle on a store from `anywhere()`, as another process has one; in memory there is only the one.
pub(crate) fn another(store: &Store) -> watchkeep::Result<Store> {
    #[cfg(feature = "etcd")]
    if let Some(address) = store.address() {
        return patient(Options::new()).connect(address);
    }
    match store.path() {
        Some(path) => Options::new().busy_timeout(Duration::from_millis(10)).open(path),
        None => Ok(store.clone()),
    }
}

/// How many entries every engine takes in one transaction, whatever rows each has.
const PART: usize = 25;

/// Writes entries that a test begins with: in one transaction, or in parts where an engine takes no large ones.
pub(crate) fn fill<R>(
    store: &Store,
    number: usize,
    write: impl Fn(&Transaction<'_>, usize) -> watchkeep::Result<R>,
) -> Result {
    let part = if Need::LargeTransactions.is_met() { number.max(1) } else { PART };
    let mut start = 0;
    while start < number {
        let end = number.min(start + part);
        store.transaction(|tx| (start..end).try_for_each(|n| write(tx, n).map(drop)))?;
        start = end;
    }
    Ok(())
}

/// The file of a store that has one.
#[expect(clippy::expect_used, reason = "a test of a file has one")]
pub(crate) fn file_of(store: &Store) -> &Path {
    store.path().expect("it is in memory")
}

/// The rows that a query of a store's file gives, as text.
pub(crate) fn rows(store: &Store, sql: &str) -> Result<Vec<String>> {
    let conn = rusqlite::Connection::open(file_of(store))?;
    let mut statement = conn.prepare(sql)?;
    let columns = statement.column_count();
    let row = |row: &rusqlite::Row<'_>| {
        (0..columns)
            .map(|n| row.get_ref(n).map(|value| format!("{value:?}")))
            .collect::<rusqlite::Result<_>>()
    };
    Ok(statement.query_map([], row)?.collect::<rusqlite::Result<_>>()?)
}

/// How often a test tries something that hits seldom, times what `WATCHKEEP_TEST_SCALE` says.
pub(crate) fn scaled(times: u64) -> Result<u64> {
    let scale = std::env::var_os("WATCHKEEP_TEST_SCALE").unwrap_or_else(|| "1".into());
    Ok(times * scale.to_str().ok_or("WATCHKEEP_TEST_SCALE is not a number")?.parse::<u64>()?)
}

/// Waits for what another thread will do, looking again every few milliseconds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result {
    let (_never, pause) = mpsc::channel::<()>();
    let start = Instant::now();
    while !holds()? {
        if start.elapsed() > LIMIT {
            return Err(format!("never came: {what}").into());
        }
        // Nothing is ever sent: this only lets others run.
        let _ = pause.recv_timeout(Duration::from_millis(2));
    }
    Ok(())
}

/// The next event, which must come.
pub(crate) fn next(watcher: &mut Watcher) -> Result<Event> {
    Ok(watcher.recv_timeout(LIMIT).ok_or("no event within the limit")??)
}

/// The next events, so many, which must come.
pub(crate) fn take(watcher: &mut Watcher, number: usize) -> Result<Vec<Event>> {
    (0..number).map(|_| next(watcher)).collect()
}

/// An event as one line, with the number of its revision: `12 set group/key=value`.
pub(crate) fn line(event: &Event) -> String {
    let key = event.key().map(|key| format!("/{key}")).unwrap_or_default();
    let value = event.value().map(|value| format!("={}", value.to_string_lossy())).unwrap_or_default();
    format!("{} {} {}{key}{value}", number(event.revision()), event.kind(), event.group())
}

/// Events as lines.
pub(crate) fn lines<'e>(events: impl IntoIterator<Item = &'e Event>) -> Vec<String> {
    events.into_iter().map(line).collect()
}

/// Events as kind and key.
pub(crate) fn kinds<'e>(events: impl IntoIterator<Item = &'e Event>) -> Vec<(Kind, String)> {
    events.into_iter().map(|event| (event.kind(), event.key().unwrap_or_default().to_owned())).collect()
}

/// The numbers of the revisions of events.
pub(crate) fn revisions<'e>(events: impl IntoIterator<Item = &'e Event>) -> Vec<u64> {
    events.into_iter().map(|event| number(event.revision())).collect()
}
