//! Runs one of the targets of [`detector::fuzzing`] with libFuzzer. `cargo xtask fuzz` builds and starts it.
#![no_main]

use std::sync::LazyLock;
use std::{env, process};

use detector::fuzzing::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;

mod seeds;

/// The target that the environment names.
static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = env::var("DETECTOR_FUZZ_TARGET").unwrap_or_default();
    TARGETS.iter().find(|(target, _)| *target == name).unwrap_or_else(|| panic!("there is no target {name:?}")).1
});

fuzz_target!(init: start(), |data: &[u8]| (TARGET)(data));

/// Prints the names of the targets if the environment names none.
fn start() {
    match env::var("DETECTOR_FUZZ_TARGET").as_deref() {
        Err(_) => {
            TARGETS.iter().for_each(|(name, _)| println!("{name}"));
            process::exit(0);
        }
        Ok("record" | "findings") => seeds::write(),
        Ok(_) => {}
    }
}
