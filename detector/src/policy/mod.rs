//! The policy: what those who run a node have decided about findings, and which containers are watched. It is plain
//! data, which the configuration file gives and a recording contains.

mod candidates;
mod difference;
pub mod exception;
mod overrides;
pub mod pattern;
pub(crate) mod selection;
mod subject;
pub mod watch;

use serde::{Deserialize, Serialize};

pub use candidates::Candidates;
pub use difference::Difference;
pub use exception::{Conditions, Exception};
pub use overrides::Override;
pub use pattern::{PathPattern, Pattern};
pub use selection::Selection;
pub(crate) use subject::Subject;
pub use watch::WatchRule;

/// What was decided about findings and containers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The exceptions, in the order in which they are tried. The first one that holds decides.
    pub exceptions: Vec<Exception>,
    /// The overrides of severities, in the order in which they are tried. The first one that holds decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<Override>,
    /// Which containers are watched, in the order in which the rules are tried.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<WatchRule>,
}
