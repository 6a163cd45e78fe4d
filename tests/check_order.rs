//! In which order an Allocate is judged (RFC 8489 §6.3.1 and §9.2.4, RFC 8656 §7.2): whatever is wrong with it at the
//! same time, the first thing in the RFC's order is what it is told.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;

use support::*;
use turnd::stun::{Attribute, Class, Method, Writer};
use turnd::turn::{PasswordAlgorithms, Redirect, Settings, TcpRelay};

/// An Allocate, and the server that it comes to. The default is one that succeeds.
#[derive(Clone, Debug)]
struct Attempt {
    is_cut: bool,
    has_wrong_fingerprint: bool,
    has_integrity: bool,
    has_username: bool,
    has_realm: bool,
    has_nonce: bool,
    alters_algorithms: bool,
    is_stranger: bool,
    has_wrong_password: bool,
    is_stale: bool,
    has_unknown: bool,
    has_allocation: bool,
    protocol: Option<Vec<u8>>,
    token: bool,
    family: Option<u8>,
    additional: Option<u8>,
    /// The R bit.
    even: Option<bool>,
    lifetime: Option<Vec<u8>>,
    from_tunnel: bool,
    ticket: Option<&'static [u8]>,
    has_no_v6: bool,
    redirects: bool,
    drains: bool,
    is_over_quota: bool,
    has_no_ports: bool,
}

impl Default for Attempt {
    fn default() -> Self {
        Self {
            is_cut: false,
            has_wrong_fingerprint: false,
            has_integrity: true,
            has_username: true,
            has_realm: true,
            has_nonce: true,
            alters_algorithms: false,
            is_stranger: false,
            has_wrong_password: false,
            is_stale: false,
            has_unknown: false,
            has_allocation: false,
            protocol: Some(vec![17, 0, 0, 0]),
            token: false,
            family: None,
            additional: None,
            even: None,
            lifetime: None,
            from_tunnel: false,
            ticket: None,
            has_no_v6: false,
            redirects: false,
            drains: false,
            is_over_quota: false,
            has_no_ports: false,
        }
    }
}

type Change = fn(&mut Attempt);

/// All that can be wrong, one at a time.
const WRONGS: [(&str, Change); 35] = [
    ("cut", |it| it.is_cut = true),
    ("fingerprint", |it| it.has_wrong_fingerprint = true),
    ("no integrity", |it| it.has_integrity = false),
    ("no username", |it| it.has_username = false),
    ("no realm", |it| it.has_realm = false),
    ("no nonce", |it| it.has_nonce = false),
    ("algorithms", |it| it.alters_algorithms = true),
    ("unknown user", |it| it.is_stranger = true),
    ("password", |it| it.has_wrong_password = true),
    ("stale nonce", |it| it.is_stale = true),
    ("unknown attribute", |it| it.has_unknown = true),
    ("occupied", |it| it.has_allocation = true),
    ("no transport", |it| it.protocol = None),
    ("malformed transport", |it| it.protocol = Some(vec![17])),
    ("other transport", |it| {
        it.protocol = Some(vec![132, 0, 0, 0]);
    }),
    ("TCP over UDP", |it| it.protocol = Some(vec![6, 0, 0, 0])),
    ("token and even port", |it| {
        (it.token, it.even) = (true, Some(false));
    }),
    ("token and family", |it| {
        (it.token, it.family) = (true, Some(1));
    }),
    ("token and second family", |it| {
        (it.token, it.additional) = (true, Some(2));
    }),
    ("unknown token", |it| it.token = true),
    ("both families", |it| {
        (it.family, it.additional) = (Some(1), Some(2));
    }),
    ("unknown family", |it| it.family = Some(3)),
    ("family that is off", |it| {
        (it.family, it.has_no_v6) = (Some(2), true);
    }),
    ("reserve in two families", |it| {
        (it.even, it.additional) = (Some(true), Some(2));
    }),
    ("second family IPv4", |it| it.additional = Some(1)),
    ("second family 0", |it| it.additional = Some(0)),
    ("malformed lifetime", |it| it.lifetime = Some(vec![0, 1])),
    ("tunnel", |it| it.from_tunnel = true),
    ("redirected", |it| it.redirects = true),
    ("draining", |it| it.drains = true),
    ("no mobility", |it| it.ticket = Some(b"")),
    ("ticket", |it| it.ticket = Some(b"ticket")),
    ("quota", |it| it.is_over_quota = true),
    ("no ports", |it| it.has_no_ports = true),
    ("lifetime of no second", |it| {
        it.lifetime = Some(vec![0, 0, 0, 0]);
    }),
];

/// Nothing is said.
const SILENCE: u16 = 1;

impl Attempt {
    /// The answer: that of the first line that fits, in the RFC's order.
    fn expected(&self) -> u16 {
        let two = self.family.is_some() && self.additional.is_some();
        let with_token = self.even.is_some() || self.family.is_some() || self.additional.is_some();
        let protocol = self.protocol.as_deref();
        let lacks = !(self.has_username && self.has_realm && self.has_nonce);
        let lines: [(bool, u16); 26] = [
            // RFC 8489 §6.3.
            (self.is_cut || self.has_wrong_fingerprint, SILENCE),
            // No client's: it is only sent to be reflected.
            (!self.has_integrity && protocol.is_none(), SILENCE),
            // §9.2.4.
            (!self.has_integrity, 401),
            (lacks, 400),
            (self.alters_algorithms, 400),
            (self.is_stranger || self.has_wrong_password, 401),
            (self.is_stale, 438),
            // §6.3.1.
            (self.has_unknown, 420),
            // RFC 8656 §7.2: 2, and then 3. No allocation is ever given to a tunnel's end.
            (self.has_allocation && !self.from_tunnel, 437),
            (protocol.is_none_or(|value| value.len() != 4), 400),
            (protocol == Some(&[132, 0, 0, 0]), 442),
            // RFC 6062 §5.1.
            (protocol == Some(&[6, 0, 0, 0]), 400),
            // 5, first half
            (self.token && with_token, 400),
            // 6
            (two, 400),
            // 7. Of two families that are wanted, either will do.
            (self.family.is_some_and(|family| family > 2), 440),
            (self.family == Some(2) && self.has_no_v6, 440),
            // 8
            (self.even == Some(true) && self.additional.is_some(), 400),
            // 9
            (self.additional.is_some_and(|family| family != 2), 400),
            (
                self.lifetime.as_ref().is_some_and(|value| value.len() != 4),
                400,
            ),
            // §21.4
            (self.from_tunnel, 403),
            // 11. A reservation is good here alone.
            (self.redirects && !self.token, 300),
            (self.drains, 508),
            // RFC 8016 §3.1.2.
            (self.ticket == Some(b""), 405),
            (self.ticket.is_some(), 400),
            // 10
            (self.is_over_quota, 486),
            // 5, second half, and whatever else cannot be had.
            (self.has_no_ports || self.token, 508),
        ];
        let first = lines.iter().find(|(fits, _)| *fits);
        first.map_or(0, |(_, code)| *code)
    }

    /// What a server answers that is in force as is told, and whether it left anything behind.
    fn answer(&self) -> u16 {
        let from = if self.from_tunnel {
            "192.88.99.7:1000"
        } else {
            "198.51.100.1:1000"
        };
        let mut turn = Turn::with(offer_both);
        let mut ann = ann().at(udp(from));
        let old = {
            ann.greet(&mut turn);
            ann.nonce.clone()
        };
        turn.wait(seconds(2 * 3600 + 1));
        ann.greet(&mut turn);
        if self.has_allocation {
            ann.allocate(&mut turn);
        }
        let before = turn.relays.open.len();
        self.put_in_force(&mut turn);
        if self.is_stale {
            ann.nonce = old;
        }
        if self.is_stranger {
            ann.name = b"nobody".to_vec();
        }
        if self.has_wrong_password {
            ann.password = b"wrong".to_vec();
        }
        let bytes = self.bytes(&mut turn, &ann);
        if self.expected() == SILENCE {
            turn.silent(ann.client, &bytes);
            return SILENCE;
        }
        let answer = ann.ask_bytes(&mut turn, &bytes);
        let is_known = ![400, 401, 438].contains(&answer.code())
            || answer.code() == 400 && self.proves_its_user();
        assert_eq!(answer.told.authenticated, is_known);
        let made = turn.relays.open.len() - before;
        assert_eq!(made > 0, answer.code() == 0);
        answer.code()
    }

    fn proves_its_user(&self) -> bool {
        let is_whole = self.has_integrity && self.has_username && self.has_realm && self.has_nonce;
        is_whole
            && !(self.alters_algorithms
                || self.is_stranger
                || self.has_wrong_password
                || self.is_stale)
    }

    fn put_in_force(&self, turn: &mut Turn) {
        turn.reload(|settings| {
            offer_both(settings);
            settings.tcp_relay = Some(TcpRelay::default());
            settings.limits.per_user = if self.is_over_quota { 0 } else { 16 };
            settings.redirect = self.redirects.then(|| Redirect {
                to: vec![address("192.0.2.77:3478")],
                always: true,
                ..Redirect::default()
            });
        });
        turn.server.drain(self.drains);
        turn.relays.families.v6 = !self.has_no_v6;
        if self.has_no_ports {
            turn.relays.capacity = 0;
        }
    }

    fn bytes(&self, turn: &mut Turn, ann: &User) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, Class::Request, Method::ALLOCATE, turn.id());
        self.put_wishes(&mut writer);
        for (present, kind, value) in [
            (self.has_username, Attribute::USERNAME, &ann.name[..]),
            (self.has_realm, Attribute::REALM, b"turnd"),
            (self.has_nonce, Attribute::NONCE, &ann.nonce),
            (
                self.alters_algorithms,
                Attribute::PASSWORD_ALGORITHMS,
                &[0, 1, 0, 0],
            ),
        ] {
            if present {
                writer.bytes(kind, value);
            }
        }
        if self.has_integrity {
            writer.finish_with_integrity(&ann.key(), ann.integrity());
        } else {
            writer.finish();
        }
        if self.has_wrong_fingerprint {
            bytes.extend([0x80, 0x28, 0, 4, 1, 2, 3, 4]);
            let length = (bytes.len() - 20) as u16;
            bytes[2..4].copy_from_slice(&length.to_be_bytes());
        }
        if self.is_cut {
            bytes.truncate(bytes.len() - 4);
        }
        bytes
    }

    fn put_wishes(&self, writer: &mut Writer<'_>) {
        if let Some(value) = &self.protocol {
            writer.bytes(Attribute::REQUESTED_TRANSPORT, value);
        }
        if self.has_unknown {
            writer.bytes(Attribute(0x7001), b"");
        }
        if self.token {
            writer.bytes(Attribute::RESERVATION_TOKEN, &[7; 8]);
        }
        if let Some(family) = self.family {
            writer.u8(Attribute::REQUESTED_ADDRESS_FAMILY, family);
        }
        if let Some(family) = self.additional {
            writer.u8(Attribute::ADDITIONAL_ADDRESS_FAMILY, family);
        }
        if let Some(reserve) = self.even {
            writer.even_port(reserve);
        }
        if let Some(value) = &self.lifetime {
            writer.bytes(Attribute::LIFETIME, value);
        }
        if let Some(ticket) = self.ticket {
            writer.bytes(Attribute::MOBILITY_TICKET, ticket);
        }
    }
}

fn offer_both(settings: &mut Settings) {
    settings.password_algorithms = PasswordAlgorithms::Sha256AndMd5;
}

/// All that is wrong alone, in pairs and in threes.
#[test]
fn o1_to_o7_whatever_is_wrong_the_first_in_the_rfcs_order_is_told() {
    assert_eq!(Attempt::default().answer(), 0);
    let mut codes = BTreeSet::new();
    for first in 0..WRONGS.len() {
        for second in first..WRONGS.len() {
            for third in second..WRONGS.len() {
                let mut attempt = Attempt::default();
                let wrongs = [first, second, third].map(|number| WRONGS[number]);
                for (_, change) in wrongs {
                    change(&mut attempt);
                }
                let expected = attempt.expected();
                codes.insert(expected);
                let names = wrongs.map(|(name, _)| name);
                assert_eq!(attempt.answer(), expected, "{names:?}");
            }
        }
    }
    let all = [
        0, SILENCE, 300, 400, 401, 403, 405, 420, 437, 438, 440, 442, 486, 508,
    ];
    assert_eq!(codes, BTreeSet::from(all));
}
