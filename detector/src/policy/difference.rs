//! What is different in another policy, for those who read that it was loaded.

use std::collections::BTreeMap;

use super::{Exception, Policy};

/// The names of the exceptions in which a policy differs from the one before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Those that were not there before.
    pub added: Vec<String>,
    /// Those that are not there any more.
    pub removed: Vec<String>,
    /// Those in which anything else is different.
    pub changed: Vec<String>,
    /// Whether those that are in both are tried in another order.
    pub is_reordered: bool,
    /// Whether there are other overrides, or in another order.
    pub has_other_overrides: bool,
    /// Whether there are other rules about what is watched, or in another order.
    pub has_other_rules: bool,
}

impl Difference {
    /// What is different in `after`.
    pub fn between(before: &Policy, after: &Policy) -> Self {
        let named = |policy: &Policy| -> BTreeMap<String, Exception> {
            policy.exceptions.iter().map(|exception| (exception.name.clone(), exception.clone())).collect()
        };
        let (old, new) = (named(before), named(after));
        let names = |policy: &Policy, is_wanted: &dyn Fn(&str) -> bool| -> Vec<String> {
            let names = policy.exceptions.iter().map(|exception| &exception.name);
            names.filter(|name| is_wanted(name)).cloned().collect()
        };
        let in_both = |name: &str| old.contains_key(name) && new.contains_key(name);
        Self {
            added: names(after, &|name| !old.contains_key(name)),
            removed: names(before, &|name| !new.contains_key(name)),
            changed: names(after, &|name| in_both(name) && old.get(name) != new.get(name)),
            is_reordered: names(before, &in_both) != names(after, &in_both),
            has_other_overrides: before.overrides != after.overrides,
            has_other_rules: before.rules != after.rules,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Conditions;

    fn policy(exceptions: &[(&str, &str)]) -> Policy {
        let exception = |&(name, reason): &(&str, &str)| Exception {
            name: name.to_owned(),
            reason: reason.to_owned(),
            owner: String::new(),
            expires: None,
            conditions: Conditions::default(),
        };
        Policy { exceptions: exceptions.iter().map(exception).collect(), ..Policy::default() }
    }

    #[test]
    fn exceptions_are_compared_by_their_names() {
        let before = policy(&[("a", ""), ("b", ""), ("c", ""), ("d", "")]);
        assert_eq!(Difference::between(&before, &before), Difference::default());
        let after = policy(&[("new", ""), ("d", ""), ("b", "another reason")]);
        let expected = Difference {
            added: vec!["new".to_owned()],
            removed: vec!["a".to_owned(), "c".to_owned()],
            changed: vec!["b".to_owned()],
            is_reordered: true,
            has_other_overrides: false,
            has_other_rules: false,
        };
        assert_eq!(Difference::between(&before, &after), expected);
    }
}
