//! `struct file`, `inode`, `dentry` and `super_block`: the properties of a file.

use aya_ebpf::cty::c_ulong;
use detector_common::{
    record::{self, COMM_LEN, LowerFile, PATH_DEPTH, TEXT_TRUNCATED, Text, is_same_in_layer},
    vocabulary::Layer,
};

use super::{
    offsets::*,
    path::Place,
    pointer::{Access, BpfAttributes, BpfMap, Dentry, File, Inode, IovIter, Kiocb, Ptr, Str, Superblock, kind},
};
use crate::mem::{self, Word};

/// `FMODE_WRITE` (include/linux/fs.h, 5.10 to 7.3).
const FMODE_WRITE: u32 = 1 << 1;
/// `FMODE_CREATED`: this open created the file (include/linux/fs.h, 5.10 to 7.3).
const FMODE_CREATED: u32 = 1 << 20;
/// `O_TRUNC` (include/uapi/asm-generic/fcntl.h, which x86 and arm64 use). `do_dentry_open` clears it after it has
/// called `security_file_open`.
const O_TRUNC: u32 = 0o1000;
/// `DCACHE_OP_REVALIDATE` and `DCACHE_OP_WEAK_REVALIDATE` (include/linux/dcache.h, 5.10 to 7.3).
const REVALIDATE: u32 = 1 << 2 | 1 << 11;
/// `OVERLAYFS_SUPER_MAGIC` (include/uapi/linux/magic.h).
const OVERLAYFS_SUPER_MAGIC: u64 = 0x794c_7630;
/// `S_IFMT` and three of its values (include/uapi/linux/stat.h).
const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFSOCK: u32 = 0o140_000;
/// `TMPFS_MAGIC`, `RAMFS_MAGIC` and `HUGETLBFS_MAGIC` (include/uapi/linux/magic.h).
const IN_MEMORY: [u64; 3] = [0x0102_1994, 0x8584_58f6, 0x9584_58f6];

// `s_magic` is an `unsigned long`, and is read as a `u64`.
const _: () = assert!(size_of::<c_ulong>() == size_of::<u64>() || !cfg!(target_arch = "bpf"));

/// The address of `ovl_file_operations` (fs/overlayfs/file.c), which is the `f_op` of every regular file on an overlay,
/// from 5.10 to 7.3. It is learnt from the first such file that is opened for writing. The self-test opens one.
static OVERLAY_OPERATIONS: Word = Word::new(0);

impl<A: Access> File<A> {
    /// Returns `f_inode`.
    #[inline(always)]
    pub fn inode(self) -> Inode<A> {
        self.follow(&OFF_FILE_INODE)
    }

    /// Returns whether the file is open for writing.
    #[inline(always)]
    pub fn is_writable(self) -> bool {
        self.read::<u32>(&OFF_FILE_MODE) & FMODE_WRITE != 0
    }

    /// Returns whether this open truncates the file to length 0.
    #[inline(always)]
    pub fn is_truncating(self) -> bool {
        self.read::<u32>(&OFF_FILE_FLAGS) & O_TRUNC != 0
    }

    /// Returns whether the file can be a regular file on an overlay. This is the filter for every write on the machine,
    /// so it is one load and one comparison, and calls no helper.
    #[inline(always)]
    pub fn may_be_on_overlay(self) -> bool {
        self.read::<u64>(&OFF_FILE_OP) == OVERLAY_OPERATIONS.get()
    }

    /// Notes the file operations of this file, which is a regular file on an overlay.
    /// [`may_be_on_overlay`](Self::may_be_on_overlay) needs them.
    #[inline(always)]
    pub fn learn_overlay_operations(self) {
        OVERLAY_OPERATIONS.set(self.read(&OFF_FILE_OP));
    }
}

impl File {
    /// Returns whether this open created the file.
    #[inline(always)]
    pub fn is_created(self) -> bool {
        self.read::<u32>(&OFF_FILE_MODE) & FMODE_CREATED != 0
    }

    /// Returns `f_op`, as a number to compare.
    #[inline(always)]
    pub fn operations(self) -> u64 {
        self.read(&OFF_FILE_OP)
    }

    /// Returns `private_data`, which for a BPF map is the map.
    #[inline(always)]
    pub fn map(self) -> BpfMap {
        self.follow(&OFF_FILE_PRIVATE)
    }

    /// Returns `f_path.dentry`.
    #[inline(always)]
    pub fn dentry(self) -> Dentry {
        self.follow(&OFF_FILE_DENTRY)
    }

    /// Returns `f_path`.
    #[inline(always)]
    pub fn place(self) -> Place {
        Place { dentry: self.dentry(), mount: self.follow(&OFF_FILE_MNT) }
    }

    /// Returns the inode in the layer of a file on an overlay, or null if it is not known. For an open file, overlayfs
    /// keeps that of the layer in `private_data`: up to 6.12 directly, later as the first member of a `struct ovl_file`
    /// (fs/overlayfs/file.c). What is found there is taken only if it can have the number of the overlay's inode. A
    /// file whose data and metadata are in different layers is not found.
    #[inline(always)]
    fn layer_inode(self) -> Inode {
        let number = self.inode().number();
        let is_it = |inode: Inode| is_same_in_layer(number, inode.number()) && inode.is_regular();
        let held: Self = self.follow(&OFF_FILE_PRIVATE);
        let inode = held.inode();
        if is_it(inode) {
            return inode;
        }
        let inode = held.follow_at::<kind::File>(0).inode();
        if is_it(inode) { inode } else { Inode::NULL }
    }

    /// Describes the file in the lower layer of an overlay, if this is one and there is no other layer.
    #[inline(always)]
    pub fn describe_lower(self, out: &mut LowerFile) {
        if self.inode().layer() != Some(Layer::Lower) {
            return;
        }
        let inode = self.layer_inode();
        let superblock = inode.superblock();
        out.inode = inode.number();
        out.change_time = inode.change_time();
        out.dev = superblock.device();
        out.magic = superblock.magic() as u32;
    }
}

impl<A: Access> Inode<A> {
    /// Returns `i_sb`.
    #[inline(always)]
    pub fn superblock(self) -> Superblock<A> {
        self.follow(&OFF_INODE_SB)
    }

    /// Returns `i_ino`.
    #[inline(always)]
    pub fn number(self) -> u64 {
        self.read(&OFF_INODE_INO)
    }

    /// Returns `i_mode`: the type and the permissions.
    #[inline(always)]
    pub fn mode(self) -> u32 {
        // The member is a `umode_t`, which has 16 bits.
        self.read::<u16>(&OFF_INODE_MODE).into()
    }

    /// Returns whether this is a regular file.
    #[inline(always)]
    pub fn is_regular(self) -> bool {
        self.mode() & S_IFMT == S_IFREG
    }
}

impl Inode {
    /// Returns the number of hard links.
    #[inline(always)]
    pub fn links(self) -> u32 {
        self.read(&OFF_INODE_NLINK)
    }

    /// Returns the number of the device that the inode stands for.
    #[inline(always)]
    pub fn represented_device(self) -> u32 {
        self.read(&OFF_INODE_RDEV)
    }

    /// Returns the device number of the file system that the inode is on.
    #[inline(always)]
    pub fn device(self) -> u32 {
        self.superblock().device()
    }

    /// Returns whether this is a directory.
    #[inline(always)]
    pub fn is_directory(self) -> bool {
        self.mode() & S_IFMT == S_IFDIR
    }

    /// Returns whether this is a socket.
    #[inline(always)]
    pub fn is_socket(self) -> bool {
        self.mode() & S_IFMT == S_IFSOCK
    }

    /// Returns whether the file has no name any more, or is on a file system that is only in memory, as files of
    /// memfd_create(2) are.
    #[inline(always)]
    pub fn is_fleeting(self) -> bool {
        self.links() == 0 || self.superblock().is_in_memory()
    }

    /// Returns when the file was last changed, in nanoseconds of the wall clock.
    #[inline(always)]
    pub fn change_time(self) -> u64 {
        // From 6.13 on, the highest bit says whether somebody has asked for the time (`I_CTIME_QUERIED`).
        let nanoseconds = self.read::<u32>(&OFF_INODE_CTIME_NSEC) & 0x7fff_ffff;
        self.read::<u64>(&OFF_INODE_CTIME).wrapping_mul(1_000_000_000).wrapping_add(nanoseconds.into())
    }

    /// Returns the dentry in the upper layer of an overlay's inode, or null if the file is only in a lower layer.
    ///
    /// `struct ovl_inode` (fs/overlayfs/ovl_entry.h) has `__upperdentry` directly after its `struct inode`, from 5.10
    /// to 7.3.
    #[inline(always)]
    pub fn upper_dentry(self) -> Dentry {
        self.follow(&SIZE_INODE)
    }

    /// Returns whether `dentry`, which is not null, is a name of the file in the upper layer of this overlay's inode.
    /// It need not be the name that overlayfs keeps: the copy-up of a file makes an unnamed file first, and overlayfs
    /// may go on to keep its dentry without a name (`ovl_copy_up_tmpfile`, fs/overlayfs/copy_up.c).
    #[inline(always)]
    pub fn is_above(self, dentry: Dentry) -> bool {
        let upper = self.upper_dentry();
        !upper.is_null() && upper.inode() == dentry.inode()
    }

    /// Returns the layer that the file is in, or `None` if the file is not on an overlay.
    #[inline(always)]
    pub fn layer(self) -> Option<Layer> {
        if !self.superblock().is_overlay() {
            None
        } else if self.upper_dentry().is_null() {
            Some(Layer::Lower)
        } else {
            Some(Layer::Upper)
        }
    }

    /// Describes the file, which is in this layer.
    #[inline(always)]
    pub fn describe(self, layer: Option<Layer>, out: &mut record::File) {
        mem::store(&mut out.layer, layer.map_or(0, Layer::number));
        let superblock = self.superblock();
        out.inode = self.number();
        out.dev = superblock.device();
        out.mode = self.mode();
        out.nlink = self.links();
        out.size = self.read(&OFF_INODE_SIZE);
        out.change_time = self.change_time();
        out.magic = superblock.magic() as u32;
        (out.is_served, out.difference, out.reserved) = (0, 0, 0);
        out.lower = LowerFile::NONE;
    }
}

impl<A: Access> Superblock<A> {
    /// Returns `s_magic`: the type of the file system.
    #[inline(always)]
    pub fn magic(self) -> u64 {
        self.read(&OFF_SB_MAGIC)
    }

    /// Returns whether this is the superblock of an overlay.
    #[inline(always)]
    pub fn is_overlay(self) -> bool {
        self.magic() == OVERLAYFS_SUPER_MAGIC
    }

    /// Returns whether the file system is only in memory.
    #[inline(always)]
    pub fn is_in_memory(self) -> bool {
        let magic = self.magic();
        magic == IN_MEMORY[0] || magic == IN_MEMORY[1] || magic == IN_MEMORY[2]
    }

    /// Returns `s_dev`.
    #[inline(always)]
    pub fn device(self) -> u32 {
        self.read(&OFF_SB_DEV)
    }
}

impl Superblock {
    /// Returns `s_root`: the dentry at the top of the file system.
    #[inline(always)]
    pub fn top(self) -> Dentry {
        self.follow(&OFF_SB_ROOT)
    }

    /// Returns whether this belongs to the host's user namespace, which is the only one without a parent.
    #[inline(always)]
    pub fn is_of_host_users(self) -> bool {
        self.follow::<kind::UserNamespace>(&OFF_SB_USER_NS).follow::<kind::UserNamespace>(&OFF_USER_NS_PARENT).is_null()
    }
}

impl Dentry {
    /// Returns `d_inode`, or null if there is no such file yet.
    #[inline(always)]
    pub fn inode(self) -> Inode {
        self.follow(&OFF_DENTRY_INODE)
    }

    /// Returns `d_sb`.
    #[inline(always)]
    pub fn superblock(self) -> Superblock {
        self.follow(&OFF_DENTRY_SB)
    }

    /// Returns `d_parent`.
    #[inline(always)]
    pub fn parent(self) -> Self {
        self.follow(&OFF_DENTRY_PARENT)
    }

    /// Returns whether this is on an overlay, and a layer that has it or a directory above it has to ask somebody
    /// whether the name is still valid, as FUSE and network file systems do. Overlayfs passes this on to its own
    /// dentries, except the one at the top (`ovl_dentry_init_flags`, fs/overlayfs/util.c). The result is also `true` if
    /// this is too deep to find out.
    #[inline(always)]
    pub fn is_served(self) -> bool {
        if !self.superblock().is_overlay() {
            return false;
        }
        let mut dentry = self;
        for _ in 0..PATH_DEPTH {
            let parent = dentry.parent();
            if parent == dentry || parent.is_null() {
                return false;
            }
            if dentry.read::<u32>(&OFF_DENTRY_FLAGS) & REVALIDATE != 0 {
                return true;
            }
            dentry = parent;
        }
        true
    }

    /// Returns `d_name.name`: the last component of the path.
    #[inline(always)]
    pub fn name(self) -> Str {
        self.follow(&OFF_DENTRY_NAME)
    }

    /// Returns the last eight bytes of the name as a little-endian number. If the name is shorter, other bytes come
    /// before it.
    #[inline(always)]
    pub fn end_of_name(self) -> u64 {
        let len: u32 = self.read(&OFF_DENTRY_NAME_LEN);
        u64::from_le(self.name().word(u64::from(len).wrapping_sub(8)))
    }
}

impl Str {
    /// Copies the string to a text of a record.
    #[inline(always)]
    pub fn copy_to_text<const N: usize>(self, text: &mut Text<N>) {
        let copied = self.copy_to(&mut text.bytes);
        // The NUL is not part of the text.
        text.len = copied.saturating_sub(1) as u32;
        // A string that fills the text is taken to be truncated. This is wrong only for one that fits exactly.
        text.flags = if copied == N as u64 { TEXT_TRUNCATED } else { 0 };
    }
}

impl BpfMap {
    /// Returns the id.
    #[inline(always)]
    pub fn id(self) -> u32 {
        self.read(&OFF_BPF_MAP_ID)
    }

    /// Copies the name, padded with NULs.
    #[inline(always)]
    pub fn copy_name(self, to: &mut [u8; COMM_LEN]) {
        self.copy(&OFF_BPF_MAP_NAME, to);
    }
}

impl BpfAttributes {
    /// Returns the number at this offset, which depends on the command. The offsets are part of the kernel's interface.
    #[inline(always)]
    pub fn number(self, offset: u64) -> u32 {
        self.read_at(offset)
    }
}

impl Kiocb {
    /// Returns the file that is read from or written to.
    #[inline(always)]
    pub fn file(self) -> File {
        self.follow(&OFF_KIOCB_FILE)
    }
}

impl IovIter {
    /// Returns the number of bytes that are left.
    #[inline(always)]
    pub fn count(self) -> u64 {
        self.read(&OFF_ITER_COUNT)
    }
}

impl Ptr<kind::FileArray> {
    /// Returns the file at a position.
    #[inline(always)]
    pub(super) fn get(self, position: u32) -> File {
        self.follow_at(u64::from(position) * size_of::<File>() as u64)
    }
}
