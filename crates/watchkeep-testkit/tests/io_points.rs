//! probe
use watchkeep_testkit::faults::{Row, Workload, io};

#[test]
fn probe() {
    for workload in Workload::ALL {
        for (what, name) in io::KINDS {
            for sticky in [false, true] {
            let began = std::time::Instant::now();
            let mut row = io::sweep(workload, what, sticky, 1).unwrap();
            row.wrong.truncate(3);
            eprintln!("{workload:?} {name} {sticky} {:?} {row}", began.elapsed());
        }}
    }
}
