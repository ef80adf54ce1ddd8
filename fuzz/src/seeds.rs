//! Seeds that follow the layout of the records. The others are files in `fuzz/corpus`.

use std::mem::offset_of;
use std::path::PathBuf;
use std::{env, fs};

use detector_common::record::{CgroupEscapeRecord, CgroupRecord, ExecRecord, FileRecord, Kind, Process, ScriptRecord};
use detector_common::vocabulary::{ImageOp, MountOp, Origin};
use records::Record;

#[path = "../../detector/benches/records/mod.rs"]
mod records;

/// Writes the records to the folder that the environment names, each to a file, and all of them to another one.
pub(crate) fn write() {
    let Some(folder) = env::var_os("DETECTOR_FUZZ_RECORDS").map(PathBuf::from) else { return };
    let mut all = Vec::new();
    for (nth, record) in records().iter().enumerate() {
        fs::write(folder.join(format!("record-{nth}")), record.bytes()).expect("the folder can be written");
        all.resize(all.len().next_multiple_of(8), 0);
        all.extend_from_slice(record.bytes());
    }
    fs::write(folder.join("records"), all).expect("the folder can be written");
}

/// A record of each kind, in an order in which they can come.
fn records() -> Vec<Record> {
    let scope = format!("/system.slice/docker-{:064x}.scope", 7);
    let mut shell = Record::exec(b"busybox\0bin\0", b"sh\0-c\0mysql --password=hunter2 -h db\0");
    let process = offset_of!(ExecRecord, process);
    shell.put(process + offset_of!(Process, origin), &Origin::Entered.number().to_ne_bytes());
    shell.put(process + offset_of!(Process, tty), b"pts0");
    let interpreter = Record::exec(b"python3.12\0bin\0usr\0", b"/usr/bin/python3\0-u\0/srv/app/main.py\0--workers=4\0");
    let change = |op: ImageOp, path: &[u8]| Record::act(Kind::ImageChange, op.number(), path);
    let mut chmod = change(ImageOp::Chmod, b"su\0bin\0usr\0");
    chmod.put(offset_of!(FileRecord, value), &0o4755_u32.to_ne_bytes());
    let mut rename = Record::act(Kind::ImageMove, ImageOp::Rename.number(), b"app.conf\0etc\0");
    rename.text(offset_of!(FileRecord, new_path), b"app.conf.old\0tmp\0");
    vec![
        cgroup(Kind::CgroupCreated, scope.as_bytes()),
        shell,
        script(b"main.py\0app\0srv\0"),
        interpreter,
        change(ImageOp::OpenWrite, b"app.conf\0conf.d\0etc\0"),
        change(ImageOp::Create, b"\xffname\x1b[2J\0tmp\0"),
        chmod,
        rename,
        Record::act(Kind::MountChange, MountOp::Bind.number(), b"passwd\0etc\0"),
        Record::act(Kind::DeviceOpen, 0, b"vda\0dev\0"),
        Record::act(Kind::MapExec, 0, b"libc.so.6\0lib\0usr\0"),
        escape(b"/system.slice/ssh.service"),
        cgroup(Kind::CgroupRemoved, scope.as_bytes()),
    ]
}

fn script(path: &[u8]) -> Record {
    let mut record = Record::new(Kind::Script, size_of::<ScriptRecord>());
    record.put(offset_of!(ScriptRecord, pid), &1234_u32.to_ne_bytes());
    record.file(offset_of!(ScriptRecord, file));
    record.text(offset_of!(ScriptRecord, path), path);
    record
}

fn escape(to: &[u8]) -> Record {
    let mut record = Record::new(Kind::CgroupEscape, size_of::<CgroupEscapeRecord>());
    record.process(offset_of!(CgroupEscapeRecord, process));
    record.text(offset_of!(CgroupEscapeRecord, exe), b"tee\0bin\0usr\0");
    record.text(offset_of!(CgroupEscapeRecord, cgroup), to);
    record
}

fn cgroup(kind: Kind, path: &[u8]) -> Record {
    let mut record = Record::new(kind, size_of::<CgroupRecord>());
    record.put(offset_of!(CgroupRecord, header.cgroup), &500_u64.to_ne_bytes());
    record.text(offset_of!(CgroupRecord, path), path);
    record
}
