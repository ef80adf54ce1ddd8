//! The files that wait for inspection. Containers take turns, and none can take the room of the others.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::Request;

/// How many files can wait.
const CAPACITY: usize = 512;

#[derive(Default)]
pub(super) struct Queue {
    /// The files of each container that has some, the oldest first.
    waiting: HashMap<u64, VecDeque<Arc<Request>>>,
    /// These containers, in the order of their turns.
    turns: VecDeque<u64>,
    len: usize,
}

impl Queue {
    /// Adds a file. If there is no room, returns the newest file of the container that has most, which may be this one.
    pub(super) fn push(&mut self, request: Arc<Request>) -> Option<Arc<Request>> {
        let container = request.container();
        self.waiting
            .entry(container)
            .or_insert_with(|| {
                self.turns.push_back(container);
                VecDeque::new()
            })
            .push_back(request);
        self.len += 1;
        if self.len <= CAPACITY {
            return None;
        }
        // Of containers that have the same number, this one gives way, so that it cannot take turns with another.
        let longest = self.waiting.iter().max_by_key(|(id, waiting)| (waiting.len(), **id == container));
        let longest = longest.map(|(id, _)| *id)?;
        self.take(longest, VecDeque::pop_back)
    }

    /// Takes the oldest file of the container whose turn it is.
    pub(super) fn pop(&mut self) -> Option<Arc<Request>> {
        let container = *self.turns.front()?;
        let request = self.take(container, VecDeque::pop_front);
        // If the container has more, it is its turn again after the others.
        if self.waiting.contains_key(&container) {
            self.turns.rotate_left(1);
        }
        request
    }

    /// Takes all files of a container.
    pub(super) fn remove(&mut self, container: u64) -> VecDeque<Arc<Request>> {
        let removed = self.waiting.remove(&container).unwrap_or_default();
        self.turns.retain(|other| *other != container);
        self.len -= removed.len();
        removed
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn take(
        &mut self,
        container: u64,
        take: impl FnOnce(&mut VecDeque<Arc<Request>>) -> Option<Arc<Request>>,
    ) -> Option<Arc<Request>> {
        let waiting = self.waiting.get_mut(&container)?;
        let request = take(waiting)?;
        self.len -= 1;
        if waiting.is_empty() {
            self.waiting.remove(&container);
            self.turns.retain(|other| *other != container);
        }
        Some(request)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Wanted;
    use super::*;
    use crate::detect::samples;
    use crate::event::{Event, Origin};

    /// A file of this container with this inode.
    fn file(container: u64, inode: u64) -> Arc<Request> {
        let mut exec = samples::exec(Origin::Application, "/x", &[]);
        (exec.at.container, exec.file.inode) = (container, inode);
        let wanted = Wanted { look: true, hash: false };
        Arc::new(Request { event: Event::Exec(Box::new(exec)), wanted, cgroup: None })
    }

    fn of(request: Option<Arc<Request>>) -> Option<(u64, u64)> {
        request.map(|request| {
            let Event::Exec(exec) = &request.event else { panic!("not an exec") };
            (exec.at.container, exec.file.inode)
        })
    }

    #[test]
    fn containers_take_turns() {
        let mut queue = Queue::default();
        for (container, inode) in [(1, 10), (1, 11), (1, 12), (2, 20), (3, 30), (3, 31)] {
            assert!(queue.push(file(container, inode)).is_none());
        }
        let order: Vec<_> = std::iter::from_fn(|| of(queue.pop())).collect();
        assert_eq!(order, [(1, 10), (2, 20), (3, 30), (1, 11), (3, 31), (1, 12)]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_container_cannot_take_the_room_of_others() {
        let mut queue = Queue::default();
        for inode in 0..CAPACITY as u64 {
            assert!(queue.push(file(1, inode)).is_none());
        }
        assert_eq!(of(queue.push(file(1, 9999))), Some((1, 9999)), "its own file gives way");
        for inode in 0..CAPACITY as u64 / 2 {
            let given_way = of(queue.push(file(2, inode))).expect("it is full");
            assert_eq!(given_way, (1, CAPACITY as u64 - 1 - inode));
        }
        assert_eq!(of(queue.push(file(2, 9999))), Some((2, 9999)), "both have half of the room");
        assert_eq!(of(queue.pop()), Some((1, 0)));
        assert_eq!(queue.remove(2).len(), CAPACITY / 2);
        assert_eq!(std::iter::from_fn(|| queue.pop()).count(), CAPACITY / 2 - 1);
        assert!(queue.is_empty());
    }
}
