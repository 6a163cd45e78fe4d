//! `[token]`: what is accepted, what is refused and where, and that what is shown is read as the same.

use turnd::config::{self, Host, Loaded, Report, Sources, StateDirectory};

use crate::process::{Place, certificate};
use crate::service::{KEY, OTHER_KEY, SHARED};

const EVERYTHING: &str = "
    [auth]
    secrets = [{ id = 'k2', file = 'secret', algorithm = 'sha256', encoding = 'base64url', claims = true }]
    [token]
    listen = ['http://127.0.0.1:8089', 'https://[::1]:8443', 'unix:/run/turnd/token.sock']
    certificate = 'cert.pem'
    key = 'key.pem'
    urls = ['stun:turn.example.org', 'turns:turn.example.org:443?transport=tcp']
    regions = [{ name = 'eu-west', urls = ['turn:[2001:db8::1]:3478?transport=udp'] }]
    ttl = '10m'
    max_ttl = '2h'
    dialects = ['azure', 'twilio']
    origins = ['https://app.example.org', 'http://localhost:8080']
    api_keys = [{ id = 'backend', file = 'backend', tenant = 'acme', scopes = ['relay.issue', 'relay.revoke'], max_ttl = '5m' }, { id = 'other', file = 'other', scopes = ['relay.revoke'] }]
    issuers = [{ issuer = 'https://a.test', audience = 'turn', algorithms = ['HS256', 'HS512'], keys = 'shared', tenant_claim = 'tid', tenant = 'acme', scopes = ['voip'], leeway = '5s' },
        { issuer = 'https://b.test', audience = 'turn', algorithms = ['EdDSA'], keys = 'https://b.test/jwks.json' }]
    per_subject = 1
    per_tenant = 2
    per_source = 3
    proxies = ['10.0.0.0/8', '::1/128']
";

fn place() -> Place {
    let place = Place::new();
    certificate(&place.0, 2040);
    for (name, text) in [
        ("backend", KEY),
        ("other", OTHER_KEY),
        ("shared", SHARED),
        ("short", "too short"),
        ("public.json", "{\"keys\":[]}"),
    ] {
        place.write(name, text);
    }
    place
}

fn load(place: &Place, text: &str) -> Result<Loaded, Report> {
    let file = Some(place.write("turnd.toml", text));
    let mut host = Host::of_process();
    host.state = StateDirectory::new(place.0.join("state"));
    let sources = Sources {
        file,
        ..Sources::default()
    };
    config::load(&sources, &host)
}

fn good(place: &Place, text: &str) -> Loaded {
    load(place, text).unwrap_or_else(|report| panic!("refused: {text}\n{report}"))
}

#[test]
fn what_is_shown_is_read_as_the_same() {
    let place = place();
    let once = good(&place, EVERYTHING);
    let token = once.parts.token.as_ref().unwrap();
    assert!(token.certificate.is_some());
    let settings = &token.settings;
    assert_eq!((settings.ttl, settings.max_ttl), (600, 7200));
    assert_eq!(settings.regions.len(), 2);
    let rights: Vec<_> = settings
        .keys
        .iter()
        .map(|key| (key.issues, key.revokes))
        .collect();
    assert_eq!(rights, [(true, true), (false, true)]);
    assert_eq!(settings.keys[0].max_ttl, Some(300));
    assert!(!format!("{:?}", settings.keys).contains(KEY));
    let again = good(&place, &once.config.to_string());
    assert_eq!(once.config, again.config);
}

#[test]
fn the_secret_that_the_server_makes_is_good_for_it() {
    let place = place();
    let text =
        "[token]\nlisten = ['http://127.0.0.1:0']\napi_keys = [{ id = 'b', file = 'backend' }]";
    let loaded = good(&place, text);
    let settings = loaded.parts.token.unwrap().settings;
    assert!(settings.secret.vouches_for_claims() && settings.keys[0].issues);
    assert!(settings.regions.is_empty(), "derived from the listeners");
    assert!(good(&place, "").parts.token.is_none());
}

/// As they are.
const ALONE: &[(&str, &str)] = &[
    ("listen = ['127.0.0.1:8089']", "token.listen"),
    ("listen = ['http://turn.test:80']", "token.listen"),
    ("listen = ['ftp://127.0.0.1:80']", "token.listen"),
    ("listen = ['unix:token.sock']", "token.listen"),
    ("listen = ['http://127.0.0.1:0']", "token.listen"),
    (
        "listen = ['https://127.0.0.1:0']\napi_keys = [{ id = 'b', file = 'backend' }]",
        "token.listen",
    ),
];

/// In a service that listens and has a key.
const LISTENING: &[(&str, &str)] = &[
    ("certificate = 'cert.pem'", "token.certificate"),
    (
        "certificate = 'gone.pem'\nkey = 'key.pem'",
        "token.certificate",
    ),
    ("urls = ['http://turn.test']", "token.urls"),
    ("urls = ['stun:turn.test']", "token.urls"),
    ("urls = []", "token.urls"),
    (
        "regions = [{ name = 'auto', urls = ['turn:a'] }]",
        "token.regions[0].name",
    ),
    (
        "regions = [{ name = 'a~b', urls = ['turn:a'] }]",
        "token.regions[0].name",
    ),
    ("regions = [{ name = 'a' }]", "token.regions[0]"),
    ("ttl = '0s'", "token.ttl"),
    ("ttl = '1500ms'", "token.ttl"),
    ("ttl = '2h'\nmax_ttl = '1h'", "token.ttl"),
    ("max_ttl = '30d'", "token.max_ttl"),
    ("dialects = ['native']", "token.dialects"),
    ("origins = ['*']", "token.origins"),
    ("origins = ['null']", "token.origins"),
    ("origins = ['https://a.test/']", "token.origins"),
    ("origins = ['https://a.test:443']", "token.origins"),
    ("origins = ['https://A.test']", "token.origins"),
    ("origins = ['https://*.a.test']", "token.origins"),
    ("proxies = ['10.0.0.1/8']", "token.proxies"),
    ("per_subject = -1", "token.per_subject"),
];

/// Of a key.
const KEYS: &[(&str, &str)] = &[
    ("id = 'b'", "token.api_keys[0]"),
    ("file = 'backend'", "token.api_keys[0]"),
    ("id = 'a b', file = 'backend'", "token.api_keys[0].id"),
    ("id = 'b', file = 'gone'", "token.api_keys[0].file"),
    ("id = 'b', file = 'short'", "token.api_keys[0].file"),
    (
        "id = 'b', file = 'backend', tenant = 'a~b'",
        "token.api_keys[0].tenant",
    ),
    (
        "id = 'b', file = 'backend', scopes = ['voip']",
        "token.api_keys[0].scopes",
    ),
    (
        "id = 'b', file = 'backend', key = 'secret'",
        "token.api_keys[0].key",
    ),
    (
        "id = 'b', file = 'backend' }, { id = 'b', file = 'other'",
        "token.api_keys[1].id",
    ),
];

/// Of an issuer with its name and audience.
const ISSUERS: &[(&str, &str)] = &[
    (
        "algorithms = ['none'], keys = 'shared'",
        "token.issuers[0].algorithms",
    ),
    (
        "algorithms = [], keys = 'shared'",
        "token.issuers[0].algorithms",
    ),
    (
        "algorithms = ['HS256', 'RS256'], keys = 'shared'",
        "token.issuers[0].algorithms",
    ),
    (
        "algorithms = ['HS256'], keys = 'https://a.test/jwks'",
        "token.issuers[0].algorithms",
    ),
    (
        "algorithms = ['HS256'], keys = 'short'",
        "token.issuers[0].keys",
    ),
    (
        "algorithms = ['RS256'], keys = 'shared'",
        "token.issuers[0].keys",
    ),
    (
        "algorithms = ['RS256'], keys = 'public.json'",
        "token.issuers[0].keys",
    ),
    (
        "algorithms = ['RS256'], keys = 'gone'",
        "token.issuers[0].keys",
    ),
    (
        "algorithms = ['RS256'], keys = 'http://a.test/jwks'",
        "token.issuers[0].keys",
    ),
    (
        "algorithms = ['RS256'], keys = 'https://u:p@a.test/'",
        "token.issuers[0].keys",
    ),
    ("algorithms = ['RS256']", "token.issuers[0]"),
    (
        "algorithms = ['HS256'], keys = 'shared', leeway = '1h'",
        "token.issuers[0].leeway",
    ),
];

#[test]
fn what_cannot_work_is_refused_with_its_place() {
    let place = place();
    let listen = "listen = ['http://127.0.0.1:0']";
    let key = "api_keys = [{ id = 'b', file = 'backend' }]";
    let issuer = "issuers = [{ issuer = 'i', audience = 'a',";
    let all = ALONE
        .iter()
        .map(|(text, wrong)| ((*text).to_owned(), *wrong))
        .chain(
            LISTENING
                .iter()
                .map(|(text, wrong)| (format!("{listen}\n{key}\n{text}"), *wrong)),
        )
        .chain(
            KEYS.iter()
                .map(|(text, wrong)| (format!("{listen}\napi_keys = [{{ {text} }}]"), *wrong)),
        )
        .chain(
            ISSUERS
                .iter()
                .map(|(text, wrong)| (format!("{listen}\n{key}\n{issuer} {text} }}]"), *wrong)),
        );
    for (text, wrong) in all {
        let text = format!("[token]\n{text}\n");
        let Err(report) = load(&place, &text) else {
            panic!("accepted: {text}");
        };
        let told = report
            .errors()
            .any(|problem| problem.key == wrong && !problem.remedy.is_empty());
        assert!(told, "{text}\n{report}");
    }
    let listen = format!("{listen}\n{key}");
    let users = "[auth]\nusers = [{ name = 'alice', password_file = 'alice' }]\n[token]\n";
    assert!(
        load(&place, &format!("{users}{listen}")).is_err(),
        "no secret to make any with"
    );
    let sha1 = "[auth]\nsecrets = [{ file = 'secret', encoding = 'base64url' }]";
    let report = load(&place, sha1).err().unwrap();
    assert_eq!(
        report.errors().next().unwrap().key,
        "auth.secrets[0].encoding"
    );
}

#[test]
fn what_is_probably_not_meant_is_warned_about() {
    let place = place();
    let warned = |text: &str| {
        let loaded = good(&place, text);
        let keys: Vec<String> = loaded
            .report
            .warnings()
            .map(|problem| problem.key.clone())
            .collect();
        keys
    };
    let keys = "api_keys = [{ id = 'b', file = 'backend' }]";
    assert!(warned(&format!("[token]\n{keys}")).contains(&"token.api_keys".to_owned()));
    let open = format!("[token]\nlisten = ['http://0.0.0.0:0']\n{keys}");
    assert!(warned(&open).contains(&"token.listen".to_owned()));
    let own = format!("[token]\nlisten = ['http://127.0.0.1:0']\n{keys}");
    assert!(!warned(&own).contains(&"token.listen".to_owned()));
}
