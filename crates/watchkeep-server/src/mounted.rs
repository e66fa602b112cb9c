//! The routes in an application that knows who asks.

use std::fmt;
use std::sync::Arc;

use axum::Router;
use utoipa::openapi::OpenApi;
use watchkeep::Store;

use crate::access::{Door, Live, Principal};
use crate::admission::Admission;
use crate::cors::PageOrigin;
use crate::ending::{Closer, Ending};
use crate::gate::{Gate, Gates};
use crate::guard::{Guard, HostName};
use crate::settings::{Limits, Reached};

/// The routes over a store for an application that says, in each request, who asks.
///
/// The application authenticates in a layer of its own, and puts a [`Principal`] into the request's extensions. A
/// request without one is refused with 401, so a layer that was forgotten lets nobody in.
///
/// ```
/// use axum::Extension;
/// use watchkeep::Store;
/// use watchkeep_server::{Hub, Principal, Rights};
///
/// let store = Store::open_in_memory()?;
/// let hub = Hub::new(&store);
/// let everybody = Principal {
///     namespace: Some("public".to_owned()),
///     rights: Rights { read: true, watch: true, ..Rights::NONE },
///     until: None,
/// };
/// let router: axum::Router = hub.router().layer(Extension(everybody));
/// // Later, from anywhere: their streams end.
/// hub.revoke(|principal| principal.namespace.as_deref() == Some("public"));
/// # drop(router);
/// # Ok::<(), watchkeep::Error>(())
/// ```
#[derive(Clone)]
pub struct Hub {
    gates: Gates,
    guard: Guard,
    admission: Admission,
    closer: Closer,
    live: Arc<Live>,
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").finish_non_exhaustive()
    }
}

impl Hub {
    /// The routes over a store. Its file is not opened again once it is replaced; see [`router`](crate::router).
    pub fn new(store: &Store) -> Hub {
        let (closer, ending) = Ending::pair();
        let live = Arc::<Live>::default();
        let (_, gates) =
            Gates::new(Gate::new(store, ending), Door::Application(live.clone(), closer.clone()));
        let admission = Admission::new(Limits::default(), Reached::default());
        Hub { gates, guard: Guard::default(), admission, closer, live }
    }

    /// Answers under these names too, besides those of this machine: the ones under which the application is reached.
    #[must_use]
    pub fn hosts(self, names: impl IntoIterator<Item = HostName>) -> Hub {
        Hub { guard: self.guard.hosts(names), ..self }
    }

    /// Lets pages of these origins use the routes too, from a browser: those of the origin that serves them always may.
    #[must_use]
    pub fn pages(self, origins: impl IntoIterator<Item = PageOrigin>) -> Hub {
        Hub { guard: self.guard.pages(origins), ..self }
    }

    /// The routes, to mount.
    pub fn router(&self) -> Router {
        let (gates, guard) = (self.gates.clone(), self.guard.clone());
        crate::routes(gates, guard, self.admission.clone(), OpenApi::default()).0
    }

    /// Ends all streams and WebSockets, from any thread: for an application that ends, whose server would wait for them.
    pub fn closer(&self) -> Closer {
        self.closer.clone()
    }

    /// Ends the streams and WebSockets of those for whom this holds. Whether they may come back, the application says.
    pub fn revoke(&self, whose: impl Fn(&Principal) -> bool) {
        self.live.revoke(whose);
    }
}
