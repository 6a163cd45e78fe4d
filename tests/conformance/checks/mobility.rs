//! RFC 8016: allocations that move with their client.

use crate::statement::Statement;

pub(crate) const STATEMENTS: &[Statement] = &[
    Statement {
        id: "8016-1",
        rfc: "RFC 8016",
        section: "3.1.2, 5",
        title: "who asks for a ticket when it allocates gets one that says nothing and fits a packet",
        proofs: &[],
    },
    Statement {
        id: "8016-2",
        rfc: "RFC 8016",
        section: "3.2.2",
        title: "Refresh with a ticket finds its allocation from anywhere: 400, 437 or 441 where it may not",
        proofs: &[],
    },
    Statement {
        id: "8016-3",
        rfc: "RFC 8016",
        section: "3.2.2",
        title: "each move gives another ticket, and the same request again is answered again",
        proofs: &[],
    },
    Statement {
        id: "8016-4",
        rfc: "RFC 8016",
        section: "3.2.2",
        title: "the old way carries data until the client uses the new one",
        proofs: &[],
    },
    Statement {
        id: "8016-5",
        rfc: "RFC 8016",
        section: "3.2",
        title: "a move between UDP, TCP and TLS and between families keeps relay, permissions and channels",
        proofs: &[],
    },
    Statement {
        id: "2.3-8016",
        rfc: "RFC 8016",
        section: "3.1.2",
        title: "a ticket in Allocate that is not empty is 400",
        proofs: &[],
    },
    Statement {
        id: "405",
        rfc: "Error codes",
        section: "Mobility Forbidden",
        title: "to who asks for a ticket where there are none",
        proofs: &[],
    },
];
