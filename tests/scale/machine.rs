//! The machine without sockets, in a time of its own; what it decides is counted as a worker counts it.

use std::net::SocketAddr;

use turnd::metrics::{Direction, Snapshot};
use turnd::stun::{Attribute, Class, Message, Method, Writer};
use turnd::turn::{Client, Event, Family, Settings, Transport, Verdict};

use crate::crowd::{Credential, DATA, udp};
use crate::support::{
    PEER, Turn, address, channel_data, client, request, seconds, send_indication,
};

/// Longer than allocations and nonces live.
const LONG: u64 = 4000;

pub(crate) struct Machine {
    turn: Turn,
    counted: Snapshot,
    reply: Vec<u8>,
}

impl Machine {
    pub(crate) fn new(change: impl FnOnce(&mut Settings)) -> Self {
        Self {
            turn: Turn::with(change),
            counted: Snapshot::default(),
            reply: Vec::new(),
        }
    }

    /// A whole life of some users at once: each gets an allocation, sends a packet in a channel that there is not, and one
    /// to a peer, and goes without a word.
    pub(crate) fn live(&mut self, users: &[Credential]) {
        let clients: Vec<Client> = (0..users.len())
            .map(|place| client(&format!("198.51.100.1:{}", 1000 + place), Transport::Udp))
            .collect();
        let peer = address(PEER);
        let pass = self.greet(clients[0]);
        for (user, from) in users.iter().zip(&clients) {
            let key = user.key(&pass.realm);
            let mut ask = |method, put: &dyn Fn(&mut Writer<'_>)| {
                let id = self.turn.id();
                let mut bytes = Vec::new();
                let mut writer = Writer::new(&mut bytes, Class::Request, method, id);
                put(&mut writer);
                user.sign(writer, &key, (&pass.realm, &pass.nonce));
                assert_eq!(self.input(*from, &bytes), Outcome::Answered(0));
            };
            ask(Method::ALLOCATE, &udp);
            ask(Method::CREATE_PERMISSION, &|writer| {
                writer.xor_address(Attribute::XOR_PEER_ADDRESS, peer);
            });
            let lost = channel_data(0x4000, DATA);
            assert_eq!(self.input(*from, &lost), Outcome::Dropped);
            let sent = send_indication(self.turn.id(), PEER, DATA);
            assert_eq!(self.input(*from, &sent), Outcome::Sent(peer));
        }
        self.turn.wait(seconds(LONG));
        for event in self.turn.events() {
            if let Event::Released(ended) = event {
                self.counted.cells.ended(ended.reason);
            }
        }
    }

    /// What a worker reports, and the plane adds.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let uses = self.turn.server.secret_uses();
        Snapshot {
            census: self.turn.server.census(self.turn.now),
            secret_uses: uses.map(|(id, uses)| (id.to_owned(), uses)).collect(),
            rejected: self.turn.quotas.rejected(),
            ..self.counted.clone()
        }
    }

    fn greet(&mut self, from: Client) -> Pass {
        let id = self.turn.id();
        let bytes = request(id, Method::ALLOCATE, udp);
        assert_eq!(self.input(from, &bytes), Outcome::Answered(401));
        let challenge = Message::parse(&self.reply).unwrap();
        Pass {
            realm: challenge.realm().unwrap().unwrap().to_vec(),
            nonce: challenge.nonce().unwrap().unwrap().to_vec(),
        }
    }

    fn input(&mut self, from: Client, bytes: &[u8]) -> Outcome {
        let Turn {
            server,
            relays,
            now,
            ..
        } = &mut self.turn;
        let cells = &mut self.counted.cells;
        self.reply.clear();
        match server.client_input(*now, from, bytes, relays, &mut self.reply) {
            Verdict::Reply(answer) => {
                cells.answered(answer.method, answer.code, answer.refusal);
                Outcome::Answered(answer.code)
            }
            Verdict::ToPeer { peer, body, .. } => {
                let family = Family::of(peer.ip());
                cells.relayed(Direction::ToPeer, Transport::Udp, family, body.len());
                Outcome::Sent(peer)
            }
            Verdict::Drop(cause) => {
                cells.dropped(cause);
                Outcome::Dropped
            }
            other @ (Verdict::ToClient { .. } | Verdict::Later | Verdict::Elsewhere(_)) => {
                panic!("{other:?}")
            }
        }
    }
}

/// What requests are signed with.
struct Pass {
    realm: Vec<u8>,
    nonce: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Answered(u16),
    Sent(SocketAddr),
    Dropped,
}
