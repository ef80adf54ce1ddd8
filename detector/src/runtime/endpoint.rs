//! The sockets of the node's container runtimes, and which runtime is queried about which container.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{fmt, fs};

use serde::{Deserialize, Serialize};

use crate::finding::Container;

/// The usual sockets, in the order in which they are queried. CRI comes first because it knows more about a pod on
/// Docker.
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

/// The protocol of a runtime's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Version 1 of the Kubernetes container runtime interface: containerd, CRI-O, cri-dockerd.
    Cri,
    /// Docker's API.
    Docker,
    /// Podman's API, which is Docker's except for the events.
    Podman,
}

impl Protocol {
    const ALL: [Self; 3] = [Self::Cri, Self::Docker, Self::Podman];

    /// The name of the protocol on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cri => "cri",
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }

    /// Whether a runtime with this protocol can know the container.
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

/// The API of a container runtime: a unix socket, and the protocol to use on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The protocol.
    pub protocol: Protocol,
    /// The path of the socket.
    pub path: PathBuf,
    /// The ordinary user who runs the runtime, or `None` for a runtime of the node.
    pub user: Option<u32>,
}

impl Endpoint {
    /// The usual sockets of the node's own runtimes.
    pub fn defaults() -> Vec<Self> {
        // /var/run is usually a link to /run, but not in a container that has only the socket mounted.
        let is_one = fs::canonicalize("/var/run").is_ok_and(|path| path == Path::new("/run"));
        let usual = DEFAULTS.into_iter().filter(|(_, path)| !is_one || !path.starts_with("/var/run/"));
        usual.map(|(protocol, path)| Self { protocol, path: path.into(), user: None }).collect()
    }

    /// The usual sockets of a user's runtimes.
    pub fn of_user(user: u32) -> [Self; 2] {
        [(Protocol::Docker, "docker.sock"), (Protocol::Podman, "podman/podman.sock")].map(|(protocol, name)| Self {
            protocol,
            path: format!("/run/user/{user}/{name}").into(),
            user: Some(user),
        })
    }

    /// Whether this runtime is queried about a container. A user's runtime is queried only about that user's
    /// containers, because it could lie about others.
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
        let (protocol, path) = text.split_once('=').ok_or("use KIND=PATH, for example docker=/run/docker.sock")?;
        let protocol = Protocol::ALL.into_iter().find(|known| known.name() == protocol);
        let protocol = protocol.ok_or("unknown kind; use cri, docker or podman")?;
        if path.starts_with('/') {
            Ok(Self { protocol, path: path.into(), user: None })
        } else {
            Err("the path must begin with `/`")
        }
    }
}

/// The ordinary user who runs a container, or `None` if it is one of the node's. The container's cgroup tells, because
/// only root can move a process into or out of a user's slice. Containers that root starts from a login session are the
/// node's.
pub(crate) fn user_of(container: &Container) -> Option<u32> {
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
    fn a_users_runtime_is_queried_only_about_that_users_containers() {
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
