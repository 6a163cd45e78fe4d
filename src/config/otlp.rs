//! `[events] otlp`: the collector that gets a span of each session.

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use crate::events::{self, EXPORTS_SPANS};

use super::SecretFile;
use super::assemble::Assembly;
use super::events::is_here;
use super::problem::Complaint;
use super::section::Section;

/// Where OTLP over HTTP has traces, below the URL of a collector.
const PATH: &str = "/v1/traces";
/// Where collectors listen for OTLP over gRPC.
const GRPC_PORT: u16 = 4317;

/// `[events] otlp`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpSource {
    /// The collector, without the path of traces.
    pub url: String,
    /// Where the headers lie that go along.
    pub headers_file: Option<SecretFile>,
    /// The key that names the file, for messages.
    pub key: String,
}

pub(super) fn read(section: &mut Section<'_>) -> Option<OtlpSource> {
    let url = section.parsed("otlp", url);
    let headers_file = section.secret_file("otlp_headers_file");
    if !section.is_given("otlp") {
        if section.is_given("otlp_headers_file") {
            section.error(
                "otlp_headers_file",
                Complaint::new(
                    "there are headers, but no collector to send them to",
                    "add otlp = \"https://otlp.example.org\"",
                ),
            );
        }
        return None;
    }
    if !EXPORTS_SPANS {
        section.error(
            "otlp",
            Complaint::new(
                "this turnd is built without OpenTelemetry",
                "build it with `cargo build --release --features otel`, or leave the key out",
            ),
        );
    }
    Some(OtlpSource {
        url: url?,
        headers_file,
        key: section.name("otlp_headers_file"),
    })
}

fn url(text: &str) -> Result<String, Complaint> {
    let example = "write it as in \"http://127.0.0.1:4318\"; what shows who we are goes into otlp_headers_file";
    super::events::url(text, "a collector", example)
}

impl Assembly<'_> {
    /// The collector, with what it is told beside spans.
    pub(super) fn otlp(&mut self, source: &OtlpSource) -> Option<events::Otlp> {
        let headers = match &source.headers_file {
            Some(file) => headers(&self.read_lines(&source.key, file)?)
                .map_err(|complaint| self.report.error(&source.key, complaint))
                .ok()?,
            None => HeaderMap::new(),
        };
        let mut url = Url::parse(&source.url).ok()?;
        if url.scheme() == "http" && !is_here(&url) {
            self.warning(
                "events.otlp",
                "users and addresses of clients go there unencrypted",
                "use https",
            );
        }
        if url.port() == Some(GRPC_PORT) {
            self.warning(
                "events.otlp",
                "this is the port for OTLP over gRPC, and turnd speaks OTLP over HTTP",
                "name the collector's other port, as a rule 4318",
            );
        }
        let below = url.path().trim_end_matches('/');
        if !below.ends_with(PATH) {
            url.set_path(&format!("{below}{PATH}"));
        }
        Some(events::Otlp {
            url: url.into(),
            headers,
        })
    }
}

/// `name: value` on each line. No complaint quotes any of it.
fn headers(text: &[u8]) -> Result<HeaderMap, Complaint> {
    let mut headers = HeaderMap::new();
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let (name, value) = header(line).ok_or_else(|| {
            Complaint::new(
                format!("line {} of the file is no header", index + 1),
                "write a header on each line, as in `authorization: Bearer ...`",
            )
        })?;
        headers.append(name, value);
    }
    Ok(headers)
}

fn header(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = line.split_at(colon);
    let name = HeaderName::from_bytes(name.trim_ascii()).ok()?;
    let mut value = HeaderValue::from_bytes(value[1..].trim_ascii()).ok()?;
    value.set_sensitive(true);
    Some((name, value))
}

impl OtlpSource {
    pub(super) fn show(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "otlp = {}", super::show::text(&self.url))?;
        match &self.headers_file {
            Some(file) => writeln!(f, "otlp_headers_file = {}", super::show::secret_file(file)),
            None => writeln!(f, "# otlp_headers_file: none"),
        }
    }
}
