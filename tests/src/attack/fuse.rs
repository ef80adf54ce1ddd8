//! A file system that is served by a process of the container (FUSE), and that never answers the host.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use serde_json::Value;

use super::operation::Operation;

/// The operations of this module.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation::on_two(
        "mount-fuse",
        "PROGRAM PATH",
        "mounts a file system with a program, which never answers the host",
        mount_fuse,
    ),
    Operation::on_two("serve-fuse", "PROGRAM PATH", "mounts and serves such a file system", |program, path| {
        let error = serve(program, path).expect_err("it serves until it is killed");
        Err(error)
    }),
    Operation::on_two("mount-over-fuse", "FUSE PATH", "mounts an overlay with such a layer", |fuse, path| {
        for name in ["", "upper", "work", "merged"] {
            fs::create_dir(path.join(name))?;
        }
        let (fuse, shown, merged) = (fuse.display(), path.display(), path.join("merged"));
        let options = format!("lowerdir={fuse},upperdir={shown}/upper,workdir={shown}/work\0");
        let options = std::ffi::CStr::from_bytes_with_nul(options.as_bytes())?;
        mount("x", &merged, "overlay", MountFlags::empty(), options)?;
        ensure!(merged.join(PROGRAM).exists(), "the layer is not there");
        Ok(Value::Null)
    }),
    Operation::on("mount-on-fuse", "mounts a file system in a directory of such a file system", |path| {
        mount("x", path, "tmpfs", MountFlags::empty(), None::<&std::ffi::CStr>)?;
        Ok(Value::Null)
    }),
];

/// The name of the program, and of a directory.
const PROGRAM: &str = "program";
const DIRECTORY: &str = "directory";
/// The numbers of the inodes.
const ROOT_INODE: u64 = 1;
const PROGRAM_INODE: u64 = 2;
const DIRECTORY_INODE: u64 = 3;

/// Starts the server, and waits until it serves.
fn mount_fuse(program: &Path, path: &Path) -> Result<Value> {
    fs::create_dir(path)?;
    let mut server = Command::new("/usr/bin/tool");
    server.arg("serve-fuse").args([program, path]).stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let since = Instant::now();
    while !path.join(PROGRAM).exists() {
        ensure!(since.elapsed() < Duration::from_secs(20), "nothing is mounted");
        thread::sleep(Duration::from_millis(20));
    }
    ensure!(fs::read(path.join(PROGRAM))? == fs::read(program)?, "the program is not served");
    Ok(Value::Null)
}

fn serve(program: &Path, path: &Path) -> Result<()> {
    const DEVICE: &str = "/dev/fuse";
    let program = fs::read(program)?;
    match mknodat(CWD, DEVICE, FileType::CharacterDevice, Mode::RUSR | Mode::WUSR, makedev(10, 229)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => bail!("cannot make {DEVICE}: {error}"),
    }
    let mut device = OpenOptions::new().read(true).write(true).open(DEVICE)?;
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other\0", device.as_raw_fd());
    let options = std::ffi::CStr::from_bytes_with_nul(options.as_bytes())?;
    mount("x", path, "fuse", MountFlags::empty(), options).context("cannot mount")?;
    // The kernel refuses to fill a smaller buffer than the longest request.
    let mut buffer = vec![0; 1 << 18];
    loop {
        let length = device.read(&mut buffer)?;
        answer(&mut device, &Request(&buffer[..length]), &program)?;
    }
}

/// A request of the kernel: `struct fuse_in_header` (include/uapi/linux/fuse.h), and what follows it.
struct Request<'a>(&'a [u8]);

impl Request<'_> {
    const HEADER: usize = 40;

    fn number<const N: usize>(&self, at: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes[..N].copy_from_slice(&self.0[at..at + N]);
        u64::from_le_bytes(bytes)
    }
}

/// Answers a request, unless a process of the host has caused it.
fn answer(device: &mut File, request: &Request, program: &[u8]) -> Result<()> {
    const LOOKUP: u64 = 1;
    const FORGET: u64 = 2;
    const GETATTR: u64 = 3;
    const OPEN: u64 = 14;
    const READ: u64 = 15;
    const STATFS: u64 = 17;
    const RELEASE: u64 = 18;
    const INIT: u64 = 26;
    const OPENDIR: u64 = 27;
    const RELEASEDIR: u64 = 29;
    const BATCH_FORGET: u64 = 42;
    let (operation, inode, pid) = (request.number::<4>(4), request.number::<8>(16), request.number::<4>(32));
    // A process of another pid namespace has the number 0 here, and so have requests of the kernel itself.
    if pid == 0 && ![INIT, RELEASE, RELEASEDIR].contains(&operation) {
        return Ok(());
    }
    let body = &request.0[Request::HEADER..];
    let answer = match operation {
        INIT => {
            let mut answer = [0; 64];
            answer[..4].copy_from_slice(&7_u32.to_le_bytes());
            answer[4..8].copy_from_slice(&31_u32.to_le_bytes());
            // The longest write.
            answer[20..24].copy_from_slice(&4096_u32.to_le_bytes());
            Ok(answer.to_vec())
        }
        LOOKUP => {
            let inode = match body.strip_suffix(b"\0") {
                Some(name) if name == PROGRAM.as_bytes() => Some(PROGRAM_INODE),
                Some(name) if name == DIRECTORY.as_bytes() => Some(DIRECTORY_INODE),
                _ => None,
            };
            // The generation and the times for which names and attributes are valid are 0.
            inode
                .map(|inode| [&inode.to_le_bytes()[..], &[0; 32], &attributes(inode, program)].concat())
                .ok_or(Errno::NOENT)
        }
        GETATTR => Ok([&[0; 16][..], &attributes(inode, program)].concat()),
        OPEN | OPENDIR => Ok(vec![0; 16]),
        READ => {
            let start = request.number::<8>(Request::HEADER + 8) as usize;
            let end = start + request.number::<4>(Request::HEADER + 16) as usize;
            Ok(program[start.min(program.len())..end.min(program.len())].to_vec())
        }
        STATFS => {
            let mut answer = [0; 80];
            // The longest name.
            answer[44..48].copy_from_slice(&255_u32.to_le_bytes());
            Ok(answer.to_vec())
        }
        RELEASE | RELEASEDIR => Ok(Vec::new()),
        FORGET | BATCH_FORGET => return Ok(()),
        _ => Err(Errno::NOSYS),
    };
    let (error, bytes) = match answer {
        Ok(bytes) => (0, bytes),
        Err(error) => (-error.raw_os_error(), Vec::new()),
    };
    let length = 16 + bytes.len() as u32;
    let header = [&length.to_le_bytes()[..], &error.to_le_bytes(), &request.number::<8>(8).to_le_bytes()];
    match device.write(&[&header.concat()[..], &bytes].concat()) {
        // The kernel does not wait for it any more.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => Ok(other.map(drop)?),
    }
}

/// `struct fuse_attr` (include/uapi/linux/fuse.h).
fn attributes(inode: u64, program: &[u8]) -> Vec<u8> {
    let (size, mode) = match inode {
        PROGRAM_INODE => (program.len() as u64, 0o100_755_u32),
        ROOT_INODE | DIRECTORY_INODE => (0, 0o040_755),
        _ => (0, 0),
    };
    let (times, links) = ([0; 36], 1_u32);
    [
        &inode.to_le_bytes()[..],
        &size.to_le_bytes(),
        &[0; 8],
        &times,
        &mode.to_le_bytes(),
        &links.to_le_bytes(),
        &[0; 20],
    ]
    .concat()
}
