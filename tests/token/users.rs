//! Tokens of users: which are believed, and where the keys come from that they are checked with.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::service::{
    ISSUER, Service, claims, claims_with, configuration, prepared, sign, unix, user,
};

#[test]
fn tokens_that_are_not_good_are_refused() {
    let service = Service::start("");
    let now = unix();
    for wrong in [
        json!({ "exp": now - 3600 }),
        json!({ "exp": null }),
        json!({ "nbf": now + 3600 }),
        json!({ "iss": "https://other.test" }),
        json!({ "iss": null }),
        json!({ "aud": "chat" }),
        json!({ "aud": null }),
        json!({ "sub": null }),
        json!({ "sub": "" }),
    ] {
        let reply = service.issue(&sign(&claims_with("ann", &wrong)), &json!({}));
        assert_eq!(
            reply.expect(401)["type"],
            "urn:turnd:problem:bad-credentials",
            "{wrong}"
        );
        let challenge = reply.header("www-authenticate").unwrap();
        assert_eq!(challenge, "Bearer realm=\"turnd\", error=\"invalid_token\"");
    }
    for forbidden in [
        json!({ "scope": "chat" }),
        json!({ "tid": "a~t9999" }),
        json!({ "tid": ["acme"] }),
    ] {
        service
            .issue(&sign(&claims_with("ann", &forbidden)), &json!({}))
            .expect(403);
    }
    let good = user("ann");
    let parts: Vec<&str> = good.split('.').collect();
    let encoded = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = |value: Value| format!("{}.{}.{}", encoded(value), parts[1], parts[2]);
    for broken in [
        format!("{}.{}.", encoded(json!({ "alg": "none" })), parts[1]),
        header(json!({ "alg": "none" })),
        header(json!({ "alg": "HS512" })),
        header(json!({ "alg": "RS256" })),
        header(json!({ "alg": "HS256", "crit": ["x"] })),
        format!("{}.{}.{}", parts[0], encoded(claims("admin")), parts[2]),
        format!("{}.{}", parts[0], parts[1]),
        good[..good.len() - 4].to_owned(),
        "x".repeat(9000),
    ] {
        service.issue(&broken, &json!({})).expect(401);
    }
    for authorization in ["", "Bearer", "Bearer ", "Basic YTpi", "Token x", &good] {
        let headers = [("Authorization", authorization)];
        service
            .ask("POST", "/v1/relay/credentials", &headers, "")
            .expect(401);
    }
    service.issue(&good, &json!({})).expect(201);
}

/// A key pair of a login service.
struct Signer {
    key: EncodingKey,
    algorithm: Algorithm,
    pem: String,
    /// The public key of an Ed25519 pair is nothing but these bytes.
    raw: Vec<u8>,
}

impl Signer {
    fn new(algorithm: Algorithm) -> Self {
        let kind = if algorithm == Algorithm::ES256 {
            &rcgen::PKCS_ECDSA_P256_SHA256
        } else if algorithm == Algorithm::EdDSA {
            &rcgen::PKCS_ED25519
        } else {
            &rcgen::PKCS_RSA_SHA256
        };
        let pair = rcgen::KeyPair::generate_for(kind).unwrap();
        let pem = pair.serialize_pem();
        let key = EncodingKey::from_ec_pem(pem.as_bytes())
            .or_else(|_| EncodingKey::from_ed_pem(pem.as_bytes()))
            .or_else(|_| EncodingKey::from_rsa_pem(pem.as_bytes()));
        Self {
            key: key.unwrap(),
            algorithm,
            pem: pair.public_key_pem(),
            raw: rcgen::PublicKeyData::der_bytes(&pair).to_vec(),
        }
    }

    fn jwk(&self, kid: &str) -> Value {
        let mut jwk = if self.algorithm == Algorithm::EdDSA {
            json!({ "kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(&self.raw) })
        } else {
            let jwk = Jwk::from_encoding_key(&self.key, self.algorithm).unwrap();
            serde_json::to_value(jwk).unwrap()
        };
        jwk["kid"] = kid.into();
        jwk["use"] = "sig".into();
        jwk
    }

    fn token(&self, kid: Option<&str>) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = kid.map(str::to_owned);
        encode(&header, &claims("ann"), &self.key).unwrap()
    }
}

/// A service whose issuer signs with these algorithms and has its keys there.
fn with_issuer(algorithms: &str, keys: &str, file: Option<&str>) -> Service {
    let (start, at) = prepared(true, "");
    let text = configuration(
        &start,
        true,
        &format!("listen = ['http://{at}']\nper_subject = 0\nper_source = 0"),
    );
    let text = text
        .replace(
            "algorithms = ['HS256']",
            &format!("algorithms = [{algorithms}]"),
        )
        .replace("keys = 'shared'", &format!("keys = '{keys}'"));
    start.place.write("turnd.toml", &text);
    if let Some(file) = file {
        start.place.write(keys, file);
    }
    Service {
        daemon: start.ready(),
        at,
    }
}

#[test]
fn public_keys_come_from_a_file() {
    for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
        let signer = Signer::new(algorithm);
        let named = format!("'{algorithm:?}', 'PS256'");
        let service = with_issuer(&named, "public.pem", Some(&signer.pem));
        let good = |token: &str| service.issue(token, &json!({})).status;
        assert_eq!(good(&signer.token(None)), 201, "{algorithm:?}");
        assert_eq!(
            good(&signer.token(Some("any"))),
            201,
            "a PEM file has one key"
        );
        assert_eq!(good(&Signer::new(algorithm).token(None)), 401);
        // What anybody knows is taken for a shared key.
        let confused = encode(
            &Header::new(Algorithm::HS256),
            &claims("ann"),
            &EncodingKey::from_secret(signer.pem.as_bytes()),
        );
        assert_eq!(good(&confused.unwrap()), 401);
    }
}

#[test]
fn a_key_of_a_set_is_the_one_the_token_names() {
    let (one, two, other) = (
        Signer::new(Algorithm::ES256),
        Signer::new(Algorithm::ES256),
        Signer::new(Algorithm::EdDSA),
    );
    let set = json!({ "keys": [one.jwk("one"), two.jwk("two"), other.jwk("other"), { "kty": "oct", "kid": "oct", "k": "c2VjcmV0" }] });
    let service = with_issuer("'ES256'", "jwks.json", Some(&set.to_string()));
    let good = |token: String| service.issue(&token, &json!({})).status;
    assert_eq!(good(one.token(Some("one"))), 201);
    assert_eq!(good(two.token(Some("two"))), 201);
    assert_eq!(good(one.token(Some("two"))), 401);
    assert_eq!(good(one.token(Some("three"))), 401);
    assert_eq!(good(one.token(None)), 401, "which one?");
    assert_eq!(
        good(other.token(Some("other"))),
        401,
        "not by this algorithm"
    );
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some("oct".to_owned());
    let shared = encode(
        &header,
        &claims("ann"),
        &EncodingKey::from_secret(b"secret"),
    );
    assert_eq!(good(shared.unwrap()), 401);
}

/// A web server that says the same to everybody until told otherwise.
struct Web {
    at: SocketAddr,
    answer: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
}

impl Web {
    fn new(answer: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let web = Self {
            at: listener.local_addr().unwrap(),
            answer: Arc::new(Mutex::new(answer)),
            asked: Arc::default(),
        };
        let (answer, asked) = (Arc::clone(&web.answer), Arc::clone(&web.asked));
        // It ends with the process, as it waits for clients.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = [0; 4096];
                let _ = stream.read(&mut request);
                asked.fetch_add(1, Ordering::SeqCst);
                let _ = stream.write_all(answer.lock().unwrap().as_bytes());
            }
        });
        web
    }

    fn url(&self) -> String {
        format!("http://{}/jwks.json", self.at)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn ok(body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
}

#[test]
fn a_set_behind_a_url_is_fetched_once_whatever_tokens_say() {
    let signer = Signer::new(Algorithm::EdDSA);
    let set = json!({ "keys": [signer.jwk("one")] });
    let (web, elsewhere) = (
        Web::new(ok(&set.to_string())),
        Web::new(ok(&set.to_string())),
    );
    let service = with_issuer("'EdDSA'", &web.url(), None);
    for _ in 0..5 {
        service
            .issue(&signer.token(Some("one")), &json!({}))
            .expect(201);
    }
    assert_eq!(web.asked(), 1);
    // Keys that nobody knows, and places that a token names.
    for number in 0..5 {
        let kid = format!("unknown-{number}");
        service
            .issue(&signer.token(Some(&kid)), &json!({}))
            .expect(401);
    }
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = Some("two".to_owned());
    header.jku = Some(elsewhere.url());
    header.x5u = Some(elsewhere.url());
    header.jwk = Some(serde_json::from_value(signer.jwk("two")).unwrap());
    let token = encode(&header, &claims("ann"), &signer.key).unwrap();
    service.issue(&token, &json!({})).expect(401);
    let token = encode(
        &header,
        &claims_with("ann", &json!({ "iss": elsewhere.url() })),
        &signer.key,
    );
    service.issue(&token.unwrap(), &json!({})).expect(401);
    assert_eq!((web.asked(), elsewhere.asked()), (1, 0));
}

#[test]
fn an_answer_that_is_no_set_makes_no_key() {
    let signer = Signer::new(Algorithm::EdDSA);
    let set = json!({ "keys": [signer.jwk("one")] }).to_string();
    let elsewhere = Web::new(ok(&set));
    let long = format!("{}{}", " ".repeat(300_000), set);
    for answer in [
        format!(
            "HTTP/1.1 302 Found\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n",
            elsewhere.url()
        ),
        format!(
            "HTTP/1.1 500 Oh\r\nContent-Length: {}\r\n\r\n{set}",
            set.len()
        ),
        ok(&long),
        ok("hello"),
        ok("{\"keys\":[]}"),
        ok(&json!({ "keys": [{ "kty": "oct", "kid": "one", "k": "c2VjcmV0" }] }).to_string()),
        String::new(),
    ] {
        let web = Web::new(answer);
        let mut service = with_issuer("'EdDSA'", &web.url(), None);
        let reply = service.issue(&signer.token(Some("one")), &json!({}));
        assert_eq!(reply.expect(503)["type"], "urn:turnd:problem:unavailable");
        service.daemon.log("the issuer's keys cannot be had");
        assert!(web.asked() >= 1);
    }
    assert_eq!(elsewhere.asked(), 0, "redirects are not followed");
}

#[test]
fn keys_that_are_known_outlive_a_reload_while_they_cannot_be_had() {
    let signer = Signer::new(Algorithm::EdDSA);
    let set = json!({ "keys": [signer.jwk("one")] }).to_string();
    let web = Web::new(ok(&set));
    let mut service = with_issuer("'EdDSA'", &web.url(), None);
    let token = signer.token(Some("one"));
    service.issue(&token, &json!({})).expect(201);
    *web.answer.lock().unwrap() = "HTTP/1.1 503 Later\r\nContent-Length: 0\r\n\r\n".to_owned();
    service.daemon.signal(rustix::process::Signal::HUP);
    service.daemon.expect("RELOADING=1");
    service.daemon.expect("READY=1");
    service.issue(&token, &json!({})).expect(201);
    assert_eq!(web.asked(), 1);
}

#[test]
fn the_issuer_is_the_one_that_is_configured() {
    let service = Service::start("");
    assert!(user("ann").len() > 100);
    let other = claims_with("ann", &json!({ "iss": [ISSUER, "https://evil.test"] }));
    service.issue(&sign(&other), &json!({})).expect(401);
}
