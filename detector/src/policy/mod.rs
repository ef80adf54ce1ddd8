//! The policy: what those who run a node have decided about findings. It is plain data, which the configuration file
//! gives and a recording contains.

pub mod exception;
pub mod pattern;

pub use exception::{Conditions, Exception};
pub use pattern::{PathPattern, Pattern};
