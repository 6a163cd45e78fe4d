//! What the token service counts. It has one thread, and scrapes read beside it: atomics, but few.

use std::sync::atomic::{AtomicU64, Ordering};

/// The manners of speech in which credentials are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// `POST /v1/relay/credentials`
    Native,
    /// draft-uberti-behave-turn-rest
    TurnRest,
    /// STUNner's authentication service
    Stunner,
    /// Azure Communication Services, network traversal
    Azure,
    /// Cloudflare Realtime TURN
    Cloudflare,
    /// Twilio Network Traversal Service
    Twilio,
    /// Amazon Kinesis Video Streams signaling
    Aws,
}

impl Dialect {
    /// All of them, in the order of the counters.
    pub const ALL: [Self; 7] = [
        Self::Native,
        Self::TurnRest,
        Self::Stunner,
        Self::Azure,
        Self::Cloudflare,
        Self::Twilio,
        Self::Aws,
    ];

    /// The label's value, and the name in the configuration.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::TurnRest => "turn-rest",
            Self::Stunner => "stunner",
            Self::Azure => "azure",
            Self::Cloudflare => "cloudflare",
            Self::Twilio => "twilio",
            Self::Aws => "aws",
        }
    }
}

/// Why no credential was handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenRefusal {
    /// Nobody vouches for the caller.
    Unauthenticated,
    /// The caller may not have it.
    Forbidden,
    /// The request comes from a page that is not on the list.
    Origin,
    /// The request makes no sense.
    Malformed,
    /// It makes sense, but what it asks for cannot be had.
    Unprocessable,
    /// Too many of them.
    Rate,
    /// There is nothing of that name.
    Absent,
    /// The keys that the caller's token is checked with cannot be had.
    Unavailable,
}

impl TokenRefusal {
    /// All of them, in the order of the counters.
    pub const ALL: [Self; 8] = [
        Self::Unauthenticated,
        Self::Forbidden,
        Self::Origin,
        Self::Malformed,
        Self::Unprocessable,
        Self::Rate,
        Self::Absent,
        Self::Unavailable,
    ];

    /// The label's value.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::Origin => "origin",
            Self::Malformed => "malformed",
            Self::Unprocessable => "unprocessable",
            Self::Rate => "rate",
            Self::Absent => "absent",
            Self::Unavailable => "unavailable",
        }
    }
}

/// What the token service did.
#[derive(Debug, Default)]
pub struct Tokens {
    issued: [AtomicU64; Dialect::ALL.len()],
    refused: [AtomicU64; TokenRefusal::ALL.len()],
}

impl Tokens {
    /// Counts a credential that was handed out.
    pub fn count_issued(&self, dialect: Dialect) {
        self.issued[dialect as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that was refused.
    pub fn count_refused(&self, reason: TokenRefusal) {
        self.refused[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Credentials handed out in this manner of speech.
    pub fn issued(&self, dialect: Dialect) -> u64 {
        self.issued[dialect as usize].load(Ordering::Relaxed)
    }

    /// Requests refused for this reason.
    pub fn refused(&self, reason: TokenRefusal) -> u64 {
        self.refused[reason as usize].load(Ordering::Relaxed)
    }
}
