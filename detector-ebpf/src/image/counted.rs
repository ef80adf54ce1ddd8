//! Files that are created so often that they are counted and not reported. User space decides which, by what it has
//! been told of the first ones: [`CountedKey`].

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap},
};
use detector_common::map::{Count, CountedKey, LONGEST_COUNTED, MOST_COUNTED, POWER, suffix};

use super::report::Change;
use crate::{
    kernel::{Dentry, Task},
    mem::Counter,
};

/// Which files are counted, and the index of their count. Only the daemon changes this.
#[map]
static COUNTED: HashMap<CountedKey, u32> = HashMap::with_max_entries(MOST_COUNTED, 0);

/// How many files were counted.
#[map]
static COUNTS: Array<Count> = Array::with_max_entries(MOST_COUNTED, 0);

/// One element: whether `COUNTED` has any. 0 means no. Only the daemon changes this.
#[map]
static COUNTING: Array<u32> = Array::with_max_entries(1, 0);

/// Counts a change at this time by the running process, which acts in a container and has an origin there. Returns
/// whether it must not be reported.
///
/// Only regular files are counted that nobody can execute, and that the container itself creates. What is done to them
/// later is reported as for any other file.
#[inline(always)]
pub fn count(change: &Change, task: Task, actor: u64, container: u64, origin: u32, time: u64) -> bool {
    if !matches!(COUNTING.get(0), Some(any) if *any != 0) || change.is_new == 0 || actor != container {
        return false;
    }
    if !change.inode.is_regular() || change.inode.mode() & POWER != 0 {
        return false;
    }
    let Some(suffix) = suffix_of(change.dentry) else { return false };
    let program = task.executable().inode();
    let key = CountedKey {
        container,
        directory: change.dentry.parent().inode().number(),
        program: program.number(),
        suffix,
        dev: change.device,
        program_dev: program.device(),
        uid: task.credentials().user(),
        origin,
    };
    let Some(index) = COUNTED.get_ptr(key) else { return false };
    // SAFETY: the pointer is to a live element, which is aligned to 4. If it is used for another key by now, the file
    // is counted as one of those.
    let Some(count) = COUNTS.get_ptr_mut(unsafe { index.read_volatile() }) else { return false };
    // SAFETY: the pointers are to members of a live element, which are aligned to 8.
    let [files, last] = unsafe { [&raw mut (*count).files, &raw mut (*count).last].map(|at| Counter::new(at)) };
    files.add(1);
    last.set(time);
    true
}

/// Returns what the name has in common with those that it is counted with.
#[inline(always)]
fn suffix_of(dentry: Dentry) -> Option<u64> {
    // There is room for a NUL and more, so that a name that is too long has too many bytes.
    let ([a, b, c, d, _], len) = dentry.name().words::<{ LONGEST_COUNTED / 8 + 1 }>();
    suffix([a, b, c, d].map(u64::from_le), dentry.end_of_name(), len?)
}
