//! The lists of tables in the file, such as `[[exception]]`: what is the same for the entries of each.

use std::collections::BTreeSet;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::problem::Problems;
use super::read::{FromToml, Value};

/// How many entries a list can have.
pub(crate) const MOST: usize = 1000;

/// How many texts all entries of a list can have. Of patterns in such a number, each takes 12 KiB and most of a
/// millisecond.
const MOST_TEXTS: usize = 20_000;

/// What an entry of a list describes.
pub(super) trait Described: Sized {
    /// The entry.
    type Entry: Entry<Described = Self>;

    /// Its name.
    fn name(&self) -> &str;

    /// Whether it leaves nothing for a later one in the list.
    fn covers(&self, later: &Self) -> bool;
}

/// What a list describes, in its order.
#[derive(Debug)]
pub struct List<T>(pub Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Described> FromToml for List<T> {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Option<Self> {
        read::<T::Entry>(value, problems).map(Self)
    }
}

/// An entry of a list.
pub(super) trait Entry: FromToml {
    /// What the entry describes.
    type Described: Described<Entry = Self>;
    /// The key of the list.
    const KEY: &'static str;
    /// What one entry is called, and what several are.
    const CALLED: (&'static str, &'static str);
    /// The keys that every entry has.
    const REQUIRED: &'static [&'static str];

    /// Its name. No other entry of the list can have it.
    fn name(&self) -> Option<&String>;

    /// What the entry describes, if nothing is missing.
    fn describe(self, item: &Value<'_>, table: &DeTable<'_>, problems: &mut Problems) -> Option<Self::Described>;
}

/// What the entries of a list describe, in its order.
fn read<E: Entry>(value: &Value<'_>, problems: &mut Problems) -> Option<Vec<E::Described>> {
    let ((one, more), key) = (E::CALLED, E::KEY);
    let DeValue::Array(list) = value.get_ref() else {
        problems.error(value.span(), format_args!("{more} are a list; write `[[{key}]]`, with two brackets"));
        return None;
    };
    if let Some(first) = list.get(MOST) {
        let all = list.len();
        problems.error(
            first.span(),
            format_args!("there are {all} {more}, and can be at most {MOST}; combine some with lists or patterns"),
        );
    }
    let texts = texts(value.get_ref());
    if texts > MOST_TEXTS {
        problems.error(
            value.span(),
            format_args!(
                "the {more} have {texts} texts, and can have at most {MOST_TEXTS}; combine some with patterns"
            ),
        );
        return None;
    }
    let mut names = BTreeSet::new();
    let mut described = Vec::new();
    for item in list.iter().take(MOST) {
        let Some(entry) = E::from_toml(item, problems) else { continue };
        let Some(table) = item.get_ref().as_table() else { continue };
        if let (Some(name), Some(value)) = (entry.name(), table.get("name"))
            && !names.insert(name.clone())
        {
            problems.error(value.span(), format_args!("another {one} is called `{name}` too; give each its name"));
        }
        let missing: Vec<_> = E::REQUIRED.iter().copied().filter(|key| !table.contains_key(*key)).collect();
        if !missing.is_empty() {
            problems.error(
                item.span(),
                format_args!("this {one} has no {}; every one needs {}", missing.join(", "), E::REQUIRED.join(", ")),
            );
        }
        described.extend(entry.describe(item, table, problems));
    }
    Some(described)
}

/// How many texts are in a value.
fn texts(value: &DeValue<'_>) -> usize {
    match value {
        DeValue::String(_) => 1,
        DeValue::Array(list) => list.iter().map(|item| texts(item.get_ref())).sum(),
        DeValue::Table(table) => table.values().map(|item| texts(item.get_ref())).sum(),
        _ => 0,
    }
}

/// Warns of entries of a list that may not do what was intended: `warn` looks at one and those before it, and one that
/// an earlier one covers is never reached. The list is that of this document.
pub(super) fn warn<T: Described>(
    list: &[T],
    document: &DeTable<'_>,
    problems: &mut Problems,
    warn: impl Fn(&T, &[T], &Written<'_, '_>, &mut Problems),
) {
    let (one, _) = T::Entry::CALLED;
    let items = document.get(T::Entry::KEY).and_then(|value| value.get_ref().as_array());
    for (nth, (described, item)) in list.iter().zip(items.into_iter().flatten()).enumerate() {
        let Some(table) = item.get_ref().as_table() else { continue };
        let (earlier, written) = (&list[..nth], Written { item, table });
        warn(described, earlier, &written, problems);
        if let Some(earlier) = earlier.iter().find(|earlier| earlier.covers(described)) {
            let (name, earlier) = (described.name(), earlier.name());
            problems.warn(
                written.span("name"),
                format_args!(
                    "{one} `{name}` is never reached: `{earlier}` comes before it and covers all of it; remove one, or \
                    put the narrower one first"
                ),
            );
        }
    }
}

/// An entry as it is written.
pub(super) struct Written<'a, 'de> {
    item: &'a Value<'de>,
    pub(super) table: &'a DeTable<'de>,
}

impl Written<'_, '_> {
    /// Where the value of this key is, or the entry.
    pub(super) fn span(&self, key: &str) -> Range<usize> {
        self.table.get(key).unwrap_or(self.item).span()
    }
}
