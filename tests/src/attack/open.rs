//! Opens files for writing, and writes to them.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::fs::{Mode, OFlags};
use serde_json::{Value, json};

use super::effect::{identity, verify};
use super::operation::{Operation, number};
use super::{raw, uring};
use crate::image::MARK;

/// The operations of this module.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation::on("append", "opens a file for appending, and writes", |path| {
        written(OpenOptions::new().append(true), path)
    }),
    Operation::on("truncate", "opens a file for writing with O_TRUNC, and writes", |path| {
        written(OpenOptions::new().write(true).truncate(true), path)
    }),
    Operation::on("create", "creates a file, and writes", |path| {
        written(OpenOptions::new().write(true).create_new(true), path)
    }),
    Operation::on("truncate-by-reader", "opens a file for reading, with O_TRUNC", truncate_by_reader),
    Operation::on("shorten", "truncates a file with truncate(2), which opens nothing", shorten),
    Operation::on("uring-open", "opens a file with io_uring, and writes", |path| finish(uring::open(path)?, path)),
    Operation::on("uring-open-direct", "opens a file without a descriptor, and writes with io_uring", |path| {
        uring::open_direct(path, MARK)?;
        verify(path)
    }),
    Operation::on("open-by-handle", "opens a file by its number instead of its name, and writes", open_by_handle),
    Operation::with(
        "open-handle",
        "FILE WORD…",
        "opens a file by a handle, through the mount of another file",
        2,
        |args| open_handle(Path::new(&args[0]), args[1..].iter().map(|word| number(word)).collect::<Result<_>>()?),
    ),
];

fn written(options: &OpenOptions, path: &Path) -> Result<Value> {
    finish(options.open(path).with_context(|| format!("cannot open {}", path.display()))?, path)
}

fn finish(mut file: File, path: &Path) -> Result<Value> {
    file.write_all(MARK)?;
    verify(path)
}

/// POSIX does not define the effect of this. Linux truncates the file, and returns a descriptor that cannot be written
/// to.
fn truncate_by_reader(path: &Path) -> Result<Value> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::TRUNC | OFlags::CLOEXEC, Mode::empty())?;
    ensure!(fs::metadata(path)?.len() == 0, "{} was not truncated", path.display());
    identity(path)
}

fn shorten(path: &Path) -> Result<Value> {
    raw::truncate(path, 1)?;
    ensure!(fs::metadata(path)?.len() == 1, "{} was not truncated", path.display());
    identity(path)
}

fn open_by_handle(path: &Path) -> Result<Value> {
    let handle = raw::Handle::of(path).context("no handle")?;
    finish(handle.open(&File::open("/")?).context("the handle cannot be opened")?, path)
}

/// The handle of a file, for `open_handle`.
pub fn handle_of(path: &Path) -> Result<Vec<String>> {
    Ok(raw::Handle::of(path).context("no handle")?.words().iter().map(ToString::to_string).collect())
}

/// Opens the file with this handle through the mount of another file, writes to it, and returns what it had.
fn open_handle(mount: &Path, words: Vec<u32>) -> Result<Value> {
    let handle = raw::Handle::from_words(&words);
    let mut found = handle.open(&File::open(mount)?).context("the handle cannot be opened")?;
    let mut content = String::new();
    found.read_to_string(&mut content)?;
    found.write_all(MARK)?;
    Ok(json!(content))
}
