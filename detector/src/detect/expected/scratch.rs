//! `scratch`: the container writes data to a directory that is there for that.
//!
//! **Facts**: the process belongs to what the container has started, and to no session. All paths of the act are in
//! such a directory. The file is a directory, a socket, or a regular file that has no other name, which could be
//! anywhere.
//!
//! **Never**: code, which is any executable file and any file that is named like code or a package of code; credentials
//! and what decides what is started, by their names; a symbolic link, which leads elsewhere what others write, except
//! those of Chromium; a FIFO
//! or a device; privileges, access control lists, extended attributes and inode flags. What a file with another name
//! contains is not known when it is opened. If it is code, running it is a finding.

use super::super::describe::base_name;
use super::super::place::Place;
use super::data;
use crate::event::{ImageChange, ImageOp, Path};

/// Directories for data, besides those of [`Place::Scratch`].
const DIRECTORIES: &[&[u8]] = &[b"/var/lib/logrotate/"];
/// The same in a home directory.
const IN_HOME: &[&[u8]] = &[b".cache/", b".config/"];
/// The beginning of the names of the files by which Java attaches to another process. They can be in any directory.
const ATTACHING: &[u8] = b".attach_pid";
/// The names of the symbolic links by which Chromium knows that a profile is in use
/// (chrome/browser/process_singleton_posix.cc). It follows only the last one, to its socket.
const SINGLETONS: [&[u8]; 3] = [b"singletoncookie", b"singletonlock", b"singletonsocket"];

/// Whether a change by a process of the container itself is expected.
pub(super) fn covers(change: &ImageChange) -> bool {
    let Some(detail) = &change.detail else { return false };
    (data::is_data(change) || is_singleton(change, &detail.path))
        && [Some(&detail.path), detail.new_path.as_ref()].into_iter().flatten().all(is_for_data)
}

/// Whether the change makes or removes a symbolic link of Chromium.
fn is_singleton(change: &ImageChange, path: &Path) -> bool {
    let is_link = match change.op {
        ImageOp::Symlink => true,
        ImageOp::Unlink => change.file.mode & libc::S_IFMT == libc::S_IFLNK,
        _ => false,
    };
    is_link && SINGLETONS.contains(&&*base_name(&path.bytes).to_ascii_lowercase())
}

/// Whether the path is for data.
fn is_for_data(path: &Path) -> bool {
    let bytes = path.bytes.to_ascii_lowercase();
    let is_there = match Place::of(&bytes) {
        Place::Scratch => true,
        Place::Other => {
            let in_home = home(&bytes).is_some_and(|rest| IN_HOME.iter().any(|place| rest.starts_with(place)));
            in_home || DIRECTORIES.iter().any(|place| bytes.starts_with(place)) || is_attaching(&bytes)
        }
        Place::Control | Place::Program => false,
    };
    is_there
        && !path.truncated
        && !data::is_code(base_name(&bytes))
        && !bytes.split(|&byte| byte == b'/').any(data::is_control)
}

/// The rest of a path below a home directory.
fn home(path: &[u8]) -> Option<&[u8]> {
    if let Some(rest) = path.strip_prefix(b"/root/") {
        return Some(rest);
    }
    let rest = path.strip_prefix(b"/home/")?;
    rest.splitn(2, |&byte| byte == b'/').nth(1)
}

fn is_attaching(path: &[u8]) -> bool {
    let process = base_name(path).strip_prefix(ATTACHING);
    process.is_some_and(|process| !process.is_empty() && process.iter().all(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use super::super::super::samples::{self, change};
    use super::*;
    use crate::event::{ImageOp, Layer};

    #[test]
    fn data_in_its_directories() {
        for (path, mode, expected) in [
            ("/tmp/x", 0o100600, true),
            ("/tmp/deep/er/x.json", 0o100666, true),
            ("/run/app.pid", 0o100644, true),
            ("/run/app/socket", 0o140777, true),
            ("/var/log/app.log", 0o100644, true),
            ("/var/log/app.log.1", 0o100644, true),
            ("/var/cache/nginx/1/2/ab", 0o100600, true),
            ("/var/lib/logrotate/status", 0o100644, true),
            ("/root/.cache/fontconfig/x", 0o100644, true),
            ("/home/app/.config/chromium/Default/Preferences", 0o100600, true),
            ("/srv/.attach_pid17", 0o100600, true),
            // Other places.
            ("/etc/app.conf", 0o100644, false),
            ("/srv/x", 0o100644, false),
            ("/tmp", 0o100644, false),
            ("/var/lib/app/state", 0o100644, false),
            ("/srv/home/app/.cache/x", 0o100644, false),
            ("/home/.cache/x", 0o100644, false),
            ("/srv/.attach_pid", 0o100600, false),
            ("/srv/.attach_pid1x", 0o100600, false),
            // Programs, and what is named like code.
            ("/tmp/x", 0o100700, false),
            ("/tmp/x", 0o104600, false),
            ("/tmp/x.py", 0o100644, false),
            ("/tmp/X.PY", 0o100644, false),
            ("/tmp/__pycache__/x.pyc", 0o100644, false),
            ("/tmp/x.so", 0o100644, false),
            ("/tmp/libx.so.1.2", 0o100644, false),
            ("/tmp/run.sh", 0o100644, false),
            ("/tmp/bin/x", 0o100644, false),
            ("/var/cache/apt/archives/x.deb", 0o100644, false),
            ("/root/.cache/x.whl", 0o100644, false),
            // Credentials, and what is started.
            ("/tmp/.ssh/authorized_keys", 0o100600, false),
            ("/tmp/id_rsa", 0o100600, false),
            ("/tmp/krb5cc_0", 0o100600, false),
            ("/run/secrets/token", 0o100600, false),
            ("/run/systemd/system/x", 0o100644, false),
            ("/run/tmpfiles.d/x.conf", 0o100644, false),
            ("/root/.config/autostart/x", 0o100644, false),
            ("/home/app/.config/gh/hosts.yml", 0o100600, false),
            ("/run/x.service", 0o100644, false),
            // No data.
            ("/tmp/x", 0o120777, false),
            ("/tmp/x", 0o010644, false),
            ("/tmp/x", 0o060644, false),
            ("/tmp/x", 0, false),
        ] {
            let change = change(ImageOp::Unlink, Layer::Upper, mode, path);
            assert_eq!(covers(&change), expected, "{path} {mode:o}");
        }
    }

    #[test]
    fn links_of_chromium() {
        for (op, mode, path, expected) in [
            // The mode is that of the parent directory.
            (ImageOp::Symlink, 0o040700, "/root/.config/chromium/SingletonLock", true),
            (ImageOp::Symlink, 0o040700, "/home/app/.config/chromium/SingletonCookie", true),
            (ImageOp::Symlink, 0o040700, "/tmp/profile/SingletonSocket", true),
            (ImageOp::Unlink, 0o120777, "/tmp/profile/SingletonSocket", true),
            (ImageOp::Symlink, 0o040700, "/tmp/profile/Singleton", false),
            (ImageOp::Symlink, 0o040700, "/srv/SingletonLock", false),
            (ImageOp::Rename, 0o120777, "/tmp/profile/SingletonLock", false),
            (ImageOp::Chown, 0o120777, "/tmp/profile/SingletonLock", false),
        ] {
            assert_eq!(covers(&change(op, Layer::Upper, mode, path)), expected, "{op:?} {path}");
        }
    }

    #[test]
    fn operations() {
        for (op, kind, expected) in [
            (ImageOp::Create, libc::S_IFREG, true),
            (ImageOp::Chmod, libc::S_IFREG, true),
            (ImageOp::Rmdir, libc::S_IFDIR, true),
            // The mode is that of the parent directory.
            (ImageOp::Mkdir, libc::S_IFDIR, true),
            (ImageOp::Symlink, libc::S_IFDIR, false),
            (ImageOp::Mknod, libc::S_IFDIR, false),
            (ImageOp::Mknod, libc::S_IFSOCK, true),
            (ImageOp::Mknod, libc::S_IFIFO, false),
            (ImageOp::Mknod, libc::S_IFBLK, false),
            // The type of only one of the files is known.
            (ImageOp::Exchange, libc::S_IFREG, false),
            (ImageOp::SetFlags, libc::S_IFREG, false),
            (ImageOp::SetAcl, libc::S_IFREG, false),
            (ImageOp::SetXattr, libc::S_IFREG, false),
            (ImageOp::SetCapability, libc::S_IFREG, false),
        ] {
            let change = change(op, Layer::New, kind | 0o644, "/tmp/x");
            assert_eq!(covers(&change), expected, "{op:?}");
        }
    }

    #[test]
    fn every_path_counts() {
        for (path, new_path, expected) in [
            ("/tmp/x", "/tmp/y", true),
            ("/tmp/x", "/etc/app.conf", false),
            ("/etc/shadow", "/tmp/x", false),
            ("/tmp/x.pyc.140", "/tmp/x.pyc", false),
        ] {
            for op in [ImageOp::Rename, ImageOp::Link] {
                let mut change = change(op, Layer::Upper, 0o100644, path);
                change.detail.as_mut().expect("the sample has it").new_path = Some(samples::path(new_path));
                assert_eq!(covers(&change), expected, "{path} {new_path}");
            }
        }
    }

    #[test]
    fn a_file_with_another_name_can_be_anywhere() {
        let mut change = change(ImageOp::OpenWrite, Layer::Upper, 0o100644, "/tmp/x");
        assert!(covers(&change));
        change.file.nlink = 2;
        assert!(!covers(&change));
    }

    #[test]
    fn what_is_not_known_is_not_expected() {
        let mut change = change(ImageOp::OpenWrite, Layer::Upper, 0o100644, "/tmp/x");
        change.detail.as_mut().expect("the sample has it").path.truncated = true;
        assert!(!covers(&change));
        change.detail = None;
        assert!(!covers(&change));
    }
}
