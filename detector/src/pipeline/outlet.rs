//! Where what the pipeline has to say goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::finding::{Container, Finding, Line, Notice, NoticeEvent};

/// What the pipeline says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// This happened.
    Line(Line),
    /// This container begins, or runs already at the start.
    Began(Box<Container>),
}

/// What was done so far.
#[derive(Debug, Default)]
pub struct Counters {
    /// Records read from the kernel.
    pub events: AtomicU64,
}

/// The sink, and the count of what went into it.
pub(super) struct Outlet<S> {
    sink: S,
    node: String,
    counters: Arc<Counters>,
}

impl<S: FnMut(Message)> Outlet<S> {
    pub(super) fn new(sink: S, node: String, counters: Arc<Counters>) -> Self {
        Self { sink, node, counters }
    }

    /// Counts a record of the kernel.
    pub(super) fn count_event(&self) {
        self.counters.events.fetch_add(1, Relaxed);
    }

    /// The name of the node in lines.
    pub(super) fn node(&self) -> &str {
        &self.node
    }

    pub(super) fn finding(&mut self, finding: Finding) {
        (self.sink)(Message::Line(Line::Finding(Box::new(finding))));
    }

    pub(super) fn notice(&mut self, event: NoticeEvent) {
        (self.sink)(Message::Line(Line::Notice(Notice::now(self.node.clone(), event))));
    }

    pub(super) fn container_began(&mut self, container: Container) {
        (self.sink)(Message::Began(Box::new(container)));
    }
}
