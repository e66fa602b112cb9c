//! A cluster of one member that belongs to a test.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use watchkeep_testkit::surface::Fault;

use crate::scene::LIMIT;

/// From one look to the next whether something has come about.
const LOOK: Duration = Duration::from_millis(100);

/// The only member of a cluster.
pub(crate) struct Member {
    folder: TempDir,
    /// Where clients come, where they may come instead, and where other members would.
    ports: [u16; 3],
    pub(crate) data: PathBuf,
    /// What clients are asked for, as flags of `etcd`; none where they come without TLS.
    pub(crate) asks: Vec<String>,
    /// What `etcdctl` shows, as its flags.
    pub(crate) shows: Vec<String>,
    process: Option<Child>,
}

impl Member {
    pub(crate) fn new() -> Result<Member, Fault> {
        let folder = TempDir::new()?;
        // Drawn together, so that they differ.
        let sockets = [(); 3].map(|()| TcpListener::bind(("127.0.0.1", 0)));
        let mut ports = [0; 3];
        for (port, socket) in ports.iter_mut().zip(sockets) {
            *port = socket?.local_addr()?.port();
        }
        let data = folder.path().join("data");
        Ok(Member { folder, ports, data, asks: Vec::new(), shows: Vec::new(), process: None })
    }

    /// A path beside its data.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn flags(&self) -> [String; 4] {
        let peer = format!("http://127.0.0.1:{}", self.ports[2]);
        let cluster = format!("default={peer}");
        ["--initial-advertise-peer-urls".to_owned(), peer, "--initial-cluster".to_owned(), cluster]
    }

    fn is_secure(&self) -> bool {
        self.shows.iter().any(|flag| flag == "--cacert")
    }

    fn scheme(&self) -> &'static str {
        if self.is_secure() { "https" } else { "http" }
    }

    pub(crate) fn control(&self, client: usize, arguments: &[&str]) -> Result<Command, Fault> {
        let mut command = Command::new("etcdctl");
        let port = self.ports.get(client).ok_or("no such port")?;
        let endpoint = format!("{}://127.0.0.1:{port}", self.scheme());
        command.env("ETCDCTL_API", "3").args(["--endpoints", &endpoint]).args(&self.shows).args(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Ok(command)
    }

    /// Starts it for clients at one of its ports; the store's place there.
    pub(crate) fn start(&mut self, client: usize) -> Result<String, Fault> {
        let port = self.ports.get(client).ok_or("no such port")?;
        let url = format!("{}://127.0.0.1:{port}", self.scheme());
        let peer = format!("http://127.0.0.1:{}", self.ports[2]);
        let process = Command::new("etcd")
            .arg("--data-dir")
            .arg(&self.data)
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &peer])
            .args(self.flags())
            .args(&self.asks)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        self.process = Some(process);
        eventually("the member comes up", || {
            Ok(self.control(client, &["endpoint", "health"])?.status()?.success())
        })?;
        let secure = if self.is_secure() { "s" } else { "" };
        Ok(format!("etcd{secure}://127.0.0.1:{port}/app"))
    }

    pub(crate) fn stop(&mut self) -> Result<(), Fault> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // A test that failed has said why.
        drop(self.stop());
    }
}

pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> Result<bool, Fault>) -> Result<(), Fault> {
    let until = Instant::now() + LIMIT;
    while !is_so()? {
        if Instant::now() > until {
            return Err(format!("not so within the limit: {what}").into());
        }
        std::thread::park_timeout(LOOK);
    }
    Ok(())
}
