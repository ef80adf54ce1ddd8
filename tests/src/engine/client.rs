//! What all engines have in common: their interface, their directory and their time limit.

use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

/// The directory for files of the engines.
pub const FOLDER: &str = "/var/lib/lab/engines";

/// The time limit for a daemon's start and its answers on an emulated machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The interface of an engine.
pub trait Client: Sync {
    /// Whether the daemon answers requests, which it may not yet do when it listens.
    fn is_ready(&self) -> bool {
        true
    }
    /// Loads the image from an archive.
    fn load(&self, archive: &str) -> Result<()>;
    /// Makes and starts a container, with these options if the engine has any, and returns its id.
    fn start(&self, name: &str, volume: &str, options: &[&str], args: &[&str]) -> Result<String>;
    /// Runs a program in a container, and returns its output.
    fn exec(&self, id: &str, args: &[&str]) -> Result<String>;
    /// Copies a file of the host into a container.
    fn copy(&self, id: &str, from: &str, to: &str) -> Result<()>;
    /// Builds an image with a `RUN` instruction.
    fn build(&self, run: &str) -> Result<()>;
    /// Stops and removes a container.
    fn remove(&self, id: &str) -> Result<()>;
    /// What findings say about a container of this name beyond what its cgroup tells.
    fn expected(&self, name: &str) -> Result<Value>;
}
