//! The store for callers that must not block: on any runtime, without a thread for each call.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use crate::engine::workers::Workers;
use crate::engine::{Answer, Bounds, Dated, Query, Receipt, Survey, Wait};
use crate::rules::Write;
use crate::types::backup::{Backup, BackupOptions};
use crate::types::batch::{Applied, Batch, Operation};
use crate::types::entry::{Entry, GroupPage, KeyPage, ListOptions, Page};
use crate::types::error::{Error, Reason, Result};
use crate::types::event::ChangePage;
use crate::types::filter::Filter;
use crate::types::limits::QUEUED_CALLS;
use crate::types::name::Scope;
use crate::types::quota::Quota;
use crate::types::revision::{Cursor, Revision};
use crate::types::value::Value;
use crate::types::watching::WatchOptions;
use crate::types::writing::{DeleteOptions, SetOptions};
use crate::watch::changes::Reading;
use crate::watch::watcher::Watcher;

use super::consumer::Acker;
use super::handle::Store;
use super::pending::{Pending, Sender, Writing, slot};
use super::report::Stats;
use super::transaction::{Committed, Transaction};
use super::view;

/// The operations of a [`Store`] as futures.
///
/// Calls never block the thread that polls them, until the store is closed: what is read of it after that, by streams
/// that still drain, is read on the polling thread. A write begins when the method is called, not when its future is
/// first polled: one operation is queued for the next group commit; transactions, deletions of groups and repairs run
/// on a few threads of the store's own. Reads have threads to themselves, and wait neither for writers nor for
/// closures. They, [`backup`](AsyncStore::backup) and [`blocking`](AsyncStore::blocking) begin when first polled. All
/// futures work on any runtime, and watchers are streams themselves.
///
/// # Load
///
/// At most 65,536 writes, or 64 MiB of them, wait for their commit, and at most 65,536 reads and as many other calls for
/// a thread. Past that a call is refused at once, with kind [`Busy`](crate::ErrorKind::Busy): await some of those that
/// are queued.
///
/// # Order
///
/// Writes of one operation are committed in the order of their calls. What a transaction, a deletion of a group or a
/// blocking [`Store`] writes may be committed before them: await what must come first.
///
/// # Cancel safety
///
/// Dropping the future of a write, polled or not, does not take the write back: it happens, whole, or fails unseen.
/// Dropping the future of a read has no effect on the store. A backup or a closure of `blocking` whose future is
/// dropped goes on to its end, but is never begun when that was not polled.
///
/// ```
/// use watchkeep::Store;
/// # fn block_on<F: std::future::Future>(future: F) -> F::Output {
/// #     use std::task::{Context, Poll, Wake, Waker};
/// #     struct Unpark(std::thread::Thread);
/// #     impl Wake for Unpark { fn wake(self: std::sync::Arc<Self>) { self.0.unpark() } }
/// #     let waker = Waker::from(std::sync::Arc::new(Unpark(std::thread::current())));
/// #     let mut future = std::pin::pin!(future);
/// #     loop {
/// #         match future.as_mut().poll(&mut Context::from_waker(&waker)) {
/// #             Poll::Ready(output) => return output,
/// #             Poll::Pending => std::thread::park(),
/// #         }
/// #     }
/// # }
/// let store = Store::open_in_memory()?.to_async();
/// block_on(async {
///     store.set("config", "theme", "dark").await?;
///     assert_eq!(store.get("config", "theme").await?.unwrap(), "dark");
///     Ok(())
/// })
/// # as Result<(), watchkeep::Error>
/// # ;
/// # Ok::<(), watchkeep::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct AsyncStore {
    store: Store,
}

impl Store {
    /// The same store for callers that must not block.
    pub fn to_async(&self) -> AsyncStore {
        AsyncStore { store: self.clone() }
    }
}

/// Of a deletion or a touch.
fn was_there(receipt: Receipt) -> Result<bool> {
    Ok(receipt.outcome()?.was_there())
}

/// Of a deletion of groups.
fn keys(receipt: Receipt) -> Result<u64> {
    Ok(receipt.outcome()?.keys())
}

/// Begins a call, unless too many wait for one of these threads already.
fn begin<T>(workers: &Workers, call: impl FnOnce(Sender<Result<T>>)) -> Pending<Result<T>> {
    let ((sender, pending), jobs) = (slot(), workers.waiting());
    if jobs < QUEUED_CALLS {
        call(sender)
    } else {
        sender.send(Err(Reason::QueueFull { jobs }.into()))
    }
    pending
}

impl AsyncStore {
    /// The store itself, for what does not block: watching, callbacks, handles.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Queues a write; `read` takes from its receipt what is asked for.
    fn submit<T: Send + 'static>(
        &self,
        write: Write,
        read: impl FnOnce(Result<Receipt>) -> Result<T> + Send + 'static,
    ) -> Writing<T> {
        let (sender, pending) = slot();
        self.store.core().engine.submit(write, Box::new(move |result| sender.send(read(result))));
        Writing::new(pending)
    }

    /// Queues an operation.
    fn write<T: Send + 'static>(&self, operation: Operation, read: fn(Receipt) -> Result<T>) -> Writing<T> {
        let operation = operation.within(self.store.scope());
        self.submit(self.store.authored(operation.into()), move |result| read(result?))
    }

    /// Runs writes that block on one of the store's threads; refused inside a transaction's closure, which they would
    /// wait for.
    fn run_writes<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Store) -> Result<T> + Send + 'static,
    ) -> Pending<Result<T>> {
        match self.store.core().engine.may_wait(Wait::Commit) {
            Ok(()) => self.call(f),
            Err(error) => Pending::of(Err(error)),
        }
    }

    /// Asks the engine, without a thread where it can do that; `read` takes from the answer what is asked for.
    fn ask_for<T: Send + 'static>(
        &self,
        query: Query<'static>,
        read: impl FnOnce(&Store, Answer) -> Result<T> + Send + 'static,
    ) -> Pending<Result<T>> {
        let (core, store) = (self.store.core(), self.store.clone());
        begin(&core.readers, |sender| {
            let done = move |answer: Result<Answer>| {
                let result = answer.and_then(|answer| read(&store, answer));
                drop(store);
                sender.send(result);
            };
            core.engine.clone().ask_later(query, &core.readers, Box::new(done));
        })
    }

    /// Asks the engine for what it answers.
    fn ask<T>(&self, query: Query<'static>) -> Pending<Result<T>>
    where
        T: TryFrom<Answer, Error = Error> + Send + 'static,
    {
        self.ask_for(query, |_, answer| answer.try_into())
    }

    /// Runs something that may take its time on one of the store's threads.
    fn call<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Store) -> Result<T> + Send + 'static,
    ) -> Pending<Result<T>> {
        let (core, store) = (self.store.core(), self.store.clone());
        begin(&core.callers, |sender| {
            core.callers.spawn(move || {
                let result = f(&store);
                drop(store);
                sender.send(result);
            });
        })
    }

    fn scope(&self) -> &Scope {
        self.store.scope()
    }

    /// As [`Store::set`].
    ///
    /// # Errors
    ///
    /// As [`Store::set`].
    pub fn set(&self, group: &str, key: &str, value: impl Into<Value>) -> Writing<Revision> {
        self.set_with(group, key, value.into(), SetOptions::new())
    }

    /// As [`Store::set_with_ttl`].
    ///
    /// # Errors
    ///
    /// As [`Store::set_with_ttl`].
    pub fn set_with_ttl(
        &self,
        group: &str,
        key: &str,
        value: impl Into<Value>,
        ttl: Duration,
    ) -> Writing<Revision> {
        self.set_with(group, key, value.into(), SetOptions::new().ttl(ttl))
    }

    /// As [`Store::set_with`].
    ///
    /// # Errors
    ///
    /// As [`Store::set_with`].
    pub fn set_with(
        &self,
        group: &str,
        key: &str,
        value: impl Into<Value>,
        options: SetOptions,
    ) -> Writing<Revision> {
        self.write(Operation::set(group, key, value.into(), options), |receipt| receipt.set())
    }

    /// As [`Store::delete`].
    ///
    /// # Errors
    ///
    /// As [`Store::delete`].
    pub fn delete(&self, group: &str, key: &str) -> Writing<bool> {
        self.delete_with(group, key, DeleteOptions::new())
    }

    /// As [`Store::delete_with`].
    ///
    /// # Errors
    ///
    /// As [`Store::delete_with`].
    pub fn delete_with(&self, group: &str, key: &str, options: DeleteOptions) -> Writing<bool> {
        self.write(Operation::delete(group, key, &options), was_there)
    }

    /// As [`Store::touch`].
    ///
    /// # Errors
    ///
    /// As [`Store::touch`].
    pub fn touch(&self, group: &str, key: &str, ttl: Duration) -> Writing<bool> {
        self.write(Operation::touch(group, key, Some(ttl)), was_there)
    }

    /// As [`Store::persist`].
    ///
    /// # Errors
    ///
    /// As [`Store::persist`].
    pub fn persist(&self, group: &str, key: &str) -> Writing<bool> {
        self.write(Operation::touch(group, key, None), was_there)
    }

    /// As [`Store::apply`].
    ///
    /// # Errors
    ///
    /// As [`Store::apply`].
    pub fn apply(&self, batch: Batch) -> Writing<Applied> {
        match self.store.batch(batch) {
            Ok(write) => self.submit(write, |result| result?.applied()),
            Err(error) => Writing::of(Err(error)),
        }
    }

    /// As [`Store::set_quota`], queued as a write of one operation is.
    ///
    /// # Errors
    ///
    /// As [`Store::set_quota`].
    pub fn set_quota(&self, quota: Quota) -> Writing<()> {
        match self.store.quota_write(quota) {
            Ok(write) => self.submit(write, |result| result.map(drop)),
            Err(error) => Writing::of(Err(error)),
        }
    }

    /// As [`Store::quota`].
    ///
    /// # Errors
    ///
    /// As [`Store::quota`].
    pub async fn quota(&self) -> Result<Option<Quota>> {
        match self.store.quota_query() {
            Some(query) => self.ask(query).await,
            None => Ok(None),
        }
    }

    /// As [`Store::delete_group`].
    ///
    /// # Errors
    ///
    /// As [`Store::delete_group`].
    pub fn delete_group(&self, group: &str) -> Writing<u64> {
        self.write(Operation::delete_group(group), keys)
    }

    /// As [`Store::delete_prefix`].
    ///
    /// # Errors
    ///
    /// As [`Store::delete_prefix`].
    pub fn delete_prefix(&self, group_prefix: &str) -> Writing<u64> {
        self.write(Operation::delete_prefix(group_prefix), keys)
    }

    /// As [`Store::purge_expired`].
    ///
    /// # Errors
    ///
    /// As [`Store::purge_expired`].
    pub fn purge_expired(&self) -> impl Future<Output = Result<u64>> + Send + use<> {
        self.run_writes(Store::purge_expired)
    }

    /// As [`Store::transaction`]; the closure runs on one of the store's threads.
    ///
    /// # Errors
    ///
    /// As [`Store::transaction`]; `Io` when the closure panics.
    pub fn transaction<T, F>(&self, f: F) -> impl Future<Output = Result<Committed<T>>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: FnMut(&Transaction<'_>) -> Result<T> + Send + 'static,
    {
        self.run_writes(move |store| store.transaction(f))
    }

    /// As [`Store::get`].
    ///
    /// # Errors
    ///
    /// As [`Store::get`].
    pub async fn get(&self, group: &str, key: &str) -> Result<Option<Value>> {
        let group = self.scope().name_of(group.to_owned());
        self.ask(Query::Value { group, key: key.to_owned().into() }).await
    }

    /// As [`Store::entry`].
    ///
    /// # Errors
    ///
    /// As [`Store::entry`].
    pub async fn entry(&self, group: &str, key: &str) -> Result<Option<Entry>> {
        let group = self.scope().name_of(group.to_owned());
        let dated: Dated = self.ask(Query::Entry { group, key: key.to_owned().into() }).await?;
        Ok(dated.entry)
    }

    /// As [`Store::contains`].
    ///
    /// # Errors
    ///
    /// As [`Store::contains`].
    pub async fn contains(&self, group: &str, key: &str) -> Result<bool> {
        Ok(self.entry(group, key).await?.is_some())
    }

    /// As [`Store::count`].
    ///
    /// # Errors
    ///
    /// As [`Store::count`].
    pub async fn count(&self, group: &str) -> Result<u64> {
        self.ask(Query::Count { group: self.scope().name_of(group.to_owned()) }).await
    }

    /// As [`Store::count_all`].
    ///
    /// # Errors
    ///
    /// As [`Store::count_all`].
    pub async fn count_all(&self, group_prefix: &str) -> Result<u64> {
        self.ask(Query::CountAll { groups: self.scope().groups(group_prefix) }).await
    }

    /// As [`Store::revision_of`].
    ///
    /// # Errors
    ///
    /// As [`Store::revision_of`].
    pub async fn revision_of(&self, cursor: Cursor) -> Result<Revision> {
        let _: Bounds = self.ask(Query::bounds(self.store.id(), Some(cursor))?).await?;
        Ok(cursor.revision())
    }

    /// As [`Store::last_revision`].
    ///
    /// # Errors
    ///
    /// As [`Store::last_revision`].
    pub async fn last_revision(&self) -> Result<Revision> {
        self.ask(Query::Last).await
    }

    /// As [`Store::stats`].
    ///
    /// # Errors
    ///
    /// As [`Store::stats`].
    pub async fn stats(&self) -> Result<Stats> {
        self.ask_for(self.store.survey(), |store, survey| Ok(store.told(*Box::<Survey>::try_from(survey)?)))
            .await
    }

    /// As [`Store::watch_with`], whose reading of the file is done on one of the store's threads.
    ///
    /// # Errors
    ///
    /// As [`Store::watch_with`].
    pub async fn watch_with(&self, filter: Filter, options: WatchOptions) -> Result<Watcher> {
        let query = Watcher::query(&self.store.core().hub, &options)?;
        let watch = move |store: &Store, bounds: Answer| {
            let (hub, scope) = (&store.core().hub, store.scope());
            let filter = filter.within(|group| scope.full(group));
            Watcher::within(bounds.try_into()?, hub, filter, scope.prefix(), &options)
        };
        self.ask_for(query, watch).await
    }

    /// As [`Store::page`].
    ///
    /// # Errors
    ///
    /// As [`Store::page`].
    pub async fn page(&self, group: &str, options: ListOptions) -> Result<Page> {
        self.ask(view::entries(self.scope(), group.to_owned(), options)).await
    }

    /// As [`Store::keys_page`].
    ///
    /// # Errors
    ///
    /// As [`Store::keys_page`].
    pub async fn keys_page(&self, group: &str, options: ListOptions) -> Result<KeyPage> {
        self.ask(view::keys(self.scope(), group.to_owned(), options)).await
    }

    /// As [`Store::groups_page`].
    ///
    /// # Errors
    ///
    /// As [`Store::groups_page`].
    pub async fn groups_page(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<GroupPage> {
        let page = self.ask(view::groups(self.scope(), prefix, after, limit)).await?;
        Ok(view::local(self.scope(), page))
    }

    /// As [`Store::changes`].
    ///
    /// # Errors
    ///
    /// As [`Store::changes`].
    pub async fn changes(&self, filter: Filter, after: Option<Cursor>, rows: usize) -> Result<ChangePage> {
        let (hub, scope) = (self.store.core().hub.clone(), self.scope());
        let filter = filter.within(|group| scope.full(group));
        let bounds = self.ask(Query::bounds(self.store.id(), after)?).await?;
        let mut page = Reading::new(bounds, filter, scope.prefix(), after, rows)?;
        while let Some(after) = page.wants() {
            let segment = match hub.log.find(after) {
                Some(segment) => Ok(segment),
                None => self.ask(Query::Log { after }).await.map(|page| hub.log.add(after, page)),
            };
            page.take(segment)?;
        }
        Ok(page.finish(&*self.store.core().engine))
    }

    /// As [`Store::backup_with`].
    ///
    /// # Errors
    ///
    /// As [`Store::backup_with`].
    pub async fn backup(&self, target: impl AsRef<Path>, options: BackupOptions) -> Result<Backup> {
        let target = target.as_ref().to_owned();
        self.call(move |store| store.backup_with(target, options)).await
    }

    /// As [`Store::repair_counters`].
    ///
    /// # Errors
    ///
    /// As [`Store::repair_counters`].
    pub fn repair_counters(&self) -> impl Future<Output = Result<Vec<String>>> + Send + use<> {
        self.run_writes(Store::repair_counters)
    }

    /// As [`Acker::ack`]. A consumer itself is taken with [`blocking`](AsyncStore::blocking), best without waiting for
    /// another holder, and is a stream.
    ///
    /// # Errors
    ///
    /// As [`Acker::ack`].
    pub fn ack(&self, consumer: &impl AsRef<Acker>, revision: Revision) -> Writing<()> {
        let lease = consumer.as_ref().lease().clone();
        match lease.admit(revision) {
            Ok(Some(upto)) => {
                let ack = lease.write(lease.ack(Some(upto)));
                self.submit(ack, move |result| result.map(drop).inspect_err(|error| lease.learn(error)))
            }
            Ok(None) => Writing::of(Ok(())),
            Err(error) => Writing::of(Err(error)),
        }
    }

    /// Runs any calls of a [`Store`] on one of the store's threads: iterators, snapshots, checks, taking a consumer.
    ///
    /// # Errors
    ///
    /// What the closure returns; `Io` when it panics.
    pub async fn blocking<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Store) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.call(f).await
    }
}
