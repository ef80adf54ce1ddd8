//! Makes the disks with the container engines that nodes have, with the interpreters and servers that images have, with
//! a cluster, and with a Debian that systemd starts, as EROFS images for the test machines.
//!
//! They are too large for an initramfs, which is in memory. From a disk, a machine reads only what it uses.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use detector_tests::machine::Kind;
use tempfile::TempDir;

use crate::debian::Archive;
use crate::{go, project, setup, shell};

/// Debian packages, which are unpacked and not installed. None of their programs run on this machine.
const PACKAGES: &[&str] = &[
    "docker.io",
    "containerd",
    "runc",
    "podman",
    "crun",
    "conmon",
    "fuse-overlayfs",
    "uidmap",
    "util-linux",
    // These are for a container that runs a whole system, with this disk as its image.
    "systemd",
    "dash",
    // These are for containers whose image is this disk.
    "python3",
    "perl-base",
    "nodejs",
    "php8.2-cli",
    "libapache2-mod-php8.2",
    "openjdk-17-jre-headless",
    "mawk",
    "lua5.4",
    "ruby",
    "nginx",
    "redis-server",
    "postgresql-15",
    "python3-flask",
    // It installs a package in a container whose image is this disk.
    "dpkg",
];

/// What is on the disk for the machine with busy servers besides.
const MORE_PACKAGES: &[&str] = &[
    "mariadb-server",
    "rabbitmq-server",
    "cron",
    "openssh-server",
    "tomcat10",
    "gcc",
    "libc6-dev",
    "logrotate",
    "chromium",
    // Scripts of servers run these, which Debian's images have.
    "coreutils",
    "grep",
    "hostname",
    "sed",
];

/// What a node of a cluster has besides its kubelet and containerd: networks of pods, and how to set one up. The key of
/// the cluster is made there.
const OF_CLUSTER: &[&str] =
    &["containerd", "runc", "containernetworking-plugins", "iproute2", "util-linux", "openssl", "redis-server"];

/// The program that is all parts of a Kubernetes cluster, its names, and its version.
const CLUSTER: &str = "tests/kubernetes";
const CLUSTER_NAMES: [&str; 6] =
    ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubectl"];
const CLUSTER_VERSION: [&str; 3] = ["gitVersion=v1.34.4", "gitMajor=1", "gitMinor=34"];

/// What is on the disk of a Debian that systemd starts, with all that a package may expect there, and runc.
const SYSTEM: &[&str] = &[
    "systemd-sysv",
    "init-system-helpers",
    "base-files",
    "bash",
    "coreutils",
    "dash",
    "debianutils",
    "diffutils",
    "dpkg",
    "findutils",
    "grep",
    "gzip",
    "hostname",
    "libc-bin",
    "logrotate",
    "perl-base",
    "procps",
    "sed",
    "util-linux",
    "runc",
];

/// Files that no program reads, and those that only a disk with more of Perl has.
const UNREAD: &[&str] = &["doc", "info", "locale", "man"];
const UNREAD_OF_PERL: &[&str] = &["perl"];
/// Those of them that the packages of the cluster have.
const UNREAD_OF_CLUSTER: &[&str] = &["doc", "man"];

/// A disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// Container engines, interpreters and a few servers.
    Engines,
    /// The same and more servers.
    Software,
    /// A Kubernetes cluster of one node.
    Kubernetes,
    /// A Debian with systemd, as the root of a machine.
    System,
}

impl Disk {
    /// The disk of a kind of machine.
    pub fn of(kind: Kind) -> Option<Self> {
        match kind {
            Kind::Node => Some(Self::Engines),
            Kind::Software => Some(Self::Software),
            Kind::Kubernetes => Some(Self::Kubernetes),
            Kind::Systemd => Some(Self::System),
            _ => None,
        }
    }

    /// The directories in `/usr/share` that are left out.
    fn unread(self) -> impl Iterator<Item = &'static str> {
        let (all, of_perl): (&[_], &[_]) = match self {
            Self::Engines | Self::Software => (UNREAD, UNREAD_OF_PERL),
            Self::Kubernetes => (UNREAD_OF_CLUSTER, &[]),
            Self::System => (UNREAD, &[]),
        };
        all.iter().chain(of_perl).copied()
    }

    /// Its directory in the cache, and its packages.
    fn content(self) -> (&'static str, Vec<&'static str>) {
        match self {
            Self::Engines => ("runtimes", PACKAGES.to_vec()),
            Self::Software => ("software", [PACKAGES, MORE_PACKAGES].concat()),
            Self::Kubernetes => ("kubernetes", OF_CLUSTER.to_vec()),
            Self::System => ("system", SYSTEM.to_vec()),
        }
    }
}

/// Returns a disk from the cache, or makes it from Debian packages.
///
/// # Errors
///
/// A package cannot be fetched, or the cache cannot be written.
pub fn disk(of: Disk) -> Result<PathBuf> {
    let (name, packages) = of.content();
    let folder = project::cache()?.join(name);
    let (disk, wanted) = (folder.join("disk"), folder.join("wanted"));
    let cluster = project::root().join(CLUSTER);
    let mut made_of = packages.join("\n");
    if of == Disk::Kubernetes {
        made_of += &go::made_of(&cluster)?;
    }
    let is_complete = || fs::read_to_string(&wanted).is_ok_and(|wanted| wanted == made_of);
    if is_complete() {
        return Ok(disk);
    }
    setup::packages()?;
    let _lock = project::lock_cache()?;
    // Another process may have made it in the meantime.
    if is_complete() {
        return Ok(disk);
    }
    fs::create_dir_all(&folder)?;
    let partial = TempDir::with_prefix_in("partial-", &folder)?;
    Archive::open()?.unpack_all(&packages, partial.path())?;
    if of == Disk::Kubernetes {
        setup::fetchers()?;
        let flags = CLUSTER_VERSION.map(|is| format!("-X k8s.io/component-base/version.{is}")).join(" ");
        let [program, links @ ..] = CLUSTER_NAMES.map(|name| partial.path().join("usr/bin").join(name));
        let what = "the parts of Kubernetes, which takes half an hour";
        go::build(what, &cluster, &format!("-s -w {flags}"), &program)?;
        for link in links {
            symlink(CLUSTER_NAMES[0], link)?;
        }
    }
    for name in of.unread() {
        fs::remove_dir_all(partial.path().join("usr/share").join(name))
            .with_context(|| format!("the packages have no {name}"))?;
    }
    let mut make = Command::new("mkfs.erofs");
    // A running machine keeps the disk that it has.
    let new = folder.join("disk.new");
    make.args(["--quiet", "--all-root"]).arg(&new).arg(partial.path());
    shell::long(format!("making the disk {name}"), &mut make)?;
    fs::rename(new, &disk)?;
    fs::write(wanted, made_of)?;
    Ok(disk)
}
