//! The file or stream that findings are written to.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, IoSlice, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use jiff::Timestamp;
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::Errno;

use super::rotation::{self, OldFiles, Rotation, Schedule};
use crate::chain::end::{End, first_link};
use crate::chain::{Head, file, log};
use crate::finding::{Link, NoticeEvent};

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

/// An opened file.
#[derive(Debug)]
pub(super) struct Opened {
    file: File,
    /// Whether what is written can be put on a disk.
    is_regular: bool,
    /// The folder that may not know the file after a power cut.
    folder: Mutex<Option<PathBuf>>,
}

impl Opened {
    fn new(file: File, folder: Option<PathBuf>) -> io::Result<Arc<Self>> {
        let is_regular = file.metadata()?.is_file();
        Ok(Arc::new(Self { file, is_regular, folder: Mutex::new(folder) }))
    }

    /// Opens the file once more for reading, whatever is at its path by now.
    fn reader(&self) -> io::Result<File> {
        File::open(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }

    /// Puts what was written on the disk, and the name of the file.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()?;
        let mut folder = self.folder.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = folder.as_deref() {
            File::open(path)?.sync_all().or_else(rotation::unless_impossible)?;
            *folder = None;
        }
        Ok(())
    }
}

/// An opened output.
#[derive(Debug)]
pub struct Output {
    target: Target,
    opened: Arc<Opened>,
    /// How it ended when it was opened.
    end: End,
    rotation: Rotation,
    /// When the file is rotated, if it is.
    schedule: Option<Schedule>,
}

/// A file that was rotated.
#[derive(Debug)]
pub(super) struct Rotated {
    pub(super) path: PathBuf,
    /// The link of its first line.
    pub(super) first: Option<Link>,
    /// The old files that are not kept.
    pub(super) excess: Vec<PathBuf>,
    /// The link of the first line in what is left without these.
    pub(super) left: Option<Link>,
}

impl Output {
    /// Makes an output of an opened file.
    #[cfg(test)]
    pub(super) fn new(target: Target, file: File) -> Self {
        let opened = Opened::new(file, None).expect("it is open");
        Self { target, opened, end: End::EMPTY, rotation: Rotation::default(), schedule: None }
    }

    /// Opens the output.
    ///
    /// # Errors
    ///
    /// The error of the operating system, or the reason why the file cannot be used.
    pub fn open(target: Target) -> io::Result<Self> {
        let (opened, end) = match &target {
            Target::Stdout => (Opened::new(File::from(io::stdout().as_fd().try_clone_to_owned()?), None)?, End::EMPTY),
            Target::File(path) => open_file(path)?,
        };
        Ok(Self { target, opened, end, rotation: Rotation::default(), schedule: None })
    }

    /// Whether it can be rotated: whether it is a regular file with a name.
    pub(super) fn can_rotate(&self) -> bool {
        matches!(self.target, Target::File(_)) && self.opened.is_regular
    }

    /// Lets it be rotated, if it can be.
    pub(super) fn rotating(mut self, rotation: Rotation) -> io::Result<Self> {
        if rotation.is_on() && self.can_rotate() {
            self.rotation = rotation;
            self.plan()?;
        }
        Ok(self)
    }

    /// Plans when the opened file is rotated.
    fn plan(&mut self) -> io::Result<()> {
        if self.rotation.is_on() {
            self.schedule = Some(Schedule::of(self.rotation, &self.opened.file.metadata()?));
        }
        Ok(())
    }

    /// When it must be rotated if no line comes.
    pub(super) fn rotates_at(&self) -> Option<Instant> {
        self.schedule.as_ref().and_then(Schedule::at)
    }

    /// The file whose old files are compressed, if they are.
    pub(super) fn compressed(&self) -> Option<&Path> {
        match &self.target {
            Target::File(path) if self.rotation.compress => Some(path),
            _ => None,
        }
    }

    /// Whether it must be rotated before so many bytes are written.
    pub(super) fn must_rotate(&mut self, more: usize) -> bool {
        let Some(schedule) = &mut self.schedule else { return false };
        self.opened.file.metadata().is_ok_and(|file| schedule.is_due(file.len(), more))
    }

    /// Gives the file another name, and makes a new one. If this fails, the file stays in use, under its name.
    pub(super) fn rotate(&mut self) -> io::Result<Rotated> {
        let result = self.try_to_rotate();
        if result.is_err()
            && let Some(schedule) = &mut self.schedule
        {
            schedule.postpone();
        }
        result
    }

    fn try_to_rotate(&mut self) -> io::Result<Rotated> {
        let Target::File(path) = &self.target else { return Err(io::ErrorKind::Unsupported.into()) };
        // When the power is cut, no line may be missing before those of the next file.
        self.opened.sync()?;
        let first = first_link(BufReader::new(self.opened.reader()?))?;
        let mut old_files = OldFiles::of(path)?;
        let renamed = old_files.add(&self.opened.file.metadata()?, Timestamp::now())?;
        let opened = match create_file(path) {
            Ok(opened) => opened,
            Err(error) => {
                // If this fails, too, the file has been moved, and a new one is opened as soon as that is possible.
                let _ = old_files.restore();
                return Err(error);
            }
        };
        (self.opened, self.end) = (opened, End::EMPTY);
        self.plan()?;
        let (excess, left) = old_files.excess(self.rotation.keep);
        Ok(Rotated { path: renamed, first, excess, left })
    }

    /// Where it writes.
    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// The last line that was in it when it was opened first.
    pub(super) fn head(&self) -> Head {
        self.end.head
    }

    /// What must be said about what was in it.
    pub(super) fn take_notice(&mut self) -> Option<NoticeEvent> {
        self.end.notice.take()
    }

    #[cfg(test)]
    pub(super) fn opened(&self) -> &Arc<Opened> {
        &self.opened
    }

    /// The file that can be put on a disk.
    pub(super) fn on_disk(&self) -> Option<&Arc<Opened>> {
        Some(&self.opened).filter(|opened| opened.is_regular)
    }

    /// Opens a regular file again that [was moved](Self::is_moved), which creates another one. Returns `false` for all
    /// others, which stay open.
    pub(super) fn reopen(&mut self) -> io::Result<bool> {
        match &self.target {
            Target::File(path) if self.is_moved() => {
                (self.opened, self.end) = open_file(path)?;
                self.plan()?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Whether this is a regular file that is no longer found at its path.
    pub(super) fn is_moved(&self) -> bool {
        let (Target::File(path), Ok(opened)) = (&self.target, self.opened.file.metadata()) else { return false };
        opened.is_file() && !file::is_at(path, &opened)
    }
}

impl Write for Output {
    /// Ends the last line of the file first, if an earlier process died while it wrote that line.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut file = &self.opened.file;
        if self.end.is_open {
            // If this is cut, too, the file still ends with a torn line, and not with one that looks foreign.
            let written = file.write_vectored(&[IoSlice::new(b"\n"), IoSlice::new(bytes)])?;
            self.end.is_open = written == 0;
            if written != 1 {
                return Ok(written.saturating_sub(1));
            }
        }
        file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&self.opened.file).flush()
    }
}

/// Opens a file for appending, and finds its end.
fn open_file(path: &Path) -> io::Result<(Arc<Opened>, End)> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600);
    // Without `NONBLOCK`, opening a FIFO waits until it has a reader.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file =
        options.custom_flags(flags.bits().cast_signed()).open(path).map_err(|error| {
            match Errno::from_io_error(&error) {
                Some(Errno::LOOP) => io::Error::other("it is a symbolic link, which is not followed"),
                Some(Errno::NXIO) => io::Error::other("it is a FIFO that no process reads, or a socket"),
                _ => error,
            }
        })?;
    fcntl_setfl(&file, OFlags::APPEND)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Ok((Opened::new(file, None)?, End::EMPTY));
    }
    if metadata.mode() & 0o022 != 0 {
        tracing::warn!(
            "{0}: others than its owner can write it, and change findings; forbid it (chmod go-w {0})",
            path.display()
        );
    }
    let opened = Opened::new(file, folder(path)?)?;
    let end = End::of(&opened.reader()?, || head_before(path))?;
    Ok((opened, end))
}

/// Where a log goes on that has no line yet: after the newest of the old files, whoever has rotated them.
fn head_before(path: &Path) -> Head {
    match OldFiles::of(path).map(|old_files| old_files.head()) {
        Ok(head) if head != Head::START => head,
        _ => log::head_beside(path.to_owned()).unwrap_or_else(|error| {
            tracing::warn!("{}: no old file of it can be read, so a new chain begins: {error}", path.display());
            Head::START
        }),
    }
}

/// Makes a file for appending, where no file is.
fn create_file(path: &Path) -> io::Result<Arc<Opened>> {
    let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
    Opened::new(file, folder(path)?)
}

/// The folder of a file, from the root directory on.
fn folder(path: &Path) -> io::Result<Option<PathBuf>> {
    Ok(std::path::absolute(path)?.parent().map(Path::to_owned))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

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
