//! Keeps the ledger: what it is told becomes pages, entries and sessions. It reads no clock, and what it keeps is
//! bounded; what there is no room for is counted.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use super::Standing;
use super::entry::{Entry, Share};
use super::inlet::Told;
use super::page::{Gap, Page, Session, Verdict};
use super::share;
use super::store::{Error, KeptFinding, Tables};
use crate::finding::{Container, Finding, Kind, Line, Loss, Notice, NoticeEvent, Severity, Time, loss_message};

/// How many containers are kept at most.
const MOST_PAGES: usize = 1024;
/// How many entries a container has at most. Those that matter more find room when there is none for others any more.
const MOST_ENTRIES: u64 = 1000;
/// How many sessions a container has at most.
const MOST_SESSIONS: u64 = 200;
/// How many findings of a container can be updated at most.
const MOST_FINDINGS: u64 = 4000;
/// How many bytes are kept at most, apart from pages. The file has about twice as many.
const MOST_BYTES: u64 = 32 << 20;
/// How many gaps are kept at most. The oldest ones become one.
const MOST_GAPS: usize = 256;
/// Gaps for the same reason that are no further apart than this are one.
const TOGETHER: jiff::SignedDuration = jiff::SignedDuration::from_secs(60);
/// How long after the end of a container its findings are still updated.
const LATE: jiff::SignedDuration = jiff::SignedDuration::from_secs(600);

/// What is remembered of a page besides what is in the store.
#[derive(Debug)]
struct Slot {
    /// What the container is found by again, if its runtime has given it an id.
    path: Option<String>,
    ended: Option<Time>,
    verdict: Verdict,
    bytes: u64,
    findings: u64,
}

/// Keeps the ledger.
#[derive(Debug)]
pub(super) struct Keeper {
    /// How long ended containers are kept.
    keep: Duration,
    slots: BTreeMap<u64, Slot>,
    /// The pages of containers that run, or have run a while ago, by the ids of their cgroups in this boot.
    by_cgroup: HashMap<u64, u64>,
    /// The pages of containers whose runtime has given them an id, by the paths of their cgroups.
    by_path: HashMap<String, u64>,
    /// The pages of the containers that run.
    running: HashSet<u64>,
    /// Whether all containers are known that ran when the detector started.
    is_scanned: bool,
    /// Until when the ledger was kept.
    alive: Option<Time>,
    next_gap: u64,
}

impl Keeper {
    /// Goes on with what is in the store.
    pub(super) fn load(tables: &Tables<'_>, keep: Duration) -> Result<Self, Error> {
        let mut keeper = Self {
            keep,
            slots: BTreeMap::new(),
            by_cgroup: HashMap::new(),
            by_path: HashMap::new(),
            running: HashSet::new(),
            is_scanned: false,
            alive: tables.alive()?,
            next_gap: tables.gaps()?.last().map_or(0, |(number, _)| number + 1),
        };
        for (number, page) in tables.pages()? {
            let findings = tables.count_findings(number)?;
            keeper.remember(number, &page, findings);
        }
        Ok(keeper)
    }

    /// Goes on at this time with what is in the store, after it could not be used for a while. It can be a new one.
    pub(super) fn reload(&self, now: Time, tables: &mut Tables<'_>) -> Result<Self, Error> {
        let mut keeper = Self::load(tables, self.keep)?;
        let still = |(cgroup, page): (&u64, &u64)| keeper.slots.contains_key(page).then_some((*cgroup, *page));
        keeper.by_cgroup = self.by_cgroup.iter().filter_map(still).collect();
        keeper.running = self.running.iter().filter(|page| keeper.slots.contains_key(page)).copied().collect();
        keeper.is_scanned = self.is_scanned;
        let (from, why) = match keeper.alive {
            Some(alive) => (alive, "the ledger could not be written"),
            None => (now, "the ledger had to be begun again, and lacks containers that have done nothing since"),
        };
        keeper.add_gap(Gap { from: from.min(now), until: now, why: why.to_owned() }, tables)?;
        Ok(keeper)
    }

    /// Learns something.
    pub(super) fn take(&mut self, told: Told, tables: &mut Tables<'_>) -> Result<(), Error> {
        match told {
            // What the detector itself has written can be read.
            Told::Line(line) => match serde_json::from_slice(&line) {
                Ok(Line::Finding(finding)) => self.take_finding(&finding, tables),
                Ok(Line::Notice(notice)) => self.take_notice(notice, tables),
                Err(error) => {
                    tracing::error!(%error, "the ledger cannot read a line; this is a bug");
                    Ok(())
                }
            },
            Told::Suppressed(finding) => self.take_finding(&finding, tables),
            Told::Runs(container, time) => self.take_running(&container, time, tables),
            Told::Known(container) => self.learn(&container, tables),
            Told::Removed(cgroup, time) => self.take_end(cgroup, time, tables),
            Told::Scanned => self.end_missing(tables),
            Told::Flush(_) | Told::Close(_) => Ok(()),
        }
    }

    /// Notes that the ledger is kept until this time, and forgets what is too old.
    pub(super) fn pass(&mut self, now: Time, tables: &mut Tables<'_>) -> Result<(), Error> {
        self.alive = Some(now);
        tables.set_alive(now)?;
        let since = |ended: &Time| now.0.duration_since(ended.0);
        let ended: Vec<_> =
            self.slots.iter().filter_map(|(number, slot)| Some((*number, slot.ended?, slot.findings))).collect();
        for (number, ended, findings) in ended {
            if since(&ended).unsigned_abs() > self.keep && ended <= now {
                self.forget(number, tables)?;
            } else if findings > 0 && since(&ended) > LATE {
                self.forget_findings(number, now, tables)?;
            }
        }
        self.make_room(tables)
    }

    /// Notes that so much was not told, because the ledger was too slow.
    pub(super) fn lose(&mut self, count: u64, now: Time, tables: &mut Tables<'_>) -> Result<(), Error> {
        let why = format!("{} ({count})", loss_message(Loss::Ledger));
        self.add_gap(Gap { from: self.alive.unwrap_or(now).min(now), until: now, why }, tables)
    }

    /// How many containers run, by what is said about them.
    pub(super) fn standing(&self) -> Standing {
        let mut standing = Standing::new();
        for slot in self.slots.values().filter(|slot| slot.ended.is_none()) {
            *standing.entry(slot.verdict).or_default() += 1;
        }
        standing
    }

    fn remember(&mut self, number: u64, page: &Page, findings: u64) {
        let path = path(&page.container);
        if let Some(path) = &path {
            self.by_path.insert(path.clone(), number);
        }
        let (ended, verdict, bytes) = (page.ended, page.verdict(), page.bytes);
        self.slots.insert(number, Slot { path, ended, verdict, bytes, findings });
    }

    /// The page of a container. If there is none, one begins at this time.
    fn number(&mut self, container: &Container, time: Time, tables: &mut Tables<'_>) -> Result<Option<u64>, Error> {
        if let Some(number) = self.by_cgroup.get(&container.cgroup_id) {
            return Ok(Some(*number));
        }
        let known = path(container).and_then(|path| self.by_path.get(&path).copied());
        let number = match known {
            Some(number) => Some(number),
            // Its start was not told, so it is not known when that was.
            None => self.begin(Page::new(container, time, true), tables)?,
        };
        number.iter().for_each(|number| _ = self.by_cgroup.insert(container.cgroup_id, *number));
        Ok(number)
    }

    /// Adds a page, if there is room for it.
    fn begin(&mut self, page: Page, tables: &mut Tables<'_>) -> Result<Option<u64>, Error> {
        if self.slots.len() >= MOST_PAGES && !self.forget_oldest(tables)? {
            let why = "there were more containers than there is room for, so some are missing here".to_owned();
            self.add_gap(Gap { from: page.since, until: page.since, why }, tables)?;
            return Ok(None);
        }
        let number = self.slots.last_key_value().map_or(0, |(last, _)| last + 1);
        self.remember(number, &page, 0);
        tables.set_page(number, page);
        Ok(Some(number))
    }

    fn take_running(&mut self, container: &Container, time: Time, tables: &mut Tables<'_>) -> Result<(), Error> {
        let known = path(container).and_then(|path| self.by_path.get(&path).copied());
        let number = match known {
            Some(number) => {
                self.with_page(number, tables, |page, _| {
                    page.learn(container);
                    (page.ended, page.end_not_seen) = (None, false);
                    Ok(())
                })?;
                Some(number)
            }
            None => self.begin(Page::new(container, time, !self.is_scanned), tables)?,
        };
        let Some(number) = number else { return Ok(()) };
        self.by_cgroup.insert(container.cgroup_id, number);
        self.running.insert(number);
        if self.is_scanned {
            self.with_page(number, tables, |page, _| {
                page.starts += 1;
                Ok(())
            })?;
        }
        Ok(())
    }

    fn learn(&mut self, container: &Container, tables: &mut Tables<'_>) -> Result<(), Error> {
        let Some(number) = self.by_cgroup.get(&container.cgroup_id).copied() else { return Ok(()) };
        self.with_page(number, tables, |page, _| {
            page.learn(container);
            Ok(())
        })
    }

    fn take_end(&mut self, cgroup: u64, time: Time, tables: &mut Tables<'_>) -> Result<(), Error> {
        let Some(number) = self.by_cgroup.get(&cgroup).copied() else { return Ok(()) };
        self.running.remove(&number);
        self.with_page(number, tables, |page, _| {
            page.ended = Some(time);
            Ok(())
        })
    }

    /// Ends the containers that do not run any more, although their end was not told.
    fn end_missing(&mut self, tables: &mut Tables<'_>) -> Result<(), Error> {
        self.is_scanned = true;
        let is_missing =
            |(number, slot): (&u64, &Slot)| (slot.ended.is_none() && !self.running.contains(number)).then_some(*number);
        let missing: Vec<_> = self.slots.iter().filter_map(is_missing).collect();
        for number in missing {
            let alive = self.alive;
            self.with_page(number, tables, |page, _| {
                page.ended = Some(alive.unwrap_or(page.since));
                page.end_not_seen = true;
                Ok(())
            })?;
        }
        Ok(())
    }

    fn take_notice(&mut self, notice: Notice, tables: &mut Tables<'_>) -> Result<(), Error> {
        let Notice { time, event, .. } = notice;
        match event {
            NoticeEvent::Started { .. } => {
                let Some(alive) = self.alive else { return Ok(()) };
                let why = "the detector did not run".to_owned();
                self.add_gap(Gap { from: alive.min(time), until: time, why }, tables)
            }
            NoticeEvent::Loss { kind, .. } => {
                self.add_gap(Gap { from: time, until: time, why: loss_message(kind).to_owned() }, tables)
            }
            NoticeEvent::BlindWindow { from, until, .. } => {
                let why = "the kernel did not run the probes for some calls".to_owned();
                self.add_gap(Gap { from, until, why }, tables)
            }
            NoticeEvent::Unwatched { rule, container, .. } => self.set_unwatched(&container, time, Some(rule), tables),
            NoticeEvent::Watched { container } => self.set_unwatched(&container, time, None, tables),
            NoticeEvent::ContainerInfo { container } => self.learn(&container, tables),
            NoticeEvent::FileHash { finding, container, sha256: Some(sha256), .. } => {
                let Some(number) = self.by_cgroup.get(&container.cgroup_id).copied() else { return Ok(()) };
                let Some(kept) = tables.finding(number, &finding)? else { return Ok(()) };
                self.with_page(number, tables, |_, tables| {
                    for share in &kept.shares {
                        if let Some(entry) = tables.entry(number, &share.key)? {
                            tables.set_entry(number, &share.key, &Entry { sha256: Some(sha256), ..entry })?;
                        }
                    }
                    Ok(())
                })
            }
            _ => Ok(()),
        }
    }

    fn set_unwatched(
        &mut self,
        container: &Container,
        time: Time,
        rule: Option<String>,
        tables: &mut Tables<'_>,
    ) -> Result<(), Error> {
        let Some(number) = self.number(container, time, tables)? else { return Ok(()) };
        self.with_page(number, tables, |page, _| {
            page.was_unwatched |= page.unwatched.is_some() && rule.is_none();
            page.unwatched = rule;
            Ok(())
        })
    }

    fn take_finding(&mut self, finding: &Finding, tables: &mut Tables<'_>) -> Result<(), Error> {
        let Some(container) = &finding.container else { return Ok(()) };
        let Some(number) = self.number(container, finding.time, tables)? else { return Ok(()) };
        if finding.finding == Kind::Session {
            return self.with_page(number, tables, |page, tables| {
                page.learn(container);
                take_session(finding, number, page, tables)
            });
        }
        let before = tables.finding(number, &finding.id)?;
        if before.as_ref().is_some_and(|before| before.revision >= finding.revision) {
            return Ok(());
        }
        let has_room = self.bytes() < MOST_BYTES;
        let is_new = before.is_none();
        self.with_page(number, tables, |page, tables| {
            page.learn(container);
            for share in before.iter().flat_map(|before| &before.shares) {
                if let Some(mut entry) = tables.entry(number, &share.key)? {
                    page.count(&entry, false);
                    if entry.take_back(share) {
                        page.count(&entry, true);
                        tables.set_entry(number, &share.key, &entry)?;
                    } else {
                        tables.remove_entry(number, &share.key)?;
                    }
                }
            }
            let mut shares = Vec::new();
            for share in share::of(finding) {
                if add(&share, number, has_room, page, tables)? {
                    shares.push(share.kept());
                } else if is_new {
                    page.left_out += 1;
                }
            }
            let (revision, time) = (finding.revision, finding.time);
            tables.set_finding(number, &finding.id, &KeptFinding { revision, time, shares })
        })?;
        let slot = self.slots.get_mut(&number).filter(|_| is_new);
        let count = slot.map_or(0, |slot| {
            slot.findings += 1;
            slot.findings
        });
        if count > MOST_FINDINGS {
            let times = tables.finding_times(number)?;
            self.forget_findings(number, times[times.len() / 2], tables)?;
        }
        Ok(())
    }

    /// Changes a page.
    fn with_page(
        &mut self,
        number: u64,
        tables: &mut Tables<'_>,
        change: impl FnOnce(&mut Page, &mut Tables<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Some(mut page) = tables.take_page(number)? else { return Ok(()) };
        change(&mut page, tables)?;
        let page = tables.set_page(number, page);
        if let Some(slot) = self.slots.get_mut(&number) {
            (slot.ended, slot.verdict, slot.bytes) = (page.ended, page.verdict(), page.bytes);
        }
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.slots.values().map(|slot| slot.bytes).sum()
    }

    /// Forgets ended containers until there is room again, as far as there are any.
    fn make_room(&mut self, tables: &mut Tables<'_>) -> Result<(), Error> {
        while self.bytes() >= MOST_BYTES && self.forget_oldest(tables)? {}
        Ok(())
    }

    /// Forgets the container that has ended first. Returns whether there was one.
    fn forget_oldest(&mut self, tables: &mut Tables<'_>) -> Result<bool, Error> {
        let ended = self.slots.iter().filter_map(|(number, slot)| Some((slot.ended?, *number)));
        let Some((_, number)) = ended.min() else { return Ok(false) };
        self.forget(number, tables)?;
        Ok(true)
    }

    fn forget(&mut self, number: u64, tables: &mut Tables<'_>) -> Result<(), Error> {
        tables.remove_page(number)?;
        self.running.remove(&number);
        self.by_cgroup.retain(|_, page| *page != number);
        if let Some(path) = self.slots.remove(&number).and_then(|slot| slot.path)
            && self.by_path.get(&path) == Some(&number)
        {
            self.by_path.remove(&path);
        }
        Ok(())
    }

    fn forget_findings(&mut self, number: u64, until: Time, tables: &mut Tables<'_>) -> Result<(), Error> {
        self.with_page(number, tables, |_, tables| tables.forget_findings(number, until))?;
        let left = tables.count_findings(number)?;
        self.slots.get_mut(&number).into_iter().for_each(|slot| slot.findings = left);
        Ok(())
    }

    fn add_gap(&mut self, gap: Gap, tables: &mut Tables<'_>) -> Result<(), Error> {
        let mut gaps = tables.gaps()?;
        let is_same = |last: &Gap| last.why == gap.why && gap.from.0.duration_since(last.until.0) <= TOGETHER;
        if let Some((number, last)) = gaps.last().filter(|(_, last)| is_same(last)) {
            let (from, until) = (last.from.min(gap.from), last.until.max(gap.until));
            return tables.set_gap(*number, &Gap { from, until, why: gap.why });
        }
        if gaps.len() >= MOST_GAPS {
            let (first, second) = (gaps.remove(0), gaps.remove(0));
            tables.remove_gap(first.0)?;
            let (from, until) = (first.1.from.min(second.1.from), first.1.until.max(second.1.until));
            let why = "several things were missed, which are in the log".to_owned();
            tables.set_gap(second.0, &Gap { from, until, why })?;
        }
        let number = self.next_gap;
        self.next_gap += 1;
        tables.set_gap(number, &gap)
    }
}

/// What the page of a container is found by when it is started again: a path that its runtime never gives to another
/// container.
fn path(container: &Container) -> Option<String> {
    container.id.as_ref()?;
    container.cgroup.as_ref().map(|path| path.as_str().to_owned())
}

/// Adds what a line says to its entry. Returns whether there is room for it.
fn add(share: &Share, number: u64, has_room: bool, page: &mut Page, tables: &mut Tables<'_>) -> Result<bool, Error> {
    let key = share.subject.key();
    let known = tables.entry(number, &key)?;
    let mut entry = match known {
        Some(entry) => {
            page.count(&entry, false);
            entry
        }
        None if has_room && page.entries < room(share) => Entry::new(share),
        None => return Ok(false),
    };
    entry.add(share);
    page.count(&entry, true);
    let last = share.deeds.values().map(|done| done.last).max();
    page.last = page.last.max(last);
    tables.set_entry(number, &key, &entry)?;
    Ok(true)
}

/// How many entries there can be before there is no room for this one.
fn room(share: &Share) -> u64 {
    match share.severity {
        _ if share.expected.is_some() => MOST_ENTRIES / 2,
        Severity::Info | Severity::Low | Severity::Medium => MOST_ENTRIES * 3 / 4,
        Severity::High | Severity::Critical => MOST_ENTRIES,
    }
}

fn take_session(finding: &Finding, number: u64, page: &mut Page, tables: &mut Tables<'_>) -> Result<(), Error> {
    let Some(summary) = &finding.summary else { return Ok(()) };
    let before = tables.session(number, &finding.id)?;
    if before.as_ref().is_some_and(|before| before.revision >= finding.revision) {
        return Ok(());
    }
    // Nothing that matters was done in it.
    let is_quiet = finding.suppressed_by.is_some() || finding.severity == Severity::Info;
    if is_quiet {
        page.quiet_sessions += u64::from(summary.ended.is_some());
        if before.is_some() {
            page.sessions -= 1;
            tables.remove_session(number, &finding.id)?;
        }
        return Ok(());
    }
    if before.is_none() {
        if page.sessions >= MOST_SESSIONS {
            page.left_out += u64::from(finding.revision == 1);
            return Ok(());
        }
        page.sessions += 1;
    }
    tables.set_session(number, &Session::of(finding, summary))
}
