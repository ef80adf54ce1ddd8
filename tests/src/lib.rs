//! Tests of the detector on real kernels with real containers.
//!
//! The binary `guest` is all that runs in a virtual machine: as `/init` it brings the [machine up](init) and runs what it
//! is told to: the [cases], the [scene] of the demo or the [measurements](measure). The same binary, copied into the
//! image of the test [containers](container), is the [attacker](attack). The host hears of the outcome in the form of
//! [messages](protocol). The host's side is `tests/vm.rs`.
//!
//! A new test is a function, a line in the table in [`cases`] and, if it attacks, its name in the table in [`coverage`].

#![deny(unsafe_code)]

pub mod attack;
pub mod cases;
pub mod container;
pub mod coverage;
pub mod init;
pub mod measure;
pub mod protocol;
pub mod root;
pub mod scene;
pub mod sensor;
