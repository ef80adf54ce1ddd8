//! The part of Kubernetes' container runtime interface (CRI, package `runtime.v1` of k8s.io/cri-api) that the detector
//! and its tests speak: messages with the fields that are used, and one function that makes a call.
//!
//! The interface is stable, and Protocol Buffers skip the fields that a message does not have. Code generated of the
//! whole interface would be sixty times as long, and would take a minute and the program `protoc` to build.

#![forbid(unsafe_code)]

use std::collections::HashMap;

use http::uri::PathAndQuery;
use prost::Message;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

/// A request that can be sent.
pub trait Call: Message + 'static {
    /// The path of the method: package and service, method.
    const METHOD: &'static str;
    /// What comes back.
    type Answer: Message + Default + 'static;
}

/// Makes a call and waits for the answer, which has at most `max_answer` bytes.
///
/// # Errors
///
/// The status says what went wrong: the connection is gone, the runtime refuses, or the answer is too long
/// (`OutOfRange`).
pub async fn call<C: Call>(channel: &Channel, request: C, max_answer: usize) -> Result<C::Answer, Status> {
    let mut grpc = Grpc::new(channel.clone()).max_decoding_message_size(max_answer);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec = ProstCodec::<C, C::Answer>::default();
    let answer = grpc.unary(Request::new(request), PathAndQuery::from_static(C::METHOD), codec).await?;
    Ok(answer.into_inner())
}

macro_rules! calls {
    ($($method:literal: $request:ident => $answer:ident;)+) => {
        $(impl Call for $request {
            const METHOD: &'static str = concat!("/runtime.v1.", $method);
            type Answer = $answer;
        })+
    };
}

calls! {
    "RuntimeService/Version": VersionRequest => VersionResponse;
    "RuntimeService/ListContainers": ListContainersRequest => ListContainersResponse;
    "RuntimeService/ListPodSandbox": ListPodSandboxRequest => ListPodSandboxResponse;
    "RuntimeService/RunPodSandbox": RunPodSandboxRequest => RunPodSandboxResponse;
    "RuntimeService/StopPodSandbox": StopPodSandboxRequest => Empty;
    "RuntimeService/RemovePodSandbox": RemovePodSandboxRequest => Empty;
    "RuntimeService/CreateContainer": CreateContainerRequest => CreateContainerResponse;
    "RuntimeService/StartContainer": StartContainerRequest => Empty;
    "RuntimeService/ExecSync": ExecSyncRequest => ExecSyncResponse;
    "ImageService/ImageStatus": ImageStatusRequest => ImageStatusResponse;
}

/// Asks what the runtime is.
#[derive(Clone, PartialEq, Message)]
pub struct VersionRequest {}

/// What the runtime is.
#[derive(Clone, PartialEq, Message)]
pub struct VersionResponse {
    /// What it calls itself, such as `containerd`.
    #[prost(string, tag = "2")]
    pub runtime_name: String,
}

/// Asks for containers.
#[derive(Clone, PartialEq, Message)]
pub struct ListContainersRequest {
    /// Which ones. Without it: all.
    #[prost(message, optional, tag = "1")]
    pub filter: Option<ContainerFilter>,
}

/// Which containers are meant.
#[derive(Clone, PartialEq, Message)]
pub struct ContainerFilter {
    /// The one with this id, or whose id begins so.
    #[prost(string, tag = "1")]
    pub id: String,
}

/// Containers.
#[derive(Clone, PartialEq, Message)]
pub struct ListContainersResponse {
    /// Those that were asked for.
    #[prost(message, repeated, tag = "1")]
    pub containers: Vec<Container>,
}

/// A container.
#[derive(Clone, PartialEq, Message)]
pub struct Container {
    /// Its id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The id of its pod's sandbox.
    #[prost(string, tag = "2")]
    pub pod_sandbox_id: String,
    /// Its name.
    #[prost(message, optional, tag = "3")]
    pub metadata: Option<ContainerMetadata>,
    /// The image that it was asked to be made of.
    #[prost(message, optional, tag = "4")]
    pub image: Option<ImageSpec>,
    /// A reference to the image: an id or a digest, as the runtime likes.
    #[prost(string, tag = "5")]
    pub image_ref: String,
    /// Its labels.
    #[prost(map = "string, string", tag = "8")]
    pub labels: HashMap<String, String>,
    /// The id of the image. Older runtimes do not give it.
    #[prost(string, tag = "10")]
    pub image_id: String,
}

/// The name of a container in its pod.
#[derive(Clone, PartialEq, Message)]
pub struct ContainerMetadata {
    /// The name, as in the pod's specification.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// An image, as somebody asks for it.
#[derive(Clone, PartialEq, Message)]
pub struct ImageSpec {
    /// Its name or id.
    #[prost(string, tag = "1")]
    pub image: String,
    /// Its name in the pod's specification.
    #[prost(string, tag = "18")]
    pub user_specified_image: String,
}

/// Asks for pod sandboxes.
#[derive(Clone, PartialEq, Message)]
pub struct ListPodSandboxRequest {
    /// Which ones. Without it: all.
    #[prost(message, optional, tag = "1")]
    pub filter: Option<PodSandboxFilter>,
}

/// Which pod sandboxes are meant.
#[derive(Clone, PartialEq, Message)]
pub struct PodSandboxFilter {
    /// The one with this id, or whose id begins so.
    #[prost(string, tag = "1")]
    pub id: String,
}

/// Pod sandboxes.
#[derive(Clone, PartialEq, Message)]
pub struct ListPodSandboxResponse {
    /// Those that were asked for.
    #[prost(message, repeated, tag = "1")]
    pub items: Vec<PodSandbox>,
}

/// The sandbox of a pod.
#[derive(Clone, PartialEq, Message)]
pub struct PodSandbox {
    /// Its id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The name of the pod.
    #[prost(message, optional, tag = "2")]
    pub metadata: Option<PodSandboxMetadata>,
    /// The labels of the pod.
    #[prost(map = "string, string", tag = "5")]
    pub labels: HashMap<String, String>,
}

/// The name of a pod.
#[derive(Clone, PartialEq, Message)]
pub struct PodSandboxMetadata {
    /// `metadata.name`.
    #[prost(string, tag = "1")]
    pub name: String,
    /// `metadata.uid`.
    #[prost(string, tag = "2")]
    pub uid: String,
    /// `metadata.namespace`.
    #[prost(string, tag = "3")]
    pub namespace: String,
}

/// Asks for an image.
#[derive(Clone, PartialEq, Message)]
pub struct ImageStatusRequest {
    /// Which one.
    #[prost(message, optional, tag = "1")]
    pub image: Option<ImageSpec>,
    /// Whether the answer is to have `info`.
    #[prost(bool, tag = "2")]
    pub verbose: bool,
}

/// What is known of an image.
#[derive(Clone, PartialEq, Message)]
pub struct ImageStatusResponse {
    /// The image. `None`: it is not there.
    #[prost(message, optional, tag = "1")]
    pub image: Option<Image>,
    /// What the runtime says beyond the interface.
    #[prost(map = "string, string", tag = "2")]
    pub info: HashMap<String, String>,
}

/// An image.
#[derive(Clone, PartialEq, Message)]
pub struct Image {
    /// Its id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Its names with tags.
    #[prost(string, repeated, tag = "2")]
    pub repo_tags: Vec<String>,
    /// Its names with digests.
    #[prost(string, repeated, tag = "3")]
    pub repo_digests: Vec<String>,
}

/// Makes and starts a pod sandbox.
#[derive(Clone, PartialEq, Message)]
pub struct RunPodSandboxRequest {
    /// What it is to be.
    #[prost(message, optional, tag = "1")]
    pub config: Option<PodSandboxConfig>,
}

/// What a pod sandbox is to be.
#[derive(Clone, PartialEq, Message)]
pub struct PodSandboxConfig {
    /// The name of the pod.
    #[prost(message, optional, tag = "1")]
    pub metadata: Option<PodSandboxMetadata>,
    /// The labels of the pod.
    #[prost(map = "string, string", tag = "6")]
    pub labels: HashMap<String, String>,
    /// What is special on Linux.
    #[prost(message, optional, tag = "8")]
    pub linux: Option<LinuxPodSandboxConfig>,
}

/// What is special about a pod sandbox on Linux.
#[derive(Clone, PartialEq, Message)]
pub struct LinuxPodSandboxConfig {
    /// The cgroup that it is made in.
    #[prost(string, tag = "1")]
    pub cgroup_parent: String,
    /// What it may do.
    #[prost(message, optional, tag = "2")]
    pub security_context: Option<LinuxSandboxSecurityContext>,
}

/// What a pod sandbox may do.
#[derive(Clone, PartialEq, Message)]
pub struct LinuxSandboxSecurityContext {
    /// Which namespaces it has.
    #[prost(message, optional, tag = "1")]
    pub namespace_options: Option<NamespaceOption>,
}

/// Which namespaces a pod has.
#[derive(Clone, PartialEq, Message)]
pub struct NamespaceOption {
    /// Its network namespace.
    #[prost(enumeration = "NamespaceMode", tag = "1")]
    pub network: i32,
}

/// A pod sandbox that was started.
#[derive(Clone, PartialEq, Message)]
pub struct RunPodSandboxResponse {
    /// Its id.
    #[prost(string, tag = "1")]
    pub pod_sandbox_id: String,
}

/// Stops a pod sandbox, and the containers in it.
#[derive(Clone, PartialEq, Message)]
pub struct StopPodSandboxRequest {
    /// Its id.
    #[prost(string, tag = "1")]
    pub pod_sandbox_id: String,
}

/// Removes a pod sandbox, and the containers in it.
#[derive(Clone, PartialEq, Message)]
pub struct RemovePodSandboxRequest {
    /// Its id.
    #[prost(string, tag = "1")]
    pub pod_sandbox_id: String,
}

/// Makes a container.
#[derive(Clone, PartialEq, Message)]
pub struct CreateContainerRequest {
    /// The sandbox in which it is made.
    #[prost(string, tag = "1")]
    pub pod_sandbox_id: String,
    /// What it is to be.
    #[prost(message, optional, tag = "2")]
    pub config: Option<ContainerConfig>,
    /// What the sandbox was made of.
    #[prost(message, optional, tag = "3")]
    pub sandbox_config: Option<PodSandboxConfig>,
}

/// What a container is to be.
#[derive(Clone, PartialEq, Message)]
pub struct ContainerConfig {
    /// Its name.
    #[prost(message, optional, tag = "1")]
    pub metadata: Option<ContainerMetadata>,
    /// Its image.
    #[prost(message, optional, tag = "2")]
    pub image: Option<ImageSpec>,
    /// What it runs, instead of the image's entrypoint.
    #[prost(string, repeated, tag = "3")]
    pub command: Vec<String>,
    /// What of the host is mounted in it.
    #[prost(message, repeated, tag = "7")]
    pub mounts: Vec<Mount>,
}

/// What of the host is mounted in a container.
#[derive(Clone, PartialEq, Message)]
pub struct Mount {
    /// Where the container sees it.
    #[prost(string, tag = "1")]
    pub container_path: String,
    /// Where the host has it.
    #[prost(string, tag = "2")]
    pub host_path: String,
}

/// A container that was made.
#[derive(Clone, PartialEq, Message)]
pub struct CreateContainerResponse {
    /// Its id.
    #[prost(string, tag = "1")]
    pub container_id: String,
}

/// Starts a container.
#[derive(Clone, PartialEq, Message)]
pub struct StartContainerRequest {
    /// Its id.
    #[prost(string, tag = "1")]
    pub container_id: String,
}

/// Runs a program in a container, to its end.
#[derive(Clone, PartialEq, Message)]
pub struct ExecSyncRequest {
    /// The container.
    #[prost(string, tag = "1")]
    pub container_id: String,
    /// The program and its arguments.
    #[prost(string, repeated, tag = "2")]
    pub cmd: Vec<String>,
}

/// What a program in a container came to.
#[derive(Clone, PartialEq, Message)]
pub struct ExecSyncResponse {
    /// What it wrote to its standard output.
    #[prost(bytes = "vec", tag = "1")]
    pub stdout: Vec<u8>,
    /// What it wrote to its standard error.
    #[prost(bytes = "vec", tag = "2")]
    pub stderr: Vec<u8>,
    /// How it ended.
    #[prost(int32, tag = "3")]
    pub exit_code: i32,
}

/// An answer that says no more than that it was done.
#[derive(Clone, PartialEq, Message)]
pub struct Empty {}

/// Whose namespace something has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum NamespaceMode {
    /// That of its pod.
    Pod = 0,
    /// One of its own.
    Container = 1,
    /// That of the node.
    Node = 2,
}
