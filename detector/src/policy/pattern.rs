//! Patterns of names and of paths, as shells and `.gitignore` have them.
//!
//! In a path, `*` and `?` stop at a slash, and `**` stands for any directories. In any other name, `*` stands for
//! everything: a slash in the name of an image has no meaning of its own.

use std::str::FromStr;

use globset::{Candidate, GlobBuilder, GlobSet};
use serde::{Deserialize, Serialize};

/// How long a pattern can be, in bytes.
pub const LONGEST: usize = 4096;

/// Names that have so little in common that a pattern which matches them all matches everything.
const NAMES: [&str; 5] = ["nginx", "registry.example:5000/team/app:1.2", "Q", "0", "ü_-. "];

/// The same for paths. No file worth protecting is directly in the root directory.
const PATHS: [&str; 5] = ["/etc/passwd", "/usr/bin/q", "/0/Ü.z", "/srv/www/x/index.html", "/h/.j k/-_"];

/// What is wrong with a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// It has no characters.
    #[error("an empty pattern matches nothing; write `*` for any name, or leave the condition out")]
    Empty,
    /// It has more than [`LONGEST`] bytes.
    #[error("the pattern has {0} bytes, and can have at most {LONGEST}; use `*` or several shorter patterns")]
    TooLong(usize),
    /// It is not one of paths.
    #[error("no path is like this, so it would never match; begin with `/` or `**/`")]
    Relative,
    /// It cannot be understood.
    #[error("the pattern is not understood: {0}; put `\\` before a character that is meant as it is")]
    Syntax(String),
}

/// A pattern of names: `*` is any text, `?` any character, `[a-z]` one of these, `{a,b}` either, and `\` takes the
/// meaning from the next character. It is serialised as its text.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Pattern {
    text: String,
    matcher: GlobSet,
}

impl Pattern {
    fn new(text: &str, is_path: bool) -> Result<Self, Invalid> {
        match text.len() {
            0 => return Err(Invalid::Empty),
            1..=LONGEST => {}
            length => return Err(Invalid::TooLong(length)),
        }
        let glob = GlobBuilder::new(text).literal_separator(is_path).backslash_escape(true).build();
        // A set of one, because a matcher of its own panics where the pattern would need too much memory.
        let matcher = glob.and_then(|glob| GlobSet::new([glob]));
        let matcher = matcher.map_err(|error| Invalid::Syntax(error.kind().to_string()))?;
        Ok(Self { text: text.to_owned(), matcher })
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether this name is one of those that the pattern stands for.
    pub fn matches(&self, name: &[u8]) -> bool {
        self.matcher.is_match_candidate(&Candidate::from_bytes(name))
    }

    /// Whether the pattern excludes nothing.
    pub fn matches_everything(&self) -> bool {
        NAMES.iter().all(|name| self.matches(name.as_bytes()))
    }
}

/// A pattern of paths: as a [`Pattern`], but `*`, `?` and `[]` do not match a slash. `**` stands for any number of
/// directories, so `/srv/**` is everything below `/srv`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PathPattern(Pattern);

impl PathPattern {
    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether this path is one of those that the pattern stands for.
    pub fn matches(&self, path: &[u8]) -> bool {
        self.0.matches(path)
    }

    /// Whether the pattern excludes nothing, other than files in the root directory.
    pub fn matches_everything(&self) -> bool {
        PATHS.iter().all(|path| self.matches(path.as_bytes()))
    }
}

/// The text of the pattern that stands for this text alone.
pub(crate) fn literal(text: &str) -> String {
    let mut literal = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '{' | '}' | '\\') {
            literal.push('\\');
        }
        literal.push(character);
    }
    literal
}

impl FromStr for Pattern {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::new(text, false)
    }
}

impl FromStr for PathPattern {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let pattern = Pattern::new(text, true)?;
        let can_be_path = text == "**" || ["/", "**/", "memfd:", "{", "["].iter().any(|start| text.starts_with(start));
        can_be_path.then_some(Self(pattern)).ok_or(Invalid::Relative)
    }
}

/// Patterns are the same if they are written in the same way.
impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.text
    }
}

impl From<PathPattern> for String {
    fn from(pattern: PathPattern) -> Self {
        pattern.0.text
    }
}

impl TryFrom<String> for Pattern {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl TryFrom<String> for PathPattern {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> PathPattern {
        text.parse().expect("it is a pattern")
    }

    fn name(text: &str) -> Pattern {
        text.parse().expect("it is a pattern")
    }

    #[test]
    fn a_star_stops_at_the_slash_of_a_path_only() {
        for (pattern, yes, no) in [
            ("/srv/*", "/srv/a", "/srv/a/b"),
            ("/srv/**", "/srv/a/b", "/srv"),
            ("/srv/**/x", "/srv/x", "/srv/xx"),
            ("**/.git/**", "/a/.git/config", "/a/git/config"),
            ("/tmp/?", "/tmp/a", "/tmp//"),
            ("/{etc,opt}/*.conf", "/opt/a.conf", "/usr/a.conf"),
            (r"/a\*", "/a*", "/ab"),
            ("/[a-c]", "/b", "/d"),
            ("memfd:*", "memfd:x", "/memfd:x"),
            ("/A", "/A", "/a"),
        ] {
            assert!(path(pattern).matches(yes.as_bytes()), "{pattern} {yes}");
            assert!(!path(pattern).matches(no.as_bytes()), "{pattern} {no}");
        }
        assert!(name("registry.example/*").matches(b"registry.example/team/app:1"));
        assert!(!name("app").matches(b"app2"));
    }

    #[test]
    fn bytes_that_are_no_text_and_line_breaks_match() {
        assert!(path("/srv/*").matches(b"/srv/\xff\xfe"));
        assert!(path("/srv/*").matches(b"/srv/a\nb"));
        assert!(!path("/srv/x").matches(b"/srv/x\n"));
    }

    #[test]
    fn patterns_that_exclude_nothing_are_known() {
        for text in ["**", "/**", "/**/*", "/*/**", "**/*", "/{*,**}/**", "/**/**"] {
            assert!(path(text).matches_everything(), "{text}");
        }
        for text in ["/*", "/srv/**", "**/*.z", "/*/*", "/[a-z]*/**", "/**/.*"] {
            assert!(!path(text).matches_everything(), "{text}");
        }
        for text in ["*", "**", "?*", "{*,x}", "*?"] {
            assert!(name(text).matches_everything(), "{text}");
        }
        for text in ["*/*", "*e*", "??*", "[a-z]*"] {
            assert!(!name(text).matches_everything(), "{text}");
        }
    }

    #[test]
    fn what_never_matches_is_refused() {
        let refused = |text: &str| text.parse::<PathPattern>().expect_err(text);
        assert_eq!(refused(""), Invalid::Empty);
        assert_eq!(refused("srv/x"), Invalid::Relative);
        assert_eq!(refused("*.log"), Invalid::Relative);
        assert_eq!(refused("**.log"), Invalid::Relative);
        assert_eq!(refused(&format!("/{}", "x".repeat(LONGEST))), Invalid::TooLong(LONGEST + 1));
        for text in ["/[a", "/{a", "/a}", "/a\\"] {
            assert!(matches!(refused(text), Invalid::Syntax(_)), "{text}");
        }
        assert!("x".repeat(LONGEST).parse::<Pattern>().is_ok());
    }

    #[test]
    fn a_pattern_is_its_text() {
        let pattern = path("/srv/**");
        let json = serde_json::to_string(&pattern).expect("it can be written");
        assert_eq!(json, r#""/srv/**""#);
        assert_eq!(serde_json::from_str::<PathPattern>(&json).expect("it can be read back"), pattern);
        assert_ne!(path("/srv/*"), pattern);
        assert!(serde_json::from_str::<Pattern>(r#""[""#).is_err());
    }
}
