//! TURN over DTLS (RFC 7350): the associations of one worker's datagram clients.
//!
//! A stranger costs nothing: a ClientHello without a cookie is answered with a smaller HelloVerifyRequest (or an alert,
//! if it is too old) out of nothing but its own bytes, and whatever else comes from somebody without an association
//! meets silence (A15).
//! Only who has shown that it hears what is sent to its address gets a state, few of them at a time and not for long.
//! From there on a client is what it is on a stream: without an allocation it is closed after a while, and its
//! allocation ends with its association.
//!
//! DTLS 1.2 and nothing else: a HelloVerifyRequest, the only stateless answer that dimpl leaves room for, means 1.2
//! to a client that knows 1.3 as well.

mod association;
mod cookie;
mod hello;
mod identity;
mod record;
mod serve;

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use slab::Slab;

pub use identity::{Identity, UnfitKey};

use super::subscriber::subscriber;
use crate::metrics::{DtlsCells, DtlsDrop};
use crate::turn::{Client, Expiry, FiveTuple};
use association::{Association, LARGEST_PLAINTEXT, Sink, Stage, Step};
use cookie::Cookies;
use hello::{ClientHello, Failure, HELLO_VERIFY_REQUEST};
use record::{Datagram, HANDSHAKE, Record};

/// An association without an allocation is closed after this long (A31).
const WITHOUT_ALLOCATION: Duration = Duration::from_secs(10);
/// Handshakes that one worker has in flight at most (A32).
const HANDSHAKES: usize = 256;
/// Associations of one subscriber whose clients have not proved who they are yet (A31).
const PENDING_PER_SUBSCRIBER: usize = 64;
/// One in so many associations may be a stranger's: each takes about 10 KiB.
const STRANGERS: usize = 4;
/// Datagrams of handshakes that are worked on in one round: media must not wait for them.
const HANDSHAKE_STEPS: usize = 4;
/// Datagrams of handshakes that wait for the next round at most.
const WAITING: usize = 2 * HANDSHAKES;
/// Those of one subscriber.
const WAITING_PER_SUBSCRIBER: usize = WAITING / 8;
/// The largest datagram of a handshake: what comes from a client without a certificate is far smaller.
const LARGEST_HANDSHAKE: usize = 2048;

/// The DTLS clients of one worker.
pub(super) struct Associations {
    table: Slab<Association>,
    by_client: HashMap<FiveTuple, u32>,
    /// Handshakes of clients that have an association already: it lives until they succeed (RFC 6347 §4.2.8).
    replacing: HashMap<FiveTuple, u32>,
    /// When a handshake sends again, or an association is looked at.
    expiry: Expiry,
    handshakes: usize,
    pending: Counts,
    /// All that are pending.
    strangers: usize,
    most: usize,
    cookies: Cookies,
    identity: Arc<ArcSwapOption<Identity>>,
    /// Left of this round's [`HANDSHAKE_STEPS`].
    steps: usize,
    waiting: VecDeque<(Client, Bytes)>,
    /// How many of them are whose.
    waiting_of: Counts,
    /// Clients whose association is over.
    ended: Vec<Client>,
    sink: Sink,
    /// A message that is being put together.
    message: Vec<u8>,
}

impl Associations {
    /// At most `most` of them. Workers with the same `seed` and `epoch` accept each other's cookies.
    pub(super) fn new(
        most: usize,
        identity: Arc<ArcSwapOption<Identity>>,
        seed: &[u8; 32],
        epoch: Instant,
    ) -> Self {
        Self {
            table: Slab::new(),
            by_client: HashMap::new(),
            replacing: HashMap::new(),
            expiry: Expiry::new(),
            handshakes: 0,
            pending: Counts::default(),
            strangers: 0,
            most,
            cookies: Cookies::new(seed, epoch),
            identity,
            steps: HANDSHAKE_STEPS,
            waiting: VecDeque::new(),
            waiting_of: Counts::default(),
            ended: Vec::new(),
            sink: Sink::new(),
            message: Vec::new(),
        }
    }

    /// Takes in a datagram that came to a DTLS listener.
    fn take(&mut self, now: Instant, client: Client, datagram: &[u8], cells: &mut DtlsCells) {
        if let Some(hello) = ClientHello::parse(datagram) {
            return self.take_hello(now, client, &hello, cells);
        }
        let kind = Datagram::of(datagram);
        let Some(key) = self.addressee(&client.five_tuple, kind) else {
            let cause = match Record::first(datagram) {
                Some(record) if record.kind == HANDSHAKE && record.epoch == 0 => {
                    DtlsDrop::Handshake
                }
                Some(_) => DtlsDrop::Stray,
                None => DtlsDrop::NotDtls,
            };
            return cells.dropped(cause);
        };
        let association = &mut self.table[key as usize];
        if kind == Datagram::Protected && association.stage == Stage::Established {
            return self.take_protected(now, key, datagram, cells);
        }
        if datagram.len() > LARGEST_HANDSHAKE {
            return cells.dropped(DtlsDrop::Handshake);
        }
        if let Stage::Handshake { ciphers_changed } = &mut association.stage {
            if self.steps == 0 {
                return self.wait(client, datagram, cells);
            }
            self.steps -= 1;
            *ciphers_changed |= kind
                == Datagram::Handshake {
                    changes_cipher: true,
                };
        }
        let step = association.take(now, datagram, &mut self.sink);
        self.follow(now, key, step, cells);
    }

    /// Takes in what an association has protected, record by record: dimpl keeps, for as long as the association
    /// lives, a buffer for each record that it has seen in one datagram, as large as that record may have been.
    fn take_protected(&mut self, now: Instant, key: u32, datagram: &[u8], cells: &mut DtlsCells) {
        for record in record::protected(datagram) {
            let step = self.table[key as usize].take(now, record, &mut self.sink);
            self.follow(now, key, step, cells);
            if step == Step::Over {
                return;
            }
        }
    }

    /// Whose datagram it is: a restarted client's, or that of the association it had before.
    fn addressee(&self, five_tuple: &FiveTuple, kind: Datagram) -> Option<u32> {
        let current = self.by_client.get(five_tuple).copied();
        let restarted = self
            .replacing
            .get(five_tuple)
            .copied()
            .filter(|key| match kind {
                Datagram::Handshake { .. } => true,
                Datagram::Protected => {
                    self.table[*key as usize].stage
                        == Stage::Handshake {
                            ciphers_changed: true,
                        }
                }
                Datagram::Noise => false,
            });
        restarted.or_else(|| current.filter(|_| kind != Datagram::Noise))
    }

    fn take_hello(
        &mut self,
        now: Instant,
        client: Client,
        hello: &ClientHello<'_>,
        cells: &mut DtlsCells,
    ) {
        if client.five_tuple.client.port() == 0 || hello.bytes().len() < HELLO_VERIFY_REQUEST {
            return cells.dropped(DtlsDrop::Handshake);
        }
        if !hello.is_recent() {
            let refusal = hello.refusal(Failure::ProtocolVersion);
            self.sink.send(client, &refusal);
            return cells.dropped(DtlsDrop::Handshake);
        }
        if !self.cookies.check(now, &client.five_tuple, hello) {
            let cookie = self.cookies.issue(now, &client.five_tuple, hello);
            cells.cookies += 1;
            return self.sink.send(client, &hello.verify_request(&cookie));
        }
        let known = [&self.replacing, &self.by_client]
            .into_iter()
            .filter_map(|table| table.get(&client.five_tuple).copied())
            .find(|key| self.table[*key as usize].random == hello.random);
        let is_repeated =
            known.is_some_and(|key| self.table[key as usize].stage == Stage::Established);
        if is_repeated || hello.bytes().len() > LARGEST_HANDSHAKE || hello.message > MOST_MESSAGES {
            return cells.dropped(DtlsDrop::Handshake);
        }
        if self.steps == 0 {
            return self.wait(client, hello.bytes(), cells);
        }
        self.steps -= 1;
        match known {
            Some(key) => {
                let step = self.table[key as usize].take(now, hello.bytes(), &mut self.sink);
                self.follow(now, key, step, cells);
            }
            None => self.begin(now, client, hello, cells),
        }
    }

    /// Begins an association with somebody whose address is proven.
    fn begin(
        &mut self,
        now: Instant,
        client: Client,
        hello: &ClientHello<'_>,
        cells: &mut DtlsCells,
    ) {
        // A client that begins once more has given up what it began before.
        if let Some(key) = self.handshake_of(&client.five_tuple) {
            self.remove(key);
            cells.handshakes.count(false);
        }
        let ip = client.five_tuple.client.ip();
        let busy = self.handshakes >= HANDSHAKES
            || self.pending.of(ip) >= PENDING_PER_SUBSCRIBER
            || self.strangers >= self.most / STRANGERS
            || self.table.len() >= self.most;
        // A listener without a certificate takes nobody.
        let Some(identity) = self.identity.load_full().filter(|_| !busy) else {
            return cells.dropped(DtlsDrop::Busy);
        };
        let Some(association) = Association::begin(now, client, hello, &identity) else {
            self.sink.send(client, &hello.refusal(Failure::Handshake));
            return cells.handshakes.count(false);
        };
        let key = self.table.insert(association) as u32;
        self.handshakes += 1;
        self.strangers += 1;
        self.pending.add(ip);
        match self.by_client.contains_key(&client.five_tuple) {
            true => self.replacing.insert(client.five_tuple, key),
            false => self.by_client.insert(client.five_tuple, key),
        };
        let step = self.table[key as usize].flush(&mut self.sink);
        self.follow(now, key, step, cells);
    }

    /// Does what a step of an association leads to.
    fn follow(&mut self, now: Instant, key: u32, step: Step, cells: &mut DtlsCells) {
        let stage = self.table[key as usize].stage;
        match (step, stage) {
            (Step::On(due), Stage::Handshake { .. }) => self.expiry.set(key, due),
            (Step::On(_), Stage::Established) => {}
            (Step::Connected, _) => {
                self.establish(now, key);
                cells.handshakes.count(true);
            }
            (Step::Over, Stage::Handshake { .. }) => {
                self.remove(key);
                cells.handshakes.count(false);
            }
            (Step::Over, Stage::Established) => {
                let gone = self.remove(key);
                self.ended.push(gone.client);
            }
        }
    }

    fn establish(&mut self, now: Instant, key: u32) {
        let association = &mut self.table[key as usize];
        association.stage = Stage::Established;
        let five_tuple = association.client.five_tuple;
        self.handshakes -= 1;
        self.expiry.set(key, now + WITHOUT_ALLOCATION);
        if self.replacing.remove(&five_tuple).is_some()
            && let Some(before) = self.by_client.insert(five_tuple, key)
        {
            let gone = self.remove(before);
            self.ended.push(gone.client);
        }
    }

    /// The handshake of this client that is in flight.
    fn handshake_of(&self, five_tuple: &FiveTuple) -> Option<u32> {
        let is_handshake =
            |key: &u32| matches!(self.table[*key as usize].stage, Stage::Handshake { .. });
        [&self.replacing, &self.by_client]
            .into_iter()
            .find_map(|table| table.get(five_tuple).copied())
            .filter(is_handshake)
    }

    fn remove(&mut self, key: u32) -> Association {
        let association = self.table.remove(key as usize);
        let five_tuple = &association.client.five_tuple;
        for table in [&mut self.replacing, &mut self.by_client] {
            if table.get(five_tuple) == Some(&key) {
                table.remove(five_tuple);
            }
        }
        self.expiry.remove(key);
        if association.stage != Stage::Established {
            self.handshakes -= 1;
        }
        if association.pending {
            self.no_longer_pending(five_tuple.client.ip());
        }
        association
    }

    fn wait(&mut self, client: Client, datagram: &[u8], cells: &mut DtlsCells) {
        let ip = client.five_tuple.client.ip();
        if self.waiting.len() >= WAITING || self.waiting_of.of(ip) >= WAITING_PER_SUBSCRIBER {
            return cells.dropped(DtlsDrop::Busy);
        }
        self.waiting_of.add(ip);
        self.waiting
            .push_back((client, Bytes::copy_from_slice(datagram)));
    }

    /// A new round: takes in what had to wait.
    fn begin_round(&mut self, now: Instant, cells: &mut DtlsCells) {
        self.steps = HANDSHAKE_STEPS;
        for _ in 0..self.waiting.len() {
            if self.steps == 0 {
                break;
            }
            if let Some((client, datagram)) = self.waiting.pop_front() {
                self.waiting_of.remove(client.five_tuple.client.ip());
                self.take(now, client, &datagram, cells);
            }
        }
    }

    /// Encrypts a message for a client, to be sent with these DSCP and ECN. False if it has no association, or the
    /// message is too long for a record.
    pub(super) fn send(&mut self, to: Client, parts: [&[u8]; 3], marks: u8) -> bool {
        let key = self.by_client.get(&to.five_tuple).copied();
        let Some(key) = key.filter(|key| self.table[*key as usize].stage == Stage::Established)
        else {
            return false;
        };
        self.message.clear();
        for part in parts {
            self.message.extend_from_slice(part);
        }
        if self.message.len() > LARGEST_PLAINTEXT {
            return false;
        }
        self.sink.marks = marks;
        let step = self.table[key as usize].seal(&self.message, &mut self.sink);
        self.sink.marks = 0;
        if step == Step::Over {
            let gone = self.remove(key);
            self.ended.push(gone.client);
        }
        true
    }

    /// Sends handshakes again, ends those that take too long, and closes associations that should have an allocation
    /// by now and have none.
    fn expire(
        &mut self,
        now: Instant,
        has_allocation: impl Fn(&FiveTuple) -> bool,
        cells: &mut DtlsCells,
    ) {
        while let Some(key) = self.expiry.pop(now) {
            let association = &mut self.table[key as usize];
            if association.stage != Stage::Established {
                let step = association.handle_timeout(now, &mut self.sink);
                self.follow(now, key, step, cells);
            } else if has_allocation(&association.client.five_tuple) {
                self.expiry.set(key, now + WITHOUT_ALLOCATION);
            } else {
                association.close(&mut self.sink);
                self.remove(key);
            }
        }
    }

    /// When there is something to do without a datagram.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        match self.waiting.is_empty() {
            true => self.expiry.next(),
            false => Some(now),
        }
    }

    /// The client of an association has proved who it is: it counts no longer against its neighbours.
    pub(super) fn trust(&mut self, client: &FiveTuple) {
        let Some(key) = self.by_client.get(client).copied() else {
            return;
        };
        if std::mem::take(&mut self.table[key as usize].pending) {
            self.no_longer_pending(client.client.ip());
        }
    }

    fn no_longer_pending(&mut self, ip: IpAddr) {
        self.strangers -= 1;
        self.pending.remove(ip);
    }

    /// Whether a client has an association.
    pub(super) fn has(&self, client: &FiveTuple) -> bool {
        self.by_client.contains_key(client)
    }

    /// How many there are, handshakes included.
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }
}

/// The handshake message that a ClientHello may be at most: one answer to a cookie that has grown old is enough.
const MOST_MESSAGES: u16 = 3;

/// How many of something each subscriber has.
#[derive(Default)]
struct Counts(HashMap<IpAddr, usize>);

impl Counts {
    fn of(&self, ip: IpAddr) -> usize {
        self.0.get(&subscriber(ip)).copied().unwrap_or(0)
    }

    fn add(&mut self, ip: IpAddr) {
        *self.0.entry(subscriber(ip)).or_default() += 1;
    }

    fn remove(&mut self, ip: IpAddr) {
        let subscriber = subscriber(ip);
        if let Some(count) = self.0.get_mut(&subscriber) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&subscriber);
            }
        }
    }
}

#[cfg(test)]
mod tests;
