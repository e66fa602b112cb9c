//! A cluster that is restored from a backup and started again with the flags that it had: etcd gives it the name that it
//! had, too. Each test has a member of its own.

use std::process::{Command, Stdio};

use watchkeep::ErrorKind;
use watchkeep_testkit::surface::Fault;

use crate::own::Member;
use crate::scene::{LIMIT, open};

impl Member {
    fn backup(&self) -> String {
        self.beside("backup").to_string_lossy().into_owned()
    }

    fn save(&self) -> Result<(), Fault> {
        let done = self.control(0, &["snapshot", "save", &self.backup()])?.status()?;
        if done.success() { Ok(()) } else { Err("there is no backup".into()) }
    }

    /// Sets it back to its backup, as it was named before.
    fn restore(&mut self) -> Result<(), Fault> {
        self.stop()?;
        self.data = self.beside("restored");
        // Since 3.6 `etcdctl` does not do that any more.
        let tool = if Command::new("etcdutl").output().is_ok() { "etcdutl" } else { "etcdctl" };
        let mut command = Command::new(tool);
        command.env("ETCDCTL_API", "3").args(["snapshot", "restore", &self.backup()]).stderr(Stdio::null());
        let done = command.arg("--data-dir").arg(&self.data).args(self.flags()).status()?;
        if done.success() { Ok(()) } else { Err("it is not restored".into()) }
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
