//! Makes more changes, and executes more programs, than the sensor can report individually.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::operation::{Operation, number};
use crate::image::MARK;

/// The operations of this module.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation::with("flood", "WRITERS FILES WRITES DEPTH", "makes many files with many writers at once", 4, |args| {
        flood(number(&args[0])?, number(&args[1])?, number(&args[2])?, number(&args[3])?)
    }),
    Operation::with("flood-run", "THREADS PROGRAMS", "runs many programs with many threads at once", 2, |args| {
        run(number(&args[0])?, number(&args[1])?)
    }),
    Operation::with("replace", "PATH TIMES", "replaces a file many times, as careful programs do", 2, |args| {
        replace(Path::new(&args[0]), number(&args[1])?)
    }),
];

fn flood(writers: u32, files: u32, writes: u32, depth: u32) -> Result<Value> {
    let write = |writer| {
        let folder = flooded(writer, depth, "");
        fs::create_dir_all(&folder)?;
        for file in 0..files {
            let path = flooded(writer, depth, &file.to_string());
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            for _ in 0..writes {
                file.write_all(b"x")?;
            }
        }
        let made = fs::read_dir(&folder)?.count();
        ensure!(made == files as usize, "{made} files are there instead of {files}");
        Ok(())
    };
    at_once(writers, write)
}

/// Executes many programs from many threads at the same time. Every tenth of them is a shell with a
/// [number](flooding_shell) as its argument.
fn run(threads: u32, programs: u32) -> Result<Value> {
    at_once(threads, |thread| {
        (0..programs).try_for_each(|number| {
            let mut program = if number.is_multiple_of(10) {
                let [shell, args @ ..] = flooding_shell(thread, number);
                let mut program = Command::new(shell);
                program.args(args);
                program
            } else {
                Command::new("/bin/true")
            };
            let status = program.stdin(Stdio::null()).status()?;
            ensure!(status.success(), "{program:?}: {status}");
            Ok(())
        })
    })
}

/// Replaces a file with a new one, which is renamed over it. Every tenth one is made executable. The inode number of
/// none is used again, and each is written once more after it has lost its name.
fn replace(path: &Path, times: u32) -> Result<Value> {
    let temporary = path.with_extension("tmp");
    let (mut inodes, mut powers) = (HashSet::new(), 0);
    let mut before: Option<File> = None;
    for time in 0..times {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(MARK)?;
        if time.is_multiple_of(10) {
            file.set_permissions(Permissions::from_mode(0o700))?;
            powers += 1;
        }
        inodes.insert(file.metadata()?.ino());
        fs::rename(&temporary, path)?;
        if let Some(mut replaced) = before.replace(file) {
            replaced.write_all(MARK)?;
            ensure!(replaced.metadata()?.nlink() == 0, "a replaced file still has a name");
        }
    }
    ensure!(fs::read(path)? == MARK, "{} is not the new file", path.display());
    ensure!(inodes.len() == times as usize, "only {} of {times} inode numbers are new ones", inodes.len());
    Ok(json!({"powers": powers}))
}

fn at_once(threads: u32, action: impl Fn(u32) -> Result<()> + Sync) -> Result<Value> {
    thread::scope(|scope| {
        let action = &action;
        let threads: Vec<_> = (0..threads).map(|thread| scope.spawn(move || action(thread))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("it does not panic"))
    })?;
    Ok(Value::Null)
}

/// A shell in a flood of programs, as it is executed.
pub fn flooding_shell(thread: u32, number: u32) -> [String; 3] {
    ["/bin/sh".to_owned(), "-c".to_owned(), format!(": {thread} {number}")]
}

/// A depth of directories that makes paths, and so records, almost as long as they can get.
pub const DEEP: u32 = 14;

/// The path of a file that a writer of a flood creates, below `depth` directories with long names.
pub fn flooded(writer: u32, depth: u32, file: &str) -> String {
    format!("/srv/writer-{writer}/{}{file}", format!("{:d<240}/", "").repeat(depth as usize))
}
