//! `shell_in_container`: a shell was started in a container.
//!
//! **What is a shell** is decided by the resolved name of the executed file, never by the name of the task. Version and
//! build suffixes do not count (`bash-5.2`, `ksh93`). BusyBox and Toybox contain many programs. For them, the applet
//! counts: `argv[0]`, or the argument after it if `argv[0]` is `busybox` or `toybox` itself. A file with another name
//! can be a hard link to BusyBox, or a renamed copy of a shell: its [content](super::content) shows that, a moment
//! later. Only if the content cannot be read, a file is also a shell if it is called by a shell's name. A process can
//! choose that name, so the finding says that it is unverified, and why.
//!
//! A shell that is a script, as xonsh is one of Python, is known by the resolved name of the script.
//!
//! A shell can also be run by the dynamic loader (`ld.so /bin/sh`). In this case the loader is executed, and it maps
//! the shell.
//!
//! **Severity**: the first row that applies.
//!
//! | severity | when |
//! |---|---|
//! | critical | it reads commands from a socket: a reverse or bind shell |
//! | critical | a process of the container entered the host's mounts, as with `nsenter --target 1 --mount`, and starts it there |
//! | info | it is the container's entrypoint |
//! | high | it has a terminal: a person is inside |
//! | medium | anything else: a command run from outside, by the application, or by somebody unknown |
//!
//! A socket as standard input counts only if commands come from it. With `-c` or a script, the parent only uses the
//! socket to talk to its child: Node.js gives a socket pair to every command that it runs, and systemd gives a socket
//! to the journal.
//!
//! **MITRE ATT&CK**: T1059.004 (Unix shell); from outside also T1609 (container administration command); on the host
//! T1611 (escape to host).

use serde::Deserialize as _;

use super::assessment::Assessment;
use super::code::{Code, How};
use super::content::{Content, Look};
use super::describe::{self, Actor};
use crate::container::table::TrackedContainer;
use crate::event::{Layer, Origin, Path, Process, Script, StdioKind};
use crate::finding::{File, SeverityRule, Unread};

/// The names of shells, without versions.
pub(super) const SHELLS: &[&[u8]] = &[
    b"ash", b"bash", b"brush", b"csh", b"dash", b"elvish", b"es", b"fish", b"hush", b"ion", b"ksh", b"lksh", b"mksh",
    b"murex", b"nu", b"oksh", b"osh", b"pdksh", b"posh", b"pwsh", b"rbash", b"rc", b"rksh", b"rzsh", b"sash", b"sh",
    b"tcsh", b"toysh", b"xonsh", b"yash", b"ysh", b"zsh",
];

/// The names of shells that are scripts of another interpreter.
const SCRIPTS: &[&[u8]] = &[b"xonsh"];

/// The names of files that contain many programs. The last one contains osh and ysh.
pub(super) const BOXES: &[&[u8]] = &[b"busybox", b"toybox", b"oils-for-unix"];

/// What distributions append to the names of programs, in addition to versions.
const SUFFIXES: &[&[u8]] = &[b"-static", b".static", b".distrib", b"-extras", b".nosuid", b".suid"];

/// The options of the dynamic loader that are followed by a value (glibc 2.31 to 2.42; those of musl are among them).
const LOADER_OPTIONS: &[&[u8]] = &[
    b"--library-path",
    b"--inhibit-rpath",
    b"--audit",
    b"--preload",
    b"--argv0",
    b"--glibc-hwcaps-prepend",
    b"--glibc-hwcaps-mask",
];

/// `look` is what is known of the file's content, if it was inspected. `script` is the script that the shell
/// interprets, if there is one.
pub(super) fn detect(
    code: &Code,
    look: Option<Look>,
    script: Option<&Script>,
    container: &TrackedContainer,
) -> Option<Assessment> {
    let shell = identify(code, look)?;
    let process = shell.actor.process;
    let mut args = shell.actor.args().map(|args| args.iter().skip(shell.arguments));
    let remote = process.stdio[0] == StdioKind::Socket && args.as_mut().is_some_and(commands_from_stdin);
    let rule = match process.origin {
        _ if remote => SeverityRule::ShellOnSocket,
        Origin::Outside => SeverityRule::ShellOnHost,
        Origin::Entrypoint => SeverityRule::ShellAtStart,
        _ if has_terminal(process) => SeverityRule::ShellOnTerminal,
        Origin::Entered | Origin::Application | Origin::Unknown => SeverityRule::Shell,
    };
    Some(Assessment {
        rule,
        message: message(&shell, code.how, script, remote, container),
        file: Some(File { unverified: shell.unverified, ..code.describe_file() }),
        mitre: match process.origin {
            Origin::Outside => &["T1059.004", "T1611"],
            Origin::Entered => &["T1059.004", "T1609"],
            Origin::Entrypoint | Origin::Application | Origin::Unknown => &["T1059.004"],
        },
    })
}

/// Whether only the file's content can show if it is a shell. What is executed on the host is not inspected, because a
/// runtime is, for a moment, in the cgroup of the container that it enters.
pub(super) fn is_unknown(code: &Code) -> bool {
    code.actor.is_some_and(|actor| {
        actor.process.origin != Origin::Outside && (code.how == How::Executed || is_loader(&actor))
    }) && identify(code, None).is_none()
}

/// What a program is that is as in the image, if its name shows that.
pub(super) fn content_by_name(code: &Code) -> Option<Content> {
    let name = describe::base_name(&code.path?.bytes);
    if code.file.layer != Some(Layer::Lower) {
        return None;
    }
    match find(name, SHELLS) {
        Some(name) => str::from_utf8(name).ok().map(Content::Shell),
        None => is_one_of(name, BOXES).then_some(Content::Box),
    }
}

/// Reads the name of a shell.
pub(super) fn known_name<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<&'static str, D::Error> {
    let name = <std::borrow::Cow<str>>::deserialize(deserializer)?;
    let known = SHELLS.iter().find(|known| **known == name.as_bytes());
    let known = known.and_then(|name| str::from_utf8(name).ok());
    known.ok_or_else(|| serde::de::Error::custom(format_args!("{name:?} is not a shell")))
}

/// A shell that runs.
struct Shell<'a> {
    name: &'a [u8],
    actor: Actor<'a>,
    path: &'a Path,
    /// The position in the argument vector at which its own arguments begin.
    arguments: usize,
    /// Whether the name of its file is not that of a shell.
    is_disguised: bool,
    /// Why it is not certain that it is a shell.
    unverified: Option<Unread>,
}

/// Returns `None` if the code is not a shell, as far as is known, or if the record was lost.
fn identify<'a>(code: &Code<'a>, look: Option<Look>) -> Option<Shell<'a>> {
    let (path, actor) = (code.path?, code.actor?);
    let name = describe::base_name(&path.bytes);
    let is_loaded = code.how == How::Mapped;
    if is_loaded && path == actor.exe {
        return None;
    }
    // If the file was loaded, `argv[0]` is that of the loader.
    let first = if is_loaded { operand(code.args()) } else { 0 };
    let known = |name, arguments| {
        let arguments = first + arguments;
        Some(Shell { name, actor, path, arguments, is_disguised: false, unverified: None })
    };
    if code.how == How::Interpreted {
        let script = code.args().position(|arg| describe::base_name(arg) == name);
        return is_one_of(name, SCRIPTS).then(|| known(name, script.map_or(1, |at| at + 1)))?;
    }
    if is_one_of(name, SHELLS) {
        return known(name, 1);
    }
    if let Some(Ok(Content::Shell(name))) = look {
        return known(name.as_bytes(), 1).map(|shell| Shell { is_disguised: true, ..shell });
    }
    let is_box = is_one_of(name, BOXES) || look == Some(Ok(Content::Box));
    // The arguments of a loader show nothing: it decides which file it maps.
    let unverified = unread(&actor, look).filter(|_| !is_box && !is_loaded);
    if !is_box && unverified.is_none() {
        return None;
    }
    let mut args = code.args().skip(first);
    let called = args.next().map(asked_for)?;
    let shell = if is_one_of(called, SHELLS) {
        known(called, 1)
    } else {
        let applet = BOXES.iter().any(|name| called.starts_with(name));
        let called = applet.then(|| args.next()).flatten().map(asked_for)?;
        if is_one_of(called, SHELLS) { known(called, 2) } else { None }
    };
    shell.map(|shell| Shell { is_disguised: unverified.is_some(), unverified, ..shell })
}

/// Why the content of the file is not known, and will not be.
fn unread(actor: &Actor, look: Option<Look>) -> Option<Unread> {
    match look {
        Some(look) => look.err(),
        None => (actor.process.origin == Origin::Outside).then_some(Unread::OnHost),
    }
}

/// Whether the process runs the dynamic loader as a program.
fn is_loader(actor: &Actor) -> bool {
    let name = describe::base_name(&actor.exe.bytes);
    [&b"ld-"[..], b"ld.so", b"ld64.so"].iter().any(|start| name.starts_with(start))
}

/// The position of the dynamic loader's argument that names the program to run.
fn operand<'a>(args: impl Iterator<Item = &'a [u8]>) -> usize {
    let mut is_value = false;
    let is_option = |arg: &&[u8]| {
        let is_option = is_value || arg.starts_with(b"-");
        is_value = !is_value && LOADER_OPTIONS.contains(arg);
        is_option
    };
    1 + args.skip(1).take_while(is_option).count()
}

/// The program that an `argv[0]` asks for: without directories, and without the `-` of a login shell.
pub(super) fn asked_for(argument: &[u8]) -> &[u8] {
    let name = describe::base_name(argument);
    name.strip_prefix(b"-").unwrap_or(name)
}

/// Whether the name is in the list, apart from a version and from what distributions append.
pub(super) fn is_one_of(name: &[u8], list: &[&'static [u8]]) -> bool {
    find(name, list).is_some()
}

/// The name in the list that this name is, apart from a version and from what distributions append.
fn find(name: &[u8], list: &[&'static [u8]]) -> Option<&'static [u8]> {
    let name = SUFFIXES.iter().find_map(|suffix| name.strip_suffix(*suffix)).unwrap_or(name);
    let is_version = |byte: &u8| matches!(byte, b'0'..=b'9' | b'.' | b'-' | b'_' | b'+');
    list.iter().copied().find(|known| name.strip_prefix(*known).is_some_and(|rest| rest.iter().all(is_version)))
}

/// Whether the shell reads its commands from standard input, because neither `-c` nor a script tells it what to do.
fn commands_from_stdin<'a>(args: impl Iterator<Item = &'a [u8]>) -> bool {
    const WITH_VALUE: &[&[u8]] = &[b"-o", b"+o", b"-O", b"+O", b"--rcfile", b"--init-file"];
    let mut args = args.peekable();
    while let Some(arg) = args.next() {
        match arg {
            b"-" | b"--" => return args.peek().is_none_or(|operand| is_stdin(operand)),
            _ if WITH_VALUE.contains(&arg) => drop(args.next()),
            [b'-', b'-', ..] | [b'+', ..] => {}
            [b'-', flags @ ..] if flags.contains(&b'c') => return false,
            [b'-', flags @ ..] if flags.contains(&b's') => return true,
            [b'-', ..] => {}
            operand => return is_stdin(operand),
        }
    }
    true
}

fn is_stdin(operand: &[u8]) -> bool {
    matches!(operand, b"/dev/stdin" | b"/dev/fd/0" | b"/proc/self/fd/0")
}

pub(super) fn has_terminal(process: &Process) -> bool {
    process.tty.is_some() || process.stdio[0] == StdioKind::Tty
}

fn message(shell: &Shell, how: How, script: Option<&Script>, is_remote: bool, container: &TrackedContainer) -> String {
    let process = shell.actor.process;
    let mut circumstances = describe::origin(process.origin).to_owned();
    match &process.tty {
        Some(tty) => circumstances += &format!(", tty {}", describe::text(tty.as_bytes())),
        None if has_terminal(process) => circumstances += ", with a terminal",
        None => {}
    }
    match (is_remote, process.peer) {
        (true, Some(peer)) => circumstances += &format!(", takes commands from {peer}"),
        (true, None) => circumstances += ", takes commands from a socket",
        (false, _) => {}
    }
    if how == How::Mapped {
        circumstances += &format!(", loaded by {}", shell.actor.name());
    } else if let Some(path) = describe::path(shell.path).filter(|_| shell.is_disguised) {
        circumstances += &format!(", as {path}");
    }
    if let Some(unread) = shell.unverified {
        circumstances += &format!(", unverified: {}", unread.reason());
    }
    if let Some(script) = script {
        circumstances += &format!(", for script {}", describe::text(&script.path.bytes));
    }
    let (name, container) = (describe::text(shell.name), describe::container_name(container));
    let place = if process.origin == Origin::Outside { "on the host by" } else { "in" };
    format!("{name} started {place} {container} ({circumstances})")
}

#[cfg(test)]
mod tests {
    use super::super::samples::*;
    use super::super::{Detector, needs_content};
    use super::*;
    use crate::event::Event;
    use crate::finding::{Finding, Kind, Severity};

    fn shell(exe: &str, args: &[&str]) -> Option<Finding> {
        found(Event::Exec(Box::new(exec(Origin::Application, exe, args))))
    }

    #[test]
    fn shells() {
        for (exe, args) in [
            ("/bin/sh", &["sh"] as &[&str]),
            ("/usr/bin/bash", &["nginx: worker process"]),
            ("/opt/bash-5.2", &["x"]),
            ("/bin/ksh93", &["ksh"]),
            ("/bin/zsh-5.9", &[]),
            ("/bin/bash-static", &["x"]),
            ("/bin/busybox", &["sh", "-c", "id"]),
            ("/bin/busybox", &["-ash"]),
            ("/bin/busybox", &["/bin/busybox", "sh"]),
            ("/bin/busybox-extras", &["busybox-extras", "/bin/ash"]),
            ("/usr/bin/toybox", &["toybox", "sh"]),
            ("/usr/bin/toybox", &["/bin/sh"]),
            ("/usr/bin/oils-for-unix", &["osh", "-c", "id"]),
            ("/usr/bin/oils-for-unix", &["oils-for-unix", "ysh"]),
            ("/usr/bin/nu", &["x"]),
            ("/usr/lib/plan9/bin/rc", &["x"]),
        ] {
            assert!(shell(exe, args).is_some(), "{exe} {args:?}");
        }
    }

    #[test]
    fn no_shells() {
        for (exe, args) in [
            ("/bin/busybox", &["ls", "sh"] as &[&str]),
            ("/bin/busybox", &["busybox", "ls", "sh"]),
            ("/bin/busybox", &["busybox"]),
            ("/bin/busybox", &[]),
            ("/bin/ls", &["ls", "/bin/sh"]),
            // Whether this is a hard link to BusyBox, or a renamed copy of a shell, only its content can show.
            ("/bin/ls", &["/bin/sh"]),
            ("/tmp/x", &["-bash"]),
            ("/usr/bin/ssh", &["ssh"]),
            ("/usr/sbin/sshd", &["sshd"]),
            ("/usr/bin/shred", &["shred"]),
            ("/usr/bin/bashtop", &["bashtop"]),
            ("/usr/bin/fisherman", &["fish-like"]),
            ("/", &[]),
            ("memfd:/bin/bash", &["x"]),
            ("", &[""]),
        ] {
            assert_eq!(shell(exe, args), None, "{exe} {args:?}");
        }
    }

    #[test]
    fn a_script_can_be_a_shell() {
        let run = |file: &str, stdin| {
            let mut exec = exec(Origin::Application, "/usr/bin/python3.12", &["python3", "-I", file]);
            exec.process.stdio[0] = stdin;
            exec.is_interpreter = true;
            let events = [Event::Script(Box::new(script(file))), Event::Exec(Box::new(exec))];
            let [found] = <[Finding; 1]>::try_from(all_found(&events)).ok()?;
            Some((found.severity, found.message, found.file?.path?.to_string()))
        };
        let message = |more| format!("xonsh started in container 3f2a0c6d9e1b (by the application{more})");
        let file = "/usr/bin/xonsh".to_owned();
        let found = run(&file, StdioKind::Null);
        assert_eq!(found, Some((Severity::Medium, message(""), file.clone())));
        let found = run(&file, StdioKind::Socket);
        assert_eq!(found, Some((Severity::Critical, message(", takes commands from a socket"), file)));
        assert_eq!(run("/usr/bin/bash", StdioKind::Null), None, "an interpreter in its place is not that shell");
    }

    #[test]
    fn content_tells_where_names_do_not() {
        let message = |exe: &str, list: &[&str], content| {
            let event = Event::Exec(Box::new(exec(Origin::Application, exe, list)));
            let (mut detector, context, container) = (Detector::default(), context(), container());
            let mut message = None;
            let found = |finding: Finding| message = Some(finding.message);
            assert!(needs_content(&event));
            detector.detect_by_content(&event, content, &container, &context, found);
            message.map(|message| message.replace(" in container 3f2a0c6d9e1b (by the application", ""))
        };
        let bash = Ok(Content::Shell("bash"));
        assert_eq!(message("/tmp/x", &["x"], bash), Some("bash started, as /tmp/x)".into()));
        assert_eq!(message("/tmp/x", &[], bash), Some("bash started, as /tmp/x)".into()));
        assert_eq!(message("/tmp/busybox", &["busybox", "ls"], bash), Some("bash started, as /tmp/busybox)".into()));
        assert_eq!(message("/tmp/x", &["busybox", "sh"], Ok(Content::Box)), Some("sh started)".into()));
        assert_eq!(message("/tmp/x", &["busybox", "ls"], Ok(Content::Box)), None);
        assert_eq!(message("/tmp/x", &["x", "sh"], Ok(Content::Box)), None);
        assert_eq!(message("/tmp/x", &["x"], Ok(Content::Other)), None);
        // The process can choose what it is called, so that counts only where nothing else is known.
        assert_eq!(message("/tmp/x", &["/bin/sh"], Ok(Content::Box)), Some("sh started)".into()));
        assert_eq!(message("/tmp/x", &["/bin/sh"], Ok(Content::Other)), None);
        let unverified = "sh started, as /tmp/x, unverified: its file was gone)";
        assert_eq!(message("/tmp/x", &["/bin/sh"], Err(Unread::Gone)), Some(unverified.into()));
        assert_eq!(message("/tmp/x", &["busybox", "sh"], Err(Unread::Gone)), Some(unverified.into()));
        assert_eq!(message("/tmp/x", &["x", "sh"], Err(Unread::Gone)), None);
    }

    #[test]
    fn shells_are_loaded_by_the_dynamic_loader_too() {
        const LOADER: &str = "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2";
        let loaded = |list: &[&str], file: &str, stdin| {
            let mut started = exec(Origin::Application, LOADER, list);
            let mut mapped = mapped(LOADER, file);
            started.process.stdio[0] = stdin;
            mapped.detail.as_mut().expect("the sample has it").process.stdio[0] = stdin;
            let events = [Event::Exec(Box::new(started)), Event::MapExec(Box::new(mapped))];
            let message = |finding: &Finding| {
                let message = finding.message.replace(" in container 3f2a0c6d9e1b (by the application", "");
                (finding.severity, message.replace(", loaded by ld-linux-x86-64.so.2, called ld.so)", ""))
            };
            all_found(&events).iter().map(message).collect::<Vec<_>>()
        };
        use Severity::*;
        let (null, socket) = (StdioKind::Null, StdioKind::Socket);
        let dash = |severity, more: &str| vec![(severity, format!("dash started{more}"))];
        assert_eq!(loaded(&["ld.so", "/bin/sh", "-c", "id"], "/usr/bin/dash", socket), dash(Medium, ""));
        let options = ["ld.so", "--preload", "-c", "--inhibit-cache", "/bin/sh"];
        assert_eq!(loaded(&options, "/usr/bin/dash", socket), dash(Critical, ", takes commands from a socket"));
        assert_eq!(loaded(&["ld.so", "/bin/sh"], "/usr/lib/libc.so.6", null), []);
        assert_eq!(loaded(&["ld.so", "/bin/sh"], LOADER, null), []);

        let event = Event::MapExec(Box::new(mapped(LOADER, "/tmp/x")));
        let unread = |finding| panic!("the loader chose what the file is called: {finding:?}");
        Detector::default().detect_by_content(&event, Err(Unread::Gone), &container(), &context(), unread);

        let content = |exe: &str, file: &str| needs_content(&Event::MapExec(Box::new(mapped(exe, file))));
        assert!(content(LOADER, "/tmp/x"));
        assert!(!content(LOADER, "/bin/dash"));
        assert!(!content("/usr/sbin/nginx", "/tmp/x"));
    }

    #[test]
    fn the_name_of_the_task_does_not_count() {
        let mut exec = exec(Origin::Application, "/usr/bin/app", &["app"]);
        exec.process.comm = name("bash");
        assert_eq!(found(Event::Exec(Box::new(exec))), None);
    }

    #[test]
    fn severity_and_message() {
        let verdict = |origin, tty: Option<&str>, stdin, args: &[&str]| {
            let mut exec = exec(origin, "/bin/busybox", args);
            exec.process.tty = tty.map(name);
            exec.process.stdio[0] = stdin;
            let finding = found(Event::Exec(Box::new(exec))).expect("it is a shell");
            let in_container = " in container 3f2a0c6d9e1b ";
            assert!(finding.message.contains(in_container), "{}", finding.message);
            (finding.severity, finding.message.replace(in_container, " "), finding.mitre.len())
        };
        use Severity::*;
        let (null, socket) = (StdioKind::Null, StdioKind::Socket);
        for (found, (severity, message, techniques)) in [
            (verdict(Origin::Entered, None, null, &["sh"]), (Medium, "sh started (entered from outside)", 2)),
            (
                verdict(Origin::Entered, Some("pts0"), StdioKind::Tty, &["sh"]),
                (High, "sh started (entered from outside, tty pts0)", 2),
            ),
            (verdict(Origin::Application, None, null, &["sh"]), (Medium, "sh started (by the application)", 1)),
            (
                verdict(Origin::Application, None, StdioKind::Tty, &["sh"]),
                (High, "sh started (by the application, with a terminal)", 1),
            ),
            (
                verdict(Origin::Entrypoint, Some("pts0"), null, &["sh"]),
                (Info, "sh started (its entrypoint, tty pts0)", 1),
            ),
            (verdict(Origin::Unknown, None, null, &["sh"]), (Medium, "sh started (of unknown origin)", 1)),
            (
                verdict(Origin::Application, None, socket, &["busybox", "sh", "-i"]),
                (Critical, "sh started (by the application, takes commands from a socket)", 1),
            ),
            (
                verdict(Origin::Application, None, socket, &["sh", "-c", "id"]),
                (Medium, "sh started (by the application)", 1),
            ),
        ] {
            assert_eq!(found, (severity, message.to_owned(), techniques));
        }
    }

    /// Nothing else that is executed there causes a finding or is inspected.
    #[test]
    fn a_shell_on_the_host_is_an_escape() {
        let deleted = |exe, args| {
            let mut exec = exec(Origin::Outside, exe, args);
            exec.file.nlink = 0;
            Event::Exec(Box::new(exec))
        };
        let [found] = &all_found(&[deleted("/bin/bash", &["bash"])])[..] else { panic!("not one finding") };
        assert_eq!((found.finding, found.severity), (Kind::ShellInContainer, Severity::Critical));
        assert!(
            found.message.starts_with("bash started on the host by container 3f2a0c6d9e1b (with the host's mounts")
        );
        assert_eq!(found.mitre, ["T1059.004", "T1611"]);
        // Files of the host are not read.
        let [found] = &all_found(&[deleted("/tmp/x", &["bash"])])[..] else { panic!("not one finding") };
        assert_eq!(found.file.as_ref().and_then(|file| file.unverified), Some(Unread::OnHost));
        let runtime = deleted("/", &["runc", "init"]);
        assert!(!needs_content(&runtime));
        assert_eq!(all_found(&[runtime]), []);
    }

    #[test]
    fn where_commands_come_from() {
        let stdin = |list: &[&str]| commands_from_stdin(list.iter().map(|arg| arg.as_bytes()));
        for list in [
            &[] as &[&str],
            &["-i"],
            &["-il"],
            &["-s", "argument"],
            &["-o", "emacs"],
            &["--norc", "-i"],
            &["--rcfile", "x"],
            &["--"],
            &["-"],
            &["/dev/stdin"],
            &["-", "/dev/fd/0"],
        ] {
            assert!(stdin(list), "{list:?}");
        }
        for list in
            [&["-c", "id"] as &[&str], &["-ic", "id"], &["-e", "-c", "id"], &["x.sh"], &["-x", "x.sh"], &["--", "x"]]
        {
            assert!(!stdin(list), "{list:?}");
        }
    }
}
