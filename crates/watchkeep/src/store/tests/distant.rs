//! An engine whose rows are elsewhere: its answers come when they come, on the one thread that hears them. However many
//! ask, none of them has a thread, neither of their own nor of the store.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use futures_core::Stream;
use futures_executor::block_on;

use crate::driver;
use crate::engine::feed::Feed;
use crate::engine::memory::MemoryEngine;
use crate::engine::workers::Workers;
use crate::engine::{
    Answer, Answered, Ask, Chores, Close, Completion, Engine, File, Held, Query, Receipt, Sealed, Settled,
    Transact, Wait, Whole,
};
use crate::rules::{Author, Write};
use crate::store::core::Core;
use crate::types::error::Reason;
use crate::{
    BackupOptions, Cursor, Durability, ErrorKind, Filter, Force, ListOptions, Options, Result, Revision,
    Store, StoreId, WatchOptions,
};

/// How many ask at once: many more than a store has threads.
const ASKING: usize = 1_000;

type Call = (Query<'static>, Answered);

struct Distant {
    rows: Arc<MemoryEngine>,
    line: Sender<Call>,
}

impl Ask for Distant {
    fn ask(&self, query: &Query<'_>) -> Result<Answer> {
        self.rows.ask(query)
    }
}

impl Engine for Distant {
    fn id(&self) -> StoreId {
        self.rows.id()
    }

    fn cursor(&self, revision: Revision) -> Cursor {
        self.rows.cursor(revision)
    }

    fn file(&self) -> Option<&dyn File> {
        None
    }

    fn chores(&self) -> Option<&dyn Chores> {
        None
    }

    fn whole(&self) -> Option<&dyn Whole> {
        None
    }

    fn ask_later(self: Arc<Self>, query: Query<'static>, _: &Workers, done: Answered) {
        if let Err(lost) = self.line.send((query, done)) {
            let (_, done) = lost.0;
            done(Err(Reason::Closed.into()));
        }
    }

    fn hold(&self) -> Result<Held> {
        self.rows.hold()
    }

    fn write(&self, write: Write, settled: &mut Settled) -> Result<Receipt> {
        self.rows.write(write, settled)
    }

    fn transact(
        &self,
        author: &Author,
        f: &mut dyn FnMut(&dyn Transact) -> Result<()>,
        settled: &mut Settled,
    ) -> Result<Sealed> {
        self.rows.transact(author, f, settled)
    }

    fn submit(&self, write: Write, done: Completion) {
        self.rows.submit(write, done);
    }

    fn settle(&self, settled: &mut Settled) -> Option<Duration> {
        self.rows.settle(settled)
    }

    fn has_vital(&self) -> bool {
        self.rows.has_vital()
    }

    fn feed(&self) -> &Feed {
        self.rows.feed()
    }

    fn distance(&self, from: Revision, to: Revision) -> u64 {
        self.rows.distance(from, to)
    }

    fn may_wait(&self, what_for: Wait) -> Result<()> {
        self.rows.may_wait(what_for)
    }

    fn close(&self, how: Close<'_>, settled: &mut Settled) {
        self.rows.close(how, settled);
    }
}

/// A store over such an engine, its rows, and what is asked of it.
fn open() -> Result<(Store, Arc<MemoryEngine>, Receiver<Call>)> {
    let signal =
        driver::of_this_process().map_err(|cause| Reason::Io { what: "no driver".to_owned(), cause })?;
    let (line, calls) = channel();
    let rows = Arc::new(MemoryEngine::open(&Options::new(), signal.clone())?);
    let engine = Arc::new(Distant { rows: rows.clone(), line });
    Ok((Store::start(Core::start(engine, Options::new(), signal)?)?, rows, calls))
}

fn answer(rows: &MemoryEngine, calls: impl IntoIterator<Item = Call>) {
    calls.into_iter().for_each(|(query, done)| done(rows.ask(&query)));
}

#[test]
fn a_thousand_ask_at_once_and_none_of_them_has_a_thread() -> Result<()> {
    let (store, rows, calls) = open()?;
    for n in 0..ASKING {
        store.set("g", &n.to_string(), n.to_string())?;
    }
    let (reads, names) = (store.to_async(), (0..ASKING).map(|n| n.to_string()).collect::<Vec<_>>());
    let mut gets: Vec<_> = names.iter().map(|name| Box::pin(reads.get("g", name))).collect();
    let mut context = Context::from_waker(Waker::noop());
    for get in &mut gets {
        assert!(get.as_mut().poll(&mut context).is_pending());
    }
    // Nobody has answered yet, and all have asked.
    let asked: Vec<_> = calls.try_iter().collect();
    assert_eq!(asked.len(), ASKING);
    answer(&rows, asked);
    for (get, name) in gets.into_iter().zip(&names) {
        assert_eq!(block_on(get)?.expect("it is there"), **name);
    }
    Ok(())
}

#[test]
fn whatever_is_read_is_asked_for_and_what_is_not_at_hand_is_refused() -> Result<()> {
    let (store, rows, calls) = open()?;
    let tenant = store.scoped("tenant")?;
    for n in 0..ASKING {
        tenant.set("g", &n.to_string(), "1")?;
    }
    let far_away = thread::spawn(move || answer(&rows, calls));
    let reads = tenant.to_async();
    block_on(async {
        let page = reads.page("g", ListOptions::new()).await?;
        assert_eq!(page.entries.len(), 256);
        assert_eq!(reads.groups_page("", None, 9).await?.groups, ["g"]);
        assert_eq!(reads.stats().await?.entries, ASKING as u64);
        let changes = reads.changes(Filter::everything(), None, ASKING).await?;
        assert_eq!((changes.events.len(), changes.next), (ASKING, changes.end));
        // From a snapshot, and from the log.
        for options in [WatchOptions::new().snapshot(), WatchOptions::new().after(Revision::ZERO)] {
            let mut watcher = pin!(reads.watch_with(Filter::everything(), options).await?);
            for _ in 0..ASKING {
                let event = poll_fn(|context| watcher.as_mut().poll_next(context)).await;
                event.expect("an event")?;
            }
        }
        Ok::<(), crate::Error>(())
    })?;
    let folder = tempfile::tempdir().expect("a folder");
    let target = folder.path().join("copy.db");
    let refused = [
        store.check().map(drop),
        store.repair_counters().map(drop),
        store.backup(&target).map(drop),
        store.backup_with(&target, BackupOptions::new()).map(drop),
        store.seal("moved").map(drop),
        store.unseal().map(drop),
        store.change_seal(None, Some("moved"), None).map(drop),
        store.quotas().map(drop),
        store.compact(Revision::ZERO).map(drop),
        store.compact_with(Revision::ZERO, Force::Yes).map(drop),
    ];
    let refused = refused.map(|it| it.map_err(|it| it.kind()));
    assert_eq!(refused, [Err(ErrorKind::InvalidArgument); 10]);
    assert!(!target.exists(), "a backup that is refused leaves nothing");
    assert_eq!((store.path(), store.durability()), (None, Durability::Relaxed));
    drop((reads, tenant, store));
    far_away.join().expect("it ends with the store");
    Ok(())
}
