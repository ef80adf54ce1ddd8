//! What tells data from code, credentials and what decides what is started: the rule that no expectation may break.

use super::super::interpreter;
use crate::event::{ImageChange, ImageOp};

/// Names of files and directories that decide what is started, or who may do what. So do all whose name ends with `.d`.
const CONTROL: &[&[u8]] = &[
    b".aws",
    b".bash_login",
    b".bash_profile",
    b".bashrc",
    b".docker",
    b".git-credentials",
    b".gitconfig",
    b".gnupg",
    b".htpasswd",
    b".kube",
    b".login",
    b".my.cnf",
    b".netrc",
    b".npmrc",
    b".pgpass",
    b".profile",
    b".pypirc",
    b".ssh",
    b".zprofile",
    b".zshenv",
    b".zshrc",
    b"authorized_keys",
    b"autostart",
    b"containers",
    b"credentials",
    b"crontabs",
    b"fish",
    b"gcloud",
    b"gh",
    b"git",
    b"helm",
    b"nushell",
    b"pip",
    b"rclone",
    b"secrets",
    b"systemd",
    b"udev",
    b"xonsh",
];
/// The beginnings of the names of credentials.
const CREDENTIALS: &[&[u8]] = &[b"id_", b"krb5cc", b"passw"];
/// The ends of the names of code that is in no language of the [interpreters](interpreter), of packages of code, of
/// credentials, and of files that decide what is started.
const ENDS: &[&[u8]] = &[
    b".apk",
    b".cer",
    b".crt",
    b".csh",
    b".deb",
    b".desktop",
    b".egg",
    b".env",
    b".fish",
    b".gem",
    b".jks",
    b".key",
    b".keystore",
    b".keytab",
    b".ko",
    b".ksh",
    b".node",
    b".o",
    b".p12",
    b".pem",
    b".pfx",
    b".ps1",
    b".pyd",
    b".pyw",
    b".rpm",
    b".service",
    b".so",
    b".timer",
    b".truststore",
    b".ts",
    b".wasm",
    b".whl",
];

/// `S_ISUID | S_ISGID`, and the permissions to execute.
const POWER: u32 = 0o6111;

/// Whether the change is one of data, as far as the operation and the file tell: a directory, a socket, or a regular
/// file that has no other name, which could be anywhere, and that can neither be executed nor gives power.
pub(super) fn is_data(change: &ImageChange) -> bool {
    use ImageOp::*;
    match change.op {
        // The file is the parent directory.
        Mkdir => true,
        Create | OpenWrite | Truncate | Write | MmapWrite | CopyUp | Unlink | Rmdir | Link | Rename | Chmod | Chown
        | Utimes => match change.file.mode & libc::S_IFMT {
            libc::S_IFREG => change.file.mode & POWER == 0 && change.file.nlink <= 1,
            kind => matches!(kind, libc::S_IFDIR | libc::S_IFSOCK),
        },
        // That of a regular file is the directory's.
        Mknod => change.file.mode & libc::S_IFMT == libc::S_IFSOCK,
        Symlink | Exchange | SetXattr | RemoveXattr | SetCapability | SetAcl | SetFlags => false,
    }
}

/// Whether a file with this name is code, or one of those in [`ENDS`]. A library can have its version at the end.
pub(super) fn is_code(name: &[u8]) -> bool {
    interpreter::is_named_like_code(name)
        || ENDS.iter().any(|end| name.ends_with(end))
        || name.windows(4).any(|part| part == b".so.")
}

/// Whether a file or directory with this name decides what is started, or who may do what.
pub(super) fn is_control(name: &[u8]) -> bool {
    name.ends_with(b".d") || CONTROL.contains(&name) || CREDENTIALS.iter().any(|start| name.starts_with(start))
}
