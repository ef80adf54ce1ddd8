//! Typed readers of kernel structs. Only here are offsets used.

pub mod attribute;
pub mod cgroup;
pub mod file;
pub mod mem;
pub mod offsets;
pub mod path;
pub mod task;
