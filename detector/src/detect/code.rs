//! Code that a process runs, and where that comes from: the same for all detections of it.

use super::describe::{self, Actor};
use crate::container::table::TrackedContainer;
use crate::event::{Args, At, Exec, File, Layer, MapExec, Origin, Path, Script};
use crate::finding;

/// File systems that are only in memory, as in `statfs.f_type` (include/uapi/linux/magic.h): tmpfs, where memfd files
/// are too, ramfs and hugetlbfs.
const IN_MEMORY: [u32; 3] = [0x0102_1994, 0x8584_58f6, 0x9584_58f6];

/// A program, a script, or what a program has loaded.
#[derive(Clone, Copy)]
pub(super) struct Code<'a> {
    pub(super) at: At,
    pub(super) file: &'a File,
    pub(super) how: How,
    /// `None`: the record was lost.
    pub(super) path: Option<&'a Path>,
    /// The process that runs it. `None`: the record was lost.
    pub(super) actor: Option<Actor<'a>>,
}

/// How it comes to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// It was executed.
    Executed,
    /// It was executed, and its first line names the interpreter that does so.
    Interpreted,
    /// It was mapped: a library, or a program that is run by its loader.
    Mapped,
}

/// Where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A file that is only in memory.
    Memory,
    /// A file without a name.
    Deleted,
    /// One of these two; the record that tells which was lost.
    MemoryOrDeleted,
    /// A file of the image that is not as the image has it.
    Changed,
    /// A file of the image as it is, a file on a volume, or one of the host's.
    Expected,
}

impl<'a> Code<'a> {
    pub(super) fn executed(exec: &'a Exec) -> Self {
        Self {
            at: exec.at,
            file: &exec.file,
            how: How::Executed,
            path: Some(&exec.exe),
            actor: Some(Actor::of_exec(exec)),
        }
    }

    pub(super) fn interpreted(script: &'a Script, exec: &'a Exec) -> Self {
        let interpreter = Self::executed(exec);
        Self { at: script.at, file: &script.file, how: How::Interpreted, path: Some(&script.path), ..interpreter }
    }

    pub(super) fn mapped(mapped: &'a MapExec, actor: Option<Actor<'a>>) -> Self {
        let path = mapped.detail.as_ref().map(|detail| &detail.path);
        Self { at: mapped.at, file: &mapped.file, how: How::Mapped, path, actor }
    }

    pub(super) fn source(&self, container: &TrackedContainer) -> Source {
        let Some(actor) = &self.actor else {
            // The probes do not report libraries of the image as it is.
            return match self.file.layer {
                Some(Layer::Upper | Layer::New) => Source::Changed,
                Some(Layer::Lower) => Source::Expected,
                None => Source::MemoryOrDeleted,
            };
        };
        if actor.process.origin == Origin::Outside {
            return Source::Expected;
        }
        // An image can be in memory as a whole.
        if IN_MEMORY.contains(&self.file.magic) && container.root_dev != Some(self.file.dev) {
            return Source::Memory;
        }
        if self.file.nlink == 0 {
            return Source::Deleted;
        }
        match self.file.layer {
            Some(Layer::Upper | Layer::New) => Source::Changed,
            Some(Layer::Lower) | None => Source::Expected,
        }
    }

    /// The arguments of the process, `argv[0]` first; none if they are not known.
    pub(super) fn args(&self) -> impl Iterator<Item = &'a [u8]> {
        self.actor.and_then(|actor| actor.args()).into_iter().flat_map(Args::iter)
    }

    /// The file in a finding.
    pub(super) fn describe_file(&self) -> finding::File {
        describe::code_file(self.file, self.path)
    }

    /// `PATH, which is STATE, executed in CONTAINER (how it came there)`, or the like.
    pub(super) fn message(&self, state: &str, container: &TrackedContainer) -> String {
        let container = describe::container_name(container);
        let (Some(path), Some(actor)) = (self.path, &self.actor) else {
            return format!("the file with inode {}, which is {state}, loaded in {container}", self.file.inode);
        };
        let path = describe::path(path).map_or_else(|| "an unnamed file".to_owned(), |path| path.to_string());
        let (exe, origin) = (actor.name(), describe::origin(actor.process.origin));
        match self.how {
            How::Executed => format!("{path}, which is {state}, executed in {container} ({origin})"),
            How::Interpreted => format!("script {path}, which is {state}, executed in {container} by {exe} ({origin})"),
            How::Mapped => format!("{path}, which is {state}, loaded in {container} by {exe} ({origin})"),
        }
    }
}
