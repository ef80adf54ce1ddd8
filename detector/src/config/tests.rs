//! Tests of whole files.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use toml::de::{DeTable, DeValue};

use super::problem::Gravity;
use super::*;
use crate::finding::{ImageOp, Kind, MountOp, Op, Origin, Severity, Via};
use crate::policy::{Conditions, Override, Selection, WatchRule};

fn now() -> Time {
    "2027-01-01T00:00:00Z".parse().expect("it is a time")
}

/// The problems as the comments at the beginning of a file tell them.
fn told(text: &str) -> Vec<String> {
    let (_, problems) = parse(text, now());
    let shown = |problem: &problem::Problem| {
        format!("# {} {} {}", problem.gravity.name(), problem.place(text), problem.shown())
    };
    problems.iter().map(shown).collect()
}

/// An exception with all that is required and these keys.
fn exception(keys: &str) -> String {
    format!("[[exception]]\nname = \"a\"\nreason = \"r\"\nowner = \"o\"\n{keys}\n")
}

/// Each file begins with the problems that it has. An update of the parser for TOML can change the words of its
/// messages.
#[test]
fn every_malformed_file_gets_its_messages_with_their_places() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config");
    let mut count = 0;
    for file in fs::read_dir(folder).expect("the files are there") {
        let path = file.expect("it can be read").path();
        let text = fs::read_to_string(&path).expect("it is text");
        let expected: Vec<_> = text.lines().take_while(|line| line.starts_with("# ")).collect();
        assert!(expected.iter().any(|line| line.starts_with("# error")), "{}", path.display());
        assert_eq!(told(&text), expected, "{}", path.display());
        count += 1;
    }
    assert!(count >= 30, "{count} files");
}

/// The default file with every key that it has.
fn with_all_keys() -> String {
    let uncommented =
        |line: &str| line.strip_prefix('#').filter(|key| key.starts_with(|c| c != ' ')).map(str::to_owned);
    let lines = DEFAULT.lines().map(|line| uncommented(line).unwrap_or_else(|| line.to_owned()));
    lines.collect::<Vec<_>>().join("\n")
}

/// The keys of a table and those of tables in it.
fn keys_of(table: &DeTable<'_>) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for (key, value) in table {
        match value.get_ref() {
            DeValue::Table(inner) if key.get_ref() != "labels" => {
                keys.extend(keys_of(inner).iter().map(|below| format!("{key}.{below}")));
            }
            DeValue::Array(list) if list.iter().any(|item| item.get_ref().is_table()) => {
                let tables = list.iter().filter_map(|item| item.get_ref().as_table());
                keys.extend(tables.flat_map(keys_of).map(|below| format!("{key}.{below}")));
            }
            _ => drop(keys.insert(key.get_ref().to_string())),
        }
    }
    keys
}

/// The keys that the schema knows.
pub(crate) fn keys() -> BTreeSet<String> {
    fn resolved<'a>(schema: &'a Value, root: &'a Value) -> &'a Value {
        let schema = schema["anyOf"].get(0).filter(|first| first.get("$ref").is_some()).unwrap_or(schema);
        let schema = schema.get("items").unwrap_or(schema);
        let pointer = schema["$ref"].as_str().and_then(|uri| root.pointer(uri.strip_prefix('#')?));
        pointer.unwrap_or(schema)
    }
    fn add(schema: &Value, root: &Value, before: &str, keys: &mut BTreeSet<String>) {
        for (key, inner) in schema["properties"].as_object().into_iter().flatten() {
            let inner = resolved(inner, root);
            let name = format!("{before}{key}");
            if inner.get("properties").is_some() {
                add(inner, root, &format!("{name}."), keys);
            } else {
                keys.insert(name);
            }
        }
    }
    let schema = schema().to_value();
    let mut keys = BTreeSet::new();
    add(&schema, &schema, "", &mut keys);
    keys
}

#[test]
fn the_default_file_has_every_key() {
    let text = with_all_keys();
    assert_eq!(told(&text), Vec::<String>::new(), "{text}");
    let document = DeTable::parse(&text).expect("it is TOML");
    assert_eq!(keys_of(document.get_ref()), keys());
    assert!(keys().contains("exception.severity_at_most") && keys().contains("runtimes.enrich_wait"));
    assert_eq!(told(DEFAULT), Vec::<String>::new());
}

/// The document as JSON, in which a date is a string.
fn as_json(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => json!(text),
        DeValue::Boolean(is_true) => json!(is_true),
        DeValue::Array(list) => list.iter().map(|item| as_json(item.get_ref())).collect(),
        DeValue::Table(table) => table.iter().map(|(key, value)| (key.to_string(), as_json(value.get_ref()))).collect(),
        DeValue::Integer(number) => json!(number.as_str().parse::<i64>().expect("it is small")),
        other => json!(match other {
            DeValue::Datetime(time) => time.to_string(),
            _ => unreachable!("no key has a number with a fraction"),
        }),
    }
}

#[test]
fn the_schema_accepts_what_the_detector_accepts() {
    let schema = jsonschema::validator_for(&schema().to_value()).expect("it is a schema");
    let valid = |text: &str| {
        let document = DeTable::parse(text).expect("it is TOML").into_inner();
        schema.iter_errors(&as_json(&DeValue::Table(document))).map(|error| error.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(valid(DEFAULT), Vec::<String>::new());
    assert_eq!(valid(&with_all_keys()), Vec::<String>::new());
    assert_eq!(valid(""), Vec::<String>::new());
    for text in [
        "loog = \"info\"",
        "log = \"loud\"",
        "count_repeats = \"false\"",
        "[output]\nlog = \"info\"",
        "[[exception]]\nname = \"a\"",
        &exception("finding = []"),
        &exception("finding = \"image_writ\""),
        &exception("finding = \"image_write\"\nimgae = \"a\""),
        &exception("finding = \"image_write\"\nexpires = \"soon\""),
        "[[severity]]\nname = 'a'\nreason = 'r'\nseverity = 'low'",
        "[[severity]]\nname = 'a'\nreason = 'r'\nseverity = 'loud'\nfinding = 'image_write'",
        "[[severity]]\nname = 'a'\nreason = 'r'\nseverity = 'low'\nfinding = 'image_write'\nowner = 'o'",
        "[[watch]]\nname = 'a'\nreason = 'r'",
        "[[watch]]\nname = 'a'\nreason = 'r'\nwatched = 'no'",
        "[[watch]]\nname = 'a'\nreason = 'r'\nwatched = false\nnamespaces = 'b'",
    ] {
        assert_ne!(valid(text), Vec::<String>::new(), "{text}");
        assert!(parse(text, now()).1.has_errors(), "{text}");
    }
}

#[test]
fn every_condition_becomes_what_it_says() {
    let text = exception(
        r#"expires = 2027-03-01
finding = ["image_shadowed", "image_write"]
severity_at_most = "low"
operation = ["create", "bind"]
origin = "entered"
via = "exec"
path = "/a"
exe = "/b"
ancestor = "/c"
script = "/d"
image = "e"
container = "f"
pod = "g"
namespace = ["h", "i"]
labels = { team = "j" }"#,
    );
    let (settings, problems) = parse(&text, now());
    assert_eq!(problems, Problems::default());
    let [exception] = &settings.exception.0[..] else { panic!("not one exception") };
    let path = |text: &str| vec![text.parse().expect("it is a pattern")];
    let name = |text: &str| vec![text.parse().expect("it is a pattern")];
    assert_eq!((&*exception.name, &*exception.reason, &*exception.owner), ("a", "r", "o"));
    assert_eq!(exception.expires, Some("2027-03-02T00:00:00Z".parse().expect("it is a time")));
    let expected = Conditions {
        finding: vec![Kind::ImageShadowed, Kind::ImageWrite],
        severity_at_most: Severity::Low,
        operation: vec![Op::Image(ImageOp::Create), Op::Mount(MountOp::Bind)],
        origin: vec![Origin::Entered],
        via: vec![Via::Exec],
        path: path("/a"),
        exe: path("/b"),
        ancestor: path("/c"),
        script: path("/d"),
        selection: Selection {
            image: name("e"),
            container: name("f"),
            pod: name("g"),
            namespace: [name("h"), name("i")].concat(),
            labels: [("team".to_owned(), "j".parse().expect("it is a pattern"))].into(),
        },
    };
    assert_eq!(exception.conditions, expected);
}

#[test]
fn every_override_becomes_what_it_says() {
    let text = "[[severity]]\nname = 'a'\nreason = 'r'\nseverity = 'critical'\nfinding = 'session'\nvia = 'exec'\n\
        severity_at_most = 'medium'\nnamespace = 'b'\n";
    let (settings, problems) = parse(text, now());
    assert_eq!(problems, Problems::default());
    let expected = Override {
        name: "a".to_owned(),
        reason: "r".to_owned(),
        severity: Severity::Critical,
        conditions: Conditions {
            finding: vec![Kind::Session],
            severity_at_most: Severity::Medium,
            via: vec![Via::Exec],
            selection: Selection { namespace: vec!["b".parse().expect("it is a pattern")], ..Selection::default() },
            ..Conditions::default()
        },
    };
    assert_eq!(settings.severity.0, [expected]);
}

#[test]
fn an_override_that_may_not_do_what_was_intended_is_a_warning() {
    let of = |name: &str, severity: &str, keys: &str| {
        format!(
            "[[severity]]\nname = '{name}'\nreason = 'r'\nseverity = '{severity}'\nfinding = 'image_write'\n{keys}\n"
        )
    };
    for (text, place, words) in [
        (of("a", "low", ""), "5:11", "override `a` lowers these findings in all containers"),
        (of("a", "low", "image = '*'"), "6:9", "`*` excludes nothing, so `image`"),
        (
            of("a", "low", "image = 'x'") + &of("b", "info", "image = 'x'\npath = '/y'"),
            "8:8",
            "override `b` is never reached: `a` comes before it",
        ),
    ] {
        let said = told(&text);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with(&format!("# warning {place} ")) && said[0].contains(words), "{said:?}");
    }
    for only_raises in [of("a", "high", ""), of("a", "low", "severity_at_most = 'low'")] {
        assert_eq!(told(&only_raises), Vec::<String>::new());
    }
}

#[test]
fn every_rule_becomes_what_it_says() {
    let text = "[[watch]]\nname = 'a'\nreason = 'r'\nwatched = false\ncgroup = '/a/**'\nimage = 'b'\ncontainer = 'c'\n\
        pod = 'd'\nnamespace = ['e', 'f']\nlabels = { team = 'g' }\n";
    let (settings, problems) = parse(text, now());
    assert_eq!(problems, Problems::default());
    let name = |text: &str| vec![text.parse().expect("it is a pattern")];
    let expected = WatchRule {
        name: "a".to_owned(),
        reason: "r".to_owned(),
        is_watched: false,
        cgroup: vec!["/a/**".parse().expect("it is a pattern")],
        selection: Selection {
            image: name("b"),
            container: name("c"),
            pod: name("d"),
            namespace: [name("e"), name("f")].concat(),
            labels: [("team".to_owned(), "g".parse().expect("it is a pattern"))].into(),
        },
    };
    assert_eq!(settings.watch.0, [expected]);
}

#[test]
fn a_rule_that_may_not_do_what_was_intended_is_a_warning() {
    let rule = |name: &str, keys: &str| format!("[[watch]]\nname = '{name}'\nreason = 'r'\nwatched = false\n{keys}\n");
    for (text, place, words) in [
        (rule("a", ""), "4:11", "rule `a` has no condition and no rule before it watches anything"),
        (rule("a", "image = ['b', '*']"), "5:9", "`*` excludes nothing that is known"),
        (rule("a", "cgroup = '/**'"), "5:10", "leave `cgroup` out"),
        (
            rule("a", "image = 'x'") + &rule("b", "image = 'x'\npod = 'y'"),
            "7:8",
            "rule `b` is never reached: `a` comes before it",
        ),
    ] {
        let said = told(&text);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with(&format!("# warning {place} ")) && said[0].contains(words), "{said:?}");
    }
    let narrow_first = rule("a", "image = 'x'\npod = 'y'") + &rule("b", "image = 'x'");
    assert_eq!(told(&narrow_first), Vec::<String>::new());
    let watched = rule("a", "image = 'x'") + &rule("b", "").replace("false", "true");
    assert_eq!(told(&watched), Vec::<String>::new(), "it says what is so without it");
    let only_some = rule("a", "image = 'x'").replace("false", "true") + &rule("b", "");
    assert_eq!(told(&only_some), Vec::<String>::new());
}

#[test]
fn a_day_ends_at_midnight_and_a_time_is_utc() {
    for (written, expected) in [
        ("2028-02-28", "2028-02-29T00:00:00Z"),
        ("2028-02-28T12:00:00", "2028-02-28T12:00:00Z"),
        ("2028-02-28 12:00:00.5", "2028-02-28T12:00:00.5Z"),
        ("2028-02-28T12:00:00+02:00", "2028-02-28T10:00:00Z"),
        ("2028-02-28T12:00Z", "2028-02-28T12:00:00Z"),
    ] {
        let text = exception(&format!("finding = \"image_write\"\npath = \"/a\"\nexpires = {written}"));
        let (settings, problems) = parse(&text, now());
        assert_eq!(problems, Problems::default(), "{written}");
        let expires = settings.exception.0.first().and_then(|exception| exception.expires);
        assert_eq!(expires, Some(expected.parse().expect("it is a time")), "{written}");
    }
}

#[test]
fn what_may_not_be_intended_is_a_warning() {
    const LASTS: &str = "expires = 2999-01-01\nfinding = \"image_write\"\n";
    for (keys, place, words) in [
        ("finding = \"image_write\"\npath = \"/a\"", "2:8", "`a` never expires"),
        (
            "finding = \"image_write\"\npath = \"/a\"\nexpires = 2026-12-31",
            "7:11",
            "has expired at the end of 2026-12-31 (UTC)",
        ),
        (LASTS, "6:11", "about these findings in all containers"),
        (&format!("{LASTS}path = [\"/a\", \"/*/**\"]"), "7:8", "`/*/**` excludes nothing"),
        (&format!("{LASTS}exe = \"**\""), "7:7", "`**` excludes nothing, so `exe`"),
        (&format!("{LASTS}ancestor = \"/**\""), "7:12", "so `ancestor`"),
        (&format!("{LASTS}script = \"/**\""), "7:10", "so `script`"),
        (&format!("{LASTS}image = \"*\""), "7:9", "so `image`"),
        (&format!("{LASTS}container = \"*\""), "7:13", "so `container`"),
        (&format!("{LASTS}pod = \"?*\""), "7:7", "so `pod`"),
        (&format!("{LASTS}namespace = \"*\""), "7:13", "so `namespace`"),
    ] {
        let said = told(&exception(keys));
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with(&format!("# warning {place} ")) && said[0].contains(words), "{said:?}");
    }
    let proposed = exception(&format!("{LASTS}path = \"/a\"")).replace("\"o\"", "\"…\"");
    assert_eq!(told(&proposed), ["# warning 4:9 exception `a` has no owner yet; replace `…`"]);
    let label = format!("{LASTS}labels = {{ team = \"*\" }}");
    assert_eq!(told(&exception(&label)), Vec::<String>::new(), "that there is such a label is a condition");
}

#[test]
fn an_exception_that_an_earlier_one_covers_is_a_warning() {
    let both = |first: &str, second: &str| {
        let second = exception(second).replace("\"a\"", "\"b\"");
        told(&(exception(&format!("finding = \"image_write\"\n{first}")) + &second))
    };
    let second = "finding = \"image_write\"\nimage = \"x\"\nexpires = 2030-01-01";
    for first in ["expires = 2030-01-01\nimage = \"x\"", "expires = 2031-01-01\nimage = [\"x\", \"y\"]"] {
        let said = both(first, second);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with("# warning 9:8 exception `b` is never reached: `a`"), "{said:?}");
    }
    for first in ["expires = 2029-01-01\nimage = \"x\"", "expires = 2030-01-01\nimage = \"y\""] {
        assert_eq!(both(first, second), Vec::<String>::new(), "{first}");
    }
}

#[test]
fn a_file_can_have_a_thousand_exceptions() {
    let some = |count: usize| {
        (0..count).fold(String::new(), |mut text, nth| {
            let keys = format!("finding = \"image_write\"\npath = \"/srv/{nth}/**\"\nexpires = 2999-01-01");
            write!(text, "{}", exception(&keys).replace("\"a\"", &format!("\"a{nth}\""))).expect("memory takes it");
            text
        })
    };
    let (settings, problems) = parse(&some(1000), now());
    assert_eq!((settings.exception.0.len(), problems), (1000, Problems::default()));
    let text = some(1001);
    let said = told(&text);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("# error 7001:1 there are 1001 exceptions, and can be at most 1000"), "{said:?}");
}

#[test]
fn the_patterns_of_all_exceptions_are_bounded() {
    let path = "\"/*/x\", ".repeat(20_000);
    let said = told(&exception(&format!("finding = \"image_write\"\npath = [{path}]")));
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("the exceptions have 20004 texts, and can have at most 20000"), "{said:?}");
}

#[test]
fn errors_hide_warnings_of_exceptions_and_nothing_else() {
    let (_, problems) = parse(&(exception("finding = \"image_write\"") + "imgae = 1\n"), now());
    assert!(problems.iter().all(|problem| problem.gravity == Gravity::Error), "{problems:?}");
    assert_eq!(problems.iter().count(), 1);
}
