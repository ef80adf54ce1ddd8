//! Measures how long an operation takes that is performed many times. This is part of the attacker because some are
//! measured in a container.

use std::fs::{self, File, OpenOptions};
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat};
use rustix::mount::{MountAttrFlags, MountFlags, UnmountFlags, mount_remount, unmount};
use serde_json::json;

use super::operation::Operation;
use super::raw;
use crate::image::{MANY, many_file};
use crate::init::mount_at;

/// The operations of this module.
pub(super) const OPERATIONS: &[Operation] =
    &[Operation::with("measure", "OPERATION", "measures how long an operation takes", 1, |args| {
        Ok(json!(measure(args[0].to_str().unwrap_or_default())?))
    })];

/// The number of rounds, of which the fastest counts because a timer interrupt slows the others.
const ROUNDS: usize = 10;
/// The number of calls in a round of a fast operation.
const CHEAP: usize = 200;
/// The number of calls in a round of an operation that makes a record each time or is slow.
const EXPENSIVE: usize = 30;
const _: () = assert!(MANY >= EXPENSIVE * (ROUNDS + 1), "too few files in the image");

/// The directory on the host in which files are written.
const HOST_FILE: &str = "/run/lab/measured";
/// A second name in that directory.
const OTHER_NAME: &str = "/run/lab/measured-too";
/// A mount point on the host.
const MOUNT_POINT: &str = "/run/lab/mounted";
/// An extended attribute without a meaning.
const ATTRIBUTE: &str = "trusted.measured";

/// The nanoseconds of one call of the operation.
pub fn measure(operation: &str) -> Result<f64> {
    let open = |path: &str| OpenOptions::new().write(true).open(path).with_context(|| format!("cannot open {path}"));
    match operation {
        "getppid" => time(CHEAP, |_| {
            black_box(std::os::unix::process::parent_id());
            Ok(())
        }),
        "write-host" => write_to(File::create(HOST_FILE)?),
        "write-volume" => write_to(File::create("/data/measured")?),
        "write-image" => write_to(open("/etc/app.conf")?),
        "write-null" => write_to(open("/dev/null")?),
        "write-pipe" => {
            let (_reader, writer) = std::io::pipe()?;
            write_to(writer)
        }
        "write-socket" => {
            // These are files because the socket type has its own sending and receiving methods.
            let (one, other) = UnixStream::pair()?;
            let (mut one, mut other) = (File::from(OwnedFd::from(one)), File::from(OwnedFd::from(other)));
            let mut byte = [0];
            time(CHEAP, |_| Ok(one.write_all(b"x").and_then(|()| other.read_exact(&mut byte))?))
        }
        "accept" => {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let address = listener.local_addr()?;
            time(CHEAP, |_| {
                let _connection = TcpStream::connect(address)?;
                Ok(listener.accept().map(drop)?)
            })
        }
        "read-host" => time(CHEAP, |_| Ok(File::open(HOST_FILE).map(drop)?)),
        "mmap" => {
            let file = File::open(HOST_FILE)?;
            time(CHEAP, |_| map_code(&file))
        }
        "chmod" => time(CHEAP, |_| Ok(rustix::fs::chmod(HOST_FILE, Mode::from_raw_mode(0o600))?)),
        "attribute" => time(CHEAP, |_| {
            rustix::fs::setxattr(HOST_FILE, ATTRIBUTE, b"x", XattrFlags::empty())?;
            Ok(rustix::fs::removexattr(HOST_FILE, ATTRIBUTE)?)
        }),
        "rename" => time(CHEAP, |call| {
            let names = [HOST_FILE, OTHER_NAME];
            Ok(fs::rename(names[call % 2], names[(call + 1) % 2])?)
        }),
        "link" => removed(|name| Ok(fs::hard_link(HOST_FILE, name)?)),
        "symlink" => removed(|name| Ok(symlink(HOST_FILE, name)?)),
        "mknod" => removed(|name| Ok(mknodat(CWD, name, FileType::RegularFile, Mode::RUSR, 0)?)),
        "mkdir" => time(CHEAP, |_| Ok(fs::create_dir(OTHER_NAME).and_then(|()| fs::remove_dir(OTHER_NAME))?)),
        "mount" => time(EXPENSIVE, |_| {
            mount_at("tmpfs", MOUNT_POINT, "")?;
            Ok(unmount(MOUNT_POINT, UnmountFlags::empty())?)
        }),
        "remount" => mounted(|_| Ok(mount_remount(MOUNT_POINT, MountFlags::empty(), c"")?)),
        "mount-setattr" => mounted(|call| switch_mount(Path::new(MOUNT_POINT), call % 2 == 0)),
        "open-host" => time(CHEAP, |_| open(HOST_FILE).map(drop)),
        "open-image" => time(CHEAP, |_| open("/etc/app.conf").map(drop)),
        "first-new" => time(EXPENSIVE, |call| {
            Ok(File::create_new(format!("/tmp/{call}")).and_then(|mut file| file.write_all(b"x"))?)
        }),
        "first-lower" => time(EXPENSIVE, |call| Ok(open(&many_file(call))?.write_all(b"x")?)),
        "exec" => time(EXPENSIVE, |_| {
            let status = Command::new("/bin/busybox").arg("true").status()?;
            ensure!(status.success(), "busybox true: {status}");
            Ok(())
        }),
        _ => bail!("unknown operation {operation:?}"),
    }
}

/// Creates something on the host, and removes it.
fn removed(make: impl Fn(&str) -> Result<()>) -> Result<f64> {
    time(CHEAP, |_| {
        make(OTHER_NAME)?;
        Ok(fs::remove_file(OTHER_NAME)?)
    })
}

/// Changes a mount on the host.
fn mounted(change: impl Fn(usize) -> Result<()>) -> Result<f64> {
    mount_at("tmpfs", MOUNT_POINT, "")?;
    let measured = time(EXPENSIVE, change);
    unmount(MOUNT_POINT, UnmountFlags::empty())?;
    measured
}

fn write_to(mut file: impl Write) -> Result<f64> {
    time(CHEAP, |_| Ok(file.write_all(b"x")?))
}

/// The mean of the fastest round, after a warm-up round. Each call gets its number as an argument.
fn time(calls: usize, mut operation: impl FnMut(usize) -> Result<()>) -> Result<f64> {
    let mut numbers = 0..;
    let mut fastest = f64::INFINITY;
    for round in 0..=ROUNDS {
        let start = Instant::now();
        for number in numbers.by_ref().take(calls) {
            operation(number)?;
        }
        if round > 0 {
            fastest = fastest.min(start.elapsed().as_nanos() as f64 / calls as f64);
        }
    }
    Ok(fastest)
}

/// Maps a file as loaders do, and unmaps it.
fn map_code(file: &File) -> Result<()> {
    raw::Map::code(file, 1)?;
    Ok(())
}

/// Changes with mount_setattr(2) whether a mount records the access times of directories.
fn switch_mount(at: &Path, is_on: bool) -> Result<()> {
    let option = MountAttrFlags::MOUNT_ATTR_NODIRATIME.bits().into();
    let (set, clear) = if is_on { (option, 0) } else { (0, option) };
    Ok(raw::mount_setattr(at, set, clear)?)
}
