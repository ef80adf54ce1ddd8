//! Reads and changes memory in the ways that the verifier allows.

use core::{cell::UnsafeCell, mem::MaybeUninit};

use aya_ebpf::{
    helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_kernel_str, bpf_probe_read_user},
    maps::{HashMap, LruHashMap},
};
use detector_common::{map::KeptExec, record};

/// Plain data: integers and types that consist of them. Any bytes in memory are a value of such a type.
///
/// # Safety
///
/// Every bit pattern must be a valid value of the type.
pub unsafe trait Plain: Copy {
    /// The result of reading memory that cannot be read.
    const ZERO: Self = {
        // SAFETY: a value whose bits are all zero is valid, because every bit pattern is.
        unsafe { core::mem::zeroed() }
    };
}

macro_rules! plain {
    ($($type:ty),* $(,)?) => {
        // SAFETY: these are integers, or `repr(C)` structs that consist of integers and of arrays of them.
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
    record::ExitRecord,
    record::FileRecord,
    record::SocketRecord,
    record::TamperingRecord,
    record::ScriptRecord,
    KeptExec,
);

// SAFETY: the type consists of integers.
unsafe impl<const N: usize> Plain for [u8; N] {}

/// Returns the value at an address of the kernel, or zero if it cannot be read.
#[inline(always)]
pub fn read_kernel<T: Plain>(address: u64) -> T {
    let mut value = T::ZERO;
    // SAFETY: the helper writes `size_of::<T>()` bytes to `value`, which are zeros if it fails, and any bytes are a
    // `T`. It accepts any address, because it fails if the access faults.
    unsafe { bpf_probe_read_kernel((&raw mut value).cast(), size_of::<T>() as u32, address as *const _) };
    value
}

/// Returns `value`. The verifier knows nothing about the result, so it checks what follows once, and not once for each
/// value that it knew before.
#[inline(always)]
pub fn forget<T: Copy>(value: T) -> T {
    *forget_in(&mut MaybeUninit::uninit(), &value)
}

/// The same for a value of which parts are used, and which stays in memory. Where the program compares one of them, the
/// verifier learns nothing about what it is when it is loaded again.
#[inline(always)]
pub fn forget_in<'a, T: Copy>(room: &'a mut MaybeUninit<T>, value: &T) -> &'a T {
    // SAFETY: the helper writes `size_of::<T>()` bytes to `room`, which are those of `value`, because it can be read.
    unsafe {
        bpf_probe_read_kernel(room.as_mut_ptr().cast(), size_of::<T>() as u32, core::ptr::from_ref(value).cast());
        room.assume_init_ref()
    }
}

/// Copies as many bytes as `to` has from an address of the kernel. They are zeros if the memory cannot be read.
#[inline(always)]
pub fn copy_kernel<const N: usize>(to: &mut [u8; N], address: u64) {
    // SAFETY: the helper writes `N` bytes to `to`, and accepts any address.
    unsafe { bpf_probe_read_kernel(to.as_mut_ptr().cast(), N as u32, address as *const _) };
}

/// Copies the string at an address of the kernel with its NUL, truncated to the length of `to`. Returns the number of
/// bytes copied, or 0 if the string cannot be read.
#[inline(always)]
pub fn copy_kernel_str(to: &mut [u8], address: u64) -> u64 {
    // SAFETY: the helper writes at most `to.len()` bytes to `to`, and accepts any address.
    let copied = unsafe { bpf_probe_read_kernel_str(to.as_mut_ptr().cast(), to.len() as u32, address as *const _) };
    if copied > 0 { copied as u64 } else { 0 }
}

/// Returns the string at an address of the kernel without its NUL, truncated to one byte less than the words have: the
/// words, which end with zeros, and the number of its bytes, or `None` if it cannot be read.
#[inline(always)]
pub fn read_kernel_str<const WORDS: usize>(address: u64) -> ([u64; WORDS], Option<u64>) {
    let mut words = [0; WORDS];
    let size = size_of_val(&words) as u32;
    // SAFETY: the helper writes at most `size` bytes to `words`, nothing after the NUL, and accepts any address.
    let copied = unsafe { bpf_probe_read_kernel_str(words.as_mut_ptr().cast(), size, address as *const _) };
    (words, if copied > 0 { Some(copied as u64 - 1) } else { None })
}

/// An address in the memory of the running process.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct UserAddress(u64);

// SAFETY: the type consists of an integer.
unsafe impl Plain for UserAddress {}

impl UserAddress {
    /// Returns the number of bytes from `start` to this address.
    #[inline(always)]
    pub fn since(self, start: Self) -> u64 {
        self.0.wrapping_sub(start.0)
    }

    /// Copies `len` bytes from this address, or as many as `to` has if these are fewer. Returns the number of bytes
    /// copied, or `None` if they cannot be read.
    #[inline(always)]
    pub fn copy<const N: usize>(self, to: &mut [u8; N], len: u64) -> Option<u32> {
        let len = if len > N as u64 { N as u64 } else { len };
        // SAFETY: the helper writes `len` bytes to `to`, which has at least as many, and accepts any address.
        let result = unsafe { bpf_probe_read_user(to.as_mut_ptr().cast(), len as u32, self.0 as *const _) };
        (result == 0).then_some(len as u32)
    }
}

/// Look-ups of values in hash maps.
pub trait Lookup<K, V> {
    /// Returns a copy of the value of a key. Another program can change the element in the meantime, or reuse it for
    /// another key: the copy can be the old value, the new one, or a mixture of both.
    fn copied(&self, key: &K) -> Option<V>;
}

impl<K, V: Copy> Lookup<K, V> for HashMap<K, V> {
    #[inline(always)]
    fn copied(&self, key: &K) -> Option<V> {
        // SAFETY: the reference is to an element of the map, which stays in memory while the program runs. The
        // reference is dropped here.
        unsafe { self.get(key).copied() }
    }
}

impl<K, V: Copy> Lookup<K, V> for LruHashMap<K, V> {
    #[inline(always)]
    fn copied(&self, key: &K) -> Option<V> {
        // SAFETY: as above.
        unsafe { self.get(key).copied() }
    }
}

/// A number in a map that other programs change at the same time.
pub struct Counter(*mut u64);

impl Counter {
    /// Returns the counter at this address.
    ///
    /// # Safety
    ///
    /// `at` must be in a live element of a map, and aligned to 8.
    #[inline(always)]
    pub unsafe fn new(at: *mut u64) -> Self {
        Self(at)
    }

    /// Adds to the number atomically. `core` has no read-modify-write operation for BPF, and an atomic add that returns
    /// the old value would need 5.12. This is the instruction that every kernel has.
    #[inline(always)]
    pub fn add(&self, amount: u64) {
        // SAFETY: the caller of `new` guarantees that the number is live and aligned, and the addition is atomic.
        unsafe {
            core::arch::asm!(
                "lock *(u64 *)({counter} + 0) += {amount}",
                counter = in(reg) self.0,
                amount = in(reg) amount,
                options(nostack),
            );
        }
    }

    /// Subtracts from the number atomically.
    #[inline(always)]
    pub fn subtract(&self, amount: u64) {
        self.add(amount.wrapping_neg());
    }

    /// Returns the number.
    #[inline(always)]
    pub fn get(&self) -> u64 {
        // SAFETY: the caller of `new` guarantees that the number is live and aligned, and the load does not tear.
        unsafe { self.0.read_volatile() }
    }

    /// Sets the number with one store.
    #[inline(always)]
    pub fn set(&self, value: u64) {
        // SAFETY: the caller of `new` guarantees that the number is live and aligned, and the store does not tear.
        unsafe { self.0.write_volatile(value) };
    }
}

/// A number that all programs share. Each access is one aligned load or store. An atomic type would be the same if the
/// BPF backend of LLVM could select atomic stores.
pub struct Word(UnsafeCell<u64>);

// SAFETY: accesses do not tear, and a reader accepts any value that was ever written.
unsafe impl Sync for Word {}

impl Word {
    /// Creates a number with this initial value.
    pub const fn new(value: u64) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// Returns the value.
    #[inline(always)]
    pub fn get(&self) -> u64 {
        // SAFETY: the cell lives as long as the program, and a store by another program does not tear.
        unsafe { self.0.get().read_volatile() }
    }

    /// Sets the value.
    #[inline(always)]
    pub fn set(&self, value: u64) {
        // SAFETY: the cell lives as long as the program, and the store does not tear.
        unsafe { self.0.get().write_volatile(value) }
    }
}

/// Loads a number that was [stored](store). Neither the verifier nor the compiler knows anything about its value.
#[inline(always)]
pub fn load(number: &u32) -> u32 {
    // SAFETY: a reference is valid for reads.
    unsafe { core::ptr::from_ref(number).read_volatile() }
}

/// Stores a number immediately. A value that depends on a condition must not stay in a register while the program goes
/// on: the verifier would know the value of the register on each path, and would check everything that follows once for
/// each value.
#[inline(always)]
pub fn store(number: &mut u32, value: u32) {
    // SAFETY: a mutable reference is valid for writes.
    unsafe { core::ptr::from_mut(number).write_volatile(value) };
}

/// Returns the `N` bytes of `bytes` from a position on, or `None` if the position has bits outside `MASK`. The [mask]
/// tells the verifier that the bytes are within the array.
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
    // SAFETY: `at` is at most `MASK`, and the array has room for `N` bytes from there on, as asserted above.
    Some(unsafe { &mut *bytes.as_mut_ptr().add(at as usize).cast() })
}

/// Returns `value`. The compiler knows nothing about the result.
#[inline(always)]
pub fn opaque(mut value: u64) -> u64 {
    // SAFETY: the instruction moves a register to itself.
    unsafe { core::arch::asm!("{value} = {value}", value = inout(reg) value, options(pure, nomem, nostack)) };
    value
}

/// Returns whether two numbers are equal. The compiler cannot combine the comparison with others to a flag that is
/// checked later: the verifier would know the flag on each path, and would check everything in between once for each of
/// its values.
#[inline(always)]
pub fn is_same(left: u64, right: u64) -> bool {
    opaque(left ^ right) == 0
}

/// Returns `value & MASK`. The compiler cannot optimise the operation away, so that it tells the verifier the bound.
#[inline(always)]
pub fn mask<const MASK: u64>(mut value: u64) -> u64 {
    // SAFETY: the instruction only changes a register that is its operand.
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
