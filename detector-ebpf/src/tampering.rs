//! Processes that change the maps of the sensor, or act on its process.

use aya_ebpf::{
    EbpfContext, Global,
    bindings::BPF_NOEXIST,
    macros::map,
    maps::{HashMap, LruHashMap, PerCpuArray},
};
use detector_common::{
    map::Tamperer,
    record::{Kind, TamperingRecord},
    vocabulary::{Loss, MapCommand, TamperingAct},
};

use crate::{
    container,
    emit::{Draft, Stamp, count_loss},
    image::report::{REPORTERS, TAMPERING},
    kernel::{BpfAttributes, BpfMap, Task, current_process},
    mem::Word,
    process,
};

/// The process of the sensor (thread group id). What it does itself is not reported.
#[unsafe(no_mangle)]
static SENSOR: Global<u32> = Global::new(0);

/// The maps of the sensor, by their ids. The loader puts them here.
#[map]
static OWN_MAPS: HashMap<u32, u32> = HashMap::with_max_entries(128, 0);

/// The processes that were reported.
#[map]
static TAMPERERS: LruHashMap<Tamperer, u32> = LruHashMap::with_max_entries(1_024, 0);

/// The act that a kprobe passes to the program that reports it. See `CHANGE` (`image/report.rs`).
#[map]
static ACT: PerCpuArray<Act> = PerCpuArray::with_max_entries(1, 0);

/// An act to report.
#[repr(C)]
struct Act {
    act: TamperingAct,
    /// The `value` of the record.
    value: u32,
    /// The map, or null.
    map: BpfMap,
}

/// The address of `bpf_map_fops` (kernel/bpf/syscall.c), which is the `f_op` of every descriptor of a map. It is learnt
/// from the first change that the sensor itself makes.
static MAP_OPERATIONS: Word = Word::new(0);

/// The offsets of the map's descriptor in `union bpf_attr` (include/uapi/linux/bpf.h): for a command on one entry, and
/// for one on many.
const MAP_FD: u64 = 0;
const BATCH_MAP_FD: u64 = 36;

/// The signals that neither stop nor end the sensor, because they do nothing by default or the sensor handles them: 0
/// (no signal), SIGHUP, SIGUSR1, SIGUSR2, SIGPIPE, SIGCHLD, SIGCONT, SIGURG and SIGWINCH.
const HARMLESS: u64 = 1 | 1 << 1 | 1 << 10 | 1 << 12 | 1 << 13 | 1 << 17 | 1 << 18 | 1 << 23 | 1 << 28;

/// Bits of `mode` of `ptrace_may_access` (include/linux/ptrace.h): the caller wants more than to read, and it is a
/// system call that does so with its real credentials.
const PTRACE_MODE_ATTACH: u32 = 0x02;
const PTRACE_MODE_REALCREDS: u32 = 0x10;

/// Reports a call of bpf(2) if it changes a map of the sensor. The caller must call this last, as for the functions
/// below.
#[inline(always)]
pub fn called(context: &impl EbpfContext, command: u32, attributes: BpfAttributes) {
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
    if file.operations() == MAP_OPERATIONS.get() && OWN_MAPS.get_ptr(map.id()).is_some() {
        hand_over(context, Act { act: TamperingAct::MapChange, value: command, map });
    }
}

/// Reports a signal that stops or ends the sensor. The parent of the sensor is its service manager, which may do so.
#[inline(always)]
pub fn signalled(context: &impl EbpfContext, receiver: Task, signal: u32) {
    if signal < u64::BITS && HARMLESS >> signal & 1 != 0 || receiver.process() != SENSOR.load() {
        return;
    }
    if current_process() != receiver.parent().process() {
        report_other(context, TamperingAct::Signal, signal);
    }
}

/// Reports a process that asks for more than to read the state of the sensor.
#[inline(always)]
pub fn accessed(context: &impl EbpfContext, target: Task, mode: u32) {
    if mode & PTRACE_MODE_ATTACH == 0 || target.process() != SENSOR.load() {
        return;
    }
    let act = if mode & PTRACE_MODE_REALCREDS != 0 { TamperingAct::Trace } else { TamperingAct::Memory };
    report_other(context, act, 0);
}

/// Reports what a process that is not the sensor does.
#[inline(always)]
fn report_other(context: &impl EbpfContext, act: TamperingAct, value: u32) {
    if current_process() != SENSOR.load() {
        hand_over(context, Act { act, value, map: BpfMap::NULL });
    }
}

/// Calls the program that reports an act. It returns only if that fails.
#[inline(always)]
fn hand_over(context: &impl EbpfContext, act: Act) {
    let Some(place) = ACT.get_ptr_mut(0) else { return };
    // SAFETY: the pointer is to the element of this CPU, which nothing else uses until the called program does. The
    // call gives up the stack, of which nothing is borrowed.
    unsafe {
        place.write(act);
        REPORTERS.tail_call(context, TAMPERING);
    }
    count_loss(Loss::Call);
}

/// Reports the act that a kprobe has handed over.
#[inline(always)]
pub fn take_over() {
    // The element is a valid `Act`, because this program runs only after a kprobe has written it.
    let Some(&Act { act, value, map }) = ACT.get(0) else { return };
    let task = Task::current();
    let tamperer = Tamperer {
        start_time: task.leader().start_time(),
        pid: current_process(),
        map: map.id(),
        act: act.number(),
        value,
    };
    if TAMPERERS.insert(tamperer, 1, BPF_NOEXIST.into()).is_err() {
        return;
    }
    let owner = container::responsible(task);
    let (container, origin) = container::register_actor(task, owner, 0);
    let (stamp, cgroup) = (Stamp::take(), task.cgroup_id());
    let Some(mut draft) = Draft::<TamperingRecord>::begin(Kind::Tampering, stamp, cgroup, container, Loss::Tampering)
    else {
        return;
    };
    let (record, texts) = draft.parts();
    process::describe(task, origin.number(), container, &mut record.process);
    task.executable().place().resolve(task.root(), &mut record.exe, texts);
    record.act = act.number();
    record.value = value;
    map.copy_name(&mut record.map);
    // If it is not sent, the loss is counted.
    let _is_sent = draft.send();
}
