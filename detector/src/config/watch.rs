//! The entries `[[watch]]` of the file: from keys to rules of the policy, with what is wrong or doubtful about them.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use toml::de::{DeTable, DeValue};

use super::exceptions::{MOST, MOST_TEXTS, texts};
use super::problem::Problems;
use super::read::{FromToml, OneOrMore, Value, keys};
use crate::policy::{PathPattern, Pattern, Selection, WatchRule};

/// The keys that every rule has.
const REQUIRED: [&str; 3] = ["name", "reason", "watched"];

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
    /// Pattern of the name or the digest of the container's image.
    #[schemars(with = "Option<OneOrMore<String>>")]
    image: OneOrMore<Pattern>,
    /// Pattern of the container's name.
    #[schemars(with = "Option<OneOrMore<String>>")]
    container: OneOrMore<Pattern>,
    /// Pattern of the name of the Kubernetes pod.
    #[schemars(with = "Option<OneOrMore<String>>")]
    pod: OneOrMore<Pattern>,
    /// Pattern of the namespace of the Kubernetes pod.
    #[schemars(with = "Option<OneOrMore<String>>")]
    namespace: OneOrMore<Pattern>,
    /// Patterns of labels of the container or pod, by their names. It must have all of them.
    #[schemars(with = "Option<BTreeMap<String, String>>")]
    labels: BTreeMap<String, Pattern>,
}

keys!(Entry: name, reason, watched, cgroup, image, container, pod, namespace, labels);

/// The rules of a file, in its order.
#[derive(Debug, Default)]
pub struct Rules(pub Vec<WatchRule>);

impl FromToml for Rules {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Option<Self> {
        let DeValue::Array(list) = value.get_ref() else {
            problems.error(value.span(), "rules are a list; write `[[watch]]`, with two brackets");
            return None;
        };
        if let Some(more) = list.get(MOST) {
            let all = list.len();
            problems.error(
                more.span(),
                format_args!("there are {all} rules, and can be at most {MOST}; combine some with lists or patterns"),
            );
        }
        let texts = texts(value.get_ref());
        if texts > MOST_TEXTS {
            problems.error(
                value.span(),
                format_args!(
                    "the rules have {texts} texts, and can have at most {MOST_TEXTS}; combine some with patterns"
                ),
            );
            return None;
        }
        let mut names = BTreeSet::new();
        let mut rules = Vec::new();
        for item in list.iter().take(MOST) {
            let Some(entry) = Entry::from_toml(item, problems) else { continue };
            let Some(table) = item.get_ref().as_table() else { continue };
            if let (Some(name), Some(value)) = (&entry.name, table.get("name"))
                && !names.insert(name.clone())
            {
                problems.error(value.span(), format_args!("another rule is called `{name}` too; give each its name"));
            }
            rules.extend(entry.rule(item, table, problems));
        }
        Some(Self(rules))
    }
}

impl Entry {
    /// The rule that the entry describes, if nothing is missing.
    fn rule(self, item: &Value<'_>, table: &DeTable<'_>, problems: &mut Problems) -> Option<WatchRule> {
        let missing = REQUIRED.into_iter().filter(|key| !table.contains_key(*key)).collect::<Vec<_>>();
        if !missing.is_empty() {
            problems.error(
                item.span(),
                format_args!("this rule has no {}; every one needs {}", missing.join(", "), REQUIRED.join(", ")),
            );
        }
        Some(WatchRule {
            name: self.name?,
            reason: self.reason?,
            is_watched: self.watched?,
            cgroup: self.cgroup.0,
            selection: Selection {
                image: self.image.0,
                container: self.container.0,
                pod: self.pod.0,
                namespace: self.namespace.0,
                labels: self.labels,
            },
        })
    }
}

/// Warns of rules that may not do what was intended. The rules are those of this document.
pub(super) fn warn(rules: &[WatchRule], document: &DeTable<'_>, problems: &mut Problems) {
    let items = document.get("watch").and_then(|value| value.get_ref().as_array());
    for (nth, (rule, item)) in rules.iter().zip(items.into_iter().flatten()).enumerate() {
        let Some(table) = item.get_ref().as_table() else { continue };
        let span = |key: &str| table.get(key).unwrap_or(item).span();
        let name = &rule.name;
        if !rule.is_watched && rule.is_unlimited() && !rules[..nth].iter().any(|earlier| earlier.is_watched) {
            problems.warn(
                span("watched"),
                format_args!(
                    "rule `{name}` has no condition and no rule before it watches anything, so no container is \
                    watched; add `namespace`, `image` or another condition"
                ),
            );
        }
        for (key, pattern) in boundless(rule) {
            problems.warn(
                span(key),
                format_args!("`{pattern}` excludes nothing that is known; narrow it, or leave `{key}` out"),
            );
        }
        if let Some(earlier) = rules[..nth].iter().find(|earlier| earlier.covers(rule)) {
            problems.warn(
                span("name"),
                format_args!(
                    "rule `{name}` is never reached: `{}` comes before it and covers all of it; remove one, or put \
                    the narrower one first",
                    earlier.name
                ),
            );
        }
    }
}

/// The patterns that exclude nothing, with their keys. That of a label says at least that it is there.
fn boundless(rule: &WatchRule) -> impl Iterator<Item = (&'static str, &str)> {
    let cgroups = rule.cgroup.iter().filter(|pattern| pattern.matches_everything());
    cgroups.map(|pattern| ("cgroup", pattern.as_str())).chain(rule.selection.boundless())
}
