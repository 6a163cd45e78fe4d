//! The two ends of the way that is measured: a relay with its client, and what stands for the other side of a call.
//!
//! ```text
//!  near client ─▶ its relay ─┬▶ another relay ─▶ far client        as with two clients behind relays
//!              ◀─            ├▶ itself                             where a user may have one relay only
//!                            └▶ a plain socket of this host        where relays may not talk to each other
//! ```

use std::net::SocketAddr;

use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use crate::stun::{Attribute, ChannelNumber, Method};

use super::client::{Client, Data};
use super::fault::Fault;

/// The channel that each client binds to the other end.
const CHANNEL: ChannelNumber = match ChannelNumber::new(0x4000) {
    Some(number) => number,
    None => unreachable!(),
};
/// Datagrams are no longer than this.
const LONGEST_DATAGRAM: usize = 65_535;

/// A relay and its client.
pub(super) struct Relay {
    pub(super) client: Client,
    pub(super) address: SocketAddr,
}

/// Both ends.
pub(super) struct Ends {
    pub(super) near: Relay,
    pub(super) far: Far,
}

/// The other side of the call.
pub(super) enum Far {
    /// The near relay: it talks to itself.
    Itself,
    /// A second relay.
    Relay(Relay),
    /// A socket without any relay, which the server sees at this address.
    Plain(UdpSocket, SocketAddr),
}

/// Where something is sent from, or comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Near,
    Far,
}

/// What came out at an end.
#[derive(Debug)]
pub(super) struct Came {
    pub(super) end: End,
    pub(super) way: Way,
    pub(super) bytes: Vec<u8>,
}

/// How it came there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Through the channel of the other end.
    Channel,
    /// In an indication, from this peer.
    Indication(SocketAddr),
    /// To a plain socket.
    Plain,
    /// Through a channel that nobody has bound.
    Astray,
}

impl Ends {
    /// A relay that talks to itself.
    pub(super) fn alone(near: Relay) -> Self {
        Self {
            near,
            far: Far::Itself,
        }
    }

    /// Whether one client is both ends.
    pub(super) fn is_alone(&self) -> bool {
        matches!(self.far, Far::Itself)
    }

    /// The end that hears what this one sends.
    pub(super) fn opposite(&self, of: End) -> End {
        match of {
            End::Near if !self.is_alone() => End::Far,
            End::Near | End::Far => End::Near,
        }
    }

    /// The address that an end has for its peer.
    pub(super) fn address(&self, of: End) -> SocketAddr {
        match (of, &self.far) {
            (End::Near, _) | (End::Far, Far::Itself) => self.near.address,
            (End::Far, Far::Relay(relay)) => relay.address,
            (End::Far, Far::Plain(_, address)) => *address,
        }
    }

    /// Lets each relay hear the other end.
    pub(super) async fn permit(&mut self) -> Result<(), Fault> {
        for (client, peer) in self.clients() {
            let permission = client.ask(Method::CREATE_PERMISSION, |writer| {
                writer.xor_address(Attribute::XOR_PEER_ADDRESS, peer);
            });
            permission.await?;
        }
        Ok(())
    }

    /// Binds a channel at each relay, to the other end.
    pub(super) async fn bind(&mut self) -> Result<(), Fault> {
        for (client, peer) in self.clients() {
            let binding = client.ask(Method::CHANNEL_BIND, |writer| {
                writer.u16(Attribute::CHANNEL_NUMBER, CHANNEL.get());
                writer.xor_address(Attribute::XOR_PEER_ADDRESS, peer);
            });
            binding.await?;
        }
        Ok(())
    }

    /// The clients, each with its peer.
    fn clients(&mut self) -> impl Iterator<Item = (&mut Client, SocketAddr)> {
        let peers = [self.address(End::Far), self.near.address];
        let far = match &mut self.far {
            Far::Relay(relay) => Some(&mut relay.client),
            Far::Itself | Far::Plain(..) => None,
        };
        let clients = std::iter::once(&mut self.near.client).chain(far);
        clients.zip(peers)
    }

    fn client(&mut self, end: End) -> &mut Client {
        match (end, &mut self.far) {
            (End::Far, Far::Relay(relay)) => &mut relay.client,
            (End::Near | End::Far, _) => &mut self.near.client,
        }
    }

    /// Sends from an end to the other in an indication; a plain socket simply sends.
    pub(super) async fn indicate(
        &mut self,
        from: End,
        data: &[u8],
        dont_fragment: bool,
    ) -> Result<(), Fault> {
        if let (End::Far, Far::Plain(socket, _)) = (from, &self.far) {
            return plainly(socket, data, self.near.address).await;
        }
        let peer = match from {
            End::Near => self.address(End::Far),
            End::Far => self.near.address,
        };
        let client = self.client(from);
        client.send_indication(peer, data, dont_fragment).await
    }

    /// Sends from an end to the other through the channel; a plain socket simply sends.
    pub(super) async fn send(&mut self, from: End, data: &[u8]) -> Result<(), Fault> {
        if let (End::Far, Far::Plain(socket, _)) = (from, &self.far) {
            return plainly(socket, data, self.near.address).await;
        }
        self.client(from).send_channel(CHANNEL, data).await
    }

    /// The next data at either end, or nothing until then.
    pub(super) async fn arrival(&mut self, until: Instant) -> Result<Option<Came>, Fault> {
        let near = &mut self.near.client;
        let (end, data) = match &mut self.far {
            Far::Itself => (End::Near, near.data(until).await?),
            Far::Relay(relay) => tokio::select! {
                data = near.data(until) => (End::Near, data?),
                data = relay.client.data(until) => (End::Far, data?),
            },
            Far::Plain(socket, _) => tokio::select! {
                data = near.data(until) => (End::Near, data?),
                came = heard(socket, until) => return came,
            },
        };
        Ok(data.map(|data| Came::of(end, data)))
    }

    /// Has datagrams to the server sent whole or not at all, or as the kernel likes.
    pub(super) fn dont_fragment(&self, whole: bool) {
        self.near.client.link.dont_fragment(whole);
        match &self.far {
            Far::Itself => {}
            Far::Relay(relay) => relay.client.link.dont_fragment(whole),
            Far::Plain(socket, _) => dont_fragment(socket, whole),
        }
    }
}

impl Came {
    fn of(end: End, data: Data) -> Self {
        let (way, bytes) = match data {
            Data::Channel(number, bytes) if number == CHANNEL.get() => (Way::Channel, bytes),
            Data::Channel(_, bytes) => (Way::Astray, bytes),
            Data::Indication(from, bytes) => (Way::Indication(from), bytes),
        };
        Self { end, way, bytes }
    }

    /// Whether it came the way that it should when channels are bound.
    pub(super) fn is_direct(&self) -> bool {
        matches!(self.way, Way::Channel | Way::Plain)
    }
}

async fn heard(socket: &UdpSocket, until: Instant) -> Result<Option<Came>, Fault> {
    let mut buffer = vec![0; LONGEST_DATAGRAM];
    let Ok(received) = timeout_at(until, socket.recv_from(&mut buffer)).await else {
        return Ok(None);
    };
    let (length, _) = received.map_err(|error| Fault::of_io(&error))?;
    buffer.truncate(length);
    Ok(Some(Came {
        end: End::Far,
        way: Way::Plain,
        bytes: buffer,
    }))
}

async fn plainly(socket: &UdpSocket, data: &[u8], to: SocketAddr) -> Result<(), Fault> {
    let sent = socket.send_to(data, to).await;
    sent.map(drop).map_err(|error| Fault::of_io(&error))
}

/// Has datagrams sent whole or not at all, or as the kernel likes.
pub(super) fn dont_fragment(socket: &UdpSocket, whole: bool) {
    // A kernel that cannot do it sends them anyhow; then more seems to come through than does elsewhere.
    let _ = if socket.local_addr().is_ok_and(|local| local.is_ipv4()) {
        let how = if whole {
            Ipv4PathMtuDiscovery::PROBE
        } else {
            Ipv4PathMtuDiscovery::WANT
        };
        set_ip_mtu_discover(socket, how)
    } else {
        let how = if whole {
            Ipv6PathMtuDiscovery::PROBE
        } else {
            Ipv6PathMtuDiscovery::WANT
        };
        set_ipv6_mtu_discover(socket, how)
    };
}
