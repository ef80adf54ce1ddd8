//! A memory of bounded size.

use std::collections::HashMap;
use std::hash::Hash;

/// The values that were kept last: when the young half is full, the old one is forgotten. What is asked for stays.
#[derive(Debug)]
pub(crate) struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    /// How many are in a half at most.
    half: usize,
}

impl<K: Eq + Hash, V> Recent<K, V> {
    /// Keeps `most` values at most, and the last half of that at least.
    pub(crate) fn new(most: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), half: most / 2 }
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.half {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    pub(crate) fn get(&mut self, key: &K) -> Option<&V> {
        if !self.young.contains_key(key) {
            let (key, value) = self.old.remove_entry(key)?;
            self.insert(key, value);
        }
        self.young.get(key)
    }

    /// Forgets what was not asked for since the last call.
    pub(crate) fn age(&mut self) {
        self.old = std::mem::take(&mut self.young);
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let old = self.old.remove(key);
        self.young.remove(key).or(old)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_bounded_and_what_is_in_use_stays() {
        let mut recent = Recent::new(100);
        for number in 0..10_000 {
            recent.insert(number, number);
            assert_eq!(recent.get(&0), Some(&0));
            assert!(recent.young.len() + recent.old.len() <= 100);
        }
        assert_eq!(recent.get(&1), None);
        assert_eq!(recent.get(&9_999), Some(&9_999));
    }

    #[test]
    fn what_nobody_asks_for_is_forgotten_in_time() {
        let mut recent = Recent::new(100);
        recent.insert("used", 1);
        recent.insert("unused", 2);
        for _ in 0..2 {
            recent.age();
            assert_eq!(recent.get(&"used"), Some(&1));
        }
        assert_eq!(recent.get(&"unused"), None);
    }

    #[test]
    fn the_last_value_counts_and_can_be_taken_out() {
        let mut recent = Recent::new(4);
        for (key, value) in [(1, 'a'), (2, 'b'), (3, 'c'), (1, 'd')] {
            recent.insert(key, value);
        }
        assert_eq!(recent.remove(&1), Some('d'));
        assert_eq!(recent.remove(&1), None);
        assert_eq!(recent.get(&1), None);
        assert_eq!(recent.get(&2), Some(&'b'));
    }
}
