//! Changes through descriptors that were open before the sensor: no opening tells of them.

use anyhow::Result;

use super::{Lab, write as change};
use crate::attack;

/// Has the service change a file that it holds: one finding.
fn through(lab: &mut Lab, method: &str, op: &str) -> Result<()> {
    let (container, path) = lab.held()?;
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
    let (container, path) = (lab.on_btrfs()?, lab.file()?);
    lab.without_sensor(|| container.service_does(&["hold", &path]))?;
    let identity = container.service_does(&["write-held", "clone", &path])?;
    lab.expect(&container, [change("entrypoint", "write", "upper", &path, &identity)])
}

/// The image is that of the file, whoever writes to it.
pub(super) fn received_in_another_container(lab: &mut Lab) -> Result<()> {
    let (owner, writer, path) = (lab.privileged()?, lab.container()?, lab.file()?);
    let held = lab.without_sensor(|| owner.service_does(&["hold", &path]))?;
    let number = serde_json::from_value(held["descriptor"].clone())?;
    writer.receive(&attack::take(owner.pid, number)?)?;
    let mut finding = change("outside", "write", "upper", &path, &held);
    finding["process"]["pid"] = writer.pid.into();
    lab.expect(&owner, [finding])
}

/// Not a descriptor, but an access list from before: to set one would be the same change.
pub(super) fn remove_acl(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.privileged()?, lab.file()?);
    lab.without_sensor(|| container.service_does(&["set-acl", &path]))?;
    let identity = container.service_does(&["remove-acl", &path])?;
    lab.expect(&container, [change("entrypoint", "set_acl", "upper", &path, &identity)])
}
