//! The machine against a model of it that is as naive as can be: lists that are searched from end to end, and every
//! rule of RFC 8656 and RFC 8016 written down where it applies, as well as what credentials claim, what is revoked and how
//! many peers may be new. Both are given the same random operations.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod support;

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use support::*;
use turnd::stun::{Attribute, Method};
use turnd::turn::{
    Cause, Client, EndReason, Holder, NewPeers, OnExpiry, RelayId, Revocations, Revoked,
    SecretAlgorithm, Settings, SharedSecret, Term, Transport, Verdict,
};

/// Something that happens. Numbers choose among the few clients, users, peers and relays that there are.
#[derive(Clone, Debug)]
enum Step {
    /// With a lifetime, families and EVEN-PORT.
    Allocate(Who, Option<u32>, Families, Option<bool>),
    /// With a lifetime and a family.
    Refresh(Who, Option<u32>, Option<u8>),
    /// With one of the tickets that were ever issued.
    Move(Who, usize),
    Permit(Who, Vec<usize>),
    /// A channel and its peer.
    Bind(Who, u16, usize),
    /// From a client to a peer.
    Send(usize, usize),
    /// From a client, in a channel.
    Channel(usize, u16),
    /// At a relay, from a peer.
    Hear(usize, usize),
    /// Milliseconds, and whether the timeouts in them are handled.
    Wait(u64, bool),
    /// A client's connection is closed.
    Gone(usize),
    /// With or without a prefix denied.
    Reload(bool),
    Drain(bool),
    /// The credential of one user is taken back, or no longer is; and what it has made ends, or does not.
    Revoke(bool, bool),
}

/// A client and a user.
type Who = (usize, usize);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Families {
    Default,
    One(u8),
    Both,
}

/// What a model knows of an allocation. Times are milliseconds.
#[derive(Clone, Debug)]
struct Model {
    now: u64,
    unix_start: u64,
    on_expiry: OnExpiry,
    deny: bool,
    drain: bool,
    revoked: bool,
    allocations: Vec<Allocation>,
    /// How many there have been.
    births: usize,
}

#[derive(Clone, Debug)]
struct Allocation {
    birth: usize,
    client: usize,
    /// Where the client has moved to, and has not sent data from.
    next: Option<usize>,
    /// The client's connection is closed.
    away: bool,
    /// How often it has moved.
    moves: usize,
    /// Where to it moved last, and until when it may repeat that.
    last: Option<(usize, u64)>,
    user: usize,
    relays: Vec<Relay>,
    permissions: Vec<(IpAddr, u64)>,
    channels: Vec<(u16, SocketAddr, u64)>,
    /// Until when its new peers are paid for.
    paid: u64,
}

#[derive(Clone, Debug)]
struct Relay {
    address: SocketAddr,
    ends: u64,
}

const PER_USER: usize = 3;
const PER_TENANT: usize = 2;
const TOTAL: usize = 5;
const PERMISSIONS: usize = 3;
const CHANNELS: usize = 2;
const CLIENTS: [(&str, Transport); 4] = [
    ("198.51.100.1:1000", Transport::Udp),
    ("198.51.100.1:1000", Transport::Tcp),
    ("192.0.2.2:2000", Transport::Udp),
    ("[2001:db8::9]:3000", Transport::Tls),
];
/// Seconds until the credentials of each user end, as far as that comes in sight.
const EXPIRIES: [Option<u64>; 6] = [None, None, Some(900), None, None, None];
/// The users of a tenant: one who may have an allocation and reaches less than others, one whose credential may be taken
/// back, and one who claims what nobody knows.
const NARROW: usize = 3;
const REVOCABLE: usize = 4;
const ODD: usize = 5;
const CREDENTIALS: [&str; 3] = ["dan~a1~pnarrow", "eve~jx", "fay~z9"];
/// One new peer in so many milliseconds, and that many at once.
const NEW_PEER: u64 = 30_000;
const NEW_PEERS: u64 = 2;
const PEERS: [&str; 8] = [
    "52.1.2.3:4000",
    "52.1.2.3:4001",
    "52.1.2.9:4000",
    "53.0.0.1:4000",
    "10.0.0.1:4000",
    "52.1.2.3:0",
    "[2600:1::1]:4000",
    "[fe80::1]:4000",
];
/// The user who asks for tickets.
const MOBILE: usize = 0;
const DENIED: &str = "52.1.2.9/32";
const NARROWLY_DENIED: &str = "53.0.0.0/8";

impl Model {
    fn new(on_expiry: OnExpiry) -> Self {
        Self {
            now: 0,
            unix_start: UNIX,
            on_expiry,
            deny: false,
            drain: false,
            revoked: false,
            allocations: Vec::new(),
            births: 0,
        }
    }

    fn seconds_now(&self) -> u64 {
        self.unix_start + self.now / 1000
    }

    fn expired(&self, user: usize) -> bool {
        EXPIRIES[user].is_some_and(|end| self.seconds_now() >= UNIX + end + 60)
    }

    /// Whether a user cannot log in to make something or to prolong it.
    fn unwelcome(&self, user: usize) -> bool {
        user == ODD || self.revoked && user == REVOCABLE
    }

    fn count(&self, whose: impl Fn(usize) -> bool) -> usize {
        let allocations = self.allocations.iter();
        allocations
            .filter(|allocation| whose(allocation.user))
            .count()
    }

    /// Forgets everything whose time has come.
    fn clean(&mut self) {
        let now = self.now;
        for allocation in &mut self.allocations {
            let relays = allocation.relays.clone();
            for gone in relays.iter().filter(|relay| relay.ends <= now) {
                let v4 = gone.address.is_ipv4();
                allocation.permissions.retain(|(ip, _)| ip.is_ipv4() != v4);
                allocation
                    .channels
                    .retain(|(_, peer, _)| peer.is_ipv4() != v4);
            }
            allocation.relays.retain(|relay| relay.ends > now);
            allocation.permissions.retain(|(_, ends)| *ends > now);
            allocation.channels.retain(|(_, _, ends)| *ends > now);
        }
        self.allocations
            .retain(|allocation| !allocation.relays.is_empty());
    }

    fn of_client(&self, client: usize) -> Option<usize> {
        self.allocations
            .iter()
            .position(|allocation| allocation.is_of(client))
    }

    /// The same, of a client that sends data: it is there now.
    fn of_sender(&mut self, client: usize) -> Option<usize> {
        let index = self.of_client(client)?;
        let allocation = &mut self.allocations[index];
        if allocation.next == Some(client) {
            (allocation.client, allocation.next) = (client, None);
        }
        Some(index)
    }

    /// With a ticket that was issued after so many moves of the allocation with this number.
    fn resume(&mut self, (client, user): Who, birth: usize, moves: usize) -> (u16, u64) {
        if self.unwelcome(user) || self.expired(user) && self.on_expiry != OnExpiry::New {
            return (401, 0);
        }
        let at = self.of_client(client);
        let numbers = &mut self.allocations.iter();
        let Some(index) = numbers.position(|allocation| allocation.birth == birth) else {
            return (437, 0);
        };
        let allocation = &self.allocations[index];
        if moves != allocation.moves && moves + 1 != allocation.moves {
            return (437, 0);
        }
        let again = at == Some(index)
            && moves + 1 == allocation.moves
            && allocation
                .last
                .is_some_and(|(to, until)| to == client && self.now < until);
        if at == Some(index) && !again {
            return (400, 0);
        }
        if allocation.user != user {
            return (441, 0);
        }
        if !again && (moves != allocation.moves || at.is_some()) {
            return (437, 0);
        }
        let ends = self.now + 600_000;
        let allocation = &mut self.allocations[index];
        if !again {
            allocation.moves += 1;
            allocation.last = Some((client, self.now + 40_000));
            if allocation.away {
                (allocation.client, allocation.away) = (client, false);
            } else {
                allocation.next = Some(client);
            }
        }
        for relay in &mut allocation.relays {
            relay.ends = ends;
        }
        (0, 600)
    }

    fn gone(&mut self, client: usize) {
        let Some(index) = self.of_client(client) else {
            return;
        };
        let allocation = &mut self.allocations[index];
        match allocation.next {
            Some(next) if next == client => allocation.next = None,
            Some(next) => (allocation.client, allocation.next) = (next, None),
            None if allocation.user == MOBILE => allocation.away = true,
            None => drop(self.allocations.remove(index)),
        }
    }

    fn lifetime(&self, user: usize, asked: Option<u32>) -> u64 {
        let granted = match asked {
            None => 600,
            Some(seconds) if seconds < 600 => 600,
            Some(seconds) if seconds > 3600 => 3600,
            Some(seconds) => u64::from(seconds),
        };
        match (self.on_expiry, EXPIRIES[user]) {
            (OnExpiry::Cut, Some(end)) => granted.min(UNIX + end + 60 - self.seconds_now()),
            _ => granted,
        }
    }

    /// The code, and the lifetime if it succeeds. The addresses are the real ones, which the model cannot know.
    fn allocate(
        &mut self,
        (client, user): Who,
        asked: Option<u32>,
        families: Families,
        even: Option<bool>,
        given: &[SocketAddr],
    ) -> (u16, u64) {
        if self.unwelcome(user) || self.expired(user) {
            return (401, 0);
        }
        if self.of_client(client).is_some() {
            return (437, 0);
        }
        if families == Families::Both && even == Some(true) {
            return (400, 0);
        }
        if matches!(families, Families::One(number) if number != 1 && number != 2) {
            return (440, 0);
        }
        if self.drain {
            return (508, 0);
        }
        if self.allocations.len() >= TOTAL {
            return (508, 0);
        }
        if is_of_tenant(user) && self.count(is_of_tenant) >= PER_TENANT {
            return (486, 0);
        }
        let most = if user == NARROW { 1 } else { PER_USER };
        if self.count(|other| other == user) >= most {
            return (486, 0);
        }
        let expected: &[bool] = match families {
            Families::Default | Families::One(1) => &[true],
            Families::One(_) => &[false],
            Families::Both => &[true, false],
        };
        let v4: Vec<bool> = given.iter().map(SocketAddr::is_ipv4).collect();
        assert_eq!(v4, expected);
        if even.is_some() {
            assert!(given.iter().all(|relay| relay.port() % 2 == 0));
        }
        let lifetime = self.lifetime(user, asked);
        self.births += 1;
        self.allocations.push(Allocation {
            birth: self.births,
            client,
            next: None,
            away: false,
            moves: 0,
            last: None,
            user,
            relays: given
                .iter()
                .map(|&address| Relay {
                    address,
                    ends: self.now + lifetime * 1000,
                })
                .collect(),
            permissions: Vec::new(),
            channels: Vec::new(),
            paid: 0,
        });
        (0, lifetime)
    }

    fn refresh(
        &mut self,
        (client, user): Who,
        asked: Option<u32>,
        family: Option<u8>,
    ) -> (u16, u64) {
        if self.unwelcome(user) || self.expired(user) && self.on_expiry != OnExpiry::New {
            return (401, 0);
        }
        let Some(index) = self.of_client(client) else {
            return (437, 0);
        };
        if self.allocations[index].user != user {
            return (441, 0);
        }
        let meant = |relay: &Relay| match family {
            None => true,
            Some(1) => relay.address.is_ipv4(),
            Some(2) => relay.address.is_ipv6(),
            Some(_) => false,
        };
        if !self.allocations[index].relays.iter().any(meant) {
            return (443, 0);
        }
        let lifetime = if asked == Some(0) {
            0
        } else {
            self.lifetime(user, asked)
        };
        let ends = self.now + lifetime * 1000;
        for relay in &mut self.allocations[index].relays {
            if meant(relay) {
                relay.ends = ends;
            }
        }
        self.clean();
        (0, lifetime)
    }

    /// Family before policy.
    fn judge(&self, index: usize, peer: SocketAddr) -> u16 {
        let allocation = &self.allocations[index];
        if !allocation
            .relays
            .iter()
            .any(|relay| relay.address.is_ipv4() == peer.is_ipv4())
        {
            return 443;
        }
        let special = peer == address(PEERS[4]) || peer == address(PEERS[7]);
        let denied = self.deny && peer == address(PEERS[2]);
        let narrowly = allocation.user == NARROW && peer == address(PEERS[3]);
        if special || denied || narrowly {
            403
        } else {
            0
        }
    }

    /// Whether all of these peers may be new to an allocation that are. If so they are paid for.
    fn meet(&mut self, index: usize, peers: &[SocketAddr]) -> bool {
        let now = self.now;
        let allocation = &mut self.allocations[index];
        let known = |peer: &IpAddr| allocation.permissions.iter().any(|(ip, _)| ip == peer);
        let new: BTreeSet<IpAddr> = peers.iter().map(SocketAddr::ip).collect();
        let number = new.iter().filter(|peer| !known(peer)).count() as u64;
        let paid = allocation.paid.max(now) + number * NEW_PEER;
        if number > 0 && paid > now + NEW_PEERS * NEW_PEER {
            return false;
        }
        if number > 0 {
            allocation.paid = paid;
        }
        true
    }

    fn permit(&mut self, (client, user): Who, peers: &[SocketAddr]) -> u16 {
        if user == ODD {
            return 401;
        }
        let Some(index) = self.of_client(client) else {
            return 437;
        };
        if self.allocations[index].user != user {
            return 441;
        }
        if peers.is_empty() {
            return 400;
        }
        let codes: Vec<u16> = peers.iter().map(|peer| self.judge(index, *peer)).collect();
        if codes.contains(&443) {
            return 443;
        }
        if codes.contains(&403) || !self.meet(index, peers) {
            return 403;
        }
        let mut after = self.allocations[index].permissions.clone();
        for peer in peers {
            after.retain(|(ip, _)| *ip != peer.ip());
            after.push((peer.ip(), self.now + 300_000));
        }
        if after.len() > PERMISSIONS {
            return 508;
        }
        self.allocations[index].permissions = after;
        0
    }

    fn bind(&mut self, (client, user): Who, number: u16, peer: SocketAddr) -> u16 {
        if user == ODD {
            return 401;
        }
        let Some(index) = self.of_client(client) else {
            return 437;
        };
        if self.allocations[index].user != user {
            return 441;
        }
        let channels = &self.allocations[index].channels;
        let conflict = channels
            .iter()
            .any(|&(bound, to, _)| (bound == number) != (to == peer));
        if !(0x4000..=0x4FFF).contains(&number) || peer.port() == 0 || conflict {
            return 400;
        }
        let code = self.judge(index, peer);
        if code != 0 {
            return code;
        }
        let fresh = !channels.iter().any(|&(bound, ..)| bound == number);
        if fresh && channels.len() >= CHANNELS {
            return 508;
        }
        let code = self.permit((client, user), &[peer]);
        if code != 0 {
            return code;
        }
        let ends = self.now + 600_000;
        let channels = &mut self.allocations[index].channels;
        channels.retain(|&(bound, ..)| bound != number);
        channels.push((number, peer, ends));
        0
    }

    fn admits(allocation: &Allocation, peer: SocketAddr) -> bool {
        allocation
            .permissions
            .iter()
            .any(|(ip, _)| *ip == peer.ip())
            || allocation.channels.iter().any(|(_, to, _)| *to == peer)
    }

    /// From which relay it goes.
    fn send(&mut self, client: usize, peer: SocketAddr) -> Option<SocketAddr> {
        let index = self.of_sender(client)?;
        let allocation = &self.allocations[index];
        let relay = allocation
            .relays
            .iter()
            .find(|relay| relay.address.is_ipv4() == peer.is_ipv4())?;
        (peer.port() != 0 && Self::admits(allocation, peer)).then_some(relay.address)
    }

    /// From which relay it goes, and where to.
    fn channel(&mut self, client: usize, number: u16) -> Option<(SocketAddr, SocketAddr)> {
        // Not even ChannelData; one of RFC 5766 is, though never bound.
        if number < 0x4000 {
            return None;
        }
        let index = self.of_sender(client)?;
        let allocation = &self.allocations[index];
        let (_, peer, _) = allocation
            .channels
            .iter()
            .find(|(bound, ..)| *bound == number)?;
        let relay = allocation
            .relays
            .iter()
            .find(|relay| relay.address.is_ipv4() == peer.is_ipv4())?;
        Some((relay.address, *peer))
    }

    /// To which client it goes, and in which channel, if in one.
    fn hear(&self, relay: SocketAddr, peer: SocketAddr) -> Option<(usize, Option<u16>)> {
        let allocation = self
            .allocations
            .iter()
            .find(|allocation| allocation.relays.iter().any(|open| open.address == relay))?;
        let channel = allocation.channels.iter().find(|(_, to, _)| *to == peer);
        (Self::admits(allocation, peer) && !allocation.away)
            .then_some((allocation.client, channel.map(|found| found.0)))
    }

    fn reload(&mut self, deny: bool) {
        self.deny = deny;
        let unix = self.seconds_now();
        for allocation in &mut self.allocations {
            if deny {
                let denied = address(PEERS[2]).ip();
                allocation.permissions.retain(|(ip, _)| *ip != denied);
                allocation
                    .channels
                    .retain(|(_, peer, _)| peer.ip() != denied);
            }
            // The end of the credentials is a whole second, reckoned anew.
            if let (OnExpiry::Cut, Some(end)) = (self.on_expiry, EXPIRIES[allocation.user]) {
                let ends = self.now + (UNIX + end + 60).saturating_sub(unix) * 1000;
                for relay in &mut allocation.relays {
                    relay.ends = relay.ends.min(ends);
                }
            }
        }
        self.clean();
    }
}

fn is_of_tenant(user: usize) -> bool {
    user >= NARROW
}

impl Allocation {
    fn is_of(&self, client: usize) -> bool {
        self.client == client && !self.away || self.next == Some(client)
    }
}

/// The machine and its users beside the model.
struct Pair {
    turn: Turn,
    users: Vec<User>,
    model: Model,
    /// Every relay there ever was.
    relays: Vec<SocketAddr>,
    /// By client address: when it was issued, and what it is.
    nonces: HashMap<IpAddr, (u64, Vec<u8>)>,
    /// Every ticket there ever was: of which allocation, after how many moves.
    tickets: Vec<(usize, usize, Vec<u8>)>,
    reached: Reached,
}

/// What the steps have led to, to know that they are of use.
#[derive(Debug, Default)]
struct Reached {
    codes: BTreeSet<u16>,
    sent: usize,
    sent_in_channel: usize,
    heard: usize,
    heard_in_channel: usize,
    /// Dual allocations of which one half was left.
    halves: usize,
    moves: usize,
    repetitions: usize,
    /// Data that moved what they were the first of, and data to those who were away.
    arrivals: usize,
    missed: usize,
    /// Peers that were refused because there were too many new ones.
    newcomers: usize,
    /// Sessions that ended since their credential was taken back.
    cut: usize,
}

impl Pair {
    fn new(on_expiry: OnExpiry) -> Self {
        Self {
            turn: Turn::with(|settings| change(settings, on_expiry, false)),
            users: users(),
            model: Model::new(on_expiry),
            relays: Vec::new(),
            nonces: HashMap::new(),
            tickets: Vec::new(),
            reached: Reached::default(),
        }
    }

    fn ask(
        &mut self,
        (client, user): Who,
        method: Method,
        put: impl FnOnce(&mut turnd::stun::Writer<'_>),
    ) -> Answer {
        let mut user = self.users[user].at(way(client));
        user.nonce = self.nonce(user.client);
        let answer = user.ask(&mut self.turn, method, put);
        self.reached.codes.insert(answer.code());
        answer
    }

    /// A nonce that is good: an old one as long as it can be used.
    fn nonce(&mut self, client: Client) -> Vec<u8> {
        let key = client.five_tuple.client.ip();
        if let Some((issued, nonce)) = self.nonces.get(&key)
            && self.model.now - issued < 3_600_000
        {
            return nonce.clone();
        }
        let mut user = ann().at(client);
        user.greet(&mut self.turn);
        self.nonces
            .insert(key, (self.model.now, user.nonce.clone()));
        user.nonce
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Allocate(who, lifetime, families, even) => {
                self.allocate(who, lifetime, families, even);
            }
            Step::Refresh(who, lifetime, family) => self.refresh(who, lifetime, family),
            Step::Move(who, ticket) => self.resume(who, ticket),
            Step::Permit(who, ref peers) => self.permit(who, peers),
            Step::Bind(who, number, peer) => self.bind(who, number, peer),
            Step::Send(client, peer) => self.send(client, peer),
            Step::Channel(client, number) => self.channel(client, number),
            Step::Hear(relay, peer) => self.hear(relay, peer),
            Step::Wait(milliseconds, timeouts) => self.wait(milliseconds, timeouts),
            Step::Gone(client) => {
                let (server, relays) = (&mut self.turn.server, &mut self.turn.relays);
                server.client_gone(self.turn.now, way(client), relays);
                self.model.gone(client);
            }
            Step::Reload(deny) => {
                let on_expiry = self.model.on_expiry;
                self.turn
                    .reload(|settings| change(settings, on_expiry, deny));
                self.model.reload(deny);
            }
            Step::Drain(on) => {
                self.turn.server.drain(on);
                self.model.drain = on;
            }
            Step::Revoke(on, cut) => self.revoke(on, cut),
        }
    }

    fn revoke(&mut self, on: bool, cut: bool) {
        let revoked = Revoked::Credential {
            tenant: "acme".into(),
            id: "x".into(),
        };
        let term = Term {
            not_before: u64::MAX,
            until: u64::MAX,
        };
        let all = on.then_some((revoked, term));
        let all = Arc::new(Revocations::new(seconds(86_400), all));
        self.turn.server.replace_revocations(Arc::clone(&all));
        self.model.revoked = on;
        if cut {
            let Turn {
                server,
                relays,
                now,
                ..
            } = &mut self.turn;
            let covered = |holder: &Holder<'_>| all.cover(holder, now.unix);
            let ended = server.end_sessions(*now, EndReason::Revoked, covered, relays);
            let theirs = |allocation: &Allocation| on && allocation.user == REVOCABLE;
            // What is overdue ends as well, and is not in the model any more.
            let known = self.model.count(|user| on && user == REVOCABLE);
            assert!(ended >= known);
            self.reached.cut += known;
            self.model
                .allocations
                .retain(|allocation| !theirs(allocation));
        }
    }

    fn refresh(&mut self, who: Who, lifetime: Option<u32>, family: Option<u8>) {
        let answer = self.ask(who, Method::REFRESH, |writer| {
            put_lifetime(writer, lifetime);
            if let Some(family) = family {
                writer.u8(Attribute::REQUESTED_ADDRESS_FAMILY, family);
            }
        });
        let expected = self.model.refresh(who, lifetime, family);
        assert_eq!(outcome(&answer), expected);
        let half = |allocation: &Allocation| {
            allocation.relays.len() == 1 && allocation.relays[0].address.is_ipv6()
        };
        self.reached.halves +=
            usize::from(family == Some(1) && self.model.allocations.iter().any(half));
    }

    fn permit(&mut self, who: Who, peers: &[usize]) {
        let peers: Vec<_> = peers.iter().map(|&peer| self.peer(peer)).collect();
        let answer = self.ask(who, Method::CREATE_PERMISSION, |writer| {
            for peer in &peers {
                writer.xor_address(Attribute::XOR_PEER_ADDRESS, *peer);
            }
        });
        let before = self.model.clone();
        let expected = self.model.permit(who, &peers);
        assert_eq!(answer.code(), expected);
        if let (403, Some(index)) = (expected, before.of_client(who.0)) {
            let judged = peers.iter().all(|peer| before.judge(index, *peer) == 0);
            self.reached.newcomers += usize::from(judged);
        }
    }

    fn bind(&mut self, who: Who, number: u16, peer: usize) {
        let peer = self.peer(peer);
        let answer = self.ask(who, Method::CHANNEL_BIND, |writer| {
            writer
                .u16(Attribute::CHANNEL_NUMBER, number)
                .xor_address(Attribute::XOR_PEER_ADDRESS, peer);
        });
        assert_eq!(answer.code(), self.model.bind(who, number, peer));
    }

    fn wait(&mut self, milliseconds: u64, timeouts: bool) {
        let duration = std::time::Duration::from_millis(milliseconds);
        let end = self.model.now + milliseconds;
        if timeouts {
            self.turn.wait(duration);
        } else {
            self.turn.pass(duration);
        }
        // The two clocks of the machine tick as one, the wall's in whole seconds.
        self.turn.now.unix = UNIX + end / 1000;
        self.model.now = end;
        self.model.clean();
    }

    fn allocate(
        &mut self,
        who: Who,
        lifetime: Option<u32>,
        families: Families,
        even: Option<bool>,
    ) {
        let answer = self.ask(who, Method::ALLOCATE, |writer| {
            writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
            put_lifetime(writer, lifetime);
            match families {
                Families::Default => {}
                Families::One(number) => {
                    writer.u8(Attribute::REQUESTED_ADDRESS_FAMILY, number);
                }
                Families::Both => {
                    writer.u8(Attribute::ADDITIONAL_ADDRESS_FAMILY, 2);
                }
            }
            if let Some(reserve) = even {
                writer.even_port(reserve);
            }
            if who.1 == MOBILE {
                writer.flag(Attribute::MOBILITY_TICKET);
            }
        });
        let message = answer.message();
        let given: Vec<_> = message
            .xor_relayed_addresses()
            .map(|relay| relay.unwrap())
            .collect();
        self.relays.extend(&given);
        let expected = self.model.allocate(who, lifetime, families, even, &given);
        assert_eq!(outcome(&answer), expected);
        let ticket = message.mobility_ticket().map(|ticket| ticket.unwrap());
        assert_eq!(ticket.is_some(), answer.code() == 0 && who.1 == MOBILE);
        let ticket = ticket.map(|ticket| (self.model.births, 0, ticket.to_vec()));
        self.tickets.extend(ticket);
    }

    /// The newest tickets have the smallest numbers.
    fn resume(&mut self, who: Who, number: usize) {
        let count = self.tickets.len();
        if count == 0 {
            return;
        }
        let (birth, moves, ticket) = self.tickets[count - 1 - number % count].clone();
        let answer = self.ask(who, Method::REFRESH, |writer| {
            writer.bytes(Attribute::MOBILITY_TICKET, &ticket);
        });
        let expected = self.model.resume(who, birth, moves);
        assert_eq!(outcome(&answer), expected);
        if expected.0 != 0 {
            return;
        }
        let next = answer
            .message()
            .mobility_ticket()
            .unwrap()
            .unwrap()
            .to_vec();
        let known = |old: &&(usize, usize, Vec<u8>)| (old.0, old.1) == (birth, moves + 1);
        match self.tickets.iter().find(known) {
            // The answer is given again.
            Some((_, _, old)) => {
                assert_eq!(*old, next);
                self.reached.repetitions += 1;
            }
            None => {
                assert!(self.tickets.iter().all(|(_, _, old)| *old != next));
                self.reached.moves += 1;
                self.tickets.push((birth, moves + 1, next));
            }
        }
    }

    fn send(&mut self, client: usize, peer: usize) {
        let peer = self.peer(peer);
        let bytes = send_indication(self.turn.id(), &peer.to_string(), b"data");
        let (verdict, _) = self.turn.input(way(client), &bytes);
        let sent = match verdict {
            Verdict::ToPeer {
                relay,
                peer: to,
                body,
                ..
            } => {
                assert_eq!((to, &bytes[body]), (peer, &b"data"[..]));
                Some(self.turn.relays.open[&relay])
            }
            Verdict::Drop(_) => None,
            other => panic!("{other:?}"),
        };
        self.reached.sent += usize::from(sent.is_some());
        self.reached.arrivals += self.arrivals(client);
        assert_eq!(sent, self.model.send(client, peer));
    }

    fn channel(&mut self, client: usize, number: u16) {
        let bytes = channel_data(number, b"data");
        let (verdict, _) = self.turn.input(way(client), &bytes);
        let sent = match verdict {
            Verdict::ToPeer {
                relay, peer, body, ..
            } => {
                assert_eq!(&bytes[body], b"data");
                Some((self.turn.relays.open[&relay], peer))
            }
            Verdict::Drop(_) => None,
            other => panic!("{other:?}"),
        };
        self.reached.sent_in_channel += usize::from(sent.is_some());
        self.reached.arrivals += self.arrivals(client);
        assert_eq!(sent, self.model.channel(client, number));
    }

    fn hear(&mut self, relay: usize, peer: usize) {
        let Some(&relay) = self.relays.get(relay % self.relays.len().max(1)) else {
            return;
        };
        let peer = self.peer(peer);
        if peer.is_ipv4() != relay.is_ipv4() || peer.port() == 0 {
            return;
        }
        let id = self.turn.relays.at(relay).unwrap_or(RelayId(999));
        let verdict = self.turn.server.peer_input(self.turn.now, id, peer, 4);
        let heard = match verdict {
            Verdict::ToClient {
                to,
                head,
                body,
                pad,
            } => {
                assert_eq!((body, pad), (0..4, 0));
                let client = (0..CLIENTS.len())
                    .find(|&client| way(client) == to)
                    .unwrap();
                let bytes = [head.as_slice(), b"data"].concat();
                let channel = match bytes[0] {
                    0x40..=0x4F => Some(u16::from_be_bytes([bytes[0], bytes[1]])),
                    _ => {
                        assert_eq!(data_indication(&bytes), (peer, b"data".to_vec()));
                        None
                    }
                };
                Some((client, channel))
            }
            Verdict::Drop(cause) => {
                self.reached.missed += usize::from(cause == Cause::ClientAway);
                assert!(matches!(
                    cause,
                    Cause::NoPermission | Cause::UnknownRelay | Cause::ClientAway
                ));
                None
            }
            other => panic!("{other:?}"),
        };
        match heard {
            Some((_, Some(_))) => self.reached.heard_in_channel += 1,
            Some((_, None)) => self.reached.heard += 1,
            None => {}
        }
        assert_eq!(heard, self.model.hear(relay, peer));
    }

    /// How many allocations are moved by data of a client: one or none.
    fn arrivals(&self, client: usize) -> usize {
        let allocations = self.model.allocations.iter();
        allocations
            .filter(|allocation| allocation.next == Some(client))
            .count()
    }

    /// One of the peers, or one of the relays that are open.
    fn peer(&self, number: usize) -> SocketAddr {
        match PEERS.get(number) {
            Some(peer) => address(peer),
            None => {
                let open: Vec<_> = self
                    .model
                    .allocations
                    .iter()
                    .flat_map(|allocation| &allocation.relays)
                    .collect();
                open.get(number % open.len().max(1))
                    .map_or_else(|| address(PEERS[0]), |relay| relay.address)
            }
        }
    }

    /// What must hold after each step.
    fn compare(&mut self) {
        let census = self.turn.server.census(self.turn.now);
        let model = &self.model;
        let count = |count: fn(&Allocation) -> usize| {
            model.allocations.iter().map(count).sum::<usize>() as u64
        };
        // What is overdue is still counted until the timeout; it is compared when there is nothing overdue.
        let late = self
            .turn
            .server
            .poll_timeout()
            .is_some_and(|at| at <= self.turn.now.instant);
        if late {
            return;
        }
        assert_eq!(
            census.permissions,
            count(|allocation| allocation.permissions.len())
        );
        assert_eq!(
            census.channels,
            count(|allocation| allocation.channels.len())
        );
        let relays = census.allocations.iter().flatten().sum::<u64>();
        assert_eq!(relays, count(|allocation| allocation.relays.len()));
        let mut open: Vec<_> = self.turn.relays.open.values().copied().collect();
        let mut expected: Vec<_> = model
            .allocations
            .iter()
            .flat_map(|allocation| allocation.relays.iter().map(|relay| relay.address))
            .collect();
        open.sort();
        expected.sort();
        assert_eq!(open, expected);
        assert_eq!(self.turn.quotas.total() as usize, model.allocations.len());
        let next = self.turn.server.poll_timeout();
        let expected = model
            .allocations
            .iter()
            .flat_map(|allocation| allocation.relays.iter().map(|relay| relay.ends))
            .min();
        let next = next.map(|at| (at - self.turn.now.instant).as_millis() as u64 + model.now);
        assert_eq!(next, expected);
        while self.turn.server.poll_event().is_some() {}
    }
}

fn change(settings: &mut Settings, on_expiry: OnExpiry, deny: bool) {
    settings.mobility = true;
    settings.on_expiry = on_expiry;
    settings.limits.per_user = PER_USER as u32;
    settings.limits.per_tenant = PER_TENANT as u32;
    settings.limits.total = TOTAL as u32;
    settings.limits.new_peers = NewPeers {
        per_allocation: (60_000 / NEW_PEER) as u32,
        per_user: 0,
    };
    settings.limits.permissions = PERMISSIONS;
    settings.limits.channels = CHANNELS;
    settings.limits.unauthenticated_replies = 0;
    settings.peers = peers(&[], if deny { &[DENIED] } else { &[] });
    let mut narrow = settings.peers.clone();
    narrow.deny.push(NARROWLY_DENIED.parse().unwrap());
    settings.policies.insert("narrow".into(), narrow);
    settings.users.add_secret(claiming()).unwrap();
}

/// The secret that vouches for what the users of the tenant claim.
fn claiming() -> SharedSecret {
    SharedSecret::new("k", b"k", SecretAlgorithm::Sha1).with_claims()
}

/// Of everybody, and of a tenant.
fn users() -> Vec<User> {
    let client = ann().client;
    let of_tenant = CREDENTIALS.map(|rest| {
        let name = format!("{}:k~acme~{rest}", UNIX + 1_000_000);
        User::new(&name, &claiming().password(name.as_bytes()), client)
    });
    let mut users = vec![ann(), bob(), vouched("cyd", UNIX + 900, client)];
    users.extend(of_tenant);
    users
}

/// A client's way to the server.
fn way(client: usize) -> Client {
    let (from, transport) = CLIENTS[client];
    support::client(from, transport)
}

fn put_lifetime(writer: &mut turnd::stun::Writer<'_>, lifetime: Option<u32>) {
    if let Some(lifetime) = lifetime {
        writer.u32(Attribute::LIFETIME, lifetime);
    }
}

fn outcome(answer: &Answer) -> (u16, u64) {
    match answer.code() {
        0 => (0, answer.lifetime().into()),
        code => (code, 0),
    }
}

fn step() -> impl Strategy<Value = Step> {
    // Mostly the first client, user and peers, so that what was made is met again.
    let client = prop_oneof![3 => Just(0), 2 => 0..CLIENTS.len()];
    let user = prop_oneof![
        8 => Just(MOBILE),
        1 => Just(1usize),
        3 => Just(2usize),
        2 => Just(NARROW),
        2 => Just(REVOCABLE),
        1 => Just(ODD),
    ];
    let peer = prop_oneof![2 => 0usize..3, 1 => 0..PEERS.len() + 2];
    let number = prop_oneof![
        8 => 0x4000u16..0x4003,
        1 => prop::sample::select(vec![0x3FFF, 0x4FFF, 0x5000]),
    ];
    let lifetime = prop_oneof![
        3 => Just(None),
        2 => (600u32..4000).prop_map(Some),
        1 => prop::sample::select(vec![Some(0), Some(1), Some(599), Some(u32::MAX)]),
    ];
    let families = prop_oneof![
        3 => Just(Families::Default),
        4 => Just(Families::Both),
        1 => (0u8..4).prop_map(Families::One),
    ];
    let family = prop_oneof![3 => Just(None), 3 => (1u8..=2).prop_map(Some), 1 => Just(Some(7))];
    let even = prop_oneof![4 => Just(None), 1 => any::<bool>().prop_map(Some)];
    let milliseconds = prop_oneof![
        0u64..2000,
        0u64..400_000,
        prop::sample::select(vec![299_999, 300_000, 599_999, 600_000, 960_000]),
    ];
    let who = (client.clone(), user);
    prop_oneof![
        6 => (who.clone(), lifetime.clone(), families, even)
            .prop_map(|(who, lifetime, families, even)| Step::Allocate(who, lifetime, families, even)),
        4 => (who.clone(), prop_oneof![2 => lifetime, 1 => Just(Some(0))], family)
            .prop_map(|(who, lifetime, family)| Step::Refresh(who, lifetime, family)),
        8 => (who.clone(), prop_oneof![5 => 0usize..2, 1 => 0usize..9])
            .prop_map(|(who, ticket)| Step::Move(who, ticket)),
        6 => (who.clone(), prop::collection::vec(peer.clone(), 0..4))
            .prop_map(|(who, peers)| Step::Permit(who, peers)),
        6 => (who, number.clone(), peer.clone())
            .prop_map(|(who, number, peer)| Step::Bind(who, number, peer)),
        8 => (client.clone(), peer.clone()).prop_map(|(client, peer)| Step::Send(client, peer)),
        8 => (client.clone(), number).prop_map(|(client, number)| Step::Channel(client, number)),
        10 => (0usize..8, peer).prop_map(|(relay, peer)| Step::Hear(relay, peer)),
        3 => (milliseconds, any::<bool>()).prop_map(|(length, timeouts)| Step::Wait(length, timeouts)),
        2 => client.prop_map(Step::Gone),
        1 => any::<bool>().prop_map(Step::Reload),
        1 => prop::bool::weighted(0.2).prop_map(Step::Drain),
        2 => any::<(bool, bool)>().prop_map(|(on, cut)| Step::Revoke(on, cut)),
    ]
}

fn on_expiry() -> impl Strategy<Value = OnExpiry> {
    prop::sample::select(vec![OnExpiry::New, OnExpiry::Refresh, OnExpiry::Cut])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn the_machine_does_what_the_model_does(
        on_expiry in on_expiry(),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut pair = Pair::new(on_expiry);
        for step in &steps {
            pair.step(step);
            pair.compare();
        }
    }
}

/// The comparison is of use only if the steps succeed and fail in every way they can.
#[test]
fn the_steps_reach_what_they_are_for() {
    let mut runner = TestRunner::deterministic();
    let mut reached = Reached::default();
    for on_expiry in [OnExpiry::New, OnExpiry::Refresh, OnExpiry::Cut] {
        for _ in 0..120 {
            let steps = prop::collection::vec(step(), 100..101);
            let mut pair = Pair::new(on_expiry);
            pair.reached = reached;
            for step in &steps.new_tree(&mut runner).unwrap().current() {
                pair.step(step);
                pair.compare();
            }
            reached = pair.reached;
        }
    }
    let all = [0, 400, 401, 403, 437, 440, 441, 443, 486, 508];
    assert_eq!(reached.codes, BTreeSet::from(all));
    let least = [
        reached.sent,
        reached.sent_in_channel,
        reached.heard,
        reached.heard_in_channel,
    ];
    assert!(least.iter().all(|&count| count >= 50), "{reached:?}");
    assert!(reached.halves >= 5, "{reached:?}");
    assert!(reached.newcomers >= 10, "{reached:?}");
    assert!(reached.cut >= 5, "{reached:?}");
    let moved = [
        reached.moves,
        reached.repetitions,
        reached.arrivals,
        reached.missed,
    ];
    assert!(moved.iter().all(|&count| count >= 20), "{reached:?}");
}
