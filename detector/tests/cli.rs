//! Tests the program with invalid input, and the socket's server with misbehaving clients. They need no privileges and
//! no particular kernel.

mod terminal;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use detector::client;
use detector::daemon::BindError;
use detector::daemon::hub::{CLIENT_QUEUE, Hub};
use detector::daemon::output::{Output as LogFile, Target};
use detector::daemon::server::{MAX_REQUEST, MAX_STREAMS, Server};
use detector::daemon::writer::{self, Intervals, Orders};
use detector::finding::{Line, Loss, Notice, NoticeEvent, Time};
use detector::protocol::DaemonState;
use detector::sensor::host::Host;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use terminal::Terminal;
use tokio::sync::oneshot;

/// The user `nobody`.
const NOBODY: u32 = 65534;

fn detector(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_detector"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether `run` and `doctor` pass their first check, that of privileges.
fn is_privileged() -> bool {
    Host::read().is_ok_and(|host| host.missing_capabilities().is_none())
}

/// Runs the program as a user without privileges, from a directory where that user may execute it.
fn unprivileged(arguments: &[&str]) -> Output {
    if !is_root() {
        return detector(arguments).output().expect("the program starts");
    }
    let directory = tempfile::tempdir_in("/tmp").expect("/tmp can be written");
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).expect("it is ours");
    let program = directory.path().join("detector");
    // If this process wrote the copy, a child of another test could have it open for writing when it is executed.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_detector")).arg(&program).status();
    assert!(copied.expect("cp starts").success());
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .expect("the program starts")
}

/// Checks for one line `detector: <what>: <why>; <remedy>` with this exit code and these words.
#[track_caller]
fn assert_fails(output: &Output, code: i32, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("detector: ") && said.contains("; "), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in {said:?}");
    }
}

#[test]
fn unknown_flags_and_values_are_wrong_usage() {
    for arguments in [
        &["run", "--no-such-flag"][..],
        &["no-such-command"],
        &["tail", "--severity", "terrible"],
        &["tail", "--finding", "nothing"],
        &["run", "--log", "loud"],
        &["run", "--runtime-socket", "/run/docker.sock"],
        &["run", "--runtime-socket", "rkt=/run/rkt.sock"],
        &["run", "--enrich-wait", "soon"],
        &["run", "--label", "team"],
        &["run", "--label", "=shop"],
        &["replay"],
        &["status", "--wait", "soon"],
        &["status", "--wait", "-1s"],
        &["config"],
        &["run", "--self-test-interval", "0s"],
        &[],
    ] {
        let output = detector(arguments).output().expect("the program starts");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn help_documents_the_exit_codes() {
    let output = detector(&["--help"]).output().expect("the program starts");
    let help = String::from_utf8(output.stdout).expect("help is text");
    assert!(output.status.success());
    for code in ["0  success", "1  ", "2  wrong usage", "3  missing privileges", "4  ", "5  no daemon", "7  a log"] {
        assert!(help.contains(code), "{help}");
    }
}

#[test]
fn schema_is_json_schema() {
    let output = detector(&["schema"]).output().expect("the program starts");
    assert!(output.status.success());
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert!(schema["$schema"].as_str().is_some_and(|uri| uri.contains("json-schema.org")), "{schema}");
}

/// A file with this text that only root can write, if this is root.
fn config_file(text: &str) -> (TempDir, PathBuf) {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("config.toml");
    std::fs::write(&path, text).expect("it is ours");
    (directory, path)
}

#[test]
fn the_default_configuration_has_no_errors() {
    let output = detector(&["config", "default"]).output().expect("the program starts");
    assert!(output.status.success());
    let (_directory, path) = config_file(&String::from_utf8(output.stdout).expect("it is text"));
    let output = detector(&["config", "check", text(&path)]).output().expect("the program starts");
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("config.toml: no errors"), "{output:?}");
    let output = detector(&["config", "schema"]).output().expect("the program starts");
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert!(schema["properties"]["exception"].is_object(), "{schema}");
}

#[test]
fn the_configuration_in_the_manifest_for_kubernetes_has_no_errors() {
    let manifest = include_str!("../../deploy/kubernetes/detector.yaml");
    let (_, text) = manifest.split_once("config.toml: |\n").expect("it has a configuration");
    let lines = text.lines().take_while(|line| line.is_empty() || line.starts_with("    "));
    let text = lines.map(|line| format!("{}\n", line.trim_start())).collect::<String>();
    assert!(text.contains("rotate_size"), "{text}");
    let (_directory, path) = config_file(&text);
    let output = detector(&["config", "check"]).arg(&path).output().expect("it starts");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(String::from_utf8_lossy(&output.stdout).ends_with(": no errors\n"));
}

#[test]
fn config_check_shows_all_errors_in_place() {
    let (_directory, path) = config_file("loog = \"info\"\n[output]\njson = 1\n");
    let output = detector(&["config", "check", text(&path)]).output().expect("the program starts");
    assert_fails(&output, 2, &["config.toml", "correct 2 errors"]);
    let shown = String::from_utf8(output.stdout).expect("it is text");
    let first = format!(
        "error: unknown key `loog`; did you mean `log`?\n --> {}:1:1\n  |\n1 | loog = \"info\"\n  | ^^^^\n",
        path.display()
    );
    assert!(shown.contains(&first) && shown.contains(":3:8\n  |\n3 | json = 1\n  |        ^\n"), "{shown}");
}

#[test]
fn config_check_lists_the_overrides() {
    let text_of_file = "[[severity]]\nname = 'quiet'\nreason = 'because'\nseverity = 'low'\nfinding = 'image_write'\n\
        image = 'x'\n";
    let (_directory, path) = config_file(text_of_file);
    let output = detector(&["config", "check", text(&path)]).output().expect("the program starts");
    assert!(output.status.success(), "{output:?}");
    let shown = String::from_utf8(output.stdout).expect("it is text");
    assert!(shown.ends_with("(the first that matches applies):\n   1. quiet (low): because\n"), "{shown}");
}

#[test]
fn config_check_lists_the_exceptions_in_order() {
    let exception = |name: &str, keys: &str| {
        format!(
            "[[exception]]\nname = \"{name}\"\nreason = \"because\"\nowner = \"us\"\nfinding = \"image_write\"\n\
            {keys}\n"
        )
    };
    let exceptions = exception("z", "path = \"/a\"\nexpires = 2999-12-31") + &exception("\\u001B[2J", "image = \"x\"");
    let (_directory, path) = config_file(&exceptions);
    let output = detector(&["config", "check", text(&path)]).output().expect("the program starts");
    assert!(output.status.success(), "{output:?}");
    let shown = String::from_utf8(output.stdout).expect("it is text");
    let list = "   1. z (expires at the end of 2999-12-31 (UTC); owner us): because\n   \
        2. \u{fffd}[2J (no expiry; owner us): because\n";
    assert!(shown.ends_with(list), "{shown}");
    assert!(shown.contains("never expires") && !shown.contains('\x1b'), "{shown}");
}

#[test]
fn a_configuration_that_is_wrong_stops_the_daemon_before_anything_is_opened() {
    let directory = TempDir::new().expect("a directory");
    let socket = directory.path().join("d.sock");
    let run = |path: &Path| {
        let arguments = ["run", "--socket", text(&socket), "--config", text(path)];
        detector(&arguments).output().expect("the program starts")
    };
    let (_directory, path) = config_file("log = \"info\"\nsockt = \"/a\"\nx = 1\n");
    assert_fails(&run(&path), 2, &["config.toml:2:1: unknown key `sockt`; did you mean `socket`?", "config check"]);
    assert_fails(&run(&directory.path().join("none")), 2, &["none: there is no such file", "config default"]);
    assert_fails(&run(Path::new("/dev/zero")), 2, &["/dev/zero: it is a device", "regular file"]);
    assert!(!socket.exists());
}

/// The daemon has its output and its log level from the file.
#[test]
fn the_daemon_does_what_its_configuration_says() {
    if !is_privileged() {
        return;
    }
    let directory = TempDir::new().expect("a directory");
    let (json, socket) = (directory.path().join("none/findings.json"), directory.path().join("d.sock"));
    let (json, socket) = (text(&json), text(&socket));
    let (_directory, path) =
        config_file(&format!("log = \"error\"\nsocket = \"{socket}\"\n[output]\njson = \"{json}\"\n"));
    let output = detector(&["run", "--config", text(&path)]).output().expect("the program starts");
    assert_fails(&output, 1, &[json, "cannot write findings"]);
    let output = detector(&["run", "--config", text(&path), "--log", "info"]).output().expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(&format!("configuration file: {}", path.display())), "{said}");
}

#[test]
fn a_configuration_that_this_user_must_not_read_says_so() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir_in("/tmp").expect("/tmp can be written");
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).expect("it is ours");
    let path = directory.path().join("config.toml");
    std::fs::write(&path, "").expect("it is ours");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("it is ours");
    assert_fails(&unprivileged(&["config", "check", text(&path)]), 2, &["config.toml: this user must not read it"]);
}

#[test]
fn each_command_has_a_manual_page() {
    let folder = tempfile::tempdir().expect("the temporary directory can be written");
    let path = folder.path().to_str().expect("its path is text");
    let output = detector(&["man", path]).output().expect("the program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let entries = std::fs::read_dir(folder.path()).expect("it is a directory");
    let pages: BTreeSet<_> = entries.map(|entry| entry.expect("it can be read").file_name()).collect();
    for page in ["detector.1", "detector-run.1", "detector-log-verify.1", "detector-man.1", "detector-top.1"] {
        assert!(pages.contains(OsStr::new(page)), "{page} is not among {pages:?}");
    }
    assert!(!pages.iter().any(|page| page.to_string_lossy().contains("self")), "a hidden command: {pages:?}");
    let page = std::fs::read_to_string(folder.path().join("detector-run.1")).expect("it is text");
    assert!(page.contains("\n.TH detector-run 1") && page.contains("self\\-test\\-interval"), "{page}");

    let missing = folder.path().join("missing");
    let output = detector(&["man", missing.to_str().expect("it is text")]).output().expect("the program starts");
    assert_fails(&output, 1, &["manual pages", "missing", "No such file"]);
}

#[test]
fn completions_are_a_script() {
    let program = Path::new(env!("CARGO_BIN_EXE_detector"));
    let path = format!("{}:/usr/bin:/bin", program.parent().expect("it is in one").display());
    // What bash does when somebody types this, and then a tab.
    let completed = |words: &[&str]| {
        let script = r#"source <(detector completions bash) && COMP_WORDS=("$@") && COMP_CWORD=$(($# - 1)) &&
            _clap_complete_detector detector "${COMP_WORDS[COMP_CWORD]}" && printf '%s\n' "${COMPREPLY[@]}""#;
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-c", script, "bash"]).args(words).env("PATH", &path);
        let output = bash.output().expect("there is a bash");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("it is text").lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(completed(&["detector", "ta"]), ["tail"]);
    assert_eq!(completed(&["detector", "tail", "--seve"]), ["--severity"]);
    assert!(completed(&["detector", "tail", "--severity", ""]).contains(&"critical".to_owned()));
    for shell in ["bash", "zsh", "fish"] {
        let output = detector(&["completions", shell]).output().expect("the program starts");
        assert!(output.status.success());
        assert!(String::from_utf8_lossy(&output.stdout).contains("DETECTOR_COMPLETE"), "{shell}");
    }
}

/// Without privileges, and on another machine than the one that it was recorded on.
#[test]
fn a_recording_is_replayed_by_anybody() {
    let story = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/recording/story");
    let output = unprivileged(&["replay", story]);
    assert_fails(&output, 6, &["3 entries are missing"]);
    let lines: Vec<Line> = String::from_utf8(output.stdout)
        .expect("it is text")
        .lines()
        .map(|line| serde_json::from_str(line).expect("it is a line"))
        .collect();
    assert_eq!(lines.len(), 15);
    let again = unprivileged(&["replay", story]);
    assert_eq!(again.stdout, detector(&["replay", story]).output().expect("the program starts").stdout);

    let folder = tempfile::tempdir_in("/tmp").expect("/tmp can be written");
    let foreign = folder.path().join("foreign");
    std::fs::write(&foreign, "hello\n").expect("it is ours");
    let foreign = foreign.to_str().expect("it is text");
    assert_fails(&detector(&["replay", foreign]).output().expect("the program starts"), 1, &["not a recording"]);
    let missing = format!("{foreign}-and-missing");
    assert_fails(&detector(&["replay", &missing]).output().expect("the program starts"), 1, &["No such file"]);
}

#[test]
fn a_closed_pipe_is_success() {
    let story = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/recording/story");
    for arguments in [&["schema"][..], &["config", "default"], &["completions", "zsh"], &["replay", story]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = detector(arguments).stdout(writer).stderr(Stdio::piped()).output().expect("the program starts");
        assert!(output.status.success(), "{output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
    }
}

#[test]
fn a_full_standard_output_is_a_failure() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full is there");
    let output = detector(&["schema"]).stdout(full).stderr(Stdio::piped()).output().expect("the program starts");
    assert_fails(&output, 1, &["standard output", "No space left"]);
}

#[test]
fn status_without_a_daemon_is_not_ready() {
    let directory = TempDir::new().expect("a directory");
    let socket = directory.path().join("none.sock");
    let started = Instant::now();
    let output = detector(&["status", "--socket", text(&socket)]).output().expect("the program starts");
    assert!(started.elapsed() < Duration::from_secs(1));
    assert_fails(&output, 5, &["none.sock", "no daemon listens", "detector run"]);
}

#[test]
fn status_waits_as_long_as_told() {
    let directory = TempDir::new().expect("a directory");
    let socket = directory.path().join("none.sock");
    let started = Instant::now();
    let output = detector(&["status", "--wait", "300ms", "--socket", text(&socket)]).output().expect("it starts");
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert_fails(&output, 5, &["no daemon listens"]);
}

#[test]
fn a_socket_that_says_garbage_is_a_failure() {
    let directory = TempDir::new().expect("a directory");
    let socket = directory.path().join("garbage.sock");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        stream.write_all(b"SSH-2.0-OpenSSH_9.9\n").expect("the client reads");
    });
    let output = detector(&["status", "--socket", text(&socket)]).output().expect("the program starts");
    assert_fails(&output, 1, &["garbage.sock", "not understood"]);
    server.join().expect("the server ends");
}

#[test]
fn tail_of_a_named_socket_without_a_daemon_is_not_ready() {
    let directory = TempDir::new().expect("a directory");
    let socket = directory.path().join("none.sock");
    let output = detector(&["tail", "--socket", text(&socket)]).output().expect("the program starts");
    assert_fails(&output, 5, &["none.sock", "no daemon listens"]);
}

#[test]
fn run_and_doctor_need_privileges() {
    if Host::read().is_err() {
        // In a pid namespace, for example, the program reports that first.
        return;
    }
    let directory = tempfile::tempdir_in("/tmp").expect("/tmp can be written");
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o777)).expect("it is ours");
    let socket = directory.path().join("d.sock");
    let json = directory.path().join("findings.json");
    let output = unprivileged(&["run", "--json", text(&json), "--socket", text(&socket)]);
    assert_fails(&output, 3, &["privileges", "root"]);
    assert!(!json.exists() && !socket.exists(), "nothing is opened before the privileges are checked");
    assert_fails(&unprivileged(&["doctor"]), 3, &["privileges", "root"]);
}

#[test]
fn a_socket_of_another_user_needs_privileges() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir_in("/tmp").expect("/tmp can be written");
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).expect("it is ours");
    let socket = directory.path().join("d.sock");
    let _listener = UnixListener::bind(&socket).expect("a socket");
    std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o600)).expect("it is ours");
    for command in ["status", "tail"] {
        assert_fails(&unprivileged(&[command, "--socket", text(&socket)]), 3, &["permission denied", "root"]);
    }
}

#[test]
fn an_output_that_cannot_be_written_is_a_failure() {
    if !is_privileged() {
        return;
    }
    let directory = TempDir::new().expect("a directory");
    let socket = directory.path().join("d.sock");
    for json in [directory.path().to_owned(), directory.path().join("none/findings.json")] {
        let output = detector(&["run", "--json", text(&json), "--socket", text(&socket)]).output().expect("it starts");
        assert_fails(&output, 1, &[text(&json), "cannot write", "--json"]);
        assert!(!socket.exists());
    }
}

#[test]
fn a_socket_that_is_taken_is_a_failure() {
    if !is_privileged() {
        return;
    }
    let directory = TempDir::new().expect("a directory");
    let socket = directory.path().join("d.sock");
    let _daemon = UnixListener::bind(&socket).expect("a socket");
    let output = detector(&["run", "--socket", text(&socket)]).output().expect("the program starts");
    assert_fails(&output, 1, &["d.sock", "another daemon", "--socket"]);
}

#[test]
fn a_foreign_bpf_object_is_a_failure() {
    if !is_privileged() {
        return;
    }
    let program = env!("CARGO_BIN_EXE_detector");
    for (object, why) in
        [("/no/such/object", "No such file"), ("/dev/null", "no BPF object"), (program, "no BPF object")]
    {
        let output = detector(&["doctor", "--bpf-object", object]).output().expect("the program starts");
        assert_fails(&output, 1, &["BPF object", object, why, "--bpf-object"]);
    }
}

/// The real server, with a hub that the test controls.
struct Daemon {
    hub: Arc<Hub>,
    socket: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    _directory: TempDir,
}

impl Daemon {
    fn start() -> Self {
        let directory = TempDir::new().expect("a directory");
        // The server creates this directory.
        let socket = directory.path().join("run/detector.sock");
        let hub = Arc::new(Hub::new("node".into()));
        let (stop, stopped) = oneshot::channel();
        let (bound, wait) = std::sync::mpsc::channel();
        let thread = {
            let (hub, socket) = (Arc::clone(&hub), socket.clone());
            std::thread::spawn(move || {
                runtime().block_on(async {
                    let server = Server::bind(&socket).expect("the socket is free");
                    bound.send(()).expect("the test waits");
                    server.run(hub, stopped).await;
                });
            })
        };
        wait.recv().expect("the server binds");
        Self { hub, socket, stop: Some(stop), thread: Some(thread), _directory: directory }
    }

    /// Sends these bytes, and returns the whole answer.
    fn say(&self, request: &[u8]) -> String {
        let mut stream = UnixStream::connect(&self.socket).expect("the daemon listens");
        stream.write_all(request).expect("the daemon reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("the daemon answers");
        answer
    }

    fn publish(&self, nth: u64) {
        self.hub.publish_event(NoticeEvent::Stopped { reason: nth.to_string() });
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.hub.close();
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server ends");
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are text")
}

#[test]
fn only_the_owner_may_use_the_socket() {
    let daemon = Daemon::start();
    let mode = std::fs::metadata(&daemon.socket).expect("the socket is there").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let socket = daemon.socket.clone();
    drop(daemon);
    assert!(!socket.exists(), "the socket is removed at the end");
}

#[test]
fn garbage_is_refused_in_one_line() {
    let daemon = Daemon::start();
    for (request, words) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "not understood"),
        (b"\xff\xfe\n", "not understood"),
        (b"{\"version\":1}\n", "missing field `request`"),
        (b"{\"version\":1,\"request\":\"reboot\"}\n", "reboot"),
        (b"{\"version\":2,\"request\":\"tail\"}\n", "version 2"),
        (&[b'x'; MAX_REQUEST + 1], "longer than"),
    ] {
        let answer = daemon.say(request);
        let reply: serde_json::Value = serde_json::from_str(&answer).expect("one line of JSON");
        assert_eq!(reply["reply"], "error");
        assert!(reply["message"].as_str().is_some_and(|message| message.contains(words)), "{answer}");
    }
    assert_eq!(client::status(&daemon.socket).expect("it still serves").state, DaemonState::Starting);
}

#[test]
fn a_silent_client_is_dropped() {
    let daemon = Daemon::start();
    let started = Instant::now();
    assert!(daemon.say(b"").contains("no request within"));
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn clients_receive_all_lines_after_the_reply() {
    let daemon = Daemon::start();
    let mut streams: Vec<_> = (0..3).map(|_| client::tail(&daemon.socket).expect("the stream")).collect();
    daemon.publish(7);
    for stream in &mut streams {
        let mut line = Vec::new();
        assert!(stream.next_line(&mut line).expect("a line"));
        assert!(String::from_utf8_lossy(&line).contains("\"reason\":\"7\""));
    }
    drop(daemon);
    assert!(!streams[0].next_line(&mut Vec::new()).expect("the end"));
}

#[test]
fn a_slow_client_is_told_its_losses_and_delays_no_one() {
    let daemon = Daemon::start();
    let mut slow = client::tail(&daemon.socket).expect("the stream");
    // This is far more than the socket's buffer and the queue can hold.
    let total = 20 * CLIENT_QUEUE as u64;
    let started = Instant::now();
    (0..total).for_each(|nth| daemon.publish(nth));
    assert!(started.elapsed() < Duration::from_secs(5), "publishing waited for the client");
    daemon.hub.close();
    let (mut got, mut missed, mut line) = (0, 0, Vec::new());
    while slow.next_line(&mut line).expect("lines") {
        match serde_json::from_slice(&line).expect("a line of the stream") {
            Line::Notice(Notice { event: NoticeEvent::Loss { kind, count, .. }, .. }) => {
                assert_eq!(kind, Loss::Client);
                missed += count;
            }
            _ => got += 1,
        }
    }
    assert!(missed > 0);
    assert_eq!(got + missed, total, "every line is there or counted");
    assert_eq!(daemon.hub.status().counters.losses["client"], missed);
}

#[test]
fn too_many_streams_are_refused_until_one_disconnects_and_status_is_not() {
    let daemon = Daemon::start();
    let mut clients: Vec<_> = (0..MAX_STREAMS).map(|_| client::tail(&daemon.socket).expect("there is room")).collect();
    let refusal = client::tail(&daemon.socket).map(drop).expect_err("there is no room").to_string();
    assert!(refusal.contains("64 clients already watch"), "{refusal}");
    client::status(&daemon.socket).expect("there is always room for this");
    clients.pop();
    let until = Instant::now() + Duration::from_secs(5);
    while let Err(error) = client::tail(&daemon.socket) {
        assert!(Instant::now() < until, "{error}");
    }
}

#[test]
fn a_second_daemon_is_refused_and_the_first_keeps_running() {
    let daemon = Daemon::start();
    let error = runtime().block_on(async { Server::bind(&daemon.socket).map(drop) }).expect_err("it is taken");
    assert!(matches!(error, BindError::InUse { .. }), "{error}");
    client::status(&daemon.socket).expect("the first still serves");
}

#[test]
fn a_stale_socket_is_replaced_and_a_file_is_not() {
    let directory = TempDir::new().expect("a directory");
    let socket = directory.path().join("d.sock");
    drop(UnixListener::bind(&socket).expect("a socket"));
    assert!(socket.exists(), "the dead daemon left it");
    runtime().block_on(async { Server::bind(&socket).map(drop) }).expect("it is replaced");

    std::fs::write(&socket, "precious").expect("a file");
    let error = runtime().block_on(async { Server::bind(&socket).map(drop) }).expect_err("it is no socket");
    assert!(matches!(error, BindError::NotASocket { .. }), "{error}");
    assert_eq!(std::fs::read(&socket).expect("the file is there"), b"precious");
}

#[test]
fn status_prints_a_daemon_that_is_ready() {
    let daemon = Daemon::start();
    let command = || detector(&["status", "--socket", text(&daemon.socket)]).output().expect("the program starts");
    assert_fails(&command(), 5, &["still starting", "--wait"]);
    daemon.hub.set_ready(Vec::new(), Vec::new(), Arc::default(), Arc::default(), Arc::default(), Arc::default());
    let output = command();
    assert!(output.status.success());
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.starts_with("watching: ") && said.contains(" on node, since "), "{said}");

    let reason = "hook mount is not attached";
    let undetected = vec![reason.to_owned()];
    daemon.hub.set_ready(Vec::new(), undetected, Arc::default(), Arc::default(), Arc::default(), Arc::default());
    let output = command();
    assert!(String::from_utf8_lossy(&output.stdout).contains(&format!("degraded  {reason}\n")), "{output:?}");
    assert_fails(&output, 6, &["less than it can", "doctor"]);
}

/// Publishes losses from another thread until it is dropped.
struct Feeder(Option<(std::sync::mpsc::Sender<()>, std::thread::JoinHandle<()>)>);

impl Feeder {
    fn start(hub: &Arc<Hub>) -> Self {
        let hub = Arc::clone(hub);
        let (done, is_done) = std::sync::mpsc::channel();
        let feed = move || {
            while is_done.recv_timeout(Duration::from_millis(20)) == Err(RecvTimeoutError::Timeout) {
                hub.publish_event(NoticeEvent::loss(Loss::Exec, 1));
            }
        };
        Self(Some((done, std::thread::spawn(feed))))
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        if let Some((done, thread)) = self.0.take() {
            drop(done);
            thread.join().expect("the feeder ends");
        }
    }
}

#[test]
fn tail_shows_the_stream_and_waits_for_the_next_daemon() {
    let daemon = Daemon::start();
    let mut tail = detector(&["tail", "--json", "--socket", text(&daemon.socket)])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut lines = BufReader::new(tail.stdout.take().expect("it is piped")).lines();
    let mut said = BufReader::new(tail.stderr.take().expect("it is piped")).lines();
    let feeder = Feeder::start(&daemon.hub);
    let line = lines.next().expect("a line").expect("text");
    drop(feeder);
    assert!(line.contains("\"event\":\"loss\""), "{line}");
    drop(daemon);
    let waits = said.next().expect("a line").expect("text");
    assert!(waits.ends_with("; waiting for it"), "{waits}");
    kill_process(Pid::from_child(&tail), Signal::INT).expect("it runs");
    let last = said.last().expect("a line").expect("text");
    assert!(last.contains("interrupted while no daemon was running"), "{last}");
    assert_eq!(tail.wait().expect("it ends").code(), Some(5));
}

#[test]
fn tail_shows_times_as_the_time_zone_says() {
    let daemon = Daemon::start();
    let time: Time = "2027-01-15T20:00:00.5Z".parse().expect("it is a time");
    for (how, expected) in [
        ("utc", ["2027-01-15 (UTC)", "20:00:00.500"]),
        ("local", ["2027-01-16 (XYZ)", "05:00:00.500"]),
        ("relative", ["2027-01-15 (UTC)", "+0.000s"]),
    ] {
        let mut tail = detector(&["tail", "-o", "wide", "--time", how, "--socket", text(&daemon.socket)])
            .env("TZ", "XYZ-9")
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut lines = BufReader::new(tail.stdout.take().expect("it is piped")).lines();
        let mut line = || lines.next().expect("a line").expect("text");
        // It says first what it does not show, and is connected then.
        assert!(line().starts_with("not shown: "));
        let stopped = NoticeEvent::Stopped { reason: "a reason".to_owned() };
        daemon.hub.publish(&Line::Notice(Notice { time, ..Notice::now("node-1".into(), stopped) }));
        assert_eq!(line(), expected[0], "{how}");
        let shown = line();
        assert!(shown.starts_with(&format!("{} ", expected[1])), "{how}: {shown}");
        tail.kill().expect("it runs");
        tail.wait().expect("it ends");
    }
}

#[test]
fn tail_into_a_closed_pipe_is_success() {
    let daemon = Daemon::start();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let _feeder = Feeder::start(&daemon.hub);
    let output = detector(&["tail", "--socket", text(&daemon.socket)]).stdout(writer).output().expect("it starts");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

/// Runs `top` at a terminal of 80×24, until it shows what the daemon tells.
fn top(daemon: &Daemon) -> Terminal {
    daemon.hub.set_ready(Vec::new(), Vec::new(), Arc::default(), Arc::default(), Arc::default(), Arc::default());
    let top = Terminal::run(&mut detector(&["top", "--socket", text(&daemon.socket)]), 24, 80);
    top.wait_for("watching: all hooks proven, ");
    // It is connected before it takes the terminal.
    daemon.hub.publish_event(NoticeEvent::loss(Loss::Exec, 7));
    top.wait_for("on node, 7 times: ");
    assert!(top.is_taken());
    top
}

#[test]
fn top_gives_the_terminal_back_however_it_ends() {
    let daemon = Daemon::start();
    for keys in ["q", "\x1b", "\x03"] {
        let mut top = top(&daemon);
        top.type_in(keys);
        assert_eq!(top.end(), Some(0), "{keys:?}");
    }
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let top = top(&daemon);
        top.send(signal);
        assert_eq!(top.end(), Some(0), "{signal:?}");
    }
}

#[test]
fn top_ends_by_a_signal_although_its_terminal_hangs() {
    let daemon = Daemon::start();
    let mut top = top(&daemon);
    top.hang();
    // Each is drawn as a whole, and together they are more than a terminal keeps.
    for rows in (24..50).cycle().take(400) {
        top.resize(rows, 150);
        std::thread::sleep(Duration::from_millis(5));
    }
    top.send(Signal::TERM);
    // It has not shown everything.
    assert_eq!(top.wait(), Some(1));
}

#[test]
fn top_does_what_keys_say_and_follows_the_size_of_the_terminal() {
    let daemon = Daemon::start();
    let mut top = top(&daemon);
    top.type_in("?");
    top.wait_for("findings of the last minute");
    top.type_in("\x1b[B?r");
    top.wait_for("[r rate]");
    top.wait_until_gone("findings of the last minute");
    top.resize(10, 40);
    top.wait_for("detector top needs 60 columns and 16\nrows; this terminal has 40 and 10.");
    top.resize(50, 132);
    top.wait_for("STORIES");
    top.type_in("q");
    assert_eq!(top.end(), Some(0));
}

#[test]
fn top_waits_for_the_next_daemon_and_says_that_there_is_none() {
    let daemon = Daemon::start();
    let mut top = top(&daemon);
    drop(daemon);
    top.wait_for("NOTHING IS SEEN since ");
    top.type_in("q");
    let said = top.text();
    assert_eq!(top.end(), Some(5), "{said}");
}

#[test]
fn top_needs_a_daemon_and_a_terminal() {
    let directory = TempDir::new().expect("a directory");
    let socket = directory.path().join("none.sock");
    let arguments = ["top", "--socket", text(&socket)];
    let output = detector(&arguments).output().expect("the program starts");
    assert_fails(&output, 2, &["none that it can use", "use `detector tail` or `detector drift`"]);
    assert!(output.stdout.is_empty(), "{output:?}");
    let top = Terminal::run(&mut detector(&arguments), 24, 80);
    top.wait_for("none.sock: no daemon listens on this socket; start one as root with");
    assert_eq!(top.end(), Some(5));
}

#[test]
fn an_output_file_is_private_and_an_incomplete_line_is_ended() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("findings.json");
    let open = || LogFile::open(Target::File(path.clone())).expect("it can be written");
    drop(open());
    assert_eq!(std::fs::metadata(&path).expect("it is there").permissions().mode() & 0o7777, 0o600);
    std::fs::write(&path, "{\"time\":\"2026").expect("it is ours");
    let mut output = open();
    drop(open());
    (0..2).for_each(|_| output.write_all(b"{}\n").expect("there is room"));
    assert_eq!(std::fs::read(&path).expect("it is there"), b"{\"time\":\"2026\n{}\n{}\n");
}

/// Writes so many lines to the end of a log, as a daemon does.
fn write_log(path: &Path, count: usize) {
    let output = LogFile::open(Target::File(path.to_owned())).expect("it can be written");
    let (hub, lines) = Hub::with_output("node-1".into());
    (0..count).for_each(|number| hub.publish_event(NoticeEvent::Stopped { reason: number.to_string() }));
    hub.close();
    writer::run(output, lines, &hub, &Orders::default(), Intervals::default()).expect("all is written");
}

/// Runs `detector log verify`.
fn verify(arguments: &[&str]) -> Output {
    detector(&[&["log", "verify"], arguments].concat()).output().expect("the program starts")
}

fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut compressed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    compressed.write_all(bytes).and_then(|()| compressed.finish()).expect("memory has room")
}

#[test]
fn a_log_proves_that_it_is_whole() {
    let directory = TempDir::new().expect("a directory");
    let [log, old, packed, empty] = ["log", "log.1", "log.2.gz", "empty"].map(|name| directory.path().join(name));
    // The second daemon goes on where the first one ended, and the log is rotated.
    write_log(&old, 3);
    write_log(&old, 4);
    let written = std::fs::read_to_string(&old).expect("it is there");
    let (first, rest) = written.split_at(written.match_indices('\n').nth(4).expect("there are 7").0 + 1);
    std::fs::write(&packed, compress(first.as_bytes())).expect("it is ours");
    std::fs::write(&old, rest).expect("it is ours");
    std::fs::copy(&old, &log).expect("it is there");
    write_log(&log, 1);
    let last = std::fs::read_to_string(&log).expect("it is there").lines().last().expect("there are some").to_owned();
    std::fs::write(&log, format!("{last}\n")).expect("it is ours");
    std::fs::write(&empty, "").expect("it is ours");

    let files = [text(&log), text(&packed), text(&empty), text(&old)];
    let output = verify(&[&files[..], &["--seq", "8"]].concat());
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let shown =
        String::from_utf8(output.stdout).expect("it is text").replace(&format!("{}/", text(directory.path())), "");
    let expected = "empty: empty\nlog.2.gz: 5 lines, seq 1 to 5\nlog.1: 2 lines, seq 6 to 7\nlog: 1 line, seq 8 to 8\n\
        whole: nothing is missing, doubled, out of order or changed from seq 1 to 8\nthe last line has the SHA-256 ";
    assert!(shown.starts_with(expected), "{shown}");
    let sha256 = shown.trim_end().rsplit_once(' ').expect("it has words").1;
    let known = verify(&[&files[..], &["--seq", "8", "--sha256", sha256]].concat());
    assert!(known.status.success(), "{known:?}");

    let newer = verify(&files[..1]);
    assert!(newer.status.success(), "{newer:?}");
    assert!(String::from_utf8_lossy(&newer.stdout).contains("\nwhat is before seq 8 is not in these files\n"));
    let piped = detector(&["log", "verify", "-"]).stdin(std::fs::File::open(&packed).expect("it is there")).output();
    let piped = piped.expect("the program starts");
    assert!(String::from_utf8_lossy(&piped.stdout).starts_with("standard input: 5 lines, seq 1 to 5\n"), "{piped:?}");
}

#[test]
fn a_log_that_is_not_whole_says_where() {
    let directory = TempDir::new().expect("a directory");
    let log = directory.path().join("log");
    write_log(&log, 5);
    let written = std::fs::read_to_string(&log).expect("it is there");
    let lines: Vec<_> = written.split_inclusive('\n').collect();
    let fails = |name: &str, bytes: &[u8], arguments: &[&str], says: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).expect("it is ours");
        let output = verify(&[&[text(&path)][..], arguments].concat());
        assert_fails(&output, 7, &["the log is not whole: 1 problem", "compare it with what other machines"]);
        let shown = String::from_utf8_lossy(&output.stdout).replace(&format!("{}/", text(directory.path())), "");
        assert!(shown.contains(&format!("\nerror: {says}")) && !shown.contains("whole:"), "{shown}");
    };
    let without = [&lines[..2], &lines[3..]].concat().concat();
    fails("missing", without.as_bytes(), &[], "missing:3: seq 3 is missing before this line (seq 4)");
    let changed = written.replace("\"reason\":\"2\"", "\"reason\":\"7\"");
    fails("changed", changed.as_bytes(), &[], "changed:3: this line (seq 3) was changed after it was written");
    fails("packed", &compress(changed.as_bytes()), &[], "packed:3: this line (seq 3) was changed");
    fails(
        "bytes",
        &[lines[0].as_bytes(), b"\xff\n"].concat(),
        &[],
        "bytes:2: this line has no place in the chain (it is",
    );
    fails("cut", lines[..3].concat().trim_end().as_bytes(), &[], "cut:3: the line has no end");
    fails("end", lines[..3].concat().as_bytes(), &["--seq", "4"], "the log ends with seq 3, and seq 4 was written");
    let zeros = "0".repeat(64);
    fails("other", written.as_bytes(), &["--seq", "4", "--sha256", &zeros], "seq 4 has another SHA-256");
}

#[test]
fn lines_become_lines_of_another_format() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("log");
    write_log(&path, 3);
    let log = std::fs::read(&path).expect("it is there");
    let compressed = folder.path().join("log.1.gz");
    std::fs::write(&compressed, compress(&log)).expect("the directory is ours");
    for format in ["ocsf", "ecs", "falco"] {
        let output = detector(&["convert", "--to", format, text(&path), text(&compressed)]).output();
        let output = output.expect("the program starts");
        assert!(output.status.success(), "{output:?}");
        let lines: Vec<_> = output.stdout.split_inclusive(|byte| *byte == b'\n').collect();
        let given = log.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
        assert_eq!((lines.len(), &lines[..given]), (2 * given, &lines[given..]));
        assert!(lines.iter().all(|line| serde_json::from_slice::<serde_json::Value>(line).is_ok()));
    }
}

#[test]
fn what_cannot_be_converted_is_said_with_its_place() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("log");
    write_log(&path, 1);
    let log = std::fs::read(&path).expect("it is there");
    let long = [b"\"", &[b'x'; 2 << 20][..], b"\"\n"].concat();
    std::fs::write(&path, [b"no JSON\n", &log[..], b"{}\n", &long, &log].concat()).expect("the directory is ours");
    let convert = |path: &Path| {
        let output = detector(&["convert", "--to", "ecs", text(path)]).output().expect("the program starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let lines = output.stdout.iter().filter(|byte| **byte == b'\n').count();
        (output.status.code(), lines, said.lines().map(str::to_owned).collect::<Vec<_>>())
    };
    let (code, lines, said) = convert(&path);
    assert_eq!((code, lines), (Some(1), 2 * log.iter().filter(|byte| **byte == b'\n').count()), "{said:?}");
    let [first, second, third, sum] = &said[..] else { panic!("{said:?}") };
    assert!(first.contains("log: line 1: it is not JSON"), "{first}");
    assert!(second.ends_with("it has neither `finding` nor `event`, so the detector has not written it"), "{second}");
    assert!(third.ends_with("it is longer than 1048576 bytes, so the detector has not written it"), "{third}");
    assert!(sum.starts_with("detector: 3 lines could not be converted"), "{sum}");

    std::fs::write(&path, b"x\n".repeat(13)).expect("the directory is ours");
    let (code, lines, said) = convert(&path);
    assert_eq!((code, lines, said.len()), (Some(1), 0, 12), "{said:?}");
    assert!(said[9].contains("log: line 10: ") && said[10].ends_with("log: and 3 more lines"), "{said:?}");

    let output = detector(&["convert", "--to", "cef", text(&path)]).output().expect("the program starts");
    assert_eq!(output.status.code(), Some(2));
    let output = detector(&["convert", "--to", "ecs", "/nonexistent"]).output().expect("the program starts");
    assert_fails(&output, 1, &["/nonexistent: ", "give a file"]);
}

#[test]
fn what_is_no_log_is_refused_with_a_remedy() {
    let directory = TempDir::new().expect("a directory");
    let fails = |name: &str, bytes: &[u8], code: i32, words: &[&str]| {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).expect("it is ours");
        assert_fails(&verify(&[text(&path)]), code, words);
    };
    fails("empty", b"", 7, &["there is no line with `seq` and `prev`", "give files that `detector run` has written"]);
    fails("zstd", b"\x28\xb5\x2f\xfd", 1, &["it is compressed", "zstdcat", "as standard input (`-`)"]);
    let packed = compress(&b"{}\n".repeat(100));
    fails("cut.gz", &packed[..packed.len() - 8], 1, &["cut.gz: cannot be read after line 100", "take another copy"]);
    assert_fails(&verify(&[text(&directory.path().join("none"))]), 1, &["none: No such file", "this user may read"]);
    assert_fails(&verify(&[text(directory.path())]), 1, &["Is a directory", "check the file"]);
    for arguments in [&[][..], &["x", "--seq", "0"], &["x", "--sha256", "ab"], &["x", "--seq", "1", "--sha256", "ab"]] {
        assert_eq!(verify(arguments).status.code(), Some(2), "{arguments:?}");
    }
}
