//! The program as it is run.

use std::process::Command;

#[test]
fn the_program_says_what_it_measures_and_refuses_what_it_does_not_know() {
    let run = |argument: &str| {
        Command::new(env!("CARGO_BIN_EXE_watchkeep-bench")).arg(argument).output().expect("the program")
    };
    let help = run("--help");
    let text = String::from_utf8_lossy(&help.stdout).into_owned();
    assert!(help.status.success() && text.contains("get-busy") && text.contains("layouts"), "{text}");
    assert_eq!(run("--no-such-option").status.code(), Some(2));
}
