//! An explanation for people. All text is escaped: names and arguments are the attacker's to choose.

use std::io::{self, Write};

use super::Explanation;
use crate::output::terminal::safe;

/// Writes an explanation.
///
/// # Errors
///
/// Those of `out`.
pub(crate) fn write(out: &mut dyn Write, explanation: &Explanation) -> io::Result<()> {
    let Explanation { id, finding, severity, message, facts, severity_reason, decision, proposal, no_proposal, .. } =
        explanation;
    writeln!(out, "{}", safe(message))?;
    let mut row = |about: &str, text: &str| writeln!(out, "{about:<10} {}", safe(text));
    row("finding", &format!("{finding} {id}"))?;
    facts.iter().try_for_each(|fact| row(fact.about, &fact.text))?;
    row("severity", &format!("{severity}; {severity_reason}"))?;
    row("decision", &decision.text)?;
    match (proposal, no_proposal) {
        (Some(proposal), _) => {
            row("exception", "This exception would suppress it, and whatever else meets all of these conditions:")?;
            writeln!(out, "\n{}", proposal.toml)?;
            proposal.remarks.iter().try_for_each(|remark| writeln!(out, "{}", safe(remark)))
        }
        (None, why) => row("exception", &format!("none: {}", why.as_deref().unwrap_or_default())),
    }
}
