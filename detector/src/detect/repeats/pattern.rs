//! What names have in common that differ only in a number or in random characters.

/// What stands for the part of a name that differs.
const VARYING: char = '*';
/// How many letters before digits are a word, as in `worker12`. Fewer can be a part of random characters.
const WORD: usize = 3;
/// The shortest word that can be random without looking so at its first characters.
const RANDOM: usize = 6;

/// The pattern of a path: each number, and each word that looks random, is a `*`.
pub(crate) fn of(path: &str) -> String {
    let mut pattern = String::with_capacity(path.len());
    let mut rest = path;
    while !rest.is_empty() {
        let (word, tail) = split(rest, |character| character.is_ascii_alphanumeric());
        push_word(&mut pattern, word);
        let (other, tail) = split(tail, |character| !character.is_ascii_alphanumeric());
        pattern.push_str(other);
        rest = tail;
    }
    pattern
}

/// Splits a text before the first character that is not of this kind.
fn split(text: &str, is_of_kind: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|character| !is_of_kind(character)).unwrap_or(text.len()))
}

fn push_word(pattern: &mut String, word: &str) {
    let letters = word.bytes().take_while(u8::is_ascii_alphabetic).count();
    let (start, rest) = word.split_at(letters);
    if rest.is_empty() && !has_random_case(word) {
        return pattern.push_str(word);
    }
    // Random characters often contain `_` or `-`, as an UUID does.
    if let Some(joined) = pattern.strip_suffix(['_', '-']).filter(|before| before.ends_with(VARYING)) {
        pattern.truncate(joined.len());
        return;
    }
    let is_hexadecimal = word.len() >= RANDOM && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    if letters >= WORD && !is_hexadecimal && !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()) {
        pattern.push_str(start);
    }
    pattern.push(VARYING);
}

/// Whether capitals are at so many places that they begin no words.
fn has_random_case(word: &str) -> bool {
    let begins = |pair: &&[u8]| pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase();
    word.len() >= RANDOM && 3 * word.as_bytes().windows(2).filter(begins).count() >= word.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_same_kind_have_one_pattern() {
        for (names, pattern) in [
            (&["/srv/state.json"][..], "/srv/state.json"),
            (&["/tmp/tmpk3j_x9a2", "/tmp/tmp7c1b2qa", "/tmp/9f"], "/tmp/*"),
            (&["/tmp/tmp.aB3dE9xYz1", "/tmp/tmp.1"], "/tmp/tmp.*"),
            (&["/tmp/tmp.aBcDeFgH", "/tmp/tmp.abc12345"], "/tmp/tmp.*"),
            (&["/srv/worker12.log", "/srv/worker7.log"], "/srv/worker*.log"),
            (&["/srv/550e8400-e29b-41d4-a716-446655440000.json"], "/srv/*.json"),
            (&["/srv/req-17/body", "/srv/req-18/body"], "/srv/req-*/body"),
            (&["/cache/0000000001", "/cache/0000000002"], "/cache/*"),
            (&["/srv/20261126-100001.log", "/srv/20261126-100002.log"], "/srv/*.log"),
        ] {
            for name in names {
                assert_eq!(of(name), pattern, "{name}");
            }
        }
    }

    #[test]
    fn words_stay() {
        for name in ["/etc/passwd", "/srv/MyFileName.conf", "/srv/README", "/srv/häßlich", "/", "", r"/srv/\\xfg"] {
            assert_eq!(of(name), name);
        }
    }
}
