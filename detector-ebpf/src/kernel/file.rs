//! `struct file`, `inode`, `super_block`: what a file is.

use aya_ebpf::cty::c_ulong;
use detector_common::record::{File, LAYER_LOWER, LAYER_NONE, LAYER_UPPER, TEXT_TRUNCATED, Text};

use super::{
    mem::{self, Addr, Read, Word},
    offsets::*,
};

/// `FMODE_WRITE` (include/linux/fs.h, 5.10 to 7.3).
const FMODE_WRITE: u32 = 1 << 1;
/// `FMODE_CREATED`: this open made the file (include/linux/fs.h, 5.10 to 7.3).
const FMODE_CREATED: u32 = 1 << 20;
/// `O_TRUNC` (include/uapi/asm-generic/fcntl.h; x86 and arm64 use it). `do_dentry_open` clears it, after its call of
/// `security_file_open`.
const O_TRUNC: u32 = 0o1000;
/// `OVERLAYFS_SUPER_MAGIC` (include/uapi/linux/magic.h).
const OVERLAYFS_SUPER_MAGIC: c_ulong = 0x794c_7630;
/// `S_IFMT` and two of its values (include/uapi/linux/stat.h).
const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;
const S_IFDIR: u32 = 0o040_000;
/// `TMPFS_MAGIC`, `RAMFS_MAGIC` and `HUGETLBFS_MAGIC` (include/uapi/linux/magic.h).
const IN_MEMORY: [c_ulong; 3] = [0x0102_1994, 0x8584_58f6, 0x9584_58f6];

/// Whether `file` is open for writing.
///
/// # Safety
///
/// `file` must be a `struct file` of the kind that `R` reads.
#[inline(always)]
pub unsafe fn is_writable<R: Read>(file: Addr) -> bool {
    // SAFETY: `f_mode` is an `unsigned int`.
    unsafe { R::read::<u32>(file, OFF_FILE_MODE.load()) & FMODE_WRITE != 0 }
}

/// Address of `ovl_file_operations` (fs/overlayfs/file.c), which every regular file on an overlay has as its `f_op`,
/// from 5.10 to 7.3. Learnt from the first such file that [`overlay_device`] sees; the self-test's is one.
static OVERLAY_OPERATIONS: Word = Word::new(0);

/// Whether `file` can be a regular file on an overlay. This is the filter that every write of the machine passes, so it
/// is one load, one comparison and no helper.
///
/// # Safety
///
/// `file` must be a `struct file` of the kind that `R` reads.
#[inline(always)]
pub unsafe fn may_be_on_overlay<R: Read>(file: Addr) -> bool {
    // SAFETY: a pointer.
    unsafe { R::read::<Addr>(file, OFF_FILE_OP.load()) == OVERLAY_OPERATIONS.get() }
}

/// Keeps [`may_be_on_overlay`] informed: `file` is a regular one on an overlay.
///
/// # Safety
///
/// `file` must be a `struct file` of the kind that `R` reads.
#[inline(always)]
pub unsafe fn learn_overlay_operations<R: Read>(file: Addr) {
    // SAFETY: a pointer.
    OVERLAY_OPERATIONS.set(unsafe { R::read(file, OFF_FILE_OP.load()) });
}

/// Whether a superblock is an overlay's.
///
/// # Safety
///
/// `sb` must be a `struct super_block` of the kind that `R` reads.
#[inline(always)]
pub unsafe fn is_overlay<R: Read>(sb: Addr) -> bool {
    // SAFETY: an integer of the kernel's size.
    unsafe { R::read::<c_ulong>(sb, OFF_SB_MAGIC.load()) == OVERLAYFS_SUPER_MAGIC }
}

/// `sb->s_dev`.
///
/// # Safety
///
/// `sb` must be a `struct super_block` of the kind that `R` reads.
#[inline(always)]
pub unsafe fn superblock_device<R: Read>(sb: Addr) -> u32 {
    // SAFETY: a `dev_t`.
    unsafe { R::read(sb, OFF_SB_DEV.load()) }
}

/// `sb->s_root`: the dentry at the top of a file system.
#[inline(always)]
pub fn top(sb: Addr) -> Addr {
    // SAFETY: a pointer.
    unsafe { mem::read(sb, OFF_SB_ROOT.load()) }
}

/// `inode->i_sb`.
///
/// # Safety
///
/// `inode` must be a `struct inode` of the kind that `R` reads.
#[inline(always)]
pub unsafe fn superblock<R: Read>(inode: Addr) -> Addr {
    // SAFETY: a pointer.
    unsafe { R::read(inode, OFF_INODE_SB.load()) }
}

/// `inode->i_mode`.
///
/// # Safety
///
/// `inode` must be a `struct inode` of the kind that `R` reads.
#[inline(always)]
pub unsafe fn mode<R: Read>(inode: Addr) -> u32 {
    // SAFETY: a `umode_t`, which is 16 bits.
    unsafe { R::read::<u16>(inode, OFF_INODE_MODE.load()).into() }
}

/// Whether this is the mode of a regular file.
#[inline(always)]
pub fn is_regular(mode: u32) -> bool {
    mode & S_IFMT == S_IFREG
}

/// Whether a mode is of a directory.
#[inline(always)]
pub fn is_directory(mode: u32) -> bool {
    mode & S_IFMT == S_IFDIR
}

/// How many names the file of an inode has.
#[inline(always)]
pub fn links(inode: Addr) -> u32 {
    // SAFETY: an `unsigned int`.
    unsafe { mem::read(inode, OFF_INODE_NLINK.load()) }
}

/// The number of the device that an inode stands for.
#[inline(always)]
pub fn represented(inode: Addr) -> u32 {
    // SAFETY: a `dev_t`.
    unsafe { mem::read(inode, OFF_INODE_RDEV.load()) }
}

/// The file has no name any more, or is on a file system that only lives in memory: also memfd_create(2)'s.
#[inline(always)]
pub fn is_fleeting(inode: Addr) -> bool {
    // SAFETY: `inode` is one, or reads as zero.
    let magic: c_ulong = unsafe { mem::read(superblock::<mem::Untyped>(inode), OFF_SB_MAGIC.load()) };
    links(inode) == 0 || magic == IN_MEMORY[0] || magic == IN_MEMORY[1] || magic == IN_MEMORY[2]
}

/// The dentry on the upper layer of an overlay's inode; 0: the file is only in a lower one.
///
/// `struct ovl_inode` (fs/overlayfs/ovl_entry.h) has `__upperdentry` right behind its `struct inode`, from 5.10 to 7.3.
#[inline(always)]
pub fn upper_dentry(inode: Addr) -> Addr {
    // SAFETY: a pointer.
    unsafe { mem::read(inode, SIZE_INODE.load()) }
}

/// `dentry->d_inode`; 0: there is no such file yet.
#[inline(always)]
pub fn inode_at(dentry: Addr) -> Addr {
    // SAFETY: a pointer.
    unsafe { mem::read(dentry, OFF_DENTRY_INODE.load()) }
}

/// `dentry->d_sb`.
#[inline(always)]
pub fn superblock_at(dentry: Addr) -> Addr {
    // SAFETY: a pointer.
    unsafe { mem::read(dentry, OFF_DENTRY_SB.load()) }
}

/// Whether the last name of a dentry starts with these three bytes.
#[inline(always)]
pub fn is_named(dentry: Addr, start: [u8; 3]) -> bool {
    // SAFETY: a pointer to a string, and bytes.
    unsafe {
        let name: Addr = mem::read(dentry, OFF_DENTRY_NAME.load());
        mem::read::<[u8; 3]>(name, 0) == start
    }
}

/// Copies the last name of a dentry.
///
/// # Safety
///
/// `out` must be writable.
#[inline(always)]
pub unsafe fn name<const N: usize>(dentry: Addr, out: *mut Text<N>) {
    // SAFETY: a pointer to a string; the caller vouches for `out`.
    unsafe {
        let name: Addr = mem::read(dentry, OFF_DENTRY_NAME.load());
        let copied = mem::read_str((&raw mut (*out).bytes).cast(), N as u32, name);
        // Without the NUL. A name that fills it was cut.
        (*out).len = copied.saturating_sub(1) as u32;
        (*out).flags = if copied == N as u64 { TEXT_TRUNCATED } else { 0 };
    }
}

/// `dentry->d_parent`.
#[inline(always)]
pub fn parent(dentry: Addr) -> Addr {
    // SAFETY: a pointer.
    unsafe { mem::read(dentry, OFF_DENTRY_PARENT.load()) }
}

/// `file->f_inode`.
///
/// # Safety
///
/// `file` must be a `struct file` of the kind that `R` reads.
#[inline(always)]
pub unsafe fn inode<R: Read>(file: Addr) -> Addr {
    // SAFETY: a pointer.
    unsafe { R::read(file, OFF_FILE_INODE.load()) }
}

/// `inode->i_ino`.
///
/// # Safety
///
/// `inode` must be a `struct inode` of the kind that `R` reads.
#[inline(always)]
pub unsafe fn number<R: Read>(inode: Addr) -> u64 {
    // SAFETY: an integer of 64 bits on all supported machines.
    unsafe { R::read(inode, OFF_INODE_INO.load()) }
}

/// Whether this open made the file.
#[inline(always)]
pub fn is_created(file: Addr) -> bool {
    // SAFETY: `f_mode` is an `unsigned int`.
    unsafe { mem::read::<u32>(file, OFF_FILE_MODE.load()) & FMODE_CREATED != 0 }
}

/// Whether this open cuts the file to length 0.
///
/// # Safety
///
/// `file` must be a `struct file` of the kind that `R` reads.
#[inline(always)]
pub unsafe fn is_truncating<R: Read>(file: Addr) -> bool {
    // SAFETY: `f_flags` is an `unsigned int`.
    unsafe { R::read::<u32>(file, OFF_FILE_FLAGS.load()) & O_TRUNC != 0 }
}

/// The device number of the file system that an inode is on.
#[inline(always)]
pub fn device(inode: Addr) -> u32 {
    // SAFETY: `inode` is one, or reads as zero.
    unsafe { superblock_device::<mem::Untyped>(superblock::<mem::Untyped>(inode)) }
}

/// The file that a `struct kiocb` is about.
#[inline(always)]
pub fn of_call(call: Addr) -> Addr {
    // SAFETY: a pointer.
    unsafe { mem::read(call, OFF_KIOCB_FILE.load()) }
}

/// How many bytes a `struct iov_iter` still holds.
#[inline(always)]
pub fn bytes_of(iter: Addr) -> u64 {
    // SAFETY: a `size_t`.
    unsafe { mem::read(iter, OFF_ITER_COUNT.load()) }
}

/// The dentry and vfsmount of `file->f_path`.
#[inline(always)]
pub fn path(file: Addr) -> (Addr, Addr) {
    // SAFETY: pointers.
    unsafe { (mem::read(file, OFF_FILE_DENTRY.load()), mem::read(file, OFF_FILE_MNT.load())) }
}

/// The layer that the file of an inode is in.
#[inline(always)]
pub fn layer(inode: Addr) -> u32 {
    // SAFETY: `inode` is one, or reads as zero.
    let is_overlay = unsafe { is_overlay::<mem::Untyped>(superblock::<mem::Untyped>(inode)) };
    match (is_overlay, upper_dentry(inode)) {
        (false, _) => LAYER_NONE,
        (true, 0) => LAYER_LOWER,
        (true, _) => LAYER_UPPER,
    }
}

/// Identity of the file behind an inode.
#[inline(always)]
pub fn identity(inode: Addr) -> File {
    // SAFETY: `inode` is one, or reads as zero; integers of the kernel's sizes.
    unsafe {
        let sb = superblock::<mem::Untyped>(inode);
        File {
            inode: number::<mem::Untyped>(inode),
            dev: superblock_device::<mem::Untyped>(sb),
            mode: mode::<mem::Untyped>(inode),
            nlink: links(inode),
            layer: layer(inode),
            size: mem::read(inode, OFF_INODE_SIZE.load()),
            magic: mem::read::<c_ulong>(sb, OFF_SB_MAGIC.load()) as u32,
            reserved: 0,
        }
    }
}
