//! `detector run`: runs the daemon.

use std::ffi::OsString;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use regex::bytes::Regex;
use tracing::level_filters::LevelFilter;

use super::arguments::{Runtimes, Socket, label, level_parser, node_name};
use super::failure::{Exit, Failure};
use crate::config::followed::Followed;
use crate::config::{Address, Repetition, Settings, Size, address, duration, interval, repetition, size};
use crate::daemon::output::Target;
use crate::daemon::rotation::Rotation;
use crate::daemon::writer::Intervals;
use crate::daemon::{self, state, watch};
use crate::finding::Node;
use crate::ledger;
use crate::redact::Redactor;
use crate::runtime;
use crate::sensor;

/// How often lines are put on the disk by default.
const SYNC: Repetition = Repetition(Some(Duration::from_secs(1)));
/// How often it is said by default how far the log has come.
const HEARTBEAT: Repetition = Repetition(Some(Duration::from_secs(60)));

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration file; the options given here win over it [default: /etc/detector/config.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// File to append findings to, one JSON object per line; `-` is standard output [default: -]
    #[arg(long, value_name = "PATH")]
    json: Option<OsString>,
    /// How often lines are put on the disk at most: what a power cut can take. 0s leaves it to the kernel [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = repetition)]
    sync: Option<Repetition>,
    /// How often a `heartbeat` notice says how far the log has come. 0s: never [default: 1m]
    #[arg(long, value_name = "TIME", value_parser = repetition)]
    heartbeat: Option<Repetition>,
    /// Rotate the file before it exceeds this size, such as 64MiB [default: never]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    rotate_size: Option<Size>,
    /// Rotate the file after this time, such as 24h, if its size does not come first [default: never]
    #[arg(long, value_name = "TIME", value_parser = interval)]
    rotate_every: Option<Duration>,
    /// How many old files are kept by --rotate-size and --rotate-every [default: all]
    #[arg(long, value_name = "NUMBER")]
    rotate_keep: Option<NonZeroU32>,
    /// Compress old files of --rotate-size and --rotate-every (gzip)
    #[arg(long)]
    rotate_compress: bool,
    #[command(flatten)]
    socket: Socket,
    /// Directory for what must outlive the daemon [default: $STATE_DIRECTORY or /var/lib/detector]
    #[arg(long, value_name = "PATH")]
    state_directory: Option<PathBuf>,
    /// How long the ledger, which `detector drift` shows, keeps containers that have ended [default: 7d]
    #[arg(long, value_name = "TIME", value_parser = interval)]
    ledger_keep: Option<Duration>,
    /// Serve metrics (OpenMetrics) over HTTP at this address, such as 127.0.0.1:9464, or on a socket that only root can
    /// use, such as unix:/run/detector/metrics.sock
    #[arg(long, value_name = "IP:PORT|unix:PATH", value_parser = address)]
    metrics: Option<Address>,
    /// Also record what the findings are made of, for `detector replay`. The file contains arguments with their secrets
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Log level of the messages on standard error [default: info]
    #[arg(long, value_name = "LEVEL", value_parser = level_parser())]
    log: Option<LevelFilter>,
    /// Name of this node in findings [default: the host name]
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Name of the cluster that this node belongs to, in findings
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// A label for all lines. Can be given more than once
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Also redact matches of this regular expression in arguments: its first group, or the whole match. Can be given
    /// more than once
    #[arg(long, value_name = "REGEX")]
    redact: Vec<Regex>,
    /// Do not redact passwords, tokens and keys in arguments
    #[arg(long)]
    no_default_redaction: bool,
    /// BPF object to load instead of the built-in one
    #[arg(long, value_name = "PATH")]
    bpf_object: Option<PathBuf>,
    #[command(flatten)]
    runtimes: Runtimes,
    /// How long a finding waits for a runtime's answer about its container [default: 250ms]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    enrich_wait: Option<Duration>,
    /// How often the self-test is repeated, which tells whether the probes still fire [default: 5m]
    #[arg(long, value_name = "TIME", value_parser = interval)]
    self_test_interval: Option<Duration>,
    /// Give every act a line of its own instead of counting repeats
    #[arg(long)]
    every_act: bool,
    /// Also write the findings that an exception suppresses, with its name
    #[arg(long)]
    show_suppressed: bool,
}

impl Args {
    /// The log level, which the configuration file can give.
    fn level(&self, settings: &Settings) -> LevelFilter {
        self.log.or(settings.log).unwrap_or(LevelFilter::INFO)
    }

    /// The configuration of the daemon. What is given here wins over the file, and lists are added to its lists.
    fn with(self, settings: Settings) -> daemon::Config {
        let policy = settings.policy();
        let Settings { output, node, redaction, runtimes, .. } = settings;
        let to_file = |path: OsString| if path == "-" { Target::Stdout } else { Target::File(path.into()) };
        let enrich_wait = self.enrich_wait.or(runtimes.enrich_wait);
        let self_test_interval = self.self_test_interval.or(settings.self_test_interval.map(|interval| interval.0));
        let has_default_rules = !self.no_default_redaction && redaction.default_rules.unwrap_or(true);
        daemon::Config {
            output: self.json.or(output.json.map(PathBuf::into_os_string)).map_or(Target::Stdout, to_file),
            intervals: Intervals {
                sync: self.sync.or(output.sync).unwrap_or(SYNC).0,
                heartbeat: self.heartbeat.or(output.heartbeat).unwrap_or(HEARTBEAT).0,
            },
            rotation: Rotation {
                size: self.rotate_size.or(output.rotate_size).map(|size| size.0),
                every: self.rotate_every.or(output.rotate_every.map(|interval| interval.0)),
                keep: self.rotate_keep.or(output.rotate_keep),
                compress: self.rotate_compress || output.rotate_compress.unwrap_or(false),
            },
            forwarders: settings.forward.0,
            socket: self.socket.path_or(settings.socket),
            state: self.state_directory.or(settings.state_directory).unwrap_or_else(state::usual_path),
            ledger_keep: self.ledger_keep.or(settings.ledger_keep.map(|time| time.0)).unwrap_or(ledger::KEEP),
            metrics: self.metrics.or(output.metrics),
            watch: watch::Options {
                node: Node {
                    name: self.node.or(node.name).unwrap_or_else(node_name),
                    cluster: self.cluster.or(node.cluster),
                    labels: node.labels.into_iter().chain(self.labels).collect(),
                },
                redactor: Redactor::new(redaction.rules.into_iter().chain(self.redact).collect(), has_default_rules),
                bpf_object: self.bpf_object.or(settings.bpf_object),
                record: self.record.or(output.record),
                engines: self.runtimes.engines_and(runtimes),
                wait: enrich_wait.unwrap_or(runtime::DEFAULT_WAIT),
                test_interval: self_test_interval.unwrap_or(watch::TEST_INTERVAL),
                is_counting: !self.every_act && settings.count_repeats.unwrap_or(true),
                policy,
                shows_suppressed: self.show_suppressed || output.show_suppressed.unwrap_or(false),
            },
        }
    }
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    let (file, loaded) = Followed::start(args.config.clone()).map_err(|refusal| Failure::new(Exit::Usage, refusal))?;
    super::log_messages(args.level(&loaded.settings));
    sensor::check_privileges()?;
    let notice = file.path().map(|path| {
        tracing::info!("configuration file: {}", path.display());
        loaded.warnings(path).iter().for_each(|warning| tracing::warn!("{warning}"));
        file.notice(&loaded)
    });
    let config = args.with(loaded.settings);
    let Rotation { keep, compress, .. } = config.rotation;
    if (keep.is_some() || compress) && !config.rotation.is_on() {
        return Err(Failure::new(
            Exit::Usage,
            "--rotate-keep and --rotate-compress (also in the configuration file) are about files that the daemon has \
            rotated; also give --rotate-size or --rotate-every, or leave them out",
        ));
    }
    Ok(daemon::run(config, file, notice)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::{CommandFactory as _, Parser as _};

    use super::*;
    use crate::config::{self, tests::keys};
    use crate::finding::Time;

    #[derive(clap::Parser)]
    struct Run {
        #[command(flatten)]
        args: Args,
    }

    /// Each option of the command line but `--config`, its key, and lines of a file that do the same.
    const PAIRS: [(&str, &str, &str); 25] = [
        ("--json=/a", "output.json", "output.json = '/a'"),
        ("--sync=7s", "output.sync", "output.sync = '7s'"),
        ("--rotate-size=7MiB", "output.rotate_size", "output.rotate_size = '7MiB'"),
        ("--rotate-every=7s", "output.rotate_every", "output.rotate_every = '7s'"),
        ("--rotate-keep=7", "output.rotate_keep", "output.rotate_keep = 7"),
        ("--rotate-compress", "output.rotate_compress", "output.rotate_compress = true"),
        ("--heartbeat=7s", "output.heartbeat", "output.heartbeat = '7s'"),
        ("--socket=/a", "socket", "socket = '/a'"),
        ("--state-directory=/a", "state_directory", "state_directory = '/a'"),
        ("--ledger-keep=7s", "ledger_keep", "ledger_keep = '7s'"),
        ("--record=/a", "output.record", "output.record = '/a'"),
        ("--metrics=127.0.0.1:1", "output.metrics", "output.metrics = '127.0.0.1:1'"),
        ("--show-suppressed", "output.show_suppressed", "output.show_suppressed = true"),
        ("--log=trace", "log", "log = 'trace'"),
        ("--node=a", "node.name", "node.name = 'a'"),
        ("--cluster=a", "node.cluster", "node.cluster = 'a'"),
        ("--label=a=b", "node.labels", "node.labels.a = 'b'"),
        ("--redact=a+", "redaction.rules", "redaction.rules = ['a+']"),
        ("--no-default-redaction", "redaction.default_rules", "redaction.default_rules = false"),
        ("--bpf-object=/a", "bpf_object", "bpf_object = '/a'"),
        ("--runtime-socket=cri=/a", "runtimes.sockets", "runtimes.sockets = ['cri=/a']"),
        ("--no-runtime-sockets", "runtimes.usual_sockets", "runtimes.usual_sockets = false"),
        ("--enrich-wait=7s", "runtimes.enrich_wait", "runtimes.enrich_wait = '7s'"),
        ("--self-test-interval=7s", "self_test_interval", "self_test_interval = '7s'"),
        ("--every-act", "count_repeats", "count_repeats = false"),
    ];

    /// What a daemon with these arguments and this file would do.
    fn configured(arguments: &[&str], file: &str) -> String {
        let (settings, problems) = config::parse(file, Time(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(problems.iter().count(), 0, "{file}: {problems:?}");
        let arguments = ["run"].iter().chain(arguments);
        let args = Run::try_parse_from(arguments).expect("they are right").args;
        format!("{} {:?}", args.level(&settings), args.with(settings))
    }

    #[test]
    fn every_option_has_its_key_and_every_key_its_option() {
        let command = Run::command();
        let options = command.get_arguments().filter_map(|option| option.get_long()).map(|name| format!("--{name}"));
        let named = PAIRS.map(|(option, ..)| option.split_once('=').map_or(option, |(name, _)| name).to_owned());
        let expected: BTreeSet<_> = named.into_iter().chain(["--config".to_owned()]).collect();
        assert_eq!(options.collect::<BTreeSet<_>>(), expected);
        let is_of_list =
            |key: &str| ["exception.", "severity.", "watch.", "forward."].iter().any(|list| key.starts_with(list));
        let keys = keys().into_iter().filter(|key| !is_of_list(key));
        assert_eq!(keys.collect::<BTreeSet<_>>(), PAIRS.map(|(_, key, _)| key.to_owned()).into());
    }

    #[test]
    fn an_option_and_its_key_do_the_same() {
        let default = configured(&[], "");
        for (option, key, file) in PAIRS {
            assert!(file.starts_with(key), "{file}");
            assert_eq!(configured(&[option], ""), configured(&[], file), "{option} {file}");
            assert_ne!(configured(&[option], ""), default, "{option}");
        }
    }

    #[test]
    fn the_command_line_wins_over_the_file() {
        for (option, key, file) in PAIRS {
            let is_list = ["node.labels", "redaction.rules", "runtimes.sockets"].contains(&key);
            let is_switch = !option.contains('=');
            if !is_list && !is_switch {
                let other =
                    file.replace("'/a'", "'/b'").replace("'a'", "'b'").replace("'7s'", "'9s'").replace(":1'", ":2'");
                let other = other.replace("'trace'", "'warn'").replace("7MiB", "9MiB").replace("= 7", "= 9");
                assert_ne!(configured(&[], &other), configured(&[], file), "{other}");
                assert_eq!(configured(&[option], &other), configured(&[option], ""), "{option} {other}");
            }
            if is_switch {
                let on = file.replace("false", "true");
                assert_eq!(configured(&[option], &on), configured(&[option], ""), "{option} {on}");
            }
        }
    }

    #[test]
    fn what_can_be_given_more_than_once_is_added_to_the_file() {
        for (option, file, both) in [
            ("--label=c=d", "node.labels.a = 'b'", "node.labels = { a = 'b', c = 'd' }"),
            ("--label=a=c", "node.labels.a = 'b'", "node.labels = { a = 'c' }"),
            ("--redact=c", "redaction.rules = ['a']", "redaction.rules = ['a', 'c']"),
            ("--runtime-socket=cri=/c", "runtimes.sockets = ['cri=/a']", "runtimes.sockets = ['cri=/c', 'cri=/a']"),
        ] {
            assert_eq!(configured(&[option], file), configured(&[], both), "{option} {file}");
        }
    }

    #[test]
    fn the_default_file_gives_the_defaults() {
        assert_eq!(configured(&[], config::DEFAULT), configured(&[], ""));
    }
}
