//! Reads and changes the BPF maps and links of other programs.

use std::ffi::OsStr;

use anyhow::{Context, Result, ensure};
use rustix::io::Errno;
use serde_json::{Value, json};

use super::operation::Operation;
use super::raw::{self, BpfMap};

/// The operations of this module.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation::with("empty-map", "NAME", "deletes all entries of a BPF map", 1, |args| empty_map(&args[0])),
    Operation::with("fail-to-empty-map", "NAME", "tries to delete all entries of a BPF map", 1, |args| {
        fail_to_empty(&args[0])
    }),
    Operation::with("rewrite-map", "NAME", "overwrites an entry of a BPF map with itself", 1, |args| rewrite(&args[0])),
    Operation::plain("detach-links", "tries to detach all BPF links", detach_links),
    Operation::plain("read-maps", "reads all entries of all BPF maps, as tools do", read_maps),
];

fn map(name: &OsStr) -> Result<BpfMap> {
    BpfMap::all()?.into_iter().find(|map| name == map.name()).with_context(|| format!("no map {name:?}"))
}

/// Tries to delete all entries of a BPF map, which the kernel refuses. Returns their number.
fn fail_to_empty(name: &OsStr) -> Result<Value> {
    let map = map(name)?;
    let keys = map.keys()?;
    ensure!(!keys.is_empty(), "{name:?} was empty");
    ensure!(keys.iter().all(|key| map.delete(key) == Err(Errno::PERM)), "an entry of {name:?} was deleted");
    Ok(json!(keys.len()))
}

/// Deletes all entries of a BPF map. Returns their number.
pub fn empty_map(name: &OsStr) -> Result<Value> {
    let map = map(name)?;
    let keys = map.keys()?;
    ensure!(!keys.is_empty(), "{name:?} was empty");
    keys.iter().try_for_each(|key| map.delete(key))?;
    // An array keeps its keys.
    ensure!(keys.iter().all(|key| map.look_up(key).is_err()), "{name:?} is not empty");
    Ok(json!(keys.len()))
}

fn rewrite(name: &OsStr) -> Result<Value> {
    let map = map(name)?;
    let key = map.keys()?.pop().with_context(|| format!("{name:?} is empty"))?;
    map.update(&key, &map.look_up(&key)?)?;
    Ok(Value::Null)
}

/// The kernel refuses this for all links of the sensor: those of kprobes, fentry and LSM programs, and tracepoints.
fn detach_links() -> Result<Value> {
    let errors = raw::detach_links()?;
    ensure!(!errors.is_empty(), "there are no links");
    ensure!(errors.iter().all(|error| *error == Errno::OPNOTSUPP), "the kernel says {errors:?}");
    Ok(json!(errors.len()))
}

/// Reads the maps of the sensor that have a value for each key.
pub fn read_maps() -> Result<Value> {
    let mut entries = 0;
    for map in BpfMap::all()?.iter().filter(|map| ["ROOTS", "CGROUPS", "SEEN"].contains(&map.name())) {
        for key in map.keys()? {
            map.look_up(&key)?;
            entries += 1;
        }
    }
    ensure!(entries > 0, "there are no maps with entries");
    Ok(json!(entries))
}
