//! Method and class: the message type (RFC 8489 §5).
//!
//! ```text
//!   2  3  4  5  6  7  8  9 10 11 12 13 14 15
//! +--+--+--+--+--+--+--+--+--+--+--+--+--+--+
//! |M |M |M |M |M |C |M |M |M |C |M |M |M |M |
//! |11|10|9 |8 |7 |1 |6 |5 |4 |0 |3 |2 |1 |0 |
//! +--+--+--+--+--+--+--+--+--+--+--+--+--+--+
//! ```

use std::fmt;

/// A STUN method: 12 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Method(pub u16);

macro_rules! methods {
    ($($number:literal $constant:ident $name:literal;)*) => {
        impl Method {
            $(
                #[doc = concat!($name, ".")]
                pub const $constant: Self = Self($number);
            )*

            /// Every method that has a constant.
            pub const ALL: &'static [Self] = &[$(Self::$constant),*];
        }

        impl fmt::Display for Method {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0 {
                    $($number => f.write_str($name),)*
                    other => write!(f, "0x{other:03X}"),
                }
            }
        }
    };
}

methods! {
    0x001 BINDING "Binding";
    0x003 ALLOCATE "Allocate";
    0x004 REFRESH "Refresh";
    0x006 SEND "Send";
    0x007 DATA "Data";
    0x008 CREATE_PERMISSION "CreatePermission";
    0x009 CHANNEL_BIND "ChannelBind";
    0x00A CONNECT "Connect";
    0x00B CONNECTION_BIND "ConnectionBind";
    0x00C CONNECTION_ATTEMPT "ConnectionAttempt";
}

impl Method {
    /// Message type with the two class bits taken out.
    pub(super) const fn of_kind(kind: u16) -> Self {
        Self(kind & 0x000F | (kind & 0x00E0) >> 1 | (kind & 0x3E00) >> 2)
    }

    /// Message type: the class bits stand between those of the method (RFC 8489 §5).
    pub(super) const fn kind(self, class: Class) -> u16 {
        let class = match class {
            Class::Request => 0x0000,
            Class::Indication => 0x0010,
            Class::Success => 0x0100,
            Class::Error => 0x0110,
        };
        self.0 & 0x000F | (self.0 & 0x0070) << 1 | (self.0 & 0x0F80) << 2 | class
    }
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Method({self})")
    }
}

/// The class of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Wants a response.
    Request,
    /// Wants none.
    Indication,
    /// The request was done.
    Success,
    /// The request was refused.
    Error,
}

impl Class {
    pub(super) const fn of_kind(kind: u16) -> Self {
        match kind & 0x0110 {
            0x0000 => Self::Request,
            0x0010 => Self::Indication,
            0x0100 => Self::Success,
            _ => Self::Error,
        }
    }
}

/// What a message type never has set.
pub(super) const TOP_BITS: u16 = 0xC000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn method_and_class_share_the_type() {
        for class in [
            Class::Request,
            Class::Indication,
            Class::Success,
            Class::Error,
        ] {
            for method in 0..0x1000 {
                let kind = Method(method).kind(class);
                assert_eq!(
                    (Method::of_kind(kind), Class::of_kind(kind)),
                    (Method(method), class)
                );
                assert_eq!(kind & TOP_BITS, 0);
            }
        }
        assert_eq!(Method::ALLOCATE.kind(Class::Error), 0x0113);
        assert_eq!(Method::DATA.kind(Class::Indication), 0x0017);
    }
}
