//! Queries runtimes through the API of Docker, which Podman implements too, as far as it is used here.
//!
//! This uses HTTP directly because the existing client libraries do not limit the size of an answer.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::endpoint::{Endpoint, Protocol};
use super::error::{Error, MAX_ANSWER, of_image};
use super::id::Id;
use super::metadata::{self, ImageConfig, Metadata};

/// How long an answer about the creation of a container that is gone may take.
const EVENTS_TIMEOUT: Duration = Duration::from_secs(1);
/// How long ago the creation of such a container was at most.
const EVENTS_SINCE: Duration = Duration::from_secs(3600);
/// What Podman adds to the labels in its events (`ConvertToEntitiesEvent` in pkg/domain/entities/events.go).
const PODMAN_ATTRIBUTES: [&str; 4] = ["containerExitCode", "error", "network", "podId"];

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

/// An event in the answer to `/events`, as far as it is used.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Event {
    action: String,
    actor: Actor,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Actor {
    #[serde(rename = "ID")]
    id: String,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
}

/// Queries the metadata of a container. If the container is gone already, this is what the runtime still knows from its
/// creation. Returns `None` if the runtime does not know the container.
pub(super) async fn query(endpoint: &Endpoint, id: &Id) -> Result<Option<Metadata>, Error> {
    let mut connection = Connection::open(endpoint).await?;
    let known = connection.get::<Container>(&format!("/containers/{}/json", id.as_str())).await?;
    let container = match known {
        Some(container) => container,
        None => match connection.created(endpoint, id).await {
            Some(created) => created,
            None => return Ok(None),
        },
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

impl Container {
    /// The container as the event of its creation describes it. `events` are JSON values one after the other.
    fn created(events: &[u8], id: &str) -> Result<Option<Self>, serde_json::Error> {
        for event in serde_json::Deserializer::from_slice(events).into_iter::<Event>() {
            let Event { action, actor } = event?;
            if action == "create" && actor.id == id {
                // The labels are among the attributes. A label does not replace an attribute of the runtime's own.
                let mut labels = actor.attributes;
                let [name, image] = ["name", "image"].map(|name| labels.remove(name).unwrap_or_default());
                let config = Config { image, labels: Some(labels), ..Config::default() };
                return Ok(Some(Self { id: actor.id, name, image: String::new(), config }));
            }
        }
        Ok(None)
    }
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

/// The container as a runtime describes it with the answers about it and its image, each on a line, or with the event
/// of its creation. Returns `None` if the first line is neither.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn described(answers: &[u8]) -> Option<crate::finding::Container> {
    let mut lines = answers.split(|&byte| byte == b'\n');
    let first = lines.next()?;
    let container = serde_json::from_slice::<Container>(first).ok().or_else(|| {
        let event: Event = serde_json::from_slice(first).ok()?;
        Container::created(answers, &event.actor.id).ok()?
    })?;
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
        let Some(body) = self.get_bytes(path).await? else { return Ok(None) };
        serde_json::from_slice(&body).map(Some).map_err(Error::other)
    }

    /// Gets what the runtime still knows of a container that is gone. A runtime that keeps no events, or takes long to
    /// look for one, has answered the question about the container nevertheless.
    async fn created(&mut self, endpoint: &Endpoint, id: &Id) -> Option<Container> {
        let created = timeout(EVENTS_TIMEOUT, self.creation(endpoint.protocol, id)).await;
        let created = created.unwrap_or_else(|_| Err(Error::Other("its events take too long".to_owned())));
        created.unwrap_or_else(|error| {
            tracing::debug!(%error, endpoint = %endpoint.path.display(), "the events of a runtime cannot be used");
            None
        })
    }

    /// Looks for the creation of a container. Docker remembers the last 256 events (`eventsLimit` in
    /// daemon/events/events.go), Podman keeps a log of them.
    async fn creation(&mut self, protocol: Protocol, id: &Id) -> Result<Option<Container>, Error> {
        let is_podman = protocol == Protocol::Podman;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(Error::other)?;
        let since = now.saturating_sub(EVENTS_SINCE).as_secs();
        // Without this, the answer would go on with what happens from now on. Podman stops reading its log when the end
        // has come, which may be before it has read anything.
        let end = match is_podman {
            true => "stream=false".to_owned(),
            false => format!("until={}.{:09}", now.as_secs(), now.subsec_nanos()),
        };
        let filters = format!(r#"{{"type":["container"],"event":["create"],"container":["{}"]}}"#, id.as_str());
        let filters = utf8_percent_encode(&filters, NON_ALPHANUMERIC);
        let events = self.get_bytes(&format!("/events?since={since}&{end}&filters={filters}")).await?;
        let created = events.map_or(Ok(None), |events| Container::created(&events, id.as_str()));
        let mut created = created.map_err(Error::other)?;
        if is_podman && let Some(labels) = created.as_mut().and_then(|created| created.config.labels.as_mut()) {
            labels.retain(|name, _| !PODMAN_ATTRIBUTES.contains(&name.as_str()));
        }
        Ok(created)
    }

    /// Gets what is at a path, or `None` if the path does not exist.
    async fn get_bytes(&mut self, path: &str) -> Result<Option<Bytes>, Error> {
        let request = Request::get(path).header(header::HOST, "localhost").body(Empty::new()).map_err(Error::other)?;
        self.requests.ready().await.map_err(Error::other)?;
        let response = self.requests.send_request(request).await.map_err(Error::other)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(|error| if error.is::<LengthLimitError>() { Error::TooLarge } else { Error::other(error) })?;
        match status {
            StatusCode::OK => Ok(Some(body.to_bytes())),
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::INTERNAL_SERVER_ERROR => Err(Error::Refused(status.to_string())),
            _ => Err(Error::other(status)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f2a0c6d9e1b4857a6c3d2e1f0b9a8877665544332211000ffeeddccbbaa9988";

    fn event(action: &str, id: &str, attributes: &str) -> String {
        format!(r#"{{"status":"{action}","id":"{id}","from":"web:1","Type":"container","Action":"{action}","#)
            + &format!(r#""Actor":{{"ID":"{id}","Attributes":{{{attributes}}}}},"scope":"local","time":1795687200}}"#)
    }

    #[test]
    fn the_creation_is_found_among_other_events() {
        let other = event("create", &ID.replace('3', "4"), r#""name":"other","image":"other:1""#);
        let end = event("die", ID, r#""name":"later","image":"later","exitCode":"0""#);
        let created = event("create", ID, r#""name":"web","image":"web:1","app":"shop""#);
        let find = |events: &[&String]| {
            let events: Vec<_> = events.iter().flat_map(|event| [event.as_bytes(), b"\n"].concat()).collect();
            Container::created(&events, ID).expect("these are events")
        };
        let found = find(&[&other, &end, &created]).expect("it is there");
        assert_eq!((&*found.name, &*found.config.image), ("web", "web:1"));
        assert_eq!(found.config.labels, Some([("app".to_owned(), "shop".to_owned())].into()));
        assert!(find(&[&other, &end]).is_none() && find(&[]).is_none());
        Container::created(&[created.as_bytes(), b"{"].concat(), &ID.replace('3', "5")).expect_err("it is cut off");
    }

    #[test]
    fn the_creation_names_the_container_its_image_and_its_pod() {
        let attributes = r#""name":"k8s_app_web-0_shop_u_0","image":"web:1","io.kubernetes.container.name":"app",
            "io.kubernetes.pod.uid":"u","io.kubernetes.pod.name":"web-0","io.kubernetes.pod.namespace":"shop""#;
        let container = described(event("create", ID, &attributes.replace('\n', "")).as_bytes()).expect("it is told");
        let name = |text: &Option<crate::finding::Text>| text.as_ref().map(|text| text.as_str().to_owned());
        assert_eq!(name(&container.name).as_deref(), Some("app"));
        assert_eq!(name(&container.image.expect("it is told").name).as_deref(), Some("web:1"));
        let pod = container.pod.expect("it is told");
        assert_eq!((name(&pod.name).as_deref(), name(&pod.namespace).as_deref()), (Some("web-0"), Some("shop")));
        assert_eq!(described(event("die", ID, "").as_bytes()), None);
    }
}
