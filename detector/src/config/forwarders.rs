//! The entries `[[forward]]` of the file: from keys to forwarders.

use std::path::PathBuf;

use schemars::JsonSchema;
use toml::de::DeTable;

use super::entries;
use super::problem::Problems;
use super::read::{Value, keys};
use crate::forward::{Batch, Destination, Format, Forwarder, Tls};

/// How long a name is at most, which is also that of files.
const LONGEST_NAME: usize = 64;

/// A forwarder: sends all lines of the log to a receiver.
#[derive(Debug, Default, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Entry {
    /// The name. No other forwarder can have it, and it has only letters, digits, `-`, `_` and `.`.
    #[schemars(required, regex(pattern = "^[A-Za-z0-9_][A-Za-z0-9_.-]*$"), length(max = LONGEST_NAME))]
    name: Option<String>,
    /// The URL of the receiver: `unix:///dev/log`, `udp://HOST:PORT`, `tcp://HOST:PORT` or `tls://HOST:PORT` for
    /// syslog, `relp://HOST:PORT` or `relps://HOST:PORT` for syslog that is acknowledged (RELP), `journald://` for the
    /// journal of this host, `http://HOST/PATH` or `https://HOST/PATH` for a webhook, `otlp+http://HOST:PORT/PATH`,
    /// `otlp+https://HOST:PORT/PATH`, `otlp+grpc://HOST:PORT` or `otlp+grpcs://HOST:PORT` for a receiver of
    /// OpenTelemetry.
    #[schemars(required, with = "Option<String>")]
    to: Option<Destination>,
    /// What lines are sent as: `native` (as they are in the log, the default), `ocsf`, `ecs` or `falco`.
    #[schemars(with = "Option<String>", extend("enum" = Format::ALL.map(Format::name)))]
    format: Option<Format>,
    /// How lines are posted to a webhook: many in a request as `lines` (NDJSON, the default) or as an `array`, both
    /// compressed with gzip, or `none`, which makes each line a request of its own.
    #[schemars(with = "Option<String>", extend("enum" = Batch::ALL.map(Batch::name)))]
    batch: Option<Batch>,
    /// File with headers for a webhook or a receiver of OpenTelemetry, one on each line, such as `Authorization: Bearer
    /// …`.
    headers: Option<PathBuf>,
    /// File with the certificates of the authorities that the receiver's certificate can be of (PEM). Without it, those
    /// of the system.
    ca: Option<PathBuf>,
    /// File with the certificate that is shown to the receiver (PEM).
    certificate: Option<PathBuf>,
    /// File with the private key of that certificate (PEM).
    key: Option<PathBuf>,
}

keys!(Entry: name, to, format, batch, headers, ca, certificate, key);

impl entries::Entry for Entry {
    type Described = Forwarder;
    const KEY: &'static str = "forward";
    const CALLED: (&'static str, &'static str) = ("forwarder", "forwarders");
    const REQUIRED: &'static [&'static str] = &["name", "to"];

    fn name(&self) -> Option<&String> {
        self.name.as_ref()
    }

    fn describe(self, _: &Value<'_>, table: &DeTable<'_>, problems: &mut Problems) -> Option<Forwarder> {
        let (name, to) = (self.name?, self.to?);
        let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let is_name = name.bytes().all(is_of_name) && !name.starts_with(['-', '.']) && name.len() <= LONGEST_NAME;
        if let (false, Some(value)) = (is_name, table.get("name")) {
            problems.error(
                value.span(),
                format_args!(
                    "files have the name of the forwarder; write at most {LONGEST_NAME} letters, digits, `-`, `_` and \
                    `.`, of which `-` and `.` are not the first"
                ),
            );
            return None;
        }
        let is_webhook = matches!(to, Destination::Web(_));
        let is_otlp = matches!(to, Destination::Otlp(_) | Destination::OtlpGrpc(_));
        let mut refuse = |keys: &[&str], why: &str| {
            for value in keys.iter().filter_map(|key| table.get(*key)) {
                problems.error(value.span(), why);
            }
        };
        if !is_webhook {
            refuse(&["batch"], "this is only for http:// and https://; leave it out");
        }
        if !is_webhook && !is_otlp {
            refuse(
                &["headers"],
                "this is only for http://, https://, otlp+http://, otlp+https://, otlp+grpc:// and otlp+grpcs://; \
                leave it out",
            );
        }
        if !to.is_encrypted() {
            refuse(
                &["ca", "certificate", "key"],
                "this is only for tls://, relps://, https://, otlp+https:// and otlp+grpcs://; leave it out",
            );
        }
        if self.certificate.is_some() != self.key.is_some() {
            refuse(&["certificate", "key"], "a certificate needs its key; give both, or none");
        }
        Some(Forwarder {
            name,
            to,
            format: self.format.unwrap_or_default(),
            batch: self.batch.unwrap_or_default(),
            headers: self.headers,
            tls: Tls { ca: self.ca, own: self.certificate.zip(self.key) },
        })
    }
}

impl entries::Described for Forwarder {
    type Entry = Entry;

    fn name(&self) -> &str {
        &self.name
    }

    /// Two forwarders can send the same lines to the same receiver.
    fn covers(&self, _: &Self) -> bool {
        false
    }
}
