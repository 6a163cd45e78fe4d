//! turnd's own pages in a browser: what people read on them, and that nothing in them breaks their policy.
//!
//! Pictures of what was seen are left in `target/screenshots`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::peer::{Peer, trust_authority};
use crate::rig::{Host, NAME, Rig};
use crate::server::{self, Credential, PAGES, SECRET, Server, Setup, metrics};
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

/// An operator ends the call while it is measured: what came through until then does not make it one that works.
#[test]
fn the_self_test_tells_of_a_call_that_breaks_off() {
    let Some(rig) = rig() else {
        return;
    };
    let mut setup = setup();
    setup.more += "[admin]\nsocket = \"admin.sock\"\n";
    let _server = Server::start_with(&rig, &setup);
    let Credential { username, password } = Credential::lasting(3600);
    let url = format!("turn:{NAME}:3478?transport=udp");
    let configuration = json!({ "urls": url, "username": username, "credential": password });
    let mut reader = Peer::reader(&rig, Host::A);
    let mut step = |words: Value| {
        let told = reader.ask(&words);
        assert_eq!(told["wrong"], json!([]), "{told:#}");
        told
    };
    step(json!({ "do": "open", "url": self_test("http", &json!([configuration])) }));
    step(json!({ "do": "wait", "at": "#verdict-text:text('Measuring delay')" }));
    let kick = ["kick", "--client", "10.99.1.2", "--config", server::CONFIG];
    rig.run(Host::S, env!("CARGO_BIN_EXE_turnd"), &kick);
    step(json!({ "do": "wait", "at": "body[data-state=done]" }));
    let told = step(json!({ "do": "look", "as": "self-test-broken-off" }));
    let text = told["seen"]["self-test-broken-off"].as_str();
    let text = text.expect("a text");
    for part in [
        "The relay does not work from here",
        "✕ Fails",
        "It broke off",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(!text.contains("Name not found"), "{text}");
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

/// Real calls, real figures, and the kick that ends one.
#[test]
fn the_dashboard_shows_what_goes_on() {
    let Some(rig) = rig() else {
        return;
    };
    if !tool::present(&[Tool::CoturnClients]) {
        return;
    }
    let _server = Server::start_with(&rig, &seat(&rig));
    // Two clients of one user, each to the other.
    let load = "-y -u alice -m 2 -l 700 -n 4000 -z 10 10.99.1.1 -W";
    let load: Vec<&str> = load.split(' ').chain([SECRET]).collect();
    rig.start(Host::A, "turnutils_uclient", &load);
    let mut plan = json!([
        { "do": "open", "url": dashboard() },
        { "do": "fill", "at": "#token", "text": TOKEN },
        { "do": "click", "at": "#door .main" },
        { "do": "wait", "at": "#list tr:nth-child(2)" },
        // Long enough for a rate to be told.
        { "do": "wait", "at": ".tile:first-child .value:text-matches('^[1-9]')" },
        { "do": "look", "as": "dashboard-busy" },
        // A link that brings the token needs no hand.
        { "do": "open", "url": format!("{}#{TOKEN}", dashboard()), "width": 360, "height": 780, "scheme": "dark" },
        { "do": "wait", "at": "#list tr:nth-child(2)" },
        { "do": "wait", "at": ".tile:first-child .value:text-matches('^[1-9]')" },
        { "do": "look", "as": "dashboard-busy-phone" },
    ]);
    let steps = plan.as_array_mut().expect("a list");
    let rest = json!([
        { "do": "fill", "at": "#search", "text": "nobody of that name" },
        { "do": "wait", "at": "#sessions-none:text('No session reads like this.')" },
        { "do": "fill", "at": "#search", "text": "alice" },
        { "do": "wait", "at": "#list tr:nth-child(2)" },
        { "do": "count", "at": "#list tr", "as": "before" },
        { "do": "click", "at": "#list tr:first-child .kick" },
        { "do": "wait", "at": "#list .kick.sure:text('Sure?')" },
        { "do": "click", "at": "#list .kick.sure" },
        { "do": "fewer", "at": "#list tr", "than": "before" },
    ]);
    steps.extend(rest.as_array().expect("a list").clone());
    let seen = browse(&rig, &plan);
    let text = seen.text("dashboard-busy");
    for part in [
        "Relaying",
        "live",
        "To peers",
        "bit/s",
        "packets/s",
        "UDP\n",
        "Workers\n2 of 2",
        "main makes new ones",
        "days left",
        "Sessions",
        "alice",
        "10.99.1.2:",
        "10.99.0.1:5",
        "Kick",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(!text.contains(TOKEN) && !text.contains(SECRET), "{text}");
    let text = seen.text("dashboard-busy-phone");
    assert!(text.contains("alice") && text.contains("Kick"), "{text}");
    let counted = metrics(&rig, PAGES);
    assert!(counted.contains("turn_auth_secret_used_total{id=\"main\"}"));
}

/// Nothing goes on; then all that can be wrong is said to be wrong, on top of figures that are real.
#[test]
fn the_dashboard_tells_what_is_wrong() {
    let Some(rig) = rig() else {
        return;
    };
    let mut server = Server::start_with(&rig, &seat(&rig));
    let enter = json!([
        { "do": "fill", "at": "#token", "text": TOKEN },
        { "do": "click", "at": "#door .main" },
        { "do": "wait", "at": "#link.on" },
        { "do": "wait", "at": "#sessions-none:not([hidden])" },
    ]);
    let plan = |open: Value, rest: Value| {
        let parts = [json!([open]), enter.clone(), rest];
        let steps = parts
            .into_iter()
            .flat_map(|part| part.as_array().expect("a list").clone());
        Value::from(steps.collect::<Vec<_>>())
    };
    let door = json!([
        { "do": "open", "url": dashboard(), "width": 900, "height": 640 },
        { "do": "fill", "at": "#token", "text": "another token" },
        { "do": "click", "at": "#door .main" },
        { "do": "wait", "at": "#token-wrong:not([hidden])" },
        { "do": "look", "as": "dashboard-door" },
    ]);
    let text = browse(&rig, &door);
    assert!(
        text.text("dashboard-door")
            .contains("The token is not accepted.")
    );

    let look = json!([{ "do": "look", "as": "dashboard-empty" }]);
    let seen = browse(
        &rig,
        &plan(json!({ "do": "open", "url": dashboard() }), look),
    );
    let text = seen.text("dashboard-empty");
    for part in [
        "no calls at the moment",
        "Nothing has been dropped.",
        "Nobody has been refused.",
        "No calls at the moment.",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }

    server.reload_broken();
    let change = json!({
        "ready": false, "certificateStale": true, "certificate": { "days": 5 }, "ports": { "total": 2000, "used": 1950 },
        "workers": { "answering": 1 },
    });
    let open = json!({ "do": "open", "url": dashboard(), "scheme": "dark", "pretend": { "change": change } });
    let seen = browse(
        &rig,
        &plan(open, json!([{ "do": "look", "as": "dashboard-failing" }])),
    );
    let text = seen.text("dashboard-failing");
    for part in [
        "A worker does not answer.",
        "Draining.",
        "The configuration is bad, and not in force.",
        "The new certificate cannot be used.",
        "The certificate ends in 5 days.",
        "98 % of the relay ports are in use.",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }

    let gone = json!([
        { "do": "open", "url": dashboard(), "width": 360, "height": 780, "pretend": { "gone_after": 1 } },
        { "do": "fill", "at": "#token", "text": TOKEN },
        { "do": "click", "at": "#door .main" },
        { "do": "wait", "at": "#link.off" },
        { "do": "wait", "at": "#sessions-none:not([hidden])" },
        { "do": "look", "as": "dashboard-gone-phone" },
    ]);
    let seen = browse(&rig, &gone);
    let text = seen.text("dashboard-gone-phone");
    for part in [
        "Out of sight",
        "The server does not answer. What is shown is what it said last.",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
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

const TOKEN: &str = "a-token-of-the-operators-own-that-nobody-guesses";

/// The operator's seat, where a browser on a client's host reaches it.
fn seat(rig: &Rig) -> Setup {
    write(rig, "token", TOKEN);
    Setup {
        more: "[admin]\nlisten = \"0.0.0.0:9642\"\ntoken_file = \"token\"\n".into(),
        ..Setup::default()
    }
}

fn dashboard() -> String {
    format!("http://{}:9642/dashboard", Host::A.server())
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

/// Where pictures are left.
pub(crate) fn pictures() -> PathBuf {
    let pictures = tool::directory().with_file_name("screenshots");
    fs::create_dir_all(&pictures).expect("target is writable");
    pictures
}

/// Does in a browser on the first client's host what `plan` says. Nothing may go wrong in the page meanwhile.
fn browse(rig: &Rig, plan: &Value) -> Seen {
    let pictures = pictures();
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
