//! Lets the daemon go by its configuration file as it is now: takes it over when it has changed, and when a signal asks
//! for it. Says which exceptions in it somebody should look at.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::hub::Hub;
use super::joined;
use super::upkeep::Upkeep;
use crate::clock;
use crate::config::followed::{Followed, Reading};
use crate::finding::Time;
use crate::pipeline::Order;

/// How often the file is looked at. What has changed is read once it was found the same twice.
const INTERVAL: Duration = Duration::from_secs(1);

/// Follows the file for ever. `asked` asks to read it now.
pub(super) async fn follow(mut file: Followed, hub: Arc<Hub>, asked: Arc<Notify>) {
    let mut upkeep = Upkeep::default();
    upkeep.load(file.policy(), &hub.suppressed(), wall(), boot());
    loop {
        let is_asked = timeout(INTERVAL, asked.notified()).await.is_ok();
        for notice in upkeep.check(&hub.suppressed(), wall(), boot()) {
            hub.give_order(Order::Notice(notice));
        }
        // A file system that does not answer must not stop the daemon from anything else.
        let looking = spawn_blocking(move || {
            let reading = if is_asked { file.read_again() } else { file.look() };
            (file, reading)
        });
        let reading;
        (file, reading) = joined(looking.await);
        let Some(Reading { policy, notice }) = reading else { continue };
        if let Some(policy) = policy {
            upkeep.load(&policy, &hub.suppressed(), wall(), boot());
            hub.give_order(Order::Policy(policy));
        }
        hub.give_order(Order::Notice(notice));
    }
}

fn wall() -> Time {
    Time(jiff::Timestamp::now())
}

fn boot() -> Duration {
    Duration::from_nanos(clock::since_boot())
}
