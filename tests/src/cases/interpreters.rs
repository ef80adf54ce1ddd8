//! Real interpreters, which run what was added to their container, and what came with its image.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::expectation::compare;
use super::lab::Lab;
use crate::container::Container;
use crate::image::SCRIPTS;
use crate::program::{on_host, wait_for};
use crate::sensor::detector;

/// An interpreter that takes code in an argument, and runs other files from there.
struct Language {
    /// The file of the interpreter.
    program: &'static str,
    /// The options with which it runs.
    options: &'static [&'static str],
    /// The suffix of files in the language.
    suffix: &'static str,
    /// The option before code.
    inline: &'static str,
    /// Code that runs the file `answer` in the directory `AT`, as programs include their modules.
    includes: &'static str,
    /// Code that reads the file `AT`.
    reads: &'static str,
}

const PYTHON: Language = Language {
    program: "/usr/bin/python3.11",
    // It does not keep compiled modules, as in images that have them already.
    options: &["-B"],
    suffix: "py",
    inline: "-c",
    includes: "import sys; sys.path.insert(0, 'AT'); import answer",
    reads: "print(open('AT').read(), end='')",
};
const PERL: Language = Language {
    program: "/usr/bin/perl",
    options: &[],
    suffix: "pl",
    inline: "-e",
    includes: "require 'AT/answer.pl'",
    reads: "open(F, 'AT'); print <F>",
};
const NODE: Language = Language {
    program: "/usr/bin/node",
    options: &[],
    suffix: "js",
    inline: "-e",
    includes: "require('AT/answer.js')",
    reads: "process.stdout.write(require('fs').readFileSync('AT'))",
};
const PHP: Language = Language {
    program: "/usr/bin/php8.2",
    options: &[],
    suffix: "php",
    inline: "-r",
    includes: "include 'AT/answer.php'",
    reads: "readfile('AT')",
};
const RUBY: Language = Language {
    program: "/usr/bin/ruby3.1",
    options: &[],
    suffix: "rb",
    inline: "-e",
    includes: "require 'AT/answer'",
    reads: "puts File.read('AT')",
};
const LUA: Language = Language {
    program: "/usr/bin/lua5.4",
    options: &[],
    suffix: "lua",
    inline: "-e",
    includes: "dofile('AT/answer.lua')",
    reads: "io.write(io.open('AT'):read('a'))",
};
const AWK: &str = "/usr/bin/mawk";
const JAVA: &str = "/usr/lib/jvm/java-17-openjdk-amd64/bin/java";

/// Where scripts are added to the container.
const ADDED: &str = "/tmp";

/// The expected finding of a script or module that was added.
fn run(path: &str, exe: &str, identity: &Value) -> Value {
    json!({
        "finding": "drifted_exec",
        "severity": "high",
        "process": {"origin": "application", "exe": exe},
        // The layers are on several file systems, so the device that stat(2) shows is not that of the overlay.
        "file": {"path": path, "layer": "upper", "op": null, "inode": identity["inode"]},
    })
}

/// Expects exactly these findings of executions, and allows findings of image changes.
fn expect(lab: &mut Lab, container: &Container, expected: &[Value]) -> Result<()> {
    let mut found = lab.take_late_findings()?;
    found.retain(|finding| finding["finding"] != "image_write");
    compare(&found, &container.identity(), expected)
}

/// Adds a copy of an image's file to the container. Returns its path and its identity.
fn add(container: &Container, from: &str, name: &str) -> Result<(String, Value)> {
    let path = format!("{ADDED}/{name}");
    let identity = container.service_does(&["copy", from, &path])?;
    Ok((path, identity))
}

/// Makes an interpreter run code that prints `42`.
fn prints(container: &Container, operation: &[&str]) -> Result<()> {
    let answer = container.service_does(operation)?;
    ensure!(answer["stdout"] == "42\n", "the code was not run: {answer}");
    Ok(())
}

impl Language {
    /// The file of the image in this language.
    fn answer(&self) -> String {
        format!("{SCRIPTS}/answer.{}", self.suffix)
    }

    /// Runs a script as the argument of the interpreter.
    fn run(&self, container: &Container, script: &str) -> Result<()> {
        prints(container, &[&["run", self.program], self.options, &[script]].concat())
    }

    /// Runs a script as the standard input of the interpreter.
    fn run_input(&self, container: &Container, script: &str) -> Result<()> {
        prints(container, &[&["run-with-input", script, self.program], self.options].concat())
    }

    /// Runs code in an argument.
    fn run_inline(&self, container: &Container, code: &str) -> Result<Value> {
        container.service_does(&[&["run", self.program], self.options, &[self.inline, &format!("{code};")]].concat())
    }

    /// Runs the file with this name, apart from its suffix, in a directory.
    fn include(&self, container: &Container, name: &str, at: &str) -> Result<()> {
        let ran = self.run_inline(container, &self.includes.replace("AT", at).replace("answer", name))?;
        ensure!(ran["stdout"] == "42\n", "the module was not run: {ran}");
        Ok(())
    }
}

/// An added script is run as an argument, another one as the standard input, and a module is included.
fn attack(lab: &mut Lab, language: &Language) -> Result<()> {
    let container = lab.with_interpreters()?;
    let add = |name: &str| add(&container, &language.answer(), name);
    let found = |(path, identity): (String, Value)| run(&path, language.program, &identity);
    let script = add(&format!("script-{}", language.suffix))?;
    language.run(&container, &script.0)?;
    let input = add(&format!("input-{}", language.suffix))?;
    language.run_input(&container, &input.0)?;
    let module = add(&format!("answer.{}", language.suffix))?;
    language.include(&container, "answer", ADDED)?;
    expect(lab, &container, &[script, input, module].map(found))
}

pub(super) fn perl(lab: &mut Lab) -> Result<()> {
    attack(lab, &PERL)
}

pub(super) fn node(lab: &mut Lab) -> Result<()> {
    attack(lab, &NODE)
}

pub(super) fn php(lab: &mut Lab) -> Result<()> {
    attack(lab, &PHP)
}

/// A web server runs a page that was added, with the interpreter that it has in itself.
pub(super) fn php_in_apache(lab: &mut Lab) -> Result<()> {
    const APACHE: &str = "/usr/sbin/apache2";
    const CONFIGURATION: &str = "/srv/apache.conf";
    let container = lab.with_interpreters()?;
    let lines = [
        "ServerRoot /usr/lib/apache2",
        "ServerName lab",
        "Listen 127.0.0.1:8080",
        "User #65534",
        "Group #65534",
        "PidFile /dev/shm/apache.pid",
        "ErrorLog /dev/shm/apache.log",
        "DocumentRoot /tmp",
        "LoadModule mpm_prefork_module modules/mod_mpm_prefork.so",
        "LoadModule authz_core_module modules/mod_authz_core.so",
        "LoadModule php_module modules/libphp8.2.so",
        "SetHandler application/x-httpd-php",
    ];
    container.service_does(&["script", CONFIGURATION, &format!("{}\n", lines.join("\n"))])?;
    let (page, identity) = add(&container, &PHP.answer(), "page.php")?;
    container.service_does(&["run", APACHE, "-f", CONFIGURATION])?;
    let request = ["run", "/bin/busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:8080/page.php"];
    wait_for("the page", Duration::from_secs(20), || Ok(prints(&container, &request).ok()))?;
    container.service_does(&["run", APACHE, "-f", CONFIGURATION, "-k", "stop"])?;
    expect(lab, &container, &[run(&page, APACHE, &identity)])
}

pub(super) fn ruby(lab: &mut Lab) -> Result<()> {
    attack(lab, &RUBY)
}

pub(super) fn lua(lab: &mut Lab) -> Result<()> {
    attack(lab, &LUA)
}

pub(super) fn python(lab: &mut Lab) -> Result<()> {
    attack(lab, &PYTHON)
}

/// A compiled module runs in place of its source. The compiler counts as a program that runs what it compiles.
pub(super) fn python_compiled(lab: &mut Lab) -> Result<()> {
    let container = lab.with_interpreters()?;
    let compiled = format!("{ADDED}/__pycache__/compiled.cpython-311.pyc");
    let (module, identity) = add(&container, &PYTHON.answer(), "compiled.py")?;
    container.service_does(&["run", PYTHON.program, "-B", "-m", "py_compile", &module])?;
    // The arguments differ, but not what is run.
    for options in [&["-B"][..], &["-B", "-u"]] {
        Language { options, ..PYTHON }.include(&container, "compiled", ADDED)?;
    }
    let mut found = [&module, &compiled].map(|path| run(path, PYTHON.program, &identity));
    found[1]["file"] = json!({"path": compiled});
    expect(lab, &container, &found)
}

pub(super) fn awk(lab: &mut Lab) -> Result<()> {
    let container = lab.with_interpreters()?;
    let add = |name: &str| add(&container, &format!("{SCRIPTS}/answer.awk"), name);
    let (script, input) = (add("script-awk")?, add("input-awk")?);
    prints(&container, &["run", AWK, "-f", &script.0])?;
    prints(&container, &["run-with-input", &input.0, AWK, "-f", "/dev/stdin"])?;
    expect(lab, &container, &[script, input].map(|(path, identity)| run(&path, AWK, &identity)))
}

/// An archive, also as part of the class path, and a class.
pub(super) fn java(lab: &mut Lab) -> Result<()> {
    /// The class `Answer`, whose `main` prints 42: `System.out.println(42)`, compiled for Java 8 without debugging
    /// information.
    const CLASS: &[u8] = b"\xca\xfe\xba\xbe\0\0\0\x34\0\x18\n\0\x02\0\x03\x07\0\x04\x0c\0\x05\0\x06\x01\0\x10\
        java/lang/Object\x01\0\x06<init>\x01\0\x03()V\t\0\x08\0\t\x07\0\n\x0c\0\x0b\0\x0c\x01\0\x10java/lang/System\
        \x01\0\x03out\x01\0\x15Ljava/io/PrintStream;\n\0\x0e\0\x0f\x07\0\x10\x0c\0\x11\0\x12\x01\0\x13\
        java/io/PrintStream\x01\0\x07println\x01\0\x04(I)V\x07\0\x14\x01\0\x06Answer\x01\0\x04Code\x01\0\x04main\
        \x01\0\x16([Ljava/lang/String;)V\0\x20\0\x13\0\x02\0\0\0\0\0\x02\0\0\0\x05\0\x06\0\x01\0\x15\0\0\0\x11\0\x01\
        \0\x01\0\0\0\x05\x2a\xb7\0\x01\xb1\0\0\0\0\0\t\0\x16\0\x17\0\x01\0\x15\0\0\0\x15\0\x02\0\x01\0\0\0\t\xb2\0\
        \x07\x10\x2a\xb6\0\r\xb1\0\0\0\0\0\0";
    /// Makes an archive of a class.
    const ARCHIVE: &str = "import sys, zipfile\n\
        with zipfile.ZipFile(sys.argv[1], 'w') as archive:\n \
        archive.writestr('META-INF/MANIFEST.MF', 'Main-Class: Answer\\n')\n \
        archive.write(sys.argv[2], 'Answer.class')\n";
    let container = lab.with_interpreters()?;
    let on_volume = |name: &str| container.volume().join(name).display().to_string();
    fs::write(on_volume("class"), CLASS)?;
    on_host("/usr/bin/python3", ["-c", ARCHIVE, &on_volume("archive"), &on_volume("class")])?;
    let (archive, on_path) = (add(&container, "/data/archive", "archive")?, add(&container, "/data/archive", "path")?);
    let class = add(&container, "/data/class", "Answer.class")?;
    let java = ["run", JAVA, "-Xshare:off", "-XX:TieredStopAtLevel=1"];
    prints(&container, &[&java[..], &["-jar", &archive.0]].concat())?;
    prints(&container, &[&java[..], &["-cp", &format!("/srv:{}", on_path.0), "Answer"]].concat())?;
    prints(&container, &[&java[..], &["-cp", ADDED, "Answer"]].concat())?;
    expect(lab, &container, &[archive, on_path, class].map(|(path, identity)| run(&path, JAVA, &identity)))
}

/// Scripts of the image, run in all these ways, and what programs read as data.
pub(super) fn own_scripts_and_data(lab: &mut Lab) -> Result<()> {
    const TEXT: &str = "42 is the answer";
    let container = lab.with_interpreters()?;
    let (page, other) = (format!("{ADDED}/page.html"), format!("{ADDED}/page.sh"));
    for path in [&page, &other] {
        container.service_does(&["script", path, &format!("{TEXT}\n")])?;
    }
    for language in [PYTHON, PERL, NODE, PHP, RUBY, LUA] {
        let answer = language.answer();
        language.run(&container, &answer)?;
        language.run_input(&container, &answer)?;
        let [includes, one, two] = [(language.includes, SCRIPTS), (language.reads, &page), (language.reads, &other)]
            .map(|(code, at)| code.replace("AT", at));
        let ran = language.run_inline(&container, &format!("{includes}; {one}; {two}"))?;
        let printed: Vec<_> = ran["stdout"].as_str().into_iter().flat_map(str::lines).collect();
        ensure!(printed == ["42", TEXT, TEXT], "{} has printed {printed:?}", language.program);
    }
    prints(&container, &["run", AWK, "-f", &format!("{SCRIPTS}/answer.awk")])?;
    container.service_does(&["run", AWK, "{ print }", &page])?;
    expect(lab, &container, &[])
}

/// A program opens a database, many other files and one that is named like code again and again, which costs no
/// records.
pub(super) fn database(lab: &mut Lab) -> Result<()> {
    const OPENS: u64 = 500;
    /// A program may have some records for the first files that it opens. Others are of what the case does besides.
    const MOST: u64 = 100;
    let container = lab.with_interpreters()?;
    let script = format!(
        "import sqlite3\n\
         def query(text):\n \
         base = sqlite3.connect('{ADDED}/base.db')\n \
         rows = base.execute(text).fetchall()\n \
         base.commit()\n \
         base.close()\n \
         return rows\n\
         def text(path, mode, *text):\n \
         with open(path, mode) as file:\n  \
         return file.write(*text) if text else file.read()\n\
         query('create table answers (answer)')\n\
         query('insert into answers values (42)')\n\
         text('{ADDED}/base.sh', 'w', '42')\n\
         for number in range({OPENS}):\n \
         text(f'/dev/shm/{{number}}', 'w', '42')\n \
         answer = text(f'/dev/shm/{{number}}', 'r')\n \
         assert answer == text('{ADDED}/base.sh', 'r')\n \
         assert query('select answer from answers') == [(int(answer),)]\n\
         print(answer)\n"
    );
    let before = events()?;
    prints(&container, &["run", PYTHON.program, "-B", "-c", &script])?;
    expect(lab, &container, &[])?;
    let records = events()? - before;
    ensure!(records < MOST, "{records} records came of {OPENS} opens of each");
    Ok(())
}

/// How many events the sensor has had since its start.
fn events() -> Result<u64> {
    let status = String::from_utf8(detector(&["status"])?.stdout)?;
    let count = status.lines().find_map(|line| line.strip_prefix("events")).context("status has no events")?;
    Ok(count.trim().parse()?)
}
