//! The cgroup hierarchy that distinguishes containers: which one it is, and how its cgroups are found.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use rustix::fs::{Mode, OFlags};

use super::btf::{self, Btf};
use crate::procfs::{self, Mount};

/// Which cgroup hierarchies are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupMode {
    /// Only cgroup2.
    V2,
    /// cgroup2 together with hierarchies of version 1.
    Hybrid,
    /// Only hierarchies of version 1.
    V1,
    /// No hierarchy.
    Unmounted,
}

/// The controllers of version 1 for which every runtime creates cgroups, the ones that distinguish containers best
/// first.
const CONTROLLERS: [&str; 4] = ["pids", "memory", "devices", "cpu"];

/// A cgroup hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// The mount point of the whole hierarchy, as a path that this process can use.
    pub mount: PathBuf,
    /// A controller of a version 1 hierarchy. `None` if the hierarchy is cgroup2.
    pub controller: Option<&'static str>,
}

impl Hierarchy {
    /// Finds out which hierarchies are mounted, and which of them identifies containers. A hierarchy of version 1 with
    /// one of the [`CONTROLLERS`] is preferred, because a runtime need not create cgroups in cgroup2 if there is one.
    pub(crate) fn find(mountinfo: &[u8]) -> (CgroupMode, Option<Self>) {
        let path = |mount: &Mount| PathBuf::from(OsString::from_vec(mount.mount_point.clone()));
        // Seen from a cgroup namespace, the root of the hierarchy is `/..`.
        let is_whole = |mount: &Mount| mount.root.split(|&byte| byte == b'/').all(|name| matches!(name, b"" | b".."));
        let (mut old, mut unified) = (Vec::new(), None);
        for mount in procfs::mounts(mountinfo).filter(is_whole) {
            match mount.fs_type.as_slice() {
                b"cgroup" => old.push(mount),
                b"cgroup2" => unified = unified.or(Some(mount)),
                _ => {}
            }
        }
        let controlled = CONTROLLERS.into_iter().find_map(|controller| {
            let mount = old.iter().find(|mount| has_word(&mount.options, controller))?;
            Some(Self { mount: path(mount), controller: Some(controller) })
        });
        let mode = match (old.is_empty(), unified.is_some()) {
            (true, true) => CgroupMode::V2,
            (false, true) => CgroupMode::Hybrid,
            (false, false) => CgroupMode::V1,
            (true, false) => CgroupMode::Unmounted,
        };
        (mode, controlled.or_else(|| unified.map(|mount| Self { mount: path(&mount), controller: None })))
    }

    /// The entry of this hierarchy in the text of a /proc/PID/cgroup: the hierarchy's number, and the path of the
    /// process's cgroup.
    fn entry<'a>(&self, text: &'a [u8]) -> Option<(u32, &'a [u8])> {
        let mut entries = procfs::cgroup_entries(text);
        let entry = entries.find(|entry| match self.controller {
            Some(controller) => has_word(entry.controllers, controller),
            None => entry.hierarchy == 0,
        });
        entry.map(|entry| (entry.hierarchy, entry.path))
    }

    /// The number of the hierarchy in the kernel.
    pub(super) fn number(&self) -> io::Result<u32> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("nothing of {}", self.mount.display()));
        let text = procfs::Process::open("self")?.read("cgroup")?;
        self.entry(&text).map(|(number, _)| number).ok_or_else(missing)
    }

    /// The offset in bytes, from the start of a `css_set`, of the pointer to the state of the hierarchy's controller. 0
    /// for cgroup2, which does not need it.
    pub(super) fn state_offset(&self, kernel: &Btf) -> Result<u64, btf::Error> {
        let Some(controller) = self.controller else { return Ok(0) };
        let index = kernel.enumerator("cgroup_subsys_id", &format!("{controller}_cgrp_id"))?;
        Ok(kernel.member_offset("css_set", "subsys")? + u64::from(index) * size_of::<u64>() as u64)
    }

    /// The path of a process's cgroup, from the text of its /proc/PID/cgroup. Returns `None` if the cgroup is gone, or
    /// lies outside the reader's cgroup namespace.
    pub(crate) fn path_in<'a>(&self, text: &'a [u8]) -> Option<&'a [u8]> {
        let (_, path) = self.entry(text)?;
        (path.starts_with(b"/") && !path.starts_with(b"/..") && !path.ends_with(b" (deleted)")).then_some(path)
    }

    /// The path of a cgroup from the root of the hierarchy, by the id of the cgroup. Returns `None` if the cgroup is
    /// gone or cannot be found.
    pub(crate) fn path_of(&self, id: u64) -> Option<Vec<u8>> {
        let root = self.open().ok()?;
        let found = open_by_id(&root, id).ok()?;
        let path = |fd: &OwnedFd| fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok();
        let (mount, found) = (path(&root)?, path(&found)?);
        // The kernel appends this to the path of a directory that was removed. A directory can also have such a name.
        if found.as_os_str().as_bytes().ends_with(b" (deleted)") && fs::metadata(&found).ok()?.ino() != id {
            return None;
        }
        Some([b"/", found.strip_prefix(mount).ok()?.as_os_str().as_bytes()].concat())
    }

    /// The directory of the cgroup with this path from the root of the hierarchy.
    pub(crate) fn directory(&self, path: &[u8]) -> PathBuf {
        self.mount.join(Path::new(OsStr::from_bytes(path.strip_prefix(b"/").unwrap_or(path))))
    }

    /// Opens the root directory of the hierarchy.
    pub(super) fn open(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::open(&self.mount, flags, Mode::empty())?)
    }
}

/// Whether a word is in a comma-separated list.
fn has_word(list: &[u8], word: &str) -> bool {
    list.split(|&byte| byte == b',').any(|entry| entry == word.as_bytes())
}

/// Opens a cgroup by its id. This is its kernfs id, of which a file handle of kernfs consists.
#[expect(unsafe_code, reason = "rustix has no open_by_handle_at(2)")]
fn open_by_id(root: &OwnedFd, id: u64) -> io::Result<OwnedFd> {
    /// `struct file_handle` with room for the handle.
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: i32,
        id: u64,
    }
    /// `FILEID_KERNFS` of include/linux/exportfs.h.
    const KERNFS: i32 = 0xfe;
    let mut handle = Handle { bytes: 8, kind: KERNFS, id };
    // SAFETY: the handle is a `struct file_handle` that is followed by as many bytes as it says; the kernel only reads
    // it.
    let fd =
        unsafe { libc::open_by_handle_at(root.as_raw_fd(), (&raw mut handle).cast(), libc::O_PATH | libc::O_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mountinfo of a node that has only cgroup2.
    const V2: &[u8] = b"\
22 29 0:20 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
26 22 0:24 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
";
    /// The mountinfo of a node on which systemd runs in hybrid mode.
    const HYBRID: &[u8] = b"\
27 1 259:1 / / rw,relatime - xfs /dev/nvme0n1p1 rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
34 31 0:31 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
";

    fn hierarchy(mount: &str, controller: Option<&'static str>) -> Hierarchy {
        Hierarchy { mount: mount.into(), controller }
    }

    #[test]
    fn cgroup_modes_are_told_apart() {
        let at = |mount: &str, controller| Some(hierarchy(mount, controller));
        assert_eq!(Hierarchy::find(V2), (CgroupMode::V2, at("/sys/fs/cgroup", None)));
        assert_eq!(Hierarchy::find(HYBRID), (CgroupMode::Hybrid, at("/sys/fs/cgroup/pids", Some("pids"))));
        let old = b"33 31 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct";
        assert_eq!(Hierarchy::find(old), (CgroupMode::V1, at("/sys/fs/cgroup/cpu", Some("cpu"))));
        let named = b"33 31 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
            32 31 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
        assert_eq!(Hierarchy::find(named), (CgroupMode::Hybrid, at("/sys/fs/cgroup/unified", None)));
        assert_eq!(Hierarchy::find(b""), (CgroupMode::Unmounted, None));
        let from_namespace = b"26 22 0:24 /../.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw";
        assert_eq!(Hierarchy::find(from_namespace), (CgroupMode::V2, at("/sys/fs/cgroup", None)));
        let part = b"26 22 0:24 /docker/a /sys/fs/cgroup rw - cgroup2 cgroup2 rw";
        assert_eq!(Hierarchy::find(part), (CgroupMode::Unmounted, None));
    }

    #[test]
    fn the_cgroup_of_a_process_is_found_by_the_controller() {
        let text = b"4:memory:/a\n3:cpu,cpuacct:/b\n1:name=systemd:/c:d\n0::/e:f\n";
        let entry = |controller| hierarchy("", controller).entry(text);
        assert_eq!(entry(None), Some((0, &b"/e:f"[..])));
        assert_eq!(entry(Some("memory")), Some((4, &b"/a"[..])));
        assert_eq!(entry(Some("cpu")), Some((3, &b"/b"[..])));
        assert_eq!(entry(Some("pids")), None);
        for gone in [&b"0::/a (deleted)\n"[..], b"0::/../../a\n", b"0::", b""] {
            assert_eq!(hierarchy("", None).path_in(gone), None);
        }
    }

    #[test]
    fn cgroups_have_directories() {
        let hierarchy = hierarchy("/sys/fs/cgroup", None);
        assert_eq!(hierarchy.directory(b"/a/b"), Path::new("/sys/fs/cgroup/a/b"));
        assert_eq!(hierarchy.directory(b"/"), Path::new("/sys/fs/cgroup/"));
    }
}
