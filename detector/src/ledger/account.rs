//! All that the ledger says about a container, put together from the rows of an answer.

use serde::{Deserialize, Serialize};

use super::Row;
use super::entry::Entry;
use super::page::{Gap, Page, Session};

/// A container, with what was done in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The container itself.
    pub page: Page,
    /// Why there can be more than what is known, one sentence each.
    pub doubts: Vec<String>,
    /// The paths at which something was done, if they were asked for.
    pub entries: Vec<Entry>,
    /// The sessions, if they were asked for.
    pub sessions: Vec<Session>,
}

/// The containers of an answer.
#[derive(Debug, Default)]
pub struct Accounts {
    gaps: Vec<Gap>,
    accounts: Vec<Account>,
}

impl Accounts {
    /// Takes the next row.
    pub fn take(&mut self, row: Row) {
        match row {
            Row::Gap(gap) => self.gaps.push(gap),
            Row::Page(page) => {
                let doubts = page.doubts(&self.gaps);
                self.accounts.push(Account { page: *page, doubts, entries: Vec::new(), sessions: Vec::new() });
            }
            Row::Entry(entry) => {
                if let Some(account) = self.accounts.last_mut() {
                    account.entries.push(*entry);
                }
            }
            Row::Session(session) => {
                if let Some(account) = self.accounts.last_mut() {
                    account.sessions.push(*session);
                }
            }
            Row::End => {}
        }
    }

    /// The containers: those that have drifted first, then those in which something was done last.
    pub fn into_sorted(self) -> Vec<Account> {
        let mut accounts = self.accounts;
        accounts.sort_by_key(|account| {
            let Page { ended, last, since, .. } = account.page;
            std::cmp::Reverse((account.page.verdict(), ended.is_none(), last, since))
        });
        accounts
    }
}
