//! The image for the engines: an archive in the format of `docker save`, which all of them can load.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use super::client::FOLDER;
use crate::image::{LOADER, make_base};
use crate::program::on_host;

/// The name of the image. Engines that shorten names do not change this one.
pub const NAME: &str = "localhost/lab:1";

/// The default program of its containers, which does nothing. Pods use it for their sandbox.
const IDLE: &[&str] = &["/bin/sleep", "1000000"];

/// Programs of the disk that are in the image, too.
const PROGRAMS: &[&str] = &["/usr/bin/redis-server", "/usr/bin/redis-cli"];
/// A script in the image that checks the health of Redis.
pub const CHECK: &str = "/usr/bin/redis-check";

/// Makes the archive at the first use, and returns its path.
pub fn archive() -> Result<String> {
    let archive = format!("{FOLDER}/image.tar");
    if Path::new(&archive).exists() {
        return Ok(archive);
    }
    let (root, parts) = (format!("{FOLDER}/root"), format!("{FOLDER}/image"));
    make_base(&root)?;
    for program in PROGRAMS {
        copy(program, &root)?;
        // Lines of the form `NAME => PATH (ADDRESS)`.
        let libraries = on_host(LOADER, ["--list", program])?;
        let mut paths = libraries.lines().filter_map(|line| line.split_once(" => ")?.1.split_whitespace().next());
        paths.try_for_each(|path| copy(path, &root))?;
    }
    let check = format!("{root}{CHECK}");
    fs::write(&check, "#!/bin/sh\n[ \"$(redis-cli ping)\" = PONG ]\n")?;
    fs::set_permissions(&check, Permissions::from_mode(0o755))?;
    fs::create_dir_all(&parts)?;
    let layer = format!("{parts}/layer.tar");
    tar(&layer, &root)?;
    let digest = on_host("busybox", ["sha256sum", &layer])?;
    let digest = digest.split_whitespace().next().context("no digest")?;
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Cmd": IDLE, "Env": ["PATH=/usr/bin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    fs::write(format!("{parts}/config.json"), config.to_string())?;
    let manifest = json!([{"Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar"]}]);
    fs::write(format!("{parts}/manifest.json"), manifest.to_string())?;
    tar(&archive, &parts)?;
    fs::remove_dir_all(root)?;
    fs::remove_dir_all(parts)?;
    Ok(archive)
}

/// Copies a file of this machine to the same path below a directory.
fn copy(path: &str, root: &str) -> Result<()> {
    let to = format!("{root}{path}");
    fs::create_dir_all(Path::new(&to).parent().context("it is in a directory")?)?;
    fs::copy(path, &to).with_context(|| format!("cannot copy {path}"))?;
    Ok(())
}

fn tar(archive: &str, folder: &str) -> Result<()> {
    let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect::<Result<Vec<_>>>()?;
    let args = ["tar", "-c", "-f", archive, "-C", folder].map(Into::into);
    on_host("busybox", args.into_iter().chain(names)).map(drop)
}
