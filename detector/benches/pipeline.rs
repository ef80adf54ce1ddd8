//! Measures the cost of an event in user space, from the bytes of a record to a line of JSON.

use std::hint::black_box;
use std::mem::offset_of;

use detector::container::table::TrackedContainer;
use detector::detect::{Context, Detector};
use detector::finding::Line;
use detector::output::json;
use detector::redact::Redactor;
use detector::sensor::decode::decode;
use detector_common::record::{self, ExecRecord, File, FileRecord, Header, Kind, Process, Span};
use detector_common::vocabulary::{ImageOp, Layer, Origin};
use divan::Bencher;
use divan::counter::ItemsCount;

fn main() {
    divan::main();
}

/// A record with the alignment that it has in the ring buffer.
struct Record {
    words: Vec<u64>,
    size: usize,
}

impl Record {
    fn new(kind: Kind, size: usize) -> Self {
        let mut record = Self { words: vec![0; size.div_ceil(8)], size };
        record.put(offset_of!(Header, kind), &kind.number().to_ne_bytes());
        record.put(offset_of!(Header, size), &(size as u32).to_ne_bytes());
        record.put(offset_of!(Header, container), &500_u64.to_ne_bytes());
        record
    }

    fn put(&mut self, offset: usize, value: &[u8]) {
        zerocopy::IntoBytes::as_mut_bytes(self.words.as_mut_slice())[offset..][..value.len()].copy_from_slice(value);
    }

    /// Describes a text at `offset`, and adds its bytes. Texts must be added in the order of their fields.
    fn text(&mut self, offset: usize, text: &[u8]) {
        self.put(offset + offset_of!(Span, len), &(text.len() as u32).to_ne_bytes());
        let start = self.size;
        self.size += text.len();
        self.words.resize(self.size.div_ceil(8), 0);
        self.put(start, text);
        self.put(offset_of!(Header, size), &(self.size as u32).to_ne_bytes());
    }

    fn process(&mut self, offset: usize) {
        self.put(offset + offset_of!(Process, pid), &1234_u32.to_ne_bytes());
        self.put(offset + offset_of!(Process, origin), &Origin::Application.number().to_ne_bytes());
        self.put(offset + offset_of!(Process, comm), b"python3");
        for nth in 0..4 {
            let ancestor = offset + offset_of!(Process, ancestors) + nth * size_of::<record::Ancestor>();
            self.put(ancestor + offset_of!(record::Ancestor, pid), &(1200 - nth as u32).to_ne_bytes());
            self.put(ancestor + offset_of!(record::Ancestor, comm), b"containerd-shim");
        }
    }

    fn file(&mut self, offset: usize) {
        self.put(offset + offset_of!(File, mode), &0o100_644_u32.to_ne_bytes());
        self.put(offset + offset_of!(File, nlink), &1_u32.to_ne_bytes());
        self.put(offset + offset_of!(File, layer), &Layer::Lower.number().to_ne_bytes());
    }

    fn exec(path: &[u8], args: &[u8]) -> Self {
        let mut record = Self::new(Kind::Exec, size_of::<ExecRecord>());
        record.process(offset_of!(ExecRecord, process));
        record.file(offset_of!(ExecRecord, file));
        record.text(offset_of!(ExecRecord, path), path);
        record.text(offset_of!(ExecRecord, cwd), b"app\0srv\0");
        record.text(offset_of!(ExecRecord, args), args);
        record
    }

    fn image_write() -> Self {
        let mut record = Self::new(Kind::ImageChange, size_of::<FileRecord>());
        record.process(offset_of!(FileRecord, process));
        record.file(offset_of!(FileRecord, file));
        record.put(offset_of!(FileRecord, op), &ImageOp::OpenWrite.number().to_ne_bytes());
        record.text(offset_of!(FileRecord, path), b"app.conf\0conf.d\0etc\0");
        record.text(offset_of!(FileRecord, exe), b"python3.12\0bin\0usr\0");
        record
    }

    fn other_exec() -> Self {
        Self::exec(b"python3.12\0bin\0usr\0", b"python3\0/srv/app/main.py\0--workers=4\0")
    }

    fn shell() -> Self {
        Self::exec(b"busybox\0bin\0", b"sh\0-c\0id && uname -a\0")
    }

    fn bytes(&self) -> &[u8] {
        &zerocopy::IntoBytes::as_bytes(self.words.as_slice())[..self.size]
    }
}

/// Measures the decoding alone, to show where the time goes.
#[divan::bench]
fn decode_exec(bencher: Bencher<'_, '_>) {
    let record = Record::other_exec();
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| decode(black_box(record.bytes())));
}

/// Measures an execution without a finding, which is the most frequent event.
#[divan::bench]
fn exec_without_finding(bencher: Bencher<'_, '_>) {
    run(bencher, &Record::other_exec(), false);
}

/// Measures a shell up to its line of JSON.
#[divan::bench]
fn shell_to_json(bencher: Bencher<'_, '_>) {
    run(bencher, &Record::shell(), true);
}

/// Measures a write to an image up to its line of JSON.
#[divan::bench]
fn image_write_to_json(bencher: Bencher<'_, '_>) {
    run(bencher, &Record::image_write(), true);
}

fn run(bencher: Bencher<'_, '_>, record: &Record, is_finding: bool) {
    let container = TrackedContainer::new(500, format!("/system.slice/docker-{:064x}.scope", 7).into_bytes());
    let context = Context::new(
        "node-1".into(),
        "c1b24ba7-7f4d-4a52-a8b5-6ab5b2bb0c39",
        1_800_000_000_000_000_000,
        Redactor::default(),
    );
    let mut detector = Detector::default();
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        let event = decode(black_box(record.bytes())).expect("the record is whole");
        let mut line = None;
        detector.detect(&event, &container, &context, |finding| {
            line = Some(json::line(&Line::Finding(Box::new(finding))));
        });
        assert_eq!(line.is_some(), is_finding);
        line
    });
}
