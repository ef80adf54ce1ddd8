//! `detector test-alert`: lets somebody see that findings arrive where they should.

use super::arguments::{Socket, severity_parser};
use super::failure::Failure;
use super::stdout::print;
use crate::client;
use crate::finding::Severity;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Severity of the finding
    #[arg(long, value_name = "SEVERITY", value_parser = severity_parser(), default_value_t = Severity::High)]
    severity: Severity,
    #[command(flatten)]
    socket: Socket,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let finding = client::test_alert(&args.socket.path(), args.severity)?;
    print(|out| {
        writeln!(
            out,
            "the daemon has published a test_alert of severity {} with the id {}; look for it wherever its findings \
            should arrive",
            finding.severity, finding.id
        )
    })
}
