//! RFC 7350: DTLS.

use crate::statement::Statement;

pub(crate) const STATEMENTS: &[Statement] = &[
    Statement {
        id: "S17",
        rfc: "RFC 7350",
        section: "4.6",
        title: "nothing is kept for a DTLS client before it has shown a cookie",
        proofs: &[],
    },
    Statement {
        id: "7350",
        rfc: "RFC 7350",
        section: "4.6",
        title: "TURN over DTLS serves what TURN over UDP does, and no TCP relays",
        proofs: &[],
    },
    Statement {
        id: "500",
        rfc: "Error codes",
        section: "Server Error",
        title: "to a request of RFC 3489 over DTLS",
        proofs: &[],
    },
];
