//! `device_write`: a container opened a block device for writing. If there is a file system on the device, its files,
//! even those of the host, can be changed that way without any hook on files being called.
//!
//! **Severity**: critical. **MITRE ATT&CK**: T1611 (escape to host).

use super::assessment::Assessment;
use super::describe::{self, Actor};
use crate::container::table::TrackedContainer;
use crate::event::DeviceOpen;
use crate::finding::SeverityRule;

pub(super) fn detect(open: &DeviceOpen, actor: Option<&Actor>, container: &TrackedContainer) -> Assessment {
    let device = describe::path_or_inode(open.detail.as_ref(), &open.file);
    Assessment {
        rule: SeverityRule::DeviceWrite,
        message: describe::message(&format!("block device {device} opened for writing"), container, actor),
        file: Some(describe::changed_file(&open.file, open.detail.as_ref(), None)),
        mitre: &["T1611"],
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::*;
    use super::*;
    use crate::event::{Event, ImageChange, ImageOp, Layer};
    use crate::finding::{Kind, Severity};

    #[test]
    fn it_says_which_device() {
        let ImageChange { at, file, detail, .. } = change(ImageOp::OpenWrite, Layer::Lower, 0o060600, "/dev/vda");
        let event = Event::DeviceOpen(Box::new(DeviceOpen { at, file, detail }));
        let finding = found(event).expect("it is one");
        assert_eq!((finding.finding, finding.severity), (Kind::DeviceWrite, Severity::Critical));
        let message = "block device /dev/vda opened for writing in container 3f2a0c6d9e1b by python3.12";
        assert_eq!(finding.message, message);
    }
}
