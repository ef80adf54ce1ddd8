//! The entries `[[watch]]` of the file: from keys to rules of the policy, with what is wrong or doubtful about them.

use schemars::JsonSchema;
use toml::de::DeTable;

use super::conditions::OfContainer;
use super::entries;
use super::problem::Problems;
use super::read::{OneOrMore, Value, keys};
use crate::policy::{PathPattern, WatchRule};

/// A rule about which containers are watched. All conditions that are given must hold; of a list, one must. The first
/// rule that matches decides, and a container that none matches is watched.
#[derive(Debug, Default, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Entry {
    /// The name. No other rule can have it.
    #[schemars(required)]
    name: Option<String>,
    /// Why there is this rule.
    #[schemars(required)]
    reason: Option<String>,
    /// Whether the containers that it matches are watched.
    #[schemars(required)]
    watched: Option<bool>,
    /// Pattern of the path of the container's cgroup, from the root of the hierarchy.
    #[schemars(with = "Option<OneOrMore<String>>")]
    cgroup: OneOrMore<PathPattern>,
    #[schemars(flatten)]
    of_container: OfContainer,
}

keys!(Entry: name, reason, watched, cgroup; of_container: OfContainer);

impl entries::Entry for Entry {
    type Described = WatchRule;
    const KEY: &'static str = "watch";
    const CALLED: (&'static str, &'static str) = ("rule", "rules");
    const REQUIRED: &'static [&'static str] = &["name", "reason", "watched"];

    fn name(&self) -> Option<&String> {
        self.name.as_ref()
    }

    fn describe(self, _: &Value<'_>, _: &DeTable<'_>, _: &mut Problems) -> Option<WatchRule> {
        Some(WatchRule {
            name: self.name?,
            reason: self.reason?,
            is_watched: self.watched?,
            cgroup: self.cgroup.0,
            selection: self.of_container.into(),
        })
    }
}

impl entries::Described for WatchRule {
    type Entry = Entry;

    fn name(&self) -> &str {
        &self.name
    }

    fn covers(&self, later: &Self) -> bool {
        Self::covers(self, later)
    }
}

/// Warns of rules that may not do what was intended. The rules are those of this document.
pub(super) fn warn(rules: &[WatchRule], document: &DeTable<'_>, problems: &mut Problems) {
    entries::warn(rules, document, problems, |rule, earlier, written, problems| {
        let name = &rule.name;
        if !rule.is_watched && rule.is_unlimited() && !earlier.iter().any(|earlier| earlier.is_watched) {
            problems.warn(
                written.span("watched"),
                format_args!(
                    "rule `{name}` has no condition and no rule before it watches anything, so no container is \
                    watched; add `namespace`, `image` or another condition"
                ),
            );
        }
        for (key, pattern) in boundless(rule) {
            problems.warn(
                written.span(key),
                format_args!("`{pattern}` excludes nothing that is known; narrow it, or leave `{key}` out"),
            );
        }
    });
}

/// The patterns that exclude nothing, with their keys. That of a label says at least that it is there.
fn boundless(rule: &WatchRule) -> impl Iterator<Item = (&'static str, &str)> {
    let cgroups = rule.cgroup.iter().filter(|pattern| pattern.matches_everything());
    cgroups.map(|pattern| ("cgroup", pattern.as_str())).chain(rule.selection.boundless())
}
