//! Queries runtimes through the API of Docker, which Podman implements too, as far as it is used here.
//!
//! This uses HTTP directly because the existing client libraries do not limit the size of an answer.

use std::collections::BTreeMap;

use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use super::endpoint::Endpoint;
use super::error::{Error, MAX_ANSWER, of_image};
use super::id::Id;
use super::metadata::{self, ImageConfig, Metadata};

/// The answer to `/containers/ID/json`, as far as it is used.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container {
    id: String,
    #[serde(default)]
    name: String,
    /// The id of the image.
    #[serde(default)]
    image: String,
    #[serde(default)]
    config: Config,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Config {
    /// The image's name as given when the container was created.
    image: String,
    labels: Option<BTreeMap<String, String>>,
    healthcheck: Option<HealthCheck>,
    /// What runs the lines of a Dockerfile.
    shell: Option<Vec<String>>,
}

/// The health check of a container: that of its image, unless it has another one.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct HealthCheck {
    /// `CMD` and a command, `CMD-SHELL` and a line for a shell, or `NONE`.
    test: Option<Vec<String>>,
}

/// The answer to `/images/ID/json`, as far as it is used.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Image {
    #[serde(default)]
    repo_digests: Option<Vec<String>>,
    #[serde(default)]
    config: Option<ImageConfig>,
}

/// Queries the metadata of a container. Returns `None` if the runtime does not know the container.
pub(super) async fn query(endpoint: &Endpoint, id: &Id) -> Result<Option<Metadata>, Error> {
    let mut connection = Connection::open(endpoint).await?;
    let Some(container) = connection.get::<Container>(&format!("/containers/{}/json", id.as_str())).await? else {
        return Ok(None);
    };
    if container.id != id.as_str() {
        return Err(Error::Other("it answered for another container than the one asked about".to_owned()));
    }
    // Podman omits the name of the algorithm.
    let image_id = Id::new(container.image.strip_prefix("sha256:").unwrap_or(&container.image));
    let image = match &image_id {
        Some(id) => of_image(connection.get(&format!("/images/{}/json", id.as_str())).await)?,
        None => None,
    };
    let told = metadata(&container, image_id.as_ref(), image.as_ref());
    // Findings call both runtimes by the names of their protocols.
    Ok(Some(Metadata { runtime: Some(endpoint.protocol.name().into()), ..told }))
}

fn metadata(container: &Container, image_id: Option<&Id>, image: Option<&Image>) -> Metadata {
    let none = BTreeMap::new();
    let labels = container.config.labels.as_ref().unwrap_or(&none);
    let pod = metadata::pod_of(labels);
    // The name of a pod's container consists of names that findings have in other fields.
    let name = pod.as_ref().and(metadata::name_in_pod(labels)).unwrap_or(&container.name);
    let image_id = image_id.map(|id| format!("sha256:{}", id.as_str()));
    let test = container.config.healthcheck.as_ref().and_then(|check| check.test.as_deref());
    Metadata {
        name: metadata::text(name.strip_prefix('/').unwrap_or(name)),
        image: metadata::image(
            Some(&container.config.image),
            image_id.as_deref(),
            image.and_then(|image| image.repo_digests.as_deref()).unwrap_or_default(),
            image.and_then(|image| image.config.as_ref()),
        ),
        labels: metadata::labels(labels),
        pod,
        runtime: None,
        health_check: test.and_then(|test| metadata::health_check(test, container.config.shell.as_deref())),
    }
}

/// The container as a runtime describes it with the answers about it and its image, each on a line. Returns `None` if
/// the first line is no answer.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn described(answers: &[u8]) -> Option<crate::finding::Container> {
    let mut lines = answers.split(|&byte| byte == b'\n');
    let container: Container = serde_json::from_slice(lines.next()?).ok()?;
    let image = lines.next().and_then(|line| serde_json::from_slice::<Image>(line).ok());
    let mut described = crate::finding::Container::default();
    metadata(&container, Id::new(&container.image).as_ref(), image.as_ref()).fill(&mut described);
    Some(described)
}

/// A connection, which is closed when it is dropped.
struct Connection {
    requests: SendRequest<Empty<Bytes>>,
    _driver: JoinSet<()>,
}

impl Connection {
    async fn open(endpoint: &Endpoint) -> Result<Self, Error> {
        let stream = UnixStream::connect(&endpoint.path).await?;
        let owner = stream.peer_cred()?.uid();
        if let Some(user) = endpoint.user
            && owner != user
        {
            return Err(Error::Foreign(owner));
        }
        let (requests, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(Error::other)?;
        let mut driver = JoinSet::new();
        driver.spawn(async {
            // The request fails if the connection does, so its error is enough.
            let _ = connection.await;
        });
        Ok(Self { requests, _driver: driver })
    }

    /// Gets the JSON at a path, or `None` if the path does not exist.
    async fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<Option<T>, Error> {
        let request = Request::get(path).header(header::HOST, "localhost").body(Empty::new()).map_err(Error::other)?;
        self.requests.ready().await.map_err(Error::other)?;
        let response = self.requests.send_request(request).await.map_err(Error::other)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(|error| if error.is::<LengthLimitError>() { Error::TooLarge } else { Error::other(error) })?;
        match status {
            StatusCode::OK => serde_json::from_slice(&body.to_bytes()).map(Some).map_err(Error::other),
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::INTERNAL_SERVER_ERROR => Err(Error::Refused(status.to_string())),
            _ => Err(Error::other(status)),
        }
    }
}
