//! What is in use now, and ends at once when its credential does.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::watch;
use watchkeep::{Item, Kind, StoreId};

use super::rights::Principal;
use super::tickets::Borne;

/// What the group of a store's tokens begins with.
pub(super) const TOKENS: &str = "tokens-";
/// What is told to a client whose credential was taken away, and to one whose credential ended by itself.
pub(crate) const REVOKED: &str = "revoked";
pub(crate) const EXPIRED: &str = "expired";
/// What is told to a client that had none, once there is a token.
pub(crate) const UNAUTHORIZED: &str = "unauthorized";

/// By what somebody got in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum By {
    /// Nothing: no token was ever made.
    Nothing,
    Token(StoreId, String),
    Application(Principal),
}

/// A credential that is in use: it ends for all its users at once.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(super) by: By,
    ended: watch::Sender<Option<&'static str>>,
}

impl Standing {
    fn end(&self, why: &'static str) {
        self.ended.send_if_modified(|ended| ended.is_none() && ended.replace(why).is_none());
    }

    /// Why it ended, if it did.
    pub(super) fn ended(&self) -> Option<&'static str> {
        *self.ended.borrow()
    }

    /// Resolves when it ends, with the reason.
    pub(crate) async fn over(&self) -> &'static str {
        let mut ended = self.ended.subscribe();
        let ended = ended.wait_for(Option::is_some).await;
        ended.ok().and_then(|why| *why).unwrap_or(REVOKED)
    }
}

/// All credentials that are in use.
#[derive(Debug, Default)]
pub(crate) struct Live {
    is_guarded: AtomicBool,
    known: Mutex<HashMap<By, Weak<Standing>>>,
    tickets: Mutex<Vec<Weak<Borne>>>,
}

impl Live {
    fn known(&self) -> MutexGuard<'_, HashMap<By, Weak<Standing>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_guarded(&self) -> bool {
        self.is_guarded.load(Ordering::SeqCst)
    }

    pub(super) fn guard(&self) {
        self.is_guarded.store(true, Ordering::SeqCst);
        self.end(UNAUTHORIZED, |by| *by == By::Nothing);
    }

    /// The standing of a credential. It is taken before the credential is looked up, so that no end is missed.
    pub(super) fn of(&self, by: By) -> Arc<Standing> {
        let mut known = self.known();
        let standing =
            known.get(&by).and_then(Weak::upgrade).filter(|standing| standing.ended.borrow().is_none());
        standing.unwrap_or_else(|| {
            let standing = Arc::new(Standing { by: by.clone(), ended: watch::Sender::new(None) });
            if known.len() == known.capacity() {
                known.retain(|_, standing| standing.strong_count() > 0);
            }
            known.insert(by, Arc::downgrade(&standing));
            standing
        })
    }

    pub(crate) fn revoke(&self, whose: impl Fn(&Principal) -> bool) {
        self.end(REVOKED, |by| matches!(by, By::Application(principal) if whose(principal)));
    }

    /// Ends those that this holds for.
    pub(super) fn end(&self, why: &'static str, holds: impl Fn(&By) -> bool) {
        let known = self.known();
        let ended: Vec<_> =
            known.iter().filter(|(by, _)| holds(by)).filter_map(|(_, standing)| standing.upgrade()).collect();
        drop(known);
        ended.iter().for_each(|standing| standing.end(why));
    }

    /// What is in use now.
    pub(super) fn list(&self) -> Vec<By> {
        let known = self.known();
        known.iter().filter(|(_, standing)| standing.strong_count() > 0).map(|(by, _)| by.clone()).collect()
    }

    /// A stream bears a ticket from now on.
    pub(super) fn bear(&self, ticket: &Arc<Borne>) {
        let mut tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        if tickets.len() == tickets.capacity() {
            tickets.retain(|ticket| ticket.strong_count() > 0);
        }
        tickets.push(Arc::downgrade(ticket));
    }

    /// The tickets that streams bear.
    pub(super) fn borne(&self) -> Vec<Arc<Borne>> {
        let tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        tickets.iter().filter_map(Weak::upgrade).collect()
    }

    /// What happened to the credentials.
    pub(super) fn hear(&self, item: &Item) {
        let Some(event) = item.event() else { return };
        let is = |by: &By| match by {
            By::Token(store, id) => {
                event.group().strip_prefix(TOKENS) == Some(store.as_str())
                    && event.key().is_none_or(|key| key == id)
            }
            By::Nothing | By::Application(_) => false,
        };
        match event.kind() {
            Kind::Set if (event.group(), event.key()) == (super::GUARDED.0, Some(super::GUARDED.1)) => {
                self.guard();
            }
            Kind::Delete | Kind::DeleteGroup => self.end(REVOKED, is),
            Kind::Expire => self.end(EXPIRED, is),
            _ => {}
        }
    }
}
