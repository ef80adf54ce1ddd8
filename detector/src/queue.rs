//! Queues between threads.

use crossbeam_channel::{Receiver, SendError, TrySendError};

/// Makes a queue for `most` items, whose memory is that of the items in it. crossbeam allocates a bounded one whole.
pub(crate) fn bounded<T>(most: usize) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = crossbeam_channel::unbounded();
    (Sender { sender, most }, receiver)
}

/// Where items are added to a queue.
#[derive(Debug)]
pub(crate) struct Sender<T> {
    sender: crossbeam_channel::Sender<T>,
    most: usize,
}

impl<T> Sender<T> {
    /// Adds an item. Threads that do so at the same moment may each add one too many.
    ///
    /// # Errors
    ///
    /// The queue is full, or nobody takes from it any more.
    pub(crate) fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        if self.len() >= self.most {
            return Err(TrySendError::Full(item));
        }
        self.sender.send(item).map_err(|SendError(item)| TrySendError::Disconnected(item))
    }

    /// How many items wait.
    pub(crate) fn len(&self) -> usize {
        self.sender.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_as_many_as_it_may() {
        let (sender, receiver) = bounded(2);
        for item in 0..2 {
            sender.try_send(item).expect("there is room");
        }
        assert_eq!(sender.try_send(2), Err(TrySendError::Full(2)));
        assert_eq!((sender.len(), receiver.recv()), (2, Ok(0)));
        sender.try_send(3).expect("there is room again");
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [1, 3]);
        drop(receiver);
        assert_eq!(sender.try_send(4), Err(TrySendError::Disconnected(4)));
    }
}
