//! Nonces that nobody has to remember: the time and a seal.
//!
//! ```text
//!                  base64(           seconds:4  salt:3  seal:8 )
//! "obMatJos2gAAB"  base64( offer:1   seconds:4  salt:3  seal:8 )
//! ```
//!
//! The cookie (RFC 8489 §9.2) and what exactly is offered stand in front if anything is. The salt tells the ports and
//! hosts of one subscriber apart, so that no two of them are given the same nonce \[A2\]; the seal covers the offer, the
//! time, the salt and the subscriber. So any server with the same key accepts it, from the address it was issued to.

use std::net::{IpAddr, SocketAddr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::offer::{COOKIE, Offer};
use super::{NonceKey, NonceKeys, prefix};

/// Issues nonces, and knows its own again.
pub(super) struct Nonces {
    /// Keyed already. The first one issues.
    seals: Vec<Hmac<Sha256>>,
}

/// The text of a nonce.
pub(super) struct Nonce {
    text: [u8; COOKIE + LONGEST_TEXT],
    len: usize,
}

/// What a nonce turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// One of ours, issued to this client `age` seconds ago.
    Ours {
        /// How old it is; less than 0 if another server's clock is ahead.
        age: i32,
        /// What was offered with it.
        offer: Offer,
    },
    /// Made up, issued to somebody else, or sealed with a key that has been withdrawn.
    Foreign,
}

impl Nonces {
    pub(super) fn new(keys: &NonceKeys) -> Self {
        let seal = |key: &NonceKey| {
            <Hmac<Sha256> as KeyInit>::new_from_slice(&key.0).expect("an HMAC key has any length")
        };
        Self {
            seals: std::iter::once(&keys.issuing)
                .chain(&keys.accepted)
                .map(seal)
                .collect(),
        }
    }

    /// A nonce for a client at `time`, in seconds, with which `offer` goes.
    pub(super) fn issue(&self, time: u64, client: SocketAddr, offer: Offer) -> Nonce {
        let mut bytes = [0; 1 + SEALED];
        bytes[0] = offer.byte();
        bytes[1..5].copy_from_slice(&(time as u32).to_be_bytes());
        bytes[5..8].copy_from_slice(&salt(client));
        let seal = seal(&self.seals[0], &bytes[..8], client.ip());
        bytes[8..].copy_from_slice(&seal);

        let mut nonce = Nonce {
            text: [0; COOKIE + LONGEST_TEXT],
            len: 0,
        };
        let shown = match offer.cookie() {
            Some(cookie) => {
                nonce.text[..COOKIE].copy_from_slice(cookie);
                nonce.len = COOKIE;
                &bytes[..]
            }
            None => &bytes[1..],
        };
        nonce.len += STANDARD_NO_PAD
            .encode_slice(shown, &mut nonce.text[nonce.len..])
            .expect("the text has room for the bytes");
        nonce
    }

    /// What a nonce is that a client presents at `time`.
    pub(super) fn check(&self, time: u64, client: SocketAddr, nonce: &[u8]) -> Origin {
        let Some((offer, bytes)) = read(nonce) else {
            return Origin::Foreign;
        };
        let issued = u32::from_be_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]);
        let right = self.seals.iter().any(|key| {
            seal(key, &bytes[..8], client.ip())
                .ct_eq(&bytes[8..])
                .into()
        });
        if right {
            let age = (time as u32).wrapping_sub(issued) as i32;
            Origin::Ours { age, offer }
        } else {
            Origin::Foreign
        }
    }
}

/// The bytes of a nonce's text, the offer first even where it is not shown.
fn read(nonce: &[u8]) -> Option<(Offer, [u8; 1 + SEALED])> {
    let mut bytes = [0; 1 + SEALED];
    if nonce.len() == SEALED_TEXT {
        let whole = STANDARD_NO_PAD.decode_slice(nonce, &mut bytes[1..]) == Ok(SEALED);
        return whole.then_some((Offer::NOTHING, bytes));
    }
    let (cookie, text) = nonce.split_at_checked(COOKIE)?;
    let whole = STANDARD_NO_PAD.decode_slice(text, &mut bytes) == Ok(1 + SEALED);
    let offer = Offer::of(bytes[0])?;
    let agree = offer.cookie().is_some_and(|own| own[..] == *cookie);
    (whole && agree).then_some((offer, bytes))
}

impl Nonce {
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.text[..self.len]
    }
}

fn seal(key: &Hmac<Sha256>, stamp: &[u8], client: IpAddr) -> [u8; 8] {
    let (family, subscriber) = prefix::subscriber(client);
    let seal = key
        .clone()
        .chain_update(stamp)
        .chain_update([family.number()])
        .chain_update(subscriber.to_be_bytes())
        .finalize()
        .into_bytes();
    *seal.first_chunk().expect("SHA-256 has 32 bytes")
}

/// Tells apart what the seal does not: ports exactly, and the hosts of one IPv6 subscriber by a byte.
fn salt(client: SocketAddr) -> [u8; 3] {
    let [high, low] = client.port().to_be_bytes();
    let host = match client.ip() {
        IpAddr::V4(_) => 0,
        IpAddr::V6(v6) => v6.octets()[8..].iter().fold(0, |fold: u8, byte| {
            fold.rotate_left(3).wrapping_mul(5) ^ byte
        }),
    };
    [high, low, host]
}

/// Time, salt and seal, and their text; the text with the offer.
const SEALED: usize = 15;
const SEALED_TEXT: usize = 20;
const LONGEST_TEXT: usize = 22;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn::PasswordAlgorithms;

    const BOTH: Offer = Offer {
        algorithms: PasswordAlgorithms::Sha256AndMd5,
        anonymity: false,
    };

    fn every_offer() -> impl Iterator<Item = Offer> {
        (0..=255).filter_map(Offer::of)
    }

    fn nonces(issuing: u8, accepted: &[u8]) -> Nonces {
        Nonces::new(&NonceKeys {
            issuing: NonceKey([issuing; 32]),
            accepted: accepted.iter().map(|&key| NonceKey([key; 32])).collect(),
        })
    }

    fn client(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a17_every_flipped_bit_makes_it_foreign() {
        let nonces = nonces(1, &[]);
        let ann = client("192.0.2.1:5000");
        for offer in every_offer() {
            let nonce = nonces.issue(1000, ann, offer);
            let ours = Origin::Ours { age: 0, offer };
            assert_eq!(nonces.check(1000, ann, nonce.as_bytes()), ours);
            for at in 0..nonce.as_bytes().len() {
                for bit in 0..8 {
                    let mut changed = nonce.as_bytes().to_vec();
                    changed[at] ^= 1 << bit;
                    assert_eq!(nonces.check(1000, ann, &changed), Origin::Foreign);
                }
            }
        }
    }

    #[test]
    fn a21_the_cookie_can_neither_be_taken_away_nor_added_nor_changed() {
        let nonces = nonces(1, &[]);
        let ann = client("192.0.2.1:5000");
        for offer in every_offer() {
            let nonce = nonces.issue(1000, ann, offer);
            let text = match offer.cookie() {
                Some(_) => &nonce.as_bytes()[COOKIE..],
                None => nonce.as_bytes(),
            };
            // The text that has the offer in it, and the one that has not.
            let mut bytes = STANDARD_NO_PAD.decode(text).unwrap();
            let bare = STANDARD_NO_PAD.encode(&bytes[bytes.len() - SEALED..]);
            let mut texts = vec![text.to_vec(), bare.into_bytes()];
            for other in every_offer() {
                bytes.splice(..bytes.len() - SEALED, [other.byte()]);
                texts.push(STANDARD_NO_PAD.encode(&bytes).into_bytes());
            }
            let cookies = every_offer().map(|other| other.cookie().map_or(&b""[..], |own| own));
            for cookie in cookies {
                for text in &texts {
                    let forged = [cookie, text].concat();
                    let expected = if forged == nonce.as_bytes() {
                        Origin::Ours { age: 0, offer }
                    } else {
                        Origin::Foreign
                    };
                    assert_eq!(nonces.check(1000, ann, &forged), expected);
                }
            }
        }
    }

    #[test]
    fn a2_no_two_clients_are_issued_the_same() {
        let nonces = nonces(1, &[]);
        let mut seen = std::collections::HashSet::new();
        for host in [
            "192.0.2.1",
            "192.0.2.2",
            "[2001:db8::1]",
            "[2001:db8::2]",
            "[2001:db8:0:1::1]",
        ] {
            for port in 1..=2000 {
                let nonce = nonces.issue(1000, client(&format!("{host}:{port}")), Offer::NOTHING);
                assert!(seen.insert(nonce.as_bytes().to_vec()), "{host} {port}");
            }
        }
    }

    #[test]
    fn a2_it_is_good_for_the_ports_of_its_subscriber_only() {
        let nonces = nonces(1, &[]);
        let ours = Origin::Ours {
            age: 5,
            offer: Offer::NOTHING,
        };
        let nonce = nonces.issue(1000, client("192.0.2.1:5000"), Offer::NOTHING);
        let check = |from| nonces.check(1005, client(from), nonce.as_bytes());
        assert_eq!(check("192.0.2.1:6000"), ours);
        assert_eq!(check("192.0.2.2:5000"), Origin::Foreign);
        assert_eq!(check("[::c000:201]:5000"), Origin::Foreign);

        let nonce = nonces.issue(1000, client("[2001:db8::1]:5000"), Offer::NOTHING);
        let check = |from| nonces.check(1005, client(from), nonce.as_bytes());
        assert_eq!(check("[2001:db8::2]:6000"), ours);
        assert_eq!(check("[2001:db8:0:1::1]:5000"), Origin::Foreign);
    }

    #[test]
    fn keys_can_change_while_nonces_are_out() {
        let ann = client("192.0.2.1:5000");
        let old = nonces(1, &[]).issue(1000, ann, BOTH);
        let ours = Origin::Ours {
            age: 0,
            offer: BOTH,
        };
        assert_eq!(nonces(2, &[1]).check(1000, ann, old.as_bytes()), ours);
        assert_eq!(
            nonces(2, &[]).check(1000, ann, old.as_bytes()),
            Origin::Foreign
        );
        let new = nonces(2, &[1]).issue(1000, ann, BOTH);
        assert_eq!(nonces(2, &[]).check(1000, ann, new.as_bytes()), ours);
    }

    #[test]
    fn f15_the_age_is_right_where_32_bits_of_time_end() {
        let nonces = nonces(1, &[]);
        let ann = client("192.0.2.1:5000");
        for end in [1u64 << 31, 1 << 32] {
            let nonce = nonces.issue(end - 10, ann, Offer::NOTHING);
            let age = |time| nonces.check(time, ann, nonce.as_bytes());
            assert_eq!(
                age(end + 20),
                Origin::Ours {
                    age: 30,
                    offer: Offer::NOTHING
                }
            );
            assert_eq!(
                age(end - 15),
                Origin::Ours {
                    age: -5,
                    offer: Offer::NOTHING
                }
            );
        }
    }

    #[test]
    fn a3_the_cookie_is_there_when_algorithms_are_offered() {
        let nonces = nonces(1, &[]);
        let ann = client("192.0.2.1:5000");
        let with = nonces.issue(1000, ann, BOTH);
        assert!(with.as_bytes().starts_with(b"obMatJos2gAAB"));
        assert_eq!(with.as_bytes().len(), 35);
        assert_eq!(nonces.issue(1000, ann, Offer::NOTHING).as_bytes().len(), 20);
    }
}
