//! turnd's own pages in a browser: what people read on them, and that nothing in them breaks their policy.
//!
//! Pictures of what was seen are left in `target/screenshots`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::peer::trust_authority;
use crate::rig::{Host, NAME, Rig};
use crate::server::{self, Credential, PAGES, Server, Setup, metrics};
use crate::tool::{self, Tool};

/// The port where a browser on a client's host finds the operators' pages.
const FRONT: u16 = 8443;

/// Over UDP, TCP and TLS, whose certificate the browser trusts.
#[test]
fn the_self_test_passes() {
    let Some(rig) = rig() else {
        return;
    };
    let _server = Server::start_with(&rig, &setup());
    trust_authority(&rig);
    let credential = Credential::lasting(3600);
    let urls = [
        format!("turn:{NAME}:3478?transport=udp"),
        format!("turn:{NAME}:3478?transport=tcp"),
        format!("turns:{NAME}:5349?transport=tcp"),
    ];
    let configuration = json!({ "iceServers": [
        { "urls": format!("stun:{NAME}:3478") },
        { "urls": urls, "username": credential.username, "credential": credential.password },
    ] });
    let seen = browse(
        &rig,
        &json!([
            { "do": "open", "url": self_test("https", &configuration) },
            { "do": "wait", "at": "body[data-state=done]" },
            { "do": "look", "as": "self-test-good" },
            { "do": "click", "at": "#copy" },
            { "do": "wait", "at": "#copy:text('Copied')" },
            { "do": "clipboard", "as": "report" },
        ]),
    );
    let text = seen.text("self-test-good");
    for part in [
        "All 3 relay URLs work",
        "3 relay URLs, credential good for",
        "✓ Works",
        "Relayed address\n10.99.0.1:",
        "Round trip, p99",
        "of 250",
        "Echoes of 1400 bytes\n10 of 10",
        "Mbit/s limited by the browser",
        "Seen at\n10.99.1.2:",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(!text.contains("✕"), "{text}");
    assert!(!text.contains(&credential.password), "{text}");
    let report = seen.text("report");
    for secret in [&credential.username, &credential.password] {
        assert!(!report.contains(secret.as_str()), "{report}");
    }
    let report: Value = serde_json::from_str(report).expect("JSON for support");
    let results = report["results"].as_array().expect("one for each URL");
    let protocols: Vec<&str> = results
        .iter()
        .filter_map(|result| result["relayProtocol"].as_str())
        .collect();
    assert_eq!(protocols, ["udp", "tcp", "tls"], "{report}");
    for result in results {
        assert_eq!(result["ok"], true, "{report}");
        assert!(result["throughputMbps"].as_f64() > Some(0.0), "{report}");
        assert!(
            result["roundTripMs"]["p50"].as_f64() > Some(0.0),
            "{report}"
        );
    }
    let counted = metrics(&rig, PAGES);
    assert!(
        counted.contains("turn_auth_secret_used_total{id=\"main\"}"),
        "{counted}"
    );
}

/// A wrong password, a credential that has expired, a certificate that nobody knows, ports where nothing listens.
#[test]
fn the_self_test_tells_what_to_do() {
    let Some(rig) = rig() else {
        return;
    };
    let _server = Server::start_with(&rig, &setup());
    let (good, old) = (Credential::lasting(3600), Credential::lasting(-7200));
    let server = |url: &str, Credential { username, password }: &Credential| json!({ "urls": url, "username": username, "credential": password });
    let wrong = Credential {
        password: "guess".into(),
        ..good.clone()
    };
    let configuration = json!([
        server(&format!("turn:{NAME}:3478?transport=udp"), &wrong),
        server(&format!("turn:{NAME}:3478?transport=tcp"), &old),
        server(&format!("turns:{NAME}:5349?transport=tcp"), &good),
        server(&format!("turn:{NAME}:3999?transport=tcp"), &good),
        server(&format!("turn:{NAME}:3999?transport=udp"), &good),
        server("turn:no-such-name.test:3478?transport=udp", &good),
    ]);
    let seen = browse(
        &rig,
        &json!([
            { "do": "open", "url": self_test("http", &configuration), "width": 360, "height": 780, "scheme": "dark" },
            { "do": "wait", "at": "body[data-state=done]" },
            { "do": "look", "as": "self-test-bad-phone" },
        ]),
    );
    let text = seen.text("self-test-bad-phone");
    for part in [
        "None of the 6 relay URLs works from here",
        "401 · Credential not accepted",
        "the password does not belong to it",
        "401 · Credential expired\n\nIt ended 2 hours ago",
        "701 · Unreachable, or certificate not trusted",
        &format!("open https://{NAME}:5349/ in a tab"),
        "701 · Unreachable\n\nNo connection to turn.test:3999",
        "No answer\n\nNothing came back from turn.test:3999",
        "701 · Name not found\n\nThe name no-such-name.test has no address here",
        "The browser says: Unauthorized.",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert_eq!(text.matches("Name not found").count(), 1, "{text}");
    for secret in [&good.password, &old.password, &wrong.password] {
        assert!(!text.contains(secret.as_str()), "{text}");
    }
}

/// What stands in the box may be wrong; what is printed for JavaScript is understood.
#[test]
fn the_self_test_takes_what_is_pasted() {
    let Some(rig) = rig() else {
        return;
    };
    let _server = Server::start_with(&rig, &setup());
    let Credential { username, password } = Credential::lasting(3600);
    let script = format!(
        "const pc = new RTCPeerConnection({{\n  iceServers: [\n    {{ urls: [\"stun:{NAME}:3478\"] }},\n    {{\n      \
         urls: [\"turn:{NAME}:3478?transport=udp\"],\n      username: \"{username}\",\n      credential: \"{password}\",\n    \
         }},\n  ],\n}});\n"
    );
    let seen = browse(
        &rig,
        &json!([
            { "do": "open", "url": format!("http://{NAME}:{FRONT}/self-test"), "width": 360, "height": 780 },
            { "do": "fill", "at": "#servers", "text": "[{\"urls\": \"stun:stun.example.org\"}]" },
            { "do": "click", "at": "#run" },
            { "do": "wait", "at": "#servers-wrong:not([hidden])" },
            { "do": "fill", "at": "#token", "text": "a token" },
            { "do": "click", "at": "#ask button" },
            { "do": "wait", "at": "#token-wrong:not([hidden])" },
            { "do": "look", "as": "self-test-empty-phone" },
            { "do": "fill", "at": "#servers", "text": script },
            { "do": "click", "at": "#run" },
            { "do": "wait", "at": "body[data-state=done]" },
            { "do": "look", "as": "self-test-good-phone" },
        ]),
    );
    let text = seen.text("self-test-empty-phone");
    for part in [
        "There is no turn: or turns: URL in it.",
        "this is not the listener of the token service",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let text = seen.text("self-test-good-phone");
    assert!(text.contains("The relay works"), "{text}");
}

/// The page asks the service that it came from, with a key that is typed into it.
#[test]
fn the_self_test_gets_its_credentials() {
    let Some(rig) = rig() else {
        return;
    };
    let key = "a-key-of-the-backend-that-nobody-guesses";
    write(&rig, "backend", key);
    let setup = Setup {
        more: format!(
            "[token]\nlisten = [\"http://0.0.0.0:8089\"]\nurls = [\"turn:{NAME}:3478?transport=udp\"]\n\
             api_keys = [{{ id = \"backend\", file = \"backend\" }}]\n"
        ),
        ..Setup::default()
    };
    let _server = Server::start_with(&rig, &setup);
    let seen = browse(
        &rig,
        &json!([
            { "do": "open", "url": format!("http://{NAME}:8089/self-test"), "scheme": "dark" },
            { "do": "fill", "at": "#token", "text": "another key" },
            { "do": "click", "at": "#ask button" },
            { "do": "wait", "at": "#token-wrong:not([hidden])" },
            { "do": "look", "as": "self-test-token" },
            { "do": "fill", "at": "#token", "text": key },
            { "do": "click", "at": "#ask button" },
            { "do": "wait", "at": "body[data-state=done]" },
            { "do": "look", "as": "self-test-good-dark" },
        ]),
    );
    let text = seen.text("self-test-token");
    assert!(text.contains("The token is not accepted"), "{text}");
    let text = seen.text("self-test-good-dark");
    assert!(text.contains("The relay works"), "{text}");
    assert!(!text.contains(key), "{text}");
}

fn rig() -> Option<Rig> {
    if server::is_coturn() {
        tool::say_skipped("coturn has no such pages");
        return None;
    }
    Rig::new(&[Tool::Chromium])
}

/// Browsers reach the pages through a listener of the relay, which passes web clients on.
fn setup() -> Setup {
    Setup {
        more: format!(
            "[[listen]]\naddress = \"0.0.0.0:{FRONT}\"\ntransport = \"tcp\"\nhttp = \"127.0.0.1:{PAGES}\"\n"
        ),
        ..Setup::default()
    }
}

/// A file that only its owner may read.
fn write(rig: &Rig, name: &str, text: &str) {
    let file = rig.dir().join(name);
    fs::write(&file, text).expect("the rig's directory is writable");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("the file is ours");
}

fn self_test(scheme: &str, configuration: &Value) -> String {
    let fragment = URL_SAFE_NO_PAD.encode(configuration.to_string());
    format!("{scheme}://{NAME}:{FRONT}/self-test#{fragment}")
}

/// What was seen, by the names of the looks.
struct Seen(Value);

impl Seen {
    fn text(&self, look: &str) -> &str {
        self.0[look].as_str().expect("the plan has such a look")
    }
}

/// Does in a browser on the first client's host what `plan` says. Nothing may go wrong in the page meanwhile.
fn browse(rig: &Rig, plan: &Value) -> Seen {
    let pictures = tool::directory().with_file_name("screenshots");
    fs::create_dir_all(&pictures).expect("target is writable");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/chromium_pages.js");
    let modules = tool::directory().join("node_modules");
    let output = rig.run(
        Host::A,
        "node",
        &[
            &script.display().to_string(),
            &modules.display().to_string(),
            &pictures.display().to_string(),
            &plan.to_string(),
        ],
    );
    let line = output.lines().find(|line| line.starts_with('{'));
    let mut told: Value = serde_json::from_str(line.expect("a line of JSON")).expect("JSON");
    assert_eq!(told["wrong"], json!([]), "{told:#}");
    Seen(told["seen"].take())
}
