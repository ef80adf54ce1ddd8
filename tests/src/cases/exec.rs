//! Executions of files that are not from the image, and of shells under other names.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::expectation::{compare, shell};
use super::lab::Lab;
use crate::container::{Container, OLD_LIBRARY, OLD_PROGRAM, Setup};
use crate::image::{BACKUP, CODE_FILE, DASH, LIBC, LOADER, NAMES, SCRIPT};
use crate::program::wait_for;
use crate::root::Root;

/// How long the content of a file can take to be known.
const PATIENCE: Duration = Duration::from_secs(60);

const BUSYBOX: &str = "/bin/busybox";

/// Expects exactly these findings of executions in this order, and allows findings of image changes.
fn expect<const N: usize>(lab: &mut Lab, container: &Container, expected: [Value; N]) -> Result<()> {
    let mut found = lab.take_late_findings()?;
    found.retain(|finding| finding["finding"] != "image_write");
    // A finding that needs the file's content arrives after those of later executions.
    found.sort_by_key(|finding| [finding["time"].to_string(), finding["finding"].to_string()]);
    compare(&found, &container.identity(), &expected)
}

/// The expected finding of a program or library whose content differs from the image.
fn drifted(path: &str, identity: &Value) -> Value {
    differing("content", path, identity)
}

/// The expected finding of a program or library that differs in this way.
fn differing(differs: &str, path: &str, identity: &Value) -> Value {
    json!({
        "finding": "drifted_exec",
        "severity": if matches!(differs, "nothing" | "metadata") { "low" } else { "high" },
        "file": {
            "path": path, "layer": "upper", "differs": differs, "op": null,
            "dev": identity["dev"], "inode": identity["inode"],
        },
    })
}

/// The expected finding of a program that is in memory or deleted.
fn fileless(path: &str, deleted: bool) -> Value {
    let deleted = if deleted { json!(true) } else { Value::Null };
    json!({
        "finding": "fileless_exec",
        "severity": "high",
        "mitre": ["T1620"],
        "file": {"path": path, "op": null, "deleted": deleted},
    })
}

/// The expected finding of a shell under another name.
fn disguised(path: &str, args: &[&str]) -> Value {
    let mut finding = shell("application", path, args);
    finding["file"] = json!({"path": path});
    finding
}

pub(super) fn added_program(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    let tool = container.service_does(&["copy", "/usr/bin/tool", "/usr/bin/implant"])?;
    container.service_does(&["run", "/usr/bin/implant", "run", "/bin/true"])?;
    let mut finding = drifted("/usr/bin/implant", &tool);
    finding["process"] = json!({"origin": "application", "exe": "/usr/bin/implant", "ppid": container.pid});
    expect(lab, &container, [finding])
}

/// Each execution has a finding.
pub(super) fn changed_program(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    let backup = container.service_does(&["append", BACKUP])?;
    container.service_does(&["run", BACKUP, "run", "/bin/true"])?;
    container.exec(&[BACKUP, "run", "/bin/true"])?;
    let found = |origin: &str| {
        let mut finding = drifted(BACKUP, &backup);
        finding["process"] = json!({"origin": origin});
        finding
    };
    expect(lab, &container, [found("application"), found("entered")])
}

pub(super) fn copied_shell(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    let copy = container.service_does(&["copy", DASH, "/tmp/worker"])?;
    let args = ["/tmp/worker", "-c", "sleep 0.1; true"];
    container.service_does(&[&["run"], &args[..]].concat())?;
    let late = disguised("/tmp/worker", &args);
    expect(lab, &container, [drifted("/tmp/worker", &copy), late])
}

/// The paths of the program and of its working directory are too long to be reported whole. The arguments are not.
pub(super) fn long_paths(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    let args = ["./worker", "-c", "sleep 1; true"];
    container.child_does(&[&["deep-below", "/data", "copy-and-run", DASH], &args[..]].concat())?;
    let mut found = lab.take_late_findings()?;
    found.sort_by_key(|finding| finding["finding"].to_string());
    // The volume is in memory. The shell is recognised by its content, which can be read only while it runs.
    let expected = ["fileless_exec", "shell_in_container"]
        .map(|kind| json!({"finding": kind, "process": {"args": args, "truncated": ["exe", "cwd"]}}));
    compare(&found, &container.identity(), &expected)?;
    for path in [&found[0]["process"]["cwd"], &found[0]["process"]["exe"]] {
        let path = path.as_str().unwrap_or_default();
        ensure!(path.starts_with("…/ddd") && path.len() > libc::PATH_MAX as usize, "the path is {path}");
    }
    Ok(())
}

/// The program ends immediately, and is inspected nevertheless.
pub(super) fn copied_shell_twice(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    let copy = container.service_does(&["copy", DASH, "/tmp/twice"])?;
    let args = ["/tmp/twice", "-c", "true"];
    let found = || [drifted("/tmp/twice", &copy), disguised("/tmp/twice", &args)];
    for _ in 0..2 {
        container.service_does(&[&["run"], &args[..]].concat())?;
    }
    let ([one, two], [three, four]) = (found(), found());
    expect(lab, &container, [one, two, three, four])
}

/// A file that was harmless when it was inspected becomes a shell of the same length.
pub(super) fn copied_shell_changed(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    let copy = container.service_does(&["copy-blunted", DASH, "/tmp/same"])?;
    let args = ["/tmp/same", "-c", "true"];
    container.service_does(&[&["run"], &args[..]].concat())?;
    expect(lab, &container, [drifted("/tmp/same", &copy)])?;
    container.service_does(&["overwrite", DASH, "/tmp/same"])?;
    container.service_does(&[&["run"], &args[..]].concat())?;
    expect(lab, &container, [drifted("/tmp/same", &copy), disguised("/tmp/same", &args)])
}

pub(super) fn copied_box(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    let copy = container.service_does(&["copy", BUSYBOX, "/tmp/box"])?;
    container.service_does(&["run-as", "busybox", "/tmp/box", "sh", "-c", "true"])?;
    container.service_does(&["run-as", "busybox", "/tmp/box", "echo", "sh"])?;
    let drift = || drifted("/tmp/box", &copy);
    let late = disguised("/tmp/box", &["busybox", "sh", "-c", "true"]);
    expect(lab, &container, [drift(), late, drift()])
}

/// Runs a copy of a program that is gone when it should be read, because large programs are read before it. Takes the
/// findings of shells.
fn run_gone(lab: &mut Lab, container: &Container, program: &str, path: &str, args: &[&str]) -> Result<Vec<Value>> {
    let large = ["one", "two"].map(|name| format!("{path}-waits-for-{name}"));
    for path in &large {
        container.service_does(&["make-sparse", path])?;
    }
    container.service_does(&["run", &large[0]])?;
    container.service_does(&[&["run-and-remove", &large[1], program, path], args].concat())?;
    // The file of the beacon can be read first, because the queue is fair between containers.
    wait_for("the finding of a shell", PATIENCE, || {
        let mut found = lab.take_late_findings()?;
        found.retain(|finding| finding["finding"] == "shell_in_container");
        Ok((!found.is_empty()).then_some(found))
    })
}

/// The shell is known by how it begins, because another copy of it was read before.
pub(super) fn gone_shell(lab: &mut Lab) -> Result<()> {
    const GONE: &str = "/tmp/gone-shell";
    let container = lab.container()?;
    let args = [GONE, "-c", "true"];
    lab.take_late_findings()?;
    let found = run_gone(lab, &container, DASH, GONE, &args)?;
    let mut expected = disguised(GONE, &args);
    expected["file"]["unverified"] = json!(null);
    compare(&found, &container.identity(), &[expected])
}

/// Only the name by which the program was called tells what it may be.
pub(super) fn gone_program(lab: &mut Lab) -> Result<()> {
    const GONE: &str = "/tmp/gone-program";
    let container = lab.container()?;
    let args = ["sh", "run", "/bin/true"];
    let found = run_gone(lab, &container, "/usr/bin/tool", GONE, &args)?;
    let mut expected = disguised(GONE, &args);
    expected["file"]["unverified"] = json!("gone");
    expected["message"] = json!(format!(
        "sh started in container {} (by the application, as {GONE}, unverified: its file was gone)",
        &container.id[..12]
    ));
    compare(&found, &container.identity(), &[expected])
}

/// A program that gives itself the name of a shell is none, also if its file was added.
pub(super) fn called_like_a_shell(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    let copy = container.service_does(&["copy", "/usr/bin/tool", "/tmp/called-sh"])?;
    for program in ["/usr/bin/tool", "/tmp/called-sh"] {
        for name in ["sh", "-bash"] {
            container.service_does(&["run-as", name, program, "run", "/bin/true"])?;
        }
    }
    let drift = || drifted("/tmp/called-sh", &copy);
    expect(lab, &container, [drift(), drift()])
}

/// Creating a hard link copies the shell's file up.
pub(super) fn linked_shell(lab: &mut Lab) -> Result<()> {
    let container = lab.new_container()?;
    let link = container.service_does(&["link", DASH, "/tmp/link"])?;
    let args = ["/tmp/link", "-c", "true"];
    container.service_does(&[&["run"], &args[..]].concat())?;
    let late = disguised("/tmp/link", &args);
    expect(lab, &container, [differing("nothing", "/tmp/link", &link), late])
}

/// Runs a program whose file differs from the image in this way.
fn run_differing(lab: &mut Lab, container: &Container, differs: &str, path: &str, identity: &Value) -> Result<()> {
    container.service_does(&["run", path, "run", "/bin/true"])?;
    expect(lab, container, [differing(differs, path, identity)])
}

/// What differs is told, and decides the severity.
pub(super) fn what_differs(lab: &mut Lab) -> Result<()> {
    const NAMED: &str = "/tmp/named";
    let container = lab.new_container()?;
    let file = container.service_does(&["link", BACKUP, NAMED])?;
    run_differing(lab, &container, "nothing", NAMED, &file)?;
    container.service_does(&["chown", NAMED])?;
    container.service_does(&["utimes", NAMED])?;
    run_differing(lab, &container, "metadata", NAMED, &file)?;
    container.service_does(&["chmod-set-id", BACKUP])?;
    run_differing(lab, &container, "privileges", NAMED, &file)?;
    container.service_does(&["append", NAMED])?;
    container.service_does(&["unlink", NAMED])?;
    let mut expected = differing("content", BACKUP, &file);
    expected["file"]["changed"] = json!({"op": "open_write", "exe": "/usr/bin/tool", "pid": container.pid});
    container.service_does(&["run", BACKUP, "run", "/bin/true"])?;
    expect(lab, &container, [expected])
}

pub(super) fn with_capabilities(lab: &mut Lab) -> Result<()> {
    let setup = Setup { is_privileged: true, ..Setup::default() };
    let container = Container::service_with(lab.number(), setup)?;
    let file = container.service_does(&["set-capability", BACKUP])?;
    run_differing(lab, &container, "privileges", BACKUP, &file)
}

/// A library that has the image's content is reported again when it has another one.
pub(super) fn linked_library(lab: &mut Lab) -> Result<()> {
    const LINK: &str = "/tmp/link.so";
    let container = lab.new_container()?;
    let link = container.service_does(&["link", LIBC, LINK])?;
    for differs in ["nothing", "content"] {
        for _ in 0..2 {
            container.service_does(&["run-preloaded", LINK, DASH, "-c", "true"])?;
        }
        let shell = || shell("application", DASH, &[DASH, "-c", "true"]);
        let mut found = differing(differs, LINK, &link);
        found["mitre"] = json!(["T1129"]);
        expect(lab, &container, [shell(), found, shell()])?;
        container.service_does(&["append", LIBC])?;
    }
    Ok(())
}

/// A script of the image that was only made executable.
pub(super) fn executable_script(lab: &mut Lab) -> Result<()> {
    let container = lab.new_container()?;
    let script = container.service_does(&["chmod-executable", SCRIPT])?;
    prints(&container, &["run", DASH, SCRIPT])?;
    let found = differing("metadata", SCRIPT, &script);
    expect(lab, &container, [shell("application", DASH, &[DASH, SCRIPT]), found])
}

/// Nobody has seen whether the content of these files was changed before the sensor started. The script has the inode
/// number of one that is copied up later, because both are names of one file of the image.
pub(super) fn copied_before(lab: &mut Lab) -> Result<()> {
    const NAMED: &str = "/tmp/named";
    let [changed, linked] = NAMES;
    let number = lab.number();
    let (container, backup) = lab.without_sensor(|_| {
        let container = Container::service(number)?;
        let backup = container.service_does(&["chown", BACKUP])?;
        container.service_does(&["append", changed])?;
        Ok((container, backup))
    })?;
    container.service_does(&["utimes", BACKUP])?;
    container.service_does(&["run", BACKUP, "run", "/bin/true"])?;
    let mut found = drifted(BACKUP, &backup);
    found["file"]["differs"] = Value::Null;
    expect(lab, &container, [found])?;
    container.service_does(&["link", linked, NAMED])?;
    for path in [NAMED, changed] {
        container.service_does(&["run", path])?;
    }
    let found = |path, differs: Value, severity| json!({"finding": "drifted_exec", "severity": severity, "file": {"path": path, "differs": differs}});
    expect(lab, &container, [found(NAMED, json!("nothing"), "low"), found(changed, Value::Null, "high")])
}

/// execveat(2) without a path, and with the name of another program.
pub(super) fn by_descriptor(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    container.service_does(&["run", "/usr/bin/tool", "become", DASH, "-c", "true"])?;
    expect(lab, &container, [shell("application", DASH, &[DASH, "-c", "true"])])
}

pub(super) fn on_terminal(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    let terminal = container.service_does(&["run-on-terminal", "/bin/sh", "-c", "true"])?;
    ensure!(terminal["terminal"] == "/dev/pts/0", "the terminal is {terminal}");
    let mut finding = shell("application", BUSYBOX, &["/bin/sh", "-c", "true"]);
    finding["severity"] = json!("high");
    finding["process"]["tty"] = json!("pts0");
    expect(lab, &container, [finding])
}

pub(super) fn in_memory(lab: &mut Lab) -> Result<()> {
    const NAME: &str = "memfd:library";
    let container = lab.container()?;
    container.service_does(&["run-in-memory", DASH, "-c", "sleep 1; true"])?;
    let late = disguised(NAME, &["harmless", "-c", "sleep 1; true"]);
    expect(lab, &container, [fileless(NAME, true), late])
}

pub(super) fn in_shared_memory(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    container.service_does(&["copy", "/usr/bin/tool", "/dev/shm/miner"])?;
    container.service_does(&["run", "/dev/shm/miner", "run", "/bin/true"])?;
    expect(lab, &container, [fileless("/dev/shm/miner", false)])
}

pub(super) fn deleted(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    container.service_does(&["run-deleted", "/usr/bin/tool", "/tmp/gone", "run", "/bin/true"])?;
    expect(lab, &container, [fileless("/tmp/gone", true)])
}

pub(super) fn added_script(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    let script = container.service_does(&["script", "/srv/run", "#!/bin/sh -e\n:\n"])?;
    container.service_does(&["run", "/srv/run", "argument"])?;
    expect_script(lab, &container, &script, "/srv/run", &["/bin/sh", "-e", "/srv/run", "argument"])
}

/// An execution by another thread than the first one counts as the process's.
pub(super) fn added_script_in_thread(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    let script = container.service_does(&["script", "/srv/threaded", "#!/bin/sh\n:\n"])?;
    container.service_does(&["run-in-thread", "/srv/threaded"])?;
    expect_script(lab, &container, &script, "/srv/threaded", &["/bin/sh", "/dev/fd/3"])
}

fn expect_script(lab: &mut Lab, container: &Container, identity: &Value, path: &str, args: &[&str]) -> Result<()> {
    let mut found = drifted(path, identity);
    found["process"] = json!({"exe": BUSYBOX, "args": args});
    expect(lab, container, [found, shell("application", BUSYBOX, args)])
}

/// A script whose interpreter is a script.
pub(super) fn chain_of_scripts(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    let inner = container.service_does(&["script", "/srv/inner", "#!/bin/sh\n:\n"])?;
    let outer = container.service_does(&["script", "/srv/outer", "#!/srv/inner -x\n"])?;
    container.service_does(&["run", "/srv/outer", "argument"])?;
    let mut shell = shell("application", BUSYBOX, &["/bin/sh", "/srv/inner", "-x", "/srv/outer", "argument"]);
    shell["file"] = json!({"path": BUSYBOX});
    expect(lab, &container, [drifted("/srv/outer", &outer), drifted("/srv/inner", &inner), shell])
}

/// xonsh is a script. Its name is evidence, as that of a program is.
pub(super) fn shell_that_is_a_script(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    let script = container.service_does(&["script", "/srv/xonsh", "#!/bin/cat\n"])?;
    container.service_does(&["run", "/srv/xonsh"])?;
    let mut shell = shell("application", BUSYBOX, &["/bin/cat", "/srv/xonsh"]);
    shell["file"] = json!({"path": "/srv/xonsh"});
    expect(lab, &container, [drifted("/srv/xonsh", &script), shell])
}

/// A script that cannot be executed was not executed.
pub(super) fn failing_script(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    container.service_does(&["script", "/srv/failing", "#!/missing\n"])?;
    container.service_does(&["run-failing", "/srv/failing", "/bin/true"])?;
    expect(lab, &container, [])
}

/// If the dynamic loader runs a shell, the loader is the executed file.
pub(super) fn by_loader(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    let args = [LOADER, "--inhibit-cache", DASH, "-c", "true"];
    container.service_does(&[&["run"], &args[..]].concat())?;
    let mut found = shell("application", LOADER, &args);
    found["file"] = json!({"path": DASH, "layer": "lower"});
    expect(lab, &container, [found])
}

pub(super) fn copy_by_loader(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    let copy = container.service_does(&["copy", DASH, "/tmp/loaded"])?;
    let args = [LOADER, "/tmp/loaded", "-c", "sleep 0.1; true"];
    container.service_does(&[&["run"], &args[..]].concat())?;
    let mut found = drifted("/tmp/loaded", &copy);
    found["mitre"] = json!(["T1129"]);
    let mut late = shell("application", LOADER, &args);
    late["file"] = json!({"path": "/tmp/loaded"});
    expect(lab, &container, [found, late])
}

pub(super) fn preloaded_library(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    let library = container.service_does(&["copy", LIBC, "/tmp/evil.so"])?;
    container.service_does(&["run-preloaded", "/tmp/evil.so", DASH, "-c", "true"])?;
    let mut found = drifted("/tmp/evil.so", &library);
    found["process"] = json!({"exe": DASH, "args": [DASH, "-c", "true"]});
    found["mitre"] = json!(["T1129"]);
    expect(lab, &container, [shell("application", DASH, &[DASH, "-c", "true"]), found])
}

pub(super) fn preloaded_from_memory(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    container.service_does(&["copy", LIBC, "/dev/shm/evil.so"])?;
    container.service_does(&["run-preloaded", "/dev/shm/evil.so", DASH, "-c", "true"])?;
    let found = fileless("/dev/shm/evil.so", false);
    expect(lab, &container, [shell("application", DASH, &[DASH, "-c", "true"]), found])
}

/// Adds a file with a script, which prints `42`, and returns the expected finding of its execution.
fn added_text(container: &Container, path: &str) -> Result<Value> {
    let script = container.service_does(&["script", path, PRINTS])?;
    Ok(drifted(path, &script))
}

/// A script for shells.
const PRINTS: &str = "echo $((6 * 7))\n";

/// Runs an operation that makes a script print its text.
fn prints(container: &Container, operation: &[&str]) -> Result<()> {
    let answer = container.service_does(operation)?;
    ensure!(answer["stdout"] == "42\n", "the script was not run: {answer}");
    Ok(())
}

/// A script that is the argument of its interpreter. A second run with the same arguments has no finding of its own.
pub(super) fn script_as_argument(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    let script = added_text(&container, "/srv/argument")?;
    prints(&container, &["run", DASH, "-e", "/srv/argument"])?;
    prints(&container, &["run", DASH, "-e", "/srv/argument"])?;
    let shell = || shell("application", DASH, &[DASH, "-e", "/srv/argument"]);
    expect(lab, &container, [shell(), script, shell()])
}

/// busybox is a shell and much else. What it reads as `cat` is data.
pub(super) fn script_of_an_applet(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    let script = added_text(&container, "/srv/applet")?;
    container.service_does(&["run", "/bin/cat", "/srv/applet"])?;
    prints(&container, &["run", "/bin/sh", "/srv/applet"])?;
    expect(lab, &container, [shell("application", BUSYBOX, &["/bin/sh", "/srv/applet"]), script])
}

/// The interpreter opens the script after many other files. The script is known by its name then, and so is what a
/// script includes.
pub(super) fn included_script(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    let script = added_text(&container, "/srv/included.sh")?;
    container.service_does(&["script", "/srv/data", "unused\n"])?;
    let text = format!("{}. /srv/included.sh", "read line < /srv/data\n".repeat(40));
    prints(&container, &["run", DASH, "-c", &text])?;
    expect(lab, &container, [shell("application", DASH, &[DASH, "-c", &text]), script])
}

pub(super) fn script_as_input(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    let script = added_text(&container, "/srv/input")?;
    prints(&container, &["run-with-input", "/srv/input", DASH])?;
    expect(lab, &container, [script, shell("application", DASH, &[DASH])])
}

pub(super) fn script_in_memory(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    prints(&container, &["run-script-in-memory", PRINTS, DASH])?;
    let mut found = lab.take_late_findings()?;
    found.retain(|finding| finding["finding"] != "shell_in_container");
    compare(&found, &container.identity(), &[fileless("memfd:script", true)])
}

/// A script that was changed runs again.
pub(super) fn changed_script(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    let script = added_text(&container, "/srv/changed")?;
    let run = ["run", DASH, "/srv/changed"];
    prints(&container, &run)?;
    container.service_does(&["append", "/srv/changed"])?;
    // What was appended is no command.
    let _failed = container.service_does(&run);
    let shell = || shell("application", DASH, &[DASH, "/srv/changed"]);
    expect(lab, &container, [shell(), script.clone(), shell(), script])
}

/// What programs read as data has no finding, whatever its name is, and scripts of the image have none.
pub(super) fn data(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    container.service_does(&["script", "/srv/data.py", "unused\n"])?;
    container.service_does(&["script", "/srv/data.sh", "unused\n"])?;
    for round in ["/data/one", "/data/two"] {
        for file in ["/srv/data.py", "/srv/data.sh"] {
            // The content of this program shows that it is no interpreter.
            container.child_does(&["copy", file, &format!("{round}{}", &file[10..])])?;
            container.service_does(&["run", "/bin/cat", file])?;
            container.service_does(&["run-with-input", file, "/bin/cat"])?;
        }
    }
    prints(&container, &["run", DASH, SCRIPT])?;
    prints(&container, &["run-with-input", SCRIPT, DASH])?;
    let shells = [shell("application", DASH, &[DASH, SCRIPT]), shell("application", DASH, &[DASH])];
    expect(lab, &container, shells)
}

/// The expected finding of code that was added and is executed later.
fn added_code(container: &Container, path: &str) -> Result<Value> {
    let copy = container.service_does(&["copy", CODE_FILE, path])?;
    let mut found = drifted(path, &copy);
    found["mitre"] = json!(["T1129"]);
    Ok(found)
}

/// Code that is mapped for reading, and made executable afterwards.
pub(super) fn made_executable(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    let found = added_code(&container, "/srv/later")?;
    for _ in 0..2 {
        container.service_does(&["execute-later", "/srv/later"])?;
    }
    expect(lab, &container, [found])
}

pub(super) fn made_executable_in_memory(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    container.service_does(&["execute-later-in-memory"])?;
    container.service_does(&["copy", CODE_FILE, "/dev/shm/later"])?;
    container.service_does(&["execute-later", "/dev/shm/later"])?;
    expect(lab, &container, [fileless("memfd:code", true), fileless("/dev/shm/later", false)])
}

/// Whatever such a process maps for reading is executable.
pub(super) fn executable_by_personality(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    let found = added_code(&container, "/srv/readable")?;
    container.child_does(&["execute-readable", "/srv/readable"])?;
    expect(lab, &container, [found])
}

/// Code of the image can be executed in any way, and so can code that a process makes.
pub(super) fn unchanged_code(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    container.service_does(&["execute-later", CODE_FILE])?;
    container.child_does(&["execute-readable", CODE_FILE])?;
    container.service_does(&["compile"])?;
    expect(lab, &container, [])
}

/// A container whose volume is on a disk and has programs on it before the container starts.
fn with_disk_volume(lab: &mut Lab) -> Result<Container> {
    let setup = Setup { root: Root::OverlayOnBtrfs, has_old_programs: true, ..Setup::default() };
    Container::service_with(lab.number(), setup)
}

/// The expected finding of a program or library on a volume.
fn on_volume(path: &str, severity: &str, mitre: Value) -> Value {
    json!({
        "finding": "volume_exec",
        "severity": severity,
        "mitre": mitre,
        "file": {"path": path, "layer": null, "op": null, "deleted": null},
    })
}

pub(super) fn program_on_volume(lab: &mut Lab) -> Result<()> {
    let container = with_disk_volume(lab)?;
    container.service_does(&["run", OLD_PROGRAM, "run", "/bin/true"])?;
    container.service_does(&["copy", "/usr/bin/tool", "/data/new"])?;
    container.service_does(&["run", "/data/new", "run", "/bin/true"])?;
    container.service_does(&["append", OLD_PROGRAM])?;
    container.service_does(&["run", OLD_PROGRAM, "run", "/bin/true"])?;
    let found = |path, severity| on_volume(path, severity, Value::Null);
    expect(lab, &container, [found(OLD_PROGRAM, "low"), found("/data/new", "high"), found(OLD_PROGRAM, "high")])
}

/// A library is reported once with each of its versions.
pub(super) fn library_on_volume(lab: &mut Lab) -> Result<()> {
    let container = with_disk_volume(lab)?;
    for _ in 0..2 {
        container.service_does(&["run-preloaded", OLD_LIBRARY, DASH, "-c", "true"])?;
    }
    container.service_does(&["append", OLD_LIBRARY])?;
    container.service_does(&["run-preloaded", OLD_LIBRARY, DASH, "-c", "true"])?;
    container.service_does(&["copy", CODE_FILE, "/data/code"])?;
    container.service_does(&["execute-later", "/data/code"])?;
    let found = |path, severity| on_volume(path, severity, json!(["T1129"]));
    let shell = || shell("application", DASH, &[DASH, "-c", "true"]);
    let found =
        [shell(), found(OLD_LIBRARY, "low"), shell(), shell(), found(OLD_LIBRARY, "high"), found("/data/code", "high")];
    expect(lab, &container, found)
}

/// Programs of the image have no findings, whatever they are called and however they are reached.
pub(super) fn unchanged_programs(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    container.service_does(&["run", "/usr/bin/tool", "become", "/bin/ls", "/"])?;
    container.service_does(&["run", "/proc/self/root/bin/cat", "/etc/passwd"])?;
    container.service_does(&["run-as", "busybox", BUSYBOX, "ls"])?;
    container.exec_tool(&["run", "/bin/echo", "sh"])?;
    expect(lab, &container, [])
}
