//! Tickets: what a client without headers, a plain `EventSource`, bears in its URL instead of a token.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use watchkeep::{Entry, Error, SetOptions, StoreId, Timestamp};

use super::door::{Pass, closed, unauthorized};
use super::secret::{Secret, Sort};
use super::{Access, tokens_of};
use crate::limits::{ALL_TICKETS, TICKET_RETRY, TICKET_TIME, TICKETS};
use crate::problem::Problem;

/// The fields of a watch.
pub(crate) type Fields = BTreeMap<String, String>;

/// A ticket that a stream bears: its deadline slides as long as somebody holds this.
#[derive(Debug)]
pub(crate) struct Borne {
    /// Where it is, and where it is counted.
    groups: [String; 2],
    id: String,
}

/// What a ticket opens.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) pass: Pass,
    pub(crate) fields: Fields,
    /// The origin of the page that it was made for.
    pub(crate) origin: Option<String>,
}

/// What is kept of a ticket.
#[derive(Serialize, Deserialize)]
struct Kept {
    hash: String,
    token: String,
    fields: Fields,
    origin: Option<String>,
}

fn tickets_of(store: StoreId) -> String {
    format!("tickets-{store}")
}

/// Where the tickets of a token are counted: nobody's tickets say anything of another's.
pub(super) fn counted_for(store: StoreId, token: &str) -> String {
    format!("tickets-{store}-{token}")
}

impl Access {
    /// Makes a ticket of a token; and when it ends, unless a stream bears it.
    pub(super) async fn sell(
        &self,
        (store, token): (StoreId, String),
        fields: Fields,
        origin: Option<String>,
    ) -> Result<(Secret, Timestamp), Problem> {
        let ticket = Secret::new(Sort::Ticket).map_err(Error::abort)?;
        let hash = ticket.hash();
        let counted = counted_for(store, &token);
        let bearer = token.clone();
        let kept = Kept { hash: hash.as_str().to_owned(), token, fields, origin };
        let kept = serde_json::to_string(&kept).map_err(Error::abort)?;
        let (group, id) = (tickets_of(store), hash.id().to_owned());
        let tokens = tokens_of(store);
        let made = self.credentials().to_async().transaction(move |tx| {
            if tx.count(&counted)? >= TICKETS || tx.count(&group)? >= ALL_TICKETS {
                return Ok(None);
            }
            let ending = SetOptions::new().if_absent().ttl(TICKET_TIME);
            tx.set_with(&counted, &id, "", ending.clone())?;
            tx.set_with(&group, &id, kept.as_str(), ending)?;
            // It opens nothing once its token has ended.
            let ends = [tx.entry(&group, &id)?, tx.entry(&tokens, &bearer)?];
            Ok(ends.into_iter().flatten().filter_map(|entry| entry.deadline).min())
        });
        match made.await?.value {
            Some(deadline) => Ok((ticket, deadline)),
            None => {
                let detail = format!(
                    "the token has {TICKETS} tickets, or all have too many; use those, or come back in {TICKET_RETRY} seconds"
                );
                let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_tickets", detail);
                Err(problem.retry_after(TICKET_RETRY))
            }
        }
    }

    /// What a ticket opens: never more than its token, and nothing once that is gone.
    pub(super) async fn open_ticket(&self, ticket: &Secret, store: StoreId) -> Result<Opened, Problem> {
        let (hash, group) = (ticket.hash(), tickets_of(store));
        let read = |entry: Entry| serde_json::from_slice::<Kept>(&entry.value).ok();
        let entry = self.credentials().to_async().entry(&group, hash.id()).await.map_err(closed)?;
        let found = entry.and_then(read).filter(|kept| hash.is(&kept.hash));
        let Some(Kept { token, fields, origin, .. }) = found else {
            return Err(unauthorized("the ticket is not known here, or it ended; make another"));
        };
        let mut pass = self.admit_by(store, &token, |_| true).await?;
        let groups = [group, counted_for(store, &token)];
        let borne = Arc::new(Borne { groups, id: hash.id().to_owned() });
        self.live.bear(&borne);
        pass.ticket = Some(borne);
        Ok(Opened { pass, fields, origin })
    }

    /// Moves the deadlines of the tickets that streams bear: one write for all.
    pub(super) fn slide(&self) -> Result<(), Error> {
        let borne: BTreeSet<_> =
            self.live.borne().iter().map(|ticket| (ticket.groups.clone(), ticket.id.clone())).collect();
        if !borne.is_empty() {
            self.credentials().transaction(|tx| {
                let all = borne.iter().flat_map(|(groups, id)| groups.iter().map(move |group| (group, id)));
                all.into_iter().try_for_each(|(group, id)| tx.touch(group, id, TICKET_TIME).map(drop))
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::http::header::RETRY_AFTER;
    use axum::response::IntoResponse as _;
    use watchkeep::{ManualClock, Options, Store};

    use super::*;
    use crate::access::{Grant, Rights};
    use crate::limits::TICKET_SLIDE;

    #[tokio::test]
    async fn a_ticket_lives_as_long_as_a_stream_bears_it_and_five_minutes_more() -> Result<(), Problem> {
        let store = Store::open_in_memory()?;
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_700_000_000_000)));
        let access = Access::open_with(&store, Options::new().clock(clock.clone()))?;
        let token = access.create(Grant::new(Rights::ALL))?.token.id;
        let sell = || access.sell((store.id(), token.clone()), Fields::new(), None);
        let (borne, _) = sell().await?;
        let (unused, _) = sell().await?;
        let open = |ticket| access.open_ticket(ticket, store.id());
        let stream = open(&borne).await?;
        for _ in 0..10 {
            clock.advance(TICKET_SLIDE);
            access.slide()?;
        }
        assert!(open(&unused).await.is_err());
        assert!(open(&borne).await.is_ok());
        drop(stream);
        clock.advance(Duration::from_secs(5 * 60));
        access.slide()?;
        assert!(open(&borne).await.is_ok());
        clock.advance(TICKET_SLIDE);
        assert!(open(&borne).await.is_err());
        // And no longer than its token, of which nothing is left to count.
        let (last, _) = sell().await?;
        let counted = || access.credentials().count(&counted_for(store.id(), &token));
        assert_eq!((counted()?, access.credentials().count(&counted_for(store.id(), "another"))?), (1, 0));
        let stream = open(&last).await?;
        assert!(access.revoke(&token)?);
        assert!(open(&last).await.is_err());
        assert_eq!((stream.pass.ended(), counted()?), (Some("revoked"), 0));
        Ok(())
    }

    #[tokio::test]
    async fn a_ticket_is_not_said_to_outlive_its_token() -> Result<(), Problem> {
        let store = Store::open_in_memory()?;
        let now = Timestamp::from_millis(1_700_000_000_000);
        let access = Access::open_with(&store, Options::new().clock(Arc::new(ManualClock::new(now))))?;
        for (time, expected) in
            [(Duration::from_secs(60), Duration::from_secs(60)), (TICKET_TIME * 2, TICKET_TIME)]
        {
            let token = access.create(Grant::new(Rights::ALL).ttl(time))?.token.id;
            let (_, expires) = access.sell((store.id(), token), Fields::new(), None).await?;
            assert_eq!(expires.since(now), expected);
        }
        Ok(())
    }

    #[tokio::test]
    async fn over_the_limit_the_header_and_the_detail_say_the_same_time() -> Result<(), Problem> {
        let store = Store::open_in_memory()?;
        let access = Access::open(&store)?;
        let token = access.create(Grant::new(Rights::ALL))?.token.id;
        let counted = counted_for(store.id(), &token);
        access.credentials().transaction(|tx| {
            (0..TICKETS).try_for_each(|number| tx.set(&counted, &number.to_string(), "").map(drop))
        })?;
        let sold = access.sell((store.id(), token), Fields::new(), None).await;
        let refused = sold.err().ok_or_else(|| Problem::bad("it was sold"))?;
        assert!(refused.detail().ends_with("in 60 seconds"), "{refused:?}");
        assert_eq!(refused.into_response().headers()[RETRY_AFTER], "60");
        Ok(())
    }
}
