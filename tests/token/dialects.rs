//! The dialects: requests as the clients of other services write them, and answers compared by field, status and type.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::http::Reply;
use crate::service::{KEY, OTHER_KEY, Service, basic, claims_with, sign, unix, user};

const ALL: &str = "dialects = ['turn-rest', 'stunner', 'azure', 'cloudflare', 'twilio', 'aws']\n\
                   max_ttl = '7d'\nper_subject = 0\nper_source = 0\n[revocation]\nkeep = '8d'";

fn keys(value: &Value) -> Vec<&str> {
    let object = value.as_object().unwrap();
    object.keys().map(String::as_str).collect()
}

/// What the service hands out by itself.
fn turn_urls(service: &Service) -> Value {
    let udp = service.daemon.udp;
    json!([
        format!("turn:{udp}?transport=udp"),
        format!("turn:{udp}?transport=tcp")
    ])
}

#[track_caller]
fn good(service: &Service, server: &Value, username: &str, password: &str) {
    service.allocates(
        server[username].as_str().unwrap(),
        server[password].as_str().unwrap(),
    );
}

fn subject(username: &Value) -> String {
    username
        .as_str()
        .unwrap()
        .split('~')
        .nth(2)
        .unwrap()
        .to_owned()
}

// ---- draft-uberti-behave-turn-rest-00, STUNner ----

#[test]
fn turn_rest_as_the_draft_has_it() {
    let mut service = Service::start(ALL);
    let before = unix();
    let get = |target: &str| service.ask("GET", target, &[], "");
    // Janus sends the key under both names.
    let reply = get(&format!(
        "/turn?service=turn&username=ann&key={KEY}&api={KEY}"
    ));
    let body = reply.expect(200);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(keys(&body), ["password", "ttl", "uris", "username"]);
    assert_eq!(body["ttl"], 3600);
    assert_eq!(body["uris"], turn_urls(&service));
    let username = body["username"].as_str().unwrap();
    let (expiry, _) = username.split_once(':').unwrap();
    assert!((before + 3600..=unix() + 3600).contains(&expiry.parse().unwrap()));
    assert_eq!(subject(&body["username"]), "ann");
    good(&service, &body, "username", "password");

    assert_eq!(
        get(&format!("/?service=turn&key={KEY}&ttl=60")).expect(200)["ttl"],
        60
    );
    assert_eq!(
        get(&format!("/?service=turn&api={KEY}&ttl=99999999")).expect(200)["ttl"],
        7 * 86_400
    );
    let header = [("X-API-Key", KEY)];
    service
        .ask("POST", "/turn?service=turn&username=ann", &header, "")
        .expect(200);
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let text = format!("service=turn&username=ann+b%2Fc&key={KEY}");
    let body = service.ask("POST", "/turn", &form, &text).expect(200);
    assert_eq!(subject(&body["username"]), "ann_20b_2fc");

    for (target, status) in [
        (format!("/turn?username=ann&key={KEY}"), 400),
        (format!("/turn?service=stun&key={KEY}"), 400),
        (format!("/turn?service=turn&ttl=0&key={KEY}"), 400),
        (format!("/turn?service=turn&ttl=soon&key={KEY}"), 400),
        (
            format!("/turn?service=turn&username={}&key={KEY}", "x".repeat(600)),
            422,
        ),
        ("/turn?service=turn".to_owned(), 401),
        ("/turn?service=turn&key=".to_owned(), 401),
        ("/turn?service=turn&key=MARKER-wrong".to_owned(), 401),
        (format!("/turn?service=turn&key={OTHER_KEY}"), 403),
        (
            format!("/turn?service=turn&key={}&username=bob", user("ann")),
            403,
        ),
    ] {
        let reply = get(&target);
        assert_eq!(reply.expect(status)["status"], status, "{target}");
        assert_eq!(
            reply.header("content-type"),
            Some("application/problem+json")
        );
    }
    let line = service.daemon.log("credential issued");
    assert_eq!(
        (&line["dialect"], &line["key"]),
        (&json!("turn-rest"), &json!("backend"))
    );
    let said = service.daemon.all_said();
    assert!(
        !said.contains(KEY) && !said.contains("MARKER"),
        "no key of a query is logged"
    );
}

#[test]
fn a_plain_secret_and_the_draft_are_what_everybody_knows() {
    let service = Service::start_with(false, "dialects = ['turn-rest']");
    let body = service
        .ask(
            "GET",
            &format!("/turn?service=turn&username=ann&key={KEY}"),
            &[],
            "",
        )
        .expect(200);
    assert_eq!(
        body["username"]
            .as_str()
            .unwrap()
            .split_once(':')
            .unwrap()
            .1,
        "ann"
    );
    good(&service, &body, "username", "password");
    let target = format!("/turn?service=turn&username=a~b~c&key={KEY}");
    service.ask("GET", &target, &[], "").expect(422);
}

#[test]
fn stunner_answers_with_a_configuration() {
    let service = Service::start(ALL);
    let target = format!(
        "/ice?service=turn&ttl=600&username=ann&namespace=stunner&gateway=udp&listener=l&public-addr=1.2.3.4&iceTransportPolicy=relay&key={KEY}"
    );
    let body = service.ask("GET", &target, &[], "").expect(200);
    assert_eq!(keys(&body), ["iceServers", "iceTransportPolicy"]);
    assert_eq!(body["iceTransportPolicy"], "relay");
    let servers = body["iceServers"].as_array().unwrap();
    assert_eq!(servers.len(), 1);
    assert_eq!(keys(&servers[0]), ["credential", "urls", "username"]);
    assert_eq!(servers[0]["urls"], turn_urls(&service));
    assert!(servers[0]["username"].as_str().unwrap().contains("~t600~"));
    good(&service, &servers[0], "username", "credential");
    let body = service
        .ask("GET", &format!("/ice?service=turn&key={KEY}"), &[], "")
        .expect(200);
    assert_eq!(body["iceTransportPolicy"], "all");
    service.ask("GET", "/ice?service=turn", &[], "").expect(401);
    let target = format!("/ice?service=turn&iceTransportPolicy=none&key={KEY}");
    service.ask("GET", &target, &[], "").expect(400);
}

// ---- Azure Communication Services ----

const AZURE: &str = "/networkTraversal/:issueRelayConfiguration?api-version=2022-03-01-preview";

/// A request as the SDKs sign it.
struct Signed {
    host: String,
    date: String,
    hash: String,
    authorization: String,
}

impl Signed {
    fn new(target: &str, key: &str, date: u64, body: &str) -> Self {
        let host = "relay.example.org".to_owned();
        let date =
            httpdate::fmt_http_date(std::time::UNIX_EPOCH + std::time::Duration::from_secs(date));
        let hash = STANDARD.encode(Sha256::digest(body));
        let text = format!("POST\n{target}\n{date};{host};{hash}");
        let key = STANDARD.decode(key).unwrap();
        let mac = <Hmac<Sha256>>::new_from_slice(&key)
            .unwrap()
            .chain_update(text);
        let signature = STANDARD.encode(mac.finalize().into_bytes());
        let authorization = format!(
            "HMAC-SHA256 SignedHeaders=x-ms-date;host;x-ms-content-sha256&Signature={signature}"
        );
        Self {
            host,
            date,
            hash,
            authorization,
        }
    }

    fn send(&self, service: &Service, target: &str, body: &str) -> Reply {
        let headers = [
            ("Host", self.host.as_str()),
            ("x-ms-date", &self.date),
            ("x-ms-content-sha256", &self.hash),
            ("Authorization", &self.authorization),
            ("Content-Type", "application/json"),
        ];
        service.ask("POST", target, &headers, body)
    }
}

fn azure(service: &Service, target: &str, body: &Value) -> Reply {
    let body = body.to_string();
    Signed::new(target, KEY, unix(), &body).send(service, target, &body)
}

#[track_caller]
fn azure_error(reply: &Reply, status: u16, code: &str) {
    let body = reply.expect(status);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(reply.header("x-ms-error-code"), Some(code));
    assert_eq!(keys(&body), ["error"]);
    assert_eq!(keys(&body["error"]), ["code", "message"]);
    assert_eq!(body["error"]["code"], code, "{body}");
}

#[test]
fn azure_gives_an_entry_for_each_route_type() {
    let service = Service::start(ALL);
    let id = "8:acs:2dee53b4-368b_00000005";
    let body = azure(&service, AZURE, &json!({ "id": id, "ttl": 3600 })).expect(200);
    assert_eq!(keys(&body), ["expiresOn", "iceServers"]);
    let expires = body["expiresOn"].as_str().unwrap();
    assert!(
        expires.len() == 33 && expires.ends_with(".0000000+00:00"),
        "{expires}"
    );
    let servers = body["iceServers"].as_array().unwrap();
    assert_eq!(servers.len(), 2);
    let udp = service.daemon.udp;
    for (server, route_type) in servers.iter().zip(["any", "nearest"]) {
        assert_eq!(
            keys(server),
            ["credential", "routeType", "urls", "username"]
        );
        assert_eq!(server["routeType"], route_type);
        let urls = [
            format!("turn:{udp}?transport=udp"),
            format!("turn:{udp}?transport=tcp"),
            format!("stun:{udp}"),
        ];
        assert_eq!(server["urls"], json!(urls));
        assert_eq!(
            subject(&server["username"]),
            "8_3aacs_3a2dee53b4-368b_5f00000005"
        );
    }
    good(&service, &servers[0], "username", "credential");
    let body = azure(&service, AZURE, &json!({ "routeType": "nearest" })).expect(200);
    assert_eq!(body["iceServers"].as_array().unwrap().len(), 1);
    assert_eq!(body["iceServers"][0]["routeType"], "nearest");
    // A body is not needed.
    let body = Signed::new(AZURE, KEY, unix(), "")
        .send(&service, AZURE, "")
        .expect(200);
    assert!(
        body["iceServers"][0]["username"]
            .as_str()
            .unwrap()
            .contains("~t172800~")
    );
}

#[test]
fn azure_knows_its_versions_and_takes_paths_in_any_case() {
    let service = Service::start(ALL);
    let ttl = |reply: Reply| {
        let body = reply.expect(200);
        let name = body["iceServers"][0]["username"]
            .as_str()
            .unwrap()
            .to_owned();
        name.split('~').nth(3).unwrap().to_owned()
    };
    let at =
        |version: &str| format!("/networktraversal/:issueRelayConfiguration?api-version={version}");
    let wish = json!({ "ttl": 60, "routeType": "any" });
    assert_eq!(
        ttl(azure(&service, &at("2022-03-01-preview"), &wish)),
        "t60"
    );
    assert_eq!(
        ttl(azure(&service, &at("2022-02-01"), &wish)),
        "t172800",
        "it knows of no ttl"
    );
    assert_eq!(
        ttl(azure(
            &service,
            &at("2022-03-01-preview"),
            &json!({ "ttl": 172_801 })
        )),
        "t172800"
    );
    let first = azure(&service, &at("2021-06-21-preview"), &wish).expect(200);
    assert_eq!(first["iceServers"].as_array().unwrap().len(), 1);
    assert_eq!(first["iceServers"][0].get("routeType"), None);
    for path in [
        "/NETWORKTRAVERSAL/:ISSUERELAYCONFIGURATION",
        "/networkRelay/:issueRelayConfiguration",
    ] {
        azure(
            &service,
            &format!("{path}?api-version=2021-10-08-preview"),
            &json!({}),
        )
        .expect(200);
    }
    azure_error(
        &azure(
            &service,
            "/networkTraversal/:issueRelayConfiguration",
            &json!({}),
        ),
        400,
        "MissingApiVersionParameter",
    );
    azure_error(
        &azure(&service, &at("2031-01-01"), &json!({})),
        400,
        "UnsupportedApiVersionValue",
    );
    for wrong in [
        json!({ "ttl": 0 }),
        json!({ "ttl": -5 }),
        json!({ "ttl": "1" }),
        json!({ "routeType": "best" }),
        json!([]),
    ] {
        azure_error(&azure(&service, AZURE, &wrong), 400, "BadRequest");
    }
    let long = json!({ "id": "x".repeat(600) });
    azure_error(&azure(&service, AZURE, &long), 400, "BadRequest");
    let bearer = format!("Bearer {KEY}");
    azure_error(
        &service.ask("GET", AZURE, &[("Authorization", &bearer)], ""),
        405,
        "MethodNotAllowed",
    );
}

#[test]
fn azure_believes_nothing_that_is_not_signed() {
    let service = Service::start(ALL);
    let body = r#"{"ttl":60}"#;
    let denied = |signed: &Signed, target: &str, body: &str| {
        let reply = signed.send(&service, target, body);
        azure_error(&reply, 401, "Denied");
        assert_eq!(
            reply.header("www-authenticate"),
            Some("HMAC-SHA256, Bearer")
        );
    };
    let signed = Signed::new(AZURE, KEY, unix(), body);
    signed.send(&service, AZURE, body).expect(200);
    denied(&signed, AZURE, r#"{"ttl":61}"#);
    denied(
        &signed,
        &AZURE.replace("2022-03-01-preview", "2022-02-01"),
        body,
    );
    for date in [unix() - 1000, unix() + 1000] {
        denied(&Signed::new(AZURE, KEY, date, body), AZURE, body);
    }
    for date in [unix() - 800, unix() + 800] {
        Signed::new(AZURE, KEY, date, body)
            .send(&service, AZURE, body)
            .expect(200);
    }
    let other = STANDARD.encode("another key of thirty-two bytes!");
    denied(&Signed::new(AZURE, &other, unix(), body), AZURE, body);
    let now = unix();
    let changed = |change: &dyn Fn(&mut Signed)| {
        let mut signed = Signed::new(AZURE, KEY, now, body);
        change(&mut signed);
        denied(&signed, AZURE, body);
    };
    changed(&|signed| signed.host = "evil.example.org".to_owned());
    changed(&|signed| signed.date = "yesterday".to_owned());
    changed(&|signed| signed.hash = STANDARD.encode(Sha256::digest("other")));
    changed(&|signed| signed.authorization.truncate(90));
    changed(&|signed| signed.authorization = signed.authorization.replace("x-ms-date;", ""));
    changed(&|signed| signed.authorization = "HMAC-SHA256 ".to_owned());
    azure_error(&service.ask("POST", AZURE, &[], ""), 401, "Denied");
    let with = |token: &str| service.post(AZURE, token, &json!({ "id": "ann" }));
    with(&user("ann")).expect(200);
    azure_error(&with(&user("bob")), 403, "Forbidden");
    azure_error(
        &with(&sign(&claims_with("ann", &json!({ "exp": 17 })))),
        401,
        "Denied",
    );
    // The key of another tenant signs well, and may not.
    let signed = Signed::new(AZURE, OTHER_KEY, unix(), body);
    azure_error(&signed.send(&service, AZURE, body), 403, "Forbidden");
}

// ---- Cloudflare ----

const CLOUDFLARE: &str = "/v1/turn/keys/backend/credentials/generate-ice-servers";

#[track_caller]
fn cloudflare_error(reply: &Reply, status: u16, code: u32) {
    let body = reply.expect(status);
    assert_eq!(keys(&body), ["errors", "messages", "result", "success"]);
    assert_eq!(
        (&body["success"], &body["result"]),
        (&json!(false), &Value::Null)
    );
    assert_eq!(keys(&body["errors"][0]), ["code", "message"]);
    assert_eq!(body["errors"][0]["code"], code);
}

#[test]
fn cloudflare_gives_servers_or_one() {
    let service = Service::start(ALL);
    let reply = service.post(
        CLOUDFLARE,
        KEY,
        &json!({ "ttl": 86_400, "customIdentifier": "ann" }),
    );
    let body = reply.expect(201);
    assert_eq!(keys(&body), ["iceServers"]);
    let udp = service.daemon.udp;
    assert_eq!(
        body["iceServers"][0],
        json!({ "urls": [format!("stun:{udp}")] })
    );
    let server = &body["iceServers"][1];
    assert_eq!(keys(server), ["credential", "urls", "username"]);
    assert_eq!(server["urls"], turn_urls(&service));
    assert_eq!(subject(&server["username"]), "ann");
    assert!(server["username"].as_str().unwrap().contains("~t86400~"));
    good(&service, server, "username", "credential");

    let one = "/v1/turn/keys/backend/credentials/generate";
    let body = service
        .post(one, KEY, &json!({ "ttl": 172_800 }))
        .expect(201);
    let server = &body["iceServers"];
    assert_eq!(keys(server), ["credential", "urls", "username"]);
    let mut urls = vec![json!(format!("stun:{udp}"))];
    urls.extend(turn_urls(&service).as_array().unwrap().clone());
    assert_eq!(server["urls"], Value::from(urls));
    good(&service, server, "username", "credential");

    for wrong in [
        json!({ "ttl": 172_801 }),
        json!({ "ttl": 0 }),
        json!({ "ttl": "1" }),
        json!({ "ttl": -1 }),
    ] {
        cloudflare_error(&service.post(CLOUDFLARE, KEY, &wrong), 400, 10_005);
    }
    let long = json!({ "ttl": 1, "customIdentifier": "x".repeat(600) });
    cloudflare_error(&service.post(CLOUDFLARE, KEY, &long), 400, 10_005);
    cloudflare_error(
        &service.post(CLOUDFLARE, "wrong", &json!({ "ttl": 1 })),
        401,
        10_000,
    );
    cloudflare_error(
        &service.post(CLOUDFLARE, OTHER_KEY, &json!({ "ttl": 1 })),
        401,
        10_000,
    );
    cloudflare_error(
        &service.post(CLOUDFLARE, &user("backend"), &json!({ "ttl": 1 })),
        401,
        10_000,
    );
    cloudflare_error(&service.ask("POST", CLOUDFLARE, &[], "{}"), 401, 10_000);
    let other = CLOUDFLARE.replace("backend", "other");
    cloudflare_error(
        &service.post(&other, OTHER_KEY, &json!({ "ttl": 1 })),
        403,
        10_001,
    );
    // A key that may not take back does not.
    let revoke = format!(
        "/v1/turn/keys/backend/credentials/{}/revoke",
        server["username"].as_str().unwrap()
    );
    cloudflare_error(&service.post(&revoke, KEY, &json!({})), 403, 10_001);
}

// ---- Twilio ----

const TWILIO: &str = "/2010-04-01/Accounts/backend/Tokens.json";

fn twilio(service: &Service, target: &str, authorization: &str, form: &str) -> Reply {
    let headers = [
        ("Authorization", authorization),
        ("Content-Type", "application/x-www-form-urlencoded"),
    ];
    service.ask("POST", target, &headers, form)
}

#[track_caller]
fn twilio_error(reply: &Reply, status: u16, code: u32) {
    let body = reply.expect(status);
    assert_eq!(keys(&body), ["code", "message", "more_info", "status"]);
    assert_eq!(
        (&body["code"], &body["status"]),
        (&json!(code), &json!(status))
    );
    assert!(
        body["more_info"]
            .as_str()
            .unwrap()
            .ends_with(&code.to_string())
    );
}

#[test]
fn twilio_writes_numbers_as_texts_and_urls_twice() {
    let service = Service::start(ALL);
    let own = basic("backend", KEY);
    let body = twilio(&service, TWILIO, &own, "Ttl=3600").expect(201);
    let wanted = [
        "account_sid",
        "date_created",
        "date_updated",
        "ice_servers",
        "password",
        "ttl",
        "username",
    ];
    assert_eq!(keys(&body), wanted);
    assert_eq!(
        (&body["account_sid"], &body["ttl"]),
        (&json!("backend"), &json!("3600"))
    );
    let date = body["date_created"].as_str().unwrap();
    assert!(date.len() == 31 && date.ends_with(" +0000"), "{date}");
    assert_eq!(body["date_updated"], date);
    let servers = body["ice_servers"].as_array().unwrap();
    assert_eq!(servers.len(), 3);
    let stun = format!("stun:{}", service.daemon.udp);
    assert_eq!(servers[0], json!({ "url": stun, "urls": stun }));
    for (server, url) in servers[1..]
        .iter()
        .zip(turn_urls(&service).as_array().unwrap())
    {
        assert_eq!(keys(server), ["credential", "url", "urls", "username"]);
        assert_eq!((&server["url"], &server["urls"]), (url, url));
        assert_eq!(
            (&server["username"], &server["credential"]),
            (&body["username"], &body["password"])
        );
    }
    good(&service, &body, "username", "password");
    assert_eq!(
        twilio(&service, TWILIO, &own, "").expect(201)["ttl"],
        "86400"
    );
    assert_eq!(
        twilio(&service, TWILIO, &own, "Ttl=172800").expect(201)["ttl"],
        "86400"
    );
    // An API key of the account.
    let account = "/2010-04-01/Accounts/acme/Tokens.json";
    assert_eq!(
        twilio(&service, account, &own, "").expect(201)["account_sid"],
        "acme"
    );

    for form in ["Ttl=0", "Ttl=-1", "Ttl=soon", "Ttl="] {
        twilio_error(&twilio(&service, TWILIO, &own, form), 400, 20_001);
    }
    let bearer = format!("Bearer {KEY}");
    for wrong in [
        &basic("backend", "wrong"),
        &basic("other", KEY),
        &basic("backend", ""),
        "Basic !",
        &bearer,
        "Basic",
    ] {
        let reply = twilio(&service, TWILIO, wrong, "");
        twilio_error(&reply, 401, 20_003);
        assert_eq!(reply.json()["message"], "Authenticate");
        assert_eq!(
            reply.header("www-authenticate"),
            Some("Basic realm=\"turnd\"")
        );
    }
    let foreign = "/2010-04-01/Accounts/other/Tokens.json";
    twilio_error(&twilio(&service, foreign, &own, ""), 401, 20_003);
    twilio_error(
        &twilio(&service, foreign, &basic("other", OTHER_KEY), ""),
        403,
        20_003,
    );
}

// ---- Amazon Kinesis Video Streams ----

const AWS: &str = "/v1/get-ice-server-config";

#[track_caller]
fn aws_error(reply: &Reply, status: u16, kind: &str) {
    let body = reply.expect(status);
    assert_eq!(keys(&body), ["Message"]);
    assert_eq!(reply.header("x-amzn-errortype"), Some(kind));
}

#[test]
fn kinesis_lists_servers_with_capitals() {
    let service = Service::start(ALL);
    let channel = "arn:aws:kinesisvideo:us-west-2:123456789012:channel/demo/1";
    let wish = json!({ "ChannelARN": channel, "ClientId": "viewer-1", "Service": "TURN" });
    let body = service.post(AWS, KEY, &wish).expect(200);
    assert_eq!(keys(&body), ["IceServerList"]);
    let server = &body["IceServerList"][0];
    assert_eq!(keys(server), ["Password", "Ttl", "Uris", "Username"]);
    assert_eq!(
        (&server["Ttl"], &server["Uris"]),
        (&json!(3600), &turn_urls(&service))
    );
    assert_eq!(subject(&server["Username"]), "viewer-1");
    good(&service, server, "Username", "Password");
    let named = json!({ "ChannelARN": channel, "ClientId": "viewer-1", "Username": "ann" });
    let body = service.post(AWS, KEY, &named).expect(200);
    assert_eq!(subject(&body["IceServerList"][0]["Username"]), "ann");
    for wrong in [
        json!({}),
        json!({ "ChannelARN": channel, "Service": "STUN" }),
        json!({ "ChannelARN": 17 }),
    ] {
        aws_error(
            &service.post(AWS, KEY, &wrong),
            400,
            "InvalidArgumentException",
        );
    }
    aws_error(
        &service.post(AWS, "wrong", &wish),
        401,
        "NotAuthorizedException",
    );
    aws_error(
        &service.post(AWS, OTHER_KEY, &wish),
        403,
        "NotAuthorizedException",
    );
}

#[test]
fn a_dialect_that_is_off_is_not_there_and_limits_hold_for_all() {
    let service = Service::start("per_subject = 2\ndialects = ['cloudflare']");
    azure_like_nothing(&service);
    let ask = || service.post(CLOUDFLARE, KEY, &json!({ "customIdentifier": "ann" }));
    ask().expect(201);
    ask().expect(201);
    let reply = ask();
    cloudflare_error(&reply, 429, 971);
    assert!(reply.header("retry-after").is_some());
    // Those who are nobody in particular are not one.
    for _ in 0..5 {
        service.post(CLOUDFLARE, KEY, &json!({})).expect(201);
    }
}

fn azure_like_nothing(service: &Service) {
    for target in [AZURE, TWILIO, AWS, "/turn", "/ice", "/"] {
        let reply = service.post(target, KEY, &json!({}));
        assert_eq!(
            reply.expect(404)["type"],
            "urn:turnd:problem:not-found",
            "{target}"
        );
    }
}
