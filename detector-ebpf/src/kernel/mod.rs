//! The kernel's structs, as typed pointers whose methods read the members. Offsets are used only here.

mod attributes;
mod cgroup;
mod exec;
mod file;
mod mapping;
mod offsets;
mod path;
mod pointer;
mod socket;
mod task;

pub use attributes::{AttributeChange, XattrKind};
pub use offsets::{
    ARG_CREATE_DENTRY, ARG_OPEN_ROOT_NAME, ARG_REMOVEXATTR_DENTRY, ARG_SETATTR_DENTRY, ARG_SETXATTR_DENTRY,
};
pub use path::Place;
pub use pointer::{
    Access, Attributes, Binprm, BpfAttributes, BpfMap, Cgroup, Dentry, Direct, File, Inode, IovIter, Kiocb, NsProxy,
    Path, Ptr, Sock, Str, Superblock, Task, VfsMount, Vma,
};
pub use task::{Surroundings, current_cgroup_id, current_process, current_thread, typed_current};
