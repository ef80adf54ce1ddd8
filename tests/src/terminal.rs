//! A terminal with a program: a pseudo terminal, and an emulator that draws what is written to it.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::program::{Running, wait_for};

/// How long a program may take to show something.
const PATIENCE: Duration = Duration::from_secs(60);
/// The size of the terminal.
const ROWS: u16 = 24;
const COLUMNS: u16 = 80;

/// A program at a terminal of its own. It is killed when this is dropped.
pub struct Terminal {
    process: Running,
    keyboard: File,
    emulator: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    /// Runs a program in a session of its own, which has this terminal.
    pub fn run(program: &str, args: &[&str]) -> Result<Self> {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        grantpt(&keyboard)?;
        unlockpt(&keyboard)?;
        tcsetwinsize(&keyboard, Winsize { ws_row: ROWS, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 })?;
        let name = OsString::from(ptsname(&keyboard, Vec::new())?.into_string()?);
        let end = OpenOptions::new().read(true).write(true).open(name)?;
        let mut command = Command::new("/bin/busybox");
        command.args(["setsid", "-c", program]).args(args).env("TERM", "xterm");
        command.stdout(end.try_clone()?).stderr(end.try_clone()?);
        let process = Running::start_reading(&mut command, end.into())?;
        drop(command);
        let [rows, columns] = [ROWS, COLUMNS].map(|length| length.try_into().expect("it is not 0"));
        let emulator = Arc::new(Mutex::new(vt100::Parser::new(rows, columns, 0)));
        let keyboard = File::from(keyboard);
        let (mut output, drawn) = (keyboard.try_clone()?, Arc::clone(&emulator));
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // When the program has ended, this fails with EIO.
            while let Ok(count) = output.read(&mut bytes) {
                drawn.lock().unwrap_or_else(PoisonError::into_inner).process(&bytes[..count]);
            }
        });
        Ok(Self { process, keyboard, emulator })
    }

    /// The words on the screen, with a space between two of them. Where its rows end does not matter.
    pub fn text(&self) -> String {
        let contents = self.emulator.lock().unwrap_or_else(PoisonError::into_inner).screen().contents();
        contents.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Waits until this is on the screen. Returns what is there then.
    pub fn wait_for(&self, wanted: &str) -> Result<String> {
        let shown = wait_for(&format!("{wanted:?} on the screen"), PATIENCE, || {
            let text = self.text();
            Ok(text.contains(wanted).then_some(text))
        });
        shown.with_context(|| self.text())
    }

    /// Types this.
    pub fn type_in(&mut self, keys: &str) -> Result<()> {
        Ok(self.keyboard.write_all(keys.as_bytes())?)
    }

    /// Waits until the program has ended, after Ctrl-C. Returns its exit code.
    pub fn interrupt(mut self) -> Result<i32> {
        self.type_in("\u{3}")?;
        let status = wait_for("the end of the program", PATIENCE, || self.process.ended())?;
        status.code().with_context(|| format!("{status}"))
    }
}
