//! What the server shows of itself in a DTLS handshake, and how it makes one.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dimpl::crypto::{Dtls12CipherSuite, HashAlgorithm, HmacProvider, aws_lc_rs};
use dimpl::{Config, CryptoError, Dtls, DtlsCertificate};

use super::hello::{COOKIE, ClientHello};

/// A client has this long to finish its handshake (A32).
const HANDSHAKE: Duration = Duration::from_secs(5);

/// A certificate and its key, ready for DTLS. The key is ECDSA on P-256 or P-384.
pub struct Identity {
    certificate: DtlsCertificate,
    /// With every cipher suite there is.
    any: Arc<Config>,
    /// With ChaCha20-Poly1305 alone.
    chacha20: Arc<Config>,
}

/// The key is none that DTLS can use here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnfitKey;

impl fmt::Display for UnfitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DTLS takes an ECDSA key on P-256 or P-384")
    }
}

impl std::error::Error for UnfitKey {}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

impl Identity {
    /// The identity of `certificate` (DER) and its `key` (PKCS#8 or SEC1, DER). That they belong together is not
    /// checked. Intermediate certificates have no place in it: the library sends the certificate alone.
    ///
    /// # Errors
    /// If the key is an RSA key, or on another curve.
    pub fn new(certificate: &[u8], key: &[u8]) -> Result<Self, UnfitKey> {
        let any = config(None);
        let loaded = any.crypto_provider().key_provider.load_private_key(key);
        if certificate.is_empty() || loaded.is_err() {
            return Err(UnfitKey);
        }
        let chacha20 = config(Some(
            Dtls12CipherSuite::ECDHE_ECDSA_CHACHA20_POLY1305_SHA256,
        ));
        Ok(Self {
            certificate: DtlsCertificate {
                certificate: certificate.to_vec(),
                private_key: key.to_vec(),
            },
            any: Arc::new(any),
            chacha20: Arc::new(chacha20),
        })
    }

    /// A server that has seen this ClientHello, whose cookie has been checked, and everything that came before it.
    ///
    /// dimpl keeps the cookie exchange inside of an association, and counts its messages. So the association is made
    /// after the exchange and lives through it at once: for each HelloVerifyRequest that the client has heard of it is
    /// asked for one, which nobody gets to see, and then it is let believe that it has issued this client's cookie.
    pub(super) fn accept(&self, now: Instant, hello: &ClientHello<'_>) -> Option<Dtls> {
        let config = match hello.offers_chacha20() {
            true => &self.chacha20,
            false => &self.any,
        };
        let mut server = Dtls::new_12(Arc::clone(config), self.certificate.clone(), now);
        server.handle_timeout(now).ok()?;
        for message in 0..hello.message {
            server
                .handle_packet(&hello.with_spoilt_cookie(message))
                .ok()?;
            let mut unseen = [0; super::hello::HELLO_VERIFY_REQUEST];
            while let dimpl::Output::Packet(_) = server.poll_output(&mut unseen) {}
        }
        ISSUED.set(hello.cookie().copied());
        let accepted = server.handle_packet(hello.bytes());
        ISSUED.set(None);
        accepted.ok().map(|()| server)
    }
}

fn config(only: Option<Dtls12CipherSuite>) -> Config {
    let mut provider = aws_lc_rs::default_provider();
    provider.hmac_provider = &Cookies;
    let builder = Config::builder()
        .with_crypto_provider(provider)
        .require_client_certificate(false)
        .handshake_timeout(HANDSHAKE)
        .dtls13_cipher_suites(&[]);
    let builder = match only {
        Some(suite) => builder.dtls12_cipher_suites(&[suite]),
        None => builder,
    };
    builder
        .build()
        .expect("the settings are within the library's bounds")
}

thread_local! {
    /// The cookie that was checked and is about to be shown to dimpl.
    static ISSUED: Cell<Option<[u8; COOKIE]>> = const { Cell::new(None) };
}

/// What dimpl makes cookies with, and nothing else in DTLS 1.2: the checked cookie while there is one.
#[derive(Debug)]
struct Cookies;

impl HmacProvider for Cookies {
    fn hmac(
        &self,
        hash: HashAlgorithm,
        key: &[u8],
        data: &[u8],
        out: &mut [u8],
    ) -> Result<usize, CryptoError> {
        if let (Some(cookie), Some(place)) = (ISSUED.get(), out.first_chunk_mut()) {
            *place = cookie;
            return Ok(COOKIE);
        }
        aws_lc_rs::default_provider()
            .hmac_provider
            .hmac(hash, key, data, out)
    }
}
