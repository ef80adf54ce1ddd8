//! Changes through descriptors that were opened before the sensor started, so that no open is seen.

use anyhow::Result;

use super::before::OldFile;
use super::expectation::write as change;
use super::lab::Lab;
use crate::attack;

/// The service changes a file that it keeps open. Expects one finding.
fn through(lab: &mut Lab, method: &str, op: &str) -> Result<()> {
    let OldFile { container, path, .. } = lab.held()?;
    let identity = container.service_does(&["write-held", method, &path])?;
    lab.expect(&container, [change("entrypoint", op, "upper", &path, &identity)])
}

macro_rules! methods {
    ($($op:literal: $($method:ident),+;)+) => {
        $($(pub(super) fn $method(lab: &mut Lab) -> Result<()> {
            through(lab, stringify!($method), $op)
        })+)+
    };
}

methods! {
    "write":
        write, pwrite, writev, pwritev2, uring, uring_fixed, uring_async, uring_sqpoll, aio, splice, vmsplice, sendfile,
        copy_range, fallocate, punch_hole;
    "truncate": ftruncate;
    "mmap_write": mmap, mprotect, process_vm_writev, ptrace, proc_mem;
}

pub(super) fn clone(lab: &mut Lab) -> Result<()> {
    let OldFile { container, path, .. } = lab.held_on_btrfs()?;
    let identity = container.service_does(&["write-held", "clone", &path])?;
    lab.expect(&container, [change("entrypoint", "write", "upper", &path, &identity)])
}

/// The file decides which image was changed, whoever writes to it.
pub(super) fn received_in_another_container(lab: &mut Lab) -> Result<()> {
    let OldFile { container: owner, path, answer } = lab.held()?;
    let writer = lab.container()?;
    let number = serde_json::from_value(answer["descriptor"].clone())?;
    writer.receive(&attack::take(owner.pid, number)?)?;
    let mut finding = change("outside", "write", "upper", &path, &answer);
    finding["process"]["pid"] = writer.pid.into();
    lab.expect(&owner, [finding])
}

/// This case uses an access control list from before the sensor, because setting one would be the same change.
pub(super) fn remove_acl(lab: &mut Lab) -> Result<()> {
    let OldFile { container, path, .. } = lab.with_acl()?;
    let identity = container.service_does(&["remove-acl", &path])?;
    lab.expect(&container, [change("entrypoint", "set_acl", "upper", &path, &identity)])
}
