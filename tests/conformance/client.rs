//! A client with credentials, and the peers it talks to.

use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};

use crate::packet::{Build, Class, Key, Packet, Stun, attr, channel_data, channel_data_padded};
use crate::statement::{Seen, ensure};
use crate::wire::{Heard, Link};

/// Name and password.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password: String,
}

/// A client, on a way of its own.
pub(crate) struct Client {
    pub(crate) link: Link,
    pub(crate) login: Login,
    pub(crate) realm: Vec<u8>,
    pub(crate) nonce: Vec<u8>,
    /// The password algorithms that came with the nonce.
    pub(crate) offer: Option<Vec<u8>>,
    /// What came while something else was waited for.
    inbox: VecDeque<Packet>,
    /// Bindings whose answers say nothing but that they came.
    fences: Vec<[u8; 12]>,
}

impl Client {
    pub(crate) fn new(link: Link, login: Login) -> Self {
        Self {
            link,
            login,
            realm: Vec::new(),
            nonce: Vec::new(),
            offer: None,
            inbox: VecDeque::new(),
            fences: Vec::new(),
        }
    }

    // ---- requests ----

    /// An allocation with nothing special about it; its relayed address.
    pub(crate) fn allocate(&mut self) -> Seen<SocketAddr> {
        let answer = self.succeed(Build::allocate())?;
        relayed(&answer)
    }

    /// Allows a peer.
    pub(crate) fn permit(&mut self, peer: SocketAddr) -> Seen {
        self.succeed(Build::permission(peer)).map(drop)
    }

    /// Binds a channel.
    pub(crate) fn bind(&mut self, channel: u16, peer: SocketAddr) -> Seen {
        self.succeed(Build::channel(channel, peer)).map(drop)
    }

    /// Asks with credentials, after a challenge if there was none yet, and expects a signed success.
    pub(crate) fn succeed(&mut self, build: Build) -> Seen<Stun> {
        let answer = self.ask(build)?;
        let code = answer.code();
        ensure!(
            answer.class == Class::Success,
            "{code} instead of a success"
        );
        ensure!(
            answer.is_signed_by(&self.key()),
            "a success that is not signed"
        );
        Ok(answer)
    }

    /// Asks with credentials and expects this error.
    pub(crate) fn refused(&mut self, build: Build, code: u16) -> Seen<Stun> {
        let answer = self.ask(build)?;
        ensure!(
            answer.code() == code,
            "{} instead of {code}",
            code_or_success(&answer)
        );
        Ok(answer)
    }

    /// Asks with credentials and expects this error, signed with the key of the request.
    pub(crate) fn refused_signed(&mut self, build: Build, code: u16) -> Seen<Stun> {
        let answer = self.refused(build, code)?;
        let signed = answer.is_signed_by(&self.key());
        ensure!(signed, "{code} that is not signed");
        Ok(answer)
    }

    /// Asks with credentials. A nonce that has become stale is replaced once.
    pub(crate) fn ask(&mut self, build: Build) -> Seen<Stun> {
        if self.nonce.is_empty() {
            self.challenge()?;
        }
        let answer = self.exchange(&self.signed(build.clone()))?;
        if answer.code() != 438 {
            return Ok(answer);
        }
        self.learn(&answer)?;
        self.exchange(&self.signed(build))
    }

    /// Asks without credentials, and learns realm and nonce from the 401.
    pub(crate) fn challenge(&mut self) -> Seen<Stun> {
        let answer = self.exchange(&Build::allocate())?;
        ensure!(
            answer.code() == 401,
            "{} instead of a challenge",
            code_or_success(&answer)
        );
        self.learn(&answer)?;
        Ok(answer)
    }

    /// Takes over what a 401 or 438 says.
    pub(crate) fn learn(&mut self, answer: &Stun) -> Seen {
        self.realm = answer
            .get(attr::REALM)
            .ok_or("a challenge without REALM")?
            .to_vec();
        self.nonce = answer
            .get(attr::NONCE)
            .ok_or("a challenge without NONCE")?
            .to_vec();
        self.offer = answer.get(attr::PASSWORD_ALGORITHMS).map(<[u8]>::to_vec);
        Ok(())
    }

    /// Puts credentials on a request as every client does it: no algorithms, MESSAGE-INTEGRITY.
    pub(crate) fn signed(&self, build: Build) -> Build {
        self.named(build).sign(&self.key())
    }

    /// The same without the integrity.
    pub(crate) fn named(&self, build: Build) -> Build {
        build
            .attr(attr::USERNAME, self.login.user.as_bytes())
            .attr(attr::REALM, &self.realm)
            .attr(attr::NONCE, &self.nonce)
    }

    pub(crate) fn key(&self) -> Key {
        let Login { user, password } = &self.login;
        Key::md5(user.as_bytes(), &self.realm, password.as_bytes())
    }

    pub(crate) fn key_sha256(&self) -> Key {
        let Login { user, password } = &self.login;
        Key::sha256(user.as_bytes(), &self.realm, password.as_bytes())
    }

    // ---- packets ----

    /// Sends a request as it is and waits for its answer.
    pub(crate) fn exchange(&mut self, request: &Build) -> Seen<Stun> {
        self.link.send(&request.bytes())?;
        self.answer_to(request.id())
    }

    /// Waits for the answer to a request.
    pub(crate) fn answer_to(&mut self, id: [u8; 12]) -> Seen<Stun> {
        loop {
            match self.next("an answer")? {
                Packet::Stun(stun) if stun.id == id => return Ok(stun),
                other @ (Packet::Stun(_) | Packet::Channel { .. }) => self.inbox.push_back(other),
            }
        }
    }

    /// Sends some bytes and tells whether any answer comes before that to a Binding behind them.
    pub(crate) fn is_silent_at(&mut self, bytes: &[u8]) -> Seen<bool> {
        self.link.send(bytes)?;
        Ok(self.heard_until_fence()?.is_empty())
    }

    /// The same, and anything that comes is trouble.
    pub(crate) fn expect_silence(&mut self, bytes: &[u8], what: &str) -> Seen {
        self.link.send(bytes)?;
        match self.heard_until_fence()?.first() {
            None => Ok(()),
            Some(packet) => Err(format!("{what} is answered: {}", told(packet)).into()),
        }
    }

    /// All that comes until two Bindings, one after the other, were answered: then what went before them was judged.
    pub(crate) fn heard_until_fence(&mut self) -> Seen<Vec<Packet>> {
        let mut heard: Vec<Packet> = self.inbox.drain(..).collect();
        for _ in 0..2 {
            let fence = Build::binding();
            self.fences.push(fence.id());
            self.link.send(&fence.bytes())?;
            loop {
                match self.raw_next("an answer to a Binding")? {
                    Packet::Stun(stun) if stun.id == fence.id() => break,
                    Packet::Stun(stun) if self.fences.contains(&stun.id) => {}
                    other @ (Packet::Stun(_) | Packet::Channel { .. }) => heard.push(other),
                }
            }
        }
        Ok(heard)
    }

    /// Sends a packet to the peer of a channel.
    pub(crate) fn send_channel(&mut self, channel: u16, data: &[u8]) -> Seen {
        let bytes = match self.link.transport.is_stream() {
            true => channel_data_padded(channel, data),
            false => channel_data(channel, data),
        };
        self.link.send(&bytes)
    }

    /// Sends a packet to a peer in an indication.
    pub(crate) fn send_to(&mut self, peer: SocketAddr, data: &[u8]) -> Seen {
        self.link.send(&Build::send(peer, data).bytes())
    }

    /// The next packet that is no answer to a fence.
    pub(crate) fn next(&mut self, wanted: &str) -> Seen<Packet> {
        if let Some(packet) = self.inbox.pop_front() {
            return Ok(packet);
        }
        loop {
            match self.raw_next(wanted)? {
                Packet::Stun(stun) if self.fences.contains(&stun.id) => {}
                packet @ (Packet::Stun(_) | Packet::Channel { .. }) => return Ok(packet),
            }
        }
    }

    /// The next packet, which must be data: from whom or through which channel, and what.
    pub(crate) fn data(&mut self) -> Seen<Data> {
        let packet = self.next("data")?;
        match &packet {
            Packet::Channel { number, data } => Ok(Data::Channel(*number, data.clone())),
            Packet::Stun(stun)
                if (stun.class, stun.method)
                    == (Class::Indication, crate::packet::method::DATA) =>
            {
                let peer = stun
                    .xor_address(attr::XOR_PEER_ADDRESS)
                    .ok_or("a Data indication without XOR-PEER-ADDRESS")?;
                let data = stun
                    .get(attr::DATA)
                    .ok_or("a Data indication without DATA")?;
                Ok(Data::Indication(peer, data.to_vec()))
            }
            Packet::Stun(_) => Err(format!("{} instead of data", told(&packet)).into()),
        }
    }

    fn raw_next(&mut self, wanted: &str) -> Seen<Packet> {
        match self.link.receive()? {
            Heard::Packet(packet) => Ok(packet),
            Heard::Nothing => Err(format!("no {}", wanted.trim_start_matches("an ")).into()),
            Heard::Closed => Err(format!("the connection was closed instead of {wanted}").into()),
        }
    }
}

/// Gives the allocation back, if there is one: ports, and quotas, are there for the next.
impl Drop for Client {
    fn drop(&mut self) {
        if !self.nonce.is_empty() && !self.link.transport.is_stream() {
            let goodbye = self.signed(Build::refresh(0)).bytes();
            _ = self.link.send(&goodbye);
        }
    }
}

/// Data from a peer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Data {
    Channel(u16, Vec<u8>),
    Indication(SocketAddr, Vec<u8>),
}

/// XOR-RELAYED-ADDRESS.
pub(crate) fn relayed(answer: &Stun) -> Seen<SocketAddr> {
    let relayed = answer.xor_address(attr::XOR_RELAYED_ADDRESS);
    relayed.ok_or_else(|| "no XOR-RELAYED-ADDRESS".into())
}

/// What an answer says, in a word.
pub(crate) fn code_or_success(answer: &Stun) -> String {
    match answer.class {
        Class::Success => "success".into(),
        Class::Error => answer.code().to_string(),
        Class::Request | Class::Indication => format!("{:?}", answer.class),
    }
}

fn told(packet: &Packet) -> String {
    match packet {
        Packet::Channel { number, .. } => format!("ChannelData {number:#06x}"),
        Packet::Stun(stun) => code_or_success(stun),
    }
}

/// A peer: a plain socket.
pub(crate) struct Peer {
    pub(crate) socket: UdpSocket,
    pub(crate) address: SocketAddr,
}

impl Peer {
    pub(crate) fn new(socket: UdpSocket) -> Seen<Self> {
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    /// A second socket with the same address and another port.
    pub(crate) fn beside(&self) -> Seen<Self> {
        let socket = UdpSocket::bind((self.address.ip(), 0))?;
        socket.set_read_timeout(self.socket.read_timeout()?)?;
        Self::new(socket)
    }

    pub(crate) fn send(&self, relay: SocketAddr, data: &[u8]) -> Seen {
        self.socket.send_to(data, relay)?;
        Ok(())
    }

    /// The next datagram, and who sent it.
    pub(crate) fn receive(&self) -> Seen<(Vec<u8>, SocketAddr)> {
        let mut buffer = vec![0; 65_536];
        let Ok((length, from)) = self.socket.recv_from(&mut buffer) else {
            return Err("the peer hears nothing".into());
        };
        buffer.truncate(length);
        Ok((buffer, from))
    }

    /// The next datagram must be this one.
    pub(crate) fn hears(&self, data: &[u8]) -> Seen {
        let (heard, _) = self.receive()?;
        ensure!(
            heard == data,
            "the peer hears {heard:02x?} instead of {data:02x?}"
        );
        Ok(())
    }
}
