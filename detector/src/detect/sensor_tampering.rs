//! `sensor_tampering`: a process of a container or of the host opened for writing a file that switches off probes,
//! among them those of the sensor, or changed a map of the sensor with bpf(2). To list and to read maps is no finding.
//!
//! **Severity**: critical. **MITRE ATT&CK**: T1562.001 (disable or modify tools).

use super::assessment::Assessment;
use super::describe::{self, Actor};
use crate::container::table::TrackedContainer;
use crate::event::{ControlOpen, MapChange, MapCommand};
use crate::finding::{Kind, Severity};

pub(super) fn detect_switch(open: &ControlOpen, actor: Option<&Actor>, container: &TrackedContainer) -> Assessment {
    let what = format!("{}, the switch of the sensor's probes, opened for writing", describe::control(open.control));
    Assessment {
        finding: Kind::SensorTampering,
        severity: Severity::Critical,
        message: describe::message(&what, container, actor),
        file: Some(describe::control_file(open)),
        mitre: &["T1562.001"],
    }
}

pub(super) fn detect_change(change: &MapChange, actor: &Actor, container: &TrackedContainer) -> Assessment {
    let done = match change.command {
        MapCommand::Update | MapCommand::UpdateBatch => "entries changed",
        MapCommand::Delete | MapCommand::DeleteBatch | MapCommand::Take | MapCommand::TakeBatch => "entries deleted",
        MapCommand::Freeze => "made read-only",
    };
    let what = format!("the sensor's map {}: {done}", describe::text(change.map.as_bytes()));
    Assessment {
        finding: Kind::SensorTampering,
        severity: Severity::Critical,
        message: describe::message(&what, container, Some(actor)),
        file: None,
        mitre: &["T1562.001"],
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::*;
    use super::*;
    use crate::detect::{Detector, describe};
    use crate::event::{Control, Event, Origin};

    #[test]
    fn it_says_who_did_it_and_where() {
        let mut open = control_open(Control::Kprobes);
        let finding = found(Event::ControlOpen(Box::new(open.clone()))).expect("it is one");
        assert_eq!((finding.finding, finding.severity), (Kind::SensorTampering, Severity::Critical));
        let message = "/sys/kernel/debug/kprobes/enabled, the switch of the sensor's probes, opened for writing ";
        assert_eq!(finding.message, format!("{message}in container 3f2a0c6d9e1b by python3.12"));
        assert_eq!(finding.container, Some(describe::container(&container())));

        open.at.container = 0;
        open.detail.as_mut().expect("the sample has it").process.origin = Origin::Outside;
        let mut all = Vec::new();
        let host = TrackedContainer::new(0, Vec::new());
        Detector::default().detect(&Event::ControlOpen(Box::new(open)), &host, &context(), |found| all.push(found));
        assert_eq!(all.len(), 1);
        assert_eq!((&*all[0].message, &all[0].container), (&*format!("{message}on the host by python3.12"), &None));
    }

    #[test]
    fn it_says_what_was_done_to_which_map() {
        let ControlOpen { at, detail, .. } = control_open(Control::Kprobes);
        let detail = detail.expect("the sample has it");
        let change = MapChange {
            at,
            process: detail.process,
            exe: detail.exe,
            command: MapCommand::DeleteBatch,
            map: name("ROOTS"),
        };
        let finding = found(Event::MapChange(Box::new(change))).expect("it is one");
        let message = "the sensor's map ROOTS: entries deleted in container 3f2a0c6d9e1b by python3.12";
        assert_eq!((finding.severity, &*finding.message), (Severity::Critical, message));
    }
}
