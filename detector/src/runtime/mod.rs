//! What the container runtimes of this node know of a container: its name, image, labels and pod. Detection needs none of
//! it, and never waits for it longer than told.
//!
//! [`Enricher`] puts it into findings. The runtimes and their answers are not trusted: an answer is limited in size and
//! time, what is taken of it is limited too, and a runtime of an ordinary user is asked about that user's
//! containers only ([`endpoint`]).

pub mod endpoint;
mod metadata;

mod cri;
mod docker;
mod engines;
mod enricher;
mod error;
mod id;
mod join;
mod owner;

use std::time::Duration;

pub use engines::{EngineState, EngineStatus, Engines, check};
pub use enricher::{Enricher, Inlet, Options};
pub use id::Id;

/// How long a finding waits for an answer at most, unless told otherwise.
pub const DEFAULT_WAIT: Duration = Duration::from_millis(250);
