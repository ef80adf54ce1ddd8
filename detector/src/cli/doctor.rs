//! `detector doctor`: shows for each hook whether it works on this host, why not, and how to fix it, and ends with a
//! verdict.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::ColorChoice;
use clap::builder::styling::{AnsiColor, Style};
use serde::Serialize;

use super::arguments::{Runtimes, is_coloured};
use super::failure::{Exit, Failure};
use super::stdout::print;
use crate::protocol::Hook;
use crate::runtime::{self, EngineState, EngineStatus};
use crate::sensor;
use crate::sensor::hierarchy::CgroupMode;
use crate::sensor::host::Host;
use crate::sensor::plan::{Attach, Need};
use crate::sensor::report::{Attachment, HookReport, Report};

/// How many things that are not detected the verdict names at most.
const MOST_UNSEEN: usize = 3;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// When to use colours; `auto` uses them on a terminal, unless `NO_COLOR` is set
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = ColorChoice::Auto)]
    color: ColorChoice,
    /// BPF object to load instead of the built-in one
    #[arg(long, value_name = "PATH")]
    bpf_object: Option<PathBuf>,
    #[command(flatten)]
    runtimes: Runtimes,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let options = sensor::Options { bpf_object: args.bpf_object.clone() };
    let report = sensor::doctor(&options)?;
    let mut runtimes = runtime::check(&args.runtimes.engines()).map_err(|error| {
        Failure::new(
            Exit::Failure,
            format_args!(
                "cannot query the container runtimes: {error}; check \
            the limits of this process (ulimit -a)"
            ),
        )
    })?;
    runtimes.retain(|runtime| runtime.state != EngineState::Absent);
    if args.json {
        print(|out| {
            serde_json::to_writer_pretty(&mut *out, &Diagnosis::new(&report, runtimes))?;
            writeln!(out)
        })?;
    } else {
        let color = is_coloured(args.color);
        print(|out| show(out, &report, &runtimes, color))?;
    }
    let is_bad = |hook: &HookReport| Grade::of(hook) == Grade::Bad;
    if report.is_blind() {
        let blind = names(&report, |hook| is_bad(hook) && hook.hook.need == Need::Essential);
        return Err(Failure::new(
            Exit::Unsupported,
            format_args!("this host: essential hooks do not work: {blind}; see the remedies in the report"),
        ));
    }
    if !report.is_complete() {
        return Err(Failure::new(
            Exit::Degraded,
            format_args!("this host: hooks do not work: {}; see the remedies in the report", names(&report, is_bad)),
        ));
    }
    report.untested().map_or(Ok(()), |why| Err(Failure::new(Exit::Degraded, why)))
}

/// How well a hook works, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Grade {
    /// Not attached, and not needed on this kernel.
    Absent,
    /// Attached, and no deficiency is known.
    Good,
    /// Attached, but the kernel can skip calls of it.
    Weak,
    /// Not attached, or the self-test did not see it fire.
    Bad,
}

impl Grade {
    fn of(report: &HookReport) -> Self {
        match (report.attachment, report.verified) {
            (Attachment::Absent, _) => Self::Absent,
            (Attachment::Missing, _) | (Attachment::Attached { .. }, Some(false)) => Self::Bad,
            (Attachment::Attached { blindable: true, .. }, _) => Self::Weak,
            (Attachment::Attached { .. }, _) => Self::Good,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Absent => "-",
            Self::Weak => "weak",
            Self::Bad => "BLIND",
        }
    }

    fn style(self) -> Style {
        match self {
            Self::Good | Self::Absent => AnsiColor::Green.on_default(),
            Self::Weak => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default().bold(),
        }
    }
}

/// How to make this hook work better, or `None` if it works well.
fn remedy(report: &HookReport) -> Option<String> {
    let lsm = report.hook.programs.iter().any(|(_, attach)| matches!(attach, Attach::Lsm(_)));
    match (report.attachment, report.verified) {
        (Attachment::Missing, _) => {
            let ways: Vec<_> = report.hook.programs.iter().map(|(_, attach)| attach.kind()).collect();
            Some(format!(
                "use a kernel (5.10 or later, with BTF) that allows BPF programs of type {}",
                ways.join(" or ")
            ))
        }
        (Attachment::Attached { attach, .. }, Some(false)) => Some(format!(
            "the kernel never calls {attach}: check whether sysctl kernel.ftrace_enabled is 0, or a hardening tool \
                disables tracing"
        )),
        (Attachment::Attached { blindable: true, .. }, _) if lsm => {
            Some("add `bpf` to the list of the kernel parameter lsm=, or boot with preempt=voluntary".to_owned())
        }
        (Attachment::Attached { blindable: true, .. }, _) => Some(
            "boot with preempt=voluntary; until then the detector counts skipped calls and reports them as \
                `blind_window`"
                .to_owned(),
        ),
        _ => None,
    }
}

/// The report as JSON.
#[derive(Debug, Serialize)]
struct Diagnosis {
    version: &'static str,
    host: HostFacts,
    complete: bool,
    blind: bool,
    /// What this host can see, what not, and the remedy, in a sentence.
    verdict: String,
    /// Why the self-test could not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    selftest_error: Option<String>,
    hooks: Vec<HookDiagnosis>,
    /// The runtimes that answer, or that fail to.
    runtimes: Vec<EngineStatus>,
}

/// The properties of the host that the load plan depends on. Those that cannot be read are left out.
#[derive(Debug, Serialize)]
struct HostFacts {
    node: String,
    kernel: String,
    preemption: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    lsms: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lockdown: Option<String>,
    cgroups: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup_mount: Option<PathBuf>,
}

impl From<&Host> for HostFacts {
    fn from(host: &Host) -> Self {
        Self {
            node: host.node.clone(),
            kernel: host.kernel_release.clone(),
            preemption: host.preemption.name(),
            lsms: host.lsms.clone(),
            lockdown: host.lockdown.clone(),
            cgroups: match host.cgroup_mode {
                CgroupMode::V2 => "v2",
                CgroupMode::Hybrid => "hybrid",
                CgroupMode::V1 => "v1",
                CgroupMode::Unmounted => "unmounted",
            },
            cgroup_mount: host.hierarchy.as_ref().map(|hierarchy| hierarchy.mount.clone()),
        }
    }
}

#[derive(Debug, Serialize)]
struct HookDiagnosis {
    #[serde(rename = "verdict")]
    grade: Grade,
    #[serde(flatten)]
    hook: Hook,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

impl Diagnosis {
    fn new(report: &Report, runtimes: Vec<EngineStatus>) -> Self {
        let hook = |report: &HookReport| HookDiagnosis {
            grade: Grade::of(report),
            hook: report.into(),
            remedy: remedy(report),
        };
        Self {
            version: env!("CARGO_PKG_VERSION"),
            host: HostFacts::from(&report.host),
            complete: report.is_complete(),
            blind: report.is_blind(),
            verdict: verdict(&report.hooks, &report.selftest),
            selftest_error: report.selftest.clone().err(),
            hooks: report.hooks.iter().map(hook).collect(),
            runtimes,
        }
    }
}

fn show(out: &mut dyn Write, report: &Report, runtimes: &[EngineStatus], color: bool) -> io::Result<()> {
    let paint = |style: Style| if color { style } else { Style::new() };
    let dim = paint(Style::new().dimmed());
    let host = HostFacts::from(&report.host);
    let width = report.hooks.iter().map(|hook| hook.hook.name.len()).max().unwrap_or_default();
    let indent = 6 + width + 1;
    let unknown = || "unknown".to_owned();
    writeln!(out, "detector {} on {}", env!("CARGO_PKG_VERSION"), host.node)?;
    writeln!(out, "      kernel       {}, preemption {}", host.kernel, host.preemption)?;
    writeln!(out, "      lsms         {}", host.lsms.map_or_else(unknown, |names| names.join(", ")))?;
    writeln!(out, "      lockdown     {}", host.lockdown.unwrap_or_else(unknown))?;
    let mount = host.cgroup_mount.map_or_else(|| "none".to_owned(), |path| path.display().to_string());
    writeln!(out, "      cgroups      {}, containers at {mount}", host.cgroups)?;
    for hook_report in &report.hooks {
        let grade = Grade::of(hook_report);
        let style = paint(grade.style());
        let hook = Hook::from(hook_report);
        let attached = hook.attached.as_deref().unwrap_or(if hook.absent { "not needed" } else { "not attached" });
        writeln!(
            out,
            "{style}{:<6}{style:#}{:<width$} {attached:<34} {dim}{}{dim:#}",
            grade.label(),
            hook.name,
            hook.purpose
        )?;
        if grade == Grade::Weak {
            writeln!(out, "{:indent$}this kernel can skip calls of this program while it preempts another", "")?;
        }
        if grade == Grade::Bad && hook.attached.is_some() {
            writeln!(out, "{:indent$}the self-test did not see it fire", "")?;
        }
        for refusal in &hook.refused {
            writeln!(out, "{:indent$}refused: {refusal}", "")?;
        }
        if let Some(remedy) = remedy(hook_report) {
            writeln!(out, "{:indent$}remedy: {remedy}", "")?;
        }
    }
    for runtime in runtimes {
        let is_failing = matches!(runtime.state, EngineState::Failing { .. });
        let grade = if is_failing { Grade::Weak } else { Grade::Good };
        let style = paint(grade.style());
        writeln!(out, "{style}{:<6}{style:#}{:<width$} {runtime}", grade.label(), "runtime")?;
    }
    let worst = report.hooks.iter().map(Grade::of).max().unwrap_or(Grade::Good);
    let style = paint(if report.selftest.is_err() { worst.max(Grade::Weak) } else { worst }.style());
    writeln!(out, "{style}{}{style:#}", verdict(&report.hooks, &report.selftest))
}

/// What this host can see, what not, and the remedy, in a sentence.
fn verdict(hooks: &[HookReport], selftest: &Result<(), String>) -> String {
    let of = |grade: Grade| hooks.iter().filter(move |hook| Grade::of(hook) == grade);
    let (bad, weak) = (of(Grade::Bad).count(), of(Grade::Weak).count());
    let all = hooks.len() - of(Grade::Absent).count();
    let proven = hooks.iter().filter(|hook| hook.verified == Some(true)).count();
    let mut text = if bad > 0 {
        let mut unseen: Vec<_> = of(Grade::Bad).map(|hook| hook.hook.purpose.to_owned()).collect();
        if let Some(more) = unseen.len().checked_sub(MOST_UNSEEN).filter(|more| *more > 0) {
            unseen.truncate(MOST_UNSEEN);
            unseen.push(format!("and {more} more"));
        }
        let is_blind = of(Grade::Bad).any(|hook| hook.hook.need == Need::Essential);
        let state = if is_blind { "blind: the detector does not start on this host" } else { "degraded" };
        format!("{state}: {bad} of {all} hooks do not work, so this is not detected: {}", unseen.join("; "))
    } else if let Err(why) = selftest {
        format!("degraded: all {all} hooks are attached, but it is not known whether they fire ({why})")
    } else {
        let proof = if proven == all { "proven".to_owned() } else { format!("{proven} of them proven") };
        format!("complete: this host can see all that the detector looks for, with {all} hooks attached and {proof}")
    };
    if weak > 0 {
        text += &format!("; the kernel can skip calls of {weak} hooks while it preempts another program");
    }
    let mut remedies: Vec<_> = of(if bad > 0 { Grade::Bad } else { Grade::Weak }).filter_map(remedy).collect();
    remedies.sort_unstable();
    remedies.dedup();
    match remedies.as_slice() {
        [] => {}
        [remedy] => text += &format!("; remedy: {remedy}"),
        _ => text += "; see the remedies above",
    }
    text
}

fn names(report: &Report, which: impl Fn(&HookReport) -> bool) -> String {
    report.hooks.iter().filter(|hook| which(hook)).map(|hook| hook.hook.name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sensor::plan::{self, HOOKS};

    fn attached(hook: &'static plan::Hook, blindable: bool, verified: Option<bool>) -> HookReport {
        let (program, attach) = hook.programs[0];
        let attachment = Attachment::Attached { program, attach, blindable };
        HookReport { hook, attachment, refused: Vec::new(), is_denied: false, verified }
    }

    fn missing(hook: &'static plan::Hook) -> HookReport {
        HookReport { attachment: Attachment::Missing, ..attached(hook, false, None) }
    }

    #[test]
    fn the_verdict_says_what_is_seen_what_not_and_the_remedy() {
        let of_need = |essential: bool| HOOKS.iter().find(|hook| (hook.need == Need::Essential) == essential);
        let (essential, optional) = (of_need(true).expect("there is one"), of_need(false).expect("there is one"));
        let fine = || attached(essential, false, Some(true));
        for (hooks, selftest, expected) in [
            (
                vec![fine(), HookReport { attachment: Attachment::Absent, ..missing(optional) }],
                Ok(()),
                "complete: this host can see all that the detector looks for, with 1 hooks attached and \
                proven"
                    .to_owned(),
            ),
            (
                vec![fine(), attached(optional, false, None)],
                Ok(()),
                "complete: this host can see all that the detector looks for, with 2 hooks attached and 1 of \
                them proven"
                    .to_owned(),
            ),
            (
                vec![fine()],
                Err("no memory".to_owned()),
                "degraded: all 1 hooks are attached, but it is not known whether they fire (no memory)".to_owned(),
            ),
            (
                vec![fine(), missing(optional)],
                Ok(()),
                format!(
                    "degraded: 1 of 2 hooks do not work, so this is not detected: {}; remedy: {}",
                    optional.purpose,
                    remedy(&missing(optional)).expect("there is one")
                ),
            ),
            (
                vec![missing(essential)],
                Err("an essential hook is missing".to_owned()),
                format!(
                    "blind: the detector does not start on this host: 1 of 1 hooks do not work, so this is not \
                    detected: {}; remedy: {}",
                    essential.purpose,
                    remedy(&missing(essential)).expect("there is one")
                ),
            ),
        ] {
            assert_eq!(verdict(&hooks, &selftest), expected);
        }
        let weak = verdict(&[fine(), attached(optional, true, Some(true))], &Ok(()));
        assert!(weak.contains("; the kernel can skip calls of 1 hooks while it"), "{weak}");
        assert!(weak.contains("; remedy: "), "{weak}");
    }

    #[test]
    fn every_hook_that_is_not_good_has_a_remedy() {
        for hook in HOOKS {
            for &(program, attach) in hook.programs {
                let attached = |blindable| Attachment::Attached { program, attach, blindable };
                for (attachment, verified, grade) in [
                    (Attachment::Absent, None, Grade::Absent),
                    (Attachment::Missing, None, Grade::Bad),
                    (attached(false), Some(false), Grade::Bad),
                    (attached(true), Some(true), Grade::Weak),
                    (attached(true), None, Grade::Weak),
                    (attached(false), Some(true), Grade::Good),
                    (attached(false), None, Grade::Good),
                ] {
                    let report = HookReport { hook, attachment, refused: Vec::new(), is_denied: false, verified };
                    assert_eq!(Grade::of(&report), grade, "{report:?}");
                    let is_fine = matches!(grade, Grade::Good | Grade::Absent);
                    assert_eq!(remedy(&report).is_some(), !is_fine, "{report:?}");
                }
            }
        }
    }
}
