//! Queries the container runtimes of this node for the metadata of containers: name, image, labels and pod. Detection
//! does not need it, and findings wait for it only for a limited time.
//!
//! [`Enricher`] adds the metadata to findings. The runtimes and their answers are not trusted: size and time of an
//! answer are limited, and so is what is kept of it. A runtime of an ordinary user is queried only about that user's
//! containers ([`endpoint`]).

pub mod endpoint;
mod metadata;

mod cri;
mod docker;
mod engines;
mod enricher;
mod enrichment;
mod error;
mod id;
mod images;
mod join;
mod owner;
mod suppression;
mod watching;

use std::time::Duration;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use docker::described;
pub use engines::{EngineState, EngineStatus, Engines, check};
pub use enricher::{Enricher, Inlet, Options};
pub(crate) use enrichment::{Enrichment, Input};
pub use id::Id;
pub use suppression::Totals;
pub use watching::{Unwatched, Unwatching};

/// How long a finding waits at most for an answer by default.
pub const DEFAULT_WAIT: Duration = Duration::from_millis(250);
