//! The meeting of findings and metadata. No I/O and no clock: who calls it asks the runtimes and watches the time.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::id::Id;
use super::metadata::Metadata;
use crate::finding::{Container, File, Finding, Image};
use crate::recent::Recent;

/// Containers that were asked about and are remembered, dead or alive, at most; the last half of that at least.
const MAX_SETTLED: usize = 8192;
/// Containers that are asked about at a time, at most. Of more, findings go out with what is known.
const MAX_PENDING: usize = 4096;
/// Findings that wait at a time, at most.
const MAX_WAITING: usize = 4096;

/// A container, as it is asked about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// By which id.
    pub(super) id: Id,
    /// The ordinary user whose runtime is asked. What it tells of this id is of that user's container, whoever else may have
    /// one of the same id.
    pub(super) user: Option<u32>,
}

/// What comes out.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Out {
    /// A finding, with all that is known.
    Finding(Box<Finding>),
    /// What was not known yet when the last findings about this container went out.
    Info(Box<Container>),
}

/// What the caller is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Todo {
    /// Ask about the container, and call [`Join::settle`] or [`Join::forget`] in the end.
    pub(super) ask: bool,
    /// Call [`Join::overdue`] when a finding has waited long enough.
    pub(super) timer: bool,
}

/// The containers that were asked about, and the findings that wait.
#[derive(Debug)]
pub(super) struct Join {
    settled: Recent<Key, Settled>,
    pending: HashMap<Key, Pending>,
    waiting: usize,
}

/// A container that was asked about.
#[derive(Debug)]
struct Settled {
    /// Its cgroup, if it was seen to be made.
    cgroup: Option<u64>,
    /// `None`: no runtime knows it.
    metadata: Option<Arc<Metadata>>,
}

/// A container that is being asked about.
#[derive(Debug, Default)]
struct Pending {
    cgroup: Option<u64>,
    /// In the order in which they came.
    waiting: Vec<Finding>,
    /// Nothing waits any more.
    is_over: bool,
    /// As the last finding that did not wait had it.
    told: Option<Container>,
}

impl Default for Join {
    fn default() -> Self {
        Self { settled: Recent::new(MAX_SETTLED), pending: HashMap::new(), waiting: 0 }
    }
}

impl Join {
    /// Takes in a container that begins, so that its metadata is there when it is needed. With the same id, it may have
    /// got another name since.
    pub(super) fn began(&mut self, key: &Key, cgroup: u64) -> Todo {
        if self.settled.get(key).is_some_and(|settled| settled.cgroup == Some(cgroup)) {
            return Todo::default();
        }
        self.settled.remove(key);
        match self.pending(key) {
            Some((pending, ask)) => {
                pending.cgroup = Some(cgroup);
                Todo { ask, timer: false }
            }
            None => Todo::default(),
        }
    }

    /// Takes in a finding about the container.
    pub(super) fn finding(&mut self, key: &Key, mut finding: Box<Finding>, out: &mut dyn FnMut(Out)) -> Todo {
        if let Some(settled) = self.settled.get(key) {
            if let Some(metadata) = &settled.metadata {
                fill(metadata, &mut finding);
            }
            out(Out::Finding(finding));
            return Todo::default();
        }
        let is_full = self.waiting >= MAX_WAITING;
        let Some((pending, ask)) = self.pending(key) else {
            out(Out::Finding(finding));
            return Todo::default();
        };
        let timer = pending.waiting.is_empty() && !pending.is_over;
        pending.waiting.push(*finding);
        let is_over = pending.is_over || is_full;
        self.waiting += 1;
        if is_over {
            self.overdue(key, out);
        }
        Todo { ask, timer: timer && !is_over }
    }

    /// From now on, findings about this container wait no more.
    pub(super) fn overdue(&mut self, key: &Key, out: &mut dyn FnMut(Out)) {
        let Some(pending) = self.pending.get_mut(key) else { return };
        pending.is_over = true;
        self.waiting -= pending.waiting.len();
        for finding in pending.waiting.drain(..) {
            pending.told = Some(finding.container.clone());
            out(Out::Finding(Box::new(finding)));
        }
    }

    /// All that waits goes out.
    pub(super) fn all_overdue(&mut self, out: &mut dyn FnMut(Out)) {
        let keys: Vec<_> = self.pending.keys().cloned().collect();
        keys.iter().for_each(|key| self.overdue(key, out));
    }

    /// Takes in what the runtimes know. `None`: they do not know it, and will not.
    pub(super) fn settle(&mut self, key: &Key, metadata: Option<Metadata>, out: &mut dyn FnMut(Out)) {
        let metadata = metadata.map(Arc::new);
        let Some(pending) = self.pending.remove(key) else { return };
        self.waiting -= pending.waiting.len();
        for mut finding in pending.waiting {
            if let Some(metadata) = &metadata {
                fill(metadata, &mut finding);
            }
            out(Out::Finding(Box::new(finding)));
        }
        if let (Some(metadata), Some(mut container)) = (&metadata, pending.told) {
            metadata.fill(&mut container);
            out(Out::Info(Box::new(container)));
        }
        self.settled.insert(key.clone(), Settled { cgroup: pending.cgroup, metadata });
    }

    /// Forgets containers of which nothing was found since the last call.
    pub(super) fn age(&mut self) {
        self.settled.age();
    }

    /// No runtime could be asked: the next finding begins anew.
    pub(super) fn forget(&mut self, key: &Key, out: &mut dyn FnMut(Out)) {
        self.overdue(key, out);
        self.pending.remove(key);
    }

    /// The container as one that is asked about, and whether it was none. `None`: there are too many.
    fn pending(&mut self, key: &Key) -> Option<(&mut Pending, bool)> {
        let is_full = self.pending.len() >= MAX_PENDING;
        match self.pending.entry(key.clone()) {
            Entry::Occupied(entry) => Some((entry.into_mut(), false)),
            Entry::Vacant(_) if is_full => None,
            Entry::Vacant(entry) => Some((entry.insert(Pending::default()), true)),
        }
    }
}

fn fill(metadata: &Metadata, finding: &mut Finding) {
    metadata.fill(&mut finding.container);
    if let (Some(image), Some(file)) = (&metadata.image, &mut finding.file) {
        file.declared_volume = is_in_volume(image, file);
    }
}

/// Whether the image declares a volume where the file is. `None`: one of both is not known.
fn is_in_volume(image: &Image, file: &File) -> Option<bool> {
    let path = file.path.as_ref().filter(|_| !file.truncated)?.as_str();
    let is_below =
        |volume: &str| path.strip_prefix(volume).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    Some(image.volumes.as_ref()?.iter().any(|volume| is_below(volume.as_str().trim_end_matches('/'))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::samples;
    use crate::event::{Event, ImageOp, Layer};

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

    /// Path or kind of what came out, and the container's name in it.
    type Shown = Vec<(String, Option<String>)>;

    fn shown(out: Vec<Out>) -> Shown {
        let name = |container: &Container| container.name.as_ref().map(ToString::to_string);
        let show = |out| match out {
            Out::Finding(found) => {
                let path = found.file.as_ref().and_then(|file| file.path.as_ref()).expect("it has one").to_string();
                (path, name(&found.container))
            }
            Out::Info(container) => ("info".into(), name(&container)),
        };
        out.into_iter().map(show).collect()
    }

    fn named(what: &str, name: Option<&str>) -> (String, Option<String>) {
        (what.into(), name.map(Into::into))
    }

    const NOTHING: Todo = Todo { ask: false, timer: false };

    #[test]
    fn findings_wait_in_order_and_are_asked_about_once() {
        let (mut join, mut out) = (Join::default(), Vec::new());
        assert_eq!(join.finding(&key(), finding("/a"), &mut |it| out.push(it)), Todo { ask: true, timer: true });
        assert_eq!(join.finding(&key(), finding("/b"), &mut |it| out.push(it)), NOTHING);
        assert_eq!(out, []);
        join.settle(&key(), Some(metadata("web")), &mut |it| out.push(it));
        assert_eq!(join.finding(&key(), finding("/c"), &mut |it| out.push(it)), NOTHING);
        // The timer of the first one.
        join.overdue(&key(), &mut |it| out.push(it));
        assert_eq!(shown(out), ["/a", "/b", "/c"].map(|path| named(path, Some("web"))));
        assert_eq!(join.waiting, 0);
    }

    #[test]
    fn what_comes_late_is_told_once() {
        let (mut join, mut out) = (Join::default(), Vec::new());
        join.finding(&key(), finding("/a"), &mut |it| out.push(it));
        join.overdue(&key(), &mut |it| out.push(it));
        assert_eq!(join.finding(&key(), finding("/b"), &mut |it| out.push(it)), NOTHING);
        join.settle(&key(), Some(metadata("web")), &mut |it| out.push(it));
        assert_eq!(shown(out), [named("/a", None), named("/b", None), named("info", Some("web"))]);
    }

    #[test]
    fn what_nobody_knows_is_not_asked_about_again_and_what_nobody_could_tell_is() {
        let (mut join, mut out) = (Join::default(), Vec::new());
        join.finding(&key(), finding("/a"), &mut |it| out.push(it));
        join.forget(&key(), &mut |it| out.push(it));
        assert_eq!(join.finding(&key(), finding("/b"), &mut |it| out.push(it)), Todo { ask: true, timer: true });
        join.settle(&key(), None, &mut |it| out.push(it));
        assert_eq!(join.finding(&key(), finding("/c"), &mut |it| out.push(it)), NOTHING);
        assert_eq!(shown(out), ["/a", "/b", "/c"].map(|path| named(path, None)));
    }

    #[test]
    fn a_container_that_begins_is_asked_about_before_its_findings() {
        let (mut join, mut out) = (Join::default(), Vec::new());
        assert_eq!(join.began(&key(), 7), Todo { ask: true, timer: false });
        assert_eq!(join.finding(&key(), finding("/a"), &mut |it| out.push(it)), Todo { ask: false, timer: true });
        join.settle(&key(), Some(metadata("web")), &mut |it| out.push(it));
        assert_eq!(join.began(&key(), 7), NOTHING);
        // It was restarted, and renamed before.
        assert_eq!(join.began(&key(), 8), Todo { ask: true, timer: false });
        join.settle(&key(), Some(metadata("old-web")), &mut |it| out.push(it));
        join.finding(&key(), finding("/b"), &mut |it| out.push(it));
        assert_eq!(shown(out), [named("/a", Some("web")), named("/b", Some("old-web"))]);
    }

    #[test]
    fn what_a_users_runtime_tells_is_of_that_users_container() {
        let (mut join, mut out) = (Join::default(), Vec::new());
        join.began(&key(), 7);
        join.settle(&key(), Some(metadata("web")), &mut |it| out.push(it));
        let forged = Key { user: Some(1000), ..key() };
        assert_eq!(join.began(&forged, 8), Todo { ask: true, timer: false });
        join.settle(&forged, Some(metadata("harmless")), &mut |it| out.push(it));
        join.finding(&key(), finding("/a"), &mut |it| out.push(it));
        join.finding(&forged, finding("/b"), &mut |it| out.push(it));
        assert_eq!(shown(out), [named("/a", Some("web")), named("/b", Some("harmless"))]);
    }

    #[test]
    fn a_flood_is_bounded_and_loses_nothing() {
        let (mut join, mut count) = (Join::default(), 0);
        let finding = finding("/a");
        let key = |nth: usize| Key { id: Id::new(&format!("{nth:064x}")).expect("it is one"), user: None };
        for nth in 0..2 * MAX_PENDING {
            join.finding(&key(nth), finding.clone(), &mut |_| count += 1);
        }
        for _ in 0..2 * MAX_WAITING {
            join.finding(&key(0), finding.clone(), &mut |_| count += 1);
        }
        assert!(join.waiting <= MAX_WAITING && join.pending.len() == MAX_PENDING);
        join.all_overdue(&mut |_| count += 1);
        assert_eq!((count, join.waiting), (2 * MAX_PENDING + 2 * MAX_WAITING, 0));
    }

    #[test]
    fn files_in_declared_volumes_are_told_from_others() {
        let declared = |path: &str, metadata: &Metadata| {
            let mut finding = finding(path);
            fill(metadata, &mut finding);
            finding.file.and_then(|file| file.declared_volume)
        };
        let web = metadata("web");
        for (path, expected) in [("/data/x", true), ("/srv", true), ("/database", false), ("/etc/srv", false)] {
            assert_eq!(declared(path, &web), Some(expected), "{path}");
        }
        assert_eq!(declared("/data/x", &Metadata::default()), None);
    }
}
