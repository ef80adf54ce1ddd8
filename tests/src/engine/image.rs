//! The image for the engines: an archive in the format of `docker save`, which all of them can load.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use super::client::FOLDER;
use crate::image::make_base;
use crate::program::on_host;

/// The name of the image. Engines that shorten names do not change this one.
pub const NAME: &str = "localhost/lab:1";

/// The default program of its containers, which does nothing. Pods use it for their sandbox.
const IDLE: &[&str] = &["/bin/sleep", "1000000"];

/// Makes the archive at the first use, and returns its path.
pub fn archive() -> Result<String> {
    let archive = format!("{FOLDER}/image.tar");
    if Path::new(&archive).exists() {
        return Ok(archive);
    }
    let (root, parts) = (format!("{FOLDER}/root"), format!("{FOLDER}/image"));
    make_base(&root)?;
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

fn tar(archive: &str, folder: &str) -> Result<()> {
    let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect::<Result<Vec<_>>>()?;
    let args = ["tar", "-c", "-f", archive, "-C", folder].map(Into::into);
    on_host("busybox", args.into_iter().chain(names)).map(drop)
}
