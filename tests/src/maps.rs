//! The sensor's maps in the kernel.

#![expect(unsafe_code, reason = "no library makes the calls of bpf(2)")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result, bail};

/// Commands of bpf(2) (include/uapi/linux/bpf.h).
const MAP_GET_NEXT_KEY: i32 = 4;
const MAP_GET_NEXT_ID: i32 = 12;
const MAP_GET_FD_BY_ID: i32 = 14;
const OBJ_GET_INFO_BY_FD: i32 = 15;

/// The number of entries that are counted at most. If one is removed meanwhile, the kernel starts again with the first.
const MOST: usize = 1 << 20;

/// The start of `union bpf_attr`.
type Attributes = [u64; 4];

/// The start of `struct bpf_map_info`.
#[derive(Default)]
#[repr(C)]
struct Info {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    name: [u8; 16],
}

/// Returns the number of entries of the newest map with this name. An entry that is replaced meanwhile may be missing
/// or count twice.
pub fn entries(name: &str) -> Result<usize> {
    let mut newest = None;
    let mut id = 0;
    while let Some(next) = next_map(id)? {
        id = next;
        // The map may be gone already.
        let Ok(map) = open(id) else { continue };
        let info = info(&map)?;
        if info.name.split(|byte| *byte == 0).next() == Some(name.as_bytes()) {
            newest = Some((map, info.key_size));
        }
    }
    let (map, key_size) = newest.with_context(|| format!("there is no map {name}"))?;
    count(&map, key_size)
}

fn count(map: &OwnedFd, key_size: u32) -> Result<usize> {
    let mut key = vec![0_u8; key_size as usize];
    let mut next = key.clone();
    let mut count = 0;
    while count < MOST {
        let before = if count == 0 { 0 } else { key.as_ptr().addr() as u64 };
        let mut attributes = [descriptor(map), before, next.as_mut_ptr().addr() as u64, 0];
        key.as_ptr().expose_provenance();
        next.as_mut_ptr().expose_provenance();
        match bpf(MAP_GET_NEXT_KEY, &mut attributes) {
            Ok(_) => count += 1,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(count),
            Err(error) => bail!("cannot read a map: {error}"),
        }
        std::mem::swap(&mut key, &mut next);
    }
    bail!("the entries of a map change too fast to be counted")
}

fn next_map(id: u32) -> Result<Option<u32>> {
    let mut attributes = [u64::from(id), 0, 0, 0];
    match bpf(MAP_GET_NEXT_ID, &mut attributes) {
        Ok(_) => Ok(Some((attributes[0] >> 32) as u32)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => bail!("cannot list the maps: {error}"),
    }
}

fn open(id: u32) -> io::Result<OwnedFd> {
    let descriptor = bpf(MAP_GET_FD_BY_ID, &mut [u64::from(id), 0, 0, 0])?;
    // SAFETY: the call has just made this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn info(map: &OwnedFd) -> Result<Info> {
    let mut info = Info::default();
    let size = (size_of::<Info>() as u64) << 32;
    let mut attributes = [descriptor(map) | size, (&raw mut info).expose_provenance() as u64, 0, 0];
    bpf(OBJ_GET_INFO_BY_FD, &mut attributes)?;
    Ok(info)
}

fn descriptor(map: &OwnedFd) -> u64 {
    u64::from(map.as_raw_fd().cast_unsigned())
}

fn bpf(command: i32, attributes: &mut Attributes) -> io::Result<i32> {
    // SAFETY: the attributes live until the call returns. What they point to belongs to the caller, who keeps it for as
    // long, and is as large as the sizes say that are among the attributes or those of the map.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), size_of::<Attributes>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer as i32) }
}
