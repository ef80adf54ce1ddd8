//! Queries runtimes through the Kubernetes container runtime interface (CRI).

use std::collections::{BTreeMap, HashMap};
use std::error::Error as _;
use std::io;

use detector_cri::{
    Call, Container, ContainerFilter, ImageSpec, ImageStatusRequest, ImageStatusResponse, ListContainersRequest,
    ListPodSandboxRequest, PodSandbox, PodSandboxFilter, VersionRequest,
};
use serde::Deserialize;
use tonic::Code;
use tonic::transport::{self, Channel};

use super::endpoint::Endpoint;
use super::error::{Error, MAX_ANSWER, of_image};
use super::id::Id;
use super::metadata::{self, ImageConfig, Metadata};

use crate::finding::Pod;

/// The maximum size of the headers of an answer, in bytes.
const MAX_HEADERS: u32 = 64 << 10;

/// The names of the runtimes with this interface, as they report them and as findings have them. `docker` is
/// cri-dockerd.
const NAMES: [&str; 3] = ["containerd", "cri-o", "docker"];

/// The information about an image that containerd and CRI-O return beyond the interface, as far as it is used.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Verbose {
    image_spec: Spec,
}

#[derive(Debug, Deserialize)]
struct Spec {
    config: ImageConfig,
}

/// Queries the metadata of a container. Returns `None` if the runtime does not know the container.
pub(super) async fn query(endpoint: &Endpoint, id: &Id) -> Result<Option<Metadata>, Error> {
    let path = endpoint.path.to_str().ok_or_else(|| Error::other("the path of its socket is not UTF-8"))?;
    let endpoint = transport::Endpoint::from_shared(format!("unix:{path}")).map_err(Error::other)?;
    let channel = endpoint.http2_max_header_list_size(MAX_HEADERS).connect().await.map_err(no_connection)?;
    let filter = ContainerFilter { id: id.as_str().to_owned() };
    let listed = call(&channel, ListContainersRequest { filter: Some(filter) }).await?;
    let container =
        listed.and_then(|listed| listed.containers.into_iter().find(|container| container.id == id.as_str()));
    // The container of the pod sandbox itself is not in the list of containers.
    let sandbox_id = container.as_ref().map_or(id.as_str(), |container| &container.pod_sandbox_id);
    let filter = PodSandboxFilter { id: sandbox_id.to_owned() };
    let listed = call(&channel, ListPodSandboxRequest { filter: Some(filter) }).await?;
    let sandbox = listed.and_then(|listed| listed.items.into_iter().find(|sandbox| sandbox.id == sandbox_id));
    if container.is_none() && sandbox.is_none() {
        return Ok(None);
    }
    let version = call(&channel, VersionRequest {}).await?;
    let name = version.and_then(|version| NAMES.into_iter().find(|name| *name == version.runtime_name));
    let told = match container {
        None => Metadata { pod: sandbox.and_then(pod), ..Metadata::default() },
        Some(container) => {
            let image = of_image(image_status(&channel, &container).await)?;
            metadata(container, sandbox, image)
        }
    };
    Ok(Some(Metadata { runtime: name.map(Into::into), ..told }))
}

/// Queries the status of a container's image.
async fn image_status(channel: &Channel, container: &Container) -> Result<Option<ImageStatusResponse>, Error> {
    let image = if container.image_id.is_empty() { &container.image_ref } else { &container.image_id };
    let request =
        ImageStatusRequest { image: Some(ImageSpec { image: image.clone(), ..ImageSpec::default() }), verbose: true };
    call(channel, request).await
}

fn metadata(container: Container, sandbox: Option<PodSandbox>, status: Option<ImageStatusResponse>) -> Metadata {
    let labels = sorted(container.labels);
    let status = status.unwrap_or_default();
    let verbose = status.info.get("info").and_then(|text| serde_json::from_str::<Verbose>(text).ok());
    let image = status.image.unwrap_or_default();
    let asked_for = container.image.unwrap_or_default();
    // The kubelet requests images by their id.
    let name = [&asked_for.user_specified_image, &asked_for.image]
        .into_iter()
        .chain(&image.repo_tags)
        .find(|name| !name.is_empty() && **name != image.id);
    Metadata {
        name: container.metadata.and_then(|metadata| metadata::text(&metadata.name)),
        image: metadata::image(
            name.map(String::as_str),
            Some(&image.id),
            &image.repo_digests,
            verbose.as_ref().map(|verbose| &verbose.image_spec.config),
        ),
        pod: sandbox.and_then(pod).or_else(|| metadata::pod_of(&labels)),
        runtime: None,
        labels: metadata::labels(&labels),
        // The kubelet does not tell it.
        health_check: None,
    }
}

fn pod(sandbox: PodSandbox) -> Option<Pod> {
    let pod = sandbox.metadata?;
    metadata::pod(&pod.uid, Some(&pod.namespace), Some(&pod.name), &sorted(sandbox.labels))
}

fn sorted(labels: HashMap<String, String>) -> BTreeMap<String, String> {
    labels.into_iter().collect()
}

/// Makes a call. Returns `None` if the runtime does not know the object, or does not implement this call.
async fn call<C: Call>(channel: &Channel, request: C) -> Result<Option<C::Answer>, Error> {
    match detector_cri::call(channel, request, MAX_ANSWER).await {
        Ok(answer) => Ok(Some(answer)),
        Err(status) => match status.code() {
            Code::NotFound | Code::Unimplemented => Ok(None),
            Code::OutOfRange => Err(Error::TooLarge),
            code => Err(Error::other(format_args!("{code}: {}", status.message()))),
        },
    }
}

fn no_connection(error: transport::Error) -> Error {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(cause) = cause.downcast_ref::<io::Error>() {
            return io::Error::from(cause.kind()).into();
        }
        source = cause.source();
    }
    Error::other(error)
}
