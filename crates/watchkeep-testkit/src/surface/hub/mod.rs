//! A store behind its wire: what is read of changes comes over a real socket, as server-sent events or over a WebSocket.
//! Everything else goes to the library, so that what is held against the promises is the stream.

mod client;
mod connection;
mod message;
mod servers;
mod weather;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use watchkeep::{Clock, LagPolicy, Options, Revision, Timestamp};

use super::library::Library;
#[cfg(feature = "etcd")]
use super::site::Cluster;
use super::site::{Capabilities, File, Shelf, Site};
use super::{Callback, Fault, Past, Placed, Registered, Stream, Surface};
use crate::ops::{Dice, Draw, Op, Outcome, Step};
use crate::record::{Beginning, Target, Want, WatchSpec};

use client::{Client, Place};
use servers::{Running, Servers};
use weather::Weather;

pub use connection::Wire;
pub use weather::{Faults, Suffered};

/// One in so many writes ends the server that it goes through, where clients have others to go to.
const END: usize = 40;

/// A store of its own, and a server on each handle that is opened on it.
#[derive(Debug)]
pub struct Hub {
    place: Box<dyn Shelf>,
    wire: Wire,
    faults: Option<Faults>,
    /// Those of all handles, where clients move between them.
    together: Option<Arc<Servers>>,
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
        let place = Box::new(File::new()?);
        Ok(Hub { place, wire, faults: None, together: None, weathers: Mutex::default() })
    }

    /// Servers that share nothing but a cluster. Their clients are cut off and come back to any of them, and now and then
    /// a server ends under its clients: with a farewell, or by a kill.
    #[cfg(feature = "etcd")]
    pub fn in_a_cluster(cluster: Cluster, wire: Wire, faults: Faults) -> Hub {
        let together = Some(Arc::default());
        Hub { place: Box::new(cluster), wire, faults: Some(faults), together, weathers: Mutex::default() }
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
        let ends = self.together.as_ref().map_or(0, |servers| servers.ends());
        all.into_iter().fold(Suffered { ends, ..Suffered::default() }, |sum, one| Suffered {
            stalls: sum.stalls + one.stalls,
            cuts: sum.cuts + one.cuts,
            returns: sum.returns + one.returns,
            moves: sum.moves + one.moves,
            ends: sum.ends,
        })
    }
}

impl Site for Hub {
    fn capabilities(&self) -> Capabilities {
        self.place.capabilities()
    }

    fn open(&self, options: Options, clock: Arc<dyn Clock>) -> Result<Arc<dyn Surface>, Fault> {
        let mut weathers = self.weathers();
        // Each opened store has clients of its own.
        let number = u64::try_from(weathers.len()).unwrap_or(u64::MAX);
        let faults =
            self.faults.map(|faults| Faults { seed: faults.seed.wrapping_add(number << 32), ..faults });
        let weather = Arc::new(Weather::new(faults));
        weathers.push(weather.clone());
        let library = self.place.library(options, clock)?;
        let seed = number ^ self.faults.map_or(0, |faults| faults.seed);
        let ends = self.together.as_ref().map(|_| Mutex::new(Dice::new(seed)));
        let running = Running::start(library.store())?;
        let servers = self.together.clone().unwrap_or_default();
        servers.enter(number, running.address);
        let place = Place { wire: self.wire, number, servers, weather };
        Ok(Arc::new(Served { library, place, running: Mutex::new(running), ends, trouble: Mutex::default() }))
    }
}

#[derive(Debug)]
struct Served {
    library: Library,
    place: Place,
    running: Mutex<Running>,
    /// When its server ends under its clients, if it does.
    ends: Option<Mutex<Dice>>,
    /// Servers that did not start.
    trouble: Mutex<Vec<String>>,
}

impl Served {
    /// Ends the server when it is time for that.
    fn end_now_and_then(&self) -> Result<(), Fault> {
        let Some(dice) = &self.ends else { return Ok(()) };
        let killed = {
            let mut dice = dice.lock().unwrap_or_else(PoisonError::into_inner);
            let mut draw = Draw::new(&mut *dice);
            draw.one_in(END).then(|| draw.one_in(2))
        };
        // Whoever comes while it ends has it ended already.
        let (Some(killed), Ok(mut running)) = (killed, self.running.try_lock()) else { return Ok(()) };
        self.place.servers.renew(self.place.number, &mut running, self.library.store(), killed)
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
            if let Err(fault) = self.end_now_and_then() {
                self.trouble.lock().unwrap_or_else(PoisonError::into_inner).push(fault.to_string());
            }
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
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(self.library.check()?.into_iter().chain(trouble).collect())
    }

    fn close(&self) -> Result<(), Fault> {
        self.place.weather.close();
        self.place.servers.leave(self.place.number);
        self.library.close()
    }

    fn now(&self) -> Timestamp {
        self.library.now()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.place.weather.close();
        self.place.servers.leave(self.place.number);
    }
}
