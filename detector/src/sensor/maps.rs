//! The maps that user space fills or reads. Each is documented in the module of `detector-ebpf` that declares it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::ops::{Deref, DerefMut};
use std::path::Path;

use aya::maps::{Array, HashMap, MapData, MapError, PerCpuArray};
use aya::{Ebpf, Pod};
use detector_common::map::{
    Cgroup, Count, CountedKey, Entered, FileKey, FileState, KeptExec, KeptExecKey, MOST_COUNTED, MountNamespace,
    NETWORK_SHARED, PHASE_HOST, PHASE_STARTED, ROOTS_SHARED, Seen, SeenKey, is_visit, visit,
};
use detector_common::record::Session;
use detector_common::vocabulary::{Loss, Via};

use super::error::Error;
use super::host::Preemption;
use super::realtime::RealTime;
use super::scan::{RootKind, Running, RunningContainer};

/// `BPF_NOEXIST`. It keeps an entry that the probes have written in the meantime, because that one is newer.
const BPF_NOEXIST: u64 = 1;
/// `BPF_ANY`. It replaces an entry.
const BPF_ANY: u64 = 0;

/// What the probes could not report or keep since they were loaded: a count of each kind, in the order of
/// [`Loss::ALL`].
pub(crate) type KernelLosses = [u64; Loss::KERNEL_KINDS as usize];

/// The maps.
pub(super) struct Maps {
    inner: Inner,
    /// Whether a call on a map can be preempted.
    is_preemptible: bool,
    /// The sessions of which the last sweep found no process.
    missing: HashSet<Session>,
    /// The cgroups that were the host's when the sensor started.
    host_cgroups: HashSet<u64>,
    /// The containers of which the probes know that they are not watched, as they are in the map.
    unwatched: BTreeMap<u64, u32>,
    counting: Counting,
}

/// The maps, for calls that no ordinary task preempts.
struct Calls<'a> {
    inner: &'a mut Inner,
    _real_time: Option<RealTime>,
}

impl Deref for Calls<'_> {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        self.inner
    }
}

impl DerefMut for Calls<'_> {
    fn deref_mut(&mut self) -> &mut Inner {
        self.inner
    }
}

struct Inner {
    cgroups: HashMap<MapData, u64, Cgroup>,
    roots: HashMap<MapData, u32, u64>,
    other_roots: Array<MapData, u32>,
    mnt_ns: HashMap<MapData, u32, MountNamespace>,
    networks: HashMap<MapData, u32, u64>,
    entered: HashMap<MapData, u32, Entered>,
    sessions: HashMap<MapData, Session, u64>,
    inside: Array<MapData, u64>,
    unwatched: HashMap<MapData, u64, u32>,
    counted: HashMap<MapData, CountedKey, u32>,
    counts: Array<MapData, Count>,
    counting: Array<MapData, u32>,
    files: HashMap<MapData, FileKey, FileState>,
    seen: HashMap<MapData, SeenKey, Seen>,
    kept_execs: HashMap<MapData, KeptExecKey, KeptExec>,
    loss: PerCpuArray<MapData, u64>,
    own_maps: HashMap<MapData, u32, u32>,
}

/// What the probes count, each with the index of its count.
#[derive(Debug, Default)]
struct Counting {
    /// What the probes know.
    told: BTreeMap<CountedKey, u32>,
    /// What they do not know any more. A program that has found it before may still count.
    ending: Vec<(CountedKey, u32)>,
    /// The same, if it was taken once since then.
    ended: Vec<(CountedKey, u32)>,
    /// How much was taken of each count.
    taken: BTreeMap<u32, u64>,
}

impl Counting {
    /// The indices in use, and what is counted there.
    fn used(&self) -> impl Iterator<Item = (CountedKey, u32)> {
        let ending = self.ending.iter().chain(&self.ended).copied();
        self.told.iter().map(|(key, index)| (*key, *index)).chain(ending)
    }
}

/// A container that the probes are to watch. The fields are what the probes learn about any other container at its
/// first exec. A field that is 0 is not known, and the probes do not look for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct WatchedContainer {
    /// The id of the container's outermost cgroup.
    pub(super) container: u64,
    /// The `s_dev` of its root.
    pub(super) root_dev: u32,
    /// The kind of file system that its root is on.
    pub(super) root_kind: RootKind,
    /// The inode number of its mount namespace.
    pub(super) mnt_ns: u32,
    /// The inode number of its user namespace.
    pub(super) user_ns: u32,
    /// The inode number of its network namespace.
    pub(super) net_ns: u32,
    /// The id of its first process.
    pub(super) init: u32,
}

impl Maps {
    /// Takes the maps out of a loaded object.
    pub(super) fn take(ebpf: &mut Ebpf, preemption: Preemption) -> Result<Self, Error> {
        let inner = Inner {
            cgroups: hash(ebpf, "CGROUPS")?,
            roots: hash(ebpf, "ROOTS")?,
            other_roots: Array::try_from(raw(ebpf, "OTHER_ROOTS")?).map_err(|e| failed("OTHER_ROOTS", &e))?,
            mnt_ns: hash(ebpf, "MNT_NS")?,
            networks: hash(ebpf, "NETWORKS")?,
            entered: hash(ebpf, "ENTERED")?,
            sessions: hash(ebpf, "SESSIONS")?,
            inside: Array::try_from(raw(ebpf, "INSIDE")?).map_err(|e| failed("INSIDE", &e))?,
            unwatched: hash(ebpf, "UNWATCHED")?,
            counted: hash(ebpf, "COUNTED")?,
            counts: Array::try_from(raw(ebpf, "COUNTS")?).map_err(|e| failed("COUNTS", &e))?,
            counting: Array::try_from(raw(ebpf, "COUNTING")?).map_err(|e| failed("COUNTING", &e))?,
            files: hash(ebpf, "FILES")?,
            seen: hash(ebpf, "SEEN")?,
            kept_execs: hash(ebpf, "KEPT_EXECS")?,
            own_maps: hash(ebpf, "OWN_MAPS")?,
            loss: PerCpuArray::try_from(raw(ebpf, "LOSS")?).map_err(|e| failed("LOSS", &e))?,
        };
        Ok(Self {
            inner,
            is_preemptible: preemption.is_preemptible(),
            missing: HashSet::new(),
            host_cgroups: HashSet::new(),
            unwatched: BTreeMap::new(),
            counting: Counting::default(),
        })
    }

    /// Tells the probes the ids of the sensor's maps, so that they report who else changes them.
    pub(super) fn guard(&mut self, ids: impl Iterator<Item = u32>) -> Result<(), Error> {
        let mut maps = self.calls();
        for id in ids {
            maps.own_maps.insert(id, 1, 0).map_err(|e| failed("OWN_MAPS", &e))?;
        }
        Ok(())
    }

    /// Tells the probes what was running before they were attached. What they have learnt themselves stays.
    pub(super) fn seed(&mut self, running: &Running) -> Result<(), Error> {
        self.host_cgroups = running.host_cgroups.clone();
        self.fill(running, BPF_NOEXIST)
    }

    /// Tells the probes what is running, after somebody has changed the maps. Nothing that was in them counts. The
    /// probes must be [told](Self::set_unwatched) again which containers are not watched.
    pub(super) fn refill(&mut self, running: &Running) -> Result<(), Error> {
        // Somebody may want containers to be taken for unwatched.
        self.unwatched = self.calls().unwatched.iter().take(MOST_STEPS).filter_map(Result::ok).collect();
        self.set_unwatched(&BTreeSet::new())?;
        // The same holds for what is counted.
        let keys: Vec<_> = self.calls().counted.keys().take(MOST_STEPS).filter_map(Result::ok).collect();
        for key in keys {
            tolerate(self.calls().counted.remove(&key)).map_err(|e| failed("COUNTED", &e))?;
        }
        self.set_counted(&BTreeSet::new())?;
        self.fill(running, BPF_ANY)
    }

    /// Tells the probes which containers are not watched. It only costs more than it need if they do not learn of one.
    ///
    /// # Errors
    ///
    /// The probes take a container for unwatched that is watched. The next call tries again.
    pub(super) fn set_unwatched(&mut self, containers: &BTreeSet<u64>) -> Result<(), Error> {
        let mut told = std::mem::take(&mut self.unwatched);
        let harm = "the probes do not know that a container is not watched; they send the changes of its files, which \
            are dropped later";
        let (_, result) = follow(&mut self.calls().unwatched, "UNWATCHED", (&mut told, containers), || Some(1), harm);
        self.unwatched = told;
        result
    }

    /// Whether the probes know that a container is not watched.
    pub(super) fn is_unwatched(&self, container: u64) -> bool {
        self.unwatched.contains_key(&container)
    }

    /// Tells the probes which files they count and do not report. It only costs more than it need if they do not learn
    /// of some.
    ///
    /// # Errors
    ///
    /// The probes go on counting some. The next call tries again.
    pub(super) fn set_counted(&mut self, wanted: &BTreeSet<CountedKey>) -> Result<(), Error> {
        let mut counting = std::mem::take(&mut self.counting);
        let mut used: HashSet<_> = counting.used().map(|(_, index)| index).collect();
        let free = || (0..MOST_COUNTED).find(|index| used.insert(*index));
        let harm = "the probes do not know what they need only count; they report each file";
        let mut maps = self.calls();
        let (ending, result) = follow(&mut maps.counted, "COUNTED", (&mut counting.told, wanted), free, harm);
        counting.ending.extend(ending);
        let any = u32::from(!counting.told.is_empty());
        let switched = maps.counting.set(0, any, BPF_ANY).map_err(|e| failed("COUNTING", &e));
        drop(maps);
        self.counting = counting;
        result.and(switched)
    }

    /// Whether the probes count, or have counted what was not [taken](Self::take_counts) yet.
    pub(super) fn is_counting(&self) -> bool {
        self.counting.used().next().is_some()
    }

    /// Takes what the probes have counted since the last call.
    ///
    /// # Errors
    ///
    /// What could not be read is taken by the next call.
    pub(super) fn take_counts(&mut self) -> Result<Vec<(CountedKey, Count)>, Error> {
        let mut counting = std::mem::take(&mut self.counting);
        let maps = self.calls();
        let mut new = Vec::new();
        let mut result = Ok(());
        for (key, index) in counting.used().collect::<Vec<_>>() {
            match maps.counts.get(&index, 0) {
                Ok(count) => {
                    let before = counting.taken.insert(index, count.files).unwrap_or_default();
                    if count.files != before {
                        new.push((key, Count { files: count.files.wrapping_sub(before), last: count.last }));
                    }
                }
                Err(error) => result = Err(failed("COUNTS", &error)),
            }
        }
        drop(maps);
        if result.is_ok() {
            counting.ended = std::mem::take(&mut counting.ending);
        }
        self.counting = counting;
        result.map(|()| new)
    }

    fn fill(&mut self, running: &Running, flags: u64) -> Result<(), Error> {
        // In a later cgroup, a process of the host may be preparing a container.
        let host_cgroups: Vec<_> = running.host_cgroups.intersection(&self.host_cgroups).copied().collect();
        for cgroup in host_cgroups {
            let state = Cgroup {
                container: 0,
                root_dev: 0,
                mnt_ns: 0,
                phase: PHASE_HOST,
                init: 0,
                root: 0,
                user_ns: 0,
                net_ns: 0,
                has_listened: 0,
                has_accepted: 0,
            };
            tolerate(self.calls().cgroups.insert(cgroup, state, BPF_NOEXIST)).map_err(|e| failed("CGROUPS", &e))?;
        }
        self.seed_networks(running, flags)?;
        for found in &running.containers {
            self.seed_sessions(found)?;
            let watched = WatchedContainer {
                container: found.container,
                root_dev: found.root_dev,
                root_kind: found.root_kind,
                mnt_ns: found.mount_namespace,
                user_ns: found.user_namespace,
                net_ns: found.network_namespace,
                init: found.init,
            };
            self.watch_as(watched, &found.cgroups, flags)?;
        }
        Ok(())
    }

    /// Tells the probes how many containers are in each network namespace.
    fn seed_networks(&mut self, running: &Running, flags: u64) -> Result<(), Error> {
        let mut counts = BTreeMap::from([(running.host_network, NETWORK_SHARED)]);
        for found in &running.containers {
            *counts.entry(found.network_namespace).or_default() += 1;
        }
        for (network, count) in counts {
            let inserted = match self.calls().networks.insert(network, count, flags) {
                // The probes have seen others start there meanwhile, which may or may not be among these.
                Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::AlreadyExists => {
                    self.calls().networks.insert(network, NETWORK_SHARED, BPF_ANY)
                }
                other => other,
            };
            inserted.map_err(|e| failed("NETWORKS", &e))?;
        }
        Ok(())
    }

    /// Tells the probes which processes of a container are in sessions.
    fn seed_sessions(&mut self, found: &RunningContainer) -> Result<(), Error> {
        let mut maps = self.calls();
        let mut counts: BTreeMap<u32, (Session, Vec<u32>)> = BTreeMap::new();
        for &(process, session) in &found.sessions {
            let session = Session { start_time: session.start_time, pid: session.pid, via: session.via.number() };
            counts.entry(session.pid).or_insert((session, Vec::new())).1.push(process);
        }
        for (session, processes) in counts.into_values() {
            // They are counted before they can fork. If one is counted in vain, the sweep ends the session.
            let count = processes.len() as u64;
            tolerate(maps.sessions.insert(session, count, BPF_NOEXIST)).map_err(|e| failed("SESSIONS", &e))?;
            let entered = Entered { container: found.container, session };
            for process in processes {
                tolerate(maps.entered.insert(process, entered, BPF_NOEXIST)).map_err(|e| failed("ENTERED", &e))?;
            }
        }
        Ok(())
    }

    /// Makes the probes watch a container that they did not see start.
    pub(super) fn watch(&mut self, watched: WatchedContainer, cgroups: &[u64]) -> Result<(), Error> {
        self.watch_as(watched, cgroups, BPF_NOEXIST)
    }

    /// `flags` are those for what the probes learn of the container's root and mount namespace.
    fn watch_as(&mut self, watched: WatchedContainer, cgroups: &[u64], flags: u64) -> Result<(), Error> {
        let WatchedContainer { container, root_dev, root_kind, mnt_ns, user_ns, net_ns, init } = watched;
        let state = Cgroup {
            container,
            root_dev,
            mnt_ns,
            phase: PHASE_STARTED,
            init,
            root: 0,
            user_ns,
            net_ns,
            has_listened: 0,
            has_accepted: 0,
        };
        let mut maps = self.calls();
        for &cgroup in cgroups.iter().chain([&container]) {
            maps.cgroups.insert(cgroup, state, 0).map_err(|e| failed("CGROUPS", &e))?;
        }
        if root_dev != 0 {
            let owner = if root_kind == RootKind::Shared { ROOTS_SHARED } else { container };
            tolerate(maps.roots.insert(root_dev, owner, flags)).map_err(|e| failed("ROOTS", &e))?;
            if root_kind != RootKind::Overlay {
                maps.other_roots.set(0, 1, 0).map_err(|e| failed("OTHER_ROOTS", &e))?;
            }
        }
        if mnt_ns != 0 {
            tolerate(maps.mnt_ns.insert(mnt_ns, MountNamespace { container, id: 0 }, flags))
                .map_err(|e| failed("MNT_NS", &e))?;
        }
        Ok(())
    }

    /// Undoes [`watch`](Self::watch), and removes what the probes have kept about the container in the meantime.
    pub(super) fn forget(&mut self, watched: WatchedContainer) -> Result<(), Error> {
        let mut maps = self.calls();
        let WatchedContainer { container, root_dev, mnt_ns, .. } = watched;
        // Each entry may be gone already, because the probes forget a container when its cgroup is removed. Its number
        // may then belong to another container.
        let _gone = maps.cgroups.remove(&container);
        if maps.roots.get(&root_dev, 0).is_ok_and(|owner| owner == container) {
            let _gone = maps.roots.remove(&root_dev);
        }
        if maps.mnt_ns.get(&mnt_ns, 0).is_ok_and(|namespace| namespace.container == container) {
            let _gone = maps.mnt_ns.remove(&mnt_ns);
        }
        let execs: Vec<_> = maps.kept_execs.keys().filter_map(Result::ok).collect();
        for key in execs.iter().filter(|key| key.container == container) {
            tolerate(maps.kept_execs.remove(key)).map_err(|e| failed("KEPT_EXECS", &e))?;
        }
        drop(maps);
        self.sweep(&[container].into()).map(drop)
    }

    /// The `s_dev` of the root of a running container. Returns `None` if the container is gone, or if the number is not
    /// known.
    pub(super) fn root_dev(&mut self, container: u64) -> Option<u32> {
        self.calls().cgroups.get(&container, 0).ok().map(|cgroup| cgroup.root_dev).filter(|&dev| dev != 0)
    }

    /// The loss counters, summed over all CPUs.
    pub(super) fn losses(&mut self) -> Result<KernelLosses, Error> {
        let maps = self.calls();
        let mut sums = KernelLosses::default();
        for (sum, kind) in sums.iter_mut().zip(Loss::ALL) {
            let counts = maps.loss.get(&kind.number(), 0).map_err(|e| failed("LOSS", &e))?;
            *sum = counts.iter().sum();
        }
        Ok(sums)
    }

    /// Takes the changes that found no room in the ring buffer. They are marked as reported, so that each is returned
    /// only once.
    pub(super) fn take_unreported_changes(&mut self) -> Result<Vec<(SeenKey, Seen)>, Error> {
        let mut maps = self.calls();
        let mut unreported = Vec::new();
        for entry in maps.seen.iter() {
            let (key, seen) = entry.map_err(|e| failed("SEEN", &e))?;
            if seen.reported == 0 {
                unreported.push((key, seen));
            }
        }
        for (key, seen) in &unreported {
            // A change that a probe counts in between is missing from the counters, but not from the findings.
            maps.seen.insert(key, Seen { reported: 1, ..*seen }, 0).map_err(|e| failed("SEEN", &e))?;
        }
        Ok(unreported)
    }

    /// Takes the execs that found no room in the ring buffer, one of each program, and removes them from the map.
    pub(super) fn take_kept_execs(&mut self) -> Result<Vec<(KeptExecKey, KeptExec)>, Error> {
        let mut maps = self.calls();
        let entries: Result<Vec<_>, _> = maps.kept_execs.iter().collect();
        let mut entries = entries.map_err(|e| failed("KEPT_EXECS", &e))?;
        // A probe is still filling an entry without a time. The next call returns it.
        entries.retain(|(_, kept)| kept.time != 0);
        for (key, _) in &entries {
            tolerate(maps.kept_execs.remove(key)).map_err(|e| failed("KEPT_EXECS", &e))?;
        }
        Ok(entries)
    }

    /// Removes what is known about the files of containers that have ended, and what matches nothing any more: acts on
    /// files that are gone, and those of visits that have ended. Returns the sessions of which there are processes, by
    /// the id and the start time of the first one.
    pub(super) fn sweep(&mut self, ended: &HashSet<u64>) -> Result<HashSet<(u32, u64)>, Error> {
        // Whatever has an entry in `SEEN` has got its other entries before, so `SEEN` is read first.
        let seen: Vec<_> = self.calls().seen.keys().take(MOST_STEPS).filter_map(Result::ok).collect();
        let sessions = self.forget_dead_processes()?;
        let visits = sessions.iter().map(|session| visit(session.start_time)).collect();
        let mut maps = self.calls();
        let roots: HashSet<_> = maps.roots.keys().take(MOST_STEPS).filter_map(Result::ok).collect();
        let (mut files, mut elsewhere, mut gone) = (HashSet::new(), Vec::new(), Vec::new());
        for (key, file) in maps.files.iter().take(MOST_STEPS).filter_map(Result::ok) {
            if ended.contains(&key.container) {
                gone.push(key);
            } else if roots.contains(&key.dev) {
                files.insert((file.first, key.dev, key.inode));
            } else {
                elsewhere.push((file.first, key));
            }
        }
        elsewhere.sort_unstable_by_key(|(first, _)| *first);
        let oldest = if elsewhere.len() > MOST_ELSEWHERE { elsewhere.len() - MOST_ELSEWHERE / 2 } else { 0 };
        gone.extend(elsewhere.drain(..oldest).map(|(_, key)| key));
        files.extend(elsewhere.into_iter().map(|(first, key)| (first, key.dev, key.inode)));
        for key in gone {
            tolerate(maps.files.remove(&key)).map_err(|e| failed("FILES", &e))?;
        }
        for key in seen.iter().filter(|key| is_stale(key, &files, &visits)) {
            // What is not reported yet must stay until it is.
            if maps.seen.get(key, 0).is_ok_and(|seen| seen.reported != 0) {
                tolerate(maps.seen.remove(key)).map_err(|e| failed("SEEN", &e))?;
            }
        }
        Ok(sessions.into_iter().map(|session| (session.pid, session.start_time)).collect())
    }

    /// Removes the processes of sessions whose end was missed, and the sessions that have had none at two successive
    /// calls. Returns the sessions of all others.
    fn forget_dead_processes(&mut self) -> Result<HashSet<Session>, Error> {
        let counted: HashSet<_> = self.calls().sessions.keys().take(MOST_STEPS).filter_map(Result::ok).collect();
        let entered: Vec<_> = self.calls().entered.iter().take(MOST_STEPS).filter_map(Result::ok).collect();
        let (living, dead): (Vec<_>, Vec<_>) =
            entered.into_iter().partition(|(process, _)| Path::new(&format!("/proc/{process}")).exists());
        for (process, _) in dead {
            tolerate(self.calls().entered.remove(&process)).map_err(|e| failed("ENTERED", &e))?;
        }
        let is_inside = |entered: &Entered| !Via::from_number(entered.session.via).is_some_and(Via::is_entry);
        let inside = living.iter().filter(|(_, entered)| is_inside(entered)).count() as u64;
        self.calls().inside.set(0, inside, 0).map_err(|e| failed("INSIDE", &e))?;
        let living: HashSet<_> = living.into_iter().map(|(_, entered)| entered.session).collect();
        let missing: HashSet<_> = counted.difference(&living).copied().collect();
        for session in missing.intersection(&std::mem::take(&mut self.missing)) {
            tolerate(self.calls().sessions.remove(session)).map_err(|e| failed("SESSIONS", &e))?;
        }
        self.missing = missing;
        Ok(living)
    }

    fn calls(&mut self) -> Calls<'_> {
        let _real_time = self.is_preemptible.then(RealTime::begin);
        Calls { inner: &mut self.inner, _real_time }
    }
}

/// How many entries of a map are read at most. This is more than any map has: if an entry is removed while it is being
/// read, the kernel starts again with the first one.
const MOST_STEPS: usize = 1 << 18;

/// How many entries of `FILES` about files outside the images are kept at most, such as programs in memory. The probes
/// do not see how these files end, so the oldest entries are removed.
const MOST_ELSEWHERE: usize = 4096;

/// Whether an entry of `SEEN` matches nothing any more. `files` has the time of the first act, the device and the inode
/// number of each file, and `visits` the actors who came from outside.
fn is_stale(key: &SeenKey, files: &HashSet<(u64, u32, u64)>, visits: &HashSet<u64>) -> bool {
    !files.contains(&(key.first, key.dev, key.inode)) || is_visit(key.actor) && !visits.contains(&key.actor)
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

/// Makes a map have the keys that are wanted. `told` is what it was given before, `value` the value of a new key, if
/// there is room for one more, and `harm` says what it means if that cannot be added. Returns what was removed, and an
/// error if something could not be removed, which the next call tries again.
fn follow<K: Pod + Ord, V: Pod>(
    map: &mut HashMap<MapData, K, V>,
    name: &'static str,
    (told, wanted): (&mut BTreeMap<K, V>, &BTreeSet<K>),
    mut value: impl FnMut() -> Option<V>,
    harm: &str,
) -> (Vec<(K, V)>, Result<(), Error>) {
    let (mut removed, mut result) = (Vec::new(), Ok(()));
    told.retain(|key, value| {
        if wanted.contains(key) {
            return true;
        }
        match tolerate(map.remove(key)) {
            Ok(()) => removed.push((*key, *value)),
            Err(error) => {
                result = Err(failed(name, &error));
                return true;
            }
        }
        false
    });
    for key in wanted.iter().filter(|key| !told.contains_key(key)).copied().collect::<Vec<_>>() {
        let Some(value) = value() else { break };
        if let Err(error) = map.insert(key, value, BPF_ANY) {
            let error = failed(name, &error);
            tracing::warn!(%error, "{harm}");
            break;
        }
        told.insert(key, value);
    }
    (removed, result)
}

/// Turns the error into success if a key exists already or no longer exists.
fn tolerate(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::SyscallError(e))
            if matches!(e.io_error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) =>
        {
            Ok(())
        }
        Err(MapError::KeyNotFound) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use detector_common::map::{CLASS_CONTENT, HOST, NOBODY, visit};

    use super::*;

    #[test]
    fn what_is_about_another_file_or_an_ended_visit_is_stale() {
        let (here, gone) = (visit(1), visit(2));
        let files = [(10, 1, 7)].into();
        let visits = [here].into();
        for (first, actor, expected) in [
            (10, HOST, false),
            (10, 1234, false),
            (10, NOBODY, false),
            (10, here, false),
            (10, gone, true),
            // This was an earlier file with the same inode number.
            (9, HOST, true),
            (9, here, true),
        ] {
            let key = SeenKey { first, inode: 7, actor, dev: 1, class: CLASS_CONTENT };
            assert_eq!(is_stale(&key, &files, &visits), expected, "{key:?}");
        }
    }
}
