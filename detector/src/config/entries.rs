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

/// An entry of a list.
pub(super) trait Entry: FromToml {
    /// What the entry describes.
    type Described;
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
pub(super) fn read<E: Entry>(value: &Value<'_>, problems: &mut Problems) -> Option<Vec<E::Described>> {
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

/// Warns that the entry with this name is never reached, because an earlier one covers it.
pub(super) fn warn_unreached<E: Entry>(name: &str, earlier: &str, span: Range<usize>, problems: &mut Problems) {
    let (one, _) = E::CALLED;
    problems.warn(
        span,
        format_args!(
            "{one} `{name}` is never reached: `{earlier}` comes before it and covers all of it; remove one, or put the \
            narrower one first"
        ),
    );
}
