//! Faults below the store, for as many rounds as one likes.
//!
//! ```text
//! cargo run --release -p watchkeep-testkit --bin faults -- power --rounds 100000 --state faults.state
//! ```
//!
//! Prints a line for each row: its name, how many rounds, how many of them met the store, how many were wrong, and the
//! seeds. Exits with 1 when anything was wrong, after saying how each seed that failed is run again.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use watchkeep::Durability;
use watchkeep_testkit::faults::bytes::{Sound, cut_log, flip_file, flip_log};
use watchkeep_testkit::faults::power::{Plan, cut};
use watchkeep_testkit::faults::{Row, Workload, Wrong, ext4, io};
use watchkeep_testkit::processes;
use watchkeep_testkit::surface::Fault;

const USAGE: &str = "\
Makes the disk below a store fail, and holds what is found afterwards against what the store said before.

usage: faults WHAT... [--rounds N] [--seed N] [--workload NAME] [--kind NAME] [--state FILE]

  power    the power goes at any moment; files of full durability
  relaxed  the same with files of relaxed durability
  sync     syncs fail, then the power goes
  io       every single operation of SQLite fails, once and from then on
  flips    a bit of a closed store's file is another
  wal      a bit of the write-ahead log is another; it is cut off at every 512 bytes
  kill     processes on one file are killed; --workload does not matter
  ext4     the power goes under a real ext4 that two processes write to and one watches; needs root
  ext4-relaxed
           the same with files of relaxed durability
  all      all of these

  --rounds N       rounds of each; 20000 unless given. io has as many as there are operations
  --seed N         the first seed; 1 unless given. For io the first operation that fails
  --workload NAME  only this: puts, transactions, expiry, upkeep, tenants, crowd,
                   consumers
  --kind NAME      only this kind of io: write, full, sync, truncate, read, any
  --state FILE     remembers what is done, so that a second call goes on where the first was stopped
";

/// Rounds on one run of a workload, or on one sound store.
const BATCH: u64 = 50;

#[derive(Debug)]
struct Arguments {
    what: Vec<String>,
    rounds: u64,
    seed: u64,
    workload: Option<Workload>,
    kind: Option<String>,
    state: Option<PathBuf>,
}

fn arguments() -> Result<Option<Arguments>, Fault> {
    let mut arguments =
        Arguments { what: Vec::new(), rounds: 20_000, seed: 1, workload: None, kind: None, state: None };
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        let mut value = || given.next().ok_or_else(|| format!("{name} needs a value"));
        match name.as_str() {
            "--rounds" => arguments.rounds = value()?.parse()?,
            "--seed" => arguments.seed = value()?.parse()?,
            "--state" => arguments.state = Some(value()?.into()),
            "--kind" => arguments.kind = Some(value()?),
            "--workload" => {
                let name = value()?;
                let found = Workload::ALL.into_iter().find(|workload| workload.name() == name);
                arguments.workload = Some(found.ok_or_else(|| format!("there is no workload {name}"))?);
            }
            "--help" | "-h" => return Ok(None),
            "all" => arguments.what.extend(ROWS.iter().map(|(name, _)| (*name).to_owned())),
            what if ROWS.iter().any(|(name, _)| *name == what) => arguments.what.push(name),
            _ => return Err(format!("{name} is unknown\n\n{USAGE}").into()),
        }
    }
    if arguments.what.is_empty() {
        return Err(format!("say which faults\n\n{USAGE}").into());
    }
    Ok(Some(arguments))
}

/// Runs the rounds of a seed.
type Rounds = fn(&Arguments, Workload, u64) -> Result<Row, Fault>;

const ROWS: [(&str, Rounds); 9] = [
    ("power", |_, workload, seed| power(Plan::new(workload, Durability::Full, seed))),
    ("relaxed", |_, workload, seed| power(Plan::new(workload, Durability::Relaxed, seed))),
    ("sync", |_, workload, seed| {
        power(Plan { failing: true, ..Plan::new(workload, Durability::Full, seed) })
    }),
    ("io", |arguments, workload, seed| points(arguments, workload, seed)),
    ("flips", |_, _, seed| flip_file(&Sound::new(seed)?, seed, BATCH)),
    ("wal", |_, _, seed| {
        let (sound, cuts) = (Sound::new(seed)?, 40);
        let mut row = flip_log(&sound, seed, BATCH - cuts)?;
        row.add(cut_log(&sound, usize::try_from(cuts)? - 1)?);
        Ok(row)
    }),
    ("kill", |_, _, seed| processes::kill::rounds(&std::env::current_exe()?, seed)),
    ("ext4", |_, workload, seed| volume(workload, Durability::Full, seed)),
    ("ext4-relaxed", |_, workload, seed| volume(workload, Durability::Relaxed, seed)),
];

fn power(plan: Plan) -> Result<Row, Fault> {
    cut(&Plan { cuts: BATCH, ..plan })
}

fn volume(workload: Workload, durability: Durability, seed: u64) -> Result<Row, Fault> {
    let program = std::env::current_exe()?;
    ext4::cut(&ext4::Plan { program, workload, durability, judged: durability, seed })
}

fn points(arguments: &Arguments, workload: Workload, from: u64) -> Result<Row, Fault> {
    let mut row = Row::default();
    for (what, _) in
        io::KINDS.iter().filter(|(_, name)| arguments.kind.as_deref().is_none_or(|kind| kind == *name))
    {
        for sticky in [false, true] {
            row.add(io::sweep(workload, *what, sticky, from, 1)?);
        }
    }
    Ok(row)
}

/// What is done of each row, in a file of lines: name, next seed, and the row.
#[derive(Debug, Default)]
struct State {
    file: Option<PathBuf>,
    rows: BTreeMap<String, (u64, Row)>,
}

impl State {
    fn load(file: Option<&Path>) -> Result<State, Fault> {
        let mut state = State { file: file.map(Path::to_owned), ..State::default() };
        let text = match file.map(std::fs::read_to_string) {
            Some(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Some(text) => text?,
            None => String::new(),
        };
        for line in text.lines() {
            let odd = || format!("the state file has the line {line:?}");
            let (name, rest) = line.split_once(' ').ok_or_else(odd)?;
            let (seed, row) = rest.split_once(' ').ok_or_else(odd)?;
            state.rows.insert(name.to_owned(), (seed.parse()?, row.parse()?));
        }
        Ok(state)
    }

    fn save(&self) -> std::io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let lines = self.rows.iter().map(|(name, (seed, row))| format!("{name} {seed} {row}\n"));
        // A run that is stopped while it writes leaves the old file.
        let new = file.with_extension("new");
        std::fs::write(&new, lines.collect::<String>())?;
        std::fs::rename(new, file)
    }
}

/// Runs one row until it has its rounds; whether nothing was wrong.
fn row(
    arguments: &Arguments,
    name: &str,
    rounds: Rounds,
    state: &mut State,
    out: &mut dyn Write,
) -> Result<bool, Fault> {
    let began = Instant::now();
    let (mut seed, mut all) = state.rows.remove(name).unwrap_or((arguments.seed, Row::default()));
    let chosen = |workload: &Workload| arguments.workload.is_none_or(|one| one == *workload);
    let possible: &[_] = if name.starts_with("ext4") { &ext4::SHARED } else { &Workload::ALL };
    let workloads: Vec<_> = possible.iter().copied().filter(chosen).collect();
    if workloads.is_empty() {
        return Err(format!("{name} has no workload of this name").into());
    }
    // Each workload has its points once; everything else has a seed for each turn.
    let points = name == "io";
    let end = if points { arguments.seed + u64::try_from(workloads.len())? } else { u64::MAX };
    let mut again = Vec::new();
    while seed < end && (points || all.rounds < arguments.rounds) {
        let turn = usize::try_from(if points { seed - arguments.seed } else { seed })? % workloads.len();
        let workload = workloads.get(turn).copied().unwrap_or(Workload::Puts);
        let found = rounds(arguments, workload, if points { arguments.seed } else { seed })?;
        for Wrong { seed, what } in &found.wrong {
            let workload = workload.name();
            writeln!(out, "{name}, {workload}, seed {seed}: {what}")?;
            again.push(format!("{name} --workload {workload} --seed {seed} --rounds {}", found.rounds));
        }
        all.add(found);
        all.wrong.clear();
        seed += 1;
        state.rows.insert(name.to_owned(), (seed, all.clone()));
        state.save()?;
        if std::io::stderr().is_terminal() {
            write!(std::io::stderr(), "\r{name}: {all}, seed {seed} \x1b[K")?;
        }
    }
    if std::io::stderr().is_terminal() {
        write!(std::io::stderr(), "\r\x1b[K")?;
    }
    let (first, last, took) = (arguments.seed, seed.saturating_sub(1), began.elapsed().as_secs_f64());
    let seeds = if points { String::new() } else { format!(" seeds {first} to {last},") };
    writeln!(out, "{name}: {all};{seeds} {took:.1} s")?;
    again.dedup();
    for again in again {
        writeln!(out, "again: cargo run --release -p watchkeep-testkit --bin faults -- {again}")?;
    }
    Ok(all.broken == 0)
}

fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<bool, Fault> {
    let (mut state, mut clean) = (State::load(arguments.state.as_deref())?, true);
    for (name, rounds) in ROWS.into_iter().filter(|(name, _)| arguments.what.iter().any(|what| what == name))
    {
        clean &= row(arguments, name, rounds, &mut state, out)?;
    }
    Ok(clean)
}

/// Does what the command line says; whether nothing was wrong.
fn asked() -> Result<bool, Fault> {
    let mut out = std::io::stdout().lock();
    match arguments()? {
        None => Ok(out.write_all(USAGE.as_bytes()).map(|()| true)?),
        Some(arguments) => run(&arguments, &mut out),
    }
}

fn main() -> ExitCode {
    let given: Vec<_> = std::env::args().skip(1).collect();
    // The processes that `ext4`, `kill` and the tests start.
    let part = ext4::part(&given).or_else(|| processes::member::part(&given));
    let clean = part.map_or_else(asked, |played| played.map(|()| true));
    match clean {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(fault) => {
            // Nothing can be done about a standard error that is closed.
            let _ = writeln!(std::io::stderr(), "faults: {fault}");
            ExitCode::from(2)
        }
    }
}
