//! The attacker: the program in the test containers. Each operation checks its own effect and reports it, so that a
//! test without findings cannot pass because nothing happened.
//!
//! `tool OPERATION ARGUMENT…` performs an operation, and `tool help` lists them. `tool serve` is the service of a
//! container: it performs operations that it receives through a socket on the volume, like a compromised application.
//! Some operations perform another one in other circumstances: `in-thread append /etc/app.conf`.

mod answer;
mod controls;
mod daemon;
mod descriptors;
mod devices;
mod effect;
mod exec;
mod flood;
mod fuse;
mod harmless;
mod interfaces;
mod maps;
mod measured;
mod metadata;
mod mounts;
mod names;
mod open;
mod operation;
mod ordinary;
mod programs;
mod raw;
mod seccomp;
mod uring;
mod wrap;
mod write;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

pub use answer::{NotApplicable, kernel, read as read_answer};
pub use daemon::{disable_events, links, make_close};
pub use descriptors::{pass, take};
pub use flood::{DEEP, flooded, flooding_shell};
pub use maps::{empty_map, read_maps};
pub use measured::measure;
pub use open::handle_of;

use operation::{Held, Operation};

/// The path of the service's socket in the container.
pub const SOCKET: &str = "/data/tool.sock";

/// Performs the operation that the arguments name.
pub fn main(args: &[OsString]) -> Result<()> {
    match args.first().and_then(|operation| operation.to_str()) {
        Some("serve") => serve(),
        Some("help") => {
            help();
            Ok(())
        }
        _ => answer::print(perform(args, &mut Held::new())),
    }
}

/// Makes a service perform an operation.
pub fn request<S: AsRef<OsStr>>(socket: &Path, args: &[S]) -> Result<Value> {
    let mut stream = UnixStream::connect(socket).with_context(|| format!("no service at {}", socket.display()))?;
    let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_ref().as_bytes()).collect();
    stream.write_all(&args.join(&0))?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let answer = serde_json::from_str::<Result<Value, String>>(&answer)?;
    answer::found(answer.map_err(|error| anyhow!("in the container: {error}"))?)
}

fn serve() -> Result<()> {
    // The socket gets its name when it listens, so that nobody can connect too early.
    let unready = format!("{SOCKET}.new");
    let listener = UnixListener::bind(&unready).with_context(|| format!("cannot listen on {unready}"))?;
    fs::rename(unready, SOCKET)?;
    let mut held = Held::new();
    for stream in listener.incoming() {
        let mut stream = stream?;
        let mut request = Vec::new();
        stream.read_to_end(&mut request)?;
        let args: Vec<_> = request.split(|byte| *byte == 0).map(|arg| OsString::from_vec(arg.to_vec())).collect();
        let answer = answer::of(perform(&args, &mut held)).map_err(|error| format!("{error:#}"));
        stream.write_all(serde_json::to_string(&answer)?.as_bytes())?;
    }
    Ok(())
}

/// All operations of the attacker.
const OPERATIONS: &[&[Operation]] = &[
    open::OPERATIONS,
    write::OPERATIONS,
    names::OPERATIONS,
    metadata::OPERATIONS,
    mounts::OPERATIONS,
    controls::OPERATIONS,
    daemon::OPERATIONS,
    maps::OPERATIONS,
    devices::OPERATIONS,
    descriptors::OPERATIONS,
    programs::OPERATIONS,
    exec::OPERATIONS,
    flood::OPERATIONS,
    fuse::OPERATIONS,
    harmless::OPERATIONS,
    ordinary::OPERATIONS,
    wrap::OPERATIONS,
    measured::OPERATIONS,
];

fn operations() -> impl Iterator<Item = &'static Operation> {
    OPERATIONS.iter().copied().flatten()
}

/// Performs the operation that the arguments name.
fn perform(args: &[OsString], held: &mut Held) -> Result<Value> {
    let [name, args @ ..] = args else { bail!("no operation; `tool help` lists them") };
    let operation = operations().find(|operation| name == operation.name);
    let operation = operation.with_context(|| format!("unknown operation {name:?}; `tool help` lists them"))?;
    operation.perform(args, held, |other| perform(other, &mut Held::new()))
}

/// Prints the list of operations.
fn help() {
    println!("{:40} serves: performs the operations that it is sent through a socket", "serve");
    for Operation { name, arguments, effect, .. } in operations() {
        println!("{:40} {effect}", format!("{name} {arguments}"));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_operation_has_a_name_of_its_own() {
        let names: BTreeSet<_> = operations().map(|operation| operation.name).collect();
        assert_eq!(names.len(), operations().count());
    }

    #[test]
    fn operations_that_do_not_exist_are_refused() {
        let error = perform(&["fly".into()], &mut Held::new()).expect_err("there is no such operation");
        assert!(error.to_string().contains("\"fly\""), "{error}");
        let error = perform(&["rename".into(), "/a".into()], &mut Held::new()).expect_err("it takes two paths");
        assert!(error.to_string().contains("usage: rename PATH NEW"), "{error}");
    }
}
