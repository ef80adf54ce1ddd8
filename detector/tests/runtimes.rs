//! Enriches findings while runtimes lie, hang, send garbage, or stop and start. Each runtime is a socket of the test;
//! the tests in virtual machines query real ones.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use detector::finding::{Container, Finding, Kind, Line, Notice, NoticeEvent, Severity, Time};
use detector::ledger;
use detector::output::terminal::{self, Look};
use detector::redact::Redactor;
use detector::runtime::endpoint::{Endpoint, Protocol};
use detector::runtime::{EngineState, Engines, Enricher, Inlet, Options};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{HeaderName, HeaderValue};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use serde_json::{Value, json};
use tempfile::TempDir;

const WAIT: Duration = Duration::from_millis(250);
/// The time limit of a test on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// A socket, and the function that handles its connections.
struct Runtime {
    path: PathBuf,
    connections: Arc<AtomicUsize>,
    served: Arc<AtomicUsize>,
    directory: TempDir,
}

impl Runtime {
    fn start(serve: impl Fn(UnixStream) + Send + Sync + 'static) -> Self {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("runtime.sock");
        let runtime = Self { path, connections: Arc::default(), served: Arc::default(), directory };
        runtime.listen(serve);
        runtime
    }

    /// The thread runs until the process ends.
    fn listen(&self, serve: impl Fn(UnixStream) + Send + Sync + 'static) {
        let listener = UnixListener::bind(&self.path).expect("a socket");
        let (serve, connections, served) = (Arc::new(serve), Arc::clone(&self.connections), Arc::clone(&self.served));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                connections.fetch_add(1, Relaxed);
                let (serve, served, stream) = (Arc::clone(&serve), Arc::clone(&served), stream.expect("a client"));
                std::thread::spawn(move || {
                    serve(stream);
                    served.fetch_add(1, Relaxed);
                });
            }
        });
    }
}

/// An enricher, its inlet and its output.
struct Way {
    engines: Arc<Engines>,
    enricher: Enricher,
    inlet: Inlet,
    out: Receiver<Line>,
}

impl Way {
    fn past(protocol: Protocol, path: &Path) -> Self {
        Self::waiting(WAIT, protocol, path)
    }

    /// Makes findings wait for an answer even on a busy machine.
    fn patient(protocol: Protocol, path: &Path) -> Self {
        Self::waiting(SOON, protocol, path)
    }

    fn waiting(wait: Duration, protocol: Protocol, path: &Path) -> Self {
        let engines = Arc::new(Engines::new(vec![Endpoint { protocol, path: path.to_owned(), user: None }], false));
        let options = Options {
            engines: Arc::clone(&engines),
            wait,
            node: "node".into(),
            redactor: Redactor::default(),
            shows_suppressed: false,
            rules: Vec::new(),
            ledger: ledger::Inlet::default(),
        };
        let (sender, out) = mpsc::channel();
        let sender = Mutex::new(sender);
        let publish = move |line: &Line| {
            // The receiver may already be dropped.
            let _ = sender.lock().expect("nobody panics").send(line.clone());
        };
        let enricher = Enricher::start(options, publish).expect("a thread");
        let inlet = enricher.inlet();
        Self { engines, enricher, inlet, out }
    }

    /// Sends something into the inlet, which must not block.
    fn put(&self, into: impl FnOnce(&Inlet)) {
        let since = Instant::now();
        into(&self.inlet);
        assert!(since.elapsed() < WAIT, "the pipeline was held up");
    }

    fn find(&self, id: &str) {
        self.put(|inlet| inlet.send(Line::Finding(Box::new(finding(id)))));
    }

    fn next(&self) -> Line {
        self.out.recv_timeout(SOON).expect("a line")
    }

    fn next_container(&self) -> Container {
        self.next_finding().container.expect("it is in one")
    }

    fn next_finding(&self) -> Finding {
        match self.next() {
            Line::Finding(finding) => *finding,
            Line::Notice(notice) => panic!("{notice:?}"),
        }
    }

    /// Expects the finding of this container after the wait or earlier, without metadata.
    fn passes_unfilled(&self, id: &str) {
        let since = Instant::now();
        self.find(id);
        assert_eq!(self.next_container(), container(id));
        assert!(since.elapsed() < WAIT + Duration::from_secs(2), "{:?}", since.elapsed());
    }

    fn state(&self) -> EngineState {
        self.engines.status().remove(0).state
    }
}

#[track_caller]
fn wait_until(is_so: impl Fn() -> bool) {
    let until = Instant::now() + SOON;
    while !is_so() {
        assert!(Instant::now() < until, "it does not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn container(id: &str) -> Container {
    Container { id: Some(id.as_bytes().into()), cgroup_id: 7, ..Container::default() }
}

fn finding(id: &str) -> Finding {
    Finding {
        time: Time::from_nanoseconds(1),
        schema: 1,
        id: "1-1".to_owned(),
        revision: 1,
        node: "node".into(),
        finding: Kind::ShellInContainer,
        severity: Severity::High,
        severity_rule: None,
        expected: None,
        message: "sh started".to_owned(),
        container: Some(container(id)),
        process: None,
        file: None,
        session: None,
        summary: None,
        repeated: None,
        mitre: Vec::new(),
        overridden: None,
        suppressed_by: None,
        evidence: None,
        visit: None,
        typical: None,
        candidates: None,
        parts: Vec::new(),
    }
}

fn id(nth: u64) -> String {
    format!("{nth:064x}")
}

/// The path in the first line of a request.
fn request(stream: &mut UnixStream) -> Option<String> {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        text.push(byte[0]);
    }
    String::from_utf8(text).ok()?.split(' ').nth(1).map(str::to_owned)
}

fn answer(stream: &mut UnixStream, status: &str, body: &[u8]) {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
    // The client may have disconnected.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}

/// Answers as Docker does, with `container` for each container, and with no image.
fn docker(container: impl Fn(&str) -> Value + Send + Sync + 'static) -> impl Fn(UnixStream) + Send + Sync + 'static {
    move |mut stream| {
        while let Some(path) = request(&mut stream) {
            match path.strip_prefix("/containers/").and_then(|rest| rest.strip_suffix("/json")) {
                Some(id) => answer(&mut stream, "200 OK", container(id).to_string().as_bytes()),
                None => answer(&mut stream, "404 Not Found", b"{}"),
            }
        }
    }
}

/// Answers as a CRI runtime does, with this container for each query, and with no pods or images.
fn cri(
    container: impl Fn(String) -> detector_cri::Container + Send + Sync + Clone + 'static,
) -> impl Fn(UnixStream) + Send + Sync + 'static {
    move |stream| {
        let container = container.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let container = container.clone();
            async move {
                let is_list = request.uri().path().ends_with("/ListContainers");
                let body = request.into_body().collect().await.expect("a request").to_bytes();
                let mut message = Vec::new();
                if is_list {
                    // The message follows a flag and the length.
                    let asked = detector_cri::ListContainersRequest::decode(&body[5..]).expect("a request");
                    let id = asked.filter.expect("it asks about one").id;
                    detector_cri::ListContainersResponse { containers: vec![container(id)] }
                        .encode(&mut message)
                        .expect("memory takes it");
                }
                let length = u32::try_from(message.len()).expect("it is short").to_be_bytes();
                let frame = [&[0], &length[..], &message].concat();
                let ok = [("grpc-status", "0")]
                    .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
                let body = Full::new(Bytes::from(frame)).with_trailers(async { Some(Ok(ok.into_iter().collect())) });
                Response::builder().header("content-type", "application/grpc").body(body)
            }
        });
        runtime().block_on(async {
            stream.set_nonblocking(true).expect("a socket");
            let stream = TokioIo::new(tokio::net::UnixStream::from_std(stream).expect("a socket"));
            // The client may have disconnected.
            let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service).await;
        });
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn web(id: &str) -> Value {
    json!({ "Id": id, "Name": "/web", "Config": { "Image": "web:1", "Labels": { "a": "b" } } })
}

#[test]
fn a_finding_gets_the_runtimes_metadata_which_is_queried_once() {
    let runtime = Runtime::start(docker(web));
    let way = Way::patient(Protocol::Docker, &runtime.path);
    for _ in 0..3 {
        way.find(&id(1));
    }
    for _ in 0..3 {
        let container = way.next_container();
        assert_eq!(container.name.as_ref().map(ToString::to_string), Some("web".to_owned()));
        assert_eq!(container.labels.values[&b"a"[..].into()].as_str(), "b");
    }
    assert_eq!((runtime.connections.load(Relaxed), way.state()), (1, EngineState::Answers));
}

#[test]
fn a_hanging_runtime_delays_only_its_own_findings_and_only_briefly() {
    let runtime = Runtime::start(|mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    for kind in [Protocol::Docker, Protocol::Cri] {
        let way = Way::past(kind, &runtime.path);
        way.find(&id(1));
        way.find("no id that a runtime could be asked about/../..");
        assert_eq!(way.next_container().id.expect("it has one").as_str().len(), 47);
        let since = Instant::now();
        assert_eq!(way.next_container(), container(&id(1)));
        assert!(since.elapsed() < WAIT + Duration::from_secs(2), "{:?}", since.elapsed());
        wait_until(|| matches!(way.state(), EngineState::Failing { why } if why.contains("no answer within")));
        // Once the runtime counts as failing, findings do not wait for it.
        let before = runtime.connections.load(Relaxed);
        (10..1000).for_each(|nth| way.passes_unfilled(&id(nth)));
        assert!(runtime.connections.load(Relaxed) < before + 4, "it is not left alone");
        drop(way.enricher);
        wait_until(|| runtime.served.load(Relaxed) == runtime.connections.load(Relaxed));
    }
}

#[test]
fn garbage_is_not_accepted_as_an_answer() {
    let garbage: [&[u8]; 6] = [
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 500 \x1b[31mno\r\nContent-Length: 0\r\n\r\n",
        &[0xff; 4096],
    ];
    for said in garbage {
        let runtime = Runtime::start(move |mut stream| {
            let _ = stream.write_all(said);
            std::thread::sleep(Duration::from_millis(50));
        });
        for kind in [Protocol::Docker, Protocol::Cri] {
            let way = Way::past(kind, &runtime.path);
            way.passes_unfilled(&id(1));
            // On a busy machine the finding may have passed before the answer came.
            wait_until(|| matches!(way.state(), EngineState::Failing { .. }));
            let EngineState::Failing { why } = way.state() else { unreachable!("it stays so") };
            assert!(why.len() < 1000 && !why.contains(char::is_control), "{why}");
        }
    }
}

#[test]
fn an_answer_about_another_container_is_not_used() {
    let runtime = Runtime::start(docker(|_| web(&id(2))));
    let way = Way::past(Protocol::Docker, &runtime.path);
    way.passes_unfilled(&id(1));
    wait_until(|| matches!(way.state(), EngineState::Failing { why } if why.contains("another container")));
}

#[test]
fn metadata_that_is_too_long_is_truncated_and_marked() {
    let bomb = |id: &str| {
        let mut labels: serde_json::Map<_, _> =
            (0..2000).map(|nth| (format!("l{nth:04}"), "x".repeat(500).into())).collect();
        labels.insert("n".repeat(5000), "too long a name".into());
        json!({ "Id": id, "Name": "/".to_owned() + &"\u{1b}[31mä".repeat(5000), "Config": { "Image": "i".repeat(100_000), "Labels": labels } })
    };
    let runtime = Runtime::start(docker(bomb));
    let way = Way::patient(Protocol::Docker, &runtime.path);
    way.find(&id(1));
    let finding = way.next_finding();
    let container = finding.container.as_ref().expect("it is in one");
    assert!(container.labels.truncated && !container.labels.values.is_empty());
    assert!(container.name.as_ref().expect("it has one").as_str().ends_with('…'));
    assert!(
        container.image.as_ref().and_then(|image| image.name.as_ref()).expect("it has one").as_str().ends_with('…')
    );
    let line = Line::Finding(Box::new(finding));
    let json = detector::output::json::line(&line);
    assert!(json.len() < 16 << 10, "{}", json.len());
    let mut text = Vec::new();
    terminal::write_line(&mut text, &line, Look::default()).expect("memory takes it");
    for shown in [&json[..], &text] {
        let shown = std::str::from_utf8(shown).expect("it is UTF-8").trim_end_matches('\n');
        assert!(!shown.contains(char::is_control), "{shown:?}");
    }
}

#[test]
fn an_endless_answer_is_not_read_and_other_containers_are_still_queried() {
    let runtime = Runtime::start(|mut stream| {
        let Some(path) = request(&mut stream) else { return };
        if path.contains(&id(2)) {
            return answer(&mut stream, "200 OK", web(&id(2)).to_string().as_bytes());
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while stream.write_all(b"1000\r\n").and_then(|()| stream.write_all(&[b' '; 0x1000])).is_ok() {
            if stream.write_all(b"\r\n").is_err() {
                return;
            }
        }
    });
    let way = Way::patient(Protocol::Docker, &runtime.path);
    way.passes_unfilled(&id(1));
    way.find(&id(2));
    assert!(way.next_container().name.is_some());
    assert_eq!(way.state(), EngineState::Answers);
}

#[test]
fn a_restarted_runtime_completes_earlier_findings() {
    let runtime = Runtime::start(|_| {});
    let path = runtime.directory.path().join("later.sock");
    let way = Way::past(Protocol::Docker, &path);
    way.passes_unfilled(&id(1));
    assert_eq!(way.state(), EngineState::Absent);
    let later = Runtime { path, ..runtime };
    later.listen(docker(web));
    let Line::Notice(Notice { event: NoticeEvent::ContainerInfo { container }, .. }) = way.next() else {
        panic!("it is not completed")
    };
    assert_eq!(container.id, Some(id(1).as_bytes().into()));
    assert_eq!(container.name, Some(b"web"[..].into()));
    way.find(&id(1));
    assert_eq!(way.next_container().name, container.name);
}

#[test]
fn findings_that_wait_at_shutdown_are_published() {
    let runtime = Runtime::start(|mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let way = Way::patient(Protocol::Docker, &runtime.path);
    way.find(&id(1));
    drop(way.enricher);
    way.out.try_recv().expect("the finding");
}

#[test]
fn a_container_is_queried_when_it_starts() {
    let runtime = Runtime::start(docker(web));
    let way = Way::patient(Protocol::Docker, &runtime.path);
    way.put(|inlet| inlet.container_started(&container(&id(1))));
    wait_until(|| way.state() == EngineState::Answers);
    way.find(&id(1));
    assert!(way.next_container().name.is_some());
}

#[test]
fn too_many_labels_through_cri_are_truncated_or_not_read() {
    let bomb = |id: String| {
        // For an odd number, the answer is larger than the limit.
        let size = if id.ends_with('1') { 10_000 } else { 1000 };
        let labels = (0..size).map(|nth| (format!("l{nth:05}"), "x".repeat(1000))).collect();
        let metadata = Some(detector_cri::ContainerMetadata { name: "app".to_owned() });
        detector_cri::Container { id, metadata, labels, ..detector_cri::Container::default() }
    };
    let runtime = Runtime::start(cri(bomb));
    let way = Way::patient(Protocol::Cri, &runtime.path);
    way.passes_unfilled(&id(1));
    way.find(&id(2));
    let container = way.next_container();
    assert_eq!(container.name, Some(b"app"[..].into()));
    assert!(container.labels.truncated && container.labels.values.len() < 30);
    assert_eq!(way.state(), EngineState::Answers);
}

#[test]
fn a_cri_answer_about_another_container_is_not_used() {
    let runtime = Runtime::start(cri(|_| detector_cri::Container { id: id(2), ..detector_cri::Container::default() }));
    let way = Way::past(Protocol::Cri, &runtime.path);
    way.passes_unfilled(&id(1));
}
