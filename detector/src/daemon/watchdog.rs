//! Tells the service manager again and again that the daemon watches, if it wants to know (`WatchdogSec` of systemd).
//! It starts a daemon again that does not tell it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::time::interval;

use super::{hub::Hub, notify};

/// How long the thread that reads events may take for one turn, of which it begins one every ten seconds: it also waits
/// for the self-test.
const PATIENCE: Duration = Duration::from_secs(60);

/// Tells the service manager as long as the daemon watches.
pub(super) async fn run(hub: Arc<Hub>) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let mut ticks = interval((limit / 3).max(Duration::from_millis(1)));
    let mut reader = Reader { turns: hub.turns(), last: Instant::now(), is_alive: true };
    loop {
        ticks.tick().await;
        let was_alive = reader.is_alive;
        if reader.is_alive(hub.turns(), Instant::now()) {
            notify(&[NotifyState::Watchdog]);
        } else if was_alive {
            tracing::error!(
                "the thread that reads events has hung for {} s, and nothing is reported; the service manager is not \
                told any more that the daemon watches, so that it starts the daemon again",
                PATIENCE.as_secs()
            );
        }
    }
}

/// The thread that reads events, as seen from here.
struct Reader {
    /// How many turns it had begun when it was last seen to begin one.
    turns: Option<u64>,
    last: Instant,
    is_alive: bool,
}

impl Reader {
    /// Whether it still works, given how many turns it has begun by now.
    fn is_alive(&mut self, turns: Option<u64>, now: Instant) -> bool {
        if turns != self.turns {
            (self.turns, self.last) = (turns, now);
        }
        self.is_alive = now.saturating_duration_since(self.last) < PATIENCE;
        self.is_alive
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_begins_no_turn_for_long_has_hung_until_it_begins_one() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut reader = Reader { turns: Some(1), last: start, is_alive: true };
        for (turns, seconds, is_alive) in [
            (1, 0, true),
            (1, 59, true),
            (2, 59, true),
            (2, 118, true),
            (2, 119, false),
            (2, 300, false),
            (3, 301, true),
        ] {
            assert_eq!(reader.is_alive(Some(turns), at(seconds)), is_alive, "{turns} turns after {seconds} s");
        }
    }
}
