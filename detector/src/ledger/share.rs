//! What a finding says about the paths of its container.

use std::collections::BTreeMap;

use super::entry::{Actor, Deed, Done, Share, Subject};
use crate::finding::{File, Finding, ImageOp, Kind, Layer, MountOp, Op, Process, Repeated, SeverityRule, Text, Time};

/// How many ancestors of a process are kept.
const MOST_ANCESTORS: usize = 3;

/// What a finding says: nothing, unless it is about a change of the image, or about the execution of what was changed.
pub(super) fn of(finding: &Finding) -> Vec<Share> {
    let Some(file) = &finding.file else { return Vec::new() };
    // Only the process that does it sees another root, and only a sandbox what is mounted in it.
    let is_private = finding.severity_rule == Some(SeverityRule::ShadowInSandbox);
    match (finding.finding, file.op) {
        (Kind::DriftedExec, _) => vec![executed(finding, file)],
        (Kind::ImageShadowed, Some(Op::Mount(op))) if op != MountOp::Chroot && !is_private => {
            let deed = if op == MountOp::Umount { Deed::Uncovered } else { Deed::Covered };
            vec![share(finding, subject(file), [(deed, 1)])]
        }
        (Kind::ImageWrite, Some(Op::Image(op))) => match &finding.repeated {
            Some(repeated) => vec![counted(finding, file, repeated)],
            None => changed(finding, file, op),
        },
        _ => Vec::new(),
    }
}

/// What a single operation does at the path, and at the other path if there is one.
fn changed(finding: &Finding, file: &File, op: ImageOp) -> Vec<Share> {
    let own = match op {
        ImageOp::Rename => Some(Deed::Left),
        ImageOp::Link => None,
        op => Some(deed(op)),
    };
    let is_in_image = file.layer == Some(Layer::Lower);
    let own = own.map(|deed| Share { is_in_image, ..share(finding, subject(file), [(deed, 1)]) });
    let other = file.new_path.as_ref().map(|path| share(finding, Subject::Path(path.clone()), [(Deed::Arrived, 1)]));
    own.into_iter().chain(other).collect()
}

/// What is done again and again. The names are those that the files have in the end.
fn counted(finding: &Finding, file: &File, repeated: &Repeated) -> Share {
    let mut deeds = BTreeMap::new();
    for (op, count) in finding.operations() {
        if let Op::Image(op) = op {
            *deeds.entry(deed(op)).or_default() += count;
        }
    }
    // What is created to replace another file is created under another name.
    if deeds.contains_key(&Deed::Arrived) {
        deeds.remove(&Deed::Created);
    }
    let is_one = repeated.names.len() == 1 && repeated.names_omitted == 0;
    let subject = match (&repeated.by, &repeated.paths) {
        (Some(args), _) => Subject::Installation(args.clone()),
        (None, Some(paths)) if !is_one => Subject::Paths(paths.clone()),
        (None, _) => repeated.names.first().cloned().map_or_else(|| subject(file), Subject::Path),
    };
    let names = if let Subject::Path(_) = subject { Vec::new() } else { repeated.names.clone() };
    Share {
        is_in_image: file.layer == Some(Layer::Lower),
        names,
        counted_in_kernel: repeated.counted_in_kernel,
        ..share(finding, subject, deeds)
    }
}

fn executed(finding: &Finding, file: &File) -> Share {
    let installation = finding.repeated.as_ref().and_then(|repeated| repeated.by.clone());
    let subject = installation.map_or_else(|| subject(file), Subject::Installation);
    let deeds = [(Deed::Executed, finding.acts())];
    Share { differs: file.differs, sha256: file.sha256, ..share(finding, subject, deeds) }
}

/// What an operation does at the path that it is about in the end.
fn deed(op: ImageOp) -> Deed {
    match op {
        ImageOp::Create | ImageOp::Mkdir | ImageOp::Mknod | ImageOp::Symlink => Deed::Created,
        ImageOp::Link | ImageOp::Rename | ImageOp::Exchange => Deed::Arrived,
        ImageOp::Unlink | ImageOp::Rmdir => Deed::Removed,
        op if ImageOp::is_of_metadata(op.number()) => Deed::Described,
        _ => Deed::Written,
    }
}

fn subject(file: &File) -> Subject {
    file.path.clone().map_or_else(|| Subject::inode(file.dev, file.inode), Subject::Path)
}

fn share(finding: &Finding, subject: Subject, deeds: impl IntoIterator<Item = (Deed, u64)>) -> Share {
    let (first, last) = match &finding.repeated {
        Some(repeated) => (repeated.first, repeated.last),
        None => (finding.time, finding.time),
    };
    let excepted = finding.suppressed_by.as_ref().map(|name| format!("exception {name}"));
    Share {
        subject,
        deeds: deeds.into_iter().map(|(deed, count)| (deed, Done { count, last })).collect(),
        first,
        severity: finding.severity,
        expected: finding.expected.map(|expected| expected.reason.name().to_owned()).or(excepted),
        is_in_image: false,
        actor: finding.process.as_ref().map(|process| actor(finding, process, first)),
        differs: None,
        sha256: None,
        names: Vec::new(),
        counted_in_kernel: 0,
    }
}

fn actor(finding: &Finding, process: &Process, time: Time) -> Actor {
    let of_container = process.ancestors.iter().filter(|ancestor| ancestor.in_container);
    let ancestors: Vec<Text> = of_container.take(MOST_ANCESTORS).map(|ancestor| ancestor.comm.clone()).collect();
    let Process { uid, login_uid, origin, .. } = *process;
    let (has_executed, session) = (finding.finding == Kind::DriftedExec, finding.session.clone());
    Actor { time, has_executed, exe: process.exe.clone(), uid, login_uid, origin, ancestors, session }
}
