//! The way of a web application's user: a token of the login service, credentials from the token service, which is of
//! another origin than the page, a call through the relay, and its end when the user is locked out.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::peer::{Peer, only_relayed};
use crate::rig::{Host, NAME, Rig};
use crate::server::{self, PAGES, Server, Setup, metrics, sessions, unix};
use crate::tool::{self, Tool};
use crate::web;

#[test]
fn a_user_calls_is_locked_out_and_comes_back() {
    let Some(rig) = rig() else { return };
    let _server = Server::start_with(&rig, &setup(&rig));
    web::start(&rig);
    let page = format!("https://{NAME}:{}/", web::PORT);
    let mut visitor = Peer::visitor(&rig, Host::A, "visitor", &page);

    let mut operator = Dashboard::open(&rig);
    operator.wait("#sessions-none:text('No calls at the moment.')");

    let credential = login(&mut visitor);
    assert_eq!(credential["status"], 201, "{credential}");
    call(&mut visitor);
    operator.wait("#list tr:nth-child(2)");
    operator.wait(".tile:first-child .value:text-matches('^[1-9]')");
    let text = operator.look("journey-call");
    assert!(text.contains("ann"), "{text}");
    let listed = rig.run(
        Host::S,
        env!("CARGO_BIN_EXE_turnd"),
        &["sessions", "--config", server::CONFIG],
    );
    assert!(
        listed.lines().filter(|line| line.contains(" ann ")).count() >= 2,
        "{listed}"
    );
    let of_ann = sessions(&rig);
    assert!(of_ann.len() >= 2, "{of_ann:#?}");
    for session in &of_ann {
        assert_eq!(session["user"], "ann", "{session:#}");
        let id = &session["claims"]["id"];
        assert_eq!(*id, credential["body"]["credentialId"], "{session:#}");
    }
    assert!(allocations(&rig), "{}", metrics(&rig, PAGES));

    revoke(&rig);
    // It answers when that has been done.
    assert!(!allocations(&rig), "{}", metrics(&rig, PAGES));
    assert_eq!(sessions(&rig), Vec::<Value>::new());
    operator.wait("#sessions-none:text('No calls at the moment.')");
    let text = operator.look("journey-locked-out");
    assert!(!text.contains("10.99.1.2:"), "{text}");
    let ended = visitor.ask(&json!({ "do": "ended" }));
    let refused = visitor.ask(&json!({ "do": "gather" }));
    assert_eq!(refused["candidates"], json!([]), "{refused}");
    let errors = refused["errors"].as_array().expect("a list");
    assert!(errors.iter().any(|error| error["code"] == 401), "{refused}");
    let later = visitor.ask(&json!({ "do": "stats" }));
    for (at_the_end, later) in ends(&ended).iter().zip(ends(&later)) {
        assert_eq!(at_the_end["frames"], later["frames"], "{ended} {later}");
    }

    // Whom the login service still knows is let in again: what is revoked are the credentials of before.
    let anew = login(&mut visitor);
    assert_eq!(anew["status"], 201, "{anew}");
    assert_ne!(
        anew["body"]["credentialId"],
        credential["body"]["credentialId"]
    );
    call(&mut visitor);
}

/// The same page, but by its address: that is another origin, which is not on the list.
#[test]
fn a_page_of_a_foreign_origin_gets_nothing() {
    let Some(rig) = rig() else { return };
    let _server = Server::start_with(&rig, &setup(&rig));
    web::start(&rig);
    let page = format!("https://{}:{}/", Host::A.server(), web::PORT);
    let mut visitor = Peer::visitor(&rig, Host::A, "foreigner", &page);
    let answer = login(&mut visitor);
    assert_eq!(answer["blocked"], "TypeError: Failed to fetch", "{answer}");
    let said = rig.logged("foreigner");
    assert!(said.contains("has been blocked by CORS policy"), "{said}");
    let counted = metrics(&rig, PAGES);
    assert!(!counted.contains("turn_tokens_issued_total"), "{counted}");
}

fn rig() -> Option<Rig> {
    if server::is_coturn() {
        tool::say_skipped("coturn has no token service");
        return None;
    }
    Rig::new(&[Tool::Chromium, Tool::Web])
}

/// A token service that lets in users of a login service and pages of one origin, and a web server with a page.
fn setup(rig: &Rig) -> Setup {
    for (name, text) in [
        ("login-key", LOGIN_KEY.to_owned()),
        ("backend-key", BACKEND_KEY.to_owned()),
        ("operator-token", OPERATOR_TOKEN.to_owned()),
        (HEADER, format!("Authorization: Bearer {BACKEND_KEY}")),
    ] {
        let file = rig.dir().join(name);
        fs::write(&file, text).expect("the rig's directory is writable");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("the file is ours");
    }
    Setup {
        auth: r#"secrets = [{ id = "main", file = "secret", claims = true }]"#.into(),
        more: format!(
            r#"
{}
[token]
listen = ["https://0.0.0.0:{PORT}"]
urls = ["turn:{NAME}:3478?transport=udp"]
origins = ["https://{NAME}:{}"]
issuers = [{{ issuer = "{ISSUER}", audience = "turn", algorithms = ["HS256"], keys = "login-key" }}]
api_keys = [{{ id = "backend", file = "backend-key", scopes = ["relay.revoke"] }}]
[revocation]
enabled = true
database = "revocations.sqlite"
[admin]
socket = "admin.sock"
listen = "0.0.0.0:{ADMIN}"
token_file = "operator-token"
"#,
            web::LISTEN,
            web::PORT
        ),
    }
}

/// Has the page ask for credentials with a token that the login service made for Ann.
fn login(visitor: &mut Peer) -> Value {
    let claims = json!({ "iss": ISSUER, "aud": "turn", "sub": "ann", "exp": unix() + 600 });
    let key = EncodingKey::from_secret(LOGIN_KEY.as_bytes());
    let token = encode(&Header::default(), &claims, &key).expect("the claims are JSON");
    let service = format!("https://{NAME}:{PORT}");
    visitor.ask(&json!({ "do": "login", "service": service, "token": token }))
}

/// Calls from one end of the page to the other, until both decoded 40 frames.
fn call(visitor: &mut Peer) {
    let called = visitor.ask(&json!({ "do": "call" }));
    only_relayed(&called["offer"]);
    only_relayed(&called["answer"]);
    let watched = visitor.ask(&json!({ "do": "watch", "frames": 40 }));
    for end in ends(&watched) {
        assert_eq!(end["candidate"], "relay", "{watched}");
        assert_eq!(end["remote"], "relay", "{watched}");
    }
}

fn ends(reply: &Value) -> &[Value] {
    let ends = reply["ends"].as_array().expect("a list");
    assert_eq!(ends.len(), 2, "{reply}");
    ends
}

/// Has the application's backend, on another host, lock Ann out.
fn revoke(rig: &Rig) {
    let authority = rig.dir().join("ca.pem").display().to_string();
    let header = format!("@{}", rig.dir().join(HEADER).display());
    let url = format!("https://{NAME}:{PORT}/v1/relay/revocations");
    let curl = [
        "--silent",
        "--show-error",
        "--fail",
        "--max-time",
        "20",
        "--cacert",
        &authority,
        "--header",
        &header,
        "--json",
        r#"{"user":"ann"}"#,
        &url,
    ];
    rig.run(Host::B, "curl", &curl);
}

/// The dashboard, before an operator on the second client's host.
struct Dashboard(Peer);

impl Dashboard {
    fn open(rig: &Rig) -> Self {
        let mut dashboard = Self(Peer::reader(rig, Host::B));
        let url = format!("http://{}:{ADMIN}/dashboard", Host::B.server());
        dashboard.step(&json!({ "do": "open", "url": url }));
        dashboard.step(&json!({ "do": "fill", "at": "#token", "text": OPERATOR_TOKEN }));
        dashboard.step(&json!({ "do": "click", "at": "#door .main" }));
        dashboard
    }

    fn wait(&mut self, at: &str) {
        self.step(&json!({ "do": "wait", "at": at }));
    }

    fn look(&mut self, name: &str) -> String {
        let seen = self.step(&json!({ "do": "look", "as": name }));
        seen[name].as_str().expect("a text").to_owned()
    }

    /// Nothing may go wrong in the page.
    fn step(&mut self, words: &Value) -> Value {
        let mut told = self.0.ask(words);
        assert_eq!(told["wrong"], json!([]), "{told:#}");
        told["seen"].take()
    }
}

/// Whether turnd counts any.
fn allocations(rig: &Rig) -> bool {
    let counted = metrics(rig, PAGES);
    assert!(counted.contains("turn_tokens_issued_total"), "{counted}");
    counted
        .lines()
        .any(|line| line.starts_with("turn_allocations{"))
}

const ISSUER: &str = "https://login.test";
const LOGIN_KEY: &str = "a key that the login service has, too";
const BACKEND_KEY: &str = "a key of the application's backend";
const HEADER: &str = "backend-header";
const OPERATOR_TOKEN: &str = "a-token-of-the-operators-own-that-nobody-guesses";
const PORT: u16 = 8090;
const ADMIN: u16 = 9643;
