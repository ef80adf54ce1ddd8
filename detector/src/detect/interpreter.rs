//! Interpreters, and which of the files that they read they run.
//!
//! A file that an interpreter reads is code if the arguments of the interpreter name it as the script, or if its name
//! ends like that of code in the language of the interpreter, as those of imported modules do. Anything else is data,
//! as is every file that another program reads. Which program it is, the name of its file shows, or else its
//! [content](super::content): the image decides the name, because a file that was renamed since is reported itself.

use detector_common::code::{Language, language};

use super::content::Content;
use super::describe::{self, Actor};
use super::shell::{self, BOXES, SHELLS};
use crate::event::{Args, Interpret, Origin, Path};
use crate::recent::Recent;

/// How a kind of interpreter is called.
struct Interpreter {
    /// The names of its files, without versions.
    names: &'static [&'static [u8]],
    language: Language,
    /// The letters of options whose value is code, so that no argument is a script.
    inline: &'static [u8],
    /// The letters of options whose value is a script.
    script: &'static [u8],
    /// The letters of other options with a value.
    value: &'static [u8],
    /// The letters of options that make it read its commands from the standard input, whatever its arguments are.
    input: &'static [u8],
    /// Options of several letters, with what their value is.
    long: &'static [(&'static [u8], Value)],
    /// Whether the first argument that is no option is a script. Otherwise it is code, or the name of a class.
    takes_script: bool,
    /// Whether it reads its commands from the standard input if no argument has any.
    takes_input: bool,
}

/// What the value of an option is.
#[derive(Clone, Copy)]
enum Value {
    /// Code.
    Inline,
    /// A script.
    Script,
    /// Scripts, archives and directories, separated by colons.
    Scripts,
    /// Anything else.
    Other,
}

const ORDINARY: Interpreter = Interpreter {
    names: &[],
    language: Language::Shell,
    inline: b"",
    script: b"",
    value: b"",
    input: b"",
    long: &[],
    takes_script: true,
    takes_input: true,
};

const INTERPRETERS: &[Interpreter] = &[
    Interpreter {
        names: SHELLS,
        inline: b"c",
        value: b"oO",
        input: b"s",
        long: &[(b"--rcfile", Value::Other), (b"--init-file", Value::Other)],
        ..ORDINARY
    },
    Interpreter { names: &[b"python", b"pypy"], language: Language::Python, inline: b"cm", value: b"WXQ", ..ORDINARY },
    Interpreter { names: &[b"perl"], language: Language::Perl, inline: b"eE", value: b"IMmF", ..ORDINARY },
    Interpreter { names: &[b"ruby", b"jruby"], language: Language::Ruby, inline: b"e", value: b"IrCE", ..ORDINARY },
    Interpreter {
        names: &[b"php", b"php-cgi", b"php-fpm"],
        language: Language::Php,
        inline: b"rBRE",
        script: b"f",
        value: b"cdzF",
        ..ORDINARY
    },
    // A web server with PHP in it.
    Interpreter {
        names: &[b"apache2", b"httpd"],
        language: Language::Php,
        takes_script: false,
        takes_input: false,
        ..ORDINARY
    },
    Interpreter { names: &[b"lua", b"luajit"], language: Language::Lua, value: b"el", ..ORDINARY },
    Interpreter {
        names: &[b"node", b"nodejs", b"bun", b"deno"],
        language: Language::JavaScript,
        inline: b"ep",
        script: b"r",
        value: b"C",
        long: &[
            (b"--eval", Value::Inline),
            (b"--print", Value::Inline),
            (b"--require", Value::Script),
            (b"--import", Value::Script),
            (b"--loader", Value::Script),
        ],
        ..ORDINARY
    },
    Interpreter {
        names: &[b"java"],
        language: Language::Java,
        long: &[
            (b"-jar", Value::Script),
            (b"-cp", Value::Scripts),
            (b"-classpath", Value::Scripts),
            (b"--class-path", Value::Scripts),
            (b"-p", Value::Other),
            (b"--module-path", Value::Other),
            (b"-m", Value::Inline),
            (b"--module", Value::Inline),
        ],
        takes_input: false,
        ..ORDINARY
    },
    Interpreter {
        names: &[b"awk", b"gawk", b"mawk", b"nawk", b"original-awk"],
        language: Language::Awk,
        script: b"fE",
        value: b"vF",
        long: &[(b"--file", Value::Script)],
        takes_script: false,
        takes_input: false,
        ..ORDINARY
    },
    Interpreter {
        names: &[b"tclsh", b"expect", b"wish"],
        language: Language::Tcl,
        inline: b"c",
        script: b"f",
        ..ORDINARY
    },
];

/// Whether the name of a program's file is that of an interpreter, or of a file with many programs.
pub(super) fn is_known(exe: &Path) -> bool {
    let name = describe::base_name(&exe.bytes);
    by_name(name).is_some() || shell::is_one_of(name, BOXES)
}

/// What a file is for the interpreter that runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The arguments of the interpreter name it.
    Script,
    /// It is named like code.
    Module,
}

/// What a file is for the process that has opened it for reading, or `None` if it is data. `content` is what the
/// process's program is, if it was inspected.
pub(super) fn role(actor: &Actor, read: &Interpret, content: Option<Content>) -> Option<Role> {
    let args: Vec<&[u8]> = actor.args().into_iter().flat_map(|args| args.iter()).collect();
    let (interpreter, own) = identify(actor.exe, &args, content)?;
    let name = describe::base_name(&read.detail.path.bytes);
    // The number of a descriptor names a file that has no other name.
    let is_script =
        |script: &&[u8]| describe::base_name(script) == name || read.file.nlink == 0 && is_descriptor(script);
    if interpreter.scripts(own).0.iter().any(is_script) {
        return Some(Role::Script);
    }
    (language(end(name)) == Some(interpreter.language)).then_some(Role::Module)
}

/// The versions of modules that were reported. A program can read hundreds each time that it runs, and its arguments
/// make no difference.
#[derive(Debug)]
pub(super) struct Modules(Recent<Version, ()>);

/// The container, how the process came there, the device and inode of the file, and when it was changed.
type Version = (u64, Origin, u32, u64, u64);

/// How many versions are remembered.
const MOST: usize = 16_384;

impl Default for Modules {
    fn default() -> Self {
        Self(Recent::new(MOST))
    }
}

impl Modules {
    /// Remembers the file that a process reads. Returns whether this version was not remembered before.
    pub(super) fn remember(&mut self, read: &Interpret) -> bool {
        let (file, origin) = (&read.file, read.detail.process.origin);
        let version = (read.at.container, origin, file.dev, file.inode, file.change_time);
        let is_new = self.0.get(&version).is_none();
        if is_new {
            self.0.insert(version, ());
        }
        is_new
    }
}

/// Whether a program is an interpreter that reads its commands from the standard input. `content` is what the program
/// is, if it was inspected.
pub(super) fn reads_commands(exe: &Path, args: &Args, content: Option<Content>) -> bool {
    let args: Vec<&[u8]> = args.iter().collect();
    identify(exe, &args, content).is_some_and(|(interpreter, own)| interpreter.scripts(own).1)
}

/// Whether a program is a shell, as its name shows.
pub(super) fn is_shell(exe: &Path, args: &Args) -> bool {
    let args: Vec<&[u8]> = args.iter().collect();
    identify(exe, &args, None).is_some_and(|(interpreter, _)| interpreter.language == Language::Shell)
}

/// The module that Python was started to run as a program.
pub(super) fn module<'a>(exe: &Path, args: &'a Args) -> Option<&'a [u8]> {
    let args: Vec<&[u8]> = args.iter().collect();
    let (python, own) = identify(exe, &args, None).filter(|(found, _)| found.language == Language::Python)?;
    let mut own = own.iter().copied();
    let has_value = |letter: &&u8| python.inline.contains(letter) || python.value.contains(letter);
    while let Some([b'-', flags @ ..]) = own.next() {
        let value = python.value_of(flags, &mut own).map(|(value, _)| value);
        match flags.iter().find(has_value) {
            Some(b'm') => return value,
            Some(b'c') => return None,
            _ => {}
        }
    }
    None
}

/// The interpreter that a program is, and its own arguments.
fn identify<'a, 'b>(
    exe: &Path,
    args: &'b [&'a [u8]],
    content: Option<Content>,
) -> Option<(&'static Interpreter, &'b [&'a [u8]])> {
    let name = describe::base_name(&exe.bytes);
    let own = args.get(1..).unwrap_or_default();
    if shell::is_one_of(name, BOXES) || content == Some(Content::Box) {
        let called = shell::asked_for(args.first()?);
        if !shell::is_one_of(called, BOXES) {
            return Some((by_name(called)?, own));
        }
        let (applet, own) = own.split_first()?;
        return Some((by_name(shell::asked_for(applet))?, own));
    }
    let of = |language| INTERPRETERS.iter().find(|interpreter| interpreter.language == language);
    let interpreter = by_name(name).or_else(|| match content? {
        Content::Interpreter(language) => of(language),
        Content::Shell(_) => of(Language::Shell),
        Content::Box | Content::Other => None,
    })?;
    Some((interpreter, own))
}

fn by_name(name: &[u8]) -> Option<&'static Interpreter> {
    INTERPRETERS.iter().find(|interpreter| shell::is_one_of(name, interpreter.names))
}

/// Whether a file with this name is code of any language that interpreters run.
pub(super) fn is_named_like_code(name: &[u8]) -> bool {
    language(end(name)).is_some()
}

/// The last eight bytes of a name, as the probes see them.
fn end(name: &[u8]) -> u64 {
    let mut end = [0; 8];
    end.iter_mut().rev().zip(name.iter().rev()).for_each(|(to, from)| *to = *from);
    u64::from_le_bytes(end)
}

/// Whether an argument stands for the standard input.
fn is_input(argument: &[u8]) -> bool {
    matches!(argument, b"-" | b"/dev/stdin" | b"/dev/fd/0" | b"/proc/self/fd/0")
}

fn is_descriptor(argument: &[u8]) -> bool {
    argument.starts_with(b"/dev/fd/") || argument.starts_with(b"/proc/self/fd/")
}

impl Interpreter {
    /// The arguments that are scripts, and whether commands come from the standard input.
    fn scripts<'a>(&self, args: &[&'a [u8]]) -> (Vec<&'a [u8]>, bool) {
        let mut scripts = Vec::new();
        let mut args = args.iter().copied();
        while let Some(arg) = args.next() {
            let value = match arg {
                _ if is_input(arg) => break,
                b"--" => {
                    scripts.extend(args.next().filter(|_| self.takes_script));
                    break;
                }
                _ if let Some(value) = self.long_value(arg, &mut args) => Some(value),
                [b'-', b'-', ..] | [b'+', ..] => None,
                [b'-', flags @ ..] if flags.iter().any(|letter| self.input.contains(letter)) => break,
                [b'-', flags @ ..] => self.value_of(flags, &mut args),
                operand => {
                    scripts.extend(Some(operand).filter(|_| self.takes_script));
                    return (scripts, false);
                }
            };
            match value {
                Some((_, Value::Inline)) => return (scripts, false),
                Some((script, Value::Script)) if is_input(script) => return (scripts, true),
                Some((script, Value::Script)) => scripts.push(script),
                Some((list, Value::Scripts)) => scripts.extend(list.split(|&byte| byte == b':')),
                Some((_, Value::Other)) | None => {}
            }
        }
        let reads_input = self.takes_input && scripts.is_empty();
        (scripts, reads_input)
    }

    /// The value of an option of several letters: what follows `=`, or else the next argument.
    fn long_value<'a>(&self, arg: &'a [u8], args: &mut impl Iterator<Item = &'a [u8]>) -> Option<(&'a [u8], Value)> {
        self.long.iter().find_map(|(long, kind)| match arg.strip_prefix(*long)? {
            [] => Some((args.next()?, *kind)),
            [b'=', value @ ..] => Some((value, *kind)),
            _ => None,
        })
    }

    /// The value of the first option among these letters that has one: what follows the letter, or else the next
    /// argument.
    fn value_of<'a>(&self, flags: &'a [u8], args: &mut impl Iterator<Item = &'a [u8]>) -> Option<(&'a [u8], Value)> {
        let kinds = [(self.inline, Value::Inline), (self.script, Value::Script), (self.value, Value::Other)];
        let kind = |letter| kinds.iter().find(|(letters, _)| letters.contains(letter)).map(|(_, value)| *value);
        let (at, value) = flags.iter().enumerate().find_map(|(at, letter)| Some((at, kind(letter)?)))?;
        match &flags[at + 1..] {
            [] => args.next().map(|next| (next, value)),
            rest => Some((rest, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::*;
    use super::super::{Detector, needs_content};
    use super::*;
    use crate::event::{Event, Layer};
    use crate::finding::{Finding, Kind};

    /// The finding about a program that was executed with these arguments and reads the file. `content` is what the
    /// program is.
    fn read_by(exe: &str, args: &[&str], file: &str, content: Option<Content>) -> Option<Finding> {
        let (mut detector, context, container) = (Detector::default(), context(), container());
        detector.detect(&Event::Exec(Box::new(exec(Origin::Application, exe, args))), &container, &context, |_| {});
        let mut read = read(exe, file);
        read.file.nlink = u32::from(!file.starts_with("memfd:"));
        let event = Event::Interpret(Box::new(read));
        let mut found = Vec::new();
        match content {
            Some(content) => {
                detector.detect_by_content(&event, Ok(content), &container, &context, |finding| found.push(finding));
            }
            None => detector.detect(&event, &container, &context, |finding| found.push(finding)),
        }
        assert!(found.len() <= 1);
        found.pop()
    }

    #[test]
    fn modules_of_python() {
        for (exe, list, expected) in [
            ("/usr/bin/python3.11", &["python3", "-m", "pip", "install", "x"][..], Some("pip")),
            ("/usr/bin/python3", &["python3", "-I", "-W", "ignore", "-Im", "pip"], Some("pip")),
            ("/usr/bin/python3", &["python3", "-mpip"], Some("pip")),
            ("/usr/bin/python3", &["python3", "-Wm", "-m", "venv"], Some("venv")),
            ("/usr/bin/python3", &["python3", "-c", "x", "-m", "pip"], None),
            ("/usr/bin/python3", &["python3", "x.py", "-m", "pip"], None),
            ("/usr/bin/python3", &["python3", "-", "-m"], None),
            ("/usr/bin/perl", &["perl", "-m", "pip"], None),
            ("/usr/bin/x", &["python3", "-m", "pip"], None),
        ] {
            let args = args(list);
            assert_eq!(module(&path(exe), &args), expected.map(str::as_bytes), "{list:?}");
        }
    }

    #[test]
    fn scripts_and_modules_are_code() {
        for (exe, args, file) in [
            ("/usr/bin/python3.12", &["python3", "-u", "-W", "ignore", "/tmp/x"] as &[&str], "/tmp/x"),
            ("/usr/bin/python3.12", &["python3", "-Xdev", "x", "y"], "/tmp/x"),
            ("/usr/bin/python3.12", &["python3", "app.py"], "/tmp/module.py"),
            ("/usr/bin/python3.12", &["python3", "-m", "module"], "/app/module.pyc"),
            ("/usr/bin/python3.12", &["python3", "/proc/self/fd/3"], "memfd:x"),
            ("/usr/bin/perl", &["perl", "-w", "-I", "lib", "./x"], "/tmp/x"),
            ("/usr/local/bin/node", &["node", "--max-old-space-size=9", "x"], "/tmp/x"),
            ("/usr/local/bin/node", &["node", "--require", "x", "app"], "/tmp/x"),
            ("/usr/local/bin/node", &["node", "--import=./x", "app"], "/tmp/x"),
            ("/usr/local/bin/node", &["node", "-r", "./x", "app"], "/tmp/x"),
            ("/usr/bin/php8.2", &["php", "-f", "x"], "/tmp/x"),
            ("/usr/sbin/apache2", &["apache2", "-k", "start"], "/var/www/html/upload.php"),
            ("/usr/bin/java", &["java", "-cp", "a:b", "-jar", "x"], "/tmp/x"),
            ("/usr/bin/java", &["java", "-cp", "a:/tmp/x", "Main"], "/tmp/x"),
            ("/usr/bin/mawk", &["awk", "-F:", "-fx", "/etc/passwd"], "/tmp/x"),
            ("/bin/dash", &["sh", "-e", "x", "y"], "/tmp/x"),
            ("/bin/busybox", &["/bin/sh", "x"], "/tmp/x"),
            ("/bin/busybox", &["busybox", "awk", "-f", "x"], "/tmp/x"),
            ("/bin/busybox", &["busybox", "sh", "--", "x"], "/tmp/x"),
        ] {
            let found = read_by(exe, args, file, None).unwrap_or_else(|| panic!("{args:?} {file}"));
            let is_deleted = file.starts_with("memfd:");
            assert_eq!(found.finding, if is_deleted { Kind::FilelessExec } else { Kind::DriftedExec });
        }
        let message = "/tmp/x.py, which is not as in the image, run in container 3f2a0c6d9e1b by python3.12 (by the \
                       application)";
        let found = read_by("/usr/bin/python3.12", &[], "/tmp/x.py", None);
        assert_eq!(found.map(|found| found.message), Some(message.to_owned()));
    }

    #[test]
    fn anything_else_is_data() {
        for (exe, args, file) in [
            ("/usr/bin/python3.12", &["python3", "app.py", "x"] as &[&str], "/tmp/x"),
            ("/usr/bin/python3.12", &["python3", "-c", "code", "x"], "/tmp/x"),
            ("/usr/bin/python3.12", &["python3", "app.py"], "/srv/static/page.js"),
            ("/usr/bin/python3.12", &["python3", "app.py"], "/srv/template.html"),
            ("/usr/bin/perl", &["perl", "-ne", "print", "x"], "/tmp/x"),
            ("/usr/bin/mawk", &["awk", "{ print }", "x"], "/tmp/x"),
            ("/bin/dash", &["sh", "-c", "cat x"], "/tmp/x"),
            ("/bin/busybox", &["cat", "x.sh"], "/tmp/x.sh"),
            ("/bin/busybox", &["busybox", "cat", "x"], "/tmp/x"),
            ("/usr/sbin/nginx", &["nginx", "-c", "x"], "/tmp/x"),
            ("/usr/sbin/apache2", &["apache2", "-f", "x"], "/tmp/x"),
            ("/usr/sbin/apache2", &["apache2", "-k", "start"], "/var/www/html/page.html"),
            ("/usr/bin/python3.12", &["python3", "/proc/self/fd/3"], "/lib/libssl.so.3"),
        ] {
            assert_eq!(read_by(exe, args, file, None), None, "{args:?} {file}");
        }
    }

    #[test]
    fn a_module_is_reported_once_with_each_version() {
        let run = |pid, origin, args: &[&str]| {
            let mut exec = exec(origin, "/usr/bin/python3.12", args);
            exec.process.pid = pid;
            Event::Exec(Box::new(exec))
        };
        let reads = |pid, origin, file: &str, change_time| {
            let mut read = read("/usr/bin/python3.12", file);
            (read.detail.process.pid, read.detail.process.origin) = (pid, origin);
            read.file.change_time = change_time;
            Event::Interpret(Box::new(read))
        };
        let (application, entered) = (Origin::Application, Origin::Entered);
        let found = |then: [Event; 2]| {
            let first = [run(1, application, &["python3", "x"]), reads(1, application, "/srv/m.pyc", 5)];
            all_found(&[first, then].concat()).iter().filter(|found| found.finding == Kind::DriftedExec).count()
        };
        assert_eq!(found([run(2, application, &["python3", "y"]), reads(2, application, "/srv/m.pyc", 5)]), 1);
        assert_eq!(found([run(2, application, &["python3", "y"]), reads(2, application, "/srv/m.pyc", 6)]), 2);
        assert_eq!(found([run(2, entered, &["python3", "y"]), reads(2, entered, "/srv/m.pyc", 5)]), 2);
        let script = "/srv/m.pyc";
        assert_eq!(found([run(2, application, &["python3", script]), reads(2, application, script, 5)]), 2);
    }

    #[test]
    fn another_program_is_an_interpreter_if_its_content_shows_it() {
        let found = |content| read_by("/opt/runtime", &["runtime", "x"], "/tmp/x", Some(content)).is_some();
        assert!(found(Content::Interpreter(Language::Python)) && found(Content::Shell("bash")));
        assert!(!found(Content::Other) && !found(Content::Box));
        let needs = |exe| needs_content(&Event::Interpret(Box::new(read(exe, "/tmp/x"))));
        assert!(needs("/opt/runtime") && !needs("/usr/bin/python3") && !needs("/bin/busybox"));
    }

    #[test]
    fn a_script_that_was_executed_is_reported_once() {
        let mut script = script("/srv/run.py");
        script.file.layer = Some(Layer::Upper);
        let mut read = read("/usr/bin/python3.12", "/srv/run.py");
        (read.file.dev, read.file.inode) = (script.file.dev, script.file.inode);
        let exec = exec(Origin::Application, "/usr/bin/python3.12", &["/usr/bin/python3", "/srv/run.py"]);
        let events =
            [Event::Script(Box::new(script)), Event::Exec(Box::new(exec)), Event::Interpret(Box::new(read.clone()))];
        assert_eq!(all_found(&events).len(), 1);
        read.file.inode += 1;
        assert_eq!(all_found(&[&events[..], &[Event::Interpret(Box::new(read))]].concat()).len(), 2);
    }

    #[test]
    fn standard_input_is_a_script_if_commands_come_from_it() {
        let found = |exe: &str, args: &[&str]| {
            let mut input = script("/tmp/commands");
            (input.is_input, input.file.layer) = (true, Some(Layer::Upper));
            let exec = Event::Exec(Box::new(exec(Origin::Application, exe, args)));
            let found = all_found(&[Event::Script(Box::new(input)), exec]);
            found.iter().filter(|finding| finding.finding == Kind::DriftedExec).count()
        };
        for (exe, args) in [
            ("/bin/dash", &["sh"] as &[&str]),
            ("/bin/dash", &["sh", "-s", "x"]),
            ("/bin/busybox", &["sh", "-e"]),
            ("/usr/bin/python3", &["python3", "-"]),
            ("/usr/bin/python3", &["python3", "/dev/stdin", "x"]),
            ("/usr/bin/mawk", &["awk", "-f", "/dev/stdin"]),
        ] {
            assert_eq!(found(exe, args), 1, "{args:?}");
        }
        for (exe, args) in [
            ("/bin/dash", &["sh", "x"] as &[&str]),
            ("/bin/dash", &["sh", "-c", "cat"]),
            ("/bin/busybox", &["cat"]),
            ("/usr/bin/python3", &["python3", "app.py"]),
            ("/usr/bin/sort", &["sort"]),
            ("/usr/bin/mawk", &["awk", "-f", "x", "-"]),
            ("/usr/bin/mawk", &["awk", "{ print }", "/dev/stdin"]),
        ] {
            assert_eq!(found(exe, args), 0, "{args:?}");
        }
    }
}
