//! All that fuzzing found worth keeping, run again: `fuzz/corpus` has a folder for each target.

use std::path::Path;

use watchkeep_testkit::fuzz::TARGETS;
use watchkeep_testkit::surface::Fault;

/// Fewer files than this in a folder are no corpus: it was not found.
const FEWEST: usize = 10;

#[test]
fn what_was_found_by_fuzzing_stays_fine() -> Result<(), Fault> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (name, run) in TARGETS {
        let mut files = 0;
        for file in std::fs::read_dir(corpus.join(name))? {
            let path = file?.path();
            run(&std::fs::read(&path)?).map_err(|wrong| format!("{name}, {path:?}: {wrong}"))?;
            files += 1;
        }
        assert!(files >= FEWEST, "{files} files for {name}");
    }
    Ok(())
}
