//! Recognises a shell, or another interpreter, by the content of its file, if the name of the file does not show that
//! it is one.
//!
//! The file of a shell contains the names of the variables that it sets, of its builtins and of its reserved words,
//! each as a string of its own. Other programs contain a few of them, because they set variables for a shell or
//! highlight its scripts, but not so many: of the eleven words of the Bourne family, each of its members in Debian has
//! all, and no other program in Debian was found to have more than four. The words of the others were compared with
//! brush 0.4, elvish 0.19, es 0.10, nu 0.115, rc 1.7.4 and sash 3.8.
//!
//! This recognises copies. A shell that was packed or patched is not recognised, but the detector still finds that the
//! file is not as in the image.

use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::packed;
use aho_corasick::{AhoCorasick, AhoCorasickKind};
use detector_common::code::Language;
use serde::{Deserialize, Serialize};

use crate::finding::Unread;

/// The name of a shell.
pub(crate) type ShellName = &'static str;

/// What a program is, by its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Content {
    /// A shell, and its name.
    #[serde(deserialize_with = "super::shell::known_name")]
    Shell(ShellName),
    /// A shell and many other programs in one file, such as BusyBox. Its arguments decide what it does.
    Box,
    /// An interpreter of another language.
    Interpreter(Language),
    /// None of these.
    Other,
}

/// What is known of the content of a file that was looked at.
pub(crate) type Look = Result<Content, Unread>;

/// The words of a family of shells, and how many of them a member must have.
struct Family {
    words: &'static [&'static str],
    kind: Kind,
    enough: u32,
    name: &'static str,
}

/// What a word is in a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A string, or a variable with its first value.
    Whole,
    /// The same, also of letters of the type `wchar_t`.
    WideToo,
    /// A part of a longer text, as strings are in programs of Go and Rust. The bar does not belong to the word: it
    /// keeps the word out of the detector's own file.
    Part,
}

const BOURNE: Family = Family {
    words: &["PS1", "PS4", "IFS", "OPTIND", "PPID", "CDPATH", "LINENO", "getopts", "readonly", "elif", "esac"],
    kind: Kind::WideToo,
    enough: 9,
    name: "sh",
};
/// csh and tcsh.
const C: Family =
    Family { words: &["onintr", "breaksw", "endsw", "unhash", "foreach"], kind: Kind::Whole, enough: 5, name: "csh" };
/// `fish_indent` and similar programs have the words of fish too, but not its options.
const FISH: Family = Family {
    words: &["fish_prompt", "fish_history", "init-command", "profile-startup", "no-execute"],
    kind: Kind::WideToo,
    enough: 5,
    name: "fish",
};
/// The shell of Plan 9, as Byron Rakitzis wrote it for Unix.
const RC: Family =
    Family { words: &["bqstatus", "newpgrp", "cdpath", "apids", "whatis"], kind: Kind::Whole, enough: 5, name: "rc" };
/// The extensible shell. These are functions of its initial state.
const ES: Family = Family {
    words: &["fn-%apids", "fn-%batch-loop", "fn-%exec-failure", "fn-%interactive-loop"],
    kind: Kind::Whole,
    enough: 4,
    name: "es",
};
/// The stand-alone shell, which has other commands built in.
const SASH: Family =
    Family { words: &["aliasall", "-chattr", "-lsattr", "-pivot_root"], kind: Kind::Whole, enough: 4, name: "sash" };
/// The packages that the program consists of.
const ELVISH: Family = Family {
    words: &["src.elv.sh|/pkg/shell", "src.elv.sh|/pkg/edit", "src.elv.sh|/pkg/eval"],
    kind: Kind::Part,
    enough: 3,
    name: "elvish",
};
const NU: Family = Family {
    words: &["NU_LIB|_DIRS", "NU_PLUGIN|_DIRS", "PROMPT_MULTILINE|_INDICATOR", "nu::|shell::"],
    kind: Kind::Part,
    enough: 4,
    name: "nu",
};
/// Two of its variables, and one of its builtins.
const BRUSH: Family =
    Family { words: &["BRUSH|_VERSION", "BRUSH_PS|_ALT", "brush|info"], kind: Kind::Part, enough: 3, name: "brush" };
const FAMILIES: [Family; 9] = [BOURNE, C, FISH, RC, ES, SASH, ELVISH, NU, BRUSH];

/// The number of bytes of a `wchar_t`.
const WIDE: usize = size_of::<libc::wchar_t>();
/// The only one of these words whose letters have the type `wchar_t`.
const WIDE_MEMBER: &str = "YASH_VERSION";
/// The words that distinguish the members of the Bourne family.
const MEMBERS: [(&str, Content); 6] = [
    ("BASH_VERSION", Content::Shell("bash")),
    ("ZSH_VERSION", Content::Shell("zsh")),
    ("KSH_VERSION", Content::Shell("ksh")),
    ("YASH_VERSION", Content::Shell("yash")),
    ("BusyBox v", Content::Box),
    ("Toybox %s", Content::Box),
];

/// The words of interpreters. One of them is enough: it is the name of the library that has the interpreter, of a
/// function of this library, or of a variable of the environment that only the interpreter reads.
const INTERPRETERS: [(&str, Language); 14] = [
    ("JDK_JAVA|_OPTIONS", Language::Java),
    ("JLI|_Launch", Language::Java),
    ("NODE_REPL|_HISTORY", Language::JavaScript),
    ("LUA|_INIT", Language::Lua),
    ("PERL5|LIB", Language::Perl),
    ("perl|_parse", Language::Perl),
    ("PHP_INI|_SCAN_DIR", Language::Php),
    ("PYTHON|STARTUP", Language::Python),
    ("Py|_BytesMain", Language::Python),
    ("RUBY|LIB", Language::Ruby),
    ("ruby|_run_node", Language::Ruby),
    ("AWK|PATH", Language::Awk),
    ("TCL|LIBPATH", Language::Tcl),
    ("Tcl|_MainEx", Language::Tcl),
];

/// How many bytes of a file are read at most. No known shell has half as many.
pub(crate) const MOST_READ: u64 = 64 << 20;

/// How many bytes a word takes at most, with its end, as a string of `wchar_t`.
pub(crate) const LONGEST: usize = 128;

/// A word, as the search finds it.
struct Pattern {
    /// The bit that stands for the word.
    bit: u64,
    /// The number of bytes of a letter: that of a `char` or of a `wchar_t`.
    letter: usize,
    /// Whether the string must end after the word, or a variable get its first value.
    is_whole: bool,
}

/// Finds all words. Each search looks for [`AT_ONCE`] of the patterns, the last one for what is left.
struct Patterns {
    searches: Vec<Search>,
    patterns: Vec<Pattern>,
}

/// How many patterns [`packed`] takes at most.
const AT_ONCE: usize = 64;

enum Search {
    /// With instructions that compare many bytes at once.
    Packed(packed::Searcher),
    /// For processors without them.
    Plain(AhoCorasick),
}

static PATTERNS: LazyLock<Patterns> = LazyLock::new(|| {
    let families = FAMILIES.iter().flat_map(|family| family.words.iter().map(|word| (*word, family.kind)));
    let members = MEMBERS.iter().map(|(word, _)| *word).chain(INTERPRETERS.iter().map(|(word, _)| *word));
    let words = families.chain(members.map(|word| (word, Kind::Part)));
    let (mut texts, mut patterns) = (Vec::new(), Vec::new());
    for ((word, kind), bit) in words.zip((0..).map(|nth| 1 << nth)) {
        let letters: &[usize] = if kind == Kind::WideToo || word == WIDE_MEMBER { &[1, WIDE] } else { &[1] };
        for &letter in letters {
            texts.push(spread(word, letter));
            patterns.push(Pattern { bit, letter, is_whole: kind != Kind::Part });
        }
    }
    Patterns { searches: texts.chunks(AT_ONCE).map(Search::of).collect(), patterns }
});

impl Search {
    fn of(texts: &[Vec<u8>]) -> Self {
        packed::Config::new().builder().extend(texts).build().map_or_else(
            || {
                let automaton = AhoCorasick::builder().kind(Some(AhoCorasickKind::DFA)).build(texts);
                Self::Plain(automaton.expect("a few short words make a small automaton"))
            },
            Self::Packed,
        )
    }
}

/// The word, without bars, as a string of letters of this many bytes.
fn spread(word: &str, letter: usize) -> Vec<u8> {
    word.bytes()
        .filter(|byte| *byte != b'|')
        .flat_map(|byte| [byte].into_iter().chain(std::iter::repeat_n(0, letter - 1)))
        .collect()
}

/// The words that were found in a program so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Words(u64);

impl Words {
    /// Searches a part of a program. A word that is in two parts is not found, so parts must overlap by [`LONGEST`].
    pub(crate) fn search(&mut self, part: &[u8]) {
        for (search, patterns) in PATTERNS.searches.iter().zip(PATTERNS.patterns.chunks(AT_ONCE)) {
            self.search_for(search, patterns, part);
        }
    }

    fn search_for(&mut self, search: &Search, patterns: &[Pattern], part: &[u8]) {
        let mut found = |number: usize, end: usize| {
            let Pattern { bit, letter, is_whole } = patterns[number];
            let next = &part[end..];
            let is_end = |last: u8| next.first() == Some(&last) && next.get(1..letter).is_some_and(is_zero);
            if !is_whole || is_end(0) || is_end(b'=') {
                self.0 |= bit;
            }
        };
        match search {
            Search::Packed(search) => search.find_iter(part).for_each(|at| found(at.pattern().as_usize(), at.end())),
            Search::Plain(search) => search.find_iter(part).for_each(|at| found(at.pattern().as_usize(), at.end())),
        }
    }

    /// What a program with these words is.
    pub(crate) fn content(self) -> Content {
        let Self(found) = self;
        let mut from = 0;
        let mut take = |bits: usize| {
            let taken = found >> from & ((1 << bits) - 1);
            from += bits;
            taken
        };
        let families =
            FAMILIES.map(|family| (take(family.words.len()).count_ones() >= family.enough).then_some(family.name));
        let members = take(MEMBERS.len());
        let member =
            MEMBERS.iter().enumerate().find(|(bit, _)| members >> bit & 1 != 0).map(|(_, (_, content))| *content);
        match families.into_iter().flatten().next() {
            Some(name) if name == BOURNE.name => member.unwrap_or(Content::Shell(name)),
            Some(name) => Content::Shell(name),
            None => {
                let found = take(INTERPRETERS.len());
                let language = INTERPRETERS.iter().enumerate().find(|(bit, _)| found >> bit & 1 != 0);
                language.map_or(Content::Other, |(_, (_, language))| Content::Interpreter(*language))
            }
        }
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

/// The parts of a program that can contain its words: those that are loaded and not executed. A program that has no
/// such part only for reading has its words beside its instructions, and is searched whole. `start` are the first bytes
/// of the file, and `size` is its size. Returns `None` if the file is not a program: a script is none, but its
/// interpreter is.
pub(crate) fn searched_parts(start: &[u8], size: u64) -> Option<Vec<Range<u64>>> {
    if !start.starts_with(b"\x7fELF") {
        return None;
    }
    let segments = segments(start).unwrap_or_default();
    let is_separate = segments.iter().any(|segment| segment.flags & (EXECUTABLE | WRITABLE) == 0);
    let chosen = segments.into_iter().filter(|segment| !is_separate || segment.flags & EXECUTABLE == 0);
    let mut parts: Vec<_> = chosen.map(|Segment { range, .. }| range.start.min(size)..range.end.min(size)).collect();
    parts.retain(|part| !part.is_empty());
    if parts.is_empty() {
        parts.push(0..size);
    }
    Some(parts)
}

/// `PF_X` and `PF_W` (elf(5)).
const EXECUTABLE: u32 = 1;
const WRITABLE: u32 = 2;

/// A part of a program that is loaded.
struct Segment {
    flags: u32,
    range: Range<u64>,
}

/// The parts of a program that are loaded, or `None` if its headers are not all at its start, or not as those of
/// programs are.
fn segments(start: &[u8]) -> Option<Vec<Segment>> {
    /// `PT_LOAD` (elf(5)).
    const LOAD: u64 = 1;
    let &[is_32_bit, 1] = start.get(4..6)? else { return None };
    let is_32_bit = is_32_bit == 1;
    let number = |at: u64, bytes: usize| {
        let at = usize::try_from(at).ok()?;
        let bytes = start.get(at..at.checked_add(bytes)?)?;
        Some(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    };
    let word = if is_32_bit { 4 } else { 8 };
    let (table, entry, count) = if is_32_bit { (28, 42, 44) } else { (32, 54, 56) };
    let (table, entry, count) = (number(table, word)?, number(entry, 2)?, number(count, 2)?);
    let (flags_at, offset_at, size_at) = if is_32_bit { (24, 4, 16) } else { (4, 8, 32) };
    let mut segments = Vec::new();
    for nth in 0..count {
        let header = table.checked_add(nth * entry)?;
        let field = |at: u64, bytes| number(header.checked_add(at)?, bytes);
        if field(0, 4)? == LOAD {
            let offset = field(offset_at, word)?;
            let flags = u32::try_from(field(flags_at, 4)?).ok()?;
            segments.push(Segment { flags, range: offset..offset.checked_add(field(size_at, word)?)? });
        }
    }
    Some(segments)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recognises a program that has these strings.
    fn content(strings: &[&str]) -> Content {
        let text: String = strings.iter().flat_map(|string| ["\u{1}", string, "\0"]).collect();
        let mut words = Words::default();
        words.search(text.as_bytes());
        words.content()
    }

    #[test]
    fn shells_are_known_by_their_words() {
        let parts = |words: &[&str]| content(&[&words.concat().replace('|', "")]);
        let bourne = |member: &'static str| content(&[BOURNE.words, &[member]].concat());
        for (found, expected) in [
            (content(BOURNE.words), Content::Shell("sh")),
            (content(RC.words), Content::Shell("rc")),
            (content(ES.words), Content::Shell("es")),
            (content(SASH.words), Content::Shell("sash")),
            (parts(ELVISH.words), Content::Shell("elvish")),
            (parts(NU.words), Content::Shell("nu")),
            (parts(BRUSH.words), Content::Shell("brush")),
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
        let assigned: Vec<u8> = BOURNE.words.iter().flat_map(|word| spread(&format!("{word}=x"), 4)).collect();
        let mut words = Words::default();
        words.search(&assigned);
        assert_eq!(words.content(), Content::Shell("sh"));
    }

    #[test]
    fn a_few_words_are_no_shell() {
        for strings in [
            &BOURNE.words[3..],
            &C.words[1..],
            &FISH.words[1..],
            &RC.words[1..],
            &ES.words[1..],
            &SASH.words[1..],
            &[&ELVISH.words[1..].concat().replace('|', "")],
            &[&NU.words[1..].concat().replace('|', "")],
            &[&BRUSH.words[1..].concat().replace('|', "")],
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
    fn the_detector_is_no_shell() {
        let mut words = Words::default();
        words.search(&std::fs::read("/proc/self/exe").expect("this runs"));
        assert_eq!(words.content(), Content::Other);
    }

    #[test]
    fn parts_that_overlap_hide_no_word() {
        #[cfg(target_arch = "x86_64")]
        assert!(PATTERNS.searches.iter().all(|search| matches!(search, Search::Packed(_))), "a search is slow");
        let longest = FAMILIES.iter().flat_map(|family| family.words).map(|word| spread(word, 4).len() + 4).max();
        assert!(longest.is_some_and(|longest| longest <= LONGEST));
    }

    /// A program with these segments: flags, offset and size.
    fn program(segments: &[(u32, u64, u64)]) -> Vec<u8> {
        let mut program = [&b"\x7fELF\x02\x01\x01"[..], &[0; 57]].concat();
        program[32] = 64;
        program[54] = 56;
        program[56] = segments.len() as u8;
        for &(flags, offset, size) in segments {
            let [flags, size, zero] = [u64::from(flags) << 32 | 1, size, 0].map(u64::to_le_bytes);
            program.extend([flags, offset.to_le_bytes(), zero, zero, size, zero, zero].concat());
        }
        program
    }

    #[test]
    fn instructions_are_not_searched() {
        let only = |part: Range<u64>| vec![part];
        let parts = |segments: &[(u32, u64, u64)]| searched_parts(&program(segments), 1000).expect("it is a program");
        assert_eq!(parts(&[(4, 0, 100), (5, 100, 300), (4, 400, 100), (6, 500, 50)]), [0..100, 400..500, 500..550]);
        assert_eq!(parts(&[(5, 0, 400), (6, 400, 100)]), [0..400, 400..500], "words are beside instructions");
        assert_eq!(parts(&[(4, 900, u64::MAX - 900), (5, 0, 900)]), only(900..1000), "it ends with the file");
        assert_eq!(parts(&[(4, 900, u64::MAX)]), only(0..1000), "no program is like that");
        assert_eq!(parts(&[(4, 1000, 5)]), only(0..1000));
        assert_eq!(parts(&[]), only(0..1000));
        let whole = program(&[(4, 0, 100), (5, 100, 300)]);
        // The rest of the last header does not matter.
        for length in 4..160 {
            assert_eq!(searched_parts(&whole[..length], 1000), Some(only(0..1000)), "at {length}");
        }
    }

    #[test]
    fn what_is_no_program_is_not_searched() {
        for bytes in [&b""[..], b"\x7fEL", b"#!/bin/sh\n"] {
            assert_eq!(searched_parts(bytes, 1000), None);
        }
    }
}
