//! The OpenAPI document, and whether what it says is true.

use std::collections::BTreeSet;
use std::error::Error;
use std::time::Duration;

use serde_json::{Value, json};
use watchkeep::{SetOptions, Store};

use crate::support::Served;
use crate::support_entries::{Answer, Hub};

type Result<T = (), E = Box<dyn Error>> = std::result::Result<T, E>;

const HOUR: Duration = Duration::from_secs(3_600);
const UPGRADE: [(&str, &str); 4] = [
    ("Upgrade", "websocket"),
    ("Connection", "upgrade, close"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

struct Document(Value);

impl Document {
    fn of(hub: &Hub) -> Document {
        let answer = hub.get("/v1/openapi.json");
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
        Document(answer.json())
    }

    /// Each method of each path.
    fn operations(&self) -> Vec<(String, String, Value)> {
        let paths = self.0["paths"].as_object().expect("paths");
        let all = paths.iter().flat_map(|(path, item)| {
            let item = item.as_object().expect("operations");
            item.iter()
                .map(move |(method, operation)| (method.to_uppercase(), path.clone(), operation.clone()))
        });
        all.collect()
    }

    fn operation(&self, method: &str, path: &str) -> &Value {
        &self.0["paths"][path][method.to_lowercase()]
    }

    fn follow<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            Some(link) => self.0.pointer(link.trim_start_matches('#')).expect("what is linked to"),
            None => schema,
        }
    }

    /// Whether a value has the fields and types that a schema says, and no others.
    fn check(&self, schema: &Value, value: &Value) -> Result {
        let schema = self.follow(schema);
        let kinds: Vec<_> = match &schema["type"] {
            Value::String(kind) => vec![kind.as_str()],
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
            _ => return Ok(()),
        };
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        if !kinds.contains(&kind) {
            return Err(format!("{value} is not one of {kinds:?}").into());
        }
        for item in value.as_array().into_iter().flatten() {
            self.check(&schema["items"], item)?;
        }
        if let (Some(fields), Some(properties)) = (value.as_object(), schema["properties"].as_object()) {
            for needed in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                fields.get(needed).ok_or_else(|| format!("{needed} is missing in {value}"))?;
            }
            for (name, value) in fields {
                let property =
                    properties.get(name).ok_or_else(|| format!("{name} is not declared: {value}"))?;
                self.check(property, value)?;
            }
        }
        Ok(())
    }

    /// Checks an answer against what its operation declares.
    fn check_answer(&self, operation: &Value, answer: &Answer) -> Result {
        let declared = &operation["responses"];
        let response = declared.get(answer.status.to_string()).unwrap_or(&declared["default"]);
        let response = self.follow(response);
        let kind = answer.header("content-type").unwrap_or_default();
        match response["content"].as_object() {
            None if answer.body.is_empty() => Ok(()),
            None => Err(format!("a body is not declared: {answer:?}").into()),
            Some(content) if content.contains_key("*/*") => Ok(()),
            Some(content) => {
                let content =
                    content.get(kind).ok_or_else(|| format!("{kind:?} is not declared: {content:?}"))?;
                if kind.ends_with("json") { self.check(&content["schema"], &answer.json()) } else { Ok(()) }
            }
        }
    }
}

/// A request of each kind of answer that is declared: method, path, query, headers, status.
type Request = (&'static str, &'static str, &'static str, &'static [(&'static str, &'static str)], u16);
const REQUESTS: [Request; 34] = [
    ("GET", "/v1/entry", "group=g&key=k", &[], 200),
    ("GET", "/v1/entry", "group=g&key=k", &[("Range", "bytes=0-1")], 206),
    ("GET", "/v1/entry", "group=g&key=k", &[("If-None-Match", "*")], 304),
    ("GET", "/v1/entry", "group=g&key=none", &[], 404),
    ("HEAD", "/v1/entry", "group=g&key=k", &[], 200),
    ("PUT", "/v1/entry", "group=g&key=new&ttl=1h", &[], 204),
    ("PUT", "/v1/entry", "group=g&key=k", &[("If-None-Match", "*")], 412),
    ("PATCH", "/v1/entry", "group=g&key=k&persist", &[], 204),
    ("DELETE", "/v1/entry", "group=g&key=new", &[], 204),
    ("DELETE", "/v1/entry", "group=g&key=new", &[], 404),
    ("GET", "/v1/groups/{group}/keys/{key}", "", &[], 200),
    ("HEAD", "/v1/groups/{group}/keys/{key}", "", &[], 200),
    ("PUT", "/v1/groups/{group}/keys/{key}", "", &[], 204),
    ("PATCH", "/v1/groups/{group}/keys/{key}", "ttl=1h", &[], 204),
    ("DELETE", "/v1/groups/{group}/keys/{key}", "", &[], 204),
    ("GET", "/v1/groups", "limit=1", &[], 200),
    ("GET", "/v1/keys", "group=g&values", &[], 200),
    ("GET", "/v1/group", "group=g", &[], 200),
    ("GET", "/v1/stats", "", &[], 200),
    ("GET", "/v1/changes", "limit=2", &[], 200),
    ("GET", "/v1/changes", "after=nowhere", &[], 400),
    ("GET", "/v1/watch", "after=nowhere", &[], 400),
    ("POST", "/v1/batch", "", &[("Content-Type", "application/json")], 400),
    ("POST", "/v1/tickets", "", &[("Content-Type", "application/json")], 400),
    ("GET", "/v1/ws", "", &[], 426),
    ("DELETE", "/v1/group", "group=g", &[], 200),
    ("GET", "/v1/openapi.json", "", &[], 200),
    ("GET", "/", "", &[], 200),
    ("GET", "/page.js", "", &[], 200),
    ("GET", "/page.css", "", &[], 200),
    ("GET", "/healthz", "", &[], 200),
    ("GET", "/readyz", "", &[], 200),
    ("GET", "/metrics", "", &[], 200),
    ("GET", "/metrics", "", &[("Origin", "http://stranger.example")], 403),
];

fn concrete(path: &str, query: &str) -> String {
    format!("{}?{query}", path.replace("{group}", "g").replace("{key}", "k"))
}

#[test]
fn every_route_answers_as_the_document_declares() -> Result {
    let store = Store::open_in_memory()?;
    let hub = Hub::over(&store);
    let document = Document::of(&hub);
    let mut untried = document.operations();
    store.set_with("g", "k", "value", SetOptions::new().content_type("text/plain").ttl(HOUR))?;
    store.set("g", "binary", vec![0xff])?;
    for (method, path, query, headers, status) in REQUESTS {
        let answer = hub.ask(method, &concrete(path, query), headers, b"");
        assert_eq!(answer.status, status, "{method} {path} {query}");
        let operation = document.operation(method, path);
        document.check_answer(operation, &answer).map_err(|error| format!("{method} {path}: {error}"))?;
        untried.retain(|(known, at, _)| (known.as_str(), at.as_str()) != (method, path));
    }
    assert!(untried.is_empty(), "{untried:?}");
    Ok(())
}

#[test]
fn every_declared_parameter_is_known_and_no_other_is() -> Result {
    let store = Store::open_in_memory()?;
    let hub = Hub::over(&store);
    let mut ids = BTreeSet::new();
    // Those for everybody, and for a machine that asks about the server, pass over what they do not know.
    let lax = ["/", "/page.js", "/page.css", "/v1/openapi.json", "/healthz", "/readyz", "/metrics"];
    for (method, path, operation) in Document::of(&hub).operations() {
        if lax.contains(&path.as_str()) {
            continue;
        }
        assert!(ids.insert(operation["operationId"].to_string()), "two operations have one id: {operation}");
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let parameters: Vec<_> = parameters.filter(|parameter| parameter["in"] == "query").collect();
        let needed = parameters.iter().filter(|parameter| parameter["required"] == true);
        let needed: String =
            needed.map(|parameter| format!("{}=x&", parameter["name"].as_str().unwrap())).collect();
        let refusal = |query: &str| {
            // Upgraded, where that is needed; what is not known keeps a stream from beginning.
            let answer = hub.ask(&method, &concrete(&path, query), &UPGRADE, b"");
            assert!(method == "HEAD" || answer.status == 400, "{method} {path} {query}: {answer:?}");
            String::from_utf8_lossy(&answer.body).into_owned()
        };
        let unknown = |name: &str| format!("there is no parameter \\\"{name}\\\" here");
        for parameter in &parameters {
            let name = parameter["name"].as_str().unwrap();
            let rest = needed.replace(&format!("{name}=x&"), "");
            let detail = refusal(&format!("{rest}{name}=&nonsense=1"));
            assert!(!detail.contains(&unknown(name)), "{method} {path} does not know {name}: {detail}");
        }
        let valid = if method == "PATCH" { "persist&" } else { "" };
        let detail = refusal(&format!("{needed}{valid}nonsense=1"));
        assert!(method == "HEAD" || detail.contains(&unknown("nonsense")), "{method} {path}: {detail}");
    }
    Ok(())
}

#[test]
fn what_may_follow_an_answer_is_linked() -> Result {
    let store = Store::open_in_memory()?;
    let document = Document::of(&Hub::over(&store));
    let known = document.operations();
    let mut links = BTreeSet::new();
    for (_, _, operation) in &known {
        let answers = operation["responses"].as_object().ok_or("no answers")?.values();
        for (name, link) in answers.filter_map(|answer| answer["links"].as_object()).flatten() {
            let to = known.iter().find(|(.., other)| other["operationId"] == link["operationId"]);
            let (.., to) = to.ok_or_else(|| format!("it leads nowhere: {link}"))?;
            for parameter in link["parameters"].as_object().ok_or("no parameters")?.keys() {
                let mut taken = to["parameters"].as_array().into_iter().flatten();
                assert!(taken.any(|it| it["name"] == **parameter), "{link}");
            }
            links.insert(format!("{} {name}", operation["operationId"].as_str().ok_or("no id")?));
        }
    }
    let of_entry = ["delete", "read", "since", "touch"];
    let of_entry = ["set_entry", "set_entry_by_path"].map(|id| of_entry.map(|name| format!("{id} {name}")));
    let of_lists =
        ["list_groups keys", "list_groups next", "list_keys entry", "list_keys next", "list_changes next"];
    let expected = of_entry.into_iter().flatten().chain(of_lists.map(str::to_owned));
    assert_eq!(links, expected.collect());
    Ok(())
}

#[test]
fn events_have_the_fields_that_the_document_declares() -> Result {
    let store = Store::open_in_memory()?;
    let document = Document::of(&Hub::over(&store));
    let served = Served::start(&store).map_err(|error| error.to_string())?;
    let mut events = Vec::new();
    for values in ["all", "none"] {
        store.set_with("g", "k", "value", SetOptions::new().content_type("text/plain").ttl(HOUR))?;
        store.set("g", "binary", vec![0xff])?;
        let stream = served.stream(&format!("snapshot=auto&values={values}"), &[]);
        let mut stream = stream.map_err(|error| error.to_string())?;
        let (snapshot, _) = stream.upto("ready").map_err(|error| error.to_string())?;
        events.extend(snapshot.into_iter().filter(|frame| frame.event.is_empty()));
        store.set("g", "k", "value")?;
        store.delete("g", "k")?;
        store.delete_group("g")?;
        events.extend(stream.changes(3).map_err(|error| error.to_string())?);
    }
    assert_eq!(events.len(), 10, "{events:?}");
    let schema = json!({ "$ref": "#/components/schemas/Event" });
    events.iter().try_for_each(|event| document.check(&schema, &event.data))
}
