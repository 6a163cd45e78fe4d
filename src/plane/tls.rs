//! What is offered and shown in the TLS handshake (RFC 7443, RFC 6066 §3), and how a handshake is known from its
//! first byte.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

/// The protocols of RFC 7443, the one to prefer first. A client that names none is served as well, as
/// browsers are. One that has chosen `stun.nat-discovery` is served no differently: the name tells what the
/// client is about to do, and forbids the server nothing; whatever is more than Binding asks for credentials.
const RELAY: [&[u8]; 2] = [b"stun.turn", b"stun.nat-discovery"];
/// What web clients name. Not `h2`: what a backend behind plain TCP speaks is not known to be it.
const WEB: &[u8] = b"http/1.1";
/// The first byte of a ClientHello: a record of the type handshake. No STUN message and no ChannelData
/// message begins with it (RFC 7983).
const HANDSHAKE: u8 = 22;

/// The certificates in use, as two kinds of listeners offer them.
pub(super) struct Tls {
    relay: TlsAcceptor,
    web: TlsAcceptor,
}

impl Tls {
    pub(super) fn new(config: &ServerConfig) -> Arc<Self> {
        let offering = |protocols: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
            TlsAcceptor::from(Arc::new(config))
        };
        Arc::new(Self {
            relay: offering(&RELAY),
            web: offering(&[RELAY[0], RELAY[1], WEB]),
        })
    }

    /// For a listener that has a web server behind it, or has none.
    pub(super) fn acceptor(&self, has_web: bool) -> TlsAcceptor {
        if has_web { &self.web } else { &self.relay }.clone()
    }
}

/// Whether a connection that begins with this byte speaks TLS.
pub(super) fn begins_with(byte: u8) -> bool {
    byte == HANDSHAKE
}

/// Whether the client asked for the web server and nothing else.
pub(super) fn is_web(protocol: Option<&[u8]>) -> bool {
    protocol == Some(WEB)
}

/// Certificates, each for the hosts that it names. Clients that name no host are shown the first, as are those
/// that name one that none is for: with a `turn:` URI of an IP address there is no name at all.
#[derive(Debug)]
pub struct ByName {
    default: Option<Arc<CertifiedKey>>,
    /// Names in lower case; of a wildcard, what follows its star.
    by_name: HashMap<String, Arc<CertifiedKey>>,
}

impl ByName {
    /// Each certificate with the names it is for. If two are for the same name, the first is shown.
    pub fn new(certificates: impl IntoIterator<Item = (Vec<String>, CertifiedKey)>) -> Self {
        let mut all = Self {
            default: None,
            by_name: HashMap::new(),
        };
        for (names, certificate) in certificates {
            let certificate = Arc::new(certificate);
            all.default.get_or_insert_with(|| Arc::clone(&certificate));
            for name in names {
                let name = name.strip_prefix('*').unwrap_or(&name).to_ascii_lowercase();
                all.by_name
                    .entry(name)
                    .or_insert_with(|| Arc::clone(&certificate));
            }
        }
        all
    }

    /// A name of its own comes before a wildcard, which stands for one label (RFC 9525 §6.3).
    fn find(&self, host: &str) -> Option<&Arc<CertifiedKey>> {
        let wildcard = || self.by_name.get(host.get(host.find('.')?..)?);
        self.by_name.get(host).or_else(wildcard)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|host| self.find(host));
        named.or(self.default.as_ref()).cloned()
    }
}
