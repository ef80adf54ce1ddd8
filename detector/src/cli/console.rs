//! The terminal of a person: how wide it is, and whether lines on it may be replaced.

use std::io::{self, IsTerminal as _, Read as _};
use std::os::fd::AsFd as _;

use rustix::fs::fstat;
use rustix::io::ioctl_fionread;
use rustix::process::getpgrp;
use rustix::termios::{tcgetpgrp, tcgetwinsize};

use crate::output::screen::Size;

/// How wide lines are on what is no terminal and has no `COLUMNS`.
const USUAL: usize = 80;

/// How wide lines can be: as the terminal of standard output is now or, if it is none, as `COLUMNS` says.
pub(super) fn columns() -> usize {
    let of_terminal = tcgetwinsize(io::stdout()).ok().map(|size| usize::from(size.ws_col));
    let told = || std::env::var("COLUMNS").ok()?.parse().ok();
    let is_given = |columns: &usize| *columns > 0;
    of_terminal.filter(is_given).or_else(|| told().filter(is_given)).unwrap_or(USUAL)
}

/// The size of the terminal, or `None` if nothing on it may be replaced: standard output is not the terminal at which
/// a person starts this program, another program has it at the moment, or somebody has pressed Enter, which has moved
/// the lines.
pub(super) fn size() -> Option<Size> {
    let (input, output) = (io::stdin(), io::stdout());
    if !input.is_terminal() || !output.is_terminal() || std::env::var_os("TERM").is_none_or(|term| term == "dumb") {
        return None;
    }
    let is_same = fstat(&input).ok()?.st_rdev == fstat(&output).ok()?.st_rdev;
    // A program in the background must not read.
    if !is_same || tcgetpgrp(&output).ok()? != getpgrp() {
        return None;
    }
    let typed = ioctl_fionread(input.as_fd()).ok()?;
    if typed > 0 {
        // The number of bytes in whole lines, so this does not block. What they are does not matter.
        let _ = io::copy(&mut input.lock().take(typed), &mut io::sink());
        return None;
    }
    let size = tcgetwinsize(&output).ok()?;
    Some(Size { rows: size.ws_row, columns: size.ws_col })
}
