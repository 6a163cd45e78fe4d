//! The table of attributes, their shapes, and the typed getters that follow from it.
//!
//! A new attribute is one row: its number, its name, and the getter with the shape that reads it.
//! What stands here is *known*: never the reason for a 420, even where it is not expected \[S12\].

use std::fmt;
use std::net::SocketAddr;

use super::error_code::ErrorCode;
use super::integrity::PasswordAlgorithm;
use super::message::{Malformed, Message};
use super::reader::Reader;

/// The type of an attribute.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Attribute(pub u16);

/// A row without a getter has a method of its own on [`Message`].
macro_rules! attributes {
    ($(
        #[doc = $doc:literal]
        $number:literal $constant:ident $(=> $getter:ident: $shape:ident -> $value:ty)?;
    )*) => {
        impl Attribute {
            $(
                #[doc = $doc]
                pub const $constant: Self = Self($number);
            )*

            /// Every attribute of the table, by number.
            pub const ALL: &'static [Self] = &[$(Self::$constant),*];

            /// Whether it is in the table.
            pub const fn is_known(self) -> bool {
                matches!(self.0, $($number)|*)
            }

            const fn constant_name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some(stringify!($constant)),)*
                    _ => None,
                }
            }
        }

        impl<'a> Message<'a> {
            $($(
                #[doc = $doc]
                pub fn $getter(&self) -> Option<Result<$value, Malformed>> {
                    let value = self.get(Attribute::$constant)?;
                    Some(shape::$shape(value, self.transaction_id()).ok_or(Malformed))
                }
            )?)*
        }
    };
}

attributes! {
    /// The client's reflexive address, not XORed.
    0x0001 MAPPED_ADDRESS => mapped_address: address -> SocketAddr;
    /// From which address and port a Binding response is wanted (RFC 5780).
    0x0003 CHANGE_REQUEST => change_request: change_request -> ChangeRequest;
    /// The user's name, at most 763 bytes \[S8\].
    0x0006 USERNAME => username: text -> &'a [u8];
    /// HMAC-SHA1 over what stands before it.
    0x0008 MESSAGE_INTEGRITY;
    /// Why a request was refused, with a phrase \[S7\].
    0x0009 ERROR_CODE => error_code: error_code -> (ErrorCode, &'a str);
    /// The types a 420 complains about.
    0x000A UNKNOWN_ATTRIBUTES;
    /// A channel's number as on the wire.
    0x000C CHANNEL_NUMBER => channel_number: u16_and_reserved -> u16;
    /// How long an allocation lives, in seconds.
    0x000D LIFETIME => lifetime: u32 -> u32;
    /// A peer; the first one, if there are several.
    0x0012 XOR_PEER_ADDRESS => xor_peer_address: xor_address -> SocketAddr;
    /// Application data.
    0x0013 DATA;
    /// The realm of long-term credentials, at most 763 bytes \[S8\].
    0x0014 REALM => realm: text -> &'a [u8];
    /// The server's nonce, at most 763 bytes \[S8\].
    0x0015 NONCE => nonce: text -> &'a [u8];
    /// The relayed transport address; the first one, if there are several.
    0x0016 XOR_RELAYED_ADDRESS => xor_relayed_address: xor_address -> SocketAddr;
    /// The address family wanted: 1 is IPv4, 2 is IPv6.
    0x0017 REQUESTED_ADDRESS_FAMILY => requested_address_family: u8_and_reserved -> u8;
    /// An even port is wanted; true if the next one is to be kept in reserve.
    0x0018 EVEN_PORT => even_port: top_bit -> bool;
    /// The IP protocol number between relay and peer: 17 is UDP, 6 is TCP.
    0x0019 REQUESTED_TRANSPORT => requested_transport: u8_and_reserved -> u8;
    /// The DF bit is wanted; it has no value.
    0x001A DONT_FRAGMENT;
    /// A token of third-party authorization (RFC 7635).
    0x001B ACCESS_TOKEN => access_token: bytes -> &'a [u8];
    /// HMAC-SHA256 over what stands before it.
    0x001C MESSAGE_INTEGRITY_SHA256;
    /// The algorithm the client derived its key with \[A9\]; one that is not known is malformed.
    0x001D PASSWORD_ALGORITHM => password_algorithm: password_algorithm -> PasswordAlgorithm;
    /// The hash that stands for the user's name.
    0x001E USERHASH => userhash: fixed_borrowed -> &'a [u8; 32];
    /// The client's reflexive address.
    0x0020 XOR_MAPPED_ADDRESS => xor_mapped_address: xor_address -> SocketAddr;
    /// Names a relayed transport address held in reserve.
    0x0022 RESERVATION_TOKEN => reservation_token: fixed -> [u8; 8];
    /// Bytes that make a message long (RFC 5780).
    0x0026 PADDING => padding: bytes -> &'a [u8];
    /// The port a Binding response is wanted at (RFC 5780).
    0x0027 RESPONSE_PORT => response_port: u16_padded -> u16;
    /// Names a connection to a peer (RFC 6062).
    0x002A CONNECTION_ID => connection_id: u32 -> u32;
    /// The second address family wanted: 1 is IPv4, 2 is IPv6.
    0x8000 ADDITIONAL_ADDRESS_FAMILY => additional_address_family: u8_and_reserved -> u8;
    /// Why one of two address families was not allocated.
    0x8001 ADDRESS_ERROR_CODE => address_error_code: address_error -> AddressError<'a>;
    /// The password algorithms a server offers, and a client repeats \[A9\].
    0x8002 PASSWORD_ALGORITHMS;
    /// The name that the certificate of the alternate server is checked for, at most 255 bytes.
    0x8003 ALTERNATE_DOMAIN => alternate_domain: domain -> &'a [u8];
    /// The ICMP message that a packet to a peer caused.
    0x8004 ICMP => icmp: icmp -> Icmp;
    /// The software of the sender, at most 763 bytes \[S8\].
    0x8022 SOFTWARE => software: text -> &'a [u8];
    /// Another server to try; the first one, if there are several.
    0x8023 ALTERNATE_SERVER => alternate_server: address -> SocketAddr;
    /// CRC-32 over what stands before it; the last attribute.
    0x8028 FINGERPRINT;
    /// The address a Binding response was sent from (RFC 5780).
    0x802B RESPONSE_ORIGIN => response_origin: address -> SocketAddr;
    /// The address that CHANGE-REQUEST would change to (RFC 5780).
    0x802C OTHER_ADDRESS => other_address: address -> SocketAddr;
    /// The server name to get an access token for (RFC 7635).
    0x802E THIRD_PARTY_AUTHORIZATION => third_party_authorization: text -> &'a [u8];
    /// Lets an allocation move with its client (RFC 8016); empty when one is asked for.
    0x8030 MOBILITY_TICKET => mobility_ticket: bytes -> &'a [u8];
    /// ADDITIONAL-ADDRESS-FAMILY by the number of the draft (SSODA) that coturn's programs still speak; unassigned.
    0x8032 SSODA_ADDRESS_FAMILY => ssoda_address_family: u8_and_reserved -> u8;
}

impl Attribute {
    /// Whether a receiver must understand it to process the message: 0x0000..=0x7FFF.
    pub const fn is_required(self) -> bool {
        self.0 < 0x8000
    }
}

impl<'a> Message<'a> {
    /// All peers, in order: CreatePermission may name several \[P2\].
    pub fn xor_peer_addresses(
        &self,
    ) -> impl Iterator<Item = Result<SocketAddr, Malformed>> + use<'a> {
        self.xor_addresses(Attribute::XOR_PEER_ADDRESS)
    }

    /// All relayed transport addresses, in order: an allocation of both families has two.
    pub fn xor_relayed_addresses(
        &self,
    ) -> impl Iterator<Item = Result<SocketAddr, Malformed>> + use<'a> {
        self.xor_addresses(Attribute::XOR_RELAYED_ADDRESS)
    }

    /// All alternate servers, in order: at most one of each family makes sense.
    pub fn alternate_servers(
        &self,
    ) -> impl Iterator<Item = Result<SocketAddr, Malformed>> + use<'a> {
        let id = self.transaction_id();
        self.get_all(Attribute::ALTERNATE_SERVER)
            .map(move |value| shape::address(value, id).ok_or(Malformed))
    }

    /// The types that UNKNOWN-ATTRIBUTES lists; none when it is absent.
    pub fn unknown_attributes(&self) -> impl Iterator<Item = Attribute> + use<'a> {
        let mut list = Reader::new(self.get(Attribute::UNKNOWN_ATTRIBUTES).unwrap_or_default());
        std::iter::from_fn(move || list.u16().map(Attribute))
    }

    /// The list of password algorithms as it stands in the message, to be compared with the one
    /// that was sent.
    pub fn password_algorithms(&self) -> Option<&'a [u8]> {
        self.get(Attribute::PASSWORD_ALGORITHMS)
    }

    fn xor_addresses(
        &self,
        kind: Attribute,
    ) -> impl Iterator<Item = Result<SocketAddr, Malformed>> + use<'a> {
        let id = self.transaction_id();
        self.get_all(kind)
            .map(move |value| shape::xor_address(value, id).ok_or(Malformed))
    }
}

impl fmt::Display for Attribute {
    /// The RFC's name, or the number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(name) = self.constant_name() else {
            return write!(f, "0x{:04X}", self.0);
        };
        for (index, word) in name.split('_').enumerate() {
            f.write_str(if index == 0 { "" } else { "-" })?;
            f.write_str(word)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// CHANGE-REQUEST (RFC 5780 §7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChangeRequest {
    /// The response is wanted from the other IP address.
    pub ip: bool,
    /// The response is wanted from the other port.
    pub port: bool,
}

impl ChangeRequest {
    pub(super) fn read(value: &[u8]) -> Option<Self> {
        let flags = u32::from_be_bytes(value.try_into().ok()?);
        Some(Self {
            ip: flags & 4 != 0,
            port: flags & 2 != 0,
        })
    }
}

/// ADDRESS-ERROR-CODE (RFC 8656 §18.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddressError<'a> {
    /// 1 is IPv4, 2 is IPv6.
    pub family: u8,
    /// 440 or 508.
    pub code: ErrorCode,
    /// For a person to read.
    pub reason: &'a str,
}

/// ICMP (RFC 8656 §18.13): one byte each for type and code, behind two reserved ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Icmp {
    /// The type, of ICMP or ICMPv6 as the peer's address tells.
    pub kind: u8,
    /// The code.
    pub code: u8,
    /// The next hop's MTU when the packet was too big, otherwise 0.
    pub data: u32,
}

/// How values are read: `None` is malformed. The transaction id is what XORed addresses need.
mod shape {
    use std::net::SocketAddr;

    use super::{AddressError, ChangeRequest, ErrorCode, Icmp, PasswordAlgorithm, Reader};
    use crate::stun::address::{self, Mask};
    use crate::stun::message::TransactionId;

    pub(super) fn bytes(value: &[u8], _: TransactionId) -> Option<&[u8]> {
        Some(value)
    }

    /// The bound is in bytes: a name counts as the bytes it is, whatever its encoding.
    pub(super) fn text(value: &[u8], _: TransactionId) -> Option<&[u8]> {
        (value.len() <= 763).then_some(value)
    }

    pub(super) fn domain(value: &[u8], _: TransactionId) -> Option<&[u8]> {
        (value.len() <= 255).then_some(value)
    }

    pub(super) fn address(value: &[u8], _: TransactionId) -> Option<SocketAddr> {
        address::read(value, Mask::NONE)
    }

    pub(super) fn xor_address(value: &[u8], id: TransactionId) -> Option<SocketAddr> {
        address::read(value, Mask::of(id))
    }

    pub(super) fn fixed<const N: usize>(value: &[u8], _: TransactionId) -> Option<[u8; N]> {
        value.try_into().ok()
    }

    pub(super) fn fixed_borrowed<const N: usize>(
        value: &[u8],
        _: TransactionId,
    ) -> Option<&[u8; N]> {
        value.try_into().ok()
    }

    pub(super) fn u32(value: &[u8], id: TransactionId) -> Option<u32> {
        fixed(value, id).map(u32::from_be_bytes)
    }

    pub(super) fn u16_and_reserved(value: &[u8], id: TransactionId) -> Option<u16> {
        fixed(value, id).map(|[high, low, _, _]| u16::from_be_bytes([high, low]))
    }

    /// RFC 5780 does not say whether the length counts the padding, and both are sent.
    pub(super) fn u16_padded(value: &[u8], id: TransactionId) -> Option<u16> {
        fixed(value, id)
            .map(u16::from_be_bytes)
            .or_else(|| u16_and_reserved(value, id))
    }

    pub(super) fn u8_and_reserved(value: &[u8], id: TransactionId) -> Option<u8> {
        fixed(value, id).map(|[first, _, _, _]| first)
    }

    pub(super) fn top_bit(value: &[u8], id: TransactionId) -> Option<bool> {
        fixed(value, id).map(|[byte]| byte & 0x80 != 0)
    }

    pub(super) fn error_code(value: &[u8], _: TransactionId) -> Option<(ErrorCode, &str)> {
        let mut reader = Reader::new(value);
        let _reserved: [u8; 2] = reader.array()?;
        ErrorCode::read(&mut reader)
    }

    pub(super) fn address_error(value: &[u8], _: TransactionId) -> Option<AddressError<'_>> {
        let mut reader = Reader::new(value);
        let [family, _reserved] = reader.array()?;
        let (code, reason) = ErrorCode::read(&mut reader)?;
        Some(AddressError {
            family,
            code,
            reason,
        })
    }

    pub(super) fn change_request(value: &[u8], _: TransactionId) -> Option<ChangeRequest> {
        ChangeRequest::read(value)
    }

    pub(super) fn icmp(value: &[u8], id: TransactionId) -> Option<Icmp> {
        fixed(value, id).map(|[_, _, kind, code, d0, d1, d2, d3]| Icmp {
            kind,
            code,
            data: u32::from_be_bytes([d0, d1, d2, d3]),
        })
    }

    pub(super) fn password_algorithm(value: &[u8], _: TransactionId) -> Option<PasswordAlgorithm> {
        PasswordAlgorithm::read(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stun::{Class, Method, TransactionId, Writer};

    /// Writes one message, parses it and asks `then`.
    fn round_trip(write: impl FnOnce(&mut Writer<'_>), then: impl FnOnce(Message<'_>)) {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(
            &mut bytes,
            Class::Request,
            Method::ALLOCATE,
            TransactionId([3; 12]),
        );
        write(&mut writer);
        writer.finish();
        then(Message::parse(&bytes).unwrap());
    }

    #[test]
    fn the_table_is_sorted_and_each_number_is_known() {
        assert!(Attribute::ALL.is_sorted_by(|a, b| a < b));
        for number in 0..=u16::MAX {
            assert_eq!(
                Attribute(number).is_known(),
                Attribute::ALL.contains(&Attribute(number))
            );
        }
    }

    #[test]
    fn names_are_the_rfcs() {
        assert_eq!(Attribute::XOR_PEER_ADDRESS.to_string(), "XOR-PEER-ADDRESS");
        assert_eq!(
            Attribute::MESSAGE_INTEGRITY_SHA256.to_string(),
            "MESSAGE-INTEGRITY-SHA256"
        );
        assert_eq!(Attribute(0xFF05).to_string(), "0xFF05");
    }

    #[test]
    fn a_client_s_logging_id_is_optional_and_unknown() {
        let logging_id = Attribute(0xFF05);
        assert!(!logging_id.is_known() && !logging_id.is_required());
    }

    #[test]
    fn what_is_absent_is_none() {
        round_trip(
            |_| {},
            |message| {
                assert_eq!(message.username(), None);
                assert_eq!(message.xor_peer_addresses().count(), 0);
                assert_eq!(message.data(), None);
                assert!(!message.dont_fragment());
            },
        );
    }

    #[test]
    fn numbers_are_read_as_written() {
        round_trip(
            |writer| {
                writer
                    .u32(Attribute::LIFETIME, 0xDEAD_BEEF)
                    .u32(Attribute::CONNECTION_ID, 7)
                    .u16(Attribute::CHANNEL_NUMBER, 0x4FFF)
                    .u16(Attribute::RESPONSE_PORT, 65_535)
                    .u8(Attribute::REQUESTED_TRANSPORT, 17)
                    .u8(Attribute::REQUESTED_ADDRESS_FAMILY, 2)
                    .u8(Attribute::ADDITIONAL_ADDRESS_FAMILY, 9)
                    .even_port(true)
                    .flag(Attribute::DONT_FRAGMENT);
            },
            |message| {
                assert_eq!(message.lifetime(), Some(Ok(0xDEAD_BEEF)));
                assert_eq!(message.connection_id(), Some(Ok(7)));
                assert_eq!(message.channel_number(), Some(Ok(0x4FFF)));
                assert_eq!(message.response_port(), Some(Ok(65_535)));
                assert_eq!(message.requested_transport(), Some(Ok(17)));
                assert_eq!(message.requested_address_family(), Some(Ok(2)));
                assert_eq!(message.additional_address_family(), Some(Ok(9)));
                assert_eq!(message.even_port(), Some(Ok(true)));
                assert!(message.dont_fragment());
                assert_eq!(message.get(Attribute::DONT_FRAGMENT), Some(&[][..]));
            },
        );
    }

    #[test]
    fn p2_all_peers_are_read_in_order_and_broken_ones_are_told() {
        let peers: [SocketAddr; 2] = [
            "192.0.2.1:9".parse().unwrap(),
            "[2001:db8::1]:10".parse().unwrap(),
        ];
        round_trip(
            |writer| {
                writer.xor_address(Attribute::XOR_PEER_ADDRESS, peers[0]);
                writer.bytes(Attribute::XOR_PEER_ADDRESS, &[0, 1, 2]);
                writer.xor_address(Attribute::XOR_PEER_ADDRESS, peers[1]);
            },
            |message| {
                let all: Vec<_> = message.xor_peer_addresses().collect();
                assert_eq!(all, [Ok(peers[0]), Err(Malformed), Ok(peers[1])]);
                assert_eq!(message.xor_peer_address(), Some(Ok(peers[0])));
            },
        );
    }

    #[test]
    fn addresses_that_repeat_are_read_in_order() {
        let both: [SocketAddr; 2] = [
            "192.0.2.1:9".parse().unwrap(),
            "[2001:db8::1]:10".parse().unwrap(),
        ];
        round_trip(
            |writer| {
                for address in both {
                    writer.xor_address(Attribute::XOR_RELAYED_ADDRESS, address);
                    writer.address(Attribute::ALTERNATE_SERVER, address);
                }
            },
            |message| {
                assert!(message.xor_relayed_addresses().eq(both.map(Ok)));
                assert!(message.alternate_servers().eq(both.map(Ok)));
                assert_eq!(message.alternate_server(), Some(Ok(both[0])));
            },
        );
    }

    #[test]
    fn a9_the_algorithms_of_a_request_are_read() {
        let offered = PasswordAlgorithm::list(&[PasswordAlgorithm::Sha256, PasswordAlgorithm::Md5]);
        round_trip(
            |writer| {
                writer
                    .bytes(Attribute::PASSWORD_ALGORITHMS, &offered)
                    .password_algorithm(PasswordAlgorithm::Sha256);
            },
            |message| {
                assert_eq!(message.password_algorithms(), Some(&offered[..]));
                assert_eq!(
                    message.password_algorithm(),
                    Some(Ok(PasswordAlgorithm::Sha256))
                );
            },
        );
    }

    #[test]
    fn errors_are_read_as_written() {
        let of_family = AddressError {
            family: 2,
            code: ErrorCode::INSUFFICIENT_CAPACITY,
            reason: "full",
        };
        round_trip(
            |writer| {
                writer
                    .error(
                        ErrorCode::UNKNOWN_ATTRIBUTE,
                        ErrorCode::UNKNOWN_ATTRIBUTE.reason(),
                    )
                    .unknown_attributes(
                        [Attribute(0x7000), Attribute(0x7001), Attribute(0x7002)].into_iter(),
                    )
                    .address_error(of_family);
            },
            |message| {
                assert_eq!(
                    message.error_code(),
                    Some(Ok((ErrorCode::UNKNOWN_ATTRIBUTE, "Unknown Attribute")))
                );
                assert!(
                    message
                        .unknown_attributes()
                        .eq([0x7000, 0x7001, 0x7002].map(Attribute))
                );
                assert_eq!(message.address_error_code(), Some(Ok(of_family)));
            },
        );
    }

    #[test]
    fn d4_icmp_type_and_code_are_a_byte_each_behind_two_reserved_ones() {
        let too_big = Icmp {
            kind: 3,
            code: 4,
            data: 1280,
        };
        round_trip(
            |writer| {
                writer.icmp(too_big);
            },
            |message| {
                assert_eq!(
                    message.get(Attribute::ICMP),
                    Some(&[0, 0, 3, 4, 0, 0, 5, 0][..])
                );
                assert_eq!(message.icmp(), Some(Ok(too_big)));
            },
        );
    }

    #[test]
    fn change_request_has_two_flags() {
        for (ip, port, wire) in [
            (false, false, 0),
            (false, true, 2),
            (true, false, 4),
            (true, true, 6),
        ] {
            round_trip(
                |writer| {
                    writer.change_request(ChangeRequest { ip, port });
                },
                |message| {
                    assert_eq!(
                        message.get(Attribute::CHANGE_REQUEST),
                        Some(&[0, 0, 0, wire][..])
                    );
                    assert_eq!(
                        message.change_request(),
                        Some(Ok(ChangeRequest { ip, port }))
                    );
                },
            );
        }
    }

    #[test]
    fn the_top_bit_of_even_port_counts_alone() {
        for (value, reserve_next) in [(0x7F, false), (0x80, true), (0xFF, true)] {
            round_trip(
                |writer| {
                    writer.bytes(Attribute::EVEN_PORT, &[value]);
                },
                |message| assert_eq!(message.even_port(), Some(Ok(reserve_next))),
            );
        }
    }

    #[test]
    fn response_port_is_read_with_and_without_counted_padding() {
        for value in [&[0x0D, 0x96][..], &[0x0D, 0x96, 0, 0]] {
            round_trip(
                |writer| {
                    writer.bytes(Attribute::RESPONSE_PORT, value);
                },
                |message| assert_eq!(message.response_port(), Some(Ok(3478))),
            );
        }
    }

    #[test]
    fn a_value_of_another_length_is_malformed() {
        round_trip(
            |writer| {
                for kind in Attribute::ALL {
                    writer.bytes(
                        *kind,
                        &[1; 5][..if *kind == Attribute::FINGERPRINT {
                            0
                        } else {
                            5
                        }],
                    );
                    if *kind == Attribute::ICMP {
                        break;
                    }
                }
            },
            |message| {
                assert_eq!(
                    message.lifetime(),
                    None,
                    "behind MESSAGE-INTEGRITY nothing counts"
                );
                assert_eq!(message.mapped_address(), Some(Err(Malformed)));
                assert_eq!(message.change_request(), Some(Err(Malformed)));
            },
        );
    }
}
