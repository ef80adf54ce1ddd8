//! The image that engines get: an archive of the form that `docker save` writes and all of them read.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use crate::container::{make_base, on_host};

use super::FOLDER;

/// Its name. Engines that shorten names leave this one as it is.
pub const NAME: &str = "localhost/lab:1";

/// What a container of it does unless told otherwise: nothing. As such it is the image of pods.
const IDLE: &[&str] = &["/bin/sleep", "1000000"];

/// Makes it when it is first needed; gives the archive.
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
