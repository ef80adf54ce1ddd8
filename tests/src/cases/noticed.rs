//! Measures when the sensor notices what is done to it: the rows of `docs/tampering.md`.

use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::coverage::TAMPERING;
use crate::protocol::{Message, Noticed};

/// Something that is done to the sensor now.
pub(super) struct Act {
    act: &'static str,
    since: Instant,
    notice: Noticed,
}

impl Act {
    /// An act, which is a row of [`TAMPERING`].
    pub(super) fn begin(act: &'static str) -> Result<Self> {
        ensure!(TAMPERING.contains(&act), "{act:?} is no row of the document");
        let notice = Noticed { lines: String::new(), after: None, who: None, undone: None };
        Ok(Self { act, since: Instant::now(), notice })
    }

    /// This line has come because of it.
    pub(super) fn noticed(&mut self, line: &Value) {
        let name = line["finding"].as_str().or(line["event"].as_str()).unwrap_or_default();
        self.say(&format!("`{name}`"));
        let elapsed = self.since.elapsed().as_secs_f32();
        self.notice.after.get_or_insert(elapsed);
        if name == "healed" {
            self.notice.undone = Some(elapsed);
        }
        if let Some(exe) = line["process"]["exe"].as_str() {
            self.notice.who = Some(exe.to_owned());
        }
    }

    /// The sensor says nothing about it, for this reason.
    pub(super) fn end_without(mut self, reason: &str) -> Result<()> {
        self.say(reason);
        self.end()
    }

    fn say(&mut self, what: &str) {
        let separator = if self.notice.lines.is_empty() { "" } else { ", " };
        self.notice.lines += &format!("{separator}{what}");
    }

    /// Nothing more will come of it.
    pub(super) fn end(self) -> Result<()> {
        Message::Noticed { act: self.act.to_owned(), notice: self.notice }.send()
    }
}
