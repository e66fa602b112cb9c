//! Generated workloads held against the promises, for as long as one likes.
//!
//! ```text
//! cargo run --release -p watchkeep-testkit --bin promises -- --seeds 1..50 --seconds 600
//! ```
//!
//! Prints a table of promises, streams, events and violations. Exits with 1 when there are any, after saying how each
//! seed that failed is run again.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use watchkeep::{Durability, Options, Retention};
use watchkeep_testkit::runner::Runner;
use watchkeep_testkit::surface::{Fault, File, Memory, Site};
use watchkeep_testkit::workload::{Load, Plan, Report, round_within};

const USAGE: &str = "\
Holds generated workloads against the promises of the watch, and generated operations against a model.

usage: promises [--seeds FROM..TO] [--seconds N] [--large] [--steps N]

  --seeds FROM..TO  run these seeds, TO not included; 1..50 unless given
  --seconds N       run these seeds and the ones after them until N seconds are over
  --large           more operations and watchers in a round
  --steps N         operations against the model for each seed; 300 unless given, 0 for none
";

/// A round that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(180);

struct Arguments {
    seeds: std::ops::Range<u64>,
    time: Option<Duration>,
    load: Load,
    steps: u64,
    help: bool,
}

fn arguments() -> Result<Arguments, Fault> {
    let mut arguments = Arguments { seeds: 1..50, time: None, load: Load::SMALL, steps: 300, help: false };
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        let mut value = || given.next().ok_or_else(|| format!("{name} needs a value"));
        match name.as_str() {
            "--seeds" => {
                let value = value()?;
                let (from, to) = value.split_once("..").ok_or("seeds are given like 1..50")?;
                arguments.seeds = from.parse()?..to.parse()?;
            }
            "--seconds" => arguments.time = Some(Duration::from_secs(value()?.parse()?)),
            "--large" => arguments.load = Load::LARGE,
            "--steps" => arguments.steps = value()?.parse()?,
            "--help" | "-h" => arguments.help = true,
            _ => return Err(format!("{name} is unknown\n\n{USAGE}").into()),
        }
    }
    Ok(arguments)
}

fn site(seed: u64) -> Result<Box<dyn Site>, Fault> {
    Ok(match seed % 5 {
        0 => Box::new(Memory),
        3 => Box::new(File::new()?.asynchronous()),
        _ => Box::new(File::new()?),
    })
}

fn model(seed: u64, steps: u64) -> Result<(), Fault> {
    let retention = if seed.is_multiple_of(3) { Retention::events(300) } else { Retention::FOREVER };
    let options = Options::new().durability(Durability::Relaxed);
    Ok(Runner::new(site(seed)?, options, retention)?.run(seed, steps)?)
}

fn run(arguments: &Arguments, out: &mut impl std::io::Write) -> Result<bool, Fault> {
    let (began, mut report, mut steps) = (Instant::now(), Report::default(), 0);
    let mut failed: Vec<u64> = Vec::new();
    let over = |seed: u64| match arguments.time {
        Some(time) => began.elapsed() >= time,
        None => seed >= arguments.seeds.end,
    };
    let mut seed = arguments.seeds.start;
    while !over(seed) {
        let clean = match round_within(site(seed)?, Plan::new(seed, arguments.load), LIMIT) {
            Ok(round) => report.add(&round),
            Err(fault) => {
                writeln!(out, "{fault}")?;
                false
            }
        };
        let mismatch = model(seed, arguments.steps).err();
        if let Some(mismatch) = &mismatch {
            writeln!(out, "seed {seed}: the store differs from the model at {mismatch}")?;
        }
        if !clean || mismatch.is_some() {
            failed.push(seed);
        }
        steps += arguments.steps;
        seed += 1;
    }
    writeln!(out, "{report}")?;
    let (first, last) = (arguments.seeds.start, seed.saturating_sub(1));
    let took = began.elapsed().as_secs_f64();
    writeln!(out, "seeds {first} to {last}, {steps} operations against the model, {took:.1} s")?;
    for seed in &failed {
        let large = if arguments.load == Load::LARGE { " --large" } else { "" };
        let (to, steps) = (seed + 1, arguments.steps);
        writeln!(
            out,
            "again: cargo run --release -p watchkeep-testkit --bin promises -- --seeds {seed}..{to} --steps {steps}{large}"
        )?;
    }
    Ok(failed.is_empty())
}

fn main() -> ExitCode {
    let mut out = std::io::stdout().lock();
    let clean = match arguments() {
        Ok(Arguments { help: true, .. }) => {
            out.write_all(USAGE.as_bytes()).map(|()| true).map_err(Fault::from)
        }
        Ok(arguments) => run(&arguments, &mut out),
        Err(fault) => Err(fault),
    };
    match clean {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(fault) => {
            // Nothing can be done about a standard error that is closed.
            let _ = writeln!(std::io::stderr(), "promises: {fault}");
            ExitCode::from(2)
        }
    }
}
