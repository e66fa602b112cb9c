//! A store behind its wire: what is read of changes comes over a real socket, as server-sent events or over a WebSocket.
//! Everything else goes to the library, so that what is held against the promises is the stream.

mod client;
mod connection;
mod message;
mod weather;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;

use watchkeep::{Clock, LagPolicy, Options, Revision, Timestamp};
use watchkeep_server::{Bound, Closer, Listen, Server};

use super::library::Library;
use super::site::{Capabilities, File, Site};
use super::{Callback, Fault, Past, Placed, Registered, Stream, Surface};
use crate::ops::{Op, Outcome, Step};
use crate::record::{Beginning, Target, Want, WatchSpec};

use client::{Client, Place};
use weather::Weather;

pub use connection::Wire;
pub use weather::{Faults, Suffered};

/// A store in a file of its own, and a server on it.
#[derive(Debug)]
pub struct Hub {
    file: File,
    wire: Wire,
    faults: Option<Faults>,
    /// Of each opened store.
    weathers: Mutex<Vec<Arc<Weather>>>,
}

impl Hub {
    /// A place for a file that is not there yet.
    ///
    /// # Errors
    ///
    /// When no folder can be made.
    pub fn new(wire: Wire) -> Result<Hub, Fault> {
        Ok(Hub { file: File::new()?, wire, faults: None, weathers: Mutex::default() })
    }

    /// The same, with clients that stand still, are cut off and come back.
    #[must_use]
    pub fn with_faults(self, faults: Faults) -> Hub {
        Hub { faults: Some(faults), ..self }
    }

    fn weathers(&self) -> MutexGuard<'_, Vec<Arc<Weather>>> {
        self.weathers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on nobody stands still or is cut off.
    pub fn calm(&self) {
        self.weathers().iter().for_each(|weather| weather.calm());
    }

    /// What its clients have suffered so far.
    pub fn suffered(&self) -> Suffered {
        let all = self.weathers().iter().map(|weather| weather.suffered()).collect::<Vec<_>>();
        all.into_iter().fold(Suffered::default(), |sum, one| Suffered {
            stalls: sum.stalls + one.stalls,
            cuts: sum.cuts + one.cuts,
            returns: sum.returns + one.returns,
        })
    }
}

impl Site for Hub {
    fn capabilities(&self) -> Capabilities {
        self.file.capabilities()
    }

    fn open(&self, options: Options, clock: Arc<dyn Clock>) -> Result<Arc<dyn Surface>, Fault> {
        let mut weathers = self.weathers();
        // Each opened store has clients of its own.
        let number = u64::try_from(weathers.len()).unwrap_or(u64::MAX);
        let faults =
            self.faults.map(|faults| Faults { seed: faults.seed.wrapping_add(number << 32), ..faults });
        let weather = Arc::new(Weather::new(faults));
        weathers.push(weather.clone());
        Ok(Arc::new(Served::start(self.file.library(options, clock)?, self.wire, weather)?))
    }
}

#[derive(Debug)]
struct Served {
    library: Library,
    place: Place,
    closer: Closer,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Served {
    fn start(library: Library, wire: Wire, weather: Arc<Weather>) -> Result<Served, Fault> {
        let (store, (tell, told)) = (library.store().clone(), mpsc::channel());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let server = Server::bind(&store, &Listen::Tcp(([127, 0, 0, 1], 0).into())).await?;
                drop(store);
                drop(tell.send((server.bound().clone(), server.closer())));
                server.run().await;
                Ok(())
            })
        });
        match told.recv()? {
            (Bound::Tcp(address), closer) => {
                let place = Place { wire, address, weather };
                Ok(Served { library, place, closer, thread: Some(thread) })
            }
            (Bound::Unix(path), _) => Err(format!("it listens on {}", path.display()).into()),
        }
    }

    /// What the wire has words for, as the fields of a subscription; the rest is watched through the library.
    fn fields(spec: &WatchSpec) -> Option<Vec<(&'static str, String)>> {
        let want = &spec.want;
        let beyond = want.namespace.is_some() || spec.previous_values || spec.policy != LagPolicy::CatchUp;
        if beyond {
            return None;
        }
        let mut fields = match want.also.as_slice() {
            [] => Served::filter(want)?,
            also => {
                // A label is left out of all filters, or of none.
                if want.excluded_origin.is_some() || also.iter().any(|want| want.excluded_origin.is_some()) {
                    return None;
                }
                let filters = also.iter().chain([want]).map(|want| {
                    let fields = Served::filter(want)?.into_iter();
                    Some(serde_json::Map::from_iter(
                        fields.map(|(name, value)| (name.to_owned(), value.into())),
                    ))
                });
                let filters = filters.collect::<Option<Vec<_>>>()?;
                vec![("any", serde_json::to_string(&filters).ok()?)]
            }
        };
        if let Some(origin) = &want.excluded_origin {
            fields.push(("exclude_origin", origin.clone()));
        }
        if spec.keys_only {
            fields.push(("values", "none".to_owned()));
        }
        if spec.beginning == Beginning::Snapshot {
            fields.push(("snapshot", "auto".to_owned()));
        }
        Some(fields)
    }

    /// One filter, without what is united with it.
    fn filter(want: &Want) -> Option<Vec<(&'static str, String)>> {
        let mut fields = match &want.target {
            Target::Everything => vec![],
            Target::Group(group) => vec![("group", group.clone())],
            Target::GroupPrefix(prefix) => vec![("group_prefix", prefix.clone())],
            Target::Key(group, key) => vec![("group", group.clone()), ("key", key.clone())],
            Target::KeyPrefix(group, prefix) => {
                vec![("group", group.clone()), ("key_prefix", prefix.clone())]
            }
            Target::KeyName(key) => vec![("key", key.clone())],
            Target::Pattern(..) => return None,
        };
        if let Some(kinds) = &want.kinds {
            // The wire takes no filter that lets nothing through.
            let kinds = (!kinds.is_empty()).then(|| kinds.iter().map(|kind| kind.as_str()))?;
            fields.push(("kinds", kinds.collect::<Vec<_>>().join(",")));
        }
        if want.without_group_deletions {
            fields.push(("group_deletions", "no".to_owned()));
        }
        Some(fields)
    }
}

impl Surface for Served {
    fn perform(&self, step: &Step, label: &str) -> Outcome {
        let outcome = self.library.perform(step, label);
        if !matches!(step.op, Op::Read(_)) {
            self.place.weather.wrote();
        }
        outcome
    }

    fn history(&self, want: &Want, after: Revision) -> Result<Past, Fault> {
        self.library.history(want, after)
    }

    fn last(&self) -> Result<Revision, Fault> {
        self.library.last()
    }

    fn oldest(&self) -> Result<Revision, Fault> {
        self.library.oldest()
    }

    fn compact(&self, before: Revision) -> Result<u64, Fault> {
        self.library.compact(before)
    }

    fn picture(&self) -> Result<(Revision, Vec<Placed>), Fault> {
        self.library.picture()
    }

    fn watch(&self, spec: &WatchSpec) -> Result<Box<dyn Stream>, Fault> {
        let Some(mut fields) = Served::fields(spec) else { return self.library.watch(spec) };
        let now = self.library.last()?;
        if let Beginning::After(revision) = spec.beginning {
            if revision > now {
                // The wire refuses what the library waits for.
                return self.library.watch(spec);
            }
            fields.push(("after", self.library.store().cursor(revision).to_string()));
        }
        Ok(Box::new(Client::begin(self.place.clone(), fields, spec.beginning, now)?))
    }

    fn on_change(&self, want: &Want, callback: Callback) -> Option<Box<dyn Registered>> {
        self.library.on_change(want, callback)
    }

    fn check(&self) -> Result<Vec<String>, Fault> {
        self.library.check()
    }

    fn close(&self) -> Result<(), Fault> {
        self.place.weather.close();
        self.library.close()
    }

    fn now(&self) -> Timestamp {
        self.library.now()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.place.weather.close();
        self.closer.close();
        if let Some(thread) = self.thread.take() {
            // What it failed with shows in the streams.
            drop(thread.join());
        }
    }
}
