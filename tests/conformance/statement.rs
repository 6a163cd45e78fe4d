//! What a statement of the protocol is, how it is shown, and the list of all of them.

use std::{fmt, io};

use crate::checks;
use crate::ground::Ground;

/// One thing that the RFCs, or a decision where they leave room, demand of a server.
pub(crate) struct Statement {
    pub(crate) id: &'static str,
    pub(crate) rfc: &'static str,
    pub(crate) section: &'static str,
    pub(crate) title: &'static str,
    pub(crate) proofs: &'static [Proof],
}

impl Statement {
    /// Whether it is a decision of turnd's where the RFCs leave room: no fault of who decides otherwise.
    pub(crate) fn is_decided(&self) -> bool {
        self.section.ends_with("decided")
    }

    /// Whether it takes half a minute to show it.
    pub(crate) fn waits(&self) -> bool {
        let waits = |proof: &Proof| matches!(proof, Proof::Waiting(_));
        self.proofs.iter().any(waits)
    }
}

/// How a statement is shown. All of its proofs must hold.
pub(crate) enum Proof {
    /// By a dialogue with the server.
    Seen(Check),
    /// The same, with half a minute in it in which nothing may happen.
    Waiting(Check),
    /// By a test of the machine, since it cannot be seen from outside, or only by who waits for minutes:
    /// `tests/file.rs::function`.
    Test(&'static str),
    /// It is not done, for this reason.
    Refused(&'static str),
}

/// A dialogue with a server.
pub(crate) type Check = fn(&Ground) -> Seen;

/// What a dialogue showed.
pub(crate) type Seen<T = ()> = Result<T, Trouble>;

/// Why a dialogue does not show what it is to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The server does something else.
    Differs(String),
    /// There is nothing to see: no such listener, or too few addresses here.
    Absent(String),
}

impl Trouble {
    pub(crate) fn absent(what: &str) -> Self {
        Self::Absent(what.to_owned())
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Differs(what) | Self::Absent(what) => f.write_str(what),
        }
    }
}

impl From<String> for Trouble {
    fn from(what: String) -> Self {
        Self::Differs(what)
    }
}

impl From<&str> for Trouble {
    fn from(what: &str) -> Self {
        Self::Differs(what.to_owned())
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Differs(error.to_string())
    }
}

/// Ends a check with what was seen instead unless something holds.
macro_rules! ensure {
    ($holds:expr, $($what:tt)+) => {
        if !$holds {
            return Err($crate::statement::Trouble::from(format!($($what)+)));
        }
    };
}
pub(crate) use ensure;

/// Every statement, in the order of the report.
pub(crate) fn all() -> impl Iterator<Item = &'static Statement> {
    [
        checks::stun::STATEMENTS,
        checks::credentials::STATEMENTS,
        checks::allocate::STATEMENTS,
        checks::relay::STATEMENTS,
        checks::header::STATEMENTS,
        checks::dtls::STATEMENTS,
        checks::tcp::STATEMENTS,
        checks::mobility::STATEMENTS,
        checks::oauth::STATEMENTS,
        checks::discovery::STATEMENTS,
        checks::codes::STATEMENTS,
    ]
    .into_iter()
    .flatten()
}
