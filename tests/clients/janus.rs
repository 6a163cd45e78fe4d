//! Janus, a media server of others, which asks the token service for its credentials as
//! draft-uberti-behave-turn-rest-00 has it, and sends back what a client says to it.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use serde_json::{Value, json};

use crate::peer::{Kind, Peer, Transport, only_relayed};
use crate::rig::{Host, NAME, RELAY, Rig};
use crate::server::{self, Credential, PAGES, Server, Setup, metrics};
use crate::tool::{self, Tool};

/// Everything goes from one allocation to another: that of aiortc, and that of Janus.
#[test]
fn janus_echoes_with_credentials_of_the_token_service() {
    let Some(rig) = rig() else { return };
    let _server = Server::start_with(&rig, &service(&rig));
    let janus = Janus::start(&rig);
    let credential = Credential::lasting(3600);
    let mut caller = Peer::start(&rig, Host::A, Kind::Aiortc, Transport::Udp, &credential);
    let offer = caller.ask(&json!({ "do": "offer" }));
    let answer = janus.answer(&offer["description"]);
    only_relayed(&json!({ "description": answer }));
    let sdp = answer["sdp"].as_str().expect("a description");
    assert!(sdp.contains(&format!(" {RELAY} ")), "{sdp}");
    caller.ask(&json!({ "do": "accept", "description": answer }));
    let echo = caller.ask(&json!({ "do": "echo", "count": 200, "size": 1000 }));
    assert_eq!(echo["echoed"], 200);
    let stats = caller.ask(&json!({ "do": "stats" }));
    assert_eq!(stats["candidate"], "relay", "{stats}");

    let counted = metrics(&rig, PAGES);
    let issued = "turn_tokens_issued_total{dialect=\"turn-rest\"} 1\n";
    assert!(counted.contains(issued), "{counted}");
    let sessions = server::sessions(&rig);
    assert_eq!(sessions.len(), 2, "{sessions:#?}");
    let of_janus = sessions
        .iter()
        .find(|session| session["user"] == USER)
        .unwrap_or_else(|| panic!("{sessions:#?}"));
    assert_eq!(of_janus["claims"]["secret"], "main", "{of_janus:#}");
    for way in ["toPeer", "toClient"] {
        let bytes = of_janus[way]["bytes"].as_u64();
        assert!(bytes > Some(200 * 1000), "{of_janus:#}");
    }
}

/// A key that the token service does not know: Janus goes on without a relay, which is nobody's way here.
#[test]
fn janus_gets_no_relay_with_a_wrong_key() {
    let Some(rig) = rig() else { return };
    let setup = service(&rig);
    write_key(&rig, "another key of another backend");
    let _server = Server::start_with(&rig, &setup);
    let janus = Janus::start(&rig);
    let credential = Credential::lasting(3600);
    let mut caller = Peer::start(&rig, Host::A, Kind::Aiortc, Transport::Udp, &credential);
    let offer = caller.ask(&json!({ "do": "offer" }));
    let answer = janus.answer(&offer["description"]).to_string();
    assert!(!answer.contains(" typ relay"), "{answer}");
    let counted = metrics(&rig, PAGES);
    assert!(counted.contains("turn_tokens_refused_total"), "{counted}");
    assert!(!counted.contains("turn_tokens_issued_total"), "{counted}");
}

fn rig() -> Option<Rig> {
    if server::is_coturn() {
        tool::say_skipped("coturn has no token service");
        return None;
    }
    Rig::new(&[Tool::Aiortc, Tool::Janus, Tool::Web])
}

/// The token service, where Janus reaches it.
fn service(rig: &Rig) -> Setup {
    write_key(rig, KEY);
    Setup {
        more: format!(
            r#"
[token]
listen = ["http://{}:{PORT}"]
urls = ["turn:{NAME}:3478?transport=udp"]
dialects = ["turn-rest"]
api_keys = [{{ id = "janus", file = "janus-key" }}]
[admin]
socket = "admin.sock"
"#,
            Host::B.server()
        ),
        auth: r#"secrets = [{ id = "main", file = "secret", claims = true }]"#.into(),
    }
}

fn write_key(rig: &Rig, key: &str) {
    let file = rig.dir().join("janus-key");
    fs::write(&file, key).expect("the rig's directory is writable");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("the file is ours");
}

/// A Janus that runs on the second client's host, and one user of its echo test.
struct Janus<'a> {
    rig: &'a Rig,
    /// Where the user's events are.
    session: String,
    /// Where the user speaks with the echo test.
    handle: String,
}

impl<'a> Janus<'a> {
    /// Starts it with one plugin, and one way to speak with it.
    fn start(rig: &'a Rig) -> Self {
        let home = rig.dir().join("janus");
        let installed = tool::janus_modules().expect("the tools are present");
        for (kind, module) in [
            ("plugins", Some("libjanus_echotest.so")),
            ("transports", Some("libjanus_http.so")),
            ("loggers", None),
        ] {
            let folder = home.join(kind);
            fs::create_dir_all(&folder).expect("the rig's directory is writable");
            if let Some(module) = module {
                symlink(installed.join(kind).join(module), folder.join(module))
                    .expect("the folder is new");
            }
        }
        configure(&home);
        let configuration = home.join("janus.jcfg");
        let arguments = ["-F", text(&home), "-C", text(&configuration)];
        rig.start(Host::B, "janus", &arguments);

        let tell = |at: &str, mut words: Value| {
            words["transaction"] = json!("start");
            let said = words.to_string();
            let reply = ask(rig, at, &["--json", &said]);
            assert_eq!(reply["janus"], "success", "{reply:#}");
            format!("{at}/{}", reply["data"]["id"])
        };
        let session = tell("", json!({ "janus": "create" }));
        let attach =
            json!({ "janus": "attach", "plugin": "janus.plugin.echotest", "opaque_id": USER });
        let handle = tell(&session, attach);
        Self {
            rig,
            session,
            handle,
        }
    }

    /// What it answers to an offer, once it has gathered all candidates; none but those of a relay are wanted.
    fn answer(&self, offer: &Value) -> Value {
        let mut offer = offer.clone();
        offer["force_relay"] = json!(true);
        offer["trickle"] = json!(false);
        let body = json!({ "audio": false, "video": false });
        let words =
            json!({ "janus": "message", "transaction": "offer", "body": body, "jsep": offer });
        let heard = ask(self.rig, &self.handle, &["--json", &words.to_string()]);
        assert_eq!(heard["janus"], "ack", "{heard:#}");
        for _ in 0..3 {
            let mut event = ask(self.rig, &self.session, &[]);
            if event["jsep"]["type"] == "answer" {
                return event["jsep"].take();
            }
        }
        panic!("Janus did not answer the offer");
    }
}

/// Asks Janus something, as soon as it is there.
fn ask(rig: &Rig, at: &str, more: &[&str]) -> Value {
    let url = format!("http://127.0.0.1:{API}/janus{at}");
    let curl = [
        "--silent",
        "--show-error",
        "--retry-connrefused",
        "--retry",
        "30",
        "--retry-delay",
        "1",
        "--max-time",
        "50",
        &url,
    ];
    let output = rig.run(Host::B, "curl", &[&curl[..], more].concat());
    let json = output.find('{').map(|start| &output[start..]);
    serde_json::from_str(json.expect("an object")).expect("it is JSON")
}

fn configure(home: &Path) {
    let folder = home.display();
    let service = Host::B.server();
    let main = format!(
        r#"
general: {{
    configs_folder = "{folder}"
    plugins_folder = "{folder}/plugins"
    transports_folder = "{folder}/transports"
    loggers_folder = "{folder}/loggers"
    debug_level = 4
    session_timeout = 0
}}
nat: {{
    turn_rest_api = "http://{service}:{PORT}/turn"
    turn_rest_api_key = "{KEY}"
    turn_rest_api_method = "GET"
    allow_force_relay = true
}}
"#
    );
    let transport = format!(
        r#"
general: {{
    json = "compact"
    http = true
    ip = "127.0.0.1"
    port = {API}
    https = false
}}
admin: {{
    admin_http = false
    admin_https = false
}}
"#
    );
    for (name, words) in [
        ("janus.jcfg", main),
        ("janus.transport.http.jcfg", transport),
        ("janus.plugin.echotest.jcfg", String::new()),
    ] {
        fs::write(home.join(name), words).expect("the rig's directory is writable");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the rig's names are plain")
}

/// The user that Janus names to the token service.
const USER: &str = "ann";
const KEY: &str = "a key of the media server, long enough";
const PORT: u16 = 8089;
/// Where Janus is spoken with.
const API: u16 = 8088;
