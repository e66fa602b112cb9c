//! A member seen from outside: started, told what to do, killed, frozen; what it told is collected.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use watchkeep::{Filter, Kind, Revision, Store};

use super::line::Words;
use super::{member, now};
use crate::record::{
    Beginning, End, Evidence, Fate, Heard, Log, Note, Recording, Seen, Source, Target, Want,
};
use crate::record::{WatchSpec, Write};
use crate::surface::Fault;

/// Far longer than anything takes that goes right, also on a machine that does much else.
const LIMIT: Duration = Duration::from_secs(180);

/// A write that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The label of the write, or who failed.
    pub label: String,
    /// The error's kind.
    pub kind: String,
    /// How long it had waited.
    pub took: Duration,
    /// The error.
    pub text: String,
}

/// What a process told.
#[derive(Debug, Default, Clone)]
pub struct Told {
    /// How it hears of others' commits.
    pub waking: String,
    /// The writes that returned, in order.
    pub writes: Vec<Write>,
    /// What failed.
    pub failures: Vec<Failure>,
    /// What its watchers and callbacks were told, by their names.
    pub streams: BTreeMap<String, Recording>,
    /// Everything else: its first word, and what follows.
    pub said: Vec<String>,
    /// What was not understood.
    pub odd: Vec<String>,
    /// It says nothing any more.
    pub over: bool,
    hub: usize,
    /// What callbacks heard before the call that registered them had returned, and could be told of.
    early: BTreeMap<String, Vec<Heard>>,
}

impl Told {
    /// Whether it said so, with whatever behind it.
    pub fn has_said(&self, what: &str) -> bool {
        self.said.iter().any(|said| said.split('\t').next() == Some(what))
    }

    /// How far a stream has come.
    pub fn position(&self, stream: &str) -> Revision {
        let heard = self.streams.get(stream).and_then(|stream| stream.heard.last()).and_then(Heard::event);
        heard.map_or(Revision::ZERO, |seen| seen.revision)
    }

    fn hear(&mut self, line: &str) -> Result<(), Fault> {
        let mut words = Words::of(line);
        match words.text()? {
            "event" => {
                let name = words.text()?;
                let heard = Heard { span: words.span()?, note: Note::Event(words.seen()?), reading: None };
                match self.streams.get_mut(name) {
                    Some(stream) => stream.heard.push(heard),
                    None => self.early.entry(name.to_owned()).or_default().push(heard),
                }
            }
            "wrote" => {
                let (label, span, last) = (words.text()?.to_owned(), words.span()?, words.optional()?);
                let fate = Fate::Done(last.map(str::parse).transpose()?);
                self.writes.push(Write { label, hub: self.hub, span, cause: None, fate });
            }
            "failed" => self.failures.push(Failure {
                label: words.text()?.to_owned(),
                kind: words.text()?.to_owned(),
                took: Duration::from_millis(words.number()?),
                text: words.text()?.to_owned(),
            }),
            "armed" => {
                let source = if words.text()? == "watcher" { Source::Watcher } else { Source::Callback };
                let (name, after) = (words.text()?.to_owned(), words.text()?);
                let mut spec = WatchSpec::new(Want::new(Target::Everything));
                if after != "now" {
                    spec.beginning = Beginning::After(after.parse()?);
                }
                let recording = Recording {
                    name: format!("{name} of process {}", self.hub),
                    spec,
                    source,
                    hub: self.hub,
                    start: words.revision()?,
                    armed: words.span()?,
                    heard: self.early.remove(&name).unwrap_or_default(),
                    dropped: 0,
                    end: End::Left(now()),
                };
                self.streams.insert(name, recording);
            }
            "ready" => {
                self.waking = words.text()?.to_owned();
                self.said.push(line.to_owned());
            }
            "stats" => self.waking = words.text()?.to_owned(),
            _ => self.said.push(line.to_owned()),
        }
        Ok(())
    }
}

#[derive(Default)]
struct Shared {
    told: Mutex<Told>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A member of a crowd of processes. It is killed when this goes.
pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process").field("id", &self.child.id()).finish_non_exhaustive()
    }
}

impl Process {
    /// Starts a program that [plays](member::play) a member, and waits until it has the store open. No two of a run
    /// have the same number.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn start(program: &Path, store: &Path, number: usize, busy: Duration) -> Result<Process, Fault> {
        Process::with(Command::new(program), store, number, busy)
    }

    /// The same, with a command that the member's arguments are appended to.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn with(mut command: Command, store: &Path, number: usize, busy: Duration) -> Result<Process, Fault> {
        command.arg(member::PART).arg(store).arg(busy.as_millis().to_string());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let shared = Arc::new(Shared::default());
        shared.lock().hub = number;
        let out = child.stdout.take().ok_or("a process has no standard output")?;
        let reader = std::thread::spawn({
            let shared = shared.clone();
            move || collect(BufReader::new(out), &shared)
        });
        let stdin = child.stdin.take();
        let process = Process { child, stdin, shared, reader: Some(reader) };
        process.wait_for("it is ready", |told| told.has_said("ready"))?;
        Ok(process)
    }

    /// Its number among the system's processes.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Tells it to do something; the words are those of [`member`].
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn tell(&mut self, line: &str) -> Result<(), Fault> {
        let stdin = self.stdin.as_mut().ok_or("the process was asked to end")?;
        Ok(writeln!(stdin, "{line}")?)
    }

    /// Tells it to watch, and waits until it does.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub fn watch(&mut self, name: &str, after: &str, slow_ms: u64) -> Result<(), Fault> {
        self.tell(&format!("watch {name} {after} 16 {slow_ms}"))?;
        self.wait_for("it watches", |told| told.streams.contains_key(name))
    }

    /// Tells it to register a callback, and waits until it has.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub fn call_back(&mut self, name: &str) -> Result<(), Fault> {
        self.tell(&format!("callback {name}"))?;
        self.wait_for("it is called back", |told| told.streams.contains_key(name))
    }

    /// What it has told so far.
    pub fn told<T>(&self, look: impl FnOnce(&Told) -> T) -> T {
        look(&self.shared.lock())
    }

    /// Waits until it has told something.
    ///
    /// # Errors
    ///
    /// When it ends before, or when that takes too long.
    pub fn wait_for(&self, what: &str, holds: impl Fn(&Told) -> bool) -> Result<(), Fault> {
        let began = Instant::now();
        let mut told = self.shared.lock();
        while !holds(&told) {
            let left = LIMIT.saturating_sub(began.elapsed());
            if told.over || left.is_zero() {
                let (said, failures) = (told.said.last(), &told.failures);
                let why = if told.over { "it ended" } else { "it does not" };
                let positions: Vec<_> = told.streams.keys().map(|name| (name, told.position(name))).collect();
                return Err(format!("{what}: {why}; {said:?} {failures:?} {positions:?}").into());
            }
            told = self.shared.changed.wait_timeout(told, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// Waits until a stream has come so far.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub fn wait_until(&self, stream: &str, last: Revision) -> Result<(), Fault> {
        self.wait_for(&format!("{stream} comes to {last}"), |told| told.position(stream) >= last)
    }

    fn signal(&self, signal: Signal) -> Result<(), Fault> {
        let id = Pid::from_raw(self.child.id().cast_signed()).ok_or("a process has no number")?;
        Ok(kill_process(id, signal)?)
    }

    /// Stops it where it is (SIGSTOP).
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub fn freeze(&self) -> Result<(), Fault> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub fn thaw(&self) -> Result<(), Fault> {
        self.signal(Signal::CONT)
    }

    /// Kills it (SIGKILL); what it had told by then.
    ///
    /// # Errors
    ///
    /// When it had ended before.
    pub fn kill(mut self) -> Result<Told, Fault> {
        self.child.kill()?;
        let status = self.child.wait()?;
        if status.code().is_some() {
            return Err(format!("a process was to be killed, and ended by itself: {status}").into());
        }
        Ok(self.all())
    }

    /// Asks it to close its store and end; all that it told, its streams read to their ends, up to this revision.
    ///
    /// # Errors
    ///
    /// When it ends otherwise.
    pub fn close(mut self, last: Revision) -> Result<Told, Fault> {
        self.stdin = None;
        self.wait_for("it closes", |told| told.over || told.has_said("closed"))?;
        let status = self.child.wait()?;
        if !status.success() {
            return Err(format!("a process was to end well, and ended with {status}").into());
        }
        let mut told = self.all();
        for stream in told.streams.values_mut() {
            stream.end = End::Drained(last);
        }
        let nobody = std::mem::take(&mut told.early).into_keys();
        told.odd.extend(nobody.map(|name| format!("an event of nobody: {name}")));
        Ok(told)
    }

    fn all(&mut self) -> Told {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        let mut told = std::mem::take(&mut *self.shared.lock());
        for stream in told.streams.values_mut() {
            let last = stream.heard.last().map_or(stream.armed.returned, |heard| heard.span.returned);
            stream.end = End::Left(last);
        }
        told
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Collects lines until there are no more. One that has no end is of a process that was killed while it spoke.
fn collect(mut out: impl BufRead, shared: &Shared) {
    let mut line = String::new();
    while out.read_line(&mut line).is_ok_and(|read| read > 0) {
        if let Some(whole) = line.strip_suffix('\n') {
            let mut told = shared.lock();
            if let Err(fault) = told.hear(whole) {
                told.odd.push(format!("{whole:?}: {fault}"));
            }
            drop(told);
            shared.changed.notify_all();
        }
        line.clear();
    }
    shared.lock().over = true;
    shared.changed.notify_all();
}

/// What the file holds, and what the processes wrote, as the promises take it.
///
/// # Errors
///
/// When the log cannot be read.
pub fn evidence(store: &Store, told: &[Told]) -> Result<Evidence, Fault> {
    let all = store.history(Filter::everything().kinds(Kind::ALL), Revision::ZERO);
    let rows = all.map(|event| Ok(Seen::from(&event?))).collect::<Result<Vec<_>, Fault>>()?;
    let writes = told.iter().flat_map(|told| &told.writes);
    let writes = writes.map(|write| (write.label.clone(), write.clone())).collect();
    Ok(Evidence { writes, ..Evidence::of(Log::new(rows)) })
}
