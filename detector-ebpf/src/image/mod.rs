//! Determines what is a change of a container's image. A hook calls one of these functions for each call that it sees.
//! The function makes its checks from the cheapest one to the most expensive one, and returns the
//! [`Change`](report::Change) to report, if there is one. A change that a thread has only requested is kept until it is
//! made ([`pending`]).
//!
//! Each change of a file is reported once, whichever hooks see it. An open for writing stands for all writes that
//! follow it, and for the copy-up. Changes of the metadata of a file that the container itself has created belong to
//! the creation of the file. [`seen`] has the changes that were reported.

mod code;
mod content;
mod controls;
mod counted;
pub mod interpreted;
mod locate;
mod metadata;
mod mounts;
mod names;
pub mod pending;
pub mod report;
mod seen;
mod versions;

pub use code::{executing, mapped, protected};
pub use content::{device_opened, opened, opened_by_handle, stored, written};
pub use metadata::{changing, copied_up, creating, ended, to_create};
pub use mounts::{mounted, remounted, rooted, set_attributes, setting_attributes};
pub use names::{linked, made, made_node, removed, renamed};
pub use seen::difference;
