//! Many TURN clients in one loop: the dialogue from the first 401 to the channel, a bounded number at a time.

use std::{io, net::SocketAddrV4, os::fd::AsRawFd};

use super::{
    client::{
        ALLOCATE, Account, Answer, CHANNEL_BIND, CREATE_PERMISSION, Challenge, Id, Message,
        REFRESH, SUCCESS,
    },
    field::Field,
    sys::{self, Batch},
};

/// The first channel number that clients bind; the others follow.
pub(crate) const FIRST_CHANNEL: u16 = 0x4000;

/// What each client of a crowd does.
#[derive(Clone, Copy)]
pub(crate) struct Script {
    /// Channels to bind, each to a peer of its own.
    pub(crate) channels: usize,
    /// Gives the allocation back at the end.
    pub(crate) release: bool,
}

/// When a crowd stops to send new clients in.
#[derive(Clone, Copy)]
pub(crate) enum Until {
    Clients(usize),
    Time(u64),
}

/// A client with a live allocation.
#[derive(Clone, Copy)]
pub(crate) struct Session {
    pub(crate) client: usize,
    pub(crate) relayed: SocketAddrV4,
}

/// How a crowd fared.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) sessions: Vec<Session>,
    pub(crate) done: u64,
    pub(crate) failed: u64,
    /// The first thing that went wrong.
    pub(crate) complaint: Option<String>,
    pub(crate) nanoseconds: u64,
    /// Time in which all clients waited for answers.
    pub(crate) waiting: u64,
}

/// Clients at the door of one server.
pub(crate) struct Crowd<'a> {
    field: &'a Field,
    server: SocketAddrV4,
    secret: &'a [u8],
    accounts: Vec<Option<(String, Account)>>,
    expiry: u64,
    dialogues: Vec<Option<Dialogue>>,
    outbox: Batch,
    inbox: Batch,
    next_client: usize,
    script: Script,
}

/// Where one client stands.
struct Dialogue {
    client: usize,
    step: Step,
    challenge: Challenge,
    relayed: Option<SocketAddrV4>,
    sent_at: u64,
    tries: u32,
    request: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Ask,
    Allocate,
    Permit,
    Bind(u16),
    Release,
}

/// The number of the peer that a client's channel leads to: every client has peers of its own.
pub(crate) fn peer_of(client: usize, channels: usize, channel: usize) -> usize {
    (client * channels.max(1) + channel) % PEERS
}

const PEERS: usize = 500_000;
/// Users that the clients share among them.
const USERS: usize = 1024;
/// Credentials end at midnight, so that one client has the same name whenever it asks.
const DAY: u64 = 86_400;
/// Dialogues at a time.
const AT_ONCE: usize = 64;
const RETRANSMIT_AFTER: u64 = 300_000_000;
const TRIES: u32 = 5;

impl<'a> Crowd<'a> {
    pub(crate) fn new(field: &'a Field, server: SocketAddrV4, secret: &'a [u8]) -> Self {
        Self {
            field,
            server,
            secret,
            accounts: vec![None; USERS],
            expiry: (sys::unix_time() / DAY + 2) * DAY,
            dialogues: (0..AT_ONCE).map(|_| None).collect(),
            outbox: Batch::new(AT_ONCE, 512, false),
            inbox: Batch::new(AT_ONCE, 2048, false),
            next_client: 0,
            script: Script {
                channels: 0,
                release: true,
            },
        }
    }

    /// Sends clients in until it is enough, and waits for the last of them. No client comes twice.
    pub(crate) fn run(&mut self, script: Script, until: Until) -> io::Result<Outcome> {
        self.script = script;
        self.converse(Step::Ask, until)
    }

    /// Gives the allocations of the first clients back, whoever made them.
    pub(crate) fn release(&mut self, clients: usize) -> io::Result<Outcome> {
        self.script = Script {
            channels: 0,
            release: true,
        };
        self.next_client = 0;
        self.converse(Step::Release, Until::Clients(clients))
    }

    fn converse(&mut self, first: Step, until: Until) -> io::Result<Outcome> {
        let start = sys::now();
        let mut outcome = Outcome::default();
        let mut started = 0;
        loop {
            let now = sys::now();
            let enough = match until {
                Until::Clients(count) => started >= count,
                Until::Time(nanoseconds) => now - start >= nanoseconds,
            };
            let mut waiting = 0;
            for slot in 0..AT_ONCE {
                if self.dialogues[slot].is_none()
                    && !enough
                    && !matches!(until, Until::Clients(count) if started >= count)
                {
                    self.begin(slot, first, now);
                    started += 1;
                }
                if self.dialogues[slot].is_some() {
                    waiting += 1;
                    self.remind(slot, now, &mut outcome);
                }
            }
            self.flush()?;
            if waiting == 0 {
                break;
            }
            self.hear(now, &mut outcome);
        }
        outcome.nanoseconds = sys::now() - start;
        Ok(outcome)
    }

    fn begin(&mut self, slot: usize, first: Step, now: u64) {
        let dialogue = Dialogue {
            client: self.next_client,
            step: first,
            challenge: Challenge::default(),
            relayed: None,
            sent_at: 0,
            tries: 0,
            request: Vec::new(),
        };
        self.next_client += 1;
        self.dialogues[slot] = Some(dialogue);
        self.say(slot, first, now);
    }

    /// Sends the request of a step.
    fn say(&mut self, slot: usize, step: Step, now: u64) {
        let Some(mut dialogue) = self.dialogues[slot].take() else {
            return;
        };
        dialogue.step = step;
        let id = id(slot, &dialogue);
        let (field, client, channels) = (self.field, dialogue.client, self.script.channels);
        let peer = |channel: u16| field.peer(peer_of(client, channels, usize::from(channel)));
        let message = match step {
            Step::Ask | Step::Allocate => Message::new(ALLOCATE, id).requested_transport_udp(),
            Step::Permit => Message::new(CREATE_PERMISSION, id).peer(peer(0)),
            Step::Bind(index) => Message::new(CHANNEL_BIND, id)
                .channel(FIRST_CHANNEL + index)
                .peer(peer(index)),
            Step::Release => Message::new(REFRESH, id).lifetime(0),
        };
        let challenge = &dialogue.challenge;
        // Who has not been asked for credentials yet has no realm to make them with.
        dialogue.request = if step == Step::Ask || challenge.nonce.is_empty() {
            message.finish()
        } else {
            let account = self.account(dialogue.client, &challenge.realm);
            message.sign(account, challenge).finish()
        };
        dialogue.sent_at = now;
        dialogue.tries = 1;
        self.post(&dialogue);
        self.dialogues[slot] = Some(dialogue);
    }

    fn post(&mut self, dialogue: &Dialogue) {
        if self.outbox.room() == 0 {
            let _ = self.flush();
        }
        let from = *self.field.client(dialogue.client).ip();
        self.outbox
            .push(&dialogue.request, Some(from), Some(self.server), None);
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut at = 0;
        while at < self.outbox.len() {
            at += self
                .outbox
                .send(self.field.clients.as_raw_fd(), at, self.outbox.len() - at)?;
        }
        self.outbox.clear();
        Ok(())
    }

    fn account(&mut self, client: usize, realm: &str) -> &Account {
        let user = client % USERS;
        let entry = &mut self.accounts[user];
        if entry.as_ref().is_none_or(|(known, _)| known != realm) {
            let account = Account::new(self.secret, realm, &format!("load{user}"), self.expiry);
            *entry = Some((realm.to_owned(), account));
        }
        &entry.as_ref().expect("set above").1
    }

    /// Repeats a request that got no answer, and gives up after a few.
    fn remind(&mut self, slot: usize, now: u64, outcome: &mut Outcome) {
        let Some(mut dialogue) = self.dialogues[slot].take() else {
            return;
        };
        if now.saturating_sub(dialogue.sent_at) < RETRANSMIT_AFTER {
            self.dialogues[slot] = Some(dialogue);
        } else if dialogue.tries >= TRIES {
            outcome.fail(format!("no answer to {:?}", dialogue.step));
        } else {
            dialogue.tries += 1;
            dialogue.sent_at = now;
            self.post(&dialogue);
            self.dialogues[slot] = Some(dialogue);
        }
    }

    fn hear(&mut self, now: u64, outcome: &mut Outcome) {
        let count = self
            .inbox
            .receive(self.field.clients.as_raw_fd(), AT_ONCE)
            .unwrap_or(0);
        if count == 0 {
            outcome.waiting += sys::now() - now;
        }
        for index in 0..count {
            let bytes = self.inbox.payload(index).to_vec();
            if let Some(answer) = Answer::parse(&bytes) {
                self.answered(&answer, now, outcome);
            }
        }
        self.inbox.clear();
    }

    fn answered(&mut self, answer: &Answer<'_>, now: u64, outcome: &mut Outcome) {
        let script = self.script;
        let slot = usize::from(u16::from_be_bytes([answer.id()[8], answer.id()[9]]));
        let Some(Some(dialogue)) = self.dialogues.get_mut(slot) else {
            return;
        };
        if answer.id() != id(slot, dialogue) {
            return;
        }
        let next = match (dialogue.step, answer.kind(), answer.error()) {
            (Step::Ask, _, Some(401)) => {
                dialogue.challenge = answer.challenge().unwrap_or_default();
                Some(Step::Allocate)
            }
            (Step::Allocate, kind, _) if kind == ALLOCATE | SUCCESS => {
                dialogue.relayed = answer.relayed_address();
                Some(Step::Permit)
            }
            (Step::Permit, kind, _) if kind == CREATE_PERMISSION | SUCCESS => after_bind(script, 0),
            (Step::Bind(index), kind, _) if kind == CHANNEL_BIND | SUCCESS => {
                after_bind(script, index + 1)
            }
            (Step::Release, _, Some(401)) if dialogue.challenge.nonce.is_empty() => {
                dialogue.challenge = answer.challenge().unwrap_or_default();
                Some(Step::Release)
            }
            (Step::Release, kind, _) if kind == REFRESH | SUCCESS => None,
            (step, kind, error) => {
                outcome.fail(format!("answer {kind:#06x} ({error:?}) to {step:?}"));
                self.dialogues[slot] = None;
                return;
            }
        };
        if let Some(next) = next {
            self.say(slot, next, now);
        } else if let Some(dialogue) = self.dialogues[slot].take() {
            outcome.done += 1;
            if let Some(relayed) = dialogue.relayed.filter(|_| !script.release) {
                outcome.sessions.push(Session {
                    client: dialogue.client,
                    relayed,
                });
            }
        }
    }
}

impl Outcome {
    fn fail(&mut self, complaint: String) {
        self.failed += 1;
        self.complaint.get_or_insert(complaint);
    }
}

fn after_bind(script: Script, bound: u16) -> Option<Step> {
    if usize::from(bound) < script.channels {
        Some(Step::Bind(bound))
    } else {
        script.release.then_some(Step::Release)
    }
}

/// The transaction tells the client, where its dialogue is kept, and the step.
fn id(slot: usize, dialogue: &Dialogue) -> Id {
    let step = match dialogue.step {
        Step::Ask => 0,
        Step::Allocate => 1,
        Step::Permit => 2,
        Step::Release if dialogue.challenge.nonce.is_empty() => 3,
        Step::Release => 4,
        Step::Bind(index) => 5 + index,
    };
    let mut id = *b"load\0\0\0\0\0\0\0\0";
    id[4..8].copy_from_slice(&(dialogue.client as u32).to_be_bytes());
    id[8..10].copy_from_slice(&(slot as u16).to_be_bytes());
    id[10..].copy_from_slice(&step.to_be_bytes());
    id
}
