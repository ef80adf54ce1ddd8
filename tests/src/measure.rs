//! Measures the cost of the detector. Under `-icount shift=0`, a nanosecond in the guest is one executed instruction.
//!
//! For the probes, it measures the time of an operation on the bare kernel and with the sensor attached. The sensor's
//! process is stopped in the meantime, so that only the kernel's part is measured. For the daemon, it measures its CPU
//! time, its memory, and how it handles a flood of events.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::attack;
use crate::container::{Container, id};
use crate::image::make_image;
use crate::program::on_host;
use crate::protocol::Message;
use crate::sensor::{Memory, Sensor};

/// The operations measured on the host: the name in the table and the name of the operation.
const ON_HOST: &[(&str, &str)] = &[
    ("getppid", "getppid"),
    ("1-byte write, host file", "write-host"),
    ("1-byte write, pipe", "write-pipe"),
    ("1-byte write and read, socket", "write-socket"),
    ("1-byte write, /dev/null", "write-null"),
    ("open for reading, host file", "read-host"),
    ("open for writing, host file", "open-host"),
    ("map and unmap, host file", "mmap"),
    ("chmod, host file", "chmod"),
    ("set and remove attribute, host file", "attribute"),
    ("rename, host file", "rename"),
    ("link and unlink, host file", "link"),
    ("symlink and unlink, host", "symlink"),
    ("mknod and unlink, host", "mknod"),
    ("mkdir and rmdir, host", "mkdir"),
    ("mount and umount, host", "mount"),
    ("remount, host", "remount"),
    ("mount_setattr, host", "mount-setattr"),
    ("fork, exec, wait, host", "exec"),
    ("connect and accept, host", "accept"),
];

/// The operations measured in a container.
const IN_CONTAINER: &[(&str, &str)] = &[
    ("1-byte write, volume", "write-volume"),
    ("create and write, new image file", "first-new"),
    ("open and write, first of image file", "first-lower"),
    ("1-byte write, flagged image file", "write-image"),
    ("open for writing, flagged image file", "open-image"),
    ("fork, exec, wait, container", "exec"),
    ("connect and accept, container", "accept"),
];

/// The operations measured in a container that a rule keeps from being watched.
const UNWATCHED: &[(&str, &str)] = &[
    ("create and write, unwatched container", "first-new"),
    ("open and write, unwatched container", "first-lower"),
    ("fork, exec, wait, unwatched container", "exec"),
];
/// The number of the container that is not watched.
const NUMBER_UNWATCHED: u32 = 20;

/// The file with the rule.
const RULES: &str = "/run/lab/rules.toml";

/// The receivers of the forwarders: their names and their URLs. Nobody listens there.
const EVERY_RECEIVER: [(&str, &str); 5] = [
    ("syslog", "tcp://127.0.0.1:2601"),
    ("relp", "relp://127.0.0.1:2602"),
    ("webhook", "http://127.0.0.1:2603/"),
    ("otlp", "otlp+http://127.0.0.1:2604"),
    ("grpc", "otlp+grpc://127.0.0.1:2605"),
];

/// The number of processes that create files in the flood, and the number of files of each.
const FLOOD: [usize; 2] = [4, 5000];
/// How long the daemon must report nothing before a flood counts as handled. It checks for lost events more often.
const SILENCE: Duration = Duration::from_secs(10);
/// How long the daemon runs without events before it has returned memory to the system, and counts as idle: it does so
/// when it is quiet, and again after a minute, when all of its threads are.
const SETTLE: Duration = Duration::from_secs(80);
/// How long it is measured then.
const IDLE: Duration = Duration::from_secs(60);

/// Measures everything, and sends the results to the host.
pub fn run() -> Result<()> {
    make_image()?;
    fs::create_dir_all("/run/lab")?;
    on_host("/bin/busybox", ["ip", "link", "set", "lo", "up"])?;
    let rule = "[[watch]]\nname = 'bench'\nreason = 'It is measured.'\nwatched = false\n";
    fs::write(RULES, format!("{rule}cgroup = '/*.slice/docker-{}.scope'\n", id(NUMBER_UNWATCHED)))?;
    // The first pass only warms the machine up: the last result of each name counts.
    for (number, setup) in (1..).zip(["bare", "bare", "attached"]) {
        let sensor = match setup {
            "attached" => Some(Sensor::start_with(
                Path::new("/run/lab/sensor"),
                &["--every-act", "--config", RULES].map(OsStr::new),
            )?),
            _ => None,
        };
        let (container, unwatched) = (Container::service(number)?, Container::service(NUMBER_UNWATCHED)?);
        for &(name, operation) in ON_HOST {
            send_sample(setup, name, while_stopped(sensor.as_ref(), || attack::measure(operation))?)?;
        }
        for (container, operations) in [(&container, IN_CONTAINER), (&unwatched, UNWATCHED)] {
            for &(name, operation) in operations {
                let measured = while_stopped(sensor.as_ref(), || container.service_does(&["measure", operation]))?;
                send_sample(setup, name, measured.as_f64().context("no number")?)?;
            }
        }
    }
    measure_daemon()?;
    measure_everything()
}

fn send_sample(setup: &str, operation: &str, nanoseconds: f64) -> Result<()> {
    println!("{setup:10} {operation:40} {nanoseconds:12.1}");
    Message::Sample { setup: setup.to_owned(), operation: operation.to_owned(), nanoseconds }.send()
}

fn send_figure(name: &str, value: f64, unit: &str) -> Result<()> {
    println!("{name:51} {value:12.1} {unit}");
    Message::Figure { name: name.to_owned(), value, unit: unit.to_owned() }.send()
}

/// Runs a function while the sensor's process, if there is one, is stopped.
fn while_stopped<T>(sensor: Option<&Sensor>, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let Some(sensor) = sensor else { return work() };
    sensor.signal(Signal::STOP)?;
    let result = work();
    sensor.signal(Signal::CONT)?;
    // This lets the sensor read the records now, and not during the next measurement.
    sleep(Duration::from_millis(200));
    result
}

/// Measures a daemon at its start, while idle, and in a flood of events.
fn measure_daemon() -> Result<()> {
    let container = Container::service(10)?;
    let mut sensor = Sensor::start(Path::new("/run/lab/daemon"))?;
    send_figure("start of the daemon", sensor.cpu_time()?.as_secs_f64() * 1e3, "million instructions")?;

    sleep(SETTLE);
    send_memory("after the start", &sensor)?;
    let before = sensor.cpu_time()?;
    sleep(IDLE);
    let spent = sensor.cpu_time()?.saturating_sub(before);
    send_figure("idle daemon", spent.as_nanos() as f64 / IDLE.as_secs_f64() / 1e6, "million instructions a second")?;
    flood(&container, &mut sensor)?;
    send_memory("after that", &sensor)
}

/// Measures the memory of a daemon with all that can be on: beside the log and the ledger, metrics, a recording, and
/// forwarders that keep trying.
fn measure_everything() -> Result<()> {
    const CONFIG: &str = "/run/lab/everything.toml";
    let forwarders = EVERY_RECEIVER.map(|(name, to)| format!("[[forward]]\nname = '{name}'\nto = '{to}'\n"));
    fs::write(CONFIG, forwarders.concat())?;
    let container = Container::service(11)?;
    let (metrics, recording) = ("unix:/run/lab/metrics", "/run/lab/recording");
    let arguments = ["--every-act", "--config", CONFIG, "--metrics", metrics, "--record", recording];
    let mut sensor = Sensor::start_with(Path::new("/run/lab/everything"), &arguments.map(OsStr::new))?;
    sleep(SETTLE);
    send_memory("with everything on", &sensor)?;
    send_figure("  beside that, maps and programs in the kernel", mebibytes(sensor.kernel_memory()? / 1024), "MiB")?;
    flood(&container, &mut sensor)?;
    send_memory("after that", &sensor)
}

/// Creates files in a container until all are reported, and sends how many are.
fn flood(container: &Container, sensor: &mut Sensor) -> Result<()> {
    sensor.take_lines()?;
    let before = sensor.cpu_time()?;
    let [writers, files] = FLOOD.map(|number| number.to_string());
    container.service_does(&["flood", &writers, &files, "1", "0"])?;
    let (mut reported, mut with_path) = (0_u32, 0_u32);
    let mut last = Instant::now();
    while last.elapsed() < SILENCE {
        for line in sensor.take_lines()?.iter().filter(|line| line["file"]["op"] == "create") {
            reported += 1;
            with_path += u32::from(!line["file"]["path"].is_null());
            last = Instant::now();
        }
        sleep(Duration::from_millis(100));
    }
    let spent = sensor.cpu_time()?.saturating_sub(before);
    // Then it returns memory to the system.
    sleep(SETTLE);
    let all = FLOOD[0] * FLOOD[1];
    send_figure(&format!("{all} files created: reported"), reported.into(), "files")?;
    send_figure(&format!("{all} files created: reported with their path"), with_path.into(), "files")?;
    send_figure("the daemon's work for each", spent.as_nanos() as f64 / 1e3 / all as f64, "thousand instructions")
}

fn send_memory(when: &str, sensor: &Sensor) -> Result<()> {
    let Memory { program, records, kept, forwarders } = sensor.memory_by_use()?;
    send_figure(&format!("memory {when}"), mebibytes(program + records + kept + forwarders), "MiB")?;
    let uses = [
        (program, "the program"),
        (records, "records of the probes"),
        (kept, "what the daemon keeps"),
        (forwarders, "what the forwarders keep"),
    ];
    for (size, of) in uses.into_iter().filter(|(size, _)| *size > 0) {
        send_figure(&format!("  {of}"), mebibytes(size), "MiB")?;
    }
    Ok(())
}

fn mebibytes(kibibytes: u64) -> f64 {
    kibibytes as f64 / 1024.0
}
