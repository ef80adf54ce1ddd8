//! The programs that other kprobes call at their end to report what they have seen. They are not attached to anything.

use aya_ebpf::{macros::kprobe, programs::ProbeContext};

use crate::{
    image::report::{NAME, NAMES, PLACE, take_over},
    tampering,
};

#[kprobe]
#[inline(always)]
fn report_name(_: ProbeContext) -> u32 {
    take_over::<NAME>();
    0
}

#[kprobe]
#[inline(always)]
fn report_names(_: ProbeContext) -> u32 {
    take_over::<NAMES>();
    0
}

#[kprobe]
#[inline(always)]
fn report_place(_: ProbeContext) -> u32 {
    take_over::<PLACE>();
    0
}

#[kprobe]
fn report_tampering(_: ProbeContext) -> u32 {
    tampering::take_over();
    0
}
