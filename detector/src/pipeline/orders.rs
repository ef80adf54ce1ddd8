//! What a running pipeline is told to do. It does so between two events.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{self, Receiver, Sender};

use super::threads::{Error, Flag};
use crate::detect::TestAlert;
use crate::finding::NoticeEvent;
use crate::policy::Policy;

/// Something that a pipeline is told to do.
#[derive(Debug)]
pub(crate) enum Order {
    /// Judge what happens from now on by this policy.
    Policy(Policy),
    /// Publish this notice.
    Notice(NoticeEvent),
    /// Publish this finding, which is a test.
    TestAlert(TestAlert),
}

/// Where a pipeline takes orders.
#[derive(Clone, Debug)]
pub(crate) struct Orders {
    sender: Sender<Order>,
    given: Flag,
}

impl Orders {
    /// Gives an order. Orders are carried out one after the other.
    pub(crate) fn give(&self, order: Order) {
        // A pipeline that has ended takes none.
        if self.sender.send(order).is_ok() {
            self.given.raise();
        }
    }
}

/// The orders that were given. The descriptor is readable if there may be some.
#[derive(Debug)]
pub(super) struct Ordered {
    receiver: Receiver<Order>,
    given: Flag,
}

impl Ordered {
    /// Makes the descriptor readable only when another one is given. Those that were given must be [taken](Self::take)
    /// after that.
    pub(super) fn lower(&self) {
        self.given.lower();
    }

    /// Takes the next one. This is no system call.
    pub(super) fn take(&self) -> Option<Order> {
        self.receiver.try_recv().ok()
    }
}

impl AsFd for Ordered {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.given.as_fd()
    }
}

/// Makes both ends.
pub(super) fn channel() -> Result<(Orders, Ordered), Error> {
    let given = Flag::new()?;
    let (sender, receiver) = mpsc::channel();
    Ok((Orders { sender, given: given.clone() }, Ordered { receiver, given }))
}
