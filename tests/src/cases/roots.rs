//! Containers whose root is not an overlay over a directory, and another runtime.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::expectation::{shell, write};
use super::lab::{Lab, write_on_host};
use crate::container::{Container, Runtime, Setup};
use crate::root::Root;

/// Attacks a container in one way of each kind, and expects one finding for each attack. A root that is not an overlay
/// has no layers. Harmless operations have no findings, even on the file system of the root.
fn attacked(lab: &mut Lab, container: &Container, root: Root) -> Result<()> {
    let [changed, renamed, removed, moded] = [lab.file()?, lab.file()?, lab.file()?, lab.file()?];
    let [added, new, made] = [&changed, &renamed, &removed].map(|path| format!("{path}-new"));
    let of_image = if root.is_overlay() { json!("lower") } else { Value::Null };
    // On some file systems, stat does not return the kernel's device and inode numbers.
    let expected = |op: &str, path: &str, layer: &Value| {
        let mut finding = write("entrypoint", op, "", path, &Value::Null);
        finding["file"] = json!({"op": op, "path": path, "layer": layer});
        finding
    };
    container.service_does(&["harmless"])?;
    for operation in ["append", "append", "truncate"] {
        container.service_does(&[operation, &changed])?;
    }
    container.service_does(&["create", &added])?;
    container.service_does(&["mkdir", &made])?;
    container.service_does(&["rename", &renamed, &new])?;
    container.service_does(&["unlink", &removed])?;
    container.service_does(&["chmod", &moded])?;
    ensure!(container.exec(&["/bin/sh", "-c", "echo in"])? == "in\n");
    let mut rename = expected("rename", &renamed, &of_image);
    rename["file"]["new_path"] = json!(new);
    lab.expect(
        container,
        [
            expected("open_write", &changed, &of_image),
            expected("create", &added, &json!("new")),
            expected("mkdir", &made, &json!("new")),
            rename,
            expected("unlink", &removed, &of_image),
            expected("chmod", &moded, &of_image),
            shell("entered", "/bin/busybox", &["/bin/sh", "-c", "echo in"]),
        ],
    )?;

    let path = lab.file()?;
    write_on_host(&container.host_path(&path))?;
    if root.is_shared() {
        return lab.expect_none();
    }
    let mut finding = expected("truncate", &path, &of_image);
    finding["process"]["origin"] = json!("outside");
    lab.expect(container, [finding])
}

fn started(lab: &mut Lab, setup: Setup) -> Result<()> {
    let container = Container::service_with(lab.number(), setup)?;
    attacked(lab, &container, setup.root)
}

fn started_before(lab: &mut Lab, setup: Setup) -> Result<()> {
    let container = lab.container_from_before(setup)?;
    attacked(lab, &container, setup.root)
}

macro_rules! setups {
    ($($function:ident, $before:ident: $setup:expr;)+) => {
        /// The containers of all these cases.
        pub(super) fn setups() -> Vec<Setup> {
            vec![$($setup),+]
        }

        $(pub(super) fn $function(lab: &mut Lab) -> Result<()> {
            started(lab, $setup)
        }

        pub(super) fn $before(lab: &mut Lab) -> Result<()> {
            started_before(lab, $setup)
        })+
    };
}

setups! {
    erofs, erofs_from_before: Setup { root: Root::OverlayOnErofs, ..Setup::default() };
    ext4, ext4_from_before: Setup { root: Root::Ext4, ..Setup::default() };
    directory, directory_from_before: Setup { root: Root::Directory, ..Setup::default() };
    subvolume, subvolume_from_before: Setup { root: Root::Subvolume, ..Setup::default() };
    fuse_overlay, fuse_overlay_from_before: Setup { root: Root::FuseOverlay, ..Setup::default() };
    crun, crun_from_before: Setup { runtime: Runtime::Crun, ..Setup::default() };
}
