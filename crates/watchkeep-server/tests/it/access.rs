//! The door: the attacks on it, each on every route that the document has.

mod crowded;
mod foreign;
mod live;
mod mounted;
mod tickets;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::{Value, json};
use watchkeep::{Store, StoreId};
use watchkeep_server::{Access, Grant, Rights};

use crate::support::Result;
use crate::support_entries::{Answer, Hub};

pub(crate) const UPGRADE: [(&str, &str); 4] = [
    ("Upgrade", "websocket"),
    ("Connection", "upgrade, close"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// A store with tokens, and a server that asks for them.
pub(crate) struct Guarded {
    pub(crate) store: Store,
    pub(crate) access: Access,
    pub(crate) hub: Hub,
}

impl Guarded {
    pub(crate) fn start() -> Result<Guarded> {
        let store = Store::open_in_memory()?;
        Guarded::over(store.clone(), Access::open(&store)?)
    }

    pub(crate) fn over(store: Store, access: Access) -> Result<Guarded> {
        // From here on, a token is needed.
        access.create(Grant::new(Rights::ALL))?;
        let asked = access.clone();
        // Tests may have a runtime of their own, and a server another.
        let start = || Hub::with(&store, |server| server.ask_for_tokens(asked));
        let hub = std::thread::scope(|threads| threads.spawn(start).join()).map_err(|_| "no server")?;
        Ok(Guarded { store, access, hub })
    }

    pub(crate) fn token(&self, grant: Grant) -> Result<String> {
        Ok(self.access.create(grant)?.secret().to_owned())
    }

    pub(crate) fn ask(&self, method: &str, target: &str, token: &str) -> Answer {
        let bearer = format!("Bearer {token}");
        let upgrade = if target.starts_with("/v1/ws") { &UPGRADE[..] } else { &[] };
        let headers = [&[("Authorization", bearer.as_str())], upgrade].concat();
        self.hub.ask(method, target, &headers, b"")
    }
}

/// Each method of each path for which a token is asked, with the queries that they need.
pub(crate) fn operations(hub: &Hub) -> Vec<(String, String)> {
    declared(hub).into_iter().filter(|it| !it.tokens().is_empty()).map(|it| (it.method, it.target)).collect()
}

/// A method of a path as the document declares it.
pub(crate) struct Declared {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) operation: Value,
}

impl Declared {
    /// What it takes: for each alternative, the names of the schemes.
    fn taken(&self) -> Vec<&serde_json::Map<String, Value>> {
        let all = self.operation["security"].as_array();
        let all = all.unwrap_or_else(|| panic!("{} {} says not who may ask", self.method, self.target));
        all.iter().map(|taken| taken.as_object().expect("schemes")).collect()
    }

    /// The rights that it asks of a token, where it takes one.
    fn tokens(&self) -> Vec<&Value> {
        self.taken().into_iter().filter_map(|taken| taken.get("token")).collect()
    }
}

/// Each method of each path that the document has, with the queries that they need.
fn declared(hub: &Hub) -> Vec<Declared> {
    let document = hub.get("/v1/openapi.json").json();
    let paths = document["paths"].as_object().expect("paths");
    let mut all = Vec::new();
    for (path, item) in paths {
        for (method, operation) in item.as_object().expect("operations") {
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let needed =
                parameters.filter(|parameter| parameter["in"] == "query" && parameter["required"] == true);
            let mut query: Vec<_> = needed
                .map(|parameter| match parameter["name"].as_str() {
                    Some("key") => "key=k".to_owned(),
                    name => format!("{}=g", name.expect("a name")),
                })
                .collect();
            query.extend((method == "patch").then(|| "persist".to_owned()));
            let path = path.replace("{group}", "g").replace("{key}", "k");
            let (method, target) = (method.to_uppercase(), format!("{path}?{}", query.join("&")));
            all.push(Declared { method, target, operation: operation.clone() });
        }
    }
    assert!(all.len() > 15, "{}", all.len());
    all
}

/// The answer says nothing but that a token is needed.
fn is_unauthorized(answer: &Answer, what: &str) {
    assert_eq!(
        (answer.status, answer.header("www-authenticate")),
        (401, Some("Bearer")),
        "{what}: {answer:?}"
    );
    if !what.starts_with("HEAD") {
        assert_eq!(answer.problem(), "unauthorized", "{what}");
    }
}

#[test]
fn no_route_is_open_to_one_without_a_good_token() -> Result {
    let guarded = Guarded::start()?;
    guarded.store.set("g", "k", "canary")?;
    let good = guarded.token(Grant::new(Rights::ALL))?;
    let mistyped = good.replace(&good[20..21], if &good[20..21] == "x" { "y" } else { "x" });
    let truncated = &good[..good.len() - 1];
    // Well made, and nobody's.
    let stranger = Guarded::start()?.token(Grant::new(Rights::ALL))?;
    let revoked = guarded.access.create(Grant::new(Rights::ALL))?;
    assert!(guarded.access.revoke(&revoked.token.id)?);
    for (method, target) in operations(&guarded.hub) {
        for token in ["", "wk_", "wk_AAAA", &mistyped, truncated, &stranger, revoked.secret()] {
            is_unauthorized(&guarded.ask(&method, &target, token), &format!("{method} {target} {token}"));
        }
        let basic = guarded.hub.ask(&method, &target, &[("Authorization", "Basic YTpi")], b"");
        is_unauthorized(&basic, &format!("{method} {target} basic"));
        let bearer = format!("Bearer {good}");
        let twice = [("Authorization", bearer.as_str()), ("Authorization", "Bearer wk_AAAA")];
        is_unauthorized(&guarded.hub.ask(&method, &target, &twice, b""), &format!("{method} {target} twice"));
        if !target.starts_with("/v1/ws") {
            // A WebSocket may say later who it is.
            is_unauthorized(&guarded.hub.ask(&method, &target, &[], b""), &format!("{method} {target} none"));
        }
    }
    assert_eq!(guarded.store.get("g", "k")?.ok_or("it is gone")?, "canary");
    for open in ["/", "/page.js", "/page.css", "/v1/openapi.json"] {
        assert_eq!(guarded.hub.get(open).status, 200, "{open}");
    }
    assert_eq!(guarded.ask("GET", "/v1/entry?group=g&key=k", &good).text(), "canary");
    Ok(())
}

#[test]
fn each_route_needs_its_right() -> Result {
    let guarded = Guarded::start()?;
    let only = |name: &str| Rights {
        read: name == "read",
        write: name == "write",
        watch: name == "watch",
        inspect: name == "inspect",
    };
    for it in declared(&guarded.hub).iter().filter(|it| !it.tokens().is_empty()) {
        let (method, target) = (&it.method, &it.target);
        let path = target.split('?').next().unwrap_or_default();
        let needed = match (method.as_str(), path) {
            // Each of its messages needs a right of its own.
            (_, "/v1/ws") => continue,
            (_, "/v1/watch" | "/v1/tickets") => "watch",
            (_, "/v1/stats" | "/metrics") => "inspect",
            ("PUT" | "PATCH" | "DELETE", _) | (_, "/v1/batch") => "write",
            _ => "read",
        };
        assert_eq!(it.tokens(), [&json!([needed])], "{method} {target}");
        for name in ["read", "write", "watch", "inspect"] {
            let token = guarded.token(Grant::new(only(name)))?;
            if name == needed {
                // A stream would not end; its position is none of this store, so it does not begin.
                let target = if path == "/v1/watch" { "/v1/watch?after=nowhere" } else { target };
                let status = guarded.ask(method, target, &token).status;
                assert!(!matches!(status, 401 | 403), "{method} {target} with {name}: {status}");
                continue;
            }
            let answer = guarded.ask(method, target, &token);
            assert_eq!(answer.status, 403, "{method} {target} with {name}");
            if method != "HEAD" {
                assert_eq!(
                    (answer.problem().as_str(), &answer.json()["right"]),
                    ("forbidden", &needed.into())
                );
            }
        }
    }
    Ok(())
}

#[test]
fn the_document_says_who_may_ask_and_how_others_are_refused() -> Result {
    let guarded = Guarded::start()?;
    let document = guarded.hub.get("/v1/openapi.json").json();
    let schemes = &document["components"]["securitySchemes"];
    assert_eq!((&schemes["token"]["type"], &schemes["token"]["scheme"]), (&"http".into(), &"bearer".into()));
    let ticket = ["type", "in", "name"].map(|field| schemes["ticket"][field].clone());
    assert_eq!(ticket, ["apiKey", "query", "ticket"].map(Value::from));
    let (mut asked, mut open) = (0, BTreeSet::new());
    for it in declared(&guarded.hub) {
        let taken: Vec<_> = it.taken().into_iter().cloned().map(Value::Object).collect();
        let (method, path) = (it.method.as_str(), it.target.split('?').next().unwrap_or_default());
        // What it answers to nobody shows whether it asks.
        let nobody = if path == "/v1/ws" { 426 } else { 401 };
        let answer = guarded.hub.ask(method, &it.target, &[], b"");
        if taken == [json!({})] {
            assert_eq!(answer.status, 200, "{method} {path}");
            open.insert(path.to_owned());
            continue;
        }
        assert_eq!(answer.status, nobody, "{method} {path}");
        let right =
            it.tokens().into_iter().next().ok_or_else(|| format!("{method} {path} takes no token"))?;
        let token = json!({ "token": right });
        let expected = match path {
            "/v1/tickets" => vec![token],
            "/v1/watch" => vec![json!({}), token, json!({ "ticket": [] })],
            _ => vec![json!({}), token],
        };
        assert_eq!(taken, expected, "{method} {path}");
        for (status, name) in [("401", "Unauthorized"), ("403", "Forbidden")] {
            let link = json!({ "$ref": format!("#/components/responses/{name}") });
            assert_eq!(it.operation["responses"][status], link, "{method} {path}");
        }
        asked += 1;
    }
    let open: Vec<_> = open.iter().map(String::as_str).collect();
    assert_eq!(open, ["/", "/healthz", "/page.css", "/page.js", "/readyz", "/v1/openapi.json"]);
    assert!(asked > 15, "{asked}");
    Ok(())
}

#[test]
fn a_token_in_a_url_is_refused_and_not_repeated() -> Result {
    let guarded = Guarded::start()?;
    let token = guarded.token(Grant::new(Rights::ALL))?;
    let hidden = token.replacen('_', "%5F", 1);
    let refused = |method: &str, target: &str| {
        let answer = guarded.ask(method, target, &token);
        assert_eq!(answer.status, 400, "{method} {target}");
        if method != "HEAD" {
            assert_eq!(answer.problem(), "token_in_url", "{method} {target}");
        }
        let said = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(!said.contains(&token) && !said.contains(&hidden), "{said}");
    };
    for (method, target) in operations(&guarded.hub) {
        for name in ["token", "access_token", "authorization"] {
            refused(&method, &format!("{target}&{name}=x"));
        }
        for secret in [&token, &hidden] {
            refused(&method, &format!("{target}&group_prefix={secret}"));
            refused(&method, &format!("{target}&ticket=a-{secret}"));
            refused(&method, &format!("{target}&{secret}"));
        }
    }
    for secret in [&token, &hidden] {
        refused("GET", &format!("/v1/groups/a/keys/x-{secret}-y"));
    }
    Ok(())
}

#[test]
fn a_store_that_was_never_guarded_is_open_and_stays_closed_after_the_last_token_is_gone() -> Result {
    let folder = tempfile::tempdir()?;
    let store = Store::open(folder.path().join("app.db"))?;
    let access = Access::open(&store)?;
    let asked = access.clone();
    let hub = Hub::with(&store, |server| server.ask_for_tokens(asked));
    assert_eq!(hub.get("/v1/groups").status, 200);
    let created = access.create(Grant::new(Rights::ALL))?;
    is_unauthorized(&hub.get("/v1/groups"), "one token");
    assert!(access.revoke(&created.token.id)?);
    assert!(access.list()?.is_empty() && !access.revoke(&created.token.id)? && !access.revoke("")?);
    is_unauthorized(&hub.get("/v1/groups"), "no token any more");
    assert!(Access::open(&store)?.is_guarded());
    Ok(())
}

#[test]
fn all_files_of_the_credentials_are_their_owners_alone() -> Result {
    let folder = tempfile::tempdir()?;
    let store = Store::open(folder.path().join("app.db"))?;
    let access = Access::open(&store)?;
    let created = access.create(Grant::new(Rights::ALL).label("a label"))?;
    let mut files = 0;
    for file in std::fs::read_dir(folder.path())? {
        let (path, mode) = {
            let file = file?;
            (file.path(), file.metadata()?.permissions().mode())
        };
        if path.to_string_lossy().contains("-access") {
            assert_eq!(mode & 0o777, 0o600, "{path:?}");
            let content = String::from_utf8_lossy(&std::fs::read(&path)?).into_owned();
            assert!(!content.contains(&created.secret()[3..]), "{path:?} has the secret");
            files += 1;
        }
    }
    assert!(files >= 2, "the file and its log");
    // One that somebody opened up is closed again.
    drop(access);
    let path = folder.path().join("app.db-access");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644))?;
    assert_eq!(Access::open(&store)?.list()?.len(), 1);
    assert_eq!(path.metadata()?.permissions().mode() & 0o777, 0o600);
    Ok(())
}

fn restored(folder: &Path, from: &str, to: &str) -> Result<StoreId> {
    Store::restore(folder.join(from), folder.join(to), watchkeep::BackupOptions::new())?;
    Ok(Store::open(folder.join(to))?.id())
}

#[test]
fn a_restored_backup_revives_no_token_and_opens_no_door() -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("app.db");
    let store = Store::open(&path)?;
    store.set("g", "k", "v")?;
    let access = Access::open(&store)?;
    let token = access.create(Grant::new(Rights::ALL))?;
    store.backup(folder.path().join("saved.db"))?;
    let hub = {
        let (asked, path) = (access.clone(), path.clone());
        Hub::with(&store, move |server| server.ask_for_tokens(asked).reopen_with(move || Store::open(&path)))
    };
    let bearer = format!("Bearer {}", token.secret());
    let ask = || hub.ask("GET", "/v1/entry?group=g&key=k", &[("Authorization", &bearer)], b"");
    assert_eq!(ask().status, 200);
    let mut stream =
        crate::support::Stream::open(hub.address, "snapshot=auto", &[("Authorization", &bearer)])?;
    stream.upto("ready")?;

    let id = restored(folder.path(), "saved.db", "next.db")?;
    assert_ne!(id, store.id());
    std::fs::rename(folder.path().join("next.db"), &path)?;
    assert_eq!(stream.upto("bye")?.1.data["reason"], "revoked");
    is_unauthorized(&ask(), "the token of the store before");
    is_unauthorized(&hub.get("/v1/groups"), "no token");
    // For the store that is there now, new ones are made.
    let now = Store::open(&path)?;
    let access = Access::open(&now)?;
    assert!(access.is_guarded() && access.list()?.is_empty());
    let next = format!("Bearer {}", access.create(Grant::new(Rights::ALL))?.secret());
    assert_eq!(hub.ask("GET", "/v1/entry?group=g&key=k", &[("Authorization", &next)], b"").text(), "v");
    Ok(())
}

#[test]
fn a_server_without_tokens_asks_for_nothing_and_passes_over_what_is_sent() -> Result {
    let store = Store::open_in_memory()?;
    let access = Access::open(&store)?;
    let hub = Hub::with(&store, |server| server.ask_for_tokens(access));
    for header in ["Basic dTpw", "Bearer xx", "nonsense"] {
        assert_eq!(hub.ask("GET", "/v1/groups", &[("Authorization", header)], b"").status, 200, "{header}");
    }
    Ok(())
}

#[test]
fn a_file_of_credentials_that_is_there_already_is_made_private_before_it_is_opened() -> Result {
    let folder = tempfile::tempdir()?;
    let store = Store::open(folder.path().join("app.db"))?;
    let path = folder.path().join("app.db-access");
    Access::open(&store)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))?;
    let access = Access::open(&store)?;
    access.create(Grant::new(Rights::ALL))?;
    for file in folder.path().read_dir()? {
        let file = file?;
        if file.file_name().to_string_lossy().contains("-access") {
            assert_eq!(file.metadata()?.permissions().mode() & 0o777, 0o600, "{file:?}");
        }
    }
    Ok(())
}
