//! Reads a configuration file, and nothing else that may have its name: no device, no pipe that never ends, no file of
//! any size.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;

use super::problem::Place;

/// How large a file can be, in bytes.
pub const LARGEST: u64 = 1 << 20;

/// The bits of a mode that let others than the owner write.
const WRITABLE: [(u32, &str); 2] = [(0o020, "its group"), (0o002, "everybody")];

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such file.
    #[error("there is no such file; `detector config default` prints one to begin with")]
    Missing,
    /// It must not be read.
    #[error("this user must not read it; run this as root, or let the user read it")]
    Forbidden,
    /// It is a link to itself.
    #[error("its symbolic links lead in a circle; make them lead to a file")]
    Circle,
    /// It is something other than a regular file.
    #[error("it is {0}; give a regular file")]
    Irregular(&'static str),
    /// It is larger than [`LARGEST`].
    #[error("it has more than {LARGEST} bytes; remove what is not needed, or write exceptions with patterns")]
    TooLarge,
    /// It was written while it was read.
    #[error("it was changed while it was read; write it under another name and rename it, or try again")]
    Changed,
    /// It is not UTF-8.
    #[error("line {line}, column {column}: it is not text in UTF-8; save it in this encoding", line = .0.line,
        column = .0.column)]
    Encoding(Place),
    /// It has a character that no text has.
    #[error("line {line}, column {column}: it has a byte 0, so it is not a text; save it as text in UTF-8",
        line = .0.line, column = .0.column)]
    Zero(Place),
    /// The operating system refuses it.
    #[error("cannot read it: {0}; check the file and the file system that it is on")]
    System(#[from] io::Error),
}

impl Error {
    /// Whether the same file can perhaps be read the next time.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Missing | Self::Forbidden | Self::Changed | Self::System(_) => true,
            Self::Circle | Self::Irregular(_) | Self::TooLarge | Self::Encoding(_) | Self::Zero(_) => false,
        }
    }
}

/// A file that was read.
#[derive(Debug)]
pub struct Content {
    /// Its text.
    pub text: String,
    /// Who else can decide what is in it, one sentence each.
    pub doubts: Vec<String>,
}

/// Reads a file. It never waits for another process.
///
/// # Errors
///
/// See [`Error`].
pub fn read(path: &Path) -> Result<Content, Error> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).map_err(|error| match error {
        Errno::NOENT => Error::Missing,
        Errno::ACCESS | Errno::PERM => Error::Forbidden,
        Errno::LOOP => Error::Circle,
        // That is how open(2) refuses a socket, and a device that is not there.
        Errno::NXIO | Errno::NODEV => Error::Irregular("a socket or a device"),
        error => Error::System(error.into()),
    })?);
    let before = file.metadata()?;
    let kind = match FileType::from_raw_mode(before.mode()) {
        FileType::RegularFile => None,
        FileType::Directory => Some("a directory"),
        FileType::Fifo => Some("a FIFO"),
        FileType::CharacterDevice | FileType::BlockDevice => Some("a device"),
        _ => Some("no regular file"),
    };
    if let Some(kind) = kind {
        return Err(Error::Irregular(kind));
    }
    let text = text(bytes(&file, before.len())?)?;
    Ok(Content { text, doubts: doubts(path, &before) })
}

/// The bytes of a file that has so many of them.
fn bytes(file: &File, size: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read = file.take(LARGEST + 1).read_to_end(&mut bytes)? as u64;
    match read {
        read if read > LARGEST => Err(Error::TooLarge),
        read if read != size => Err(Error::Changed),
        _ => Ok(bytes),
    }
}

/// The text that the bytes are.
fn text(bytes: Vec<u8>) -> Result<String, Error> {
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(&error.as_bytes()[..valid]);
        Error::Encoding(Place::of(&text, valid))
    })?;
    text.find('\0').map_or(Ok(()), |at| Err(Error::Zero(Place::of(&text, at))))?;
    Ok(text)
}

/// Who but root can decide what is in the file: whoever can write it, or put another one in its place.
fn doubts(path: &Path, file: &std::fs::Metadata) -> Vec<String> {
    let target = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let parent = |path: &Path| match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let mut folders = vec![parent(path)];
    // A folder of another name may be the same one.
    let is_same = folders[0].canonicalize().is_ok_and(|folder| folder == parent(&target));
    folders.extend((!is_same).then(|| parent(&target)));

    let mut doubts = Vec::new();
    doubt(&mut doubts, "the file", path, file);
    for folder in folders {
        match folder.metadata() {
            Ok(metadata) => doubt(&mut doubts, "the directory", &folder, &metadata),
            Err(error) => doubts.push(format!(
                "{}: it is not known who can write to this directory: {error}; let this user look at it",
                folder.display()
            )),
        }
    }
    doubts
}

fn doubt(doubts: &mut Vec<String>, what: impl fmt::Display, path: &Path, metadata: &std::fs::Metadata) {
    // As a ConfigMap is mounted, whose directory everybody could write otherwise.
    if rustix::fs::statvfs(path).is_ok_and(|mount| mount.f_flag.contains(StatVfsMountFlags::RDONLY)) {
        return;
    }
    let path = path.display();
    if metadata.uid() != 0 {
        doubts.push(format!(
            "{path}: {what} belongs to user {}, who can decide what is not reported; make it root's (chown root)",
            metadata.uid()
        ));
    }
    for (bit, who) in WRITABLE {
        if metadata.mode() & bit != 0 {
            doubts.push(format!(
                "{path}: {what} can be written by {who}, who can decide what is not reported; forbid it (chmod go-w)"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    use std::os::unix::net::UnixListener;

    use rustix::fs::{CWD, mkfifoat};
    use tempfile::TempDir;

    use super::*;

    fn folder() -> TempDir {
        let folder = TempDir::new().expect("a directory");
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("it is ours");
        folder
    }

    fn refused(path: &Path) -> String {
        read(path).expect_err("it is refused").to_string()
    }

    #[test]
    fn only_a_regular_file_is_read_and_nothing_is_waited_for() {
        let folder = folder();
        let at = |name: &str| folder.path().join(name);
        mkfifoat(CWD, at("fifo"), Mode::RWXU).expect("a FIFO");
        let _listener = UnixListener::bind(at("socket")).expect("a socket");
        symlink("circle", at("circle")).expect("a link");
        symlink("nowhere", at("dangling")).expect("a link");
        for (path, words) in [
            (folder.path().to_owned(), "a directory; give a regular file"),
            (at("fifo"), "a FIFO; give a regular file"),
            (at("socket"), "a socket or a device; give a regular file"),
            ("/dev/zero".into(), "a device; give a regular file"),
            (at("circle"), "lead in a circle"),
            (at("dangling"), "no such file"),
            (at("none"), "no such file"),
            (at("none/none"), "no such file"),
        ] {
            let said = refused(&path);
            assert!(said.contains(words), "{}: {said}", path.display());
        }
    }

    #[test]
    fn what_is_no_text_has_a_place() {
        for (bytes, words) in [
            (&b"a = 1\n\xfc = 2"[..], "line 2, column 1: it is not text in UTF-8"),
            ("ü\n ü\0".as_bytes(), "line 2, column 3: it has a byte 0"),
        ] {
            let folder = folder();
            let path = folder.path().join("f");
            fs::write(&path, bytes).expect("it is ours");
            assert!(refused(&path).contains(words), "{}", refused(&path));
        }
    }

    #[test]
    fn a_file_can_have_a_mebibyte() {
        let folder = folder();
        let path = folder.path().join("f");
        fs::write(&path, vec![b' '; LARGEST as usize]).expect("it is ours");
        assert_eq!(read(&path).expect("it is not too large").text.len() as u64, LARGEST);
        fs::write(&path, vec![b' '; LARGEST as usize + 1]).expect("it is ours");
        assert!(refused(&path).contains("more than 1048576 bytes"));
    }

    #[test]
    fn a_file_that_grows_meanwhile_is_not_read_in_part() {
        let folder = folder();
        let path = folder.path().join("f");
        fs::write(&path, "a = 1\n").expect("it is ours");
        let file = File::open(&path).expect("it is there");
        let before = file.metadata().expect("it is a file").len();
        let mut writer = File::options().append(true).open(&path).expect("it is ours");
        writer.write_all(b"b = 2\n").expect("it is ours");
        assert!(matches!(bytes(&file, before), Err(Error::Changed)));
    }

    #[test]
    fn who_else_can_write_is_told() {
        let folder = folder();
        let path = folder.path().join("f");
        fs::write(&path, "").expect("it is ours");
        let said = |mode: u32| {
            fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("it is ours");
            read(&path).expect("it is a file").doubts.join("\n")
        };
        assert!(said(0o664).contains("the file can be written by its group"));
        assert!(said(0o646).contains("the file can be written by everybody"));
        if !rustix::process::geteuid().is_root() {
            return;
        }
        assert_eq!(said(0o644), "");
        chown(&path, Some(65534), None).expect("this is root");
        assert!(said(0o644).contains("the file belongs to user 65534"));
        chown(&path, Some(0), None).expect("this is root");
        let open = TempDir::new().expect("a directory");
        fs::set_permissions(open.path(), PermissionsExt::from_mode(0o775)).expect("it is ours");
        symlink(&path, open.path().join("f")).expect("a link");
        let doubts = read(&open.path().join("f")).expect("it leads to a file").doubts;
        assert!(doubts.concat().contains("the directory can be written by its group"), "{doubts:?}");
        assert_eq!(doubts.len(), 1);
    }
}
