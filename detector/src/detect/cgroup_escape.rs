//! `cgroup_escape`: a process of a container was moved to a cgroup outside the container, by a process of a container.
//! Tools that attribute processes by their cgroups then attribute it to the host, and the container's limits no longer
//! apply to it.
//!
//! **Severity**: critical. **MITRE ATT&CK**: T1611 (escape to host).

use super::assessment::Assessment;
use super::describe::{self, Actor};
use crate::container::table::TrackedContainer;
use crate::event::CgroupEscape;
use crate::finding::SeverityRule;

pub(super) fn detect(escape: &CgroupEscape, actor: &Actor, container: &TrackedContainer) -> Assessment {
    let moved =
        if escape.moved == escape.process.pid { "itself".to_owned() } else { format!("process {}", escape.moved) };
    Assessment {
        rule: SeverityRule::CgroupEscape,
        message: format!(
            "{} moved {moved} out of {} to cgroup {}",
            actor.name(),
            describe::container_name(container),
            describe::text(&escape.cgroup),
        ),
        file: None,
        mitre: &["T1611"],
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::*;
    use super::*;
    use crate::event::{At, Event, Origin};

    #[test]
    fn it_says_who_went_where() {
        let mut escape = CgroupEscape {
            at: At { time: 99, number: 3, cgroup: 1, container: 500 },
            process: process(Origin::Application),
            exe: path("/usr/bin/python3.12"),
            moved: 1234,
            cgroup: b"/system.slice".to_vec(),
        };
        let message =
            |escape: &CgroupEscape| found(Event::CgroupEscape(Box::new(escape.clone()))).expect("it is one").message;
        assert_eq!(message(&escape), "python3.12 moved itself out of container 3f2a0c6d9e1b to cgroup /system.slice");
        escape.moved = 7;
        assert!(message(&escape).contains("moved process 7 out of"));
    }
}
