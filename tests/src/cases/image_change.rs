//! Changes of names and metadata of an image.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use anyhow::{Error, Result, ensure};
use serde_json::{Value, json};

use super::expectation::write;
use super::lab::Lab;
use crate::container::Container;

/// A name that is not in the image.
fn new(path: &str) -> String {
    format!("{path}-new")
}

/// The expected finding of a name that the service created, when its file does not exist yet.
fn made(op: &str, path: &str) -> Value {
    json!({
        "finding": "image_write",
        "process": {"origin": "entrypoint"},
        "file": {"op": op, "layer": "new", "path": path, "inode": null},
    })
}

/// The service creates something. Expects one finding.
fn makes(lab: &mut Lab, container: &Container, operation: &str, op: &str) -> Result<()> {
    let path = new(&lab.file()?);
    container.service_does(&[operation, &path])?;
    lab.expect(container, [made(op, &path)])
}

/// The same of something that has another type, which the message names.
fn makes_node(lab: &mut Lab, container: &Container, operation: &str, kind: &str) -> Result<()> {
    let path = new(&lab.file()?);
    container.service_does(&[operation, &path])?;
    let found = lab.expect_and_take(container, [made("mknod", &path)])?;
    let message = found[0]["message"].as_str().unwrap_or_default();
    ensure!(message.starts_with(&format!("{path} created as a {kind} in container ")), "{message}");
    Ok(())
}

pub(super) fn mkdir(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    makes(lab, &container, "mkdir", "mkdir")
}

pub(super) fn mknod(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    makes_node(lab, &container, "mknod", "FIFO")
}

pub(super) fn mknod_file(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    makes(lab, &container, "mknod-file", "mknod")
}

pub(super) fn mknod_device(lab: &mut Lab) -> Result<()> {
    let container = lab.privileged()?;
    makes_node(lab, &container, "mknod-device", "character device")
}

pub(super) fn bind_socket(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    makes_node(lab, &container, "bind-socket", "socket")
}

pub(super) fn symlink(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    makes(lab, &container, "symlink", "symlink")
}

pub(super) fn uring_mkdir(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    makes(lab, &container, "uring-mkdir", "mkdir")
}

pub(super) fn uring_symlink(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    makes(lab, &container, "uring-symlink", "symlink")
}

/// The service renames an image file or links to it. Expects one finding.
fn moves(lab: &mut Lab, operation: &str, op: &str) -> Result<()> {
    let (container, path) = (lab.container()?, lab.file()?);
    let new = new(&path);
    let identity = container.service_does(&[operation, &path, &new])?;
    lab.expect(&container, [moved(op, "lower", &path, &new, &identity)])
}

fn moved(op: &str, layer: &str, path: &str, new: &str, identity: &Value) -> Value {
    let mut finding = write("entrypoint", op, layer, path, identity);
    finding["file"]["new_path"] = json!(new);
    finding
}

pub(super) fn link(lab: &mut Lab) -> Result<()> {
    moves(lab, "link", "link")
}

pub(super) fn uring_link(lab: &mut Lab) -> Result<()> {
    moves(lab, "uring-link", "link")
}

pub(super) fn rename(lab: &mut Lab) -> Result<()> {
    moves(lab, "rename", "rename")
}

pub(super) fn uring_rename(lab: &mut Lab) -> Result<()> {
    moves(lab, "uring-rename", "rename")
}

/// Careful programs replace a file in this way.
pub(super) fn rename_over(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.container()?, lab.file()?);
    let new = new(&path);
    let identity = container.service_does(&["create", &new])?;
    container.service_does(&["rename", &new, &path])?;
    lab.expect(
        &container,
        [write("entrypoint", "create", "new", &new, &identity), moved("rename", "upper", &new, &path, &identity)],
    )
}

/// A file that is renamed again is in the upper layer already.
pub(super) fn rename_again(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.container()?, lab.file()?);
    let names = ["", "-2", "-3", "-4"].map(|end| path.clone() + end);
    let rename = |layer, [old, new]: [&str; 2]| {
        let identity = container.service_does(&["rename", old, new])?;
        Ok::<_, Error>(moved("rename", layer, old, new, &identity))
    };
    let findings = [
        rename("lower", [&names[0], &names[1]])?,
        rename("upper", [&names[1], &names[2]])?,
        rename("upper", [&names[2], &names[3]])?,
    ];
    lab.expect(&container, findings)
}

pub(super) fn exchange(lab: &mut Lab) -> Result<()> {
    let (container, path, other) = (lab.container()?, lab.file()?, lab.file()?);
    let before = container.service_does(&["exchange", &path, &other])?;
    lab.expect(&container, [moved("exchange", "lower", &path, &other, &before[0])])
}

pub(super) fn exchange_again(lab: &mut Lab) -> Result<()> {
    let (container, path, other) = (lab.container()?, lab.file()?, lab.file()?);
    let exchange = || container.service_does(&["exchange", &path, &other]);
    let before = [exchange()?, exchange()?];
    let finding = |layer, before: &Value| moved("exchange", layer, &path, &other, &before[0]);
    lab.expect(&container, [finding("lower", &before[0]), finding("upper", &before[1])])
}

pub(super) fn rename_directory(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.container()?, new(&lab.file()?));
    let other = new(&path);
    container.service_does(&["mkdir", &path])?;
    let identity = container.service_does(&["rename", &path, &other])?;
    lab.expect(&container, [made("mkdir", &path), moved("rename", "upper", &path, &other, &identity)])
}

/// Creating an unnamed file is not a change, but naming it is.
pub(super) fn tmpfile(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.container()?, new(&lab.file()?));
    let identity = container.service_does(&["tmpfile", "/srv", &path])?;
    let mut finding = moved("link", "new", "", &path, &identity);
    if let Some(file) = finding["file"].as_object_mut() {
        file.remove("path");
    }
    lab.expect(&container, [finding])
}

/// The service changes an image file. Expects one finding.
fn changes(lab: &mut Lab, container: &Container, operation: &str, op: &str) -> Result<()> {
    let path = lab.file()?;
    let identity = container.service_does(&[operation, &path])?;
    lab.expect(container, [write("entrypoint", op, "lower", &path, &identity)])
}

macro_rules! changes {
    ($($function:ident: $container:ident, $operation:literal, $op:literal;)+) => {
        $(pub(super) fn $function(lab: &mut Lab) -> Result<()> {
            let container = lab.$container()?;
            changes(lab, &container, $operation, $op)
        })+
    };
}

changes! {
    unlink: container, "unlink", "unlink";
    uring_unlink: container, "uring-unlink", "unlink";
    fchmod: container, "fchmod", "chmod";
    fchmodat2: container, "fchmodat2", "chmod";
    chown: container, "chown", "chown";
    fchown: container, "fchown", "chown";
    utimes: container, "utimes", "utimes";
    set_acl: container, "set-acl", "set_acl";
    set_flags: on_btrfs, "set-flags", "set_flags";
    file_setattr: on_btrfs, "file-setattr", "set_flags";
    set_capability: privileged, "set-capability", "set_capability";
}

/// The file is already in the upper layer.
pub(super) fn set_flags_of_changed(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.on_btrfs()?, lab.file()?);
    let identity = container.service_does(&["append", &path])?;
    container.service_does(&["set-flags", &path])?;
    let changes = [("open_write", "lower"), ("set_flags", "upper")];
    lab.expect(&container, changes.map(|(op, layer)| write("entrypoint", op, layer, &path, &identity)))
}

/// A container may remove what it has added.
pub(super) fn unlink_own(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.container()?, new(&lab.file()?));
    let identity = container.service_does(&["create", &path])?;
    container.service_does(&["unlink", &path])?;
    lab.expect(&container, [write("entrypoint", "create", "new", &path, &identity)])
}

fn removes_directory(lab: &mut Lab, operation: &str) -> Result<()> {
    let (container, path) = (lab.container()?, lab.place()?);
    let identity = container.service_does(&[operation, &path])?;
    lab.expect(&container, [write("entrypoint", "rmdir", "lower", &path, &identity)])
}

pub(super) fn rmdir(lab: &mut Lab) -> Result<()> {
    removes_directory(lab, "rmdir")
}

pub(super) fn uring_rmdir(lab: &mut Lab) -> Result<()> {
    removes_directory(lab, "uring-rmdir")
}

pub(super) fn chmod(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.container()?, lab.file()?);
    let identity = container.service_does(&["chmod", &path])?;
    let mut finding = write("entrypoint", "chmod", "lower", &path, &identity);
    finding["file"]["mode"] = json!("0640");
    lab.expect(&container, [finding])
}

/// Setting the same permissions again has no finding, and setting others has one.
pub(super) fn chmod_twice(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.container()?, lab.file()?);
    let identity = container.service_does(&["chmod", &path])?;
    container.service_does(&["chmod", &path])?;
    container.service_does(&["chmod-set-id", &path])?;
    let mut findings = ["lower", "upper"].map(|layer| write("entrypoint", "chmod", layer, &path, &identity));
    findings[1]["file"]["mode"] = json!("4755");
    findings[1]["severity"] = json!("high");
    lab.expect(&container, findings)
}

pub(super) fn xattr(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.privileged()?, lab.file()?);
    let identity = container.service_does(&["set-xattr", &path])?;
    container.service_does(&["remove-xattr", &path])?;
    let [set, removed] = [("set_xattr", "lower"), ("remove_xattr", "upper")]
        .map(|(op, layer)| write("entrypoint", op, layer, &path, &identity));
    lab.expect(&container, [set, removed])
}

/// What a container does to a file that it has just created is part of the creation.
pub(super) fn of_own_file(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.privileged()?, new(&lab.file()?));
    let identity = container.service_does(&["create", &path])?;
    for operation in ["chmod", "chown", "utimes", "set-xattr", "remove-xattr", "set-acl"] {
        container.service_does(&[operation, &path])?;
    }
    lab.expect(&container, [write("entrypoint", "create", "new", &path, &identity)])
}

/// Making such a file executable or privileged has a finding.
pub(super) fn power_to_own_file(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.privileged()?, new(&lab.file()?));
    let identity = container.service_does(&["create", &path])?;
    for operation in ["chmod-executable", "chmod-set-id", "set-capability"] {
        container.service_does(&[operation, &path])?;
    }
    let change = |op, layer| write("entrypoint", op, layer, &path, &identity);
    lab.expect(
        &container,
        [
            change("create", "new"),
            change("chmod", "upper"),
            change("chmod", "upper"),
            change("set_capability", "upper"),
        ],
    )
}

/// Programs that copy a file with its timestamps do this.
pub(super) fn times_after_write(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.container()?, lab.file()?);
    let identity = container.service_does(&["append", &path])?;
    container.service_does(&["utimes", &path])?;
    lab.expect(&container, [write("entrypoint", "open_write", "lower", &path, &identity)])
}

pub(super) fn from_the_host(lab: &mut Lab) -> Result<()> {
    let (container, changed, removed) = (lab.container()?, lab.file()?, lab.file()?);
    let made = new(&changed);
    fs::create_dir(container.host_path(&made))?;
    fs::set_permissions(container.host_path(&changed), Permissions::from_mode(0o600))?;
    fs::remove_file(container.host_path(&removed))?;
    let findings = [("mkdir", "new", made), ("chmod", "lower", changed), ("unlink", "lower", removed)];
    let pid = std::process::id();
    let findings = findings.map(|(op, layer, path)| {
        json!({
            "finding": "image_write",
            "process": {"origin": "outside", "pid": pid},
            "file": {"op": op, "layer": layer, "path": path},
        })
    });
    lab.expect(&container, findings)
}
