//! Lines that the log does not take, which the daemon gives to the process that forwards.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read as _};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::sync::mpsc::{Receiver, Sender};

use crate::output::json::LONGEST;

/// How many of them wait for a forwarder at most. More are sent once the log has them.
const MOST: usize = 8192;

/// The lines that wait for a forwarder.
pub(super) struct Unlogged {
    incoming: Receiver<Bytes>,
    /// Those that were taken, and not sent yet.
    taken: VecDeque<Bytes>,
}

/// A queue for a forwarder.
pub(super) fn queue() -> (Sender<Bytes>, Unlogged) {
    let (sender, incoming) = mpsc::channel(MOST);
    (sender, Unlogged { incoming, taken: VecDeque::new() })
}

/// Puts all lines of the input into each queue that has room, until the input ends.
///
/// # Errors
///
/// The input cannot be read, or it has a line that no daemon writes.
pub(super) fn distribute(input: &mut impl BufRead, queues: &[Sender<Bytes>]) -> io::Result<()> {
    loop {
        let mut line = Vec::new();
        input.take(LONGEST).read_until(b'\n', &mut line)?;
        match line.pop() {
            None => return Ok(()),
            Some(b'\n') => {}
            // The daemon has died within a line, if it is not too long.
            Some(_) if (line.len() as u64) < LONGEST - 1 => return Ok(()),
            Some(_) => return Err(io::Error::other(format!("a line has more than {LONGEST} bytes"))),
        }
        let line = Bytes::from(line);
        for queue in queues {
            let _ = queue.try_send(line.clone());
        }
    }
}

impl Unlogged {
    /// The next lines of about this size together, at least one if there is one. They are the next ones again until
    /// they are [`Self::sent`].
    pub(super) fn next(&mut self, size: usize) -> Vec<Bytes> {
        let mut next = Vec::new();
        let mut bytes = 0;
        for nth in 0.. {
            if nth == self.taken.len() {
                let Ok(line) = self.incoming.try_recv() else { break };
                self.taken.push_back(line);
            }
            bytes += self.taken[nth].len();
            if nth > 0 && bytes > size {
                break;
            }
            next.push(self.taken[nth].clone());
        }
        next
    }

    /// So many lines were sent.
    pub(super) fn sent(&mut self, lines: usize) {
        self.taken.drain(..lines);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_the_next_ones_until_they_are_sent() {
        let (queue, mut unlogged) = queue();
        let input = b"{\"a\":1}\n{\"b\":2}\n{\"c\":3}\n{\"cut";
        distribute(&mut &input[..], &[queue]).expect("it can be read");
        assert_eq!(unlogged.next(14), [&b"{\"a\":1}"[..], b"{\"b\":2}"]);
        assert_eq!(unlogged.next(1), [&b"{\"a\":1}"[..]]);
        unlogged.sent(1);
        assert_eq!(unlogged.next(1000), [&b"{\"b\":2}"[..], b"{\"c\":3}"]);
        unlogged.sent(2);
        assert!(unlogged.next(1000).is_empty());
    }

    #[test]
    fn a_full_queue_does_not_keep_the_others_waiting() {
        let ((full, mut first), (free, mut second)) = (queue(), queue());
        let lines = "{}\n".repeat(MOST);
        distribute(&mut lines.as_bytes(), std::slice::from_ref(&full)).expect("it can be read");
        distribute(&mut &b"{\"a\":1}\n"[..], &[full, free]).expect("it can be read");
        assert_eq!(first.next(usize::MAX).len(), MOST);
        assert_eq!(second.next(1), [&b"{\"a\":1}"[..]]);
    }

    #[test]
    fn a_line_without_an_end_is_refused() {
        let (queue, _) = queue();
        let endless = &mut io::BufReader::new(io::repeat(b'x'));
        assert!(distribute(endless, &[queue]).is_err());
    }
}
