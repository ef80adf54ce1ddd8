//! Engines with the Kubernetes container runtime interface (CRI), used as a kubelet does: with a pod for each
//! container.

use anyhow::{Context, Result, bail, ensure};
use detector_cri::{
    Call, ContainerConfig, ContainerFilter, ContainerMetadata, CreateContainerRequest, ExecSyncRequest, ImageSpec,
    LinuxPodSandboxConfig, LinuxSandboxSecurityContext, ListContainersRequest, Mount, NamespaceMode, NamespaceOption,
    PodSandboxConfig, PodSandboxMetadata, RemovePodSandboxRequest, RunPodSandboxRequest, StartContainerRequest,
    StopPodSandboxRequest,
};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use tonic::transport::{Channel, Endpoint};

use super::client::{Client, PATIENCE};
use super::image;
use crate::program::on_host;

/// The configuration of containerd.
pub const FILES: &[(&str, &str)] = &[(
    "/etc/containerd/config.toml",
    "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"localhost/lab:1\"\n\
     [plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"/usr/lib/cni\"\n",
)];

/// An engine with this interface.
pub struct Cri {
    /// The path of its socket.
    pub socket: &'static str,
}

/// The maximum size of an answer, in bytes.
const MAX_ANSWER: usize = 4 << 20;

/// A connection.
struct Connection {
    runtime: Runtime,
    channel: Channel,
}

impl Connection {
    fn open(socket: &str) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let endpoint = Endpoint::from_shared(format!("unix:{socket}"))?.timeout(PATIENCE);
        let channel = runtime.block_on(endpoint.connect()).with_context(|| format!("no engine answers at {socket}"))?;
        Ok(Self { runtime, channel })
    }

    /// Makes a call, and waits for its answer.
    fn call<C: Call>(&self, request: C) -> Result<C::Answer> {
        Ok(self.runtime.block_on(detector_cri::call(&self.channel, request, MAX_ANSWER))?)
    }
}

/// The hash in the names and labels of the pods of a Deployment.
const HASH: &str = "5d4f8c7b9";

/// `metadata.name` of the pod of the container with this name, in this Deployment.
fn pod_name(deployment: &str, name: &str) -> String {
    format!("{deployment}-{HASH}-{:0>5}", number(name))
}

/// The number in the name of a container.
fn number(name: &str) -> &str {
    name.rsplit('-').next().unwrap_or_default()
}

/// `metadata.uid` of the pod with this name.
fn uid(name: &str) -> String {
    format!("5f0c9e6a-2b1d-4c3e-8a7f-{:0>12}", number(name))
}

impl Client for Cri {
    fn is_ready(&self) -> bool {
        let listed = |engine: Connection| engine.call(ListContainersRequest::default()).is_ok();
        Connection::open(self.socket).is_ok_and(listed)
    }

    fn load(&self, archive: &str) -> Result<()> {
        let repository = image::NAME.rsplit_once(':').context("the image has a tag")?.0;
        let import = ["images", "import", "--digests", "--base-name", repository, archive];
        on_host("ctr", ["--namespace=k8s.io"].iter().chain(&import)).map(drop)
    }

    /// The only option is the name of the Deployment and of the container in its pods, if that is not this name.
    fn start(&self, name: &str, volume: &str, options: &[&str], args: &[&str]) -> Result<String> {
        let deployment = options.first().copied().unwrap_or(name);
        let engine = Connection::open(self.socket)?;
        let uid = uid(name);
        let of_node = NamespaceOption { network: NamespaceMode::Node.into() };
        let security = LinuxSandboxSecurityContext { namespace_options: Some(of_node) };
        let pod = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: pod_name(deployment, name),
                uid: uid.clone(),
                namespace: "lab".to_owned(),
            }),
            labels: [("app", deployment), ("pod-template-hash", HASH)]
                .map(|(label, value)| (label.into(), value.into()))
                .into(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!("/kubepods/burstable/pod{uid}"),
                security_context: Some(security),
            }),
        };
        let request = RunPodSandboxRequest { config: Some(pod.clone()) };
        let pod_sandbox_id = engine.call(request)?.pod_sandbox_id;
        let container = ContainerConfig {
            metadata: Some(ContainerMetadata { name: deployment.to_owned() }),
            image: Some(ImageSpec { image: image::NAME.to_owned(), ..ImageSpec::default() }),
            command: args.iter().map(|&arg| arg.to_owned()).collect(),
            mounts: vec![Mount { container_path: "/data".to_owned(), host_path: volume.to_owned() }],
        };
        let request = CreateContainerRequest { pod_sandbox_id, config: Some(container), sandbox_config: Some(pod) };
        let container_id = engine.call(request)?.container_id;
        engine.call(StartContainerRequest { container_id: container_id.clone() })?;
        Ok(container_id)
    }

    fn exec(&self, id: &str, args: &[&str]) -> Result<String> {
        let engine = Connection::open(self.socket)?;
        let cmd = args.iter().map(|&arg| arg.to_owned()).collect();
        let request = ExecSyncRequest { container_id: id.to_owned(), cmd };
        let done = engine.call(request)?;
        ensure!(done.exit_code == 0, "{args:?}: {}: {}", done.exit_code, String::from_utf8_lossy(&done.stderr));
        Ok(String::from_utf8(done.stdout)?)
    }

    fn copy(&self, _: &str, _: &str, _: &str) -> Result<()> {
        bail!("CRI cannot copy files")
    }

    fn build(&self, _: &str) -> Result<()> {
        bail!("CRI cannot build images")
    }

    /// Removing the pod removes the container.
    fn remove(&self, id: &str) -> Result<()> {
        let engine = Connection::open(self.socket)?;
        let filter = ContainerFilter { id: id.to_owned() };
        let listed = engine.call(ListContainersRequest { filter: Some(filter) })?;
        let pod_sandbox_id = listed.containers.into_iter().next().context("it is not there")?.pod_sandbox_id;
        engine.call(StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() })?;
        engine.call(RemovePodSandboxRequest { pod_sandbox_id })?;
        Ok(())
    }

    fn expected(&self, name: &str) -> Result<Value> {
        let images = on_host("ctr", ["--namespace=k8s.io", "images", "list", "--quiet"])?;
        let digest = images.lines().find_map(|name| Some(name.split_once('@')?.1));
        Ok(json!({
            "name": name,
            "runtime": "containerd",
            "image": {"name": image::NAME, "digest": digest.context("the image has a digest")?},
            "pod": {
                "uid": uid(name),
                "namespace": "lab",
                "name": pod_name(name, name),
                "labels": {"app": name, "pod-template-hash": HASH},
                "owner": {"kind": "Deployment", "name": name},
            },
        }))
    }
}
