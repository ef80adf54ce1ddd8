//! Reading and changing memory in the ways that the verifier allows.

use core::cell::UnsafeCell;

use aya_ebpf::{
    helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_kernel_str, bpf_probe_read_user},
    maps::HashMap,
};
use detector_common::{map::KeptExec, record};

/// Plain data: integers and what is made of them. Whatever bytes are in memory, they are a value of such a type.
///
/// # Safety
///
/// Every bit pattern must be a valid value of the type.
pub unsafe trait Plain: Copy {
    /// The value that reading gives where nothing can be read.
    const ZERO: Self = {
        // SAFETY: all bits zero is a valid value, since every bit pattern is.
        unsafe { core::mem::zeroed() }
    };
}

macro_rules! plain {
    ($($type:ty),* $(,)?) => {
        // SAFETY: integers, or `repr(C)` structs of integers and arrays of them.
        $(unsafe impl Plain for $type {})*
    };
}

plain!(
    u16,
    u32,
    u64,
    record::CgroupEscapeRecord,
    record::CgroupRecord,
    record::ExecRecord,
    record::FileRecord,
    record::ScriptRecord,
    KeptExec,
);

// SAFETY: every byte is a number.
unsafe impl<const N: usize> Plain for [u8; N] {}

/// The value at an address of the kernel; zero where nothing can be read.
#[inline(always)]
pub fn read_kernel<T: Plain>(address: u64) -> T {
    let mut value = T::ZERO;
    // SAFETY: the helper writes `size_of::<T>()` bytes to `value`, zeros if it fails, and any bytes are a `T`. It takes
    // any address: a fault makes it fail.
    unsafe { bpf_probe_read_kernel((&raw mut value).cast(), size_of::<T>() as u32, address as *const _) };
    value
}

/// Copies as many bytes as `to` has from an address of the kernel; zeros where nothing can be read.
#[inline(always)]
pub fn copy_kernel<const N: usize>(to: &mut [u8; N], address: u64) {
    // SAFETY: the helper writes `N` bytes to `to`, and takes any address.
    unsafe { bpf_probe_read_kernel(to.as_mut_ptr().cast(), N as u32, address as *const _) };
}

/// Copies the string at an address of the kernel, its NUL included, truncated to the length of `to`. Gives the number
/// of bytes copied; 0: it cannot be read.
#[inline(always)]
pub fn copy_kernel_str(to: &mut [u8], address: u64) -> u64 {
    // SAFETY: the helper writes at most `to.len()` bytes to `to`, and takes any address.
    let copied = unsafe { bpf_probe_read_kernel_str(to.as_mut_ptr().cast(), to.len() as u32, address as *const _) };
    if copied > 0 { copied as u64 } else { 0 }
}

/// An address in the memory of the running process.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct UserAddress(u64);

// SAFETY: a number.
unsafe impl Plain for UserAddress {}

impl UserAddress {
    /// The number of bytes from `start` up to here.
    #[inline(always)]
    pub fn since(self, start: Self) -> u64 {
        self.0.wrapping_sub(start.0)
    }

    /// Copies `len` bytes from here, or as many as `to` has. Gives the number of bytes copied; `None`: they cannot be
    /// read.
    #[inline(always)]
    pub fn copy<const N: usize>(self, to: &mut [u8; N], len: u64) -> Option<u32> {
        let len = if len > N as u64 { N as u64 } else { len };
        // SAFETY: the helper writes at most `len` bytes to `to`, which has as many, and takes any address.
        let result = unsafe { bpf_probe_read_user(to.as_mut_ptr().cast(), len as u32, self.0 as *const _) };
        (result == 0).then_some(len as u32)
    }
}

/// Looking values up in hash maps.
pub trait Lookup<K, V> {
    /// A copy of the value of a key. Another program can change the element meanwhile, or give its place to another
    /// key: the copy can be of the old value, of the new one, or a mixture of both.
    fn copied(&self, key: &K) -> Option<V>;
}

impl<K, V: Copy> Lookup<K, V> for HashMap<K, V> {
    #[inline(always)]
    fn copied(&self, key: &K) -> Option<V> {
        // SAFETY: the reference is to an element of the map, which stays in memory while the program runs, and ends
        // here.
        unsafe { self.get(key).copied() }
    }
}

/// A number in a map that programs on other CPUs change at the same time.
pub struct Counter(*mut u64);

impl Counter {
    /// # Safety
    ///
    /// `at` must be in a live element of a map, aligned to 8.
    #[inline(always)]
    pub unsafe fn new(at: *mut u64) -> Self {
        Self(at)
    }

    /// Adds atomically. `core` has no read-modify-write for BPF, and what it would compile to (an add that gives the
    /// old value) needs 5.12: this is the instruction that every kernel has.
    #[inline(always)]
    pub fn add(&self, amount: u64) {
        // SAFETY: `new` demands a live and aligned number; the addition is atomic.
        unsafe {
            core::arch::asm!(
                "lock *(u64 *)({counter} + 0) += {amount}",
                counter = in(reg) self.0,
                amount = in(reg) amount,
                options(nostack),
            );
        }
    }

    /// Subtracts atomically.
    #[inline(always)]
    pub fn subtract(&self, amount: u64) {
        self.add(amount.wrapping_neg());
    }

    /// The number.
    #[inline(always)]
    pub fn get(&self) -> u64 {
        // SAFETY: as for `set`.
        unsafe { self.0.read_volatile() }
    }

    /// Sets the number with one store.
    #[inline(always)]
    pub fn set(&self, value: u64) {
        // SAFETY: `new` demands a live and aligned number; the store does not tear.
        unsafe { self.0.write_volatile(value) };
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
        // SAFETY: the cell lives as long as the program, and another program's store does not tear.
        unsafe { self.0.get().read_volatile() }
    }

    /// Changes the value.
    #[inline(always)]
    pub fn set(&self, value: u64) {
        // SAFETY: as for `get`.
        unsafe { self.0.get().write_volatile(value) }
    }
}

/// Loads a number that was [stored](store): the verifier, and the compiler, know nothing of it.
#[inline(always)]
pub fn load(number: &u32) -> u32 {
    // SAFETY: a reference is valid to read from.
    unsafe { core::ptr::from_ref(number).read_volatile() }
}

/// Stores a number at once. What depends on a condition must not stay in a register while the program goes on: the
/// verifier knows which number it is there, and checks everything that follows once for each.
#[inline(always)]
pub fn store(number: &mut u32, value: u32) {
    // SAFETY: a mutable reference is valid to write to.
    unsafe { core::ptr::from_mut(number).write_volatile(value) };
}

/// The `N` bytes of `bytes` from a position on, without a check at run time: the verifier checks the position, which
/// must be bounded by [`mask`].
#[inline(always)]
pub fn window<const MASK: u64, const N: usize, const CAPACITY: usize>(
    bytes: &mut [u8; CAPACITY],
    position: u64,
) -> Option<&mut [u8; N]> {
    const { assert!(MASK as usize + N <= CAPACITY) };
    let at = mask::<MASK>(position);
    if at != position {
        return None;
    }
    // SAFETY: `at` is at most `MASK`, behind which the array has room for `N` bytes.
    Some(unsafe { &mut *bytes.as_mut_ptr().add(at as usize).cast() })
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
        core::arch::asm!(
            "{value} &= {mask}",
            value = inout(reg) value,
            mask = const MASK,
            options(pure, nomem, nostack),
        );
    }
    value
}
