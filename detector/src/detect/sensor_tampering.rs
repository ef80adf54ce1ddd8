//! `sensor_tampering`: a process of a container or of the host opened for writing a file that switches off probes,
//! among them those of the sensor, called bpf(2) to change a map of the sensor, sent the sensor a signal that stops or
//! ends it, or asked for its memory, registers or descriptors. To list and to read maps is no finding, and neither is a
//! signal of the sensor's service manager.
//!
//! **Severity**: critical. A process of the host may end the sensor in the usual way, with SIGTERM or SIGINT; that is
//! medium. **MITRE ATT&CK**: T1562.001 (disable or modify tools).

use std::borrow::Cow;

use super::assessment::Assessment;
use super::describe::{self, Actor};
use crate::container::table::TrackedContainer;
use crate::event::{ControlOpen, MapCommand, Tampering, TamperingAct};
use crate::finding::SeverityRule;

pub(super) fn detect_switch(open: &ControlOpen, actor: Option<&Actor>, container: &TrackedContainer) -> Assessment {
    let what = format!("{}, the switch of the sensor's probes, opened for writing", describe::control(open.control));
    Assessment {
        rule: SeverityRule::Tampering,
        message: describe::message(&what, container, actor),
        file: Some(describe::control_file(open)),
        mitre: &["T1562.001"],
    }
}

pub(super) fn detect(tampering: &Tampering, actor: &Actor, container: &TrackedContainer) -> Assessment {
    let (what, is_usual) = match tampering.act {
        TamperingAct::MapChange { command, map } => {
            // The kernel refuses this for some maps.
            let wanted = match command {
                MapCommand::Update | MapCommand::UpdateBatch => "change entries",
                MapCommand::Delete | MapCommand::DeleteBatch | MapCommand::Take | MapCommand::TakeBatch => {
                    "delete entries"
                }
                MapCommand::Freeze => "make it read-only",
            };
            (format!("the sensor's map {}: bpf(2) called to {wanted}", describe::text(map.as_bytes())), false)
        }
        TamperingAct::Signal(signal) => (
            format!("{} sent to the sensor", signal_name(signal)),
            matches!(signal, INTERRUPT | TERMINATE) && tampering.at.container == 0,
        ),
        TamperingAct::Trace => (
            "memory, registers or descriptors of the sensor requested, as by ptrace(2) or pidfd_getfd(2)".into(),
            false,
        ),
        TamperingAct::Memory => {
            ("/proc/PID/mem of the sensor opened, or the state of its threads read".to_owned(), false)
        }
    };
    Assessment {
        rule: if is_usual { SeverityRule::UsualEnd } else { SeverityRule::Tampering },
        message: describe::message(&what, container, Some(actor)),
        file: None,
        mitre: &["T1562.001"],
    }
}

/// The signals that end a program in the usual way.
const INTERRUPT: u32 = libc::SIGINT.cast_unsigned();
const TERMINATE: u32 = libc::SIGTERM.cast_unsigned();

/// The name of a signal, if it is one of the better known ones.
fn signal_name(signal: u32) -> Cow<'static, str> {
    let name = match signal.cast_signed() {
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGABRT => "SIGABRT",
        libc::SIGKILL => "SIGKILL",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGTERM => "SIGTERM",
        libc::SIGSTOP => "SIGSTOP",
        libc::SIGTSTP => "SIGTSTP",
        _ => return format!("signal {signal}").into(),
    };
    name.into()
}

#[cfg(test)]
mod tests {
    use super::super::samples::*;
    use super::*;
    use crate::detect::{Detector, describe};
    use crate::event::{At, Control, Event, Origin};
    use crate::finding::{Kind, Severity};

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

    fn tampering(act: TamperingAct, container: u64) -> Event {
        let ControlOpen { at, detail, .. } = control_open(Control::Kprobes);
        let detail = detail.expect("the sample has it");
        let at = At { container, ..at };
        Event::Tampering(Box::new(Tampering { at, process: detail.process, exe: detail.exe, act }))
    }

    #[test]
    fn it_says_what_was_done() {
        let map = TamperingAct::MapChange { command: MapCommand::DeleteBatch, map: name("ROOTS") };
        for (act, container, severity, message) in [
            (map, 500, Severity::Critical, "the sensor's map ROOTS: bpf(2) called to delete entries in"),
            (TamperingAct::Signal(9), 0, Severity::Critical, "SIGKILL sent to the sensor"),
            (TamperingAct::Signal(15), 0, Severity::Medium, "SIGTERM sent to the sensor"),
            (TamperingAct::Signal(15), 500, Severity::Critical, "SIGTERM sent to the sensor"),
            (TamperingAct::Signal(34), 500, Severity::Critical, "signal 34 sent to the sensor"),
            (TamperingAct::Trace, 0, Severity::Critical, "memory, registers or descriptors of the sensor requested"),
            (TamperingAct::Memory, 0, Severity::Critical, "/proc/PID/mem of the sensor opened"),
        ] {
            let finding = found(tampering(act, container)).expect("it is one");
            assert_eq!(finding.severity, severity, "{act:?}");
            assert!(finding.message.starts_with(message), "{}", finding.message);
        }
    }
}
