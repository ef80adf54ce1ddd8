//! Pointers to kernel memory, typed by the struct that they point to.
//!
//! A [`Ptr`] contains an address, which the compiler never dereferences. Its type says how the memory is read:
//! [`Probed`] uses the helper `bpf_probe_read_kernel`, which accepts any address, so that a wrong or stale one reads as
//! zero; [`Direct`] uses a load, which the verifier accepts only if it knows the type from the kernel's BTF.

use core::marker::PhantomData;

use aya_ebpf::Global;

use crate::mem::{self, Plain};

/// The kernel's structs, as type parameters of pointers.
pub mod kind {
    macro_rules! kinds {
        ($($(#[$doc:meta])* $name:ident)*) => { $($(#[$doc])* pub enum $name {})* };
    }

    kinds! {
        /// `struct file`.
        File
        /// `struct inode`.
        Inode
        /// `struct super_block`.
        Superblock
        /// `struct dentry`.
        Dentry
        /// `struct path`.
        Path
        /// `struct vfsmount`: the mount that a `struct path` points to.
        VfsMount
        /// `struct mount`, of which a `struct vfsmount` is a member.
        Mount
        /// `struct iattr`: the attributes of an inode that are to be changed.
        Attributes
        /// `struct kiocb`: an asynchronous read or write.
        Kiocb
        /// `struct iov_iter`: the data of a read or write.
        IovIter
        /// `struct task_struct`.
        Task
        /// `struct cred`.
        Credentials
        /// `struct user_namespace`.
        UserNamespace
        /// `struct pid`.
        Pid
        /// `struct nsproxy`.
        NsProxy
        /// `struct mnt_namespace`.
        MountNamespace
        /// `struct net`: a network namespace.
        Network
        /// `struct fs_struct`.
        FsStruct
        /// `struct files_struct`.
        FilesStruct
        /// `struct fdtable`.
        FdTable
        /// An array of pointers to `struct file`.
        FileArray
        /// `struct socket`.
        Socket
        /// `struct sock`.
        Sock
        /// `struct sock_common`: the start of a `struct sock`.
        SockCommon
        /// `struct signal_struct`.
        Signal
        /// `struct tty_struct`.
        Tty
        /// `struct mm_struct`.
        Memory
        /// `struct vm_area_struct`: mapped memory.
        Vma
        /// `struct linux_binprm`: a program that is being executed.
        Binprm
        /// `struct css_set`.
        CssSet
        /// `struct cgroup_subsys_state`.
        CgroupState
        /// `struct cgroup`.
        Cgroup
        /// `struct cgroup_root`: a hierarchy of cgroups.
        CgroupRoot
        /// `struct kernfs_node`.
        KernfsNode
        /// `struct bpf_map`.
        BpfMap
        /// `union bpf_attr`: the arguments of bpf(2).
        BpfAttributes
        /// A string that ends with a NUL.
        Str
    }
}

/// The way in which memory is read through a pointer.
pub trait Access: Copy {
    /// Returns the value at an address.
    ///
    /// # Safety
    ///
    /// The address must be one that the implementation can read.
    unsafe fn load<V: Plain>(address: u64) -> V;
}

/// Reads through `bpf_probe_read_kernel`.
#[derive(Clone, Copy)]
pub enum Probed {}

impl Access for Probed {
    #[inline(always)]
    unsafe fn load<V: Plain>(address: u64) -> V {
        mem::read_kernel(address)
    }
}

/// Reads through a plain load, which the verifier guards against faults. It calls no helper.
#[derive(Clone, Copy)]
pub enum Direct {}

impl Access for Direct {
    #[inline(always)]
    unsafe fn load<V: Plain>(address: u64) -> V {
        // SAFETY: the caller guarantees that the address can be read. If the load faults nevertheless, the kernel makes
        // it return 0. It is volatile, because the compiler must not widen, split or move it.
        unsafe { (address as *const V).read_volatile() }
    }
}

/// A pointer to the kernel's struct `T`, which is read through `A`.
#[repr(transparent)]
pub struct Ptr<T, A = Probed> {
    address: u64,
    kind: PhantomData<(fn() -> T, A)>,
}

impl<T, A> Clone for Ptr<T, A> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T, A> Copy for Ptr<T, A> {}

impl<T, A> PartialEq for Ptr<T, A> {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        mem::is_same(self.address, other.address)
    }
}

impl<T> Ptr<T> {
    /// The null pointer, through which everything reads as zero.
    pub const NULL: Self = Self::new(0);

    /// Creates a pointer. Any address is allowed.
    #[inline(always)]
    pub const fn new(address: u64) -> Self {
        Self { address, kind: PhantomData }
    }

    /// Returns a pointer to another struct, `offset` bytes after this one.
    #[inline(always)]
    pub(super) fn after<U>(self, offset: &Global<u64>) -> Ptr<U> {
        Ptr::new(self.address.wrapping_add(offset.load()))
    }

    /// Returns a pointer to another struct, `offset` bytes before this one. This one is the member of that struct with
    /// this offset.
    #[inline(always)]
    pub(super) fn before<U>(self, offset: &Global<u64>) -> Ptr<U> {
        Ptr::new(self.address.wrapping_sub(offset.load()))
    }

    /// Copies a member that is an array.
    #[inline(always)]
    pub(super) fn copy<const N: usize>(self, member: &Global<u64>, to: &mut [u8; N]) {
        mem::copy_kernel(to, self.address.wrapping_add(member.load()));
    }
}

impl<T> Ptr<T, Direct> {
    /// Creates a pointer from an argument of an fentry or LSM program.
    ///
    /// # Safety
    ///
    /// `address` must be an argument whose type the verifier knows to be a pointer to `T`.
    #[inline(always)]
    pub unsafe fn trust(address: u64) -> Self {
        Self { address, kind: PhantomData }
    }
}

impl<T, A> Ptr<T, A> {
    /// Returns the address.
    #[inline(always)]
    pub fn address(self) -> u64 {
        self.address
    }

    /// Returns whether this is the null pointer.
    #[inline(always)]
    pub fn is_null(self) -> bool {
        self.address == 0
    }

    /// Returns the same pointer, whose memory is read through the helper.
    #[inline(always)]
    pub fn probed(self) -> Ptr<T> {
        Ptr::new(self.address)
    }
}

impl<T, A: Access> Ptr<T, A> {
    /// Returns the member with this offset, or zero if it cannot be read.
    #[inline(always)]
    pub(super) fn read<V: Plain>(self, member: &Global<u64>) -> V {
        self.read_at(member.load())
    }

    /// Returns the value at this offset in bytes, or zero if it cannot be read.
    #[inline(always)]
    pub(super) fn read_at<V: Plain>(self, offset: u64) -> V {
        // SAFETY: a `Probed` pointer may have any address. A `Direct` pointer originates from `trust`, whose caller
        // guarantees that the verifier knows its type, so its members can be read.
        unsafe { A::load(self.address.wrapping_add(offset)) }
    }

    /// Returns the member with this offset, which is a pointer. If the verifier knows the type of this pointer, it also
    /// knows the type of the returned one.
    #[inline(always)]
    pub(super) fn follow<U>(self, member: &Global<u64>) -> Ptr<U, A> {
        self.follow_at(member.load())
    }

    /// Returns the pointer at this offset in bytes.
    #[inline(always)]
    pub(super) fn follow_at<U>(self, offset: u64) -> Ptr<U, A> {
        Ptr { address: self.read_at(offset), kind: PhantomData }
    }
}

/// Declares the type names of the pointers.
macro_rules! pointers {
    ($($name:ident)*) => {
        $(
            #[doc = concat!("A pointer to the kernel's [`", stringify!($name), "`](kind::", stringify!($name), ").")]
            pub type $name<A = Probed> = Ptr<kind::$name, A>;
        )*
    };
}

pointers! {
    File Inode Superblock Dentry Path VfsMount Attributes Kiocb IovIter Task NsProxy Vma Binprm Cgroup BpfMap
    BpfAttributes Sock Str
}

impl Ptr<kind::Str> {
    /// Returns the first bytes.
    #[inline(always)]
    pub fn start<const N: usize>(self) -> [u8; N] {
        self.read_at(0)
    }

    /// Returns the eight bytes from a position on, as a number in native byte order.
    #[inline(always)]
    pub fn word(self, position: u64) -> u64 {
        self.read_at(position)
    }

    /// Returns the words of the string, truncated, and the number of its bytes: see [`mem::read_kernel_str`].
    #[inline(always)]
    pub fn words<const WORDS: usize>(self) -> ([u64; WORDS], Option<u64>) {
        mem::read_kernel_str(self.address)
    }

    /// Copies the string with its NUL, truncated to the length of `to`. Returns the number of bytes copied, or 0 if the
    /// string cannot be read.
    #[inline(always)]
    pub fn copy_to(self, to: &mut [u8]) -> u64 {
        mem::copy_kernel_str(to, self.address)
    }
}
