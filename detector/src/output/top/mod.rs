//! `detector top`: the containers of a node, what happens in them, and how well the daemon watches, on one screen.
//!
//! The [`Model`] is told what comes, with the time, and keeps a bounded part of it. [`draw`] draws it.

mod census;
mod containers;
mod model;
mod stories;
#[cfg(test)]
mod tests;
mod view;

pub(crate) use census::Census;
pub(crate) use containers::Order;
pub(crate) use model::{Model, Press};
pub(crate) use view::draw;

use std::time::Duration;

use crate::finding::Time;

/// How long what has happened is recent.
const RECENT: Duration = Duration::from_secs(3600);

/// Whether something has happened in the last hour.
fn is_recent(time: Time, now: Time) -> bool {
    now.0.duration_since(time.0).as_secs() <= RECENT.as_secs().cast_signed()
}

/// How long ago something was, in at most four characters.
fn ago(time: Time, now: Time) -> String {
    // Clocks are turned back.
    let seconds = now.0.duration_since(time.0).as_secs().max(0);
    match (seconds / 86400, seconds / 3600, seconds / 60) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m"),
        (0, hours, _) => format!("{hours}h"),
        (days @ ..=999, ..) => format!("{days}d"),
        _ => "999d".to_owned(),
    }
}
