//! Which containers a decision is about, by what a runtime tells of them. Exceptions, overrides and rules about what is
//! watched select containers in the same way.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Pattern;
use crate::finding::{Container, Text};

/// Conditions about a container that only its runtime can tell. All that are given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// The name or the digest of the container's image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image: Vec<Pattern>,
    /// The name of the container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub container: Vec<Pattern>,
    /// The name of the Kubernetes pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pod: Vec<Pattern>,
    /// The namespace of the Kubernetes pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespace: Vec<Pattern>,
    /// Labels of the container or pod. It must have all of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, Pattern>,
}

/// The key of a condition, and whether it is fulfilled.
type Check = (&'static str, fn(&Selection, &Container) -> bool);

/// The conditions.
const CONDITIONS: [Check; 5] = [
    ("image", |selection, container| is_one_of(&selection.image, image_names(container))),
    ("container", |selection, container| is_one_of(&selection.container, &container.name)),
    ("pod", |selection, container| is_one_of(&selection.pod, pod_name(container))),
    ("namespace", |selection, container| is_one_of(&selection.namespace, namespace(container))),
    ("labels", |selection, container| {
        selection.labels.iter().all(|(name, pattern)| {
            // A label of the pod has precedence: those of the container include what its image says.
            let all = container.pod.iter().map(|pod| &pod.labels).chain([&container.labels]);
            let mut values = all.filter_map(|labels| labels.values.get(&Text::from(name.as_bytes())));
            values.next().is_some_and(|value| pattern.matches(value.as_str().as_bytes()))
        })
    }),
];

impl Selection {
    /// Whether there is no condition, so that nothing need be known of the container.
    pub(crate) fn is_any(&self) -> bool {
        *self == Self::default()
    }

    /// Whether all conditions hold for a container. What is not known of it fulfils none.
    pub(crate) fn selects(&self, container: &Container) -> bool {
        self.unfulfilled_by(Some(container)).next().is_none()
    }

    /// The keys of the conditions that do not hold for a container, or for one of which nothing is known.
    pub(crate) fn unfulfilled_by<'a>(
        &'a self,
        container: Option<&'a Container>,
    ) -> impl Iterator<Item = &'static str> + 'a {
        let is_fulfilled = move |is_fulfilled: fn(&Self, &Container) -> bool| match container {
            Some(container) => is_fulfilled(self, container),
            None => is_fulfilled(self, &Container::default()),
        };
        CONDITIONS.iter().filter(move |(_, check)| !is_fulfilled(*check)).map(|(key, _)| *key)
    }

    /// Whether every container that `other` selects is certain to be selected by this, too.
    pub(super) fn is_wider_than(&self, other: &Self) -> bool {
        is_wider(&self.image, &other.image)
            && is_wider(&self.container, &other.container)
            && is_wider(&self.pod, &other.pod)
            && is_wider(&self.namespace, &other.namespace)
            && self.labels.iter().all(|(name, value)| other.labels.get(name) == Some(value))
    }

    /// The patterns that exclude nothing, with their keys. That of a label says at least that it is there.
    pub(crate) fn boundless(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let Self { image, container, pod, namespace, labels: _ } = self;
        let lists = [("image", image), ("container", container), ("pod", pod), ("namespace", namespace)];
        let all = lists.into_iter().flat_map(|(key, list)| list.iter().map(move |pattern| (key, pattern)));
        all.filter(|(_, pattern)| pattern.matches_everything()).map(|(key, pattern)| (key, pattern.as_str()))
    }
}

/// The name and the digest of a container's image.
pub(crate) fn image_names(container: &Container) -> impl Iterator<Item = &Text> {
    container.image.iter().flat_map(|image| [&image.name, &image.digest]).flatten()
}

/// The name of a container's pod.
pub(crate) fn pod_name(container: &Container) -> Option<&Text> {
    container.pod.as_ref()?.name.as_ref()
}

/// The namespace of a container's pod.
pub(crate) fn namespace(container: &Container) -> Option<&Text> {
    container.pod.as_ref()?.namespace.as_ref()
}

/// Whether there are no patterns, or one of these names is like one of them.
pub(crate) fn is_one_of<'a>(patterns: &[Pattern], names: impl IntoIterator<Item = &'a Text>) -> bool {
    let is_one = |name: &Text| patterns.iter().any(|pattern| pattern.matches(name.as_str().as_bytes()));
    patterns.is_empty() || names.into_iter().any(is_one)
}

/// Whether a list is a condition that the other list does not narrow down. Patterns are compared as they are written.
pub(super) fn is_wider<T: PartialEq>(list: &[T], other: &[T]) -> bool {
    list.is_empty() || !other.is_empty() && other.iter().all(|item| list.contains(item))
}
