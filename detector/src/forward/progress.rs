//! What the process that forwards tells the daemon: a JSON line for each change.

use serde::{Deserialize, Serialize};

use crate::finding::Time;

/// How far a forwarder has come since its process was started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// The name of the forwarder.
    pub(crate) forwarder: String,
    /// The number of the last line that was sent.
    pub(crate) seq: u64,
    /// The time of the oldest line that was not sent yet.
    pub(crate) waiting: Option<Time>,
    /// How many lines were sent. Those that were sent again count again.
    pub(crate) sent: u64,
    /// How many lines were sent that the log had not taken.
    pub(crate) unlogged: u64,
    /// How many lines were gone from the log before they could be sent.
    pub(crate) given_up: u64,
    /// Whether lines were given up since nothing was waiting last.
    pub(crate) is_giving_up: bool,
    /// How many lines the receiver never takes.
    pub(crate) refused: u64,
    /// Why nothing can be sent at the moment, or why it is not certain that it is not sent twice.
    pub(crate) failure: Option<Failing>,
}

/// What fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failing {
    /// Why.
    pub(crate) why: String,
    /// Since when.
    pub(crate) since: Time,
}
