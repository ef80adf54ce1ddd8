//! The entries `[[severity]]` of the file: from keys to overrides of the policy, with what is wrong or doubtful about
//! them.

use schemars::JsonSchema;
use toml::de::DeTable;

use super::conditions::{self, OfFinding};
use super::entries;
use super::problem::Problems;
use super::read::{Value, keys};
use crate::finding::Severity;
use crate::policy::Override;

/// A decision that certain findings have another severity. All conditions that are given must hold; of a list, one
/// must. The first override that matches applies.
#[derive(Debug, Default, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Entry {
    /// The name. No other override can have it.
    #[schemars(required)]
    name: Option<String>,
    /// Why there is this override.
    #[schemars(required)]
    reason: Option<String>,
    /// The severity that the findings have instead of that of the detector's rules.
    #[schemars(required)]
    severity: Option<Severity>,
    #[schemars(flatten)]
    conditions: OfFinding,
}

keys!(Entry: name, reason, severity; conditions: OfFinding);

impl entries::Entry for Entry {
    type Described = Override;
    const KEY: &'static str = "severity";
    const CALLED: (&'static str, &'static str) = ("override", "overrides");
    const REQUIRED: &'static [&'static str] = &["name", "reason", "severity", "finding"];

    fn name(&self) -> Option<&String> {
        self.name.as_ref()
    }

    fn describe(self, item: &Value<'_>, table: &DeTable<'_>, problems: &mut Problems) -> Option<Override> {
        let conditions = self.conditions.describe(item, table, problems);
        Some(Override { name: self.name?, reason: self.reason?, severity: self.severity?, conditions })
    }
}

impl entries::Described for Override {
    type Entry = Entry;

    fn name(&self) -> &str {
        &self.name
    }

    fn covers(&self, later: &Self) -> bool {
        self.conditions.cover(&later.conditions)
    }
}

/// Warns of overrides that may not do what was intended. The overrides are those of this document.
pub(super) fn warn(overrides: &[Override], document: &DeTable<'_>, problems: &mut Problems) {
    entries::warn(overrides, document, problems, |overriding, _, written, problems| {
        let Override { name, severity, conditions, .. } = overriding;
        if conditions.is_unlimited() && *severity < conditions.severity_at_most {
            problems.warn(
                written.span("finding"),
                format_args!(
                    "override `{name}` lowers these findings in all containers; add `image`, `path` or another \
                    condition, or `severity_at_most = \"{severity}\"` if it should only raise them"
                ),
            );
        }
        conditions::warn_boundless(conditions, written.table, problems);
    });
}
