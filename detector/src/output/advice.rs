//! The advice about a workload: for a person, as a command of Docker, and as a patch for Kubernetes.

use std::fmt::Write as _;

use super::fit::{self, Run};
use super::terminal::{BOLD, CYAN, DIM, Look, PLAIN, Pen, YELLOW, safe};
use crate::finding::{Container, Owner, OwnerKind};
use crate::ledger::advice::{Advice, Basis, Mount};

/// How many things that no mount solves, or doubts, are shown.
const MOST: usize = 10;

/// The advice for a person.
pub(crate) fn text(advice: &Advice, container: &Container, look: Look) -> String {
    let mut lines = vec![vec![Run::new(DIM, basis(&advice.basis))]];
    for mount in &advice.mounts {
        lines.push(vec![Run::new(BOLD, mount.path.as_str()), Run::new(PLAIN, about(mount))]);
    }
    if advice.mounts.is_empty() {
        let what = if advice.unsolved.is_empty() { "Nothing was written" } else { "No mount helps" };
        lines.push(vec![Run::new(BOLD, format!("{what}, so it needs no mount to run with a read-only root."))]);
    }
    for unsolved in advice.unsolved.iter().take(MOST) {
        let [path, remedy] = [unsolved.path.as_str(), unsolved.why.remedy()];
        lines.push(vec![Run::new(YELLOW, "not solved:"), Run::new(CYAN, path), Run::new(PLAIN, remedy)]);
    }
    if let Some(more) = advice.unsolved.len().checked_sub(MOST + 1) {
        lines.push(vec![Run::new(YELLOW, format!("and {} more that no mount solves (-o json has all)", more + 1))]);
    }
    if advice.by_others > 0 {
        let text = format!(
            "Left out: {} paths at which only people who came in, or an engine, did something.",
            advice.by_others
        );
        lines.push(vec![Run::new(DIM, text)]);
    }
    for doubt in advice.basis.doubts.iter().take(MOST) {
        lines.push(vec![Run::new(YELLOW, "It may need more:"), Run::new(PLAIN, doubt.as_str())]);
    }
    let columns = look.columns.unwrap_or(usize::MAX / 4);
    let mut pen = Pen::new(look.color);
    for line in &lines {
        for row in fit::wrap(line, columns, columns) {
            row.runs.iter().for_each(|run| pen.write(run));
            pen.end_row();
        }
    }
    pen.end_row();
    pen.write(&Run::new(PLAIN, docker(advice, container)));
    pen.end_row();
    pen.finish()
}

/// What the advice is based on, in a sentence.
fn basis(Basis { containers, starts, since, seconds, .. }: &Basis) -> String {
    let containers = if *containers == 1 { "one container".to_owned() } else { format!("{containers} containers") };
    let starts = if *starts == 1 { "one start".to_owned() } else { format!("{starts} starts") };
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let watched = match (days, hours) {
        (0, 0) => format!("{} minutes", seconds / 60),
        (0, _) => format!("{hours} hours"),
        _ => format!("{days} days and {hours} hours"),
    };
    format!("Based on {watched} of {containers} with {starts}, watched since {:.0}.", since.0)
}

/// What is said about a mount.
fn about(mount: &Mount) -> String {
    let Mount { paths, example, by, hides, .. } = mount;
    let by = by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
    let paths =
        if *paths == 1 { format!("for {example}{by}") } else { format!("for {paths} paths such as {example}{by}") };
    match hides {
        Some(0) => paths,
        Some(files) => format!("{paths}; the image has {files} files there, which must be copied into it"),
        None => format!("{paths}; whether the image has files there, which it would hide, is not known"),
    }
}

/// The beginning of a command of Docker or Podman. A volume begins with what the image has there, and a tmpfs empty.
pub(crate) fn docker(advice: &Advice, container: &Container) -> String {
    let mut command = "docker run --read-only".to_owned();
    for mount in &advice.mounts {
        let option = if needs_copy(mount) { "--volume" } else { "--tmpfs" };
        let _ = write!(command, " {option} {}", mount.path);
    }
    let image = container.image.as_ref().and_then(|image| image.name.as_ref());
    let _ = write!(command, " {}", image.map_or_else(|| "IMAGE".to_owned(), |image| quoted(image.as_str())));
    command
}

/// Whether what the image has at a mount must be copied into it. If that is not known, a copy harms nothing.
fn needs_copy(mount: &Mount) -> bool {
    mount.hides != Some(0)
}

/// A text as one word of a shell. What is unsafe to show is replaced, and then means nothing.
fn quoted(text: &str) -> String {
    let text = &*safe(text);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+@%=:".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// A patch for the pods' controller (`kubectl patch --patch-file`). What the image has at a mount is copied by a
/// container of the same image, which needs a shell for that.
pub(crate) fn kubernetes(advice: &Advice, container: &Container) -> String {
    let text = |text: &str| serde_json::to_string(&safe(text)).expect("a text can be written");
    let owner = container.pod.as_ref().and_then(|pod| pod.owner.as_ref());
    let namespace = container.pod.as_ref().and_then(|pod| pod.namespace.as_ref());
    let mut patch = String::new();
    let mut line = |indent: usize, line: &str| _ = writeln!(patch, "{:indent$}{line}", "");
    line(0, &format!("# {}", basis(&advice.basis)));
    match (owner, namespace) {
        (Some(Owner { kind, name }), Some(namespace)) if *kind != OwnerKind::Job => {
            let [namespace, name] = [namespace, name].map(|text| quoted(text.as_str()));
            line(0, &format!("# kubectl -n {namespace} patch {} {name} --patch-file FILE", resource(*kind)));
        }
        _ => line(0, "# For the template of what creates the pods:"),
    }
    for (unsolved, _) in advice.unsolved.iter().zip(0..MOST) {
        line(0, &format!("# not solved: {} {}", text(unsolved.path.as_str()), unsolved.why.remedy()));
    }
    let copied: Vec<_> = advice.mounts.iter().enumerate().filter(|(_, mount)| needs_copy(mount)).collect();
    let name = container.name.as_ref().map_or_else(|| text("NAME"), |name| text(name.as_str()));
    let image = container.image.as_ref().and_then(|image| image.name.as_ref());
    let image = image.map_or_else(|| text("IMAGE"), |image| text(image.as_str()));
    for (indent, fixed) in [(0, "spec:"), (2, "template:"), (4, "spec:")] {
        line(indent, fixed);
    }
    if !copied.is_empty() {
        line(6, "initContainers:");
        line(8, "- name: \"copy-image-files\"");
        line(8, &format!("  image: {image}"));
        let commands: Vec<_> = copied
            .iter()
            .map(|(nth, mount)| format!("if [ -d {0} ]; then cp -a {0}/. /writable/{nth}; fi", quoted(&mount.path)))
            .collect();
        line(8, &format!("  command: [\"sh\", \"-c\", {}]", text(&commands.join("; "))));
        line(8, "  volumeMounts:");
        for (nth, _) in &copied {
            line(12, &format!("- name: \"writable-{nth}\""));
            line(12, &format!("  mountPath: \"/writable/{nth}\""));
        }
    }
    line(6, "containers:");
    line(8, &format!("- name: {name}"));
    line(8, "  securityContext:");
    line(8, "    readOnlyRootFilesystem: true");
    if !advice.mounts.is_empty() {
        line(8, "  volumeMounts:");
        for (nth, mount) in advice.mounts.iter().enumerate() {
            line(12, &format!("- name: \"writable-{nth}\""));
            line(12, &format!("  mountPath: {}", text(&mount.path)));
        }
        line(6, "volumes:");
        for nth in 0..advice.mounts.len() {
            line(8, &format!("- name: \"writable-{nth}\""));
            line(8, "  emptyDir: {}");
        }
    }
    patch
}

/// What `kubectl` calls a kind of owner.
const fn resource(kind: OwnerKind) -> &'static str {
    match kind {
        OwnerKind::Deployment => "deployment",
        OwnerKind::StatefulSet => "statefulset",
        OwnerKind::DaemonSet => "daemonset",
        OwnerKind::Job => "job",
    }
}

#[cfg(test)]
mod tests {
    use super::super::escape;
    use super::super::escape::tests::HOSTILE;
    use super::*;
    use crate::detect::samples;
    use crate::finding::Text;
    use crate::ledger::advice::{Unsolved, Why};

    fn advice(words: &[u8]) -> Advice {
        let mount = |path: &str, hides| Mount {
            path: path.to_owned(),
            paths: 2,
            example: words.into(),
            by: Some(words.into()),
            hides,
        };
        let basis = Basis {
            containers: 2,
            starts: 3,
            since: "2027-01-15T08:00:00Z".parse().expect("it is a time"),
            seconds: 90 * 3600,
            doubts: [String::from_utf8_lossy(words).into_owned()].into(),
        };
        let unsolved = vec![Unsolved { path: words.into(), why: Why::Code }];
        Advice { basis, mounts: vec![mount("/run", Some(0)), mount("/srv/app", Some(7))], unsolved, by_others: 1 }
    }

    #[test]
    fn a_command_of_docker_and_sentences() {
        let (advice, container) = (advice(b"/srv/app/x"), samples::known_container(b"shop"));
        let command = "docker run --read-only --tmpfs /run --volume /srv/app shop";
        assert_eq!(docker(&advice, &container), command);
        let shown = text(&advice, &container, Look::default());
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(
            lines,
            [
                "Based on 3 days and 18 hours of 2 containers with 3 starts, watched since 2027-01-15T08:00:00Z.",
                "/run for 2 paths such as /srv/app/x by /srv/app/x",
                "/srv/app for 2 paths such as /srv/app/x by /srv/app/x; the image has 7 files there, which must be copied \
                into it",
                "not solved: /srv/app/x is code, or decides who may do what: put it into the image",
                "Left out: 1 paths at which only people who came in, or an engine, did something.",
                "It may need more: /srv/app/x",
                "",
                command,
            ]
        );
    }

    #[test]
    fn a_patch_for_kubernetes() {
        let mut container = samples::known_container(b"shop");
        let owner = container.pod.as_mut().and_then(|pod| pod.owner.as_mut()).expect("it has one");
        owner.kind = OwnerKind::Deployment;
        let patch = kubernetes(&advice(b"/srv/app/x"), &container);
        assert_eq!(
            patch,
            r##"# Based on 3 days and 18 hours of 2 containers with 3 starts, watched since 2027-01-15T08:00:00Z.
# kubectl -n shop patch deployment shop --patch-file FILE
# not solved: "/srv/app/x" is code, or decides who may do what: put it into the image
spec:
  template:
    spec:
      initContainers:
        - name: "copy-image-files"
          image: "shop"
          command: ["sh", "-c", "if [ -d /srv/app ]; then cp -a /srv/app/. /writable/1; fi"]
          volumeMounts:
            - name: "writable-1"
              mountPath: "/writable/1"
      containers:
        - name: "shop"
          securityContext:
            readOnlyRootFilesystem: true
          volumeMounts:
            - name: "writable-0"
              mountPath: "/run"
            - name: "writable-1"
              mountPath: "/srv/app"
      volumes:
        - name: "writable-0"
          emptyDir: {}
        - name: "writable-1"
          emptyDir: {}
"##
        );
    }

    #[test]
    fn what_containers_are_called_cannot_become_a_command() {
        for hostile in HOSTILE {
            let (advice, container) = (advice(hostile), samples::known_container(hostile));
            let all = [
                text(&advice, &container, Look::default()),
                docker(&advice, &container),
                kubernetes(&advice, &container),
            ];
            for shown in all {
                assert!(shown.lines().all(|line| !line.chars().any(escape::is_unsafe)), "{shown:?}");
            }
        }
        let named = samples::known_container(b"a; $(id) 'b'");
        let command = docker(&advice(b"x"), &named);
        assert!(command.ends_with(r"'a; $(id) '\''b'\'''"), "{command}");
        assert_eq!(named.image.and_then(|image| image.name), Some(Text::from(&b"a; $(id) 'b'"[..])));
    }
}
