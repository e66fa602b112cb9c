//! Behind a real nginx: with its defaults, and with the lines of docs/operations.md.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;
use watchkeep::Store;
use watchkeep_server::Limit;

use crate::bounds::{bounded, until};
use crate::support::{Frame, LIMIT, Result, Stream};
use crate::support_entries::{Asked, Hub, begin};
use crate::support_ws::{Client, PROTOCOL};

/// What nginx does when nobody tells it anything, but for compression.
const DEFAULTS: &str = "
    gzip on; gzip_min_length 1; gzip_types application/json;
    server { listen 127.0.0.1:8080; location / { proxy_pass http://127.0.0.1:7460; } }";

/// An nginx in front of a server; ends when it is dropped.
struct Nginx {
    process: Child,
    address: SocketAddr,
    folder: TempDir,
}

impl Nginx {
    fn before(server: SocketAddr, lines: &str) -> Result<Nginx> {
        assert!(lines.contains("127.0.0.1:8080") && lines.contains("127.0.0.1:7460"), "{lines}");
        // It takes no port 0. The one that was free a moment ago may be somebody's by now.
        for _ in 0..20 {
            let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
            if let Some(nginx) = Nginx::at(address, server, lines)? {
                return Ok(nginx);
            }
        }
        Err("nginx does not start".into())
    }

    fn at(address: SocketAddr, server: SocketAddr, lines: &str) -> Result<Option<Nginx>> {
        let folder = tempfile::tempdir()?;
        let place = folder.path().display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|what| format!("{what}_temp_path {place}/{what};\n"))
            .concat();
        let lines = lines
            .replace("127.0.0.1:8080", &address.to_string())
            .replace("127.0.0.1:7460", &server.to_string())
            .replace("/var/log/nginx", &place.to_string());
        let config = format!(
            "daemon off; master_process off; pid {place}/pid; error_log {place}/error.log;\n\
             events {{ worker_connections 1000; }}\nhttp {{ access_log off;\n{temporary}{lines}\n}}\n"
        );
        std::fs::write(folder.path().join("nginx.conf"), config)?;
        let program =
            if std::path::Path::new("/usr/sbin/nginx").exists() { "/usr/sbin/nginx" } else { "nginx" };
        let mut process = Command::new(program)
            .args(["-e", &format!("{place}/error.log"), "-p", &place.to_string(), "-c", "nginx.conf"])
            .stderr(Stdio::null())
            .spawn()?;
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            if process.try_wait()?.is_some() || begun.elapsed() > LIMIT {
                return Ok(None);
            }
            thread::yield_now();
        }
        // Another may listen there.
        let ours = process.try_wait()?.is_none();
        Ok(ours.then_some(Nginx { process, address, folder }))
    }

    fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Asked {
        begin(self.address, method, target, headers, body)
    }

    fn log(&self, name: &str) -> Result<String> {
        Ok(std::fs::read_to_string(self.folder.path().join(name))?)
    }

    /// The head of an answer, in small letters.
    fn head(&self, target: &str, headers: &[(&str, &str)]) -> Result<String> {
        let mut from = BufReader::new(self.ask("GET", target, headers, b"").into_stream());
        let (mut head, mut line) = (String::new(), String::new());
        while from.read_line(&mut line)? > 2 {
            head += &std::mem::take(&mut line).to_ascii_lowercase();
        }
        Ok(head)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // It may have ended by itself, which the test has seen.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What the documentation says of it.
fn section() -> Result<String> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operations.md");
    let page = std::fs::read_to_string(page)?;
    Ok(page.split("\n## Behind a proxy\n").nth(1).ok_or("no section")?.to_owned())
}

/// The lines that it tells its readers to write.
fn documented() -> Result<String> {
    let section = section()?;
    let block = section.split("\n```text\n").nth(1).and_then(|rest| rest.split("\n```\n").next());
    Ok(block.ok_or("no lines")?.to_owned())
}

const UPGRADE: [(&str, &str); 4] = [
    ("Connection", "close, Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

#[test]
fn with_its_defaults_events_come_at_once_and_weak_etags_hold() -> Result {
    let store = Store::open_in_memory()?;
    let hub = Hub::over(&store);
    let nginx = Nginx::before(hub.address, DEFAULTS)?;
    let mut stream = Stream::open(nginx.address, "group=g", &[("Accept-Encoding", "gzip")])?;
    stream.upto("ready")?;
    for number in 0..3 {
        // Each is read before the next is written.
        store.set("g", "k", number.to_string())?;
        assert_eq!(stream.changes(1)?[0].data["value"], number.to_string());
    }
    let streams = nginx.head("/v1/watch?group=g", &[("Accept-Encoding", "gzip")])?;
    assert!(streams.starts_with("http/1.1 200") && !streams.contains("content-encoding"), "{streams}");

    let (entry, json) = ("/v1/entry?group=g&key=j", ("Content-Type", "application/json"));
    assert_eq!(hub.ask("PUT", entry, &[json], br#"{"a":1}"#).status, 204);
    let head = nginx.head(entry, &[("Accept-Encoding", "gzip")])?;
    assert!(head.contains("content-encoding: gzip"), "{head}");
    let etag = head.lines().find_map(|line| line.strip_prefix("etag: ")).ok_or("no ETag")?;
    assert!(etag.starts_with("w/\""), "{etag}");
    let weak = etag.replacen('w', "W", 1);
    for (wanted, body) in [("204", b"1"), ("412", b"2")] {
        let mut answer = String::new();
        let asked = nginx.ask("PUT", entry, &[json, ("If-Match", &weak)], body);
        BufReader::new(asked.into_stream()).read_line(&mut answer)?;
        assert!(answer.contains(wanted), "{answer}");
    }

    let refusal = nginx.ask("GET", "/v1/ws", &UPGRADE, b"").answer_of_proxy();
    assert!(refusal.contains("426"), "{refusal}");
    for line in [
        "proxy_http_version 1.1;",
        "proxy_set_header Upgrade $http_upgrade;",
        r#"proxy_set_header Connection \"upgrade\";"#,
    ] {
        assert!(refusal.contains(line), "{line} in {refusal}");
        assert!(documented()?.contains(&line.replace('\\', "")), "{line} is not documented");
    }
    drop(hub);
    assert!(nginx.head("/v1/watch?group=g", &[])?.starts_with("http/1.1 502"));
    Ok(())
}

#[test]
fn an_upstream_with_a_name_of_its_own_is_refused_and_the_documented_host_is_not() -> Result {
    let store = Store::open_in_memory()?;
    let hub = Hub::over(&store);
    let named = "upstream store { server 127.0.0.1:7460; }
        server { listen 127.0.0.1:8080; location / { proxy_pass http://store; } }";
    let nginx = Nginx::before(hub.address, named)?;
    assert!(nginx.head("/v1/stats", &[])?.starts_with("http/1.1 403"));

    let nginx = Nginx::before(hub.address, &documented()?)?;
    // As a page does whose origin the proxy is.
    let origin = format!("http://{}", nginx.address);
    for target in ["/v1/stats", "/v1/watch?group=g", "/"] {
        let head = nginx.head(target, &[("Origin", &origin)])?;
        assert!(head.starts_with("http/1.1 200"), "{target}: {head}");
    }
    let foreign = nginx.head("/v1/stats", &[("Host", "evil.example"), ("Origin", "http://evil.example")])?;
    assert!(foreign.starts_with("http/1.1 403"), "{foreign}");
    Ok(())
}

#[test]
fn with_the_documented_lines_websockets_and_large_values_pass() -> Result {
    let store = Store::open_in_memory()?;
    let hub = Hub::over(&store);
    let nginx = Nginx::before(hub.address, &documented()?)?;
    let large = vec![b'x'; 8 << 20];
    let mut answer = String::new();
    let asked = nginx.ask("PUT", "/v1/entry?group=g&key=large", &[], &large);
    BufReader::new(asked.into_stream()).read_line(&mut answer)?;
    assert!(answer.contains("204"), "{answer}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut client = Client::open(&nginx.address.to_string(), "/v1/ws", &[PROTOCOL]).await.unwrap();
        client.ask(json!({ "type": "subscribe", "id": "s", "group": "g" })).await;
        store.set("g", "k", "v")?;
        assert_eq!(client.expect("change", "s").await["event"]["value"], "v");
        Ok(())
    })
}

#[test]
fn with_the_documented_lines_each_client_has_its_own_limits() -> Result {
    let limit = Limit::ConnectionsPerAddress;
    let trusted = "127.0.0.1".parse()?;
    let store = Store::open_in_memory()?;
    let bounded = bounded(&store, &[(limit, 1)], |server| server.trusted_proxies([trusted]))?;
    let nginx = Nginx::before(bounded.hub.address, &documented()?)?;
    // This machine is the proxy's, so the client is one that another proxy before it names.
    let named = ("X-Forwarded-For", "192.0.2.1");
    let status = |client| -> Result<String> {
        Ok(nginx.head("/v1/groups", &[("X-Forwarded-For", client)])?[9..12].to_owned())
    };
    for target in ["/v1/watch?group=g", "/v1/ws"] {
        let headers = if target == "/v1/ws" { &UPGRADE[..] } else { &[] };
        let asked = nginx.ask("GET", target, &[headers, &[named]].concat(), b"");
        let mut held = BufReader::new(asked.into_stream());
        let mut answer = String::new();
        held.read_line(&mut answer)?;
        assert!(answer.contains(" 200 ") || answer.contains(" 101 "), "{target}: {answer}");
        assert_eq!(
            (status("192.0.2.1")?, status("192.0.2.2")?),
            ("429".to_owned(), "200".to_owned()),
            "{target}"
        );
        drop(held);
        until(|| Ok((status("192.0.2.1")? == "200").then_some(())))?;
    }
    Ok(())
}

#[test]
fn with_the_documented_lines_no_log_keeps_a_ticket_and_other_pages_see_that_it_is_later() -> Result {
    let line = "add_header Access-Control-Allow-Origin $http_origin;";
    assert!(section()?.contains(&format!("`{line}`")), "{line} is not documented");
    let lines = documented()?.replace("location @later {", &format!("location @later {{ {line}"));
    assert!(lines.contains(line), "{lines}");
    let store = Store::open_in_memory()?;
    let hub = Hub::over(&store);
    let nginx = Nginx::before(hub.address, &lines)?;
    let origin = "https://app.example.com";
    let ask = || nginx.head("/v1/watch?ticket=wt_secret", &[("Origin", origin)]);
    assert!(ask()?.starts_with("http/1.1 403"), "the origin is not named");
    drop(hub);
    let later = ask()?;
    assert!(later.starts_with("http/1.1 200"), "{later}");
    assert!(later.contains(&format!("access-control-allow-origin: {origin}")), "{later}");
    // A line is written once its request is over.
    let log = until(|| Ok(Some(nginx.log("access.log")?).filter(|log| log.lines().count() == 2)))?;
    assert!(log.lines().all(|line| line.contains("\"GET /v1/watch\"")), "{log}");
    for log in [log, nginx.log("error.log")?] {
        assert!(!log.contains("wt_secret"), "{log}");
    }
    Ok(())
}

/// What a plain `EventSource` does: comes back with its bookmark after every end, and never after a status but 200.
fn follow(
    address: SocketAddr,
    many: usize,
    ready: &mpsc::Sender<()>,
    put_off: &AtomicUsize,
) -> Result<Vec<u64>> {
    let (_never, pause) = mpsc::channel::<()>();
    let (mut bookmark, mut seen) = (String::new(), Vec::new());
    while seen.len() < many {
        let mut stream = Stream::open(address, "group=g", &[("Last-Event-ID", &bookmark)])?;
        assert_eq!(stream.status, 200, "it never comes back");
        let mut is_empty = true;
        while let Ok(Some(Frame { event, id, data })) = stream.next() {
            is_empty = false;
            bookmark = id.unwrap_or(bookmark);
            match (event.as_str(), data["revision"].as_u64()) {
                ("", Some(revision)) => seen.push(revision),
                ("ready", _) => ready.send(())?,
                _ => {}
            }
            if seen.len() == many {
                break;
            }
        }
        put_off.fetch_add(is_empty.into(), Ordering::Relaxed);
        // As it is asked to, but not for as long.
        let _ = pause.recv_timeout(Duration::from_millis(50));
    }
    Ok(seen)
}

#[test]
fn two_hundred_streams_come_back_after_a_restart_and_miss_nothing() -> Result {
    const STREAMS: usize = 200;
    let store = Store::open_in_memory()?;
    let hub = Hub::over(&store);
    let server = hub.address;
    let nginx = Nginx::before(server, &documented()?)?;
    let (address, put_off) = (nginx.address, AtomicUsize::new(0));
    let (ready, is_ready) = mpsc::channel();
    let write = |many: usize| (0..many).try_for_each(|_| store.set("g", "k", "v").map(drop));
    let seen = thread::scope(|scope| -> Result<Vec<Vec<u64>>> {
        let streams: Vec<_> = (0..STREAMS)
            .map(|_| {
                let (ready, put_off) = (ready.clone(), &put_off);
                scope.spawn(move || follow(address, 30, &ready, put_off))
            })
            .collect();
        for _ in 0..STREAMS {
            is_ready.recv_timeout(LIMIT)?;
        }
        write(10)?;
        drop(hub);
        write(10)?;
        let begun = Instant::now();
        while put_off.load(Ordering::Relaxed) < STREAMS {
            assert!(begun.elapsed() < LIMIT, "only {put_off:?} were put off");
            thread::yield_now();
        }
        let _again = Hub::at(&server.to_string(), &store, |server| server);
        for _ in 0..STREAMS {
            is_ready.recv_timeout(LIMIT)?;
        }
        write(10)?;
        streams.into_iter().map(|stream| stream.join().map_err(|_| "a stream panicked")?).collect()
    })?;
    let all: Vec<_> = (1..=30).collect();
    assert!(seen.len() == STREAMS && seen.iter().all(|seen| *seen == all), "{seen:?}");
    Ok(())
}
