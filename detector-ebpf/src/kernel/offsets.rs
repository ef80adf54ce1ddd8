//! The offsets: one frozen global for each row of the table. The loader sets them before the verifier runs, so that the
//! verifier sees constants.

use aya_ebpf::Global;

macro_rules! globals {
    ($($name:ident : $subject:literal $what:tt;)*) => {
        $(
            #[unsafe(no_mangle)]
            pub static $name: Global<u64> = Global::new(0);
        )*
    };
}

detector_common::for_each_offset!(globals);
