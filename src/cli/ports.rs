//! `turnd ports`: what a firewall has to let through.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;

use turnd::config::Loaded;
use turnd::plane::Listen;
use turnd::token;
use turnd::turn::Transport;

use super::print;

/// Prints a line for each: protocol, ports, the local address, and what comes in there.
pub(super) fn show(loaded: &Loaded) -> ExitCode {
    let mut rows: Vec<[String; 4]> = Vec::new();
    for listen in &loaded.parts.plane.listeners {
        rows.push(listener(
            listen.transport.is_stream(),
            listen.address,
            &clients(listen),
            "",
        ));
    }
    let relay = &loaded.parts.plane.relay;
    let ports = format!("{}-{}", relay.ports.start(), relay.ports.end());
    for relay in &relay.addresses {
        let at = SocketAddr::new(relay.local, 0);
        rows.push(row(false, &ports, at, "peers, from anywhere"));
        if loaded.config.tcp_relay.enabled {
            rows.push(row(
                true,
                &ports,
                at,
                "peers of TCP relays, from and to anywhere",
            ));
        }
    }
    for listen in &loaded.config.token.listen {
        let (address, whom) = match listen {
            token::Listen::Http(address) => (*address, ": for your reverse proxy alone"),
            token::Listen::Https(address) => (*address, ""),
            token::Listen::Unix(_) => continue,
        };
        rows.push(listener(true, address, "credentials", whom));
    }
    let own = [
        (loaded.config.metrics, "metrics"),
        (loaded.config.admin.listen, "the operator's seat"),
    ];
    for (address, what) in own {
        let whom = ": for your own network alone";
        rows.extend(address.map(|address| listener(true, address, what, whom)));
    }
    print(&table(&rows))
}

fn listener(is_stream: bool, address: SocketAddr, what: &str, whom: &str) -> [String; 4] {
    let whom = if address.ip().is_loopback() {
        ": on this host alone, nothing to let through"
    } else {
        whom
    };
    let port = address.port().to_string();
    row(is_stream, &port, address, &format!("{what}{whom}"))
}

fn row(is_stream: bool, ports: &str, at: SocketAddr, what: &str) -> [String; 4] {
    let protocol = if is_stream { "tcp" } else { "udp" };
    [protocol, ports, &at.ip().to_string(), what].map(str::to_owned)
}

fn clients(listen: &Listen) -> String {
    let spoken = match listen.transport {
        Transport::Udp | Transport::Tcp => "clients",
        Transport::Tls => "clients with TLS",
        Transport::Dtls => "clients with DTLS",
    };
    if listen.proxies.is_empty() {
        spoken.to_owned()
    } else {
        format!("{spoken}, through proxies alone")
    }
}

fn table(rows: &[[String; 4]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let (ports, address) = (width(1), width(2));
    let mut text = String::new();
    for [protocol, port, at, what] in rows {
        let _ = writeln!(text, "{protocol}  {port:<ports$}  {at:<address$}  {what}");
    }
    text
}
