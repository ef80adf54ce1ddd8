//! The programs that other kprobes call at their end, to report what they have seen. They are attached to nothing.

use aya_ebpf::{macros::kprobe, programs::ProbeContext};

use crate::image::report::take_over;

/// One name is concerned: `ImageWriteRecord`.
#[kprobe]
fn report_change(_: ProbeContext) -> u32 {
    take_over::<false>();
    0
}

/// Two names are: `ImageMoveRecord`.
#[kprobe]
fn report_move(_: ProbeContext) -> u32 {
    take_over::<true>();
    0
}
