//! `kernel_control_write`: a container opened for writing a file that names a program for the kernel to execute, such
//! as `/proc/sys/kernel/core_pattern` or a `release_agent`. The kernel executes it on the host with all privileges.
//!
//! **Severity**: critical. **MITRE ATT&CK**: T1611 (escape to host).

use super::assessment::Assessment;
use super::describe::{self, Actor};
use crate::container::table::TrackedContainer;
use crate::event::ControlOpen;
use crate::finding::SeverityRule;

pub(super) fn detect(open: &ControlOpen, actor: Option<&Actor>, container: &TrackedContainer) -> Assessment {
    let what =
        format!("{}, by which the kernel executes programs, opened for writing", describe::control(open.control));
    Assessment {
        rule: SeverityRule::KernelControlWrite,
        message: describe::message(&what, container, actor),
        file: Some(describe::control_file(open)),
        mitre: &["T1611"],
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::*;
    use super::*;
    use crate::event::{Control, Event};
    use crate::finding::{Kind, Severity};

    #[test]
    fn it_says_which_control() {
        let open = control_open(Control::CorePattern);
        let finding = found(Event::ControlOpen(Box::new(open.clone()))).expect("it is one");
        assert_eq!((finding.finding, finding.severity), (Kind::KernelControlWrite, Severity::Critical));
        let message = "/proc/sys/kernel/core_pattern, by which the kernel executes programs, opened for writing in \
            container 3f2a0c6d9e1b by python3.12";
        assert_eq!(finding.message, message);
        let file = finding.file.expect("it is about one");
        assert_eq!(file.path.expect("it has one").as_str(), "/proc/sys/kernel/core_pattern");

        let lost = found(Event::ControlOpen(Box::new(ControlOpen { detail: None, ..open }))).expect("it is one");
        assert_eq!(lost.message, message.trim_end_matches(" by python3.12"));
    }
}
