//! Joins findings with the metadata of their containers. It does no I/O and reads no clock: the caller queries the
//! runtimes and sets the timers.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::id::Id;
use super::images::Images;
use super::metadata::Metadata;
use crate::finding::{Container, File, Finding, Image, Reason, Sha256, Time, Unread};
use crate::recent::Recent;

/// For how many queried containers the metadata is remembered at most. At least half as many are always remembered.
const MAX_SETTLED: usize = 8192;
/// About how many containers the runtimes are queried at the same time. Findings about further ones do not wait.
const MAX_PENDING: usize = 4096;
/// How many findings can wait at the same time.
const MAX_WAITING: usize = 4096;

/// Identifies a container in queries.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Key {
    /// The container's id.
    pub(super) id: Id,
    /// The ordinary user whose runtime is queried. Its answers are used only for that user's containers, even if
    /// another container has the same id.
    pub(super) user: Option<u32>,
}

/// The output of a join.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Out {
    /// A finding with the metadata that is known.
    Finding(Box<Finding>),
    /// Metadata that became known after findings about the container were published without it, and when.
    Info(Box<Container>, Time),
}

/// What the caller must do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Todo {
    /// Query the runtimes about the container, and then call [`Join::settle`] or [`Join::forget`].
    pub(super) query: bool,
    /// Call [`Join::release`] when a finding has waited long enough.
    pub(super) timer: bool,
}

/// The containers that were queried, and the findings that wait for metadata.
#[derive(Debug)]
pub(super) struct Join {
    settled: Recent<Key, Settled>,
    pending: BTreeMap<Key, Pending>,
    waiting: usize,
    images: Images,
}

/// A container whose query is finished.
#[derive(Debug)]
struct Settled {
    /// The id of its cgroup, if its start was observed.
    cgroup: Option<u64>,
    /// The metadata, or `None` if no runtime knows the container.
    metadata: Option<Arc<Metadata>>,
}

/// A container whose query is running.
#[derive(Debug, Default)]
struct Pending {
    cgroup: Option<u64>,
    /// The waiting findings, in the order of their arrival.
    waiting: Vec<Finding>,
    /// Findings about this container no longer wait.
    is_over: bool,
    /// The container as the last finding that did not wait describes it.
    told: Option<Container>,
}

impl Default for Join {
    fn default() -> Self {
        Self { settled: Recent::new(MAX_SETTLED), pending: BTreeMap::new(), waiting: 0, images: Images::default() }
    }
}

impl Join {
    /// Starts a query about a container that has just started, so that its metadata is there when a finding needs it. A
    /// restarted container is queried again, because it may have a new name.
    pub(super) fn start_query(&mut self, key: &Key, cgroup: u64) -> Todo {
        if self.settled.get(key).is_some_and(|settled| settled.cgroup == Some(cgroup)) {
            return Todo::default();
        }
        self.settled.remove(key);
        match self.pending(key) {
            Some((pending, is_new)) => {
                pending.cgroup = Some(cgroup);
                Todo { query: is_new, timer: false }
            }
            None => Todo::default(),
        }
    }

    /// Adds a finding about the container.
    pub(super) fn add_finding(&mut self, key: &Key, mut finding: Box<Finding>, out: &mut dyn FnMut(Out)) -> Todo {
        if let Some(settled) = self.settled.get(key) {
            if let Some(metadata) = &settled.metadata {
                fill(metadata, key, &mut self.images, &mut finding);
            }
            out(Out::Finding(finding));
            return Todo::default();
        }
        let is_full = self.waiting >= MAX_WAITING;
        let Some((pending, is_new)) = self.pending(key) else {
            out(Out::Finding(finding));
            return Todo::default();
        };
        let timer = pending.waiting.is_empty() && !pending.is_over;
        pending.waiting.push(*finding);
        let is_over = pending.is_over || is_full;
        self.waiting += 1;
        if is_over {
            self.release(key, out);
        }
        Todo { query: is_new, timer: timer && !is_over }
    }

    /// Adds the hash of a file, or why there is none, to the lines of this finding that wait. Returns whether there are
    /// any.
    pub(super) fn add_hash(&mut self, key: &Key, finding: &str, hash: (Option<Sha256>, Option<Unread>)) -> bool {
        let mut are_any = false;
        let waiting = self.pending.get_mut(key).into_iter().flat_map(|pending| &mut pending.waiting);
        for file in waiting.filter(|waiting| waiting.id == finding).filter_map(|waiting| waiting.file.as_mut()) {
            (file.sha256, file.unhashed) = hash;
            are_any = true;
        }
        are_any
    }

    /// The metadata of the container, if it is known already.
    pub(super) fn metadata(&mut self, key: &Key) -> Option<&Metadata> {
        self.settled.get(key)?.metadata.as_deref()
    }

    /// The answer about the container, if there is one already: the metadata, or `None` if no runtime knows it.
    pub(super) fn answer(&mut self, key: &Key) -> Option<Option<Arc<Metadata>>> {
        self.settled.get(key).map(|settled| settled.metadata.clone())
    }

    /// Publishes the waiting findings about this container; later ones do not wait.
    pub(super) fn release(&mut self, key: &Key, out: &mut dyn FnMut(Out)) {
        let Some(pending) = self.pending.get_mut(key) else { return };
        pending.is_over = true;
        self.waiting -= pending.waiting.len();
        for finding in pending.waiting.drain(..) {
            pending.told.clone_from(&finding.container);
            out(Out::Finding(Box::new(finding)));
        }
    }

    /// Publishes all waiting findings.
    pub(super) fn release_all(&mut self, out: &mut dyn FnMut(Out)) {
        let keys: Vec<_> = self.pending.keys().cloned().collect();
        keys.iter().for_each(|key| self.release(key, out));
    }

    /// Stores the answer that the runtimes gave at this time, which is `None` if none of them knows the container.
    pub(super) fn settle(&mut self, key: &Key, metadata: Option<Metadata>, time: Time, out: &mut dyn FnMut(Out)) {
        let metadata = metadata.map(Arc::new);
        let Some(pending) = self.pending.remove(key) else { return };
        self.waiting -= pending.waiting.len();
        for mut finding in pending.waiting {
            if let Some(metadata) = &metadata {
                fill(metadata, key, &mut self.images, &mut finding);
            }
            out(Out::Finding(Box::new(finding)));
        }
        if let (Some(metadata), Some(mut container)) = (&metadata, pending.told) {
            metadata.fill(&mut container);
            out(Out::Info(Box::new(container), time));
        }
        self.settled.insert(key.clone(), Settled { cgroup: pending.cgroup, metadata });
    }

    /// Forgets the containers without a finding since the last call.
    pub(super) fn age(&mut self) {
        self.settled.age();
    }

    /// Ends a query without an answer. The next finding about the container starts a new one.
    pub(super) fn forget(&mut self, key: &Key, out: &mut dyn FnMut(Out)) {
        self.release(key, out);
        self.pending.remove(key);
    }

    /// The running query about the container, and whether it is a new one. Returns `None` if too many are running.
    fn pending(&mut self, key: &Key) -> Option<(&mut Pending, bool)> {
        let is_full = self.pending.len() >= MAX_PENDING;
        match self.pending.entry(key.clone()) {
            Entry::Occupied(entry) => Some((entry.into_mut(), false)),
            Entry::Vacant(_) if is_full => None,
            Entry::Vacant(entry) => Some((entry.insert(Pending::default()), true)),
        }
    }
}

fn fill(metadata: &Metadata, key: &Key, images: &mut Images, finding: &mut Finding) {
    metadata.judge(finding.visit.as_deref(), &mut finding.severity, &mut finding.expected);
    if let (Some(image), Some(typical)) = (&metadata.image, &finding.typical)
        && images.expect(key, image, typical)
    {
        finding.expect(Reason::Image);
    }
    if let Some(container) = &mut finding.container {
        metadata.fill(container);
    }
    if let (Some(image), Some(file)) = (&metadata.image, &mut finding.file) {
        file.declared_volume = is_in_volume(image, file);
    }
}

/// Whether the file is in a volume that the image declares, or `None` if the volumes or the path are not known.
fn is_in_volume(image: &Image, file: &File) -> Option<bool> {
    let path = file.path.as_ref().filter(|_| !file.truncated)?.as_str();
    let is_below =
        |volume: &str| path.strip_prefix(volume).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    Some(image.volumes.as_ref()?.iter().any(|volume| is_below(volume.as_str().trim_end_matches('/'))))
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;
    use crate::detect::samples;
    use crate::event::{Event, ImageOp, Layer};
    use crate::finding::{Expected, Severity, Typical, Visit};

    const TIME: Time = Time(jiff::Timestamp::UNIX_EPOCH);

    fn key() -> Key {
        Key { id: Id::new(samples::ID).expect("it is one"), user: None }
    }

    fn finding(path: &str) -> Box<Finding> {
        let change = samples::change(ImageOp::Create, Layer::New, 0o100644, path);
        Box::new(samples::found(Event::ImageChange(Box::new(change))).expect("it is a finding"))
    }

    fn metadata(name: &str) -> Metadata {
        let volumes = Some(vec![b"/data/"[..].into(), b"/srv"[..].into()]);
        let image = Some(Image { volumes, ..Image::default() });
        Metadata { name: Some(name.as_bytes().into()), image, ..Metadata::default() }
    }

    #[test]
    fn only_the_answer_of_a_runtime_makes_a_health_check() {
        let visit = || Visit { args: vec![b"check".to_vec()], scripts: 0, is_steady: false };
        let told = |command: &str| {
            let health_check = Some(vec![command.to_owned()]);
            Metadata { health_check, ..metadata("web") }
        };
        for (answer, is_expected) in
            [(Some(told("check")), true), (Some(told("other")), false), (Some(metadata("web")), false), (None, false)]
        {
            let (mut join, mut out) = (Join::default(), Vec::new());
            let found = |path| Box::new(Finding { visit: Some(Arc::new(visit())), ..*finding(path) });
            join.add_finding(&key(), found("/a"), &mut |line| out.push(line));
            join.add_finding(&key(), finding("/other"), &mut |line| out.push(line));
            join.settle(&key(), answer, TIME, &mut |line| out.push(line));
            join.add_finding(&key(), found("/b"), &mut |line| out.push(line));
            let expected: Vec<_> = out
                .iter()
                .map(|out| match out {
                    Out::Finding(finding) => finding.expected.map(|expected| (expected, finding.severity)),
                    Out::Info(..) => panic!("{out:?}"),
                })
                .collect();
            let of_check = Expected { reason: Reason::HealthCheck, otherwise: Severity::Medium };
            let of_check = is_expected.then_some((of_check, Severity::Info));
            assert_eq!(expected, [of_check, None, of_check]);
        }
        // What does not wait for the answer is not expected.
        let (mut join, mut out) = (Join::default(), Vec::new());
        let found = Box::new(Finding { visit: Some(Arc::new(visit())), ..*finding("/a") });
        join.add_finding(&key(), found, &mut |line| out.push(line));
        join.release(&key(), &mut |line| out.push(line));
        assert!(matches!(&out[..], [Out::Finding(finding)] if finding.expected.is_none()));
    }

    #[test]
    fn only_the_answer_of_a_runtime_tells_the_image() {
        let image = || Some(Image { digest: Some(b"sha256:1"[..].into()), ..Image::default() });
        let key = |nth: u64| Key { id: Id::new(&format!("{nth:064x}")).expect("it is one"), user: None };
        let found = |nth: u64| {
            let time = nth * 100_000_000_000;
            Box::new(Finding {
                typical: Some(Box::new(Typical { acts: vec![7], started: time, time })),
                ..*finding("/srv/state")
            })
        };
        let is_expected = |out: Vec<Out>| {
            let [Out::Finding(finding)] = &out[..] else { panic!("{out:?}") };
            let expected = Expected { reason: Reason::Image, otherwise: Severity::Medium };
            assert!(finding.expected.is_none_or(|reason| reason == expected && finding.severity == Severity::Info));
            finding.expected.is_some()
        };
        let mut join = Join::default();
        let mut take = |nth: u64, answer: Option<Option<Metadata>>| {
            let mut out = Vec::new();
            join.add_finding(&key(nth), found(nth), &mut |it| out.push(it));
            match answer {
                Some(answer) => join.settle(&key(nth), answer, TIME, &mut |it| out.push(it)),
                None => join.release(&key(nth), &mut |it| out.push(it)),
            }
            is_expected(out)
        };
        let told = || Some(Some(Metadata { image: image(), ..Metadata::default() }));
        // One does not wait for the answer, and no runtime knows another one.
        let answers = [told(), None, Some(None), Some(Some(Metadata::default())), told(), told(), None, told()];
        let expected = answers.into_iter().zip(1..).map(|(answer, nth)| take(nth, answer));
        assert_eq!(expected.collect::<Vec<_>>(), [false, false, false, false, false, true, false, true]);
    }

    #[test]
    fn a_hash_is_added_to_the_finding_that_waits() {
        let (mut join, mut out) = (Join::default(), Vec::new());
        let found = |id: &str| Box::new(Finding { id: id.to_owned(), ..*finding("/x") });
        let (hash, other) = ((Some(Sha256([7; 32])), None), (None, Some(Unread::Gone)));
        assert!(!join.add_hash(&key(), "a", hash), "nothing waits");
        for id in ["a", "b", "c"] {
            join.add_finding(&key(), found(id), &mut |line| out.push(line));
        }
        assert!(join.add_hash(&key(), "a", hash) && join.add_hash(&key(), "c", other));
        let another = Key { user: Some(1000), ..key() };
        assert!(!join.add_hash(&another, "b", hash), "it is in another container");
        join.settle(&key(), Some(metadata("web")), TIME, &mut |line| out.push(line));
        assert!(!join.add_hash(&key(), "b", hash), "it is published");
        let hashes = out.iter().map(|out| match out {
            Out::Finding(finding) => finding.file.as_ref().map(|file| (file.sha256, file.unhashed)),
            Out::Info(..) => panic!("{out:?}"),
        });
        assert_eq!(hashes.collect::<Vec<_>>(), [Some(hash), Some((None, None)), Some(other)]);
    }

    /// The path of a finding or the kind of other output, and the container's name in it.
    type Shown = Vec<(String, Option<String>)>;

    fn shown(out: Vec<Out>) -> Shown {
        let name = |container: &Container| container.name.as_ref().map(ToString::to_string);
        let show = |out| match out {
            Out::Finding(found) => {
                let path = found.file.as_ref().and_then(|file| file.path.as_ref()).expect("it has one").to_string();
                (path, found.container.as_ref().and_then(name))
            }
            Out::Info(container, _) => ("info".into(), name(&container)),
        };
        out.into_iter().map(show).collect()
    }

    fn named(what: &str, name: Option<&str>) -> (String, Option<String>) {
        (what.into(), name.map(Into::into))
    }

    const NOTHING: Todo = Todo { query: false, timer: false };

    #[test]
    fn findings_wait_in_order_and_their_container_is_queried_once() {
        let (mut join, mut out) = (Join::default(), Vec::new());
        assert_eq!(join.add_finding(&key(), finding("/a"), &mut |it| out.push(it)), Todo { query: true, timer: true });
        assert_eq!(join.add_finding(&key(), finding("/b"), &mut |it| out.push(it)), NOTHING);
        assert_eq!(out, []);
        join.settle(&key(), Some(metadata("web")), TIME, &mut |it| out.push(it));
        assert_eq!(join.add_finding(&key(), finding("/c"), &mut |it| out.push(it)), NOTHING);
        // This is the timer of the first finding.
        join.release(&key(), &mut |it| out.push(it));
        assert_eq!(shown(out), ["/a", "/b", "/c"].map(|path| named(path, Some("web"))));
        assert_eq!(join.waiting, 0);
    }

    #[test]
    fn metadata_that_comes_late_is_published_once() {
        let (mut join, mut out) = (Join::default(), Vec::new());
        join.add_finding(&key(), finding("/a"), &mut |it| out.push(it));
        join.release(&key(), &mut |it| out.push(it));
        assert_eq!(join.add_finding(&key(), finding("/b"), &mut |it| out.push(it)), NOTHING);
        join.settle(&key(), Some(metadata("web")), TIME, &mut |it| out.push(it));
        assert_eq!(shown(out), [named("/a", None), named("/b", None), named("info", Some("web"))]);
    }

    #[test]
    fn only_a_container_that_could_not_be_queried_is_queried_again() {
        let (mut join, mut out) = (Join::default(), Vec::new());
        join.add_finding(&key(), finding("/a"), &mut |it| out.push(it));
        join.forget(&key(), &mut |it| out.push(it));
        assert_eq!(join.add_finding(&key(), finding("/b"), &mut |it| out.push(it)), Todo { query: true, timer: true });
        join.settle(&key(), None, TIME, &mut |it| out.push(it));
        assert_eq!(join.add_finding(&key(), finding("/c"), &mut |it| out.push(it)), NOTHING);
        assert_eq!(shown(out), ["/a", "/b", "/c"].map(|path| named(path, None)));
    }

    #[test]
    fn a_container_is_queried_when_it_starts() {
        let (mut join, mut out) = (Join::default(), Vec::new());
        assert_eq!(join.start_query(&key(), 7), Todo { query: true, timer: false });
        assert_eq!(join.add_finding(&key(), finding("/a"), &mut |it| out.push(it)), Todo { query: false, timer: true });
        join.settle(&key(), Some(metadata("web")), TIME, &mut |it| out.push(it));
        assert_eq!(join.start_query(&key(), 7), NOTHING);
        // The container was renamed and restarted.
        assert_eq!(join.start_query(&key(), 8), Todo { query: true, timer: false });
        join.settle(&key(), Some(metadata("old-web")), TIME, &mut |it| out.push(it));
        join.add_finding(&key(), finding("/b"), &mut |it| out.push(it));
        assert_eq!(shown(out), [named("/a", Some("web")), named("/b", Some("old-web"))]);
    }

    #[test]
    fn the_answer_of_a_users_runtime_is_used_only_for_that_users_containers() {
        let (mut join, mut out) = (Join::default(), Vec::new());
        join.start_query(&key(), 7);
        join.settle(&key(), Some(metadata("web")), TIME, &mut |it| out.push(it));
        let forged = Key { user: Some(1000), ..key() };
        assert_eq!(join.start_query(&forged, 8), Todo { query: true, timer: false });
        join.settle(&forged, Some(metadata("harmless")), TIME, &mut |it| out.push(it));
        join.add_finding(&key(), finding("/a"), &mut |it| out.push(it));
        join.add_finding(&forged, finding("/b"), &mut |it| out.push(it));
        assert_eq!(shown(out), [named("/a", Some("web")), named("/b", Some("harmless"))]);
    }

    #[test]
    fn a_flood_is_bounded_and_loses_nothing() {
        let (mut join, mut count) = (Join::default(), 0);
        let finding = finding("/a");
        let key = |nth: usize| Key { id: Id::new(&format!("{nth:064x}")).expect("it is one"), user: None };
        for nth in 0..2 * MAX_PENDING {
            join.add_finding(&key(nth), finding.clone(), &mut |_| count += 1);
        }
        for _ in 0..2 * MAX_WAITING {
            join.add_finding(&key(0), finding.clone(), &mut |_| count += 1);
        }
        assert!(join.waiting <= MAX_WAITING && join.pending.len() == MAX_PENDING);
        join.release_all(&mut |_| count += 1);
        assert_eq!((count, join.waiting), (2 * MAX_PENDING + 2 * MAX_WAITING, 0));
    }

    #[test]
    fn files_in_declared_volumes_are_recognised() {
        let declared = |path: &str, metadata: &Metadata| {
            let mut finding = finding(path);
            fill(metadata, &key(), &mut Images::default(), &mut finding);
            finding.file.and_then(|file| file.declared_volume)
        };
        let web = metadata("web");
        for (path, expected) in [("/data/x", true), ("/srv", true), ("/database", false), ("/etc/srv", false)] {
            assert_eq!(declared(path, &web), Some(expected), "{path}");
        }
        assert_eq!(declared("/data/x", &Metadata::default()), None);
    }

    static SAMPLE: LazyLock<Box<Finding>> = LazyLock::new(|| finding("/"));

    /// What the caller of a join does about one of a few containers.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Start(u64),
        Finding,
        Release,
        Settle(bool),
        Forget,
        Age,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..3_u64).prop_map(Step::Start),
            Just(Step::Finding),
            Just(Step::Finding),
            Just(Step::Release),
            any::<bool>().prop_map(Step::Settle),
            Just(Step::Forget),
            Just(Step::Age),
        ]
    }

    proptest! {
        #[test]
        fn every_finding_comes_out_once_in_order_and_no_container_is_queried_twice_at_a_time(
            steps in prop::collection::vec((0..3_usize, step()), 0..64),
        ) {
            let keys: Vec<_> = (0..3)
                .map(|nth| Key { id: Id::new(&format!("{nth:064x}")).expect("it is one"), user: None })
                .collect();
            let (mut join, mut out) = (Join::default(), Vec::new());
            let (mut running, mut timers, mut added) = ([false; 3], [false; 3], Vec::new());
            for (at, step) in steps {
                let (key, before) = (&keys[at], join.waiting);
                let todo = match step {
                    Step::Start(cgroup) => join.start_query(key, cgroup),
                    Step::Finding => {
                        let (path, mut finding) = (format!("/{at}/{}", added.len()), SAMPLE.clone());
                        finding.file.as_mut().expect("it has one").path = Some(path.as_bytes().into());
                        added.push(path);
                        join.add_finding(key, finding, &mut |it| out.push(it))
                    }
                    Step::Release => {
                        join.release(key, &mut |it| out.push(it));
                        timers[at] = false;
                        NOTHING
                    }
                    // The answer comes only to a query.
                    Step::Settle(_) | Step::Forget if !running[at] => NOTHING,
                    Step::Settle(is_known) => {
                        (running[at], timers[at]) = (false, false);
                        join.settle(key, is_known.then(|| metadata("web")), TIME, &mut |it| out.push(it));
                        NOTHING
                    }
                    Step::Forget => {
                        (running[at], timers[at]) = (false, false);
                        join.forget(key, &mut |it| out.push(it));
                        NOTHING
                    }
                    Step::Age => {
                        join.age();
                        NOTHING
                    }
                };
                prop_assert!(!(todo.query && running[at]), "queried twice at a time");
                running[at] |= todo.query;
                timers[at] |= todo.timer;
                prop_assert!(join.waiting <= before || timers[at], "a finding waits without a timer");
                let waiting = join.pending.values().map(|pending| pending.waiting.len());
                prop_assert_eq!(join.waiting, waiting.sum::<usize>());
                prop_assert!(keys.iter().zip(running).all(|(key, runs)| join.pending.contains_key(key) == runs));
            }
            join.release_all(&mut |it| out.push(it));
            let came: Vec<_> = shown(out).into_iter().map(|(path, _)| path).filter(|path| path != "info").collect();
            for at in 0..3 {
                let of = |all: &[String]| {
                    all.iter().filter(|path| path.starts_with(&format!("/{at}/"))).cloned().collect::<Vec<_>>()
                };
                prop_assert_eq!(of(&came), of(&added));
            }
        }
    }
}
