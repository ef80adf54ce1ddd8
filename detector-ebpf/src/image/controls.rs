//! Files that control the kernel: those that name a program for the kernel to execute, with all privileges and the
//! host's mounts, and those that switch probes off.
//!
//! Such a file is recognised by its file system, its name and its directory, so neither a bind mount nor another mount
//! of the file system hides it.

use detector_common::vocabulary::Control;

use super::{locate::Image, report::Change};
use crate::{
    container,
    kernel::{File, Str, Task},
};

/// `PROC_SUPER_MAGIC`, `SYSFS_MAGIC`, `CGROUP_SUPER_MAGIC`, `DEBUGFS_MAGIC` and `BINFMTFS_MAGIC`
/// (include/uapi/linux/magic.h).
const PROC: u64 = 0x9fa0;
const SYSFS: u64 = 0x6265_6572;
const CGROUP: u64 = 0x0027_e0eb;
const DEBUGFS: u64 = 0x6462_6720;
const BINFMTFS: u64 = 0x4249_4e4d;

/// The start of a name with its NUL, as numbers, which are cheap to compare.
type Name = [u64; 2];

/// Returns the control that has this file name in a directory of this name, on a file system of this type.
macro_rules! controls {
    ($($file_system:ident, $directory:literal, $file:literal: $control:ident;)*) => {
        #[inline(always)]
        fn control(magic: u64, directory: Name, file: Name) -> Option<Control> {
            $(if magic == $file_system && file == const { name($file) } && directory == const { name($directory) } {
                return Some(Control::$control);
            })*
            None
        }
    };
}

controls! {
    PROC, "kernel", "core_pattern": CorePattern;
    PROC, "kernel", "modprobe": Modprobe;
    PROC, "kernel", "hotplug": Hotplug;
    PROC, "kernel", "poweroff_cmd": PoweroffCommand;
    PROC, "kernel", "ftrace_enabled": Ftrace;
    SYSFS, "kernel", "uevent_helper": UeventHelper;
    CGROUP, "/", "release_agent": ReleaseAgent;
    DEBUGFS, "kprobes", "enabled": Kprobes;
    BINFMTFS, "/", "register": BinaryFormats;
}

const fn name(text: &str) -> Name {
    let text = text.as_bytes();
    let mut bytes = [0; 16];
    assert!(text.len() < bytes.len());
    let mut at = 0;
    while at < text.len() {
        bytes[at] = text[at];
        at += 1;
    }
    words(bytes)
}

const fn words(bytes: [u8; 16]) -> Name {
    let [a, b, c, d, e, f, g, h, rest @ ..] = bytes;
    [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes(rest)]
}

#[inline(always)]
fn start(name: Str) -> Name {
    let mut bytes = [0; 16];
    name.copy_to(&mut bytes);
    words(bytes)
}

/// Returns whether a file system of this type has controls.
#[inline(always)]
pub fn are_on(magic: u64) -> bool {
    matches!(magic, PROC | SYSFS | CGROUP | DEBUGFS | BINFMTFS)
}

/// Checks a file that is being opened for writing, on a file system that has controls. A control that names a program
/// is reported if a container opens it, and one that switches probes off whoever opens it.
#[inline(always)]
pub fn opened(file: File, magic: u64) -> Option<Change> {
    let dentry = file.dentry();
    let control = control(magic, start(dentry.parent().name()), start(dentry.name()))?;
    let inode = dentry.inode();
    let superblock = inode.superblock();
    // In another user namespace, formats of programs are registered only for that namespace.
    if !superblock.is_of_host_users() {
        return None;
    }
    let owner = container::responsible(Task::current());
    if owner == 0 && !control.switches_probes() {
        return None;
    }
    Some(Change::of_control(Image { owner, device: superblock.device() }, inode, dentry, control))
}
