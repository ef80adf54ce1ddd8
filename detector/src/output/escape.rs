//! Which characters must not reach a terminal as they are. Names of files and arguments are the attacker's to choose,
//! and a terminal obeys what is printed on it.

/// The character does something other than being seen: it controls the terminal (C0, DEL, C1), turns the direction of
/// the text round it, breaks the line, or is invisible, so that what is seen is not what is there.
pub(crate) fn is_unsafe(character: char) -> bool {
    // Nothing below U+00A0 but the controls, and most text is ASCII.
    if character < '\u{a0}' {
        return character.is_control();
    }
    matches!(character,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        // Zero width, direction marks; line and paragraph separators, direction embeddings; joiners, isolates.
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        // Tags and more variation selectors.
        | '\u{e0000}'..='\u{e0fff}'
        // Private use and no characters at all: what they look like is up to the font.
        | '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..='\u{10ffff}')
}

/// Splits text into what can be shown and single characters that cannot, in order.
pub(super) fn parts(text: &str) -> impl Iterator<Item = (&str, Option<char>)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let found = rest.char_indices().find(|(_, character)| is_unsafe(*character));
        let (position, end) = match found {
            Some((position, character)) => (position, position + character.len_utf8()),
            None => (rest.len(), rest.len()),
        };
        let plain = &rest[..position];
        rest = &rest[end..];
        Some((plain, found.map(|(_, character)| character)))
    })
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes that attack whoever prints them.
    pub(in crate::output) const HOSTILE: &[&[u8]] = &[
        b"\x1b[2J\x1b]0;owned\x07",
        b"a\rb\nc\td\x00\x08\x7f",
        "\u{85}\u{9b}31m\u{9d}0;x\u{9c}".as_bytes(),
        "\u{202e}gpj.exe\u{2066}\u{200f}\u{61c}".as_bytes(),
        "in\u{200b}vis\u{feff}ible\u{ad}\u{2028}\u{e0041}".as_bytes(),
        b"\xff\xfe\x9b31m\xc3",
        br"back\slash \x41",
        b"\"quoted\" 'too' $(x) `y`",
    ];

    #[test]
    fn plain_text_stays() {
        for text in ["/usr/bin/python3.12 --flag=\"a b\"", "größer, 日本語, עברית, emoji 🐳"] {
            assert_eq!(parts(text).collect::<Vec<_>>(), [(text, None)]);
        }
    }

    #[test]
    fn parts_are_in_order() {
        assert_eq!(parts("").count(), 0);
        assert_eq!(
            parts("\u{1b}a\u{85}\u{202e}").collect::<Vec<_>>(),
            [("", Some('\u{1b}')), ("a", Some('\u{85}')), ("", Some('\u{202e}'))]
        );
    }

    proptest! {
        #[test]
        fn parts_are_the_whole_text(text in any::<String>(), hostile in prop::sample::select(HOSTILE)) {
            let text = text + &String::from_utf8_lossy(hostile);
            let mut whole = String::new();
            for (plain, found) in parts(&text) {
                prop_assert!(!plain.contains(is_unsafe));
                prop_assert!(found.is_none_or(is_unsafe));
                whole.push_str(plain);
                whole.extend(found);
            }
            prop_assert_eq!(whole, text);
        }
    }
}
