//! Engines with Docker's command line: Docker and Podman.

use std::fs;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::client::{Client, FOLDER};
use super::image;
use crate::program::on_host;

/// The configuration of Podman on a machine without systemd.
pub const PODMAN_FILES: &[(&str, &str)] = &[
    (
        "/etc/containers/containers.conf",
        "[containers]\nlog_driver = \"k8s-file\"\n\
         [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nruntime = \"crun\"\n",
    ),
    // By default it may use the VFS driver, which copies whole images.
    (
        "/etc/containers/storage.conf",
        "[storage]\ndriver = \"overlay\"\n\
         runroot = \"/run/containers/storage\"\ngraphroot = \"/var/lib/containers/storage\"\n",
    ),
];

/// An engine with a command line.
pub struct Cli {
    /// The first arguments of each command.
    pub program: &'static [&'static str],
    /// The options of all containers.
    pub options: &'static [&'static str],
    /// The format that shows the digest of an image, or `None` if the engine has none for images that are not from a
    /// registry.
    pub digest: Option<&'static [&'static str]>,
}

/// The format that makes Podman show the digest of an image.
pub const PODMAN_DIGEST: Option<&[&str]> = Some(&["image", "inspect", "--format={{.Digest}}"]);

impl Cli {
    fn run(&self, args: &[&str]) -> Result<String> {
        let [program, before @ ..] = self.program else { anyhow::bail!("no program") };
        on_host(program, before.iter().chain(args))
    }
}

impl Client for Cli {
    fn load(&self, archive: &str) -> Result<()> {
        self.run(&["load", "--input", archive]).map(drop)
    }

    fn start(&self, name: &str, volume: &str, options: &[&str], args: &[&str]) -> Result<String> {
        let volume = format!("{volume}:/data");
        let run = ["run", "--detach", "--name", name, "--volume", &volume];
        let id = self.run(&[&run, self.options, options, &[image::NAME], args].concat())?;
        Ok(id.trim().to_owned())
    }

    fn exec(&self, id: &str, args: &[&str]) -> Result<String> {
        self.run(&[&["exec", id], args].concat())
    }

    fn copy(&self, id: &str, from: &str, to: &str) -> Result<()> {
        self.run(&["cp", from, &format!("{id}:{to}")]).map(drop)
    }

    fn build(&self, run: &str) -> Result<()> {
        let folder = format!("{FOLDER}/build");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {folder}"))?;
        fs::write(format!("{folder}/Dockerfile"), format!("FROM {}\nRUN {run}\n", image::NAME))?;
        self.run(&["build", "--network=none", &folder]).map(drop)
    }

    fn remove(&self, id: &str) -> Result<()> {
        self.run(&["rm", "--force", id]).map(drop)
    }

    fn expected(&self, name: &str) -> Result<Value> {
        let digest = self.digest.map(|args| self.run(&[args, &[image::NAME]].concat())).transpose()?;
        let digest = digest.as_deref().map(str::trim);
        Ok(json!({"name": name, "image": {"name": image::NAME, "digest": digest}}))
    }
}
