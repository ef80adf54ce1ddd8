//! Tells the analysis what a recording has, instead of what happens.

use super::analysis::Analysis;
use super::input::{Input, Start};
use super::inspection::Inspected;
use super::outlet::{Message, Outlet};
use crate::event::Event;
use crate::recent::Recent;

/// Of how many events the content is waited for. No run has so many in its queue.
const UNREAD: usize = 32_768;

/// An analysis without a sensor.
pub(crate) struct Replay<S> {
    analysis: Analysis,
    outlet: Outlet<S>,
    /// The events whose content comes later, by time and number. What a recording does not have never comes.
    unread: Recent<(u64, u64), Event>,
}

impl<S: FnMut(Message)> Replay<S> {
    /// Starts the analysis. It calls `sink` with each message.
    pub(crate) fn start(start: Start, sink: S) -> Self {
        let outlet = Outlet::new(sink, start.node.clone(), Default::default());
        Self { analysis: Analysis::new(start, None), outlet, unread: Recent::new(UNREAD) }
    }

    /// Tells the analysis something.
    ///
    /// # Errors
    ///
    /// The input is none that can come here.
    pub(crate) fn take(&mut self, input: Input<'_>) -> Result<(), String> {
        match input {
            Input::Start(_) => return Err("the pipeline starts a second time".to_owned()),
            Input::Running(running) => self.analysis.add_running(running.into_owned(), &mut self.outlet),
            Input::Clock(ahead) => self.analysis.set_wall_clock(ahead),
            Input::Cgroup(cgroup) => self.analysis.containers().add(cgroup.into_owned()),
            Input::Event { event, root_dev, serving } => {
                let event = event.into_owned();
                if let Some((event, _)) = self.analysis.take_event(event, root_dev, serving, &mut self.outlet)
                    && let Some(at) = event.at()
                {
                    self.unread.insert((at.time, at.number), event);
                }
            }
            Input::Content { time, number, look, sha256: hashed } => {
                if let Some(event) = self.unread.remove(&(time, number)) {
                    self.analysis.take_content(&Inspected { event, look, hashed }, &mut self.outlet);
                }
            }
            Input::Gone { time, cgroups } => self.analysis.remove_gone(time, cgroups, &mut self.outlet),
            Input::Time(now) => self.analysis.take_time(now, &mut self.outlet),
            Input::Counted { time, counts } => self.analysis.take_counts(&counts, time, &mut self.outlet),
            Input::Swept { time, living } => self.analysis.sweep(&living.into_iter().collect(), time),
            Input::Stop(now) => self.analysis.stop(now, &mut self.outlet),
            Input::TestAlert { time, alert } => self.analysis.test_alert(alert, time, &mut self.outlet),
            Input::Policy { time, policy } => {
                self.analysis.set_policy(policy.into_owned(), time, &mut self.outlet);
            }
            Input::Unwatched(containers) => self.analysis.unwatch(&containers),
            Input::Notice(notice) => self.analysis.take_notice(notice.into_owned(), &mut self.outlet),
        }
        Ok(())
    }
}
