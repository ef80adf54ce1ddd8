//! The reader thread: ring buffer → event → container → finding. And, once a second: what was lost.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    os::{fd::AsFd as _, unix::ffi::OsStrExt as _},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
};
use detector_common::{
    map::{Loss, Seen, SeenKey},
    record::OP_MAP_EXEC,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{
    Counters, Error, Message, decode,
    examiner::{Answer, Examiner},
    host::{self, Host},
    maps::{self, Maps},
    probes::Attached,
    scan,
    selftest::Canary,
};
use crate::{
    container::{
        cgroup,
        table::{Container, Table},
    },
    detect::{self, Context, Detector, needs_content},
    event::{At, Cgroup, Event, File, ImageWrite, Origin},
    finding::{Finding, Line, Notice, NoticeEvent},
    redact::Redactor,
};

/// How long the thread sleeps at most: so often the loss counters are read, and so late a stop is noticed.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
/// How often losses are looked for.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// How long after a container's end its changed files are forgotten, all ended containers at once.
const SWEEP: Duration = Duration::from_secs(10);
/// Records handled before housekeeping gets its turn, however many there are.
const BATCH: usize = 4096;

/// What the reader works with.
pub(super) struct Setup {
    pub(super) maps: Arc<Maps>,
    pub(super) host: Host,
    pub(super) node: String,
    pub(super) redactor: Redactor,
    pub(super) counters: Arc<Counters>,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) canary: Arc<Canary>,
    pub(super) running: scan::Running,
    pub(super) attached: Vec<Attached>,
    #[cfg(feature = "probe-log")]
    pub(super) pass_on_log: Box<dyn FnMut() + Send>,
}

/// The reader thread's state.
pub(super) struct Reader<S> {
    setup: Setup,
    records: RingBuf<MapData>,
    table: Table,
    detector: Detector,
    examiner: Examiner,
    context: Context,
    sink: S,
    /// Loss counters as last reported.
    losses: [u64; Loss::ALL.len()],
    /// Records were lost when that was last looked at.
    was_lost: bool,
    /// Executed files that could not be looked into, as last reported.
    unexamined: u64,
    /// Records that could not be decoded, reported and not yet.
    garbage: u64,
    garbage_reported: u64,
    /// Calls at which the kernel skipped each program, in the order of the setup's, as last seen.
    misses: Vec<u64>,
    /// When that was: nanoseconds of `CLOCK_BOOTTIME`.
    misses_seen: u64,
    ended: HashSet<u64>,
    swept: Instant,
    kept_house: Instant,
}

impl<S: FnMut(Message)> Reader<S> {
    /// Takes the ring buffer out of the object.
    pub(super) fn new(ebpf: &mut Ebpf, setup: Setup, mut sink: S) -> Result<Self, Error> {
        let records = RingBuf::try_from(maps::raw(ebpf, "EVENTS")?)
            .map_err(|e| Error::Map { name: "EVENTS", why: e.to_string() })?;
        let mut table = Table::default();
        for found in &setup.running.containers {
            table.created(Cgroup { time: 0, id: found.container, path: found.cgroup_path.clone() });
            table.started(found.container, found.root_dev);
            let container = Container::new(found.container, found.cgroup_path.clone(), 0);
            sink(Message::Began(Box::new(detect::container(&container))));
        }
        let context = Context::new(setup.node.clone(), setup.host.boot_to_wall, setup.redactor.clone());
        let mut detector = Detector::default();
        for process in setup.running.containers.iter().flat_map(|found| &found.processes) {
            detector.remember(process.clone());
        }
        let now = Instant::now();
        Ok(Self {
            setup,
            records,
            table,
            detector,
            examiner: Examiner::start()?,
            context,
            sink,
            losses: [0; Loss::ALL.len()],
            was_lost: false,
            unexamined: 0,
            garbage: 0,
            garbage_reported: 0,
            misses: Vec::new(),
            misses_seen: host::boot_time(),
            ended: HashSet::new(),
            swept: now,
            kept_house: now,
        })
    }

    /// Runs until told to stop, then reads what is left.
    pub(super) fn run(mut self) {
        while !self.setup.stop.load(Ordering::Acquire) {
            self.wait();
            self.drain(BATCH);
            self.take_answers();
            if self.kept_house.elapsed() >= HOUSEKEEPING {
                self.keep_house();
            }
        }
        // What happens from now on is no longer told of: it might never end.
        let stopped = host::boot_time();
        while self.take_record().is_some_and(|time| time <= stopped) {}
        let since = Instant::now();
        while let Some(answer) = self.examiner.last_answer(since) {
            self.content_known(&answer);
        }
        self.keep_house();
    }

    /// Sleeps until there are records or answers, or for a tick.
    fn wait(&self) {
        let fds = [self.records.as_fd(), self.examiner.ready()];
        let mut fds = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        if let Err(error) = poll(&mut fds, Some(&TICK))
            && error != rustix::io::Errno::INTR
        {
            tracing::error!(%error, "waiting for records; trying again");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Handles up to `most` records.
    fn drain(&mut self, most: usize) {
        for _ in 0..most {
            if self.take_record().is_none() {
                return;
            }
        }
    }

    /// Handles the next record, and gives the time that it tells of; 0: it tells nothing.
    fn take_record(&mut self) -> Option<u64> {
        let record = self.records.next()?;
        let decoded = decode::decode(&record);
        drop(record);
        self.setup.counters.events.fetch_add(1, Ordering::Relaxed);
        match decoded {
            Ok(event) => {
                let time = event.time();
                self.handle(event);
                Some(time)
            }
            Err(error) => {
                if self.garbage == 0 {
                    tracing::error!(%error, "a record from the kernel cannot be read; more are only counted");
                }
                self.garbage += 1;
                Some(0)
            }
        }
    }

    /// Handles one event.
    fn handle(&mut self, mut event: Event) {
        if self.setup.canary.takes(&event) {
            return;
        }
        let host = &self.setup.host;
        if let Event::CgroupEscape(escape) = &mut event
            && escape.cgroup.is_empty()
        {
            escape.cgroup = scan::cgroup_path(host, escape.at.cgroup).unwrap_or_default();
        }
        let at = match (&event, event.at()) {
            (Event::CgroupCreated(cgroup), _) => {
                if cgroup::is_container(&cgroup.path) {
                    let container = Container::new(cgroup.id, cgroup.path.clone(), cgroup.time);
                    (self.sink)(Message::Began(Box::new(detect::container(&container))));
                }
                return self.table.created(cgroup.clone());
            }
            (Event::CgroupRemoved(cgroup), _) => {
                self.ended.insert(cgroup.id);
                return self.table.removed(cgroup);
            }
            (_, Some(at)) => at,
            (_, None) => return,
        };
        if let Event::Exec(exec) = &event
            && exec.process.origin == Origin::Entrypoint
            && let Some(root_dev) = self.setup.maps.root_dev(at.container)
        {
            self.table.started(at.container, root_dev);
        }
        let container = self.table.lookup(at.container, at.time, |id| scan::cgroup_path(host, id));
        let found = Self::finder(&self.setup.counters, &mut self.sink);
        self.detector.detect(&event, container, &mut self.context, found);
        if needs_content(&event) {
            let cgroup = || {
                let path = Path::new(std::ffi::OsStr::from_bytes(container.path.get(1..)?));
                host.hierarchy.as_ref().map(|hierarchy| hierarchy.mount.join(path))
            };
            if let Some(answer) = self.examiner.ask(event, cgroup) {
                self.content_known(&answer);
            }
        }
    }

    /// Handles what has been found out about executed files.
    fn take_answers(&mut self) {
        self.examiner.reset();
        while let Some(answer) = self.examiner.answer() {
            self.content_known(&answer);
        }
    }

    fn content_known(&mut self, answer: &Answer) {
        let Some(at) = answer.event.at() else { return };
        let host = &self.setup.host;
        let container = self.table.lookup(at.container, at.time, |id| scan::cgroup_path(host, id));
        let found = Self::finder(&self.setup.counters, &mut self.sink);
        self.detector.content_known(&answer.event, answer.content, container, &mut self.context, found);
    }

    /// Where findings go.
    fn finder<'a>(counters: &'a Counters, sink: &'a mut S) -> impl FnMut(Finding) + 'a {
        |finding| {
            counters.findings.fetch_add(1, Ordering::Relaxed);
            sink(Message::Line(Line::Finding(Box::new(finding))));
        }
    }

    /// Reports losses, picks up changes that found no room in the ring buffer, forgets what ended containers changed.
    fn keep_house(&mut self) {
        self.kept_house = Instant::now();
        #[cfg(feature = "probe-log")]
        (self.setup.pass_on_log)();
        if let Err(error) = self.report_losses() {
            tracing::error!(%error, "reading the loss counters");
        }
        if self.swept.elapsed() >= SWEEP && !self.ended.is_empty() {
            self.swept = Instant::now();
            if let Err(error) = self.setup.maps.forget_files(&std::mem::take(&mut self.ended)) {
                tracing::error!(%error, "forgetting the files of ended containers");
            }
        }
    }

    fn report_losses(&mut self) -> Result<(), Error> {
        let losses = self.setup.maps.losses()?;
        for kind in Loss::ALL {
            let count = losses[kind as usize] - self.losses[kind as usize];
            self.report_loss(kind.name(), count);
        }
        let is_lost =
            [Loss::ImageWrite, Loss::Exec].iter().any(|&kind| losses[kind as usize] != self.losses[kind as usize]);
        if losses[Loss::Cgroup as usize] != self.losses[Loss::Cgroup as usize] {
            self.look_for_removed();
        }
        self.losses = losses;
        self.report_loss("record", self.garbage - self.garbage_reported);
        self.garbage_reported = self.garbage;
        let unexamined = self.examiner.failures();
        self.report_loss("content", unexamined - self.unexamined);
        self.unexamined = unexamined;
        self.report_blindness()?;
        // The probes count first and keep what they counted then: what they had not kept yet is there the next time.
        if is_lost || self.was_lost {
            self.report_kept()?;
        }
        self.was_lost = is_lost;
        Ok(())
    }

    /// Finds out which cgroups are gone, after records of that were lost.
    fn look_for_removed(&mut self) {
        let (host, time) = (&self.setup.host, host::boot_time());
        let gone: Vec<_> = self.table.ids().filter(|&id| scan::cgroup_path(host, id).is_none()).collect();
        for id in gone {
            self.ended.insert(id);
            self.table.removed(&Cgroup { time, id, path: Vec::new() });
        }
    }

    /// Handles what found no room in the ring buffer, and was kept in maps.
    fn report_kept(&mut self) -> Result<(), Error> {
        let execs = self.setup.maps.take_kept_execs()?;
        let execs = execs.iter().map(|(key, kept)| decode::kept_exec(key.container, kept));
        let changes = self.setup.maps.take_unreported()?;
        let changes = changes.iter().map(|(key, seen)| unreported(key, seen));
        for event in execs.chain(changes) {
            match event {
                Ok(event) => self.handle(event),
                Err(error) => tracing::error!(%error, "what the probes kept for lack of room cannot be read"),
            }
        }
        Ok(())
    }

    /// Reports calls that the kernel has skipped a program for.
    fn report_blindness(&mut self) -> Result<(), Error> {
        let misses = self.setup.attached.iter().map(Attached::misses).collect::<io::Result<Vec<_>>>();
        let misses = misses.map_err(|source| Error::System { what: "asking for skipped calls", source })?;
        let before = std::mem::replace(&mut self.misses, misses);
        let (from, until) = (self.misses_seen, host::boot_time());
        self.misses_seen = until;
        let counts = self.misses.iter().zip(before.iter().chain(std::iter::repeat(&0)));
        let skipped: BTreeMap<_, _> = self
            .setup
            .attached
            .iter()
            .zip(counts)
            .filter(|(_, (now, before))| now > before)
            .map(|(attached, (now, before))| (attached.program.into(), now - before))
            .collect();
        if !skipped.is_empty() {
            self.setup.counters.lost.fetch_add(skipped.values().sum(), Ordering::Relaxed);
            let event =
                NoticeEvent::BlindWindow { from: self.context.wall(from), until: self.context.wall(until), skipped };
            (self.sink)(Message::Line(Line::Notice(Notice::now(self.setup.node.clone(), event))));
        }
        Ok(())
    }

    fn report_loss(&mut self, kind: &'static str, count: u64) {
        if count > 0 {
            self.setup.counters.lost.fetch_add(count, Ordering::Relaxed);
            let event = NoticeEvent::Loss { kind: kind.into(), count };
            (self.sink)(Message::Line(Line::Notice(Notice::now(self.setup.node.clone(), event))));
        }
    }
}

/// The event of a change whose record was lost: what the kernel kept of it.
fn unreported(key: &SeenKey, seen: &Seen) -> Result<Event, decode::DecodeError> {
    let at = At { time: seen.first, cgroup: key.container, container: key.container };
    let layer = decode::layer(seen.layer)?;
    let file = File { inode: key.inode, dev: key.dev, mode: 0, nlink: 1, layer, size: 0, magic: 0 };
    if seen.op == OP_MAP_EXEC {
        return Ok(Event::KeptMapExec(at, file));
    }
    Ok(Event::ImageWrite(Box::new(ImageWrite {
        at,
        process: None,
        file,
        op: decode::op(seen.op)?,
        bytes: seen.bytes,
        path: None,
        new_path: None,
        exe: None,
    })))
}
