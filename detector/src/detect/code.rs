//! Code that a process runs, and where that comes from: the same for all detections of it.

use super::{Program, describe};
use crate::container::table::Container;
use crate::event::{Args, Exec, File, Layer, MapExec, Origin, Path, Process, Script};

/// File systems that are only in memory, as in `statfs.f_type` (include/uapi/linux/magic.h): tmpfs, where memfd files are
/// too, ramfs and hugetlbfs.
const IN_MEMORY: [u32; 3] = [0x0102_1994, 0x8584_58f6, 0x9584_58f6];

/// What is said of code that was mapped, and of which the record was lost.
pub(super) fn kept(file: &File, what: &str, container: &Container) -> String {
    format!("the file of inode {}, which is {what}, loaded in {}", file.inode, describe::container_name(container))
}

/// A program, a script, or what a program has loaded.
#[derive(Clone, Copy)]
pub(super) struct Code<'a> {
    pub(super) time: u64,
    pub(super) file: &'a File,
    pub(super) path: &'a Path,
    pub(super) how: How,
    pub(super) process: &'a Process,
    /// The executable of the process.
    pub(super) exe: &'a Path,
    /// What the process was started as.
    pub(super) program: Option<(&'a Args, &'a Path)>,
}

/// How it comes to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// It was executed.
    Executed,
    /// It was executed, and its first line says by whom.
    Interpreted,
    /// It was mapped: a library, or a program that is run by its loader.
    Mapped,
}

/// Where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// In no file that lasts.
    Memory,
    /// In a file without a name.
    Deleted,
    /// In the image, and not as the image has it.
    Changed,
    /// In the image as it is, on a volume, or the host's.
    Expected,
}

impl<'a> Code<'a> {
    pub(super) fn executed(exec: &'a Exec) -> Self {
        Self {
            time: exec.at.time,
            file: &exec.file,
            path: &exec.exe,
            how: How::Executed,
            process: &exec.process,
            exe: &exec.exe,
            program: Some((&exec.args, &exec.cwd)),
        }
    }

    pub(super) fn interpreted(script: &'a Script, exec: &'a Exec) -> Self {
        Self { file: &script.file, path: &script.path, how: How::Interpreted, ..Self::executed(exec) }
    }

    pub(super) fn mapped(mapped: &'a MapExec, program: Option<&'a Program>) -> Self {
        Self {
            time: mapped.at.time,
            file: &mapped.file,
            path: &mapped.path,
            how: How::Mapped,
            process: &mapped.process,
            exe: &mapped.exe,
            program: program.map(describe::known),
        }
    }

    pub(super) fn source(&self, container: &Container) -> Source {
        if self.process.origin == Origin::Outside {
            return Source::Expected;
        }
        // An image can be in memory as a whole.
        let is_fleeting = IN_MEMORY.contains(&self.file.magic) && container.root_dev != Some(self.file.dev);
        match self.file.layer {
            _ if is_fleeting => Source::Memory,
            _ if self.file.nlink == 0 => Source::Deleted,
            Some(Layer::Upper | Layer::New) => Source::Changed,
            Some(Layer::Lower) | None => Source::Expected,
        }
    }

    /// The arguments of the process, `argv[0]` first; none if they are not known.
    pub(super) fn args(&self) -> impl Iterator<Item = &'a [u8]> {
        self.program.into_iter().flat_map(|(args, _)| args.iter())
    }

    /// `PATH, which is WHAT, executed in CONTAINER (whence)`.
    pub(super) fn message(&self, what: &str, container: &Container) -> String {
        let path =
            describe::path(self.path).map_or_else(|| "a file without a name".to_owned(), |path| path.to_string());
        let exe = describe::text(describe::base_name(&self.exe.bytes));
        let container = describe::container_name(container);
        let origin = describe::origin(self.process.origin);
        match self.how {
            How::Executed => format!("{path}, which is {what}, executed in {container} ({origin})"),
            How::Interpreted => format!("script {path}, which is {what}, executed in {container} by {exe} ({origin})"),
            How::Mapped => format!("{path}, which is {what}, loaded in {container} by {exe} ({origin})"),
        }
    }
}
