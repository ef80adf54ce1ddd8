//! How far a forwarder has come, on the disk: what was received before that is not sent again by the next one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::chain::log::{Place, Position};
use crate::chain::{Head, file};
use crate::finding::Sha256;

/// How long the file is at most.
const LONGEST: u64 = 4096;

/// The file of a forwarder.
#[derive(Debug)]
pub(super) struct Cursor(PathBuf);

/// What is in the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    /// The version of this format: 1.
    version: u32,
    /// The number and the hash of the last line that was received.
    seq: u64,
    sha256: Sha256,
    /// Where it probably is.
    #[serde(default)]
    place: Option<Place>,
}

impl Cursor {
    /// That of the forwarder with this name.
    pub(super) fn of(folder: &Path, forwarder: &str) -> Self {
        Self(folder.join(format!("{forwarder}.cursor")))
    }

    /// The position after the last line that was received, if there was one.
    ///
    /// # Errors
    ///
    /// Why the file is of no use. It is set aside, if that is possible.
    pub(super) fn load(&self) -> Result<Option<Position>, String> {
        let reason = match self.read() {
            Ok(position) => return Ok(Some(position)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => error,
        };
        let mut aside = self.0.clone().into_os_string();
        aside.push(".unusable");
        let what = match fs::rename(&self.0, &aside) {
            Ok(()) => format!("it is now {}", Path::new(&aside).display()),
            Err(error) => format!("it cannot be renamed: {error}"),
        };
        Err(format!("{}: not a cursor of this version: {reason}; {what}", self.0.display()))
    }

    fn read(&self) -> io::Result<Position> {
        let mut text = String::new();
        file::open(&self.0)?.take(LONGEST).read_to_string(&mut text)?;
        let content: Content = serde_json::from_str(&text)?;
        if content.version != 1 {
            return Err(io::Error::other(format!("its version is {}", content.version)));
        }
        let Content { seq, sha256, place, .. } = content;
        Ok(Position { head: Head { seq, sha256 }, place })
    }

    /// Puts a position on the disk. Whatever happens meanwhile, this one or the one before is there.
    pub(super) fn save(&self, Position { head: Head { seq, sha256 }, place }: Position) -> io::Result<()> {
        let text = serde_json::to_vec(&Content { version: 1, seq, sha256, place })?;
        let new = self.0.with_extension("cursor.new");
        let mut options = OpenOptions::new();
        let mut written = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        written.write_all(&text)?;
        written.sync_data()?;
        fs::rename(&new, &self.0)?;
        File::open(file::folder(&self.0))?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_loaded_as_it_was_saved() {
        let folder = tempfile::tempdir().expect("a directory");
        let cursor = Cursor::of(folder.path(), "siem.1");
        assert_eq!(cursor.load(), Ok(None));
        let place = serde_json::from_str("{\"inode\":7,\"offset\":8}").expect("it is one");
        for position in [
            Position { head: Head { seq: 7, sha256: Sha256([7; 32]) }, place: Some(place) },
            Position { head: Head { seq: u64::MAX, sha256: Sha256([0; 32]) }, place: None },
        ] {
            cursor.save(position).expect("there is room");
            assert_eq!(cursor.load(), Ok(Some(position)));
        }
        let names: Vec<_> = fs::read_dir(folder.path()).expect("it is there").collect();
        assert_eq!(names.len(), 1, "{names:?}");
    }

    #[test]
    fn what_is_no_cursor_is_set_aside() {
        let good = format!("{{\"version\":1,\"seq\":1,\"sha256\":\"{}\"}}", "0".repeat(64));
        let long = format!("{good}{}", " ".repeat(LONGEST as usize)).replace('}', " ") + "}";
        for bad in ["", "x", &good[..60], &good.replace(":1,", ":2,"), &good.replace("seq", "sex"), &long] {
            let folder = tempfile::tempdir().expect("a directory");
            let cursor = Cursor::of(folder.path(), "siem");
            fs::write(&cursor.0, bad).expect("it is ours");
            let error = cursor.load().expect_err("it is no cursor");
            assert!(error.ends_with("/siem.cursor.unusable") && error.contains("not a cursor"), "{error}");
            assert_eq!(fs::read_to_string(folder.path().join("siem.cursor.unusable")).expect("it is there"), bad);
            assert_eq!(cursor.load(), Ok(None));
        }
    }
}
