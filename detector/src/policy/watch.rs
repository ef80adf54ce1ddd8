//! Which containers are watched. The rules are tried in their order, and the first that matches decides; a container
//! that none matches is watched.

use serde::{Deserialize, Serialize};

use super::PathPattern;
use super::selection::{Selection, is_wider};
use crate::finding::{Container, Text};

/// The cgroup below which systemd has those of the users.
const OF_USERS: &str = "/user.slice/";

/// A rule about which containers are watched. All conditions that are given must hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchRule {
    /// Its name. No other rule has it.
    pub name: String,
    /// Why there is this rule.
    pub reason: String,
    /// Whether the containers that it matches are watched.
    pub is_watched: bool,
    /// The path of the container's cgroup. One below `/user.slice` fulfils only a pattern that begins with that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cgroup: Vec<PathPattern>,
    /// What the runtime tells of the container.
    #[serde(flatten)]
    pub selection: Selection,
}

/// What is known of a container apart from its cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Its runtime may still tell something.
    Awaited,
    /// What its runtime has told.
    Told,
    /// No runtime tells anything that can be believed.
    Missing,
}

/// What the rules say about a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision<'a> {
    /// A rule can match or not, depending on what the runtime is going to tell.
    Open,
    /// No rule matches, so it is watched.
    Default,
    /// This rule is the first that matches.
    Rule(&'a WatchRule),
}

impl WatchRule {
    /// Whether the rule has no condition.
    pub fn is_unlimited(&self) -> bool {
        self.cgroup.is_empty() && self.selection.is_any()
    }

    /// Whether every container that `other` matches is certain to match this rule too. Patterns are compared as they
    /// are written, so not every such case is found.
    pub fn covers(&self, other: &Self) -> bool {
        is_wider(&self.cgroup, &other.cgroup) && self.selection.is_wider_than(&other.selection)
    }

    /// Whether the rule matches a container, or `None` if that depends on what the runtime is going to tell.
    fn matches(&self, container: &Container, answer: Answer) -> Option<bool> {
        let path = container.cgroup.as_ref().and_then(Text::to_bytes);
        // Users give the cgroups below theirs any names.
        let is_meant = |pattern: &PathPattern, path: &[u8]| {
            !path.starts_with(OF_USERS.as_bytes()) || pattern.as_str().starts_with(OF_USERS)
        };
        let is_in = path
            .is_some_and(|path| self.cgroup.iter().any(|pattern| is_meant(pattern, &path) && pattern.matches(&path)));
        if !self.cgroup.is_empty() && !is_in {
            return Some(false);
        }
        match (&self.selection, answer) {
            (selection, _) if selection.is_any() => Some(true),
            (_, Answer::Awaited) => None,
            (_, Answer::Missing) => Some(false),
            (selection, Answer::Told) => Some(selection.selects(container)),
        }
    }
}

/// What these rules say about a container.
pub fn decide<'a>(rules: &'a [WatchRule], container: &Container, answer: Answer) -> Decision<'a> {
    let mut matching = rules.iter().map(|rule| (rule, rule.matches(container, answer)));
    match matching.find(|(_, matches)| *matches != Some(false)) {
        None => Decision::Default,
        Some((rule, Some(_))) => Decision::Rule(rule),
        Some((_, None)) => Decision::Open,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::detect::samples::known_container;

    /// A rule of this name that unwatches what fulfils these conditions.
    fn rule(name: &str, conditions: Value) -> WatchRule {
        let mut rule = json!({"name": name, "reason": "It is known.", "is_watched": false});
        rule.as_object_mut().expect("it is one").extend(conditions.as_object().expect("it is one").clone());
        serde_json::from_value(rule).expect("it is a rule")
    }

    /// A container about which everything is known: its cgroup, and that all other texts are `nginx`.
    fn container() -> Container {
        Container { cgroup: Some(b"/pods/a\\x2db/one"[..].into()), ..known_container(b"nginx") }
    }

    fn decided(rules: &[WatchRule], answer: Answer) -> Option<String> {
        match decide(rules, &container(), answer) {
            Decision::Open => None,
            Decision::Default => Some("default".to_owned()),
            Decision::Rule(rule) => Some(rule.name.clone()),
        }
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let rules = [
            rule("other", json!({"cgroup": ["/other/**"]})),
            rule("cgroup", json!({"cgroup": ["/pods/**"]})),
            rule("all", json!({})),
        ];
        assert_eq!(decided(&rules, Answer::Awaited).as_deref(), Some("cgroup"));
        assert_eq!(decided(&rules[2..], Answer::Missing).as_deref(), Some("all"));
        assert_eq!(decided(&rules[..1], Answer::Told).as_deref(), Some("default"));
        assert_eq!(decided(&[], Answer::Awaited).as_deref(), Some("default"));
    }

    #[test]
    fn the_cgroup_of_a_users_container_fulfils_only_what_is_meant_for_users() {
        let of_user = Some(Text::from(&b"/user.slice/user-1000.slice/ci-x.scope"[..]));
        let container = Container { cgroup: of_user, ..Container::default() };
        for (pattern, is_meant) in [("/**", false), ("**/ci-*.scope", false), ("/user.slice/**", true)] {
            let rules = [rule("x", json!({"cgroup": [pattern]}))];
            let decision = decide(&rules, &container, Answer::Missing);
            assert_eq!(decision == Decision::Rule(&rules[0]), is_meant, "{pattern}");
        }
    }

    #[test]
    fn every_condition_must_hold() {
        for key in ["image", "container", "pod", "namespace"] {
            assert_eq!(decided(&[rule("x", json!({key: ["redis", "ng*"]}))], Answer::Told).as_deref(), Some("x"));
            assert_eq!(decided(&[rule("x", json!({key: ["redis"]}))], Answer::Told).as_deref(), Some("default"));
        }
        let labels = |labels: Value| decided(&[rule("x", json!({"labels": labels}))], Answer::Told);
        assert_eq!(labels(json!({"nginx": "n*"})).as_deref(), Some("x"));
        assert_eq!(labels(json!({"nginx": "*", "other": "*"})).as_deref(), Some("default"));
        let both = |cgroup: &str| decided(&[rule("x", json!({"cgroup": [cgroup], "image": ["nginx"]}))], Answer::Told);
        assert_eq!(both("/pods/a\\\\x2db/*").as_deref(), Some("x"), "a path is compared as it is, not as it is shown");
        assert_eq!(both("/pods/*").as_deref(), Some("default"));
    }

    #[test]
    fn what_is_not_known_yet_keeps_later_rules_from_deciding_and_what_never_comes_does_not() {
        let rules = [rule("image", json!({"image": ["redis"]})), rule("all", json!({}))];
        assert_eq!(decided(&rules, Answer::Awaited), None);
        assert_eq!(decided(&rules, Answer::Told).as_deref(), Some("all"));
        assert_eq!(decided(&rules, Answer::Missing).as_deref(), Some("all"));
        let told = [rule("image", json!({"image": ["*"]}))];
        assert_eq!(decided(&told, Answer::Missing).as_deref(), Some("default"), "nobody has told an image");
        // What the cgroup excludes already is not waited for.
        let elsewhere = [rule("image", json!({"cgroup": ["/other"], "image": ["nginx"]})), rule("all", json!({}))];
        assert_eq!(decided(&elsewhere, Answer::Awaited).as_deref(), Some("all"));
    }

    fn any_rule() -> impl Strategy<Value = WatchRule> {
        let cgroup = prop::sample::select(vec![json!({}), json!({"cgroup": ["/a/**"]}), json!({"cgroup": ["/b/**"]})]);
        let told = [json!({}), json!({"image": ["a"]}), json!({"pod": ["b"]}), json!({"labels": {"a": "*"}})];
        let told = prop::sample::select(told.to_vec());
        (cgroup, told, any::<bool>()).prop_map(|(cgroup, told, is_watched)| {
            let mut rule = rule("x", cgroup);
            (rule.selection, rule.is_watched) = (self::rule("y", told).selection, is_watched);
            rule
        })
    }

    proptest! {
        /// So it makes no difference whether the answer comes before or after a container is decided about.
        #[test]
        fn no_answer_changes_what_is_decided_without_it(
            mut rules in prop::collection::vec(any_rule(), 0..6),
            path in prop::sample::select(vec!["/a/x", "/b/x", "/c"]),
            name in prop::sample::select(vec!["a", "b", "c"]),
        ) {
            for (nth, rule) in rules.iter_mut().enumerate() {
                rule.name = nth.to_string();
            }
            let cgroup = Some(path.as_bytes().into());
            let unknown = Container { cgroup: cgroup.clone(), ..Container::default() };
            let known = Container { cgroup, ..known_container(name.as_bytes()) };
            let before = decide(&rules, &unknown, Answer::Awaited);
            let after = [decide(&rules, &known, Answer::Told), decide(&rules, &unknown, Answer::Missing)];
            prop_assert!(after.iter().all(|decision| *decision != Decision::Open));
            prop_assert!(before == Decision::Open || after == [before, before]);
            // What is not decided depends on the answer: the rule at which it stops is one that asks for it.
            let is_asking = rules.iter().any(|rule| !rule.selection.is_any());
            prop_assert!(before != Decision::Open || is_asking);
        }
    }
}
