//! Members on machines of their own: their links are cut, their disks are full. Run by
//! `scripts/machines cargo test --all-features --test cluster apart`, which makes those machines.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use watchkeep_testkit::faults::Row;
use watchkeep_testkit::size::scaled;
use watchkeep_testkit::surface::Fault;

use crate::crowd::{pause, run};
use crate::machines::{etcdctl, place};

/// How many sets each of the writers makes.
const WRITES: u64 = 400;
/// How long a fault lasts: longer than a call may take, and than members wait before they elect.
const LASTS: Duration = Duration::from_secs(12);

fn named(variable: &str) -> Result<Vec<String>, Fault> {
    let named = std::env::var(variable).map_err(|_| "no machines: run this by scripts/machines")?;
    Ok(named.split(',').map(str::to_owned).collect())
}

/// Cuts a member's link to everybody, or mends it.
fn set_link(member: usize, to: &str) -> Result<(), Fault> {
    let links = named("WATCHKEEP_TEST_LINKS")?;
    let link = links.get(member).ok_or("there is no such member")?;
    let done = Command::new("ip").args(["link", "set", link, to]).status()?;
    if done.success() { Ok(()) } else { Err(format!("{link} is not set {to}").into()) }
}

/// Which member leads.
fn leader() -> Result<usize, Fault> {
    let told: serde_json::Value = serde_json::from_str(&etcdctl(&["endpoint", "status", "-w", "json"])?)?;
    let members = told.as_array().ok_or("no members")?;
    let leads = |told: &serde_json::Value| {
        let leader = told.pointer("/Status/leader");
        leader.is_some() && leader == told.pointer("/Status/header/member_id")
    };
    members.iter().position(leads).ok_or_else(|| "nobody leads".into())
}

/// Writes until a disk is full; the file that fills it.
fn fill(disk: &Path) -> Result<std::path::PathBuf, Fault> {
    let path = disk.join("full");
    let mut file = File::create(&path)?;
    while file.write_all(&[0; 1 << 16]).is_ok() {}
    // The last bytes, too.
    while file.write_all(&[0]).is_ok() {}
    Ok(path)
}

/// Rounds of a fault, of a cluster that is whole again before the next.
fn rounds(name: &str, fault: impl Fn() -> Result<(), Fault>) -> Result<(), Fault> {
    let mut row = Row::default();
    for _ in 0..scaled(1) {
        let [acknowledged, unknown, refused] = run(&place()?, WRITES, |made| {
            made.wait_for(WRITES / 4)?;
            fault()
        })?;
        row.fine([]);
        for (what, count) in [("acknowledged", acknowledged), ("unknown", unknown), ("refused", refused)] {
            row.note(what, count as u64);
        }
    }
    row.print(name);
    Ok(())
}

#[test]
fn a_leader_that_is_cut_off_takes_nothing_that_was_acknowledged() -> Result<(), Fault> {
    rounds("cut-off", || {
        let leader = leader()?;
        set_link(leader, "down")?;
        pause(LASTS);
        set_link(leader, "up")
    })
}

#[test]
fn a_majority_that_is_cut_off_takes_nothing_that_was_acknowledged() -> Result<(), Fault> {
    rounds("majority", || {
        let leader = leader()?;
        let others = [(leader + 1) % 3, (leader + 2) % 3];
        others.into_iter().try_for_each(|member| set_link(member, "down"))?;
        pause(LASTS);
        others.into_iter().try_for_each(|member| set_link(member, "up"))
    })
}

#[test]
fn a_leader_whose_disk_is_full_takes_nothing_that_was_acknowledged() -> Result<(), Fault> {
    rounds("disk", || {
        let disks = named("WATCHKEEP_TEST_DISKS")?;
        let full = fill(Path::new(disks.get(leader()?).ok_or("no disk")?))?;
        pause(LASTS);
        Ok(std::fs::remove_file(full)?)
    })
}
