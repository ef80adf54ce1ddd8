//! What is the same in all findings of a node, and how ids are made.

use super::process::TICK;
use crate::event::{At, Session};
use crate::finding::{Kind, Node, Time};
use crate::redact::Redactor;

/// What findings need to know about the node and about time.
#[derive(Clone, Debug)]
pub struct Context {
    pub(super) node: Node,
    /// The beginning of all ids of this boot of this node.
    id_prefix: u64,
    boot_to_wall: i64,
    pub(super) redactor: Redactor,
}

impl Context {
    /// The context of a boot of a node. `boot_id` is the kernel's `/proc/sys/kernel/random/boot_id`, `boot_to_wall` is
    /// the number of nanoseconds by which the wall clock is ahead of `CLOCK_BOOTTIME`, and `redactor` knows the secrets
    /// in arguments.
    pub fn new(node: Node, boot_id: &str, boot_to_wall: i64, redactor: Redactor) -> Self {
        let id_prefix = fnv1a(node.name.bytes().chain([0]).chain(boot_id.bytes())) >> 16;
        Self { node, id_prefix, boot_to_wall, redactor }
    }

    /// Sets by how many nanoseconds the wall clock is ahead of `CLOCK_BOOTTIME`. This changes when the clock is set or
    /// drifts.
    pub(crate) fn set_boot_to_wall(&mut self, boot_to_wall: i64) {
        self.boot_to_wall = boot_to_wall;
    }

    /// The wall clock's time at `boot` nanoseconds of `CLOCK_BOOTTIME`.
    pub(crate) fn wall(&self, boot: u64) -> Time {
        Time::from_nanoseconds(self.wall_nanoseconds(boot))
    }

    /// The same time, in nanoseconds since 1970.
    pub(super) fn wall_nanoseconds(&self, boot: u64) -> i128 {
        i128::from(boot) + i128::from(self.boot_to_wall)
    }

    /// The id of the finding of a kind about an event. [`Finding::id`](crate::finding::Finding::id) describes its
    /// parts.
    pub(super) fn id(&self, at: At, kind: Kind) -> String {
        // The upper 16 bits of the number are the CPU. The id is shorter if they come after the count.
        let number = at.number.rotate_left(16);
        self.compose_id(at.time, number, kind)
    }

    /// The id of the finding of a session. It is the same whether the kernel or /proc has told when the first process
    /// started.
    pub(super) fn session_id(&self, session: Session) -> String {
        self.compose_id(session.start_time / TICK * TICK, session.pid.into(), Kind::Session)
    }

    fn compose_id(&self, time: u64, number: u64, kind: Kind) -> String {
        format!("{:012x}-{time:016x}-{number:x}-{:x}", self.id_prefix, kind as u8)
    }
}

/// The 64-bit FNV-1a hash. It is the same in every version of this program, unlike the hashes of the standard library.
fn fnv1a(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
