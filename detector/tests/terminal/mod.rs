//! A terminal with a program: a pseudo terminal, and an emulator that draws what is written to it.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

/// How long a program may take to show something, or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A program at a terminal. It is killed when this is dropped.
pub struct Terminal {
    process: Child,
    keyboard: File,
    /// The end of the program.
    end: File,
    /// How the terminal was before the program had it.
    before: Termios,
    emulator: Arc<Mutex<vt100::Parser>>,
    /// Whether nothing is drawn at the moment.
    hangs: Arc<AtomicBool>,
}

impl Terminal {
    /// Runs a program at a terminal of this size.
    pub fn run(command: &mut Command, rows: u16, columns: u16) -> Self {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("there is a free terminal");
        grantpt(&keyboard).and_then(|()| unlockpt(&keyboard)).expect("it is ours");
        let name = ptsname(&keyboard, Vec::new()).expect("it has a name").into_string().expect("it is text");
        let end = OpenOptions::new().read(true).write(true).open(name).expect("it is ours");
        tcsetwinsize(&end, size(rows, columns)).expect("it is a terminal");
        let before = tcgetattr(&end).expect("it is a terminal");
        let again = || end.try_clone().expect("there are free descriptors");
        let command = command.stdin(again()).stdout(again()).stderr(again()).env("TERM", "xterm");
        let process = command.spawn().expect("the program starts");
        let [rows, columns] = [rows, columns].map(|length| length.try_into().expect("it is not 0"));
        let emulator = Arc::new(Mutex::new(vt100::Parser::new(rows, columns, 0)));
        let keyboard = File::from(keyboard);
        let mut output = keyboard.try_clone().expect("there are free descriptors");
        let (drawn, hangs) = (Arc::clone(&emulator), Arc::new(AtomicBool::new(false)));
        let waits = Arc::clone(&hangs);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // When nobody has the other end any more, this fails with EIO.
            while let Ok(count) = output.read(&mut bytes) {
                lock(&drawn).process(&bytes[..count]);
                while waits.load(Relaxed) {
                    thread::sleep(Duration::from_millis(10));
                }
            }
        });
        Self { process, keyboard, end, before, emulator, hangs }
    }

    /// What is on the screen.
    pub fn text(&self) -> String {
        lock(&self.emulator).screen().contents()
    }

    /// Waits until this is on the screen.
    #[track_caller]
    pub fn wait_for(&self, wanted: &str) {
        self.wait_until(|text| text.contains(wanted), wanted);
    }

    /// Waits until this is not on the screen any more.
    #[track_caller]
    pub fn wait_until_gone(&self, unwanted: &str) {
        self.wait_until(|text| !text.contains(unwanted), unwanted);
    }

    #[track_caller]
    fn wait_until(&self, is_so: impl Fn(&str) -> bool, what: &str) {
        let start = Instant::now();
        while !is_so(&self.text()) {
            assert!(start.elapsed() < PATIENCE, "{what:?}: {}", self.text());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Draws nothing from now on.
    pub fn hang(&self) {
        self.hangs.store(true, Relaxed);
    }

    /// Waits until the program has ended. Returns its exit code.
    #[track_caller]
    pub fn wait(&mut self) -> Option<i32> {
        let start = Instant::now();
        loop {
            match self.process.try_wait().expect("it is our child") {
                Some(status) => return status.code(),
                None => assert!(start.elapsed() < PATIENCE, "{}", self.text()),
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Types this.
    pub fn type_in(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("the terminal takes it");
    }

    /// Gives the terminal another size, and tells the program, as the kernel does for the terminal of its session.
    pub fn resize(&self, rows: u16, columns: u16) {
        let [height, width] = [rows, columns].map(|length| length.try_into().expect("it is not 0"));
        lock(&self.emulator).screen_mut().set_size(height, width);
        tcsetwinsize(&self.end, size(rows, columns)).expect("it is a terminal");
        self.send(Signal::WINCH);
    }

    /// Sends the program a signal.
    pub fn send(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).expect("it runs");
    }

    /// Whether the program has another screen than the usual one, without a cursor, and is told each key.
    pub fn is_taken(&self) -> bool {
        let now = tcgetattr(&self.end).expect("it is a terminal");
        let emulator = lock(&self.emulator);
        let screen = emulator.screen();
        screen.alternate_screen() && screen.hide_cursor() && now.local_modes != self.before.local_modes
    }

    /// Waits until the program has ended. Returns its exit code, after the terminal was found to be as it was.
    #[track_caller]
    pub fn end(mut self) -> Option<i32> {
        let code = self.wait();
        let now = tcgetattr(&self.end).expect("it is a terminal");
        let modes = |modes: &Termios| (modes.input_modes, modes.output_modes, modes.control_modes, modes.local_modes);
        assert_eq!(modes(&now), modes(&self.before), "what is typed is not treated as before");
        // What was written last may not be drawn yet.
        self.wait_until_drawn();
        code
    }

    #[track_caller]
    fn wait_until_drawn(&self) {
        let start = Instant::now();
        let is_other = || {
            let emulator = lock(&self.emulator);
            emulator.screen().alternate_screen() || emulator.screen().hide_cursor()
        };
        while is_other() {
            assert!(start.elapsed() < PATIENCE, "the other screen, or no cursor: {}", self.text());
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

fn lock(emulator: &Mutex<vt100::Parser>) -> MutexGuard<'_, vt100::Parser> {
    emulator.lock().unwrap_or_else(PoisonError::into_inner)
}
