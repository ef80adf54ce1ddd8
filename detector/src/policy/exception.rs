//! Exceptions: which findings somebody has decided to expect, why, who answers for that, and until when. Their
//! conditions are also those of overrides.

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::pattern::PathPattern;
use super::selection::{Selection, is_wider};
use crate::finding::{Kind, Op, Origin, Severity, Time, Via};

/// What stands for what a person must write, in an exception that is proposed.
pub const TO_FILL_IN: &str = "…";

/// An exception of the policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exception {
    /// Its name. No other exception has it.
    pub name: String,
    /// Why there is this exception.
    pub reason: String,
    /// Who answers for it.
    pub owner: String,
    /// From when on it does not hold any more. Without this, it holds for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Time>,
    /// Which findings it is about.
    pub conditions: Conditions,
}

impl Exception {
    /// Its last moment, for people, if it has one. A date in the file means the end of that day.
    pub fn end(&self) -> Option<String> {
        let end = self.expires?.0.to_zoned(TimeZone::UTC);
        let day = end.yesterday().ok().filter(|_| end.time() == jiff::civil::Time::midnight());
        Some(
            day.map_or_else(
                || format!("at {:.0}", end.timestamp()),
                |day| format!("at the end of {} (UTC)", day.date()),
            ),
        )
    }

    /// Whether the exception does not hold any more at this time.
    pub fn has_expired(&self, now: Time) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// The conditions of an exception or an override. All that are given must hold. If one is a list, one of the list must.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions {
    /// The kinds of findings. There is at least one, and none of those that [`refusal`] knows.
    pub finding: Vec<Kind>,
    /// The highest severity by the detector's rules of a finding that they are about.
    pub severity_at_most: Severity,
    /// What was done to the file or mount.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operation: Vec<Op>,
    /// How the process came into the container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub origin: Vec<Origin>,
    /// How the session began.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub via: Vec<Via>,
    /// The path of the file that is changed or executed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub path: Vec<PathPattern>,
    /// The executable of the process, which must be a file of the image's lower layers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exe: Vec<PathPattern>,
    /// The executable of an ancestor in the container, likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ancestor: Vec<PathPattern>,
    /// The script that the process runs, likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub script: Vec<PathPattern>,
    /// What the runtime tells of the container.
    #[serde(flatten)]
    pub selection: Selection,
}

impl Conditions {
    /// The highest severity that conditions can be about, and that they are about if they name none.
    pub const HIGHEST: Severity = Severity::High;

    /// Whether there is no condition but the kind and the severity of the finding.
    pub fn is_unlimited(&self) -> bool {
        let any = Self { finding: self.finding.clone(), severity_at_most: self.severity_at_most, ..Self::default() };
        *self == any
    }

    /// Whether every finding that fulfils `other` is certain to fulfil these conditions too. Patterns are compared as
    /// they are written, so not every such case is found.
    pub fn cover(&self, other: &Self) -> bool {
        self.severity_at_most >= other.severity_at_most
            && is_wider(&self.finding, &other.finding)
            && is_wider(&self.operation, &other.operation)
            && is_wider(&self.origin, &other.origin)
            && is_wider(&self.via, &other.via)
            && is_wider(&self.path, &other.path)
            && is_wider(&self.exe, &other.exe)
            && is_wider(&self.ancestor, &other.ancestor)
            && is_wider(&self.script, &other.script)
            && self.selection.is_wider_than(&other.selection)
    }
}

/// No conditions, not even a kind of finding.
impl Default for Conditions {
    fn default() -> Self {
        Self {
            finding: Vec::new(),
            severity_at_most: Self::HIGHEST,
            operation: Vec::new(),
            origin: Vec::new(),
            via: Vec::new(),
            path: Vec::new(),
            exe: Vec::new(),
            ancestor: Vec::new(),
            script: Vec::new(),
            selection: Selection::default(),
        }
    }
}

/// Why there can be no exception for findings of this kind, and no override, or `None` if there can be one.
pub const fn refusal(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::CgroupEscape => Some("a process that leaves its container's cgroup is out of reach of all limits"),
        Kind::DeviceWrite => Some("whoever writes to a block device can change any file on it, unseen"),
        Kind::HandleOpen => Some("a file that is opened by its handle can be any file of the host"),
        Kind::HostExec => Some("a file of a container was executed on the host"),
        Kind::KernelControlWrite => Some("it makes the kernel execute a program of the container's choice on the host"),
        Kind::SensorTampering => Some("it can blind the detector"),
        Kind::TestAlert => Some("it tests whether findings arrive"),
        Kind::ShellInContainer
        | Kind::ImageWrite
        | Kind::ImageShadowed
        | Kind::DriftedExec
        | Kind::FilelessExec
        | Kind::VolumeExec
        | Kind::Session => None,
    }
}

/// Why there can be no exception for sessions that began like this, and no override, or `None` if there can be one.
pub const fn refusal_of_sessions(via: Via) -> Option<&'static str> {
    match via {
        Via::Socket => Some("a program that takes commands from a socket is critical"),
        Via::Application => Some("such a session is told because of an act in it, which has a finding of its own"),
        Via::Exec | Via::Nsenter | Via::Entrypoint | Via::Terminal => None,
    }
}

/// The keys of conditions that no finding of this kind fulfils, and why.
pub const fn unfulfilled(kind: Kind) -> &'static [(&'static str, &'static str)] {
    const NO_OPERATION: (&str, &str) = ("operation", "it is about what was executed, and not about a change");
    const MOUNTED: (&str, &str) = ("path", "whoever can mount something decides which path that is");
    match kind {
        Kind::Session => &[
            ("operation", "a session has many operations, and each has a finding of its own"),
            ("path", "a session changes many files, and each has a finding of its own"),
        ],
        Kind::VolumeExec | Kind::FilelessExec => &[NO_OPERATION, MOUNTED],
        Kind::ShellInContainer | Kind::DriftedExec => &[NO_OPERATION],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::ImageOp;

    fn paths(texts: &[&str]) -> Vec<PathPattern> {
        texts.iter().map(|text| text.parse().expect("it is a pattern")).collect()
    }

    fn writes(path: &[&str]) -> Conditions {
        Conditions { finding: vec![Kind::ImageWrite], path: paths(path), ..Conditions::default() }
    }

    #[test]
    fn an_exception_is_read_back_as_it_was() {
        let exception = Exception {
            name: "backup".to_owned(),
            reason: "It writes its state.".to_owned(),
            owner: "storage".to_owned(),
            expires: Some("2027-03-01T00:00:00Z".parse().expect("it is a time")),
            conditions: Conditions {
                operation: vec![Op::Image(ImageOp::Create)],
                selection: Selection {
                    image: vec!["backup:*".parse().expect("it is a pattern")],
                    labels: [("team".to_owned(), "storage".parse().expect("it is a pattern"))].into(),
                    ..Selection::default()
                },
                ..writes(&["/srv/**"])
            },
        };
        let json = serde_json::to_string(&exception).expect("it can be written");
        assert_eq!(serde_json::from_str::<Exception>(&json).expect("it can be read back"), exception, "{json}");
    }

    #[test]
    fn an_exception_expires_at_its_time() {
        let time = |text: &str| text.parse::<Time>().expect("it is a time");
        let exception = Exception {
            name: String::new(),
            reason: String::new(),
            owner: String::new(),
            expires: Some(time("2027-03-01T00:00:00Z")),
            conditions: writes(&[]),
        };
        assert!(!exception.has_expired(time("2027-02-28T23:59:59Z")));
        assert!(exception.has_expired(time("2027-03-01T00:00:00Z")));
        assert!(!Exception { expires: None, ..exception }.has_expired(time("2999-01-01T00:00:00Z")));
    }

    #[test]
    fn wider_conditions_cover_narrower_ones() {
        let (any, one, two) = (writes(&[]), writes(&["/a"]), writes(&["/a", "/b"]));
        assert!(any.is_unlimited() && !one.is_unlimited());
        for (wide, narrow) in [(&any, &one), (&two, &one), (&any, &two), (&one, &one)] {
            assert!(wide.cover(narrow), "{wide:?} {narrow:?}");
            assert_eq!(narrow.cover(wide), wide == narrow, "{wide:?} {narrow:?}");
        }
        let low = Conditions { severity_at_most: Severity::Low, ..any.clone() };
        assert!(any.cover(&low) && !low.cover(&any));
        let labelled = Selection {
            labels: [("a".to_owned(), "b".parse().expect("it is a pattern"))].into(),
            ..Selection::default()
        };
        let labelled = Conditions { selection: labelled, ..any.clone() };
        assert!(any.cover(&labelled) && !labelled.cover(&any));
        let shells = Conditions { finding: vec![Kind::ShellInContainer], ..any.clone() };
        assert!(!any.cover(&shells));
    }

    #[test]
    fn what_is_always_critical_or_leads_out_has_no_exception() {
        let refused: Vec<_> = Kind::ALL.into_iter().filter(|kind| refusal(*kind).is_some()).map(Kind::name).collect();
        assert_eq!(
            refused,
            [
                "device_write",
                "cgroup_escape",
                "kernel_control_write",
                "sensor_tampering",
                "handle_open",
                "host_exec",
                "test_alert"
            ]
        );
    }
}
