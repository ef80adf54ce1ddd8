//! `device_write`: a container opened a block device for writing. Under a file system, that changes every file on it, the
//! host's as well, past all that watches files.
//!
//! **How severe**: critical. **MITRE ATT&CK**: T1611 (escape to host).

use super::{Context, Program, Verdict, describe};
use crate::container::table::Container;
use crate::event::ImageWrite;
use crate::finding::{Kind, Severity};

pub(super) fn detect(
    write: &ImageWrite,
    program: Option<&Program>,
    container: &Container,
    context: &Context,
) -> Verdict {
    let device =
        write.path.as_ref().map_or_else(|| "a device".to_owned(), |path| describe::text(&path.bytes).to_string());
    Verdict {
        finding: Kind::DeviceWrite,
        severity: Severity::Critical,
        message: format!(
            "block device {device} opened for writing in {}{}",
            describe::container_name(container),
            describe::by(write)
        ),
        process: describe::actor(write, program, context),
        file: Some(describe::changed_file(write)),
        mitre: &["T1611"],
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::*;
    use super::*;
    use crate::event::{Event, Layer, Op};

    #[test]
    fn it_says_which_device() {
        let event = Event::ImageWrite(Box::new(write(Op::DeviceWrite, Layer::Lower, 0o060600, "/dev/vda")));
        let finding = found(event).expect("it is one");
        assert_eq!((finding.finding, finding.severity), (Kind::DeviceWrite, Severity::Critical));
        let message = "block device /dev/vda opened for writing in container 3f2a0c6d9e1b by python3.12";
        assert_eq!(finding.message, message);
    }
}
