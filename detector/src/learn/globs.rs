//! Few patterns for many paths. A pattern never stands for what is at the top of the root, for programs and libraries,
//! or for what controls access or what is started.

use std::collections::{BTreeMap, BTreeSet};

use crate::detect::place::stands_for_what_matters;
use crate::detect::repeats::pattern;
use crate::policy::PathPattern;
use crate::policy::pattern::literal;

/// From how many paths on that differ in one name, a pattern stands for any name there.
const MANY: usize = 4;
/// How many patterns an exception can have at most.
const MOST: usize = 50;
/// What stands for any part of a name, and for any name.
const ANY: &str = "*";

/// Patterns that stand for all of these paths and for all that these patterns stand for, or `None` if they would be too
/// many.
pub(super) fn of(paths: &BTreeSet<String>, patterns: &BTreeSet<String>) -> Option<Vec<String>> {
    let mut alike: BTreeMap<String, Vec<&String>> = BTreeMap::new();
    for path in paths {
        alike.entry(pattern::of(&literal(path))).or_default().push(path);
    }
    let mut found = patterns.clone();
    for (pattern, paths) in alike {
        let stands_for_all = || {
            let parsed = parsed(&pattern);
            parsed.is_some_and(|parsed| paths.iter().all(|path| parsed.matches(path.as_bytes())))
        };
        if paths.len() > 1 && is_allowed(&pattern) && stands_for_all() {
            found.insert(pattern);
        } else {
            found.extend(paths.iter().map(|path| literal(path)));
        }
    }
    let deepest = found.iter().map(|pattern| pattern.matches('/').count()).max().unwrap_or_default();
    // The name at the top stays.
    for place in (2..=deepest).rev() {
        found = widen(found, place);
    }
    let wide = found.iter().filter(|pattern| has_wildcard(pattern));
    let wide: Vec<_> = wide.filter_map(|pattern| Some((pattern.clone(), parsed(pattern)?))).collect();
    // What another pattern stands for is not needed.
    let is_needed = |one: &String| !wide.iter().any(|(text, pattern)| contains(text, pattern, one));
    let mut patterns: Vec<_> = found.into_iter().filter(is_needed).collect();
    patterns.sort_unstable();
    (patterns.len() <= MOST).then_some(patterns)
}

/// Lets one pattern stand for many that differ only in their name at this place.
fn widen(patterns: BTreeSet<String>, place: usize) -> BTreeSet<String> {
    let mut alike: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for pattern in patterns {
        let mut names: Vec<_> = pattern.split('/').collect();
        let wide = match names.get_mut(place) {
            Some(name) if *name != "**" => {
                *name = ANY;
                names.join("/")
            }
            _ => pattern.clone(),
        };
        alike.entry(wide).or_default().insert(pattern);
    }
    let mut widened = BTreeSet::new();
    for (wide, patterns) in alike {
        if patterns.len() >= MANY && is_allowed(&wide) {
            widened.insert(wide);
        } else {
            widened.extend(patterns);
        }
    }
    widened
}

/// Whether one pattern stands for everything that another one stands for, because it has `*` where that has a name.
fn contains(wide: &str, pattern: &PathPattern, narrow: &str) -> bool {
    let has_any_below = |pattern: &str| pattern.split('/').any(|name| name == "**");
    wide != narrow && (has_any_below(wide) || !has_any_below(narrow)) && pattern.matches(unescaped(narrow).as_bytes())
}

/// Whether a pattern may stand for more than one path.
pub(super) fn is_allowed(pattern: &str) -> bool {
    let mut names = pattern.split('/').skip(1);
    let top = names.next().unwrap_or_default();
    if top.is_empty() || has_wildcard(top) || names.next().is_none() {
        return false;
    }
    parsed(pattern).is_some_and(|pattern| !stands_for_what_matters(&pattern))
}

/// A pattern as findings have it, in which only `*` is special, as exceptions have it.
pub(super) fn of_finding(paths: &str) -> String {
    paths.split(ANY).map(literal).collect::<Vec<_>>().join(ANY)
}

/// What a pattern would stand for if its wildcards were characters like others.
fn unescaped(pattern: &str) -> String {
    characters(pattern).map(|(character, _)| character).collect()
}

fn has_wildcard(pattern: &str) -> bool {
    characters(pattern).any(|character| character == ('*', false))
}

/// The characters of a pattern, and whether each is meant as it is because a backslash precedes it.
fn characters(pattern: &str) -> impl Iterator<Item = (char, bool)> {
    let mut characters = pattern.chars();
    std::iter::from_fn(move || match characters.next()? {
        '\\' => Some((characters.next()?, true)),
        character => Some((character, false)),
    })
}

fn parsed(pattern: &str) -> Option<PathPattern> {
    pattern.parse().ok()
}
