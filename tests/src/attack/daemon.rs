//! Acts on another process, which is not a child: on its memory, its descriptors and its life.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::descriptors::take;
use super::operation::{Operation, number};
use super::raw;

/// The operations of this module.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation::with("rewrite-memory", "METHOD PID", "writes to a process what is there already", 2, |args| {
        rewrite_memory(&args[0], number(&args[1])?)
    }),
    Operation::with("take-descriptor", "PID", "takes the standard input of a process", 1, |args| {
        take(number(&args[0])?, 0).map(|_| Value::Null)
    }),
    Operation::with("look-at-process", "PID", "reads what /proc shows of a process, as tools do", 1, |args| {
        let folder = Path::new("/proc").join(&args[0]);
        for name in ["stat", "status", "cmdline", "environ", "maps", "io"] {
            fs::read(folder.join(name)).with_context(|| format!("cannot read {name}"))?;
        }
        let descriptors = fs::read_dir(folder.join("fd"))?.map(|entry| Ok(fs::read_link(entry?.path()).is_ok()));
        Ok(json!(descriptors.collect::<Result<Vec<bool>>>()?.len()))
    }),
    Operation::with("signal", "PID NUMBER", "sends a signal", 2, |args| {
        let pid = Pid::from_raw(number(&args[0])?.cast_signed()).context("the process id is 0")?;
        let signal = Signal::from_named_raw(number(&args[1])?.cast_signed()).context("no signal has this number")?;
        kill_process(pid, signal)?;
        Ok(Value::Null)
    }),
];

/// Writes the last bytes of a process's stack, which are always 0 (`bprm_mm_init`, fs/exec.c).
fn rewrite_memory(method: &OsStr, pid: u32) -> Result<Value> {
    let nothing = [0; 8];
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let stack = maps.lines().find(|line| line.ends_with("[stack]")).context("it has no stack")?;
    let end = stack.split(['-', ' ']).nth(1).context("its stack has no end")?;
    let address = u64::from_str_radix(end, 16)? - 8;
    match method.to_str().unwrap_or_default() {
        "process_vm_writev" => ensure!(raw::process_vm_writev(pid, address, &nothing)? == 8, "it wrote too little"),
        "ptrace" => raw::ptrace_write(pid, address, &nothing)?,
        _ => OpenOptions::new().write(true).open(format!("/proc/{pid}/mem"))?.write_all_at(&nothing, address)?,
    }
    Ok(Value::Null)
}

/// The descriptors of a process that refer to a kind of object.
fn descriptors(pid: u32, kind: &str) -> Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        // The descriptor may be closed by now.
        if fs::read_link(entry.path()).is_ok_and(|target| target == Path::new(kind)) {
            found.push(entry.file_name().to_string_lossy().parse()?);
        }
    }
    Ok(found)
}

/// The descriptors of a process that keep its BPF programs attached, in the order of their numbers.
pub fn links(pid: u32) -> Result<Vec<i32>> {
    let links = ["anon_inode:bpf_link", "anon_inode:[perf_event]"].map(|kind| descriptors(pid, kind));
    let mut links: Vec<i32> = links.into_iter().collect::<Result<Vec<_>>>()?.concat();
    links.sort_unstable();
    ensure!(!links.is_empty(), "the process has no links");
    Ok(links)
}

/// Makes a process close these descriptors.
pub fn make_close(pid: u32, descriptors: &[i32]) -> Result<()> {
    Ok(raw::make_close(pid, descriptors)?)
}

/// Disables the perf events of a process. Returns their number.
pub fn disable_events(pid: u32) -> Result<usize> {
    let events = descriptors(pid, "anon_inode:[perf_event]")?;
    events.iter().try_for_each(|event| Ok(raw::disable_event(take(pid, *event)?)?)).map(|()| events.len())
}
