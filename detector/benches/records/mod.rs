//! Puts records together, as the probes do.

use std::mem::offset_of;

use detector_common::record::{self, ExecRecord, File, FileRecord, Header, Kind, Process, Span};
use detector_common::vocabulary::{Layer, Origin};

/// A record with the alignment that it has in the ring buffer.
pub(crate) struct Record {
    words: Vec<u64>,
    size: usize,
}

impl Record {
    /// A record of this size without texts, in which everything but its kind and its container is 0.
    pub(crate) fn new(kind: Kind, size: usize) -> Self {
        let mut record = Self { words: vec![0; size.div_ceil(8)], size };
        record.put(offset_of!(Header, kind), &kind.number().to_ne_bytes());
        record.put(offset_of!(Header, size), &(size as u32).to_ne_bytes());
        record.put(offset_of!(Header, container), &500_u64.to_ne_bytes());
        record
    }

    /// Sets the bytes at `offset`.
    pub(crate) fn put(&mut self, offset: usize, value: &[u8]) {
        zerocopy::IntoBytes::as_mut_bytes(self.words.as_mut_slice())[offset..][..value.len()].copy_from_slice(value);
    }

    /// Describes a text at `offset`, and adds its bytes. Texts must be added in the order of their fields.
    pub(crate) fn text(&mut self, offset: usize, text: &[u8]) {
        self.put(offset + offset_of!(Span, len), &(text.len() as u32).to_ne_bytes());
        let start = self.size;
        self.size += text.len();
        self.words.resize(self.size.div_ceil(8), 0);
        self.put(start, text);
        self.put(offset_of!(Header, size), &(self.size as u32).to_ne_bytes());
    }

    /// Describes a process at `offset`.
    pub(crate) fn process(&mut self, offset: usize) {
        self.put(offset + offset_of!(Process, pid), &1234_u32.to_ne_bytes());
        self.put(offset + offset_of!(Process, origin), &Origin::Application.number().to_ne_bytes());
        self.put(offset + offset_of!(Process, comm), b"python3");
        for nth in 0..4 {
            let ancestor = offset + offset_of!(Process, ancestors) + nth * size_of::<record::Ancestor>();
            self.put(ancestor + offset_of!(record::Ancestor, pid), &(1200 - nth as u32).to_ne_bytes());
            self.put(ancestor + offset_of!(record::Ancestor, comm), b"containerd-shim");
        }
    }

    /// Describes a file at `offset`.
    pub(crate) fn file(&mut self, offset: usize) {
        self.put(offset + offset_of!(File, mode), &0o100_644_u32.to_ne_bytes());
        self.put(offset + offset_of!(File, nlink), &1_u32.to_ne_bytes());
        self.put(offset + offset_of!(File, layer), &Layer::Lower.number().to_ne_bytes());
    }

    /// An executed program. `path` has its names as a record has them, and `args` the NULs.
    pub(crate) fn exec(path: &[u8], args: &[u8]) -> Self {
        let mut record = Self::new(Kind::Exec, size_of::<ExecRecord>());
        record.process(offset_of!(ExecRecord, process));
        record.file(offset_of!(ExecRecord, file));
        record.text(offset_of!(ExecRecord, path), path);
        record.text(offset_of!(ExecRecord, cwd), b"app\0srv\0");
        record.text(offset_of!(ExecRecord, args), args);
        record
    }

    /// Something that python3 did to a file. `op` is the number of the operation.
    pub(crate) fn act(kind: Kind, op: u32, path: &[u8]) -> Self {
        let mut record = Self::new(kind, size_of::<FileRecord>());
        record.process(offset_of!(FileRecord, process));
        record.file(offset_of!(FileRecord, file));
        record.put(offset_of!(FileRecord, op), &op.to_ne_bytes());
        record.text(offset_of!(FileRecord, path), path);
        record.text(offset_of!(FileRecord, exe), b"python3.12\0bin\0usr\0");
        record
    }

    /// The bytes of the record.
    pub(crate) fn bytes(&self) -> &[u8] {
        &zerocopy::IntoBytes::as_bytes(self.words.as_slice())[..self.size]
    }
}
