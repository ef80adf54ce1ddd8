//! Executes programs in unusual ways.

use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::mm::ProtFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::{Value, json};

use super::effect::identity;
use super::operation::Operation;
use super::programs::run;
use super::raw;
use crate::image::{ANSWER, CODE};

/// The operations of this module.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation::on_two("copy", "FROM TO", "copies a program", copy),
    Operation::on_two("copy-blunted", "FROM TO", "copies a shell without the strings that identify it", copy_blunted),
    Operation::on_two("overwrite", "FROM TO", "gives a file the content of another one of the same length", overwrite),
    Operation::with("copy-and-run", "FROM TO ARGUMENT…", "copies a program, and runs the copy", 2, |args| {
        fs::copy(&args[0], &args[1])?;
        run(Command::new(&args[1]).args(&args[2..]))
    }),
    Operation::with(
        "run-and-remove",
        "FIRST FROM TO NAME ARGUMENT…",
        "runs a program, and directly after it a copy of another one, which is removed at once",
        4,
        |args| {
            copy(Path::new(&args[1]), Path::new(&args[2]))?;
            run(&mut Command::new(&args[0]))?;
            let ran = run(Command::new(&args[2]).arg0(&args[3]).args(&args[4..]));
            fs::remove_file(&args[2])?;
            ran
        },
    ),
    Operation::with("script", "PATH TEXT", "makes a script", 2, |args| script(Path::new(&args[0]), &args[1])),
    Operation::with("run-in-memory", "PROGRAM ARGUMENT…", "copies a program into memory, and runs that", 1, |args| {
        in_memory(&args[0], &args[1..])
    }),
    Operation::with("run-deleted", "PROGRAM COPY ARGUMENT…", "runs a copy that was deleted", 2, |args| {
        deleted(Path::new(&args[0]), Path::new(&args[1]), &args[2..])
    }),
    Operation::with(
        "run-failing",
        "PROGRAM PROGRAM ARGUMENT…",
        "executes a program that fails, and then another one",
        2,
        |args| failing(&args[0], &args[1..]),
    ),
    Operation::with("run-in-thread", "PROGRAM ARGUMENT…", "executes a program from a second thread", 1, |args| {
        in_thread(&args[0], &args[1..])
    }),
    Operation::with(
        "run-preloaded",
        "LIBRARY PROGRAM ARGUMENT…",
        "runs a program with a library preloaded",
        2,
        |args| run(Command::new(&args[1]).args(&args[2..]).env("LD_PRELOAD", &args[0])),
    ),
    Operation::with(
        "run-with-input",
        "FILE PROGRAM ARGUMENT…",
        "runs a program with a file as its input",
        2,
        |args| {
            let output = Command::new(&args[1]).args(&args[2..]).stdin(File::open(&args[0])?).output()?;
            ensure!(output.status.success(), "{:?}: {}", args[1], output.status);
            Ok(json!({"stdout": String::from_utf8_lossy(&output.stdout)}))
        },
    ),
    Operation::with(
        "run-script-in-memory",
        "TEXT INTERPRETER ARGUMENT…",
        "makes a script in memory, and runs an interpreter with it as the last argument",
        2,
        |args| script_in_memory(&args[0], &args[1..]),
    ),
    Operation::on("execute-later", "maps code for reading, makes it executable, and calls it", |path| {
        execute_later(&File::open(path)?)
    }),
    Operation::plain("execute-later-in-memory", "does the same with code in a file in memory", || {
        execute_later(&code_in_memory()?)
    }),
    Operation::on("execute-readable", "maps code for reading, which this makes executable, and calls it", |path| {
        raw::execute_what_is_readable()?;
        call(&raw::Map::readable(&File::open(path)?, CODE.len())?)
    }),
    Operation::plain("compile", "makes code in anonymous and in shared memory, and calls it", compile),
    Operation::with("run-on-terminal", "PROGRAM ARGUMENT…", "runs a program on a terminal of its own", 1, |args| {
        on_terminal(&args[0], &args[1..])
    }),
    Operation::on_two("map-above", "FILE PROGRAM", "maps a program as a loader does, above another file", map_above),
    Operation::on("make-sparse", "makes a program of 5 GB that is one hole", make_sparse),
    Operation::with("become", "PROGRAM ARGUMENT…", "executes a program in place of this one", 1, |args| {
        let error = become_program(&args[0], &args[1..])?;
        bail!("cannot become {:?}: {error}", args[0])
    }),
];

/// Makes a file that is executable from the start.
fn create(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o755);
    options.open(path).with_context(|| format!("cannot create {}", path.display()))
}

fn copy(from: &Path, to: &Path) -> Result<Value> {
    io::copy(&mut File::open(from)?, &mut create(to)?)?;
    ensure!(fs::metadata(from)?.len() == fs::metadata(to)?.len(), "{} is no copy", to.display());
    identity(to)
}

/// Copies a shell without some of the strings that identify it. It can start without them.
fn copy_blunted(from: &Path, to: &Path) -> Result<Value> {
    let mut bytes = fs::read(from)?;
    for word in [&b"getopts\0"[..], b"readonly\0", b"CDPATH\0"] {
        let at = bytes.windows(word.len()).position(|part| part == word).context("the shell has not this word")?;
        bytes[at] = b'x';
    }
    create(to)?.write_all(&bytes)?;
    identity(to)
}

fn overwrite(from: &Path, to: &Path) -> Result<Value> {
    let before = identity(to)?;
    let bytes = fs::read(from)?;
    ensure!(fs::metadata(to)?.len() == bytes.len() as u64, "{} has another length", to.display());
    OpenOptions::new().write(true).open(to)?.write_all(&bytes)?;
    ensure!(fs::read(to)? == bytes && identity(to)? == before, "{} was not overwritten", to.display());
    Ok(before)
}

fn script(path: &Path, text: &OsStr) -> Result<Value> {
    create(path)?.write_all(text.as_bytes())?;
    identity(path)
}

/// Executes a program from an open file, by its path in /proc.
fn run_open(file: &File, args: &[OsString]) -> Result<Value> {
    run(Command::new(format!("/proc/self/fd/{}", file.as_raw_fd())).arg0("harmless").args(args))
}

/// Copies a program to a file in memory, and executes it.
fn in_memory(program: &OsStr, args: &[OsString]) -> Result<Value> {
    let writable = File::from(rustix::fs::memfd_create(c"library", MemfdFlags::CLOEXEC)?);
    io::copy(&mut File::open(program)?, &mut &writable)?;
    // A file that is open for writing cannot be executed.
    let file = File::open(format!("/proc/self/fd/{}", writable.as_raw_fd()))?;
    drop(writable);
    run_open(&file, args)
}

/// Makes a script in memory, and runs an interpreter with it.
fn script_in_memory(text: &OsStr, interpreter: &[OsString]) -> Result<Value> {
    // The interpreter inherits the descriptor.
    let mut script = File::from(rustix::fs::memfd_create(c"script", MemfdFlags::empty())?);
    script.write_all(text.as_bytes())?;
    run(Command::new(&interpreter[0]).args(&interpreter[1..]).arg(format!("/proc/self/fd/{}", script.as_raw_fd())))
}

/// Maps code for reading, makes it executable, and calls it.
fn execute_later(code: &File) -> Result<Value> {
    let mut map = raw::Map::readable(code, CODE.len())?;
    map.allow_executing()?;
    call(&map)
}

fn call(map: &raw::Map) -> Result<Value> {
    let answer = map.call();
    ensure!(answer == ANSWER, "the code returned {answer}");
    Ok(Value::Null)
}

fn code_in_memory() -> Result<File> {
    let mut file = File::from(rustix::fs::memfd_create(c"code", MemfdFlags::CLOEXEC)?);
    file.write_all(CODE)?;
    Ok(file)
}

/// Does what just-in-time compilers do.
fn compile() -> Result<Value> {
    let mut map = raw::Map::anonymous(CODE.len())?;
    map.store(CODE);
    map.allow_executing()?;
    call(&map)?;
    let mut map = raw::Map::shared(&code_in_memory()?, CODE.len(), ProtFlags::READ)?;
    map.allow_executing()?;
    call(&map)
}

/// Copies a program, deletes the copy while it is open, and executes it.
fn deleted(program: &Path, path: &Path, args: &[OsString]) -> Result<Value> {
    copy(program, path)?;
    let file = File::open(path)?;
    fs::remove_file(path)?;
    ensure!(file.metadata()?.nlink() == 0, "{} is not deleted", path.display());
    run_open(&file, args)
}

/// Fails to execute a file, and then executes a program on the same thread.
fn failing(program: &OsStr, args: &[OsString]) -> Result<Value> {
    let [next, args @ ..] = args else { bail!("no second program") };
    let own = std::env::current_exe()?;
    run(Command::new(own).arg("become").arg(program).arg("--or").arg(next).args(args))
}

/// Executes a program from a thread that is not the process's first one.
fn in_thread(program: &OsStr, args: &[OsString]) -> Result<Value> {
    let own = std::env::current_exe()?;
    run(Command::new(own).arg("become").arg("--in-thread").arg(program).args(args))
}

/// Executes a program on a terminal of its own, as interpreters do to open an interactive shell.
fn on_terminal(program: &OsStr, args: &[OsString]) -> Result<Value> {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    grantpt(&terminal)?;
    unlockpt(&terminal)?;
    let name = ptsname(&terminal, Vec::new())?.into_string()?;
    let end = File::from(rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?);
    // This makes its standard input the controlling terminal.
    let mut command = Command::new("/bin/busybox");
    command.args(["setsid", "-c"]).arg(program).args(args);
    let status = command.stdin(end.try_clone()?).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(json!({"terminal": name}))
}

/// Maps a file, and then a program at a higher address as code. Both stay mapped for a while.
fn map_above(file: &Path, program: &Path) -> Result<Value> {
    let (file, program) = (File::open(file)?, File::open(program)?);
    let length = program.metadata()?.len() as usize;
    // The kernel fills the room from above, and uses the highest gap first.
    let gap = raw::Map::private(&file, length)?;
    let below = raw::Map::private(&file, length)?;
    drop(gap);
    let above = raw::Map::code(&program, length)?;
    ensure!(below.address() < above.address(), "the kernel has mapped them in another order");
    thread::sleep(Duration::from_secs(2));
    Ok(Value::Null)
}

/// Makes a program that ends at once. Almost all of it is data that is loaded to be read, and that is a hole.
fn make_sparse(path: &Path) -> Result<Value> {
    const PAGE: u64 = 4096;
    const SIZE: u64 = 5 << 30;
    const ADDRESS: u64 = 0x40_0000;
    let number = |number: u64, bytes: usize| number.to_le_bytes()[..bytes].to_vec();
    // `Elf64_Phdr` (elf(5)): the type, the flags, the offset, two addresses, two sizes and the alignment.
    let segment = |flags, offset, size| {
        let address = number(ADDRESS + offset, 8);
        let (kind, size) = (number(1, 4), number(size, 8));
        [kind, number(flags, 4), number(offset, 8), address.clone(), address, size.clone(), size, number(PAGE, 8)]
            .concat()
    };
    // `Elf64_Ehdr`: a program for x86_64, whose segments follow and whose instructions follow these.
    let header = [
        b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec(),
        [number(2, 2), number(62, 2), number(1, 4), number(ADDRESS + 64 + 2 * 56, 8), number(64, 8), number(0, 8)]
            .concat(),
        [number(0, 4), number(64, 2), number(56, 2), number(2, 2), number(0, 6)].concat(),
    ];
    // exit(0)
    let code = b"\xb8\x3c\0\0\0\x31\xff\x0f\x05";
    let program = [header.concat(), segment(5, 0, PAGE), segment(4, PAGE, SIZE - PAGE), code.to_vec()].concat();
    let mut file = create(path)?;
    file.write_all(&program)?;
    file.set_len(SIZE)?;
    ensure!(file.metadata()?.blocks() * 512 < 1 << 20, "it is not sparse");
    identity(path)
}

/// Replaces this process by a program, by an open file without a path (execveat(2)). With `--in-thread`, another thread
/// does so. `--or` precedes a program that is tried if this one cannot be executed. Returns the error of the last one.
fn become_program(program: &OsStr, args: &[OsString]) -> Result<nix::Error> {
    if program == "--in-thread" {
        let [program, args @ ..] = args else { bail!("no program") };
        let (program, args) = (program.clone(), args.to_vec());
        let thread = thread::spawn(move || become_program(&program, &args));
        return thread.join().expect("the thread does not panic");
    }
    let end = args.iter().position(|arg| arg == "--or").unwrap_or(args.len());
    let text = |arg: &OsStr| CString::new(arg.as_bytes());
    let argv = [program].into_iter().chain(args[..end].iter().map(OsString::as_os_str)).map(text);
    let argv: Vec<CString> = argv.collect::<Result<_, _>>()?;
    let environment = [c"PATH=/usr/bin:/bin"];
    // The file stays open, because interpreters find their script by it.
    let file = rustix::fs::open(program, OFlags::RDONLY, Mode::empty())?;
    let flags = nix::fcntl::AtFlags::AT_EMPTY_PATH;
    let Err(error) = nix::unistd::execveat(&file, c"", &argv, &environment, flags);
    match args.get(end..) {
        Some([_, next, args @ ..]) => become_program(next, args),
        _ => Ok(error),
    }
}
