//! What the guest tells the host: JSON lines on the second serial port. The first one is the console, for people.

use std::fs::{File, OpenOptions};
use std::io::Write;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Where the guest writes them.
pub const PORT: &str = "/dev/ttyS1";

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub enum Message {
    /// The tests are about to begin.
    Begin {
        /// Release of the kernel.
        release: String,
    },
    /// A test case ended.
    Case {
        /// Its name in [`crate::cases::CASES`].
        name: String,
        /// What became of it.
        outcome: Outcome,
        /// How long it took.
        seconds: f32,
    },
    /// A finding of the demo.
    Finding {
        /// The line of the detector.
        line: Value,
    },
    /// What the detector prints, as a sample for the README.
    Output {
        /// What the sample is called there.
        name: String,
        /// What was printed.
        text: String,
    },
    /// A measurement.
    Sample {
        /// What was attached to the kernel.
        setup: String,
        /// What was done.
        operation: String,
        /// How long one operation took. With `-icount shift=0` this is the number of instructions.
        nanoseconds: f64,
    },
    /// A measurement of another kind.
    Figure {
        /// What was measured.
        name: String,
        /// How much it is.
        value: f64,
        /// What the value counts.
        unit: String,
    },
    /// The guest is about to power off. Its absence means that the machine died.
    End {
        /// Why the guest failed as a whole.
        failure: Option<String>,
    },
}

/// What became of a test case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All that it expects came.
    Passed,
    /// The machine lacks what the case attacks with: why.
    NotApplicable(String),
    /// Why it failed, with all that helps to understand it.
    Failed(String),
}

impl Message {
    /// Sends it to the host.
    pub fn send(&self) -> Result<()> {
        let mut port: File =
            OpenOptions::new().write(true).open(PORT).with_context(|| format!("cannot open {PORT}"))?;
        let line = serde_json::to_string(self)? + "\n";
        port.write_all(line.as_bytes()).with_context(|| format!("cannot write to {PORT}"))
    }

    /// Reads a line, if it is one.
    pub fn parse(line: &str) -> Option<Self> {
        serde_json::from_str(line.trim()).ok()
    }
}
