//! A `turnd` with a token service, its keys, and tokens for its users.

use std::net::{SocketAddr, TcpStream};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use turnd::stun::{Attribute, Integrity, Key, Method};

use crate::http::{self, Reply};
use crate::process::{Daemon, Start, free_address};
use crate::wire::{Client, PATIENCE};

/// The key of the backend, which must turn up nowhere. It is base64, as one dialect wants it.
pub(crate) const KEY: &str = "TUFSS0VSLWJhY2tlbmQta2V5LW5vcnRoLW5vcnRoLW5vcnRo";
/// The key of another tenant's backend, which may do nothing but take back.
pub(crate) const OTHER_KEY: &str = "TUFSS0VSLW90aGVyLWtleS1zb3V0aC1zb3V0aC1zb3V0aA==";
/// What the login service signs tokens with.
pub(crate) const SHARED: &str = "MARKER-shared-key-of-the-login-service";
pub(crate) const ISSUER: &str = "https://login.test";
pub(crate) const ORIGIN: &str = "https://app.example.org";

/// A relay with a token service beside it.
pub(crate) struct Service {
    pub(crate) daemon: Daemon,
    pub(crate) at: SocketAddr,
}

/// The configuration of a relay on loopback with a secret that vouches for claims, or not.
pub(crate) fn configuration(start: &Start, claims: bool, token: &str) -> String {
    let (udp, metrics) = (start.udp, start.metrics);
    format!(
        "server = {{ workers = 1 }}\n\
         relay = {{ addresses = ['127.0.0.1'], ports = '41000-41999' }}\n\
         metrics = {{ listen = '{metrics}' }}\n\
         [auth]\n\
         secrets = [{{ id = 'k2', file = 'secret', algorithm = 'sha256', encoding = 'base64url', claims = {claims} }}]\n\
         [[listen]]\naddress = '{udp}'\n\
         [[listen]]\naddress = '{udp}'\ntransport = 'tcp'\n\
         [token]\n\
         origins = ['{ORIGIN}']\n\
         api_keys = [{{ id = 'backend', file = 'backend', tenant = 'acme' }},\n\
             {{ id = 'other', file = 'other', tenant = 'other', scopes = ['relay.revoke'] }}]\n\
         issuers = [{{ issuer = '{ISSUER}', audience = 'turn', algorithms = ['HS256'], keys = 'shared', tenant_claim = 'tid', scopes = ['voip'] }}]\n\
         {token}\n"
    )
}

impl Service {
    /// With `more` in `[token]`.
    pub(crate) fn start(more: &str) -> Self {
        Self::start_with(true, more)
    }

    pub(crate) fn start_with(claims: bool, more: &str) -> Self {
        let (start, at) = prepared(claims, more);
        Self {
            daemon: start.ready(),
            at,
        }
    }

    pub(crate) fn ask(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Reply {
        ask(self.at, method, target, headers, body)
    }

    /// A request with a key or token, and JSON.
    pub(crate) fn post(&self, target: &str, token: &str, body: &Value) -> Reply {
        let bearer = format!("Bearer {token}");
        let headers = [
            ("Authorization", bearer.as_str()),
            ("Content-Type", "application/json"),
        ];
        self.ask("POST", target, &headers, &body.to_string())
    }

    /// The native endpoint.
    pub(crate) fn issue(&self, token: &str, body: &Value) -> Reply {
        self.post("/v1/relay/credentials", token, body)
    }

    /// Does the relay give an allocation for this?
    #[track_caller]
    pub(crate) fn allocates(&self, username: &str, password: &str) {
        assert_eq!(
            allocate(self.daemon.udp, username, password),
            0,
            "{username}"
        );
    }
}

/// A server with a token service that is ready to start.
pub(crate) fn prepared(claims: bool, more: &str) -> (Start, SocketAddr) {
    let start = Start::with("");
    let at = free_address();
    start.place.write("backend", KEY);
    start.place.write("other", OTHER_KEY);
    start.place.write("shared", SHARED);
    let text = configuration(&start, claims, &format!("listen = ['http://{at}']\n{more}"));
    start.place.write("turnd.toml", &text);
    (start, at)
}

pub(crate) fn ask(
    at: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Reply {
    let mut stream = connect(at);
    let request = http::request(method, target, headers, body.as_bytes());
    http::exchange(&mut stream, &request)
}

pub(crate) fn connect(at: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// The code of an Allocate with these credentials, 0 for success.
pub(crate) fn allocate(server: SocketAddr, username: &str, password: &str) -> u16 {
    let mut client = Client::udp(server);
    let put = |writer: &mut turnd::stun::Writer<'_>| {
        writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
    };
    let first = client.build(Method::ALLOCATE, put, false);
    client.send(&first);
    let challenge = crate::wire::Answer(client.receive());
    let message = challenge.message();
    let realm = message.realm().unwrap().unwrap();
    let nonce = message.nonce().unwrap().unwrap();
    let key = Key::md5(username.as_bytes(), realm, password.as_bytes());
    let mut bytes = Vec::new();
    let mut writer = turnd::stun::Writer::new(
        &mut bytes,
        turnd::stun::Class::Request,
        Method::ALLOCATE,
        turnd::stun::TransactionId([7; 12]),
    );
    put(&mut writer);
    writer.bytes(Attribute::USERNAME, username.as_bytes());
    writer.bytes(Attribute::REALM, realm);
    writer.bytes(Attribute::NONCE, nonce);
    writer.finish_with_integrity(&key, Integrity::Sha1);
    client.send(&bytes);
    crate::wire::Answer(client.receive()).code()
}

/// Seconds since 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "tokens are dated by the wall clock"
)]
pub(crate) fn unix() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// What the login service says of a user.
pub(crate) fn claims(user: &str) -> Value {
    json!({
        "iss": ISSUER, "aud": "turn", "sub": user, "tid": "acme", "scope": "voip chat",
        "iat": unix(), "exp": unix() + 600,
    })
}

/// The same with other claims; null takes one out.
pub(crate) fn claims_with(user: &str, more: &Value) -> Value {
    let mut claims = claims(user);
    let all = claims.as_object_mut().unwrap();
    all.extend(more.as_object().unwrap().clone());
    all.retain(|_, value| !value.is_null());
    claims
}

pub(crate) fn sign(claims: &Value) -> String {
    let key = EncodingKey::from_secret(SHARED.as_bytes());
    encode(&Header::new(Algorithm::HS256), claims, &key).unwrap()
}

/// A token of a user.
pub(crate) fn user(name: &str) -> String {
    sign(&claims(name))
}

/// `Basic` of a name and a password.
pub(crate) fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
}
