//! Janus, a media server of others, which asks the token service for its credentials as
//! draft-uberti-behave-turn-rest-00 has it, and sends back what a client says to it.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

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
    Rig::new(&[Tool::Aiortc, Tool::Janus])
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
struct Janus {
    socket: UnixDatagram,
    session: Value,
    handle: Value,
}

impl Janus {
    /// Starts it with one plugin, and one way to speak with it, which passes between hosts as files do.
    fn start(rig: &Rig) -> Self {
        let home = rig.dir().join("janus");
        let installed = tool::janus_modules().expect("the tools are present");
        for (kind, module) in [
            ("plugins", Some("libjanus_echotest.so")),
            ("transports", Some("libjanus_pfunix.so")),
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

        let socket = UnixDatagram::bind(home.join("client")).expect("the folder takes a socket");
        let api = home.join("api");
        let ready = "for i in $(seq 200); do [ -S $0 ] && exit 0; sleep 0.1; done; exit 1";
        rig.run(Host::B, "bash", &["-c", ready, text(&api)]);
        socket.connect(api).expect("Janus listens");
        // It may be slow, but then answers at once; see `ask`.
        let short = Some(Duration::from_secs(1));
        socket.set_read_timeout(short).expect("not zero");
        let mut janus = Self {
            socket,
            session: Value::Null,
            handle: Value::Null,
        };
        let created = janus.ask(json!({ "janus": "create" }));
        janus.session = created["data"]["id"].clone();
        let attach =
            json!({ "janus": "attach", "plugin": "janus.plugin.echotest", "opaque_id": USER });
        let attached = janus.ask(attach);
        janus.handle = attached["data"]["id"].clone();
        janus
    }

    /// What it answers to an offer, once it has gathered all candidates; none but those of a relay are wanted.
    fn answer(&self, offer: &Value) -> Value {
        let mut offer = offer.clone();
        offer["force_relay"] = json!(true);
        offer["trickle"] = json!(false);
        let words = json!({ "janus": "message", "body": { "audio": false, "video": false }, "jsep": offer });
        let mut event = self.ask(words);
        assert_eq!(event["jsep"]["type"], "answer", "{event:#}");
        event["jsep"].take()
    }

    /// Says something, and returns the last of what is answered: what only tells that it was heard is none.
    fn ask(&self, mut words: Value) -> Value {
        let transaction = words["janus"].clone();
        words["transaction"] = transaction.clone();
        for (name, id) in [("session_id", &self.session), ("handle_id", &self.handle)] {
            if !id.is_null() {
                words[name] = id.clone();
            }
        }
        self.socket
            .send(words.to_string().as_bytes())
            .expect("Janus runs");
        let mut message = vec![0; 64 * 1024];
        for _ in 0..30 {
            let Ok(length) = self.socket.recv(&mut message) else {
                continue;
            };
            let heard: Value = serde_json::from_slice(&message[..length]).expect("JSON");
            let kind = heard["janus"].as_str();
            assert_ne!(kind, Some("error"), "{heard:#}");
            if heard["transaction"] == transaction && kind != Some("ack") {
                return heard;
            }
        }
        panic!("Janus did not answer {transaction}");
    }
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
    enabled = true
    json = "compact"
    path = "{folder}/api"
    type = "SOCK_DGRAM"
}}
"#
    );
    for (name, words) in [
        ("janus.jcfg", main),
        ("janus.transport.pfunix.jcfg", transport),
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
