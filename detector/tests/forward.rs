//! Forwards lines to receivers that others wrote, and to some that fail, hang and lie. Those of others are in the
//! directory `DETECTOR_RECEIVERS` (by default `.cache/receivers`), which `cargo xtask test` fills.

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use detector::config;
use detector::daemon::hub::Hub;
use detector::daemon::output::{Output, Target};
use detector::daemon::writer::{self, Intervals, Orders};
use detector::finding::{Line, NoticeEvent, Time};
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
use serde::de::IgnoredAny;
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

/// Waits until a receiver has taken these lines: in their order, apart from those that come twice.
fn expect(lines: &[String], taken: impl Fn() -> Vec<String>) {
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

    /// Adds lines with these texts to the log.
    fn write(&self, texts: impl IntoIterator<Item = String>) {
        self.publish(|hub| {
            for (nth, reason) in texts.into_iter().enumerate() {
                hub.publish_event(NoticeEvent::Stopped { reason });
                if nth % 1000 == 999 {
                    thread::sleep(Duration::from_millis(20));
                }
            }
        });
    }

    /// Adds the lines that are published to the log, as a run of the daemon does.
    fn publish(&self, publish: impl FnOnce(&Hub)) {
        let output = Output::open(Target::File(self.path("log"))).expect("it can be written");
        let (hub, lines) = Hub::with_output("node-1".to_owned().into());
        let (hub, orders) = (&hub, &Orders::default());
        thread::scope(|scope| {
            let writer = scope.spawn(move || writer::run(output, lines, hub, orders, Intervals::default()));
            publish(hub);
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

    /// The log as `detector convert` writes it in this format.
    fn converted(&self, format: &str) -> Vec<String> {
        if format == "native" {
            return self.lines();
        }
        let mut convert = Command::new(env!("CARGO_BIN_EXE_detector"));
        let output = convert.args(["convert", "--to", format]).arg(self.path("log")).output();
        let output = output.expect("the program starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("it is text").lines().map(str::to_owned).collect()
    }

    fn rotate(&self) {
        let old = format!("log.20261127T15572{}.012Z", self.files().len());
        fs::rename(self.path("log"), self.path(&old)).expect("it is ours");
    }

    /// Verifies these lines, apart from those that come twice, as a log.
    fn verify(&self, lines: Vec<String>) {
        let mut known = BTreeSet::new();
        let once: Vec<_> = lines.into_iter().filter(|line| known.insert(line.clone())).collect();
        fs::write(self.path("arrived"), once.join("\n") + "\n").expect("it is ours");
        let mut verify = Command::new(env!("CARGO_BIN_EXE_detector"));
        let verified = verify.args(["log", "verify"]).arg(self.path("arrived")).output().expect("the program starts");
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    }

    /// What the forwarders have said.
    fn messages(&self) -> String {
        fs::read_to_string(self.path("messages")).expect("it is there")
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

/// The directory with the receivers that others wrote.
fn receivers() -> PathBuf {
    let ours = || concat!(env!("CARGO_MANIFEST_DIR"), "/../.cache/receivers").into();
    let root = PathBuf::from(env::var_os("DETECTOR_RECEIVERS").unwrap_or_else(ours));
    assert!(root.exists(), "no {}: run `cargo xtask test`, which fetches receivers", root.display());
    root
}

/// Which daemon receives.
#[derive(Clone, Copy, Debug)]
enum Daemon {
    Rsyslog,
    SyslogNg,
    /// Over TLS, with the certificates in its folder, and only for those who show one.
    EncryptedRsyslog,
    EncryptedSyslogNg,
    /// rsyslog again, which acknowledges each message when it has written it.
    Relp,
    EncryptedRelp,
}

impl Daemon {
    const fn is_encrypted(self) -> bool {
        matches!(self, Self::EncryptedRsyslog | Self::EncryptedSyslogNg | Self::EncryptedRelp)
    }

    const fn is_of_rsyslog(self) -> bool {
        !matches!(self, Self::SyslogNg | Self::EncryptedSyslogNg)
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
        let root = receivers().join(if daemon.is_of_rsyslog() { "rsyslog" } else { "syslog-ng" });
        let [files, gtls, tls, relp] = if daemon.is_encrypted() {
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
                format!(
                    r#"tls="on" tls.caCert="{0}/ca.pem" tls.myCert="{0}/certificate.pem" tls.myPrivKey="{0}/key.pem"
                        tls.authMode="certvalid""#,
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
        let inputs = if matches!(daemon, Daemon::Relp | Daemon::EncryptedRelp) {
            // Without a queue in memory, what is acknowledged is in the file.
            format!(
                r#"main_queue(queue.type="direct") module(load="imrelp") input(type="imrelp" port="{port}" {relp})"#
            )
        } else {
            format!(
                r#"module(load="imtcp" {gtls}) module(load="imudp")
                    input(type="imtcp" address="127.0.0.1" port="{port}")
                    input(type="imudp" address="127.0.0.1" port="{port}")"#
            )
        };
        let (configuration, program, arguments) = if daemon.is_of_rsyslog() {
            (
                format!(
                    r#"global(workDirectory="{0}" maxMessageSize="64k" {files})
                    module(load="imuxsock" SysSock.Use="off")
                    {inputs}
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
            )
        } else {
            (
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
            )
        };
        fs::write(folder.join("configuration"), configuration).expect("it is ours");
        // Its own loader, because its libraries need not be those of this machine.
        let mut command = Command::new(root.join("lib64/ld-linux-x86-64.so.2"));
        command.args(["--library-path", &libraries]).arg(root.join(program)).args(arguments);
        let said = OpenOptions::new().append(true).create(true).open(folder.join("said")).expect("it is ours");
        command.stdin(Stdio::null()).stderr(said).spawn().expect("it starts")
    }

    /// Where it receives by this transport.
    fn url(&self, transport: &str) -> String {
        match transport {
            "unix" => format!("unix://{}/socket", self.folder.display()),
            transport => format!("{transport}://localhost:{}", self.port),
        }
    }

    /// The texts that it has received, without an unfinished one.
    fn received(&self) -> Vec<String> {
        let text = fs::read(self.folder.join("received")).unwrap_or_default();
        let text = String::from_utf8(text).expect("it is text");
        text.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(|line| line.trim_end().to_owned()).collect()
    }

    /// Stops it where it is: what is sent to it, it takes no more.
    fn suspend(&self) {
        kill_process(Pid::from_child(&self.child), Signal::STOP).expect("it runs");
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
    let all = &["tcp", "udp", "unix"][..];
    for (daemon, transports) in [(Daemon::Rsyslog, all), (Daemon::SyslogNg, all), (Daemon::Relp, &["relp"])] {
        for transport in transports {
            let name = format!("{daemon:?}-{transport}");
            let syslog = Syslog::start(daemon, node.path(&name), free_port());
            let to = syslog.url(transport);
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
    for (daemon, scheme) in
        [(Daemon::EncryptedRsyslog, "tls"), (Daemon::EncryptedSyslogNg, "tls"), (Daemon::EncryptedRelp, "relps")]
    {
        let name = format!("{daemon:?}");
        let own = node.path("own");
        known.certify(&node.path(&name));
        other.certify(&own);
        let syslog = Syslog::start(daemon, node.path(&name), free_port());
        let to = format!("{scheme}://localhost:{}", syslog.port);
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
        let to = format!("{scheme}://127.0.0.1:{}", syslog.port);
        let forwarding = node.forward_as(vec![encrypted(&name, &to, &own)]);
        node.write_some(1);
        let failure = || forwarding.told(&name)["failure"]["why"].as_str().unwrap_or_default().to_owned();
        wait("the name is another one", || failure().contains("not valid for name"));
        node.files().iter().for_each(|file| fs::remove_file(file).expect("it is ours"));
    }
}

/// How many frames a forwarder over RELP lets wait for their answers.
const RELP_WINDOW: usize = 128;

#[test]
fn what_relp_has_not_acknowledged_is_sent_again_and_nothing_else() {
    let node = Node::new();
    let mut syslog = Syslog::start(Daemon::Relp, node.path("relp"), free_port());
    let to = format!("relp://127.0.0.1:{}", syslog.port);
    let forwarding = node.forward(&[("siem", to)]);
    for round in 0..5 {
        // In each second round, what is sent before it is killed is in its socket, and has no answer.
        let is_suspended = round % 2 == 1;
        let before = node.lines().len();
        if is_suspended {
            syslog.suspend();
        }
        node.write_some(1000);
        if is_suspended {
            thread::sleep(Duration::from_secs(2));
            assert_eq!(forwarding.told("siem")["seq"], before, "what is not acknowledged was not sent");
        } else {
            wait("it receives", || syslog.received().len() > before);
        }
        syslog.kill();
        syslog.restart();
        syslog.expect(&node.lines());
        let written = node.lines().len();
        wait("all is acknowledged", || forwarding.told("siem")["seq"] == written);
    }
    let (told, lines) = (forwarding.told("siem"), node.lines());
    assert!(lines.len() >= 5000, "{}", lines.len());
    assert_eq!((&told["given_up"], &told["refused"]), (&json!(0), &json!(0)), "{told}");
    assert_eq!(told["sent"], lines.len(), "no line counts twice");
    let twice = syslog.received().len() - lines.len();
    assert!(twice <= 5 * RELP_WINDOW, "{twice} lines came twice");
    forwarding.stop();
}

/// What a RELP receiver does with a frame, by its place in the session, its number and its data: what it says, or
/// nothing to end the session.
type Behaviour = fn(usize, u64, &str) -> Option<String>;

/// A `rsp` frame.
fn rsp(number: u64, data: &str) -> String {
    format!("{number} rsp {} {data}\n", data.len())
}

/// What a RELP receiver has to say.
fn truth(nth: usize, number: u64) -> Option<String> {
    Some(rsp(number, if nth == 0 { "200 OK\nrelp_version=0\ncommands=syslog" } else { "200 OK" }))
}

/// Reads a frame: its number, its command and its data.
fn read_frame(input: &mut impl BufRead) -> Option<(u64, String, String)> {
    let mut header = Vec::new();
    let mut words = 0;
    while words < 3 {
        let mut byte = [0];
        input.read_exact(&mut byte).ok()?;
        words += usize::from(byte == *b" " || byte == *b"\n");
        header.push(byte[0]);
    }
    let header = String::from_utf8(header).expect("it is text");
    let [number, command, length] = header.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{header:?}") };
    let mut data = vec![0; length.parse().expect("it is a number")];
    input.read_exact(&mut data).ok()?;
    if header.ends_with(' ') {
        let mut end = [0];
        input.read_exact(&mut end).ok()?;
        assert_eq!(end, *b"\n");
    }
    Some((number.parse().expect("it is a number"), command.to_owned(), String::from_utf8(data).expect("it is text")))
}

/// Receives over RELP, and behaves in each session as is said here, and as in the last one then. Returns the URL, and
/// where the data of the frames of each session will be.
fn relp_receiver(behaviours: Vec<Behaviour>) -> (String, Arc<Mutex<Vec<Vec<String>>>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a free port");
    let url = format!("relp://{}", listener.local_addr().expect("it is bound"));
    let sessions = Arc::<Mutex<Vec<Vec<String>>>>::default();
    let received = Arc::clone(&sessions);
    thread::spawn(move || {
        for (nth, client) in listener.incoming().enumerate() {
            let behaviour = behaviours[nth.min(behaviours.len() - 1)];
            let mut client = client.expect("it connects");
            received.lock().expect("nobody panics").push(Vec::new());
            let mut input = BufReader::new(client.try_clone().expect("there are descriptors"));
            for place in 0.. {
                let Some((number, command, data)) = read_frame(&mut input) else { break };
                assert_eq!(number, place as u64 + 1);
                let said = match (place, command.as_str()) {
                    (0, "open") | (1.., "syslog") => behaviour(place, number, &data),
                    (1.., "close") => Some(rsp(number, "200 OK")),
                    _ => panic!("{command} as frame {place}"),
                };
                received.lock().expect("nobody panics")[nth].push(data);
                match said {
                    Some(said) => _ = client.write_all(said.as_bytes()),
                    None => break,
                }
            }
            // What it has said arrives before it is gone.
            let _ = client.shutdown(Shutdown::Write);
            let _ = io::copy(&mut input, &mut io::sink());
        }
    });
    (url, sessions)
}

#[test]
fn a_relp_receiver_that_lies_gets_every_line_that_it_has_not_acknowledged() {
    // How it behaves, how many lines it has acknowledged without a gap then, and what is told.
    let table: [(Behaviour, usize, &str); 15] = [
        (|nth, number, _| truth(nth, number).filter(|_| nth <= 7), 7, "the receiver has ended the session"),
        (
            |nth, number, _| if nth <= 3 { truth(nth, number) } else { Some("HTTP/1.1 400 Bad Request\r\n".into()) },
            3,
            "it sends what is not RELP",
        ),
        (
            |nth, number, _| if nth <= 1 { truth(nth, number) } else { Some("1000000000 rsp 6 200 OK\n".into()) },
            1,
            "it sends what is not RELP",
        ),
        (
            |nth, number, _| truth(nth, if nth <= 2 { number } else { number + 1000 }),
            2,
            "which does not wait for an answer",
        ),
        (
            |nth, number, _| truth(nth, number).map(|said| if nth == 5 { said.repeat(2) } else { said }),
            5,
            "it answers transaction 6, which does not wait for an answer",
        ),
        (
            |nth, number, _| if nth <= 1 { truth(nth, number) } else { Some(format!("{number} rsp 999999999 200 OK")) },
            1,
            "it sends a frame with more than 16384 bytes",
        ),
        (
            |nth, number, _| if nth <= 1 { truth(nth, number) } else { Some(rsp(number, "fine")) },
            1,
            "it sends an answer without a code",
        ),
        (
            |nth, number, _| if nth <= 1 { truth(nth, number) } else { Some("0 serverclose 0\n".into()) },
            1,
            "the receiver has ended the session",
        ),
        (
            |nth, number, _| if nth <= 1 { truth(nth, number) } else { Some(format!("{number} syslog 0\n")) },
            1,
            "it sends the command syslog with the number 3",
        ),
        // The second line is acknowledged before the first one.
        (
            |nth, number, _| match nth {
                1 => Some(String::new()),
                2 => Some(rsp(number, "200 OK") + &rsp(number - 1, "200 OK")),
                _ => truth(nth, number).filter(|_| nth == 0),
            },
            2,
            "the receiver has ended the session",
        ),
        // The second line is acknowledged, and the first one is not.
        (
            |nth, number, _| match nth {
                1 => Some(String::new()),
                2 => truth(nth, number),
                _ => truth(nth, number).filter(|_| nth == 0),
            },
            0,
            "the receiver has ended the session",
        ),
        (|_, number, _| Some(rsp(number, "500 go \u{1b}away")), 0, "it refuses the session: 500 go  away"),
        (
            |_, number, _| Some(rsp(number, "200 OK\nrelp_version=7\ncommands=syslog")),
            0,
            "it does not offer version 0 or 1 of RELP",
        ),
        (
            |_, number, _| Some(rsp(number, "200 OK\nrelp_version=0\ncommands=eventlog")),
            0,
            "it does not offer to take syslog messages",
        ),
        // It never answers any more.
        (|nth, number, _| if nth <= 9 { truth(nth, number) } else { Some(String::new()) }, 9, "no answer for 30 s"),
    ];
    let node = Node::new();
    node.write((0..400).map(|nth| if nth % 100 == 99 { format!("refuse {nth}") } else { format!("reason {nth}") }));
    let lines = node.lines();
    let good: Behaviour = |nth, number, data| {
        if data.contains("refuse") { Some(rsp(number, "500 never")) } else { truth(nth, number) }
    };
    let (url, sessions) = relp_receiver(table.iter().map(|(behaviour, ..)| *behaviour).chain([good]).collect());
    let forwarding = node.forward(&[("siem", url)]);
    wait("all is acknowledged", || forwarding.told("siem")["seq"] == lines.len());
    let told = forwarding.told("siem");
    assert_eq!((&told["sent"], &told["refused"]), (&json!(lines.len()), &json!(4)), "{told}");
    let refused: Vec<_> = lines.iter().filter(|line| line.contains("refuse")).map(|line| format!("{line}\n")).collect();
    assert_eq!(fs::read_to_string(node.path("state/siem.refused")).expect("it is there"), refused.concat());
    forwarding.stop();
    let messages = fs::read_to_string(node.path("messages")).expect("it is there");
    assert!(messages.contains("it answers 500 never"), "{messages}");
    assert!(!messages.contains('\u{1b}'), "{messages}");
    let mut sessions = sessions.lock().expect("nobody panics").clone();
    assert_eq!(sessions.len(), table.len() + 1);
    let last = sessions.pop().expect("there is one");
    let mut next = 0;
    for (session, (_, acknowledged, expected)) in sessions.iter().zip(table) {
        assert!(messages.contains(&format!("{expected}; it is tried again")), "{expected}: {messages}");
        assert_eq!(
            session[0],
            format!("relp_version=0\nrelp_software=detector,{}\ncommands=syslog", env!("CARGO_PKG_VERSION"))
        );
        for (nth, message) in session[1..].iter().enumerate() {
            assert!(message.starts_with("<86>1 ") && message.ends_with(&lines[next + nth]), "{message}");
        }
        assert!(session.len() - 1 <= RELP_WINDOW + acknowledged, "{}", session.len());
        next += acknowledged;
    }
    // The last one has all the rest, once, and is closed.
    let (close, rest) = last[1..].split_last().expect("it is closed");
    assert_eq!((close.as_str(), rest.len()), ("", lines.len() - next));
    assert!(rest.iter().zip(&lines[next..]).all(|(message, line)| message.ends_with(line)));
}

/// The texts of what is in a list.
fn of_list(list: &str) -> Vec<String> {
    let mut rest = list.strip_prefix('[').expect("it is a list");
    let mut texts = Vec::new();
    while rest != "]" {
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<IgnoredAny>();
        values.next().expect("the list has an end").expect("it is JSON");
        let (text, others) = rest.split_at(values.byte_offset());
        texts.push(text.to_owned());
        rest = others.strip_prefix(',').unwrap_or(others);
    }
    texts
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
        let lines: Vec<String> =
            if text.starts_with('[') { of_list(&text) } else { text.lines().map(str::to_owned).collect() };
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
        expect(lines, || self.get(|state| state.taken.clone()));
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

/// Lines of many kinds and severities, of which some have texts that others would obey.
fn lines_of_many_kinds() -> Vec<Line> {
    let corpus = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus"));
    let mut replay = Command::new(env!("CARGO_BIN_EXE_detector"));
    let replayed = replay.arg("replay").arg(corpus.join("recording/story")).output().expect("the program starts");
    let files = ["shell", "write", "hostile", "degraded"].map(|name| fs::read(corpus.join("line").join(name)));
    let texts = [replayed.stdout].into_iter().chain(files.map(|file| file.expect("it is there")));
    let texts: Vec<_> = texts.map(|text| String::from_utf8(text).expect("it is text")).collect();
    texts.iter().flat_map(|text| text.lines()).map(|line| serde_json::from_str(line).expect("it is a line")).collect()
}

/// The facility and the severity, the program and the name that a message of syslog has for a line.
fn header(line: &str) -> String {
    let line: Value = serde_json::from_str(line).expect("it is JSON");
    let level = match (line["severity"].as_str(), line["event"].as_str()) {
        (Some("critical"), _) => 2,
        (Some("high"), _) => 3,
        (Some("medium"), _) | (None, Some("loss" | "degraded")) => 4,
        (Some("low"), _) => 5,
        _ => 6,
    };
    let name = line["finding"].as_str().or(line["event"].as_str()).expect("it has one");
    format!("{} detector {name}", 10 << 3 | level)
}

/// What is configured for forwarders in this format, each to a receiver and with what else is said of it.
fn configured(format: &str, receivers: &[(String, String)]) -> Vec<Value> {
    let entry = |(nth, (to, more)): (usize, &(String, String))| {
        format!("[[forward]]\nname = \"{format}-{nth}\"\nto = \"{to}\"\nformat = \"{format}\"\n{more}\n")
    };
    let text: String = receivers.iter().enumerate().map(entry).collect();
    let (settings, _) = config::parse(&text, Time::from_nanoseconds(0));
    let forwarders = settings.forward.0;
    assert_eq!(forwarders.len(), receivers.len(), "{text}");
    forwarders.iter().map(|forwarder| serde_json::to_value(forwarder).expect("it is JSON")).collect()
}

#[test]
fn every_receiver_gets_lines_in_the_format_that_is_configured_for_it() {
    let node = Node::new();
    let lines = lines_of_many_kinds();
    assert!(lines.len() > 15, "{}", lines.len());
    node.publish(|hub| lines.iter().for_each(|line| hub.publish(line)));
    let webhooks = ["lines", "array", "none"].map(|batch| (batch, Collector::start(0, Arc::default(), None)));
    let daemons = [(Daemon::Rsyslog, "tcp"), (Daemon::SyslogNg, "unix"), (Daemon::Relp, "relp")];
    let daemons = daemons
        .map(|(daemon, transport)| (transport, Syslog::start(daemon, node.path(&format!("{daemon:?}")), free_port())));
    let otlps = ["http", "grpc"].map(|protocol| Otlp::start(protocol, node.path(protocol), free_port()));
    let webhook = |(batch, webhook): &(&str, Collector)| {
        (format!("http://localhost:{}", webhook.port), format!("batch = \"{batch}\""))
    };
    let syslog = |(transport, syslog): &(&str, Syslog)| (syslog.url(transport), String::new());
    let otlp = |Otlp { protocol, port, .. }: &Otlp| (format!("otlp+{protocol}://localhost:{port}"), String::new());
    let receivers: Vec<_> =
        webhooks.iter().map(webhook).chain(daemons.iter().map(syslog)).chain(otlps.iter().map(otlp)).collect();
    for (nth, format) in ["native", "ocsf", "ecs", "falco"].into_iter().enumerate() {
        let forwarding = node.forward_as(configured(format, &receivers));
        let (before, all) = (nth * lines.len(), (nth + 1) * lines.len());
        wait("all lines come", || {
            webhooks.iter().all(|(_, webhook)| webhook.get(|state| state.taken.len() == lines.len()))
                && daemons.iter().all(|(_, syslog)| syslog.received().len() == all)
                && otlps.iter().all(|otlp| otlp.received().len() == all)
        });
        forwarding.stop();
        let expected = node.converted(format);
        for (batch, webhook) in &webhooks {
            let taken = std::mem::take(&mut webhook.state.lock().expect("nobody panics").taken);
            assert_eq!(taken, expected, "{format}, {batch}");
        }
        let messages: Vec<_> =
            node.lines().iter().zip(&expected).map(|(line, text)| format!("{} {text}", header(line))).collect();
        for (_, syslog) in &daemons {
            let received: Vec<_> = syslog.received()[before..].iter().map(|message| without_origin(message)).collect();
            assert_eq!(received, messages, "{format}, {:?}", syslog.daemon);
        }
        for otlp in &otlps {
            assert_eq!(bodies(&otlp.received()[before..]), expected, "{format}, {}", otlp.protocol);
        }
    }
}

/// A message as a syslog daemon has written it, without its time and its host.
fn without_origin(message: &str) -> String {
    let [level, _, _, rest] = message.splitn(4, ' ').collect::<Vec<_>>()[..] else { panic!("{message}") };
    format!("{level} {rest}")
}

/// The bodies of records, which are lines.
fn bodies(records: &[Value]) -> Vec<String> {
    records.iter().map(|record| record["body"]["stringValue"].as_str().expect("it is text").to_owned()).collect()
}

/// A receiver of OpenTelemetry, with the messages of OpenTelemetry for Python (`receivers/otlp.py`).
struct Otlp {
    child: Child,
    protocol: &'static str,
    folder: PathBuf,
    port: u16,
}

impl Otlp {
    fn start(protocol: &'static str, folder: PathBuf, port: u16) -> Self {
        let _ = fs::create_dir(&folder);
        let child = Self::run(protocol, &folder, port);
        wait("the receiver listens", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
        Self { child, protocol, folder, port }
    }

    fn run(protocol: &str, folder: &Path, port: u16) -> Child {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/receivers/otlp.py");
        let said = OpenOptions::new().append(true).create(true).open(folder.join("said")).expect("it is ours");
        let mut command = Command::new("python3");
        let arguments = [script, protocol, &port.to_string()];
        command.args(arguments).arg(folder).env("PYTHONPATH", receivers().join("otlp"));
        command.stdin(Stdio::null()).stderr(said).spawn().expect("Python is there")
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again at the same place.
    fn restart(&mut self) {
        self.child = Self::run(self.protocol, &self.folder, self.port);
    }

    /// The headers of requests that it has had, after their paths or whom they came from.
    fn requests(&self) -> Vec<(String, Value)> {
        let text = fs::read_to_string(self.folder.join("headers")).expect("it is there");
        let requests = text.lines().map(|request| request.split_once(' ').expect("it has both"));
        requests.map(|(path, all)| (path.to_owned(), serde_json::from_str(all).expect("it is JSON"))).collect()
    }

    /// What it answers to the next requests.
    fn answer(&self, statuses: &str) {
        fs::write(self.folder.join("answers"), statuses).expect("it is ours");
    }

    /// The records that it has taken.
    fn received(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.folder.join("received")).unwrap_or_default();
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        whole.map(|line| serde_json::from_str(line).expect("it is JSON")).collect()
    }

    /// Waits until it has taken these lines: in their order, apart from those that come twice.
    fn expect(&self, lines: &[String]) {
        expect(lines, || bodies(&self.received()));
    }
}

impl Drop for Otlp {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends lines to a receiver of OpenTelemetry that answers this first, refuses some lines, and is killed. Returns it
/// and what the forwarder has said.
fn every_line_that_is_not_refused(node: &Node, protocol: &'static str, answers: &str) -> (Otlp, String) {
    let mut otlp = Otlp::start(protocol, node.path("otlp"), free_port());
    otlp.answer(answers);
    let headers = node.path("headers");
    fs::write(&headers, "Authorization: Bearer secret-1\n").expect("it is ours");
    let mut configured = forwarder("otlp", &format!("otlp+{protocol}://localhost:{}", otlp.port));
    configured["headers"] = json!(headers);
    let start = Instant::now();
    let forwarding = node.forward_as(vec![configured]);
    node.write((0..200).map(|nth| match nth {
        70 => "refuse it".to_owned(),
        150 | 151 => format!("reject {nth}"),
        _ => format!("reason {nth} \"of\" ä"),
    }));
    let is_wanted = |line: &String| !line.contains("refuse") && !line.contains("reject");
    let wanted = || node.lines().into_iter().filter(is_wanted).collect::<Vec<_>>();
    otlp.expect(&wanted());
    assert!(start.elapsed() > Duration::from_secs(3), "it wants to be left alone");
    wait("it is told", || forwarding.told("otlp")["refused"] == 3);
    let refused: Vec<_> = node.lines().into_iter().filter(|line| !is_wanted(line)).collect();
    assert_eq!(fs::read_to_string(node.path("state/otlp.refused")).expect("it is there"), refused.join("\n") + "\n");
    // It is killed while lines come, and gets what it has missed.
    for _ in 0..3 {
        let before = otlp.received().len();
        thread::scope(|scope| {
            let writer = scope.spawn(|| (0..3).for_each(|_| node.write_some(1000)));
            wait("it receives", || otlp.received().len() > before);
            otlp.kill();
            writer.join().expect("it does not panic");
        });
        node.write_some(1);
        wait("it is missed", || !forwarding.told("otlp")["failure"].is_null());
        otlp.restart();
        otlp.expect(&wanted());
    }
    wait("all is acknowledged", || forwarding.told("otlp")["seq"] == node.lines().len());
    let told = forwarding.told("otlp");
    assert_eq!((&told["given_up"], &told["refused"]), (&json!(0), &json!(3)), "{told}");
    forwarding.stop();
    let text = |value: &str| json!({"stringValue": value});
    let has = |attributes: &Value, key: &str, value: &Value| {
        let all = attributes.as_array().expect("it is a list");
        all.contains(&json!({"key": key, "value": value}))
    };
    for record in otlp.received() {
        let line: Value =
            serde_json::from_str(record["body"]["stringValue"].as_str().expect("it is text")).expect("JSON");
        assert_eq!((&record["eventName"], &record["scope"]), (&line["event"], &json!("detector")));
        assert_eq!(record["severityNumber"], "SEVERITY_NUMBER_INFO", "{record}");
        assert_eq!(record["timeUnixNano"].as_str().map(str::len), Some(19), "{record}");
        assert!(has(&record["resource"], "service.name", &text("detector")), "{record}");
        assert!(has(&record["resource"], "host.name", &text("node-1")), "{record}");
        let seq = json!({"intValue": line["seq"].to_string()});
        assert!(has(&record["attributes"], "detector.seq", &seq), "{record}");
    }
    let messages = node.messages();
    assert!(messages.contains("it rejects 1 of 1 records: it is not wanted"), "{messages}");
    assert!(!messages.contains("secret-1") && !messages.contains('\u{1b}'), "{messages}");
    (otlp, messages)
}

#[test]
fn a_receiver_of_opentelemetry_takes_every_line_that_it_does_not_refuse() {
    let node = Node::new();
    let (otlp, _) = every_line_that_is_not_refused(&node, "http", "503 429 500");
    for (path, headers) in otlp.requests() {
        assert_eq!((path.as_str(), &headers["authorization"]), ("/v1/logs", &json!("Bearer secret-1")));
        assert_eq!(headers["content-type"], "application/x-protobuf");
        assert_eq!(headers["host"], format!("localhost:{}", otlp.port));
    }
}

#[test]
fn a_receiver_of_opentelemetry_over_grpc_takes_every_line_that_it_does_not_refuse() {
    let node = Node::new();
    let answers = "RESOURCE_EXHAUSTED+3 UNAVAILABLE RESOURCE_EXHAUSTED INTERNAL";
    let (otlp, messages) = every_line_that_is_not_refused(&node, "grpc", answers);
    for (_, headers) in otlp.requests() {
        assert_eq!(headers["authorization"], "Bearer secret-1");
        assert_eq!(headers["user-agent"], concat!("detector/", env!("CARGO_PKG_VERSION")));
        let seconds = headers["time"].as_f64().expect("it has a limit");
        assert!((1.0..=30.0).contains(&seconds), "{seconds} s");
    }
    // Its own words are told, unless they have a secret.
    for expected in ["it answers RESOURCE_EXHAUSTED;", "it answers UNAVAILABLE;", "it answers INTERNAL;"] {
        assert!(messages.contains(&format!("{expected} it is tried again")), "{expected}: {messages}");
    }
    assert!(messages.contains("it answers INVALID_ARGUMENT: ungültig"), "{messages}");
}

#[test]
fn a_receiver_over_grpc_whose_status_says_nothing_about_lines_gets_all_of_them() {
    let node = Node::new();
    node.write_some(10);
    for status in ["UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED", "UNKNOWN", "OUT_OF_RANGE", "DATA_LOSS"] {
        let otlp = Otlp::start("grpc", node.path(status), free_port());
        // Halves of halves do not help it either.
        otlp.answer(&format!("{status} RESOURCE_EXHAUSTED RESOURCE_EXHAUSTED RESOURCE_EXHAUSTED RESOURCE_EXHAUSTED"));
        let forwarding = node.forward(&[(status, format!("otlp+grpc://localhost:{}", otlp.port))]);
        otlp.expect(&node.lines());
        wait("it works again", || {
            let told = forwarding.told(status);
            told["failure"].is_null() && told["seq"] == 10
        });
        assert_eq!(forwarding.told(status)["refused"], 0);
        forwarding.stop();
        let remedy =
            if status.starts_with(['P']) || status.ends_with("TICATED") { "the headers" } else { "secret-1 [1m" };
        let messages = node.messages();
        let told: Vec<_> = messages.lines().filter(|line| line.contains(&format!("it answers {status}"))).collect();
        assert!(told.len() == 1 && told[0].contains(remedy), "{messages}");
        assert!(messages.contains("it answers RESOURCE_EXHAUSTED: wähle"), "{messages}");
    }
}

#[test]
fn a_receiver_over_grpc_that_ends_connections_in_good_order_is_not_missed() {
    let node = Node::new();
    fs::create_dir(node.path("otlp")).expect("it is ours");
    fs::write(node.path("otlp/age"), "500").expect("it is ours");
    let otlp = Otlp::start("grpc", node.path("otlp"), free_port());
    let forwarding = node.forward(&[("otlp", format!("otlp+grpc://localhost:{}", otlp.port))]);
    for _ in 0..10 {
        node.write_some(10);
        thread::sleep(Duration::from_millis(300));
    }
    otlp.expect(&node.lines());
    forwarding.stop();
    assert_eq!(otlp.received().len(), node.lines().len(), "no line comes twice");
    let connections: BTreeSet<_> = otlp.requests().into_iter().map(|(peer, _)| peer).collect();
    assert!(connections.len() > 1, "{connections:?}");
    let messages = node.messages();
    assert!(!messages.contains("it is tried again"), "{messages}");
}

#[test]
fn a_receiver_of_opentelemetry_takes_lines_over_tls_from_those_whom_it_knows() {
    let node = Node::new();
    let (known, own) = (Authority::new("known"), node.path("own"));
    known.certify(&own);
    node.write_some(100);
    for (protocol, scheme) in [("http", "otlp+https"), ("grpc", "otlp+grpcs")] {
        let folder = node.path(protocol);
        known.certify(&folder);
        let otlp = Otlp::start(protocol, folder, free_port());
        let to = format!("{scheme}://localhost:{}", otlp.port);
        let mut stranger = encrypted(&format!("stranger-{protocol}"), &to, &own);
        stranger["tls"]["own"] = Value::Null;
        let plain = forwarder("plain", &to.replace("s://", "://"));
        let mut trusting = encrypted("trusting", &to, &own);
        trusting["tls"]["ca"] = Value::Null;
        let forwarding = node.forward_as(vec![stranger.clone(), plain, trusting]);
        for name in [stranger["name"].as_str().expect("it is text"), "plain", "trusting"] {
            wait("it is not known", || !forwarding.told(name)["failure"].is_null());
        }
        forwarding.stop();
        assert_eq!(otlp.received(), [Value::Null; 0]);
        let forwarding = node.forward_as(vec![encrypted(protocol, &to, &own)]);
        otlp.expect(&node.lines());
        forwarding.stop();
        // What has arrived is a log, which can be verified.
        node.verify(bodies(&otlp.received()));
        if protocol == "http" {
            let to = to.replace("https", "grpcs");
            let forwarding = node.forward_as(vec![encrypted("other", &to, &own)]);
            wait("it is told", || {
                let why = forwarding.told("other")["failure"]["why"].to_string();
                why.contains("TLS: it does not agree to speak h2")
            });
        }
    }
}

/// The Collector of OpenTelemetry (`receivers/collector`).
struct OtelCollector {
    child: Child,
    folder: PathBuf,
}

impl OtelCollector {
    /// Starts it at a port for gRPC and another one for HTTP, with the certificates in its folder if there are any.
    fn start(folder: PathBuf, [grpc, http]: [u16; 2]) -> Self {
        let _ = fs::create_dir(&folder);
        let (file, at) = (folder.join("received"), |name: &str| folder.join(name));
        let receiver = |port: u16| json!({"endpoint": format!("127.0.0.1:{port}")});
        let mut protocols = json!({"grpc": receiver(grpc), "http": receiver(http)});
        if at("ca.pem").exists() {
            let [ca, certificate, key] = ["ca.pem", "certificate.pem", "key.pem"].map(at);
            for protocol in ["grpc", "http"] {
                protocols[protocol]["tls"] = json!({"client_ca_file": ca, "cert_file": certificate, "key_file": key});
            }
        }
        // What is JSON is YAML.
        let configuration = json!({
            "receivers": {"otlp": {"protocols": protocols}},
            "exporters": {"file": {"path": file}},
            "service": {"pipelines": {"logs": {"receivers": ["otlp"], "exporters": ["file"]}}},
        });
        fs::write(at("configuration"), configuration.to_string()).expect("it is ours");
        let said = OpenOptions::new().append(true).create(true).open(at("said")).expect("it is ours");
        let mut command = Command::new(receivers().join("collector"));
        command.arg(format!("--config=file:{}", at("configuration").display()));
        let child = command.stdin(Stdio::null()).stderr(said).spawn().expect("it starts");
        for port in [grpc, http] {
            wait("the Collector listens", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
        }
        Self { child, folder }
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The lines that it has received.
    fn received(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.join("received")).unwrap_or_default();
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let requests = whole.map(|line| serde_json::from_str::<Value>(line).expect("it is JSON"));
        let in_each = |value: &Value, key: &str| value[key].as_array().expect("it is a list").clone();
        let records = requests
            .flat_map(|request| in_each(&request, "resourceLogs"))
            .flat_map(|logs| in_each(&logs, "scopeLogs"))
            .flat_map(|logs| in_each(&logs, "logRecords"));
        bodies(&records.collect::<Vec<_>>())
    }
}

impl Drop for OtelCollector {
    fn drop(&mut self) {
        self.kill();
    }
}

#[test]
fn the_collector_of_opentelemetry_receives_every_line_in_order_over_grpc_and_http() {
    let node = Node::new();
    let (known, own) = (Authority::new("known"), node.path("own"));
    known.certify(&own);
    for scheme in ["otlp+grpc", "otlp+grpcs", "otlp+http", "otlp+https"] {
        let (folder, ports) = (node.path(scheme), [free_port(), free_port()]);
        if scheme.ends_with('s') {
            known.certify(&folder);
        }
        let mut collector = OtelCollector::start(folder.clone(), ports);
        let to = format!("{scheme}://localhost:{}", ports[usize::from(scheme.contains("http"))]);
        let forwarding = node.forward_as(vec![match scheme.ends_with('s') {
            true => encrypted(scheme, &to, &own),
            false => forwarder(scheme, &to),
        }]);
        node.write_some(1000);
        expect(&node.lines(), || collector.received());
        // It is killed while lines come, and gets what it has missed.
        node.write_some(1000);
        collector.kill();
        node.write((0..20).map(|nth| format!("long {nth} {}", "ä".repeat(20_000))));
        wait("it is missed", || !forwarding.told(scheme)["failure"].is_null());
        let collector = OtelCollector::start(folder, ports);
        expect(&node.lines(), || collector.received());
        wait("all is acknowledged", || forwarding.told(scheme)["seq"] == node.lines().len());
        assert_eq!(forwarding.told(scheme)["refused"], 0);
        forwarding.stop();
        node.verify(collector.received());
    }
}

/// A frame of HTTP/2 (RFC 9113).
fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), content].concat()
}

/// The kinds of frames, and their flags.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Headers, which are not compressed (RFC 7541, 6.2.2).
fn fields(all: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    all.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

/// The headers that an answer of gRPC begins with.
fn head(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &fields(&[(":status", "200"), ("content-type", "application/grpc+proto")]))
}

/// The headers that it ends with.
fn trailers(stream: u32, all: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &fields(all))
}

/// An answer that has only headers.
fn only(stream: u32, all: &[(&str, &str)]) -> Vec<u8> {
    let begun = [(":status", "200"), ("content-type", "application/grpc")];
    trailers(stream, &[&begun[..], all].concat())
}

/// An answer with this content and these trailers.
fn whole(stream: u32, content: &[u8], all: &[(&str, &str)]) -> Vec<u8> {
    [head(stream), frame(DATA, 0, stream, content), trailers(stream, all)].concat()
}

/// What a receiver has to say to a request that it takes.
fn taken(stream: u32) -> Vec<u8> {
    whole(stream, b"\0\0\0\0\0", &[("grpc-status", "0")])
}

/// What a receiver over gRPC says to a request, by its stream.
type Said = fn(u32) -> Vec<u8>;

/// What it does then.
#[derive(Clone, Copy)]
enum Then {
    Closes,
    Stays,
    /// It says this again and again, after so many milliseconds each time.
    Repeats(u64, Said),
}

/// Reads requests and gives them to what answers them, with their streams and without compression, until that ends the
/// connection.
fn requests(client: &TcpStream, mut answer: impl FnMut(u32, &[u8]) -> io::Result<bool>) -> io::Result<()> {
    let mut input = BufReader::new(client);
    io::copy(&mut input.by_ref().take(24), &mut io::sink())?;
    let mut output = client;
    let begun =
        [frame(SETTINGS, 0, 0, &[]), frame(WINDOW_UPDATE, 0, 0, &[0, 0x7f, 0, 0]), frame(SETTINGS, ACK, 0, &[])];
    output.write_all(&begun.concat())?;
    let mut content = Vec::new();
    loop {
        let mut header = [0; 9];
        input.read_exact(&mut header)?;
        let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
        let (length, kind, flags) = (number(&header[..3]), header[3], header[4]);
        let mut read = vec![0; length as usize];
        input.read_exact(&mut read)?;
        if kind != DATA {
            continue;
        }
        content.extend(read);
        if flags & END_STREAM == 0 {
            continue;
        }
        assert_eq!((content[0], number(&content[1..5]) as usize), (1, content.len() - 5));
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(&content[5..]).read_to_end(&mut text)?;
        content.clear();
        if !answer(number(&header[5..]), &text)? {
            return Ok(());
        }
    }
}

/// How often something is in a text.
fn count(text: &[u8], part: &str) -> usize {
    text.windows(part.len()).filter(|found| *found == part.as_bytes()).count()
}

/// Receives over gRPC. It takes one line over each connection, and answers to the next one as is said here, or takes
/// all lines when this is over. Returns its URL and what it has taken.
fn grpc_receiver(lies: Vec<(Said, Then)>) -> (String, Arc<Mutex<Vec<Vec<u8>>>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a free port");
    let url = format!("otlp+grpc://{}", listener.local_addr().expect("it is bound"));
    let all = Arc::<Mutex<Vec<Vec<u8>>>>::default();
    let receiving = Arc::clone(&all);
    thread::spawn(move || {
        for (nth, client) in listener.incoming().enumerate() {
            let (client, mut has_taken) = (client.expect("it connects"), false);
            let mut output = &client;
            // Its end is what the other side makes of it.
            let _ = requests(&client, |stream, text| {
                let Some((said, then)) = lies.get(nth) else {
                    receiving.lock().expect("nobody panics").push(text.to_vec());
                    return output.write_all(&taken(stream)).map(|()| true);
                };
                if count(text, "\"event\":\"stopped\"") > 1 {
                    return output.write_all(&only(stream, &[("grpc-status", "8")])).map(|()| true);
                }
                if !has_taken {
                    has_taken = true;
                    receiving.lock().expect("nobody panics").push(text.to_vec());
                    return output.write_all(&taken(stream)).map(|()| true);
                }
                output.write_all(&said(stream))?;
                if let Then::Repeats(pause, said) = then {
                    loop {
                        output.write_all(&said(stream))?;
                        thread::sleep(Duration::from_millis(*pause));
                    }
                }
                if let Then::Stays = then {
                    io::copy(&mut &client, &mut io::sink())?;
                }
                Ok(false)
            });
        }
    });
    (url, all)
}

/// Fails unless a receiver has taken each of these lines once, in their order.
fn assert_taken(all: &Mutex<Vec<Vec<u8>>>, lines: &[String]) {
    let all = all.lock().expect("nobody panics").concat();
    let mut rest = &all[..];
    for line in lines {
        let at = rest.windows(line.len()).position(|found| found == line.as_bytes());
        rest = &rest[at.unwrap_or_else(|| panic!("no {line}")) + line.len()..];
        assert_eq!(count(&all, line), 1, "{line}");
    }
}

#[test]
fn a_receiver_over_grpc_that_lies_gets_every_line_that_it_has_not_taken() {
    const OK: &[(&str, &str)] = &[("grpc-status", "0")];
    let table: [(Said, Then, &str); 25] = [
        (|stream| whole(stream, b"\0\0\0\0\0", &[("x", "y")]), Then::Stays, "its answer ends without a status"),
        (
            |stream| [head(stream), frame(DATA, END_STREAM, stream, b"\0\0\0\0\0")].concat(),
            Then::Stays,
            "its answer ends without a status",
        ),
        (
            |stream| {
                let fields = fields(&[(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "0")]);
                let head = frame(HEADERS, END_HEADERS, stream, &fields);
                [head, frame(DATA, END_STREAM, stream, b"\0\0\0\0\0")].concat()
            },
            Then::Stays,
            "its answer ends without a status",
        ),
        (|stream| only(stream, OK), Then::Stays, "it answers OK, without the message that belongs to it"),
        (|stream| whole(stream, b"", OK), Then::Stays, "it answers OK, without the message that belongs to it"),
        (|stream| whole(stream, b"\0\0\0\0\x03a", OK), Then::Stays, "without the message that belongs to it"),
        (|stream| whole(stream, b"\0\0\0\0\0\0\0\0\0\0", OK), Then::Stays, "it sends more than one message"),
        (
            |stream| whole(stream, b"\0\xff\xff\xff\xffa", OK),
            Then::Stays,
            "it sends a message with 4294967295 bytes, which are more than 65536",
        ),
        // It never sends the rest.
        (
            |stream| [head(stream), frame(DATA, 0, stream, b"\0\0\x01\0\x01")].concat(),
            Then::Stays,
            "it sends a message with 65537 bytes, which are more than 65536",
        ),
        (
            |stream| head(stream),
            Then::Repeats(0, |stream| frame(DATA, 0, stream, &[0; 16 << 10])),
            "it sends more than one message",
        ),
        (
            |stream| whole(stream, b"\x01\0\0\0\x02\x1f\x8b", OK),
            Then::Stays,
            "it sends a compressed message, and not that it is gzip",
        ),
        (
            |stream| {
                let head = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-encoding", "gzip")];
                let head = frame(HEADERS, END_HEADERS, stream, &fields(&head));
                [head, frame(DATA, 0, stream, b"\x01\0\0\0\x02ab"), trailers(stream, OK)].concat()
            },
            Then::Stays,
            "it sends a message that is not gzip",
        ),
        (|stream| whole(stream, b"<html>", OK), Then::Stays, "it sends 60 where a message begins with 0 or 1"),
        (
            |stream| whole(stream, b"\0\0\0\0\0", &[("grpc-status", "OK")]),
            Then::Stays,
            "it sends a status that is not a number",
        ),
        (
            |stream| whole(stream, b"\0\0\0\0\0", &[("grpc-status", "0"), ("grpc-status", "14")]),
            Then::Stays,
            "it sends more than one status",
        ),
        (
            |stream| only(stream, &[("grpc-status", "14"), ("grpc-message", "go%20%1b%0aaway%")]),
            Then::Stays,
            "it answers UNAVAILABLE: go   away%",
        ),
        (
            |stream| {
                trailers(stream, &[(":status", "404"), ("content-type", "application/grpc"), ("grpc-status", "0")])
            },
            Then::Stays,
            "it answers 404 Not Found; check that it is a receiver over gRPC",
        ),
        (
            |stream| trailers(stream, &[(":status", "403")]),
            Then::Stays,
            "it answers 403 Forbidden; check the file with the headers",
        ),
        (
            |stream| {
                let all = [(":status", "200"), ("content-type", "text/html"), ("grpc-status", "0")];
                let head = frame(HEADERS, END_HEADERS, stream, &fields(&all));
                [head, frame(DATA, END_STREAM, stream, b"\0\0\0\0\0")].concat()
            },
            Then::Stays,
            "its answer is no application/grpc but \"text/html\"",
        ),
        (
            |stream| frame(RST_STREAM, 0, stream, &[0, 0, 0, 2]),
            Then::Stays,
            "unexpected internal error encountered; check that",
        ),
        (
            |stream| [head(stream), frame(RST_STREAM, 0, stream, &[0, 0, 0, 0])].concat(),
            Then::Stays,
            "its answer ends without a status",
        ),
        (
            |_| frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 11]),
            Then::Stays,
            "detected excessive load generating behavior; check that",
        ),
        (|_| Vec::new(), Then::Closes, "check that it is a receiver over gRPC"),
        (|_| b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), Then::Stays, "frame with invalid size; check that"),
        (
            |stream| frame(HEADERS, 0, stream, &fields(&[(":status", "200")])),
            Then::Repeats(0, |stream| frame(CONTINUATION, 0, stream, &fields(&[("x", "yyyyyyyyyyyyyyyy"); 400]))),
            "check that it is a receiver over gRPC",
        ),
    ];
    let node = Node::new();
    node.write_some(60);
    let lines = node.lines();
    let (url, all) = grpc_receiver(table.iter().map(|(said, then, _)| (*said, *then)).collect());
    let forwarding = node.forward(&[("siem", url)]);
    wait("all is taken", || forwarding.told("siem")["seq"] == lines.len());
    let told = forwarding.told("siem");
    assert_eq!((&told["sent"], &told["refused"]), (&json!(lines.len()), &json!(0)), "{told}");
    forwarding.stop();
    assert_taken(&all, &lines);
    let messages = node.messages();
    for (_, _, expected) in table {
        assert!(messages.contains(expected), "{expected}: {messages}");
    }
    assert!(!messages.contains('\u{1b}'), "{messages}");
}

#[test]
fn a_receiver_over_grpc_that_never_ends_its_answer_delays_no_other() {
    let node = Node::new();
    node.write_some(10);
    let (endless, taken_of_it) =
        grpc_receiver(vec![(head, Then::Repeats(100, |_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])))]);
    let (good, all) = grpc_receiver(Vec::new());
    let start = Instant::now();
    let forwarding = node.forward(&[("endless", endless), ("good", good)]);
    (0..3).for_each(|_| node.write_some(10));
    wait("all is taken", || forwarding.told("good")["seq"] == 40);
    assert_taken(&all, &node.lines());
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    wait("it is told", || forwarding.told("endless")["failure"]["why"] == "no answer for 30 s");
    assert!(start.elapsed() > Duration::from_secs(30), "{:?}", start.elapsed());
    wait("all is taken", || forwarding.told("endless")["seq"] == 40);
    forwarding.stop();
    assert_taken(&taken_of_it, &node.lines());
}
