//! Members of the cluster that stop, and that die, while others write and watch.

use std::time::Duration;

use watchkeep_testkit::surface::{CLUSTER, Fault};

use crate::crowd::{pause, run};

/// How many sets each of the writers makes.
const WRITES: u64 = 60;
/// How long a member stops: longer than calls take, and than a session's fence.
const STOPPED: Duration = Duration::from_secs(6);

/// Sends a signal to a member.
fn signal(member: usize, what: rustix::process::Signal) -> Result<(), Fault> {
    let pids =
        std::env::var("WATCHKEEP_TEST_ETCD_PIDS").map_err(|_| "no cluster: run this by scripts/cluster")?;
    let pid = pids.split(',').nth(member).ok_or("there is no such member")?.parse()?;
    let pid = rustix::process::Pid::from_raw(pid).ok_or("no process")?;
    Ok(rustix::process::kill_process(pid, what)?)
}

#[test]
fn members_that_stop_and_die_take_nothing_that_was_acknowledged() -> Result<(), Fault> {
    let place = format!("etcd://{}/members/{}", std::env::var(CLUSTER)?, std::process::id());
    run(&place, WRITES, |made| {
        made.wait_for(WRITES)?;
        // Whoever asks this one hears nothing, and its connections stay open.
        signal(0, rustix::process::Signal::STOP)?;
        pause(STOPPED);
        signal(0, rustix::process::Signal::CONT)?;
        made.wait_for(WRITES)?;
        // With two of three away nobody commits; with one of them back, they go on.
        signal(1, rustix::process::Signal::STOP)?;
        signal(2, rustix::process::Signal::STOP)?;
        pause(STOPPED);
        signal(1, rustix::process::Signal::CONT)?;
        signal(2, rustix::process::Signal::KILL)
    })?;
    Ok(())
}
