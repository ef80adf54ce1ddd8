//! The manifest of the detector in a cluster of Kubernetes, as README.md says, and what it sees there.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::lab::Lab;
use super::package::LOG;
use crate::cluster::{Cluster, PATIENCE, logs};
use crate::program::{on_host, wait_for};

/// The directory in which the commands run, with what a release has.
const RELEASE: &str = "/srv/release";
/// The manifest, by its path in a release.
const MANIFEST: (&str, &str) =
    ("deploy/kubernetes/detector.yaml", include_str!("../../../deploy/kubernetes/detector.yaml"));

/// The commands with which README.md loads the image and applies the manifest.
const COMMANDS: [&str; 3] = [
    "ctr --namespace k8s.io images import detector-0.1.0-image.tar",
    "kubectl apply -f deploy/kubernetes/detector.yaml",
    "kubectl --namespace detector rollout status daemonset/detector",
];

/// What is watched: an application that writes a file every few seconds.
const WORKLOAD: &str = r#"{
    "apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}},
        {
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop"},
            "spec": {
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {
                        "automountServiceAccountToken": false,
                        "terminationGracePeriodSeconds": 1,
                        "containers": [{
                            "name": "web", "image": "localhost/lab:1", "imagePullPolicy": "Never",
                            "command": ["/bin/sh", "-c"],
                            "args": ["while mkdir -p /srv/state; do date > /srv/state/now; sleep 5; done"]
                        }]
                    }
                }
            }
        }
    ]
}"#;

/// A rule that the configuration gets while the daemon runs.
const RULE: &str = "
    [[watch]]
    name = 'tests'
    reason = 'Nobody looks at it.'
    watched = false
    namespace = 'nobody'
";

/// The commands of README.md make a daemon that watches the node: it knows the pods, takes over another configuration,
/// and its advice can be applied.
pub(super) fn installed(lab: &mut Lab) -> Result<()> {
    let _cluster = Cluster::start(&mut lab.node)?;
    watch().with_context(|| format!("its log: {}\n{}", fs::read_to_string(LOG).unwrap_or_default(), logs()))
}

fn watch() -> Result<()> {
    let manifest = Path::new(RELEASE).join(MANIFEST.0);
    fs::create_dir_all(manifest.parent().context("it is in a directory")?)?;
    fs::write(&manifest, MANIFEST.1)?;
    fs::copy("/packages/detector-0.1.0-image.tar", format!("{RELEASE}/detector-0.1.0-image.tar"))?;
    for command in COMMANDS {
        on_host("sh", ["-c", &format!("cd {RELEASE} && {command}")])?;
    }
    let workload = format!("{RELEASE}/workload.json");
    fs::write(&workload, WORKLOAD)?;
    kubectl("apply -f /srv/release/workload.json")?;
    kubectl("--namespace shop rollout status deployment/web")?;

    in_workload("date >> /etc/app.conf")?;
    let of_session = |line: &Value, finding: &str| line["finding"] == finding && line["session"].is_string();
    let shell = found("the shell", |line| of_session(line, "shell_in_container"))?;
    let write = found("the write", |line| of_session(line, "image_write") && line["file"]["path"] == "/etc/app.conf")?;
    for line in [&shell, &write] {
        let pod = &line["container"]["pod"];
        ensure!(pod["namespace"] == "shop" && pod["owner"]["kind"] == "Deployment", "{line}");
        ensure!(pod["owner"]["name"] == "web" && line["container"]["name"] == "web", "{line}");
        ensure!(line["node"] == "node" && line["session"] == shell["session"], "{line}");
    }
    let own = fs::read_to_string(LOG)?.lines().any(|line| line.contains("\"namespace\":\"detector\""));
    ensure!(!own, "it has found something in its own pod");

    let other = MANIFEST.1.replacen("    [node]\n", &format!("    [node]\n{RULE}"), 1);
    fs::write(&manifest, other)?;
    kubectl("apply -f /srv/release/deploy/kubernetes/detector.yaml")?;
    found("the rule", |line| line["event"] == "policy_loaded" && line["detail"]["rules"] == 1)?;

    let container = shell["container"]["id"].as_str().context("it has an id")?;
    let patch = on_host("detector", ["advise", container, "-o", "kubernetes"])?;
    fs::write(format!("{RELEASE}/patch.yaml"), &patch)?;
    kubectl("--namespace shop patch deployment web --patch-file /srv/release/patch.yaml")?;
    kubectl("--namespace shop rollout status deployment/web")?;
    in_workload("read now < /srv/state/now").context(patch)?;
    let refused = in_workload("date >> /etc/app.conf");
    ensure!(format!("{refused:?}").contains("Read-only file system"), "{refused:?}");

    kubectl("delete -f /srv/release/deploy/kubernetes/detector.yaml")?;
    found("its end", |line| line["event"] == "stopped").map(drop)
}

/// Runs kubectl with these arguments.
fn kubectl(arguments: &str) -> Result<String> {
    on_host("kubectl", arguments.split(' '))
}

/// Runs a script in the container of the workload.
fn in_workload(script: &str) -> Result<String> {
    on_host("kubectl", ["--namespace", "shop", "exec", "deployment/web", "--", "sh", "-c", script])
}

/// Waits for a line of the log.
fn found(what: &str, is_it: impl Fn(&Value) -> bool) -> Result<Value> {
    wait_for(what, PATIENCE, || {
        let text = fs::read_to_string(LOG)?;
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).find(|line| is_it(line)))
    })
}

#[cfg(test)]
mod tests {
    use super::COMMANDS;

    #[test]
    fn readme_has_the_commands() {
        let readme = include_str!("../../../README.md");
        for command in COMMANDS {
            assert!(readme.contains(&format!("\n    {command}\n")), "{command}");
        }
    }
}
