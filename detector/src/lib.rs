//! The user-space part of the detector. ARCHITECTURE.md describes its modules.
#![warn(unreachable_pub)]

pub mod cli;
pub mod client;
pub mod config;
pub mod container;
pub mod daemon;
pub mod detect;
pub mod event;
pub mod finding;
pub mod forward;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod ledger;
pub mod output;
pub mod policy;
pub mod protocol;
pub mod redact;
pub mod runtime;
pub mod sensor;

mod chain;
mod clock;
mod explain;
mod learn;
mod memory;
mod near;
mod pipeline;
mod procfs;
mod queue;
mod recent;
mod recording;
mod replay;
mod severity;
