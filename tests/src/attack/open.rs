//! Ways to open a file for writing, and to write it.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::fs::{Mode, OFlags};
use serde_json::Value;

use super::{MARK, identity, raw, uring, verify};

pub(super) fn perform(operation: &str, paths: &[&Path]) -> Option<Result<Value>> {
    Some(match (operation, paths) {
        ("append" | "truncate" | "create", [path]) => written(operation, path),
        ("truncate-by-reader", [path]) => truncate_by_reader(path),
        ("shorten", [path]) => shorten(path),
        ("uring-open", [path]) => uring::open(path).and_then(|file| finish(file, path)),
        ("uring-open-direct", [path]) => uring::open_direct(path, MARK).and_then(|()| verify(path)),
        ("open-by-handle", [path]) => open_by_handle(path),
        _ => return None,
    })
}

fn written(how: &str, path: &Path) -> Result<Value> {
    let mut options = OpenOptions::new();
    match how {
        "truncate" => options.write(true).truncate(true),
        "create" => options.write(true).create_new(true),
        _ => options.append(true),
    };
    finish(options.open(path).with_context(|| format!("cannot open {}", path.display()))?, path)
}

fn finish(mut file: File, path: &Path) -> Result<Value> {
    file.write_all(MARK)?;
    verify(path)
}

/// What POSIX leaves open, Linux does: it cuts the file, and gives a descriptor that cannot write.
fn truncate_by_reader(path: &Path) -> Result<Value> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::TRUNC | OFlags::CLOEXEC, Mode::empty())?;
    ensure!(fs::metadata(path)?.len() == 0, "{} was not cut", path.display());
    identity(path)
}

/// truncate(2), which opens nothing.
fn shorten(path: &Path) -> Result<Value> {
    raw::truncate(path, 1)?;
    ensure!(fs::metadata(path)?.len() == 1, "{} was not cut", path.display());
    identity(path)
}

/// By the number of the file instead of its name.
fn open_by_handle(path: &Path) -> Result<Value> {
    let handle = raw::Handle::of(path).context("no handle")?;
    finish(handle.open(&File::open("/")?).context("the handle cannot be opened")?, path)
}
