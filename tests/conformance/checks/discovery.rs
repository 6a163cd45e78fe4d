//! RFC 5780, redirection, and how servers are found.

use crate::statement::Statement;

pub(crate) const STATEMENTS: &[Statement] = &[
    Statement {
        id: "5780-1",
        rfc: "RFC 5780",
        section: "6",
        title: "without a second address there is no OTHER-ADDRESS, and CHANGE-REQUEST is 420",
        proofs: &[],
    },
    Statement {
        id: "5780-2",
        rfc: "RFC 5780",
        section: "6.1",
        title: "Binding tells both mapped addresses, where the answer leaves from, and the other address",
        proofs: &[],
    },
    Statement {
        id: "5780-3",
        rfc: "RFC 5780",
        section: "6.1",
        title: "CHANGE-REQUEST has the answer leave from the other address, the other port, or both",
        proofs: &[],
    },
    Statement {
        id: "5780-4",
        rfc: "RFC 5780",
        section: "6.1, 7.5, 7.6",
        title: "RESPONSE-PORT is followed, PADDING answered by no more than was asked, both together 400",
        proofs: &[],
    },
    Statement {
        id: "5780-5",
        rfc: "RFC 5780",
        section: "7.5",
        title: "only over UDP and only where it is switched on",
        proofs: &[],
    },
    Statement {
        id: "300-1",
        rfc: "RFC 8489",
        section: "10, 14.8, 14.15",
        title: "only users are sent elsewhere, and the answer that says so is signed",
        proofs: &[],
    },
    Statement {
        id: "300-2",
        rfc: "RFC 8489",
        section: "10",
        title: "who is sent elsewhere gets realm and nonce for there",
        proofs: &[],
    },
    Statement {
        id: "300-3",
        rfc: "RFC 8155",
        section: "6",
        title: "an anycast address sends users to its own unicast address",
        proofs: &[],
    },
    Statement {
        id: "2.3-11",
        rfc: "RFC 8656",
        section: "7.2 (11)",
        title: "a server may send a user elsewhere, once it knows the user",
        proofs: &[],
    },
    Statement {
        id: "300",
        rfc: "Error codes",
        section: "Try Alternate",
        title: "with a server of the client's family",
        proofs: &[],
    },
    Statement {
        id: "ALPN",
        rfc: "RFC 7443",
        section: "3",
        title: "TLS speaks stun.turn and stun.nat-discovery, and serves who names nothing",
        proofs: &[],
    },
];
