//! The status of the daemon as metrics, in the OpenMetrics format 1.0. The names of all metrics are here.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::finding::{Kind, Loss, Reason, Severity, Time};
use crate::ledger::Standing;
use crate::ledger::page::Verdict;
use crate::protocol::{Counters, DaemonState, ForwarderStatus, Status};
use crate::runtime::EngineState;
use crate::sensor::EventBuffer;

/// The media type of the format.
pub(crate) const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What all names begin with.
const PREFIX: &str = "detector";

/// The labels of a sample.
type Labels = Vec<(&'static str, String)>;

/// A table of samples that only grow, or that go up and down.
type Counts = Family<Labels, Counter>;
type Levels = Family<Labels, Gauge>;

/// The metrics of a daemon with this status. `memory` is how many bytes of its memory are resident, if that is known.
pub(crate) fn text(status: &Status, memory: Option<u64>) -> String {
    let mut registry = Registry::with_prefix(PREFIX);
    about_the_daemon(&mut registry, status, memory);
    about_findings(&mut registry, &status.counters);
    about_the_policy(&mut registry, status);
    if let Some(standing) = &status.ledger {
        about_the_ledger(&mut registry, standing);
    }
    about_queues(&mut registry, status.buffer, &status.queues);
    about_forwarders(&mut registry, &status.forwarders);
    let mut text = String::new();
    encode(&mut text, &registry).expect("writing to memory does not fail");
    text
}

/// Whether the daemon watches, and what it does not see.
fn about_the_daemon(registry: &mut Registry, status: &Status, memory: Option<u64>) {
    let build = Info::new(vec![("version", status.version.clone())]);
    registry.register("build", "The version of the detector", build);
    let ready = level(u64::from(status.state == DaemonState::Ready));
    registry.register("ready", "Whether the daemon watches: 1, or 0 while it starts or stops", ready);
    let since = moment(status.since);
    let help = "Since when the daemon watches, starts or stops, since 1970";
    registry.register_with_unit("state_since_timestamp", help, Unit::Seconds, since);
    let degraded = level(status.degraded.len() as u64);
    registry.register("degraded_reasons", "For how many reasons less is detected or recorded than could be", degraded);
    if let Some(memory) = memory {
        registry.register_with_unit("resident_memory", "Resident memory of the daemon", Unit::Bytes, level(memory));
    }
    let hooks = Levels::default();
    for hook in status.hooks.iter().filter(|hook| !hook.absent) {
        let works = hook.attached.is_some() && hook.verified != Some(false);
        hooks.get_or_create(&vec![("hook", hook.name.clone())]).set(i64::from(works));
    }
    registry.register("hook_works", "Whether a hook that this kernel needs is attached and was seen to fire", hooks);
    let runtimes = Levels::default();
    for runtime in &status.runtimes {
        let answers = match runtime.state {
            EngineState::Answers => 1,
            EngineState::Failing { .. } => 0,
            EngineState::Unasked | EngineState::Absent => continue,
        };
        let labels = vec![("kind", runtime.kind.clone()), ("path", runtime.path.clone())];
        runtimes.get_or_create(&labels).set(answers);
    }
    registry.register("runtime_answers", "Whether a container runtime that runs answers queries", runtimes);
}

/// What was found, and what was lost.
fn about_findings(registry: &mut Registry, counters: &Counters) {
    let Counters { events, counted_in_kernel, reached, expected, losses, skipped, suppressed, .. } = counters;
    registry.register("events", "Events that the kernel has reported", count(*events));
    registry.register(
        "files_counted_in_kernel",
        "New files that the kernel has only counted, because very many were created in a short time",
        count(*counted_in_kernel),
    );
    // What has not happened yet is 0: of a sample that begins with another number, nobody can tell that it has grown.
    let findings = Counts::default();
    for kind in Kind::ALL {
        for severity in Severity::ALL {
            let labels = vec![("finding", kind.name().to_owned()), ("severity", severity.name().to_owned())];
            let number = reached.get(&kind).and_then(|severities| severities.get(&severity));
            findings.get_or_create(&labels).inc_by(number.copied().unwrap_or(0));
        }
    }
    let help = "Findings by kind and severity; one whose severity has changed counts for both";
    registry.register("findings", help, findings);
    let by = |label: &'static str, known: &[&str], numbers: &BTreeMap<String, u64>| {
        let counts = Counts::default();
        let of = |name: &str| counts.get_or_create_owned(&vec![(label, name.to_owned())]);
        known.iter().for_each(|name| drop(of(name)));
        numbers.iter().for_each(|(name, number)| _ = of(name).inc_by(*number));
        counts
    };
    let reasons = Reason::ALL.map(Reason::name);
    let kinds: Vec<_> = Loss::ALL.iter().map(|kind| kind.name()).collect();
    registry.register("expected_findings", "Findings that were expected, by reason", by("reason", &reasons, expected));
    registry.register("losses", "What was lost, or reported without all details, by kind", by("kind", &kinds, losses));
    let help = "Calls for which the kernel did not run a probe";
    registry.register("skipped_calls", help, count(*skipped));
    let help = "Acts that an exception has suppressed, by its name";
    registry.register("suppressed_acts", help, by("exception", &[], suppressed));
}

/// Which containers are still their images.
fn about_the_ledger(registry: &mut Registry, standing: &Standing) {
    let containers = Levels::default();
    for verdict in Verdict::ALL {
        let labels = vec![("verdict", verdict.name().to_owned())];
        containers.get_or_create(&labels).set(clamped(standing.get(&verdict).copied().unwrap_or(0)));
    }
    registry.register("containers", "Running containers by whether they are still their images", containers);
}

/// What waits in the daemon.
fn about_queues(registry: &mut Registry, buffer: Option<EventBuffer>, queues: &BTreeMap<String, u64>) {
    if let Some(EventBuffer { bytes, size, moved }) = buffer {
        let help = "How much of the buffers of events is full";
        registry.register_with_unit("event_buffer", help, Unit::Bytes, level(bytes));
        registry.register_with_unit("event_buffer_size", "The size of these buffers", Unit::Bytes, level(size));
        let help = "Events that were moved to memory, because the kernel's ring buffer was more than half full";
        registry.register("moved_events", help, count(moved));
    }
    let waiting = Levels::default();
    for (queue, length) in queues {
        waiting.get_or_create(&vec![("queue", queue.clone())]).set(clamped(*length));
    }
    registry.register("queue_lines", "Lines that wait in the daemon, by what they wait for", waiting);
}

/// Which policy is in use, and what it keeps from being watched.
fn about_the_policy(registry: &mut Registry, status: &Status) {
    let unwatched = Levels::default();
    for rule in &status.unwatched {
        unwatched.get_or_create(&vec![("rule", rule.rule.clone())]).set(clamped(rule.containers));
    }
    registry.register("unwatched_containers", "Running containers that a rule keeps from being watched", unwatched);
    let Some(config) = &status.config else { return };
    let help = "Whether the configuration file as it is now was refused, so that an earlier one is in use";
    registry.register("config_refused", help, level(u64::from(config.refused.is_some())));
    let help = "How many keys of the configuration file take effect only when the daemon is started again";
    registry.register("config_keys_awaiting_restart", help, level(config.needs_restart.len() as u64));
    if let Some(loaded) = &config.loaded {
        registry.register("config_exceptions", "Exceptions in use", level(loaded.exceptions));
        let help = "When the configuration file in use was loaded, since 1970";
        registry.register_with_unit("config_loaded_timestamp", help, Unit::Seconds, moment(loaded.time));
    }
}

/// How far the forwarders have come.
fn about_forwarders(registry: &mut Registry, forwarders: &[ForwarderStatus]) {
    type Number = fn(&ForwarderStatus) -> u64;
    let of = |forwarder: &ForwarderStatus| vec![("forwarder", forwarder.name.clone())];
    let levels: [(&str, &str, Number); 2] = [
        ("forward_works", "Whether a forwarder can send lines", |one| u64::from(one.failure.is_none())),
        ("forward_waiting_lines", "Lines of the log that a forwarder has not sent yet", |one| one.waiting),
    ];
    for (name, help, number) in levels {
        let samples = Levels::default();
        for forwarder in forwarders {
            samples.get_or_create(&of(forwarder)).set(clamped(number(forwarder)));
        }
        registry.register(name, help, samples);
    }
    let oldest = Family::<Labels, Gauge<f64, AtomicU64>>::default();
    for forwarder in forwarders {
        let time = forwarder.oldest.map_or(0.0, seconds);
        oldest.get_or_create(&of(forwarder)).set(time);
    }
    let help = "The time of the oldest line that a forwarder has not sent yet, since 1970, or 0 if there is none";
    registry.register_with_unit("forward_oldest_waiting_timestamp", help, Unit::Seconds, oldest);
    let counts: [(&str, &str, Number); 4] = [
        ("forward_sent_lines", "Lines that a forwarder has sent; one that was sent twice counts twice", |one| one.sent),
        ("forward_unlogged_lines", "Lines that a forwarder has sent before the log had taken them", |one| one.unlogged),
        ("forward_given_up_lines", "Lines that were removed from the log before they could be sent", |one| {
            one.given_up
        }),
        ("forward_refused_lines", "Lines that the receiver of a forwarder will never take", |one| one.refused),
    ];
    for (name, help, number) in counts {
        let samples = Counts::default();
        for forwarder in forwarders {
            samples.get_or_create(&of(forwarder)).inc_by(number(forwarder));
        }
        registry.register(name, help, samples);
    }
}

fn count(number: u64) -> Counter {
    let counter: Counter = Counter::default();
    counter.inc_by(number);
    counter
}

fn level(number: u64) -> Gauge {
    let gauge: Gauge = Gauge::default();
    gauge.set(clamped(number));
    gauge
}

fn clamped(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn moment(time: Time) -> Gauge<f64, AtomicU64> {
    let gauge = Gauge::<f64, AtomicU64>::default();
    gauge.set(seconds(time));
    gauge
}

fn seconds(time: Time) -> f64 {
    time.0.as_nanosecond() as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use openmetrics_parser::openmetrics::parse_openmetrics;

    use super::*;
    use crate::finding::{Kind, Severity, Sha256};
    use crate::protocol::{ConfigFile, Hook, Loaded};
    use crate::runtime::{EngineStatus, Unwatched};

    fn status() -> Status {
        let time: Time = "2027-01-15T08:00:00.5Z".parse().expect("it is a time");
        let hook = |name: &str, verified| Hook {
            name: name.to_owned(),
            purpose: String::new(),
            essential: true,
            attached: Some("kprobe f".to_owned()),
            absent: name == "ioctl",
            verified,
            blindable: false,
            refused: Vec::new(),
        };
        let runtime = |kind: &str, state| EngineStatus { kind: kind.to_owned(), path: "/run/x".to_owned(), state };
        Status {
            version: "1.2.3".to_owned(),
            pid: 1,
            node: "node-1".to_owned(),
            state: DaemonState::Ready,
            since: time,
            config: Some(ConfigFile {
                path: "/etc/detector/config.toml".to_owned(),
                loaded: Some(Loaded { time, sha256: Sha256([0; 32]), exceptions: 3 }),
                needs_restart: vec!["log".to_owned()],
                refused: Some("line 1".to_owned()),
            }),
            output: None,
            degraded: vec!["one".to_owned(), "two".to_owned()],
            hooks: vec![hook("exec", Some(true)), hook("open", Some(false)), hook("ioctl", None)],
            runtimes: vec![
                runtime("docker", EngineState::Answers),
                runtime("cri", EngineState::Failing { why: "no".to_owned() }),
                runtime("podman", EngineState::Absent),
            ],
            forwarders: vec![ForwarderStatus {
                name: "siem".to_owned(),
                to: "tcp://localhost:601".to_owned(),
                seq: 8,
                waiting: 3,
                oldest: Some(time),
                sent: 9,
                unlogged: 5,
                given_up: 2,
                refused: 1,
                failure: Some("no".to_owned()),
                failing_since: Some(time),
            }],
            unwatched: vec![Unwatched { rule: "builds".to_owned(), reason: "r".to_owned(), containers: 2 }],
            ledger: Some([(Verdict::Drifted, 2), (Verdict::Image, 5)].into()),
            buffer: Some(EventBuffer { bytes: 13, size: 14, moved: 15 }),
            queues: [("output".to_owned(), 17)].into(),
            counters: Counters {
                events: 9,
                counted_in_kernel: 4,
                findings: 1,
                severities: [(Severity::High, 1)].into(),
                reached: [(Kind::Session, [(Severity::Low, 1), (Severity::High, 1)].into())].into(),
                expected: [("scratch".to_owned(), 4)].into(),
                losses: [("exec".to_owned(), 5)].into(),
                skipped: 6,
                given: 12,
                settled: 11,
                suppressed: [("a \"quoted\"\\\nname".to_owned(), 7)].into(),
            },
        }
    }

    #[test]
    fn each_fact_of_the_status_is_a_sample() {
        let text = text(&status(), Some(1 << 20));
        for sample in [
            "detector_build_info{version=\"1.2.3\"} 1",
            "detector_ready 1",
            "detector_state_since_timestamp_seconds 1800000000.5",
            "detector_degraded_reasons 2",
            "detector_resident_memory_bytes 1048576",
            "detector_hook_works{hook=\"exec\"} 1",
            "detector_hook_works{hook=\"open\"} 0",
            "detector_runtime_answers{kind=\"docker\",path=\"/run/x\"} 1",
            "detector_runtime_answers{kind=\"cri\",path=\"/run/x\"} 0",
            "detector_containers{verdict=\"drifted\"} 2",
            "detector_containers{verdict=\"image\"} 5",
            "detector_containers{verdict=\"unwatched\"} 0",
            "detector_event_buffer_bytes 13",
            "detector_event_buffer_size_bytes 14",
            "detector_moved_events_total 15",
            "detector_queue_lines{queue=\"output\"} 17",
            "detector_events_total 9",
            "detector_files_counted_in_kernel_total 4",
            "detector_findings_total{finding=\"session\",severity=\"low\"} 1",
            "detector_findings_total{finding=\"session\",severity=\"high\"} 1",
            "detector_findings_total{finding=\"image_write\",severity=\"critical\"} 0",
            "detector_expected_findings_total{reason=\"scratch\"} 4",
            "detector_expected_findings_total{reason=\"image\"} 0",
            "detector_losses_total{kind=\"exec\"} 5",
            "detector_losses_total{kind=\"output\"} 0",
            "detector_skipped_calls_total 6",
            "detector_suppressed_acts_total{exception=\"a \\\"quoted\\\"\\\\\\nname\"} 7",
            "detector_unwatched_containers{rule=\"builds\"} 2",
            "detector_config_refused 1",
            "detector_config_keys_awaiting_restart 1",
            "detector_config_exceptions 3",
            "detector_config_loaded_timestamp_seconds 1800000000.5",
            "detector_forward_works{forwarder=\"siem\"} 0",
            "detector_forward_waiting_lines{forwarder=\"siem\"} 3",
            "detector_forward_oldest_waiting_timestamp_seconds{forwarder=\"siem\"} 1800000000.5",
            "detector_forward_sent_lines_total{forwarder=\"siem\"} 9",
            "detector_forward_unlogged_lines_total{forwarder=\"siem\"} 5",
            "detector_forward_given_up_lines_total{forwarder=\"siem\"} 2",
            "detector_forward_refused_lines_total{forwarder=\"siem\"} 1",
        ] {
            assert!(text.lines().any(|line| line == sample), "{sample} is not in\n{text}");
        }
        assert!(!text.contains("ioctl") && !text.contains("podman"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn a_parser_of_others_reads_it() {
        for (status, memory) in [(status(), Some(1)), (Status { config: None, ..status() }, None)] {
            let text = text(&status, memory);
            parse_openmetrics(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        }
    }

    #[test]
    fn the_alerts_and_the_dashboard_ask_for_metrics_that_there_are() {
        let text = text(&status(), Some(1));
        let is_of_name = |character: char| character.is_ascii_alphanumeric() || character == '_';
        for file in [
            include_str!("../../../deploy/prometheus/detector.rules.yml"),
            include_str!("../../../deploy/prometheus/detector.rules.test.yml"),
            include_str!("../../../deploy/grafana/detector.json"),
        ] {
            let words = file.split(|character| !is_of_name(character));
            let names: Vec<_> = words.filter(|word| word.starts_with("detector_")).collect();
            assert!(names.len() > 5, "{names:?}");
            for name in names {
                let is_sample = |line: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
                assert!(text.lines().any(is_sample), "there is no metric {name}");
            }
        }
    }
}
