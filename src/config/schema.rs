//! Every key of the configuration, in the order of the manual: its name, its kind, its bounds and its default.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

use crate::plane::{Carry, Listen};
use crate::turn::{Limits, OnExpiry, PasswordAlgorithms, Peers, SecretAlgorithm, Transport};

use super::certificate::CertificateFiles;
use super::document::{Node, Table, Value};
use super::problem::Complaint;
use super::section::{Notes, Section, whole_number};
use super::{
    Auth, Config, External, Log, LogFormat, OAuth, Redirect, Relay, SecretSource, Server, Tls,
    User, front, tcp_relay, values,
};

const TRANSPORTS: [(&str, Transport); 4] = [
    ("udp", Transport::Udp),
    ("tcp", Transport::Tcp),
    ("tls", Transport::Tls),
    ("dtls", Transport::Dtls),
];
const ALGORITHMS: [(&str, SecretAlgorithm); 2] = [
    ("sha1", SecretAlgorithm::Sha1),
    ("sha256", SecretAlgorithm::Sha256),
];
const ON_EXPIRY: [(&str, OnExpiry); 3] = [
    ("new", OnExpiry::New),
    ("refresh", OnExpiry::Refresh),
    ("cut", OnExpiry::Cut),
];
const LOG_FORMATS: [(&str, LogFormat); 4] = [
    ("auto", LogFormat::Auto),
    ("text", LogFormat::Text),
    ("json", LogFormat::Json),
    ("journal", LogFormat::Journal),
];

const OCCASIONS: [(&str, Occasion); 3] = [
    ("always", Occasion::Always),
    ("drain", Occasion::Drain),
    ("overload", Occasion::Overload),
];

/// When clients are sent elsewhere.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Occasion {
    Always,
    Drain,
    Overload,
}

const SHORTEST_LIFETIME: Duration = Duration::from_secs(1);
const LONGEST_LIFETIME: Duration = Duration::from_secs(24 * 3600);
const LONGEST_DRAIN: Duration = Duration::from_secs(24 * 3600);
/// RFC 8489 §14.9: fewer than 128 characters.
const LONGEST_REALM: usize = 127;
/// RFC 8489 §14.3: fewer than 509 bytes.
const LONGEST_USERNAME: usize = 508;
/// RFC 8489 §14.16, and the DNS.
const LONGEST_DOMAIN: usize = 253;
const MOST_WORKERS: u32 = 254;

pub(super) fn read(table: &Table, notes: &Notes) -> Config {
    let mut root = Section::root(table, notes);
    let server = root.table("server", server);
    let mut listen_algorithms = Vec::new();
    let listen = listen(&mut root, &mut listen_algorithms);
    let relay = root.table("relay", relay);
    let auth = root.table("auth", auth);
    let (limits, max_lifetime) = root.table("limits", limits);
    let config = Config {
        server,
        listen,
        listen_algorithms,
        relay,
        auth,
        limits,
        max_lifetime,
        peers: root.table("peers", peers),
        tcp_relay: root.table("tcp_relay", tcp_relay::read),
        nat_discovery: root.table("nat_discovery", |section| {
            section.list("addresses", own_place).unwrap_or_default()
        }),
        redirect: root.table("redirect", redirect),
        tls: root.table("tls", tls),
        metrics: root.table("metrics", |section| {
            section.parsed("listen", values::socket_address)
        }),
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

fn listen(
    root: &mut Section<'_>,
    algorithms: &mut Vec<(Listen, PasswordAlgorithms)>,
) -> Option<Vec<Listen>> {
    let mut seen = Vec::new();
    let listeners = root.tables("listen", |section| {
        let address = section.parsed("address", values::socket_address);
        let transport = section.parsed("transport", |text| values::word(text, &TRANSPORTS));
        let offered = password_algorithms(section);
        if address.is_none() && !section.is_given("address") {
            section.error(
                "",
                Complaint::new(
                    "this listener has no address",
                    "add address = \"0.0.0.0:3478\"",
                ),
            );
        }
        let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        let mut listener =
            Listen::new(address.unwrap_or(any), transport.unwrap_or(Transport::Udp));
        front::read(section, &mut listener);
        address?;
        algorithms.extend(offered.map(|offered| (listener.clone(), offered)));
        let kernel_name = (listener.address, listener.transport.is_stream());
        if seen.contains(&kernel_name) && listener.address.port() != 0 {
            let what = format!("{} is listened on twice", listener.address);
            section.error(
                "address",
                Complaint::new(
                    what,
                    "take one of them out, or give it another port; tcp and tls cannot share one, nor can udp and dtls",
                ),
            );
        }
        seen.push(kernel_name);
        Some(listener)
    })?;
    let listeners: Vec<Listen> = listeners.into_iter().flatten().collect();
    if listeners.is_empty() && root.is_empty_list("listen") {
        root.error(
            "listen",
            Complaint::new(
                "there is nothing to listen on",
                "add a [[listen]], or leave the key out for port 3478",
            ),
        );
    }
    Some(listeners)
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

fn auth(section: &mut Section<'_>) -> Auth {
    let mut ids = BTreeSet::new();
    let secrets = section.tables("secrets", |section| shared_secret(section, &mut ids));
    let mut names = BTreeSet::new();
    let users = section.tables("users", |section| user(section, &mut names));
    let algorithms = password_algorithms(section).unwrap_or(PasswordAlgorithms::Md5);
    if algorithms == PasswordAlgorithms::Sha256 {
        let remedy = "add \"md5\": every browser needs it; to require SHA-256 of some clients, say so at a [[listen]] of their own";
        section.error(
            "password_algorithms",
            Complaint::new("without md5 no browser can log in", remedy),
        );
    }
    Auth {
        secrets: secrets.map(|secrets| secrets.into_iter().flatten().collect()),
        users: users.into_iter().flatten().flatten().collect(),
        nonce_key_file: section.secret_file("nonce_key_file"),
        on_expiry: section
            .parsed("on_expiry", |text| values::word(text, &ON_EXPIRY))
            .unwrap_or(OnExpiry::Refresh),
        password_algorithms: algorithms,
        username_anonymity: section.flag("username_anonymity").unwrap_or(false),
        oauth: section.table("oauth", |section| OAuth::read(section, &mut names)),
    }
}

fn password_algorithms(section: &mut Section<'_>) -> Option<PasswordAlgorithms> {
    const MD5: PasswordAlgorithms = PasswordAlgorithms::Md5;
    const SHA256: PasswordAlgorithms = PasswordAlgorithms::Sha256;
    let named = section.list("password_algorithms", |text| {
        values::word(text, &[("md5", MD5), ("sha256", SHA256)])
    })?;
    if section.is_empty_list("password_algorithms") {
        let remedy = "name \"md5\", \"sha256\" or both, or leave the key out";
        section.error(
            "password_algorithms",
            Complaint::new("there is no algorithm to log in with", remedy),
        );
    }
    Some(match (named.contains(&MD5), named.contains(&SHA256)) {
        (true, true) => PasswordAlgorithms::Sha256AndMd5,
        (false, true) => SHA256,
        (_, false) => MD5,
    })
}

fn shared_secret(section: &mut Section<'_>, ids: &mut BTreeSet<String>) -> Option<SecretSource> {
    let id = section.parsed("id", identifier);
    let file = section.secret_file("file");
    let algorithm = section
        .parsed("algorithm", |text| values::word(text, &ALGORITHMS))
        .unwrap_or(SecretAlgorithm::Sha1);
    if !section.is_given("file") {
        let remedy = "add file = \"/etc/turnd/auth-secret\"; `turnd genkey` prints a good secret to put there";
        section.error(
            "",
            Complaint::new(
                "this secret names no file; a secret itself never stands in the configuration",
                remedy,
            ),
        );
    }
    let id = id.unwrap_or_else(|| "main".to_owned());
    if !ids.insert(id.clone()) {
        section.error(
            "id",
            Complaint::new(
                format!("there are two secrets with the id `{id}`"),
                "give each secret an id of its own",
            ),
        );
    }
    Some(SecretSource {
        id,
        file: file?,
        algorithm,
        key: section.name("file"),
    })
}

fn identifier(text: &str) -> Result<String, Complaint> {
    let fits = (1..=32).contains(&text.len())
        && text
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter));
    if fits {
        Ok(text.to_owned())
    } else {
        Err(Complaint::new(
            "this id is of no use as a name",
            "use 1 to 32 letters, digits, - _ and .",
        ))
    }
}

fn user(section: &mut Section<'_>, names: &mut BTreeSet<String>) -> Option<User> {
    let name = section.parsed("name", username);
    let password_file = section.secret_file("password_file");
    if !section.is_given("name") {
        section.error(
            "",
            Complaint::new("this user has no name", "add name = \"alice\""),
        );
    }
    if !section.is_given("password_file") {
        let remedy = "add password_file = \"/etc/turnd/alice\"; `turnd genkey` prints a good password to put there";
        section.error("", Complaint::new("this user has no password file; a password itself never stands in the configuration", remedy));
    }
    let name = name?;
    if !names.insert(name.clone()) {
        section.error(
            "name",
            Complaint::new(
                format!("there are two users with the name `{name}`"),
                "give each user a name of its own",
            ),
        );
    }
    Some(User {
        name,
        password_file: password_file?,
        key: section.name("password_file"),
    })
}

pub(super) fn username(text: &str) -> Result<String, Complaint> {
    let remedy = "use printable characters, fewer than 509 bytes";
    if text.is_empty() || text.len() > LONGEST_USERNAME || text.chars().any(char::is_control) {
        return Err(Complaint::new("this name cannot be a username", remedy));
    }
    match text.split_once(':') {
        Some((expiry, _))
            if !expiry.is_empty() && expiry.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            Err(Complaint::new(
                "a name of the form `number:name` is kept for time-limited credentials",
                "choose a name without the number",
            ))
        }
        Some(_) | None => Ok(text.to_owned()),
    }
}

fn limits(section: &mut Section<'_>) -> (Limits, Duration) {
    let default = Limits::default();
    let limits = Limits {
        per_user: section
            .number("per_user", 1, u32::MAX)
            .unwrap_or(default.per_user),
        per_client: section
            .number("per_client", 1, u32::MAX)
            .unwrap_or(default.per_client),
        total: section
            .number("total", 1, u32::MAX)
            .unwrap_or(default.total),
        permissions: section
            .number("permissions", 1, 1024)
            .map_or(default.permissions, |number| number as usize),
        channels: section
            .number("channels", 1, 1024)
            .map_or(default.channels, |number| number as usize),
        unauthenticated_replies: section
            .number("unauthenticated_replies", 0, u32::MAX)
            .unwrap_or(default.unauthenticated_replies),
    };
    let max_lifetime = section.parsed("max_lifetime", |text| {
        values::duration_within(text, SHORTEST_LIFETIME..=LONGEST_LIFETIME)
    });
    (limits, max_lifetime.unwrap_or(Duration::from_secs(3600)))
}

fn peers(section: &mut Section<'_>) -> Peers {
    Peers {
        allow: section.list("allow", values::prefix).unwrap_or_default(),
        deny: section.list("deny", values::prefix).unwrap_or_default(),
    }
}

fn redirect(section: &mut Section<'_>) -> Redirect {
    let when = section.list("when", |text| values::word(text, &OCCASIONS));
    let when = when.unwrap_or_else(|| vec![Occasion::Drain, Occasion::Overload]);
    Redirect {
        to: section.list("to", target).unwrap_or_default(),
        to_tls: section.list("to_tls", target).unwrap_or_default(),
        domain: section.parsed("domain", domain),
        always: when.contains(&Occasion::Always),
        drain: when.contains(&Occasion::Drain),
        overload: when.contains(&Occasion::Overload),
        overload_at: section.number("overload_at", 1, u32::MAX),
    }
}

/// An address that clients can be sent to.
fn target(text: &str) -> Result<SocketAddr, Complaint> {
    let remedy = "write the address and port at which clients reach the other server";
    one_place(text, remedy)
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

/// A DNS name (RFC 8489 §14.16).
fn domain(text: &str) -> Result<String, Complaint> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .chars()
                .all(|letter| letter.is_ascii_alphanumeric() || letter == '-')
    };
    if text.len() <= LONGEST_DOMAIN && text.split('.').all(label) {
        return Ok(text.to_owned());
    }
    Err(Complaint::new(
        format!("`{text}` is not a domain name"),
        "write the name in the certificate of the other servers, as in \"turn2.example.org\"",
    ))
}

fn tls(section: &mut Section<'_>) -> Option<Tls> {
    let default = certificate(section);
    let others = section.tables("others", |section| {
        if !section.is_given("certificate") && !section.is_given("key") {
            let remedy = "add certificate = \"cert.pem\" and key = \"key.pem\", or take it out";
            section.error("", Complaint::new("this names no certificate", remedy));
        }
        certificate(section)
    });
    if others.as_ref().is_some_and(|others| !others.is_empty()) && !section.is_given("certificate")
    {
        let what = "there are other certificates, but none for clients that name no host";
        let remedy = "add certificate = \"cert.pem\" and key = \"key.pem\" to [tls]";
        section.error("others", Complaint::new(what, remedy));
    }
    Some(Tls {
        default: default?,
        others: others.into_iter().flatten().flatten().collect(),
    })
}

fn certificate(section: &mut Section<'_>) -> Option<CertificateFiles> {
    let certificate = section.path("certificate");
    let key = section.secret_file("key");
    match (section.is_given("certificate"), section.is_given("key")) {
        (true, false) => section.error(
            "certificate",
            Complaint::new("there is a certificate but no key", "add key = \"key.pem\""),
        ),
        (false, true) => section.error(
            "key",
            Complaint::new(
                "there is a key but no certificate",
                "add certificate = \"cert.pem\"",
            ),
        ),
        (true, true) | (false, false) => {}
    }
    Some(CertificateFiles {
        certificate: certificate?,
        key: key?,
    })
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

fn level(text: &str) -> Result<String, Complaint> {
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
