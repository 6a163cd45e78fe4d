//! Every key of the configuration, in the order of the manual: its name, its kind, its bounds and its default.

mod admin;
mod auth;
mod limits;
mod listen;
mod redirect;
mod revocation;
mod tls;
mod token;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use crate::plane::Carry;
use crate::turn::Peers;

use super::document::{Node, Table, Value};
use super::problem::Complaint;
use super::section::{Notes, Section, whole_number};
use super::{Config, External, Log, LogFormat, Relay, Server, events, tcp_relay, tenant, values};

const LOG_FORMATS: [(&str, LogFormat); 4] = [
    ("auto", LogFormat::Auto),
    ("text", LogFormat::Text),
    ("json", LogFormat::Json),
    ("journal", LogFormat::Journal),
];

const LONGEST_DRAIN: Duration = Duration::from_secs(24 * 3600);
/// RFC 8489 §14.9: fewer than 128 characters.
const LONGEST_REALM: usize = 127;
const MOST_WORKERS: u32 = 254;

pub(super) use auth::{plain, secrets, username, users};
pub(super) use listen::TRANSPORTS;

pub(super) fn read(table: &Table, notes: &Notes) -> Config {
    let mut root = Section::root(table, notes);
    let server = root.table("server", server);
    let mut listen_algorithms = Vec::new();
    let listen = listen::read(&mut root, &mut listen_algorithms);
    let relay = root.table("relay", relay);
    let auth = root.table("auth", auth::read);
    let (limits, max_lifetime) = root.table("limits", limits::read);
    let (peers, policies) = root.table("peers", peers);
    let ids = auth.secrets.iter().flatten();
    let ids = ids.map(|secret| secret.id.clone()).collect();
    let tenants = tenant::read(&mut root, ids);
    let config = Config {
        server,
        listen,
        listen_algorithms,
        relay,
        auth,
        limits,
        max_lifetime,
        peers,
        policies,
        tenants,
        tcp_relay: root.table("tcp_relay", tcp_relay::read),
        nat_discovery: root.table("nat_discovery", |section| {
            section.list("addresses", own_place).unwrap_or_default()
        }),
        redirect: root.table("redirect", redirect::read),
        events: root.table("events", events::read),
        revocation: root.table("revocation", revocation::read),
        tls: root.table("tls", tls::read),
        token: root.table("token", token::read),
        metrics: root.table("metrics", |section| {
            section.parsed("listen", values::socket_address)
        }),
        admin: root.table("admin", admin::read),
        log: root.table("log", log),
    };
    root.finish();
    config
}

fn server(section: &mut Section<'_>) -> Server {
    Server {
        realm: section
            .parsed("realm", realm)
            .unwrap_or_else(|| "turnd".to_owned()),
        software: section.flag("software").unwrap_or(false),
        mobility: section.flag("mobility").unwrap_or(false),
        rfc5766_channels: section.flag("rfc5766_channels").unwrap_or(false),
        rfc3489: section.flag("rfc3489").unwrap_or(false),
        workers: section.value("workers", workers).unwrap_or(None),
        drain_timeout: section
            .parsed("drain_timeout", |text| {
                values::duration_within(text, Duration::ZERO..=LONGEST_DRAIN)
            })
            .unwrap_or(Duration::from_secs(30)),
    }
}

pub(super) fn realm(text: &str) -> Result<String, Complaint> {
    let fits = (1..=LONGEST_REALM).contains(&text.len())
        && text
            .chars()
            .all(|letter| letter.is_ascii_graphic() && letter != '"');
    if fits {
        return Ok(text.to_owned());
    }
    let what = "the realm must be 1 to 127 letters, digits or signs, without spaces and quotes";
    Err(Complaint::new(
        what,
        "write the name of your domain, as in \"turn.example.org\"",
    ))
}

fn workers(node: &Node) -> Result<Option<NonZeroUsize>, Complaint> {
    if matches!(&node.value, Value::Text(text) if text == "auto") {
        return Ok(None);
    }
    let number = whole_number(node, 1, MOST_WORKERS).map_err(|complaint| {
        Complaint::new(
            complaint.what,
            format!("write \"auto\", or a number from 1 to {MOST_WORKERS}"),
        )
    })?;
    Ok(NonZeroUsize::new(number as usize))
}

fn relay(section: &mut Section<'_>) -> Relay {
    let addresses = section.list("addresses", values::ip);
    if section.is_empty_list("addresses") {
        section.error(
            "addresses",
            Complaint::new(
                "there is no address to relay from",
                "name one, or leave the key out to have it detected",
            ),
        );
    }
    Relay {
        addresses,
        external: section.list("external", external).unwrap_or_default(),
        ports: section
            .parsed("ports", values::ports)
            .unwrap_or(49152..=65535),
        unasked_ipv6: section.flag("unasked_ipv6").unwrap_or(false),
        carry: Carry {
            icmp: section.flag("icmp").unwrap_or(true),
            dscp: section.flag("copy_dscp").unwrap_or(true),
            ecn: section.flag("copy_ecn").unwrap_or(true),
        },
    }
}

fn external(text: &str) -> Result<External, Complaint> {
    let remedy = "write the address that the world sees, =, and the local address it stands for, as in \"203.0.113.4=10.0.0.5\"";
    let (advertised, local) = text.split_once('=').ok_or_else(|| {
        Complaint::new(
            format!("`{text}` does not say which local address it stands for"),
            remedy,
        )
    })?;
    let (advertised, local) = (values::ip(advertised.trim())?, values::ip(local.trim())?);
    if advertised.is_ipv4() != local.is_ipv4() {
        return Err(Complaint::new(
            format!("{advertised} and {local} are of different families"),
            remedy,
        ));
    }
    Ok(External { advertised, local })
}

/// Which peers may be reached, and the same of credentials that name a policy.
fn peers(section: &mut Section<'_>) -> (Peers, BTreeMap<Box<str>, Peers>) {
    let peers = prefixes(section);
    let mut policies = BTreeMap::new();
    section.tables("policies", |section| {
        let name = section.parsed("name", plain);
        let policy = prefixes(section);
        let Some(name) = name else {
            if !section.is_given("name") {
                let remedy = "add name = \"media\": what credentials say behind ~p";
                section.error("", Complaint::new("this policy has no name", remedy));
            }
            return;
        };
        if policies.contains_key(&*name) {
            let what = format!("there are two policies with the name `{name}`");
            section.error(
                "name",
                Complaint::new(what, "give each policy a name of its own"),
            );
        }
        policies.insert(name.into(), policy);
    });
    (peers, policies)
}

fn prefixes(section: &mut Section<'_>) -> Peers {
    Peers {
        allow: section.list("allow", values::prefix).unwrap_or_default(),
        deny: section.list("deny", values::prefix).unwrap_or_default(),
    }
}

/// An address that packets can leave from.
fn own_place(text: &str) -> Result<SocketAddr, Complaint> {
    let remedy = "write an address of this host, and a port, as in \"203.0.113.4:3478\"";
    one_place(text, remedy)
}

fn one_place(text: &str, remedy: &str) -> Result<SocketAddr, Complaint> {
    let address = values::socket_address(text)?;
    if address.ip().is_unspecified() || address.ip().is_multicast() || address.port() == 0 {
        let what = format!("{address} is not the address of one place");
        return Err(Complaint::new(what, remedy));
    }
    Ok(address)
}

fn log(section: &mut Section<'_>) -> Log {
    Log {
        format: section
            .parsed("format", |text| values::word(text, &LOG_FORMATS))
            .unwrap_or(LogFormat::Auto),
        level: section
            .parsed("level", level)
            .unwrap_or_else(|| "info".to_owned()),
    }
}

pub(super) fn level(text: &str) -> Result<String, Complaint> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let known = |word: &str| LEVELS.contains(&word);
    let fits = text
        .split(',')
        .map(str::trim)
        .all(|part| match part.split_once('=') {
            Some((target, word)) => !target.is_empty() && known(word),
            None => known(part),
        });
    if fits {
        return Ok(text.to_owned());
    }
    let remedy = format!(
        "write one of {}, or levels by module as in \"info,turnd::plane=debug\"",
        LEVELS.join(", ")
    );
    Err(Complaint::new(format!("`{text}` is not a level"), remedy))
}
