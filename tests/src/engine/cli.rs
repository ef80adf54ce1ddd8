//! Engines with Docker's command line: that of Docker, and Podman's.

use std::fs;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Client, FOLDER, image};
use crate::container::on_host;

/// Podman's configuration, for a machine without systemd.
pub const PODMAN_FILES: &[(&str, &str)] = &[(
    "/etc/containers/containers.conf",
    "[containers]\nlog_driver = \"k8s-file\"\n\
     [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nruntime = \"crun\"\n",
)];

/// An engine with a command line.
pub struct Cli {
    /// How it begins.
    pub program: &'static [&'static str],
    /// Options of all containers.
    pub options: &'static [&'static str],
}

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

    fn start(&self, name: &str, volume: &str, args: &[&str]) -> Result<String> {
        let volume = format!("{volume}:/data");
        let run = ["run", "--detach", "--name", name, "--volume", &volume];
        let id = self.run(&[&run, self.options, &[image::NAME], args].concat())?;
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

    fn expected(&self, name: &str) -> Value {
        json!({"name": name, "image": {"name": image::NAME}})
    }
}
