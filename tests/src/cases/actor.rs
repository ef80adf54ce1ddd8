//! Who changes an image: the container itself, somebody who entered it, or the host. Each is told once.

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};

use super::expectation::{shell, write};
use super::lab::{Lab, write_on_host};
use crate::container::Container;
use crate::image::DASH;
use crate::program::on_host;

/// A name that is not in the image.
fn new(path: &str) -> String {
    format!("{path}-new")
}

/// Somebody enters the container, and runs a script there. Returns the expected finding of the shell.
fn entered_with(container: &Container, script: &str) -> Result<Value> {
    let args = ["/bin/sh", "-ec", script];
    container.exec(&args)?;
    Ok(shell("entered", "/bin/busybox", &args))
}

/// The expected finding of a file that the host truncates.
fn truncated_by_host(path: &str) -> Value {
    json!({
        "finding": "image_write",
        "process": {"origin": "outside", "pid": std::process::id()},
        "file": {"op": "truncate", "layer": "upper", "path": path},
    })
}

/// The application has changed the file before, and changes it again afterwards.
pub(super) fn entered_after_application(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.container()?, lab.file()?);
    let identity = container.service_does(&["append", &path])?;
    container.exec_tool(&["append", &path])?;
    container.service_does(&["append", &path])?;
    let changes = [("entrypoint", "lower"), ("entered", "upper")];
    lab.expect(&container, changes.map(|(origin, layer)| write(origin, "open_write", layer, &path, &identity)))
}

/// All processes that the container has started are one actor.
pub(super) fn application_and_its_child(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.container()?, lab.file()?);
    let identity = container.child_does(&["append", &path])?;
    container.service_does(&["append", &path])?;
    container.child_does(&["append", &path])?;
    lab.expect(&container, [write("application", "open_write", "lower", &path, &identity)])
}

/// A process that was only forked is described with the arguments of the program that it runs.
pub(super) fn subshell(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.container()?, lab.file()?);
    let script = format!("(exec 3>{path}); true");
    let args = [DASH, "-c", &script];
    container.service_does(&[&["run"], &args[..]].concat())?;
    let found = lab.take_findings()?;
    let [_, truncated] = found.as_slice() else { bail!("{} findings came", found.len()) };
    let process = &truncated["process"];
    ensure!(truncated["file"]["path"] == *path && process["args"] == json!(args), "the finding is {truncated}");
    ensure!(process["pid"] != found[0]["process"]["pid"], "the shell has not forked");
    Ok(())
}

/// Two visits with the same ten changes, each of which is made twice by different processes.
pub(super) fn two_visits(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    let paths: Vec<String> = (0..5).map(|_| lab.file()).collect::<Result<_>>()?;
    let change = "/usr/bin/tool append $path; /usr/bin/tool chmod $path;";
    let script = format!("for path in {}; do {change} {change} done", paths.join(" "));
    for layer in ["lower", "upper"] {
        let shell = entered_with(&container, &script)?;
        let mut expected = vec![shell];
        for path in &paths {
            let change = |op: &str, layer: &str| {
                json!({
                    "finding": "image_write",
                    "process": {"origin": "entered", "exe": "/usr/bin/tool"},
                    "file": {"op": op, "layer": layer, "path": path},
                })
            };
            expected.extend([change("open_write", layer), change("chmod", "upper")]);
        }
        let expected: [Value; 11] = expected.try_into().expect("a shell and ten changes");
        lab.expect(&container, expected)?;
    }
    Ok(())
}

/// The host changes a file as `docker cp` does, which the application has changed before.
pub(super) fn host_after_application(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.container()?, lab.file()?);
    let identity = container.service_does(&["append", &path])?;
    write_on_host(&container.host_path(&path))?;
    write_on_host(&container.host_path(&path))?;
    lab.expect(&container, [write("entrypoint", "open_write", "lower", &path, &identity), truncated_by_host(&path)])
}

/// A process of the host changes a file, and enters the container then. It is another actor afterwards.
pub(super) fn host_that_enters(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.container()?, lab.file()?);
    let pid = container.pid;
    let script = format!("echo >> /proc/{pid}/root{path}; exec nsenter -t {pid} -m /usr/bin/tool append {path}");
    on_host("/bin/busybox", ["sh", "-ec", &script])?;
    let changed = |origin: &str, layer: &str| {
        json!({
            "finding": "image_write",
            "process": {"origin": origin},
            "file": {"op": "open_write", "layer": layer, "path": path},
        })
    };
    lab.expect(&container, [changed("outside", "lower"), changed("entered", "upper")])
}

/// Whoever creates a file may write it, and change its permissions. For the others, it is a file like any other.
pub(super) fn file_of_a_visit(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.container()?, new(&lab.file()?));
    let script = format!("echo 1 > {path}; echo 2 >> {path}; /usr/bin/tool chmod {path}");
    let shell = entered_with(&container, &script)?;
    let mut created = write("entered", "create", "new", &path, &Value::Null);
    created["file"] = json!({"op": "create", "layer": "new", "path": path});
    let identity = container.service_does(&["append", &path])?;
    write_on_host(&container.host_path(&path))?;
    container.service_does(&["chmod-set-id", &path])?;
    let of_service = |op| write("entrypoint", op, "upper", &path, &identity);
    lab.expect(&container, [shell, created, of_service("open_write"), truncated_by_host(&path), of_service("chmod")])
}

/// A file that the container has created is removed by somebody else.
pub(super) fn removed_by_a_visit(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.container()?, new(&lab.file()?));
    let identity = container.service_does(&["create", &path])?;
    container.exec_tool(&["unlink", &path])?;
    lab.expect(
        &container,
        [write("entrypoint", "create", "new", &path, &identity), write("entered", "unlink", "upper", &path, &identity)],
    )
}
