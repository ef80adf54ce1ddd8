//! The metadata of a container, reduced to a size that fits into a finding.

use std::borrow::Cow;
use std::collections::BTreeMap;

use detector_common::record::ARGS_CAPACITY;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::owner;
use crate::finding::{Container, Expected, Image, Labels, Owner, Pod, Reason, Severity, Text, Visit};
use crate::redact::Redactor;

/// The maximum length of a value or a name of a container, image, pod or label, in bytes. Label names in Kubernetes
/// have up to 317.
const MAX_TEXT: usize = 320;
/// The maximum number of labels.
const MAX_LABELS: usize = 64;
/// The maximum size of all labels, in bytes.
const MAX_LABEL_BYTES: usize = 8192;
/// The maximum number of entrypoint arguments, and of volumes.
const MAX_LIST: usize = 16;
/// The maximum size of the command of a health check, in bytes. Longer arguments are truncated in the events.
const MAX_COMMAND: usize = ARGS_CAPACITY;

/// The prefix of the kubelet's labels about the pod.
const POD_LABEL: &str = "io.kubernetes.pod.";
/// The kubelet's label with the name of a container in its pod.
const NAME_LABEL: &str = "io.kubernetes.container.name";

/// The metadata of a container, as a runtime returns it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Metadata {
    /// The name of the runtime in findings.
    pub runtime: Option<Cow<'static, str>>,
    /// The name of the container.
    pub name: Option<Text>,
    /// The image of the container.
    pub image: Option<Image>,
    /// The labels of the container.
    pub labels: Labels,
    /// The pod of the container.
    pub pod: Option<Pod>,
    /// The command of the health check that the container declares.
    #[serde(default)]
    pub health_check: Option<Vec<String>>,
}

impl Metadata {
    /// Adds the metadata to a finding's container. The runtime and the pod that the cgroup tells take precedence.
    pub(super) fn fill(&self, container: &mut Container) {
        container.runtime = container.runtime.take().or_else(|| self.runtime.clone());
        container.name.clone_from(&self.name);
        container.image.clone_from(&self.image);
        container.labels.clone_from(&self.labels);
        if let Some(pod) = &self.pod
            && container.pod.as_ref().is_none_or(|known| known.uid == pod.uid)
        {
            container.pod = Some(pod.clone());
        }
    }

    /// Decides whether what happened in a visit is expected.
    pub(super) fn judge(&self, visit: Option<&Visit>, severity: &mut Severity, expected: &mut Option<Expected>) {
        if let (Some(visit), Some(command)) = (visit, &self.health_check)
            && visit.runs(command)
        {
            *expected = Some(Expected::new(Reason::HealthCheck, severity));
        }
    }

    /// Redacts secrets in the arguments of the entrypoint.
    pub(super) fn redact(&mut self, redactor: &Redactor) {
        let Some(image) = &mut self.image else { return };
        let args: Vec<_> = image.entrypoint.iter().map(|arg| arg.to_string().into_bytes()).collect();
        let plain = redactor.args(args.iter().map(Vec::as_slice));
        for ((shown, arg), plain) in image.entrypoint.iter_mut().zip(&args).zip(plain) {
            if **arg != *plain {
                *shown = Text::from(&*plain);
            }
        }
    }
}

/// The configuration of an image in the format of Docker and of the Open Container Initiative.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct ImageConfig {
    entrypoint: Option<Vec<String>>,
    volumes: Option<BTreeMap<String, IgnoredAny>>,
}

/// Describes an image. If `config` is missing, its entrypoint and volumes are unknown.
pub(super) fn image(
    name: Option<&str>,
    id: Option<&str>,
    digests: &[String],
    config: Option<&ImageConfig>,
) -> Option<Image> {
    let image = Image {
        name: name.and_then(text),
        id: id.and_then(text),
        digest: digest(name.unwrap_or_default(), digests),
        entrypoint: config.and_then(|config| config.entrypoint.as_ref()).map_or_else(Vec::new, list),
        volumes: config.and_then(volumes),
    };
    (image != Image::default()).then_some(image)
}

/// The directories that an image declares as volumes, or `None` if there are too many or one is too long.
fn volumes(config: &ImageConfig) -> Option<Vec<Text>> {
    let Some(volumes) = &config.volumes else { return Some(Vec::new()) };
    let fit = volumes.len() <= MAX_LIST && volumes.keys().all(|volume| volume.len() <= MAX_TEXT);
    fit.then(|| list(volumes.keys()))
}

/// The digest in `REPOSITORY@DIGEST`, preferably that of the image's own repository.
fn digest(name: &str, digests: &[String]) -> Option<Text> {
    let split: Vec<_> = digests.iter().filter_map(|digest| digest.split_once('@')).collect();
    let own = split.iter().find(|(repository, _)| {
        name.strip_prefix(repository).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '@']))
    });
    text(own.or(split.first())?.1)
}

/// The command of a health check that is declared as this test. `shell` runs those that are a line for a shell. Returns
/// `None` if there is none, or if it is too long.
pub(super) fn health_check(test: &[String], shell: Option<&[String]>) -> Option<Vec<String>> {
    let command = match test.split_first()? {
        (kind, command) if kind == "CMD" => command.to_vec(),
        (kind, [line]) if kind == "CMD-SHELL" => {
            let default = ["/bin/sh", "-c"].map(str::to_owned);
            let shell = shell.filter(|shell| !shell.is_empty()).unwrap_or(&default);
            shell.iter().chain([line]).cloned().collect()
        }
        _ => return None,
    };
    (command.iter().map(|part| part.len() + 1).sum::<usize>() <= MAX_COMMAND).then_some(command)
}

/// The pod that the kubelet names in the labels of each container.
pub(super) fn pod_of(labels: &BTreeMap<String, String>) -> Option<Pod> {
    let label = |name: &str| labels.get(&format!("{POD_LABEL}{name}")).map(String::as_str);
    pod(label("uid")?, label("namespace"), label("name"), &BTreeMap::new())
}

/// The name that the kubelet gives a container in its pod.
pub(super) fn name_in_pod(labels: &BTreeMap<String, String>) -> Option<&str> {
    labels.get(NAME_LABEL).map(String::as_str)
}

/// Describes a pod.
pub(super) fn pod(
    uid: &str,
    namespace: Option<&str>,
    name: Option<&str>,
    own_labels: &BTreeMap<String, String>,
) -> Option<Pod> {
    let owner = name.and_then(|name| owner::of(name, own_labels));
    Some(Pod {
        uid: text(uid)?,
        namespace: namespace.and_then(text),
        name: name.and_then(text),
        labels: labels(own_labels),
        owner: owner.and_then(|(kind, name)| Some(Owner { kind, name: text(name)? })),
    })
}

/// The first labels by name, without those that findings have in other fields.
pub(super) fn labels(all: &BTreeMap<String, String>) -> Labels {
    let is_told = |name: &str| name.starts_with(POD_LABEL) || name == NAME_LABEL;
    let mut kept = Labels::default();
    let mut room = MAX_LABEL_BYTES;
    for (name, value) in all.iter().filter(|(name, _)| !is_told(name)) {
        let value_kept = truncated(value);
        let size = name.len() + value_kept.len();
        if name.len() > MAX_TEXT || size > room || kept.values.len() == MAX_LABELS {
            kept.truncated = true;
            continue;
        }
        room -= size;
        kept.truncated |= value_kept.len() < value.len();
        kept.values.insert(Text::from(name.as_bytes()), Text::from(value_kept.as_bytes()));
    }
    kept
}

/// Converts non-empty text. Text that is too long is truncated and ends with `…`.
pub(super) fn text(text: &str) -> Option<Text> {
    let kept = truncated(text);
    match (kept.len(), text.len()) {
        (0, _) => None,
        (kept, all) if kept == all => Some(Text::from(text.as_bytes())),
        _ => Some(Text::from(format!("{kept}…").as_bytes())),
    }
}

fn list<'a>(all: impl IntoIterator<Item = &'a String>) -> Vec<Text> {
    all.into_iter().take(MAX_LIST).map(|item| text(item).unwrap_or_default()).collect()
}

fn truncated(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn labels_are_bounded_in_each_way() {
        let long = "x".repeat(MAX_TEXT + 1);
        let size = |kept: &Labels| {
            kept.values.iter().map(|(name, value)| name.as_str().len() + value.as_str().len()).sum::<usize>()
        };
        let many: BTreeMap<_, _> = (0..1000).map(|nth| (format!("{nth:04}"), String::new())).collect();
        let big: BTreeMap<_, _> = (0..60).map(|nth| (format!("{nth:04}"), "v".repeat(MAX_TEXT))).collect();
        for (all, expected) in
            [(map(&[(&long, "")]), 0), (map(&[("a", &long), ("b", "")]), 2), (many, MAX_LABELS), (big, 25)]
        {
            let kept = labels(&all);
            assert!(kept.truncated && size(&kept) <= MAX_LABEL_BYTES);
            assert_eq!(kept.values.len(), expected);
        }
        assert!(!labels(&map(&[("a", "b"), ("c", "")])).truncated);
    }

    #[test]
    fn text_is_truncated_between_characters() {
        let cut = text(&"ä".repeat(1000)).expect("it is there").to_string();
        assert_eq!(cut, "ä".repeat(MAX_TEXT / 2) + "…");
        assert_eq!((text(""), text("a")), (None, Some(b"a"[..].into())));
    }

    #[test]
    fn the_kubelets_labels_name_the_pod() {
        let all = map(&[
            ("io.kubernetes.pod.uid", "u"),
            ("io.kubernetes.pod.name", "web-0"),
            ("io.kubernetes.pod.namespace", "shop"),
            ("io.kubernetes.container.name", "app"),
            ("team", "a"),
        ]);
        let pod = pod_of(&all).expect("it is there");
        assert_eq!(pod.namespace.zip(pod.name), Some((b"shop"[..].into(), b"web-0"[..].into())));
        assert_eq!((name_in_pod(&all), labels(&all).values.len()), (Some("app"), 1));
        assert_eq!(pod_of(&map(&[("io.kubernetes.pod.name", "web-0")])), None);
    }

    #[test]
    fn the_pod_from_the_cgroup_takes_precedence_over_the_runtimes() {
        let told = Metadata { pod: pod("u", Some("shop"), None, &BTreeMap::new()), ..Metadata::default() };
        for (known, namespace) in [(None, true), (Some("u"), true), (Some("v"), false)] {
            let pod = known.map(|uid| Pod { uid: uid.as_bytes().into(), ..Pod::default() });
            let mut container = Container { pod, ..Container::default() };
            told.fill(&mut container);
            let pod = container.pod.expect("it is known");
            assert_eq!((pod.uid.as_str(), pod.namespace.is_some()), (known.unwrap_or("u"), namespace));
        }
    }

    #[test]
    fn the_runtimes_name_is_used_if_the_cgroup_has_none() {
        let told = Metadata { runtime: Some("containerd".into()), ..Metadata::default() };
        for (known, expected) in [(None, "containerd"), (Some("cri-o"), "cri-o")] {
            let mut container = Container { runtime: known.map(Cow::Borrowed), ..Container::default() };
            told.fill(&mut container);
            assert_eq!(container.runtime.as_deref(), Some(expected));
        }
    }

    #[test]
    fn volumes_are_complete_or_unknown() {
        let known = |count: usize| {
            let declared = (0..count).map(|nth| (format!("/v{nth}"), IgnoredAny)).collect();
            volumes(&ImageConfig { volumes: Some(declared), entrypoint: None }).map(|kept| kept.len())
        };
        assert_eq!([0, MAX_LIST, MAX_LIST + 1].map(known), [Some(0), Some(MAX_LIST), None]);
        assert_eq!(volumes(&ImageConfig::default()), Some(Vec::new()));
    }

    #[test]
    fn a_health_check_is_what_the_runtime_executes() {
        let of = |test: &[&str], shell: Option<&[&str]>| {
            let strings = |list: &[&str]| list.iter().map(|&part| part.to_owned()).collect::<Vec<_>>();
            health_check(&strings(test), shell.map(strings).as_deref()).map(|command| command.join("|"))
        };
        assert_eq!(of(&["CMD", "pg_isready", "-q"], None).as_deref(), Some("pg_isready|-q"));
        assert_eq!(of(&["CMD-SHELL", "a || b"], None).as_deref(), Some("/bin/sh|-c|a || b"));
        assert_eq!(of(&["CMD-SHELL", "a"], Some(&[])).as_deref(), Some("/bin/sh|-c|a"));
        assert_eq!(of(&["CMD-SHELL", "a"], Some(&["/bin/bash", "-ec"])).as_deref(), Some("/bin/bash|-ec|a"));
        for none in [&[][..], &["NONE"], &["a", "b"], &["CMD-SHELL"], &["CMD", &"x".repeat(MAX_COMMAND)]] {
            assert_eq!(of(none, None), None);
        }
    }

    #[test]
    fn secrets_in_an_entrypoint_are_redacted() {
        let config = ImageConfig { entrypoint: Some(["/a\\b", "--token", "x"].map(Into::into).into()), volumes: None };
        let image = image(None, None, &[], Some(&config));
        let mut metadata = Metadata { image, ..Metadata::default() };
        metadata.redact(&Redactor::default());
        let shown = metadata.image.map(|image| image.entrypoint.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(shown, Some(["/a\\\\b", "--token", "[redacted]"].map(Into::into).into()));
    }

    #[test]
    fn the_digest_is_that_of_the_images_own_repository() {
        let digests = ["other/web@sha256:1".to_owned(), "shop/web@sha256:2".to_owned(), "garbage".to_owned()];
        let of = |name| digest(name, &digests).map(|digest| digest.to_string());
        assert_eq!(of("shop/web:1").as_deref(), Some("sha256:2"));
        assert_eq!(of("shop/web@sha256:2").as_deref(), Some("sha256:2"));
        assert_eq!(of("shop/web2").as_deref(), Some("sha256:1"));
        assert_eq!(digest("web", &[]), None);
    }
}
