//! A reload notices whatever is changed, and says when it takes effect: for every key there is, and every file.

use std::collections::BTreeSet;
use std::fs;

use turnd::config::{self, Difference, Differences, REFERENCE, Sources};
use turnd::events::EXPORTS_SPANS;

use super::{Bench, KEY_16, KEY_32, uncommented};

/// Tables of which there may be several.
const LISTS: [&str; 12] = [
    "listen",
    "auth.secrets",
    "auth.users",
    "auth.oauth.keys",
    "peers.policies",
    "tenants",
    "tenants.secrets",
    "tenants.users",
    "tls.others",
    "token.regions",
    "token.api_keys",
    "token.issuers",
];

/// Every key: a value of its own, and another one.
#[rustfmt::skip]
const KEYS: &[(&str, &str, &str)] = &[
    ("server.realm", "'turn.example.org'", "'other.example.org'"),
    ("server.software", "true", "false"),
    ("server.mobility", "true", "false"),
    ("server.rfc5766_channels", "true", "false"),
    ("server.rfc3489", "true", "false"),
    ("server.workers", "3", "'auto'"),
    ("server.drain_timeout", "'1m'", "'2m'"),
    ("listen.address", "'127.0.0.1:443'", "'127.0.0.1:444'"),
    ("listen.transport", "'tcp'", "'tls'"),
    ("listen.password_algorithms", "['md5']", "['md5', 'sha256']"),
    ("listen.proxy_protocol", "true", "false"),
    ("listen.proxies", "['10.0.0.0/8']", "['10.0.0.0/9']"),
    ("listen.http", "'self'", "'127.0.0.1:8080'"),
    ("relay.addresses", "['127.0.0.1']", "['127.0.0.2']"),
    ("relay.external", "['203.0.113.4=127.0.0.1']", "['203.0.113.5=127.0.0.1']"),
    ("relay.ports", "'50000-50999'", "'50000-51999'"),
    ("relay.unasked_ipv6", "true", "false"),
    ("relay.icmp", "true", "false"),
    ("relay.copy_dscp", "true", "false"),
    ("relay.copy_ecn", "true", "false"),
    ("auth.nonce_key_file", "'nonce-key'", "'secret'"),
    ("auth.on_expiry", "'cut'", "'new'"),
    ("auth.password_algorithms", "['md5']", "['md5', 'sha256']"),
    ("auth.username_anonymity", "false", "true"),
    ("auth.secrets.id", "'main'", "'other'"),
    ("auth.secrets.file", "'secret'", "'nonce-key'"),
    ("auth.secrets.algorithm", "'sha256'", "'sha1'"),
    ("auth.secrets.encoding", "'base64'", "'base64url'"),
    ("auth.secrets.claims", "true", "false"),
    ("auth.users.name", "'bot'", "'robot'"),
    ("auth.users.password_file", "'bot'", "'bot2'"),
    ("auth.oauth.server_name", "'turn.example.org'", "'other.example.org'"),
    ("auth.oauth.keys.kid", "'k1'", "'k2'"),
    ("auth.oauth.keys.file", "'oauth-key'", "'oauth-key2'"),
    ("auth.oauth.keys.algorithm", "'A256GCM'", "'A128GCM'"),
    ("limits.per_user", "5", "6"),
    ("limits.per_client", "5", "6"),
    ("limits.per_tenant", "50", "60"),
    ("limits.total", "500", "600"),
    ("limits.bandwidth_per_allocation", "'1M'", "'2M'"),
    ("limits.bandwidth_per_user", "'3M'", "'4M'"),
    ("limits.bandwidth_per_tenant", "'50M'", "'60M'"),
    ("limits.bandwidth_total", "'700M'", "'0'"),
    ("limits.new_peers_per_allocation", "50", "60"),
    ("limits.new_peers_per_user", "70", "80"),
    ("limits.permissions", "5", "6"),
    ("limits.channels", "5", "6"),
    ("limits.max_lifetime", "'30m'", "'40m'"),
    ("limits.unauthenticated_replies", "5", "6"),
    ("peers.allow", "['10.1.0.0/16']", "[]"),
    ("peers.deny", "['192.0.2.0/24']", "[]"),
    ("peers.policies.name", "'media'", "'other'"),
    ("peers.policies.allow", "['10.2.0.0/16']", "[]"),
    ("peers.policies.deny", "['198.51.100.0/24']", "[]"),
    ("tenants.name", "'acme'", "'emca'"),
    ("tenants.realm", "'acme.example'", "'emca.example'"),
    ("tenants.listen", "['udp 127.0.0.1:3478']", "[]"),
    ("tenants.server_names", "['turn.example.org']", "[]"),
    ("tenants.per_user", "3", "4"),
    ("tenants.total", "30", "40"),
    ("tenants.bandwidth_per_allocation", "'1M'", "'2M'"),
    ("tenants.bandwidth_per_user", "'3M'", "'4M'"),
    ("tenants.bandwidth_total", "'5M'", "'6M'"),
    ("tenants.new_peers_per_allocation", "5", "6"),
    ("tenants.new_peers_per_user", "7", "8"),
    ("tenants.allow", "['10.3.0.0/16']", "[]"),
    ("tenants.deny", "['203.0.113.0/24']", "[]"),
    ("tenants.secrets.id", "'acme'", "'emca'"),
    ("tenants.secrets.file", "'acme-secret'", "'emca-secret'"),
    ("tenants.secrets.algorithm", "'sha256'", "'sha1'"),
    ("tenants.secrets.encoding", "'base64'", "'base64url'"),
    ("tenants.secrets.claims", "true", "false"),
    ("tenants.users.name", "'bot'", "'robot'"),
    ("tenants.users.password_file", "'bot'", "'bot2'"),
    ("tcp_relay.enabled", "true", "false"),
    ("tcp_relay.connections", "3", "4"),
    ("tcp_relay.connect_timeout", "'40s'", "'50s'"),
    ("tcp_relay.low_ports", "['443']", "[]"),
    ("nat_discovery.addresses", "['127.0.0.1:3500', '127.0.0.2:3501']", "[]"),
    ("redirect.to", "['192.0.2.7:3478']", "['192.0.2.8:3478']"),
    ("redirect.to_tls", "['192.0.2.7:5349']", "['192.0.2.8:5349']"),
    ("redirect.when", "['drain']", "['overload']"),
    ("redirect.overload_at", "400", "300"),
    ("redirect.domain", "'turn2.example.org'", "'turn3.example.org'"),
    ("events.file", "'events.jsonl'", "'stdout'"),
    ("events.interim", "'1m'", "'2m'"),
    ("events.anonymize", "true", "false"),
    ("events.otlp", "'https://otlp.example.org'", "'https://otlp2.example.org'"),
    ("events.otlp_headers_file", "'otlp-headers'", "'otlp-headers2'"),
    ("events.webhook.url", "'https://app.example.org/a'", "'https://app.example.org/b'"),
    ("events.webhook.secret_file", "'webhook-secret'", "'secret'"),
    ("events.webhook.spool", "'waiting'", "'elsewhere'"),
    ("events.webhook.spool_limit", "5", "6"),
    ("events.webhook.timeout", "'5s'", "'6s'"),
    ("events.webhook.retry", "'5s'", "'6s'"),
    ("revocation.enabled", "true", "false"),
    ("revocation.database", "'revocations.sqlite'", "'other.sqlite'"),
    ("revocation.keep", "'50h'", "'60h'"),
    ("tls.certificate", "'cert.pem'", "'cert-copy.pem'"),
    ("tls.key", "'key.pem'", "'key-copy.pem'"),
    ("tls.others.certificate", "'cert.pem'", "'cert-copy.pem'"),
    ("tls.others.key", "'key.pem'", "'key-copy.pem'"),
    ("token.listen", "['https://127.0.0.1:8443']", "['https://127.0.0.1:8444']"),
    ("token.certificate", "'cert.pem'", "'cert-copy.pem'"),
    ("token.key", "'key.pem'", "'key-copy.pem'"),
    ("token.urls", "['turn:turn.example.org:3478']", "['turn:turn2.example.org:3478']"),
    ("token.ttl", "'1h'", "'2h'"),
    ("token.max_ttl", "'20h'", "'21h'"),
    ("token.dialects", "['turn-rest']", "[]"),
    ("token.origins", "['https://app.example.org']", "[]"),
    ("token.per_subject", "5", "6"),
    ("token.per_tenant", "50", "60"),
    ("token.per_source", "50", "60"),
    ("token.proxies", "['10.0.0.7/32']", "[]"),
    ("token.regions.name", "'eu'", "'us'"),
    ("token.regions.urls", "['turn:eu.example.org:3478']", "['turn:us.example.org:3478']"),
    ("token.api_keys.id", "'backend'", "'other'"),
    ("token.api_keys.file", "'backend-key'", "'backend-key2'"),
    ("token.api_keys.tenant", "'acme'", "'emca'"),
    ("token.api_keys.scopes", "['relay.issue']", "['relay.revoke']"),
    ("token.api_keys.max_ttl", "'10h'", "'11h'"),
    ("token.issuers.issuer", "'https://login.example.org'", "'https://login2.example.org'"),
    ("token.issuers.audience", "'turn'", "'relay'"),
    ("token.issuers.algorithms", "['HS256']", "['HS512']"),
    ("token.issuers.keys", "'shared-key'", "'shared-key2'"),
    ("token.issuers.tenant_claim", "'tenant'", "'customer'"),
    ("token.issuers.tenant", "'acme'", "'emca'"),
    ("token.issuers.scopes", "['voip']", "[]"),
    ("token.issuers.leeway", "'1m'", "'2m'"),
    ("metrics.listen", "'127.0.0.1:9641'", "'127.0.0.1:9643'"),
    ("admin.socket", "'admin.sock'", "'off'"),
    ("admin.group", "'4'", "'5'"),
    ("admin.users", "['root']", "[]"),
    ("admin.listen", "'127.0.0.1:9642'", "'127.0.0.1:9644'"),
    ("admin.token_file", "'admin-token'", "'secret'"),
    ("admin.hosts", "['turn.example.org']", "[]"),
    ("log.format", "'text'", "'json'"),
    ("log.level", "'info'", "'debug'"),
];

/// What cannot be changed alone, and what goes with it.
const TOGETHER: &[(&str, &str, &str)] = &[
    ("listen.proxy_protocol", "listen.proxies", "[]"),
    (
        "auth.oauth.keys.algorithm",
        "auth.oauth.keys.file",
        "'short'",
    ),
];

/// Where no secret may be beside it.
const ALONE: &str = "auth.username_anonymity";

#[test]
fn every_key_is_noticed_and_its_time_is_that_of_the_manual() {
    let named: BTreeSet<&str> = KEYS.iter().map(|(key, ..)| *key).collect();
    let known = config::keys();
    let known: BTreeSet<&str> = known.iter().map(String::as_str).collect();
    assert_eq!(named, known, "each key needs two values in KEYS");
    let bench = furnished();
    let before = bench.good(&document(&[])).reading();
    for (key, _, other) in KEYS.iter().filter(|(key, ..)| is_built(key)) {
        let mut changed = vec![(*key, *other)];
        let others = TOGETHER.iter().filter(|(with, ..)| with == key);
        changed.extend(others.map(|(_, also, value)| (*also, *value)));
        let (before, after) = if *key == ALONE {
            let users = "[[auth.users]]\nname = 'bot'\npassword_file = 'bot'\n[auth]\n";
            let reading = |flag| {
                let text = format!("{users}username_anonymity = {flag}");
                bench.good(&text).reading()
            };
            (reading("false"), reading("true"))
        } else {
            (before.clone(), bench.good(&document(&changed)).reading())
        };
        let Differences { now, at_restart } = before.differences(&before, &after);
        let (now, at_restart) = (
            names(&now).contains(*key),
            names(&at_restart).contains(*key),
        );
        assert!(now != at_restart, "{key}: {now} {at_restart}");
        assert_eq!(at_restart, waits_by_the_manual(key), "{key}");
        // In force, or told to wait: it does not change again.
        let settled = before.differences(&after, &after).now;
        assert_eq!(settled, [], "{key}");
        assert_eq!(before.differences(&after, &before).at_restart, [], "{key}");
    }
}

#[test]
fn what_is_changed_in_a_file_is_noticed_and_not_shown() {
    let bench = furnished();
    let text = document(&[]);
    let before = bench.good(&text).reading();
    let secret = |letter: &str| letter.repeat(40);
    for (file, content, keys, waits) in [
        ("secret", secret("x"), &["auth.secrets[0].file"][..], false),
        (
            "bot",
            "k9fw-Xo2m-71qz-0q9".to_owned(),
            &[
                "auth.users[0].password_file",
                "tenants[0].users[0].password_file",
            ],
            false,
        ),
        ("nonce-key", secret("x"), &["auth.nonce_key_file"], false),
        (
            "oauth-key",
            KEY_32.replace("AAEC", "AAED"),
            &["auth.oauth.keys[0].file"],
            false,
        ),
        (
            "acme-secret",
            secret("x"),
            &["tenants[0].secrets[0].file"],
            false,
        ),
        (
            "backend-key",
            secret("x"),
            &["token.api_keys[0].file"],
            false,
        ),
        ("shared-key", secret("x"), &["token.issuers[0].keys"], false),
        ("admin-token", secret("x"), &["admin.token_file"], true),
        (
            "webhook-secret",
            secret("x"),
            &["events.webhook.secret_file"],
            true,
        ),
    ] {
        let path = bench.directory.join(file);
        let old = fs::read_to_string(&path).unwrap();
        bench.secret(file, &content);
        let after = bench.good(&text).reading();
        let Differences { now, at_restart } = before.differences(&before, &after);
        let (changed, others) = if waits {
            (at_restart, now)
        } else {
            (now, at_restart)
        };
        let found: Vec<&str> = changed.iter().map(|change| &*change.key).collect();
        assert_eq!((found, others), (keys.to_vec(), vec![]), "{file}");
        assert!(
            changed
                .iter()
                .all(|change| (&change.old, &change.new) == (&None, &None))
        );
        assert_eq!(
            before.needs_restart(&after),
            if waits { keys } else { &[] },
            "{file}"
        );
        assert!(!format!("{after:?}").contains(&content), "{file}");
        bench.secret(file, &old);
    }
}

#[test]
fn a_renewed_certificate_is_noticed() {
    let bench = furnished();
    let text = document(&[]);
    let before = bench.good(&text).reading();
    // Three times the same pair.
    bench.certificate("cert.pem", "key.pem", 2041);
    let keys = [
        "tls.certificate",
        "tls.others[0].certificate",
        "token.certificate",
    ];
    fs::copy(
        bench.directory.join("cert.pem"),
        bench.directory.join("cert-copy.pem"),
    )
    .unwrap();
    let after = bench.good(&text).reading();
    let changed = before.differences(&before, &after);
    assert_eq!(names_in_full(&changed.now), keys);
    assert_eq!(changed.at_restart, []);
}

#[test]
fn a_secret_of_its_own_is_noticed_to_be_another() {
    let bench = Bench::new();
    let load = || {
        config::load(&Sources::default(), &bench.host)
            .ok()
            .unwrap()
            .reading()
    };
    let before = load();
    fs::remove_file(bench.host.state.own_secret()).unwrap();
    let changed = before.differences(&before, &load());
    assert_eq!(names_in_full(&changed.now), ["auth.secrets"]);
}

#[test]
fn a_service_that_comes_or_goes_waits_as_a_whole() {
    let bench = furnished();
    let with = bench.good(&document(&[])).reading();
    let off = bench.good(&document(&[("token.listen", "[]"), ("token.ttl", "'3h'")]));
    let off = off.reading();
    for (before, after) in [(&with, &off), (&off, &with)] {
        assert_eq!(before.needs_restart(after), ["token"]);
        let Differences { now, at_restart } = before.differences(before, after);
        assert!(now.is_empty(), "{now:?}");
        assert!(names(&at_restart).contains("token.ttl"), "{at_restart:?}");
    }
    let mut without = with.clone();
    without.config.tls = None;
    assert_eq!(with.needs_restart(&without), ["tls"]);
    assert!(without.needs_restart(&with).is_empty());
}

/// A full disk cuts files off while they are written.
#[test]
fn a_file_that_has_become_empty_replaces_nothing() {
    let bench = Bench::new();
    let running = bench.good("[limits]\nper_user = 3").reading();
    let again = |text: &str, running| {
        let sources = Sources {
            file: Some(bench.file("turnd.toml", text)),
            ..Sources::default()
        };
        config::load_again(&sources, &bench.host, running)
    };
    assert!(again("[limits]\nper_user = 4", &running).is_ok());
    for empty in ["", "\n", "# per_user = 3\n"] {
        let report = again(empty, &running).err().unwrap();
        let told = report.errors().next().unwrap();
        assert!(
            told.what.contains("no key in the file any more"),
            "{report}"
        );
        assert!(told.place().unwrap().ends_with("turnd.toml"), "{report}");
    }
    // Whoever began without one may go on without one.
    let bare = bench.good("# nothing yet").reading();
    assert!(again("", &bare).is_ok());
    // A pipe has been read already; whoever opens it again waits for ever.
    let sources = Sources {
        file: Some("/dev/null".into()),
        ..Sources::default()
    };
    let report = config::load_again(&sources, &bench.host, &running);
    let report = report.err().unwrap().to_string();
    assert!(
        report.contains("this is no file") && report.contains("/dev/null"),
        "{report}"
    );
}

// ---- helpers ----

/// A bench with all files that [`KEYS`] names.
fn furnished() -> Bench {
    let bench = Bench::new();
    for (name, letter) in [
        ("secret", "s"),
        ("nonce-key", "n"),
        ("acme-secret", "a"),
        ("emca-secret", "e"),
        ("webhook-secret", "w"),
        ("backend-key", "b"),
        ("backend-key2", "c"),
        ("shared-key", "j"),
        ("shared-key2", "k"),
        ("admin-token", "t"),
    ] {
        bench.secret(name, &letter.repeat(32));
    }
    bench.secret("otlp-headers", "authorization: Bearer abc\nx-scope: calls");
    bench.secret("otlp-headers2", "authorization: Bearer def");
    bench.secret("bot", "k9fw-Xo2m-71qz-0q1");
    bench.secret("bot2", "k9fw-Xo2m-71qz-0q2");
    bench.secret("oauth-key", KEY_32);
    bench.secret("oauth-key2", &KEY_32.replace("AAEC", "AAEE"));
    bench.secret("short", KEY_16);
    bench.certificate("cert.pem", "key.pem", 2040);
    let read = |name: &str| fs::read_to_string(bench.directory.join(name)).unwrap();
    bench.file("cert-copy.pem", &read("cert.pem"));
    bench.secret("key-copy.pem", &read("key.pem"));
    bench
}

/// What is said of spans is an error for a program that makes none.
fn is_built(key: &str) -> bool {
    EXPORTS_SPANS || !key.starts_with("events.otlp")
}

/// Every key but [`ALONE`], with its value in [`KEYS`] or the one that is given here.
fn document(changed: &[(&str, &str)]) -> String {
    let mut text = String::new();
    let mut table = "";
    let given = |key: &str| key != ALONE && is_built(key);
    for (key, value, _) in KEYS.iter().filter(|(key, ..)| given(key)) {
        let (own, name) = key.rsplit_once('.').unwrap();
        if own != table {
            let brackets = if LISTS.contains(&own) { 2 } else { 1 };
            text += &format!("{}{own}{}\n", "[".repeat(brackets), "]".repeat(brackets));
            table = own;
        }
        let other = changed.iter().find(|(other, _)| other == key);
        let value = other.map_or(*value, |(_, value)| value);
        text += &format!("{name} = {value}\n");
    }
    text + "[[listen]]\naddress = '127.0.0.1:3478'\n"
}

fn names(differences: &[Difference]) -> BTreeSet<String> {
    let plain = |part: &str| part.split('[').next().unwrap_or(part).to_owned();
    let plain = |difference: &Difference| {
        let parts: Vec<String> = difference.key.split('.').map(plain).collect();
        parts.join(".")
    };
    differences.iter().map(plain).collect()
}

fn names_in_full(differences: &[Difference]) -> Vec<&str> {
    differences.iter().map(|change| &*change.key).collect()
}

/// Whether the words above a key, or above its table, say that it waits.
fn waits_by_the_manual(key: &str) -> bool {
    let (table, name) = key.rsplit_once('.').unwrap();
    // Tables of a list may stand on one line.
    let (home, item) = table.rsplit_once('.').unwrap_or(("", table));
    for (inside, starts) in [
        (table, format!("{name} = ")),
        (home, format!("{item} = [{{")),
    ] {
        let found = blocks().find(|block| block.table == inside && block.line.starts_with(&starts));
        if let Some(block) = found {
            let whole = block.of_table.contains("(restart") && !block.words.contains("(reload)");
            let above = format!(
                "(restart, like all of [{}])",
                key.split('.').next().unwrap()
            );
            return whole || block.words.contains("(restart") || REFERENCE.contains(&above);
        }
    }
    panic!("the manual does not name {key}");
}

/// A key of the manual, the words above it, and those above its table.
struct Block {
    table: String,
    of_table: String,
    words: String,
    line: String,
}

fn blocks() -> impl Iterator<Item = Block> {
    let (mut table, mut of_table, mut words) = (String::new(), String::new(), String::new());
    let mut is_read = false;
    let text = uncommented(REFERENCE);
    let mut blocks = Vec::new();
    for line in text.lines() {
        if line.starts_with("# ") {
            if std::mem::take(&mut is_read) {
                words.clear();
            }
            words += line;
        } else if line.is_empty() {
            words.clear();
        } else if line.starts_with('[') {
            let name = line.trim_matches(['[', ']']);
            // What stands above the first table of a list holds for all of them.
            if name != table {
                table = name.to_owned();
                of_table.clone_from(&words);
            }
            words.clear();
        } else {
            is_read = true;
            blocks.push(Block {
                table: table.clone(),
                of_table: of_table.clone(),
                words: words.clone(),
                line: line.to_owned(),
            });
        }
    }
    blocks.into_iter()
}
