//! How a file of a running container differs from that of its image. What is in it is for a person at the node: it is
//! in no log, and nothing sends it anywhere.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use sha2::Digest as _;
use similar::{ChangeTag, TextDiff};

use super::layers::{self, Error, Found, Layers, find, has_metadata_only, open_below};
use crate::finding::{Container, Sha256, Text};

/// The largest file whose lines are compared, in bytes.
const LARGEST: u64 = 1 << 20;
/// The largest file whose hash is computed, in bytes.
const LARGEST_HASHED: u64 = 256 << 20;
/// How long lines are compared. After that, larger parts count as different.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many lines that are the same are shown around each change.
const CONTEXT: usize = 3;
/// Names of files with secrets, and of directories that have such files.
const SECRET: &[&str] = &[
    ".aws",
    ".docker",
    ".env",
    ".git-credentials",
    ".kube",
    ".netrc",
    ".npmrc",
    ".pgpass",
    ".pypirc",
    ".ssh",
    "gshadow",
    "gshadow-",
    "private",
    "secrets",
    "shadow",
    "shadow-",
    "ssh",
];
/// How the names of files with keys end.
const KEYS: &[&str] = &[".jks", ".key", ".kdbx", ".keytab", ".p12", ".pem", ".pfx"];
/// What a file with a private key has, whatever its name is.
const KEY: &str = "PRIVATE KEY-----";

/// What there is to say about a path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Difference {
    /// The lines of which some differ.
    Lines(Vec<Line>),
    /// What the image and the container have there, and why its lines are not shown.
    Facts {
        /// What the image has.
        image: String,
        /// What the container has.
        container: String,
        /// The reason, in a sentence.
        why: &'static str,
    },
    /// The container has what the image has.
    Nothing,
}

/// A line of a difference.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Whether only the image has it, or only the container.
    pub(crate) tag: Tag,
    /// The line, without its line feed.
    pub(crate) text: String,
}

/// Who has a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tag {
    /// Only the image has it.
    Image,
    /// Only the container has it.
    Container,
    /// Both have it.
    Both,
    /// It says where the next lines are, or that a file does not end with a line feed.
    Place,
}

/// Compares a file of a running container with that of its image.
pub(crate) fn diff(container: &Container, path: &[u8]) -> Result<Difference, Error> {
    let layers = Layers::of(container)?;
    compare(&layers, path)
}

fn compare(layers: &Layers, path: &[u8]) -> Result<Difference, Error> {
    let unreadable = |cause| Error::Unreadable { path: path.into(), cause };
    let read = |layer: &OwnedFd, found: &Stat| {
        let file_type = FileType::from_raw_mode(found.st_mode);
        Version::read(layer, path, file_type).map_err(unreadable)
    };
    let mut before = Version::Nothing;
    for lower in &layers.lowers {
        let lower = layers::open(lower)?;
        match find(&lower, path).map_err(unreadable)? {
            Found::Nothing => continue,
            Found::Hidden => {}
            Found::Here(found) => before = read(&lower, &found)?,
        }
        break;
    }
    let upper = layers::open(&layers.upper)?;
    let now = match find(&upper, path).map_err(unreadable)? {
        Found::Nothing if matches!(before, Version::Nothing) => Version::Nothing,
        Found::Nothing => return Ok(Difference::Nothing),
        Found::Hidden => Version::Nothing,
        Found::Here(found) => read(&upper, &found)?,
    };
    Ok(match (before, now) {
        (_, Version::Metadata) => Difference::Nothing,
        (before, now) => between(path, &before, &now),
    })
}

/// What a layer has at a path.
enum Version {
    Nothing,
    /// A regular file. The content is `None` if it is too large.
    File {
        size: u64,
        sha256: Option<Sha256>,
        content: Option<Vec<u8>>,
    },
    /// The metadata of a file whose content is in a layer below.
    Metadata,
    /// Something else.
    Other(String),
}

impl Version {
    fn read(layer: &OwnedFd, path: &[u8], file_type: FileType) -> Result<Self, Errno> {
        let other = |what: &str| Ok(Self::Other(what.to_owned()));
        match file_type {
            FileType::RegularFile => Self::of_file(open_below(layer, path)?),
            FileType::Symlink => {
                let path = path.strip_prefix(b"/").unwrap_or(path);
                let target = rustix::fs::readlinkat(layer, path, Vec::new())?;
                Ok(Self::Other(format!("a symbolic link to {}", Text::from(target.to_bytes()))))
            }
            FileType::Directory => other("a directory"),
            FileType::Fifo => other("a FIFO"),
            FileType::Socket => other("a socket"),
            FileType::CharacterDevice | FileType::BlockDevice => other("a device"),
            FileType::Unknown => other("something unknown"),
        }
    }

    fn of_file(file: OwnedFd) -> Result<Self, Errno> {
        let found = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return Ok(Self::Other("something that changes".to_owned()));
        }
        if has_metadata_only(&file) {
            return Ok(Self::Metadata);
        }
        let failed = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
        let (mut hash, mut content, mut size, mut part) = (sha2::Sha256::new(), Vec::new(), 0, [0; 16 << 10]);
        let mut file = File::from(file);
        while size <= LARGEST_HASHED {
            let read = file.read(&mut part).map_err(failed)?;
            if read == 0 {
                break;
            }
            size += read as u64;
            hash.update(&part[..read]);
            if size <= LARGEST {
                content.extend_from_slice(&part[..read]);
            }
        }
        let sha256 = (size <= LARGEST_HASHED).then(|| Sha256(hash.finalize().into()));
        let size = if sha256.is_some() { size } else { found.st_size.cast_unsigned() };
        Ok(Self::File { size, sha256, content: (size <= LARGEST).then_some(content) })
    }

    /// The text, which is empty if there is no file.
    fn text(&self) -> Option<&str> {
        match self {
            Self::Nothing => Some(""),
            Self::File { content, .. } => {
                let text = str::from_utf8(content.as_ref()?).ok()?;
                (!text.contains('\0')).then_some(text)
            }
            Self::Metadata | Self::Other(_) => None,
        }
    }

    fn says(&self) -> String {
        match self {
            Self::Nothing => "nothing".to_owned(),
            Self::File { size, sha256: Some(sha256), .. } => format!("{size} bytes with the SHA-256 {sha256}"),
            Self::File { size, sha256: None, .. } => format!("{size} bytes"),
            Self::Metadata => "the content of the layers below".to_owned(),
            Self::Other(what) => what.clone(),
        }
    }
}

fn between(path: &[u8], before: &Version, now: &Version) -> Difference {
    let facts = |why| Difference::Facts { image: before.says(), container: now.says(), why };
    if let (Version::Nothing, Version::Nothing) = (before, now) {
        return facts("give the path without symbolic links, as the ledger has it");
    }
    if let (Version::File { sha256: Some(before), .. }, Version::File { sha256: Some(now), .. }) = (before, now)
        && before == now
    {
        return Difference::Nothing;
    }
    if is_secret(path) {
        return facts("files at such paths can have secrets, so their content is not shown");
    }
    let (Some(before), Some(now)) = (before.text(), now.text()) else {
        return facts("only files with text in UTF-8 of at most 1 MiB are compared line by line");
    };
    if [before, now].iter().any(|text| text.contains(KEY)) {
        return facts("it has a private key, so its content is not shown");
    }
    let diff = TextDiff::configure().timeout(PATIENCE).diff_lines(before, now);
    let mut lines = Vec::new();
    for hunk in diff.unified_diff().context_radius(CONTEXT).iter_hunks() {
        lines.push(Line { tag: Tag::Place, text: hunk.header().to_string() });
        for change in hunk.iter_changes() {
            let tag = match change.tag() {
                ChangeTag::Delete => Tag::Image,
                ChangeTag::Insert => Tag::Container,
                ChangeTag::Equal => Tag::Both,
            };
            lines.push(Line { tag, text: change.value().trim_end_matches('\n').to_owned() });
            if change.missing_newline() {
                lines.push(Line { tag: Tag::Place, text: "\\ No newline at end of file".to_owned() });
            }
        }
    }
    if lines.is_empty() {
        facts("one of them is empty, and the other one is missing")
    } else {
        Difference::Lines(lines)
    }
}

/// Whether a file probably has a secret.
fn is_secret(path: &[u8]) -> bool {
    let path = String::from_utf8_lossy(path);
    path.split('/').any(|name| SECRET.contains(&name) || name.starts_with("id_") || name.starts_with(".env."))
        || KEYS.iter().any(|end| path.ends_with(end))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    /// The difference at a path between these layers, of which the last one is the upper one. A path that ends with
    /// `!` is a whiteout.
    fn difference(layers: &[&[(&str, &[u8])]], path: &str) -> Difference {
        let folder = tempfile::tempdir().expect("a directory");
        let mut directories: Vec<_> = (0..layers.len()).map(|number| folder.path().join(number.to_string())).collect();
        for (directory, files) in directories.iter().zip(layers) {
            fs::create_dir(directory).expect("it is ours");
            for (path, content) in *files {
                let file = directory.join(path.trim_end_matches('!'));
                fs::create_dir_all(file.parent().expect("it has one")).expect("it is ours");
                if path.ends_with('!') {
                    let (kind, mode) = (FileType::CharacterDevice, rustix::fs::Mode::empty());
                    let none = rustix::fs::makedev(0, 0);
                    rustix::fs::mknodat(rustix::fs::CWD, &file, kind, mode, none).expect("it is allowed");
                } else {
                    fs::write(file, content).expect("it is ours");
                }
            }
        }
        let upper = directories.pop().expect("there is one");
        directories.reverse();
        let layers = Layers { upper, lowers: directories, mount_points: HashSet::new() };
        compare(&layers, path.as_bytes()).expect("they can be read")
    }

    fn lines(difference: &Difference) -> Vec<(Tag, &str)> {
        let Difference::Lines(lines) = difference else { panic!("{difference:?}") };
        lines.iter().map(|line| (line.tag, line.text.as_str())).collect()
    }

    fn why(difference: &Difference) -> &str {
        let Difference::Facts { why, .. } = difference else { panic!("{difference:?}") };
        why
    }

    #[test]
    fn lines_of_the_topmost_lower_layer_are_compared() {
        let found = difference(
            &[&[("etc/app", b"old\n")], &[("etc/app", b"one\ntwo\n")], &[("etc/app", b"one\n2\x1b[2J\nthree")]],
            "/etc/app",
        );
        let expected = [
            (Tag::Place, "@@ -1,2 +1,3 @@"),
            (Tag::Both, "one"),
            (Tag::Image, "two"),
            (Tag::Container, "2\x1b[2J"),
            (Tag::Container, "three"),
            (Tag::Place, "\\ No newline at end of file"),
        ];
        assert_eq!(lines(&found), expected);
    }

    #[test]
    fn files_that_are_new_or_gone_are_compared_with_nothing() {
        let added = difference(&[&[], &[("srv/new", b"x\n")]], "/srv/new");
        assert_eq!(lines(&added), [(Tag::Place, "@@ -0,0 +1 @@"), (Tag::Container, "x")]);
        let removed = difference(&[&[("srv/old", b"x\n")], &[("srv/old!", b"")]], "/srv/old");
        assert_eq!(lines(&removed), [(Tag::Place, "@@ -1 +0,0 @@"), (Tag::Image, "x")]);
        // It was removed in a lower layer, too.
        let again = difference(&[&[("srv/old", b"x\n")], &[("srv/old!", b"")], &[("srv/old", b"y\n")]], "/srv/old");
        assert_eq!(lines(&again), [(Tag::Place, "@@ -0,0 +1 @@"), (Tag::Container, "y")]);
        assert_eq!(difference(&[&[("etc/app", b"x")], &[]], "/etc/app"), Difference::Nothing);
        assert!(why(&difference(&[&[("etc/app", b"x")], &[]], "/etc/ap")).starts_with("give the path"));
        assert_eq!(difference(&[&[("etc/app", b"x")], &[("etc/app", b"x")]], "/etc/app"), Difference::Nothing);
    }

    #[test]
    fn what_is_secret_or_no_text_is_only_described() {
        for path in ["etc/shadow", "root/.ssh/id_ed25519", "etc/tls/server.key", "srv/.env", "run/secrets/token"] {
            let found = difference(&[&[(path, b"old")], &[(path, b"new")]], &format!("/{path}"));
            let Difference::Facts { image, container, why } = &found else { panic!("{path}: {found:?}") };
            assert!(image.starts_with("3 bytes with the SHA-256 ") && image != container, "{image} {container}");
            assert!(why.contains("secrets"), "{why}");
        }
        let key = b"-----BEGIN OPENSSH PRIVATE KEY-----\n";
        assert!(why(&difference(&[&[], &[("srv/x", key)]], "/srv/x")).contains("private key"));
        let large = vec![b'x'; LARGEST as usize + 1];
        for content in [&b"\0"[..], b"\xff", &large] {
            assert!(why(&difference(&[&[("x", b"text")], &[("x", content)]], "/x")).contains("1 MiB"));
        }
        assert!(why(&difference(&[&[("x", b"text")], &[("x/y", b"")]], "/x")).contains("1 MiB"));
    }

    #[test]
    fn nothing_outside_of_a_layer_is_read() {
        let folder = tempfile::tempdir().expect("a directory");
        for name in ["upper", "lower"] {
            fs::create_dir(folder.path().join(name)).expect("it is ours");
        }
        let upper = folder.path().join("upper");
        std::os::unix::fs::symlink("/etc", upper.join("link")).expect("it is ours");
        let layers = Layers { upper, lowers: vec![folder.path().join("lower")], mount_points: HashSet::new() };
        assert!(Path::new("/etc/passwd").exists());
        let found = compare(&layers, b"/link/passwd").expect("it can be read");
        assert!(why(&found).starts_with("give the path without symbolic links"), "{found:?}");
        let found = compare(&layers, b"/link").expect("it can be read");
        assert!(matches!(&found, Difference::Facts { container, .. } if container == "a symbolic link to /etc"));
    }
}
