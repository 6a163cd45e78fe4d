//! Time-limited credentials, and the texts they are handed out in.
//!
//! The username is `expiry:user`, the password a keyed hash of it: whoever shares the secret can make them, and the
//! server needs no list of users.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::plane::{Listen, RelayAddress};
use crate::turn::{SharedSecret, Transport};

/// A username with its password. Not `Debug`: the password is good until it expires.
pub struct Credential {
    /// `expiry:user`
    pub username: String,
    /// What belongs to it.
    pub password: Zeroizing<String>,
}

impl Credential {
    /// Makes one that is good for `ttl` from `unix` on, in seconds since 1970.
    pub fn mint(secret: &SharedSecret, user: &str, ttl: Duration, unix: i64) -> Self {
        let expiry = unix.saturating_add(i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX));
        let username = format!("{expiry}:{user}");
        let password = secret.password(username.as_bytes());
        Self { username, password }
    }
}

/// Where clients find the server: what stands in `urls` of an `RTCIceServer`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Urls {
    /// For finding one's own address.
    pub stun: Vec<String>,
    /// For relaying.
    pub turn: Vec<String>,
}

impl Urls {
    /// The first listener of each transport, at `host` or where its address says. No more: every URL costs a
    /// client time.
    pub fn new(host: Option<&str>, listeners: &[Listen], relays: &[RelayAddress]) -> Self {
        let first = |transport: Transport| {
            listeners
                .iter()
                .find(move |listen| listen.transport == transport)
        };
        let at = |listen: &Listen| match host {
            Some(host) => format!("{}:{}", bracketed(host), listen.address.port()),
            None => SocketAddr::new(
                reachable(listen.address.ip(), relays),
                listen.address.port(),
            )
            .to_string(),
        };
        let udp = first(Transport::Udp).map(&at);
        let tcp = first(Transport::Tcp).map(&at);
        let tls = first(Transport::Tls).map(&at);
        Self {
            stun: udp.iter().map(|at| format!("stun:{at}")).collect(),
            turn: [
                udp.map(|at| format!("turn:{at}?transport=udp")),
                tcp.map(|at| format!("turn:{at}?transport=tcp")),
                tls.map(|at| format!("turns:{at}?transport=tcp")),
            ]
            .into_iter()
            .flatten()
            .collect(),
        }
    }

    /// The `RTCConfiguration` that a page passes to `RTCPeerConnection`.
    pub fn configuration(&self, credential: &Credential) -> Value {
        let mut servers = Vec::new();
        if !self.stun.is_empty() {
            servers.push(json!({ "urls": self.stun }));
        }
        servers.push(json!({ "urls": self.turn, "username": credential.username, "credential": *credential.password }));
        json!({ "iceServers": servers })
    }

    /// The same as a statement of JavaScript.
    pub fn script(&self, credential: &Credential) -> String {
        let text = |text: &str| Value::from(text).to_string();
        let list = |urls: &[String]| {
            urls.iter()
                .map(|url| text(url))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let stun = if self.stun.is_empty() {
            String::new()
        } else {
            format!("    {{ urls: [{}] }},\n", list(&self.stun))
        };
        format!(
            "const pc = new RTCPeerConnection({{\n  iceServers: [\n{stun}    {{\n      urls: [{}],\n      username: {},\n      credential: {},\n    }},\n  ],\n}});\n",
            list(&self.turn),
            text(&credential.username),
            text(&credential.password),
        )
    }
}

/// A wildcard listener is reached where the relay is; one behind a 1:1 NAT where the world sees it.
fn reachable(listener: IpAddr, relays: &[RelayAddress]) -> IpAddr {
    if listener.is_unspecified() {
        let same_family = relays
            .iter()
            .find(|relay| relay.advertised.is_ipv4() == listener.is_ipv4());
        return same_family
            .or_else(|| relays.first())
            .map_or(listener, |relay| relay.advertised);
    }
    relays
        .iter()
        .find(|relay| relay.local == listener)
        .map_or(listener, |relay| relay.advertised)
}

fn bracketed(host: &str) -> String {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
        Ok(IpAddr::V4(_)) | Err(_) => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn::SecretAlgorithm;

    fn listen(address: &str, transport: Transport) -> Listen {
        Listen::new(address.parse().unwrap(), transport)
    }

    fn relay(local: &str, advertised: &str) -> RelayAddress {
        RelayAddress {
            local: local.parse().unwrap(),
            advertised: advertised.parse().unwrap(),
        }
    }

    #[test]
    fn a_credential_is_the_keyed_hash_of_its_name() {
        let secret = SharedSecret::new("main", b"north", SecretAlgorithm::Sha1);
        let credential =
            Credential::mint(&secret, "alice", Duration::from_secs(3600), 1_700_000_000);
        assert_eq!(credential.username, "1700003600:alice");
        // printf '1700003600:alice' | openssl dgst -sha1 -hmac north -binary | base64
        assert_eq!(*credential.password, "wjwSXO2ch1B6VaLTLMy2Avn5O9o=");
    }

    #[test]
    fn urls_name_the_first_listener_of_each_transport() {
        let listeners = [
            listen("0.0.0.0:3478", Transport::Udp),
            listen("[::]:3478", Transport::Udp),
            listen("0.0.0.0:3478", Transport::Tcp),
            listen("10.0.0.5:5349", Transport::Tls),
        ];
        let relays = [relay("10.0.0.5", "203.0.113.4")];
        let urls = Urls::new(None, &listeners, &relays);
        assert_eq!(urls.stun, ["stun:203.0.113.4:3478"]);
        assert_eq!(
            urls.turn,
            [
                "turn:203.0.113.4:3478?transport=udp",
                "turn:203.0.113.4:3478?transport=tcp",
                "turns:203.0.113.4:5349?transport=tcp"
            ]
        );
        let urls = Urls::new(Some("turn.example.org"), &listeners[..1], &relays);
        assert_eq!(urls.turn, ["turn:turn.example.org:3478?transport=udp"]);
        assert_eq!(
            Urls::new(Some("2001:db8::4"), &listeners[..1], &relays).stun,
            ["stun:[2001:db8::4]:3478"]
        );
    }

    #[test]
    fn the_script_quotes_what_it_is_given() {
        let secret = SharedSecret::new("main", b"north", SecretAlgorithm::Sha256);
        let credential = Credential::mint(&secret, "a\"b", Duration::from_secs(1), 0);
        let urls = Urls::new(None, &[listen("192.0.2.1:3478", Transport::Udp)], &[]);
        assert!(urls.script(&credential).contains(r#"username: "1:a\"b""#));
        assert_eq!(
            urls.configuration(&credential)["iceServers"][1]["username"],
            "1:a\"b"
        );
    }
}
