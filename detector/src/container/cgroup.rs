//! Parses the cgroup paths that container runtimes choose for their containers.
//!
//! Where a path names several containers, or its meaning is not clear, these rules apply:
//! - The **outermost** container counts. Nested containers (Docker in Docker, Kubernetes in Docker, or systemd and its
//!   services in a container) belong to the container that the node's own runtime started. The probes attribute events
//!   in the same way.
//! - `conmon`, the monitor of CRI-O and Podman, has a cgroup named after its container, but runs on the host. Such a
//!   cgroup is not a container.
//! - Every runtime can be configured to use cgroupfs, where a cgroup is named by a bare 64-digit id. Its parent
//!   directory may tell the runtime. Otherwise the runtime is unknown: findings never have a guess.

use std::borrow::Cow;

/// The container that a cgroup path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerRef {
    /// The id or name that the runtime gave the container.
    pub id: Vec<u8>,
    /// The runtime: `docker`, `containerd`, `cri-o`, `podman`, `lxc` or `systemd-nspawn`, or what builds an image:
    /// `buildkit` or `buildah`. `None` if the path does not tell.
    pub runtime: Option<&'static str>,
    /// `metadata.uid` of the Kubernetes pod.
    pub pod_uid: Option<Vec<u8>>,
}

/// What runs the steps of `docker build`, and of `podman build`.
const BUILDERS: [&str; 2] = ["buildkit", "buildah"];

impl ContainerRef {
    /// Whether it is a step of a build.
    pub(crate) fn is_build_step(&self) -> bool {
        self.runtime.is_some_and(|runtime| BUILDERS.contains(&runtime))
    }
}

/// The format of the id in a directory name.
#[derive(Clone, Copy)]
enum Id {
    /// 64 hexadecimal digits.
    Hex,
    /// 25 digits and lower-case letters.
    BuildKit,
    /// `buildah-buildah` and a number.
    Buildah,
    /// A name chosen by a person.
    Name,
    /// Like `Name`, but escaped by systemd (`\x2d` is `-`).
    Escaped,
    /// The directory name resembles that of a container, but is not one.
    NoContainer,
}

/// A row of [`SHAPES`].
struct Shape {
    /// The name of the parent directory. Empty if any parent matches.
    parent: &'static [u8],
    prefix: &'static [u8],
    id: Id,
    suffix: &'static [u8],
    runtime: Option<&'static str>,
}

const fn shape(
    parent: &'static str,
    prefix: &'static str,
    id: Id,
    suffix: &'static str,
    runtime: Option<&'static str>,
) -> Shape {
    Shape { parent: parent.as_bytes(), prefix: prefix.as_bytes(), id, suffix: suffix.as_bytes(), runtime }
}

/// The known names of container directories. The first match counts.
const SHAPES: &[Shape] = &[
    // Monitors, and virtual machines of libvirt.
    shape("", "crio-conmon-", Id::NoContainer, "", None),
    shape("", "libpod-conmon-", Id::NoContainer, "", None),
    shape("", "lxc.monitor.", Id::NoContainer, "", None),
    shape("machine.slice", "machine-qemu\\x2d", Id::NoContainer, ".scope", None),
    // The systemd driver of each runtime creates a scope whose name begins with the runtime's prefix.
    shape("", "docker-", Id::Hex, ".scope", Some("docker")),
    shape("", "cri-containerd-", Id::Hex, ".scope", Some("containerd")),
    shape("", "nerdctl-", Id::Hex, ".scope", Some("containerd")),
    shape("", "crio-", Id::Hex, ".scope", Some("cri-o")),
    shape("", "libpod-", Id::Hex, ".scope", Some("podman")),
    // The cgroupfs driver creates plain directories. A path meant for systemd (`slice:prefix:id`) becomes one
    // directory.
    shape("cri-containerd", "", Id::Hex, "", Some("containerd")),
    shape("", "crio-", Id::Hex, "", Some("cri-o")),
    shape("", "libpod-payload-", Id::Hex, "", Some("podman")),
    shape("", "libpod-", Id::Hex, "", Some("podman")),
    shape("docker", "", Id::Hex, "", Some("docker")),
    // Steps of builds. If Docker uses systemd, its BuildKit chooses a path meant for systemd.
    shape("docker", "", Id::BuildKit, "", Some(BUILDERS[0])),
    shape("buildkit", "", Id::BuildKit, "", Some(BUILDERS[0])),
    shape("", "", Id::Buildah, "", Some(BUILDERS[1])),
    // System containers.
    shape("", "lxc.payload.", Id::Name, "", Some("lxc")),
    shape("lxc", "", Id::Name, "", Some("lxc")),
    shape("machine.slice", "systemd-nspawn@", Id::Escaped, ".service", Some("systemd-nspawn")),
    shape("machine.slice", "machine-", Id::Escaped, ".scope", Some("systemd-nspawn")),
    // This matches `/kubepods/burstable/pod<uid>/<id>`, `/<containerd namespace>/<id>`, and similar paths of other
    // runtimes.
    shape("", "", Id::Hex, "", None),
];

/// The meaning of a path.
enum PathMeaning {
    Container(ContainerRef),
    NoContainer,
    /// The path names at most a pod.
    Unknown(Option<Vec<u8>>),
}

/// The container that a path names in the way of a known runtime.
pub(crate) fn parse(path: &[u8]) -> Option<ContainerRef> {
    match interpret(path) {
        PathMeaning::Container(container) => Some(container),
        PathMeaning::NoContainer | PathMeaning::Unknown(_) => None,
    }
}

/// Whether this is the path of a container's outermost cgroup, named in the way of a known runtime.
pub(crate) fn is_container(path: &[u8]) -> bool {
    let above = path.iter().rposition(|&byte| byte == b'/').map_or(&b""[..], |end| &path[..end]);
    parse(path).is_some() && parse(above).is_none()
}

/// The container at a path that the probes have identified as a container. If no shape matches, the name of the last
/// directory is the id. Returns `None` if the path is the root or belongs to a monitor.
pub(crate) fn parse_known(path: &[u8]) -> Option<ContainerRef> {
    match interpret(path) {
        PathMeaning::Container(container) => Some(container),
        PathMeaning::NoContainer => None,
        PathMeaning::Unknown(pod_uid) => {
            let id = path.split(|&byte| byte == b'/').rfind(|name| !name.is_empty())?.to_vec();
            Some(ContainerRef { id, runtime: None, pod_uid })
        }
    }
}

fn interpret(path: &[u8]) -> PathMeaning {
    let mut parent: &[u8] = b"";
    let mut pod_uid = None;
    for name in path.split(|byte| matches!(byte, b'/' | b':')).filter(|name| !name.is_empty()) {
        if let Some((shape, id)) = SHAPES.iter().find_map(|shape| Some((shape, shape.matches(parent, name)?))) {
            return match shape.id {
                Id::NoContainer => PathMeaning::NoContainer,
                Id::Hex | Id::BuildKit | Id::Buildah | Id::Name | Id::Escaped => {
                    PathMeaning::Container(ContainerRef { id: id.into_owned(), runtime: shape.runtime, pod_uid })
                }
            };
        }
        pod_uid = pod(name).or(pod_uid);
        parent = name;
    }
    PathMeaning::Unknown(pod_uid)
}

impl Shape {
    /// The id, if the directory has this shape.
    fn matches<'a>(&self, parent: &[u8], name: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        if !self.parent.is_empty() && self.parent != parent {
            return None;
        }
        let id = name.strip_prefix(self.prefix)?.strip_suffix(self.suffix)?;
        match self.id {
            Id::Hex => is_id(id).then_some(Cow::Borrowed(id)),
            Id::BuildKit => is_of_buildkit(id).then_some(Cow::Borrowed(id)),
            Id::Buildah => is_of_buildah(id).then_some(Cow::Borrowed(id)),
            Id::Name | Id::NoContainer => (!id.is_empty()).then_some(Cow::Borrowed(id)),
            Id::Escaped => (!id.is_empty()).then(|| unescape(id)),
        }
    }
}

fn is_id(name: &[u8]) -> bool {
    name.len() == 64 && name.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_of_buildkit(name: &[u8]) -> bool {
    name.len() == 25 && name.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'z'))
}

fn is_of_buildah(name: &[u8]) -> bool {
    let number = name.strip_prefix(b"buildah-buildah");
    number.is_some_and(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit))
}

/// The uid in `pod<uid>` (cgroupfs) or in `kubepods[-<class>]-pod<uid>.slice` (systemd, which replaces `-` by `_`).
fn pod(name: &[u8]) -> Option<Vec<u8>> {
    let uid = match name.strip_suffix(b".slice") {
        Some(slice) => {
            let slice = slice.strip_prefix(b"kubepods-")?;
            [b"burstable-".as_slice(), b"besteffort-"]
                .iter()
                .find_map(|class| slice.strip_prefix(*class))
                .unwrap_or(slice)
        }
        None => name,
    };
    let uid = uid.strip_prefix(b"pod")?;
    // A uid is a UUID of 36 characters or, for a static pod of the kubelet, a hash of 32.
    let known =
        matches!(uid.len(), 32 | 36) && uid.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-' | b'_'));
    known.then(|| uid.iter().map(|&byte| if byte == b'_' { b'-' } else { byte }).collect())
}

/// Replaces systemd's escapes in unit names, `\xNN`.
fn unescape(name: &[u8]) -> Cow<'_, [u8]> {
    if !name.contains(&b'\\') {
        return Cow::Borrowed(name);
    }
    let mut plain = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&byte, tail)) = rest.split_first() {
        let escaped = rest.strip_prefix(b"\\x").and_then(|hex| hex.split_at_checked(2)).and_then(|(hex, tail)| {
            let hex = hex.iter().all(u8::is_ascii_hexdigit).then(|| str::from_utf8(hex).ok())??;
            Some((u8::from_str_radix(hex, 16).ok()?, tail))
        });
        let (byte, tail) = escaped.unwrap_or((byte, tail));
        plain.push(byte);
        rest = tail;
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: &str = "3f2a0c6d9e1b4857a6c3d2e1f0b9a8877665544332211000ffeeddccbbaa9988";
    const B: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    const UID: &str = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9";

    /// The expected runtime (`-` if unknown), the id, and whether the path has a pod.
    type Named = Option<(&'static str, &'static str, bool)>;
    /// In the paths, `A` and `B` stand for ids, `UID` for the uid of a pod, and `U_D` for that uid with underscores.
    const TABLE: &[(&str, Named)] = &[
        // Docker with cgroupfs, with systemd, rootless, and with a parent that the administrator chose.
        ("/docker/A", Some(("docker", "A", false))),
        ("/system.slice/docker-A.scope", Some(("docker", "A", false))),
        ("/user.slice/user-1000.slice/user@1000.service/user.slice/docker-A.scope", Some(("docker", "A", false))),
        ("/jobs.slice/docker-A.scope", Some(("docker", "A", false))),
        // Kubernetes on containerd.
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podU_D.slice/cri-containerd-A.scope",
            Some(("containerd", "A", true)),
        ),
        ("/kubepods.slice/kubepods-podU_D.slice/cri-containerd-A.scope", Some(("containerd", "A", true))),
        ("/kubepods/besteffort/podUID/A", Some(("-", "A", true))),
        ("/kubepods/podUID/A", Some(("-", "A", true))),
        ("/kubelet.slice/kubelet-kubepods.slice/cri-containerd-A.scope", Some(("containerd", "A", false))),
        ("/system.slice/containerd.service/kubepods/burstable/podUID/A", Some(("-", "A", true))),
        ("/system.slice/containerd.service/kubepods-podU_D.slice:cri-containerd:A", Some(("containerd", "A", true))),
        // Kubernetes on Docker, through cri-dockerd.
        (
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podU_D.slice/docker-A.scope",
            Some(("docker", "A", true)),
        ),
        // nerdctl and ctr.
        ("/system.slice/nerdctl-A.scope", Some(("containerd", "A", false))),
        ("/default/A", Some(("-", "A", false))),
        // CRI-O, its nested cgroup, and its monitor.
        ("/kubepods.slice/kubepods-podU_D.slice/crio-A.scope", Some(("cri-o", "A", true))),
        ("/kubepods.slice/kubepods-podU_D.slice/crio-A.scope/container", Some(("cri-o", "A", true))),
        ("/kubepods/burstable/podUID/crio-A", Some(("cri-o", "A", true))),
        ("/kubepods.slice/kubepods-podU_D.slice/crio-conmon-A.scope", None),
        ("/system.slice/crio-conmon-A.scope", None),
        // Podman: root, rootless, split cgroups, cgroupfs, in a pod, and its monitor.
        ("/machine.slice/libpod-A.scope", Some(("podman", "A", false))),
        ("/machine.slice/libpod-A.scope/container", Some(("podman", "A", false))),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-A.scope/container",
            Some(("podman", "A", false)),
        ),
        ("/machine.slice/machine-libpod_pod_B.slice/libpod-A.scope", Some(("podman", "A", false))),
        ("/system.slice/web.service/libpod-payload-A", Some(("podman", "A", false))),
        ("/libpod_parent/libpod-A", Some(("podman", "A", false))),
        ("/machine.slice/libpod-conmon-A.scope", None),
        ("/libpod_parent/libpod-conmon-A", None),
        // Steps of builds: BuildKit in Docker with cgroupfs and with systemd, and on its own; and Buildah.
        ("/docker/buildkit/tasn1qx4q1j7xm70076jwc11g", Some(("buildkit", "tasn1qx4q1j7xm70076jwc11g", false))),
        (
            "/system.slice/docker.service/system.slice:docker:tasn1qx4q1j7xm70076jwc11g",
            Some(("buildkit", "tasn1qx4q1j7xm70076jwc11g", false)),
        ),
        ("/buildkit/tasn1qx4q1j7xm70076jwc11g", Some(("buildkit", "tasn1qx4q1j7xm70076jwc11g", false))),
        ("/buildah-buildah266259613", Some(("buildah", "buildah-buildah266259613", false))),
        ("/user.slice/buildah-buildah1", Some(("buildah", "buildah-buildah1", false))),
        // These only resemble steps.
        ("/docker/buildkit/A", Some(("-", "A", false))),
        ("/docker/A/buildkit/tasn1qx4q1j7xm70076jwc11g", Some(("docker", "A", false))),
        ("/docker/buildkit", None),
        ("/docker/buildkit/tasn1qx4q1j7xm70076jwc1", None),
        ("/docker/buildkit/tasn1qx4q1j7xm70076jwc11G", None),
        ("/mine/tasn1qx4q1j7xm70076jwc11g", None),
        ("/buildah-buildah", None),
        ("/buildah-buildah1x", None),
        // LXC and systemd-nspawn.
        ("/lxc.payload.web", Some(("lxc", "web", false))),
        ("/lxc.payload.web/system.slice/ssh.service", Some(("lxc", "web", false))),
        ("/lxc/web", Some(("lxc", "web", false))),
        ("/lxc.monitor.web", None),
        ("/machine.slice/machine-build\\x2dhost.scope/payload", Some(("systemd-nspawn", "build-host", false))),
        ("/machine.slice/systemd-nspawn@deb12.service/payload", Some(("systemd-nspawn", "deb12", false))),
        ("/machine.slice/machine-qemu\\x2d1\\x2dvm.scope/libvirt/emulator", None),
        // The outermost of nested containers counts.
        ("/system.slice/docker-A.scope/system.slice/ssh.service", Some(("docker", "A", false))),
        ("/docker/A/kubepods/besteffort/podUID/B", Some(("docker", "A", false))),
        ("/docker/A/docker/B", Some(("docker", "A", false))),
        ("/lxc.payload.ci/docker/B", Some(("lxc", "ci", false))),
        // These are cgroups of the host.
        ("/", None),
        ("", None),
        ("/init.scope", None),
        ("/system.slice/docker.service", None),
        ("/system.slice/containerd.service", None),
        ("/docker", None),
        ("/machine.slice", None),
        ("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podU_D.slice", None),
        ("/user.slice/user-0.slice/session-1.scope", None),
        // These resemble an id, but are too short or not hexadecimal.
        ("/docker/3f2a", None),
        ("/system.slice/docker-zf2a0c6d9e1b4857a6c3d2e1f0b9a8877665544332211000ffeeddccbbaa9988.scope", None),
    ];

    fn expand(text: &str) -> String {
        let underscored = UID.replace('-', "_");
        text.replace("U_D", &underscored)
            .replace("UID", UID)
            .split_inclusive(['/', '-', '_', '.', ':'])
            .map(|part| {
                let name = part.trim_end_matches(['/', '-', '_', '.', ':']);
                let id = match name {
                    "A" => A,
                    "B" => B,
                    other => other,
                };
                format!("{id}{}", &part[name.len()..])
            })
            .collect()
    }

    #[test]
    fn known_shapes_are_parsed() {
        for (path, expected) in TABLE {
            let expected = expected.map(|(runtime, id, pod)| ContainerRef {
                id: expand(id).into_bytes(),
                runtime: (runtime != "-").then_some(runtime),
                pod_uid: pod.then(|| UID.as_bytes().to_vec()),
            });
            assert_eq!(parse(expand(path).as_bytes()), expected, "{path}");
        }
    }

    #[test]
    fn a_container_has_one_outermost_cgroup() {
        for (path, expected) in TABLE {
            let path = expand(path);
            let ends = (1..=path.len()).filter(|&end| path.as_bytes().get(end).is_none_or(|&next| next == b'/'));
            let outermost: Vec<_> = ends.map(|end| &path[..end]).filter(|path| is_container(path.as_bytes())).collect();
            assert_eq!(outermost.len(), usize::from(expected.is_some()), "{path}: {outermost:?}");
        }
    }

    #[test]
    fn a_container_known_to_the_probes_has_an_id() {
        let id = |path: &str| parse_known(expand(path).as_bytes()).map(|found| found.id);
        assert_eq!(id("/mine/web-1"), Some(b"web-1".to_vec()));
        assert_eq!(id("/docker/A/inner"), Some(A.into()));
        assert_eq!(id("/machine.slice/libpod-conmon-A.scope"), None);
        assert_eq!(id("/"), None);
    }

    #[test]
    fn any_bytes_are_accepted() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..20_000 {
            let len = random.usize(..96);
            let path: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(len).collect();
            parse_known(&path);
            // After the prefix of each shape, the bytes pass the first check.
            for shape in SHAPES {
                parse(&[b"/", shape.parent, b"/", shape.prefix, &path, shape.suffix].concat());
            }
        }
        assert_eq!(parse(b"/machine.slice/machine-\\x.scope").map(|found| found.id), Some(b"\\x".to_vec()));
        assert_eq!(parse(b"/machine.slice/machine-\\x2.scope").map(|found| found.id), Some(b"\\x2".to_vec()));
        assert_eq!(parse(b"/machine.slice/machine-\\x+1.scope").map(|found| found.id), Some(b"\\x+1".to_vec()));
    }

    proptest! {
        /// What an administrator may put above a container, and what a container may make in its own cgroup.
        #[test]
        fn a_container_is_found_wherever_it_is_and_whatever_it_makes_below(
            above in "(/[a-z][a-z0-9_@-]{0,12}\\.(slice|service)){0,4}",
            id in "[0-9a-f]{64}",
            (name, runtime) in prop::sample::select(vec![
                ("docker-ID.scope", Some("docker")),
                ("cri-containerd-ID.scope", Some("containerd")),
                ("nerdctl-ID.scope", Some("containerd")),
                ("crio-ID.scope", Some("cri-o")),
                ("libpod-ID.scope", Some("podman")),
                ("libpod-payload-ID", Some("podman")),
                ("docker/ID", Some("docker")),
                ("default/ID", None),
            ]),
            below in "(/[ -.0-~]{1,80}){0,3}",
        ) {
            let outermost = format!("{above}/{}", name.replace("ID", &id));
            let found = ContainerRef { id: id.into_bytes(), runtime, pod_uid: None };
            prop_assert!(is_container(outermost.as_bytes()));
            prop_assert_eq!(parse((outermost + &below).as_bytes()), Some(found));
        }
    }
}
