//! The developer tasks as a library. `detector-tests` uses it to boot virtual machines.

pub mod bench;
pub mod build;
pub mod coverage;
pub mod debian;
pub mod demo;
pub mod fuzz;
mod go;
mod image;
pub mod initramfs;
pub mod kernel;
pub mod package;
pub mod project;
pub mod readme;
pub mod receivers;
pub mod runtimes;
pub mod schemas;
pub mod setup;
pub mod shell;
pub mod style;
mod tampering;
pub mod test;
pub mod vm;
