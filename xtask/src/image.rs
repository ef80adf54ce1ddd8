//! Makes the container image of the detector, which is the program alone.
//!
//! The archive has the layout of the OCI image format (image-layout.md, version 1.1), and beside it the manifest of
//! `docker save`, since Docker before version 25 loads nothing else. The same binary makes the same bytes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::build::Dist;
use crate::{project, shell};

/// The name of the image. No engine makes another one of it.
const NAME: &str = concat!("localhost/detector:", env!("CARGO_PKG_VERSION"));

/// The directories of the daemon, in which volumes are mounted. They are there, so that a root can be read-only.
const FOLDERS: &[&str] = &["etc/detector", "run/detector", "var/log/detector", "var/lib/detector"];

/// Makes the archive of a built detector in `dist/`. `time` is that of all files, in seconds since 1970.
///
/// # Errors
///
/// tar or sha256sum is not installed, or `dist/` cannot be written.
pub fn make(dist: &Dist, time: i64) -> Result<PathBuf> {
    let folder = project::root().join("dist");
    let archive = folder.join(format!("detector-{}-image.tar", env!("CARGO_PKG_VERSION")));
    let parts = TempDir::with_prefix_in("image-", &folder)?;
    let (root, layout) = (parts.path().join("root"), parts.path().join("layout"));
    fs::create_dir_all(layout.join("blobs/sha256"))?;
    for path in FOLDERS {
        fs::create_dir_all(root.join(path))?;
    }
    copy(&dist.detector, &root.join("usr/bin/detector"))?;
    for licence in ["LICENSE-APACHE", "LICENSE-MIT"] {
        copy(&project::root().join(licence), &root.join("usr/share/doc/detector").join(licence))?;
    }
    let layer = parts.path().join("layer.tar");
    tar(&root, &layer, time)?;
    let layer = Blob::new(&layout, &layer, "application/vnd.oci.image.layer.v1.tar")?;
    let config = json!({
        "created": Timestamp::from_second(time)?.to_string(),
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Entrypoint": ["/usr/bin/detector"],
            "Cmd": ["run"],
            "Env": ["PATH=/usr/bin"],
            "Labels": {
                "org.opencontainers.image.title": "detector",
                "org.opencontainers.image.version": env!("CARGO_PKG_VERSION"),
                "org.opencontainers.image.licenses": "MIT OR Apache-2.0",
            },
        },
        "rootfs": {"type": "layers", "diff_ids": [&layer.digest]},
    });
    let config = Blob::of(&layout, &config, "application/vnd.oci.image.config.v1+json")?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config.descriptor(),
        "layers": [layer.descriptor()],
    });
    let manifest = Blob::of(&layout, &manifest, "application/vnd.oci.image.manifest.v1+json")?;
    let mut listed = manifest.descriptor();
    listed["annotations"] =
        json!({"io.containerd.image.name": NAME, "org.opencontainers.image.ref.name": env!("CARGO_PKG_VERSION")});
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [listed],
    });
    let of_docker = json!([{"Config": config.path(), "RepoTags": [NAME], "Layers": [layer.path()]}]);
    let version = json!({"imageLayoutVersion": "1.0.0"});
    for (name, value) in [("oci-layout", version), ("index.json", index), ("manifest.json", of_docker)] {
        fs::write(layout.join(name), value.to_string())?;
    }
    tar(&layout, &archive, time)?;
    Ok(archive)
}

/// A file of the layout that is known by its digest.
struct Blob {
    digest: String,
    size: u64,
    media_type: &'static str,
}

impl Blob {
    /// Moves a file into a layout.
    fn new(layout: &Path, file: &Path, media_type: &'static str) -> Result<Self> {
        let sum = shell::text(Command::new("sha256sum").arg(file))?;
        let sum = sum.split_whitespace().next().context("sha256sum says nothing")?;
        let blob = Self { digest: format!("sha256:{sum}"), size: fs::metadata(file)?.len(), media_type };
        fs::rename(file, layout.join(blob.path()))?;
        Ok(blob)
    }

    /// Writes a value into a layout.
    fn of(layout: &Path, value: &Value, media_type: &'static str) -> Result<Self> {
        let file = layout.join("blob");
        fs::write(&file, value.to_string())?;
        Self::new(layout, &file, media_type)
    }

    fn path(&self) -> String {
        format!("blobs/{}", self.digest.replace(':', "/"))
    }

    fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest, "size": self.size})
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().context("it is in a directory")?)?;
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

/// Makes an archive of all that is in a directory. Nothing in it depends on who makes it, and when.
fn tar(folder: &Path, archive: &Path, time: i64) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.args(["--create", "--format=ustar", "--sort=name", "--owner=0", "--group=0", "--numeric-owner"]);
    tar.args(["--mode=u=rwX,go=rX", &format!("--mtime=@{time}"), "--file"]).arg(archive);
    shell::output(tar.arg("--directory").arg(folder).arg(".")).map(drop)
}
