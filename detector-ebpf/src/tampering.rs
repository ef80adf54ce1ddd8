//! Processes that change the maps of the sensor.

use aya_ebpf::{
    Global,
    bindings::BPF_NOEXIST,
    macros::map,
    maps::{HashMap, LruHashMap},
};
use detector_common::{
    map::Tamperer,
    record::{Kind, MapChangeRecord},
    vocabulary::{Loss, MapCommand},
};

use crate::{
    container,
    emit::{Draft, Stamp},
    kernel::{BpfAttributes, Task, current_process},
    mem::Word,
    process,
};

/// The process of the sensor (thread group id). Its own changes are not reported.
#[unsafe(no_mangle)]
static SENSOR: Global<u32> = Global::new(0);

/// The maps of the sensor, by their ids. The loader puts them here.
#[map]
static OWN_MAPS: HashMap<u32, u32> = HashMap::with_max_entries(128, 0);

/// The processes that were reported.
#[map]
static TAMPERERS: LruHashMap<Tamperer, u32> = LruHashMap::with_max_entries(1_024, 0);

/// The address of `bpf_map_fops` (kernel/bpf/syscall.c), which is the `f_op` of every descriptor of a map. It is learnt
/// from the first change that the sensor itself makes.
static MAP_OPERATIONS: Word = Word::new(0);

/// The offsets of the map's descriptor in `union bpf_attr` (include/uapi/linux/bpf.h): for a command on one entry, and
/// for one on many.
const MAP_FD: u64 = 0;
const BATCH_MAP_FD: u64 = 36;

/// Reports a call of bpf(2) if it changes a map of the sensor.
#[inline(always)]
pub fn report_call(command: u32, attributes: BpfAttributes) {
    let at = match MapCommand::from_number(command) {
        None => return,
        Some(MapCommand::TakeBatch | MapCommand::UpdateBatch | MapCommand::DeleteBatch) => BATCH_MAP_FD,
        Some(MapCommand::Update | MapCommand::Delete | MapCommand::Take | MapCommand::Freeze) => MAP_FD,
    };
    let task = Task::current();
    let file = task.descriptor(attributes.number(at));
    if current_process() == SENSOR.load() {
        MAP_OPERATIONS.set(file.operations());
        container::learn_namespaces(task);
        return;
    }
    let map = file.map();
    let id = map.id();
    if file.operations() != MAP_OPERATIONS.get() || OWN_MAPS.get_ptr(id).is_none() {
        return;
    }
    let tamperer =
        Tamperer { start_time: task.leader().start_time(), pid: current_process(), map: id, command, reserved: 0 };
    if TAMPERERS.insert(tamperer, 1, BPF_NOEXIST.into()).is_err() {
        return;
    }
    let owner = container::responsible(task);
    let (container, origin) = container::register_actor(task, owner, 0);
    let (stamp, cgroup) = (Stamp::take(), task.cgroup_id());
    let Some(mut draft) = Draft::<MapChangeRecord>::begin(Kind::MapChange, stamp, cgroup, container, Loss::MapChange)
    else {
        return;
    };
    let (record, texts) = draft.parts();
    process::describe(task, origin.number(), container, &mut record.process);
    task.executable().place().resolve(task.root(), &mut record.exe, texts);
    record.command = command;
    record.map = id;
    map.copy_name(&mut record.name);
    // If it is not sent, the loss is counted.
    let _is_sent = draft.send();
}
