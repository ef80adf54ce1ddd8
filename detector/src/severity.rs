//! Why a finding has its severity: the rows of the tables in README.md. Detections choose a row, and the severity
//! follows from it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::finding::{Kind, Severity, Via};

/// Defines the rows: the kind of finding, the severity, how a session began (if the row is about sessions), and when
/// the row applies.
macro_rules! rows {
    ($($rule:ident: $kind:ident, $severity:ident, [$($via:ident),*], $when:literal;)+) => {
        /// The rule by which a finding has its severity. Of the rules for a kind of finding, the first that applies
        /// counts.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum SeverityRule {
            $(#[doc = $when] $rule),+
        }

        impl SeverityRule {
            /// All rules, in the order of the tables.
            pub const ALL: &[Self] = &[$(Self::$rule),+];

            /// The kind of finding that the rule is about.
            pub const fn kind(self) -> Kind {
                match self { $(Self::$rule => Kind::$kind),+ }
            }

            /// The severity that follows from it.
            pub const fn severity(self) -> Severity {
                match self { $(Self::$rule => Severity::$severity),+ }
            }

            /// How the sessions began that it is about. It is empty for what is no session.
            pub const fn via(self) -> &'static [Via] {
                match self { $(Self::$rule => &[$(Via::$via),*]),+ }
            }

            /// When it applies.
            pub const fn when(self) -> &'static str {
                match self { $(Self::$rule => $when),+ }
            }
        }
    };
}

rows! {
    CgroupEscape: CgroupEscape, Critical, [], "always";
    DeviceWrite: DeviceWrite, Critical, [], "always";
    HostExec: HostExec, Critical, [], "always";
    KernelControlWrite: KernelControlWrite, Critical, [], "always";
    UsualEnd: SensorTampering, Medium, [], "a process of the host ends the detector with SIGTERM or SIGINT";
    Tampering: SensorTampering, Critical, [], "otherwise";
    HandleInside: HandleOpen, Low, [], "the file is known to be in the mount that it was opened through";
    HandleOutside: HandleOpen, Critical, [], "otherwise";
    TestAlert: TestAlert, High, [], "unless `--severity` says otherwise";
    ShellOnSocket: ShellInContainer, Critical, [], "it takes commands from a socket";
    ShellOnHost: ShellInContainer, Critical, [], "a process of the container started it on the host";
    ShellAtStart: ShellInContainer, Info, [], "it is the entrypoint of the container";
    ShellOnTerminal: ShellInContainer, High, [], "it has a terminal";
    Shell: ShellInContainer, Medium, [], "otherwise: a command from outside, or one of the application";
    Fileless: FilelessExec, High, [], "always";
    DriftOfMetadata: DriftedExec, Low, [],
        "the content is that of the image, and neither set-id bits nor capabilities were added";
    Drift: DriftedExec, High, [], "otherwise";
    VolumeChanged: VolumeExec, High, [], "the file was changed after the container had started";
    VolumeUnknown: VolumeExec, Medium, [], "it is not known when the container started";
    Volume: VolumeExec, Low, [], "otherwise";
    WriteOfPrivileges: ImageWrite, High, [], "capabilities or set-id bits were given to the file";
    WriteOfProgram: ImageWrite, High, [],
        "the file is a regular file that may be executed, or is in a directory of programs or libraries (`bin`, \
        `sbin`, `lib`, `lib64`, `libexec` …), wherever that is";
    WriteOfControl: ImageWrite, High, [],
        "the file decides who may do what or what is started: accounts, `sudoers`, PAM, ssh, cron, systemd, the \
        loader's configuration, profiles of shells";
    WriteOfConfiguration: ImageWrite, High, [],
        "the file is below `/etc`, and a process that came in from outside changes it: configuration";
    WriteOfScratch: ImageWrite, Low, [],
        "the file is in `/tmp`, `/run`, `/var/tmp`, `/var/run`, `/var/cache` or `/var/log`";
    Write: ImageWrite, Medium, [], "otherwise";
    ShadowInSandbox: ImageShadowed, Info, [],
        "it was done in a user namespace that the rest of the container does not share, where nobody else sees it";
    ShadowOfRoot: ImageShadowed, Low, [], "chroot(2), by which many services protect themselves";
    ShadowOfControl: ImageShadowed, High, [],
        "pivot_root(2), or a mount over what is high in an `image_write` because of its path";
    Shadow: ImageShadowed, Medium, [], "otherwise";
    SessionOnSocket: Session, Critical, [Socket],
        "a program of the container takes commands from a socket, as a reverse shell does; `summary.peer` has the \
        other end, and `summary.started_by` the command line of the exploited process";
    SessionOfForeignCode: Session, Critical, [Application],
        "code that is not the image's runs behind a service, as with a webshell. Both must hold: the session has a \
        `drifted_exec` or `fileless_exec` of high severity, and it was started by the first process of the container \
        that called listen(2) or that accepted a connection, or by what that process has started since. It makes no \
        difference whether a shell runs the code.";
    SessionOnTerminal: Session, High, [Exec, Nsenter],
        "a process from outside has a terminal, whatever its program is";
    SessionOnInput: Session, High, [Exec, Nsenter],
        "a process from outside takes commands from the standard input of the session, which is a pipe, a file or a \
        socket: `docker exec -i … sh < script`";
    SessionInside: Session, High, [Entrypoint, Terminal],
        "a program takes commands from the terminal that the container was started with (`docker run -t`), or that a \
        process of the container has opened (a login by ssh)";
    SessionOfApplication: Session, High, [Application],
        "a process of the container has started a shell or a drifted program, in which something of at least high \
        severity was done, as through a webshell; `summary.started_by` has the command line of that process";
    SessionOfProgram: Session, Low, [Entrypoint, Terminal], "any other program with such a terminal";
    SessionFromHost: Session, Low, [Nsenter],
        "a process from a cgroup of the host joined the container's mounts, without a terminal";
    SessionOfCommand: Session, Info, [Exec],
        "a runtime brought a process in without a terminal, as for a health check";
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of the table of README.md about acts, and those of that about sessions.
    fn tables() -> [String; 2] {
        let (mut acts, mut sessions) = (String::new(), String::new());
        let mut before = "";
        for rule in SeverityRule::ALL {
            let (kind, severity, when) = (rule.kind().name(), rule.severity(), rule.when());
            let via: Vec<_> = rule.via().iter().map(|via| format!("`{}`", via.name())).collect();
            if rule.kind() == Kind::Session {
                sessions += &format!("| {severity} | {} | {when} |\n", via.join(", "));
                continue;
            }
            let column = if kind == before { String::new() } else { format!(" `{kind}`") };
            acts += &format!("|{column} | {severity} | {when} |\n");
            before = kind;
        }
        [acts, sessions]
    }

    #[test]
    fn the_tables_for_users_have_every_rule() {
        let readme = include_str!("../../README.md");
        for table in tables() {
            assert!(readme.contains(&table), "README.md has other rows than these:\n{table}");
        }
    }
}
