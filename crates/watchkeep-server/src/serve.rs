//! Listening: an accept loop of its own, because streams never end by themselves and a server must.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use watchkeep::Store;

use crate::access::{Access, Door};
use crate::admission::Admission;
use crate::cors::PageOrigin;
use crate::ending::{Closer, Ending};
use crate::gate::{Gate, Gates, Keeper, Reopen};
use crate::guard::{Guard, HostName};
use crate::limits::{ACCEPT_PAUSE, END_TIME};
use crate::proxies::{Proxies, ProxyNet};
use crate::settings::{Limits, Reached};
use crate::tls::Tls;
use crate::transport::{Io, Transport};
use crate::unix::{self, SocketFile};

/// Where a server listens.
///
/// ```
/// use watchkeep_server::Listen;
/// assert_eq!(Listen::default().to_string(), "127.0.0.1:7460");
/// assert_eq!("unix:/run/app.sock".parse::<Listen>()?.to_string(), "unix:/run/app.sock");
/// assert!("nowhere".parse::<Listen>().is_err());
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A port of an address, of loopback unless [all is well](crate::may_listen); 0 is a free one.
    Tcp(SocketAddr),
    /// A Unix socket, made with mode 0600.
    Unix(PathBuf),
}

impl Default for Listen {
    fn default() -> Listen {
        Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 7460)))
    }
}

impl Listen {
    /// Whether only this machine reaches it.
    pub(crate) fn is_private(&self) -> bool {
        match self {
            Listen::Tcp(address) => address.ip().is_loopback(),
            Listen::Unix(_) => true,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => address.fmt(f),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Listen, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Listen::Unix(path.into()));
        }
        let address: SocketAddr = text.parse().map_err(|_| {
            format!("'{text}' is not an address; write it like 127.0.0.1:7460 or unix:/run/app.sock")
        })?;
        Ok(Listen::Tcp(address))
    }
}

/// Where a server turned out to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bound {
    /// At this address.
    Tcp(SocketAddr),
    /// On this socket.
    Unix(PathBuf),
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// A server over a store, which listens on loopback or on a Unix socket.
pub struct Server {
    listener: Listener,
    bound: Bound,
    gates: Gates,
    guard: Guard,
    admission: Admission,
    proxies: Proxies,
    reached: Reached,
    closer: Closer,
    ending: Ending,
    keeper: Keeper,
    reopen: Option<Reopen>,
    tls: Option<Tls>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("bound", &self.bound).finish_non_exhaustive()
    }
}

impl Server {
    /// Listens; requests are answered once it [runs](Server::run).
    ///
    /// # Errors
    ///
    /// `PermissionDenied` when the address is not this machine's alone; otherwise as [`bind_anywhere`](Server::bind_anywhere).
    pub async fn bind(store: &Store, listen: &Listen) -> io::Result<Server> {
        if !listen.is_private() {
            let what = format!("{listen} can be reached from other machines; see Server::bind_anywhere");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
        }
        Server::bind_anywhere(store, listen).await
    }

    /// As [`bind`](Server::bind), also where other machines reach it. Ask [`may_listen`](crate::may_listen) before.
    ///
    /// # Errors
    ///
    /// `AddrInUse` when the address is taken; `AlreadyExists` when something that is no socket is in the place of a Unix
    /// socket; another when the address may not be used.
    pub async fn bind_anywhere(store: &Store, listen: &Listen) -> io::Result<Server> {
        let (closer, ending) = Ending::pair();
        let (listener, bound) = match listen {
            Listen::Tcp(address) => {
                let listener = TcpListener::bind(address).await?;
                let bound = Bound::Tcp(listener.local_addr()?);
                (Listener::Tcp(listener), bound)
            }
            Listen::Unix(path) => {
                let (listener, file) = unix::listen(path).await?;
                (Listener::Unix(listener, file), Bound::Unix(path.clone()))
            }
        };
        let guard = match listen {
            // Its own address is a name that no stranger can point at it.
            Listen::Tcp(address) if !address.ip().is_unspecified() => {
                Guard::default().hosts([HostName(host_of(address))])
            }
            Listen::Tcp(_) | Listen::Unix(_) => Guard::default(),
        };
        let (keeper, gates) = Gates::new(Gate::new(store, ending.clone()), Door::Open);
        let reached = Reached::default();
        Ok(Server {
            listener,
            bound,
            gates,
            guard,
            admission: Admission::new(Limits::default(), reached.clone()),
            proxies: Proxies::default(),
            reached,
            closer,
            ending,
            keeper,
            reopen: None,
            tls: None,
        })
    }

    /// Opens the store again in this way when its file was replaced, by a restore for example. Streams go on with
    /// `reset` and what is in the file that is there now; requests wait a moment.
    ///
    /// The store that the server had is closed before, for all its handles. What fails is tried again, so this must not
    /// make a new store where none is yet. Without it a server answers with 503 once the file was replaced.
    ///
    /// ```no_run
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// use watchkeep::{Options, Store};
    /// use watchkeep_server::{Listen, Server};
    ///
    /// let store = Store::open("app.db")?;
    /// let server = Server::bind(&store, &Listen::default()).await?;
    /// server.reopen_with(|| Options::new().create(false).open("app.db")).run().await;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn reopen_with<E: Into<Box<dyn Error + Send + Sync>>>(
        self,
        open: impl Fn() -> Result<Store, E> + Send + Sync + 'static,
    ) -> Server {
        Server { reopen: Some(Box::new(move || open().map_err(Into::into))), ..self }
    }

    /// Answers under these names too, besides those of this machine.
    ///
    /// ```no_run
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// use watchkeep::Store;
    /// use watchkeep_server::{Listen, Server};
    ///
    /// let store = Store::open("app.db")?;
    /// Server::bind(&store, &Listen::default()).await?.hosts(["store.example".parse()?]).run().await;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn hosts(self, names: impl IntoIterator<Item = HostName>) -> Server {
        Server { guard: self.guard.hosts(names), ..self }
    }

    /// Lets pages of these origins use it too, from a browser.
    ///
    /// ```no_run
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// use watchkeep::Store;
    /// use watchkeep_server::{Listen, Server};
    ///
    /// let store = Store::open("app.db")?;
    /// let server = Server::bind(&store, &Listen::default()).await?;
    /// server.pages(["https://app.example.com".parse()?]).run().await;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn pages(self, origins: impl IntoIterator<Item = PageOrigin>) -> Server {
        Server { guard: self.guard.pages(origins), ..self }
    }

    /// Asks everybody for a token, once there is one.
    ///
    /// ```no_run
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// use watchkeep::Store;
    /// use watchkeep_server::{Access, Listen, Server};
    ///
    /// let store = Store::open("app.db")?;
    /// let server = Server::bind(&store, &Listen::default()).await?;
    /// server.ask_for_tokens(Access::open(&store)?).run().await;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn ask_for_tokens(self, access: Access) -> Server {
        Server { gates: self.gates.behind(Door::Tokens(access)), ..self }
    }

    /// Speaks TLS, with HTTP/2 to those who offer it, and HTTP/1.1 to the others.
    ///
    /// ```no_run
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// use watchkeep::Store;
    /// use watchkeep_server::{Listen, Server, Tls};
    ///
    /// let store = Store::open("app.db")?;
    /// let tls = Tls::from_files("fullchain.pem", "privkey.pem")?;
    /// Server::bind(&store, &Listen::default()).await?.tls(tls).run().await;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn tls(self, tls: Tls) -> Server {
        Server { tls: Some(tls), ..self }
    }

    /// Has these limits instead of the default ones.
    ///
    /// ```no_run
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// use watchkeep::Store;
    /// use watchkeep_server::{Limit, Limits, Listen, Server};
    ///
    /// let server = Server::bind(&Store::open("app.db")?, &Listen::default()).await?;
    /// server.limits(Limits::default().with(Limit::ConnectionsPerAddress, 100)).run().await;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn limits(self, limits: Limits) -> Server {
        Server { admission: Admission::new(limits, self.reached.clone()), ..self }
    }

    /// Believes proxies of these nets for whom they ask, in `X-Forwarded-For`: the limits of an address are those of their
    /// clients then.
    ///
    /// ```no_run
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// use watchkeep::Store;
    /// use watchkeep_server::{Listen, Server};
    ///
    /// let server = Server::bind(&Store::open("app.db")?, &Listen::default()).await?;
    /// server.trusted_proxies(["127.0.0.1".parse()?]).run().await;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn trusted_proxies(self, nets: impl IntoIterator<Item = ProxyNet>) -> Server {
        Server { proxies: self.proxies.and(nets), ..self }
    }

    /// How often each limit was reached, now and later.
    pub fn reached(&self) -> Reached {
        self.reached.clone()
    }

    /// Where it listens: the port is known here, also when any was asked for.
    pub fn bound(&self) -> &Bound {
        &self.bound
    }

    /// The address to put into a browser; of a Unix socket, its path.
    pub fn url(&self) -> String {
        match &self.bound {
            Bound::Tcp(address) => {
                format!("{}://{address}/", if self.tls.is_some() { "https" } else { "http" })
            }
            Bound::Unix(path) => format!("unix:{}", path.display()),
        }
    }

    /// What ends it, from any thread.
    pub fn closer(&self) -> Closer {
        self.closer.clone()
    }

    /// Answers until it is closed.
    pub async fn run(self) {
        tracing::info!(url = self.url(), "the server answers");
        let mut keeping = JoinSet::new();
        match self.reopen {
            Some(reopen) => drop(keeping.spawn(self.keeper.keep(reopen, self.gates.door().clone()))),
            // Then nobody waits for it to be opened again.
            None => drop(self.keeper),
        }
        keeping.spawn(self.gates.door().clone().keep_watch());
        let transport = Arc::new(Transport {
            router: crate::watched(self.gates, self.guard, self.admission.clone()),
            tls: self.tls,
            ending: self.ending.clone(),
            admission: self.admission,
            proxies: self.proxies,
        });
        let mut connections = JoinSet::new();
        let mut ended = Box::pin(self.ending.clone().wait());
        loop {
            tokio::select! {
                () = &mut ended => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, address)) => {
                        // Without a seat it is closed unanswered.
                        if let Some((peer, seat)) = transport.seat(address) {
                            connections.spawn(transport.clone().serve(stream, peer, seat));
                        }
                    }
                    Err(error) => {
                        // Out of descriptors, most likely: those that are open go on, and some of them end.
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
        if let Listener::Unix(_, file) = &self.listener {
            file.remove();
        }
        drop(self.listener);
        let rest = async {
            while connections.join_next().await.is_some() {}
            self.ending.sockets_gone().await;
        };
        if tokio::time::timeout(END_TIME, rest).await.is_err() {
            tracing::warn!("some requests did not end in time and were cut off");
        }
        tracing::info!("the server has ended");
    }
}

fn host_of(address: &SocketAddr) -> String {
    match address.ip() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

impl Listener {
    /// The next connection, and the address that it comes from.
    async fn accept(&self) -> io::Result<(Box<dyn Io>, Option<IpAddr>)> {
        Ok(match self {
            Listener::Tcp(listener) => {
                let (stream, from) = listener.accept().await?;
                // An event must not wait for the acknowledgement of the one before it.
                stream.set_nodelay(true)?;
                (Box::new(stream), Some(from.ip()))
            }
            Listener::Unix(listener, _) => (Box::new(listener.accept().await?.0), None),
        })
    }
}
