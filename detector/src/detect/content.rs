//! Recognises a shell by the content of its file, if the name of the file does not show that it is one.
//!
//! The file of a shell contains the names of the variables that it sets, of its builtins and of its reserved words,
//! each as a string of its own. Other programs contain a few of them, because they set variables for a shell or
//! highlight its scripts, but not so many: of the eleven words of the Bourne family, each of its members in Debian has
//! all, and no other program in Debian was found to have more than four.
//!
//! This recognises copies. A shell that was packed or patched is not recognised, but the detector still finds that the
//! file is not as in the image.

use std::io::{self, Read};
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind};

/// What a program is, by its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// A shell, and its name.
    Shell(&'static str),
    /// A shell and many other programs in one file, such as BusyBox. Its arguments decide what it does.
    Box,
    /// Neither.
    Other,
}

/// The words of a family of shells, and how many of them a member must have.
struct Family {
    words: &'static [&'static str],
    enough: u32,
    name: &'static str,
}

const BOURNE: Family = Family {
    words: &["PS1", "PS4", "IFS", "OPTIND", "PPID", "CDPATH", "LINENO", "getopts", "readonly", "elif", "esac"],
    enough: 9,
    name: "sh",
};
/// csh and tcsh.
const C: Family = Family { words: &["onintr", "breaksw", "endsw", "unhash", "foreach"], enough: 5, name: "csh" };
/// `fish_indent` and similar programs have the words of fish too, but not its options.
const FISH: Family = Family {
    words: &["fish_prompt", "fish_history", "init-command", "profile-startup", "no-execute"],
    enough: 5,
    name: "fish",
};
const FAMILIES: [Family; 3] = [BOURNE, C, FISH];

/// The words that distinguish the members of the Bourne family.
const MEMBERS: [(&str, Content); 6] = [
    ("BASH_VERSION", Content::Shell("bash")),
    ("ZSH_VERSION", Content::Shell("zsh")),
    ("KSH_VERSION", Content::Shell("ksh")),
    ("YASH_VERSION", Content::Shell("yash")),
    ("BusyBox v", Content::Box),
    ("Toybox %s", Content::Box),
];

/// Finds all words in one pass. `bits` has the bit of the word that each pattern of the automaton stands for.
struct Words {
    automaton: AhoCorasick,
    bits: Vec<u32>,
}

static WORDS: LazyLock<Words> = LazyLock::new(|| {
    let mut patterns: Vec<Vec<u8>> = Vec::new();
    let mut bits = Vec::new();
    let words = FAMILIES.iter().flat_map(|family| family.words).copied();
    for (bit, word) in words.enumerate() {
        // After the word, the string ends, or a variable gets its first value.
        for end in ["\0", "="] {
            for pattern in [word.to_owned() + end, wide(word) + &wide(end)] {
                patterns.push(pattern.into_bytes());
                bits.push(1 << bit);
            }
        }
    }
    let members = FAMILIES.iter().map(|family| family.words.len()).sum::<usize>();
    for (bit, (word, _)) in (members..).zip(MEMBERS) {
        for pattern in [word.to_owned(), wide(word)] {
            patterns.push(pattern.into_bytes());
            bits.push(1 << bit);
        }
    }
    let automaton = AhoCorasick::builder().kind(Some(AhoCorasickKind::DFA)).build(patterns);
    Words { automaton: automaton.expect("a few short words make a small automaton"), bits }
});

/// The word as a string of `wchar_t`. Some shells store their words in this form.
fn wide(word: &str) -> String {
    word.chars().flat_map(|letter| [letter, '\0', '\0', '\0']).collect()
}

/// Recognises a program by its bytes. A script is not a program, but its interpreter is.
///
/// # Errors
///
/// The program cannot be read.
pub(crate) fn recognise(mut program: impl Read) -> io::Result<Content> {
    let mut magic = [0; 4];
    match program.read_exact(&mut magic) {
        Ok(()) if magic == *b"\x7fELF" => {}
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
        _ => return Ok(Content::Other),
    }
    let mut found = 0_u32;
    for word in WORDS.automaton.stream_find_iter(program) {
        found |= WORDS.bits[word?.pattern().as_usize()];
    }
    Ok(decide(found))
}

fn decide(found: u32) -> Content {
    let mut from = 0;
    let mut take = |bits: usize| {
        let taken = found >> from & ((1 << bits) - 1);
        from += bits;
        taken
    };
    let families =
        FAMILIES.map(|family| (take(family.words.len()).count_ones() >= family.enough).then_some(family.name));
    let members = take(MEMBERS.len());
    let member = MEMBERS.iter().enumerate().find(|(bit, _)| members >> bit & 1 != 0).map(|(_, (_, content))| *content);
    match families.into_iter().flatten().next() {
        Some(name) if name == BOURNE.name => member.unwrap_or(Content::Shell(name)),
        Some(name) => Content::Shell(name),
        None => Content::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recognises a program that has these strings.
    fn content(strings: &[&str]) -> Content {
        let text: String = strings.iter().flat_map(|string| ["\u{1}", string, "\0"]).collect();
        recognise(["\x7fELF", &text].concat().as_bytes()).expect("bytes can be read")
    }

    #[test]
    fn shells_are_known_by_their_words() {
        let bourne = |member: &'static str| content(&[BOURNE.words, &[member]].concat());
        for (found, expected) in [
            (content(BOURNE.words), Content::Shell("sh")),
            (bourne("BASH_VERSION"), Content::Shell("bash")),
            (bourne("ZSH_VERSION"), Content::Shell("zsh")),
            (bourne("KSH_VERSION"), Content::Shell("ksh")),
            (bourne("YASH_VERSION"), Content::Shell("yash")),
            (bourne("BusyBox v1.36"), Content::Box),
            (bourne("Toybox %s multicall binary"), Content::Box),
            (content(C.words), Content::Shell("csh")),
            (content(FISH.words), Content::Shell("fish")),
            (content(&BOURNE.words[2..]), Content::Shell("sh")),
        ] {
            assert_eq!(found, expected);
        }
        // These are variables with a first value, in strings of `wchar_t`.
        let assigned: String = BOURNE.words.iter().map(|word| wide(&format!("{word}=x"))).collect();
        assert_eq!(content(&[&assigned]), Content::Shell("sh"));
    }

    #[test]
    fn a_few_words_are_no_shell() {
        for strings in [
            &BOURNE.words[3..],
            &C.words[1..],
            &FISH.words[1..],
            &["BASH_VERSION", "BusyBox v1.36"],
            // These words are only parts of longer ones.
            &[
                "PS11",
                "PS44",
                "IFSX",
                "OPTINDEX",
                "PPIDS",
                "CDPATHS",
                "LINENOS",
                "getoptsx",
                "readonlyx",
                "elifx",
                "esacx",
            ],
        ] {
            assert_eq!(content(strings), Content::Other, "{strings:?}");
        }
    }

    #[test]
    fn what_is_no_program_is_not_searched() {
        let script = "#!/bin/sh\n".to_owned() + &BOURNE.words.join("\0") + "\0";
        for bytes in ["", "\x7fE", "\x7fELF", &script] {
            assert_eq!(recognise(bytes.as_bytes()).ok(), Some(Content::Other));
        }
    }
}
