//! Lets the daemon go by its configuration file as it is now: takes it over when it has changed, and when a signal asks
//! for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::hub::Hub;
use super::joined;
use crate::config::followed::{Followed, Reading};
use crate::pipeline::Order;

/// How often the file is looked at. What has changed is read once it was found the same twice.
const INTERVAL: Duration = Duration::from_secs(1);

/// Follows the file for ever. `asked` asks to read it now.
pub(super) async fn follow(mut file: Followed, hub: Arc<Hub>, asked: Arc<Notify>) {
    loop {
        let is_asked = timeout(INTERVAL, asked.notified()).await.is_ok();
        // A file system that does not answer must not stop the daemon from anything else.
        let looking = spawn_blocking(move || {
            let reading = if is_asked || file.has_changed() { file.read_again() } else { None };
            (file, reading)
        });
        let reading;
        (file, reading) = joined(looking.await);
        let Some(Reading { policy, notice }) = reading else { continue };
        for order in policy.map(Order::Policy).into_iter().chain([Order::Notice(notice)]) {
            hub.give_order(order);
        }
    }
}
