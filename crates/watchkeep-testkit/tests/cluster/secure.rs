//! Who is let into a cluster: TLS with client certificates, users and passwords, each on a member of its own. What gets one
//! in comes from the environment, so each store is opened by a child: this test binary, once more.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use watchkeep::{Options, Store, Watcher};
use watchkeep_testkit::surface::Fault;

use crate::own::Member;
use crate::scene::{LIMIT, from_the_start};

/// Where the child's store is.
const PLACE: &str = "WATCHKEEP_TEST_SECURE";
/// How long its calls may take, in milliseconds.
const PATIENCE: &str = "WATCHKEEP_TEST_SECURE_PATIENCE";
/// What stands before what a child tells, for the test's own words stand beside it.
const TOLD: &str = "told: ";
/// How many of a child's threads come at once.
const THREADS: usize = 16;
/// Who is refused for good is told so long before the patience of a store ends.
const QUICK: Duration = Duration::from_secs(20);

/// All of these are secrets.
const ROOT: &str = "root-Zq81xNw7";
const RIGHT: &str = "right-Vb52kTm9";
const WRONG: &str = "wrong-Hc64rLp3";

/// In the child: says each time that it did what a store is for, and does so again for each line.
#[test]
fn child() -> Result<(), Fault> {
    let Ok(place) = std::env::var(PLACE) else { return Ok(()) };
    let log = tracing_subscriber::fmt().with_max_level(tracing_subscriber::filter::LevelFilter::TRACE);
    log.with_writer(std::io::stderr).with_ansi(false).init();
    let patience = std::env::var(PATIENCE)?.parse()?;
    match work(Options::new().busy_timeout(Duration::from_millis(patience)), &place) {
        Ok(()) => Ok(()),
        Err(fault) => {
            let told = match fault.downcast_ref::<watchkeep::Error>() {
                Some(error) => format!("{:?}: {error}", error.kind()),
                None => fault.to_string(),
            };
            say(&told)?;
            Err(fault)
        }
    }
}

fn work(options: Options, place: &str) -> Result<(), Fault> {
    let store = options.connect(place)?;
    let mut watcher = store.watch("g", "*");
    use_once(&store, &mut watcher, "0")?;
    for line in std::io::stdin().lines() {
        use_once(&store, &mut watcher, &line?)?;
    }
    Ok(store.close()?)
}

fn use_once(store: &Store, watcher: &mut Watcher, value: &str) -> Result<(), Fault> {
    // At once: a token that does not hold any more is refused to all of them.
    let found: watchkeep::Result<Vec<_>> = std::thread::scope(|scope| {
        let ask = |thread| move || store.get("absent", &format!("{value}-{thread}"));
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(ask(thread))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    if found?.len() != THREADS {
        return Err("a thread ended".into());
    }
    // What was before the store was opened is read by a watch of its own.
    let past = (value != "0").then(|| from_the_start(store)).transpose()?;
    if let Some(mut past) = past {
        past.recv_timeout(LIMIT).ok_or("the past does not come")??;
    }
    store.set("g", "k", value)?;
    let event = watcher.recv_timeout(LIMIT).ok_or("no event")??;
    let told = event.value().map(|value| value.to_string_lossy().into_owned());
    let read = store.get("g", "k")?.map(|entry| entry.to_string_lossy().into_owned());
    if told.as_deref() != Some(value) || read.as_deref() != Some(value) {
        return Err(format!("{value:?} is told as {told:?}, and read as {read:?}").into());
    }
    say(value)
}

/// Tells the parent, on a line of its own among what a test prints.
fn say(what: &str) -> Result<(), Fault> {
    Ok(writeln!(std::io::stdout(), "\n{TOLD}{what}")?)
}

/// What opens a store.
#[derive(Clone)]
struct Opens {
    place: String,
    variables: Vec<(&'static str, String)>,
    patience: Duration,
}

impl Opens {
    fn new(place: &str) -> Opens {
        Opens { place: place.to_owned(), variables: Vec::new(), patience: LIMIT }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Opens {
        self.variables.push((name, value.into()));
        self
    }

    fn file(self, name: &'static str, path: &Path) -> Opens {
        self.with(name, path.to_string_lossy())
    }

    fn user(self, name: &str, password: &str) -> Opens {
        self.with("WATCHKEEP_ETCD_USER", name).with("WATCHKEEP_ETCD_PASSWORD", password)
    }

    fn start(self, log: PathBuf) -> Result<User, Fault> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["secure::child", "--exact", "--nocapture"]);
        // What this process was given for the shared cluster counts for nothing here.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("WATCHKEEP_") {
                command.env_remove(name);
            }
        }
        command.env(PLACE, self.place).env(PATIENCE, self.patience.as_millis().to_string());
        command.envs(self.variables);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(&log)?);
        let mut process = command.spawn()?;
        let (out, orders) = (process.stdout.take().ok_or("no output")?, process.stdin.take());
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if let Some(line) = line.strip_prefix(TOLD) {
                    drop(tell.send(line.to_owned()));
                }
            }
        });
        Ok(User { process, orders, told, log })
    }

    /// Opens it, and expects to be refused; what is told.
    fn refused(self, log: PathBuf) -> Result<String, Fault> {
        let begun = Instant::now();
        let user = self.start(log)?;
        let told = user.told()?;
        user.end()?;
        let took = begun.elapsed();
        if took < QUICK { Ok(told) } else { Err(format!("that took {took:?}: {told}").into()) }
    }
}

/// A child.
struct User {
    process: Child,
    orders: Option<ChildStdin>,
    told: mpsc::Receiver<String>,
    log: PathBuf,
}

impl User {
    fn told(&self) -> Result<String, Fault> {
        let lost = |_| format!("it says nothing: {}", self.log().unwrap_or_default());
        Ok(self.told.recv_timeout(LIMIT).map_err(lost)?)
    }

    /// Has it use the store once more.
    fn again(&mut self, value: &str) -> Result<String, Fault> {
        writeln!(self.orders.as_ref().ok_or("it is over")?, "{value}")?;
        self.told()
    }

    /// All that was logged.
    fn log(&self) -> Result<String, Fault> {
        Ok(String::from_utf8_lossy(&std::fs::read(&self.log)?).into_owned())
    }

    /// Ends it; no secret may be in its log.
    fn end(mut self) -> Result<(), Fault> {
        drop(self.orders.take());
        self.process.wait()?;
        let log = self.log()?;
        if !log.contains("TRACE") {
            return Err("it logged nothing".into());
        }
        if let Some(secret) =
            [ROOT, RIGHT, WRONG, "PRIVATE KEY"].into_iter().find(|secret| log.contains(secret))
        {
            return Err(format!("{secret:?} is in the log").into());
        }
        match log.split(|c: char| !c.is_ascii_alphanumeric() && c != '.').find(|word| is_token(word)) {
            Some(token) => Err(format!("the token {token} is in the log").into()),
            None => Ok(()),
        }
    }
}

/// Whether it looks like a token of etcd's: sixteen letters, a dot, and a number.
fn is_token(word: &str) -> bool {
    word.split_once('.').is_some_and(|(letters, number)| {
        letters.len() == 16
            && letters.bytes().all(|byte| byte.is_ascii_alphabetic())
            && !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

impl Drop for User {
    fn drop(&mut self) {
        // A test that failed has said why.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Who signs certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Result<Authority, Fault> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Ok(Authority(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    fn file(&self, path: PathBuf) -> Result<PathBuf, Fault> {
        pem(path, "CERTIFICATE", self.0.der())
    }

    /// A certificate and its key, of somebody who is called so.
    fn certify(&self, name: &str, path: impl Fn(&str) -> PathBuf) -> Result<[PathBuf; 2], Fault> {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.0)?;
        Ok([
            pem(path(&format!("{name}.pem")), "CERTIFICATE", certificate.der())?,
            pem(path(&format!("{name}.key")), "PRIVATE KEY", &key.serialize_der())?,
        ])
    }
}

fn pem(path: PathBuf, label: &str, der: &[u8]) -> Result<PathBuf, Fault> {
    let text = format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der));
    std::fs::write(&path, text)?;
    Ok(path)
}

fn strings<const N: usize>(flags: [&str; N]) -> Vec<String> {
    flags.map(str::to_owned).to_vec()
}

/// A member that lets in who has a certificate of an authority, and what gets one in there.
fn certified() -> Result<(Member, Opens), Fault> {
    let mut member = Member::new()?;
    let ours = Authority::new("ours")?;
    let ca = ours.file(member.beside("ca.pem"))?;
    let paths = |name: &str| member.beside(name);
    let ([server, server_key], [client, client_key]) =
        (ours.certify("server", paths)?, ours.certify("somebody", paths)?);
    let text = |path: &PathBuf| path.to_string_lossy().into_owned();
    let (asks, shows) = (
        strings([
            "--client-cert-auth",
            "--trusted-ca-file",
            &text(&ca),
            "--cert-file",
            &text(&server),
            "--key-file",
            &text(&server_key),
        ]),
        strings(["--cacert", &text(&ca), "--cert", &text(&client), "--key", &text(&client_key)]),
    );
    (member.asks, member.shows) = (asks, shows);
    let place = member.start(0)?;
    let opens = Opens::new(&place).file("WATCHKEEP_ETCD_CA", &ca);
    Ok((member, opens.file("WATCHKEEP_ETCD_CERT", &client).file("WATCHKEEP_ETCD_KEY", &client_key)))
}

/// Has a member ask for passwords: of `reader`, who may read the prefix, of `writer`, who may write there too, and of
/// `stranger`, who may do nothing.
fn ask_for_passwords(member: &mut Member) -> Result<(), Fault> {
    for arguments in [
        &["user", "add", &format!("root:{ROOT}")][..],
        &["role", "add", "root"],
        &["user", "grant-role", "root", "root"],
        &["role", "add", "reads"],
        &["role", "grant-permission", "reads", "--prefix=true", "read", "app/"],
        &["role", "add", "writes"],
        &["role", "grant-permission", "writes", "--prefix=true", "readwrite", "app/"],
        &["user", "add", &format!("reader:{RIGHT}")],
        &["user", "grant-role", "reader", "reads"],
        &["user", "add", &format!("writer:{RIGHT}")],
        &["user", "grant-role", "writer", "writes"],
        &["user", "add", &format!("stranger:{RIGHT}")],
        &["auth", "enable"],
    ] {
        control(member, arguments)?;
    }
    member.shows.extend(["--user".to_owned(), format!("root:{ROOT}")]);
    Ok(())
}

fn control(member: &Member, arguments: &[&str]) -> Result<(), Fault> {
    control_with(member, arguments, Stdio::null())
}

/// Each call asks for a token first, which costs a busy machine more than the five seconds that are the default.
fn control_with(member: &Member, arguments: &[&str], input: impl Into<Stdio>) -> Result<(), Fault> {
    let patient = [arguments, &["--command-timeout=60s", "--dial-timeout=60s"]].concat();
    let done = member.control(0, &patient)?.stdin(input).stderr(Stdio::piped()).output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    if done.status.success() { Ok(()) } else { Err(format!("{arguments:?}: {said}").into()) }
}

#[track_caller]
fn assert_told(told: &str, kind: &str, words: &[&str]) {
    assert!(told.starts_with(kind), "{told}");
    for word in words {
        assert!(told.contains(word), "{word:?} is missing: {told}");
    }
}

#[test]
fn who_shows_a_certificate_is_let_in_and_who_does_not_is_told_what_to_do() -> Result<(), Fault> {
    let (mut member, opens) = certified()?;
    let log = |name: &str| member.beside(name);
    let mut user = opens.clone().start(log("certified"))?;
    assert_eq!((user.told()?, user.again("1")?), ("0".to_owned(), "1".to_owned()));
    user.end()?;

    let mut nobody = opens.clone();
    nobody.variables.truncate(1);
    let told = nobody.refused(log("nobody"))?;
    assert_told(&told, "Forbidden", &["WATCHKEEP_ETCD_CERT"]);

    let theirs = Authority::new("theirs")?;
    let other = theirs.file(member.beside("theirs.pem"))?;
    let told = opens.clone().file("WATCHKEEP_ETCD_CA", &other).refused(log("distrusts"))?;
    assert_told(&told, "Forbidden", &["WATCHKEEP_ETCD_CA"]);

    let [certificate, key] = theirs.certify("them", |name| member.beside(name))?;
    let they = opens.clone().file("WATCHKEEP_ETCD_CERT", &certificate).file("WATCHKEEP_ETCD_KEY", &key);
    let told = they.refused(log("distrusted"))?;
    assert_told(&told, "Forbidden", &["WATCHKEEP_ETCD_CERT"]);

    let mut plain = Opens::new(&opens.place.replace("etcds://", "etcd://"));
    plain.patience = Duration::from_secs(1);
    let told = plain.refused(log("plain"))?;
    assert_told(&told, "Unavailable", &["etcds://"]);

    // The name in the certificate is no user of the cluster: the user that is named is meant.
    ask_for_passwords(&mut member)?;
    let user = opens.clone().user("writer", RIGHT).start(member.beside("both"))?;
    assert_eq!(user.told()?, "0");
    user.end()?;
    // And now it is one.
    control(&member, &["user", "add", &format!("somebody:{WRONG}")])?;
    control(&member, &["user", "grant-role", "somebody", "writes"])?;
    let user = opens.start(member.beside("named"))?;
    assert_eq!(user.told()?, "0");
    user.end()
}

#[test]
fn who_knows_the_password_is_let_in_for_as_long_as_the_store_is_open() -> Result<(), Fault> {
    let mut member = Member::new()?;
    let opens = Opens::new(&member.start(0)?);
    ask_for_passwords(&mut member)?;
    let mut writer = opens.clone().user("writer", RIGHT).start(member.beside("writer"))?;
    assert_eq!(writer.told()?, "0");
    // Whoever is given a password loses all tokens, even where it is the same password: as when they expire.
    let password = member.beside("password");
    std::fs::write(&password, RIGHT)?;
    for round in ["1", "2", "3"] {
        control_with(&member, &["user", "passwd", "writer", "--interactive=false"], File::open(&password)?)?;
        assert_eq!(writer.again(round)?, round);
    }
    // Its threads are refused together, and its watches now and then by themselves.
    let asked = writer.log()?.matches("asks the cluster for a token").count();
    assert!((4..4 + THREADS).contains(&asked), "{asked}");
    control(&member, &["user", "revoke-role", "writer", "writes"])?;
    assert_told(&writer.again("4")?, "Forbidden", &["role", "prefix"]);
    writer.end()?;

    let told = opens.clone().user("reader", RIGHT).refused(member.beside("reader"))?;
    assert_told(&told, "Forbidden", &["role", "prefix"]);
    let told = opens.clone().user("stranger", RIGHT).refused(member.beside("stranger"))?;
    assert_told(&told, "Forbidden", &["role", "prefix"]);
    let told = opens.clone().user("writer", WRONG).refused(member.beside("wrong"))?;
    assert_told(&told, "Forbidden", &["WATCHKEEP_ETCD_PASSWORD"]);
    assert!(!told.contains(WRONG), "{told}");
    let told = opens.clone().refused(member.beside("nameless"))?;
    assert_told(&told, "Forbidden", &["WATCHKEEP_ETCD_USER"]);
    let opens = Opens::new(&opens.place.replace("etcd://", "etcds://"));
    let other = Authority::new("any")?.file(member.beside("any.pem"))?;
    let mut needless = opens.file("WATCHKEEP_ETCD_CA", &other);
    needless.patience = Duration::from_secs(1);
    assert_told(&needless.refused(member.beside("needless"))?, "Unavailable", &["etcd://"]);
    Ok(())
}
