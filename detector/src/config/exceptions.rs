//! The entries `[[exception]]` of the file: from keys to exceptions of the policy, with what is wrong or doubtful about
//! them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use toml::de::DeTable;

use super::entries;
use super::problem::Problems;
use super::read::{FromToml, OneOrMore, Value, keys};
use crate::finding::{Kind, Op, Origin, Severity, Time, Via};
use crate::policy::exception::{TO_FILL_IN, refusal, refusal_of_sessions, unfulfilled};
use crate::policy::{Conditions, Exception, PathPattern, Pattern, Selection};

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
    /// The kinds of findings. `session` also needs `via`.
    #[schemars(with = "OneOrMore<Kind>", required)]
    finding: OneOrMore<Excepted>,
    /// The highest severity that the exception is about: `high` if this is left out. Critical findings cannot be
    /// excepted.
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

keys!(Entry: name, reason, owner, expires, finding, severity_at_most, operation, origin, via, path, exe, ancestor,
    script, image, container, pod, namespace, labels);

/// A kind of finding for which there can be an exception.
#[derive(Clone, Copy, Debug)]
struct Excepted(Kind);

impl FromToml for Excepted {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Option<Self> {
        let kind = Kind::from_toml(value, problems)?;
        if let Some(why) = refusal(kind) {
            problems.error(value.span(), format_args!("`{kind}` cannot be excepted: {why}; leave it out"));
            return None;
        }
        Some(Self(kind))
    }
}

/// The highest severity of a finding for which there can be an exception.
#[derive(Clone, Copy, Debug)]
struct Ceiling(Severity);

impl FromToml for Ceiling {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Option<Self> {
        let severity = Severity::from_toml(value, problems)?;
        if severity > Conditions::HIGHEST {
            let highest = Conditions::HIGHEST;
            problems.error(
                value.span(),
                format_args!("{severity} findings cannot be excepted; write `{highest}` or a lower severity"),
            );
            return None;
        }
        Some(Self(severity))
    }
}

/// The exceptions of a file, in its order.
#[derive(Debug, Default)]
pub struct Exceptions(pub Vec<Exception>);

impl FromToml for Exceptions {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Option<Self> {
        entries::read::<Entry>(value, problems).map(Self)
    }
}

impl entries::Entry for Entry {
    type Described = Exception;
    const KEY: &'static str = "exception";
    const CALLED: (&'static str, &'static str) = ("exception", "exceptions");
    const REQUIRED: &'static [&'static str] = &["name", "reason", "owner", "finding"];

    fn name(&self) -> Option<&String> {
        self.name.as_ref()
    }

    fn describe(self, item: &Value<'_>, table: &DeTable<'_>, problems: &mut Problems) -> Option<Exception> {
        let finding: Vec<Kind> = self.finding.0.into_iter().map(|excepted| excepted.0).collect();
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
                format_args!("`socket` and `application` cannot be excepted: {why}; leave it out"),
            );
        }
        if finding.contains(&Kind::Session) && !table.contains_key("via") {
            problems.error(item.span(), "an exception of `session` needs `via`; say how the session may begin");
        }
        Some(Exception {
            name: self.name?,
            reason: self.reason?,
            owner: self.owner?,
            expires: self.expires,
            conditions: Conditions {
                finding,
                severity_at_most: self.severity_at_most.map_or(Conditions::HIGHEST, |ceiling| ceiling.0),
                operation: self.operation.0,
                origin: self.origin.0,
                via: self.via.0,
                path: self.path.0,
                exe: self.exe.0,
                ancestor: self.ancestor.0,
                script: self.script.0,
                selection: Selection {
                    image: self.image.0,
                    container: self.container.0,
                    pod: self.pod.0,
                    namespace: self.namespace.0,
                    labels: self.labels,
                },
            },
        })
    }
}

/// Warns of exceptions that may not do what was intended. The exceptions are those of this document.
pub(super) fn warn(exceptions: &[Exception], document: &DeTable<'_>, now: Time, problems: &mut Problems) {
    let items = document.get("exception").and_then(|value| value.get_ref().as_array());
    for (nth, (exception, item)) in exceptions.iter().zip(items.into_iter().flatten()).enumerate() {
        let Some(table) = item.get_ref().as_table() else { continue };
        let span = |key: &str| table.get(key).unwrap_or(item).span();
        let Exception { name, conditions, .. } = exception;
        for (key, text) in [("reason", &exception.reason), ("owner", &exception.owner)] {
            if text == TO_FILL_IN {
                problems.warn(span(key), format_args!("exception `{name}` has no {key} yet; replace `{TO_FILL_IN}`"));
            }
        }
        match exception.end() {
            None => problems.warn(
                span("name"),
                format_args!("exception `{name}` never expires; add `expires`, so that somebody looks at it again"),
            ),
            Some(end) if exception.has_expired(now) => problems.warn(
                span("expires"),
                format_args!("exception `{name}` has expired {end}; remove it, or renew `expires`"),
            ),
            Some(_) => {}
        }
        if conditions.is_unlimited() {
            problems.warn(
                span("finding"),
                format_args!(
                    "exception `{name}` is about these findings in all containers; add `image`, `path` or another \
                    condition"
                ),
            );
        }
        for (key, pattern) in boundless(conditions) {
            problems.warn(
                span(key),
                format_args!("`{pattern}` excludes nothing, so `{key}` is no condition; narrow it, or leave it out"),
            );
        }
        let is_wider = |earlier: &&Exception| {
            // One that ends earlier leaves the rest of the time to this one.
            let lasts = earlier.expires.is_none_or(|end| exception.expires.is_some_and(|own| own <= end));
            lasts && earlier.conditions.cover(conditions)
        };
        if let Some(earlier) = exceptions[..nth].iter().find(is_wider) {
            entries::warn_unreached::<Entry>(name, &earlier.name, span("name"), problems);
        }
    }
}

/// The patterns that exclude nothing, with their keys. That of a label says at least that it is there.
fn boundless(conditions: &Conditions) -> impl Iterator<Item = (&'static str, &str)> {
    let Conditions { path, exe, ancestor, script, selection, .. } = conditions;
    let paths = [("path", path), ("exe", exe), ("ancestor", ancestor), ("script", script)];
    let paths = paths.into_iter().flat_map(|(key, list)| list.iter().map(move |pattern| (key, pattern)));
    let paths = paths.filter(|(_, pattern)| pattern.matches_everything()).map(|(key, it)| (key, it.as_str()));
    paths.chain(selection.boundless())
}
