//! The acts of the canary, which trigger the hooks. Most of them change the file that is named after the act.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{CWD, FallocateFlags, FileType, IFlags, Mode, OFlags, RenameFlags, XattrFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags};
use rustix::pipe::SpliceFlags;
use rustix::process::{Pid, WaitOptions};

/// The files that are written to, or mapped, through descriptors that were opened before the canary is watched.
const HELD: [&str; 7] = ["write", "splice", "fallocate", "copy_range", "clone_range", "mmap", "mprotect"];
/// The files that are changed in other ways.
const FILES: [&str; 9] =
    ["link", "unlink", "rename", "setattr", "setxattr", "removexattr", "set_acl", "fileattr", "ioctl"];
const DIRECTORIES: [&str; 6] = ["rmdir", "mount", "move_mount", "umount", "pivot_root", "chroot"];
/// An extended attribute that has no meaning.
const ATTRIBUTE: &str = "trusted.detector";
const ACL: &str = "system.posix_acl_access";
/// An access control list in the kernel's format (include/uapi/linux/posix_acl_xattr.h): version 2, then the tag,
/// permissions and id of each entry. The entries are for the owner, user 1, the group, the mask and others.
const ACL_VALUE: [u8; 44] = {
    let entries = [(0x01, 6, u32::MAX), (0x02, 4, 1), (0x04, 4, u32::MAX), (0x10, 4, u32::MAX), (0x20, 4, u32::MAX)];
    let mut value = [0; 44];
    value[0] = 2;
    let mut index = 0;
    while index < entries.len() {
        let (tag, permissions, id): (u8, u8, u32) = entries[index];
        let (at, id) = (4 + index * 8, id.to_le_bytes());
        value[at] = tag;
        value[at + 2] = permissions;
        let mut byte = 0;
        while byte < 4 {
            value[at + 4 + byte] = id[byte];
            byte += 1;
        }
        index += 1;
    }
    value
};

/// What is done with the file that is named after the act.
type Act = fn(&Stage, &Path) -> io::Result<()>;

/// The acts, in the order in which they are performed. The acts for the hooks for cgroups and for exec are missing
/// here, because the daemon performs them when it runs the canary.
const ACTS: &[(&str, Act)] = &[
    ("write", |stage, _| Ok(rustix::io::write(stage.held("write")?, b"canary").map(drop)?)),
    ("splice", |stage, _| splice(stage.held("splice")?)),
    ("fallocate", |stage, _| Ok(rustix::fs::fallocate(stage.held("fallocate")?, FallocateFlags::empty(), 0, 8192)?)),
    ("copy_range", |stage, _| copy_range(stage.held("write")?, stage.held("copy_range")?)),
    ("clone_range", |stage, _| Ok(rustix::fs::ioctl_ficlone(stage.held("clone_range")?, stage.held("write")?)?)),
    ("mmap", |stage, _| map(stage.held("mmap")?)),
    ("mprotect", |stage, _| make_executable(stage.held("mprotect")?)),
    ("open", |_, file| fs::write(file, "canary")),
    ("device", |_, file| open_device(file)),
    ("handle", |_, _| open_by_handle()),
    // The sockets are not in the image, so they make no other records.
    ("listen", |_, _| UnixListener::bind("/dev/listening").map(drop)),
    ("accept", |_, _| accept("/dev/accepting")),
    ("bpf", |_, _| call_bpf()),
    ("signal", |_, _| Ok(rustix::process::test_kill_process(rustix::process::getpid())?)),
    // The kernel asks whether this process may look at the daemon.
    ("trace", |_, _| fs::read_link(format!("/proc/{}/cwd", std::os::unix::process::parent_id())).map(drop)),
    ("create", |_, file| make(file, FileType::RegularFile)),
    ("mknod", |_, file| make(file, FileType::Fifo)),
    ("mkdir", |_, file| fs::create_dir(file)),
    ("symlink", |_, file| symlink("target", file)),
    ("link", |_, file| fs::hard_link(file, file.with_file_name("linked"))),
    ("unlink", |_, file| fs::remove_file(file)),
    ("rmdir", |_, file| fs::remove_dir(file)),
    ("rename", |_, file| rename(file, &file.with_file_name("renamed"))),
    ("setattr", |_, file| fs::set_permissions(file, fs::Permissions::from_mode(0o600))),
    ("setxattr", |_, file| set(file, ATTRIBUTE, b"x")),
    ("removexattr", |_, file| Ok(rustix::fs::removexattr(file, ATTRIBUTE)?)),
    ("set_acl", |_, file| set(file, ACL, &ACL_VALUE)),
    ("remove_acl", |_, file| Ok(rustix::fs::removexattr(file, ACL)?)),
    ("fileattr", |_, file| set_flags(file)),
    ("ioctl", |_, file| ioctl(file)),
    ("mount", |_, file| mount(file)),
    ("move_mount", |_, file| move_mount(file)),
    ("umount", |_, file| Ok(rustix::mount::unmount(file, UnmountFlags::empty())?)),
    ("remount", |stage, _| Ok(rustix::mount::mount_remount(&stage.image, MountFlags::empty(), c"")?)),
    ("script", |_, file| Command::new(file).spawn().map(drop)),
    ("fork", |_, file| fork(file)),
    ("pivot_root", |_, file| Ok(rustix::process::pivot_root(file, file)?)),
    // From here on, the root is a directory of the image. The last acts must be performed by a process with such a
    // root.
    ("chroot", |_, file| Ok(rustix::process::chroot(file)?)),
    ("mount_setattr", |stage, _| set_mount_attributes(&stage.top)),
    ("cgroup_attach", |stage, _| Ok(rustix::io::write(&stage.exit, b"0").map(drop)?)),
];

/// An act that was refused, and the reason.
pub(super) type Refusal = (&'static str, io::Error);

/// Creates the files of the image. Returns the acts for which this was refused, and which can therefore not be
/// performed.
pub(super) fn prepare(lower: &Path) -> Vec<Refusal> {
    let mut outcomes: Vec<(&'static str, io::Result<()>)> = Vec::new();
    outcomes.extend(HELD.into_iter().chain(FILES).map(|name| (name, fs::write(lower.join(name), "canary"))));
    outcomes.extend(DIRECTORIES.map(|name| (name, fs::create_dir(lower.join(name)))));
    outcomes.push(("device", make(&lower.join("device"), FileType::BlockDevice)));
    outcomes.push(("script", script(&lower.join("script"))));
    outcomes.push(("remove_acl", fs::write(lower.join("remove_acl"), "")));
    outcomes.push(("removexattr", set(&lower.join("removexattr"), ATTRIBUTE, b"x")));
    outcomes.push(("remove_acl", set(&lower.join("remove_acl"), ACL, &ACL_VALUE)));
    outcomes.into_iter().filter_map(|(act, result)| Some((act, result.err()?))).collect()
}

fn script(path: &Path) -> io::Result<()> {
    fs::write(path, "#!/nowhere/interpreter\n")?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// What the canary opens and mounts before it is watched.
pub(super) struct Stage {
    image: PathBuf,
    /// The root of the image.
    top: OwnedFd,
    held: Vec<(&'static str, File)>,
    /// The file to which a process id is written to make the process leave the canary's cgroup.
    exit: File,
}

impl Stage {
    pub(super) fn set(image: &Path, exit: &Path) -> io::Result<Self> {
        let open = |name| Ok((name, File::options().read(true).write(true).open(image.join(name))?));
        let held = HELD.into_iter().map(open).collect::<io::Result<_>>()?;
        rustix::mount::mount("detector", image.join("umount"), "tmpfs", MountFlags::empty(), None::<&std::ffi::CStr>)?;
        let top = rustix::fs::open(image, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let exit = File::options().write(true).open(exit)?;
        Ok(Self { image: image.to_owned(), top, held, exit })
    }

    fn held(&self, name: &str) -> io::Result<&File> {
        let found = self.held.iter().find(|(held, _)| *held == name);
        found.map(|(_, file)| file).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Performs all acts, and returns those that were refused. The process has another root and another cgroup
    /// afterwards.
    pub(super) fn do_all_acts(&self) -> Vec<Refusal> {
        let mut is_rooted = true;
        let outcomes = ACTS.iter().map(|(name, act)| {
            let result = match is_rooted {
                true => act(self, &self.image.join(name)),
                false => Err(io::Error::other("it needs a root in the image")),
            };
            is_rooted &= *name != "chroot" || result.is_ok();
            (*name, result)
        });
        outcomes.filter_map(|(name, result)| Some((name, result.err()?))).collect()
    }
}

fn splice(file: &File) -> io::Result<()> {
    let (reader, writer) = rustix::pipe::pipe()?;
    rustix::io::write(&writer, b"canary")?;
    rustix::pipe::splice(reader, None, file, None, 6, SpliceFlags::empty())?;
    Ok(())
}

fn copy_range(from: &File, to: &File) -> io::Result<()> {
    rustix::fs::copy_file_range(from, Some(&mut 0), to, Some(&mut 0), 6)?;
    Ok(())
}

#[expect(unsafe_code, reason = "there is no safe way to map a file")]
fn map(file: &File) -> io::Result<()> {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the kernel chooses an unused address, so nothing refers to this memory.
    let mapped = unsafe { rustix::mm::mmap(std::ptr::null_mut(), 4096, protection, MapFlags::SHARED, file, 0)? };
    // SAFETY: it was mapped above, and nothing uses it.
    unsafe { rustix::mm::munmap(mapped, 4096)? };
    Ok(())
}

fn accept(path: &str) -> io::Result<()> {
    let listener = UnixListener::bind(path)?;
    let _connection = UnixStream::connect(path)?;
    listener.accept().map(drop)
}

#[expect(unsafe_code, reason = "there is no safe way to map a file")]
fn make_executable(file: &File) -> io::Result<()> {
    // SAFETY: the kernel chooses an unused address, so nothing refers to this memory.
    let mapped = unsafe { rustix::mm::mmap(std::ptr::null_mut(), 4096, ProtFlags::READ, MapFlags::PRIVATE, file, 0)? };
    // SAFETY: it was mapped above, and nothing uses it.
    let protected = unsafe { rustix::mm::mprotect(mapped, 4096, MprotectFlags::READ | MprotectFlags::EXEC) };
    // SAFETY: as above.
    unsafe { rustix::mm::munmap(mapped, 4096)? };
    Ok(protected?)
}

/// Creates a file of some kind. A device gets the number 0, which no driver can have.
fn make(path: &Path, kind: FileType) -> io::Result<()> {
    Ok(rustix::fs::mknodat(CWD, path, kind, Mode::RUSR | Mode::WUSR, 0)?)
}

/// Opens a block device for writing. The kernel calls the function that opens block devices (`blkdev_open`) before it
/// looks for the driver, which it does not find.
fn open_device(path: &Path) -> io::Result<()> {
    match rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(_) | Err(Errno::NXIO) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Opens a directory by its handle. It is not in the image, because overlays often have no handles.
#[expect(unsafe_code, reason = "rustix does not have handles of files")]
fn open_by_handle() -> io::Result<()> {
    /// The size of a `struct file_handle` (include/uapi/linux/fcntl.h) in words: the number of bytes of the handle, its
    /// type, and the handle itself.
    const SIZE: usize = 2 + libc::MAX_HANDLE_SZ as usize / 4;
    let mount = File::open("/dev")?;
    let mut handle = [0_u32; SIZE];
    handle[0] = libc::MAX_HANDLE_SZ.cast_unsigned();
    let (name, mut id) = (c"/dev/lower", 0);
    // SAFETY: the name is a C string, and the handle has room for the number of bytes in its first word.
    let named =
        unsafe { libc::name_to_handle_at(libc::AT_FDCWD, name.as_ptr(), handle.as_mut_ptr().cast(), &raw mut id, 0) };
    if named != 0 {
        return Err(io::Error::last_os_error());
    }
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    // SAFETY: the kernel has filled the handle.
    let opened = unsafe { libc::open_by_handle_at(mount.as_raw_fd(), handle.as_mut_ptr().cast(), flags) };
    if opened < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, so nothing else owns it.
    drop(unsafe { OwnedFd::from_raw_fd(opened) });
    Ok(())
}

/// Calls bpf(2), to ask for the first map of the host.
#[expect(unsafe_code, reason = "aya does not make this call alone")]
fn call_bpf() -> io::Result<()> {
    /// `BPF_MAP_GET_NEXT_ID` (include/uapi/linux/bpf.h), whose attributes are the previous id, the next id and flags.
    const MAP_GET_NEXT_ID: libc::c_long = 12;
    let mut attributes = [0_u32; 3];
    let size = size_of_val(&attributes);
    // SAFETY: the attributes are those of the command and have the given size.
    let result = unsafe { libc::syscall(libc::SYS_bpf, MAP_GET_NEXT_ID, attributes.as_mut_ptr(), size) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    Ok(rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
}

fn set(path: &Path, attribute: &str, value: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::setxattr(path, attribute, value, XattrFlags::empty())?)
}

fn set_flags(path: &Path) -> io::Result<()> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(rustix::fs::ioctl_setflags(file, IFlags::NOATIME)?)
}

/// Sets inode flags too. The overlay passes the call on to the file system below, which may not support flags.
fn ioctl(path: &Path) -> io::Result<()> {
    set_flags(path).or_else(
        |error| {
            if Errno::from_io_error(&error) == Some(Errno::NOTTY) { Ok(()) } else { Err(error) }
        },
    )
}

fn mount(path: &Path) -> io::Result<()> {
    Ok(rustix::mount::mount("detector", path, "tmpfs", MountFlags::empty(), None::<&std::ffi::CStr>)?)
}

fn move_mount(path: &Path) -> io::Result<()> {
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(&context)?;
    let mount = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    Ok(rustix::mount::move_mount(mount, c"", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// Makes a child create the directory `path`, and waits until the child has ended.
#[expect(unsafe_code, reason = "a child that executes nothing is only made by fork(2)")]
fn fork(path: &Path) -> io::Result<()> {
    // SAFETY: this process has one thread, so its child may do everything that the process itself may do.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let status = i32::from(fs::create_dir(path).is_err());
        // SAFETY: this ends the child, which must not do what its parent does when it exits.
        unsafe { libc::_exit(status) }
    }
    let child = Pid::from_raw(child).filter(|_| child > 0).ok_or_else(io::Error::last_os_error)?;
    let ended = rustix::process::waitpid(Some(child), WaitOptions::empty())?;
    let is_done = ended.is_some_and(|(_, status)| status.exit_status() == Some(0));
    if is_done { Ok(()) } else { Err(io::Error::other("the child could not make a directory")) }
}

/// Sets the option `nosuid` on the mount whose root is `top`, so that programs on it get no other user from their
/// set-user-id bit.
#[expect(unsafe_code, reason = "rustix does not have mount_setattr(2)")]
fn set_mount_attributes(top: &OwnedFd) -> io::Result<()> {
    // This is a `struct mount_attr` (include/uapi/linux/mount.h, 5.12): the attributes to set, those to clear, the
    // propagation, and the user namespace.
    let attributes = [u64::from(MountAttrFlags::MOUNT_ATTR_NOSUID.bits()), 0, 0, 0];
    let size = size_of_val(&attributes);
    // SAFETY: the path is a C string, and `size` is the size of the attributes; both live until the call returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            top.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            attributes.as_ptr(),
            size,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::sensor::plan::HOOKS;

    #[test]
    fn every_hook_is_set_off_and_every_act_sets_one_off() {
        let by_the_daemon = ["cgroup_mkdir", "cgroup_rmdir", "exec"];
        let acts: Vec<_> = ACTS.iter().map(|&(name, _)| name).chain(by_the_daemon).collect();
        let wanted: BTreeSet<_> = HOOKS.iter().map(|hook| hook.proof.act()).collect();
        assert_eq!(acts.iter().copied().collect::<BTreeSet<_>>(), wanted);
        assert_eq!(acts.len(), wanted.len(), "an act is there twice: {acts:?}");
    }
}
