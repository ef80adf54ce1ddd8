//! A cache of limited size.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, RandomState};

/// A cache with a young and an old half. New and requested values are in the young half. When it is full, it becomes
/// the old half, whose values are dropped.
#[derive(Debug)]
pub(crate) struct Recent<K, V> {
    young: HashMap<K, V>,
    young_cost: usize,
    old: HashMap<K, V>,
    /// The maximum total cost of the values in each half.
    half: usize,
    cost: fn(&V) -> usize,
}

impl<K: Eq + Hash, V> Recent<K, V> {
    /// Makes a cache that holds at most `most` values, and at least the `most / 2` values used last.
    pub(crate) fn new(most: usize) -> Self {
        Self::with_cost(most, |_| 1)
    }

    /// Makes a cache whose values cost at most `most` together, and which keeps at least the values used last that cost
    /// `most / 2`.
    pub(crate) fn with_cost(most: usize, cost: fn(&V) -> usize) -> Self {
        Self { young: HashMap::new(), young_cost: 0, old: HashMap::new(), half: most / 2, cost }
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        let cost = (self.cost)(&value);
        let replaced = self.young.remove(&key);
        self.young_cost -= replaced.as_ref().map_or(0, self.cost);
        if self.young_cost + cost > self.half {
            self.age();
        }
        self.young_cost += cost;
        self.young.insert(key, value);
    }

    pub(crate) fn get(&mut self, key: &K) -> Option<&V> {
        if !self.young.contains_key(key) {
            let (key, value) = self.old.remove_entry(key)?;
            self.insert(key, value);
        }
        self.young.get(key)
    }

    /// Drops the values that were neither inserted nor requested since the last call, or since the young half was last
    /// full.
    pub(crate) fn age(&mut self) {
        self.old = std::mem::take(&mut self.young);
        self.young_cost = 0;
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let old = self.old.remove(key);
        let young = self.young.remove(key);
        self.young_cost -= young.as_ref().map_or(0, self.cost);
        young.or(old)
    }
}

/// A cache about findings, by hashes of their ids: the ids themselves are small allocations that stay, among large ones
/// that do not, and would keep those from being returned to the system. Nobody can choose ids with the same hash.
#[derive(Debug)]
pub(crate) struct RecentFindings<V> {
    by_hash: Recent<u64, V>,
    hasher: RandomState,
}

impl<V> RecentFindings<V> {
    /// Makes a cache about at most `most` findings, and at least the `most / 2` used last.
    pub(crate) fn new(most: usize) -> Self {
        Self { by_hash: Recent::new(most), hasher: RandomState::new() }
    }

    pub(crate) fn insert(&mut self, id: &str, value: V) {
        self.by_hash.insert(self.hasher.hash_one(id), value);
    }

    pub(crate) fn get(&mut self, id: &str) -> Option<&V> {
        self.by_hash.get(&self.hasher.hash_one(id))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn findings_are_found_by_their_ids() {
        let mut recent = RecentFindings::new(100);
        for number in 0..10_000 {
            recent.insert(&number.to_string(), number);
            assert_eq!(recent.get("0"), Some(&0));
        }
        let found = ["9999", "1", "x"].map(|id| recent.get(id).copied());
        assert_eq!(found, [Some(9_999), None, None]);
    }

    #[test]
    fn the_size_is_limited_and_values_in_use_are_kept() {
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
    fn values_can_have_different_costs() {
        let mut recent = Recent::with_cost(2_000, Vec::len);
        for number in 0..1_000 {
            recent.insert(number, vec![0_u8; 300]);
            // A later value replaces the earlier one, and its cost.
            recent.insert(number, vec![0; 200]);
            if number % 3 == 0 {
                assert!(recent.remove(&number).is_some());
            }
            let cost = |values: &HashMap<i32, Vec<u8>>| values.values().map(Vec::len).sum::<usize>();
            assert_eq!(cost(&recent.young), recent.young_cost);
            assert!(cost(&recent.young) + cost(&recent.old) <= 2_000);
        }
        assert!(recent.get(&998).is_some());
    }

    #[test]
    fn a_replaced_value_needs_no_room_beside_the_new_one() {
        let mut recent = Recent::with_cost(20, |cost: &usize| *cost);
        recent.insert("other", 2);
        for _ in 0..3 {
            recent.insert("replaced", 8);
        }
        assert_eq!(recent.get(&"other"), Some(&2));
    }

    #[test]
    fn unused_values_are_dropped_by_aging() {
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
    fn the_last_inserted_value_is_returned_and_can_be_removed() {
        let mut recent = Recent::new(4);
        for (key, value) in [(1, 'a'), (2, 'b'), (3, 'c'), (1, 'd')] {
            recent.insert(key, value);
        }
        assert_eq!(recent.remove(&1), Some('d'));
        assert_eq!(recent.remove(&1), None);
        assert_eq!(recent.get(&1), None);
        assert_eq!(recent.get(&2), Some(&'b'));
    }

    /// What a cache is asked to do. The keys are few, so that they meet.
    #[derive(Clone, Debug)]
    enum Step {
        Insert(u8, usize),
        Get(u8),
        Remove(u8),
        Age,
    }

    fn step() -> impl Strategy<Value = Step> {
        let key = || 0..8_u8;
        prop_oneof![
            4 => (key(), 0..=10_usize).prop_map(|(key, cost)| Step::Insert(key, cost)),
            3 => key().prop_map(Step::Get),
            1 => key().prop_map(Step::Remove),
            1 => Just(Step::Age),
        ]
    }

    proptest! {
        #[test]
        fn values_are_never_stale_and_those_used_last_are_kept(steps in prop::collection::vec(step(), 0..64)) {
            const HALF: usize = 10;
            let mut recent = Recent::with_cost(2 * HALF, |(cost, _): &(usize, usize)| *cost);
            let mut inserted = HashMap::new();
            // The keys whose values must be there, the last used one at the end.
            let mut kept: Vec<u8> = Vec::new();
            for (nth, step) in steps.into_iter().enumerate() {
                if let Step::Insert(key, _) | Step::Get(key) | Step::Remove(key) = step {
                    kept.retain(|kept| *kept != key);
                }
                match step {
                    Step::Insert(key, cost) => {
                        recent.insert(key, (cost, nth));
                        inserted.insert(key, (cost, nth));
                        kept.push(key);
                    }
                    Step::Get(key) => {
                        if let Some(found) = recent.get(&key) {
                            prop_assert_eq!(Some(found), inserted.get(&key));
                            kept.push(key);
                        }
                    }
                    Step::Remove(key) => {
                        let removed = recent.remove(&key);
                        let expected = inserted.remove(&key);
                        prop_assert!(removed.is_none() || removed == expected);
                    }
                    Step::Age => {
                        kept.retain(|key| recent.young.contains_key(key));
                        recent.age();
                    }
                }
                let held = || recent.young.keys().chain(recent.old.keys());
                let all = recent.young.values().chain(recent.old.values());
                prop_assert!(all.map(|(cost, _)| cost).sum::<usize>() <= 2 * HALF);
                let mut cost = 0;
                let is_too_much = |key: &u8| {
                    cost += inserted[key].0;
                    cost > HALF
                };
                let first = kept.iter().rev().position(is_too_much).map_or(0, |at| kept.len() - at);
                kept.drain(..first);
                prop_assert!(kept.iter().all(|key| held().any(|held| held == key)), "not all of {:?} are there", kept);
            }
        }
    }
}
