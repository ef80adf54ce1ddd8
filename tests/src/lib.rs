//! Tests of the detector on real kernels with real containers.
//!
//! The binary `guest` runs in the virtual machine. As `/init`, it [sets the machine up](init) and runs the [cases], the
//! [scene] of the demo, or the [measurements](measure). In the images of the test [containers](container), the same
//! binary is the [attacker](attack). It reports results to the host as [messages](protocol). `tests/vm.rs` is the
//! host's part.
//!
//! Modules depend in one direction only: the attacker on the [images](image), containers and [engines](engine) on the
//! attacker, and the cases on all of them. In `attack`, `cases` and `engine`, `mod.rs` has the table of what the other
//! files contain, and what the rows share is in files of its own.
//!
//! To add a test, add a function and a line in the table in [`cases`]. If it is an attack, also add its name to the
//! table in [`coverage`].
//!
//! `xtask` uses this library without the feature `guest`, because the dependencies of the guest are not there before
//! `xtask` has installed them.

#[cfg(feature = "guest")]
pub mod attack;
#[cfg(feature = "guest")]
pub mod cases;
#[cfg(feature = "guest")]
pub mod cluster;
#[cfg(feature = "guest")]
pub mod container;
pub mod coverage;
#[cfg(feature = "guest")]
pub mod engine;
#[cfg(feature = "guest")]
pub mod image;
#[cfg(feature = "guest")]
pub mod init;
pub mod machine;
#[cfg(feature = "guest")]
pub mod maps;
#[cfg(feature = "guest")]
pub mod measure;
#[cfg(feature = "guest")]
pub mod program;
pub mod protocol;
#[cfg(feature = "guest")]
pub mod root;
#[cfg(feature = "guest")]
pub mod scene;
#[cfg(feature = "guest")]
pub mod sensor;
#[cfg(feature = "guest")]
pub mod system;
#[cfg(feature = "guest")]
pub mod terminal;
