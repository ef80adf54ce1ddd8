//! `struct file`, `inode`, `super_block`: what a file is.

use aya_ebpf::cty::c_ulong;
use detector_common::record::{File, LAYER_LOWER, LAYER_NONE, LAYER_UPPER};

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
/// `S_IFMT` and `S_IFREG` (include/uapi/linux/stat.h).
const S_IFMT: u16 = 0o170_000;
const S_IFREG: u16 = 0o100_000;

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

/// Address of `ovl_file_operations` (fs/overlayfs/file.c), which every regular file on an overlay has as its `f_op`, from
/// 5.10 to 7.3. Learnt from the first such file that [`overlay_device`] sees; the self-test's is one.
static OVERLAY_OPERATIONS: Word = Word::new(0);

/// Whether `file` can be a regular file on an overlay. This is the filter that every write of the machine passes, so it is
/// one load, one comparison and no helper.
///
/// # Safety
///
/// `file` must be a `struct file` of the kind that `R` reads.
#[inline(always)]
pub unsafe fn may_be_on_overlay<R: Read>(file: Addr) -> bool {
    // SAFETY: a pointer.
    unsafe { R::read::<Addr>(file, OFF_FILE_OP.load()) == OVERLAY_OPERATIONS.get() }
}

/// The device number of the overlay that a regular file is on. `None` for all other files.
///
/// The inode's superblock is compared, not the mount or the task's root: it is the same whichever way a file was reached.
///
/// # Safety
///
/// `file` must be a `struct file` of the kind that `R` reads.
#[inline(always)]
pub unsafe fn overlay_device<R: Read>(file: Addr) -> Option<u32> {
    // SAFETY: pointers and integers of the kernel's sizes.
    unsafe {
        let inode: Addr = R::read(file, OFF_FILE_INODE.load());
        let sb: Addr = R::read(inode, OFF_INODE_SB.load());
        if R::read::<c_ulong>(sb, OFF_SB_MAGIC.load()) != OVERLAYFS_SUPER_MAGIC
            || R::read::<u16>(inode, OFF_INODE_MODE.load()) & S_IFMT != S_IFREG
        {
            return None;
        }
        OVERLAY_OPERATIONS.set(R::read(file, OFF_FILE_OP.load()));
        Some(R::read(sb, OFF_SB_DEV.load()))
    }
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
#[inline(always)]
pub fn is_truncating(file: Addr) -> bool {
    // SAFETY: `f_flags` is an `unsigned int`.
    unsafe { mem::read::<u32>(file, OFF_FILE_FLAGS.load()) & O_TRUNC != 0 }
}

/// `sb->s_dev` of an inode.
#[inline(always)]
pub fn device(inode: Addr) -> u32 {
    // SAFETY: a pointer and a `dev_t`.
    unsafe {
        let sb: Addr = mem::read(inode, OFF_INODE_SB.load());
        mem::read(sb, OFF_SB_DEV.load())
    }
}

/// The dentry and vfsmount of `file->f_path`.
#[inline(always)]
pub fn path(file: Addr) -> (Addr, Addr) {
    // SAFETY: pointers.
    unsafe { (mem::read(file, OFF_FILE_DENTRY.load()), mem::read(file, OFF_FILE_MNT.load())) }
}

/// Identity of the file behind an inode.
#[inline(always)]
pub fn identity(inode: Addr) -> File {
    // SAFETY: integers and pointers of the kernel's sizes (`umode_t` is 16 bits).
    unsafe {
        let sb: Addr = mem::read(inode, OFF_INODE_SB.load());
        let magic: c_ulong = mem::read(sb, OFF_SB_MAGIC.load());
        let layer = if magic == OVERLAYFS_SUPER_MAGIC {
            // `struct ovl_inode` (fs/overlayfs/ovl_entry.h) has `__upperdentry` right behind its `struct inode`, from
            // 5.10 to 7.3. Null: the file has never been copied up.
            if mem::read::<Addr>(inode, SIZE_INODE.load()) == 0 { LAYER_LOWER } else { LAYER_UPPER }
        } else {
            LAYER_NONE
        };
        File {
            inode: mem::read(inode, OFF_INODE_INO.load()),
            dev: mem::read(sb, OFF_SB_DEV.load()),
            mode: u32::from(mem::read::<u16>(inode, OFF_INODE_MODE.load())),
            nlink: mem::read(inode, OFF_INODE_NLINK.load()),
            layer,
            size: mem::read(inode, OFF_INODE_SIZE.load()),
            magic: magic as u32,
            reserved: 0,
        }
    }
}
