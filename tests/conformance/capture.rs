//! Looks at packets on their way, with all of their headers.

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::statement::{Seen, Trouble};

/// All packets of this network from now on.
pub(crate) struct Capture(Socket);

/// What a packet's headers say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Headers {
    pub(crate) to: SocketAddr,
    /// DSCP and ECN: the type of service, or the traffic class.
    pub(crate) marks: u8,
    /// Don't Fragment. IPv6 has no such bit.
    pub(crate) dont_fragment: bool,
    /// What is behind the header of UDP, or of TCP.
    pub(crate) payload: Vec<u8>,
}

impl Headers {
    pub(crate) fn dscp(&self) -> u8 {
        self.marks >> 2
    }

    pub(crate) fn ecn(&self) -> u8 {
        self.marks & 3
    }
}

impl Capture {
    pub(crate) fn start(patience: Duration) -> Seen<Self> {
        let every_protocol = Protocol::from(i32::from(0x0003_u16.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(every_protocol))
            .map_err(|error| Trouble::Absent(format!("packets cannot be captured: {error}")))?;
        socket.set_recv_buffer_size(4 << 20)?;
        socket.set_read_timeout(Some(patience))?;
        Ok(Self(socket))
    }

    /// The next packet to an address that carries these bytes.
    pub(crate) fn packet(&self, to: SocketAddr, data: &[u8]) -> Seen<Headers> {
        let mut buffer = vec![0; 70_000];
        loop {
            let length = (&self.0)
                .read(&mut buffer)
                .map_err(|_| format!("no packet to {to} with {data:02x?}"))?;
            // Twelve bytes of addresses and two of a type stand in front.
            if let Some(headers) = buffer.get(14..length).and_then(read)
                && headers.to == to
                && headers.payload.windows(data.len()).any(|part| part == data)
            {
                return Ok(headers);
            }
        }
    }
}

/// Reads an IP packet that holds UDP or TCP.
fn read(packet: &[u8]) -> Option<Headers> {
    let (to, marks, dont_fragment, protocol, inner): (IpAddr, _, _, _, _) =
        match packet.first()? >> 4 {
            4 => {
                let header = usize::from(packet[0] & 0x0F) * 4;
                let to = Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(16..20)?).ok()?);
                let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
                let inner = packet.get(header..total)?;
                (
                    to.into(),
                    packet[1],
                    packet[6] & 0x40 != 0,
                    packet[9],
                    inner,
                )
            }
            6 => {
                let to = Ipv6Addr::from(<[u8; 16]>::try_from(packet.get(24..40)?).ok()?);
                let marks = packet[0] << 4 | packet[1] >> 4;
                (to.into(), marks, false, packet[6], packet.get(40..)?)
            }
            _ => return None,
        };
    let port = u16::from_be_bytes([*inner.get(2)?, *inner.get(3)?]);
    let payload = match protocol {
        UDP => inner.get(8..)?,
        TCP => inner.get(usize::from(inner.get(12)? >> 4) * 4..)?,
        _ => return None,
    };
    Some(Headers {
        to: (to, port).into(),
        marks,
        dont_fragment,
        payload: payload.to_vec(),
    })
}

const TCP: u8 = 6;
const UDP: u8 = 17;
