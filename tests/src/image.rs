//! The image of the test containers: the files that containers start with, and that attackers change.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The directory of the image, which is the lower layer of most containers.
pub const IMAGE: &str = "/var/lib/lab/image";
/// The directory of what the installation of the disk's packages makes in an image, and of what a Dockerfile adds.
pub const INSTALLED: &str = "/var/lib/lab/installed";
/// An image file whose name is not UTF-8 and contains terminal escapes.
pub const EVIL_NAME: &[u8] = b"/srv/\x1b[2J\x1b]0;owned\x07\n\xff\\x";
/// An image file with [`MARK`] as its content, for attackers to copy.
pub const SOURCE: &str = "/srv/mark";
/// An image file whose size is a multiple of a sector.
pub const SECTORS: &str = "/srv/sectors";
/// The number of files of [`many_file`].
pub const MANY: usize = 600;
/// The number of directories of [`place`].
pub const PLACES: usize = 60;
/// The text that attackers write.
pub const MARK: &[u8] = b"changed by the attacker\n";
/// The content of the image files that attacks change.
const TEXT: &str = "as it is in the image: nobody has changed it\n";
/// The applets of busybox in the image.
const APPLETS: &[&str] = &["ash", "cat", "cp", "echo", "ls", "sh", "sleep", "true"];

/// A shell that is not busybox, and its libraries.
pub const DASH: &str = "/usr/bin/dash";
/// The machine code of a function that returns [`ANSWER`]: `mov $42, %eax; ret`.
pub const CODE: &[u8] = &[0xb8, 42, 0, 0, 0, 0xc3];
/// What the function returns.
pub const ANSWER: u32 = 42;
/// An image file with that function.
pub const CODE_FILE: &str = "/srv/code";
/// An image file with a script that prints `42`.
pub const SCRIPT: &str = "/srv/script.sh";
/// The directory of image files in several languages, `answer` with the suffix of each, which print `42`.
pub const SCRIPTS: &str = "/srv/scripts";
/// The suffixes of these files, and their content.
const ANSWERS: &[(&str, &str)] = &[
    ("awk", "BEGIN { print 6 * 7 }\n"),
    ("js", "console.log(6 * 7)\n"),
    ("lua", "print(6 * 7)\n"),
    ("php", "<?php echo 6 * 7, \"\\n\";\n"),
    ("pl", "print 6 * 7, \"\\n\";\n"),
    ("py", "print(6 * 7)\n"),
    ("rb", "puts 6 * 7\n"),
];
/// An image file with a web application, which runs the commands that it is sent.
const APPLICATION: &str = "/srv/app.py";
/// Its content.
const APPLICATION_TEXT: &str = "import subprocess, flask
application = flask.Flask(__name__)
@application.route('/')
def page():
    return flask.render_template_string('the answer is {{ answer }}', answer=6 * 7)
@application.route('/run')
def run():
    return subprocess.run(flask.request.args['command'], shell=True, capture_output=True).stdout
application.run(port=8080)
";
/// The script of the only job of cron in an image of the disk.
pub const JOB: &str = "/srv/job";
/// The files in [`INSTALLED`], and their contents.
const INSTALLED_FILES: &[(&str, &str)] = &[
    ("/etc/hosts", "127.0.0.1 localhost lab\n"),
    (
        "/etc/passwd",
        "root:x:0:0:root:/:/bin/sh\nsshd:x:100:65534::/run/sshd:/bin/false\nnobody:x:65534:65534::/:/bin/false\n",
    ),
    ("/etc/pam.d/common-auth", "auth required pam_permit.so\n"),
    ("/etc/pam.d/common-account", "account required pam_permit.so\n"),
    ("/etc/pam.d/common-password", "password required pam_permit.so\n"),
    ("/etc/pam.d/common-session", "session required pam_permit.so\n"),
    ("/etc/pam.d/common-session-noninteractive", "session required pam_permit.so\n"),
    ("/etc/crontab", "* * * * * root /srv/job\n"),
    // There is a job of PHP.
    ("/etc/cron.d/php", ""),
    (JOB, "#!/bin/sh\necho $((6 * 7)) >> /data/answers\n"),
    ("/etc/rabbitmq/enabled_plugins", "[rabbitmq_stomp].\n"),
    ("/srv/tomcat/webapps/ROOT/index.html", "the answer is 42\n"),
    (
        "/srv/runner.js",
        "const { execFile } = require('child_process');
require('http').createServer((request, response) => {
  if (request.url !== '/run') return response.end('<p>the answer is 42</p>');
  execFile(process.argv[2], process.argv.slice(3), error => {
    if (error) console.error(error);
    response.end(error ? 'there is no answer' : 'the answer is 42');
  });
}).listen(8080);
",
    ),
    (
        "/srv/logrotate.conf",
        "/var/log/app/*.log {
  rotate 3
  ifempty
  create
  compress
  compresscmd /bin/busybox
  compressoptions gzip
}
",
    ),
    (
        "/srv/app.js",
        "const { exec } = require('child_process');
require('http').createServer((request, response) => {
  const command = new URL(request.url, 'http://lab').searchParams.get('command');
  exec(command ?? 'echo $((6 * 7))', (error, answer) => response.end(`the answer is ${answer}`));
}).listen(8080);
",
    ),
];
/// A script for a shell.
pub const IMAGE_SCRIPT: &str = "/srv/of-the-image";
/// A script whose interpreter is missing.
pub const BROKEN_SCRIPT: &str = "/srv/broken";
/// A program that is no shell.
pub const BACKUP: &str = "/usr/bin/backup";
/// Two names of a script that prints itself.
pub const NAMES: [&str; 2] = ["/srv/one", "/srv/two"];
/// The dynamic loader.
pub const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
/// A shared library.
pub const LIBC: &str = "/lib/x86_64-linux-gnu/libc.so.6";

/// The path of an image file for attacks to change.
pub fn many_file(number: usize) -> String {
    format!("/srv/many/{number}")
}

/// The path of an empty image directory for attacks to remove or mount over.
pub fn place(number: usize) -> String {
    format!("/srv/places/{number}")
}

/// The path of an image file at a depth that exceeds what a simple sensor walks.
pub fn deep_path() -> String {
    format!("/srv{}/file", "/d".repeat(30))
}

/// The path of an image file that is longer than what a simple sensor copies.
pub fn long_path() -> String {
    format!("/srv{}/file", format!("/{}", "n".repeat(250)).repeat(5))
}

/// Makes the image.
pub fn make_image() -> Result<()> {
    let at = |path: &str| PathBuf::from(format!("{IMAGE}{path}"));
    make_base(IMAGE)?;
    fs::write(Path::new(OsStr::from_bytes(&[IMAGE.as_bytes(), EVIL_NAME].concat())), TEXT)?;
    // This file is longer than the one that is cloned over it.
    fs::write(at(SOURCE), MARK.repeat(512))?;
    fs::write(at(CODE_FILE), CODE)?;
    fs::write(at(SCRIPT), "echo $((6 * 7))\n")?;
    fs::write(at(NAMES[0]), "#!/bin/cat\n")?;
    fs::write(at(IMAGE_SCRIPT), "#!/bin/sh\n:\n")?;
    fs::write(at(BROKEN_SCRIPT), "#!/missing\n")?;
    for script in [NAMES[0], IMAGE_SCRIPT, BROKEN_SCRIPT] {
        fs::set_permissions(at(script), Permissions::from_mode(0o755))?;
    }
    fs::hard_link(at(NAMES[0]), at(NAMES[1]))?;
    fs::write(at(SECTORS), TEXT.repeat(512))?;
    fs::create_dir(at(SCRIPTS))?;
    for (suffix, text) in ANSWERS {
        fs::write(at(SCRIPTS).join(format!("answer.{suffix}")), text)?;
    }
    fs::write(at(APPLICATION), APPLICATION_TEXT)?;
    fs::create_dir_all(at("/var/cache/nginx"))?;
    for (path, content) in INSTALLED_FILES {
        let path = PathBuf::from(format!("{INSTALLED}{path}"));
        fs::create_dir_all(path.parent().unwrap_or(&path))?;
        fs::write(path, content)?;
    }
    fs::set_permissions(format!("{INSTALLED}{JOB}"), Permissions::from_mode(0o755))?;
    fs::create_dir_all(format!("{INSTALLED}/var"))?;
    symlink("/run", format!("{INSTALLED}/var/run"))?;
    symlink("/usr/share/tomcat10/etc", format!("{INSTALLED}/srv/tomcat/conf"))?;
    for folder in ["logs", "work"] {
        fs::create_dir(format!("{INSTALLED}/srv/tomcat/{folder}"))?;
    }
    for number in 0..PLACES {
        fs::create_dir_all(at(&place(number)))?;
    }
    for path in (0..MANY).map(many_file).chain([deep_path(), long_path()]) {
        let path = at(&path);
        fs::create_dir_all(path.parent().unwrap_or(&path))?;
        fs::write(path, TEXT)?;
    }
    Ok(())
}

/// Makes the files that all images share, in a directory.
pub fn make_base(root: &str) -> Result<()> {
    let at = |path: &str| PathBuf::from(format!("{root}{path}"));
    for folder in
        ["bin", "etc", "lib/x86_64-linux-gnu", "lib64", "usr/bin", "tmp", "srv", "data", "proc", "dev", "sys", "run"]
    {
        fs::create_dir_all(Path::new(root).join(folder))?;
    }
    fs::set_permissions(at("/tmp"), Permissions::from_mode(0o1777))?;
    for program in ["/bin/busybox", DASH, LOADER, LIBC] {
        fs::copy(program, at(program)).with_context(|| format!("no {program}"))?;
    }
    for applet in APPLETS {
        symlink("/bin/busybox", at(&format!("/bin/{applet}")))?;
    }
    for program in ["tool", "backup"] {
        fs::copy("/init", at("/usr/bin").join(program))?;
    }
    // The name of this shell does not tell that it is one.
    symlink("/bin/busybox", at("/usr/bin/worker"))?;
    fs::write(at("/etc/passwd"), "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n")?;
    fs::write(at("/etc/group"), "root:x:0:\nnogroup:x:65534:\n")?;
    fs::write(at("/etc/app.conf"), "mode = safe\n")?;
    Ok(())
}
