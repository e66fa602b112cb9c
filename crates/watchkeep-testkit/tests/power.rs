//! The power goes at any moment of a workload, 
use watchkeep::Durability;
use watchkeep_testkit::faults::power::{Plan, cut};
use watchkeep_testkit::faults::{Row, Workload};

#[test]
fn probe() {
    for workload in Workload::ALL {
        for durability in [Durability::Full, Durability::Relaxed] {
            let began = std::time::Instant::now();
            let mut row = Row::default();
            for seed in 0..4 {
                row.add(cut(&Plan::new(workload, durability, seed)).unwrap());
            }
            eprintln!("{workload:?} {durability:?} {:?} {row}", began.elapsed());
        }
    }
}
