//! A unix socket that only root can connect to.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt as _, MetadataExt};
use std::os::unix::net::UnixStream as BlockingUnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode};
use tokio::net::{UnixListener, UnixSocket, UnixStream};

/// How many clients wait at most until they are accepted.
const BACKLOG: u32 = 128;

/// Why nobody can be served on a socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another daemon already listens on the socket.
    #[error("{}: another daemon already listens on this socket; stop it, or choose another path with {option}",
        .path.display())]
    InUse {
        /// The path of the socket.
        path: PathBuf,
        /// The option that chooses it.
        option: &'static str,
    },
    /// The path exists and is not a socket.
    #[error("{}: this path exists and is not a socket; remove it, or choose another path with {option}",
        .path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
        /// The option that chooses it.
        option: &'static str,
    },
    /// A system call failed.
    #[error("{}: cannot listen on this socket: {cause}; choose another path with {option}", .path.display())]
    System {
        /// The path of the socket.
        path: PathBuf,
        /// The option that chooses it.
        option: &'static str,
        /// The error of the operating system.
        cause: io::Error,
    },
}

/// A listening socket. Dropping it removes the socket's file, unless another one has replaced it.
#[derive(Debug)]
pub(super) struct PrivateSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the socket's file.
    identity: (u64, u64),
    has_replaced: bool,
}

impl PrivateSocket {
    /// Binds the socket with mode 0600, and creates its directory if necessary. Replaces a socket that a killed daemon
    /// has left behind. `option` chooses the path. Must be called within a tokio runtime.
    pub(super) fn bind(path: &Path, option: &'static str) -> Result<Self, BindError> {
        let system = |cause| BindError::System { path: path.to_owned(), option, cause };
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        fs::DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(system)?;
        // Daemons that start at the same time take turns; otherwise one could mistake the other's new socket for a
        // stale one. Closing the descriptor releases the lock.
        let turn = fs::File::open(directory).map_err(system)?;
        rustix::fs::flock(&turn, FlockOperation::LockExclusive).map_err(|error| system(error.into()))?;
        let has_replaced = remove_stale(path, option)?;

        let socket = UnixSocket::new_stream().map_err(system)?;
        // Linux creates the file with the mode that the socket has at bind(2), so nobody else can connect to it in
        // between.
        rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR).map_err(|error| system(error.into()))?;
        socket.bind(path).map_err(system)?;
        let metadata = fs::symlink_metadata(path).map_err(system)?;
        let listener = socket.listen(BACKLOG).map_err(system)?;
        Ok(Self { listener, path: path.to_owned(), identity: (metadata.dev(), metadata.ino()), has_replaced })
    }

    /// Whether a daemon has left a socket behind, which it does only if it cannot end by itself.
    pub(super) fn has_replaced(&self) -> bool {
        self.has_replaced
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for a client.
    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for PrivateSocket {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes a socket on which no process listens. Returns whether there was one.
fn remove_stale(path: &Path, option: &'static str) -> Result<bool, BindError> {
    let system = |cause| BindError::System { path: path.to_owned(), option, cause };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(system(error)),
        Ok(file) if !file.file_type().is_socket() => {
            return Err(BindError::NotASocket { path: path.to_owned(), option });
        }
        Ok(_) => {}
    }
    match BlockingUnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map(|()| true).map_err(system)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Ok(_) => Err(BindError::InUse { path: path.to_owned(), option }),
        Err(error) => Err(system(error)),
    }
}
