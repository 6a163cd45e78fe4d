//! What goes through relays, step by step.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::UdpSocket;

use super::super::Progress;
use super::super::ends::{Ends, Far};
use super::super::fault::Fault;
use super::super::measure;
use super::super::report::{Facts, Name};
use super::Visit;

impl Visit<'_> {
    /// The ends that an earlier step has made. A story comes here with them only.
    fn ends(&mut self) -> Option<&mut Ends> {
        self.ends.as_mut()
    }

    pub(super) async fn permission(&mut self) -> Option<()> {
        self.begin(Name::Permission);
        match self.ends()?.permit().await {
            Ok(()) => {
                self.done(Facts::None {});
                Some(())
            }
            // A server may well have its reasons to keep its relays from its own network.
            Err(fault @ Fault::Error(403, _)) => {
                self.note(&fault);
                self.plain_peer().await
            }
            Err(fault) => self.stop(&fault),
        }
    }

    /// Puts a plain socket of this host into the place of the second relay, if the server says what it sees of this host.
    async fn plain_peer(&mut self) -> Option<()> {
        let own = self.mapped?;
        if self.ends()?.near.address.is_ipv4() != own.is_ipv4() {
            return None;
        }
        self.begin(Name::PlainPeer);
        let socket = UdpSocket::bind(any_port(own)).await;
        let socket = self.settled(socket.map_err(|error| Fault::of_io(&error)))?;
        let unused = std::mem::replace(&mut self.ends()?.far, Far::Plain(socket, own));
        if let Far::Relay(unused) = unused {
            self.others.push(unused.client);
        }
        match self.meet().await {
            Ok(peer_address) => {
                self.done(Facts::PlainPeer { peer_address });
                Some(())
            }
            Err(fault) => {
                self.note(&fault);
                None
            }
        }
    }

    /// The address that the server sees the plain socket at.
    async fn meet(&mut self) -> Result<SocketAddr, Fault> {
        let ends = self.ends.as_mut().ok_or(Fault::Unheard)?;
        ends.permit().await?;
        let heard = measure::meet(ends).await?;
        heard.ok_or(Fault::Unheard)
    }

    pub(super) async fn indications(&mut self) -> Option<()> {
        self.begin(Name::Indications);
        let found = measure::indications(self.ends()?).await;
        let seen = self.settled(found)?;
        match seen.other_address {
            None => self.done(Facts::Indications {
                dont_fragment: seen.dont_fragment,
            }),
            Some(seen) => self.note(&Fault::OtherAddress(seen)),
        }
        Some(())
    }

    pub(super) async fn channels(&mut self) -> Option<()> {
        self.begin(Name::Channels);
        let bound = self.ends()?.bind().await;
        self.settled(bound)?;
        self.done(Facts::None {});
        Some(())
    }

    pub(super) async fn round_trip(&mut self) -> Option<()> {
        self.begin(Name::RoundTrip);
        let count = self.plan.count;
        let watch = &mut *self.watch;
        let found = measure::round_trip(self.ends.as_mut()?, count, |done| {
            watch(Progress::Counting { done, of: count });
        });
        let facts = found.await;
        let facts = self.settled(facts)?;
        self.done(facts);
        Some(())
    }

    pub(super) async fn packet_size(&mut self) -> Option<()> {
        self.begin(Name::PacketSize);
        match measure::packet_size(self.ends()?).await {
            Ok(largest) => self.done(Facts::PacketSize { largest }),
            Err(fault) => self.fail(&fault),
        }
        Some(())
    }

    pub(super) async fn throughput(&mut self) -> Option<()> {
        self.begin(Name::Throughput);
        let found = measure::throughput(self.ends()?).await;
        let facts = self.settled(found)?;
        self.done(facts);
        Some(())
    }
}

fn any_port(of_family: SocketAddr) -> SocketAddr {
    if of_family.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    }
}
