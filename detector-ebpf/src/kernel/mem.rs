//! Reading and changing memory in the ways that the verifier allows.

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_kernel_str};
use core::{cell::UnsafeCell, mem::MaybeUninit};

/// A pointer into the kernel, as a number: it is only ever read through a helper.
pub type Addr = u64;

/// How a program may read behind a pointer.
pub trait Read {
    /// The value at `base + offset`; zero where nothing can be read.
    ///
    /// # Safety
    ///
    /// All bit patterns must be valid for `T`, and `base` must be of the kind that the implementation serves.
    unsafe fn read<T: Copy>(base: Addr, offset: u64) -> T;
}

/// Plain loads. For pointers whose type the verifier knows (arguments of fentry and LSM programs, and what is loaded
/// from them): it guards each load against faults and calls no helper.
pub struct Typed;

impl Read for Typed {
    #[inline(always)]
    unsafe fn read<T: Copy>(base: Addr, offset: u64) -> T {
        // SAFETY: the caller says that `base` is a typed kernel pointer; a fault reads as zero. Volatile, because the
        // compiler must not widen, split or move it.
        unsafe { core::ptr::read_volatile((base as *const u8).add(offset as usize).cast::<T>()) }
    }
}

/// `bpf_probe_read_kernel`. For any address.
pub struct Untyped;

impl Read for Untyped {
    #[inline(always)]
    unsafe fn read<T: Copy>(base: Addr, offset: u64) -> T {
        let mut value = MaybeUninit::<T>::zeroed();
        // SAFETY: the helper writes at most `size_of::<T>()` bytes to `value`, and zeroes it when it fails; the caller
        // allows every bit pattern.
        unsafe {
            bpf_probe_read_kernel(
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
                base.wrapping_add(offset) as *const _,
            );
            value.assume_init()
        }
    }
}

/// [`Untyped::read`] of an integer or pointer.
///
/// # Safety
///
/// All bit patterns must be valid for `T`.
#[inline(always)]
pub unsafe fn read<T: Copy>(base: Addr, offset: u64) -> T {
    // SAFETY: as for the caller; any address may be given.
    unsafe { Untyped::read(base, offset) }
}

/// Copies `N` bytes from `base + offset`, or zeroes where nothing can be read.
///
/// # Safety
///
/// `to` must be writable.
#[inline(always)]
pub unsafe fn copy<const N: usize>(to: *mut [u8; N], base: Addr, offset: u64) {
    // SAFETY: the caller vouches for `to`; the helper reads any address safely.
    unsafe { bpf_probe_read_kernel(to.cast(), N as u32, base.wrapping_add(offset) as *const _) };
}

/// Copies the NUL-ended string at `from`, its NUL included, and gives the number of bytes copied; 0 when it cannot be
/// read.
///
/// # Safety
///
/// `to` must be writable for `size` bytes.
#[inline(always)]
pub unsafe fn read_str(to: *mut u8, size: u32, from: Addr) -> u64 {
    // SAFETY: the caller vouches for `to`; the helper reads any address safely.
    let copied = unsafe { bpf_probe_read_kernel_str(to.cast(), size, from as *const _) };
    if copied > 0 { copied as u64 } else { 0 }
}

/// Adds atomically. `core` has no read-modify-write for BPF, and what it would compile to (an add that gives the old
/// value) needs 5.12: this is the instruction that every kernel has.
///
/// # Safety
///
/// `counter` must point to a live map element.
#[inline(always)]
pub unsafe fn add(counter: *mut u64, amount: u64) {
    // SAFETY: the caller vouches for `counter`; map values are 8-aligned.
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)({counter} + 0) += {amount}",
            counter = in(reg) counter,
            amount = in(reg) amount,
            options(nostack),
        );
    }
}

/// A number that all programs share. Each access is one aligned load or store: what an atomic type would be, if LLVM's
/// BPF side could select atomic stores.
pub struct Word(UnsafeCell<u64>);

// SAFETY: accesses do not tear, and whoever reads takes any value that was ever written.
unsafe impl Sync for Word {}

impl Word {
    /// With this value at load.
    pub const fn new(value: u64) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// The value.
    #[inline(always)]
    pub fn get(&self) -> u64 {
        // SAFETY: the cell is live, and see above.
        unsafe { self.0.get().read_volatile() }
    }

    /// Changes the value.
    #[inline(always)]
    pub fn set(&self, value: u64) {
        // SAFETY: the cell is live, and see above.
        unsafe { self.0.get().write_volatile(value) }
    }
}

/// `value`, of which the compiler knows nothing.
#[inline(always)]
pub fn opaque(mut value: u64) -> u64 {
    // SAFETY: a register is moved to itself.
    unsafe { core::arch::asm!("{value} = {value}", value = inout(reg) value, options(pure, nomem, nostack)) };
    value
}

/// `value & MASK`, which the compiler cannot optimise away: it is there to tell the verifier.
#[inline(always)]
pub fn mask<const MASK: u64>(mut value: u64) -> u64 {
    // SAFETY: arithmetic on a register.
    unsafe {
        core::arch::asm!("{value} &= {mask}", value = inout(reg) value, mask = const MASK, options(pure, nomem, nostack));
    }
    value
}
