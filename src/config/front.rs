//! `[[listen]]`: the proxies in front of a listener, and the web server behind it.

use std::net::SocketAddr;

use crate::plane::{Listen, Web};

use super::assemble::Assembly;
use super::host::Host;
use super::problem::Complaint;
use super::section::Section;
use super::values;

/// Reads `proxy_protocol`, `proxies` and `http`.
pub(super) fn read(section: &mut Section<'_>, listen: &mut Listen) {
    let is_expected = section.flag("proxy_protocol").unwrap_or(false);
    listen.proxies = section.list("proxies", values::prefix).unwrap_or_default();
    listen.web = section.parsed("http", web);
    let names_proxies = section.is_given("proxies") && !section.is_empty_list("proxies");
    match (is_expected, names_proxies) {
        (true, false) => section.error(
            "proxy_protocol",
            Complaint::new(
                "there is no proxy that is trusted to tell who the clients are",
                "add proxies = [\"10.0.0.7\"] with the addresses of your proxies, and of nobody else",
            ),
        ),
        (false, true) => section.error(
            "proxies",
            Complaint::new(
                "there are proxies, but this listener expects no PROXY header",
                "add proxy_protocol = true, or take the proxies out",
            ),
        ),
        (true, true) | (false, false) => {}
    }
    if listen.transport.is_stream() {
        return;
    }
    let transport = listen.transport.label();
    for key in ["proxy_protocol", "http"] {
        let is_asked = section.is_given(key) && (key == "http" || is_expected);
        if is_asked {
            let what = format!("this listener speaks {transport}, which has no connections");
            let remedy =
                "take it out, or give it to a listener with transport = \"tcp\" or \"tls\"";
            section.error(key, Complaint::new(what, remedy));
        }
    }
}

fn web(text: &str) -> Result<Web, Complaint> {
    if text == "self" {
        return Ok(Web::Own);
    }
    let address = values::socket_address(text).map_err(|_| {
        let remedy = "write the address and port of a web server that speaks HTTP without TLS, as in \"127.0.0.1:8080\", or \"self\"";
        Complaint::new(format!("`{text}` is no web server"), remedy)
    })?;
    if address.port() == 0 || address.ip().is_unspecified() || address.ip().is_multicast() {
        let remedy =
            "write the address and port that the web server listens on, as in \"127.0.0.1:8080\"";
        return Err(Complaint::new(
            format!("nobody can be reached at {address}"),
            remedy,
        ));
    }
    Ok(Web::Backend(address))
}

impl Assembly<'_> {
    /// Whether web clients and proxies are dealt with as the operator can have meant.
    pub(super) fn check_fronts(&mut self, listeners: &[Listen]) {
        for (index, listen) in listeners.iter().enumerate() {
            if listen.proxies.iter().any(|prefix| prefix.prefix_len() == 0) {
                self.warning(
                    &format!("listen[{index}].proxies"),
                    "whoever reaches this listener can pretend to be anybody",
                    "name the addresses of your proxies, and of nobody else",
                );
            }
            let Some(Web::Backend(backend)) = listen.web else {
                continue;
            };
            if listeners.iter().any(|own| is_at(own, backend)) {
                self.error(
                    &format!("listen[{index}].http"),
                    format!(
                        "{backend} is a listener of this server: web clients would go in circles"
                    ),
                    "name the address of a web server, or write \"self\" for /healthz and /readyz",
                );
            }
        }
    }
}

/// Whether connections to this address come in at a listener of ours.
fn is_at(listen: &Listen, address: SocketAddr) -> bool {
    let own = listen.address;
    let is_same = own.ip() == address.ip();
    let is_any = own.ip().is_unspecified()
        && own.is_ipv4() == address.is_ipv4()
        && Host::has_address(address.ip());
    listen.transport.is_stream() && own.port() == address.port() && (is_same || is_any)
}
