//! Mounts over paths of the image, and changes of its mounts.

use anyhow::Result;
use serde_json::{Value, json};

use super::expectation::shadowed;
use super::lab::Lab;
use crate::container::{Container, Setup};

/// The service mounts something over a directory. Expects one finding. `from` is the mounted directory.
fn covers(lab: &mut Lab, operation: &str, from: Option<&str>, op: &str) -> Result<()> {
    let (container, path) = (lab.privileged()?, lab.place()?);
    let line: Vec<&str> = [operation].into_iter().chain(from).chain([path.as_str()]).collect();
    let identity = container.service_does(&line)?;
    lab.expect(&container, [shadowed("entrypoint", op, &path, &identity)])
}

pub(super) fn mount_tmpfs(lab: &mut Lab) -> Result<()> {
    covers(lab, "mount-tmpfs", None, "mount")
}

pub(super) fn mount_overlay(lab: &mut Lab) -> Result<()> {
    covers(lab, "mount-overlay", Some("/dev/shm/overlay"), "mount")
}

pub(super) fn bind(lab: &mut Lab) -> Result<()> {
    covers(lab, "bind", Some("/data"), "bind")
}

pub(super) fn bind_file(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.privileged()?, lab.file()?);
    let identity = container.service_does(&["bind", "/dev/null", &path])?;
    lab.expect(&container, [shadowed("entrypoint", "bind", &path, &identity)])
}

/// Makes a mount outside the image.
fn mounted_elsewhere(lab: &mut Lab, number: &str) -> Result<String> {
    let (container, path) = (lab.privileged()?, format!("/dev/shm/mount-{number}"));
    container.service_does(&["mkdir", &path])?;
    container.service_does(&["mount-tmpfs", &path])?;
    Ok(path)
}

pub(super) fn mount_moved(lab: &mut Lab) -> Result<()> {
    let from = mounted_elsewhere(lab, "1")?;
    covers(lab, "move", Some(&from), "move_mount")
}

pub(super) fn move_mount(lab: &mut Lab) -> Result<()> {
    let from = mounted_elsewhere(lab, "2")?;
    covers(lab, "move-mount", Some(&from), "move_mount")
}

pub(super) fn fsmount(lab: &mut Lab) -> Result<()> {
    covers(lab, "fsmount", None, "mount")
}

pub(super) fn open_tree(lab: &mut Lab) -> Result<()> {
    covers(lab, "open-tree", Some("/data"), "mount")
}

/// The container removes a mount of its own configuration.
pub(super) fn umount(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.privileged()?, lab.place()?);
    let identity = container.service_does(&["mount-tmpfs", &path])?;
    container.service_does(&["umount", &path])?;
    let findings = ["mount", "umount"].map(|op| shadowed("entrypoint", op, &path, &identity));
    lab.expect(&container, findings)
}

/// The service changes the options of the root.
fn remounts(lab: &mut Lab, container: &Container, operation: &str, op: &str) -> Result<()> {
    let identity = container.service_does(&[operation, "/"])?;
    lab.expect(container, [of_root(op, &identity)])
}

pub(super) fn remount(lab: &mut Lab) -> Result<()> {
    let container = lab.privileged()?;
    remounts(lab, &container, "remount", "remount")
}

/// The root becomes read-only.
fn shuts(lab: &mut Lab, operation: &str) -> Result<()> {
    let setup = Setup { is_privileged: true, ..Setup::default() };
    let container = Container::service_with(lab.number(), setup)?;
    remounts(lab, &container, operation, "remount")
}

pub(super) fn remount_file_system(lab: &mut Lab) -> Result<()> {
    shuts(lab, "remount-file-system")
}

pub(super) fn fspick(lab: &mut Lab) -> Result<()> {
    shuts(lab, "fspick")
}

/// A read-only root becomes writable.
pub(super) fn mount_setattr(lab: &mut Lab) -> Result<()> {
    let setup = Setup { is_privileged: true, is_read_only: true, ..Setup::default() };
    let container = Container::service_with(lab.number(), setup)?;
    remounts(lab, &container, "mount-setattr", "mount_setattr")
}

/// The root is in the upper layer from the beginning.
fn of_root(op: &str, identity: &Value) -> Value {
    let mut finding = shadowed("entrypoint", op, "/", identity);
    finding["file"]["layer"] = json!("upper");
    finding
}

pub(super) fn pivot_root(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.container()?, lab.place()?);
    let identity = container.child_does(&["in-namespaces", "pivot-root", &path])?;
    lab.expect(&container, ["bind", "pivot_root"].map(|op| in_sandbox(op, &path, &identity)))
}

/// The finding about a process that has created a user namespace for itself, as sandboxes do.
pub(super) fn in_sandbox(op: &str, path: &str, identity: &Value) -> Value {
    let mut finding = shadowed("application", op, path, identity);
    finding["severity"] = json!("info");
    finding
}

pub(super) fn chroot(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.privileged()?, lab.place()?);
    let identity = container.child_does(&["chroot", &path])?;
    let mut finding = shadowed("application", "chroot", &path, &identity);
    finding["severity"] = json!("low");
    lab.expect(&container, [finding])
}

pub(super) fn chroot_in_user_namespace(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.privileged()?, lab.place()?);
    let identity = container.child_does(&["in-namespaces", "chroot", &path])?;
    lab.expect(&container, [in_sandbox("chroot", &path, &identity)])?;
    // The container's own chroot to the same directory is another act.
    container.child_does(&["chroot", &path])?;
    let mut finding = shadowed("application", "chroot", &path, &identity);
    finding["severity"] = json!("low");
    lab.expect(&container, [finding])
}

/// What is mounted in another mount namespace of the same user namespace may be propagated to other processes.
pub(super) fn in_mount_namespace(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.privileged()?, lab.place()?);
    let identity = container.child_does(&["with-own-mounts", "mount-tmpfs", &path])?;
    let mut finding = shadowed("application", "mount", &path, &identity);
    finding["severity"] = json!("medium");
    lab.expect(&container, [finding])
}

/// The container needs no privileges, because a process that creates a user namespace may mount in it.
pub(super) fn in_user_namespace(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.container()?, lab.place()?);
    let identity = container.child_does(&["in-namespaces", "mount-tmpfs", &path])?;
    lab.expect(&container, [in_sandbox("mount", &path, &identity)])
}
