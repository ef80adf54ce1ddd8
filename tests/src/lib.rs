//! Tests of the detector on real kernels with real containers.
//!
//! The binary `guest` is all that runs in a virtual machine: as `/init` it brings the [machine up](init) and runs what
//! it is told to: the [cases], the [scene] of the demo or the [measurements](measure). The same binary, copied into the
//! image of the test [containers](container), is the [attacker](attack). The host hears of the outcome in the form of
//! [messages](protocol). The host's side is `tests/vm.rs`.
//!
//! A new test is a function, a line in the table in [`cases`] and, if it attacks, its name in the table in
//! [`coverage`].
//!
//! `xtask` takes this library without the feature `guest`: what builds the guest is not there before `xtask` has
//! installed it.

#[cfg(feature = "guest")]
pub mod attack;
#[cfg(feature = "guest")]
pub mod cases;
#[cfg(feature = "guest")]
pub mod container;
pub mod coverage;
#[cfg(feature = "guest")]
pub mod engine;
#[cfg(feature = "guest")]
pub mod init;
#[cfg(feature = "guest")]
pub mod machine;
#[cfg(feature = "guest")]
pub mod measure;
pub mod protocol;
#[cfg(feature = "guest")]
pub mod root;
#[cfg(feature = "guest")]
pub mod scene;
#[cfg(feature = "guest")]
pub mod sensor;
