//! Where the ledger is told what happens. Whoever tells it never waits: what the ledger has no time for is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;

use bytes::Bytes;
use crossbeam_channel::Receiver;

use crate::finding::{Container, Finding, Kind, Line, Loss, Notice, NoticeEvent, Time};
use crate::queue;

/// How much can wait. Most of it is lines that wait for the output, too, and share their memory.
const QUEUE: usize = 8192;

/// Something that the ledger is told.
#[derive(Debug)]
pub(super) enum Told {
    /// A line, as it is in the output.
    Line(Bytes),
    /// A finding that is not in the output, because an exception has suppressed it.
    Suppressed(Box<Finding>),
    /// A container runs, at the latest since this time.
    Runs(Box<Container>, Time),
    /// What a runtime tells about a container.
    Known(Box<Container>),
    /// The cgroup with this id was removed at this time.
    Removed(u64, Time),
    /// All containers that ran when the detector started have been told.
    Scanned,
    /// Everything told so far shall be on the disk. Then the sender is dropped.
    Flush(mpsc::Sender<()>),
    /// The same, and nothing will follow. The sender is dropped when the ledger is closed.
    Close(mpsc::Sender<()>),
}

/// Takes what the ledger is told. The default one tells nobody.
#[derive(Clone, Debug, Default)]
pub struct Inlet(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    queue: queue::Sender<Told>,
    lost: AtomicU64,
}

/// The other end of an inlet.
#[derive(Debug)]
pub(super) struct Outlet {
    pub(super) queue: Receiver<Told>,
    shared: std::sync::Weak<Shared>,
}

/// An inlet and its other end.
pub(super) fn channel() -> (Inlet, Outlet) {
    let (sender, queue) = queue::bounded(QUEUE);
    let shared = Arc::new(Shared { queue: sender, lost: AtomicU64::new(0) });
    let outlet = Outlet { queue, shared: Arc::downgrade(&shared) };
    (Inlet(Some(shared)), outlet)
}

impl Outlet {
    /// How much was not told since the last time, because the queue was full.
    pub(super) fn take_lost(&self) -> u64 {
        self.shared.upgrade().map_or(0, |shared| shared.lost.swap(0, Relaxed))
    }
}

impl Inlet {
    /// Tells a line, which is serialised already, if it says something about how a container differs from its image.
    pub(crate) fn line(&self, line: &Line, serialised: &Bytes) {
        if self.0.is_some() && concerns(line) {
            self.tell(|| Told::Line(serialised.clone()));
        }
    }

    /// Tells a finding that is not in the output, because an exception has suppressed it.
    pub(crate) fn suppressed(&self, finding: &Finding) {
        if concerns_finding(finding) {
            self.tell(|| Told::Suppressed(Box::new(finding.clone())));
        }
    }

    /// Tells that a container runs, at the latest since this time.
    pub(crate) fn runs(&self, container: &Container, time: Time) {
        self.tell(|| Told::Runs(Box::new(container.clone()), time));
    }

    /// Tells what a runtime tells about a container.
    pub(crate) fn known(&self, container: &Container) {
        self.tell(|| Told::Known(Box::new(container.clone())));
    }

    /// Tells that a cgroup was removed, which can be that of a container.
    pub(crate) fn removed(&self, cgroup_id: u64) {
        self.tell(|| Told::Removed(cgroup_id, Time(jiff::Timestamp::now())));
    }

    /// Tells that all containers were told that ran when the detector started.
    pub(crate) fn scanned(&self) {
        self.tell(|| Told::Scanned);
    }

    /// How much waits.
    pub(super) fn waiting(&self) -> usize {
        self.0.as_ref().map_or(0, |shared| shared.queue.len())
    }

    /// Asks for something with the sender of a channel. Returns the receiver, which ends when it is done. If the queue
    /// is full, that is at once.
    pub(super) fn ask(&self, request: impl FnOnce(mpsc::Sender<()>) -> Told) -> mpsc::Receiver<()> {
        let (sender, receiver) = mpsc::channel();
        if let Some(shared) = &self.0 {
            let _ = shared.queue.try_send(request(sender));
        }
        receiver
    }

    fn tell(&self, told: impl FnOnce() -> Told) {
        if let Some(shared) = &self.0
            && shared.queue.try_send(told()).is_err()
        {
            shared.lost.fetch_add(1, Relaxed);
        }
    }
}

/// Whether a line is about what the ledger keeps.
fn concerns(line: &Line) -> bool {
    match line {
        Line::Finding(finding) => concerns_finding(finding),
        Line::Notice(Notice { event, .. }) => match event {
            NoticeEvent::Loss { kind, .. } => hides_changes(*kind),
            NoticeEvent::BlindWindow { .. }
            | NoticeEvent::Started { .. }
            | NoticeEvent::Stopped { .. }
            | NoticeEvent::Unwatched { .. }
            | NoticeEvent::Watched { .. }
            | NoticeEvent::FileHash { .. }
            | NoticeEvent::ContainerInfo { .. } => true,
            _ => false,
        },
    }
}

fn concerns_finding(finding: &Finding) -> bool {
    let is_kept = matches!(finding.finding, Kind::ImageWrite | Kind::ImageShadowed | Kind::DriftedExec | Kind::Session);
    is_kept && finding.container.is_some()
}

/// Whether changes of images, or executions of what was changed, can be missing after a loss of this kind.
fn hides_changes(kind: Loss) -> bool {
    match kind {
        Loss::RootsFull
        | Loss::Script
        | Loss::Call
        | Loss::KeptExecsFull
        | Loss::LoadersFull
        | Loss::Record
        | Loss::Ledger => true,
        // The change or the exec is reported late, with less detail, or something else is lost.
        Loss::Exec
        | Loss::ImageWrite
        | Loss::Cgroup
        | Loss::SeenFull
        | Loss::CgroupsFull
        | Loss::EnteredFull
        | Loss::CgroupEscape
        | Loss::Tampering
        | Loss::Exit
        | Loss::SessionProcesses
        | Loss::Listen
        | Loss::Accept
        | Loss::Content
        | Loss::Client
        | Loss::Forward
        | Loss::Output
        | Loss::ContentRemote
        | Loss::ContentTooLarge
        | Loss::ContentQueueFull
        | Loss::ContentTimedOut
        | Loss::SessionsFull => false,
    }
}
