//! `turnd import`: what becomes of each key of coturn, of what well-known projects recommend, and of nonsense.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "support/outside.rs"]
mod outside;

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use toml::de::DeTable;
use turnd::config::{self, Config, Host, Loaded, LogFormat, SecretFile, Sources, StateDirectory};
use turnd::import::{self, Class, Imported, Surroundings};
use turnd::turn::{SecretAlgorithm, Transport};

use outside::given;

/// What no output may contain.
const MARKER: &str = "MARKER";
const SECRET: &str = "MARKER-north-north-north-north";
const PASSWORD: &str = "MARKER k9fw-Xo2m-71qz";

// ---- what projects recommend ----

#[test]
fn the_configuration_of_matrix() {
    let (imported, loaded) = golden("matrix", "/etc/letsencrypt/live/turn.example.org");
    let config = &loaded.config;
    assert_eq!((config.limits.per_user, config.limits.total), (12, 1200));
    assert_eq!(config.server.realm, "turn.example.org");
    assert_eq!(
        transports(config),
        [
            "udp 3478", "udp 3478", "tcp 3478", "tcp 3478", "tls 5349", "tls 5349"
        ]
    );
    let may = |ip: &str| config.peers.permit(ip.parse().unwrap());
    assert!(may("10.0.0.1") && may("9.9.9.9"));
    assert!(!may("10.0.0.2") && !may("192.168.1.1") && !may("169.254.169.254") && !may("::1"));
    let opens: Vec<_> = imported
        .report
        .entries
        .iter()
        .filter(|entry| entry.weakens)
        .collect();
    assert_eq!(opens.len(), 1);
    assert_eq!(
        (opens[0].class, opens[0].said.as_str()),
        (Class::Changed, "allowed-peer-ip=10.0.0.1")
    );
}

#[test]
fn the_configuration_of_nextcloud_talk() {
    let (imported, loaded) = golden("nextcloud", "/none");
    assert_eq!(loaded.config.server.realm, "cloud.example.org");
    assert_eq!(loaded.config.limits.total, 100_000);
    assert_eq!(
        transports(&loaded.config),
        ["udp 3478", "udp 3478", "tcp 3478", "tcp 3478"]
    );
    assert!(!imported.report.weakens());
}

#[test]
fn the_configuration_of_jitsi() {
    let (imported, loaded) = golden("jitsi", "/etc/letsencrypt/live/meet.example.org");
    assert_eq!(
        transports(&loaded.config),
        ["udp 3478", "udp 3478", "tls 5349", "tls 5349"]
    );
    assert!(!loaded.config.tcp_relay.enabled && loaded.config.tls.is_some());
    assert!(!imported.report.weakens());
}

#[test]
fn the_configuration_of_bigbluebutton() {
    let (imported, loaded) = golden("bigbluebutton", "/etc/turnserver");
    let relay = &loaded.config.relay;
    assert_eq!(relay.ports, 32769..=65535);
    let external = relay.external[0];
    assert_eq!(external.advertised.to_string(), "198.51.100.20");
    assert_eq!(external.local.to_string(), "10.7.3.1");
    assert_eq!(
        loaded.config.listen.as_ref().unwrap()[0]
            .address
            .to_string(),
        "10.7.3.1:3478"
    );
    assert!(!imported.report.weakens());
}

/// Compares with the files beside the fixture, and loads what came out. To write the files anew, set
/// `TURND_WRITE_GOLDEN` and look at what changes.
fn golden(name: &str, certificates: &str) -> (Imported, Loaded) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import");
    let text = fs::read_to_string(directory.join(format!("{name}.conf"))).unwrap();
    let imported = import::coturn(text.as_bytes(), &around("/etc/turnd"));
    let commands = imported
        .secrets
        .iter()
        .map(|secret| secret.command(Path::new("turnserver.conf")) + "\n");
    let report = imported.report.to_string() + "\n" + &commands.collect::<String>();
    for (kind, made) in [("toml", &imported.toml), ("report", &report)] {
        let file = directory.join(format!("{name}.{kind}"));
        if env::var_os("TURND_WRITE_GOLDEN").is_some() {
            fs::write(&file, made).unwrap();
        }
        assert_eq!(
            *made,
            fs::read_to_string(&file).unwrap(),
            "{}",
            file.display()
        );
        assert!(!made.contains(MARKER), "a secret is in {}", file.display());
    }
    let bench = Bench::new();
    bench.certificate();
    let text = text.replace(certificates, bench.path().to_str().unwrap());
    let moved = import::coturn(text.as_bytes(), &bench.around());
    let loaded = bench.load(&moved);
    assert_eq!(loaded.config.auth.secrets.as_ref().unwrap().len(), 1);
    (imported, loaded)
}

fn transports(config: &Config) -> Vec<String> {
    let listeners = config.listen.as_ref().unwrap();
    let mut names: Vec<String> = listeners
        .iter()
        .map(|listen| format!("{} {}", listen.transport.label(), listen.address.port()))
        .collect();
    names.sort_by_key(|name| {
        (
            name.split(' ').nth(1).unwrap().to_owned(),
            std::cmp::Reverse(name.clone()),
        )
    });
    names
}

// ---- key by key ----

/// What a configuration has to say for a line of coturn to be kept.
type Kept = fn(&Config) -> bool;

/// Lines, the class of each, and what the configuration says then.
const KEYS: &[(&str, &[Class], Kept)] = &[
    ("realm=turn.example.org", &[M], |c| {
        c.server.realm == "turn.example.org"
    }),
    ("realm turn.example.org", &[M], |c| {
        c.server.realm == "turn.example.org"
    }),
    ("realm=a.example\nrealm=b.example", &[D, M], |c| {
        c.server.realm == "b.example"
    }),
    ("realm=two words", &[D], |c| c.server.realm == "turnd"),
    ("mobility", &[M], |c| c.server.mobility),
    ("mobility=0", &[M], |c| !c.server.mobility),
    ("software-attribute", &[C], |c| c.server.software),
    ("no-software-attribute", &[M], |c| !c.server.software),
    ("no-software-attribute=false", &[C], |c| c.server.software),
    ("rfc5766-channel-numbers", &[M], |c| {
        c.server.rfc5766_channels
    }),
    ("rfc3489-compatibility", &[M], |c| c.server.rfc3489),
    ("stun-backward-compatibility", &[M], |c| c.server.rfc3489),
    ("no-stun-backward-compatibility", &[M], |c| {
        !c.server.rfc3489
    }),
    ("listening-port=4478", &[M], |c| {
        listens(c, "0.0.0.0:4478", Transport::Udp) && listens(c, "[::]:4478", Transport::Tcp)
    }),
    ("listening-ip=127.0.0.1\nlistening-ip=::1", &[M, M], |c| {
        listens(c, "127.0.0.1:3478", Transport::Udp)
            && listens(c, "[::1]:3478", Transport::Tcp)
            && doors(c) == 4
    }),
    ("listening-ip=turn.example.org", &[D], |c| doors(c) == 4),
    ("no-udp", &[M], |c| {
        doors(c) == 2 && listens(c, "0.0.0.0:3478", Transport::Tcp)
    }),
    ("no-tcp=yes", &[M], |c| {
        doors(c) == 2 && listens(c, "0.0.0.0:3478", Transport::Udp)
    }),
    ("aux-server=127.0.0.1:33478", &[M], |c| {
        listens(c, "127.0.0.1:33478", Transport::Udp)
            && listens(c, "127.0.0.1:33478", Transport::Tcp)
    }),
    ("cert=cert.pem\npkey=key.pem", &[M, M], |c| {
        listens(c, "0.0.0.0:5349", Transport::Tls)
            && c.tls
                .as_ref()
                .unwrap()
                .default
                .certificate
                .ends_with("cert.pem")
    }),
    (
        "cert=cert.pem\npkey=key.pem\ntls-listening-port=443",
        &[M, M, M],
        |c| listens(c, "[::]:443", Transport::Tls),
    ),
    (ONE_PORT, &[M, M, M], |c| {
        doors(c) == 4 && c.tls.is_some() && listens(c, "[::]:3478", Transport::Tcp)
    }),
    ("cert=cert.pem\npkey=key.pem\ndtls", &[M, M, C], |c| {
        listens(c, "0.0.0.0:5349", Transport::Dtls)
    }),
    ("cert=cert.pem\npkey=key.pem\nno-tls", &[D, D, M], |c| {
        c.tls.is_none() && doors(c) == 4
    }),
    ("cert=cert.pem", &[D], |c| c.tls.is_none()),
    (
        "relay-ip=127.0.0.1\nrelay-ip=127.0.0.2\nrelay-ip=::1",
        &[M, D, M],
        |c| addresses(c) == "127.0.0.1 ::1",
    ),
    ("listening-ip=127.0.0.1", &[M], |c| {
        addresses(c) == "127.0.0.1"
    }),
    ("external-ip=198.51.100.7/127.0.0.1", &[M], |c| {
        external(c) == "198.51.100.7=127.0.0.1"
    }),
    (
        "relay-ip=127.0.0.1\nexternal-ip=198.51.100.7",
        &[M, M],
        |c| external(c) == "198.51.100.7=127.0.0.1",
    ),
    ("external-ip=198.51.100.7", &[C], |c| {
        external(c) == "198.51.100.7=127.0.0.9"
    }),
    ("external-ip=2001:db8::7", &[D], |c| external(c).is_empty()),
    ("min-port=50000\nmax-port=50999", &[M, M], |c| {
        c.relay.ports == (50000..=50999)
    }),
    ("min-port=60000", &[M], |c| c.relay.ports == (60000..=65535)),
    ("min-port=100\nmax-port=2000", &[C, C], |c| {
        c.relay.ports == (1024..=2000)
    }),
    ("min-port=3000\nmax-port=2000", &[D, D], |c| {
        c.relay.ports == (49152..=65535)
    }),
    ("relay-ip=::1\nkeep-address-family", &[M, M], |c| {
        c.relay.unasked_ipv6
    }),
    (
        "relay-ip=::1\nallocation-default-address-family=ipv6",
        &[M, M],
        |c| c.relay.unasked_ipv6,
    ),
    ("allocation-default-address-family=ipv4", &[M], |c| {
        !c.relay.unasked_ipv6
    }),
    ("allocation-default-address-family=keep", &[D], |c| {
        !c.relay.unasked_ipv6
    }),
    ("user-quota=12", &[M], |c| c.limits.per_user == 12),
    ("user-quota=12 # a dozen", &[M], |c| c.limits.per_user == 12),
    ("user-quota=0", &[C], |c| c.limits.per_user == 16),
    ("user-quota=many", &[D], |c| c.limits.per_user == 16),
    ("total-quota=1200", &[M], |c| c.limits.total == 1200),
    ("total-quota=0", &[C], |c| c.limits.total == 100_000),
    ("max-bps=250000", &[C], |c| {
        c.limits.bandwidth.per_allocation == 2_000_000
    }),
    ("bps-capacity=12500000", &[C], |c| {
        c.limits.bandwidth.total == 100_000_000
    }),
    ("max-bps=99999999999999999", &[C], |c| {
        c.limits.bandwidth.per_allocation == 1_000_000_000_000
    }),
    ("max-bps=0\nbps-capacity=0", &[M, M], |c| {
        c.limits.bandwidth.per_allocation == 0 && c.limits.bandwidth.total == 0
    }),
    ("max-allocate-lifetime=1800", &[M], |c| {
        c.max_lifetime == Duration::from_secs(1800)
    }),
    ("max-allocate-lifetime=999999", &[C], |c| {
        c.max_lifetime == Duration::from_secs(86400)
    }),
    (
        "channel-lifetime=600\npermission-lifetime=900",
        &[M, D],
        |_| true,
    ),
    ("stale-nonce=600", &[M], |_| true),
    ("stale-nonce=0", &[C], |_| true),
    (
        "unauthorized-ratelimit\nunauthorized-ratelimit-rps=10",
        &[M, C],
        |c| c.limits.unauthenticated_replies == 250,
    ),
    ("denied-peer-ip=198.51.0.0-198.51.255.255", &[M], |c| {
        deny(c) == "198.51.0.0/16"
    }),
    (
        "denied-peer-ip=9.9.9.0-9.9.9.2\nallowed-peer-ip=9.9.9.1",
        &[M, M],
        |c| deny(c) == "9.9.9.0/32 9.9.9.2/32" && allow(c).is_empty(),
    ),
    ("denied-peer-ip=8.0.0.0/8", &[C], |c| deny(c) == "8.0.0.0/8"),
    ("denied-peer-ip=printer.example.org", &[D], |c| {
        deny(c).is_empty()
    }),
    (
        "denied-peer-ip=10.0.0.0-10.255.255.255\nallowed-peer-ip=10.1.2.3",
        &[M, C],
        |c| deny(c).is_empty() && allow(c) == "10.1.2.3/32",
    ),
    ("allowed-peer-ip=10.0.0.0/8", &[D], |c| allow(c).is_empty()),
    ("allowed-peer-ip=127.0.0.1", &[D], |c| allow(c).is_empty()),
    ("no-tcp-relay", &[M], |c| !c.tcp_relay.enabled),
    (
        "listening-ip=127.0.0.1\nlistening-ip=127.0.0.2\nrfc5780",
        &[M, M, M],
        |c| discovery(c) == "127.0.0.1:3478 127.0.0.2:3479",
    ),
    (
        "listening-ip=127.0.0.1\nlistening-ip=127.0.0.2\nalt-listening-port=4000",
        &[M, M, M],
        |c| discovery(c) == "127.0.0.1:3478 127.0.0.2:4000",
    ),
    (
        "listening-ip=127.0.0.1\nlistening-ip=127.0.0.2\nno-rfc5780",
        &[M, M, M],
        |c| discovery(c).is_empty(),
    ),
    ("rfc5780\nalt-listening-port=4000", &[D, D], |c| {
        discovery(c).is_empty()
    }),
    (
        "listening-ip=127.0.0.1\nlistening-ip=127.0.0.2\nrfc5780\nno-udp",
        &[M, M, D, M],
        |c| discovery(c).is_empty(),
    ),
    (
        "cert=cert.pem\npkey=key.pem\ndtls\ntls-listening-port=3479\nlistening-ip=127.0.0.1\n\
         listening-ip=127.0.0.2\nrfc5780",
        &[M, M, C, M, M, M, D],
        |c| discovery(c).is_empty() && listens(c, "127.0.0.1:3479", Transport::Dtls),
    ),
    (
        "alternate-server=192.0.2.7\nalternate-server=192.0.2.8:4478",
        &[C, C],
        |c| {
            c.redirect.always
                && !c.redirect.drain
                && list(&c.redirect.to) == "192.0.2.7:3478 192.0.2.8:4478"
        },
    ),
    ("tls-alternate-server=192.0.2.7", &[C], |c| {
        c.redirect.always && list(&c.redirect.to_tls) == "192.0.2.7:5349"
    }),
    ("prometheus", &[C], |c| {
        c.metrics == Some("127.0.0.1:9641".parse().unwrap())
    }),
    (
        "prometheus\nprometheus-port=9700\nprometheus-address=127.0.0.2",
        &[C, M, M],
        |c| c.metrics == Some("127.0.0.2:9700".parse().unwrap()),
    ),
    ("prometheus-port=9700", &[D], |c| c.metrics.is_none()),
    ("prometheus\nprometheus-port=3478", &[D, D], |c| {
        c.metrics.is_none()
    }),
    (
        "no-cli\ncli=0\nweb-admin=off\nweb-admin-listen-on-workers=no",
        &[M, M, M, M],
        |c| c.admin.listen.is_none(),
    ),
    (
        "cli\ncli-ip=127.0.0.1\ncli-port=5766\ncli-password=MARKER\ncli-max-output-sessions=100",
        &[C, D, D, D, D],
        |c| c.admin.listen.is_none(),
    ),
    (
        "web-admin\nweb-admin-ip=0.0.0.0\nweb-admin-port=8080\nweb-admin-listen-on-workers",
        &[D, D, D, D],
        |c| c.admin.listen.is_none(),
    ),
    ("Verbose", &[M], |c| c.log.level == "debug"),
    ("verbose", &[M], |c| c.log.level == "info"),
    (
        "syslog\nlog-file=stdout\nlog-file=/var/log/turn.log",
        &[M, D, D],
        |c| c.log.format == LogFormat::Auto,
    ),
];

const M: Class = Class::Mapped;
const C: Class = Class::Changed;
const D: Class = Class::Dropped;

#[test]
fn every_key_that_is_mapped_arrives() {
    for (lines, classes, kept) in KEYS {
        let bench = Bench::new();
        bench.certificate();
        let imported = bench.import(&format!(
            "{lines}\nuse-auth-secret\nstatic-auth-secret={SECRET}\n"
        ));
        let got: Vec<Class> = (1..=classes.len())
            .map(|number| entry(&imported, number).class)
            .collect();
        assert_eq!(got, *classes, "{lines}\n{}", imported.report);
        let loaded = bench.load(&imported);
        assert!(kept(&loaded.config), "{lines}\n{}", imported.toml);
        // What stands for a line stands below it; two listeners in one place are one.
        for entry in &imported.report.entries {
            let is_kept =
                entry.class == M && entry.told.starts_with('[') && !entry.said.starts_with("use-");
            if let (Some(number), true, false) = (entry.line, is_kept, *lines == ONE_PORT) {
                let origin = format!("# turnserver.conf:{number}: ");
                assert!(
                    imported.toml.contains(&origin),
                    "{origin}\n{}",
                    imported.toml
                );
            }
        }
    }
}

const ONE_PORT: &str = "cert=cert.pem\npkey=key.pem\ntls-listening-port=3478";

fn listens(config: &Config, address: &str, transport: Transport) -> bool {
    let address = address.parse().unwrap();
    let mut listeners = config.listen.iter().flatten();
    listeners.any(|listen| listen.address == address && listen.transport == transport)
}

fn doors(config: &Config) -> usize {
    config.listen.as_ref().map_or(0, Vec::len)
}

fn list(items: &[impl ToString]) -> String {
    items
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" ")
}

fn addresses(config: &Config) -> String {
    list(config.relay.addresses.as_deref().unwrap_or_default())
}

fn external(config: &Config) -> String {
    let pairs: Vec<String> = config
        .relay
        .external
        .iter()
        .map(|one| format!("{}={}", one.advertised, one.local))
        .collect();
    pairs.join(" ")
}

fn deny(config: &Config) -> String {
    list(&config.peers.deny)
}

fn allow(config: &Config) -> String {
    list(&config.peers.allow)
}

fn discovery(config: &Config) -> String {
    list(&config.nat_discovery)
}

/// What coturn says of itself: its own help names every key.
#[test]
fn every_option_that_coturn_names_is_known() {
    let help = Command::new("turnserver")
        .arg("-h")
        .stdin(Stdio::null())
        .output();
    let Ok(Output { stdout, stderr, .. }) = help else {
        let in_ci = env::var_os("CI").is_some_and(|value| value == "true");
        assert!(!in_ci, "missing: turnserver; run .ci/install");
        eprintln!("SKIPPED: turnserver is not there, run .ci/install");
        return;
    };
    let help = text(&stdout) + &text(&stderr);
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
    let mut options: Vec<&str> = help
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("--"))
        .filter_map(|option| option.split(|letter| !is_name(letter)).next())
        // Its help has this once, for no-dtls.
        .filter(|option| !option.is_empty() && *option != "no_dtls")
        .collect();
    options.sort_unstable();
    options.dedup();
    assert!(options.len() > 90, "{options:?}");
    for option in options {
        let imported = import::coturn(option.as_bytes(), &around("/etc/turnd"));
        assert!(
            !entry(&imported, 1).told.contains("coturn has no such key"),
            "{option}"
        );
    }
}

// ---- who may log in ----

#[test]
fn secrets_are_kept_in_their_order_and_four_at_most() {
    let bench = Bench::new();
    let lines: String = (1..=5)
        .map(|number| format!("static-auth-secret={SECRET}-{number}\n"))
        .collect();
    let imported = bench.import(&lines);
    let loaded = bench.load(&imported);
    let secrets = loaded.config.auth.secrets.unwrap();
    let names: Vec<&str> = secrets.iter().map(|secret| secret.id.as_str()).collect();
    assert_eq!(names, ["main", "main-2", "main-3", "main-4"]);
    assert!(
        secrets
            .iter()
            .all(|secret| secret.algorithm == SecretAlgorithm::Sha1)
    );
    assert_eq!(
        fs::read_to_string(bench.path().join("auth-secret-4")).unwrap(),
        format!("{SECRET}-4")
    );
    assert_eq!(entry(&imported, 5).class, D);
}

#[test]
fn users_have_their_passwords_in_files() {
    let bench = Bench::new();
    let imported = bench.import(&format!(
        "lt-cred-mech\nuser=ann:{PASSWORD}\nuser=b/ob:{PASSWORD}:2\nuser=cyd:0xbc807ee29df3c9ffa736523fb2c4e8ee\n\
         user=dan:MARKER\nuser=eve\nuser=ann:{PASSWORD}!\nuser=12:x:{PASSWORD}"
    ));
    let classes: Vec<Class> = (2..=8)
        .map(|number| entry(&imported, number).class)
        .collect();
    assert_eq!(classes, [D, M, D, D, D, M, M]);
    assert!(entry(&imported, 4).told.contains("password, not the key"));
    let loaded = bench.load(&imported);
    let users: Vec<(&str, String)> = loaded
        .config
        .auth
        .users
        .iter()
        .map(|user| {
            let SecretFile::Path(file) = &user.password_file else {
                panic!("a file is named")
            };
            (user.name.as_str(), fs::read_to_string(file).unwrap())
        })
        .collect();
    assert_eq!(
        users,
        [
            ("b/ob", format!("{PASSWORD}:2")),
            ("ann", format!("{PASSWORD}!")),
            ("12", format!("x:{PASSWORD}")),
        ]
    );
    assert!(!imported.report.weakens());
}

#[test]
fn users_beside_a_secret_stay_outside_as_with_coturn() {
    let bench = Bench::new();
    let imported = bench.import(&format!(
        "lt-cred-mech\nuser=ann:{PASSWORD}\nstatic-auth-secret={SECRET}\n"
    ));
    assert_eq!(entry(&imported, 2).class, D);
    assert!(bench.load(&imported).config.auth.users.is_empty());
}

#[test]
fn a_secret_in_a_database_is_waited_for() {
    let bench = Bench::new();
    let imported = bench.import("use-auth-secret\nuserdb=/var/lib/turn/turndb\n");
    assert_eq!(
        (entry(&imported, 1).class, entry(&imported, 2).class),
        (C, D)
    );
    let file = bench.path().join("auth-secret");
    assert!(
        bench.try_load(&imported).is_err(),
        "nobody starts without it"
    );
    bench.secret(&file, SECRET);
    assert_eq!(
        bench
            .try_load(&imported)
            .unwrap()
            .config
            .auth
            .secrets
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn the_key_of_nonces_comes_along() {
    let bench = Bench::new();
    let imported = bench.import(&format!(
        "static-auth-secret={SECRET}\nstateless-nonce-secret={SECRET}-nonce"
    ));
    assert_eq!(entry(&imported, 2).class, C);
    let loaded = bench.load(&imported);
    assert_eq!(
        loaded.config.auth.nonce_key_file,
        Some(SecretFile::Path(bench.path().join("nonce-key")))
    );
}

#[test]
fn no_secret_is_shown_wherever_it_stands() {
    let text = format!(
        "static-auth-secret={SECRET}\nstatic-auth-secret:{SECRET}\nstatic-auth-secert={SECRET}\n{SECRET}\n\
         user=ann:{PASSWORD}\nuser={SECRET}\ncli-password={SECRET}\npkey-pwd={SECRET}\nstateless-nonce-secret={SECRET}\n\
         redis-userdb=\"ip=127.0.0.1 password={SECRET}\"\npsql-userdb=host=db password={SECRET}\nmysql-userdb={SECRET}\n\
         mongo-userdb=mongodb://a:{SECRET}@db\nsql-userdb={SECRET}\nredis-statsdb=password={SECRET}\nsecret={SECRET}\n"
    );
    let imported = import::coturn(text.as_bytes(), &around("/etc/turnd"));
    let told = format!("{}{}{imported:?}", imported.toml, imported.report);
    assert!(!told.contains("north"), "{told}");
    assert!(!told.contains("k9fw"), "{told}");
    assert!(
        entry(&imported, 3)
            .told
            .contains("static-auth-secret may be meant")
    );
}

// ---- what security depends on ----

#[test]
fn what_would_be_weaker_or_was_open_is_marked() {
    for (lines, number, class) in [
        ("no-auth", 1, D),
        ("server-relay", 1, D),
        ("allow-loopback-peers", 1, D),
        ("tlsv1", 1, D),
        ("no-tlsv1_2", 1, D),
        ("CA-file=/etc/ca.pem", 1, D),
        ("stun-only", 1, D),
        ("no-stun", 1, D),
        ("secure-stun", 1, D),
        ("no-udp-relay", 1, D),
        ("denied-peer-ip=printer.example.org", 1, D),
        ("denied-peer-ip=10.0.0.9-10.0.0.1", 1, D),
        ("allowed-peer-ip=192.168.1.0-192.168.1.255", 1, C),
        ("allowed-peer-ip=::1", 1, D),
        ("allowed-peer-ip=0.0.0.0-255.255.255.255", 1, D),
        ("allowed-peer-ip=fd00::1", 1, C),
    ] {
        let text = format!("{lines}\nstatic-auth-secret={SECRET}\n");
        let imported = import::coturn(text.as_bytes(), &around("/etc/turnd"));
        let entry = entry(&imported, number);
        assert!(
            entry.weakens && entry.class == class,
            "{lines}\n{}",
            imported.report
        );
    }
    for lines in [
        "no-auth=0",
        "server-relay=off",
        "no-tlsv1",
        "no-multicast-peers",
        "allowed-peer-ip=9.9.9.9",
        "foo=bar",
    ] {
        let text = format!("{lines}\nstatic-auth-secret={SECRET}\n");
        let imported = import::coturn(text.as_bytes(), &around("/etc/turnd"));
        assert!(!imported.report.weakens(), "{lines}\n{}", imported.report);
    }
    let open = import::coturn(b"listening-port=3478", &around("/etc/turnd"));
    assert!(open.report.weakens(), "an open relay by default");
}

#[test]
fn a_key_with_a_password_is_to_be_opened_first() {
    let imported = import::coturn(
        b"cert=/a/cert.pem\npkey=/a/my key.pem\npkey-pwd=MARKER",
        &around("/etc/turnd"),
    );
    let told = &entry(&imported, 2).told;
    assert!(
        told.contains("(umask 077; openssl pkey -in '/a/my key.pem' -out /etc/turnd/tls-key.pem)"),
        "{told}"
    );
    assert!(imported.toml.contains("key = \"/etc/turnd/tls-key.pem\""));
}

#[test]
fn without_a_listener_nothing_is_opened_instead() {
    let bench = Bench::new();
    let imported = bench.import(&format!("no-udp\nno-tcp\nstatic-auth-secret={SECRET}"));
    bench.keep(&imported);
    let refused = bench.try_load(&imported).map(|_| ()).unwrap_err();
    assert!(refused.contains("nothing to listen on"), "{refused}");
}

/// A file that would make more prefixes than memory holds.
#[test]
fn ranges_full_of_holes_are_not_written_out_without_end() {
    let mut lines = format!("static-auth-secret={SECRET}\n");
    for number in 0..3000 {
        lines += "denied-peer-ip=0.0.0.0-255.255.255.255\n";
        lines += &format!("allowed-peer-ip=9.{}.{}.1\n", number / 256, number % 256);
    }
    let imported = import::coturn(lines.as_bytes(), &around("/etc/turnd"));
    assert!(imported.report.weakens());
    assert!(imported.toml.len() < 4 << 20, "{}", imported.toml.len());
    let told = &entry(&imported, 6000).told;
    assert!(told.contains("too many prefixes"), "{told}");
}

// ---- the command ----

#[test]
fn the_command_prints_the_configuration_and_the_report() {
    let bench = Bench::new();
    let file = bench.file(
        "old.conf",
        &format!("static-auth-secret={SECRET}\nrealm=turn.example.org\nfoo=1\nno-tcp-relay\n"),
    );
    let ended = bench.run(&["import", "coturn", &file], None);
    assert_eq!(ended.status.code(), Some(0), "{}", text(&ended.stderr));
    let (out, err) = (text(&ended.stdout), text(&ended.stderr));
    assert!(
        out.contains("# old.conf:2: realm=turn.example.org\nrealm = \"turn.example.org\""),
        "{out}"
    );
    for part in [
        "old.conf: ",
        "\nmapped\n",
        "\ndropped\n",
        "    3  foo=... -> coturn has no such key",
        "umask 077; set -C; sed -n",
    ] {
        assert!(err.contains(part), "{part} is not in\n{err}");
    }
    assert!(!(out + &err).contains(MARKER));
}

#[test]
fn standard_input_will_do_and_weaker_is_exit_code_1() {
    let bench = Bench::new();
    let ended = bench.run(&["import", "coturn", "-"], Some("no-auth\n"));
    assert_eq!(ended.status.code(), Some(1));
    assert!(
        text(&ended.stderr).contains("!    1  no-auth -> refused"),
        "{}",
        text(&ended.stderr)
    );
    assert!(text(&ended.stdout).contains("turnserver.conf"));
}

#[test]
fn a_file_that_is_not_there_is_exit_code_78() {
    let bench = Bench::new();
    let ended = bench.run(&["import", "coturn", "/nowhere/turnserver.conf"], None);
    assert_eq!(
        (ended.status.code(), text(&ended.stdout).as_str()),
        (Some(78), "")
    );
    let long = bench.file("long.conf", &"# x\n".repeat(100_000));
    assert_eq!(
        bench.run(&["import", "coturn", &long], None).status.code(),
        Some(78)
    );
    assert_eq!(
        bench.run(&["import", "coturn"], None).status.code(),
        Some(2)
    );
    assert_eq!(bench.run(&["import"], None).status.code(), Some(2));
}

#[test]
fn files_are_made_for_their_owner_and_never_overwritten() {
    let bench = Bench::new();
    let file = bench.file(
        "turnserver.conf",
        &format!("static-auth-secret=\"{SECRET}\"\nno-tcp-relay\n"),
    );
    let (toml, secrets) = (
        bench.path().join("turnd.toml"),
        bench.path().join("secrets"),
    );
    let arguments = [
        "import",
        "coturn",
        &file,
        "-o",
        toml.to_str().unwrap(),
        "--secrets-dir",
        secrets.to_str().unwrap(),
    ];
    let ended = bench.run(&arguments, None);
    assert_eq!(
        (ended.status.code(), text(&ended.stdout).as_str()),
        (Some(0), ""),
        "{}",
        text(&ended.stderr)
    );
    let secret = secrets.join("auth-secret");
    assert_eq!(fs::read_to_string(&secret).unwrap(), SECRET);
    assert_eq!(
        fs::metadata(&secret).unwrap().permissions().mode() & 0o7777,
        0o600
    );
    assert!(!text(&ended.stderr).contains(MARKER));
    let again = bench.run(&arguments, None);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("is there already; nothing was written"));
    fs::remove_file(&toml).unwrap();
    assert_eq!(bench.run(&arguments, None).status.code(), Some(1));
    assert!(
        !toml.exists(),
        "nothing is written if one of the files is there"
    );
    let checked = bench.run(
        &["import", "coturn", &file, "-o", toml.to_str().unwrap()],
        None,
    );
    assert_eq!(checked.status.code(), Some(0));
}

/// What the report says is what makes the files.
#[test]
fn the_commands_of_the_report_make_the_files() {
    let bench = Bench::new();
    let lines = format!(
        "# first\n  static-auth-secret \t= \"{SECRET}\"  \nstatic-auth-secret=a=b 'c' \"d\" {SECRET}\r\n\
         static-auth-secret=\"open {SECRET}\nstatic-auth-secret={SECRET}\\n$HOME`x`%s\n"
    );
    let users = format!("lt-cred-mech\nuser=ann:{PASSWORD}\nuser = \"bob:{PASSWORD}: #2\"\n");
    for (name, lines) in [("it's old.conf", &lines), ("users.conf", &users)] {
        let file = bench.file(name, lines);
        let imported = bench.import(lines);
        assert!(imported.secrets.len() > 1);
        for secret in &imported.secrets {
            let command = secret.command(Path::new(&file));
            let made = Command::new("sh").args(["-c", &command]).output().unwrap();
            assert!(made.status.success(), "{command}\n{}", text(&made.stderr));
            assert_eq!(
                fs::read_to_string(&secret.file)
                    .unwrap()
                    .trim_end_matches('\n'),
                *secret.value,
                "{command}"
            );
            assert_eq!(
                fs::metadata(&secret.file).unwrap().permissions().mode() & 0o7777,
                0o600
            );
            let again = Command::new("sh").args(["-c", &command]).output().unwrap();
            assert!(!again.status.success(), "nothing is overwritten");
            fs::remove_file(&secret.file).unwrap();
        }
    }
}

// ---- nonsense ----

/// Lines as they may be met: known keys with odd values, and noise.
fn any_line() -> impl Strategy<Value = Vec<u8>> {
    const KEYS: [&str; 36] = [
        "listening-ip",
        "listening-port",
        "tls-listening-port",
        "alt-listening-port",
        "aux-server",
        "relay-ip",
        "external-ip",
        "min-port",
        "max-port",
        "user",
        "use-auth-secret",
        "static-auth-secret",
        "realm",
        "user-quota",
        "total-quota",
        "max-bps",
        "bps-capacity",
        "stale-nonce",
        "max-allocate-lifetime",
        "channel-lifetime",
        "cert",
        "pkey",
        "pkey-pwd",
        "denied-peer-ip",
        "allowed-peer-ip",
        "alternate-server",
        "prometheus",
        "prometheus-port",
        "prometheus-address",
        "rfc5780",
        "no-rfc5780",
        "keep-address-family",
        "dtls",
        "no-tls",
        "no-software-attribute",
        "stateless-nonce-secret",
    ];
    let value = prop_oneof![
        "[0-9]{0,20}",
        "(0|1|off|on|maybe)?",
        "(10|127|203)\\.0\\.[0-9]{1,2}\\.[0-9]{1,3}(-(10|127|203)\\.0\\.[0-9]{1,2}\\.[0-9]{1,3})?",
        "[0-9a-f:]{0,12}(-[0-9a-f:]{0,12})?(/[0-9]{1,3})?",
        "[a-z]{0,4}:[ -~]{0,30}",
        "\\PC{0,20}",
        "\"?[\\x00-\\x7f]{0,20}\"?",
    ];
    prop_oneof![
        6 => (prop::sample::select(&KEYS[..]), "( |=|\t| = )", value)
            .prop_map(|(key, separator, value)| format!("{key}{separator}{value}").into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ]
}

proptest! {
    #[test]
    fn whatever_the_lines_say_the_configuration_is_toml(lines in prop::collection::vec(any_line(), 0..30)) {
        let text = lines.join(&b'\n');
        let imported = import::coturn(&text, &around("/etc/turnd"));
        let parsed = DeTable::parse(&imported.toml);
        prop_assert!(parsed.is_ok(), "{}\n{:?}", imported.toml, parsed.err());
        // Every line that says anything is accounted for, once.
        let said: Vec<usize> = String::from_utf8_lossy(&text)
            .split('\n')
            .enumerate()
            .filter(|(_, line)| {
                let line = line.trim_matches([' ', '\t', '\r', '\x0b', '\x0c']);
                !line.is_empty() && !line.starts_with('#')
            })
            .map(|(index, _)| index + 1)
            .collect();
        let told: Vec<usize> = imported.report.entries.iter().filter_map(|entry| entry.line).collect();
        prop_assert_eq!(said, told, "{}", imported.report);
        let report = imported.report.to_string();
        prop_assert!(report.chars().all(|letter| letter == '\n' || !letter.is_control()), "{report:?}");
    }

    #[test]
    fn whatever_the_lines_say_no_key_is_unknown_to_turnd(lines in prop::collection::vec(any_line(), 0..12)) {
        let bench = Bench::new();
        let imported = import::coturn(&lines.join(&b'\n'), &bench.around());
        bench.keep(&imported);
        if let Err(report) = bench.try_load(&imported) {
            // What else may be missing are certificates and secrets that a database has.
            for complaint in report.lines().filter(|line| line.starts_with("error")) {
                let known = ["cannot be read", "nothing to listen on", "the file is empty", "no PEM", "certificate", "there is a relay"];
                prop_assert!(known.iter().any(|part| complaint.contains(part)), "{complaint}\n{}", imported.toml);
            }
        }
    }
}

/// Lines as people write them, each with a value that it may have.
const SENSIBLE: &[&str] = &[
    "realm=turn.example.org",
    "listening-port=3478",
    "listening-port=443",
    "tls-listening-port=443",
    "tls-listening-port=3478",
    "alt-listening-port=3479",
    "listening-ip=127.0.0.1",
    "listening-ip=127.0.0.2",
    "listening-ip=::1",
    "listening-ip=0.0.0.0",
    "aux-server=127.0.0.1:3478",
    "aux-server=127.0.0.3:33478",
    "relay-ip=127.0.0.1",
    "relay-ip=::1",
    "external-ip=198.51.100.7",
    "external-ip=198.51.100.7/127.0.0.1",
    "external-ip=198.51.100.8/127.0.0.2",
    "external-ip=2001:db8::7/::1",
    "min-port=50000",
    "max-port=50999",
    "max-port=60999",
    "min-port=1",
    "cert=cert.pem\npkey=key.pem",
    "no-tls",
    "no-dtls",
    "dtls",
    "no-tcp",
    "no-udp",
    "no-tcp-relay",
    "use-auth-secret",
    "static-auth-secret=MARKER-north-north-north-north",
    "static-auth-secret=MARKER-south-south-south-south",
    "static-auth-secret=short",
    "user=ann:MARKER k9fw-Xo2m-71qz",
    "user=bob:MARKER k9fw-Xo2m-71qy",
    "user=ann:MARKER k9fw-Xo2m-71qx",
    "lt-cred-mech",
    "no-auth",
    "stateless-nonce-secret=MARKER-nonce-nonce-nonce-nonce",
    "user-quota=12",
    "total-quota=1200",
    "total-quota=0",
    "max-bps=64000",
    "max-bps=1",
    "bps-capacity=100000000",
    "max-allocate-lifetime=3600",
    "max-allocate-lifetime=1",
    "stale-nonce=600",
    "denied-peer-ip=10.0.0.0-10.255.255.255",
    "denied-peer-ip=0.0.0.0-255.255.255.255",
    "denied-peer-ip=::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    "denied-peer-ip=8.8.8.8",
    "denied-peer-ip=10.0.0.0/8",
    "allowed-peer-ip=10.1.2.3",
    "allowed-peer-ip=8.8.8.8",
    "allowed-peer-ip=192.168.0.0-192.168.255.255",
    "allowed-peer-ip=fd00::1",
    "no-multicast-peers",
    "rfc5780",
    "no-rfc5780",
    "alternate-server=192.0.2.7",
    "alternate-server=[2001:db8::9]:3478",
    "tls-alternate-server=192.0.2.8:443",
    "prometheus",
    "prometheus-port=9700",
    "prometheus-port=3478",
    "prometheus-address=127.0.0.1",
    "prometheus-address=::1",
    "mobility",
    "software-attribute",
    "rfc3489-compatibility",
    "rfc5766-channel-numbers",
    "keep-address-family",
    "allocation-default-address-family=ipv6",
    "Verbose",
    "verbose",
    "syslog",
    "log-file=stdout",
    "no-cli",
    "cli-password=MARKER",
    "web-admin",
    "fingerprint",
    "cipher-list=HIGH",
    "server-relay",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whichever of them stand together: what comes out is accepted as it is.
    #[test]
    fn what_comes_of_sensible_lines_passes_the_check(lines in prop::sample::subsequence(SENSIBLE, 0..SENSIBLE.len()).prop_shuffle()) {
        let bench = Bench::new();
        bench.certificate();
        let imported = bench.import(&lines.join("\n"));
        bench.keep(&imported);
        let in_a_file = |secret: &import::Secret| secret.file.ends_with("auth-secret");
        if imported.toml.contains("/auth-secret\"") && !imported.secrets.iter().any(in_a_file) {
            // The secret of a database, which has to be put there by hand.
            bench.secret(&bench.path().join("auth-secret"), SECRET);
        }
        let loaded = bench.try_load(&imported).map(|_| ());
        let has_no_door = imported.toml.contains("\nlisten = []\n");
        match loaded {
            Ok(()) => prop_assert!(!has_no_door),
            Err(report) => prop_assert!(
                has_no_door && report.matches("error").count() == 1 && report.contains("nothing to listen on"),
                "{report}\n{}",
                imported.toml
            ),
        }
    }
}

// ---- helpers ----

fn around(secrets: &str) -> Surroundings {
    Surroundings {
        name: "turnserver.conf".to_owned(),
        path: "turnserver.conf".into(),
        secrets: secrets.into(),
        local: vec!["127.0.0.9".parse().unwrap()],
        has_ipv6: true,
    }
}

/// What became of a line.
fn entry(imported: &Imported, line: usize) -> &import::Entry {
    let mut entries = imported.report.entries.iter();
    entries
        .find(|entry| entry.line == Some(line))
        .unwrap_or_else(|| panic!("nothing is said about line {line}\n{}", imported.report))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A directory of its own for a test.
struct Bench(PathBuf);

impl Bench {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("import-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        self.secret(&path, text);
        path.display().to_string()
    }

    fn secret(&self, path: &Path, text: &str) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// A certificate under the names that the fixtures have for theirs.
    fn certificate(&self) {
        let pair = rcgen::KeyPair::generate().unwrap();
        let mut parameters =
            rcgen::CertificateParams::new(vec!["turn.example.org".to_owned()]).unwrap();
        parameters.not_after = rcgen::date_time_ymd(2040, 1, 1);
        let certificate = parameters.self_signed(&pair).unwrap();
        for (name, text) in [
            ("fullchain.pem", certificate.pem()),
            ("cert.pem", certificate.pem()),
            ("privkey.pem", pair.serialize_pem()),
            ("key.pem", pair.serialize_pem()),
        ] {
            self.file(name, &text);
        }
    }

    fn around(&self) -> Surroundings {
        around(self.0.to_str().unwrap())
    }

    fn import(&self, text: &str) -> Imported {
        import::coturn(text.as_bytes(), &self.around())
    }

    /// Puts the secrets where the configuration names them.
    fn keep(&self, imported: &Imported) {
        for secret in &imported.secrets {
            self.secret(&secret.file, &secret.value);
        }
    }

    fn load(&self, imported: &Imported) -> Loaded {
        self.keep(imported);
        self.try_load(imported)
            .unwrap_or_else(|report| panic!("{report}\n{}", imported.toml))
    }

    fn try_load(&self, imported: &Imported) -> Result<Loaded, String> {
        let sources = Sources {
            file: Some(self.file("turnd.toml", &imported.toml).into()),
            ..Sources::default()
        };
        let host = Host {
            state: StateDirectory::new(self.0.join("state")),
            ..Host::of_process()
        };
        config::load(&sources, &host).map_err(|report| report.to_string())
    }

    fn run(&self, arguments: &[&str], input: Option<&str>) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_turnd"));
        let command = command.args(arguments).env_clear();
        given(command, input.unwrap_or_default())
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
