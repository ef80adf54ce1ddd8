//! Seeds that follow the layout of the records. The others are files in `fuzz/corpus`.

use std::mem::offset_of;
use std::path::PathBuf;
use std::{env, fs};

use detector_common::record::{CgroupEscapeRecord, CgroupRecord, ExecRecord, FileRecord, Kind, Process, ScriptRecord};
use detector_common::vocabulary::{ImageOp, MountOp, Origin};
use records::Record;

#[path = "../../detector/benches/records/mod.rs"]
mod records;

/// Writes the records to the folder that the environment names, each to a file, and those that belong together to
/// another one.
pub(crate) fn write() {
    let Some(folder) = env::var_os("DETECTOR_FUZZ_RECORDS").map(PathBuf::from) else { return };
    let write = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).expect("the folder can be written");
    let sequence = sequence();
    let mut all = Vec::new();
    for record in &sequence {
        all.resize(all.len().next_multiple_of(8), 0);
        all.extend_from_slice(record.bytes());
    }
    write("sequence", &all);
    for (nth, record) in sequence.into_iter().chain(acts()).enumerate() {
        write(&format!("record-{nth}"), record.bytes());
    }
}

/// A container that starts and runs a script.
fn sequence() -> [Record; 3] {
    let interpreter = Record::exec(b"python3.12\0bin\0usr\0", b"/usr/bin/python3\0-u\0/srv/app/main.py\0--workers=4\0");
    [cgroup(Kind::CgroupCreated), script(b"main.py\0app\0srv\0"), interpreter]
}

/// Every other kind of record, with every operation.
fn acts() -> Vec<Record> {
    let mut shell = Record::exec(b"busybox\0bin\0", b"sh\0-c\0mysql --password=hunter2 -h db\0");
    let process = offset_of!(ExecRecord, process);
    shell.put(process + offset_of!(Process, origin), &Origin::Entered.number().to_ne_bytes());
    shell.put(process + offset_of!(Process, tty), b"pts0");
    let hostile = Record::act(Kind::ImageChange, ImageOp::Create.number(), b"\xffname\x1b[2J\0tmp\0");
    let mut rename = Record::act(Kind::ImageMove, ImageOp::Rename.number(), b"app.conf\0etc\0");
    rename.text(offset_of!(FileRecord, new_path), b"app.conf.old\0tmp\0");
    let device = Record::act(Kind::DeviceOpen, 0, b"vda\0dev\0");
    let mapped = Record::act(Kind::MapExec, 0, b"libc.so.6\0lib\0usr\0");
    let mut all = vec![shell, hostile, rename, device, mapped, escape(), cgroup(Kind::CgroupRemoved)];
    all.extend(ImageOp::ALL.iter().map(|op| Record::act(Kind::ImageChange, op.number(), b"su\0bin\0usr\0")));
    all.extend(MountOp::ALL.iter().map(|op| Record::act(Kind::MountChange, op.number(), b"passwd\0etc\0")));
    all
}

fn script(path: &[u8]) -> Record {
    let mut record = Record::new(Kind::Script, size_of::<ScriptRecord>());
    record.put(offset_of!(ScriptRecord, pid), &1234_u32.to_ne_bytes());
    record.file(offset_of!(ScriptRecord, file));
    record.text(offset_of!(ScriptRecord, path), path);
    record
}

fn escape() -> Record {
    let mut record = Record::new(Kind::CgroupEscape, size_of::<CgroupEscapeRecord>());
    record.process(offset_of!(CgroupEscapeRecord, process));
    record.text(offset_of!(CgroupEscapeRecord, exe), b"tee\0bin\0usr\0");
    record.text(offset_of!(CgroupEscapeRecord, cgroup), b"/system.slice/ssh.service");
    record
}

fn cgroup(kind: Kind) -> Record {
    let mut record = Record::new(kind, size_of::<CgroupRecord>());
    record.put(offset_of!(CgroupRecord, header.cgroup), &500_u64.to_ne_bytes());
    let path = format!("/system.slice/docker-{:064x}.scope", 7);
    record.text(offset_of!(CgroupRecord, path), path.as_bytes());
    record
}
