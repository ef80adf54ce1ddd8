//! Secrets in the arguments of programs: each is replaced before anything is made of the arguments.
//!
//! What looks like a secret is known by the name before it, or by its own form. That finds the usual ones, and not all:
//! who can avoid it does not put secrets into arguments, which every user of a machine can read.

use std::borrow::Cow;

use regex::bytes::{Captures, Regex};
use serde::{Deserialize, Serialize};

/// What stands for a secret.
const REDACTED: &[u8] = b"[redacted]";

/// Names of secrets, or their ends.
macro_rules! names {
    () => {
        "(?:passw(?:or)?d|passphrase|secret|token|api[-_]?key|access[-_]?key|private[-_]?key|credentials?)[0-9]*"
    };
}

/// A secret after its name. Other names can come between, as in `secret: {password: x}`, or the scheme of a header.
macro_rules! value {
    () => {
        r#"\\?["']?((?:[^\s"'&;|]*[=:]\s+\\?["']?|(?:bearer|basic)\s+)*[^\s"'&;|]+)"#
    };
}

/// The default rules. The group is the secret.
const DEFAULT: [&str; 5] = [
    // `--password=x`, `DB_PASSWORD=x`, `"token": "x"`, also in a script.
    concat!("(?i-u)", names!(), r#"\\?["']?\s*[=:]\s*"#, value!()),
    // `--password x` in a script.
    concat!(r"(?i-u)(?:^|\s)--?[a-z0-9_-]*", names!(), r"\s+", value!()),
    // `scheme://user:x@host`.
    r"(?i-u)[a-z][a-z0-9+.-]*://[^\s/:@]*:([^\s/@]+)@",
    // A header for HTTP.
    r"(?i-u)\b(?:bearer|basic)\s+([a-z0-9._~+/=-]{8,})",
    // Keys of AWS, tokens of GitHub and Slack, JSON web tokens.
    r"(?-u)\b((?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36}|xox[abprs]-[A-Za-z0-9-]{10,}|eyJ[\w-]{8,}\.[\w-]+\.[\w-]*)",
];

/// An option of which the next argument is the value.
const OPTION: &str = concat!("(?i-u)^--?[a-z0-9_-]*", names!(), "$");

/// What is a secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(into = "Rules", try_from = "Rules")]
pub struct Redactor {
    rules: Vec<Regex>,
    option: Option<Regex>,
}

impl Default for Redactor {
    /// By the default rules.
    fn default() -> Self {
        Self::new(Vec::new(), true)
    }
}

impl Redactor {
    /// By rules of one's own, beside the default ones or instead. A rule is a regular expression: its first group is
    /// the secret, or all of it if it has no group.
    pub fn new(own: Vec<Regex>, with_default: bool) -> Self {
        let built_in = |rule: &str| Regex::new(rule).expect("the built-in rules are regular expressions");
        let default: &[&str] = if with_default { &DEFAULT } else { &[] };
        Self {
            rules: default.iter().copied().map(built_in).chain(own).collect(),
            option: with_default.then(|| built_in(OPTION)),
        }
    }

    /// The arguments of a program, without the secrets.
    pub(crate) fn args<'a>(&self, args: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = Cow<'a, [u8]>> {
        let mut is_value = false;
        args.map(move |arg| {
            let was_value =
                std::mem::replace(&mut is_value, self.option.as_ref().is_some_and(|name| name.is_match(arg)));
            if was_value && !arg.starts_with(b"-") { Cow::Borrowed(REDACTED) } else { self.text(arg) }
        })
    }

    fn text<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        self.rules.iter().fold(Cow::Borrowed(text), |text, rule| {
            let plain = rule.replace_all(&text, replacement);
            match plain {
                Cow::Borrowed(_) => text,
                Cow::Owned(plain) => Cow::Owned(plain),
            }
        })
    }
}

/// The rules of a redactor, as they are recorded.
#[derive(Serialize, Deserialize)]
struct Rules {
    own: Vec<String>,
    with_default: bool,
}

impl From<Redactor> for Rules {
    fn from(redactor: Redactor) -> Self {
        let with_default = redactor.option.is_some();
        let own = redactor.rules.iter().skip(if with_default { DEFAULT.len() } else { 0 });
        Self { own: own.map(|rule| rule.as_str().to_owned()).collect(), with_default }
    }
}

impl TryFrom<Rules> for Redactor {
    type Error = regex::Error;

    fn try_from(rules: Rules) -> Result<Self, Self::Error> {
        let own = rules.own.iter().map(|rule| Regex::new(rule)).collect::<Result<_, _>>()?;
        Ok(Self::new(own, rules.with_default))
    }
}

/// The match, with its group replaced.
fn replacement(found: &Captures) -> Vec<u8> {
    let (whole, secret) = (&found[0], found.get(1).or_else(|| found.get(0)).map(|found| found.range()));
    let start = found.get(0).map_or(0, |found| found.start());
    let secret = secret.map_or(0..whole.len(), |range| range.start - start..range.end - start);
    [&whole[..secret.start], REDACTED, &whole[secret.end..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(redactor: &Redactor, args: &[&str]) -> Vec<String> {
        let args = redactor.args(args.iter().map(|arg| arg.as_bytes()));
        args.map(|arg| String::from_utf8_lossy(&arg).into_owned()).collect()
    }

    #[test]
    fn usual_secrets_are_replaced() {
        let redactor = Redactor::default();
        for (args, expected) in [
            (&["mysql", "--password=hunter2", "db"][..], &["mysql", "--password=[redacted]", "db"][..]),
            (&["app", "--api-key", "k-1", "x"], &["app", "--api-key", "[redacted]", "x"]),
            (&["app", "--ask-password", "--verbose"], &["app", "--ask-password", "--verbose"]),
            (&["sh", "-c", "DB_PASSWORD='a b' run"], &["sh", "-c", "DB_PASSWORD='[redacted] b' run"]),
            (&["sh", "-c", "cli --token t0 && id"], &["sh", "-c", "cli --token [redacted] && id"]),
            (&["curl", r#"{"secret": "x1"}"#], &["curl", r#"{"secret": "[redacted]"}"#]),
            (&["git", "clone", "https://me:pw@host/x"], &["git", "clone", "https://me:[redacted]@host/x"]),
            (&["curl", "-H", "Authorization: Bearer abcdefgh1"], &["curl", "-H", "Authorization: Bearer [redacted]"]),
            (&["aws", "AKIAIOSFODNN7EXAMPLE"], &["aws", "[redacted]"]),
            // Other names or a scheme between the name and the secret, and quotes that are quoted.
            (&["helm", "secret: {password: x}"], &["helm", "secret: [redacted]"]),
            (&["curl", "X-Auth-Token: Bearer abcdefgh1"], &["curl", "X-Auth-Token: [redacted]"]),
            (
                &["sh", "-c", r#"curl -d "{\"password\": \"x\"}""#],
                &["sh", "-c", r#"curl -d "{\"password\": \"[redacted]"}""#],
            ),
        ] {
            assert_eq!(redacted(&redactor, args), expected);
        }
    }

    #[test]
    fn nothing_else_is_replaced() {
        let redactor = Redactor::default();
        for args in [
            &["/bin/sh", "-c", "id -u; echo PWD=/srv"][..],
            &["nginx", "-g", "daemon off;"],
            &["curl", "http://host:80/a@b"],
            &["cat", "/etc/passwd", "/run/secrets"],
            &[""],
        ] {
            assert_eq!(redacted(&redactor, args), args);
        }
    }

    #[test]
    fn own_rules_count() {
        let own = ["pin-([0-9]+)", "shh"].map(|rule| Regex::new(rule).expect("it is one"));
        let redactor = Redactor::new(own.into(), false);
        assert_eq!(
            redacted(&redactor, &["pin-1234", "shhh", "--token=x"]),
            ["pin-[redacted]", "[redacted]h", "--token=x"]
        );
    }

    #[test]
    fn any_bytes_are_taken() {
        let redactor = Redactor::default();
        let args = [&b"--password=\xff\xfe"[..], b"\xff"];
        let found: Vec<_> = redactor.args(args.into_iter()).collect();
        assert_eq!(found, [&b"--password=[redacted]"[..], b"\xff"]);
    }
}
