//! Which container is it? From cgroup ids, as the kernel reports them, to what people call containers.

pub mod cgroup;
pub mod table;
