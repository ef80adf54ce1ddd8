//! Forwards lines to receivers that others wrote, and to some that fail, hang and lie. The syslog daemons are in the
//! directory `DETECTOR_RECEIVERS` (by default `.cache/receivers`), which `cargo xtask test` fills.

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use detector::daemon::hub::Hub;
use detector::daemon::output::{Output, Target};
use detector::daemon::writer::{self, Intervals, Orders};
use detector::finding::NoticeEvent;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
use rustix::process::{Pid, Signal, kill_process};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The time limit of a test on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// Waits until a condition holds.
fn wait(what: &str, mut is_done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_done() {
        assert!(start.elapsed() < SOON, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A port that is free.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a free port");
    listener.local_addr().expect("it is bound").port()
}

/// A folder with a log, and files of forwarders and receivers.
struct Node(TempDir);

impl Node {
    fn new() -> Self {
        let node = Self(TempDir::new().expect("a directory"));
        fs::create_dir(node.path("state")).expect("it is ours");
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Adds lines with these texts to the log, as a run of the daemon does.
    fn write(&self, texts: impl IntoIterator<Item = String>) {
        let output = Output::open(Target::File(self.path("log"))).expect("it can be written");
        let (hub, lines) = Hub::with_output("node-1".to_owned().into());
        let (hub, orders) = (&hub, &Orders::default());
        thread::scope(|scope| {
            let writer = scope.spawn(move || writer::run(output, lines, hub, orders, Intervals::default()));
            for (nth, reason) in texts.into_iter().enumerate() {
                hub.publish_event(NoticeEvent::Stopped { reason });
                if nth % 1000 == 999 {
                    thread::sleep(Duration::from_millis(20));
                }
            }
            hub.close();
            writer.join().expect("it does not panic").expect("it can be written");
        });
    }

    fn write_some(&self, count: usize) {
        self.write((0..count).map(|nth| format!("reason {nth} \"of\" ä\n \u{202e}")));
    }

    /// The files of the log, the oldest first.
    fn files(&self) -> Vec<PathBuf> {
        let is_log = |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"log"));
        let entries = fs::read_dir(self.0.path()).expect("it is there").map(|entry| entry.expect("it is there").path());
        let mut files: Vec<_> = entries.filter(is_log).collect();
        // The log itself has the shortest name.
        files.sort_by_key(|path| (path.as_os_str().len() == self.path("log").as_os_str().len(), path.clone()));
        files
    }

    /// All lines of the log.
    fn lines(&self) -> Vec<String> {
        let text: String = self.files().iter().map(|path| fs::read_to_string(path).expect("it is ours")).collect();
        text.lines().map(str::to_owned).collect()
    }

    fn rotate(&self) {
        let old = format!("log.20261127T15572{}.012Z", self.files().len());
        fs::rename(self.path("log"), self.path(&old)).expect("it is ours");
    }

    /// Starts the process that forwards to these receivers.
    fn forward(&self, forwarders: &[(&str, String)]) -> Forwarding {
        self.forward_as(forwarders.iter().map(|(name, to)| forwarder(name, to)).collect())
    }

    /// Starts the process that forwards, with all that is configured for each forwarder.
    fn forward_as(&self, forwarders: Vec<Value>) -> Forwarding {
        let messages = OpenOptions::new().append(true).create(true).open(self.path("messages")).expect("it is ours");
        let mut command = Command::new(env!("CARGO_BIN_EXE_detector"));
        command.args(["forward-lines", "--log", "info"]).args([self.path("log"), self.path("state")]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(messages);
        let mut child = command.spawn().expect("the program starts");
        let forwarders = Value::from(forwarders);
        let mut input = child.stdin.take().expect("it is piped");
        input.write_all(format!("{forwarders}\n").as_bytes()).expect("it reads");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let told = Arc::<Mutex<Vec<Value>>>::default();
        let telling = Arc::clone(&told);
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                telling.lock().expect("nobody panics").push(serde_json::from_str(&line).expect("it is JSON"));
            }
        });
        Forwarding { child, input: Some(input), told }
    }
}

/// What is configured for a forwarder to this receiver.
fn forwarder(name: &str, to: &str) -> Value {
    let tls = json!({"ca": null, "own": null});
    json!({"name": name, "to": to, "format": "native", "batch": "lines", "headers": null, "tls": tls})
}

/// The process that forwards.
struct Forwarding {
    child: Child,
    input: Option<ChildStdin>,
    told: Arc<Mutex<Vec<Value>>>,
}

impl Forwarding {
    /// What a forwarder has told last.
    fn told(&self, forwarder: &str) -> Value {
        let told = self.told.lock().expect("nobody panics");
        told.iter().rfind(|told| told["forwarder"] == forwarder).cloned().unwrap_or_default()
    }

    /// Ends it as the end of the daemon does.
    fn stop(mut self) {
        self.input = None;
        assert!(self.child.wait().expect("it ends").success());
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Which daemon receives.
#[derive(Clone, Copy, Debug)]
enum Daemon {
    Rsyslog,
    SyslogNg,
    /// Over TLS, with the certificates in its folder, and only for those who show one.
    EncryptedRsyslog,
    EncryptedSyslogNg,
}

impl Daemon {
    const fn is_encrypted(self) -> bool {
        matches!(self, Self::EncryptedRsyslog | Self::EncryptedSyslogNg)
    }
}

/// A syslog daemon of Debian. It writes each message to a file.
struct Syslog {
    child: Child,
    daemon: Daemon,
    port: u16,
    folder: PathBuf,
}

impl Syslog {
    fn start(daemon: Daemon, folder: PathBuf, port: u16) -> Self {
        let _ = fs::create_dir(&folder);
        let child = Self::run(daemon, &folder, port);
        let syslog = Self { child, daemon, port, folder };
        wait("the receiver listens", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
        wait("the receiver has a socket", || syslog.folder.join("socket").exists());
        syslog
    }

    fn run(daemon: Daemon, folder: &Path, port: u16) -> Child {
        let ours = || concat!(env!("CARGO_MANIFEST_DIR"), "/../.cache/receivers").into();
        let root = PathBuf::from(env::var_os("DETECTOR_RECEIVERS").unwrap_or_else(ours));
        assert!(root.exists(), "no {}: run `cargo xtask test`, which fetches receivers", root.display());
        let root = root.join(match daemon {
            Daemon::Rsyslog | Daemon::EncryptedRsyslog => "rsyslog",
            Daemon::SyslogNg | Daemon::EncryptedSyslogNg => "syslog-ng",
        });
        let [files, gtls, tls] = if daemon.is_encrypted() {
            [
                format!(
                    r#"DefaultNetstreamDriverCAFile="{0}/ca.pem" DefaultNetstreamDriverCertFile="{0}/certificate.pem"
                        DefaultNetstreamDriverKeyFile="{0}/key.pem""#,
                    folder.display()
                ),
                r#"StreamDriver.Name="gtls" StreamDriver.Mode="1" StreamDriver.AuthMode="x509/certvalid""#.to_owned(),
                format!(
                    r#"tls(key-file("{0}/key.pem") cert-file("{0}/certificate.pem") ca-file("{0}/ca.pem")
                        peer-verify(required-trusted))"#,
                    folder.display()
                ),
            ]
        } else {
            Default::default()
        };
        let transport = if daemon.is_encrypted() { "tls" } else { "tcp" };
        let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib/syslog-ng"];
        let libraries = libraries.map(|path| root.join(path).display().to_string()).join(":");
        let at = |name: &str| folder.join(name).display().to_string();
        let (configuration, program, arguments) = match daemon {
            Daemon::Rsyslog | Daemon::EncryptedRsyslog => (
                format!(
                    r#"global(workDirectory="{0}" maxMessageSize="64k" {files})
                    module(load="imtcp" {gtls}) module(load="imudp") module(load="imuxsock" SysSock.Use="off")
                    input(type="imtcp" address="127.0.0.1" port="{port}")
                    input(type="imudp" address="127.0.0.1" port="{port}")
                    input(type="imuxsock" Socket="{0}/socket" UseSpecialParser="off" ParseHostname="on")
                    template(name="all" type="string" string="%pri% %timereported:::date-rfc3339% %hostname% %app-name% %msgid% %msg%\n")
                    action(type="omfile" file="{0}/received" template="all")"#,
                    folder.display()
                ),
                "usr/sbin/rsyslogd",
                vec![
                    "-n".to_owned(),
                    "-f".to_owned(),
                    at("configuration"),
                    "-i".to_owned(),
                    at("pid"),
                    "-M".to_owned(),
                    root.join("usr/lib/x86_64-linux-gnu/rsyslog").display().to_string(),
                ],
            ),
            Daemon::SyslogNg | Daemon::EncryptedSyslogNg => (
                format!(
                    r#"@version: 3.38
                    options {{ keep-hostname(yes); log-msg-size(65536); stats-freq(0); frac-digits(6); }};
                    source all {{
                        syslog(transport("{transport}") ip("127.0.0.1") port({port}) {tls});
                        syslog(transport("udp") ip("127.0.0.1") port({port}) so-rcvbuf(8388608));
                        unix-dgram("{0}/socket" flags(syslog-protocol));
                    }};
                    destination file {{ file("{0}/received" template("$PRI $S_ISODATE $HOST $PROGRAM $MSGID $MSG\n")); }};
                    log {{ source(all); destination(file); }};"#,
                    folder.display()
                ),
                "usr/sbin/syslog-ng",
                vec![
                    "--foreground".to_owned(),
                    "--no-caps".to_owned(),
                    format!("--cfgfile={}", at("configuration")),
                    format!("--persist-file={}", at("persist")),
                    format!("--pidfile={}", at("pid")),
                    format!("--control={}", at("control")),
                    format!("--module-path={}", root.join("usr/lib/syslog-ng/3.38").display()),
                ],
            ),
        };
        fs::write(folder.join("configuration"), configuration).expect("it is ours");
        // Its own loader, because its libraries need not be those of this machine.
        let mut command = Command::new(root.join("lib64/ld-linux-x86-64.so.2"));
        command.args(["--library-path", &libraries]).arg(root.join(program)).args(arguments);
        let said = OpenOptions::new().append(true).create(true).open(folder.join("said")).expect("it is ours");
        command.stdin(Stdio::null()).stderr(said).spawn().expect("it starts")
    }

    /// The texts that it has received, without an unfinished one.
    fn received(&self) -> Vec<String> {
        let text = fs::read(self.folder.join("received")).unwrap_or_default();
        let text = String::from_utf8(text).expect("it is text");
        text.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(|line| line.trim_end().to_owned()).collect()
    }

    fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// Starts it again at the same place.
    fn restart(&mut self) {
        self.child = Self::run(self.daemon, &self.folder, self.port);
    }

    /// Waits until it has received these lines: in their order, apart from those that come twice, of which each is as
    /// it was the first time.
    fn expect(&self, lines: &[String]) {
        let is_complete = || {
            let received = self.received();
            let known: BTreeSet<_> = received.iter().filter_map(|line| line.find('{').map(|at| &line[at..])).collect();
            lines.iter().all(|line| known.contains(line.as_str()))
        };
        let start = Instant::now();
        while !is_complete() {
            assert!(start.elapsed() < SOON, "{:?}: {} of {}", self.daemon, self.received().len(), lines.len());
            thread::sleep(Duration::from_millis(50));
        }
        let mut next = 0;
        for received in self.received() {
            let (header, line) = received.split_at(received.find('{').expect("it has a line"));
            assert!(header.starts_with("86 20") && header.ends_with(" node-1 detector stopped "), "{header}");
            match lines.get(next) {
                Some(expected) if expected == line => next += 1,
                _ => assert!(
                    lines[..next].iter().any(|before| before == line),
                    "{line} instead of {:?}",
                    lines.get(next)
                ),
            }
        }
        assert_eq!(next, lines.len());
    }
}

impl Drop for Syslog {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn syslog_daemons_receive_every_line_in_order() {
    let node = Node::new();
    for daemon in [Daemon::Rsyslog, Daemon::SyslogNg] {
        for transport in ["tcp", "udp", "unix"] {
            let name = format!("{daemon:?}-{transport}");
            let syslog = Syslog::start(daemon, node.path(&name), free_port());
            let to = match transport {
                "unix" => format!("unix://{}/socket", syslog.folder.display()),
                transport => format!("{transport}://localhost:{}", syslog.port),
            };
            node.write_some(100);
            let forwarding = node.forward(&[(&name, to.clone())]);
            syslog.expect(&node.lines());
            node.write_some(1000);
            node.rotate();
            node.write_some(10);
            syslog.expect(&node.lines());
            wait("it says that nothing waits", || forwarding.told(&name)["waiting"].is_null());
            forwarding.stop();
            // What was received before is not sent again by the next process.
            let forwarding = node.forward(&[(&name, to)]);
            node.write_some(1);
            syslog.expect(&node.lines());
            assert_eq!(syslog.received().len(), node.lines().len());
            forwarding.stop();
            node.files().iter().for_each(|file| fs::remove_file(file).expect("it is ours"));
        }
    }
}

#[test]
fn a_receiver_that_is_killed_gets_what_it_has_missed() {
    let node = Node::new();
    for daemon in [Daemon::Rsyslog, Daemon::SyslogNg] {
        let mut syslog = Syslog::start(daemon, node.path(&format!("{daemon:?}")), free_port());
        let to = format!("tcp://127.0.0.1:{}", syslog.port);
        let first = node.forward(&[("siem", to.clone())]);
        let forwarding = thread::scope(|scope| {
            let writer = scope.spawn(|| (0..5).for_each(|_| node.write_some(1000)));
            wait("it receives", || !syslog.received().is_empty());
            syslog.kill();
            wait("that is noticed", || !first.told("siem")["failure"].is_null());
            node.rotate();
            // Another process goes on where this one is killed.
            drop(first);
            let forwarding = node.forward(&[("siem", to.clone())]);
            wait("that is noticed", || !forwarding.told("siem")["failure"].is_null());
            syslog.restart();
            writer.join().expect("it does not panic");
            forwarding
        });
        syslog.expect(&node.lines());
        wait("it works again", || forwarding.told("siem")["failure"].is_null());
        let told = forwarding.told("siem");
        assert_eq!((&told["given_up"], &told["refused"]), (&json!(0), &json!(0)), "{told}");
        forwarding.stop();
        node.files().iter().for_each(|file| fs::remove_file(file).expect("it is ours"));
        fs::remove_file(node.path("state/siem.cursor")).expect("it is there");
    }
}

#[test]
fn receivers_that_hang_or_lie_delay_no_other() {
    let node = Node::new();
    let hanging = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a free port");
    let lying = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a free port");
    let port = |listener: &TcpListener| listener.local_addr().expect("it is bound").port();
    let url = |listener: &TcpListener| format!("tcp://127.0.0.1:{}", port(listener));
    let (hangs, lies, silent) = (url(&hanging), url(&lying), format!("udp://127.0.0.1:{}", free_port()));
    // It accepts connections, sends what nobody wants, and ends them.
    thread::spawn(move || {
        for client in lying.incoming() {
            let _ = client.and_then(|mut client| client.write_all(&[b'x'; 4096]));
        }
    });
    let syslog = Syslog::start(Daemon::Rsyslog, node.path("syslog"), free_port());
    let good = format!("tcp://127.0.0.1:{}", syslog.port);
    let forwarding = node.forward(&[("hangs", hangs), ("lies", lies), ("silent", silent), ("good", good)]);
    (0..4).for_each(|_| node.write_some(1000));
    syslog.expect(&node.lines());
    wait("it fails", || !forwarding.told("lies")["failure"].is_null());
    wait("it fails", || !forwarding.told("silent")["failure"].is_null());
    let pid = forwarding.child.id();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let has = |line: &str| status.lines().any(|found| found.split_whitespace().eq(line.split_whitespace()));
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(has(&format!("{set}: 0000000000000000")), "{set} of\n{status}");
    }
    assert!(has("NoNewPrivs: 1"), "{status}");
    // What ends the daemon does not end it before the daemon has.
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::USR1] {
        kill_process(Pid::from_child(&forwarding.child), signal).expect("it runs");
    }
    node.write_some(1);
    syslog.expect(&node.lines());
    // It ends in time nevertheless.
    let start = Instant::now();
    forwarding.stop();
    assert!(start.elapsed() < Duration::from_secs(7), "{:?}", start.elapsed());
}

#[test]
fn lines_that_cannot_be_sent_are_kept_and_counted() {
    let node = Node::new();
    let syslog = Syslog::start(Daemon::Rsyslog, node.path("syslog"), free_port());
    node.write(["a".to_owned(), "x".repeat(66_000), "b".to_owned()]);
    let udp = format!("udp://127.0.0.1:{}", syslog.port);
    let forwarding = node.forward(&[("siem", udp.clone())]);
    let lines = node.lines();
    syslog.expect(&[lines[0].clone(), lines[2].clone()]);
    wait("it is told", || forwarding.told("siem")["refused"] == 1);
    assert_eq!(fs::read_to_string(node.path("state/siem.refused")).expect("it is there"), lines[1].clone() + "\n");
    forwarding.stop();
    // Of the lines that come now, one file is removed before it is sent.
    node.write(["c".to_owned()]);
    node.rotate();
    let gone = node.files().remove(0);
    node.write(["d".to_owned()]);
    fs::remove_file(gone).expect("it is ours");
    let forwarding = node.forward(&[("siem", udp)]);
    wait("it is told", || forwarding.told("siem")["given_up"] == 1);
    syslog.expect(&[lines[0].clone(), lines[2].clone(), node.lines()[0].clone()]);
}

#[test]
fn a_cursor_that_is_damaged_or_foreign_costs_nothing_but_doubles() {
    let node = Node::new();
    let syslog = Syslog::start(Daemon::SyslogNg, node.path("syslog"), free_port());
    let to = format!("tcp://127.0.0.1:{}", syslog.port);
    node.write_some(10);
    let foreign = format!("{{\"version\":1,\"seq\":7,\"sha256\":\"{}\"}}", "7".repeat(64));
    for (nth, cursor) in ["damaged", &foreign].into_iter().enumerate() {
        fs::write(node.path("state/siem.cursor"), cursor).expect("it is ours");
        let forwarding = node.forward(&[("siem", to.clone())]);
        wait("all is sent", || syslog.received().len() == 10 * (nth + 1));
        syslog.expect(&node.lines());
        forwarding.stop();
    }
    assert_eq!(fs::read_to_string(node.path("state/siem.cursor.unusable")).expect("it is there"), "damaged");
}

/// An authority and what it has certified, as files.
struct Authority(rcgen::Issuer<'static, KeyPair>, String);

impl Authority {
    fn new(name: &str) -> Self {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("there are random numbers");
        let certificate = parameters.self_signed(&key).expect("it is its own").pem();
        Self(rcgen::Issuer::new(parameters, key), certificate)
    }

    /// Puts the authority's certificate, and one for this host with its key, into a folder.
    fn certify(&self, folder: &Path) {
        let mut parameters = CertificateParams::new(["localhost".to_owned()]).expect("it is a name");
        parameters.distinguished_name.push(DnType::CommonName, "localhost");
        let key = KeyPair::generate().expect("there are random numbers");
        let certificate = parameters.signed_by(&key, &self.0).expect("it is an authority").pem();
        let _ = fs::create_dir(folder);
        for (name, text) in [("ca.pem", &self.1), ("certificate.pem", &certificate), ("key.pem", &key.serialize_pem())]
        {
            fs::write(folder.join(name), text).expect("it is ours");
        }
    }
}

/// A forwarder with the certificates in this folder.
fn encrypted(name: &str, to: &str, folder: &Path) -> Value {
    let at = |name: &str| folder.join(name);
    let mut forwarder = forwarder(name, to);
    forwarder["tls"] = json!({"ca": at("ca.pem"), "own": [at("certificate.pem"), at("key.pem")]});
    forwarder
}

#[test]
fn syslog_daemons_receive_lines_over_tls_only_from_those_whom_they_know() {
    let node = Node::new();
    let (known, other) = (Authority::new("known"), Authority::new("other"));
    for daemon in [Daemon::EncryptedRsyslog, Daemon::EncryptedSyslogNg] {
        let name = format!("{daemon:?}");
        let own = node.path("own");
        known.certify(&node.path(&name));
        other.certify(&own);
        let syslog = Syslog::start(daemon, node.path(&name), free_port());
        let to = format!("tls://localhost:{}", syslog.port);
        node.write_some(100);
        let forwarding = node.forward_as(vec![encrypted(&name, &to, &own)]);
        let failure = || forwarding.told(&name)["failure"]["why"].as_str().unwrap_or_default().to_owned();
        wait("the receiver is not known", || failure().contains("TLS: invalid peer certificate: UnknownIssuer"));
        // The files are read again, and the receiver is certified for its name only.
        known.certify(&own);
        syslog.expect(&node.lines());
        node.write_some(1000);
        syslog.expect(&node.lines());
        forwarding.stop();
        let to = format!("tls://127.0.0.1:{}", syslog.port);
        let forwarding = node.forward_as(vec![encrypted(&name, &to, &own)]);
        node.write_some(1);
        let failure = || forwarding.told(&name)["failure"]["why"].as_str().unwrap_or_default().to_owned();
        wait("the name is another one", || failure().contains("not valid for name"));
        node.files().iter().for_each(|file| fs::remove_file(file).expect("it is ours"));
    }
}

/// A collector: takes requests as its owner decides.
struct Collector {
    port: u16,
    state: Arc<Mutex<Collected>>,
    runtime: Option<tokio::runtime::Runtime>,
}

/// The headers and the lines of a request.
type Received = (Vec<(String, String)>, Vec<String>);

#[derive(Default)]
struct Collected {
    /// What it answers to the next requests: a status, 0 to break the connection, or 1 to say nothing.
    answers: Vec<u16>,
    requests: Vec<Received>,
    taken: Vec<String>,
}

impl Collected {
    /// Takes a request, and says what is done with it.
    fn take(&mut self, headers: Vec<(String, String)>, lines: Vec<String>) -> u16 {
        self.requests.push((headers, lines.clone()));
        if !self.answers.is_empty() {
            return self.answers.remove(0);
        }
        if lines.len() > 50 {
            return 413;
        }
        if lines.iter().any(|line| line.contains("refuse")) {
            return 400;
        }
        self.taken.extend(lines);
        204
    }
}

impl Collector {
    fn start(port: u16, state: Arc<Mutex<Collected>>, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let runtime = tokio::runtime::Runtime::new().expect("there is memory");
        let listener = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().expect("there are descriptors");
            socket.set_reuseaddr(true).expect("it is ours");
            socket.bind((Ipv4Addr::LOCALHOST, port).into()).expect("the port is free");
            socket.listen(16).expect("it is ours")
        });
        let port = listener.local_addr().expect("it is bound").port();
        let collected = Arc::clone(&state);
        runtime.spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let state = Arc::clone(&collected);
                let service = service_fn(move |request| {
                    let state = Arc::clone(&state);
                    async move { Self::answer(request, &state).await }
                });
                let tls = tls.clone();
                tokio::spawn(async move {
                    let server = http1::Builder::new();
                    match tls {
                        None => drop(server.serve_connection(TokioIo::new(stream), service).await),
                        Some(tls) => {
                            let Ok(stream) = tokio_rustls::TlsAcceptor::from(tls).accept(stream).await else { return };
                            drop(server.serve_connection(TokioIo::new(stream), service).await);
                        }
                    }
                });
            }
        });
        Self { port, state, runtime: Some(runtime) }
    }

    async fn answer(request: Request<Incoming>, state: &Mutex<Collected>) -> io::Result<Response<Full<Bytes>>> {
        let header = |(name, value): (&HeaderName, &HeaderValue)| {
            (name.to_string(), value.to_str().expect("it is text").to_owned())
        };
        let headers: Vec<_> = request.headers().iter().map(header).collect();
        let is = |name: &str, value: &str| headers.contains(&(name.to_owned(), value.to_owned()));
        let mut body = request.into_body().collect().await.map_err(io::Error::other)?.to_bytes().to_vec();
        if is("content-encoding", "gzip") {
            let mut text = Vec::new();
            flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut text)?;
            body = text;
        }
        let text = String::from_utf8(body).expect("it is text");
        let lines: Vec<String> = if text.starts_with('[') {
            // Every line is an object, and none has this text in a string.
            text[1..text.len() - 1].replace("\"},{\"", "\"}\n{\"").lines().map(str::to_owned).collect()
        } else {
            text.lines().map(str::to_owned).collect()
        };
        let decided = state.lock().expect("nobody panics").take(headers, lines);
        let status = match decided {
            0 => return Err(io::Error::other("it is broken")),
            1 => return std::future::pending().await,
            status => status,
        };
        let mut response = Response::new(Full::new(Bytes::from("what\x1b is wrong with secret-2?")));
        *response.status_mut() = status.try_into().expect("it is one");
        if status == 503 {
            response.headers_mut().insert("retry-after", HeaderValue::from_static("2"));
        }
        Ok(response)
    }

    fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }

    fn get<T>(&self, get: impl FnOnce(&Collected) -> T) -> T {
        get(&self.state.lock().expect("nobody panics"))
    }

    /// Waits until it has taken these lines: in their order, apart from those that come twice.
    fn expect(&self, lines: &[String]) {
        let taken = || self.get(|state| state.taken.clone());
        wait("all lines come", || {
            let taken: BTreeSet<_> = taken().into_iter().collect();
            lines.iter().all(|line| taken.contains(line))
        });
        let mut next = 0;
        for line in taken() {
            match lines.get(next) {
                Some(expected) if *expected == line => next += 1,
                _ => assert!(lines[..next].contains(&line), "{line} instead of {:?}", lines.get(next)),
            }
        }
    }
}

#[test]
fn a_webhook_that_fails_hangs_and_restarts_takes_every_line_that_it_does_not_refuse() {
    let node = Node::new();
    let mut collector = Collector::start(0, Arc::default(), None);
    collector.state.lock().expect("nobody panics").answers = vec![503, 0, 429, 1, 500];
    let headers = node.path("headers");
    fs::write(&headers, "Authorization: Bearer secret-1\n\nX-Tenant: a\n").expect("it is ours");
    let mut configured = forwarder("hook", &format!("http://localhost:{}/in?a=b", collector.port));
    configured["headers"] = json!(headers);
    let forwarding = node.forward_as(vec![configured]);
    node.write((0..200).map(|nth| if nth == 70 { "refuse it".to_owned() } else { format!("reason {nth}") }));
    let lines: Vec<_> = node.lines().into_iter().filter(|line| !line.contains("refuse")).collect();
    let start = Instant::now();
    collector.expect(&lines);
    assert!(start.elapsed() > Duration::from_secs(30), "it hangs once");
    wait("it is told", || forwarding.told("hook")["refused"] == 1);
    assert!(fs::read_to_string(node.path("state/hook.refused")).expect("it is there").contains("refuse it"));
    let has = |request: &Received, name: &str, value: &str| request.0.contains(&(name.to_owned(), value.to_owned()));
    collector.get(|state| {
        assert!(state.requests.iter().all(|request| has(request, "authorization", "Bearer secret-1")));
        assert!(
            has(&state.requests[0], "x-tenant", "a") && has(&state.requests[0], "content-type", "application/x-ndjson")
        );
    });
    // The file is read again, also while the receiver is away.
    fs::write(&headers, "Authorization: Bearer secret-2\n").expect("it is ours");
    collector.stop();
    node.write_some(10);
    wait("it is missed", || !forwarding.told("hook")["failure"].is_null());
    let collector = Collector::start(collector.port, Arc::clone(&collector.state), None);
    let lines: Vec<_> = node.lines().into_iter().filter(|line| !line.contains("refuse")).collect();
    collector.expect(&lines);
    collector
        .get(|state| assert!(has(state.requests.last().expect("there is one"), "authorization", "Bearer secret-2")));
    // What is told of an answer is neither a secret nor what a terminal obeys.
    collector.state.lock().expect("nobody panics").answers = vec![401];
    node.write_some(1);
    wait("it fails", || !forwarding.told("hook")["failure"].is_null());
    collector.expect(&node.lines().into_iter().filter(|line| !line.contains("refuse")).collect::<Vec<_>>());
    fs::write(&headers, "secret-3\n").expect("it is ours");
    node.write_some(1);
    wait("it is told", || forwarding.told("hook")["failure"]["why"].to_string().contains("line 1 is not a header"));
    forwarding.stop();
    let messages = fs::read_to_string(node.path("messages")).expect("it is there");
    assert!(messages.contains("it answers 401 Unauthorized; check the file with the headers"), "{messages}");
    assert!(messages.contains("400 Bad Request: what  is wrong with secret-2?"), "{messages}");
    assert!(
        !messages.contains("secret-1") && !messages.contains("secret-3") && !messages.contains('\x1b'),
        "{messages}"
    );
}

#[test]
fn a_webhook_can_be_encrypted_and_take_lines_in_other_ways() {
    let node = Node::new();
    let (known, own) = (Authority::new("known"), node.path("own"));
    known.certify(&own);
    let certificates = |name: &str| -> Vec<_> {
        let all = CertificateDer::pem_file_iter(own.join(name)).expect("it is there");
        all.map(|one| one.expect("it is one")).collect()
    };
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(certificates("ca.pem"));
    let verifier = rustls::server::WebPkiClientVerifier::builder(Arc::new(roots)).build().expect("there is one");
    let key = PrivateKeyDer::from_pem_file(own.join("key.pem")).expect("it is there");
    let config = rustls::ServerConfig::builder().with_client_cert_verifier(verifier);
    let config = config.with_single_cert(certificates("certificate.pem"), key).expect("they are right");
    let collector = Collector::start(0, Arc::default(), Some(Arc::new(config)));
    node.write_some(120);
    for batch in ["array", "none"] {
        collector.state.lock().expect("nobody panics").taken.clear();
        let mut configured = encrypted(batch, &format!("https://localhost:{}", collector.port), &own);
        configured["batch"] = json!(batch);
        let forwarding = node.forward_as(vec![configured]);
        collector.expect(&node.lines());
        collector.get(|state| {
            let (headers, lines) = state.requests.last().expect("there is one");
            assert!(headers.contains(&("content-type".to_owned(), "application/json".to_owned())), "{headers:?}");
            assert_eq!(lines.len() == 1, batch == "none", "{lines:?}");
        });
        forwarding.stop();
    }
}

#[test]
fn what_the_log_does_not_take_is_sent_after_the_log() {
    let node = Node::new();
    let mut collector = Collector::start(0, Arc::default(), None);
    let to = format!("http://localhost:{}/", collector.port);
    node.write_some(20);
    let mut forwarding = node.forward(&[("hook", to)]);
    collector.expect(&node.lines());
    collector.stop();
    let early: Vec<_> = ["refuse it", "x", "y"].map(|id| format!("{{\"id\":\"{id}\",\"durable\":false}}")).to_vec();
    let input = forwarding.input.as_mut().expect("it is not stopped");
    input.write_all(format!("{}\n", early.join("\n")).as_bytes()).expect("it reads");
    wait("it is missed", || !forwarding.told("hook")["failure"].is_null());
    node.write_some(20);
    let collector = Collector::start(collector.port, Arc::clone(&collector.state), None);
    let lines: Vec<_> = node.lines().into_iter().chain(early[1..].to_vec()).collect();
    collector.expect(&lines);
    wait("it is told", || {
        let told = forwarding.told("hook");
        told["unlogged"] == 3 && told["refused"] == 1 && told["sent"] == node.lines().len()
    });
    forwarding.stop();
    assert!(fs::read_to_string(node.path("state/hook.refused")).expect("it is there").contains("refuse it"));
}
