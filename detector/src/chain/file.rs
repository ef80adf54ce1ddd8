//! The files of a log: opened with care, and decompressed while they are read.

use std::ffi::OsStr;
use std::fs::{File, Metadata, OpenOptions, symlink_metadata};
use std::io::{self, BufRead, BufReader};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use rustix::fs::OFlags;

/// The end of the name of a compressed file.
pub(crate) const COMPRESSED: &str = ".gz";

/// The name of a file, without its folder.
pub(crate) fn name(path: &Path) -> &OsStr {
    path.file_name().unwrap_or(path.as_os_str())
}

/// The folder of a log.
pub(crate) fn folder(log: &Path) -> &Path {
    log.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether a file is compressed, by its name.
pub(crate) fn is_compressed(path: &Path) -> bool {
    path.as_os_str().as_bytes().ends_with(COMPRESSED.as_bytes())
}

/// Whether this is a file that a daemon of this user can have made.
pub(crate) fn is_own(file: &Metadata) -> bool {
    file.is_file() && file.uid() == rustix::process::geteuid().as_raw()
}

/// Whether this file is what is found at a path.
pub(crate) fn is_at(path: &Path, file: &Metadata) -> bool {
    symlink_metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (file.dev(), file.ino()))
}

/// Opens a regular file for reading.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)
}

/// The lines of an opened file with this path.
pub(crate) fn lines_of(file: File, path: &Path) -> Box<dyn BufRead + Send> {
    let file = BufReader::new(file);
    if is_compressed(path) { Box::new(BufReader::new(MultiGzDecoder::new(file))) } else { Box::new(file) }
}

/// The lines of a file.
pub(crate) fn lines(path: &Path) -> io::Result<Box<dyn BufRead + Send>> {
    Ok(lines_of(open(path)?, path))
}
