//! What /proc says of processes, mounts and functions: the one place where it is read and parsed.
//!
//! Its texts are the kernel's, but the names in them are not: nothing here panics on any bytes.

use std::collections::HashSet;
use std::ffi::CStr;
use std::fs::{self, File};
use std::io::{self, BufRead as _, Read as _};
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, Statx, StatxFlags};
use rustix::io::Errno;

use crate::clock;

/// The unit of start times in /proc/PID/stat, in nanoseconds: `USER_HZ` is 100 on all architectures of this project. What
/// is below was cut off.
const TICK: u64 = 10_000_000;

/// A process, by its directory in /proc: it stays the same process, and what is read fails once that has ended.
#[derive(Debug)]
pub(crate) struct Process {
    directory: OwnedFd,
}

impl Process {
    /// Opens `/proc/NAME`: of a process id, or of `self`.
    pub(crate) fn open(name: &str) -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { directory: rustix::fs::open(format!("/proc/{name}"), flags, Mode::empty())? })
    }

    /// The process with this id that started then, in nanoseconds of the kernel's time since boot. `None`: it has ended,
    /// and this may be another one's id.
    pub(crate) fn open_started(pid: u32, start_time: u64) -> Option<Self> {
        let process = Self::open(&pid.to_string()).ok()?;
        let stat = process.read("stat").ok()?;
        Stat::parse(&stat)?.start_time().covers(start_time).then_some(process)
    }

    /// A whole file.
    pub(crate) fn read(&self, name: &str) -> Result<Vec<u8>, Errno> {
        self.read_at_most(name, u64::MAX)
    }

    /// The beginning of a file, of so many bytes at most.
    pub(crate) fn read_at_most(&self, name: &str, most: u64) -> Result<Vec<u8>, Errno> {
        // Enough for most of these files, so that one call reads all.
        let mut text = Vec::with_capacity(4096);
        match File::from(self.open_file(name.as_bytes())?).take(most).read_to_end(&mut text) {
            Ok(_) => Ok(text),
            Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        }
    }

    /// Opens a file for reading, also one that a link such as `exe` leads to.
    pub(crate) fn open_file(&self, name: &[u8]) -> Result<OwnedFd, Errno> {
        rustix::fs::openat(&self.directory, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
    }

    /// Where a link leads to.
    pub(crate) fn read_link(&self, name: &str) -> Result<Vec<u8>, Errno> {
        rustix::fs::readlinkat(&self.directory, name, Vec::new()).map(std::ffi::CString::into_bytes)
    }

    /// Inode number of its mount namespace.
    pub(crate) fn mount_namespace(&self) -> Result<u32, Errno> {
        namespace_number(&self.read_link("ns/mnt")?).ok_or(Errno::INVAL)
    }

    /// Mount and inode of the file that a link such as `root` leads to.
    pub(crate) fn file_behind(&self, link: &CStr) -> Result<Statx, Errno> {
        rustix::fs::statx(&self.directory, link, AtFlags::STATX_DONT_SYNC, StatxFlags::INO | StatxFlags::MNT_ID)
    }

    /// Its root directory. The mount is looked up by its id, since several can be mounted on `/`. `Ok(None)`: mountinfo
    /// does not list it.
    pub(crate) fn root(&self) -> Result<Option<RootDirectory>, Errno> {
        let mountinfo = self.read("mountinfo")?;
        let found = self.file_behind(c"root")?;
        let mount = mounts(&mountinfo).find(|mount| mount.id == found.stx_mnt_id);
        Ok(mount.map(|mount| RootDirectory { dev: mount.dev, inode: found.stx_ino }))
    }

    /// The first of the files that it has mapped for which this is true, opened for reading. Needs CAP_CHECKPOINT_RESTORE or
    /// CAP_SYS_ADMIN.
    pub(crate) fn open_mapped(&self, is_wanted: impl Fn(&rustix::fs::Stat) -> bool) -> Option<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(&self.directory, "map_files", flags, Mode::empty()).ok()?;
        Dir::read_from(&directory).ok()?.flatten().find_map(|entry| {
            let stat = rustix::fs::statat(&directory, entry.file_name(), AtFlags::empty()).ok()?;
            let open =
                || rustix::fs::openat(&directory, entry.file_name(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
            is_wanted(&stat).then(open)?.ok()
        })
    }
}

/// The ids of the processes that there are. Some may have ended by the time they are looked at.
///
/// # Errors
///
/// /proc cannot be read.
pub(crate) fn process_ids() -> io::Result<Vec<u32>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        ids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(ids)
}

/// The root directory of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RootDirectory {
    /// `super_block.s_dev`.
    pub(crate) dev: u32,
    /// `inode.i_ino`.
    pub(crate) inode: u64,
}

/// What is needed of /proc/PID/stat.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stat<'a> {
    /// The task's name.
    pub(crate) comm: &'a [u8],
    /// `PF_` flags of include/linux/sched.h.
    pub(crate) flags: u64,
    start_ticks: u64,
}

impl<'a> Stat<'a> {
    /// `None`: it is no text of such a file.
    pub(crate) fn parse(text: &'a [u8]) -> Option<Self> {
        // The name can hold anything, also `)`.
        let open = text.iter().position(|&byte| byte == b'(')?;
        let close = text.iter().rposition(|&byte| byte == b')')?;
        let mut fields = str::from_utf8(text.get(close + 1..)?).ok()?.split_ascii_whitespace();
        // Fields 9 and 22 of proc(5); the first here is 3.
        let flags = fields.nth(9 - 3)?.parse().ok()?;
        let start_ticks = fields.nth(22 - 9 - 1)?.parse().ok()?;
        Some(Self { comm: text.get(open + 1..close)?, flags, start_ticks })
    }

    /// When the process started.
    pub(crate) fn start_time(&self) -> StartTime {
        let seen = self.start_ticks.saturating_mul(TICK);
        StartTime(seen.saturating_add_signed(clock::namespace_offset().saturating_neg()))
    }
}

/// When a process started, exact to [`TICK`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StartTime(u64);

impl StartTime {
    /// That of a process that started at this time, in nanoseconds of the kernel's time since boot.
    #[cfg(test)]
    pub(crate) fn of(exact: u64) -> Self {
        Self(exact / TICK * TICK)
    }

    /// In nanoseconds of the kernel's time since boot, what is below the unit cut off.
    pub(crate) fn nanoseconds(self) -> u64 {
        self.0
    }

    /// Whether a process that started at this time, in nanoseconds of the kernel's time since boot, is shown like this.
    pub(crate) fn covers(self, exact: u64) -> bool {
        exact.checked_sub(self.0).is_some_and(|later| later < TICK)
    }
}

/// A line of mountinfo (Documentation/filesystems/proc.rst, 3.5).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// `mount.mnt_id`.
    pub(crate) id: u64,
    /// `super_block.s_dev`, which `stat` does not show on every file system (btrfs has one number for each subvolume).
    pub(crate) dev: u32,
    /// The directory of the file system that is mounted.
    pub(crate) root: Vec<u8>,
    /// Where it is mounted.
    pub(crate) mount_point: Vec<u8>,
    /// The name of the file system's type.
    pub(crate) fs_type: Vec<u8>,
    /// The file system's own options, separated by commas.
    pub(crate) options: Vec<u8>,
}

/// The lines of mountinfo. A line of another form is left out.
pub(crate) fn mounts(text: &[u8]) -> impl Iterator<Item = Mount> {
    text.split(|&byte| byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|&byte| byte == b' ');
        let id = number(fields.next()?)?;
        let (_parent, dev) = (fields.next()?, fields.next()?);
        let colon = dev.iter().position(|&byte| byte == b':')?;
        let dev = u32::try_from(number(&dev[..colon])? << 20 | number(&dev[colon + 1..])?).ok()?;
        let (root, mount_point) = (unescape(fields.next()?), unescape(fields.next()?));
        // Behind the options, any number of tags up to a dash.
        let mut fields = fields.skip_while(|field| field != b"-").skip(1);
        let (fs_type, _source, options) = (fields.next()?.to_vec(), fields.next()?, fields.next()?.to_vec());
        Some(Mount { id, dev, root, mount_point, fs_type, options })
    })
}

/// A line of /proc/PID/cgroup (cgroups(7)).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CgroupEntry<'a> {
    /// The number of the hierarchy; 0: cgroup2.
    pub(crate) hierarchy: u32,
    /// The controllers of a hierarchy of version 1, separated by commas.
    pub(crate) controllers: &'a [u8],
    /// The path of the process's cgroup from the root of the hierarchy.
    pub(crate) path: &'a [u8],
}

/// The lines of /proc/PID/cgroup.
pub(crate) fn cgroup_entries(text: &[u8]) -> impl Iterator<Item = CgroupEntry<'_>> {
    text.split(|&byte| byte == b'\n').filter_map(|line| {
        let mut fields = line.splitn(3, |&byte| byte == b':');
        let hierarchy = u32::try_from(number(fields.next()?)?).ok()?;
        Some(CgroupEntry { hierarchy, controllers: fields.next()?, path: fields.next()? })
    })
}

/// The number in a link such as `mnt:[4026531832]`.
pub(crate) fn namespace_number(link: &[u8]) -> Option<u32> {
    let (_, number) = str::from_utf8(link).ok()?.split_once(":[")?;
    number.strip_suffix(']')?.parse().ok()
}

/// Which of these functions the kernel and its modules have. `None`: that is not to be seen.
pub(crate) fn kernel_functions<'a>(wanted: &HashSet<&'a str>) -> Option<HashSet<&'a str>> {
    let symbols = io::BufReader::new(File::open("/proc/kallsyms").ok()?);
    let mut found = HashSet::new();
    for line in symbols.split(b'\n') {
        // Address, kind, name, and of a module's its name.
        if let Some(name) = line.ok()?.split(|byte| byte.is_ascii_whitespace()).nth(2)
            && let Some(name) = str::from_utf8(name).ok().and_then(|name| wanted.get(name))
        {
            found.insert(*name);
        }
    }
    (!found.is_empty()).then_some(found)
}

fn number(digits: &[u8]) -> Option<u64> {
    str::from_utf8(digits).ok()?.parse().ok()
}

/// Undoes the kernel's `\040` for blanks and the like.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = (byte == b'\\').then(|| tail.get(..3)).flatten();
        match octal.and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok()) {
            Some(value) => (plain.push(value), rest = &tail[3..]).1,
            None => (plain.push(byte), rest = tail).1,
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a node with cgroup2 alone, from a Debian 12.
    const MOUNTINFO: &[u8] = b"\
22 29 0:20 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
26 22 0:24 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
29 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro
36 29 0:31 / /media/a\\040b\\134c rw shared:1 master:2 - tmpfs tmpfs rw
";

    #[test]
    fn mountinfo_is_read() {
        let found: Vec<_> = mounts(MOUNTINFO).collect();
        assert_eq!(found.len(), 4);
        assert_eq!((found[2].id, found[2].dev, found[2].fs_type.as_slice()), (29, 254 << 20 | 1, &b"ext4"[..]));
        assert_eq!(found[3].mount_point, b"/media/a b\\c");
        assert_eq!(mounts(b"").count(), 0);
        for length in 0..MOUNTINFO.len() {
            mounts(&MOUNTINFO[..length]).count();
        }
        assert_eq!(mounts(b"1 2 x:1 / / rw - ext4 a rw\n1 2 0:1 / / rw\n1 2 99999999999:1 / / rw - a b c").count(), 0);
        assert_eq!(unescape(b"\\0\\999\\"), b"\\0\\999\\");
    }

    #[test]
    fn cgroups_of_a_process_are_read() {
        let found: Vec<_> = cgroup_entries(b"3:cpu,cpuacct:/b\n1:name=systemd:/c:d\n0::/e:f\n\nx:y\n-1::/\n").collect();
        assert_eq!(
            found,
            [
                CgroupEntry { hierarchy: 3, controllers: b"cpu,cpuacct", path: b"/b" },
                CgroupEntry { hierarchy: 1, controllers: b"name=systemd", path: b"/c:d" },
                CgroupEntry { hierarchy: 0, controllers: b"", path: b"/e:f" },
            ]
        );
    }

    #[test]
    fn stat_files_are_read_whatever_the_name() {
        let text =
            b"1771 (a) (b c) S 1 1771 1771 0 -1 4194560 1532 27 0 0 3 1 0 0 20 0 1 0 8466 2490368 870 1844 1 1 0\n";
        assert_eq!(Stat::parse(text), Some(Stat { comm: b"a) (b c", flags: 4_194_560, start_ticks: 8466 }));
        for length in 0..text.len() {
            Stat::parse(&text[..length]);
        }
        assert_eq!(Stat::parse(b")("), None);
    }

    #[test]
    fn namespaces_are_told_by_their_numbers() {
        assert_eq!(namespace_number(b"mnt:[4026531832]"), Some(4_026_531_832));
        assert_eq!(namespace_number(b"mnt:[]"), None);
    }

    #[test]
    fn a_process_is_only_opened_if_it_is_the_same() {
        let this = Process::open("self").expect("this process runs");
        let stat = this.read("stat").expect("it can be read");
        let start_time = Stat::parse(&stat).expect("it has the kernel's form").start_time().nanoseconds();
        assert!(Process::open_started(std::process::id(), start_time + TICK / 2).is_some());
        assert!(Process::open_started(std::process::id(), start_time + TICK).is_none());
        assert!(process_ids().expect("/proc is mounted").contains(&std::process::id()));
    }
}
