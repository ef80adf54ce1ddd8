//! The attacker: the program inside the test containers. Each operation checks its own effect and answers with what it
//! did, so that a test that finds nothing cannot pass because nothing happened.
//!
//! `tool OPERATION ARGUMENT…` performs one; `tool serve` is a container's service, which performs what it is sent through
//! a socket on the volume, as an application that was broken into would. Some operations are ways to perform another one:
//! `in-thread append /etc/app.conf`.

mod answer;
mod descriptors;
mod devices;
mod exec;
mod flood;
mod harmless;
mod metadata;
mod mounts;
mod names;
mod open;
mod programs;
mod raw;
mod seccomp;
mod uring;
mod wrap;
mod write;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Value, json};

pub use answer::{kernel, read as read_answer};
pub use descriptors::{pass, take};
pub use flood::{flooded, flooding_shell};

/// Socket of the service, in the container.
pub const SOCKET: &str = "/data/tool.sock";
/// What the operations write.
pub const MARK: &[u8] = b"changed by the attacker\n";
/// A file of the image that has [`MARK`] as its content, for the operations that copy it.
pub const SOURCE: &str = "/srv/mark";

/// Descriptors that are kept open between two operations of the service.
type Held = HashMap<OsString, File>;

/// Performs what the arguments say.
pub fn main(args: &[OsString]) -> Result<()> {
    if args.first().is_some_and(|operation| operation == "serve") {
        return serve();
    }
    println!("{}", answer::of(perform(args, &mut Held::new()))?);
    Ok(())
}

/// Has a service perform an operation.
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

/// Maps a file as loaders do, and unmaps it.
pub fn map_code(file: &File) -> Result<()> {
    raw::Map::code(file, 1)?;
    Ok(())
}

/// Has a mount not note when directories are read, or note it, with mount_setattr(2).
pub fn switch_mount(at: &Path, is_on: bool) -> Result<()> {
    let option = rustix::mount::MountAttrFlags::MOUNT_ATTR_NODIRATIME.bits().into();
    let (set, clear) = if is_on { (option, 0) } else { (0, option) };
    Ok(raw::mount_setattr(at, set, clear)?)
}

fn serve() -> Result<()> {
    // It gets its name when it listens: between that and its making, nobody can connect.
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

fn perform(args: &[OsString], held: &mut Held) -> Result<Value> {
    let [operation, args @ ..] = args else { bail!("no operation") };
    let name = operation.to_str().unwrap_or_default();
    let paths: Vec<&Path> = args.iter().map(Path::new).collect();
    match (name, args) {
        ("hold", [path]) => descriptors::hold(path, held),
        ("write", [method, path]) => write::opened(method, Path::new(path)),
        ("write-held", [method, path]) => write::through(method, held.get(path).context("not held")?, Path::new(path)),
        ("in-thread", args) => wrap::in_thread(args),
        ("without-leader", args) => wrap::without_leader(args),
        ("renamed", args) => wrap::renamed(args),
        ("in-namespaces", args) => wrap::in_namespaces(args),
        ("with-own-mounts", args) => wrap::with_own_mounts(args),
        ("with-mounts", [socket, operation @ ..]) => wrap::with_mounts(Path::new(socket), operation),
        ("moved", [cgroup, operation @ ..]) => wrap::moved(Path::new(cgroup), operation),
        ("born", [cgroup, operation @ ..]) => wrap::born(Path::new(cgroup), operation),
        ("nested", [path]) => wrap::nested(Path::new(path)),
        ("harmless", []) => harmless::everything(),
        ("flood", [writers, files, writes]) => flood::flood(number(writers)?, number(files)?, number(writes)?),
        ("flood-run", [threads, programs]) => flood::run(number(threads)?, number(programs)?),
        ("measure", [operation]) => Ok(json!(crate::measure::measure(operation.to_str().unwrap_or_default())?)),
        _ => None
            .or_else(|| open::perform(name, &paths))
            .or_else(|| names::perform(name, &paths))
            .or_else(|| metadata::perform(name, &paths))
            .or_else(|| mounts::perform(name, &paths))
            .or_else(|| devices::perform(name, &paths))
            .or_else(|| descriptors::perform(name, &paths))
            .or_else(|| harmless::perform(name, &paths))
            .or_else(|| programs::perform(name, args))
            .or_else(|| exec::perform(name, args))
            .unwrap_or_else(|| bail!("unknown operation {operation:?} with {} arguments", args.len())),
    }
}

/// The file has what was written, and is this file.
fn verify(path: &Path) -> Result<Value> {
    ensure!(is_marked(path)?, "{} does not have what was written to it", path.display());
    identity(&fs::canonicalize(path)?)
}

fn is_marked(path: &Path) -> Result<bool> {
    Ok(fs::read(path)?.windows(MARK.len()).any(|part| part == MARK))
}

/// Device and inode of what is at a path, in the form of a finding.
fn identity(path: &Path) -> Result<Value> {
    let stat = fs::symlink_metadata(path).with_context(|| format!("there is no {}", path.display()))?;
    let device = format!("{}:{}", rustix::fs::major(stat.dev()), rustix::fs::minor(stat.dev()));
    Ok(json!({"dev": device, "inode": stat.ino()}))
}

fn number(text: &OsStr) -> Result<u32> {
    Ok(text.to_str().context("no number")?.parse()?)
}
