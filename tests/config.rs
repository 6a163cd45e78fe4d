//! The configuration: what it accepts, how it tells what it does not, and that its manual is complete.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "config/every_key.rs"]
mod every_key;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use turnd::config::{
    self, Config, Host, Loaded, Problem, REFERENCE, Report, Sources, StateDirectory,
};
use turnd::events::EXPORTS_SPANS;
use turnd::turn::{OnExpiry, PasswordAlgorithms, SecretAlgorithm, TokenAlgorithm, Transport};

// ---- the manual ----

#[test]
fn the_manual_names_every_key() {
    let manual = uncommented(REFERENCE);
    for key in config::keys() {
        let (table, name) = key.rsplit_once('.').unwrap();
        let assignment = format!("{name} = ");
        let in_table = manual.split("\n[").any(|part| {
            let header = part.lines().next().unwrap_or("").trim_matches(['[', ']']);
            header == table && part.lines().any(|line| line.starts_with(&assignment))
        });
        let list = format!("{} = [", table.rsplit('.').next().unwrap_or(table));
        let in_list = manual
            .lines()
            .any(|line| line.starts_with(&list) && line.contains(&assignment));
        assert!(in_table || in_list, "config/turnd.toml does not name {key}");
    }
}

#[test]
fn the_manual_gives_every_default() {
    let bench = Bench::new();
    let mut manual = bench.good(REFERENCE);
    let default = config::load(&Sources::default(), &bench.host).ok().unwrap();
    assert_eq!(manual.parts.plane.listeners, default.parts.plane.listeners);
    manual.config.listen = None;
    assert_eq!(manual.config, default.config);
    assert_eq!(warnings(&manual), warnings(&default));
}

#[test]
fn what_the_manual_shows_in_comments_is_understood() {
    let bench = Bench::new();
    bench.secret("otlp-headers", "authorization: Bearer abc");
    bench.secret("auth-secret", &"s".repeat(32));
    bench.secret("bot", "k9fw-Xo2m-71qz-0q1");
    bench.secret("nonce-key", &"n".repeat(32));
    bench.secret("oauth-key", KEY_32);
    bench.secret("webhook-secret", &"w".repeat(32));
    bench.secret("acme-secret", &"a".repeat(32));
    bench.secret("backend-key", &"b".repeat(32));
    bench.certificate("token-cert.pem", "token-key.pem", 2040);
    bench.secret("admin-token", &"t".repeat(32));
    bench.certificate("turn2.pem", "turn2-key.pem", 2040);
    bench.certificate("cert.pem", "key.pem", 2040);
    let mut manual = bench.at_home(&uncommented(REFERENCE));
    if !EXPORTS_SPANS {
        let report = bench.bad(&manual);
        let keys: Vec<&str> = report.errors().map(|problem| &*problem.key).collect();
        assert_eq!(keys, ["events.otlp"], "{report}");
        manual = without(&manual, "otlp");
    }
    let loaded = bench.good(&manual);
    assert_eq!(
        loaded.config.metrics,
        Some("127.0.0.1:9641".parse().unwrap())
    );
    assert_eq!(loaded.config.relay.addresses.unwrap().len(), 2);
    assert_eq!(loaded.config.auth.users[0].name, "bot");
    assert_eq!(loaded.config.auth.oauth.unwrap().keys[0].kid, "k1");
    let events = loaded.parts.events.unwrap();
    assert_eq!(events.interim, Some(Duration::from_secs(300)));
    assert_eq!(events.webhook.unwrap().spool_limit, 64 << 20);
    let token = loaded.parts.token.unwrap().settings;
    assert_eq!(token.keys[0].max_ttl, Some(12 * 3600));
    assert_eq!(token.issuers[0].scopes, ["voip"]);
    assert!(loaded.parts.certificate.is_some());
}

#[test]
fn the_minimal_configuration_needs_its_secret_and_nothing_else() {
    let bench = Bench::new();
    let text = bench.at_home(include_str!("../config/minimal.toml"));
    let report = bench.bad(&text);
    let errors: Vec<&Problem> = report.errors().collect();
    assert_eq!(errors.len(), 1, "{report}");
    assert_eq!(errors[0].key, "auth.secrets[0].file");
    assert!(errors[0].remedy.contains("turnd genkey"), "{report}");
    bench.secret("auth-secret", &"s".repeat(32));
    bench.good(&text);
}

#[test]
fn what_is_shown_is_read_as_the_same() {
    let bench = Bench::new();
    bench.secret("a b\"c", &"s".repeat(32));
    bench.secret("bot", "k9fw-Xo2m-71qz-0q1");
    bench.secret("oauth-key", KEY_16);
    bench.secret("webhook-secret", &"w".repeat(32));
    bench.certificate("turn2.pem", "turn2-key.pem", 2040);
    bench.certificate("cert.pem", "key.pem", 2040);
    let once = bench.good(EVERYTHING).config;
    assert_eq!(once.auth.on_expiry, OnExpiry::Cut);
    assert_eq!(
        once.auth.password_algorithms,
        PasswordAlgorithms::Sha256AndMd5
    );
    assert_eq!(
        once.auth.secrets.as_ref().unwrap()[0].algorithm,
        SecretAlgorithm::Sha256
    );
    let oauth = once.auth.oauth.as_ref().unwrap();
    assert_eq!(oauth.keys[0].kid, "k\"1");
    assert_eq!(oauth.keys[0].algorithm, TokenAlgorithm::A128Gcm);
    let listeners = once.listen.as_ref().unwrap();
    assert_eq!(
        once.listen_algorithms,
        [(listeners[0].clone(), PasswordAlgorithms::Sha256)]
    );
    assert_eq!(once.server.drain_timeout, Duration::from_secs(5400));
    assert_eq!(once.listen.as_ref().unwrap()[0].transport, Transport::Tls);
    assert_eq!(once, bench.good(&once.to_string()).config);
    let default: Config = config::load(&Sources::default(), &bench.host)
        .ok()
        .unwrap()
        .config;
    assert_eq!(default, bench.good(&default.to_string()).config);
}

const EVERYTHING: &str = "
    [server]
    realm = 'turn.example.org'
    software = true
    rfc3489 = true
    workers = 3
    drain_timeout = '1h30m'
    [[listen]]
    address = '[::1]:5349'
    transport = 'tls'
    password_algorithms = ['sha256']
    proxy_protocol = true
    proxies = ['10.0.0.0/8', '::1/128']
    http = '127.0.0.1:8080'
    [[listen]]
    address = '127.0.0.1:443'
    transport = 'tcp'
    http = 'self'
    [relay]
    external = ['203.0.113.4=127.0.0.1']
    ports = '50000-50999'
    [auth]
    secrets = [{ id = 'k2', file = 'a b\"c', algorithm = 'sha256' }]
    users = [{ name = 'bot', password_file = 'bot' }]
    nonce_key_file = 'a b\"c'
    on_expiry = 'cut'
    password_algorithms = ['sha256', 'md5']
    [auth.oauth]
    server_name = 'turn.example.org'
    keys = [{ kid = 'k\"1', file = 'oauth-key', algorithm = 'A128GCM' }]
    [limits]
    per_user = 1
    per_tenant = 7
    bandwidth_per_allocation = '1500k'
    bandwidth_total = '2G'
    new_peers_per_user = 60
    max_lifetime = '30m'
    [[tenants]]
    name = 'acme'
    realm = 'acme.example'
    secrets = [{ id = 'k3', file = 'a b\"c', claims = true }]
    users = [{ name = 'bot', password_file = 'bot' }]
    listen = ['tcp 127.0.0.1:443']
    server_names = ['turn.acme.example', '*.acme.example']
    per_user = 3
    total = 0
    bandwidth_per_user = '999'
    new_peers_per_allocation = 9
    deny = ['10.0.0.0/8']
    [[tenants]]
    name = 'small'
    [peers]
    allow = ['10.1.0.0/16', 'fd00::/8']
    deny = ['192.0.2.0/24']
    [tcp_relay]
    enabled = true
    connections = 3
    connect_timeout = '45s'
    low_ports = ['443', '80']
    [nat_discovery]
    addresses = ['127.0.0.1:3478', '127.0.0.2:3479']
    [redirect]
    to = ['192.0.2.7:3478', '[2001:db8::7]:3478']
    to_tls = ['192.0.2.7:5349']
    domain = 'turn2.example.org'
    when = ['always', 'overload']
    overload_at = 500
    [events]
    file = 'events.jsonl'
    interim = '90s'
    anonymize = true
    [events.webhook]
    url = 'https://app.example.org/hook?from=turnd'
    secret_file = 'webhook-secret'
    spool = 'waiting'
    spool_limit = 3
    timeout = '5s'
    retry = '500ms'
    [revocation]
    enabled = true
    database = 'r\"evoked.sqlite'
    keep = '12h'
    [tls]
    certificate = 'cert.pem'
    key = 'key.pem'
    others = [{ certificate = 'turn2.pem', key = 'turn2-key.pem' }]
    [metrics]
    listen = '127.0.0.1:9641'
    [admin]
    socket = '/run/x/admin.sock'
    group = '4'
    users = ['root', '1000']
    listen = '[::1]:9642'
    token_file = 'a b\"c'
    hosts = ['turn.example.org']
    [log]
    format = 'json'
    level = 'info,turnd::plane=debug'
";

// ---- mistakes ----

#[test]
fn every_mistake_is_told_with_its_place_and_remedy() {
    let report = Bench::new().bad(
        "[server]\nrealms = 'x'\ndrain_timeout = 30\n\n[[listen]]\naddress = '0.0.0.0'\ntransport = 'upd'\n\n[relay]\nprot = '1-2'\n\
         ports = '9-8'\nper_user = 3\n\n[limit]\ntotal = 1\n",
    );
    let expected = [
        ("server.realms", "2:1", "did you mean `realm`?"),
        ("server.drain_timeout", "3:17", "\"30s\""),
        ("listen[0].address", "6:11", "\"0.0.0.0:3478\""),
        ("listen[0].transport", "7:13", "did you mean \"udp\"?"),
        ("relay.prot", "10:1", "did you mean `ports`?"),
        ("relay.ports", "11:9", "\"49152-65535\""),
        ("relay.per_user", "12:1", "`per_user` belongs into [limits]"),
        ("limit", "14:2", "did you mean `limits`?"),
    ];
    assert_eq!(report.errors().count(), expected.len(), "{report}");
    for (problem, (key, place, remedy)) in report.errors().zip(expected) {
        assert_eq!(problem.key, key, "{report}");
        assert!(
            problem
                .place()
                .unwrap()
                .ends_with(&format!("turnd.toml:{place}")),
            "{report}"
        );
        assert!(problem.remedy.contains(remedy), "{key}: {}", problem.remedy);
    }
}

#[test]
fn a_key_outside_of_its_table_is_sent_home() {
    let report = Bench::new().bad("realm = 'x'\n");
    assert_eq!(
        report.errors().next().unwrap().remedy,
        "`realm` belongs into [server]"
    );
}

#[test]
fn broken_syntax_is_told_once_for_each_line() {
    let report = Bench::new().bad("[server\n[relay]\nports = \n");
    let places: Vec<String> = report.errors().filter_map(Problem::place).collect();
    assert_eq!(places.len(), 2, "{report}");
    assert!(
        places[0].ends_with(":1:8") && places[1].contains(":3:"),
        "{report}"
    );
    assert!(report.to_string().contains("not TOML"));
}

#[test]
fn no_message_quotes_what_may_be_a_secret() {
    const MARKER: &str = "MARKER-hunter2";
    let texts = [
        format!("[auth]\nsecrets = [{{ id = 'main', secret = '{MARKER}', algorithm = 'sha3' }}]"),
        format!("[auth]\nsecret = '{MARKER}'\nsecrets = ['{MARKER}']"),
        format!(
            "[auth]\nusers = [{{ name = 'bob', password = '{MARKER}', password_file = '/nowhere' }}]"
        ),
        format!("[auth]\nusers = [{{ name = 'bob', password = '{MARKER}' }}, 3]"),
        format!("[auth]\nsecrets = [{{ secret = '{MARKER}' "),
        format!("static-auth-secret = '{MARKER}'"),
        format!("[events]\notlp = 'https://bob:{MARKER}@otlp.example.org'"),
        format!(
            "[[tenants]]\nname = 'a'\nsecrets = [{{ secret = '{MARKER}', file2 = 'x' }}, '{MARKER}']"
        ),
        format!("tenants = [{{ pasword = '{MARKER}', total = -1 }}]"),
        format!("[[tenants]]\nname = 'a'\nusers = '{MARKER}'"),
        format!("[events]\nwebhook = {{ secret = '{MARKER}', url = 'ftp://x' }}"),
        format!("[events]\nwebhook = '{MARKER}'"),
        format!("[admin]\ntoken = '{MARKER}'\ntoken_file = ['{MARKER}']"),
        format!("admin = {{ token = '{MARKER}', hosts = ['http://x'] }}"),
        format!("[token]\nkey = ['{MARKER}']\napi_keys = ['{MARKER}']"),
        format!("token = {{ pasword = '{MARKER}', ttl = 'soon' }}"),
        format!("[tls]\nkey = ['{MARKER}']"),
    ];
    for text in texts {
        let report = Bench::new().bad(&text).to_string();
        assert!(!report.contains(MARKER), "{report}");
    }
}

#[test]
fn single_values_are_judged() {
    for (text, key) in WRONG_VALUES {
        let report = Bench::new().bad(text);
        let told = report
            .errors()
            .any(|problem| problem.key == *key && !problem.remedy.is_empty());
        assert!(told, "{text}\n{report}");
    }
}

const WRONG_VALUES: &[(&str, &str)] = &[
    (
        "[metrics]\nlisten = '127.0.0.1:1'\n[[listen]]\naddress = '0.0.0.0:1'\ntransport = 'tcp'",
        "metrics.listen",
    ),
    (
        "[metrics]\nlisten = '127.0.0.1:1'\n[token]\nlisten = ['http://127.0.0.1:2', 'http://127.0.0.1:1']",
        "metrics.listen",
    ),
    (
        "[token]\nlisten = ['http://127.0.0.1:2', 'http://127.0.0.1:2']",
        "token.listen",
    ),
    (
        "[token]\nlisten = ['unix:/run/a', 'unix:/run/a']",
        "token.listen",
    ),
    (
        "[admin]\nsocket = '/run/a'\n[token]\nlisten = ['unix:/run/a']",
        "token.listen",
    ),
    (
        "[token]\napi_keys = [{ id = 'a', file = 'a', scopes = [] }]",
        "token.api_keys[0].scopes",
    ),
    (
        "[admin]\nsocket = '/run/0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012'",
        "admin.socket",
    ),
    ("[events]\nfile = ''", "events.file"),
    ("[events]\ninterim = '0s'", "events.interim"),
    (
        "[events.webhook]\nurl = 'https://app.example.org'",
        "events.webhook.url",
    ),
    (
        "[events.webhook]\nurl = 'ftp://app.example.org'\nsecret_file = 'secret'",
        "events.webhook.url",
    ),
    (
        "[events.webhook]\nurl = 'https://bob:pw@app.example.org'\nsecret_file = 'secret'",
        "events.webhook.url",
    ),
    (
        "[events.webhook]\nurl = 'https://app.example.org'\nsecret_file = 'not-there'",
        "events.webhook.secret_file",
    ),
    (
        "[events.webhook]\nsecret_file = 'secret'",
        "events.webhook.secret_file",
    ),
    ("[events.webhook]\ntimeout = '5s'", "events.webhook"),
    ("[events]\notlp = 'localhost:4318'", "events.otlp"),
    (
        "[events]\notlp_headers_file = 'secret'",
        "events.otlp_headers_file",
    ),
    (
        "[events]\notlp = 'http://127.0.0.1'\notlp_headers_file = 'not-there'",
        "events.otlp_headers_file",
    ),
    ("[server]\nrealm = ''", "server.realm"),
    ("[server]\nrealm = 'a b'", "server.realm"),
    ("[server]\nworkers = 0", "server.workers"),
    ("[server]\nworkers = 'many'", "server.workers"),
    ("[server]\nsoftware = 'yes'", "server.software"),
    ("[server]\ndrain_timeout = '2d'", "server.drain_timeout"),
    ("server = 3", "server"),
    ("listen = []", "listen"),
    ("[[listen]]\ntransport = 'udp'", "listen[0]"),
    (
        "[[listen]]\naddress = '0.0.0.0:1'\n[[listen]]\naddress = '0.0.0.0:1'",
        "listen[1].address",
    ),
    (
        "[[listen]]\naddress = '0.0.0.0:1'\ntransport = 'tls'",
        "listen[0].transport",
    ),
    (
        "[[listen]]\naddress = '0.0.0.0:1'\ntransport = 'tcp'\nproxy_protocol = true",
        "listen[0].proxy_protocol",
    ),
    (
        "[[listen]]\naddress = '0.0.0.0:1'\ntransport = 'tcp'\nproxy_protocol = true\nproxies = []",
        "listen[0].proxy_protocol",
    ),
    (
        "[[listen]]\naddress = '0.0.0.0:1'\ntransport = 'tcp'\nproxies = ['10.0.0.7']",
        "listen[0].proxies",
    ),
    (
        "[[listen]]\naddress = '0.0.0.0:1'\ntransport = 'tcp'\nproxy_protocol = true\nproxies = ['10.0.0.7/8']",
        "listen[0].proxies",
    ),
    (
        "[[listen]]\naddress = '0.0.0.0:1'\nproxy_protocol = true\nproxies = ['10.0.0.7']",
        "listen[0].proxy_protocol",
    ),
    (
        "[[listen]]\naddress = '0.0.0.0:1'\nhttp = '127.0.0.1:8080'",
        "listen[0].http",
    ),
    (
        "[[listen]]\naddress = '0.0.0.0:1'\ntransport = 'tcp'\nhttp = 'localhost:8080'",
        "listen[0].http",
    ),
    (
        "[[listen]]\naddress = '0.0.0.0:1'\ntransport = 'tcp'\nhttp = '0.0.0.0:8080'",
        "listen[0].http",
    ),
    (
        "[[listen]]\naddress = '0.0.0.0:1'\ntransport = 'tcp'\nhttp = '127.0.0.1:1'",
        "listen[0].http",
    ),
    (
        "[[listen]]\naddress = '127.0.0.1:1'\ntransport = 'tcp'\nhttp = '127.0.0.1:1'",
        "listen[0].http",
    ),
    ("[relay]\naddresses = []", "relay.addresses"),
    ("[relay]\naddresses = ['0.0.0.0']", "relay.addresses"),
    ("[relay]\naddresses = ['224.0.0.1']", "relay.addresses"),
    ("[relay]\naddresses = '127.0.0.1'", "relay.addresses"),
    ("[relay]\nexternal = ['203.0.113.4']", "relay.external"),
    ("[relay]\nexternal = ['203.0.113.4=::1']", "relay.external"),
    ("[relay]\nports = '80-90'", "relay.ports"),
    ("[auth]\nsecrets = []", "auth.secrets"),
    ("[auth]\non_expiry = 'never'", "auth.on_expiry"),
    (
        "[auth]\npassword_algorithms = ['sha256']",
        "auth.password_algorithms",
    ),
    (
        "[[listen]]\naddress = '127.0.0.1:1'\npassword_algorithms = []",
        "listen[0].password_algorithms",
    ),
    (
        "[[listen]]\naddress = '127.0.0.1:1'\npassword_algorithms = ['sha1']",
        "listen[0].password_algorithms",
    ),
    (
        "[auth]\nusername_anonymity = true",
        "auth.username_anonymity",
    ),
    (
        "[auth]\nsecrets = [{ file = 'credential:' }]",
        "auth.secrets[0].file",
    ),
    ("[limits]\nper_user = 0", "limits.per_user"),
    ("[limits]\nper_user = 1.5", "limits.per_user"),
    ("[limits]\ntotal = 99999999999", "limits.total"),
    ("[limits]\nmax_lifetime = '0s'", "limits.max_lifetime"),
    ("[peers]\nallow = ['10.0.0.1/8']", "peers.allow"),
    (
        "[tcp_relay]\nconnect_timeout = '29s'",
        "tcp_relay.connect_timeout",
    ),
    ("[tcp_relay]\nconnections = 0", "tcp_relay.connections"),
    ("[tcp_relay]\nlow_ports = ['1024']", "tcp_relay.low_ports"),
    ("[tcp_relay]\nlow_ports = ['0']", "tcp_relay.low_ports"),
    ("[tcp_relay]\nenabled = 'on'", "tcp_relay.enabled"),
    (
        "[nat_discovery]\naddresses = ['127.0.0.1:3478']",
        "nat_discovery.addresses",
    ),
    (
        "[nat_discovery]\naddresses = ['127.0.0.1:3478', '[::1]:3479']",
        "nat_discovery.addresses",
    ),
    (
        "[nat_discovery]\naddresses = ['127.0.0.1:3478', '127.0.0.1:3479']",
        "nat_discovery.addresses",
    ),
    (
        "[nat_discovery]\naddresses = ['127.0.0.1:3478', '127.0.0.2:3478']",
        "nat_discovery.addresses",
    ),
    (
        "[nat_discovery]\naddresses = ['127.0.0.1:1', '127.0.0.2:2', '127.0.0.3:3']",
        "nat_discovery.addresses",
    ),
    (
        "[nat_discovery]\naddresses = ['0.0.0.0:1', '127.0.0.2:2']",
        "nat_discovery.addresses",
    ),
    (
        "[nat_discovery]\naddresses = ['127.0.0.1:0', '127.0.0.2:2']",
        "nat_discovery.addresses",
    ),
    ("[redirect]\nto = ['192.0.2.7']", "redirect.to"),
    ("[redirect]\nto = ['0.0.0.0:3478']", "redirect.to"),
    ("[redirect]\nto = ['192.0.2.7:0']", "redirect.to"),
    ("[redirect]\nto_tls = ['[ff02::1]:5349']", "redirect.to_tls"),
    ("[redirect]\nwhen = ['drained']", "redirect.when"),
    ("[redirect]\ndomain = 'turn2..org'", "redirect.domain"),
    ("[redirect]\ndomain = 'a_b.org'", "redirect.domain"),
    ("[redirect]\noverload_at = 0", "redirect.overload_at"),
    ("[auth]\nnonce_key_file = 'nowhere'", "auth.nonce_key_file"),
    ("[tls]\ncertificate = 'cert.pem'", "tls.certificate"),
    ("[tls]\nothers = [{ }]", "tls.others[0]"),
    (
        "[tls]\nothers = [{ certificate = 'cert.pem' }]",
        "tls.others[0].certificate",
    ),
    (
        "[tls]\nothers = [{ certificate = 'cert.pem', key = 'key.pem' }]",
        "tls.others",
    ),
    ("[metrics]\nlisten = 'localhost:9641'", "metrics.listen"),
    ("[log]\nlevel = 'verbose'", "log.level"),
    ("[log]\nformat = 'xml'", "log.format"),
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever becomes of a file, it is read or refused with a reason, and the process lives.
    #[test]
    fn a_mutilated_file_is_read_or_refused(edits in prop::collection::vec((any::<prop::sample::Index>(), any::<char>(), 0..3_u8), 1..8)) {
        let mut letters: Vec<char> = uncommented(REFERENCE).chars().collect();
        for (at, letter, edit) in edits {
            let at = at.index(letters.len());
            match edit {
                0 => letters[at] = letter,
                1 => { letters.remove(at); }
                _ => letters.insert(at, letter),
            }
        }
        let text: String = letters.into_iter().collect();
        if let Err(report) = Bench::new().load(&text) {
            prop_assert!(report.has_errors());
            prop_assert!(report.problems().all(|problem| !problem.what.is_empty() && !problem.remedy.is_empty()));
            prop_assert!(!report.to_string().is_empty());
        }
    }
}

// ---- sources ----

#[test]
fn set_goes_before_the_environment_before_the_file() {
    let bench = Bench::new();
    let text = "[relay]\nports = '10000-10001'\n[limits]\nper_user = 1\ntotal = 7\n[peers]\nallow = ['10.0.0.0/8']\n";
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let sources = Sources {
        file: Some(bench.file("turnd.toml", text)),
        environment: vec![
            variable("TURND__RELAY__PORTS", "20000-20001"),
            variable("TURND__LIMITS__PER_USER", "2"),
            variable("TURND__SERVER__REALM", "true"),
            variable("HOME", "/root"),
        ],
        overrides: vec![
            "relay.ports=30000-30001".to_owned(),
            "peers.allow=10.1.0.0/16, fd00::/8".to_owned(),
        ],
    };
    let config = config::load(&sources, &bench.host)
        .map_err(|report| report.to_string())
        .ok()
        .unwrap()
        .config;
    assert_eq!(config.relay.ports, 30000..=30001);
    assert_eq!((config.limits.per_user, config.limits.total), (2, 7));
    assert_eq!(
        config.server.realm, "true",
        "what came without quotes is a text where a text belongs"
    );
    assert_eq!(config.peers.allow.len(), 2);
}

#[test]
fn a_mistake_outside_of_the_file_is_told_by_where_it_came_from() {
    let sources = Sources {
        environment: vec![("TURND__RELAY__PORT".to_owned(), "1".to_owned())],
        overrides: vec![
            "limits.per_user=many".to_owned(),
            "server.realm.x=1".to_owned(),
            "tls=3".to_owned(),
        ],
        ..Sources::default()
    };
    let report = config::load(&sources, &Bench::new().host)
        .err()
        .unwrap()
        .to_string();
    for part in [
        "environment variable TURND__RELAY__PORT",
        "--set limits.per_user",
        "--set server.realm.x",
        "--set tls",
    ] {
        assert!(report.contains(part), "{part}\n{report}");
    }
}

#[test]
fn paths_are_seen_from_the_file_that_names_them() {
    let bench = Bench::new();
    bench.secret("secret", &"s".repeat(32));
    bench.good(ONE_SECRET);
}

// ---- secrets ----

const ONE_SECRET: &str = "[auth]\nsecrets = [{ file = 'secret' }]";

#[test]
fn a_secret_that_others_may_read_is_refused() {
    let bench = Bench::new();
    let path = bench.secret("secret", &"s".repeat(32));
    for (mode, good) in [
        (0o600, true),
        (0o400, true),
        (0o640, false),
        (0o604, false),
        (0o644, false),
    ] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(bench.load(ONE_SECRET).is_ok(), good, "{mode:o}");
    }
    let report = bench.bad(ONE_SECRET);
    assert!(
        report
            .errors()
            .next()
            .unwrap()
            .remedy
            .starts_with("chmod 0600"),
        "{report}"
    );
}

#[test]
fn a_secret_of_somebody_else_is_refused() {
    let mut bench = Bench::new();
    let path = bench.secret("secret", &"s".repeat(32));
    // Only root can give a file away; anybody else sees the same from the other side.
    if chown(&path, Some(4711), None).is_err() {
        bench.host.uid += 1;
    }
    let report = bench.bad(ONE_SECRET);
    assert!(
        report.errors().next().unwrap().remedy.starts_with("chown"),
        "{report}"
    );
}

#[test]
fn secrets_come_without_the_white_space_around_them() {
    let bench = Bench::new();
    bench.secret("one", "north-north-north-north\n");
    bench.secret("two", "  north-north-north-north");
    bench.secret("none", " \n");
    let password = |file: &str| {
        let loaded = bench
            .load(&format!("[auth]\nsecrets = [{{ file = '{file}' }}]"))
            .ok()?;
        Some(loaded.parts.secrets[0].password(b"1:alice").to_string())
    };
    assert!(password("one").is_some());
    assert_eq!(password("one"), password("two"));
    assert_eq!(password("none"), None);
}

#[test]
fn credentials_come_from_the_service_manager() {
    let mut bench = Bench::new();
    let text = "[auth]\nsecrets = [{ file = 'credential:auth' }]";
    let report = bench.bad(text);
    assert!(
        report
            .errors()
            .next()
            .unwrap()
            .remedy
            .contains("LoadCredential=auth:"),
        "{report}"
    );
    let path = bench.secret("auth", &"s".repeat(32));
    // An access list of the service manager looks like a mode.
    fs::set_permissions(path, fs::Permissions::from_mode(0o440)).unwrap();
    bench.host.credentials_directory = Some(bench.directory.clone());
    bench.good(text);
}

#[test]
fn weak_passwords_are_refused_and_short_secrets_warned_about() {
    let bench = Bench::new();
    bench.secret("weak", "alicealicealice");
    bench.secret("secret", "0123456789");
    let report = bench.bad("[auth]\nusers = [{ name = 'alice', password_file = 'weak' }]");
    assert_eq!(
        report.errors().next().unwrap().key,
        "auth.users[0].password_file",
        "{report}"
    );
    assert!(warnings(&bench.good(ONE_SECRET)).contains(&"auth.secrets[0].file".to_owned()));
}

#[test]
fn a_secret_of_its_own_is_made_once_and_kept() {
    let bench = Bench::new();
    let password = || {
        let loaded = config::load(&Sources::default(), &bench.host).ok().unwrap();
        loaded.parts.secrets[0].password(b"1:alice").to_string()
    };
    let first = password();
    assert_eq!(first, password());
    let file = bench.host.state.own_secret();
    let directory = file.parent().unwrap();
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o7777,
        0o600
    );
    assert_eq!(
        fs::metadata(directory).unwrap().permissions().mode() & 0o7777,
        0o700
    );
    assert_eq!(
        fs::read_dir(directory).unwrap().count(),
        1,
        "no draft is left behind"
    );
    fs::remove_file(file).unwrap();
    assert_ne!(first, password());
}

#[test]
fn nonces_hold_across_restarts() {
    let bench = Bench::new();
    bench.secret("a", &"a".repeat(32));
    bench.secret("b", &"b".repeat(32));
    bench.secret("bot", "k9fw-Xo2m-71qz-0q1");
    let keys = |text: &str| bench.good(text).parts.turn.nonce_keys.clone();
    let one = "[auth]\nsecrets = [{ id = 'a', file = 'a' }]";
    let both = "[auth]\nsecrets = [{ id = 'b', file = 'b' }, { id = 'a', file = 'a' }]";
    let users = "[auth]\nusers = [{ name = 'bot', password_file = 'bot' }]";
    assert_eq!(keys(one), keys(one));
    assert_eq!(
        keys(both).accepted,
        [keys(one).issuing],
        "nonces of the older secret are good while it is"
    );
    assert_eq!(keys(users), keys(users));
    assert_ne!(keys(users), keys(one));

    // A key of the fleet goes before all others, and those that are known stay good.
    bench.secret("nonce-key", &"n".repeat(32));
    let fleet = "\nnonce_key_file = 'nonce-key'";
    let with_users = keys(&format!("{users}{fleet}"));
    let with_secret = keys(&format!("{one}{fleet}"));
    assert_eq!(with_users.issuing, with_secret.issuing);
    assert_eq!(with_secret.accepted, [keys(one).issuing]);
    assert_ne!(with_users, keys(users));
}

// ---- TCP relays ----

#[test]
fn tcp_relays_are_off_and_of_no_use_without_a_stream() {
    let bench = Bench::new();
    assert!(bench.good("").parts.turn.tcp_relay.is_none());
    let on = bench.good("[tcp_relay]\nenabled = true\nlow_ports = ['443']");
    let rules = on.parts.turn.tcp_relay.clone().unwrap();
    assert_eq!((rules.connections, rules.low_ports), (8, vec![443]));
    assert_eq!(rules.connect_timeout, Duration::from_secs(30));
    assert_eq!(rules.bind_timeout, Duration::from_secs(30));
    let enabled = "tcp_relay.enabled".to_owned();
    assert!(!warnings(&on).contains(&enabled), "{}", on.report);
    let text = "[tcp_relay]\nenabled = true\n[[listen]]\naddress = '127.0.0.1:3478'";
    assert!(warnings(&bench.good(text)).contains(&enabled));
}

// ---- NAT discovery ----

#[test]
fn nat_discovery_brings_its_four_sockets_along() {
    let bench = Bench::new();
    let two = "[nat_discovery]\naddresses = ['127.0.0.1:3478', '127.0.0.2:3479']\n";
    let listeners = |text: &str| -> Vec<String> {
        let listeners = bench.good(text).parts.plane.listeners;
        listeners
            .iter()
            .map(|listen| format!("{} {}", listen.transport.label(), listen.address))
            .collect()
    };
    let four = [
        "udp 127.0.0.1:3478",
        "udp 127.0.0.1:3479",
        "udp 127.0.0.2:3478",
        "udp 127.0.0.2:3479",
    ];
    // Beside the wildcard addresses of the default.
    assert_eq!(listeners(two)[4..], four);
    // One of them may be named already.
    let named = "[[listen]]\naddress = '127.0.0.1:3478'\n[[listen]]\naddress = '127.0.0.1:3478'\ntransport = 'tcp'\n";
    assert_eq!(
        listeners(&format!("{named}{two}")),
        [&four[..1], &["tcp 127.0.0.1:3478"], &four[1..]].concat()
    );
    let both = "[nat_discovery]\naddresses = ['127.0.0.1:3478', '[::1]:5000', '127.0.0.2:3479', '[::2]:5001']\n";
    let loaded = bench.good(both);
    assert_eq!(loaded.parts.plane.listeners.len(), 4 + 8);
    let found = &loaded.parts.turn.nat_discovery;
    assert_eq!(found.len(), 2);
    assert_eq!(found[1].sockets()[2], "[::2]:5000".parse().unwrap());
    assert!(bench.good("").parts.turn.nat_discovery.is_empty());
}

#[test]
fn nat_discovery_knows_of_a_nat_before_itself() {
    let text = "[relay]\naddresses = ['127.0.0.1']\nexternal = ['198.51.100.4=127.0.0.1', '198.51.100.5=127.0.0.2']\n\
                [nat_discovery]\naddresses = ['198.51.100.4:3478', '127.0.0.2:3479']";
    let loaded = Bench::new().good(text);
    let [found] = &loaded.parts.turn.nat_discovery[..] else {
        panic!("one family");
    };
    let told = found
        .addresses
        .map(|one| format!("{} as {}", one.local, one.advertised));
    assert_eq!(
        told,
        ["127.0.0.1 as 198.51.100.4", "127.0.0.2 as 198.51.100.5"]
    );
    let key = "nat_discovery.addresses".to_owned();
    assert!(!warnings(&loaded).contains(&key), "{}", loaded.report);
    for odd in [
        "'127.0.0.1:3478', '127.0.0.2:3479'",
        "'203.0.113.4:3478', '203.0.113.5:3479'",
    ] {
        let text = format!("[nat_discovery]\naddresses = [{odd}]");
        assert!(warnings(&Bench::new().good(&text)).contains(&key));
    }
    let text = "[relay]\nports = '3400-3999'\n[nat_discovery]\naddresses = ['127.0.0.1:3478', '127.0.0.2:3479']";
    assert!(warnings(&Bench::new().good(text)).contains(&"relay.ports".to_owned()));
}

// ---- redirects ----

/// Two servers, and nothing that is odd about them.
const FLEET: &str = "[auth]\nnonce_key_file = 'nonce-key'\nusers = [{ name = 'bot', password_file = 'bot' }]\n\
                     [[listen]]\naddress = '127.0.0.1:3478'\n[redirect]\nto = ['192.0.2.7:3478']\n";

fn fleet() -> Bench {
    let bench = Bench::new();
    bench.secret("nonce-key", &"n".repeat(32));
    bench.secret("bot", "k9fw-Xo2m-71qz-0q1");
    bench
}

#[test]
fn a_redirect_is_told_to_the_machine() {
    let redirect = |text: &str| fleet().good(text).parts.turn.redirect.clone();
    let told = redirect(FLEET).unwrap();
    assert_eq!(told.to, ["192.0.2.7:3478".parse().unwrap()]);
    assert_eq!((told.always, told.on_drain), (false, true));
    assert_eq!(told.overload_at, Some(100_000));
    let told = redirect(&format!("{FLEET}when = ['always']\noverload_at = 7")).unwrap();
    assert_eq!((told.always, told.on_drain), (true, false));
    assert_eq!(told.overload_at, None);
    let told = redirect(&format!("{FLEET}overload_at = 7")).unwrap();
    assert_eq!(told.overload_at, Some(7));
    assert_eq!(redirect(""), None);
}

#[test]
fn a_redirect_that_cannot_work_is_warned_about() {
    let bench = fleet();
    let of_redirects = |text: &str| -> Vec<String> {
        let mut keys = warnings(&bench.good(text));
        keys.retain(|key| key.starts_with("redirect"));
        keys
    };
    assert_eq!(of_redirects(FLEET), [""; 0]);
    let to = |target: &str| FLEET.replace("192.0.2.7:3478", target);
    let without_key = FLEET.replace("nonce_key_file = 'nonce-key'\n", "");
    let and = |more: &str| format!("{FLEET}{more}");
    let nowhere = |more: &str| format!("[redirect]\n{more}");
    let nat = format!("[relay]\nexternal = ['192.0.2.7=127.0.0.1']\n{FLEET}");
    for (text, key) in [
        (to("127.0.0.9:3478"), "redirect.to"),
        (to("192.0.2.7:1000"), "redirect.to"),
        (without_key, "redirect.to"),
        (nat.clone(), "redirect.to"),
        (format!("{nat}when = ['always']"), "redirect.to"),
        (and("domain = 'turn2.example.org'"), "redirect.domain"),
        (and("when = []"), "redirect.when"),
        (and("overload_at = 100001"), "redirect.overload_at"),
        (nowhere("when = ['always']"), "redirect.when"),
        (nowhere("overload_at = 7"), "redirect.overload_at"),
        (nowhere("domain = 'turn2.example.org'"), "redirect.domain"),
    ] {
        assert_eq!(of_redirects(&text), [key], "{text}");
    }
    // Its own address: a mistake, unless clients come in at another one and are sent there.
    let own = to("127.0.0.1:3478");
    assert_eq!(of_redirects(&own), ["redirect.to"; 2]);
    assert_eq!(
        of_redirects(&format!("{own}when = ['always']")),
        ["redirect.to"],
        "loopback only"
    );
    let wildcard = to("127.0.0.5:3478").replace("'127.0.0.1:3478'", "'0.0.0.0:3478'");
    assert_eq!(of_redirects(&wildcard), ["redirect.to"; 2]);
}

#[test]
fn clients_over_tls_are_not_forgotten_by_a_redirect() {
    let bench = fleet();
    bench.certificate("cert.pem", "key.pem", 2040);
    let text = format!("{TLS}\n{FLEET}").replace("[[listen]]\naddress = '127.0.0.1:3478'\n", "");
    assert!(warnings(&bench.good(&text)).contains(&"redirect.to".to_owned()));
    let text = format!("{text}to_tls = ['192.0.2.7:5349']");
    assert!(!warnings(&bench.good(&text)).contains(&"redirect.to".to_owned()));
}

// ---- certificates ----

const TLS: &str = "[[listen]]\naddress = '127.0.0.1:0'\ntransport = 'tls'\n[tls]\ncertificate = 'cert.pem'\nkey = 'key.pem'";

#[test]
fn a_certificate_must_fit_its_key_and_the_calendar() {
    let bench = Bench::new();
    let error = || {
        let report = bench.load(TLS).err()?;
        let problem = report.errors().next()?;
        Some((problem.key.clone(), problem.what.clone()))
    };
    assert_eq!(error().unwrap().0, "tls.certificate");
    bench.certificate("cert.pem", "key.pem", 2040);
    assert_eq!(error(), None);
    bench.certificate("other.pem", "key.pem", 2040);
    assert_eq!(
        error(),
        Some((
            "tls.key".to_owned(),
            "the key does not belong to the certificate".to_owned()
        ))
    );
    bench.certificate("cert.pem", "key.pem", 2001);
    assert!(error().unwrap().1.starts_with("the certificate ended"));
    bench.certificate("cert.pem", "key.pem", 2040);
    fs::set_permissions(
        bench.directory.join("key.pem"),
        fs::Permissions::from_mode(0o644),
    )
    .unwrap();
    assert_eq!(error().unwrap().0, "tls.key");
    bench.secret("key.pem", "nonsense");
    assert!(error().unwrap().1.contains("no private key"));
}

/// \[S17\] What is no key for DTLS is told at the start, not to each client.
#[test]
fn s17_a_dtls_listener_wants_an_ecdsa_key() {
    let bench = Bench::new();
    let text = TLS.replace("'tls'", "'dtls'");
    let error = |text: &str| {
        let report = bench.load(text).err()?;
        let problem = report.errors().next()?;
        Some((
            problem.key.clone(),
            problem.what.clone(),
            problem.remedy.clone(),
        ))
    };
    let (alone, _) = text.split_once("[tls]").unwrap();
    let (key, what, _) = error(alone).unwrap();
    assert_eq!(key, "listen[0].transport");
    assert!(what.contains("DTLS"), "{what}");
    bench.certificate("cert.pem", "key.pem", 2040);
    let loaded = bench.good(&text);
    assert!(!warnings(&loaded).contains(&"tls.certificate".to_owned()));
    assert!(loaded.parts.certificate.unwrap().identity.is_some());
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let certificate = rcgen::CertificateParams::default()
        .self_signed(&pair)
        .unwrap();
    bench.file("cert.pem", &certificate.pem());
    bench.secret("key.pem", &pair.serialize_pem());
    assert_eq!(error(TLS), None, "good for TLS");
    let (key, what, remedy) = error(&text).unwrap();
    assert_eq!(key, "listen[0].transport");
    assert!(
        what.contains("ECDSA") && remedy.contains("ecdsa"),
        "{what}; {remedy}"
    );
    bench.certificate("cert.pem", "key.pem", 2040);
    let both = text.replace("[tls]", "[[listen]]\naddress = '127.0.0.1:1'\n[[listen]]\naddress = '127.0.0.1:1'\ntransport = 'dtls'\n[tls]");
    assert_eq!(
        error(&both).unwrap().0,
        "listen[2].address",
        "one port for two"
    );
}

#[test]
fn a_certificate_that_ends_soon_is_warned_about() {
    let mut bench = Bench::new();
    bench.certificate("cert.pem", "key.pem", 2040);
    let key = "tls.certificate".to_owned();
    let loaded = bench.good(TLS);
    assert!(!warnings(&loaded).contains(&key));
    bench.host.unix = loaded.parts.certificate.unwrap().not_after - 13 * 24 * 3600;
    assert!(warnings(&bench.good(TLS)).contains(&key));
}

/// Each of the others is read and judged like the first, and all that is wrong is told at once.
#[test]
fn every_certificate_is_judged() {
    let mut bench = Bench::new();
    let text = format!(
        "{TLS}\nothers = [{{ certificate = 'b.pem', key = 'b-key.pem' }}, {{ certificate = 'c.pem', key = 'c-key.pem' }}]"
    );
    for name in ["cert", "b", "c"] {
        let key = if name == "cert" {
            "key.pem".to_owned()
        } else {
            format!("{name}-key.pem")
        };
        bench.certificate(&format!("{name}.pem"), &key, 2040);
    }
    let errors = |bench: &Bench| {
        let report = bench.load(&text).err();
        let problems = report.iter().flat_map(Report::errors);
        problems
            .map(|problem| problem.key.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(errors(&bench), [] as [String; 0]);
    bench.certificate("b.pem", "elsewhere.pem", 2040);
    fs::remove_file(bench.directory.join("c.pem")).unwrap();
    assert_eq!(
        errors(&bench),
        ["tls.others[0].key", "tls.others[1].certificate"]
    );
    bench.certificate("b.pem", "b-key.pem", 2001);
    bench.certificate("c.pem", "c-key.pem", 2040);
    assert_eq!(
        errors(&bench),
        ["tls.others[0].certificate"],
        "it has ended"
    );
    let pair = rcgen::KeyPair::generate().unwrap();
    let nameless = rcgen::CertificateParams::default()
        .self_signed(&pair)
        .unwrap();
    bench.file("b.pem", &nameless.pem());
    bench.secret("b-key.pem", &pair.serialize_pem());
    assert_eq!(
        errors(&bench),
        ["tls.others[0].certificate"],
        "it names no host"
    );
    bench.certificate("b.pem", "b-key.pem", 2030);
    let loaded = bench.good(&text);
    assert!(!warnings(&loaded).iter().any(|key| key.starts_with("tls")));
    bench.host.unix = loaded.parts.certificate.unwrap().not_after - 13 * 24 * 3600;
    assert!(warnings(&bench.good(&text)).contains(&"tls.others[0].certificate".to_owned()));
}

/// On a listener for TCP, a certificate is of use; on those for UDP alone, it is not.
#[test]
fn a_certificate_that_nobody_is_shown_is_warned_about() {
    let bench = Bench::new();
    bench.certificate("cert.pem", "key.pem", 2040);
    let key = "tls.certificate".to_owned();
    for (transport, is_warned) in [("tls", false), ("tcp", false), ("udp", true)] {
        let loaded = bench.good(&TLS.replace("'tls'", &format!("'{transport}'")));
        assert_eq!(warnings(&loaded).contains(&key), is_warned, "{transport}");
    }
}

// ---- what fits what ----

#[test]
fn relay_addresses_say_what_is_bound_and_what_is_told() {
    let bench = Bench::new();
    let relays = |text: &str| -> Vec<String> {
        let relays = bench.good(text).parts.plane.relay.addresses;
        relays
            .iter()
            .map(|relay| format!("{} as {}", relay.local, relay.advertised))
            .collect()
    };
    assert_eq!(
        relays("[relay]\naddresses = ['127.0.0.1']"),
        ["127.0.0.1 as 127.0.0.1"]
    );
    for addresses in [
        "",
        "addresses = ['203.0.113.4']",
        "addresses = ['127.0.0.1']",
    ] {
        let text = format!("[relay]\n{addresses}\nexternal = ['203.0.113.4=127.0.0.1']");
        assert_eq!(relays(&text), ["127.0.0.1 as 203.0.113.4"], "{text}");
    }
    assert_eq!(
        relays("[relay]\naddresses = ['203.0.113.4', '::1']\nexternal = ['203.0.113.4=127.0.0.1']"),
        ["127.0.0.1 as 203.0.113.4", "::1 as ::1"]
    );
    assert!(
        !relays("").is_empty(),
        "without a word, an address is found"
    );
}

#[test]
fn what_is_probably_not_meant_is_warned_about() {
    let mut bench = Bench::new();
    bench.host.descriptors = 1_000_000;
    let cases = [
        ("[relay]\naddresses = ['127.0.0.1']", "relay.addresses"),
        ("[relay]\naddresses = ['203.0.113.4']", "relay.addresses"),
        (
            "[relay]\naddresses = ['127.0.0.1', '127.0.0.2']",
            "relay.addresses",
        ),
        ("[limits]\ntotal = 99999", "limits.total"),
        (
            "[relay]\naddresses = ['127.0.0.1']\nports = '50000-50003'",
            "relay.ports",
        ),
        ("[[listen]]\naddress = '127.0.0.1:50000'", "relay.ports"),
        ("[limits]\nmax_lifetime = '5m'", "limits.max_lifetime"),
        ("[peers]\nallow = ['0.0.0.0/0']", "peers.allow"),
        ("[metrics]\nlisten = '0.0.0.0:9641'", "metrics.listen"),
        (
            "[[listen]]\naddress = '127.0.0.1:1'\ntransport = 'tcp'\nproxy_protocol = true\nproxies = ['::/0']",
            "listen[0].proxies",
        ),
        (
            "[[listen]]\naddress = '127.0.0.1:1'\npassword_algorithms = ['sha256']",
            "listen[0].password_algorithms",
        ),
    ];
    for (text, key) in cases {
        let loaded = bench.good(text);
        assert!(
            warnings(&loaded).contains(&key.to_owned()),
            "{text}\n{}",
            loaded.report
        );
    }
    bench.host.descriptors = 1000;
    assert!(warnings(&bench.good("")).contains(&"relay.ports".to_owned()));
}

#[test]
fn a_listener_may_offer_other_algorithms() {
    let bench = Bench::new();
    let offered = |text: &str| {
        let parts = bench.good(text).parts;
        let listeners = &parts.turn.listener_algorithms;
        let offered = listeners.iter().map(|listener| {
            let address = listener.address.to_string();
            (address, listener.transport, listener.algorithms)
        });
        offered.collect::<Vec<_>>()
    };
    let two = |first: &str, second: &str| {
        format!(
            "[[listen]]\naddress = '127.0.0.1:1'\n{first}\n[[listen]]\naddress = '127.0.0.1:1'\ntransport = 'tcp'\n{second}\n\
             [auth]\npassword_algorithms = ['sha256', 'md5']"
        )
    };
    assert_eq!(offered(&two("", "")), []);
    let at = |transport, algorithms| ("127.0.0.1:1".to_owned(), transport, algorithms);
    assert_eq!(
        offered(&two("password_algorithms = ['md5']", "")),
        [
            at(Transport::Udp, PasswordAlgorithms::Md5),
            at(Transport::Tcp, PasswordAlgorithms::Sha256AndMd5)
        ]
    );
    assert_eq!(
        offered(&two("", "password_algorithms = ['sha256']")),
        [
            at(Transport::Udp, PasswordAlgorithms::Sha256AndMd5),
            at(Transport::Tcp, PasswordAlgorithms::Sha256)
        ]
    );
    let load = |text: &str| bench.good(text).config;
    let (before, after) = (two("", ""), two("password_algorithms = ['md5']", ""));
    assert!(load(&before).needs_restart(&load(&after)).is_empty());
}

#[test]
fn names_are_hidden_only_where_all_can_be_found_by_a_hash() {
    let bench = Bench::new();
    bench.secret("main", &"s".repeat(32));
    bench.secret("bot", "k9fw-Xo2m-71qz-0q1");
    let users = "[auth]\nusers = [{ name = 'bot', password_file = 'bot' }]";
    let anonymous = format!("{users}\nusername_anonymity = true");
    let loaded = bench.good(&anonymous);
    assert!(loaded.parts.turn.username_anonymity);
    let shown = loaded.config.to_string();
    assert_eq!(bench.good(&shown).config, loaded.config);
    assert!(!bench.good(users).parts.turn.username_anonymity);
    let report = bench.bad(&format!("{anonymous}\nsecrets = [{{ file = 'main' }}]"));
    let keys: Vec<_> = report.errors().map(|problem| problem.key.clone()).collect();
    assert_eq!(keys, ["auth.username_anonymity"]);
}

#[test]
fn tokens_are_enough_to_log_in_by() {
    let bench = Bench::new();
    bench.secret("k", KEY_32);
    let text =
        "[auth.oauth]\nserver_name = 'turn.example.org'\nkeys = [{ kid = 'k1', file = 'k' }]";
    let loaded = bench.good(text);
    let third_party = loaded.parts.turn.third_party.as_ref().unwrap();
    assert_eq!(third_party.server_name(), "turn.example.org");
    // No secret is made that nobody asked for, and nonces hold all the same.
    assert!(!loaded.parts.own_secret && loaded.parts.secrets.is_empty());
    let again = bench.good(text).parts.turn.nonce_keys.clone();
    assert_eq!(loaded.parts.turn.nonce_keys, again);
    assert!(!bench.directory.join("state").exists());
    assert!(bench.good("").parts.turn.third_party.is_none());
}

#[test]
fn keys_for_tokens_are_judged() {
    let bench = Bench::new();
    bench.secret("k", KEY_32);
    bench.secret("short", KEY_16);
    bench.secret("noise", "this is not base64, is it?");
    bench.secret("bot", "k9fw-Xo2m-71qz-0q1");
    let many: String = (0..17)
        .map(|number| format!("{{ kid = 'k{number}', file = 'k' }}, "))
        .collect();
    for (keys, key) in [
        ("", "auth.oauth.server_name"),
        ("keys = []", "auth.oauth.keys"),
        ("keys = [{ file = 'k' }]", "auth.oauth.keys[0]"),
        ("keys = [{ kid = 'k1' }]", "auth.oauth.keys[0]"),
        (
            "keys = [{ kid = 'k1', file = 'gone' }]",
            "auth.oauth.keys[0].file",
        ),
        (
            "keys = [{ kid = 'k1', file = 'short' }]",
            "auth.oauth.keys[0].file",
        ),
        (
            "keys = [{ kid = 'k1', file = 'noise' }]",
            "auth.oauth.keys[0].file",
        ),
        (
            "keys = [{ kid = 'k1', file = 'k', algorithm = 'A256CBC-HS512' }]",
            "auth.oauth.keys[0].algorithm",
        ),
        (
            "keys = [{ kid = '17:k', file = 'k' }]",
            "auth.oauth.keys[0].kid",
        ),
        (
            "keys = [{ kid = 'bot', file = 'k' }]",
            "auth.oauth.keys[0].kid",
        ),
        (
            "keys = [{ kid = 'k1', file = 'k' }, { kid = 'k1', file = 'k' }]",
            "auth.oauth.keys[1].kid",
        ),
        (&format!("keys = [{many}]"), "auth.oauth.keys"),
    ] {
        let report = bench.bad(&format!(
            "[auth]\nusers = [{{ name = 'bot', password_file = 'bot' }}]\n[auth.oauth]\nserver_name = 'x'\n{keys}"
        ));
        let told = report
            .errors()
            .any(|problem| problem.key == key && !problem.remedy.is_empty());
        assert!(told, "{keys}\n{report}");
        assert!(!report.to_string().contains("this is not"), "{report}");
    }
    let nameless = bench.bad("[auth.oauth]\nkeys = [{ kid = 'k1', file = 'k' }]");
    assert_eq!(nameless.errors().next().unwrap().key, "auth.oauth.keys");
}

#[test]
fn a_collector_of_spans_needs_a_build_that_makes_them() {
    let bench = Bench::new();
    bench.secret("headers", "authorization: Bearer MARKER\n\nx-scope : calls");
    let text = "[events]\notlp = 'https://otlp.example.org/eu/?a=b'\notlp_headers_file = 'headers'";
    if !EXPORTS_SPANS {
        let report = bench.bad(text);
        let problem = report.errors().next().unwrap();
        assert_eq!((&*problem.key, report.errors().count()), ("events.otlp", 1));
        assert!(problem.remedy.contains("--features otel"), "{report}");
        return;
    }
    let loaded = bench.good(text);
    let otlp = loaded.parts.events.unwrap().otlp.unwrap();
    assert_eq!(otlp.url, "https://otlp.example.org/eu/v1/traces?a=b");
    assert_eq!(otlp.headers["authorization"], "Bearer MARKER");
    assert_eq!(otlp.headers["x-scope"], "calls");
    assert!(!format!("{otlp:?}").contains("MARKER"));
    let shown = loaded.config.to_string();
    assert!(!shown.contains("MARKER"), "{shown}");
    assert_eq!(loaded.config, bench.good(&shown).config);
    let whole = bench.good("[events]\notlp = 'http://[::1]:4318/v1/traces'");
    let events = whole.parts.events.unwrap();
    assert_eq!(events.otlp.unwrap().url, "http://[::1]:4318/v1/traces");
    for (text, warned) in [
        ("otlp = 'http://127.0.0.1:4318'", None),
        ("otlp = 'http://192.0.2.7:4318'", Some("events.otlp")),
        ("otlp = 'http://127.0.0.1:4317'", Some("events.otlp")),
        (
            "otlp = 'http://127.0.0.1'\ninterim = '5m'",
            Some("events.interim"),
        ),
    ] {
        let found = warnings(&bench.good(&format!("[events]\n{text}")));
        let found = found.iter().find(|key| key.starts_with("events"));
        assert_eq!(found.map(|key| &**key), warned, "{text}");
    }
}

#[test]
fn headers_for_a_collector_are_judged_and_not_quoted() {
    let bench = Bench::new();
    for headers in ["MARKER", "a: b\nMARKER c: d", "a: MARKER\u{1}"] {
        bench.secret("headers", headers);
        let report =
            bench.bad("[events]\notlp = 'http://127.0.0.1:4318'\notlp_headers_file = 'headers'");
        let told = report
            .errors()
            .any(|problem| problem.key == "events.otlp_headers_file");
        assert!(told && !report.to_string().contains("MARKER"), "{report}");
    }
}

#[test]
fn the_operators_seat_is_told_who_may_sit_there() {
    let mut bench = Bench::new();
    bench.secret("token", &"t".repeat(32));
    let seat = bench
        .good("[admin]\ngroup = '4'\nusers = ['root', '1234']\nlisten = '127.0.0.1:9642'\ntoken_file = 'token'")
        .parts
        .seat;
    assert_eq!(seat.group, Some(4));
    assert!(seat.users.contains(&0) && seat.users.contains(&1234));
    assert_eq!(seat.listen.unwrap().0, "127.0.0.1:9642".parse().unwrap());
    assert!(seat.socket.unwrap().ends_with("admin.sock") && !seat.is_named);
    bench.host.runtime_directory = Some(PathBuf::from("/run/turnd"));
    let seat = bench.good("").parts.seat;
    assert_eq!(seat.socket, Some(PathBuf::from("/run/turnd/admin.sock")));
    assert!(
        bench
            .good("[admin]\nsocket = 'off'")
            .parts
            .seat
            .socket
            .is_none()
    );
    let named = bench.good("[admin]\nsocket = 'here.sock'").parts.seat;
    assert_eq!(named.socket, Some(bench.directory.join("here.sock")));
    assert!(named.is_named);
}

#[test]
fn visitors_who_could_not_come_in_are_warned_about() {
    let mut bench = Bench::new();
    let warned = |bench: &Bench, more: &str| {
        let mut keys = warnings(&bench.good(&format!("[admin]\n{more}")));
        keys.retain(|key| key.starts_with("admin."));
        keys
    };
    let none: [&str; 0] = [];
    // The state directory is closed to others; /run/turnd is not.
    assert_eq!(warned(&bench, "users = ['root']"), none);
    assert_eq!(warned(&bench, "users = ['1234']"), ["admin.users"]);
    assert_eq!(warned(&bench, "group = '4'"), ["admin.group"]);
    assert_eq!(warned(&bench, "group = '4'\nsocket = 'here.sock'"), none);
    bench.host.runtime_directory = Some(PathBuf::from("/run/turnd"));
    assert_eq!(warned(&bench, "users = ['1234']\ngroup = '4'"), none);
    // As PrivateUsers= of systemd has it.
    bench.host.known_users = vec![0..=0, 990..=990];
    bench.host.known_groups = vec![0..=0, 990..=990];
    assert_eq!(warned(&bench, "users = ['root', '990']"), none);
    let both = ["admin.users", "admin.group"];
    let mut found = warned(&bench, "users = ['1234']\ngroup = '4'");
    found.sort_by_key(|key| std::cmp::Reverse(key.clone()));
    assert_eq!(found, both);
    // All whom the kernel does not name are one number to the server: it must not open to everybody.
    let seat = bench
        .good("[admin]\nusers = ['65534', '990']\ngroup = '65534'")
        .parts
        .seat;
    assert_eq!((seat.users, seat.group), (vec![990], None));
}

#[test]
fn a_seat_that_others_could_take_is_refused() {
    let bench = Bench::new();
    bench.secret("short", "0123456789");
    bench.secret("spaces", "a token with spaces in it");
    bench.secret("token", &"t".repeat(32));
    for (more, key) in [
        ("listen = '127.0.0.1:9642'", "admin.listen"),
        (
            "listen = '127.0.0.1:9642'\ntoken_file = 'absent'",
            "admin.token_file",
        ),
        (
            "listen = '127.0.0.1:9642'\ntoken_file = 'short'",
            "admin.token_file",
        ),
        (
            "listen = '127.0.0.1:9642'\ntoken_file = 'spaces'",
            "admin.token_file",
        ),
        ("group = 'no-such-group'", "admin.group"),
        ("users = ['root', 'no-such-user']", "admin.users"),
        ("users = ['a b']", "admin.users"),
        ("hosts = ['http://x']", "admin.hosts"),
    ] {
        let report = bench.bad(&format!("[admin]\n{more}"));
        let errors: Vec<&Problem> = report.errors().collect();
        assert_eq!(errors.len(), 1, "{more}\n{report}");
        assert_eq!(errors[0].key, key, "{more}\n{report}");
        assert!(!errors[0].remedy.is_empty(), "{report}");
    }
    let open = bench.good("[admin]\nlisten = '0.0.0.0:9642'\ntoken_file = 'token'");
    assert!(warnings(&open).iter().any(|key| key == "admin.listen"));
}

#[test]
fn what_needs_a_restart_is_known() {
    let bench = Bench::new();
    let load = |text: &str| bench.good(text).config;
    let before = load("");
    let soft = "[limits]\nper_user = 3\n[peers]\ndeny = ['192.0.2.0/24']\n[log]\nlevel = 'debug'";
    assert!(before.needs_restart(&load(soft)).is_empty());
    let hard = "[server]\nworkers = 1\n[[listen]]\naddress = '127.0.0.1:0'\n[relay]\naddresses = ['127.0.0.1']\nports = '50000-50999'\n\
                [nat_discovery]\naddresses = ['127.0.0.1:3478', '127.0.0.2:3479']";
    assert_eq!(
        before.needs_restart(&load(hard)),
        [
            "server.workers",
            "listen",
            "relay.addresses",
            "relay.ports",
            "nat_discovery.addresses"
        ]
    );
}

// ---- helpers ----

/// Keys of 32 and of 16 bytes, in the two alphabets.
const KEY_32: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaG_z9_v8";
const KEY_16: &str = "AAECAwQFBgcICQoL/P3+/w==";

/// A directory of its own for a test, and a host that keeps its state there.
struct Bench {
    directory: PathBuf,
    host: Host,
}

impl Bench {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "config-{}-{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        );
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&directory).unwrap();
        let mut host = Host::of_process();
        host.state = StateDirectory::new(directory.join("state"));
        host.has_ipv6 = true;
        host.credentials_directory = None;
        Self { directory, host }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn secret(&self, name: &str, text: &str) -> PathBuf {
        let path = self.file(name, text);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// A certificate with a key of its own, good until the first day of a year.
    fn certificate(&self, certificate: &str, key: &str, until: i32) {
        let mut parameters =
            rcgen::CertificateParams::new(vec!["turn.example.org".to_owned()]).unwrap();
        parameters.not_before = rcgen::date_time_ymd(2000, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(until, 1, 1);
        let pair = rcgen::KeyPair::generate().unwrap();
        self.file(certificate, &parameters.self_signed(&pair).unwrap().pem());
        self.secret(key, &pair.serialize_pem());
    }

    /// The text with the paths of an installation in this directory instead.
    fn at_home(&self, text: &str) -> String {
        text.replace("/etc/turnd/", &format!("{}/", self.directory.display()))
    }

    fn load(&self, text: &str) -> Result<Loaded, Report> {
        let file = Some(self.file("turnd.toml", text));
        config::load(
            &Sources {
                file,
                ..Sources::default()
            },
            &self.host,
        )
    }

    fn good(&self, text: &str) -> Loaded {
        self.load(text)
            .unwrap_or_else(|report| panic!("refused: {text}\n{report}"))
    }

    fn bad(&self, text: &str) -> Report {
        match self.load(text) {
            Ok(_) => panic!("accepted: {text}"),
            Err(report) => report,
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn warnings(loaded: &Loaded) -> Vec<String> {
    loaded
        .report
        .warnings()
        .map(|problem| problem.key.clone())
        .collect()
}

/// A text without the keys that begin so.
fn without(text: &str, key: &str) -> String {
    let lines = text.lines().filter(|line| !line.starts_with(key));
    lines.map(|line| format!("{line}\n")).collect()
}

/// The manual with the keys that stand in comments: `#key = value`.
fn uncommented(text: &str) -> String {
    let mut lines = String::new();
    for line in text.lines() {
        let key = line.strip_prefix('#').filter(|rest| {
            rest.starts_with("[[") || rest.starts_with(|letter: char| letter.is_ascii_lowercase())
        });
        lines.push_str(key.unwrap_or(line));
        lines.push('\n');
    }
    lines
}

#[test]
fn tenants_are_judged() {
    let bench = Bench::new();
    bench.secret("one", &"1".repeat(32));
    bench.secret("two", &"2".repeat(32));
    let report = bench.bad(
        "[auth]
        secrets = [{ id = 'k1', file = 'one' }]
        [[listen]]
        address = '127.0.0.1:3478'
        transport = 'udp'
        [[tenants]]
        name = 'acme'
        secrets = [{ id = 'k1', file = 'two', claims = true }]
        listen = ['udp 127.0.0.1:3478', 'udp 127.0.0.1:3479', '127.0.0.1:3478', 'quic 127.0.0.1:1']
        server_names = ['turn.acme.example', 'not a host']
        [[tenants]]
        name = 'acme'
        listen = ['udp 127.0.0.1:3478']
        server_names = ['TURN.acme.example']
        [[tenants]]
        name = 'a~b'
        [[tenants]]
        realm = 'x'
        bandwidth_total = '5Mbit'",
    );
    let mut keys: Vec<_> = report.errors().map(|error| error.key.clone()).collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        [
            "tenants[0].listen",
            "tenants[0].listen",
            "tenants[0].listen",
            "tenants[0].secrets[0].id",
            "tenants[0].server_names",
            "tenants[1].listen",
            "tenants[1].name",
            "tenants[1].server_names",
            "tenants[2].name",
            "tenants[3]",
            "tenants[3].bandwidth_total",
        ],
        "{report}"
    );
}

#[test]
fn a_tenant_has_what_everybody_has_where_nothing_is_said() {
    let bench = Bench::new();
    bench.secret("one", &"1".repeat(32));
    let loaded = bench.good(
        "[limits]
        per_user = 3
        per_tenant = 5
        bandwidth_per_user = '2M'
        bandwidth_per_tenant = '9M'
        [peers]
        deny = ['52.0.0.0/8']
        policies = [{ name = 'lan', allow = ['10.0.0.0/8'] }]
        [[tenants]]
        name = 'plain'
        [[tenants]]
        name = 'acme'
        secrets = [{ id = 'k9', file = 'one', claims = true }]
        total = 0
        per_user = 7
        bandwidth_per_user = '0'
        bandwidth_total = '20M'
        allow = ['10.1.0.0/16']",
    );
    let settings = &loaded.parts.turn;
    let [plain, acme] = &settings.tenants.iter().collect::<Vec<_>>()[..] else {
        panic!("two tenants")
    };
    assert_eq!((plain.limits.per_user, plain.limits.per_tenant), (3, 5));
    assert_eq!(plain.limits.bandwidth, settings.limits.bandwidth);
    assert_eq!(
        (acme.limits.per_user, acme.limits.per_tenant),
        (7, u32::MAX)
    );
    let bandwidth = acme.limits.bandwidth;
    assert_eq!((bandwidth.per_user, bandwidth.per_tenant), (0, 20_000_000));
    // What is refused in any case is refused by tenants and policies, too.
    let closed = "52.1.2.3".parse().unwrap();
    let lan = &settings.policies["lan"];
    assert!(lan.denies(closed) && acme.peers.as_ref().unwrap().denies(closed));
    assert!(plain.peers.is_none());
    // A tenant has the realm of the server if it has none of its own.
    assert_eq!(acme.users.realm(), "turnd");
}

// ---- what contradicts itself ----

#[test]
fn limits_that_are_never_reached_are_warned_about() {
    let bench = Bench::new();
    let warned = |text: &str| {
        let mut keys = warnings(&bench.good(text));
        keys.retain(|key| key.starts_with("limits") || key.starts_with("tenants"));
        keys
    };
    let none: [&str; 0] = [];
    // Defaults harm nobody, and 0 is no limit.
    assert_eq!(warned("[limits]\ntotal = 3"), none);
    assert_eq!(
        warned("[limits]\nper_tenant = 0\nbandwidth_per_user = '9M'"),
        none
    );
    assert_eq!(
        warned("[limits]\nper_user = 3\nper_tenant = 3\ntotal = 3"),
        none
    );
    for (text, key) in [
        ("[limits]\nper_user = 4\ntotal = 3", "limits.per_user"),
        ("[limits]\nper_client = 4\ntotal = 3", "limits.per_client"),
        ("[limits]\nper_tenant = 4\ntotal = 3", "limits.per_tenant"),
        ("[limits]\nper_tenant = 4\nper_user = 5", "limits.per_user"),
        (
            "[limits]\nbandwidth_per_allocation = '2M'\nbandwidth_per_user = '1M'",
            "limits.bandwidth_per_allocation",
        ),
        (
            "[limits]\nbandwidth_per_user = '2M'\nbandwidth_total = '1M'",
            "limits.bandwidth_per_user",
        ),
        ("[limits]\nbandwidth_total = '4'", "limits.bandwidth_total"),
        (
            "[limits]\nnew_peers_per_allocation = 4\nnew_peers_per_user = 3",
            "limits.new_peers_per_allocation",
        ),
        (
            "[limits]\ntotal = 3\n[[tenants]]\nname = 'a'\ntotal = 4",
            "tenants[0].total",
        ),
        (
            "[[tenants]]\nname = 'a'\ntotal = 4\nper_user = 5",
            "tenants[0].per_user",
        ),
        (
            "[limits]\nbandwidth_total = '1M'\n[[tenants]]\nname = 'a'\nbandwidth_total = '2M'",
            "tenants[0].bandwidth_total",
        ),
        (
            "[[tenants]]\nname = 'a'\nbandwidth_per_user = '20'",
            "tenants[0].bandwidth_per_user",
        ),
        (
            "[[tenants]]\nname = 'a'\nserver_names = ['a.test']\nusers = [{ name = 'bot', password_file = 'bot' }]",
            "tenants[0].server_names",
        ),
    ] {
        bench.secret("bot", "k9fw-Xo2m-71qz-0q1");
        assert_eq!(warned(text), [key], "{text}");
    }
}

/// Whoever has a secret can do all that is done with it: two customers with the same one are one customer.
#[test]
fn one_secret_for_two_is_warned_about() {
    let bench = Bench::new();
    for (name, letter) in [("a", "a"), ("also-a", "a"), ("b", "b")] {
        bench.secret(name, &letter.repeat(32));
    }
    let warned = |text: &str| {
        let loaded = bench.good(text);
        let same = loaded
            .report
            .warnings()
            .filter(|one| one.what.contains("the same secret"));
        same.map(|one| one.key.clone()).collect::<Vec<_>>()
    };
    let tenants = |one: &str, other: &str| {
        format!(
            "[auth]\nsecrets = [{{ id = 'k', file = 'b' }}]\n\
             [[tenants]]\nname = 'x'\nsecrets = [{{ id = 'x', file = '{one}' }}]\n\
             [[tenants]]\nname = 'y'\nsecrets = [{{ id = 'y', file = '{other}' }}]"
        )
    };
    let none: [&str; 0] = [];
    bench.secret("c", &"c".repeat(32));
    assert_eq!(warned(&tenants("a", "c")), none);
    assert_eq!(
        warned(&tenants("a", "also-a")),
        ["tenants[1].secrets[0].file"]
    );
    assert_eq!(warned(&tenants("a", "b")), ["tenants[1].secrets[0].file"]);
    let token = "[auth]\nsecrets = [{ file = 'a', claims = true }]\n[token]\nlisten = ['http://127.0.0.1:1']\n";
    let keys =
        format!("{token}api_keys = [{{ id = 'one', file = 'b' }}, {{ id = 'two', file = 'b' }}]");
    assert_eq!(warned(&keys), ["token.api_keys[1].file"]);
    let keys = format!("{token}api_keys = [{{ id = 'one', file = 'also-a' }}]");
    assert_eq!(warned(&keys), ["token.api_keys[0].file"]);
}

#[test]
fn a_token_service_that_cannot_keep_its_word_is_warned_about() {
    let bench = Bench::new();
    bench.secret("a", &"a".repeat(32));
    bench.secret("b", &"b".repeat(32));
    bench.certificate("cert.pem", "key.pem", 2040);
    let warned = |claims: bool, more: &str, key: &str| {
        let text = format!(
            "[auth]\nsecrets = [{{ file = 'a', claims = {claims} }}]\n[token]\nlisten = ['http://127.0.0.1:8089']\nmax_ttl = '2h'\n\
             {more}\napi_keys = [{{ id = 'one', file = 'b', {key} }}]"
        );
        let mut keys = warnings(&bench.good(&text));
        keys.retain(|key| key.starts_with("auth") || key.starts_with("token"));
        keys
    };
    let none: [&str; 0] = [];
    assert_eq!(warned(true, "", "tenant = 'acme', max_ttl = '2h'"), none);
    assert_eq!(warned(false, "", "max_ttl = '2h'"), none);
    assert_eq!(warned(false, "", "tenant = 'acme'"), ["auth.secrets[0]"]);
    assert_eq!(
        warned(true, "", "max_ttl = '3h'"),
        ["token.api_keys[0].max_ttl"]
    );
    assert_eq!(
        warned(true, "proxies = ['0.0.0.0/0']", "scopes = ['relay.issue']"),
        ["token.proxies"]
    );
    let certificate = "certificate = 'cert.pem'\nkey = 'key.pem'";
    assert_eq!(
        warned(true, certificate, "scopes = ['relay.issue']"),
        ["token.certificate"]
    );
    let off = "scopes = ['relay.revoke'] }]\n[revocation]\nenabled = false\n[peers]\npolicies = [{ name = 'x'";
    assert_eq!(warned(true, "", off), ["token.api_keys[0].scopes"]);
}

// ---- bad days ----

#[test]
fn a_clock_that_has_not_been_set_is_warned_about() {
    let mut bench = Bench::new();
    bench.host.unix = 86_400;
    let loaded = bench.good("");
    let warned = loaded
        .report
        .warnings()
        .find(|one| one.what.contains("before 2020"));
    assert!(
        warned.is_some_and(|one| one.remedy.contains("timedatectl")),
        "{}",
        loaded.report
    );
}

#[test]
fn files_of_windows_are_read() {
    let bench = Bench::new();
    bench.secret("secret", "north-north-north-north\r\n");
    let loaded = bench
        .good("\u{feff}[auth]\r\nsecrets = [{ file = 'secret' }]\r\n[limits]\r\nper_user = 3\r\n");
    assert_eq!(loaded.config.limits.per_user, 3);
    bench.secret("two", "north-north-north-north");
    let two = bench.good("[auth]\nsecrets = [{ file = 'two' }]");
    let password = |loaded: &Loaded| loaded.parts.secrets[0].password(b"1:a").to_string();
    assert_eq!(password(&loaded), password(&two));
    // What nobody sees in a secret is no part of it; whether the other side has it, nobody knows.
    bench.secret("secret", "\u{feff}north-north-north-north");
    let report = bench.bad(ONE_SECRET);
    assert!(report.to_string().contains("byte order mark"), "{report}");
    bench.secret(
        "secret",
        "north-north-north-north\nsouth-south-south-south\n",
    );
    let loaded = bench.good(ONE_SECRET);
    assert!(
        loaded.report.to_string().contains("several lines"),
        "{}",
        loaded.report
    );
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let bench = Bench::new();
    let made = std::process::Command::new("mkfifo")
        .arg(bench.directory.join("pipe"))
        .status();
    assert!(made.unwrap().success());
    fs::create_dir(bench.directory.join("directory")).unwrap();
    for place in ["pipe", "directory"] {
        let tls = format!("[tls]\ncertificate = '{place}'\nkey = '{place}'");
        let token = format!(
            "[token]\nlisten = ['http://127.0.0.1:1']\nissuers = [{{ issuer = 'a', audience = 'b', algorithms = ['RS256'], keys = '{place}' }}]"
        );
        let secret = format!("[auth]\nsecrets = [{{ file = '{place}' }}]");
        for text in [tls, token, secret] {
            let report = bench.bad(&text).to_string();
            assert!(
                report.contains(&format!("{place} is not a file")),
                "{report}"
            );
        }
    }
    let public = bench.file("public.pem", "-----BEGIN PUBLIC KEY-----");
    fs::set_permissions(&public, fs::Permissions::from_mode(0o666)).unwrap();
    let report = bench.bad(
        "[token]\nlisten = ['http://127.0.0.1:1']\nissuers = [{ issuer = 'a', audience = 'b', algorithms = ['RS256'], keys = 'public.pem' }]",
    );
    assert!(report.to_string().contains("chmod o-w"), "{report}");
}

#[test]
fn a_file_of_another_kind_is_refused_soon() {
    let bench = Bench::new();
    let noise: String = (0..20_000)
        .map(|line| format!("k{line} = {line}\n"))
        .collect();
    let report = bench.bad(&noise);
    assert_eq!(report.errors().count(), 200);
    assert!(report.to_string().ends_with("... and 19800 more\n"));
    for (text, remedy) in [
        (vec![b'#'; (8 << 20) + 1], "8 MiB"),
        (vec![0xff, 0xfe, b'['], "UTF-8"),
    ] {
        let path = bench.directory.join("other.toml");
        fs::write(&path, text).unwrap();
        let sources = Sources {
            file: Some(path),
            ..Sources::default()
        };
        let report = config::load(&sources, &bench.host).err().unwrap();
        assert!(
            report.errors().next().unwrap().remedy.contains(remedy),
            "{report}"
        );
    }
    // As deep as a line is long.
    let deep = "a.".repeat(20_000);
    for text in [
        format!("{deep}a = 1"),
        format!("[{deep}a]"),
        format!("a = {{ {deep}a = 1 }}"),
        format!("a = {}", "[".repeat(20_000)),
        format!("{}{}", "a = {".repeat(20_000), "}".repeat(20_000)),
    ] {
        assert!(bench.bad(&text).has_errors());
    }
    for given in [
        format!("{deep}a=1"),
        format!("a={{ {deep}a = 1 }}"),
        format!("a={}", "[".repeat(20_000)),
    ] {
        let sources = Sources {
            overrides: vec![given],
            ..Sources::default()
        };
        assert!(config::load(&sources, &bench.host).is_err());
    }
}

#[test]
fn a_file_that_anybody_may_change_is_warned_about() {
    let bench = Bench::new();
    let load = |mode| {
        let file = bench.file("turnd.toml", "");
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let sources = Sources {
            file: Some(file),
            ..Sources::default()
        };
        config::load(&sources, &bench.host).ok().unwrap()
    };
    let warned = |loaded: &Loaded| loaded.report.to_string().contains("anybody on this host");
    assert!(!warned(&load(0o664)) && warned(&load(0o666)));
}

/// A server of another container, whose first process has the same number, may have been cut off here.
#[test]
fn a_draft_that_was_left_behind_is_in_nobodys_way() {
    let bench = Bench::new();
    let state = bench.directory.join("state");
    fs::create_dir(&state).unwrap();
    fs::write(
        state.join(format!("auth-secret.draft-{}", std::process::id())),
        "half",
    )
    .unwrap();
    assert!(config::load(&Sources::default(), &bench.host).is_ok());
}
