//! Measures the cost of an event in user space, from the bytes of a record to a line of JSON.

use std::hint::black_box;

use detector::container::table::TrackedContainer;
use detector::detect::{Context, Detector};
use detector::finding::Line;
use detector::output::json;
use detector::redact::Redactor;
use detector::sensor::decode::decode;
use detector_common::record::Kind;
use detector_common::vocabulary::ImageOp;
use divan::Bencher;
use divan::counter::ItemsCount;
use records::Record;

mod records;

fn main() {
    divan::main();
}

fn image_write() -> Record {
    Record::act(Kind::ImageChange, ImageOp::OpenWrite.number(), b"app.conf\0conf.d\0etc\0")
}

fn other_exec() -> Record {
    Record::exec(b"python3.12\0bin\0usr\0", b"python3\0/srv/app/main.py\0--workers=4\0")
}

fn shell() -> Record {
    Record::exec(b"busybox\0bin\0", b"sh\0-c\0id && uname -a\0")
}

/// Measures the decoding alone, to show where the time goes.
#[divan::bench]
fn decode_exec(bencher: Bencher<'_, '_>) {
    let record = other_exec();
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| decode(black_box(record.bytes())));
}

/// Measures an execution without a finding, which is the most frequent event.
#[divan::bench]
fn exec_without_finding(bencher: Bencher<'_, '_>) {
    run(bencher, &other_exec(), false);
}

/// Measures a shell up to its line of JSON.
#[divan::bench]
fn shell_to_json(bencher: Bencher<'_, '_>) {
    run(bencher, &shell(), true);
}

/// Measures a write to an image up to its line of JSON.
#[divan::bench]
fn image_write_to_json(bencher: Bencher<'_, '_>) {
    run(bencher, &image_write(), true);
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
