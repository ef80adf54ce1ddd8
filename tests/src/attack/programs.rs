//! Executes programs.

use std::io::{self, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::operation::{Operation, number};
use super::write;

/// The operations of this module.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation::with("run", "PROGRAM ARGUMENT…", "runs a program", 1, |args| {
        run(Command::new(&args[0]).args(&args[1..]))
    }),
    Operation::with("run-as", "NAME PROGRAM ARGUMENT…", "runs a program with another argument 0", 2, |args| {
        run(Command::new(&args[1]).arg0(&args[0]).args(&args[2..]))
    }),
    Operation::plain("socket-shell", "runs a shell that takes its commands from a socket pair", || {
        let (attacker, victim) = UnixStream::pair()?;
        remote_shell(attacker, || victim.try_clone().map(OwnedFd::from), "")
    }),
    Operation::with(
        "reverse-shell",
        "ADDRESS COMMANDS",
        "runs a shell that takes its commands from the network",
        1,
        |args| {
            let address: IpAddr = args[0].to_str().context("no address")?.parse()?;
            let attacker = TcpListener::bind((address, 0))?;
            let peer = attacker.local_addr()?;
            let victim = TcpStream::connect(peer)?;
            let commands = args.get(1).and_then(|commands| commands.to_str()).unwrap_or_default();
            remote_shell(attacker.accept()?.0, || victim.try_clone().map(OwnedFd::from), commands)?;
            Ok(json!(peer.to_string()))
        },
    ),
    Operation::with("poke", "METHOD PID ADDRESS", "writes to the memory of another process", 3, |args| {
        let address = args[2].to_str().context("no address")?.parse()?;
        write::poke(&args[0], number(&args[1])?, address)
    }),
];

/// Executes a program, and waits until it ends.
pub(super) fn run(command: &mut Command) -> Result<Value> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(json!({"stdout": String::from_utf8_lossy(&output.stdout)}))
}

/// Runs a shell that takes its commands from a socket, and gives it these, which print nothing, and some more. `end`
/// returns the shell's end of the socket.
fn remote_shell(
    mut attacker: impl Read + Write,
    end: impl Fn() -> io::Result<OwnedFd>,
    commands: &str,
) -> Result<Value> {
    let mut shell = Command::new("/bin/sh").stdin(end()?).stdout(end()?).stderr(end()?).spawn()?;
    write!(attacker, "{commands}echo $((6 * 7))\nexit\n")?;
    let mut answer = [0; 3];
    attacker.read_exact(&mut answer)?;
    shell.wait()?;
    ensure!(answer == *b"42\n", "the shell answered {answer:?}");
    Ok(Value::Null)
}
