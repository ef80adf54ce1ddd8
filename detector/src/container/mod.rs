//! Finds the container of an event: from the cgroup id that the kernel reports to the name that a runtime uses.

pub mod cgroup;
pub mod table;
