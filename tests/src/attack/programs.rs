//! Programs that are executed.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{number, write};

pub(super) fn perform(operation: &str, args: &[OsString]) -> Option<Result<Value>> {
    Some(match (operation, args) {
        ("run", [program, args @ ..]) => run(Command::new(program).args(args)),
        ("run-as", [name, program, args @ ..]) => run(Command::new(program).arg0(name).args(args)),
        ("reverse-shell", []) => reverse_shell(),
        ("poke", [method, pid, address]) => poke(method, pid, address),
        _ => return None,
    })
}

/// Runs a program to its end.
pub(super) fn run(command: &mut Command) -> Result<Value> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(json!({"stdout": String::from_utf8_lossy(&output.stdout)}))
}

/// A shell that takes its commands from a connection and answers there.
fn reverse_shell() -> Result<Value> {
    let (mut attacker, victim) = UnixStream::pair()?;
    let end = || Ok::<_, std::io::Error>(Stdio::from(OwnedFd::from(victim.try_clone()?)));
    let mut shell = Command::new("/bin/sh").stdin(end()?).stdout(end()?).stderr(end()?).spawn()?;
    drop(victim);
    attacker.write_all(b"echo $((6 * 7))\nexit\n")?;
    let mut answer = String::new();
    attacker.read_to_string(&mut answer)?;
    shell.wait()?;
    ensure!(answer == "42\n", "the shell answered {answer:?}");
    Ok(Value::Null)
}

fn poke(method: &OsString, pid: &OsString, address: &OsString) -> Result<Value> {
    let address = address.to_str().context("no address")?.parse()?;
    write::poke(method.to_str().unwrap_or_default(), number(pid)?, address)
}
