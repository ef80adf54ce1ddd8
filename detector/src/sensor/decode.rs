//! From the bytes of a ring-buffer record to an [`Event`].
//!
//! The bytes come from our own probes, but a wrong one must cost a record, not the daemon: every length is checked,
//! nothing panics, and the error says which field is wrong.

use detector_common::{
    map,
    record::{self, Kind},
};
use thiserror::Error;
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::event::{
    Ancestor, Args, At, Cgroup, CgroupEscape, Event, Exec, File, ImageWrite, Layer, MapExec, Name, Op, Origin, Path,
    Process, Script, Stdio,
};

/// Why a record could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Not even a header.
    #[error("record of {len} bytes is too short for a header")]
    TooShort {
        /// Size of the record.
        len: usize,
    },
    /// A kind that this version does not know.
    #[error("record of unknown kind {kind}")]
    UnknownKind {
        /// The kind.
        kind: u32,
    },
    /// Fewer bytes than a record of that kind has, or not as many as it says itself.
    #[error("record of kind {kind} has {len} bytes and claims {claimed}, but that kind has {expected}")]
    Size {
        /// The kind.
        kind: u32,
        /// Size of the record.
        len: usize,
        /// Size in its header.
        claimed: u32,
        /// Size of such a record.
        expected: usize,
    },
    /// Not at an address that such a record can have.
    #[error("record is not aligned to 8 bytes")]
    Misaligned,
    /// A text that claims more bytes than it has room for.
    #[error("{field} claims {len} bytes, but has room for {capacity}")]
    TextLength {
        /// Which text.
        field: &'static str,
        /// Its claim.
        len: u32,
        /// Its room.
        capacity: usize,
    },
    /// A number that stands for nothing.
    #[error("{field} is {value}, which means nothing")]
    UnknownValue {
        /// Which field.
        field: &'static str,
        /// The number.
        value: u32,
    },
}

/// Reads one record. `bytes` must be aligned to 8, as everything in a ring buffer is; bytes behind the record are
/// ignored (the ring buffer rounds sizes up).
pub fn decode(bytes: &[u8]) -> Result<Event, DecodeError> {
    let Ok((header, _)) = record::Header::ref_from_prefix(bytes) else {
        return Err(if bytes.len() < size_of::<record::Header>() {
            DecodeError::TooShort { len: bytes.len() }
        } else {
            DecodeError::Misaligned
        });
    };
    let kind = Kind::from_number(header.kind).ok_or(DecodeError::UnknownKind { kind: header.kind })?;
    match kind {
        Kind::Exec => exec(whole(bytes, header)?).map(|event| Event::Exec(Box::new(event))),
        Kind::ImageChange | Kind::MountChange | Kind::DeviceOpen => {
            image_write(kind, whole(bytes, header)?).map(|event| Event::ImageWrite(Box::new(event)))
        }
        Kind::ImageMove => image_move(whole(bytes, header)?).map(|event| Event::ImageWrite(Box::new(event))),
        Kind::Script => script(whole(bytes, header)?).map(|event| Event::Script(Box::new(event))),
        Kind::MapExec => map_exec(whole(bytes, header)?).map(|event| Event::MapExec(Box::new(event))),
        Kind::CgroupEscape => cgroup_escape(whole(bytes, header)?).map(|event| Event::CgroupEscape(Box::new(event))),
        Kind::CgroupCreated => cgroup(whole(bytes, header)?).map(Event::CgroupCreated),
        Kind::CgroupRemoved => cgroup(whole(bytes, header)?).map(Event::CgroupRemoved),
    }
}

fn whole<'a, T: FromBytes + Immutable + KnownLayout>(
    bytes: &'a [u8],
    header: &record::Header,
) -> Result<&'a T, DecodeError> {
    let size =
        DecodeError::Size { kind: header.kind, len: bytes.len(), claimed: header.size, expected: size_of::<T>() };
    if header.size as usize != size_of::<T>() {
        return Err(size);
    }
    // The header was aligned to 8 already, and no record wants more.
    T::ref_from_prefix(bytes).map(|(record, _)| record).map_err(|_| size)
}

fn exec(record: &record::ExecRecord) -> Result<Exec, DecodeError> {
    Ok(Exec {
        at: at(&record.header),
        process: process(&record.process)?,
        file: file(&record.file)?,
        exe: path(&record.path, "path")?,
        cwd: path(&record.cwd, "cwd")?,
        args: args(&record.args)?,
    })
}

/// The event of an exec whose record found no room.
///
/// # Errors
///
/// As of a record's.
pub(super) fn kept_exec(container: u64, kept: &map::KeptExec) -> Result<Event, DecodeError> {
    let exec = Exec {
        at: At { time: kept.time, cgroup: kept.cgroup, container },
        process: process(&kept.process)?,
        file: file(&kept.file)?,
        exe: Path { bytes: ["…/".as_bytes(), text(&kept.name, "name")?].concat(), truncated: true },
        cwd: Path { bytes: "…".into(), truncated: true },
        args: args(&kept.args)?,
    };
    Ok(Event::Exec(Box::new(exec)))
}

/// The event of a change whose record found no room.
///
/// # Errors
///
/// As of a record's.
pub(super) fn kept_change(key: &map::SeenKey, seen: &map::Seen) -> Result<Event, DecodeError> {
    let at = At { time: seen.first, cgroup: key.container, container: key.container };
    let file = File { inode: key.inode, dev: key.dev, mode: 0, nlink: 1, layer: layer(seen.layer)?, size: 0, magic: 0 };
    let kind = Kind::from_number(seen.kind).ok_or(DecodeError::UnknownKind { kind: seen.kind })?;
    if kind == Kind::MapExec {
        return Ok(Event::KeptMapExec(at, file));
    }
    Ok(Event::ImageWrite(Box::new(ImageWrite {
        at,
        process: None,
        file,
        op: op(kind, seen.op)?,
        bytes: seen.bytes,
        path: None,
        new_path: None,
        exe: None,
    })))
}

fn image_write(kind: Kind, record: &record::FileRecord) -> Result<ImageWrite, DecodeError> {
    let op = op(kind, record.op)?;
    let mut file = file(&record.file)?;
    if op == Op::Chmod {
        file.mode = file.mode & libc::S_IFMT | record.value & !libc::S_IFMT;
    }
    Ok(ImageWrite {
        at: at(&record.header),
        process: Some(process(&record.process)?),
        file,
        op,
        bytes: record.bytes,
        path: Some(path(&record.path, "path")?),
        new_path: None,
        exe: Some(path(&record.exe, "exe")?),
    })
}

fn image_move(record: &record::MoveRecord) -> Result<ImageWrite, DecodeError> {
    Ok(ImageWrite {
        new_path: Some(path(&record.new_path, "new path")?),
        ..image_write(Kind::ImageMove, &record.change)?
    })
}

fn script(record: &record::ScriptRecord) -> Result<Script, DecodeError> {
    Ok(Script { at: at(&record.header), pid: record.pid, file: file(&record.file)?, path: path(&record.path, "path")? })
}

fn map_exec(record: &record::FileRecord) -> Result<MapExec, DecodeError> {
    Ok(MapExec {
        at: at(&record.header),
        process: process(&record.process)?,
        file: file(&record.file)?,
        path: path(&record.path, "path")?,
        exe: path(&record.exe, "exe")?,
    })
}

fn cgroup_escape(record: &record::CgroupEscapeRecord) -> Result<CgroupEscape, DecodeError> {
    Ok(CgroupEscape {
        at: at(&record.header),
        process: process(&record.process)?,
        exe: path(&record.exe, "exe")?,
        moved: record.moved,
        cgroup: text(&record.cgroup, "cgroup path")?.to_vec(),
    })
}

fn cgroup(record: &record::CgroupRecord) -> Result<Cgroup, DecodeError> {
    Ok(Cgroup { time: record.header.time, id: record.header.cgroup, path: text(&record.path, "cgroup path")?.to_vec() })
}

fn at(header: &record::Header) -> At {
    At { time: header.time, cgroup: header.cgroup, container: header.container }
}

fn process(process: &record::Process) -> Result<Process, DecodeError> {
    Ok(Process {
        start_time: process.start_time,
        pid: process.pid,
        tid: process.tid,
        ns_pid: process.ns_pid,
        ppid: process.ppid,
        uid: process.uid,
        gid: process.gid,
        login_uid: (process.login_uid != record::NO_LOGIN).then_some(process.login_uid),
        capabilities: process.capabilities,
        origin: match process.origin {
            record::ORIGIN_OUTSIDE => Origin::Outside,
            record::ORIGIN_ENTRYPOINT => Origin::Entrypoint,
            record::ORIGIN_ENTERED => Origin::Entered,
            record::ORIGIN_APPLICATION => Origin::Application,
            value => return Err(DecodeError::UnknownValue { field: "origin", value }),
        },
        comm: Name::new(process.comm),
        tty: (process.tty[0] != 0).then(|| Name::new(process.tty)),
        stdio: process.stdio.map(stdio),
        ancestors: process
            .ancestors
            .iter()
            .take_while(|ancestor| ancestor.pid != 0)
            .map(|ancestor| Ancestor {
                start_time: ancestor.start_time,
                pid: ancestor.pid,
                in_container: ancestor.in_container != 0,
                comm: Name::new(ancestor.comm),
            })
            .collect(),
    })
}

/// What a descriptor is, by the type of its inode and, for devices, the number.
fn stdio(stdio: record::Stdio) -> Stdio {
    const NULL: (u32, u32) = (1, 3);
    // `/dev/tty`, `/dev/console` and virtual consoles; the last of the eight majors of Unix98 pseudo-terminals is 143.
    const TERMINALS: [std::ops::RangeInclusive<u32>; 2] = [4..=5, 136..=143];
    let (major, minor) = (stdio.rdev >> 20, stdio.rdev & 0xf_ffff);
    match stdio.mode & libc::S_IFMT {
        0 if stdio.mode == 0 => Stdio::Closed,
        libc::S_IFCHR if (major, minor) == NULL => Stdio::Null,
        libc::S_IFCHR if TERMINALS.iter().any(|range| range.contains(&major)) => Stdio::Tty,
        libc::S_IFIFO => Stdio::Pipe,
        libc::S_IFSOCK => Stdio::Socket,
        libc::S_IFREG => Stdio::File,
        _ => Stdio::Other,
    }
}

fn file(file: &record::File) -> Result<File, DecodeError> {
    Ok(File {
        inode: file.inode,
        dev: file.dev,
        mode: file.mode,
        nlink: file.nlink,
        layer: layer(file.layer)?,
        size: file.size,
        magic: file.magic,
    })
}

/// The meaning of a `LAYER_` constant.
fn layer(value: u32) -> Result<Option<Layer>, DecodeError> {
    Ok(match value {
        record::LAYER_NONE => None,
        record::LAYER_LOWER => Some(Layer::Lower),
        record::LAYER_UPPER => Some(Layer::Upper),
        record::LAYER_NEW => Some(Layer::New),
        value => return Err(DecodeError::UnknownValue { field: "layer", value }),
    })
}

/// The operation that a record of this kind, or an element of map `SEEN`, tells.
fn op(kind: Kind, value: u32) -> Result<Op, DecodeError> {
    Ok(match value {
        0 if kind == Kind::DeviceOpen => Op::DeviceWrite,
        record::OP_OPEN_WRITE => Op::OpenWrite,
        record::OP_TRUNCATE => Op::Truncate,
        record::OP_CREATE => Op::Create,
        record::OP_WRITE => Op::Write,
        record::OP_UNLINK => Op::Unlink,
        record::OP_RMDIR => Op::Rmdir,
        record::OP_MKDIR => Op::Mkdir,
        record::OP_MKNOD => Op::Mknod,
        record::OP_SYMLINK => Op::Symlink,
        record::OP_LINK => Op::Link,
        record::OP_RENAME => Op::Rename,
        record::OP_EXCHANGE => Op::Exchange,
        record::OP_CHMOD => Op::Chmod,
        record::OP_CHOWN => Op::Chown,
        record::OP_UTIMES => Op::Utimes,
        record::OP_SET_XATTR => Op::SetXattr,
        record::OP_REMOVE_XATTR => Op::RemoveXattr,
        record::OP_SET_CAPABILITY => Op::SetCapability,
        record::OP_SET_ACL => Op::SetAcl,
        record::OP_SET_FLAGS => Op::SetFlags,
        record::OP_COPY_UP => Op::CopyUp,
        record::OP_MMAP_WRITE => Op::MmapWrite,
        record::OP_MOUNT => Op::Mount,
        record::OP_BIND => Op::Bind,
        record::OP_REMOUNT => Op::Remount,
        record::OP_MOVE_MOUNT => Op::MoveMount,
        record::OP_UMOUNT => Op::Umount,
        record::OP_PIVOT_ROOT => Op::PivotRoot,
        record::OP_CHROOT => Op::Chroot,
        record::OP_MOUNT_SETATTR => Op::MountSetattr,
        value => return Err(DecodeError::UnknownValue { field: "op", value }),
    })
}

fn text<'a, const N: usize>(text: &'a record::Text<N>, field: &'static str) -> Result<&'a [u8], DecodeError> {
    text.bytes.get(..text.len as usize).ok_or(DecodeError::TextLength { field, len: text.len, capacity: N })
}

/// Turns a path's names round: the record has the file first, each name ended by a NUL.
fn path(record: &record::Path, field: &'static str) -> Result<Path, DecodeError> {
    let mut names = text(record, field)?;
    let truncated = record.flags & record::TEXT_TRUNCATED != 0;
    names = names.strip_suffix(&[0]).unwrap_or(names);
    let mut bytes = Vec::with_capacity(names.len() + '…'.len_utf8() + 1);
    if truncated {
        bytes.extend_from_slice("…".as_bytes());
    }
    if names.is_empty() {
        bytes.push(b'/');
    } else {
        for name in names.rsplit(|&byte| byte == 0) {
            bytes.push(b'/');
            bytes.extend_from_slice(name);
        }
    }
    Ok(Path { bytes, truncated })
}

fn args<const N: usize>(record: &record::Text<N>) -> Result<Args, DecodeError> {
    Ok(Args { bytes: text(record, "args")?.to_vec(), truncated: record.flags & record::TEXT_TRUNCATED != 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record in memory, aligned as in the ring buffer. The layout is stated here once more, by byte, on purpose: a
    /// change of it is a change of the wire.
    struct Record {
        words: Vec<u64>,
        len: usize,
    }

    const PROCESS: usize = 40;
    const FILE: usize = PROCESS + 384;

    impl Record {
        fn new(kind: Kind, len: usize) -> Self {
            let mut record = Self { words: vec![0; len.div_ceil(8)], len };
            record.put(0, &kind.number().to_ne_bytes());
            record.put(4, &(len as u32).to_ne_bytes());
            record
        }

        fn put(&mut self, offset: usize, value: &[u8]) {
            for (position, byte) in (offset..).zip(value) {
                let mut word = self.words[position / 8].to_ne_bytes();
                word[position % 8] = *byte;
                self.words[position / 8] = u64::from_ne_bytes(word);
            }
        }

        fn text(&mut self, offset: usize, text: &[u8], flags: u32) {
            self.put(offset, &(text.len() as u32).to_ne_bytes());
            self.put(offset + 4, &flags.to_ne_bytes());
            self.put(offset + 8, text);
        }

        fn bytes(&self) -> &[u8] {
            &zerocopy::IntoBytes::as_bytes(self.words.as_slice())[..self.len]
        }
    }

    const PATH: usize = FILE + 40;
    const CWD: usize = PATH + 8 + 4352;
    const ARGS: usize = CWD + 8 + 4352;

    fn exec_record() -> Record {
        let mut record = Record::new(Kind::Exec, ARGS + 8 + 2048);
        record.put(8, &78_u64.to_ne_bytes());
        record.put(16, &77_u64.to_ne_bytes());
        record.put(24, &501_u64.to_ne_bytes());
        record.put(32, &500_u64.to_ne_bytes());
        record.put(PROCESS, &70_u64.to_ne_bytes());
        let numbers = [1234_u32, 1235, 7, 1200, 1000, 1001, record::ORIGIN_ENTERED, 1002];
        for (nth, value) in numbers.into_iter().enumerate() {
            record.put(PROCESS + 8 + 4 * nth, &value.to_ne_bytes());
        }
        record.put(PROCESS + 40, &0xa804_25fb_u64.to_ne_bytes());
        record.put(PROCESS + 48, b"sh\0junk");
        record.put(PROCESS + 64, b"pts0");
        // A pseudo-terminal, `/dev/null`, and closed.
        record.put(PROCESS + 80 + 8, &[0o20620_u32.to_ne_bytes(), (136_u32 << 20 | 2).to_ne_bytes()].concat());
        record.put(PROCESS + 96 + 8, &[0o20666_u32.to_ne_bytes(), (1_u32 << 20 | 3).to_ne_bytes()].concat());
        record.put(PROCESS + 128, &60_u64.to_ne_bytes());
        record.put(PROCESS + 136, &[1200_u32.to_ne_bytes(), 1_u32.to_ne_bytes()].concat());
        record.put(PROCESS + 144, b"runc");
        record.put(FILE, &99_u64.to_ne_bytes());
        for (nth, value) in [45_u32, 0o100755, 1, record::LAYER_LOWER].into_iter().enumerate() {
            record.put(FILE + 8 + 4 * nth, &value.to_ne_bytes());
        }
        record.put(FILE + 24, &1_000_000_u64.to_ne_bytes());
        record.put(FILE + 32, &0x794c_7630_u32.to_ne_bytes());
        record.text(PATH, b"busybox\0bin\0", 0);
        record.text(CWD, b"", 0);
        record.text(ARGS, b"sh\0-c\0\0id\0", record::TEXT_TRUNCATED);
        record
    }

    fn name(text: &str) -> Name {
        let mut padded = [0; record::COMM_LEN];
        padded[..text.len()].copy_from_slice(text.as_bytes());
        Name::new(padded)
    }

    #[test]
    fn exec_is_read() {
        let Ok(Event::Exec(exec)) = decode(exec_record().bytes()) else { panic!("no exec") };
        let expected = Exec {
            at: At { time: 77, cgroup: 501, container: 500 },
            process: Process {
                start_time: 70,
                pid: 1234,
                tid: 1235,
                ns_pid: 7,
                ppid: 1200,
                uid: 1000,
                gid: 1001,
                login_uid: Some(1002),
                capabilities: 0xa804_25fb,
                origin: Origin::Entered,
                comm: name("sh"),
                tty: Some(name("pts0")),
                stdio: [Stdio::Tty, Stdio::Null, Stdio::Closed],
                ancestors: vec![Ancestor { start_time: 60, pid: 1200, in_container: true, comm: name("runc") }],
            },
            file: File {
                inode: 99,
                dev: 45,
                mode: 0o100755,
                nlink: 1,
                layer: Some(Layer::Lower),
                size: 1_000_000,
                magic: 0x794c_7630,
            },
            exe: Path { bytes: b"/bin/busybox".to_vec(), truncated: false },
            cwd: Path { bytes: b"/".to_vec(), truncated: false },
            args: Args { bytes: b"sh\0-c\0\0id\0".to_vec(), truncated: true },
        };
        assert_eq!(*exec, expected);
    }

    fn decoded_args(text: &[u8]) -> Vec<Vec<u8>> {
        let mut record = exec_record();
        record.text(ARGS, text, 0);
        match decode(record.bytes()) {
            Ok(Event::Exec(exec)) => exec.args.iter().map(<[u8]>::to_vec).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn arguments_keep_their_places() {
        assert_eq!(decoded_args(b""), Vec::<Vec<u8>>::new());
        assert_eq!(decoded_args(b"\0"), [b""]);
        assert_eq!(decoded_args(b"a\0\0"), [b"a".to_vec(), b"".to_vec()]);
        assert_eq!(decoded_args(b"a\0cut"), [b"a".to_vec(), b"cut".to_vec()]);
    }

    #[test]
    fn a_truncated_path_says_so() {
        let mut record = exec_record();
        record.text(PATH, b"passwd\0deep\0", record::TEXT_TRUNCATED);
        let Ok(Event::Exec(exec)) = decode(record.bytes()) else { panic!("no exec") };
        assert_eq!(exec.exe, Path { bytes: "…/deep/passwd".into(), truncated: true });
    }

    #[test]
    fn cgroups_are_read() {
        let mut record = Record::new(Kind::CgroupRemoved, 40 + 8 + 4096);
        record.put(24, &9_u64.to_ne_bytes());
        record.text(40, b"/docker/x", 0);
        let expected = Cgroup { time: 0, id: 9, path: b"/docker/x".to_vec() };
        assert_eq!(decode(record.bytes()), Ok(Event::CgroupRemoved(expected)));
    }

    #[test]
    fn errors_name_what_is_wrong() {
        let error = |record: &Record| decode(record.bytes()).expect_err("it is wrong").to_string();
        assert_eq!(decode(&[]).expect_err("it is empty").to_string(), "record of 0 bytes is too short for a header");
        let mut unknown = Record::new(Kind::Exec, 64);
        unknown.put(0, &99_u32.to_ne_bytes());
        assert_eq!(error(&unknown), "record of unknown kind 99");
        let mut record = exec_record();
        record.put(PATH, &5000_u32.to_ne_bytes());
        assert_eq!(error(&record), "path claims 5000 bytes, but has room for 4352");
        let mut record = exec_record();
        record.put(PROCESS + 32, &9_u32.to_ne_bytes());
        assert_eq!(error(&record), "origin is 9, which means nothing");
        let mut record = exec_record();
        record.put(4, &1_u32.to_ne_bytes());
        assert!(error(&record).starts_with("record of kind 1 has 11240 bytes and claims 1, but"));
        assert_eq!(decode(&exec_record().bytes()[1..]), Err(DecodeError::Misaligned));
    }

    #[test]
    fn garbage_is_an_error_and_no_panic() {
        let whole = exec_record();
        for len in (0..whole.len).step_by(7) {
            assert!(decode(&whole.bytes()[..len]).is_err(), "{len} bytes");
        }
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..3_000 {
            let (kind, len) = match random.u32(1..=3) {
                1 => (Kind::Exec, size_of::<record::ExecRecord>()),
                2 => (Kind::ImageChange, size_of::<record::FileRecord>()),
                _ => (Kind::CgroupCreated, size_of::<record::CgroupRecord>()),
            };
            let mut record = Record::new(kind, len);
            for word in &mut record.words[1..] {
                *word = random.u64(..);
            }
            // Small numbers, so that the checks behind the first are reached too.
            for field in [PROCESS + 32, FILE + 20, PATH, PATH + 16, CWD, ARGS] {
                if field + 4 <= len {
                    record.put(field, &random.u32(..4).to_ne_bytes());
                }
            }
            let _ = decode(record.bytes());
        }
    }
}
