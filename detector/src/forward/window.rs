//! What was sent but may not have been received.

use std::collections::VecDeque;

use crate::chain::log::Position;

/// Into how many parts the window is divided, so that it takes little memory.
const PARTS: u64 = 16;

/// The last bytes that were sent.
#[derive(Debug)]
pub(super) struct Window {
    /// How many bytes it has.
    size: u64,
    /// The position before it.
    start: Position,
    /// The positions at the ends of its parts, with the number of bytes in each.
    parts: VecDeque<(Position, u64)>,
}

impl Window {
    /// A window of this size after a position.
    pub(super) fn after(start: Position, size: u64) -> Self {
        Self { size, start, parts: VecDeque::new() }
    }

    /// Where to go on after a failure.
    pub(super) fn start(&self) -> Position {
        self.start
    }

    /// So many bytes were sent, up to this position.
    pub(super) fn sent(&mut self, bytes: u64, end: Position) {
        match self.parts.back_mut() {
            Some((last, sent)) if *sent + bytes <= self.size / PARTS => (*last, *sent) = (end, *sent + bytes),
            _ => self.parts.push_back((end, bytes)),
        }
        let mut all: u64 = self.parts.iter().map(|(_, bytes)| bytes).sum();
        // What is left has at least the size of the window.
        while let Some((end, bytes)) = self.parts.front()
            && all - bytes >= self.size
        {
            (self.start, all) = (*end, all - bytes);
            self.parts.pop_front();
        }
    }

    /// All that was sent was received.
    pub(super) fn clear(&mut self) {
        if let Some((end, _)) = self.parts.drain(..).next_back() {
            self.start = end;
        }
    }

    /// What was sent is sent again.
    pub(super) fn forget(&mut self) {
        self.parts.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Head;

    fn position(seq: u64) -> Position {
        Position { head: Head { seq, ..Head::START }, place: None }
    }

    #[test]
    fn the_last_bytes_are_sent_again_and_not_many_more() {
        let mut window = Window::after(position(0), 1000);
        for seq in 1..=100 {
            window.sent(10, position(seq));
            assert_eq!(window.start().head.seq, 0, "all of it may be lost");
        }
        for seq in 101..=1000 {
            window.sent(10, position(seq));
            let behind = (seq - window.start().head.seq) * 10;
            assert!((1000..=1080).contains(&behind), "{behind}");
            assert!(window.parts.len() <= 2 * PARTS as usize);
        }
        window.sent(5000, position(1001));
        assert_eq!(window.start().head.seq, 1000);
        window.forget();
        assert_eq!(window.start().head.seq, 1000);
        window.sent(1, position(1002));
        window.clear();
        assert_eq!(window.start().head.seq, 1002);
    }

    #[test]
    fn a_receiver_that_acknowledges_has_no_window() {
        let mut window = Window::after(position(0), 0);
        window.sent(10, position(3));
        assert_eq!(window.start().head.seq, 3);
    }
}
