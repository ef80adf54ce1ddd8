//! The conditions in the file: those about a finding, which an `[[exception]]` and a `[[severity]]` have, and those
//! about a container, which a `[[watch]]` has, too.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use toml::de::DeTable;

use super::problem::Problems;
use super::read::{FromToml, OneOrMore, Value, keys};
use crate::finding::{Kind, Op, Origin, Severity, Via};
use crate::policy::exception::{refusal, refusal_of_sessions, unfulfilled};
use crate::policy::{Conditions, PathPattern, Pattern, Selection};

/// The conditions about a container.
#[derive(Debug, Default, JsonSchema)]
pub(super) struct OfContainer {
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

keys!(OfContainer: image, container, pod, namespace, labels);

impl From<OfContainer> for Selection {
    fn from(OfContainer { image, container, pod, namespace, labels }: OfContainer) -> Self {
        Self { image: image.0, container: container.0, pod: pod.0, namespace: namespace.0, labels }
    }
}

/// The conditions about a finding.
#[derive(Debug, Default, JsonSchema)]
pub(super) struct OfFinding {
    /// The kinds of findings. `session` also needs `via`.
    #[schemars(with = "OneOrMore<Kind>", required)]
    finding: OneOrMore<Decidable>,
    /// The highest severity by the detector's rules that this is about: `high` if it is left out. Nothing can be
    /// decided about critical findings.
    #[schemars(with = "Option<Severity>")]
    severity_at_most: Option<Ceiling>,
    /// What was done to the file or mount, as `file.op` says.
    #[schemars(with = "Option<OneOrMore<Op>>")]
    operation: OneOrMore<Op>,
    /// How the process came into the container, as `process.origin` says.
    #[schemars(with = "Option<OneOrMore<Origin>>")]
    origin: OneOrMore<Origin>,
    /// How the session of the process began: `exec`, `nsenter`, `entrypoint` or `terminal`.
    #[schemars(with = "Option<OneOrMore<Via>>")]
    via: OneOrMore<Via>,
    /// Pattern of the path of the file that is changed or executed.
    #[schemars(with = "Option<OneOrMore<String>>")]
    path: OneOrMore<PathPattern>,
    /// Pattern of the executable of the process, which must be a file of the image's lower layers.
    #[schemars(with = "Option<OneOrMore<String>>")]
    exe: OneOrMore<PathPattern>,
    /// Pattern of the executable of an ancestor in the container, likewise.
    #[schemars(with = "Option<OneOrMore<String>>")]
    ancestor: OneOrMore<PathPattern>,
    /// Pattern of the script that the process runs, likewise.
    #[schemars(with = "Option<OneOrMore<String>>")]
    script: OneOrMore<PathPattern>,
    #[schemars(flatten)]
    of_container: OfContainer,
}

keys!(OfFinding: finding, severity_at_most, operation, origin, via, path, exe, ancestor, script;
    of_container: OfContainer);

/// A kind of finding about which something can be decided.
#[derive(Clone, Copy, Debug)]
struct Decidable(Kind);

impl FromToml for Decidable {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Option<Self> {
        let kind = Kind::from_toml(value, problems)?;
        if let Some(why) = refusal(kind) {
            problems.error(
                value.span(),
                format_args!("`{kind}` is always reported with its own severity: {why}; leave it out"),
            );
            return None;
        }
        Some(Self(kind))
    }
}

/// The highest severity of a finding about which something can be decided.
#[derive(Clone, Copy, Debug)]
struct Ceiling(Severity);

impl FromToml for Ceiling {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Option<Self> {
        let severity = Severity::from_toml(value, problems)?;
        if severity > Conditions::HIGHEST {
            let highest = Conditions::HIGHEST;
            problems.error(
                value.span(),
                format_args!("{severity} findings are always reported as such; write `{highest}` or a lower severity"),
            );
            return None;
        }
        Some(Self(severity))
    }
}

impl OfFinding {
    /// The conditions of an entry, which this table is.
    pub(super) fn describe(self, item: &Value<'_>, table: &DeTable<'_>, problems: &mut Problems) -> Conditions {
        let finding: Vec<Kind> = self.finding.0.into_iter().map(|decidable| decidable.0).collect();
        for kind in &finding {
            for (key, why) in unfulfilled(*kind) {
                if let Some(value) = table.get(*key) {
                    problems.error(
                        value.span(),
                        format_args!("`{key}` is never fulfilled by a `{kind}`: {why}; leave one of the two out"),
                    );
                }
            }
        }
        let why = self.via.0.iter().find_map(|via| refusal_of_sessions(*via));
        if let (Some(why), Some(value)) = (why, table.get("via")) {
            problems.error(
                value.span(),
                format_args!(
                    "sessions with `socket` and `application` are always reported with their own severity: {why}; \
                    leave it out"
                ),
            );
        }
        if finding.contains(&Kind::Session) && !table.contains_key("via") {
            problems.error(item.span(), "`session` also needs `via`; say how the session may begin");
        }
        Conditions {
            finding,
            severity_at_most: self.severity_at_most.map_or(Conditions::HIGHEST, |ceiling| ceiling.0),
            operation: self.operation.0,
            origin: self.origin.0,
            via: self.via.0,
            path: self.path.0,
            exe: self.exe.0,
            ancestor: self.ancestor.0,
            script: self.script.0,
            selection: self.of_container.into(),
        }
    }
}

/// Warns of the patterns of an entry, which this table is, that exclude nothing. That of a label says at least that it
/// is there.
pub(super) fn warn_boundless(conditions: &Conditions, table: &DeTable<'_>, problems: &mut Problems) {
    let Conditions { path, exe, ancestor, script, selection, .. } = conditions;
    let paths = [("path", path), ("exe", exe), ("ancestor", ancestor), ("script", script)];
    let paths = paths.into_iter().flat_map(|(key, list)| list.iter().map(move |pattern| (key, pattern)));
    let paths = paths.filter(|(_, pattern)| pattern.matches_everything()).map(|(key, it)| (key, it.as_str()));
    for (key, pattern) in paths.chain(selection.boundless()) {
        problems.warn(
            table.get(key).map(toml::Spanned::span).unwrap_or_default(),
            format_args!("`{pattern}` excludes nothing, so `{key}` is no condition; narrow it, or leave it out"),
        );
    }
}
