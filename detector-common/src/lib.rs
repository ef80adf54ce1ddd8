//! What the kernel side (`detector-ebpf`) and the user side (`detector`) share, and nothing else: the [vocabulary] with
//! its numbers and names, the [records](record) that cross the ring buffer, the keys and values of the [maps](map), and
//! the table of [kernel struct offsets](offsets) that user space resolves and the probes use.
//!
//! Every type here is `repr(C)` without padding, so that both sides agree on each byte. The sizes are asserted at
//! compile time. A change of any layout or meaning requires a higher [`WIRE_VERSION`].

#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]

pub mod code;
pub mod map;
pub mod offsets;
pub mod record;
pub mod vocabulary;

/// The version of everything in this crate. The BPF object contains it in the global [`WIRE_VERSION_SYMBOL`], and the
/// daemon refuses an object with another version.
pub const WIRE_VERSION: u32 = 14;

/// The name of the BPF global that holds [`WIRE_VERSION`].
pub const WIRE_VERSION_SYMBOL: &str = "DETECTOR_WIRE_VERSION";
