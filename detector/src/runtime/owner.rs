//! What a pod was made by. The container runtime interface does not say it; the controllers of Kubernetes leave it in the
//! labels and the name of the pods that they make. So no more is known than whoever made the pod has put there.

use std::collections::BTreeMap;

use crate::finding::OwnerKind;

/// The kind and name of the owner of a pod with this name and these labels. `None`: it has none of these kinds, or its name
/// was too long to be kept whole in the pod's.
pub(super) fn of<'a>(pod: &'a str, labels: &'a BTreeMap<String, String>) -> Option<(OwnerKind, &'a str)> {
    let label = |name: &str| labels.get(name).map(String::as_str);
    let owner = if let Some(job) = label("batch.kubernetes.io/job-name") {
        (OwnerKind::Job, job)
    } else if let (Some(job), Some(_)) = (label("job-name"), label("controller-uid")) {
        // Before Kubernetes 1.27.
        (OwnerKind::Job, job)
    } else if label("statefulset.kubernetes.io/pod-name") == Some(pod) {
        let (name, ordinal) = pod.rsplit_once('-')?;
        (OwnerKind::StatefulSet, ordinal.bytes().all(|byte| byte.is_ascii_digit()).then_some(name)?)
    } else if let Some(hash) = label("pod-template-hash") {
        // Of its ReplicaSet, which a Deployment has made.
        (OwnerKind::Deployment, generated_from(pod)?.strip_suffix(hash)?.strip_suffix('-')?)
    } else if label("pod-template-generation").and(label("controller-revision-hash")).is_some() {
        (OwnerKind::DaemonSet, generated_from(pod)?)
    } else {
        return None;
    };
    Some(owner)
}

/// What a generated name was generated from: it has five characters more (`SimpleNameGenerator`,
/// k8s.io/apiserver/pkg/storage/names).
fn generated_from(name: &str) -> Option<&str> {
    let (from, random) = name.rsplit_once('-')?;
    (random.len() == 5).then_some(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_known_by_what_they_leave() {
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
            // Cut, another's, or nobody's.
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
