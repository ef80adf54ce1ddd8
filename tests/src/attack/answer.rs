//! The answer of an operation: what it did, or that this kernel does not support it. Only a kernel that is older than
//! the operation may answer that, and only with the error that such a kernel returns.

use std::fmt;

use anyhow::{Context, Error, Result};
use rustix::io::Errno;
use serde_json::{Value, json};

/// Why a case does not apply to this machine: the kernel does not support the attack.
#[derive(Debug)]
pub struct NotApplicable(pub String);

impl fmt::Display for NotApplicable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotApplicable {}

/// Interprets the error of an operation that Linux supports since version `since`.
pub(super) fn unless_older(error: Errno, expected: &[Errno], way: &str, since: (u32, u32)) -> Error {
    match kernel() {
        Ok(kernel) if kernel < since && expected.contains(&error) => {
            let (major, minor) = since;
            NotApplicable(format!("{way} is there from Linux {major}.{minor} on ({error})")).into()
        }
        Ok(_) => Error::from(error).context(format!("{way} failed")),
        Err(unknown) => unknown,
    }
}

/// The version of the running kernel.
pub fn kernel() -> Result<(u32, u32)> {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release.split('.').map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => Err(anyhow::anyhow!("this is no version of a kernel: {release}")),
    }
}

/// Converts an answer to a value that can be sent.
pub(super) fn of(outcome: Result<Value>) -> Result<Value> {
    outcome.or_else(|error| match error.downcast_ref() {
        Some(NotApplicable(reason)) => Ok(json!({"not_applicable": reason})),
        None => Err(error),
    })
}

/// Prints the answer of an operation, as the output of the tool.
pub(super) fn print(outcome: Result<Value>) -> Result<()> {
    println!("{}", of(outcome)?);
    Ok(())
}

/// Converts a received value to an answer.
pub(super) fn found(value: Value) -> Result<Value> {
    match value["not_applicable"].as_str() {
        Some(reason) => Err(NotApplicable(reason.to_owned()).into()),
        None => Ok(value),
    }
}

/// Parses the output of the tool.
pub fn read(printed: &str) -> Result<Value> {
    found(serde_json::from_str(printed).with_context(|| format!("no answer of the tool: {printed:?}"))?)
}
