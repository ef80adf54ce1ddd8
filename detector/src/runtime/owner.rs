//! Finds the Kubernetes controller that created a pod. The container runtime interface does not tell it, but the
//! controllers leave it in the labels and names of their pods. The creator of a pod can therefore forge it.

use std::collections::BTreeMap;

use crate::finding::OwnerKind;

/// The kind and name of the owner of a pod with this name and these labels. Returns `None` if it has no owner of these
/// kinds, or if the owner's name was too long to be in the pod's name as a whole.
pub(super) fn of<'a>(pod: &'a str, labels: &'a BTreeMap<String, String>) -> Option<(OwnerKind, &'a str)> {
    let label = |name: &str| labels.get(name).map(String::as_str);
    let owner = if let Some(job) = label("batch.kubernetes.io/job-name") {
        (OwnerKind::Job, job)
    } else if let (Some(job), Some(_)) = (label("job-name"), label("controller-uid")) {
        // Kubernetes before 1.27 has these labels.
        (OwnerKind::Job, job)
    } else if label("statefulset.kubernetes.io/pod-name") == Some(pod) {
        let (name, ordinal) = pod.rsplit_once('-')?;
        (OwnerKind::StatefulSet, ordinal.bytes().all(|byte| byte.is_ascii_digit()).then_some(name)?)
    } else if let Some(hash) = label("pod-template-hash") {
        // The hash is that of the ReplicaSet, which a Deployment has created.
        (OwnerKind::Deployment, generated_from(pod)?.strip_suffix(hash)?.strip_suffix('-')?)
    } else if label("pod-template-generation").and(label("controller-revision-hash")).is_some() {
        (OwnerKind::DaemonSet, generated_from(pod)?)
    } else {
        return None;
    };
    Some(owner)
}

/// Removes the five random characters that Kubernetes has appended to a generated name (`SimpleNameGenerator`,
/// k8s.io/apiserver/pkg/storage/names).
fn generated_from(name: &str) -> Option<&str> {
    let (from, random) = name.rsplit_once('-')?;
    (random.len() == 5).then_some(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_recognised_by_their_labels() {
        use OwnerKind::*;
        let hash = "pod-template-hash";
        for (pod, labels, expected) in [
            ("web-front-5d4f8c7b9-x2k8z", &[(hash, "5d4f8c7b9")][..], Some((Deployment, "web-front"))),
            ("db-12", &[("statefulset.kubernetes.io/pod-name", "db-12")], Some((StatefulSet, "db"))),
            (
                "log-agent-7bq9x",
                &[("controller-revision-hash", "6f9c"), ("pod-template-generation", "3")],
                Some((DaemonSet, "log-agent")),
            ),
            ("backup-29213-abcde", &[("batch.kubernetes.io/job-name", "backup-29213")], Some((Job, "backup-29213"))),
            ("old-abcde", &[("job-name", "old"), ("controller-uid", "u")], Some((Job, "old"))),
            // These names are truncated, or the labels belong to another pod or to no controller.
            ("a-very-long-name-5d4f8x2k8z", &[(hash, "5d4f8c7b9")], None),
            ("web-5d4f8c7b9-x2k8z", &[(hash, "other")], None),
            ("db-12", &[("statefulset.kubernetes.io/pod-name", "db-11")], None),
            ("db-x", &[("statefulset.kubernetes.io/pod-name", "db-x")], None),
            ("web", &[("job-name", "mine")], None),
            ("web-0", &[("app", "web")], None),
        ] {
            let labels = labels.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
            assert_eq!(of(pod, &labels), expected, "{pod} {labels:?}");
        }
    }
}
