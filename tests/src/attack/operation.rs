//! The operations of the attacker as rows of tables.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Descriptors that stay open between operations of the service.
pub(super) type Held = HashMap<OsString, File>;

/// The function that performs another operation, which the arguments name.
pub(super) type Performer = fn(&[OsString]) -> Result<Value>;

/// A row of a table of operations.
pub(super) struct Operation {
    /// The name of the operation.
    pub(super) name: &'static str,
    /// Its arguments, as shown in the usage.
    pub(super) arguments: &'static str,
    /// A description of its effect.
    pub(super) effect: &'static str,
    perform: Perform,
}

/// The function of an operation, by its parameters.
#[derive(Clone, Copy)]
enum Perform {
    Nothing(fn() -> Result<Value>),
    Path(fn(&Path) -> Result<Value>),
    Paths(fn(&Path, &Path) -> Result<Value>),
    /// Takes at least this number of arguments.
    Arguments(usize, fn(&[OsString]) -> Result<Value>),
    /// Takes at least this number of arguments, and the descriptors that the service keeps open.
    Held(usize, fn(&[OsString], &mut Held) -> Result<Value>),
    /// Takes at least this number of arguments, and the function that performs another operation.
    Around(usize, fn(&[OsString], Performer) -> Result<Value>),
}

impl Operation {
    const fn new(name: &'static str, arguments: &'static str, effect: &'static str, perform: Perform) -> Self {
        Self { name, arguments, effect, perform }
    }

    /// Makes an operation without arguments.
    pub(super) const fn plain(name: &'static str, effect: &'static str, perform: fn() -> Result<Value>) -> Self {
        Self::new(name, "", effect, Perform::Nothing(perform))
    }

    /// Makes an operation on a path.
    pub(super) const fn on(name: &'static str, effect: &'static str, perform: fn(&Path) -> Result<Value>) -> Self {
        Self::new(name, "PATH", effect, Perform::Path(perform))
    }

    /// Makes an operation on two paths.
    pub(super) const fn on_two(
        name: &'static str,
        arguments: &'static str,
        effect: &'static str,
        perform: fn(&Path, &Path) -> Result<Value>,
    ) -> Self {
        Self::new(name, arguments, effect, Perform::Paths(perform))
    }

    /// Makes an operation with at least this number of arguments.
    pub(super) const fn with(
        name: &'static str,
        arguments: &'static str,
        effect: &'static str,
        least: usize,
        perform: fn(&[OsString]) -> Result<Value>,
    ) -> Self {
        Self::new(name, arguments, effect, Perform::Arguments(least, perform))
    }

    /// Makes an operation with at least this number of arguments, on the descriptors that the service keeps open.
    pub(super) const fn on_held(
        name: &'static str,
        arguments: &'static str,
        effect: &'static str,
        least: usize,
        perform: fn(&[OsString], &mut Held) -> Result<Value>,
    ) -> Self {
        Self::new(name, arguments, effect, Perform::Held(least, perform))
    }

    /// Makes an operation around another one, with at least this number of arguments, the last of which name that one.
    pub(super) const fn around(
        name: &'static str,
        arguments: &'static str,
        effect: &'static str,
        least: usize,
        perform: fn(&[OsString], Performer) -> Result<Value>,
    ) -> Self {
        Self::new(name, arguments, effect, Perform::Around(least, perform))
    }

    /// Performs the operation. `performer` performs the one that it is around.
    pub(super) fn perform(&self, args: &[OsString], held: &mut Held, performer: Performer) -> Result<Value> {
        match (self.perform, args) {
            (Perform::Nothing(perform), []) => perform(),
            (Perform::Path(perform), [path]) => perform(Path::new(path)),
            (Perform::Paths(perform), [one, other]) => perform(Path::new(one), Path::new(other)),
            (Perform::Arguments(least, perform), args) if args.len() >= least => perform(args),
            (Perform::Held(least, perform), args) if args.len() >= least => perform(args, held),
            (Perform::Around(least, perform), args) if args.len() >= least => perform(args, performer),
            _ => bail!("usage: {} {}, not with {} arguments", self.name, self.arguments, args.len()),
        }
    }
}

/// Parses an argument that is a number.
pub(super) fn number(text: &OsStr) -> Result<u32> {
    Ok(text.to_str().context("no number")?.parse()?)
}
