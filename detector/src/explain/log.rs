//! Looks for a finding in lines that the detector has written.

use std::collections::BTreeSet;
use std::io::{self, BufRead, Read as _};

use crate::finding::Finding;
use crate::output::json::LONGEST;

/// How many ids are listed that begin alike.
const LISTED: usize = 5;

/// Why no finding is found.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Missing {
    /// There is no finding at all.
    #[error("it has no findings; give lines that `detector run` or `tail --json` has written")]
    Empty,
    /// There is none with such an id.
    #[error("it has no finding whose id begins with {0:?}; if the file was rotated, give the older one")]
    Unknown(String),
    /// There are several.
    #[error("{count} findings are possible: {}{}; give one of these ids with --id",
        .ids.join(", "), if *.count > .ids.len() { " …" } else { "" })]
    Ambiguous {
        /// The first of them.
        ids: Vec<String>,
        /// How many there are.
        count: usize,
    },
    /// The lines cannot be read.
    #[error("cannot read it: {0}; check the file")]
    System(#[from] io::Error),
}

/// The finding whose id is or begins like this, as its last line says. If nothing is given, there must be one only.
/// What is no finding is skipped.
pub(crate) fn find(mut lines: impl BufRead, beginning: Option<&str>) -> Result<Finding, Missing> {
    let wanted = beginning.unwrap_or_default();
    let (mut found, mut others): (Option<Finding>, BTreeSet<String>) = (None, BTreeSet::new());
    let mut line = Vec::new();
    while lines.by_ref().take(LONGEST).read_until(b'\n', &mut line)? > 0 {
        // The rest of a line that is too long is taken for other lines, of which none is a finding.
        let text = String::from_utf8_lossy(&line);
        // Most lines of a long file are about something else, and need not be parsed.
        let parsed = text.contains(wanted).then(|| serde_json::from_str::<Finding>(&text));
        if let Some(Ok(finding)) = parsed
            && finding.id.starts_with(wanted)
        {
            match &found {
                Some(known) if known.id == finding.id && known.revision > finding.revision => {}
                Some(known) if known.id != finding.id && finding.id != wanted => _ = others.insert(finding.id),
                known => {
                    others.extend(known.as_ref().map(|known| known.id.clone()).filter(|id| *id != finding.id));
                    found = Some(finding);
                }
            }
        }
        line.clear();
    }
    match (found, beginning) {
        (None, None) => Err(Missing::Empty),
        (None, Some(beginning)) => Err(Missing::Unknown(beginning.to_owned())),
        (Some(finding), _) if others.is_empty() || finding.id == wanted => Ok(finding),
        (Some(finding), _) => {
            let count = others.len() + 1;
            Err(Missing::Ambiguous { ids: std::iter::once(finding.id).chain(others).take(LISTED).collect(), count })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::samples;
    use crate::event::{Event, ImageOp, Layer};
    use crate::finding::{Line, Loss, Notice, NoticeEvent};
    use crate::output::json;

    /// Lines with these ids and revisions, among others.
    fn lines(ids: &[(&str, u32)]) -> Vec<u8> {
        let event = Event::ImageChange(Box::new(samples::change(ImageOp::Create, Layer::New, 0o100_644, "/srv/x")));
        let finding = samples::found(event).expect("it is one");
        let findings = ids.iter().map(|(id, revision)| {
            Line::Finding(Box::new(Finding { id: (*id).to_owned(), revision: *revision, ..finding.clone() }))
        });
        let notice = Line::Notice(Notice::now("node".into(), NoticeEvent::loss(Loss::Exec, 1)));
        let lines = findings.chain([notice]).flat_map(|line| json::line(&line).to_vec());
        lines.chain(*b"no JSON\n").collect()
    }

    fn found(ids: &[(&str, u32)], beginning: Option<&str>) -> Result<(String, u32), String> {
        let found = find(&lines(ids)[..], beginning).map_err(|error| error.to_string())?;
        Ok((found.id, found.revision))
    }

    #[test]
    fn the_last_line_with_the_id_is_found() {
        let ids = [("a-b-1", 1), ("a-b-12", 1), ("a-c-2", 2), ("a-c-2", 1), ("a-b-1", 3)];
        assert_eq!(found(&ids, Some("a-b-12")), Ok(("a-b-12".to_owned(), 1)));
        assert_eq!(found(&ids, Some("a-c")), Ok(("a-c-2".to_owned(), 2)));
        // It is the beginning of another one.
        assert_eq!(found(&ids, Some("a-b-1")), Ok(("a-b-1".to_owned(), 3)));
        assert_eq!(found(&[("a", 1), ("a", 2)], None), Ok(("a".to_owned(), 2)));
    }

    #[test]
    fn what_is_not_found_is_told() {
        let ids = [("a-b-1", 1), ("a-b-12", 1)];
        let said = |ids: &[_], beginning| found(ids, beginning).expect_err("there is none");
        assert_eq!(said(&ids, Some("a-b")), "2 findings are possible: a-b-1, a-b-12; give one of these ids with --id");
        assert!(said(&ids, None).starts_with("2 findings are possible"));
        assert!(said(&ids, Some("b")).contains("no finding whose id begins with \"b\""));
        assert!(said(&[], None).contains("no findings"));
    }
}
