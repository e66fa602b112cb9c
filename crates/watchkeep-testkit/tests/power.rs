//! The power goes at any moment of a workload, 
use watchkeep::Durability;
use watchkeep_testkit::faults::power::{Plan, cut};
use watchkeep_testkit::faults::{Row, Workload};

#[test]
fn probe() {
    for workload in Workload::ALL {
        for which in ["relaxed", "lies", "failing"] {
            let began = std::time::Instant::now();
            let mut row = Row::default();
            for seed in 0..4 {
                let full = Plan::new(workload, Durability::Full, seed);
                let plan = match which {
                    "relaxed" => Plan { durability: Durability::Relaxed, ..full },
                    "lies" => Plan { lies: true, ..full },
                    _ => Plan { failing: true, ..full },
                };
                row.add(cut(&plan).unwrap());
            }
            row.wrong.truncate(3);
            eprintln!("{workload:?} {which} {:?} {row}", began.elapsed());
        }
    }
}
