//! Recordings: what the node told the daemon, in the order in which the daemon went by it, so that the same findings
//! can be made of it again on another machine.
//!
//! Two threads decide what is published: the one that reads events and the one that asks the runtimes. Each does so in
//! [turns](Journal::turn), and only one of them has the turn. With the turn it first records what it has learnt, and
//! then publishes what follows from that. So the order of the entries is that of the decisions, and a decision depends
//! on nothing but the entries.
//!
//! **Format**: a recording consists of gzip members (RFC 1952), which have a checksum and a length. Each has whole
//! entries, and an entry is a line of JSON, so `zcat` shows a recording, and its byte order is that of no machine. The
//! first entry is a [`Header`]. Bytes that need not be text are written as in findings: `\xNN` for what is not UTF-8,
//! two backslashes for one. Entries without compression are read, too.
//!
//! Arguments are recorded as they were, with their secrets: detections go by them before they are redacted. The rules
//! of redaction are recorded as well, so that the findings of a replay have no more secrets than those of the run.

mod file;
mod recorder;
mod text;

use serde::{Deserialize, Serialize};

pub(crate) use file::{Ending, Error, read};
pub(crate) use recorder::{Journal, Recorder, Turn};
pub(crate) use text::{as_hex, as_text};

/// The version of the format. It changes when older recordings cannot be read any more, and when an older detector
/// would make other lines of a recording because it does not know what is in it.
pub(crate) const FORMAT: u32 = 5;

/// What recorded it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    /// [`FORMAT`].
    pub(crate) format: u32,
    /// The [version](detector_common::WIRE_VERSION) of the records that the probes sent.
    pub(crate) wire: u32,
    /// The version of the detector.
    pub(crate) detector: String,
}

impl Header {
    /// The header of what this program records.
    fn own() -> Self {
        Self { format: FORMAT, wire: detector_common::WIRE_VERSION, detector: env!("CARGO_PKG_VERSION").to_owned() }
    }
}

/// An entry of a recording. `P` is what the pipeline is told, and `R` what the enrichment is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Entry<P, R> {
    /// The first entry.
    Recording(Header),
    /// The pipeline was told this.
    Pipeline(P),
    /// The enrichment was told this.
    Runtimes(R),
    /// So many entries are missing here.
    Gap(u64),
    /// The last entry.
    End,
}
