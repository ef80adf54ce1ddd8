//! What is a change of a container's image. Each function here is asked by a hook about one call, from the cheapest
//! check to the most expensive one, and gives the [`Change`](report::Change) to report, if there is one. What a thread
//! is only about to do is kept on the way ([`pending`]).
//!
//! One change of a file is reported once, whichever hooks it passes: an open for writing stands for all writes that
//! follow it, and for the copy-up; what is done to the metadata of a file that the container has itself created belongs
//! to its creation. What has been reported is in [`seen`].

mod code;
mod content;
mod locate;
mod metadata;
mod mounts;
mod names;
pub mod pending;
pub mod report;
mod seen;

pub use code::mapped;
pub use content::{device_opened, opened, stored, written};
pub use metadata::{changing, copied_up, creating, ended, to_create};
pub use mounts::{mounted, remounted, rooted, set_attributes, setting_attributes};
pub use names::{linked, made, removed, renamed};
