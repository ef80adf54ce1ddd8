//! The demo: a short attack on a real container, with the detector's live view on the same screen.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::container::{self, Container};
use crate::image::make_image;
use crate::program::{Running, wait_for};
use crate::protocol::Message;
use crate::sensor::{DETECTOR, Sensor, Tail, detector};

/// Pauses that give the viewer time to read.
const PAUSE: Duration = Duration::from_millis(1200);
/// What an attacker does in the container.
const INTRUSION: &str = "id -u; echo 'mode = open' > /etc/app.conf; cp /bin/busybox /usr/bin/backup";
/// The number of findings about the attack: what was done, and the session in which it was done.
const EXPECTED: usize = 4;
/// The time limit for the findings.
const PATIENCE: Duration = Duration::from_secs(20);
/// The number of the container.
const CONTAINER: u32 = 1;
/// The text shown in the interactive terminal.
const WELCOME: &str = "
You are root on a machine with one container, called web, that serves from /data. The detector's live view writes to
this terminal, too. Try:

    enter                       a shell in the container; then change something in it
    web ls /                    any command in the container
    cat /run/lab/findings.jsonl the findings, in full
    exit                        end; the machine is powered off
";
/// The start-up file of that terminal's shell.
const PROFILE: &str = "
PS1='\\033[36mhost\\033[0m # '
web() { runc exec \"$WEB\" \"$@\"; }
enter() { runc exec --tty \"$WEB\" /bin/sh; }
";

/// Runs the demo, or prepares the machine for an interactive session.
pub fn run(interactive: bool) -> Result<()> {
    make_image()?;
    let mut sensor = Sensor::start_with(Path::new("/run/lab"), &[])?;
    let mut tail = start_tail()?;
    if interactive {
        leave_to_person()?;
    } else {
        play(PAUSE)?;
    }
    sleep(PAUSE);
    tail.signal(Signal::INT)?;
    wait_for("the end of the live view", PATIENCE, || tail.ended())?;
    let findings = take_findings(&mut sensor)?;
    for line in &findings {
        Message::Finding { line: line.clone() }.send()?;
    }
    if interactive { Ok(()) } else { conclude(&findings) }
}

/// Runs the demo without pauses, and sends the detector's output as samples for the README.
pub fn send_samples() -> Result<()> {
    make_image()?;
    let mut sensor = Sensor::start_with(Path::new("/run/lab"), &[])?;
    let tail = Tail::start(Path::new("/run/lab/tail"), "compact", &[])?;
    play(Duration::ZERO)?;
    tail.wait_for("└ session_ended")?;
    let (_, text) = tail.interrupt()?;
    send_sample("tail", text)?;
    let findings = take_findings(&mut sensor)?;
    let change = findings.iter().find(|finding| finding["finding"] == "image_write");
    let change = change.context("there is no image_write")?;
    send_sample("finding", change.to_string())?;
    send_sample("explain", printed(&["explain", change["id"].as_str().context("it has an id")?])?)?;
    // The ledger learns within a second that the container has ended.
    let status = wait_for("a status without a container", PATIENCE, || {
        let status = printed(&["status"])?;
        Ok((!status.contains("\nledger ")).then_some(status))
    })?;
    send_sample("status", status)?;
    sensor.stop()?;
    send_sample("doctor", printed(&["doctor"])?)
}

fn send_sample(name: &str, text: String) -> Result<()> {
    Message::Output { name: name.to_owned(), text }.send()
}

/// The output of a command of the detector.
fn printed(args: &[&str]) -> Result<String> {
    let output = detector(args)?;
    ensure!(output.status.success(), "detector {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn take_findings(sensor: &mut Sensor) -> Result<Vec<Value>> {
    Ok(sensor.take_lines()?.into_iter().filter(|line| !line["finding"].is_null()).collect())
}

fn say(text: &str, pause: Duration) {
    println!("\n\x1b[1m── {text}\x1b[0m");
    sleep(pause);
}

fn play(pause: Duration) -> Result<()> {
    let say = |text: &str| say(text, pause);
    say("A service starts in a container, from its image. Nothing to report.");
    let web = Container::service(CONTAINER)?;
    sleep(pause);

    say("It writes to its volume, as it should. Nothing to report.");
    fs::write(web.host_path("/data/orders"), "one\n")?;
    web.service_does(&["create", "/data/invoice"])?;
    sleep(pause);

    say(&format!("Somebody gets a shell in it and types: {INTRUSION}"));
    web.exec_tty(&["/bin/sh", "-c", INTRUSION])?;
    ensure!(fs::read(web.host_path("/etc/app.conf"))? == b"mode = open\n", "the configuration was not changed");
    ensure!(fs::read(web.host_path("/usr/bin/backup"))? == fs::read("/bin/busybox")?, "the binary was not replaced");
    sleep(pause);

    say("The service stops. Nothing to report.");
    drop(web);
    Ok(())
}

fn leave_to_person() -> Result<()> {
    let web = Container::service(CONTAINER)?;
    fs::write("/run/lab/profile", PROFILE)?;
    println!("{WELCOME}");
    Command::new("/bin/busybox")
        .arg0("setsid")
        .args(["cttyhack", "sh"])
        .env("ENV", "/run/lab/profile")
        .env("WEB", &web.id)
        .status()
        .context("cannot run a shell")?;
    Ok(())
}

/// Prints the findings, and checks that they are the expected ones.
fn conclude(findings: &[Value]) -> Result<()> {
    say("What the detector wrote down:", PAUSE);
    let id = container::id(CONTAINER);
    // A later line with the same id is an update.
    let is_first =
        |&(nth, finding): &(usize, &Value)| !findings[..nth].iter().any(|earlier| earlier["id"] == finding["id"]);
    let shown: Vec<[&str; 4]> = findings
        .iter()
        .enumerate()
        .filter(is_first)
        .map(|(_, finding)| {
            ["/finding", "/file/path", "/process/origin", "/container/id"]
                .map(|key| finding.pointer(key).and_then(Value::as_str).unwrap_or("-"))
        })
        .collect();
    for [finding, path, origin, container] in &shown {
        println!("   {finding:20} {path:20} {origin:10} in {container:.12}");
    }
    let expected: [_; EXPECTED] = [
        ["shell_in_container", "/bin/busybox", "entered", &id],
        ["session", "-", "entered", &id],
        ["image_write", "/etc/app.conf", "entered", &id],
        ["image_write", "/usr/bin/backup", "entered", &id],
    ];
    ensure!(shown == expected, "these are the findings that should be: {expected:#?}");
    println!(
        "\nOne session with a shell and two changes of the image; nothing for the service, its volume and the runtime."
    );
    Ok(())
}

/// Starts the live view on the screen.
fn start_tail() -> Result<Running> {
    let mut tail = Running::start(Command::new(DETECTOR).arg("tail"))?;
    // `detector tail` does not report that it is connected, so this checks that it keeps running.
    let connected = Duration::from_millis(500);
    sleep(connected);
    let ended = wait_for("the live view's state", connected, || Ok(Some(tail.ended()?)))?;
    ensure!(ended.is_none(), "detector tail ended: {ended:?}");
    Ok(tail)
}
