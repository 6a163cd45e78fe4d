//! What can be wrong with a server, or on the way to it.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use super::certificate::tame;
use crate::stun::ErrorCode;

/// Why a step did not do what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The name has no address.
    Resolve(String),
    /// There is no route to the address.
    Unreachable(String),
    /// Nobody listens there: the host says so.
    Refused,
    /// No answer came.
    Silence,
    /// The server ended the connection.
    Closed,
    /// The kernel has another objection.
    Network(String),
    /// What answers does not speak TLS or DTLS.
    NotSecure,
    /// It does, but there is no common ground.
    Handshake(String),
    /// The certificate is not to be believed.
    Certificate(Vec<Distrust>),
    /// What answers speaks no STUN, or leaves something out.
    Garbled(&'static str),
    /// An answer is not signed with our password.
    Unsigned,
    /// The server refuses the credential (401, or 441).
    Login(u16, Suspicion),
    /// The server refuses, with a code and the phrase that came with it.
    Error(u16, String),
    /// The server gives relays to whoever asks.
    OpenRelay,
    /// There are more signposts (300) than anybody would follow.
    SentInCircles,
    /// Of the packets that were sent to be relayed, too few came.
    Lost {
        /// How many were sent.
        sent: u32,
        /// How many came.
        came: u32,
    },
    /// Packets of this size do not come through, though browsers send such.
    TooSmall(usize),
    /// The server sees an address of the other family.
    OtherFamily(SocketAddr),
    /// Fewer can reach the relay than can reach the server.
    Unroutable(SocketAddr),
    /// What a peer sends is said to come from here, which is not the peer's address.
    OtherAddress(SocketAddr),
    /// What a plain socket sends to a relay does not come.
    Unheard,
    /// The time for this URL is up.
    OutOfTime,
    /// Whoever wanted to know has seen enough.
    Stopped,
}

/// Why a certificate is not to be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Distrust {
    /// It ended so many days ago.
    Expired(i64),
    /// It begins later.
    NotYet,
    /// It is for other hosts.
    Name(Vec<String>),
    /// Nobody whom this system trusts has signed it; the name of who did.
    Issuer(String),
    /// Anything else.
    Other(String),
}

/// What is probably wrong with a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Suspicion {
    /// It expired so many seconds ago, by the clock of this host.
    Expired(i64),
    /// With a later expiry the server takes it: its clock is ahead of ours.
    ClockAhead,
    /// With the other hash the server takes it: `true` if that is SHA-256.
    OtherHash(bool),
    /// The secret is not one of the server's.
    Secret,
    /// A password that was minted for a name with an expiry is not what the server mints.
    Minted,
    /// The name or the password.
    Password,
}

impl Fault {
    /// What the kernel says, in our words.
    pub(super) fn of_io(error: &io::Error) -> Self {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the standard library's kinds are open"
        )]
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => Self::Closed,
            io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::AddrNotAvailable => Self::Unreachable(error.to_string()),
            io::ErrorKind::TimedOut => Self::Silence,
            _ => Self::Network(error.to_string()),
        }
    }

    /// The error that an answer carries.
    pub(super) fn of_code(code: ErrorCode, phrase: &str) -> Self {
        Self::Error(code.0, tame(phrase))
    }

    /// A word for programs; it does not change.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Resolve(_) => "resolve",
            Self::Unreachable(_) => "unreachable",
            Self::Refused => "refused",
            Self::Silence => "silence",
            Self::Closed => "closed",
            Self::Network(_) => "network",
            Self::NotSecure => "not-secure",
            Self::Handshake(_) => "handshake",
            Self::Certificate(_) => "certificate",
            Self::Garbled(_) => "garbled",
            Self::Unsigned => "unsigned",
            Self::Login(..) => "login",
            Self::Error(..) => "error",
            Self::OpenRelay => "open-relay",
            Self::SentInCircles => "redirect",
            Self::Lost { .. } => "lost",
            Self::TooSmall(_) => "packet-size",
            Self::OtherFamily(_) => "other-family",
            Self::Unroutable(_) => "unroutable",
            Self::OtherAddress(_) => "other-address",
            Self::Unheard => "unheard",
            Self::OutOfTime => "out-of-time",
            Self::Stopped => "stopped",
        }
    }

    /// The code of the answer, if there was one.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Login(code, _) | Self::Error(code, _) => Some(*code),
            Self::SentInCircles => Some(ErrorCode::TRY_ALTERNATE.0),
            Self::Resolve(_)
            | Self::Unreachable(_)
            | Self::Refused
            | Self::Silence
            | Self::Closed
            | Self::Network(_)
            | Self::NotSecure
            | Self::Handshake(_)
            | Self::Certificate(_)
            | Self::Garbled(_)
            | Self::Unsigned
            | Self::OpenRelay
            | Self::Lost { .. }
            | Self::TooSmall(_)
            | Self::OtherFamily(_)
            | Self::Unroutable(_)
            | Self::OtherAddress(_)
            | Self::Unheard
            | Self::OutOfTime
            | Self::Stopped => None,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve(why) => write!(f, "the name has no address ({why})"),
            Self::Unreachable(why) => write!(f, "there is no way to this address ({why})"),
            Self::Refused => f.write_str("nobody listens there (refused)"),
            Self::Silence => f.write_str("no answer"),
            Self::Closed => f.write_str("the server closed the connection"),
            Self::Network(why) => f.write_str(why),
            Self::NotSecure => f.write_str("what answers does not speak TLS"),
            Self::Handshake(why) => write!(f, "no handshake: {why}"),
            Self::Certificate(why) => {
                for (number, distrust) in why.iter().enumerate() {
                    write!(f, "{}{distrust}", if number == 0 { "" } else { "; " })?;
                }
                Ok(())
            }
            Self::Garbled(what) => f.write_str(what),
            Self::Unsigned => f.write_str("the answer is not signed with the password"),
            Self::Login(code, _) => ErrorCode(*code).fmt(f),
            Self::Error(code, phrase) if phrase.is_empty() => ErrorCode(*code).fmt(f),
            Self::Error(code, phrase) => write!(f, "{code} {phrase}"),
            Self::OpenRelay => f.write_str("a relay without any credential"),
            Self::SentInCircles => f.write_str("300 Try Alternate, again and again"),
            Self::Lost { sent, came } => write!(f, "{came} of {sent} packets came"),
            Self::TooSmall(size) => write!(f, "packets of {size} bytes do not come through"),
            Self::OtherFamily(seen) => write!(f, "{seen}, which is of the other family"),
            Self::Unroutable(relay) => write!(f, "peers elsewhere cannot reach {}", relay.ip()),
            Self::OtherAddress(seen) => {
                write!(
                    f,
                    "what comes is said to come from {seen}, which is not the peer"
                )
            }
            Self::Unheard => {
                f.write_str("what a socket of this host sends to the relay does not come")
            }
            Self::OutOfTime => f.write_str("the time is up"),
            Self::Stopped => f.write_str("stopped before the end"),
        }
    }
}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired(0) => f.write_str("the certificate expired today"),
            Self::Expired(1) => f.write_str("the certificate expired a day ago"),
            Self::Expired(days) => write!(f, "the certificate expired {days} days ago"),
            Self::NotYet => f.write_str("the certificate is not valid yet"),
            Self::Name(names) if names.is_empty() => f.write_str("the certificate is for no host"),
            Self::Name(names) => {
                write!(
                    f,
                    "the certificate is for another host: {}",
                    names.join(", ")
                )
            }
            Self::Issuer(issuer) => {
                write!(f, "nobody trusted has signed the certificate, but {issuer}")
            }
            Self::Other(why) => write!(f, "the certificate is not accepted: {why}"),
        }
    }
}
