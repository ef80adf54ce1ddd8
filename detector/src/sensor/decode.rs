//! Decodes a record of the ring buffer into an [`Event`].
//!
//! The bytes come from this project's own probes, but a wrong byte must cost only the record, not the daemon: every
//! length is checked, nothing panics, and the error names the wrong field.

use std::net::{IpAddr, SocketAddr};

use detector_common::map;
use detector_common::record::{self, Kind};
use detector_common::vocabulary;
use thiserror::Error;
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::event::{
    Ancestor, Args, At, Cgroup, CgroupEscape, Control, ControlOpen, Creation, Detail, DeviceOpen, Difference, Event,
    Exec, Exit, File, HandleOpen, HostExec, ImageChange, ImageOp, Interpret, Layer, LowerFile, MapCommand, MapExec,
    MountChange, MountOp, Name, Origin, Path, Process, Script, Serving, Session, StdioKind, Tampering, TamperingAct,
    Via,
};

/// Why a record could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The record is shorter than a header.
    #[error("record of {len} bytes is too short for a header")]
    TooShort {
        /// The size of the record.
        len: usize,
    },
    /// The record is of a kind that this version does not know.
    #[error("record of unknown kind {kind}")]
    UnknownKind {
        /// The kind.
        kind: u32,
    },
    /// The record has fewer bytes than its kind requires, or than its header says.
    #[error("record of kind {kind} has {len} bytes and claims {claimed}, but that kind has at least {expected}")]
    Size {
        /// The kind.
        kind: u32,
        /// The size of the record.
        len: usize,
        /// The size in its header.
        claimed: u32,
        /// The size of a record of that kind without its texts.
        expected: usize,
    },
    /// The record is not at an address that a record can have.
    #[error("record is not aligned to 8 bytes")]
    Misaligned,
    /// A text that claims more bytes than there are.
    #[error("{field} claims {len} bytes, but there are {capacity}")]
    TextLength {
        /// The name of the text.
        field: &'static str,
        /// The length that it claims.
        len: u32,
        /// The number of bytes that there are.
        capacity: usize,
    },
    /// A number is not in the vocabulary.
    #[error("{field} is {value}, which this version does not know")]
    UnknownValue {
        /// The name of the field.
        field: &'static str,
        /// The number.
        value: u32,
    },
}

/// Decodes one record. `bytes` must be aligned to 8, as everything in a ring buffer is. Bytes after the record are
/// ignored, because the ring buffer rounds sizes up.
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
        Kind::Exec => exec(parts(bytes, header)?),
        Kind::Script => script(parts(bytes, header)?),
        Kind::ImageChange
        | Kind::ImageMove
        | Kind::MountChange
        | Kind::DeviceOpen
        | Kind::ControlOpen
        | Kind::HandleOpen
        | Kind::HostExec
        | Kind::MapExec
        | Kind::Interpret => file_record(kind, parts(bytes, header)?),
        Kind::Tampering => tampering(parts(bytes, header)?),
        Kind::CgroupEscape => cgroup_escape(parts(bytes, header)?),
        Kind::Exit => exit(parts(bytes, header)?),
        Kind::Listen => Ok(Event::Listen(serving(parts(bytes, header)?))),
        Kind::Accept => Ok(Event::Accept(serving(parts(bytes, header)?))),
        Kind::CgroupCreated => cgroup(parts(bytes, header)?).map(Event::CgroupCreated),
        Kind::CgroupRemoved => cgroup(parts(bytes, header)?).map(Event::CgroupRemoved),
    }
}

/// The texts of a record that were not taken yet.
struct Texts<'a>(&'a [u8]);

impl<'a> Texts<'a> {
    /// Takes the next text.
    fn take(&mut self, span: record::Span, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let error = DecodeError::TextLength { field, len: span.len, capacity: self.0.len() };
        let (text, rest) = self.0.split_at_checked(span.len as usize).ok_or(error)?;
        self.0 = rest;
        Ok(text)
    }

    /// Takes a path.
    fn path(&mut self, span: record::Path, field: &'static str) -> Result<Path, DecodeError> {
        Ok(path(self.take(span, field)?, span.flags))
    }

    /// Takes an argument vector.
    fn args(&mut self, span: record::Args) -> Result<Args, DecodeError> {
        Ok(Args { bytes: self.take(span, "args")?.to_vec(), truncated: span.flags & record::TEXT_TRUNCATED != 0 })
    }
}

/// A record and its texts.
fn parts<'a, T: FromBytes + Immutable + KnownLayout>(
    bytes: &'a [u8],
    header: &record::Header,
) -> Result<(&'a T, Texts<'a>), DecodeError> {
    let size =
        DecodeError::Size { kind: header.kind, len: bytes.len(), claimed: header.size, expected: size_of::<T>() };
    let whole = bytes.get(..header.size as usize).ok_or(size)?;
    // The header was already found to be aligned to 8, and no record requires more.
    let (record, texts) = T::ref_from_prefix(whole).map_err(|_| size)?;
    Ok((record, Texts(texts)))
}

fn exec((record, mut texts): (&record::ExecRecord, Texts<'_>)) -> Result<Event, DecodeError> {
    Ok(Event::Exec(Box::new(Exec {
        at: at(&record.header),
        process: process(&record.process, record.header.container)?,
        file: file(&record.file)?,
        head: Some(record.head),
        is_interpreter: record.is_interpreter != 0,
        exe: texts.path(record.path, "path")?,
        cwd: texts.path(record.cwd, "cwd")?,
        args: texts.args(record.args)?,
    })))
}

fn script((record, mut texts): (&record::ScriptRecord, Texts<'_>)) -> Result<Event, DecodeError> {
    Ok(Event::Script(Box::new(Script {
        at: at(&record.header),
        pid: record.pid,
        is_input: record.is_input != 0,
        file: file(&record.file)?,
        path: texts.path(record.path, "path")?,
    })))
}

fn file_record(kind: Kind, (record, mut texts): (&record::FileRecord, Texts<'_>)) -> Result<Event, DecodeError> {
    let mut file = file(&record.file)?;
    if kind == Kind::ImageChange && record.op == ImageOp::Chmod.number() {
        file.mode = file.mode & libc::S_IFMT | record.value & !libc::S_IFMT;
    }
    if kind == Kind::ImageChange && record.op == ImageOp::Mknod.number() && record.value != 0 {
        file.mode = record.value;
    }
    // In the order of the record's fields.
    let path = texts.path(record.path, "path")?;
    let exe = texts.path(record.exe, "exe")?;
    let new_path = texts.path(record.new_path, "new path")?;
    let new_path = (kind == Kind::ImageMove).then_some(new_path);
    let program = self::file(&record.program)?;
    let detail = Detail {
        process: process(&record.process, record.header.container)?,
        exe,
        exe_dev: program.dev,
        exe_layer: program.layer,
        path,
        new_path,
    };
    if kind == Kind::Interpret {
        return Ok(Event::Interpret(Box::new(Interpret { at: at(&record.header), file, program, detail })));
    }
    let mut event = file_event(kind, record.op, record.value, at(&record.header), file, record.bytes, Some(detail))?;
    if let Event::ImageChange(change) = &mut event
        && record.directory != 0
    {
        change.creation = Some(Creation { directory: record.directory, program: program.inode });
    }
    Ok(event)
}

/// The event for something that was done to a file or with it.
fn file_event(
    kind: Kind,
    op: u32,
    value: u32,
    at: At,
    file: File,
    bytes: u64,
    detail: Option<Detail>,
) -> Result<Event, DecodeError> {
    match kind {
        Kind::ImageChange | Kind::ImageMove => {
            let op = term("op", op, ImageOp::from_number)?;
            Ok(Event::ImageChange(Box::new(ImageChange { at, op, file, bytes, creation: None, detail })))
        }
        Kind::MountChange => {
            let op = term("op", op, MountOp::from_number)?;
            Ok(Event::MountChange(Box::new(MountChange { at, op, file, is_private: value != 0, detail })))
        }
        Kind::DeviceOpen => Ok(Event::DeviceOpen(Box::new(DeviceOpen { at, file, detail }))),
        Kind::ControlOpen => {
            let control = term("op", op, Control::from_number)?;
            Ok(Event::ControlOpen(Box::new(ControlOpen { at, control, file, detail })))
        }
        Kind::HandleOpen => Ok(Event::HandleOpen(Box::new(HandleOpen { at, file, is_inside: op != 0, detail }))),
        Kind::HostExec => Ok(Event::HostExec(Box::new(HostExec { at, file, detail }))),
        Kind::MapExec => Ok(Event::MapExec(Box::new(MapExec { at, file, detail }))),
        Kind::Exec
        | Kind::Script
        | Kind::Tampering
        | Kind::Interpret
        | Kind::CgroupEscape
        | Kind::Exit
        | Kind::Listen
        | Kind::Accept
        | Kind::CgroupCreated
        | Kind::CgroupRemoved => {
            Err(DecodeError::UnknownValue { field: "kind of what was done to a file", value: kind.number() })
        }
    }
}

/// The event for an exec whose record found the ring buffer full. It is made of what the kernel keeps: the name of the
/// program without its directories, the first arguments, and no working directory.
///
/// # Errors
///
/// As for [`decode`].
pub(super) fn kept_exec(key: &map::KeptExecKey, kept: &map::KeptExec) -> Result<Event, DecodeError> {
    Ok(Event::Exec(Box::new(Exec {
        at: At { time: kept.time, number: kept.number, cgroup: kept.cgroup, container: key.container },
        process: process(&kept.process, key.container)?,
        file: file(&kept.file)?,
        head: None,
        is_interpreter: true,
        exe: Path { bytes: ["…/".as_bytes(), text(&kept.name, "name")?].concat(), truncated: true, is_direct: false },
        cwd: Path { bytes: "…".into(), truncated: true, is_direct: false },
        args: Args {
            bytes: text(&kept.args, "args")?.to_vec(),
            truncated: kept.args.flags & record::TEXT_TRUNCATED != 0,
        },
    })))
}

/// The event for a change whose record found the ring buffer full. It is made of what the kernel keeps: the file and
/// the first change.
///
/// # Errors
///
/// As for [`decode`].
pub(super) fn kept_change(key: &map::SeenKey, seen: &map::Seen) -> Result<Event, DecodeError> {
    let at = At { time: seen.time, number: seen.number, cgroup: seen.container, container: seen.container };
    let file = File {
        inode: key.inode,
        dev: key.dev,
        mode: 0,
        nlink: 0,
        layer: layer(seen.layer)?,
        size: 0,
        change_time: 0,
        magic: 0,
        is_served: false,
        difference: None,
        lower: None,
    };
    let kind = Kind::from_number(seen.kind).ok_or(DecodeError::UnknownKind { kind: seen.kind })?;
    file_event(kind, seen.op, 0, at, file, seen.bytes, None)
}

fn tampering((record, mut texts): (&record::TamperingRecord, Texts<'_>)) -> Result<Event, DecodeError> {
    Ok(Event::Tampering(Box::new(Tampering {
        at: at(&record.header),
        process: process(&record.process, record.header.container)?,
        exe: texts.path(record.exe, "exe")?,
        act: match term("act", record.act, vocabulary::TamperingAct::from_number)? {
            vocabulary::TamperingAct::MapChange => TamperingAct::MapChange {
                command: term("command", record.value, MapCommand::from_number)?,
                map: Name::new(record.map),
            },
            vocabulary::TamperingAct::Signal => TamperingAct::Signal(record.value),
            vocabulary::TamperingAct::Trace => TamperingAct::Trace,
            vocabulary::TamperingAct::Memory => TamperingAct::Memory,
        },
    })))
}

fn cgroup_escape((record, mut texts): (&record::CgroupEscapeRecord, Texts<'_>)) -> Result<Event, DecodeError> {
    Ok(Event::CgroupEscape(Box::new(CgroupEscape {
        at: at(&record.header),
        process: process(&record.process, record.header.container)?,
        exe: texts.path(record.exe, "exe")?,
        moved: record.moved,
        cgroup: texts.take(record.cgroup, "cgroup path")?.to_vec(),
    })))
}

fn exit((record, _): (&record::ExitRecord, Texts<'_>)) -> Result<Event, DecodeError> {
    let session = session(record.session)?;
    Ok(Event::Exit(Exit {
        at: at(&record.header),
        session: session.ok_or(DecodeError::UnknownValue { field: "session", value: 0 })?,
        start_time: record.start_time,
        pid: record.pid,
        status: record.status,
        is_last: record.is_last != 0,
    }))
}

fn serving((record, _): (&record::SocketRecord, Texts<'_>)) -> Serving {
    Serving { at: at(&record.header), start_time: record.start_time, pid: record.pid }
}

fn cgroup((record, mut texts): (&record::CgroupRecord, Texts<'_>)) -> Result<Cgroup, DecodeError> {
    let path = texts.take(record.path, "cgroup path")?.to_vec();
    Ok(Cgroup { time: record.header.time, id: record.header.cgroup, path })
}

fn at(header: &record::Header) -> At {
    At { time: header.time, number: header.number, cgroup: header.cgroup, container: header.container }
}

/// Decodes the process that acts in this container, or on the host if it is 0.
fn process(process: &record::Process, container: u64) -> Result<Process, DecodeError> {
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
        origin: term("origin", process.origin, Origin::from_number)?,
        comm: Name::new(process.comm),
        tty: (process.tty[0] != 0).then(|| Name::new(process.tty)),
        stdio: process.stdio.map(stdio),
        stdin: process.stdio[0].inode,
        peer: peer(process.peer),
        session: session(process.session)?,
        ancestors: ancestors(process)
            .map(|ancestor| Ancestor {
                start_time: ancestor.start_time,
                pid: ancestor.pid,
                in_container: container != 0 && ancestor.in_container != 0,
                comm: Name::new(ancestor.comm),
            })
            .collect(),
    })
}

/// The ancestors of a process, nearest first. A process that was brought into a container is a child of the one that
/// has brought it, even if that has ended and another one is its parent now.
fn ancestors(process: &record::Process) -> impl Iterator<Item = &record::Ancestor> {
    let known = || process.ancestors.iter().take_while(|ancestor| ancestor.pid != 0);
    let mover = Some(&process.mover).filter(|mover| {
        mover.pid != 0 && !known().any(|known| (known.pid, known.start_time) == (mover.pid, mover.start_time))
    });
    mover.into_iter().chain(known()).take(record::ANCESTORS)
}

/// Decodes a session. The id 0 means that there is none.
fn session(session: record::Session) -> Result<Option<Session>, DecodeError> {
    if session.pid == 0 {
        return Ok(None);
    }
    let via = term("via", session.via, Via::from_number)?;
    Ok(Some(Session { start_time: session.start_time, pid: session.pid, via }))
}

/// What a descriptor refers to. This depends on the type of its inode and, for devices, on the device number.
pub(super) fn stdio(stdio: record::Stdio) -> StdioKind {
    const NULL: (u32, u32) = (1, 3);
    // The first range has `/dev/tty`, `/dev/console` and virtual consoles. The second one has the eight majors of
    // Unix98 pseudo-terminals, the last of which is 143.
    const TERMINALS: [std::ops::RangeInclusive<u32>; 2] = [4..=5, 136..=143];
    let (major, minor) = (stdio.rdev >> 20, stdio.rdev & 0xf_ffff);
    match stdio.mode & libc::S_IFMT {
        0 if stdio.mode == 0 => StdioKind::Closed,
        libc::S_IFCHR if (major, minor) == NULL => StdioKind::Null,
        libc::S_IFCHR if TERMINALS.iter().any(|range| range.contains(&major)) => StdioKind::Tty,
        libc::S_IFIFO => StdioKind::Pipe,
        libc::S_IFSOCK => StdioKind::Socket,
        libc::S_IFREG => StdioKind::File,
        _ => StdioKind::Other,
    }
}

/// The other end of a connected IP socket.
fn peer(peer: record::Peer) -> Option<SocketAddr> {
    let [a, b, c, d, ..] = peer.address;
    let address = match peer.family {
        record::Peer::INET => IpAddr::from([a, b, c, d]),
        record::Peer::INET6 => IpAddr::from(peer.address).to_canonical(),
        _ => return None,
    };
    let port = u16::from_be(peer.port);
    (port != 0).then_some(SocketAddr::new(address, port))
}

fn file(file: &record::File) -> Result<File, DecodeError> {
    Ok(File {
        inode: file.inode,
        dev: file.dev,
        mode: file.mode,
        nlink: file.nlink,
        layer: layer(file.layer)?,
        size: file.size,
        change_time: file.change_time,
        magic: file.magic,
        is_served: file.is_served != 0,
        difference: match file.difference {
            0 => None,
            number => Some(term("difference", number, Difference::from_number)?),
        },
        lower: lower(file.lower),
    })
}

/// The file of the lower layer, if it is known.
fn lower(file: record::LowerFile) -> Option<LowerFile> {
    let record::LowerFile { inode, change_time, dev, magic } = file;
    (inode != 0).then_some(LowerFile { inode, change_time, dev, magic })
}

/// Decodes a layer. 0 means that the file is not on an overlay, or that its layer could not be determined.
fn layer(number: u32) -> Result<Option<Layer>, DecodeError> {
    match number {
        0 => Ok(None),
        number => term("layer", number, Layer::from_number).map(Some),
    }
}

/// The term of the vocabulary that a number stands for.
fn term<T>(field: &'static str, value: u32, from_number: fn(u32) -> Option<T>) -> Result<T, DecodeError> {
    from_number(value).ok_or(DecodeError::UnknownValue { field, value })
}

fn text<'a, const N: usize>(text: &'a record::Text<N>, field: &'static str) -> Result<&'a [u8], DecodeError> {
    text.bytes.get(..text.len as usize).ok_or(DecodeError::TextLength { field, len: text.len, capacity: N })
}

/// Reverses the order of a path's names. The record has the file first, and each name is terminated by a NUL.
fn path(mut names: &[u8], flags: u32) -> Path {
    let truncated = flags & record::TEXT_TRUNCATED != 0;
    names = names.strip_suffix(&[0]).unwrap_or(names);
    if flags & record::PATH_DETACHED != 0 {
        let split = names.iter().rposition(|&byte| byte == 0);
        let (below, top) = split.map_or((&[][..], names), |at| (&names[..at], &names[at + 1..]));
        match (below, top) {
            // The top of a file system: the path does not lead to the root of the process.
            (below, b"/") => names = below,
            ([], name) => return Path { bytes: name.to_vec(), truncated, is_direct: false },
            _ => {}
        }
    }
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
    Path { bytes, truncated, is_direct: flags & record::PATH_DIRECT != 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record in memory, aligned as in the ring buffer. The layout is stated here once more, byte by byte, on
    /// purpose, because a change of it changes the wire format.
    struct Record {
        words: Vec<u64>,
        len: usize,
    }

    const PROCESS: usize = 40;
    const FILE: usize = PROCESS + 456;

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

        /// Describes a text at `offset`, and puts its bytes behind the texts so far.
        fn text(&mut self, offset: usize, text: &[u8], flags: u32) {
            self.put(offset, &(text.len() as u32).to_ne_bytes());
            self.put(offset + 4, &flags.to_ne_bytes());
            let start = self.len;
            self.len += text.len();
            self.words.resize(self.len.div_ceil(8), 0);
            self.put(start, text);
            self.put(4, &(self.len as u32).to_ne_bytes());
        }

        fn bytes(&self) -> &[u8] {
            &zerocopy::IntoBytes::as_bytes(self.words.as_slice())[..self.len]
        }
    }

    const HEAD: usize = FILE + 80;
    const PATH: usize = HEAD + record::HEAD_CAPACITY + 8;
    const CWD: usize = PATH + 8;
    const ARGS: usize = CWD + 8;

    fn exec_record() -> Record {
        exec_record_of((b"busybox\0bin\0", 0), (b"sh\0-c\0\0id\0", record::TEXT_TRUNCATED))
    }

    fn exec_record_of(path: (&[u8], u32), args: (&[u8], u32)) -> Record {
        let mut record = Record::new(Kind::Exec, ARGS + 8);
        record.put(8, &78_u64.to_ne_bytes());
        record.put(16, &77_u64.to_ne_bytes());
        record.put(24, &501_u64.to_ne_bytes());
        record.put(32, &500_u64.to_ne_bytes());
        record.put(PROCESS, &70_u64.to_ne_bytes());
        let numbers = [1234_u32, 1235, 7, 1200, 1000, 1001, Origin::Entered.number(), 1002];
        for (nth, value) in numbers.into_iter().enumerate() {
            record.put(PROCESS + 8 + 4 * nth, &value.to_ne_bytes());
        }
        record.put(PROCESS + 40, &0xa804_25fb_u64.to_ne_bytes());
        record.put(PROCESS + 48, b"sh\0junk");
        record.put(PROCESS + 64, b"pts0");
        // The descriptors are a pseudo-terminal, `/dev/null`, and a closed one.
        record.put(PROCESS + 80, &3_u64.to_ne_bytes());
        record.put(PROCESS + 80 + 8, &[0o20620_u32.to_ne_bytes(), (136_u32 << 20 | 2).to_ne_bytes()].concat());
        record.put(PROCESS + 96 + 8, &[0o20666_u32.to_ne_bytes(), (1_u32 << 20 | 3).to_ne_bytes()].concat());
        // The other end of the first one is a host with IPv4. What follows its address is undefined.
        record.put(PROCESS + 128, &[2_u16.to_ne_bytes(), 4444_u16.to_be_bytes()].concat());
        record.put(PROCESS + 132, b"\xc0\x00\x02\x01junk");
        record.put(PROCESS + 152, &65_u64.to_ne_bytes());
        record.put(PROCESS + 160, &[1230_u32.to_ne_bytes(), Via::Exec.number().to_ne_bytes()].concat());
        record.put(PROCESS + 200, &60_u64.to_ne_bytes());
        record.put(PROCESS + 208, &[1200_u32.to_ne_bytes(), 1_u32.to_ne_bytes()].concat());
        record.put(PROCESS + 216, b"runc");
        record.put(FILE, &99_u64.to_ne_bytes());
        record.put(FILE + 48, &Difference::Metadata.number().to_ne_bytes());
        record.put(FILE + 56, &[98_u64.to_ne_bytes(), 1_700_000_000_u64.to_ne_bytes()].concat());
        record.put(FILE + 72, &[44_u32.to_ne_bytes(), 0xef53_u32.to_ne_bytes()].concat());
        for (nth, value) in [45_u32, 0o100755, 1, Layer::Lower.number()].into_iter().enumerate() {
            record.put(FILE + 8 + 4 * nth, &value.to_ne_bytes());
        }
        record.put(FILE + 24, &1_000_000_u64.to_ne_bytes());
        record.put(FILE + 32, &1_800_000_000_u64.to_ne_bytes());
        record.put(FILE + 40, &0x794c_7630_u32.to_ne_bytes());
        record.put(FILE + 44, &1_u32.to_ne_bytes());
        record.put(HEAD, b"\x7fELF");
        record.put(PATH - 8, &1_u32.to_ne_bytes());
        record.text(PATH, path.0, path.1);
        record.text(CWD, b"", 0);
        record.text(ARGS, args.0, args.1);
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
        let mut head = [0; record::HEAD_CAPACITY];
        head[..4].copy_from_slice(b"\x7fELF");
        let expected = Exec {
            at: At { time: 77, number: 78, cgroup: 501, container: 500 },
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
                stdio: [StdioKind::Tty, StdioKind::Null, StdioKind::Closed],
                stdin: 3,
                peer: Some(SocketAddr::from(([192, 0, 2, 1], 4444))),
                session: Some(Session { start_time: 65, pid: 1230, via: Via::Exec }),
                ancestors: vec![Ancestor { start_time: 60, pid: 1200, in_container: true, comm: name("runc") }],
            },
            file: File {
                inode: 99,
                dev: 45,
                mode: 0o100755,
                nlink: 1,
                layer: Some(Layer::Lower),
                size: 1_000_000,
                change_time: 1_800_000_000,
                magic: 0x794c_7630,
                is_served: true,
                difference: Some(Difference::Metadata),
                lower: Some(LowerFile { inode: 98, change_time: 1_700_000_000, dev: 44, magic: 0xef53 }),
            },
            head: Some(head),
            is_interpreter: true,
            exe: Path { bytes: b"/bin/busybox".to_vec(), ..Path::default() },
            cwd: Path { bytes: b"/".to_vec(), ..Path::default() },
            args: Args { bytes: b"sh\0-c\0\0id\0".to_vec(), truncated: true },
        };
        assert_eq!(*exec, expected);
    }

    #[test]
    fn what_has_brought_a_process_in_is_its_parent() {
        const MOVER: usize = PROCESS + 168;
        let parents = |start_time: u64, pid: u32| {
            let mut record = exec_record();
            record.put(MOVER, &start_time.to_ne_bytes());
            record.put(MOVER + 8, &pid.to_ne_bytes());
            record.put(MOVER + 16, b"crun");
            let Ok(Event::Exec(exec)) = decode(record.bytes()) else { panic!("no exec") };
            exec.process.ancestors.iter().map(|above| (above.pid, above.comm)).collect::<Vec<_>>()
        };
        let runc = (1200, name("runc"));
        assert_eq!(parents(60, 0), [runc], "it is not known");
        assert_eq!(parents(60, 1200), [runc], "it is still the parent");
        for (start_time, pid) in [(60, 1201), (61, 1200)] {
            assert_eq!(parents(start_time, pid), [(pid, name("crun")), runc]);
        }
    }

    #[test]
    fn other_ends_of_sockets_are_read() {
        let mut mapped = [0; 16];
        mapped[10..].copy_from_slice(b"\xff\xff\xc0\x00\x02\x02");
        let mut local = [0; 16];
        local[15] = 1;
        for (family, port, address, expected) in [
            (record::Peer::INET, 4444, *b"\xc0\x00\x02\x01junkjunkjunk", Some("192.0.2.1:4444")),
            (record::Peer::INET6, 80, mapped, Some("192.0.2.2:80")),
            (record::Peer::INET6, 80, local, Some("[::1]:80")),
            // These are a socket without a connection, a Unix socket, and no socket.
            (record::Peer::INET, 0, [0; 16], None),
            (1, 4444, [1; 16], None),
            (0, 0, [0; 16], None),
        ] {
            let decoded = peer(record::Peer { family, port: u16::to_be(port), address, reserved: 0 });
            assert_eq!(decoded.map(|peer| peer.to_string()).as_deref(), expected);
        }
    }

    fn decoded_args(text: &[u8]) -> Vec<Vec<u8>> {
        let record = exec_record_of((b"", 0), (text, 0));
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
        assert_eq!(decoded_args(b"a\0trunc"), [b"a".to_vec(), b"trunc".to_vec()]);
    }

    #[test]
    fn a_truncated_path_says_so() {
        let record = exec_record_of((b"passwd\0deep\0", record::TEXT_TRUNCATED), (b"", 0));
        let Ok(Event::Exec(exec)) = decode(record.bytes()) else { panic!("no exec") };
        assert_eq!(exec.exe, Path { bytes: "…/deep/passwd".into(), truncated: true, is_direct: false });
    }

    #[test]
    fn a_file_in_no_directory_has_its_name_for_a_path() {
        for (names, expected) in [
            (&b"memfd:a/bash\0"[..], "memfd:a/bash"),
            (b"memfd:/\0", "memfd:/"),
            (b"/\0", "/"),
            (b"below\0/\0", "/below"),
        ] {
            let record = exec_record_of((names, record::PATH_DETACHED), (b"", 0));
            let Ok(Event::Exec(exec)) = decode(record.bytes()) else { panic!("no exec") };
            assert_eq!(exec.exe, Path { bytes: expected.into(), ..Path::default() });
        }
    }

    #[test]
    fn cgroups_are_read() {
        let mut record = Record::new(Kind::CgroupRemoved, 40 + 8);
        record.put(24, &9_u64.to_ne_bytes());
        record.text(40, b"/docker/x", 0);
        let expected = Cgroup { time: 0, id: 9, path: b"/docker/x".to_vec() };
        assert_eq!(decode(record.bytes()), Ok(Event::CgroupRemoved(expected)));
    }

    #[test]
    fn what_is_done_to_the_sensor_is_read() {
        let exe = FILE;
        let act = |number: u32, value: u32| {
            let mut record = Record::new(Kind::Tampering, exe + 8 + 8 + 16);
            record.put(exe + 8, &[number.to_ne_bytes(), value.to_ne_bytes()].concat());
            record.put(exe + 16, b"ROOTS");
            record.text(exe, b"gdb\0", 0);
            match decode(record.bytes()) {
                Ok(Event::Tampering(tampering)) => Ok(tampering.act),
                Ok(other) => panic!("{other:?}"),
                Err(error) => Err(error.to_string()),
            }
        };
        let map = TamperingAct::MapChange { command: MapCommand::Delete, map: name("ROOTS") };
        assert_eq!(act(1, 3), Ok(map));
        assert_eq!(act(2, 19), Ok(TamperingAct::Signal(19)));
        assert_eq!(act(3, 0), Ok(TamperingAct::Trace));
        assert_eq!(act(4, 0), Ok(TamperingAct::Memory));
        assert_eq!(act(5, 0), Err("act is 5, which this version does not know".to_owned()));
    }

    #[test]
    fn ends_of_processes_are_read() {
        let mut record = Record::new(Kind::Exit, 80);
        record.put(16, &77_u64.to_ne_bytes());
        record.put(32, &500_u64.to_ne_bytes());
        record.put(40, &65_u64.to_ne_bytes());
        record.put(48, &[1230_u32.to_ne_bytes(), Via::Socket.number().to_ne_bytes()].concat());
        record.put(56, &70_u64.to_ne_bytes());
        record.put(64, &[1234_u32.to_ne_bytes(), 0x100_u32.to_ne_bytes(), 1_u32.to_ne_bytes()].concat());
        let expected = Exit {
            at: At { time: 77, number: 0, cgroup: 0, container: 500 },
            session: Session { start_time: 65, pid: 1230, via: Via::Socket },
            start_time: 70,
            pid: 1234,
            status: 0x100,
            is_last: true,
        };
        assert_eq!(decode(record.bytes()), Ok(Event::Exit(expected)));
        record.put(48, &0_u32.to_ne_bytes());
        assert!(decode(record.bytes()).is_err(), "no session");
    }

    #[test]
    fn listening_and_accepting_are_read() {
        let at = At { time: 77, number: 0, cgroup: 0, container: 500 };
        let serving = Serving { at, start_time: 70, pid: 1234 };
        for (kind, event) in [(Kind::Listen, Event::Listen(serving)), (Kind::Accept, Event::Accept(serving))] {
            let mut record = Record::new(kind, 56);
            record.put(16, &77_u64.to_ne_bytes());
            record.put(32, &500_u64.to_ne_bytes());
            record.put(40, &70_u64.to_ne_bytes());
            record.put(48, &1234_u32.to_ne_bytes());
            assert_eq!(decode(record.bytes()), Ok(event));
        }
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
        assert_eq!(error(&record), "path claims 5000 bytes, but there are 22");
        let mut record = exec_record();
        record.put(PROCESS + 32, &9_u32.to_ne_bytes());
        assert_eq!(error(&record), "origin is 9, which this version does not know");
        let mut record = exec_record();
        record.put(4, &1_u32.to_ne_bytes());
        assert!(error(&record).starts_with("record of kind 1 has 886 bytes and claims 1, but"));
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
                2 => (Kind::ImageMove, size_of::<record::FileRecord>()),
                _ => (Kind::CgroupCreated, size_of::<record::CgroupRecord>()),
            };
            let mut record = Record::new(kind, len + random.usize(..24));
            for word in &mut record.words[1..] {
                *word = random.u64(..);
            }
            // These numbers are small, so that the checks after the first one are reached too.
            for field in [PROCESS + 32, FILE + 20, 40, PATH, PATH + 16, CWD, ARGS, ARGS + 16] {
                if field + 4 <= len {
                    record.put(field, &random.u32(..4).to_ne_bytes());
                }
            }
            let _ = decode(record.bytes());
        }
    }
}
