//! More changes than anyone can follow.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::thread;

use anyhow::{Result, ensure};
use serde_json::Value;

/// Many writers at once make many files each, as fast as it goes.
pub(super) fn flood(writers: u32, files: u32, writes: u32) -> Result<Value> {
    let write = |writer: u32| -> Result<()> {
        let folder = flooded(writer, "");
        fs::create_dir_all(&folder)?;
        for file in 0..files {
            let path = flooded(writer, &file.to_string());
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            for _ in 0..writes {
                file.write_all(b"x")?;
            }
        }
        let made = fs::read_dir(&folder)?.count();
        ensure!(made == files as usize, "{made} files are there instead of {files}");
        Ok(())
    };
    thread::scope(|scope| {
        let writers: Vec<_> = (0..writers).map(|writer| scope.spawn(move || write(writer))).collect();
        writers.into_iter().try_for_each(|writer| writer.join().expect("a writer does not panic"))
    })?;
    Ok(Value::Null)
}

/// Path of a file that a writer of a flood makes.
pub fn flooded(writer: u32, file: &str) -> String {
    format!("/srv/writer-{writer}/{file}")
}
