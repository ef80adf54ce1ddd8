//! The entries `[[exception]]` of the file: from keys to exceptions of the policy, with what is wrong or doubtful about
//! them.

use schemars::JsonSchema;
use toml::de::DeTable;

use super::conditions::{self, OfFinding};
use super::entries;
use super::problem::Problems;
use super::read::{Value, keys};
use crate::finding::Time;
use crate::policy::Exception;
use crate::policy::exception::TO_FILL_IN;

/// A decision that certain findings are expected. All conditions that are given must hold; of a list, one must. The
/// first exception that matches applies.
#[derive(Debug, Default, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Entry {
    /// The name. No other exception can have it.
    #[schemars(required)]
    name: Option<String>,
    /// Why there is this exception.
    #[schemars(required)]
    reason: Option<String>,
    /// Who answers for it.
    #[schemars(required)]
    owner: Option<String>,
    /// Until when it holds: a date, to its end, or a date with a time; UTC unless it says otherwise. Without it, the
    /// exception holds for ever.
    #[schemars(with = "Option<String>", extend("pattern" = "^[0-9]{4}-[0-9]{2}-[0-9]{2}"))]
    expires: Option<Time>,
    #[schemars(flatten)]
    conditions: OfFinding,
}

keys!(Entry: name, reason, owner, expires; conditions: OfFinding);

impl entries::Entry for Entry {
    type Described = Exception;
    const KEY: &'static str = "exception";
    const CALLED: (&'static str, &'static str) = ("exception", "exceptions");
    const REQUIRED: &'static [&'static str] = &["name", "reason", "owner", "finding"];

    fn name(&self) -> Option<&String> {
        self.name.as_ref()
    }

    fn describe(self, item: &Value<'_>, table: &DeTable<'_>, problems: &mut Problems) -> Option<Exception> {
        let conditions = self.conditions.describe(item, table, problems);
        Some(Exception {
            name: self.name?,
            reason: self.reason?,
            owner: self.owner?,
            expires: self.expires,
            conditions,
        })
    }
}

impl entries::Described for Exception {
    type Entry = Entry;

    fn name(&self) -> &str {
        &self.name
    }

    fn covers(&self, later: &Self) -> bool {
        // One that ends earlier leaves the rest of the time to the later one.
        let lasts = self.expires.is_none_or(|end| later.expires.is_some_and(|later| later <= end));
        lasts && self.conditions.cover(&later.conditions)
    }
}

/// Warns of exceptions that may not do what was intended. The exceptions are those of this document.
pub(super) fn warn(exceptions: &[Exception], document: &DeTable<'_>, now: Time, problems: &mut Problems) {
    entries::warn(exceptions, document, problems, |exception, _, written, problems| {
        let Exception { name, conditions, .. } = exception;
        for (key, text) in [("reason", &exception.reason), ("owner", &exception.owner)] {
            if text == TO_FILL_IN {
                problems.warn(
                    written.span(key),
                    format_args!("exception `{name}` has no {key} yet; replace `{TO_FILL_IN}`"),
                );
            }
        }
        match exception.end() {
            None => problems.warn(
                written.span("name"),
                format_args!("exception `{name}` never expires; add `expires`, so that somebody looks at it again"),
            ),
            Some(end) if exception.has_expired(now) => problems.warn(
                written.span("expires"),
                format_args!("exception `{name}` has expired {end}; remove it, or renew `expires`"),
            ),
            Some(_) => {}
        }
        if conditions.is_unlimited() {
            problems.warn(
                written.span("finding"),
                format_args!(
                    "exception `{name}` is about these findings in all containers; add `image`, `path` or another \
                    condition"
                ),
            );
        }
        conditions::warn_boundless(conditions, written.table, problems);
    });
}
