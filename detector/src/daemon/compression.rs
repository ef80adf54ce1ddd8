//! Compresses the old files of a log, on a thread of its own, so that no line waits for it.
//!
//! What is compressed gets a hidden name until all of it is on the disk, and the old file is only removed after that.
//! So at any moment, one of them is whole, whatever ends the daemon.

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;

use super::background::Background;
use super::rotation::{self, OldFiles};
use crate::chain::file;

/// How much is compressed before the thread looks whether it should end.
const BLOCK: usize = 64 << 10;

/// What the thread that writes and the one that compresses tell each other: whether there may be files that are not
/// compressed.
#[derive(Debug, Default)]
pub(super) struct Compressor(Background<bool>);

impl Compressor {
    /// Tells that a file was rotated.
    pub(super) fn rotated(&self) {
        self.0.give(|has_work| !std::mem::replace(has_work, true));
    }

    /// Why files are not compressed.
    pub(super) fn failure(&self) -> Option<String> {
        self.0.failure()
    }

    /// Lets [`Self::run`] end. What it has begun is begun again by the next daemon.
    pub(super) fn end(&self) {
        self.0.end();
    }

    /// Compresses all old files that there are, and then each one that comes. Calls `tell` when this begins to fail, or
    /// works again.
    pub(super) fn run(&self, log: &Path, tell: impl Fn()) {
        // Findings are more important. If that is refused, it is as important as they are.
        let _ = rustix::process::nice(19);
        loop {
            let failure = self.compress_all(log).err().map(|(path, cause)| {
                format!(
                    "{}: cannot compress it: {cause}; it is kept as it is, and tried again when the next file is \
                    rotated",
                    path.display()
                )
            });
            self.0.set_failure(failure, || format!("{}: old files can be compressed again", log.display()), &tell);
            self.0.take(|has_work| !has_work);
            if self.0.is_ended() {
                return;
            }
        }
    }

    /// Compresses all old files that are not, and removes what an earlier run has left half done.
    fn compress_all(&self, log: &Path) -> Result<(), (PathBuf, io::Error)> {
        let old_files = OldFiles::of(log).map_err(|error| (log.to_owned(), error))?;
        for path in old_files.unfinished() {
            rotation::remove(path).map_err(|error| (path.clone(), error))?;
        }
        for path in old_files.uncompressed() {
            match self.compress(path) {
                // It is not kept any more.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err((path.clone(), error)),
                Ok(()) => {}
            }
            if self.0.is_ended() {
                break;
            }
        }
        Ok(())
    }

    /// Compresses an old file, unless it has to end before that is done.
    fn compress(&self, path: &Path) -> io::Result<()> {
        let (compressed, hidden) = (rotation::compressed(path), rotation::unfinished(path));
        if !compressed.exists() {
            let is_whole = self.write(path, &hidden);
            if !matches!(is_whole, Ok(true)) {
                // If it stays, the next run removes it.
                let _ = fs::remove_file(&hidden);
                return is_whole.map(drop);
            }
            rotation::rename(&hidden, &compressed)?;
        } else if !is_same(path, &compressed)? {
            return Err(io::Error::other(format!(
                "{} is there and has something else; move it away",
                compressed.display()
            )));
        }
        File::open(file::folder(path))?.sync_all().or_else(rotation::unless_impossible)?;
        if fs::symlink_metadata(path).is_err() {
            // Meanwhile it was removed, because it is not kept any more.
            return rotation::remove(&compressed);
        }
        rotation::remove(path)
    }

    /// Writes what a file is when it is compressed, and puts it on the disk. Returns whether all of it is there.
    fn write(&self, from: &Path, to: &Path) -> io::Result<bool> {
        let mut from = file::open(from)?;
        let to = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
        let (mut encoder, mut block) = (GzEncoder::new(to, Compression::default()), vec![0; BLOCK]);
        loop {
            let length = from.read(&mut block)?;
            if length == 0 {
                encoder.finish()?.sync_all()?;
                return Ok(true);
            }
            encoder.write_all(&block[..length])?;
            if self.0.is_ended() {
                return Ok(false);
            }
        }
    }
}

/// Whether a file is what another one was before it was compressed.
fn is_same(plain: &Path, compressed: &Path) -> io::Result<bool> {
    let mut plain = io::BufReader::new(file::open(plain)?);
    let mut other = MultiGzDecoder::new(io::BufReader::new(file::open(compressed)?));
    let (mut one, mut two) = (vec![0; BLOCK], Vec::with_capacity(BLOCK));
    loop {
        let length = plain.read(&mut one)?;
        two.clear();
        match other.by_ref().take(length.max(1) as u64).read_to_end(&mut two) {
            Ok(_) if one[..length] != two => return Ok(false),
            Ok(_) if length == 0 => return Ok(true),
            Ok(_) => {}
            // It is cut, or no such file.
            Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput) => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "log.20261127T155729.012Z";
    const COMPRESSED: &str = "log.20261127T155729.012Z.gz";

    /// A folder with a log that has one old file, and the path of that.
    fn folder(text: &str) -> (tempfile::TempDir, PathBuf, PathBuf) {
        let folder = tempfile::tempdir().expect("a directory");
        let [log, old] = ["log", OLD].map(|name| folder.path().join(name));
        fs::write(&log, "").expect("it is ours");
        fs::write(&old, text).expect("it is ours");
        (folder, log, old)
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("it is there");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("it is there").file_name().into_string().expect("it is text")).collect();
        names.sort();
        names
    }

    #[test]
    fn an_old_file_is_compressed_and_then_removed() {
        let text = "a line\n".repeat(50_000);
        let (folder, log, old) = folder(&text);
        // An earlier run was killed while it compressed.
        fs::write(rotation::unfinished(&old), "half").expect("it is ours");
        Compressor::default().compress_all(&log).expect("it can be compressed");
        assert_eq!(names(folder.path()), ["log", COMPRESSED]);
        let mut read = String::new();
        let compressed = File::open(folder.path().join(COMPRESSED)).expect("it is there");
        MultiGzDecoder::new(io::BufReader::new(compressed)).read_to_string(&mut read).expect("it is whole");
        assert!(read == text);
    }

    #[test]
    fn an_old_file_that_was_compressed_before_is_only_removed() {
        let (folder, log, old) = folder("a line\n");
        Compressor::default().compress_all(&log).expect("it can be compressed");
        // It was killed before it could remove the old file.
        fs::write(&old, "a line\n").expect("it is ours");
        Compressor::default().compress_all(&log).expect("it is compressed");
        assert_eq!(names(folder.path()), ["log", COMPRESSED]);
    }

    #[test]
    fn what_is_not_the_same_is_kept() {
        for other in [&b"something"[..], b"\x1f\x8b", b""] {
            let (folder, log, _) = folder("a line\n");
            fs::write(folder.path().join(COMPRESSED), other).expect("it is ours");
            let (_, error) = Compressor::default().compress_all(&log).expect_err("it is something else");
            assert!(error.to_string().ends_with("has something else; move it away"), "{error}");
            assert_eq!(names(folder.path()), ["log", OLD, COMPRESSED]);
            assert_eq!(fs::read(folder.path().join(COMPRESSED)).expect("it is there"), other);
        }
    }

    #[test]
    fn what_is_half_done_at_the_end_is_removed() {
        let (folder, log, _) = folder(&"a line\n".repeat(50_000));
        let compressor = Compressor::default();
        compressor.end();
        compressor.compress_all(&log).expect("it ends");
        assert_eq!(names(folder.path()), ["log", OLD]);
    }
}
