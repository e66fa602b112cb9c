//! A cluster that is restored from a backup and started again with the flags that it had: etcd gives it the name that it
//! had, too. Each test has a member of its own.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use watchkeep::ErrorKind;
use watchkeep_testkit::surface::Fault;

use crate::scene::{LIMIT, open};

/// From one look to the next whether the member answers.
const LOOK: Duration = Duration::from_millis(100);

/// The only member of a cluster.
struct Member {
    folder: TempDir,
    /// Where clients come, where they may come instead, and where other members would.
    ports: [u16; 3],
    data: PathBuf,
    process: Option<Child>,
}

impl Member {
    fn new() -> Result<Member, Fault> {
        let folder = TempDir::new()?;
        // Drawn together, so that they differ.
        let sockets = [(); 3].map(|()| TcpListener::bind(("127.0.0.1", 0)));
        let mut ports = [0; 3];
        for (port, socket) in ports.iter_mut().zip(sockets) {
            *port = socket?.local_addr()?.port();
        }
        let data = folder.path().join("data");
        Ok(Member { folder, ports, data, process: None })
    }

    fn flags(&self) -> [String; 4] {
        let peer = format!("http://127.0.0.1:{}", self.ports[2]);
        let cluster = format!("default={peer}");
        ["--initial-advertise-peer-urls".to_owned(), peer, "--initial-cluster".to_owned(), cluster]
    }

    fn control(&self, client: usize, arguments: &[&str]) -> Result<Command, Fault> {
        let mut command = Command::new("etcdctl");
        let endpoint = format!("127.0.0.1:{}", self.ports.get(client).ok_or("no such port")?);
        command.env("ETCDCTL_API", "3").args(["--endpoints", &endpoint]).args(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Ok(command)
    }

    /// Starts it for clients at one of its ports; the store's place there.
    fn start(&mut self, client: usize) -> Result<String, Fault> {
        let port = self.ports.get(client).ok_or("no such port")?;
        let url = format!("http://127.0.0.1:{port}");
        let peer = format!("http://127.0.0.1:{}", self.ports[2]);
        let process = Command::new("etcd")
            .arg("--data-dir")
            .arg(&self.data)
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &peer])
            .args(self.flags())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        self.process = Some(process);
        let until = Instant::now() + LIMIT;
        while !self.control(client, &["endpoint", "health"])?.status()?.success() {
            if Instant::now() > until {
                return Err("the member does not come up".into());
            }
            std::thread::park_timeout(LOOK);
        }
        Ok(format!("etcd://127.0.0.1:{port}/app"))
    }

    fn stop(&mut self) -> Result<(), Fault> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    fn backup(&self) -> String {
        self.folder.path().join("backup").to_string_lossy().into_owned()
    }

    fn save(&self) -> Result<(), Fault> {
        let done = self.control(0, &["snapshot", "save", &self.backup()])?.status()?;
        if done.success() { Ok(()) } else { Err("there is no backup".into()) }
    }

    /// Sets it back to its backup, as it was named before.
    fn restore(&mut self) -> Result<(), Fault> {
        self.stop()?;
        self.data = self.folder.path().join("restored");
        let mut command = self.control(0, &["snapshot", "restore", &self.backup()])?;
        let done = command.arg("--data-dir").arg(&self.data).args(self.flags()).status()?;
        if done.success() { Ok(()) } else { Err("it is not restored".into()) }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // A test that failed has said why.
        drop(self.stop());
    }
}

#[test]
fn a_cluster_that_was_set_back_and_written_to_is_not_taken_for_the_same() -> Result<(), Fault> {
    let mut member = Member::new()?;
    let store = open(&member.start(0)?)?;
    let set = |store: &watchkeep::Store, times: u32| -> watchkeep::Result<()> {
        (0..times).try_for_each(|number| store.set("g", "k", number.to_string()).map(drop))
    };
    set(&store, 5)?;
    member.save()?;
    set(&store, 5)?;
    let mut watcher = store.watch("g", "*");
    member.restore()?;
    // Others are faster: they make more commits than were lost before this store sees the cluster again.
    let other = open(&member.start(1)?)?;
    set(&other, 20)?;
    drop(other);
    member.stop()?;
    member.start(0)?;
    let ended = watcher.recv_timeout(LIMIT).ok_or("the watch does not end")?;
    assert_eq!(ended.expect_err("an event after a hole").kind(), ErrorKind::Replaced);
    let refused = store.set("g", "k", "lost").expect_err("a write into another past");
    assert_eq!(refused.kind(), ErrorKind::Replaced);
    Ok(())
}
