//! The kernel's structs, as typed pointers whose methods read their members. Only here are offsets used.

mod attributes;
mod cgroup;
mod exec;
mod file;
mod offsets;
mod path;
mod pointer;
mod task;

pub use attributes::{AttributeChange, XattrKind};
pub use offsets::{ARG_CREATE_DENTRY, ARG_REMOVEXATTR_DENTRY, ARG_SETATTR_DENTRY, ARG_SETXATTR_DENTRY};
pub use path::Place;
pub use pointer::{Access, Probed, Ptr};
pub use task::{current_process, current_thread};

use pointer::kind;

/// Declares the names under which pointers are known.
macro_rules! pointers {
    ($($name:ident)*) => {
        $(
            #[doc = concat!("A pointer to the kernel's [`", stringify!($name), "`](pointer::kind::", stringify!($name), ").")]
            pub type $name<A = Probed> = Ptr<kind::$name, A>;
        )*
    };
}

pointers! {
    File Inode Superblock Dentry Path VfsMount Attributes Kiocb IovIter Task Binprm Cgroup Str
}
