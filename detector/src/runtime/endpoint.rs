//! Where the runtimes of a node listen, and who is asked about which container.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{fmt, fs};

use crate::finding::Container;

/// Where they listen unless told otherwise, in the order in which they are asked: of a pod on Docker, CRI knows more.
const DEFAULTS: [(Protocol, &str); 9] = [
    (Protocol::Cri, "/run/containerd/containerd.sock"),
    (Protocol::Cri, "/run/crio/crio.sock"),
    (Protocol::Cri, "/run/cri-dockerd.sock"),
    (Protocol::Cri, "/run/k3s/containerd/containerd.sock"),
    (Protocol::Cri, "/run/k0s/containerd.sock"),
    (Protocol::Cri, "/var/snap/microk8s/common/run/containerd.sock"),
    (Protocol::Docker, "/run/docker.sock"),
    (Protocol::Docker, "/var/run/docker.sock"),
    (Protocol::Podman, "/run/podman/podman.sock"),
];

/// What a runtime speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// Kubernetes' container runtime interface, version 1: containerd, CRI-O, cri-dockerd.
    Cri,
    /// Docker's API.
    Docker,
    /// Podman's, which is Docker's in what is used of it.
    Podman,
}

impl Protocol {
    const ALL: [Self; 3] = [Self::Cri, Self::Docker, Self::Podman];

    /// The name, as on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cri => "cri",
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }

    /// Whether it can know a container of this runtime.
    fn knows(self, container: &Container) -> bool {
        match container.runtime.as_deref() {
            None => true,
            Some("containerd" | "cri-o") => self == Self::Cri,
            Some("docker") => self == Self::Docker || self == Self::Cri && container.pod.is_some(),
            Some("podman") => self == Self::Podman,
            Some(_) => false,
        }
    }
}

/// Where a runtime listens: the path of a unix socket, and what is spoken there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// What is spoken there.
    pub protocol: Protocol,
    /// Where it is.
    pub path: PathBuf,
    /// The ordinary user whose runtime it is. `None`: it is the node's own.
    pub user: Option<u32>,
}

impl Endpoint {
    /// Where the node's own runtimes may listen.
    pub fn defaults() -> Vec<Self> {
        // In most places, but not in a container that has no more than the socket.
        let is_one = fs::canonicalize("/var/run").is_ok_and(|path| path == Path::new("/run"));
        let usual = DEFAULTS.into_iter().filter(|(_, path)| !is_one || !path.starts_with("/var/run/"));
        usual.map(|(protocol, path)| Self { protocol, path: path.into(), user: None }).collect()
    }

    /// Where the runtimes of a user may listen.
    pub fn of_user(user: u32) -> [Self; 2] {
        [(Protocol::Docker, "docker.sock"), (Protocol::Podman, "podman/podman.sock")].map(|(protocol, name)| Self {
            protocol,
            path: format!("/run/user/{user}/{name}").into(),
            user: Some(user),
        })
    }

    /// Whether it is asked about this container. A user's runtime is, about the containers of that user: about others, it
    /// could lie.
    pub fn knows(&self, container: &Container) -> bool {
        self.user == user_of(container) && self.protocol.knows(container)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.protocol.name(), self.path.display())
    }
}

impl FromStr for Endpoint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (protocol, path) = text.split_once('=').ok_or("use KIND=PATH")?;
        let protocol = Protocol::ALL.into_iter().find(|known| known.name() == protocol);
        let protocol = protocol.ok_or("unknown kind; use cri, docker or podman")?;
        if path.starts_with('/') {
            Ok(Self { protocol, path: path.into(), user: None })
        } else {
            Err("the path must begin with `/`")
        }
    }
}

/// The ordinary user whose container it is, by its cgroup: only root can put one there or take one out. `None`: it is the
/// node's, which those are that root starts from a session of its own.
pub(super) fn user_of(container: &Container) -> Option<u32> {
    let path = container.cgroup.as_ref()?.as_str().strip_prefix("/user.slice/user-")?;
    path.split_once(".slice/")?.0.parse().ok().filter(|user| *user != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(runtime: &'static str, cgroup: &str) -> Container {
        Container { runtime: Some(runtime.into()), cgroup: Some(cgroup.as_bytes().into()), ..Container::default() }
    }

    #[test]
    fn a_users_runtime_is_asked_about_its_own_containers_only() {
        let cgroup = "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-x.scope";
        let asked = |user, cgroup| {
            Endpoint::of_user(user).iter().filter(|endpoint| endpoint.knows(&container("podman", cgroup))).count()
        };
        assert_eq!(asked(1000, cgroup), 1);
        assert_eq!(asked(1001, cgroup), 0);
        assert_eq!(asked(1000, "/machine.slice/libpod-x.scope"), 0);
        let system = |cgroup| {
            Endpoint::defaults().iter().filter(|endpoint| endpoint.knows(&container("podman", cgroup))).count()
        };
        assert_eq!((system(cgroup), system("/machine.slice/libpod-x.scope")), (0, 1));
        let split = "/user.slice/user-0.slice/session-1.scope/libpod-payload-x";
        assert_eq!((asked(0, split), system(split)), (0, 1));
        for odd in ["/user.slice/user-.slice/x", "/user.slice/user-../../etc.slice/x", "/user.slice/user-1000.slice"] {
            assert_eq!(user_of(&container("podman", odd)), None, "{odd}");
        }
    }

    #[test]
    fn endpoints_are_read_from_the_command_line() {
        let endpoint = Endpoint { protocol: Protocol::Podman, path: "/a=b".into(), user: None };
        assert_eq!("podman=/a=b".parse(), Ok(endpoint));
        for wrong in ["", "docker", "docker=", "docker=run/docker.sock", "rkt=/run/rkt.sock", "=/run/x"] {
            wrong.parse::<Endpoint>().expect_err(wrong);
        }
    }
}
