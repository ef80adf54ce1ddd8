//! Code that a process runs, and where the code comes from. This is the same for all detections of code.

use super::describe::{self, Actor};
use crate::container::table::TrackedContainer;
use crate::event::{Args, At, Exec, File, Interpret, Layer, MapExec, Origin, Path, Script};
use crate::finding;

/// The file systems that exist only in memory, as in `statfs.f_type` (include/uapi/linux/magic.h): tmpfs, which also
/// has memfd files, ramfs and hugetlbfs.
const IN_MEMORY: [u32; 3] = [0x0102_1994, 0x8584_58f6, 0x9584_58f6];

/// A program, a script, or a file that a program has loaded.
#[derive(Clone, Copy)]
pub(super) struct Code<'a> {
    pub(super) at: At,
    pub(super) file: &'a File,
    pub(super) how: How,
    /// The path of the file. `None` if the record was lost.
    pub(super) path: Option<&'a Path>,
    /// The process that runs it. `None` if the record was lost.
    pub(super) actor: Option<Actor<'a>>,
}

/// How the code came to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// It was executed.
    Executed,
    /// It is a script that was executed. Its first line names the interpreter that runs it.
    Interpreted,
    /// It was read by an interpreter that runs it: a script that is an argument or the standard input, or a module.
    Read,
    /// It was mapped. It is a library, or a program that is run by its loader.
    Mapped,
}

/// Where the code comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A file that is only in memory.
    Memory,
    /// A file without a name.
    Deleted,
    /// A file of one of the two kinds above. It is not known which, because the record was lost.
    MemoryOrDeleted,
    /// A file in the container's root file system that is not as in the image.
    Changed,
    /// A file on a volume, or on anything else that is not the container's root file system.
    Volume,
    /// A file that is as in the image, or a file of the host.
    Expected,
}

/// Whether the file system of a file exists only in memory.
pub(super) fn is_in_memory(file: &File) -> bool {
    IN_MEMORY.contains(&file.magic)
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
        let how = if script.is_input { How::Read } else { How::Interpreted };
        Self { at: script.at, file: &script.file, how, path: Some(&script.path), ..interpreter }
    }

    pub(super) fn read(read: &'a Interpret, actor: Actor<'a>) -> Self {
        Self { at: read.at, file: &read.file, how: How::Read, path: Some(&read.detail.path), actor: Some(actor) }
    }

    pub(super) fn mapped(mapped: &'a MapExec, actor: Option<Actor<'a>>) -> Self {
        let path = mapped.detail.as_ref().map(|detail| &detail.path);
        Self { at: mapped.at, file: &mapped.file, how: How::Mapped, path, actor }
    }

    pub(super) fn source(&self, container: &TrackedContainer) -> Source {
        let Some(actor) = &self.actor else {
            // The probes do not report libraries that are as in the image.
            return match self.file.layer {
                Some(Layer::Upper | Layer::New) => Source::Changed,
                Some(Layer::Lower) => Source::Expected,
                None => Source::MemoryOrDeleted,
            };
        };
        if actor.process.origin == Origin::Outside {
            return Source::Expected;
        }
        // A whole image can be in memory.
        if is_in_memory(self.file) && container.root_dev != Some(self.file.dev) {
            return Source::Memory;
        }
        if self.file.nlink == 0 {
            return Source::Deleted;
        }
        match self.file.layer {
            Some(Layer::Upper | Layer::New) => Source::Changed,
            // On a root that shares its file system with volumes, the two cannot be told apart.
            None if container.root_dev.is_some_and(|root| root != self.file.dev) => Source::Volume,
            Some(Layer::Lower) | None => Source::Expected,
        }
    }

    /// The arguments of the process, `argv[0]` first; none if they are not known.
    pub(super) fn args(&self) -> impl Iterator<Item = &'a [u8]> {
        self.actor.and_then(|actor| actor.args()).into_iter().flat_map(Args::iter)
    }

    /// The technique that the act shows by itself: T1129 (shared modules) if the code was loaded into a process. How a
    /// program came to be executed is not in the event.
    pub(super) fn technique(&self) -> &'static [&'static str] {
        match self.how {
            How::Executed | How::Interpreted | How::Read => &[],
            How::Mapped => &["T1129"],
        }
    }

    /// The description of the file in a finding.
    pub(super) fn describe_file(&self) -> finding::File {
        describe::code_file(self.file, self.path)
    }

    /// The message `PATH, which is STATE, executed in CONTAINER (how it came there)`, or a similar one.
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
            How::Read => format!("{path}, which is {state}, run in {container} by {exe} ({origin})"),
            How::Mapped => format!("{path}, which is {state}, loaded in {container} by {exe} ({origin})"),
        }
    }
}
