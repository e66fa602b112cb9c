//! The door: who is let in, with which rights, and until when.

use std::sync::Arc;

use axum::http::header::{AUTHORIZATION, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Uri};
use percent_encoding::percent_decode_str;
use tokio::time::Instant;
use watchkeep::{Clock as _, Error, ErrorKind, StoreId, SystemClock, Timestamp};

use super::live::{By, EXPIRED, Live, REVOKED, Standing, UNAUTHORIZED};
use super::rights::{Principal, Right, Rights};
use super::secret::{Secret, Sort};
use super::tickets::{Borne, Fields};
use super::{Access, GUARDED, Token, kept, tokens_of};
use crate::ending::Closer;
use crate::limits::{HEARTBEAT, TICKET_SLIDE};
use crate::problem::Problem;

/// How those who ask are told apart.
#[derive(Debug, Clone)]
pub(crate) enum Door {
    /// They are not.
    Open,
    /// By their tokens, once there is one.
    Tokens(Access),
    /// By the application, which says who asks. The closer is kept, so that nothing ends when the hub goes.
    Application(Arc<Live>, #[expect(dead_code, reason = "only its end counts")] Closer),
}

/// What somebody got in with.
#[derive(Debug, Clone)]
pub(crate) struct Pass {
    /// None for whatever is served.
    pub(crate) namespace: Option<String>,
    pub(crate) rights: Rights,
    until: Option<Timestamp>,
    standing: Option<Arc<Standing>>,
    /// What it is for ends with something else.
    outlives: bool,
    /// What it bears instead of a token.
    pub(super) ticket: Option<Arc<Borne>>,
}

impl Default for Pass {
    /// Of anybody, where nobody is asked.
    fn default() -> Pass {
        Pass {
            namespace: None,
            rights: Rights::ALL,
            until: None,
            standing: None,
            outlives: false,
            ticket: None,
        }
    }
}

impl Pass {
    /// Refuses what it has no right to.
    pub(crate) fn needs(&self, right: Right) -> Result<(), Problem> {
        if self.rights.have(right) {
            return Ok(());
        }
        let detail = format!(
            "this needs the right to {right}, and the token has only: {}; make one with --{right}",
            self.rights
        );
        Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail).with("right", right.to_string()))
    }

    /// The id of the token that it is, or that it comes of.
    pub(crate) fn token(&self) -> Option<&str> {
        match self.standing.as_ref().map(|standing| &standing.by) {
            Some(By::Token(_, id)) => Some(id),
            _ => None,
        }
    }

    /// Whether it opens what another does.
    pub(crate) fn replaces(&self, other: &Pass) -> bool {
        let all = [Right::Read, Right::Write, Right::Watch, Right::Inspect];
        self.namespace == other.namespace
            && all.into_iter().all(|right| self.rights.have(right) || !other.rights.have(right))
    }

    /// Why it ended, if it did.
    pub(crate) fn ended(&self) -> Option<&'static str> {
        self.standing.as_ref().and_then(|standing| standing.ended())
    }

    /// Resolves when it ends, with the reason.
    pub(crate) async fn over(self) -> &'static str {
        let revoked = async {
            match &self.standing {
                Some(standing) if !self.outlives => standing.over().await,
                _ => std::future::pending().await,
            }
        };
        let expired = async {
            match self.until {
                Some(until) => tokio::time::sleep(until.since(SystemClock.now())).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            why = revoked => why,
            () = expired => EXPIRED,
        }
    }

    /// The same, for what ends with something else.
    pub(crate) fn without_end(self) -> Pass {
        Pass { until: None, outlives: true, ticket: None, ..self }
    }
}

impl Door {
    /// Who makes a request.
    ///
    /// # Errors
    ///
    /// 401 for one who has no business here; 400 for a token in a query.
    pub(crate) async fn admit(&self, parts: &Parts, store: StoreId) -> Result<Pass, Problem> {
        match self {
            Door::Open => Ok(Pass::default()),
            Door::Tokens(access) if !access.is_guarded() => access.admit_early(&parts.headers, store).await,
            Door::Tokens(access) => {
                no_secrets(&parts.uri)?;
                match bearer(&parts.headers)? {
                    Some(token) => access.admit(&token, store).await,
                    None => access.admit_anybody(),
                }
            }
            Door::Application(live, _) => {
                let principal = parts.extensions.get::<Principal>().ok_or_else(|| {
                    unauthorized(
                        "the application does not say who asks; it puts a Principal into the request",
                    )
                })?;
                let Principal { namespace, rights, until } = principal.clone();
                if until.is_some_and(|until| until <= SystemClock.now()) {
                    return Err(unauthorized("the session ended; log in again"));
                }
                let standing = Some(live.of(By::Application(principal.clone())));
                Ok(Pass { namespace, rights, until, standing, outlives: false, ticket: None })
            }
        }
    }

    /// Who bears a token.
    ///
    /// # Errors
    ///
    /// 401 for one that is not good; 400 where the application says who asks.
    pub(crate) async fn admit_token(&self, token: &Secret, store: StoreId) -> Result<Pass, Problem> {
        match self {
            Door::Tokens(access) => access.admit(token, store).await,
            // Nobody is asked, so a client that has a token may say so.
            Door::Open => Ok(Pass::default()),
            Door::Application(..) => Err(Problem::bad("the application says who asks; leave the token out")),
        }
    }

    /// What the bearer of a ticket may watch.
    ///
    /// # Errors
    ///
    /// 401 for one that is not good, 403 for a page of another origin, 400 where nobody needs one.
    pub(crate) async fn admit_ticket(
        &self,
        ticket: &str,
        parts: &Parts,
        store: StoreId,
    ) -> Result<(Pass, Fields), Problem> {
        let Door::Tokens(access) = self else {
            return Err(Problem::bad("no ticket is asked for here; leave it out"));
        };
        no_secrets(&parts.uri)?;
        let ticket = Secret::read(Sort::Ticket, ticket)
            .ok_or_else(|| unauthorized("the ticket is cut off or mistyped; it begins with wt_"))?;
        let opened = access.open_ticket(&ticket, store).await?;
        let origin = parts.headers.get(ORIGIN).and_then(|origin| origin.to_str().ok());
        // A page asks its own server without naming itself.
        if let (Some(made_for), Some(origin)) = (&opened.origin, origin)
            && made_for != origin
        {
            let detail = "the ticket was made for a page of another origin; make one for this";
            return Err(Problem::new(StatusCode::FORBIDDEN, "foreign_origin", detail));
        }
        Ok((opened.pass, opened.fields))
    }

    /// Makes a ticket of what somebody got in with; and when it ends.
    ///
    /// # Errors
    ///
    /// 409 where there are no tokens to make one of.
    pub(crate) async fn sell(
        &self,
        pass: &Pass,
        fields: Fields,
        origin: Option<String>,
    ) -> Result<(Secret, Timestamp), Problem> {
        match (self, pass.standing.as_ref().map(|standing| &standing.by)) {
            (Door::Tokens(access), Some(By::Token(store, id))) => {
                access.sell((*store, id.clone()), fields, origin).await
            }
            _ => {
                let detail = "nobody is asked for a token here, so a watch needs no ticket; leave it out";
                Err(Problem::new(StatusCode::CONFLICT, "no_tickets", detail))
            }
        }
    }

    /// Whether this request may still say who it is: a browser gives a WebSocket no header.
    pub(crate) fn may_say_later(&self, headers: &HeaderMap) -> bool {
        matches!(self, Door::Tokens(access) if access.is_guarded()) && !headers.contains_key(AUTHORIZATION)
    }

    /// The store is another from now on.
    pub(crate) fn moved_to(&self, store: StoreId) {
        if let Door::Tokens(access) = self {
            access.live.end(REVOKED, |by| matches!(by, By::Token(of, _) if *of != store));
        }
    }

    /// Whether those who ask can be told apart now.
    ///
    /// # Errors
    ///
    /// 503 when the credentials cannot be read.
    pub(crate) async fn readiness(&self) -> Result<(), Problem> {
        let Door::Tokens(access) = self else { return Ok(()) };
        let (group, key) = GUARDED;
        access.credentials().to_async().entry(group, key).await.map(drop).map_err(closed)
    }

    /// Looks, at each heartbeat, whether what is in use is still good: nobody may have told.
    pub(crate) async fn keep_watch(self) {
        let Door::Tokens(access) = self else { return };
        let mut slid_at = Instant::now();
        loop {
            tokio::time::sleep(HEARTBEAT).await;
            let looked = access.clone();
            let is_time = slid_at.elapsed() >= TICKET_SLIDE;
            if is_time {
                slid_at = Instant::now();
            }
            let look = move || if is_time { looked.look().and(looked.slide()) } else { looked.look() };
            let Ok(Err(error)) = tokio::task::spawn_blocking(look).await else { continue };
            tracing::warn!(%error, "the credentials cannot be read");
            if !matches!(error.kind(), ErrorKind::Replaced | ErrorKind::Closed) {
                continue;
            }
            let again = access.clone();
            match tokio::task::spawn_blocking(move || again.open_again()).await {
                Ok(Ok(true)) => tracing::warn!("they were replaced in their cluster, and are opened again"),
                Ok(Err(error)) => tracing::warn!(%error, "they cannot be opened again yet"),
                Ok(Ok(false)) | Err(_) => {
                    // What another file says is not known, so nobody gets in.
                    access.live.guard();
                    access.live.end(REVOKED, |_| true);
                }
            }
        }
    }
}

impl Access {
    async fn admit(&self, token: &Secret, store: StoreId) -> Result<Pass, Problem> {
        let hash = token.hash();
        self.admit_by(store, hash.id(), |kept| hash.is(kept)).await
    }

    /// Lets in by the token of an id, if its hash is the right one.
    pub(super) async fn admit_by(
        &self,
        store: StoreId,
        id: &str,
        is_right: impl Fn(&str) -> bool,
    ) -> Result<Pass, Problem> {
        let standing = self.live.of(By::Token(store, id.to_owned()));
        let entry = self.credentials().to_async().entry(&tokens_of(store), id).await.map_err(closed)?;
        let found = entry.as_ref().and_then(kept).filter(|(_, kept)| is_right(kept));
        let (token, _) =
            found.ok_or_else(|| unauthorized("the token is not known here; it was revoked, or it ended"))?;
        let Token { namespace, rights, .. } = token;
        Ok(Pass { namespace, rights, until: None, standing: Some(standing), outlives: false, ticket: None })
    }

    /// Lets in before this server has heard of a token. Who bears one that is good brings the news; what else a client
    /// says of itself is somebody else's, a proxy's for example.
    async fn admit_early(&self, headers: &HeaderMap, store: StoreId) -> Result<Pass, Problem> {
        if let Ok(Some(token)) = bearer(headers)
            && let Ok(pass) = self.admit(&token, store).await
        {
            self.live.guard();
            return Ok(pass);
        }
        self.admit_anybody()
    }

    fn admit_anybody(&self) -> Result<Pass, Problem> {
        let standing = self.live.of(By::Nothing);
        if self.is_guarded() {
            return Err(unauthorized(
                "a token is needed; send Authorization: Bearer TOKEN, from watchkeep token create",
            ));
        }
        Ok(Pass { standing: Some(standing), ..Pass::default() })
    }

    /// Ends what is in use and not good any more.
    pub(super) fn look(&self) -> Result<(), Error> {
        if self.credentials().contains(GUARDED.0, GUARDED.1)? {
            self.live.guard();
        }
        for by in self.live.list() {
            if let By::Token(store, id) = &by
                && !self.credentials().contains(&tokens_of(*store), id)?
            {
                self.live.end(REVOKED, |other| *other == by);
            }
        }
        Ok(())
    }
}

/// The token of a request.
fn bearer(headers: &HeaderMap) -> Result<Option<Secret>, Problem> {
    let mut values = headers.get_all(AUTHORIZATION).into_iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(unauthorized("Authorization is there twice; send it once"));
    }
    let text = value.to_str().unwrap_or_default();
    let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
    if !scheme.eq_ignore_ascii_case("Bearer") {
        return Err(unauthorized("only Authorization: Bearer TOKEN is understood here"));
    }
    Secret::read(Sort::Token, token.trim()).map(Some).ok_or_else(mistyped)
}

/// Refuses secrets where logs and histories would keep them. A ticket has one place where it may stand.
fn no_secrets(uri: &Uri) -> Result<(), Problem> {
    let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let lies_in = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (plain(name), plain(value));
        matches!(name.as_str(), "token" | "access_token" | "authorization")
            || Secret::lies_in(&name)
            || Secret::lies_in(&value) && !(name == "ticket" && Secret::read(Sort::Ticket, &value).is_some())
    };
    if Secret::lies_in(&plain(uri.path())) || uri.query().unwrap_or_default().split('&').any(lies_in) {
        let detail = "a token does not belong into a URL, which logs keep: revoke it, and send the next one as \
                      Authorization: Bearer TOKEN, or make a ticket of it";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "token_in_url", detail));
    }
    Ok(())
}

/// The credentials cannot be read. Strangers learn no more than that.
pub(super) fn closed(error: Error) -> Problem {
    tracing::error!(%error, "the tokens cannot be read, so nobody is let in; start the server again");
    let detail = "the tokens of this store cannot be read now; its operator finds the reason in the log";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no_access", detail)
}

pub(crate) fn mistyped() -> Problem {
    unauthorized("the token is cut off or mistyped; it begins with wk_ and has 51 characters")
}

pub(crate) fn unauthorized(detail: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
}

/// Why a request that was under way is refused after all.
pub(crate) fn over(why: &str) -> Problem {
    match why {
        UNAUTHORIZED => unauthorized("a token is needed now; watchkeep token create makes one"),
        _ => unauthorized(&format!("the token is {why}; go on with another")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use watchkeep::Store;

    use super::*;
    use crate::access::{Created, Grant};

    #[tokio::test(start_paused = true)]
    async fn taking_the_credentials_away_closes_the_door() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let store = Store::open(folder.path().join("app.db"))?;
        let access = Access::open(&store)?;
        assert!(access.admit_anybody().is_ok());
        let watching = tokio::spawn(Door::Tokens(access.clone()).keep_watch());
        for file in std::fs::read_dir(folder.path())? {
            let path = file?.path();
            if path.to_string_lossy().contains("-access") {
                std::fs::remove_file(path)?;
            }
        }
        // Somebody makes a token, in a file that this server does not have.
        let token = Access::open(&store)?.create(Grant::new(Rights::ALL))?;
        // The heartbeats pass at once here, but the library finds out by the machine's clock.
        let begun = std::time::Instant::now();
        while !access.is_guarded() && begun.elapsed() < Duration::from_secs(30) {
            tokio::time::sleep(HEARTBEAT).await;
        }
        assert!(access.is_guarded() && access.admit_anybody().is_err());
        let token = Secret::read(Sort::Token, token.secret()).ok_or("no token")?;
        assert!(access.admit(&token, store.id()).await.is_err());
        watching.abort();
        Ok(())
    }

    #[tokio::test]
    async fn a_revocation_is_heard_before_the_call_returns() -> Result<(), Box<dyn std::error::Error>> {
        let store = Store::open_in_memory()?;
        let access = Access::open(&store)?;
        let nobody = access.admit_anybody().map_err(|_| "refused")?;
        let (token, other) =
            (access.create(Grant::new(Rights::ALL))?, access.create(Grant::new(Rights::ALL))?);
        assert_eq!(nobody.ended(), Some(UNAUTHORIZED));
        let secret = |created: &Created| Secret::read(Sort::Token, created.secret());
        let (token_secret, other_secret) = (secret(&token).ok_or("none")?, secret(&other).ok_or("none")?);
        let pass = access.admit(&token_secret, store.id()).await.map_err(|_| "refused")?;
        let kept = access.admit(&other_secret, store.id()).await.map_err(|_| "refused")?;
        assert!(access.revoke(&token.token.id)?);
        assert_eq!((pass.ended(), kept.ended()), (Some(REVOKED), None));
        // Another store in the place of this one.
        Door::Tokens(access).moved_to(Store::open_in_memory()?.id());
        assert_eq!(kept.ended(), Some(REVOKED));
        Ok(())
    }

    #[tokio::test]
    async fn who_bears_a_token_brings_the_news_of_it() -> Result<(), Box<dyn std::error::Error>> {
        let store = Store::open_in_memory()?;
        let mut access = Access::open(&store)?;
        // It does not hear of anything.
        access.live = Arc::default();
        let token = access.create(Grant::new(Rights { watch: true, ..Rights::NONE }))?;
        let door = Door::Tokens(access.clone());
        let bearing = |text: &str| {
            let request = axum::http::Request::get("/").header(AUTHORIZATION, text).body(())?;
            Ok::<_, axum::http::Error>(request.into_parts().0)
        };
        for others in ["Basic abc", "Bearer of-somebody-else", "Bearer wk_mistyped"] {
            let pass = door.admit(&bearing(others)?, store.id()).await.map_err(|_| others)?;
            assert_eq!(pass.rights, Rights::ALL, "{others}");
        }
        let early = door.admit(&bearing("Basic abc")?, store.id()).await.map_err(|_| "refused")?;
        let ours = format!("Bearer {}", token.secret());
        let pass = door.admit(&bearing(&ours)?, store.id()).await.map_err(|_| "refused")?;
        assert_eq!((pass.rights, pass.ended()), (token.token.rights, None));
        assert_eq!(early.ended(), Some(UNAUTHORIZED));
        assert!(access.is_guarded() && door.admit(&bearing("Basic abc")?, store.id()).await.is_err());
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_told_of_is_found_out() -> Result<(), Box<dyn std::error::Error>> {
        let store = Store::open_in_memory()?;
        let mut access = Access::open(&store)?;
        // It does not hear of anything.
        access.live = Arc::default();
        let token = access.create(Grant::new(Rights::ALL))?;
        let secret = Secret::read(Sort::Token, token.secret()).ok_or("no token")?;
        let pass = access.admit(&secret, store.id()).await.map_err(|_| "refused")?;
        let nobody = access.admit_anybody().map_err(|_| "refused")?;
        let watching = tokio::spawn(Door::Tokens(access.clone()).keep_watch());
        assert!(access.revoke(&token.token.id)?);
        let limit = 20 * HEARTBEAT;
        assert_eq!(tokio::time::timeout(limit, pass.over()).await?, REVOKED);
        assert_eq!(tokio::time::timeout(limit, nobody.over()).await?, UNAUTHORIZED);
        assert!(access.admit_anybody().is_err());
        watching.abort();
        Ok(())
    }
}
