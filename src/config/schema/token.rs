//! `[token]`: where credentials are handed out, to whom, and for what.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::admin::LONGEST_SOCKET;
use crate::config::problem::Complaint;
use crate::config::section::Section;
use crate::config::{ApiKeySource, IssuerKeys, IssuerSource, Token, values};
use crate::token::{Algorithm, Dialect, IceUrl, KeySet, Listen, Rates, Region};

use super::plain;

const DIALECTS: [(&str, Dialect); 6] = [
    ("turn-rest", Dialect::TurnRest),
    ("stunner", Dialect::Stunner),
    ("azure", Dialect::Azure),
    ("cloudflare", Dialect::Cloudflare),
    ("twilio", Dialect::Twilio),
    ("aws", Dialect::Aws),
];
const ALGORITHMS: [(&str, Algorithm); 12] = [
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
    ("HS256", Algorithm::HS256),
    ("HS384", Algorithm::HS384),
    ("HS512", Algorithm::HS512),
];
/// What a key may do, as in the scopes of tokens.
const SCOPES: [(&str, Scope); 2] = [
    ("relay.issue", Scope::Issue),
    ("relay.revoke", Scope::Revoke),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    Issue,
    Revoke,
}

const SHORTEST_TTL: Duration = Duration::from_secs(1);
const LONGEST_TTL: Duration = Duration::from_secs(7 * 24 * 3600);
const LONGEST_LEEWAY: Duration = Duration::from_secs(300);
const DEFAULT: Rates = Rates {
    subject: 10,
    tenant: 30_000,
    source: 300,
};

pub(super) fn read(section: &mut Section<'_>) -> Token {
    let (mut ids, mut names, mut regions) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let listen = section.list("listen", listen).unwrap_or_default();
    let certificate = super::tls::certificate(section);
    let urls = section.list("urls", url).unwrap_or_default();
    check_urls(section, &urls);
    let ttl = section
        .parsed("ttl", ttl)
        .unwrap_or(Duration::from_secs(3600));
    let max_ttl = section
        .parsed("max_ttl", ttl_bound)
        .unwrap_or(Duration::from_secs(24 * 3600));
    if ttl > max_ttl {
        let remedy = "make max_ttl as long as ttl at least";
        section.error(
            "ttl",
            Complaint::new("this is longer than max_ttl allows", remedy),
        );
    }
    let dialects = section.list("dialects", |text| values::word(text, &DIALECTS));
    Token {
        listen,
        certificate,
        urls,
        regions: section
            .tables("regions", |section| region(section, &mut regions))
            .into_iter()
            .flatten()
            .flatten()
            .collect(),
        ttl,
        max_ttl,
        dialects: dialects.unwrap_or_default(),
        origins: section.list("origins", origin).unwrap_or_default(),
        api_keys: section
            .tables("api_keys", |section| api_key(section, &mut ids))
            .into_iter()
            .flatten()
            .flatten()
            .collect(),
        issuers: section
            .tables("issuers", |section| issuer(section, &mut names))
            .into_iter()
            .flatten()
            .flatten()
            .collect(),
        rates: rates(section),
        proxies: section.list("proxies", values::prefix).unwrap_or_default(),
    }
}

fn rates(section: &mut Section<'_>) -> Rates {
    let mut number = |key, default| section.number(key, 0, u32::MAX).unwrap_or(default);
    Rates {
        subject: number("per_subject", DEFAULT.subject),
        tenant: number("per_tenant", DEFAULT.tenant),
        source: number("per_source", DEFAULT.source),
    }
}

fn listen(text: &str) -> Result<Listen, Complaint> {
    let remedy = "write \"http://127.0.0.1:8089\", \"https://0.0.0.0:8443\" or \"unix:/run/turnd/token.sock\"";
    let wrong = || Complaint::new(format!("`{text}` is no place to listen at"), remedy);
    if let Some(path) = text.strip_prefix("unix:") {
        let path = PathBuf::from(path);
        let fits = path.is_absolute() && path.as_os_str().len() < LONGEST_SOCKET;
        return fits.then_some(Listen::Unix(path)).ok_or_else(wrong);
    }
    let (scheme, address) = text.split_once("://").ok_or_else(wrong)?;
    let address = values::socket_address(address.trim_end_matches('/'))?;
    match scheme {
        "http" => Ok(Listen::Http(address)),
        "https" => Ok(Listen::Https(address)),
        _ => Err(wrong()),
    }
}

fn ttl(text: &str) -> Result<Duration, Complaint> {
    let ttl = ttl_bound(text)?;
    if ttl.subsec_nanos() == 0 {
        Ok(ttl)
    } else {
        Err(Complaint::new(
            "a credential is good for whole seconds",
            "write a duration such as \"1h\"",
        ))
    }
}

fn ttl_bound(text: &str) -> Result<Duration, Complaint> {
    values::duration_within(text, SHORTEST_TTL..=LONGEST_TTL)
}

fn url(text: &str) -> Result<IceUrl, Complaint> {
    IceUrl::parse(text).ok_or_else(|| {
        let remedy = "write it as in \"turn:turn.example.org:3478?transport=udp\", \"turns:turn.example.org:443?transport=tcp\" or \"stun:turn.example.org:3478\"";
        Complaint::new(format!("`{text}` is no URL of a STUN or TURN server"), remedy)
    })
}

/// Without a server that relays a credential is good for nothing.
fn check_urls(section: &Section<'_>, urls: &[IceUrl]) {
    let relays = |url: &IceUrl| url.as_str().starts_with("turn");
    if section.is_given("urls") && !urls.iter().any(relays) {
        section.error(
            "urls",
            Complaint::new(
                "there is no relay among these",
                "add one, as in \"turn:turn.example.org:3478?transport=udp\"",
            ),
        );
    }
}

fn region(section: &mut Section<'_>, seen: &mut BTreeSet<String>) -> Option<Region> {
    let name = section.parsed("name", plain);
    let urls = section.list("urls", url);
    check_urls(section, urls.as_deref().unwrap_or_default());
    for (key, what) in [("name", "name"), ("urls", "list of urls")] {
        if !section.is_given(key) {
            let remedy = "write { name = \"eu-west\", urls = [\"turn:…\"] }";
            section.error(
                "",
                Complaint::new(format!("this region has no {what}"), remedy),
            );
        }
    }
    let name = name?;
    if name == "auto" || !seen.insert(name.clone()) {
        let what = format!("there cannot be another region of the name `{name}`");
        section.error("name", Complaint::new(what, "give each a name of its own"));
    }
    Some(Region {
        name: Some(name),
        urls: urls?,
    })
}

/// An origin as browsers write it: no path, no port that goes without saying, no capitals.
fn origin(text: &str) -> Result<String, Complaint> {
    let remedy = "write it as browsers do, as in \"https://app.example.org\" or \"http://localhost:8080\": one of them, without a path";
    let wrong = |what: &str| Complaint::new(format!("`{text}` {what}"), remedy);
    let (scheme, place) = text
        .split_once("://")
        .ok_or_else(|| wrong("is no origin"))?;
    let usual = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => return Err(wrong("is no origin of a page")),
    };
    let is_free =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.:[]".contains(&byte);
    if place.is_empty() || !place.bytes().all(is_free) || place.ends_with(usual) {
        return Err(wrong("is not written as browsers write it"));
    }
    Ok(text.to_owned())
}

fn api_key(section: &mut Section<'_>, ids: &mut BTreeSet<String>) -> Option<ApiKeySource> {
    let id = section.parsed("id", plain);
    let file = section.secret_file("file");
    let tenant = section.parsed("tenant", plain).unwrap_or_default();
    let scopes = section
        .list("scopes", |text| values::word(text, &SCOPES))
        .unwrap_or_else(|| vec![Scope::Issue]);
    let max_ttl = section.parsed("max_ttl", ttl);
    if section.is_empty_list("scopes") {
        let what = "this key could be used for nothing";
        let remedy = "name \"relay.issue\", \"relay.revoke\" or both, or leave scopes out";
        section.error("scopes", Complaint::new(what, remedy));
    }
    if !section.is_given("id") {
        let remedy = "add id = \"backend\"";
        section.error("", Complaint::new("this key has no name", remedy));
    }
    if !section.is_given("file") {
        let remedy = "add file = \"/etc/turnd/backend-key\"; `turnd genkey` prints a good key to put there and into the backend";
        section.error(
            "",
            Complaint::new(
                "this key names no file; a key itself never stands in the configuration",
                remedy,
            ),
        );
    }
    let id = id?;
    if !ids.insert(id.clone()) {
        let what = format!("there are two keys with the id `{id}`");
        section.error("id", Complaint::new(what, "give each an id of its own"));
    }
    Some(ApiKeySource {
        id,
        file: file?,
        tenant,
        issues: scopes.contains(&Scope::Issue),
        revokes: scopes.contains(&Scope::Revoke),
        max_ttl,
        key: section.name("file"),
    })
}

fn issuer(section: &mut Section<'_>, names: &mut BTreeSet<String>) -> Option<IssuerSource> {
    let name = section.parsed("issuer", words);
    let audience = section.parsed("audience", words);
    let algorithms = section.list("algorithms", |text| values::word(text, &ALGORITHMS));
    let keys = issuer_keys(section);
    for (key, remedy) in [
        (
            "issuer",
            "add issuer = \"https://login.example.org\", as in the `iss` of its tokens",
        ),
        (
            "audience",
            "add audience = \"turn\", which must be in the `aud` of its tokens",
        ),
        (
            "algorithms",
            "add algorithms = [\"RS256\"], what its tokens are signed with",
        ),
        (
            "keys",
            "add keys, the URL of its key set (JWKS), or a file with it, with a public key as PEM or with a shared key",
        ),
    ] {
        if !section.is_given(key) {
            section.error(
                "",
                Complaint::new(format!("this issuer has no {key}"), remedy),
            );
        }
    }
    let source = IssuerSource {
        tenant_claim: section.parsed("tenant_claim", words),
        tenant: section.parsed("tenant", plain).unwrap_or_default(),
        scopes: section.list("scopes", words).unwrap_or_default(),
        leeway: section
            .parsed("leeway", |text| {
                values::duration_within(text, Duration::ZERO..=LONGEST_LEEWAY)
            })
            .unwrap_or(Duration::from_secs(60)),
        algorithms: algorithms?,
        name: name?,
        audience: audience?,
        key: section.name("keys"),
        keys: keys?,
    };
    check_algorithms(section, &source);
    if !names.insert(source.name.clone()) {
        let what = "there are two issuers of this name";
        section.error("issuer", Complaint::new(what, "make one of them"));
    }
    Some(source)
}

/// Where tokens may be signed with a shared key or a public one, the public one can be taken for a shared one.
fn check_algorithms(section: &Section<'_>, source: &IssuerSource) {
    let shared = source.algorithms.iter().filter(|algorithm| {
        matches!(
            algorithm,
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512
        )
    });
    let (shared, all) = (shared.count(), source.algorithms.len());
    let complaint = if all == 0 {
        Complaint::new(
            "there is no algorithm",
            "name what its tokens are signed with",
        )
    } else if shared != 0 && shared != all {
        Complaint::new(
            "HS256 and the like go with a shared key, the others with public ones",
            "name either those or these",
        )
    } else if shared != 0 && matches!(source.keys, IssuerKeys::Url(_)) {
        Complaint::new(
            "a key that is shared cannot lie behind a URL",
            "name the file that the shared key lies in under keys",
        )
    } else {
        return;
    };
    section.error("algorithms", complaint);
}

fn issuer_keys(section: &mut Section<'_>) -> Option<IssuerKeys> {
    let url = section.parsed("keys", |text| {
        if !text.contains("://") {
            return Ok(None);
        }
        match KeySet::remote(text) {
            Some(_) => Ok(Some(text.to_owned())),
            None => Err(Complaint::new(
                "keys are not fetched from there",
                "write an https URL without a user in it; http is for loopback alone",
            )),
        }
    })?;
    match url {
        Some(url) => Some(IssuerKeys::Url(url)),
        None => section.secret_file("keys").map(IssuerKeys::File),
    }
}

fn words(text: &str) -> Result<String, Complaint> {
    let fits = (1..=512).contains(&text.len()) && !text.chars().any(char::is_control);
    fits.then(|| text.to_owned()).ok_or_else(|| {
        Complaint::new(
            "this is empty or too long",
            "write it as it stands in the tokens",
        )
    })
}
