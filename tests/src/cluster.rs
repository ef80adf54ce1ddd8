//! A Kubernetes cluster of one node, which is this machine. Its parts are one program on the disk
//! (`tests/kubernetes/main.go`).

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::engine::disk::{self, DISK};
use crate::engine::{CRI, Node};
use crate::program::{Running, on_host, wait_for};

/// The directory with the keys, the configuration and the logs of the cluster.
const FOLDER: &str = "/run/cluster";

/// How long a part may take to answer on an emulated machine, on which everything takes minutes.
pub const PATIENCE: Duration = Duration::from_secs(5 * 60);

/// The files that the parts read. Everybody is the same administrator to them.
const FILES: &[(&str, &str)] = &[
    ("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
    ("/etc/group", "root:x:0:\n"),
    ("/etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
    ("/run/cluster/tokens", "secret,admin,admin,\"system:masters\"\n"),
    (
        "/root/.kube/config",
        "apiVersion: v1\nkind: Config\ncurrent-context: lab\n\
         clusters: [{name: lab, cluster: {server: \"https://10.1.0.1:6443\", insecure-skip-tls-verify: true}}]\n\
         users: [{name: admin, user: {token: secret}}]\n\
         contexts: [{name: lab, context: {cluster: lab, user: admin}}]\n",
    ),
    (
        "/run/cluster/kubelet",
        "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n\
         authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}\n\
         authorization: {mode: AlwaysAllow}\n\
         cgroupDriver: cgroupfs\n\
         containerRuntimeEndpoint: unix:///run/containerd/containerd.sock\n\
         failSwapOn: false\nlocalStorageCapacityIsolation: false\nresolvConf: \"\"\n",
    ),
    (
        "/etc/cni/net.d/10-lab.conflist",
        r#"{"cniVersion": "0.4.0", "name": "lab", "plugins": [{
            "type": "ptp", "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.2.0.0/24"}]]}
        }]}"#,
    ),
];

/// The programs in the order of their start, with their options.
const PARTS: &[&[&str]] = &[
    &[
        "etcd",
        "--data-dir=/run/cluster/etcd",
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--unsafe-no-fsync",
    ],
    &[
        "kube-apiserver",
        "--etcd-servers=http://127.0.0.1:2379",
        "--advertise-address=10.1.0.1",
        "--cert-dir=/run/cluster/apiserver",
        "--service-cluster-ip-range=10.3.0.0/24",
        "--service-account-issuer=https://lab",
        "--service-account-key-file=/run/cluster/key",
        "--service-account-signing-key-file=/run/cluster/key",
        "--token-auth-file=/run/cluster/tokens",
        "--authorization-mode=Node,RBAC",
        "--kubelet-preferred-address-types=InternalIP",
        "--allow-privileged",
    ],
    &[
        "kube-controller-manager",
        "--kubeconfig=/root/.kube/config",
        "--cert-dir=/run/cluster/controllers",
        "--service-account-private-key-file=/run/cluster/key",
        "--leader-elect=false",
    ],
    &["kube-scheduler", "--kubeconfig=/root/.kube/config", "--cert-dir=/run/cluster/scheduler", "--leader-elect=false"],
    &[
        "kubelet",
        "--config=/run/cluster/kubelet",
        "--kubeconfig=/root/.kube/config",
        "--cert-dir=/run/cluster/node",
        "--hostname-override=node",
        "--node-ip=10.1.0.1",
    ],
];

/// The running parts of a cluster, which end when this is dropped.
pub struct Cluster {
    _parts: Vec<Running>,
}

impl Cluster {
    /// Starts a cluster, and waits until its node is ready.
    pub fn start(node: &mut Node) -> Result<Self> {
        disk::mount()?;
        for (path, content) in FILES {
            fs::create_dir_all(Path::new(path).parent().context("it is in a directory")?)?;
            fs::write(path, content)?;
        }
        // The command of busybox makes no veth pairs.
        let ip = format!("{DISK}/bin/ip");
        for command in [
            "link set lo up",
            "link add node type veth peer name nobody",
            "address add 10.1.0.1/24 dev node",
            "link set node up",
            "link set nobody up",
        ] {
            on_host(&ip, command.split(' '))?;
        }
        let key = format!("{FOLDER}/key");
        on_host("openssl", ["genpkey", "-algorithm", "RSA", "-out", &key])?;
        node.ensure(&CRI)?;
        let mut parts: Vec<Running> = Vec::new();
        for part in PARTS {
            let [program, options @ ..] = *part else { continue };
            let output = File::create(format!("{FOLDER}/{program}.log"))?;
            let mut command = Command::new(program);
            command.args(options).stdout(output.try_clone()?).stderr(output);
            parts.push(Running::start(&mut command)?);
            let question: &[&str] = match *program {
                "kube-apiserver" => &["get", "--raw", "/readyz"],
                // The controllers make it.
                "kube-controller-manager" => &["--namespace", "default", "get", "serviceaccount", "default"],
                "kubelet" => &["wait", "--for=condition=Ready", "--timeout=10s", "node/node"],
                _ => continue,
            };
            let answered = wait_for(program, PATIENCE, || {
                for part in &mut parts {
                    let status = part.ended()?;
                    ensure!(status.is_none(), "a part of the cluster has ended: {status:?}");
                }
                Ok(on_host("kubectl", question).ok())
            });
            answered.with_context(logs)?;
            println!("{program} answers");
        }
        Ok(Self { _parts: parts })
    }
}

/// The ends of the logs of all parts, for the report of a failure.
pub fn logs() -> String {
    let mut text = String::new();
    for part in PARTS {
        let log = fs::read_to_string(format!("{FOLDER}/{}.log", part[0])).unwrap_or_default();
        let lines: Vec<_> = log.lines().rev().take(25).collect();
        text += &format!("{}:\n", part[0]);
        lines.iter().rev().for_each(|line| text += &format!("  {}\n", line.chars().take(400).collect::<String>()));
    }
    text
}
