//! Who gets in: the credentials of a store, in a second small store beside it.
//!
//! Nothing can be hidden in a store, which lists, watches and exports every row that it has. So tokens and tickets have
//! a file of their own ([decision 0013](../../../docs/decisions/0013-credentials-in-a-second-store.md)).

mod door;
mod live;
mod may;
mod rights;
mod secret;
mod tickets;

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use watchkeep::{
    Entry, Error, ErrorKind, Filter, ListOptions, Options, Retention, SetOptions, Store, StoreId,
    Subscription, Timestamp,
};

use crate::limits::{ACCESS_EVENTS, PAGE};

pub(crate) use door::{Door, Pass, mistyped, over};
pub(crate) use live::{EXPIRED, Live, REVOKED, UNAUTHORIZED};
pub(crate) use may::{Entrance, Inspect, May, Read, Streaming, Watch, Write};
pub(crate) use rights::Right;
pub use rights::{Principal, Rights};
pub(crate) use secret::{Secret, Sort};
pub(crate) use tickets::Fields;

/// Says that a token was made here once, or is required: from then on, nobody goes without one.
const GUARDED: (&str, &str) = ("access", "guarded");

/// The tokens of a store, which lie in a second small store beside it: `app.db-access` for `app.db`, mode 0600.
///
/// They are bound to the store's identity. A file that is restored or replaced has another, so that no backup revives a
/// token that was revoked meanwhile. A store in a cluster keeps its own when the whole cluster is restored: revoke again
/// then.
///
/// ```
/// use watchkeep::Store;
/// use watchkeep_server::{Access, Grant, Rights};
///
/// let store = Store::open_in_memory()?;
/// let access = Access::open(&store)?;
/// let created = access.create(Grant::new(Rights { read: true, ..Rights::NONE }).label("backup job"))?;
/// assert!(created.secret().starts_with("wk_"));
/// assert_eq!(access.list()?.len(), 1);
/// assert!(access.revoke(&created.token.id)?);
/// # Ok::<(), watchkeep::Error>(())
/// ```
#[derive(Clone)]
pub struct Access {
    credentials: Arc<RwLock<Credentials>>,
    live: Arc<Live>,
    store: StoreId,
    options: Arc<Options>,
}

/// The store of the credentials, and what tells of its changes.
struct Credentials {
    store: Store,
    _told: Subscription,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("path", &self.credentials().path()).finish_non_exhaustive()
    }
}

/// What a new token allows.
///
/// ```
/// use std::time::Duration;
/// use watchkeep_server::{Grant, Rights};
/// let month = Duration::from_secs(30 * 86_400);
/// let grant = Grant::new(Rights { watch: true, ..Rights::NONE }).namespace("tenant-42").ttl(month);
/// # drop(grant);
/// ```
#[derive(Debug, Clone)]
pub struct Grant {
    namespace: Option<String>,
    rights: Rights,
    ttl: Option<Duration>,
    label: Option<String>,
}

impl Grant {
    /// These rights, on the whole store, for ever.
    pub fn new(rights: Rights) -> Grant {
        Grant { namespace: None, rights, ttl: None, label: None }
    }

    /// Only within this namespace.
    #[must_use]
    pub fn namespace(self, namespace: impl Into<String>) -> Grant {
        Grant { namespace: Some(namespace.into()), ..self }
    }

    /// Only for so long.
    #[must_use]
    pub fn ttl(self, ttl: Duration) -> Grant {
        Grant { ttl: Some(ttl), ..self }
    }

    /// With a text that says whose it is.
    #[must_use]
    pub fn label(self, label: impl Into<String>) -> Grant {
        Grant { label: Some(label.into()), ..self }
    }
}

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Token {
    /// Its name, for revoking it.
    pub id: String,
    /// The namespace that it is confined to; none for the whole store.
    pub namespace: Option<String>,
    /// What it allows.
    pub rights: Rights,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends; none for never.
    pub expires: Option<Timestamp>,
    /// Whose it is.
    pub label: Option<String>,
}

/// A token that was just made. Its secret is known here, and nowhere else.
#[derive(Debug)]
pub struct Created {
    /// All that is kept.
    pub token: Token,
    secret: Secret,
}

impl Created {
    /// What its bearer sends: `Authorization: Bearer SECRET`.
    pub fn secret(&self) -> &str {
        self.secret.text()
    }
}

/// What is kept of a token.
#[derive(Serialize, Deserialize)]
struct Kept {
    hash: String,
    namespace: Option<String>,
    rights: Vec<String>,
    label: Option<String>,
}

impl Access {
    /// Opens the tokens of a store, and makes their file if it is not there. Those of a store in memory are in memory, too.
    ///
    /// # Errors
    ///
    /// As [`Options::open`].
    pub fn open(store: &Store) -> Result<Access, Error> {
        Access::open_with(store, Options::new())
    }

    /// As [`open`](Access::open), with options: another clock for tests, or `create(false)`.
    ///
    /// # Errors
    ///
    /// As [`Options::open`].
    pub fn open_with(store: &Store, options: Options) -> Result<Access, Error> {
        let options = options.ballast(false).retention(Retention::events(ACCESS_EVENTS));
        let again = options.clone();
        let credentials = match store.path() {
            Some(path) => {
                let path = beside(path);
                // What lies there already gives its mode to what SQLite makes beside it.
                keep_private(&path).map_err(Error::abort)?;
                let credentials = options.open(&path)?;
                keep_private(&path).map_err(Error::abort)?;
                credentials
            }
            None => open_elsewhere(store, options)?,
        };
        let live = Arc::new(Live::default());
        let credentials = Arc::new(RwLock::new(Credentials::new(credentials, &live)));
        let access = Access { credentials, live, store: store.id(), options: Arc::new(again) };
        if access.credentials().contains(GUARDED.0, GUARDED.1)? {
            access.live.guard();
        }
        Ok(access)
    }

    fn credentials(&self) -> Store {
        self.credentials.read().unwrap_or_else(PoisonError::into_inner).store.clone()
    }

    /// Opens the credentials again that were removed or restored with their cluster; whether they are there. Who had to
    /// bear a token still has to. What became of a file is not known, so it is not opened again.
    fn open_again(&self) -> Result<bool, Error> {
        let old = self.credentials();
        if old.address().is_none() || old.is_closed() {
            return Ok(false);
        }
        let store = connect(&old, Options::clone(&self.options))?;
        let mut credentials = self.credentials.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *credentials, Credentials::new(store, &self.live));
        drop(credentials);
        drop(before);
        self.look()?;
        Ok(true)
    }

    /// Makes a token.
    ///
    /// # Errors
    ///
    /// `Aborted` without a right; `InvalidName` for a namespace that cannot be one; what writing is refused with.
    pub fn create(&self, grant: Grant) -> Result<Created, Error> {
        if grant.rights.is_none() {
            return Err(Error::abort("a token needs one right at least"));
        }
        if let Some(namespace) = &grant.namespace {
            self.credentials().scoped(namespace)?;
        }
        let secret = Secret::new(Sort::Token).map_err(Error::abort)?;
        let hash = secret.hash();
        let rights = grant.rights.names().into_iter().map(str::to_owned).collect();
        let Grant { namespace, label, .. } = grant;
        let kept = Kept { hash: hash.as_str().to_owned(), namespace, rights, label };
        let kept = serde_json::to_string(&kept).map_err(Error::abort)?;
        let mut options = SetOptions::new().if_absent();
        if let Some(ttl) = grant.ttl {
            options = options.ttl(ttl);
        }
        let group = tokens_of(self.store);
        let made = self.credentials().transaction(|tx| {
            tx.set(GUARDED.0, GUARDED.1, "")?;
            tx.set_with(&group, hash.id(), kept.as_str(), options.clone())?;
            tx.entry(&group, hash.id())
        })?;
        let token = made.value.as_ref().and_then(token);
        let token = token.ok_or_else(|| Error::abort("the token ended before it was made"))?;
        Ok(Created { token, secret })
    }

    /// Lets nobody in without a token from now on, even before the first one is made.
    ///
    /// A server that asks for this at each start stays closed where the file of its credentials was lost.
    ///
    /// ```
    /// use watchkeep::Store;
    /// use watchkeep_server::Access;
    ///
    /// let access = Access::open(&Store::open_in_memory()?)?;
    /// assert!(!access.is_guarded());
    /// access.require_tokens()?;
    /// assert!(access.is_guarded());
    /// # Ok::<(), watchkeep::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// What writing is refused with.
    pub fn require_tokens(&self) -> Result<(), Error> {
        if !self.is_guarded() {
            self.credentials().set(GUARDED.0, GUARDED.1, "")?;
        }
        Ok(())
    }

    /// All tokens that have not ended, by their ids.
    ///
    /// # Errors
    ///
    /// What reading is refused with.
    pub fn list(&self) -> Result<Vec<Token>, Error> {
        let (group, mut tokens, mut after) = (tokens_of(self.store), Vec::new(), None);
        loop {
            let mut options = ListOptions::new().limit(PAGE);
            if let Some(after) = after {
                options = options.after(after);
            }
            let page = self.credentials().page(&group, options)?;
            tokens.extend(page.entries.iter().filter_map(token));
            after = page.next;
            if after.is_none() {
                return Ok(tokens);
            }
        }
    }

    /// Ends a token, its tickets and its streams; whether it was there.
    ///
    /// # Errors
    ///
    /// `Busy`, `Full`, `Closed`, `Io`.
    pub fn revoke(&self, id: &str) -> Result<bool, Error> {
        let revoked = self.credentials().transaction(|tx| {
            tx.delete_group(&tickets::counted_for(self.store, id))?;
            tx.delete(&tokens_of(self.store), id)
        });
        match revoked {
            // What is no name is no token's.
            Err(error) if error.kind() == ErrorKind::InvalidName => Ok(false),
            done => Ok(done?.value),
        }
    }

    /// Whether nobody goes without a token: one was made here once, even if all have ended, or they are
    /// [required](Access::require_tokens).
    pub fn is_guarded(&self) -> bool {
        self.live.is_guarded()
    }
}

impl Credentials {
    fn new(store: Store, live: &Arc<Live>) -> Credentials {
        let told = live.clone();
        // In this process, before the call that revokes returns.
        let told = store.on_change_with(Filter::everything(), move |item| told.hear(item));
        Credentials { store, _told: told }
    }
}

/// The store at the address of another one, which was replaced.
#[cfg(feature = "etcd")]
fn connect(old: &Store, options: Options) -> Result<Store, Error> {
    options.connect(old.address().unwrap_or_default())
}

#[cfg(not(feature = "etcd"))]
fn connect(old: &Store, _: Options) -> Result<Store, Error> {
    Ok(old.clone())
}

/// The credentials of a store without a file: beside it in its cluster, or in memory.
#[cfg(feature = "etcd")]
fn open_elsewhere(store: &Store, options: Options) -> Result<Store, Error> {
    match store.address() {
        // However it is written: another server of this store finds the same tokens.
        Some(address) => options.connect(&format!("{}.access", address.trim_end_matches('/'))),
        None => options.open_in_memory(),
    }
}

#[cfg(not(feature = "etcd"))]
fn open_elsewhere(_: &Store, options: Options) -> Result<Store, Error> {
    options.open_in_memory()
}

/// The file of the credentials of a store.
fn beside(store: &Path) -> PathBuf {
    let mut name = OsString::from(store);
    name.push("-access");
    name.into()
}

#[cfg(unix)]
fn keep_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    for suffix in ["", "-wal", "-shm", "-wake"] {
        let mut name = OsString::from(path);
        name.push(suffix);
        match std::fs::set_permissions(&name, std::fs::Permissions::from_mode(0o600)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            done => done?,
        }
    }
    Ok(())
}

#[cfg(not(unix))]
fn keep_private(_: &Path) -> std::io::Result<()> {
    Ok(())
}

/// Where the tokens of a store are. Those of another identity are in another group, where nobody looks.
fn tokens_of(store: StoreId) -> String {
    format!("{}{store}", live::TOKENS)
}

fn token(entry: &Entry) -> Option<Token> {
    Some(kept(entry)?.0)
}

/// A token, and its hash.
fn kept(entry: &Entry) -> Option<(Token, String)> {
    let kept: Kept = serde_json::from_slice(&entry.value).ok()?;
    let has = |name: &str| kept.rights.iter().any(|known| known == name);
    let rights =
        Rights { read: has("read"), write: has("write"), watch: has("watch"), inspect: has("inspect") };
    let token = Token {
        id: entry.key.clone(),
        namespace: kept.namespace,
        rights,
        created: entry.updated,
        expires: entry.deadline,
        label: kept.label,
    };
    Some((token, kept.hash))
}
