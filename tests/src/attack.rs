//! The attacker: the program inside the test containers. Each operation checks its own effect and answers with what it
//! did, so that a test that finds nothing cannot pass because nothing happened.
//!
//! `tool OPERATION ARGUMENT…` performs one; `tool serve` is a container's service, which performs what it is sent through
//! a socket on the volume, as an application that was broken into would.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{IoSlice, Read, Seek, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Value, json};

/// Socket of the service, in the container.
pub const SOCKET: &str = "/data/tool.sock";
/// What the operations write.
const MARK: &[u8] = b"changed by the attacker\n";

/// Descriptors that are kept open between two operations of the service.
type Held = HashMap<OsString, File>;

/// Performs what the arguments say.
pub fn main(args: &[OsString]) -> Result<()> {
    if args.first().is_some_and(|operation| operation == "serve") {
        return serve();
    }
    println!("{}", perform(args, &mut Held::new())?);
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
    serde_json::from_str::<Result<Value, String>>(&answer)?.map_err(|error| anyhow!("in the container: {error}"))
}

fn serve() -> Result<()> {
    let listener = UnixListener::bind(SOCKET).with_context(|| format!("cannot listen on {SOCKET}"))?;
    let mut held = Held::new();
    for stream in listener.incoming() {
        let mut stream = stream?;
        let mut request = Vec::new();
        stream.read_to_end(&mut request)?;
        let args: Vec<_> = request.split(|byte| *byte == 0).map(|arg| OsString::from_vec(arg.to_vec())).collect();
        let answer = perform(&args, &mut held).map_err(|error| format!("{error:#}"));
        stream.write_all(serde_json::to_string(&answer)?.as_bytes())?;
    }
    Ok(())
}

fn perform(args: &[OsString], held: &mut Held) -> Result<Value> {
    let [operation, args @ ..] = args else { bail!("no operation") };
    let name = operation.to_str().unwrap_or_default();
    match (name, args) {
        ("append" | "truncate" | "create" | "writev" | "pwritev", [path]) => change(name, Path::new(path)),
        ("hold", [path]) => {
            held.insert(path.clone(), OpenOptions::new().append(true).open(path)?);
            identity(Path::new(path))
        }
        ("write-held", [path]) => {
            let mut file = held.get(path).context("not held")?;
            file.write_all(MARK)?;
            verify(Path::new(path))
        }
        ("link", [old, new]) => {
            fs::hard_link(old, new)?;
            identity(Path::new(new))
        }
        ("denied", [path]) => denied(Path::new(path)),
        ("harmless", []) => harmless(),
        ("run", [program, args @ ..]) => run(Command::new(program).args(args)),
        ("run-as", [name, program, args @ ..]) => run(Command::new(program).arg0(name).args(args)),
        ("reverse-shell", []) => reverse_shell(),
        ("flood", [writers, files]) => flood(number(writers)?, number(files)?),
        ("measure", [operation]) => Ok(json!(crate::measure::measure(operation.to_str().unwrap_or_default())?)),
        _ => crate::attack_exec::perform(name, args),
    }
}

/// Changes a file in one of the ways that there are, and checks that it did.
fn change(how: &str, path: &Path) -> Result<Value> {
    let mut options = OpenOptions::new();
    match how {
        "truncate" => options.write(true).truncate(true),
        "create" => options.write(true).create_new(true),
        "append" => options.append(true),
        _ => options.write(true),
    };
    let mut file = options.open(path).with_context(|| format!("cannot open {}", path.display()))?;
    match how {
        "writev" => {
            file.rewind()?;
            ensure!(file.write_vectored(&[IoSlice::new(&MARK[..4]), IoSlice::new(&MARK[4..])])? == MARK.len());
        }
        "pwritev" => {
            let flags = rustix::io::ReadWriteFlags::DSYNC;
            ensure!(rustix::io::pwritev2(&file, &[IoSlice::new(MARK)], 0, flags)? == MARK.len());
        }
        _ => file.write_all(MARK)?,
    }
    verify(path)
}

/// The file has what was written, and is this file.
fn verify(path: &Path) -> Result<Value> {
    let content = fs::read(path)?;
    ensure!(
        content.windows(MARK.len()).any(|part| part == MARK),
        "{} does not have what was written to it",
        path.display()
    );
    identity(path)
}

/// Device and inode, in the form of a finding.
pub(crate) fn identity(path: &Path) -> Result<Value> {
    let stat = fs::metadata(path)?;
    let device = format!("{}:{}", rustix::fs::major(stat.dev()), rustix::fs::minor(stat.dev()));
    Ok(json!({"dev": device, "inode": stat.ino()}))
}

/// Tries to change a file without being allowed to.
fn denied(path: &Path) -> Result<Value> {
    let before = fs::metadata(path)?.mtime_nsec();
    ensure!(OpenOptions::new().write(true).open(path).is_err(), "{} could be opened", path.display());
    let missing = path.join("missing");
    ensure!(OpenOptions::new().write(true).open(&missing).is_err(), "{} could be opened", missing.display());
    // Reaches vfs_write, and fails there.
    ensure!(File::open(path)?.write(MARK).is_err(), "a read-only descriptor could be written");
    ensure!(fs::metadata(path)?.mtime_nsec() == before, "{} was changed", path.display());
    Ok(Value::Null)
}

/// Writes to everything that is not the image.
fn harmless() -> Result<Value> {
    for path in ["/data/file", "/dev/shm/file"] {
        fs::write(path, MARK)?;
        verify(Path::new(path))?;
    }
    fs::write("/dev/null", MARK)?;
    fs::write("/proc/self/comm", "renamed")?;
    ensure!(fs::read("/proc/self/comm")? == b"renamed\n", "comm was not written");
    let mut content = vec![0; MARK.len()];
    let (mut reader, mut writer) = std::io::pipe()?;
    writer.write_all(MARK)?;
    reader.read_exact(&mut content)?;
    let (one, mut other) = UnixStream::pair()?;
    // As a file, for the type itself sends.
    File::from(OwnedFd::from(one)).write_all(MARK)?;
    other.read_exact(&mut content)?;
    ensure!(content == MARK, "the socket gave something else");
    let mut memory = File::from(rustix::fs::memfd_create(c"memory", rustix::fs::MemfdFlags::CLOEXEC)?);
    memory.write_all(MARK)?;
    Ok(Value::Null)
}

/// Runs a program to its end.
pub(crate) fn run(command: &mut Command) -> Result<Value> {
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

fn number(text: &OsStr) -> Result<u32> {
    Ok(text.to_str().context("no number")?.parse()?)
}

/// Many writers at once make many files each, as fast as it goes.
fn flood(writers: u32, files: u32) -> Result<Value> {
    let write = |writer: u32| -> Result<()> {
        let folder = flooded(writer, "");
        fs::create_dir_all(&folder)?;
        for file in 0..files {
            let path = flooded(writer, &file.to_string());
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            for _ in 0..4 {
                file.write_all(b"x")?;
            }
        }
        let made = fs::read_dir(&folder)?.count();
        ensure!(made == files as usize, "{made} files are there instead of {files}");
        Ok(())
    };
    thread::scope(|scope| {
        let writers: Vec<_> = (0..writers).map(|writer| scope.spawn(move || write(writer))).collect();
        writers.into_iter().try_for_each(|writer| writer.join().expect("a writer does not panic"))
    })?;
    Ok(Value::Null)
}

/// Path of a file that a writer of a flood makes.
pub fn flooded(writer: u32, file: &str) -> String {
    format!("/srv/writer-{writer}/{file}")
}
