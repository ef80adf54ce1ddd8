//! The whole terminal of a person, for as long as a command draws on it.
//!
//! However the command ends, the terminal is as it was before: the command itself gives it back, what catches signals
//! does before it ends the process, and a hook does before it prints why a thread panicked.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal as _};
use std::os::fd::AsFd as _;
use std::panic;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ratatui::Terminal;
use ratatui::backend::TermionBackend;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::stdio;
use rustix::termios::{OptionalActions, QueueSelector, Termios, tcflush, tcgetattr, tcsetattr};

/// Takes the other screen, without a cursor. A row that is wider than the terminal believes does not go on in the next
/// one.
const TAKE: &[u8] = b"\x1b[?1049h\x1b[2J\x1b[?25l\x1b[?7l";
const GIVE_BACK: &[u8] = b"\x1b[?7h\x1b[0m\x1b[?25h\x1b[?1049l";

/// How the terminal was before it was taken.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// What is drawn on.
pub(super) type Screen = Terminal<TermionBackend<BufWriter<File>>>;

/// The terminal that was taken. It is given back when this is dropped.
pub(super) struct FullScreen {
    pub(super) screen: Screen,
}

impl FullScreen {
    /// Takes the terminal of standard input and output.
    pub(super) fn take() -> io::Result<Self> {
        // Nothing else holds a lock of this file when a thread panics.
        let out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let screen = Terminal::new(TermionBackend::new(BufWriter::new(out)))?;
        let taken = Self { screen };
        let before = tcgetattr(stdio::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        *before_taken() = Some(before);
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |panicked| {
            give_back();
            report(panicked);
        }));
        tcsetattr(stdio::stdin(), OptionalActions::Now, &raw)?;
        write_all(TAKE)?;
        Ok(taken)
    }
}

impl Drop for FullScreen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Whether a person is there, with a terminal that can be taken.
pub(super) fn is_there() -> bool {
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    io::stdin().is_terminal() && io::stdout().is_terminal() && !is_dumb
}

/// Whether the terminal is taken. It is given back early if a thread panics.
pub(super) fn is_taken() -> bool {
    before_taken().is_some()
}

/// Gives the terminal back, unless that was done.
pub(super) fn give_back() {
    let Some(before) = before_taken().take() else { return };
    // It may be gone, or hang.
    let _ = if takes_bytes() { write_all(GIVE_BACK) } else { Ok(()) };
    let _ = tcflush(stdio::stdin(), QueueSelector::IFlush);
    let _ = tcsetattr(stdio::stdin(), OptionalActions::Now, &before);
}

fn before_taken() -> MutexGuard<'static, Option<Termios>> {
    BEFORE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the terminal takes more within a second.
fn takes_bytes() -> bool {
    let (out, second) = (stdio::stdout(), Timespec { tv_sec: 1, tv_nsec: 0 });
    matches!(poll(&mut [PollFd::new(&out, PollFlags::OUT)], Some(&second)), Ok(1..))
}

/// Writes to standard output, past what is buffered.
fn write_all(mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = rustix::io::retry_on_intr(|| rustix::io::write(stdio::stdout(), bytes))?;
        bytes = &bytes[written..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Read as _;
    use std::process::Command;

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::LocalModes;

    use super::*;

    /// Says that this is the process that panics, and where.
    const PANICS: &str = "DETECTOR_TEST_PANICS";

    /// Takes the terminal and panics, on this thread or another one.
    fn panic_on(thread: &str) {
        let taken = FullScreen::take().expect("there is a terminal");
        assert!(is_taken());
        match thread {
            "this" => panic!("on purpose"),
            _ => _ = std::thread::spawn(|| panic!("on purpose")).join(),
        }
        assert!(!is_taken(), "nothing is drawn any more");
        drop(taken);
    }

    /// What a process writes that panics on this thread, and the modes of its terminal at its end.
    fn panicked(thread: &str) -> (String, LocalModes, LocalModes) {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("there is a free terminal");
        grantpt(&keyboard).and_then(|()| unlockpt(&keyboard)).expect("it is ours");
        let name = ptsname(&keyboard, Vec::new()).expect("it has a name").into_string().expect("it is text");
        let end = OpenOptions::new().read(true).write(true).open(name).expect("it is ours");
        let modes = || tcgetattr(&end).expect("it is a terminal").local_modes;
        let before = modes();
        let again = || end.try_clone().expect("there are free descriptors");
        let name = "cli::fullscreen::tests::the_terminal_is_given_back_before_a_panic_is_told";
        let mut command = Command::new(std::env::current_exe().expect("it is known"));
        command.args(["--exact", name, "--nocapture"]).env(PANICS, thread).env("RUST_BACKTRACE", "0");
        let status = command.stdin(again()).stdout(again()).stderr(again()).status().expect("it starts");
        assert_eq!(status.success(), thread != "this");
        let after = modes();
        drop((command, end));
        let mut output = Vec::new();
        // When all is read, this fails with EIO.
        let _ = File::from(keyboard).read_to_end(&mut output);
        (String::from_utf8_lossy(&output).into_owned(), before, after)
    }

    #[test]
    fn the_terminal_is_given_back_before_a_panic_is_told() {
        if let Ok(thread) = std::env::var(PANICS) {
            return panic_on(&thread);
        }
        for thread in ["this", "another"] {
            let (written, before, after) = panicked(thread);
            assert_eq!(before, after, "what is typed is not treated as before");
            let mut terminal =
                vt100::Parser::new(24.try_into().expect("it is not 0"), 80.try_into().expect("it is not 0"), 0);
            terminal.process(written.as_bytes());
            let screen = terminal.screen();
            assert!(!screen.alternate_screen() && !screen.hide_cursor(), "{written:?}");
            assert!(screen.contents().contains("on purpose"), "{written:?}");
            assert!(written.contains("\x1b[?1049h"), "it was not taken: {written:?}");
        }
    }
}
