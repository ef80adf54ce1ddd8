//! The user side of the detector. See ARCHITECTURE.md for the map.

pub mod cli;
pub mod container;
pub mod detect;
pub mod event;
pub mod finding;
pub mod output;
pub mod sensor;
