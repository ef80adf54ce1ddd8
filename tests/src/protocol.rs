//! The messages from the guest to the host: JSON lines on the second serial port. The first one is the console.

use std::fs::{File, OpenOptions};
use std::io::Write;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The device to which the guest writes messages.
pub const PORT: &str = "/dev/ttyS1";

/// A message, which is one line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub enum Message {
    /// The guest is about to run its first case.
    Begin {
        /// The release of the kernel.
        release: String,
    },
    /// A test case has ended.
    Case {
        /// Its name in [`crate::cases::CASES`].
        name: String,
        /// Its result.
        outcome: Outcome,
        /// Its duration.
        seconds: f32,
    },
    /// The sensor has noticed what was done to it.
    Noticed {
        /// What was done: a row of [`crate::coverage::TAMPERING`].
        act: String,
        /// What came of it.
        notice: Noticed,
    },
    /// What a busy server was found to do, as a row of a table.
    Observed {
        /// The software, the time of observation, and the number of lines by severity.
        row: String,
    },
    /// A finding of the demo.
    Finding {
        /// The detector's line.
        line: Value,
    },
    /// The output of a command of the detector, as a sample for the README.
    Output {
        /// The name of the sample.
        name: String,
        /// The output.
        text: String,
    },
    /// The duration of an operation.
    Sample {
        /// What was attached to the kernel.
        setup: String,
        /// The name of the operation.
        operation: String,
        /// The time of one operation, which is the number of instructions with `-icount shift=0`.
        nanoseconds: f64,
    },
    /// Another measurement.
    Figure {
        /// What was measured.
        name: String,
        /// The measured value.
        value: f64,
        /// The unit of the value.
        unit: String,
    },
    /// The guest is about to power off. If this message is missing, the machine has crashed.
    End {
        /// Why the guest failed, if it did.
        failure: Option<String>,
    },
}

/// What came of something that was done to the sensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Noticed {
    /// The kinds of the finding and of the notices, or why there are none.
    pub lines: String,
    /// The time until the first of them, in seconds. It is missing if the kernel refuses the act.
    pub after: Option<f32>,
    /// The executable that the finding names.
    pub who: Option<String>,
    /// The time until it was undone, in seconds. It is missing if nothing is undone.
    pub undone: Option<f32>,
}

/// The result of a test case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All expectations were met.
    Passed,
    /// The machine lacks what the attack needs, for this reason.
    NotApplicable(String),
    /// The case failed, for this reason.
    Failed(String),
}

impl Message {
    /// Sends the message to the host.
    pub fn send(&self) -> Result<()> {
        let mut port: File =
            OpenOptions::new().write(true).open(PORT).with_context(|| format!("cannot open {PORT}"))?;
        let line = serde_json::to_string(self)? + "\n";
        port.write_all(line.as_bytes()).with_context(|| format!("cannot write to {PORT}"))
    }

    /// Parses a line. Returns `None` if it is not a message.
    pub fn parse(line: &str) -> Option<Self> {
        serde_json::from_str(line.trim()).ok()
    }
}
