//! The file of the ledger. What is written together is there together after a crash: redb's transactions see to that.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::backends::FileBackend;
use redb::{
    Builder, Database, ReadOnlyTable, ReadTransaction, ReadableDatabase as _, ReadableTable, StorageBackend, Table,
    TableDefinition,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::entry::{Entry, KeptShare};
use super::page::{Gap, Page, Session};
use crate::finding::Time;

/// The name of the file.
const NAME: &str = "ledger.redb";
/// The name that a file gets that cannot be used.
const ASIDE: &str = "ledger.redb.set-aside";
/// The version of what is in the tables. One with another version is set aside.
const FORMAT: u64 = 1;
/// How much of the file is kept in memory, in bytes.
const CACHE: usize = 1 << 20;

type Of = (u64, &'static str);

const ABOUT: TableDefinition<&str, &[u8]> = TableDefinition::new("about");
const PAGES: TableDefinition<u64, &[u8]> = TableDefinition::new("pages");
const ENTRIES: TableDefinition<Of, &[u8]> = TableDefinition::new("entries");
const SESSIONS: TableDefinition<Of, &[u8]> = TableDefinition::new("sessions");
const FINDINGS: TableDefinition<Of, &[u8]> = TableDefinition::new("findings");
const GAPS: TableDefinition<u64, &[u8]> = TableDefinition::new("gaps");

/// Why the ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The operating system refused something. It may work later.
    #[error("{0}")]
    System(#[source] io::Error),
    /// Another process has it open.
    #[error("another process has it open; stop that, or choose another directory with --state-directory")]
    InUse,
    /// It is not a ledger of this version, or it is damaged.
    #[error("{0}")]
    Foreign(String),
}

impl<E: Into<redb::Error>> From<E> for Error {
    fn from(error: E) -> Self {
        match error.into() {
            // It is no database, or not all of one.
            redb::Error::Io(error)
                if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
            {
                Self::Foreign(error.to_string())
            }
            redb::Error::Io(error) => Self::System(error),
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => Self::InUse,
            // What has failed before tells nothing about the file.
            redb::Error::PreviousIo => Self::System(io::Error::other("an earlier operation has failed")),
            other => Self::Foreign(other.to_string()),
        }
    }
}

/// What is kept of a finding, so that a later line about it replaces what this one has added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeptFinding {
    pub(super) revision: u32,
    /// When something was done last.
    pub(super) time: Time,
    pub(super) shares: Vec<KeptShare>,
}

/// An open ledger.
#[derive(Clone, Debug)]
pub(super) struct Store(Arc<Database>);

impl Store {
    /// Opens the ledger in this directory. One that cannot be used is set aside, and another one is begun; then the
    /// second value says so.
    pub(super) fn open(directory: &Path) -> Result<(Self, Option<String>), Error> {
        let path = directory.join(NAME);
        let foreign = match Self::open_file(&path) {
            Err(Error::Foreign(why)) => why,
            opened => return Ok((opened?, None)),
        };
        let told = set_aside(directory, &foreign).map_err(Error::System)?;
        Ok((Self::open_file(&path)?, Some(told)))
    }

    fn open_file(path: &Path) -> Result<Self, Error> {
        let file = open_own(path)?;
        Self::on(FileBackend::new(file)?)
    }

    fn on(backend: impl StorageBackend) -> Result<Self, Error> {
        let store = Self(Arc::new(Builder::new().set_cache_size(CACHE).create_with_backend(backend)?));
        store.write(|tables| match tables.format()? {
            None => tables.set_format(),
            Some(FORMAT) => Ok(()),
            Some(other) => Err(Error::Foreign(format!("its format is {other}, and this detector knows {FORMAT}"))),
        })?;
        Ok(store)
    }

    /// A ledger that is on no disk.
    #[cfg(test)]
    pub(super) fn in_memory() -> Self {
        Self::on(redb::backends::InMemoryBackend::new()).expect("memory takes it")
    }

    /// Writes all that is done with the tables, or nothing.
    pub(super) fn write<T>(&self, work: impl FnOnce(&mut Tables<'_>) -> Result<T, Error>) -> Result<T, Error> {
        let transaction = self.0.begin_write()?;
        let mut tables = Tables {
            about: transaction.open_table(ABOUT)?,
            pages: transaction.open_table(PAGES)?,
            entries: transaction.open_table(ENTRIES)?,
            sessions: transaction.open_table(SESSIONS)?,
            findings: transaction.open_table(FINDINGS)?,
            gaps: transaction.open_table(GAPS)?,
            changed: BTreeMap::new(),
            grown: 0,
        };
        let done = work(&mut tables)?;
        tables.write_pages()?;
        drop(tables);
        transaction.commit()?;
        Ok(done)
    }

    /// What is on the disk now, whatever is written meanwhile.
    pub(super) fn read(&self) -> Result<View, Error> {
        let transaction = self.0.begin_read()?;
        Ok(View {
            pages: transaction.open_table(PAGES)?,
            entries: transaction.open_table(ENTRIES)?,
            sessions: transaction.open_table(SESSIONS)?,
            gaps: transaction.open_table(GAPS)?,
            _transaction: transaction,
        })
    }
}

/// Opens the file, or creates it for this user only. A link is not followed.
fn open_own(path: &Path) -> Result<File, Error> {
    let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let opened = OpenOptions::new().read(true).write(true).create(true).mode(0o600).custom_flags(flags).open(path);
    let file = match opened {
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) || error.kind() == io::ErrorKind::IsADirectory => {
            return Err(Error::Foreign("it is not a regular file".to_owned()));
        }
        opened => opened.map_err(Error::System)?,
    };
    let metadata = file.metadata().map_err(Error::System)?;
    if !metadata.is_file() {
        return Err(Error::Foreign("it is not a regular file".to_owned()));
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() || metadata.mode() & 0o022 != 0 {
        return Err(Error::Foreign("other users can write to it".to_owned()));
    }
    Ok(file)
}

/// Renames the file in this directory that cannot be used for this reason. Returns what to say about that.
pub(super) fn set_aside(directory: &Path, why: &str) -> io::Result<String> {
    let [path, aside]: [PathBuf; 2] = [NAME, ASIDE].map(|name| directory.join(name));
    fs::rename(&path, &aside)?;
    let [path, aside] = [path.display(), aside.display()];
    Ok(format!("{path}: this is no ledger that can be used ({why}), so it is now {aside}, and a new one was begun"))
}

/// The tables, which change when the transaction ends.
pub(super) struct Tables<'t> {
    about: Table<'t, &'static str, &'static [u8]>,
    pages: Table<'t, u64, &'static [u8]>,
    entries: Table<'t, Of, &'static [u8]>,
    sessions: Table<'t, Of, &'static [u8]>,
    findings: Table<'t, Of, &'static [u8]>,
    gaps: Table<'t, u64, &'static [u8]>,
    /// Pages that are not in their table yet, because most lines change the page that the line before has changed.
    changed: BTreeMap<u64, Page>,
    /// By how many bytes the entries, sessions and findings have grown since that was last taken.
    grown: i64,
}

impl Tables<'_> {
    fn format(&self) -> Result<Option<u64>, Error> {
        self.about.get("format")?.map(|value| parsed(value.value())).transpose()
    }

    fn set_format(&mut self) -> Result<(), Error> {
        self.about.insert("format", &*text(&FORMAT))?;
        Ok(())
    }

    /// Until when it is known that the ledger was kept.
    pub(super) fn alive(&self) -> Result<Option<Time>, Error> {
        self.about.get("alive")?.map(|value| parsed(value.value())).transpose()
    }

    pub(super) fn set_alive(&mut self, time: Time) -> Result<(), Error> {
        self.about.insert("alive", &*text(&time))?;
        Ok(())
    }

    /// All pages that were in the store before, with their numbers.
    pub(super) fn pages(&self) -> Result<Vec<(u64, Page)>, Error> {
        all(&self.pages)
    }

    /// A page, which must be set afterwards.
    pub(super) fn take_page(&mut self, number: u64) -> Result<Option<Page>, Error> {
        match self.changed.remove(&number) {
            Some(page) => Ok(Some(page)),
            None => self.pages.get(number)?.map(|value| parsed(value.value())).transpose(),
        }
    }

    /// Sets a page. Its size grows by that of what was kept since the last one was set.
    pub(super) fn set_page(&mut self, number: u64, mut page: Page) -> &Page {
        page.bytes = page.bytes.saturating_add_signed(std::mem::take(&mut self.grown));
        self.changed.entry(number).insert_entry(page).into_mut()
    }

    fn write_pages(&mut self) -> Result<(), Error> {
        for (number, page) in std::mem::take(&mut self.changed) {
            self.pages.insert(number, &*text(&page))?;
        }
        Ok(())
    }

    /// Removes a page and all that is kept about it.
    pub(super) fn remove_page(&mut self, number: u64) -> Result<(), Error> {
        self.changed.remove(&number);
        self.pages.remove(number)?;
        for table in [&mut self.entries, &mut self.sessions, &mut self.findings] {
            table.retain_in((number, "")..(number + 1, ""), |_, _| false)?;
        }
        Ok(())
    }

    pub(super) fn entry(&self, page: u64, key: &str) -> Result<Option<Entry>, Error> {
        self.entries.get((page, key))?.map(|value| parsed(value.value())).transpose()
    }

    pub(super) fn set_entry(&mut self, page: u64, key: &str, entry: &Entry) -> Result<(), Error> {
        self.grown += put(&mut self.entries, (page, key), entry)?;
        Ok(())
    }

    pub(super) fn remove_entry(&mut self, page: u64, key: &str) -> Result<(), Error> {
        self.grown -= take(&mut self.entries, (page, key))?;
        Ok(())
    }

    pub(super) fn session(&self, page: u64, id: &str) -> Result<Option<Session>, Error> {
        self.sessions.get((page, id))?.map(|value| parsed(value.value())).transpose()
    }

    pub(super) fn set_session(&mut self, page: u64, session: &Session) -> Result<(), Error> {
        self.grown += put(&mut self.sessions, (page, &session.id), session)?;
        Ok(())
    }

    pub(super) fn remove_session(&mut self, page: u64, id: &str) -> Result<(), Error> {
        self.grown -= take(&mut self.sessions, (page, id))?;
        Ok(())
    }

    pub(super) fn finding(&self, page: u64, id: &str) -> Result<Option<KeptFinding>, Error> {
        self.findings.get((page, id))?.map(|value| parsed(value.value())).transpose()
    }

    pub(super) fn set_finding(&mut self, page: u64, id: &str, finding: &KeptFinding) -> Result<(), Error> {
        self.grown += put(&mut self.findings, (page, id), finding)?;
        Ok(())
    }

    /// How many findings of a page can still be updated.
    pub(super) fn count_findings(&self, page: u64) -> Result<u64, Error> {
        Ok(self.findings.range((page, "")..(page + 1, ""))?.count() as u64)
    }

    /// Forgets the findings of a page in which nothing was done since a time. They cannot be updated any more.
    pub(super) fn forget_findings(&mut self, page: u64, until: Time) -> Result<(), Error> {
        let mut freed = 0;
        self.findings.retain_in((page, "")..(page + 1, ""), |(_, id), value| {
            let is_old = serde_json::from_slice::<KeptFinding>(value).is_ok_and(|finding| finding.time <= until);
            freed += if is_old { size(id, value) } else { 0 };
            !is_old
        })?;
        self.grown -= freed;
        Ok(())
    }

    /// When something was done last in the findings of a page, the earliest first.
    pub(super) fn finding_times(&self, page: u64) -> Result<Vec<Time>, Error> {
        let mut times = Vec::new();
        for row in self.findings.range((page, "")..(page + 1, ""))? {
            times.push(parsed::<KeptFinding>(row?.1.value())?.time);
        }
        times.sort_unstable();
        Ok(times)
    }

    /// All gaps, with their numbers.
    pub(super) fn gaps(&self) -> Result<Vec<(u64, Gap)>, Error> {
        all(&self.gaps)
    }

    pub(super) fn set_gap(&mut self, number: u64, gap: &Gap) -> Result<(), Error> {
        self.gaps.insert(number, &*text(gap))?;
        Ok(())
    }

    pub(super) fn remove_gap(&mut self, number: u64) -> Result<(), Error> {
        self.gaps.remove(number)?;
        Ok(())
    }
}

/// What was on the disk at a time.
pub(super) struct View {
    pages: ReadOnlyTable<u64, &'static [u8]>,
    entries: ReadOnlyTable<Of, &'static [u8]>,
    sessions: ReadOnlyTable<Of, &'static [u8]>,
    gaps: ReadOnlyTable<u64, &'static [u8]>,
    // It is dropped after the tables.
    _transaction: ReadTransaction,
}

impl View {
    pub(super) fn gaps(&self) -> Result<Vec<Gap>, Error> {
        Ok(all(&self.gaps)?.into_iter().map(|(_, gap)| gap).collect())
    }

    /// Each page, with its number.
    pub(super) fn pages(&self) -> Result<impl Iterator<Item = Result<(u64, Page), Error>>, Error> {
        Ok(self.pages.iter()?.map(|row| {
            let (number, value) = row?;
            Ok((number.value(), parsed(value.value())?))
        }))
    }

    /// Each entry of a page.
    pub(super) fn entries(&self, page: u64) -> Result<impl Iterator<Item = Result<Entry, Error>>, Error> {
        Ok(self.entries.range((page, "")..(page + 1, ""))?.map(|row| parsed(row?.1.value())))
    }

    /// Each session of a page.
    pub(super) fn sessions(&self, page: u64) -> Result<impl Iterator<Item = Result<Session, Error>>, Error> {
        Ok(self.sessions.range((page, "")..(page + 1, ""))?.map(|row| parsed(row?.1.value())))
    }
}

fn all<T: DeserializeOwned>(table: &impl ReadableTable<u64, &'static [u8]>) -> Result<Vec<(u64, T)>, Error> {
    let rows = table.iter()?.map(|row| {
        let (number, value) = row?;
        Ok((number.value(), parsed(value.value())?))
    });
    rows.collect()
}

/// Writes a row. Returns by how many bytes the table has grown.
fn put(table: &mut Table<'_, Of, &'static [u8]>, key: (u64, &str), row: &impl Serialize) -> Result<i64, Error> {
    let value = text(row);
    let before = table.insert(key, &*value)?.map_or(0, |old| size(key.1, old.value()));
    Ok(size(key.1, &value) - before)
}

/// Removes a row. Returns how many bytes it had.
fn take(table: &mut Table<'_, Of, &'static [u8]>, key: (u64, &str)) -> Result<i64, Error> {
    Ok(table.remove(key)?.map_or(0, |old| size(key.1, old.value())))
}

fn size(key: &str, value: &[u8]) -> i64 {
    (key.len() + value.len()) as i64
}

fn text(row: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(row).expect("a row has only text keys, and writing to memory does not fail")
}

fn parsed<T: DeserializeOwned>(value: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(value).map_err(|error| Error::Foreign(error.to_string()))
}
