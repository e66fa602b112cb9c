//! Several servers that share nothing but the cluster: clients move between them, and they end under their clients.

use std::sync::Arc;
use std::time::Duration;

use watchkeep_testkit::size::scaled;
use watchkeep_testkit::surface::{Fault, Faults, Hub, Wire};
use watchkeep_testkit::workload::{Load, Plan, Report, round_within};

use super::cluster;

/// Clients that stand still for a moment, are cut off anywhere, and come back to whichever server.
const FAULTS: Faults = Faults { seed: 0, messages: 20, stall: 30, cut: 8 << 10 };
const SERVERS: usize = 2;
const LIMIT: Duration = Duration::from_secs(120);

/// Rounds over one wire, from this seed on.
fn rounds(wire: Wire, from: u64) -> Result<(), Fault> {
    let (mut report, mut moves, mut ends) = (Report::default(), 0, 0);
    for seed in from..from + scaled(1) {
        let hub = Arc::new(Hub::in_a_cluster(cluster()?, wire, Faults { seed, ..FAULTS }));
        let plan = Plan::new(seed, Load::SMALL).over(SERVERS);
        report.add(&round_within(Box::new(hub.clone()), plan, LIMIT)?);
        let suffered = hub.suffered();
        (moves, ends) = (moves + suffered.moves, ends + suffered.ends);
    }
    assert!(report.is_clean(), "{report}");
    assert!(moves > 0 && ends > 0, "nobody moved, or no server ended: {moves} and {ends}");
    Ok(())
}

#[test]
fn streams_that_move_between_servers_keep_the_promises() -> Result<(), Fault> {
    rounds(Wire::Events, 802)
}

#[test]
fn subscriptions_that_move_between_servers_keep_the_promises() -> Result<(), Fault> {
    rounds(Wire::WebSocket, 822)
}
