//! The directory with what must outlive the daemon.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Where the directory is, if neither the user nor the service manager says otherwise.
const USUAL: &str = "/var/lib/detector";

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The operating system refused it.
    #[error("{}: cannot use this state directory: {cause}; choose another one with --state-directory", .path.display())]
    System {
        /// The path of the directory.
        path: PathBuf,
        /// The error of the operating system.
        cause: io::Error,
    },
    /// The path is something else.
    #[error("{}: the state directory is not a directory; choose another one with --state-directory", .0.display())]
    NotADirectory(PathBuf),
    /// Another user could replace what is in it.
    #[error("{}: other users can write to this state directory; take that from them with chmod and chown, or choose \
        another one with --state-directory", .0.display())]
    Shared(PathBuf),
}

/// The path of the directory if the user says nothing: the first one that the service manager has made for it
/// (`StateDirectory=` in systemd.exec(5)), or the usual one.
pub(crate) fn usual_path() -> PathBuf {
    let told = std::env::var_os("STATE_DIRECTORY").unwrap_or_default();
    let first = told.as_bytes().split(|byte| *byte == b':').find(|path| path.starts_with(b"/"));
    first.map_or_else(|| USUAL.into(), |path| OsString::from_vec(path.to_owned()).into())
}

/// Creates the directory for this user only, if it is not there, and makes sure that nobody else can write to it.
///
/// # Errors
///
/// See [`Error`].
pub(super) fn prepare(path: &Path) -> Result<(), Error> {
    let system = |cause| Error::System { path: path.to_owned(), cause };
    let is_there = path.symlink_metadata().is_ok();
    if !is_there {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(system)?;
    }
    let directory = fs::metadata(path).map_err(system)?;
    if !directory.is_dir() {
        return Err(Error::NotADirectory(path.to_owned()));
    }
    let is_own = directory.uid() == rustix::process::geteuid().as_raw();
    if !is_own || directory.mode() & 0o022 != 0 {
        return Err(Error::Shared(path.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_directory_is_made_for_this_user_only() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("lib/detector");
        prepare(&path).expect("it can be made");
        prepare(&path).expect("it is there");
        assert_eq!(fs::metadata(&path).expect("it is there").mode() & 0o777, 0o700);
    }

    #[test]
    fn what_others_can_write_to_is_refused() {
        let folder = tempfile::tempdir().expect("a directory");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o770)).expect("it is ours");
        assert!(matches!(prepare(folder.path()), Err(Error::Shared(_))));
        let file = folder.path().join("file");
        fs::write(&file, "").expect("it is ours");
        assert!(matches!(prepare(&file), Err(Error::NotADirectory(_))));
        assert!(matches!(prepare(&file.join("below")), Err(Error::System { .. })));
    }
}
