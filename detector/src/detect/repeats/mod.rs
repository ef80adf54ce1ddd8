//! What is done again and again is told as a count: the first acts that are [the same](key) have findings of their own,
//! and the next ones become one finding, which is published again at growing intervals. Each act is in one finding.
//!
//! Acts are the same if only their files differ: files whose names have the same [pattern], files of the same
//! directory, or, if many directories next to each other see the same act, files below the directory that has these.
//! Acts of a session are counted only if there are very many. What executes the same program with the same arguments,
//! what a package manager does, and what is done in a step of a build, is one finding from the first act on. What a
//! process does to a file that it has [just created](made) belongs to the creation.
//!
//! If very many files are created, the probes [count](counted) the next ones.
//!
//! There is no clock here. The time comes with the events and from the caller of [`Repeats::take_time`], so that the
//! same events and times make the same findings.

mod counted;
mod key;
mod made;
pub(crate) mod pattern;
mod tally;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use detector_common::map::{Count, CountedKey};

use super::context::Context;
use super::installations::Installation;
use super::pace::SECOND;
use crate::container::table::TrackedContainer;
use crate::event::Event;
use crate::finding::Finding;
use counted::Counted;
use key::{About, Act, Key, Scope};
use made::{Made, Told};
use tally::{By, Tally};

/// How many acts on files have findings of their own before they are counted: files with the same pattern, patterns in
/// a directory, and directories in a directory.
const OWN: u32 = 3;
/// How many acts of a session that are the same apart from their files have findings of their own.
const OWN_IN_SESSION: u32 = 100;
/// How many keys are remembered at most, of sessions, and of everything else.
const MOST: usize = 4096;
/// How long a key is remembered after the last act.
const QUIET: u64 = 2 * 3600 * SECOND;

/// All repeated acts of the node.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    is_counting: bool,
    /// Those of sessions are separate, so that many sessions do not take the room of the applications.
    of_sessions: Tallies,
    others: Tallies,
    /// What the probes count, which is in entries of `others`.
    counted: Counted,
    /// Whether every act is decided about for itself, so that the probes must not count any.
    decides_each: bool,
}

impl Repeats {
    /// Counts repeated acts, unless each one shall have a line of its own.
    pub(super) fn new(is_counting: bool) -> Self {
        Self { is_counting, ..Self::default() }
    }

    /// Passes on the finding about an event, or counts it.
    pub(super) fn take(
        &mut self,
        event: &Event,
        finding: Finding,
        installation: Option<&Installation>,
        (container, context): (&TrackedContainer, &Context),
        found: &mut dyn FnMut(Finding),
    ) {
        if counted::ends_by(&finding) {
            finding.container.iter().for_each(|container| self.counted.end_of(container.cgroup_id));
        }
        let installed = installation
            .filter(|_| self.is_counting)
            .and_then(|installation| Some((event.at()?, key::of_installation(&finding, installation)?, installation)));
        if let Some((at, act, installation)) = installed {
            let tallies = self.tallies_of(&act);
            tallies.end_quiet(at.time, context, found);
            tallies.take_installed(act, finding, installation, (at.time, container), context, found);
            return tallies.make_room(at.time, context, found);
        }
        let of_finding = if self.is_counting { key::of(event, &finding) } else { None };
        let Some((at, (act, about))) = event.at().zip(of_finding) else { return found(finding) };
        let is_countable = act.is_countable() && !self.decides_each;
        let tallies = self.tallies_of(&act);
        tallies.end_quiet(at.time, context, found);
        let entry = tallies.take((Arc::new(act), about), finding, (at.time, container), context, found);
        tallies.make_room(at.time, context, found);
        if let Event::ImageChange(change) = event
            && is_countable
            && let Some(entry) = entry.filter(|entry| self.others.is_flood(*entry, at.time))
            && let Some(key) = counted::key(change)
        {
            self.counted.leave(key, entry, at.time);
        }
    }

    /// Whether every act is decided about for itself from now on, so that none must only be counted.
    pub(super) fn decide_each(&mut self, decides_each: bool) {
        self.decides_each = decides_each;
        self.counted.end();
    }

    /// What the probes are to count, if it is not what they know.
    pub(super) fn wanted_counts(&self, known: &BTreeSet<CountedKey>) -> Option<BTreeSet<CountedKey>> {
        (!self.counted.is_wanted(known)).then(|| self.counted.wanted())
    }

    /// Takes what the probes have counted until this time. Returns how many files of this are in no finding.
    pub(super) fn take_counts(&mut self, counts: &[(CountedKey, Count)], now: u64) -> u64 {
        let mut lost = 0;
        for (key, count) in counts {
            let entry = self.counted.entry(key);
            if !entry.is_some_and(|entry| self.others.add_counted(entry, *count)) {
                lost += count.files;
            }
        }
        self.counted.end_old(now);
        lost
    }

    /// Publishes the findings that are due.
    pub(super) fn take_time(&mut self, now: u64, context: &Context, found: &mut dyn FnMut(Finding)) {
        self.all_tallies().for_each(|tallies| tallies.publish_until(now, now, context, found));
    }

    /// Publishes what was not published yet, because the detector stops.
    pub(super) fn stop(&mut self, now: u64, context: &Context, found: &mut dyn FnMut(Finding)) {
        self.all_tallies().for_each(|tallies| tallies.publish_until(u64::MAX, now, context, found));
    }

    /// Publishes what was not published yet of a container that has ended.
    pub(super) fn end_container(&mut self, cgroup: u64, now: u64, context: &Context, found: &mut dyn FnMut(Finding)) {
        self.all_tallies().for_each(|tallies| tallies.publish_of(|act| act.container == cgroup, now, context, found));
    }

    /// Publishes what was not published yet of the session with this id, which has ended.
    pub(super) fn end_session(&mut self, id: &str, now: u64, context: &Context, found: &mut dyn FnMut(Finding)) {
        self.of_sessions.publish_of(|act| act.session.as_deref() == Some(id), now, context, found);
    }

    /// When [`take_time`](Self::take_time) must be called, in nanoseconds since boot.
    pub(super) fn due(&self) -> Option<u64> {
        [&self.of_sessions, &self.others].into_iter().filter_map(Tallies::due).min()
    }

    fn tallies_of(&mut self, act: &Act) -> &mut Tallies {
        if act.session.is_some() { &mut self.of_sessions } else { &mut self.others }
    }

    fn all_tallies(&mut self) -> impl Iterator<Item = &mut Tallies> {
        [&mut self.of_sessions, &mut self.others].into_iter()
    }
}

/// What is remembered of a key.
#[derive(Debug)]
struct Entry {
    key: Arc<Key>,
    /// How many acts have findings of their own, or how many patterns or directories these have.
    own: u32,
    /// When the last act happened.
    last: u64,
    tally: Option<Box<Tally>>,
    /// When the tally must be published again.
    due: Option<u64>,
}

/// Keys, and how often there were acts.
#[derive(Debug, Default)]
struct Tallies {
    /// The entries by their numbers, which are in the order in which they were made.
    entries: BTreeMap<u64, Entry>,
    numbers: HashMap<Arc<Key>, u64>,
    next: u64,
    /// The entries by the time of the last act.
    used: BTreeSet<(u64, u64)>,
    /// The entries by the time at which they are due.
    due: BTreeSet<(u64, u64)>,
    /// The files that were created a moment ago.
    made: Made,
}

impl Tallies {
    /// Passes on a finding, or counts it. Returns the number of the entry that it is counted in.
    fn take(
        &mut self,
        (act, about): (Arc<Act>, About),
        finding: Finding,
        (now, container): (u64, &TrackedContainer),
        context: &Context,
        found: &mut dyn FnMut(Finding),
    ) -> Option<u64> {
        if self.take_part((&act, &about), &finding, now, context, found) {
            return None;
        }
        let counting = self.counting(&act, &about, now);
        match counting {
            Some(number) => {
                let all = self.numbers.get(&Key { act: Arc::clone(&act), scope: Scope::All }).copied();
                all.into_iter().for_each(|all| self.touch(all, now));
                let is_first = self.count(number, (&about, &finding), (now, container), context, found);
                self.made.insert(&act, &finding, now, || Told::Counted(number));
                if !is_first {
                    return counting;
                }
            }
            None => {
                self.tell(&act, &about, now);
                let own = || Box::new(Tally::new(&finding, about.narrowest(), about.path(), now, container));
                self.made.insert(&act, &finding, now, || Told::Own(own()));
            }
        }
        found(finding);
        counting
    }

    /// Whether very many files are counted in this entry at this time, and nothing else is done to them.
    fn is_flood(&mut self, number: u64, now: u64) -> bool {
        let entry = self.entries.get_mut(&number);
        entry.and_then(|entry| entry.tally.as_mut()).is_some_and(|tally| tally.is_flood(now))
    }

    /// Adds files that the probes have counted to an entry. Returns `false` if it is gone.
    fn add_counted(&mut self, number: u64, count: Count) -> bool {
        let tally = self.entries.get_mut(&number).and_then(|entry| entry.tally.as_mut());
        let is_there = tally.map(|tally| tally.add_counted(count.files, count.last)).is_some();
        self.touch(number, count.last);
        self.set_due(number);
        is_there
    }

    /// Counts an act of an installation. The first one is told at once.
    fn take_installed(
        &mut self,
        act: Act,
        mut finding: Finding,
        installation: &Installation,
        (now, container): (u64, &TrackedContainer),
        context: &Context,
        found: &mut dyn FnMut(Finding),
    ) {
        let number = self.note(Key { act: Arc::new(act), scope: Scope::All }, now).0;
        let Some(entry) = self.entries.get_mut(&number) else { return found(finding) };
        let Some(tally) = &mut entry.tally else {
            let by = By::new(installation, context);
            entry.tally = Some(Box::new(Tally::of_installation(&finding, by.clone(), now, container)));
            finding.message.push_str(&by.of_step());
            return found(finding);
        };
        let is_urgent = tally.add_installed(&finding, now);
        self.set_due(number);
        if is_urgent {
            self.publish(number, now, context, found);
        }
    }

    /// Counts an act. Returns whether it is the first one of a tally.
    fn count(
        &mut self,
        number: u64,
        (about, finding): (&About, &Finding),
        (now, container): (u64, &TrackedContainer),
        context: &Context,
        found: &mut dyn FnMut(Finding),
    ) -> bool {
        self.touch(number, now);
        let Some(entry) = self.entries.get_mut(&number) else { return true };
        if let Some(tally) = &mut entry.tally {
            let is_urgent = tally.add(finding, about.path(), now);
            self.set_due(number);
            if is_urgent {
                self.publish(number, now, context, found);
            }
            return false;
        }
        entry.tally = Some(Box::new(Tally::new(finding, entry.key.scope.clone(), about.path(), now, container)));
        true
    }

    /// Takes what a process does to a file that it has just created, if that belongs to the finding about the creation.
    fn take_part(
        &mut self,
        (act, about): (&Arc<Act>, &About),
        finding: &Finding,
        now: u64,
        context: &Context,
        found: &mut dyn FnMut(Finding),
    ) -> bool {
        let About::File { pattern, .. } = about else { return false };
        match self.made.told(finding) {
            None => false,
            Some(Told::Own(own)) => {
                let is_urgent = own.add_part(act, finding, pattern, now);
                if is_urgent == Some(true) {
                    found(own.publish(now, context));
                }
                is_urgent.is_some()
            }
            Some(&mut Told::Counted(number)) => {
                let tally = self.entries.get_mut(&number).and_then(|entry| entry.tally.as_mut());
                let is_urgent = tally.and_then(|tally| tally.add_part(act, finding, pattern, now));
                self.set_due(number);
                if is_urgent == Some(true) {
                    self.publish(number, now, context, found);
                }
                is_urgent.is_some()
            }
        }
    }

    /// The entry in which the act is counted, or `None` if it has a finding of its own.
    fn counting(&mut self, act: &Arc<Act>, about: &About, now: u64) -> Option<u64> {
        if act.session.is_none() && matches!(about, About::Same(_)) {
            return Some(self.note(Key { act: Arc::clone(act), scope: about.narrowest() }, now).0);
        }
        let find = |scope, least| {
            let number = *self.numbers.get(&Key { act: Arc::clone(act), scope })?;
            self.entries.get(&number).filter(|entry| entry.own >= least).map(|_| number)
        };
        if act.session.is_some() {
            find(Scope::All, OWN_IN_SESSION)?;
        }
        let narrowest = find(about.narrowest(), OWN);
        let About::File { pattern, .. } = about else { return narrowest };
        let directory = key::directory(pattern);
        let mut directories = std::iter::successors(Some(directory), |below| key::above(below));
        narrowest
            .or_else(|| find(Scope::In(directory.to_owned()), OWN))
            .or_else(|| directories.find_map(|above| find(Scope::Below(above.to_owned()), OWN)))
    }

    /// Notes an act that has a finding of its own.
    fn tell(&mut self, act: &Arc<Act>, about: &About, now: u64) {
        let mut is_new = |scope| self.note(Key { act: Arc::clone(act), scope }, now).1;
        if act.session.is_some() {
            is_new(Scope::All);
        }
        let is_first = is_new(about.narrowest());
        let About::File { pattern, .. } = about else { return };
        let mut directory = key::directory(pattern);
        let mut is_first = is_first && is_new(Scope::In(directory.to_owned()));
        while is_first && let Some(above) = key::above(directory) {
            directory = above;
            is_first = is_new(Scope::Below(above.to_owned()));
        }
    }

    /// Notes that there is one more of this key. Returns the number of its entry, and whether it is the first one.
    fn note(&mut self, key: Key, now: u64) -> (u64, bool) {
        let key = Arc::new(key);
        let known = self.numbers.get(&key).copied();
        let number = known.unwrap_or(self.next);
        if known.is_none() {
            self.next += 1;
            self.numbers.insert(Arc::clone(&key), number);
            self.used.insert((now, number));
            self.entries.insert(number, Entry { key, own: 0, last: now, tally: None, due: None });
        }
        self.touch(number, now);
        if let Some(entry) = self.entries.get_mut(&number) {
            entry.own = entry.own.saturating_add(1);
        }
        (number, known.is_none())
    }

    /// Records that the entry is in use.
    fn touch(&mut self, number: u64, now: u64) {
        let Some(entry) = self.entries.get_mut(&number) else { return };
        self.used.remove(&(entry.last, number));
        entry.last = entry.last.max(now);
        self.used.insert((entry.last, number));
    }

    /// Finds out when the entry is due.
    fn set_due(&mut self, number: u64) {
        let Some(entry) = self.entries.get_mut(&number) else { return };
        let due = entry.tally.as_ref().and_then(|tally| tally.due());
        if entry.due != due {
            entry.due.into_iter().for_each(|due| _ = self.due.remove(&(due, number)));
            entry.due = due;
            self.due.extend(due.map(|due| (due, number)));
        }
    }

    /// When something is due.
    fn due(&self) -> Option<u64> {
        self.due.first().map(|(due, _)| *due).into_iter().chain(self.made.due()).min()
    }

    /// Publishes the tally of an entry, if there is something new.
    fn publish(&mut self, number: u64, now: u64, context: &Context, found: &mut dyn FnMut(Finding)) {
        let Some(entry) = self.entries.get_mut(&number) else { return };
        if entry.due.is_some()
            && let Some(tally) = &mut entry.tally
        {
            found(tally.publish(now, context));
        }
        self.set_due(number);
    }

    /// Publishes what is due until a time.
    fn publish_until(&mut self, until: u64, now: u64, context: &Context, found: &mut dyn FnMut(Finding)) {
        self.made.settle(until, now, context, found);
        while let Some(&(due, number)) = self.due.first()
            && due <= until
        {
            self.publish(number, now, context, found);
        }
    }

    /// Publishes what is new about these acts.
    fn publish_of(
        &mut self,
        is_one: impl Fn(&Act) -> bool,
        now: u64,
        context: &Context,
        found: &mut dyn FnMut(Finding),
    ) {
        self.made.publish_of(&is_one, now, context, found);
        let is_one = |number: &u64| self.entries.get(number).is_some_and(|entry| is_one(&entry.key.act));
        let numbers: Vec<u64> = self.due.iter().map(|(_, number)| *number).filter(is_one).collect();
        numbers.into_iter().for_each(|number| self.publish(number, now, context, found));
    }

    /// Forgets the files and keys that were not used for long.
    fn end_quiet(&mut self, now: u64, context: &Context, found: &mut dyn FnMut(Finding)) {
        self.made.settle(now, now, context, found);
        while let Some(&(last, _)) = self.used.first()
            && last.saturating_add(QUIET) <= now
        {
            self.end_oldest(now, context, found);
        }
    }

    /// Forgets the keys that were not used for longest, if there are too many.
    fn make_room(&mut self, now: u64, context: &Context, found: &mut dyn FnMut(Finding)) {
        while self.entries.len() > MOST {
            self.end_oldest(now, context, found);
        }
    }

    /// Publishes and forgets the entry that was not used for longest.
    fn end_oldest(&mut self, now: u64, context: &Context, found: &mut dyn FnMut(Finding)) {
        let Some((_, number)) = self.used.pop_first() else { return };
        self.publish(number, now, context, found);
        if let Some(entry) = self.entries.remove(&number) {
            self.numbers.remove(&entry.key);
        }
    }
}

#[cfg(test)]
mod tests;
