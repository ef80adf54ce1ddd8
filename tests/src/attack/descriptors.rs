//! Changes files through descriptors that another process opened, or that were opened earlier.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use serde_json::{Value, json};

use super::effect::identity;
use super::operation::{Held, Operation};
use super::seccomp;
use crate::image::MARK;

/// The operations of this module.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation::on_held("hold", "PATH", "opens a file and keeps it open", 1, |args, held| hold(&args[0], held)),
    Operation::on("write-received", "writes through a descriptor that is passed through a socket", |socket| {
        mark(receive(socket)?)
    }),
    Operation::on("inherit", "opens a file, to which a child then writes", inherit),
    Operation::plain("write-inherited", "writes to its standard input", || {
        mark(io::stdin().as_fd().try_clone_to_owned()?)
    }),
    Operation::on("steal", "takes the descriptor of another process, and writes", steal),
    Operation::on("be-stolen-from", "opens a file, and waits", be_stolen_from),
    Operation::on("supervise", "answers a system call of a child with a descriptor, to which it writes", supervise),
    Operation::plain("be-supervised", "has its system calls answered, and writes to what it gets", be_supervised),
];

fn open(path: &Path) -> Result<File> {
    OpenOptions::new().read(true).write(true).open(path).with_context(|| format!("cannot open {}", path.display()))
}

/// Opens a file for a later operation.
fn hold(path: &OsString, held: &mut Held) -> Result<Value> {
    let file = open(Path::new(path))?;
    let mut answer = identity(Path::new(path))?;
    answer["descriptor"] = json!(file.as_raw_fd());
    held.insert(path.clone(), file);
    Ok(answer)
}

/// Writes through a descriptor, and checks the file through it, because its name may differ here.
fn mark(descriptor: OwnedFd) -> Result<Value> {
    let file = File::from(descriptor);
    file.write_all_at(MARK, 0)?;
    let mut content = vec![0; MARK.len()];
    file.read_exact_at(&mut content, 0)?;
    ensure!(content == MARK, "the file does not have what was written to it");
    Ok(Value::Null)
}

/// Takes a descriptor from another process, without hiding it from that process.
pub fn take(pid: u32, descriptor: RawFd) -> Result<OwnedFd> {
    let pid = Pid::from_raw(pid.cast_signed()).context("the process id is 0")?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    Ok(pidfd_getfd(process, descriptor, PidfdGetfdFlags::empty())?)
}

/// Sends a descriptor to the first process that connects to a socket.
pub fn pass(socket: &UnixListener, descriptor: impl AsFd) -> Result<()> {
    let (stream, _) = socket.accept()?;
    let descriptors = [descriptor.as_fd()];
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    ensure!(control.push(SendAncillaryMessage::ScmRights(&descriptors)), "there is no room for a descriptor");
    sendmsg(stream, &[IoSlice::new(b"x")], &mut control, SendFlags::empty())?;
    Ok(())
}

/// Receives a descriptor through a socket.
pub(super) fn receive(socket: &Path) -> Result<OwnedFd> {
    let stream = UnixStream::connect(socket)?;
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut room);
    recvmsg(stream, &mut [IoSliceMut::new(&mut [0])], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let descriptors = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    descriptors.context("no descriptor was received")
}

/// Starts a child with the descriptor as its standard input.
fn inherit(path: &Path) -> Result<Value> {
    let mut child = Command::new("/proc/self/exe");
    let output = child.arg("write-inherited").stdin(open(path)?).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the heir failed: {}", output.status);
    identity(path)
}

/// A child that prints a number, and then waits until it is told to continue.
struct Partner {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
    number: RawFd,
}

impl Partner {
    fn start(command: &mut Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut output = BufReader::new(child.stdout.take().context("the child has no standard output")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        let number = line.trim().parse().with_context(|| format!("it says {line:?}"))?;
        Ok(Self { child, output, number })
    }

    /// Waits until the child has ended successfully.
    fn finish(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        io::copy(&mut self.output, &mut io::sink())?;
        let status = self.child.wait()?;
        ensure!(status.success(), "the other process failed: {status}");
        Ok(())
    }
}

/// Takes the descriptor of a file that a child has opened.
fn steal(path: &Path) -> Result<Value> {
    let victim = Partner::start(Command::new("/proc/self/exe").arg("be-stolen-from").arg(path))?;
    mark(take(victim.child.id(), victim.number)?)?;
    victim.finish()?;
    identity(path)
}

fn be_stolen_from(path: &Path) -> Result<Value> {
    let file = open(path)?;
    println!("{}", file.as_raw_fd());
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(Value::Null)
}

/// Supervises the system calls of a child, answers a harmless one, and gives the child a descriptor.
fn supervise(path: &Path) -> Result<Value> {
    let child = Partner::start(Command::new("/proc/self/exe").arg("be-supervised"))?;
    let listener = take(child.child.id(), child.number)?;
    seccomp::answer_with(&listener, &open(path)?)?;
    child.finish()?;
    identity(path)
}

fn be_supervised() -> Result<Value> {
    let listener = seccomp::be_supervised()?;
    println!("{}", listener.as_raw_fd());
    mark(seccomp::ask()?)
}
