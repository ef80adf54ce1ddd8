//! Which of the known names may have been meant by one that is unknown.

use strsim::damerau_levenshtein;

/// What to do instead of using an unknown name: use the known one that looks much like it, or one of all.
pub(crate) fn hint(name: &str, known: &[&str]) -> String {
    match nearest(name, known) {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => one_of(known),
    }
}

/// Says which names are known.
pub(crate) fn one_of(known: &[&str]) -> String {
    format!("use one of {}", known.join(", "))
}

/// The known name that looks most like this one, if one looks much like it.
pub(crate) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    // Of two beginnings, the one that leaves out less was meant.
    let order = |other: &&str| (distance(name, other), other.len().abs_diff(name.len()));
    let nearest = known.iter().copied().min_by_key(order);
    nearest.filter(|nearest| distance(name, nearest) <= name.len() / 3)
}

/// How much one name looks like another. That one is the beginning of the other is a small difference.
fn distance(name: &str, other: &str) -> usize {
    let is_beginning = name.len() > 2 && other.starts_with(name) || name.starts_with(other);
    if is_beginning { 1 } else { damerau_levenshtein(name, other) }
}
