//! What a server without a configuration file says of itself: what is on, how to use it, what is off and how to
//! turn it on.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpListener;

use super::logging;
use super::seat::OwnDoor;
use crate::config::{Config, FoundBy, Host, Parts, Sources};
use crate::credential::{Credential, Urls};
use crate::pages;

/// How long the credential in the greeting is good.
const TTL: Duration = Duration::from_secs(3600);
/// Where the self-test is served when nothing says where: the port that the manual gives to the metrics.
const PAGES_PORT: u16 = 9641;

/// The pages that the greeting leads to.
pub(super) struct Links {
    pub(super) self_test: Option<SocketAddr>,
    pub(super) dashboard: Option<OwnDoor>,
}

/// Whether somebody started this server by hand and without a file, who is to be greeted. Under a service manager nobody
/// reads a greeting, and a credential in a journal is one too many.
pub(super) fn is_this(sources: &Sources) -> bool {
    sources.file.is_none() && !logging::stderr_is_the_journal()
}

/// A listener for the self-test, which only this very host reaches: at the customary port, or at any if that is
/// taken. That there is none is no reason not to relay.
pub(super) async fn bind_self_test() -> Option<TcpListener> {
    for port in [PAGES_PORT, 0] {
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            return Some(listener);
        }
    }
    None
}

/// Greets whoever started the server by hand, and shows the way to its pages.
pub(super) fn welcome(config: &Config, parts: &Parts, host: &Host, links: &Links) {
    // That nobody reads it is no reason to stop.
    let _ = io::stdout().write_all(greeting(config, parts, host, links).as_bytes());
}

fn greeting(config: &Config, parts: &Parts, host: &Host, links: &Links) -> String {
    let mut text = String::from("turnd relays calls on this host.\n\n");
    what_is_on(&mut text, parts, host);
    what_to_try(&mut text, parts, host, links);
    what_is_off(&mut text, config);
    text
}

fn what_is_on(text: &mut String, parts: &Parts, host: &Host) {
    let listeners = parts.plane.listeners.iter();
    let listeners =
        listeners.map(|listen| format!("{} {}", listen.transport.label(), listen.address));
    line(
        text,
        "clients come in at",
        &listeners.collect::<Vec<_>>().join(", "),
    );
    let relay = &parts.plane.relay;
    let addresses = relay
        .addresses
        .iter()
        .map(|relay| relay.advertised.to_string());
    let addresses = addresses.collect::<Vec<_>>().join(" and ");
    let (first, last) = (relay.ports.start(), relay.ports.end());
    line(
        text,
        "relays are at",
        &format!("{addresses}, UDP ports {first}-{last}"),
    );
    if let Some(remark) = remark(parts) {
        line(text, "", remark);
    }
    if parts.own_secret {
        let file = host.state.own_secret();
        line(
            text,
            "shared secret",
            &format!("{} (made by turnd, for its eyes alone)", file.display()),
        );
    }
}

fn what_to_try(text: &mut String, parts: &Parts, host: &Host, links: &Links) {
    if let Some(secret) = parts.secrets.first() {
        let urls = Urls::new(None, &parts.plane.listeners, &parts.plane.relay.addresses);
        let credential = Credential::mint(secret, "first-run", TTL, host.unix);
        if let Some(page) = links.self_test {
            let configuration = urls.configuration(&credential).to_string();
            let _ = write!(
                text,
                "\nSee it work: open this page in a browser on this host. It calls itself through the relay.\n\n{}\n",
                pages::self_test_link(&origin(page), &configuration)
            );
        }
        if let Some(OwnDoor { address, token }) = &links.dashboard {
            let _ = write!(
                text,
                "\nWatch it: the dashboard, with a token that ends with this run.\n\n{}\n",
                pages::dashboard_link(&origin(*address), token)
            );
        }
        let _ = write!(
            text,
            "\nPaste this into two pages of your own; it is good for an hour, as the page is. With\n\
             iceTransportPolicy: \"relay\" beside iceServers, every call goes through this server.\n\n{}\n",
            urls.script(&credential)
        );
        line(
            text,
            "who is relayed",
            "turnd sessions, turnd top; turnd kick or turnd revoke ends a call",
        );
        line(
            text,
            "more of these",
            "turnd credential --user alice --ttl 1h --js",
        );
    }
    line(
        text,
        "your own settings",
        "turnd show-config --defaults > turnd.toml; turnd --config turnd.toml",
    );
}

/// How a browser on this host calls a listener.
fn origin(listener: SocketAddr) -> String {
    let ip = match listener.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    format!("http://{}", SocketAddr::new(ip, listener.port()))
}

fn what_is_off(text: &mut String, config: &Config) {
    text.push_str("\nOff, and how to turn it on:\n");
    if config.tls.is_none() {
        line(
            text,
            "TLS",
            "a certificate under [tls], and a [[listen]] with transport = \"tls\"",
        );
    }
    if config.metrics.is_none() {
        line(text, "metrics", "turnd --set metrics.listen=127.0.0.1:9641");
    }
    if config.peers.allow.is_empty() {
        line(
            text,
            "private peers",
            "turnd --set peers.allow=10.1.0.0/16 opens a network to every user",
        );
    }
    text.push('\n');
}

/// What the way the relay address was found means for who can call.
fn remark(parts: &Parts) -> Option<&'static str> {
    match parts.found_by? {
        FoundBy::Loopback => Some("there is no network: only pages on this very host can call"),
        FoundBy::Interface => {
            Some("there is no way to the world: only hosts in this network can call")
        }
        FoundBy::DefaultRoute
            if parts
                .plane
                .relay
                .addresses
                .iter()
                .any(|relay| is_private(relay.advertised)) =>
        {
            Some(
                "a private address: for calls from outside, forward the ports and set relay.external=PUBLIC=PRIVATE",
            )
        }
        FoundBy::DefaultRoute => None,
    }
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_private(),
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}

fn line(text: &mut String, what: &str, value: &str) {
    let _ = writeln!(text, "  {what:<20}{value}");
}
