//! The native endpoint, field by field.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use serde_json::{Value, json};
use turnd::turn::Issued;

use crate::http;
use crate::process::{SECRET, Start, certificate};
use crate::service::{
    ISSUER, KEY, ORIGIN, OTHER_KEY, SHARED, Service, allocate, ask, claims_with, configuration,
    connect, prepared, sign, unix, user,
};
use crate::wire::PATIENCE;

const PATH: &str = "/v1/relay/credentials";

/// Compares a problem with what RFC 9457 and this service promise of it.
#[track_caller]
fn problem(reply: &http::Reply, status: u16, name: &str) {
    let body = reply.expect(status);
    assert_eq!(
        reply.header("content-type"),
        Some("application/problem+json")
    );
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.header("vary"), Some("Origin"));
    assert_eq!(body["type"], format!("urn:turnd:problem:{name}"), "{body}");
    assert_eq!(body["status"], status);
    let keys: Vec<&String> = body.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["detail", "status", "title", "type"]);
    assert!(body["title"].is_string() && body["detail"].is_string());
    assert_eq!(reply.header("www-authenticate").is_some(), status == 401);
    assert_eq!(reply.header("retry-after").is_some(), status == 429);
}

/// The self-test asks where it came from, which is no foreign place; pages of others stay out.
#[test]
fn the_self_test_is_served_and_may_ask() {
    let service = Service::start("");
    let page = service.ask("GET", "/self-test", &[], "");
    assert_eq!(page.status, 200);
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("connect-src 'self'"), "{policy}");
    let token = format!("Bearer {}", user("8:acme:alice"));
    let ask = |origin: &str| {
        let headers = [("Authorization", token.as_str()), ("Origin", origin)];
        service.ask("POST", PATH, &headers, "")
    };
    // Behind a proxy with TLS as well.
    for own in ["http://turn.test", "https://turn.test"] {
        assert!(ask(own).expect(201)["iceServers"].is_array());
    }
    for foreign in [
        "http://evil.example",
        "http://turn.test:81",
        "turn.test",
        "null",
    ] {
        problem(&ask(foreign), 403, "foreign-origin");
    }
}

#[test]
fn a_user_gets_what_a_page_needs_and_the_relay_takes_it() {
    let service = Service::start("");
    let before = unix();
    let reply = service.ask(
        "POST",
        PATH,
        &[("Authorization", &format!("Bearer {}", user("8:acme:alice")))],
        "",
    );
    let body = reply.expect(201);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.header("vary"), Some("Origin"));
    assert_eq!(reply.header("access-control-allow-origin"), None);
    let keys: Vec<&String> = body.as_object().unwrap().keys().collect();
    let wanted = [
        "credentialId",
        "expiresOn",
        "iceServers",
        "iceTransportPolicy",
        "refreshAfter",
        "ttl",
    ];
    assert_eq!(keys, wanted);
    assert_eq!(
        (&body["ttl"], &body["refreshAfter"]),
        (&json!(3600), &json!(2880))
    );
    assert_eq!(body["iceTransportPolicy"], "all");
    let udp = service.daemon.udp;
    assert_eq!(
        body["iceServers"][0],
        json!({ "urls": [format!("stun:{udp}")] })
    );
    let server = &body["iceServers"][1];
    let urls = [
        format!("turn:{udp}?transport=udp"),
        format!("turn:{udp}?transport=tcp"),
    ];
    assert_eq!(server["urls"], json!(urls));
    let username = server["username"].as_str().unwrap();
    let issued = Issued::parse(username.as_bytes()).unwrap().unwrap();
    assert_eq!(
        (issued.kid, issued.tenant, issued.subject),
        ("k2", "acme", "8_3aacme_3aalice")
    );
    assert_eq!(issued.claims.ttl, Some(3600));
    assert_eq!(issued.claims.id, body["credentialId"].as_str());
    assert!((before + 3600..=unix() + 3600).contains(&issued.expiry));
    let expires = body["expiresOn"].as_str().unwrap();
    assert!(expires.ends_with('Z') && expires.len() == 20, "{expires}");
    let password = server["credential"].as_str().unwrap();
    assert!(
        password.len() == 43 && !password.contains(['+', '/', '=']),
        "base64url of SHA-256"
    );
    service.allocates(username, password);
    assert_eq!(allocate(udp, username, "another password"), 401);
    let forged = username.replace("~t3600", "~t9999");
    assert_eq!(allocate(udp, &forged, password), 401);
}

#[test]
fn a_wish_is_granted_within_bounds() {
    let urls = "urls = ['stun:a.test:3478', 'turn:a.test:3478?transport=udp', 'turns:a.test:443?transport=tcp']\n\
                regions = [{ name = 'us-east', urls = ['turn:b.test:3478?transport=tcp'] }]\nmax_ttl = '2h'";
    let service = Service::start(urls);
    let wish = json!({
        "ttl": 60, "user": "bob", "region": "us-east", "transports": ["tcp"],
        "limits": { "allocations": 8, "bitsPerSecond": 4_000_000, "peers": "media" },
    });
    let body = service.issue(KEY, &wish).expect(201);
    assert_eq!(
        (&body["ttl"], &body["refreshAfter"]),
        (&json!(60), &json!(48))
    );
    assert_eq!(body["iceServers"].as_array().unwrap().len(), 1);
    let server = &body["iceServers"][0];
    assert_eq!(server["urls"], json!(["turn:b.test:3478?transport=tcp"]));
    assert_eq!(server["region"], "us-east");
    let username = server["username"].as_str().unwrap();
    let issued = Issued::parse(username.as_bytes()).unwrap().unwrap();
    assert_eq!((issued.tenant, issued.subject), ("acme", "bob"));
    assert_eq!(issued.claims.allocations, Some(8));
    assert_eq!(issued.claims.bits_per_second, Some(4_000_000));
    assert_eq!(issued.claims.policy, Some("media"));
    assert_eq!(issued.claims.region, Some("us-east"));

    let body = service.issue(KEY, &json!({ "ttl": 1_000_000 })).expect(201);
    assert_eq!(body["ttl"], 7200, "lowered, not refused");
    let body = service
        .issue(KEY, &json!({ "transports": ["tls"], "region": "auto" }))
        .expect(201);
    assert_eq!(
        body["iceServers"][0]["urls"],
        json!(["turns:a.test:443?transport=tcp"])
    );
    assert_eq!(body["iceServers"][0]["region"], Value::Null);

    for wrong in [
        json!({ "ttl": 0 }),
        json!({ "ttl": -1 }),
        json!({ "ttl": 1.5 }),
        json!({ "ttl": "3600" }),
        json!({ "user": 17 }),
        json!({ "user": "" }),
        json!({ "user": "x".repeat(500) }),
        json!({ "region": "mars" }),
        json!({ "transports": [] }),
        json!({ "transports": ["sctp"] }),
        json!({ "transports": ["dtls"] }),
        json!({ "limits": { "bandwidth": 1 } }),
        json!({ "limits": { "allocations": -1 } }),
        json!({ "limits": { "peers": "a~b" } }),
        json!({ "unknown": true }),
        json!([60]),
    ] {
        problem(&service.issue(KEY, &wrong), 422, "unprocessable");
    }
}

#[test]
fn who_asks_for_others_must_be_allowed_to() {
    let service = Service::start("");
    let own = service
        .issue(&user("ann"), &json!({ "user": "ann" }))
        .expect(201);
    assert!(own["credentialId"].is_string());
    problem(
        &service.issue(&user("ann"), &json!({ "user": "bob" })),
        403,
        "forbidden",
    );
    problem(
        &service.issue(&user("ann"), &json!({ "limits": { "peers": "media" } })),
        403,
        "forbidden",
    );
    problem(&service.issue(OTHER_KEY, &json!({})), 403, "forbidden");
    let robot = sign(&claims_with("robot", &json!({ "scope": "relay.issue" })));
    service.issue(&robot, &json!({ "user": "bob" })).expect(201);
    // Nobody in particular is somebody else each time.
    let nobody = || service.issue(KEY, &json!({})).expect(201)["iceServers"][1]["username"].clone();
    let person = |name: Value| name.as_str().unwrap().split('~').nth(2).unwrap().to_owned();
    assert_ne!(person(nobody()), person(nobody()));
}

#[test]
fn requests_that_make_no_sense_are_told_so() {
    let service = Service::start("");
    let bearer = format!("Bearer {KEY}");
    let ask = |kind: &str, body: &str| {
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", kind)];
        service.ask("POST", PATH, &headers, body)
    };
    problem(&ask("application/json", "{"), 400, "malformed");
    problem(&ask("application/json", "\u{0}"), 400, "malformed");
    problem(&ask("text/plain", "{}"), 415, "media-type");
    ask("Application/JSON; charset=utf-8", "{}").expect(201);
    let long = format!("{{\"user\":\"{}\"}}", "x".repeat(70_000));
    problem(&ask("application/json", &long), 413, "too-large");
    problem(
        &service.ask("GET", PATH, &[("Authorization", &bearer)], ""),
        405,
        "method-not-allowed",
    );
    problem(
        &service.ask("POST", "/v1/relay", &[("Authorization", &bearer)], ""),
        404,
        "not-found",
    );
    problem(
        &service.ask("GET", "/turn?service=turn&key=x", &[], ""),
        404,
        "not-found",
    );
    // More head than anybody needs ends the connection, or is answered as HTTP has it.
    let long = "x".repeat(20_000);
    let reply = service.ask("POST", PATH, &[("Authorization", &long)], "");
    assert_eq!(reply.status, 431);
}

#[test]
fn a_plain_secret_makes_plain_names() {
    let service = Service::start_with(false, "");
    let body = service.issue(&user("ann"), &json!({})).expect(201);
    assert_eq!(body["credentialId"], Value::Null);
    let server = &body["iceServers"][1];
    let username = server["username"].as_str().unwrap();
    assert_eq!(username.split_once(':').unwrap().1, "ann");
    service.allocates(username, server["credential"].as_str().unwrap());
    problem(
        &service.issue(KEY, &json!({ "limits": { "allocations": 1 } })),
        422,
        "unprocessable",
    );
    problem(
        &service.issue(KEY, &json!({ "user": "k2~acme~ann" })),
        422,
        "unprocessable",
    );
}

#[test]
fn pages_of_other_origins_get_nothing() {
    let service = Service::start("");
    let bearer = format!("Bearer {}", user("ann"));
    let ask = |method: &str, origin: &str, more: &[(&str, &str)]| {
        let mut headers = vec![("Origin", origin)];
        headers.extend(more);
        service.ask(method, PATH, &headers, "")
    };
    let reply = ask("POST", ORIGIN, &[("Authorization", &bearer)]);
    reply.expect(201);
    assert_eq!(reply.header("access-control-allow-origin"), Some(ORIGIN));
    assert_eq!(reply.header("vary"), Some("Origin"));
    assert_eq!(reply.header("access-control-allow-credentials"), None);
    // An error must be readable for the page, too.
    let reply = ask("POST", ORIGIN, &[]);
    problem(&reply, 401, "no-credentials");
    assert_eq!(reply.header("access-control-allow-origin"), Some(ORIGIN));

    let wants = [
        ("Access-Control-Request-Method", "POST"),
        (
            "Access-Control-Request-Headers",
            "authorization,content-type",
        ),
    ];
    let reply = ask("OPTIONS", ORIGIN, &wants);
    reply.expect(204);
    assert_eq!(reply.header("access-control-allow-origin"), Some(ORIGIN));
    assert_eq!(
        reply.header("access-control-allow-headers"),
        Some("authorization, content-type")
    );
    assert_eq!(
        reply.header("access-control-allow-methods"),
        Some("DELETE, GET, POST")
    );
    assert_eq!(reply.header("access-control-max-age"), Some("600"));

    for foreign in [
        "https://evil.example",
        "null",
        "",
        "https://app.example.org.evil.example",
        "https://app.example.org:8443",
        "http://app.example.org",
        "https://APP.example.org",
        "https://app.example.org/",
    ] {
        for (method, more) in [
            ("POST", &[("Authorization", bearer.as_str())][..]),
            ("OPTIONS", &wants[..]),
        ] {
            let reply = ask(method, foreign, more);
            problem(&reply, 403, "foreign-origin");
            for name in ["allow-origin", "allow-headers", "allow-methods", "max-age"] {
                assert_eq!(reply.header(&format!("access-control-{name}")), None);
            }
        }
    }
}

#[test]
fn who_asks_too_often_is_told_when_to_come_back() {
    let service = Service::start("per_subject = 3\nper_source = 20");
    for _ in 0..3 {
        service.issue(&user("ann"), &json!({})).expect(201);
    }
    let reply = service.issue(&user("ann"), &json!({}));
    problem(&reply, 429, "too-many-requests");
    let seconds: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=21).contains(&seconds), "{seconds}");
    service.issue(&user("bob"), &json!({})).expect(201);
    // One who may not have a credential for another does not use up the other's.
    for _ in 0..5 {
        service.issue(&user("mallory"), &json!({ "user": "carl" }));
    }
    service.issue(&user("carl"), &json!({})).expect(201);
    // Guesses use up what a network has, and a backend with its key is not held up by them.
    let guess = |number: u32| service.issue(&format!("guess-{number}"), &json!({})).status;
    let answers: Vec<u16> = (0..20).map(guess).collect();
    assert_eq!(answers.last(), Some(&429), "{answers:?}");
    problem(
        &service.issue(&user("dora"), &json!({})),
        429,
        "too-many-requests",
    );
    service.issue(KEY, &json!({ "user": "dora" })).expect(201);
}

#[test]
fn no_user_uses_up_what_a_tenant_has() {
    let service = Service::start("per_subject = 3\nper_tenant = 10\nper_source = 0");
    for _ in 0..20 {
        service.issue(&user("ann"), &json!({}));
    }
    service.issue(&user("bob"), &json!({})).expect(201);
}

#[test]
fn a_host_has_so_many_connections_and_no_more() {
    let mut service = Service::start("");
    let held: Vec<_> = (0..64).map(|_| connect(service.at)).collect();
    let mut refused = connect(service.at);
    let mut said = Vec::new();
    let _ = refused.read_to_end(&mut said);
    assert!(said.is_empty());
    let line = service.daemon.log("credential refused");
    assert_eq!(line["detail"], "too many connections at a time");
    // Others come in, and so does this one when it has let go of some.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let other: std::net::SocketAddr = "127.0.0.2:0".parse().unwrap();
    socket.bind(&other.into()).unwrap();
    socket.connect(&service.at.into()).unwrap();
    let mut other = std::net::TcpStream::from(socket);
    other.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = http::request("GET", "/.well-known/relay", &[], b"");
    http::exchange(&mut other, &request).expect(200);
    drop(held);
    let served = (0..100).any(|_| {
        let mut again = connect(service.at);
        again.write_all(&request).unwrap();
        http::read(&mut again).is_some()
    });
    assert!(served);
}

#[test]
fn what_the_router_refuses_is_a_problem_too() {
    let mut service = Service::start("per_source = 0");
    let bad = "/v1/relay/credentials/%ff";
    problem(&service.ask("DELETE", bad, &[], ""), 400, "malformed");
    assert_eq!(
        service.daemon.log("credential refused")["reason"],
        "malformed"
    );
    for (method, path, allowed) in [
        ("GET", PATH, "POST"),
        ("DELETE", PATH, "POST"),
        ("POST", "/openapi.json", "GET,HEAD"),
        ("PUT", "/v1/relay/credentials/x", "DELETE"),
    ] {
        let reply = service.ask(method, path, &[], "");
        problem(&reply, 405, "method-not-allowed");
        assert_eq!(reply.header("allow"), Some(allowed), "{method} {path}");
    }
}

#[test]
fn a_proxy_says_where_requests_come_from() {
    let service = Service::start("per_source = 1\nproxies = ['127.0.0.0/8']");
    let from = |client: &str| {
        service
            .ask("POST", PATH, &[("X-Forwarded-For", client)], "")
            .status
    };
    assert_eq!(from("198.51.100.7"), 401);
    assert_eq!(from("198.51.100.8"), 429);
    assert_eq!(
        from("203.0.113.1, 198.51.100.9"),
        429,
        "the last word counts"
    );
    assert_eq!(from("203.0.113.1"), 401);
}

#[test]
fn anybody_may_know_what_there_is() {
    let service = Service::start(
        "dialects = ['turn-rest', 'azure']\nregions = [{ name = 'eu', urls = ['turn:a.test'] }]",
    );
    let reply = service.ask("GET", "/.well-known/relay", &[], "");
    assert_eq!(
        reply.expect(200),
        json!({
            "realm": "turnd",
            "regions": [{ "name": "eu", "urls": ["turn:a.test"] }],
            "credentials": PATH,
            "dialects": ["turn-rest", "azure"],
            "maxTtl": 86_400,
        })
    );
}

#[test]
fn what_is_done_is_counted_and_told_and_no_secret_with_it() {
    let mut service = Service::start("");
    let token = user("ann\nforged line");
    let body = service.issue(&token, &json!({})).expect(201);
    let password = body["iceServers"][1]["credential"]
        .as_str()
        .unwrap()
        .to_owned();
    let line = service.daemon.log("credential issued");
    assert_eq!(line["user"], "ann\\nforged line");
    assert_eq!(
        (&line["tenant"], &line["issuer"]),
        (&json!("acme"), &json!(ISSUER))
    );
    assert_eq!(
        (&line["dialect"], &line["ttl"]),
        (&json!("native"), &json!(3600))
    );
    assert_eq!(line["credential"], body["credentialId"]);
    assert_eq!(line["source"], "127.0.0.1");
    service.issue(KEY, &json!({ "user": "bob" })).expect(201);
    let line = service.daemon.log("credential issued");
    assert_eq!(
        (&line["user"], &line["key"]),
        (&json!("bob"), &json!("backend"))
    );
    let wrong = "MARKER-wrong-key-that-somebody-tries";
    service.issue(wrong, &json!({})).expect(401);
    let line = service.daemon.log("credential refused");
    assert_eq!(line["reason"], "unauthenticated");
    service
        .issue(&user("ann"), &json!({ "user": "bob" }))
        .expect(403);
    let line = service.daemon.log("credential refused");
    assert_eq!(
        (&line["reason"], &line["user"]),
        (&json!("forbidden"), &json!("ann"))
    );
    let metric = |name: &str| service.daemon.metric(name);
    assert_eq!(metric("turn_tokens_issued_total{dialect=\"native\"}"), 2.0);
    assert_eq!(metric("turn_tokens_issued_total{dialect=\"azure\"}"), 0.0);
    assert_eq!(
        metric("turn_tokens_refused_total{reason=\"unauthenticated\"}"),
        1.0
    );
    assert_eq!(
        metric("turn_tokens_refused_total{reason=\"forbidden\"}"),
        1.0
    );
    let (_, page) = service.daemon.get("/metrics");
    let said = service.daemon.all_said() + &page;
    for secret in [SECRET, KEY, SHARED, token.as_str(), &password, wrong] {
        assert!(!said.contains(secret), "{secret}");
    }
}

#[test]
fn refusals_do_not_flood_the_log() {
    let mut service = Service::start("per_source = 0");
    let mut stream = connect(service.at);
    for _ in 0..200 {
        let request = http::request("POST", PATH, &[], b"");
        assert_eq!(http::exchange(&mut stream, &request).status, 401);
    }
    let said = service.daemon.all_said();
    let lines = said.matches("credential refused").count();
    assert!((1..150).contains(&lines), "{lines}");
}

#[test]
fn a_client_that_is_slow_is_not_waited_for() {
    let service = Service::start("");
    let mut silent = connect(service.at);
    let mut drip = connect(service.at);
    drip.write_all(b"POST /v1/relay/credentials HTTP/1.1\r\nHost: x\r\nX-")
        .unwrap();
    let mut rest = Vec::new();
    silent.set_read_timeout(Some(PATIENCE * 4)).unwrap();
    drip.set_read_timeout(Some(PATIENCE * 4)).unwrap();
    // Both are hung up on; what is said before that does not matter.
    silent.read_to_end(&mut rest).unwrap();
    drip.read_to_end(&mut rest).unwrap();
    service.issue(KEY, &json!({})).expect(201);
}

#[test]
fn a_reload_takes_keys_and_secrets_in() {
    let mut service = Service::start("");
    let url = format!(
        "listen = ['http://{}']\nurls = ['turn:new.test']\nper_subject = 0",
        service.at
    );
    let start = Start {
        place: crate::process::Place::new(),
        udp: service.daemon.udp,
        metrics: service.daemon.metrics,
        command: std::process::Command::new("true"),
    };
    let text = configuration(&start, true, &url);
    service
        .daemon
        .place
        .write("backend", "another-key-of-the-backend-of-acme");
    service
        .daemon
        .place
        .write("secret", "another-secret-another-secret-123");
    service.daemon.place.write("turnd.toml", &text);
    service.daemon.signal(rustix::process::Signal::HUP);
    service.daemon.expect("RELOADING=1");
    service.daemon.expect("READY=1");
    problem(&service.issue(KEY, &json!({})), 401, "bad-credentials");
    let body = service
        .issue("another-key-of-the-backend-of-acme", &json!({}))
        .expect(201);
    let server = &body["iceServers"][0];
    assert_eq!(server["urls"], json!(["turn:new.test"]));
    service.allocates(
        server["username"].as_str().unwrap(),
        server["credential"].as_str().unwrap(),
    );
}

#[test]
fn it_runs_alone_and_at_a_socket() {
    let (mut start, _) = prepared(true, "");
    let socket = start.place.0.join("token.sock");
    let text = configuration(
        &start,
        true,
        &format!("listen = ['unix:{}']", socket.display()),
    );
    start.place.write("turnd.toml", &text);
    start.command.arg("token").stdin(Stdio::null());
    let path = socket;
    let udp = start.udp;
    let mut daemon = start.ready();
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let bearer = format!("Bearer {KEY}");
    let request = http::request("POST", PATH, &[("Authorization", &bearer)], b"");
    http::exchange(&mut stream, &request).expect(201);
    assert!(std::net::UdpSocket::bind(udp).is_ok(), "there is no relay");
    // What waits for a restart is named, and the level of the log is heeded.
    let changed = format!("{text}\n[log]\nlevel = 'warn'\nformat = 'text'");
    daemon.place.write("turnd.toml", &changed);
    daemon.signal(rustix::process::Signal::HUP);
    assert_eq!(daemon.log("waits for a restart")["key"], "log.format");
    daemon.signal(rustix::process::Signal::TERM);
    assert!(daemon.ended().success());
    assert!(!daemon.all_said().contains("stopped"), "that is no warning");
    assert!(!path.exists());
}

#[test]
fn it_speaks_tls_with_a_certificate_of_its_own() {
    let (start, at) = prepared(true, "");
    let trusted = certificate(&start.place.0, 2040);
    let more = format!("listen = ['https://{at}']\ncertificate = 'cert.pem'\nkey = 'key.pem'");
    let text = configuration(&start, true, &more);
    start.place.write("turnd.toml", &text);
    let _daemon = start.ready();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.der().clone()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let client = rustls::ClientConnection::new(std::sync::Arc::new(config), name).unwrap();
    let mut stream = rustls::StreamOwned::new(client, connect(at));
    let bearer = format!("Bearer {KEY}");
    let request = http::request("POST", PATH, &[("Authorization", &bearer)], b"");
    http::exchange(&mut stream, &request).expect(201);
    assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    // Who speaks no TLS learns nothing.
    let mut plain = connect(at);
    plain.write_all(&request).unwrap();
    let mut said = Vec::new();
    let _ = plain.read_to_end(&mut said);
    assert!(!said.starts_with(b"HTTP"));
}

#[test]
fn alone_with_nothing_to_do_it_says_so() {
    let mut start = Start::with("");
    start.command.arg("token");
    let mut daemon = start.go();
    assert_eq!(daemon.ended().code(), Some(1));
    let said = daemon.all_said();
    assert!(
        said.contains("the token service listens nowhere") && said.contains("[token]"),
        "{said}"
    );
}

#[test]
fn a_port_in_use_is_told_with_a_remedy() {
    let service = Service::start("");
    let (start, _) = prepared(true, "");
    let text = configuration(&start, true, &format!("listen = ['http://{}']", service.at));
    start.place.write("turnd.toml", &text);
    let mut daemon = start.go();
    assert_eq!(daemon.ended().code(), Some(1));
    let said = daemon.all_said();
    assert!(
        said.contains("(token)") && said.contains("ss -tulpn"),
        "{said}"
    );
    drop(ask(service.at, "GET", "/.well-known/relay", &[], ""));
}
