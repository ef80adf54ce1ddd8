//! One file a subject; each hook takes its arguments and hands them on.

mod cgroup;
mod exec;
mod lineage;
mod open;
mod write;
