//! The maps that user space fills or reads. Their meaning is documented in `detector-ebpf/src/maps.rs`.

use std::collections::HashSet;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, MapData, MapError, PerCpuArray},
};
use detector_common::map::{
    Cgroup, KeptExec, KeptExecKey, Loss, PHASE_HOST, PHASE_STARTED, ROOTS_SHARED, Seen, SeenKey,
};

use super::{Error, host::Preemption, scan, uninterrupted::Uninterrupted};

/// `BPF_NOEXIST`: what the probes have written since is newer.
const BPF_NOEXIST: u64 = 1;

/// The maps, shared by the start-up and the reader thread.
pub(super) struct Maps {
    inner: Mutex<Inner>,
    /// A call on a map can be preempted.
    is_preemptible: bool,
}

/// The maps, for calls that are not interrupted.
struct Calls<'a> {
    inner: MutexGuard<'a, Inner>,
    _uninterrupted: Option<Uninterrupted>,
}

impl Deref for Calls<'_> {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl DerefMut for Calls<'_> {
    fn deref_mut(&mut self) -> &mut Inner {
        &mut self.inner
    }
}

struct Inner {
    cgroups: HashMap<MapData, u64, Cgroup>,
    roots: HashMap<MapData, u32, u64>,
    other_roots: Array<MapData, u32>,
    mnt_ns: HashMap<MapData, u32, u64>,
    seen: HashMap<MapData, SeenKey, Seen>,
    kept_execs: HashMap<MapData, KeptExecKey, KeptExec>,
    loss: PerCpuArray<MapData, u64>,
}

/// A container to be watched: what the probes learn at its first exec. 0: not known, and not watched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Root {
    /// The container's outermost cgroup.
    pub(super) container: u64,
    /// `s_dev` of its root.
    pub(super) root_dev: u32,
    /// What kind of file system that is.
    pub(super) root_kind: RootKind,
    /// Inode number of its mount namespace.
    pub(super) mnt_ns: u32,
    /// Its first process.
    pub(super) init: u32,
}

/// The file system that a container's root is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RootKind {
    /// An overlay of its own.
    Overlay,
    /// Another file system of its own.
    Own,
    /// A directory of a file system that has more than this root, or a subvolume of one.
    Shared,
}

impl Maps {
    /// Takes them out of a loaded object.
    pub(super) fn take(ebpf: &mut Ebpf, preemption: Preemption) -> Result<Self, Error> {
        let inner = Inner {
            cgroups: hash(ebpf, "CGROUPS")?,
            roots: hash(ebpf, "ROOTS")?,
            other_roots: Array::try_from(raw(ebpf, "OTHER_ROOTS")?).map_err(|e| failed("OTHER_ROOTS", &e))?,
            mnt_ns: hash(ebpf, "MNT_NS")?,
            seen: hash(ebpf, "SEEN")?,
            kept_execs: hash(ebpf, "KEPT_EXECS")?,
            loss: PerCpuArray::try_from(raw(ebpf, "LOSS")?).map_err(|e| failed("LOSS", &e))?,
        };
        Ok(Self { inner: Mutex::new(inner), is_preemptible: preemption.is_preemptible() })
    }

    /// Tells the probes what ran before they were attached.
    pub(super) fn seed(&self, running: &scan::Running) -> Result<(), Error> {
        for &cgroup in &running.host_cgroups {
            let state = Cgroup { container: 0, root_dev: 0, mnt_ns: 0, phase: PHASE_HOST, init: 0, root: 0 };
            keep(self.lock().cgroups.insert(cgroup, state, BPF_NOEXIST)).map_err(|e| failed("CGROUPS", &e))?;
        }
        for found in &running.containers {
            let root = Root {
                container: found.container,
                root_dev: found.root_dev,
                root_kind: found.root_kind,
                mnt_ns: found.mount_namespace,
                init: found.init,
            };
            self.watch(root, &found.cgroups)?;
        }
        Ok(())
    }

    /// Makes the probes watch a container that they did not see start.
    pub(super) fn watch(&self, root: Root, cgroups: &[u64]) -> Result<(), Error> {
        let Root { container, root_dev, root_kind, mnt_ns, init } = root;
        let state = Cgroup { container, root_dev, mnt_ns, phase: PHASE_STARTED, init, root: 0 };
        let mut maps = self.lock();
        for &cgroup in cgroups.iter().chain([&container]) {
            maps.cgroups.insert(cgroup, state, 0).map_err(|e| failed("CGROUPS", &e))?;
        }
        if root_dev != 0 {
            let owner = if root_kind == RootKind::Shared { ROOTS_SHARED } else { container };
            keep(maps.roots.insert(root_dev, owner, BPF_NOEXIST)).map_err(|e| failed("ROOTS", &e))?;
            if root_kind != RootKind::Overlay {
                maps.other_roots.set(0, 1, 0).map_err(|e| failed("OTHER_ROOTS", &e))?;
            }
        }
        if mnt_ns != 0 {
            keep(maps.mnt_ns.insert(mnt_ns, container, BPF_NOEXIST)).map_err(|e| failed("MNT_NS", &e))?;
        }
        Ok(())
    }

    /// Undoes [`watch`](Self::watch).
    pub(super) fn forget(&self, root: Root) {
        let mut maps = self.lock();
        // Each may be gone already, for the probes forget a container when its cgroup goes, and the number be another's.
        let _gone = maps.cgroups.remove(&root.container);
        if maps.roots.get(&root.root_dev, 0).is_ok_and(|owner| owner == root.container) {
            let _gone = maps.roots.remove(&root.root_dev);
        }
        if maps.mnt_ns.get(&root.mnt_ns, 0).is_ok_and(|owner| owner == root.container) {
            let _gone = maps.mnt_ns.remove(&root.mnt_ns);
        }
    }

    /// `s_dev` of the root of a container that runs. `None`: it is gone, or that is not known.
    pub(super) fn root_dev(&self, container: u64) -> Option<u32> {
        self.lock().cgroups.get(&container, 0).ok().map(|cgroup| cgroup.root_dev).filter(|&dev| dev != 0)
    }

    /// The loss counters, summed over all CPUs, in the order of [`Loss::ALL`].
    pub(super) fn losses(&self) -> Result<[u64; Loss::ALL.len()], Error> {
        let maps = self.lock();
        let mut sums = [0; Loss::ALL.len()];
        for kind in Loss::ALL {
            let counts = maps.loss.get(&(kind as u32), 0).map_err(|e| failed("LOSS", &e))?;
            sums[kind as usize] = counts.iter().sum();
        }
        Ok(sums)
    }

    /// The changes that found no room in the ring buffer. They are marked as reported, so that each comes once.
    pub(super) fn take_unreported(&self) -> Result<Vec<(SeenKey, Seen)>, Error> {
        let mut maps = self.lock();
        let mut unreported = Vec::new();
        for entry in maps.seen.iter() {
            let (key, seen) = entry.map_err(|e| failed("SEEN", &e))?;
            if seen.reported == 0 {
                unreported.push((key, seen));
            }
        }
        for (key, seen) in &unreported {
            // A change counted by a probe in between is lost from the counters, not from the findings.
            maps.seen.insert(key, Seen { reported: 1, ..*seen }, 0).map_err(|e| failed("SEEN", &e))?;
        }
        Ok(unreported)
    }

    /// The execs that found no room in the ring buffer, one of each program. They are gone from the map then.
    pub(super) fn take_kept_execs(&self) -> Result<Vec<(KeptExecKey, KeptExec)>, Error> {
        let mut maps = self.lock();
        let entries: Result<Vec<_>, _> = maps.kept_execs.iter().collect();
        let mut entries = entries.map_err(|e| failed("KEPT_EXECS", &e))?;
        // One without a time is being filled: it comes the next time.
        entries.retain(|(_, kept)| kept.time != 0);
        for (key, _) in &entries {
            keep(maps.kept_execs.remove(key)).map_err(|e| failed("KEPT_EXECS", &e))?;
        }
        Ok(entries)
    }

    /// Forgets the changed files of containers that are gone.
    pub(super) fn forget_files(&self, containers: &HashSet<u64>) -> Result<(), Error> {
        let mut maps = self.lock();
        let gone: Vec<_> =
            maps.seen.keys().filter_map(Result::ok).filter(|key| containers.contains(&key.container)).collect();
        for key in gone {
            keep(maps.seen.remove(&key)).map_err(|e| failed("SEEN", &e))?;
        }
        Ok(())
    }

    fn lock(&self) -> Calls<'_> {
        // The maps are the kernel's: a panic elsewhere leaves nothing half-done here.
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        Calls { inner, _uninterrupted: self.is_preemptible.then(Uninterrupted::begin) }
    }
}

/// Takes a map out of the object.
pub(super) fn raw(ebpf: &mut Ebpf, name: &'static str) -> Result<aya::maps::Map, Error> {
    ebpf.take_map(name).ok_or_else(|| Error::Map { name, why: "the BPF object has no such map".to_owned() })
}

fn hash<K: Pod, V: Pod>(ebpf: &mut Ebpf, name: &'static str) -> Result<HashMap<MapData, K, V>, Error> {
    HashMap::try_from(raw(ebpf, name)?).map_err(|e| failed(name, &e))
}

fn failed(name: &'static str, error: &MapError) -> Error {
    Error::Map { name, why: error.to_string() }
}

/// That a key is there already, or no longer, is as good.
fn keep(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::SyscallError(e))
            if matches!(e.io_error.kind(), std::io::ErrorKind::AlreadyExists | std::io::ErrorKind::NotFound) =>
        {
            Ok(())
        }
        Err(MapError::KeyNotFound) => Ok(()),
        other => other,
    }
}
