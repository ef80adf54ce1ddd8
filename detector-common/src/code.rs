//! The names of files with code for interpreters. The probes go by the end of a name to report only what may be code.

/// Declares the languages, and the function that recognises the code of each by the end of a file's name.
macro_rules! languages {
    ($($(#[$doc:meta])* $language:ident: $($suffix:literal)+;)+) => {
        /// A language that interpreters run.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[cfg_attr(feature = "user", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
        pub enum Language {
            $($(#[$doc])* $language,)+
        }

        /// Returns the language of the code in a file whose name ends with these bytes, or `None` if the name is not
        /// that of code. `end` has the last eight bytes of the name as a little-endian number.
        #[inline(always)]
        pub const fn language(end: u64) -> Option<Language> {
            $($(
                if end >> const { shift($suffix) } == const { word($suffix) } {
                    return Some(Language::$language);
                }
            )+)+
            None
        }
    };
}

languages! {
    /// Java, also compiled.
    Java: b".class" b".jar" b".jsp" b".war";
    /// JavaScript.
    JavaScript: b".cjs" b".js" b".mjs";
    /// Lua.
    Lua: b".lua" b".luac";
    /// Perl.
    Perl: b".pl" b".pm";
    /// PHP.
    Php: b".phar" b".php" b".phtml";
    /// Python, also compiled.
    Python: b".py" b".pyc" b".pyz";
    /// Ruby.
    Ruby: b".rb";
    /// The language of the Bourne shell and of those that understand it.
    Shell: b".bash" b".sh" b".zsh";
    /// AWK.
    Awk: b".awk";
    /// Tcl.
    Tcl: b".tcl";
}

/// Returns by how many bits the last eight bytes of a name are shifted, so that as many bytes remain as the suffix has.
const fn shift(suffix: &[u8]) -> u32 {
    64 - 8 * suffix.len() as u32
}

/// Returns a suffix as a little-endian number.
const fn word(suffix: &[u8]) -> u64 {
    let mut word = 0;
    let mut at = 0;
    while at < suffix.len() {
        word |= (suffix[at] as u64) << (8 * at);
        at += 1;
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> Option<Language> {
        let mut end = [0; 8];
        let taken = name.len().min(8);
        end[8 - taken..].copy_from_slice(&name.as_bytes()[name.len() - taken..]);
        language(u64::from_le_bytes(end))
    }

    #[test]
    fn code_is_known_by_its_suffix() {
        for (name, expected) in [
            ("main.py", Some(Language::Python)),
            ("a.class", Some(Language::Java)),
            ("server-side.mjs", Some(Language::JavaScript)),
            ("x.sh", Some(Language::Shell)),
            (".js", Some(Language::JavaScript)),
            ("main.pyd", None),
            ("py", None),
            ("happy", None),
            ("data.json", None),
            ("base.db", None),
            ("", None),
        ] {
            assert_eq!(of(name), expected, "{name}");
        }
    }
}
