//! The file or stream that findings are written to.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::Errno;

/// Where findings are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// A file that is appended to. If it does not exist, it is created, readable by its owner only. A symbolic link is
    /// not followed, because whoever can replace the file could make the daemon write to any file.
    File(PathBuf),
}

impl Target {
    /// The file, from the root directory on, if it is one.
    pub(super) fn file(&self) -> Option<PathBuf> {
        match self {
            Self::Stdout => None,
            Self::File(path) => Some(std::path::absolute(path).unwrap_or_else(|_| path.clone())),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdout => f.write_str("standard output"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// An opened output.
#[derive(Debug)]
pub struct Output {
    target: Target,
    file: File,
}

impl Output {
    /// Makes an output of an opened file.
    pub(super) fn new(target: Target, file: File) -> Self {
        Self { target, file }
    }

    /// Opens the output.
    ///
    /// # Errors
    ///
    /// The error of the operating system, or the reason why the file cannot be used.
    pub fn open(target: Target) -> io::Result<Self> {
        let file = match &target {
            Target::Stdout => File::from(io::stdout().as_fd().try_clone_to_owned()?),
            Target::File(path) => open_file(path)?,
        };
        Ok(Self::new(target, file))
    }

    /// Where it writes.
    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// Opens a regular file again, which creates it if it was moved. Returns `false` for other outputs, which stay
    /// open.
    pub(super) fn reopen(&mut self) -> io::Result<bool> {
        match &self.target {
            Target::File(path) if self.file.metadata()?.is_file() => {
                self.file = open_file(path)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Whether this is a regular file that is no longer found at its path.
    pub(super) fn is_moved(&self) -> bool {
        let (Target::File(path), Ok(opened)) = (&self.target, self.file.metadata()) else { return false };
        let is_same = |there: std::fs::Metadata| (there.dev(), there.ino()) == (opened.dev(), opened.ino());
        opened.is_file() && !std::fs::symlink_metadata(path).is_ok_and(is_same)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Opens a file for appending. Ends the last line if an earlier process died while it wrote that line.
fn open_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600);
    // Without `NONBLOCK`, opening a FIFO waits until it has a reader.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut file = options.custom_flags(flags.bits().cast_signed()).open(path).map_err(|error| {
        match Errno::from_io_error(&error) {
            Some(Errno::LOOP) => io::Error::other("it is a symbolic link, which is not followed"),
            Some(Errno::NXIO) => io::Error::other("it is a FIFO that no process reads, or a socket"),
            _ => error,
        }
    })?;
    fcntl_setfl(&file, OFlags::APPEND)?;
    if file.metadata()?.is_file() {
        // This is the opened file, whatever is at the path by now.
        let mut written = File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        let mut last = [0];
        if written.seek(SeekFrom::End(0))? > 0 {
            written.seek(SeekFrom::End(-1))?;
            written.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
            }
        }
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_fifos_without_a_reader_are_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let [file, link, fifo] = ["file", "link", "fifo"].map(|name| directory.path().join(name));
        std::os::unix::fs::symlink(&file, &link).expect("a link");
        let error = Output::open(Target::File(link)).expect_err("it is a link").to_string();
        assert!(error.contains("symbolic link") && !file.exists(), "{error}");

        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).expect("a FIFO");
        let error = Output::open(Target::File(fifo.clone())).expect_err("nobody reads").to_string();
        assert!(error.contains("FIFO"), "{error}");

        let mut options = OpenOptions::new();
        let reader = options.read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(&fifo);
        let mut reader = reader.expect("a reader does not wait");
        let mut output = Output::open(Target::File(fifo)).expect("there is a reader");
        output.write_all(b"x").expect("there is room");
        let mut read = [0];
        reader.read_exact(&mut read).expect("it was written");
        assert!(read == *b"x" && !output.is_moved());
        assert!(!output.reopen().expect("a FIFO stays open"));
    }
}
