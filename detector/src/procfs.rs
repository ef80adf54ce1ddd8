//! Reads and parses what /proc says about processes, mounts and kernel functions. Nothing else in this crate does.
//!
//! The formats are the kernel's, but names in them can have any bytes, so no parser here panics.

use std::collections::HashSet;
use std::ffi::CStr;
use std::fs::{self, File};
use std::io::{self, BufRead as _, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};

use detector_common::record::Stdio;
use rustix::fs::{AtFlags, Mode, OFlags, Statx, StatxFlags};
use rustix::io::Errno;

use crate::clock;

/// The unit of start times in /proc/PID/stat, in nanoseconds, because `USER_HZ` is 100 on all supported architectures.
/// The kernel rounds down.
const TICK: u64 = 10_000_000;

/// A process, held by its directory in /proc. Reads fail after the process has ended, even if its id is used again.
#[derive(Debug)]
pub(crate) struct Process {
    directory: OwnedFd,
}

impl Process {
    /// Opens `/proc/NAME`, where the name is a process id or `self`.
    pub(crate) fn open(name: &str) -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { directory: rustix::fs::open(format!("/proc/{name}"), flags, Mode::empty())? })
    }

    /// Opens the process with this id and this start time, in nanoseconds of the kernel's time since boot. Returns
    /// `None` if that process has ended, even if its id is used again.
    pub(crate) fn open_started(pid: u32, start_time: u64) -> Option<Self> {
        let process = Self::open(&pid.to_string()).ok()?;
        let stat = process.read("stat").ok()?;
        Stat::parse(&stat)?.start_time().covers(start_time).then_some(process)
    }

    /// Reads a whole file.
    pub(crate) fn read(&self, name: &str) -> Result<Vec<u8>, Errno> {
        self.read_at_most(name, u64::MAX)
    }

    /// Reads the first `most` bytes of a file.
    pub(crate) fn read_at_most(&self, name: &str, most: u64) -> Result<Vec<u8>, Errno> {
        // This is enough to read most of these files with one call.
        let mut text = Vec::with_capacity(4096);
        match File::from(self.open_file(name.as_bytes())?).take(most).read_to_end(&mut text) {
            Ok(_) => Ok(text),
            Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        }
    }

    /// Opens a file for reading, or the target of a link such as `exe`.
    pub(crate) fn open_file(&self, name: &[u8]) -> Result<OwnedFd, Errno> {
        rustix::fs::openat(&self.directory, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
    }

    /// The target of a link.
    pub(crate) fn read_link(&self, name: &str) -> Result<Vec<u8>, Errno> {
        rustix::fs::readlinkat(&self.directory, name, Vec::new()).map(std::ffi::CString::into_bytes)
    }

    /// The inode number of the process's mount namespace.
    pub(crate) fn mount_namespace(&self) -> Result<u32, Errno> {
        namespace_number(&self.read_link("ns/mnt")?).ok_or(Errno::INVAL)
    }

    /// The inode number of the process's user namespace.
    pub(crate) fn user_namespace(&self) -> Result<u32, Errno> {
        namespace_number(&self.read_link("ns/user")?).ok_or(Errno::INVAL)
    }

    /// The inode number of the process's network namespace.
    pub(crate) fn network_namespace(&self) -> Result<u32, Errno> {
        namespace_number(&self.read_link("ns/net")?).ok_or(Errno::INVAL)
    }

    /// The mount id and the inode of the file that a link such as `root` leads to.
    pub(crate) fn file_behind(&self, link: &CStr) -> Result<Statx, Errno> {
        rustix::fs::statx(&self.directory, link, AtFlags::STATX_DONT_SYNC, StatxFlags::INO | StatxFlags::MNT_ID)
    }

    /// What a descriptor refers to. All members are 0 if it is closed. No file system is asked for anything.
    pub(crate) fn descriptor(&self, number: u32) -> Stdio {
        let link = format!("fd/{number}");
        let found =
            rustix::fs::statx(&self.directory, link, AtFlags::STATX_DONT_SYNC, StatxFlags::TYPE | StatxFlags::INO);
        found.map_or(Stdio { inode: 0, mode: 0, rdev: 0 }, |found| Stdio {
            inode: found.stx_ino,
            mode: found.stx_mode.into(),
            rdev: found.stx_rdev_major << 20 | found.stx_rdev_minor,
        })
    }

    /// The process's root directory. It is looked up by mount id, because several file systems can be mounted on `/`.
    /// Returns `Ok(None)` if mountinfo does not list that mount.
    pub(crate) fn root(&self) -> Result<Option<RootDirectory>, Errno> {
        let mountinfo = self.read("mountinfo")?;
        let found = self.file_behind(c"root")?;
        let mount = mounts(&mountinfo).find(|mount| mount.id == found.stx_mnt_id);
        Ok(mount.map(|mount| RootDirectory { dev: mount.dev, inode: found.stx_ino }))
    }

    /// Holds the target of a link such as `exe`, without opening it: no file system is asked for anything.
    pub(crate) fn hold(&self, link: &str) -> Result<OwnedFd, Errno> {
        rustix::fs::openat(&self.directory, link, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
    }

    /// Like [`hold`](Self::hold), for the mapped files that `is_wanted` accepts, and returns the first one that `take`
    /// takes. Needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN.
    pub(crate) fn hold_mapped(
        &self,
        is_wanted: impl Fn(&MappedFile) -> bool,
        take: impl Fn(OwnedFd) -> Option<OwnedFd>,
    ) -> Option<OwnedFd> {
        /// This is enough for the maximum number of mappings, with paths of a usual length.
        const MOST: u64 = 16 << 20;
        let maps = self.read_at_most("maps", MOST).ok()?;
        mapped_files(&maps)
            .filter(is_wanted)
            .find_map(|MappedFile { start, end, .. }| take(self.hold(&format!("map_files/{start:x}-{end:x}")).ok()?))
    }
}

/// The id of the mount through which a file is held. No file system is asked for anything.
pub(crate) fn mount_of(held: &OwnedFd) -> Option<u64> {
    let text = fs::read(format!("/proc/self/fdinfo/{}", held.as_raw_fd())).ok()?;
    let mut lines = text.split(|&byte| byte == b'\n');
    number(lines.find_map(|line| line.strip_prefix(b"mnt_id:"))?.trim_ascii())
}

/// Opens a file that is held, for reading. Does not wait for a lease on the file.
pub(crate) fn open_held(held: &OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    rustix::fs::open(format!("/proc/self/fd/{}", held.as_raw_fd()), flags, Mode::empty())
}

/// A line of /proc/PID/maps about a mapped file (proc(5)).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MappedFile {
    /// The first address.
    pub(crate) start: u64,
    /// The address after the last one.
    pub(crate) end: u64,
    /// The number of the file system's device. For a file on an overlay, older kernels show that of the layer.
    pub(crate) dev: u32,
    /// The inode number.
    pub(crate) inode: u64,
}

/// Parses /proc/PID/maps. Skips what is not a file.
pub(crate) fn mapped_files(text: &[u8]) -> impl Iterator<Item = MappedFile> {
    let hex = |digits: &[u8]| u64::from_str_radix(str::from_utf8(digits).ok()?, 16).ok();
    let pair = move |text: &[u8], between| {
        let middle = text.iter().position(|&byte| byte == between)?;
        Some((hex(&text[..middle])?, hex(&text[middle + 1..])?))
    };
    text.split(|&byte| byte == b'\n').filter_map(move |line| {
        let mut fields = line.split(|&byte| byte == b' ');
        let (start, end) = pair(fields.next()?, b'-')?;
        let (major, minor) = pair(fields.nth(2)?, b':')?;
        let inode = number(fields.next()?)?;
        let dev = u32::try_from(major << 20 | minor).ok()?;
        (inode != 0).then_some(MappedFile { start, end, dev, inode })
    })
}

/// The ids of all processes. Some of them may end before the caller opens them.
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

/// The fields of /proc/PID/stat that are used here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stat<'a> {
    /// The name of the task.
    pub(crate) comm: &'a [u8],
    /// The process id of the parent.
    pub(crate) parent: u32,
    /// The device number of the controlling terminal, in the encoding of stat(2). 0 if there is none.
    pub(crate) terminal: u32,
    /// The `PF_` flags of include/linux/sched.h.
    pub(crate) flags: u64,
    start_ticks: u64,
}

impl<'a> Stat<'a> {
    /// Parses the text of a stat file. Returns `None` if it does not have the expected format.
    pub(crate) fn parse(text: &'a [u8]) -> Option<Self> {
        // The name can contain any bytes, even `)`.
        let open = text.iter().position(|&byte| byte == b'(')?;
        let close = text.iter().rposition(|&byte| byte == b')')?;
        let mut fields = str::from_utf8(text.get(close + 1..)?).ok()?.split_ascii_whitespace();
        // These are fields 4, 7, 9 and 22 of proc(5). The first field after the name is field 3.
        let parent = fields.nth(4 - 3)?.parse().ok()?;
        let terminal = fields.nth(7 - 4 - 1)?.parse::<i32>().ok()?.cast_unsigned();
        let flags = fields.nth(9 - 7 - 1)?.parse().ok()?;
        let start_ticks = fields.nth(22 - 9 - 1)?.parse().ok()?;
        Some(Self { comm: text.get(open + 1..close)?, parent, terminal, flags, start_ticks })
    }

    /// The start time of the process.
    pub(crate) fn start_time(&self) -> StartTime {
        let seen = self.start_ticks.saturating_mul(TICK);
        StartTime(seen.saturating_add_signed(clock::namespace_offset().saturating_neg()))
    }
}

/// The start time of a process, with the resolution of [`TICK`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StartTime(u64);

impl StartTime {
    /// Converts a time in nanoseconds of the kernel's time since boot.
    #[cfg(test)]
    pub(crate) fn of(exact: u64) -> Self {
        Self(exact / TICK * TICK)
    }

    /// The time in nanoseconds of the kernel's time since boot, rounded down to [`TICK`].
    pub(crate) fn nanoseconds(self) -> u64 {
        self.0
    }

    /// Whether /proc shows this time for a process that started at `exact` nanoseconds of the kernel's time since boot.
    pub(crate) fn covers(self, exact: u64) -> bool {
        exact.checked_sub(self.0).is_some_and(|later| later < TICK)
    }
}

/// A line of mountinfo (Documentation/filesystems/proc.rst, 3.5).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// `mount.mnt_id`.
    pub(crate) id: u64,
    /// `super_block.s_dev`. On some file systems `stat` shows another number: on btrfs, one for each subvolume.
    pub(crate) dev: u32,
    /// The directory of the file system that is mounted.
    pub(crate) root: Vec<u8>,
    /// The path of the mount point.
    pub(crate) mount_point: Vec<u8>,
    /// The type of the file system.
    pub(crate) fs_type: Vec<u8>,
    /// The options of the file system itself, separated by commas.
    pub(crate) options: Vec<u8>,
}

impl Mount {
    /// The values of the options of the file system that have this name.
    pub(crate) fn options_named(&self, name: &[u8]) -> impl Iterator<Item = Vec<u8>> {
        let value = move |option: &[u8]| option.strip_prefix(name)?.strip_prefix(b"=").map(unescape);
        self.options.split(|&byte| byte == b',').filter_map(value)
    }
}

/// Parses mountinfo. Skips lines that do not have the expected format.
pub(crate) fn mounts(text: &[u8]) -> impl Iterator<Item = Mount> {
    text.split(|&byte| byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|&byte| byte == b' ');
        let id = number(fields.next()?)?;
        let (_parent, dev) = (fields.next()?, fields.next()?);
        let colon = dev.iter().position(|&byte| byte == b':')?;
        let dev = u32::try_from(number(&dev[..colon])? << 20 | number(&dev[colon + 1..])?).ok()?;
        let (root, mount_point) = (unescape(fields.next()?), unescape(fields.next()?));
        // The options are followed by any number of tags, and then by a dash.
        let mut fields = fields.skip_while(|field| field != b"-").skip(1);
        let (fs_type, _source, options) = (fields.next()?.to_vec(), fields.next()?, fields.next()?.to_vec());
        Some(Mount { id, dev, root, mount_point, fs_type, options })
    })
}

/// A line of /proc/PID/cgroup (cgroups(7)).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CgroupEntry<'a> {
    /// The number of the hierarchy, which is 0 for cgroup2.
    pub(crate) hierarchy: u32,
    /// The controllers of a version 1 hierarchy, separated by commas.
    pub(crate) controllers: &'a [u8],
    /// The path of the process's cgroup from the root of the hierarchy.
    pub(crate) path: &'a [u8],
}

/// Parses /proc/PID/cgroup.
pub(crate) fn cgroup_entries(text: &[u8]) -> impl Iterator<Item = CgroupEntry<'_>> {
    text.split(|&byte| byte == b'\n').filter_map(|line| {
        let mut fields = line.splitn(3, |&byte| byte == b':');
        let hierarchy = u32::try_from(number(fields.next()?)?).ok()?;
        Some(CgroupEntry { hierarchy, controllers: fields.next()?, path: fields.next()? })
    })
}

/// The fields of /proc/PID/status that are used here (proc(5)).
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Status {
    /// The real user id.
    pub(crate) user: u32,
    /// The real group id.
    pub(crate) group: u32,
    /// The process id in the process's own pid namespace.
    pub(crate) namespace_pid: u32,
    /// The effective capabilities.
    pub(crate) capabilities: u64,
}

impl Status {
    /// Parses the text of a status file. What is missing is 0.
    pub(crate) fn parse(text: &[u8]) -> Self {
        let mut status = Self::default();
        for line in text.split(|&byte| byte == b'\n') {
            let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
            let (name, first) = (words.next(), words.next());
            let number = |word: Option<&[u8]>| word.and_then(number).and_then(|id| u32::try_from(id).ok()).unwrap_or(0);
            match name {
                Some(b"Uid:") => status.user = number(first),
                Some(b"Gid:") => status.group = number(first),
                Some(b"NSpid:") => status.namespace_pid = number(words.next_back().or(first)),
                Some(b"CapEff:") => {
                    let digits = first.and_then(|digits| str::from_utf8(digits).ok());
                    status.capabilities = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or(0);
                }
                _ => {}
            }
        }
        status
    }
}

/// Parses the number in a link such as `mnt:[4026531832]`.
pub(crate) fn namespace_number(link: &[u8]) -> Option<u32> {
    let (_, number) = str::from_utf8(link).ok()?.split_once(":[")?;
    number.strip_suffix(']')?.parse().ok()
}

/// Returns those of the `wanted` functions that the kernel or one of its modules has, or `None` if /proc/kallsyms
/// cannot be read.
pub(crate) fn kernel_functions<'a>(wanted: &HashSet<&'a str>) -> Option<HashSet<&'a str>> {
    let symbols = io::BufReader::new(File::open("/proc/kallsyms").ok()?);
    let mut found = HashSet::new();
    for line in symbols.split(b'\n') {
        // A line has an address, a kind, a name and, for a function of a module, the module's name.
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

/// Replaces the kernel's octal escapes, such as `\040` for a space.
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
    use proptest::prelude::*;

    use super::*;

    /// The mountinfo of a Debian 12 node that has only cgroup2.
    const MOUNTINFO: &[u8] = b"\
22 29 0:20 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
26 22 0:24 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
29 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro
36 29 0:31 / /media/a\\040b\\134c rw shared:1 master:2 - tmpfs tmpfs rw
";

    #[test]
    fn mountinfo_is_parsed() {
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
    fn the_cgroups_of_a_process_are_parsed() {
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
    fn status_files_are_parsed() {
        let text =
            b"Name:\ta b\nUid:\t1000\t0\t0\t0\nGid:\t1001\t0\t0\t0\nNSpid:\t4321\t7\nCapEff:\t00000000a80425fb\n";
        let expected = Status { user: 1000, group: 1001, namespace_pid: 7, capabilities: 0xa804_25fb };
        assert_eq!(Status::parse(text), expected);
        assert_eq!(Status::parse(b"Uid:\nCapEff: x\n\xff"), Status::default());
    }

    #[test]
    fn stat_files_are_parsed_whatever_the_name_of_the_task() {
        let text =
            b"1771 (a) (b c) S 1 1771 1771 0 -1 4194560 1532 27 0 0 3 1 0 0 20 0 1 0 8466 2490368 870 1844 1 1 0\n";
        assert_eq!(
            Stat::parse(text),
            Some(Stat { comm: b"a) (b c", parent: 1, terminal: 0, flags: 4_194_560, start_ticks: 8466 })
        );
        for length in 0..text.len() {
            Stat::parse(&text[..length]);
        }
        assert_eq!(Stat::parse(b")("), None);
    }

    #[test]
    fn mapped_files_are_parsed() {
        const MAPS: &[u8] = b"\
00400000-00401000 r-xp 00000000 fe:01 1771                               /bin/a b\\012c (deleted)
7f5c1c000000-7f5c1c021000 rw-p 00000000 00:00 0 
7ffd0b7f6000-7ffd0b817000 rw-p 00000000 00:00 0                          [stack]
";
        let found: Vec<_> = mapped_files(MAPS).collect();
        assert_eq!(found, [MappedFile { start: 0x40_0000, end: 0x40_1000, dev: 254 << 20 | 1, inode: 1771 }]);
        for length in 0..MAPS.len() {
            mapped_files(&MAPS[..length]).count();
        }
        assert_eq!(mapped_files(b"1-2 r-xp 0 ffff:ffffffff 1\n1-x r-xp 0 0:1 1\n1 r-xp 0 0:1 1").count(), 0);
    }

    #[test]
    fn a_held_file_is_found_among_the_mounts() {
        let this = Process::open("self").expect("this process runs");
        let held = this.hold("exe").expect("it has an executable");
        let mountinfo = this.read("mountinfo").expect("it can be read");
        let id = mount_of(&held).expect("the kernel shows it");
        assert!(mounts(&mountinfo).any(|mount| mount.id == id));
        assert!(File::from(open_held(&held).expect("it can be opened")).read(&mut [0; 4]).is_ok_and(|read| read == 4));
    }

    #[test]
    fn namespace_numbers_are_parsed() {
        assert_eq!(namespace_number(b"mnt:[4026531832]"), Some(4_026_531_832));
        assert_eq!(namespace_number(b"mnt:[]"), None);
    }

    #[test]
    fn a_process_is_opened_only_if_its_start_time_matches() {
        let this = Process::open("self").expect("this process runs");
        let stat = this.read("stat").expect("it can be read");
        let start_time = Stat::parse(&stat).expect("it has the kernel's form").start_time().nanoseconds();
        assert!(Process::open_started(std::process::id(), start_time + TICK / 2).is_some());
        assert!(Process::open_started(std::process::id(), start_time + TICK).is_none());
        assert!(process_ids().expect("/proc is mounted").contains(&std::process::id()));
    }

    proptest! {
        #[test]
        fn a_start_time_covers_its_tick_and_nothing_else(exact in TICK..=u64::MAX - TICK) {
            let (shown, start) = (StartTime::of(exact), exact / TICK * TICK);
            for covered in [start, exact, start + TICK - 1] {
                prop_assert!(shown.covers(covered));
            }
            for other in [0, start - 1, start + TICK, u64::MAX] {
                prop_assert!(!shown.covers(other));
            }
        }
    }
}
