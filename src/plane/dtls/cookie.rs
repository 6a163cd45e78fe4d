//! Cookies that nobody has to remember (RFC 6347 §4.2.1, attack A15).
//!
//! A cookie is the MAC of the two addresses and of what the client drew for this handshake, under a key that is good
//! for one window of time. Whoever presents it hears what is sent to the address that it was made for.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use super::hello::{COOKIE, ClientHello};
use crate::turn::FiveTuple;

/// How long a key issues. Its cookies are good until the next one has issued as long: 30 to 60 s.
const WINDOW: Duration = Duration::from_secs(30);

/// Issues cookies, and knows its own again.
pub(super) struct Cookies {
    seed: Hmac<Sha256>,
    epoch: Instant,
    /// The key of the window that was asked for last, and the one before it.
    keys: [(u64, Hmac<Sha256>); 2],
}

impl Cookies {
    /// All that are given the same seed and epoch accept each other's cookies.
    pub(super) fn new(seed: &[u8; 32], epoch: Instant) -> Self {
        let seed = mac(seed);
        let keys = [0, 0].map(|window| (window, derived(&seed, window)));
        Self { seed, epoch, keys }
    }

    /// The cookie for whoever sent this ClientHello.
    pub(super) fn issue(
        &mut self,
        now: Instant,
        client: &FiveTuple,
        hello: &ClientHello<'_>,
    ) -> [u8; COOKIE] {
        let window = self.window(now);
        cookie(self.key(window), client, hello)
    }

    /// Whether a ClientHello presents a cookie that was issued to its sender, and not too long ago.
    pub(super) fn check(
        &mut self,
        now: Instant,
        client: &FiveTuple,
        hello: &ClientHello<'_>,
    ) -> bool {
        let Some(presented) = hello.cookie() else {
            return false;
        };
        let window = self.window(now);
        [Some(window), window.checked_sub(1)]
            .into_iter()
            .flatten()
            .any(|window| {
                cookie(self.key(window), client, hello)
                    .ct_eq(presented)
                    .into()
            })
    }

    fn window(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_secs() / WINDOW.as_secs()
    }

    fn key(&mut self, window: u64) -> &Hmac<Sha256> {
        let place = (window % 2) as usize;
        if self.keys[place].0 != window {
            self.keys[place] = (window, derived(&self.seed, window));
        }
        &self.keys[place].1
    }
}

fn mac(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("an HMAC key has any length")
}

fn derived(seed: &Hmac<Sha256>, window: u64) -> Hmac<Sha256> {
    let key = seed.clone().chain_update(window.to_be_bytes()).finalize();
    mac(&key.into_bytes())
}

fn cookie(key: &Hmac<Sha256>, client: &FiveTuple, hello: &ClientHello<'_>) -> [u8; COOKIE] {
    let mac = key
        .clone()
        .chain_update(words(client.client))
        .chain_update(words(client.server))
        .chain_update(hello.random);
    mac.finalize().into_bytes().into()
}

/// An address as 18 bytes: no two have the same ones.
fn words(address: SocketAddr) -> [u8; 18] {
    let mut bytes = [0; 18];
    let ip = match address.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    bytes[..16].copy_from_slice(&ip.octets());
    bytes[16..].copy_from_slice(&address.port().to_be_bytes());
    bytes
}
