//! The findings that cases expect, and their comparison with those that came.

use std::collections::BTreeSet;

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};

/// Checks that these are exactly the expected findings of this container, in this order.
pub(super) fn compare(found: &[Value], container: &Value, expected: &[Value]) -> Result<()> {
    ensure!(found.len() == expected.len(), "{} findings came instead of {}", found.len(), expected.len());
    let ids: BTreeSet<_> = found.iter().filter_map(|finding| finding["id"].as_str()).collect();
    ensure!(ids.len() == found.len(), "{} findings have {} ids", found.len(), ids.len());
    let always = json!({"schema": 1, "revision": 1, "container": container});
    for (found, expected) in found.iter().zip(expected) {
        for expected in [&always, expected] {
            if let Some(difference) = difference(found, expected) {
                bail!("{difference}\nexpected: {expected}\nfound: {found}");
            }
        }
    }
    Ok(())
}

/// The first difference between `found` and `expected`. An object must have at least the expected keys, an expected
/// null means that the value is missing, and other values must be equal.
pub(super) fn difference(found: &Value, expected: &Value) -> Option<String> {
    match expected {
        Value::Object(members) => {
            members.iter().find_map(|(key, expected)| Some(format!("{key}: {}", difference(&found[key], expected)?)))
        }
        _ if found == expected => None,
        _ => Some(format!("{found} instead of {expected}")),
    }
}

/// The expected finding of a shell.
pub(super) fn shell(origin: &str, exe: &str, args: &[&str]) -> Value {
    json!({
        "finding": "shell_in_container",
        "process": {"origin": origin, "exe": exe, "args": args, "uid": 0},
    })
}

/// The expected finding of a change. `identity` is the result of the attacker's stat.
pub(super) fn write(origin: &str, op: &str, layer: &str, path: &str, identity: &Value) -> Value {
    json!({
        "finding": "image_write",
        "process": {"origin": origin, "uid": 0},
        "file": {"op": op, "layer": layer, "path": path, "dev": identity["dev"], "inode": identity["inode"]},
    })
}

/// The expected finding of a mount over a path. `identity` is that of the covered file or directory.
pub(super) fn shadowed(origin: &str, op: &str, path: &str, identity: &Value) -> Value {
    let mut finding = write(origin, op, "lower", path, identity);
    finding["finding"] = json!("image_shadowed");
    finding
}
