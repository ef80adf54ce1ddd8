//! The failure of a command: one line of text and a documented exit code.

use std::fmt::Display;
use std::io;

use crate::daemon::watch;
use crate::{client, daemon, sensor};

/// The exit codes as `--help` shows them. The numbers are those of [`Exit`].
pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0  success
  1  failure while running
  2  wrong usage, or an error in the configuration file
  3  missing privileges
  4  this kernel or host lacks something that is needed
  5  no daemon is running, or it is not ready
  6  degraded: less is detected or recorded than could be
  7  a log is not whole: lines are missing, doubled, out of order or changed
  8  a container has drifted (only with `drift --exit-code`)";

/// The exit codes, documented in [`EXIT_CODES`]. clap itself exits with 2, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    Failure = 1,
    Usage = 2,
    Privilege = 3,
    Unsupported = 4,
    NotReady = 5,
    Degraded = 6,
    Broken = 7,
    Drifted = 8,
}

/// Why a command failed, in the form `<what>: <why>; <remedy>`.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    pub(super) message: String,
}

impl Failure {
    pub(super) fn new(exit: Exit, message: impl Display) -> Self {
        Self { exit, message: message.to_string() }
    }
}

impl From<sensor::Error> for Failure {
    fn from(error: sensor::Error) -> Self {
        use sensor::Error;
        let exit = match &error {
            Error::Privilege { .. } => Exit::Privilege,
            Error::Host(_)
            | Error::NoCgroups
            | Error::Lockdown
            | Error::FileLimit { .. }
            | Error::KernelBtf(_)
            | Error::Offsets(_)
            | Error::Load(_)
            | Error::Hook(_) => Exit::Unsupported,
            _ => Exit::Failure,
        };
        Self::new(exit, error)
    }
}

impl From<watch::Error> for Failure {
    fn from(error: watch::Error) -> Self {
        match error {
            watch::Error::Sensor(error) => error.into(),
            error @ watch::Error::Blind => Self::new(Exit::Unsupported, error),
            error => Self::new(Exit::Failure, error),
        }
    }
}

impl From<daemon::Error> for Failure {
    fn from(error: daemon::Error) -> Self {
        match error {
            daemon::Error::Watch(error) => error.into(),
            error => Self::new(Exit::Failure, error),
        }
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        let exit = match &error {
            client::Error::NotRunning(_) | client::Error::Silent(_) | client::Error::NotReady(_) => Exit::NotReady,
            client::Error::Permission(_) => Exit::Privilege,
            _ => Exit::Failure,
        };
        Self::new(exit, error)
    }
}

/// Standard output cannot be written.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(
            Exit::Failure,
            format_args!(
                "cannot write to standard output: {error}; check where it is redirected \
            to"
            ),
        )
    }
}
