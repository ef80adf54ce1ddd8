//! Changes of image files. The later cases differ in the path to the file and in the process that changes it.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Result, bail, ensure};
use serde_json::json;

use super::before::OldFile;
use super::expectation::{difference, shadowed, shell, write as change};
use super::lab::{Lab, write_on_host};
use crate::attack::{self, NotApplicable};
use crate::container::{Container, Setup};
use crate::image::{self, EVIL_NAME, MARK};
use crate::init::{CGROUPS, cgroup};
use crate::program::on_host;

/// What a runtime does in a container: it makes an overlay and a cgroup of this name, and runs `program` there in
/// new namespaces.
fn nested(name: &str, program: &str) -> String {
    format!(
        "b=/bin/busybox d=/dev/shm/{name}
$b mkdir -p $d/cgroups $d/upper $d/work $d/root
$b mount -t cgroup2 cgroup2 $d/cgroups
$b mkdir $d/cgroups/{name}
$b mount -t overlay -o lowerdir=/,upperdir=$d/upper,workdir=$d/work overlay $d/root
echo 0 > $d/cgroups/{name}/cgroup.procs
exec $b unshare -m -p -f $b {program}"
    )
}

/// The service performs `operation` on the file at `path`. Expects one finding.
fn once(lab: &mut Lab, operation: &str, op: &str, path: &str) -> Result<()> {
    let container = lab.container()?;
    let identity = container.service_does(&[operation, path])?;
    let layer = if op == "create" { "new" } else { "lower" };
    lab.expect(&container, [change("entrypoint", op, layer, path, &identity)])
}

pub(super) fn lower_file_once(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.container()?, lab.file()?);
    let identity = container.service_does(&["append", &path])?;
    container.service_does(&["append", &path])?;
    container.service_does(&["truncate", &path])?;
    let mut finding = change("entrypoint", "open_write", "lower", &path, &identity);
    finding["container"] = json!({"runtime": "docker", "cgroup": container.cgroup});
    finding["process"]["pid"] = json!(container.pid);
    finding["process"]["ns_pid"] = json!(1);
    finding["process"]["exe"] = json!("/usr/bin/tool");
    finding["file"]["mode"] = json!("0644");
    lab.expect(&container, [finding])
}

/// The file was changed before the sensor started, so it is in the upper layer when it is changed again.
pub(super) fn upper_file(lab: &mut Lab) -> Result<()> {
    let OldFile { container, path, .. } = lab.changed()?;
    let identity = container.service_does(&["append", &path])?;
    lab.expect(&container, [change("entrypoint", "open_write", "upper", &path, &identity)])
}

pub(super) fn new_file(lab: &mut Lab) -> Result<()> {
    once(lab, "create", "create", "/usr/bin/miner")
}

pub(super) fn truncate(lab: &mut Lab) -> Result<()> {
    let path = lab.file()?;
    once(lab, "truncate", "truncate", &path)
}

pub(super) fn truncate_by_reader(lab: &mut Lab) -> Result<()> {
    let path = lab.file()?;
    once(lab, "truncate-by-reader", "truncate", &path)
}

pub(super) fn truncate_by_path(lab: &mut Lab) -> Result<()> {
    let path = lab.file()?;
    once(lab, "shorten", "truncate", &path)
}

pub(super) fn uring_open(lab: &mut Lab) -> Result<()> {
    let path = lab.file()?;
    once(lab, "uring-open", "open_write", &path)
}

pub(super) fn uring_open_direct(lab: &mut Lab) -> Result<()> {
    let path = lab.file()?;
    once(lab, "uring-open-direct", "open_write", &path)
}

/// Only overlays that NFS can export have file handles.
pub(super) fn open_by_handle(lab: &mut Lab) -> Result<()> {
    let setup = Setup { is_privileged: true, overlay_options: ",index=on,nfs_export=on", ..Setup::default() };
    let (container, path) = (Container::service_with(lab.number(), setup)?, lab.file()?);
    let identity = container.service_does(&["open-by-handle", &path])?;
    let opened = json!({"finding": "handle_open", "severity": "low"});
    lab.expect(&container, [opened, change("entrypoint", "open_write", "lower", &path, &identity)])
}

pub(super) fn clone(lab: &mut Lab) -> Result<()> {
    let container = lab.on_btrfs()?;
    opened(lab, &container, "clone")
}

/// The service opens a file and changes it. Expects one finding of the open.
fn opened(lab: &mut Lab, container: &Container, method: &str) -> Result<()> {
    let path = lab.file()?;
    let identity = container.service_does(&["write", method, &path])?;
    lab.expect(container, [change("entrypoint", "open_write", "lower", &path, &identity)])
}

macro_rules! methods {
    ($($method:ident),+) => {
        $(pub(super) fn $method(lab: &mut Lab) -> Result<()> {
            let container = lab.privileged()?;
            opened(lab, &container, stringify!($method))
        })+
    };
}

methods! {
    write, pwrite, writev, pwritev2, uring, uring_fixed, uring_async, uring_sqpoll, aio, splice, vmsplice, sendfile,
    copy_range, fallocate, punch_hole, ftruncate, mmap, mprotect, process_vm_writev, ptrace, proc_mem
}

pub(super) fn entered(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.container()?, lab.file()?);
    let identity = container.exec_tool(&["append", &path])?;
    lab.expect(&container, [change("entered", "open_write", "lower", &path, &identity)])
}

pub(super) fn child_of_application(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.container()?, lab.file()?);
    let answer = container.service_does(&["run", "/usr/bin/tool", "append", &path])?;
    let identity = serde_json::from_str(answer["stdout"].as_str().unwrap_or_default())?;
    lab.expect(&container, [change("application", "open_write", "lower", &path, &identity)])
}

pub(super) fn other_thread(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.container()?, lab.file()?);
    let identity = container.service_does(&["in-thread", "append", &path])?;
    let [found] = &lab.take_findings()?[..] else { bail!("not one finding") };
    let mut finding = change("entrypoint", "open_write", "lower", &path, &identity);
    finding["process"]["pid"] = json!(container.pid);
    if let Some(difference) = difference(found, &finding) {
        bail!("{difference}");
    }
    let thread = &found["process"]["tid"];
    ensure!(thread.is_u64() && *thread != container.pid, "thread {thread} is the process's first one");
    Ok(())
}

/// A name that resembles a kernel thread's makes no difference.
pub(super) fn changed_name(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.container()?, lab.file()?);
    let identity = container.service_does(&["renamed", "append", &path])?;
    let mut finding = change("entrypoint", "open_write", "lower", &path, &identity);
    finding["process"]["comm"] = json!("kworker/0:1");
    finding["process"]["exe"] = json!("/usr/bin/tool");
    lab.expect(&container, [finding])
}

pub(super) fn user_namespace(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.container()?, lab.file()?);
    let identity = container.child_does(&["in-namespaces", "append", &path])?;
    lab.expect(&container, [change("application", "open_write", "lower", &path, &identity)])
}

pub(super) fn nested_container(lab: &mut Lab) -> Result<()> {
    let (container, root) = (lab.privileged()?, lab.place()?);
    let identity = container.child_does(&["nested", &root])?;
    let covered = &identity["root"];
    lab.expect(
        &container,
        [
            shadowed("application", "bind", &root, covered),
            shadowed("application", "pivot_root", &root, covered),
            change("application", "create", "new", &format!("{root}/file"), &identity["file"]),
        ],
    )
}

/// A nested container has its own image, as in Docker in Docker. Its changes are those of the outer container.
pub(super) fn nested_image(lab: &mut Lab) -> Result<()> {
    if cgroup("") != CGROUPS {
        return Err(NotApplicable("the container sees only cgroups of version 2".to_owned()).into());
    }
    let container = lab.privileged()?;
    let script = nested("nested-image", "chroot $d/root /usr/bin/tool create /made");
    let identity = container.child_does(&["run", "/bin/sh", "-ec", &script])?;
    let identity = attack::read_answer(identity["stdout"].as_str().unwrap_or_default())?;
    let covering = json!({"finding": "image_shadowed", "file": {"op": "chroot", "path": "/dev/shm/nested-image/root"}});
    // If a file is on another file system than the lower layers, stat(2) returns another device number.
    let mut made = change("application", "create", "new", "/made", &identity);
    made["file"] = json!({"op": "create", "layer": "new", "path": "/made", "inode": identity["inode"]});
    lab.expect(&container, [shell("application", "/bin/busybox", &["/bin/sh", "-ec", &script]), covering, made])
}

/// The mount namespace of a nested container has ended, but its cgroup has not. The mount namespace of the next
/// container has the same inode number.
pub(super) fn namespace_number_reused(lab: &mut Lab) -> Result<()> {
    /// How many containers are started at most until one of them has the number.
    const ATTEMPTS: usize = 20;
    if cgroup("") != CGROUPS {
        return Err(NotApplicable("the container sees only cgroups of version 2".to_owned()).into());
    }
    let program = "sh -c \"$b readlink /proc/self/ns/mnt; exec $b chroot $d/root /bin/busybox true\"";
    let nested = lab.privileged()?.service_does(&["run", "/bin/sh", "-ec", &nested("nested-namespace", program)])?;
    lab.take_findings()?;
    let namespace = nested["stdout"].as_str().and_then(|printed| printed.lines().next()).unwrap_or_default().to_owned();
    ensure!(namespace.starts_with("mnt:["), "the namespace of the nested container is {namespace:?}: {nested}");
    let mut others = Vec::new();
    let container = loop {
        ensure!(others.len() < ATTEMPTS, "no container has the mount namespace {namespace}");
        let container = lab.new_container()?;
        if fs::read_link(format!("/proc/{}/ns/mnt", container.pid))? == Path::new(&namespace) {
            break container;
        }
        others.push(container);
    };
    let path = lab.file()?;
    let identity = container.service_does(&["append", &path])?;
    lab.expect(&container, [change("entrypoint", "open_write", "lower", &path, &identity)])
}

/// The finding has the path that was opened, and the inode that both names share.
pub(super) fn hard_link(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.container()?, lab.file()?);
    container.service_does(&["link", &path, "/tmp/alias"])?;
    let identity = container.service_does(&["append", "/tmp/alias"])?;
    let mut link = change("entrypoint", "link", "lower", &path, &identity);
    link["file"]["new_path"] = json!("/tmp/alias");
    lab.expect(&container, [link, change("entrypoint", "open_write", "upper", "/tmp/alias", &identity)])
}

/// The symbolic link is on the volume.
pub(super) fn symlink(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.container()?, lab.file()?);
    std::os::unix::fs::symlink(&path, container.volume().join("symlink"))?;
    let identity = container.service_does(&["append", "/data/symlink"])?;
    lab.expect(&container, [change("entrypoint", "open_write", "lower", &path, &identity)])
}

pub(super) fn deep_path(lab: &mut Lab) -> Result<()> {
    once(lab, "append", "open_write", &image::deep_path())
}

pub(super) fn long_path(lab: &mut Lab) -> Result<()> {
    once(lab, "append", "open_write", &image::long_path())
}

pub(super) fn hostile_name(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    let identity = container.service_does(&[OsStr::new("append"), OsStr::from_bytes(EVIL_NAME)])?;
    // Findings escape bytes that are not UTF-8 and backslashes. JSON escapes control characters.
    let path = "/srv/\x1b[2J\x1b]0;owned\x07\n\\xff\\\\x";
    lab.expect(&container, [change("entrypoint", "open_write", "lower", path, &identity)])
}

pub(super) fn through_proc_self_root(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.container()?, lab.file()?);
    let identity = container.service_does(&["append", &format!("/proc/self/root{path}")])?;
    lab.expect(&container, [change("entrypoint", "open_write", "lower", &path, &identity)])
}

/// The host copies a file as `docker cp` does.
pub(super) fn from_the_host(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.container()?, lab.file()?);
    write_on_host(&container.host_path(&path))?;
    let mut finding = change("outside", "truncate", "lower", &path, &json!({}));
    finding["process"]["pid"] = json!(std::process::id());
    finding["file"] = json!({"op": "truncate", "layer": "lower", "path": path});
    lab.expect(&container, [finding])
}

/// A service that was started after the sensor in a mount namespace of its own is not mistaken for a runtime that
/// prepares a container.
pub(super) fn from_private_mounts(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.container()?, lab.file()?);
    let service = cgroup("/service");
    fs::create_dir(&service)?;
    let write = format!("echo changed > {}", container.host_path(&path).display());
    let enter = format!("echo $$ > {service}/cgroup.procs; exec unshare -m /bin/sh -c '{write}'");
    on_host("/bin/busybox", ["sh", "-c", &enter])?;
    fs::remove_dir(&service)?;
    let finding = json!({
        "finding": "image_write",
        "process": {"origin": "outside", "exe": "/bin/busybox"},
        "file": {"op": "truncate", "layer": "lower", "path": path},
    });
    lab.expect(&container, [finding])
}

/// The process has only the mount namespace of the container, and otherwise belongs to the host.
pub(super) fn joined_mounts(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.container()?, lab.file()?);
    let pid = container.pid.to_string();
    on_host("/bin/busybox", ["nsenter", "-t", &pid, "-m", "/usr/bin/tool", "append", &path])?;
    let finding = json!({
        "finding": "image_write",
        "process": {"origin": "entered", "exe": "/usr/bin/tool"},
        "file": {"op": "open_write", "layer": "lower", "path": path},
    });
    lab.expect(&container, [finding])
}

/// The host opens an image file and sends the descriptor to the container. Expects a finding for each of them.
pub(super) fn received(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.container()?, lab.file()?);
    let file = OpenOptions::new().read(true).write(true).open(container.host_path(&path))?;
    container.receive(&file)?;
    let finding = json!({
        "finding": "image_write",
        "process": {"origin": "outside", "pid": std::process::id()},
        "file": {"op": "open_write", "layer": "lower", "path": path},
    });
    let mut written = finding.clone();
    written["process"] = json!({"origin": "entrypoint", "pid": container.pid});
    written["file"] = json!({"op": "write", "layer": "upper", "path": path});
    lab.expect(&container, [finding, written])
}

/// One container sends the descriptor to another one.
pub(super) fn received_in_another_container(lab: &mut Lab) -> Result<()> {
    let (owner, writer, path) = (lab.privileged()?, lab.container()?, lab.file()?);
    let held = owner.service_does(&["hold", &path])?;
    writer.receive(&attack::take(owner.pid, serde_json::from_value(held["descriptor"].clone())?)?)?;
    let mut written = change("outside", "write", "upper", &path, &held);
    written["process"]["pid"] = json!(writer.pid);
    lab.expect(&owner, [change("entrypoint", "open_write", "lower", &path, &held), written])
}

/// The host takes a descriptor from the container, and writes.
pub(super) fn taken_from_the_host(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.container()?, lab.file()?);
    let held = container.service_does(&["hold", &path])?;
    let descriptor = attack::take(container.pid, serde_json::from_value(held["descriptor"].clone())?)?;
    rustix::io::pwrite(descriptor, MARK, 0)?;
    ensure!(fs::read(container.host_path(&path))?.starts_with(MARK), "{path} was not changed");
    let mut written = change("outside", "write", "upper", &path, &held);
    written["process"]["pid"] = json!(std::process::id());
    lab.expect(&container, [change("entrypoint", "open_write", "lower", &path, &held), written])
}

/// In the container, one process opens the file and another one writes.
fn by_another_process(lab: &mut Lab, operation: &str, origin: &str) -> Result<()> {
    let (container, path) = (lab.container()?, lab.file()?);
    let identity = container.service_does(&[operation, &path])?;
    lab.expect(&container, [change(origin, "open_write", "lower", &path, &identity)])
}

pub(super) fn stolen(lab: &mut Lab) -> Result<()> {
    by_another_process(lab, "steal", "application")
}

pub(super) fn inherited(lab: &mut Lab) -> Result<()> {
    by_another_process(lab, "inherit", "entrypoint")
}

pub(super) fn given_by_supervisor(lab: &mut Lab) -> Result<()> {
    by_another_process(lab, "supervise", "entrypoint")
}
