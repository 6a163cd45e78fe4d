//! RFC 6062: relays of TCP.

use crate::statement::Statement;

pub(crate) const STATEMENTS: &[Statement] = &[
    Statement {
        id: "6062-1",
        rfc: "RFC 6062",
        section: "5.1",
        title: "a TCP relay is for clients on a stream (400 over datagrams), and listens at once",
        proofs: &[],
    },
    Statement {
        id: "6062-2",
        rfc: "RFC 6062",
        section: "5.2",
        title: "Connect: 437, 446, 400, 403 and 447 where due, otherwise a CONNECTION-ID that nobody guesses",
        proofs: &[],
    },
    Statement {
        id: "6062-3",
        rfc: "RFC 6062",
        section: "5.2, 5.3",
        title: "a connection to a peer that nobody binds is closed after 30 s",
        proofs: &[],
    },
    Statement {
        id: "6062-4",
        rfc: "RFC 6062",
        section: "5.3",
        title: "a peer that connects is announced if it has a permission, and closed if not",
        proofs: &[],
    },
    Statement {
        id: "6062-5",
        rfc: "RFC 6062",
        section: "5.4",
        title: "ConnectionBind joins the two connections byte by byte, what came early included; a wrong id is 400",
        proofs: &[],
    },
    Statement {
        id: "6062-6",
        rfc: "RFC 6062",
        section: "5.5",
        title: "one side that closes closes the other, and the end of the allocation closes all",
        proofs: &[],
    },
    Statement {
        id: "2.3-6062",
        rfc: "RFC 6062",
        section: "5.1",
        title: "Allocate for TCP with DONT-FRAGMENT, EVEN-PORT or RESERVATION-TOKEN is 400",
        proofs: &[],
    },
    Statement {
        id: "446",
        rfc: "Error codes",
        section: "Connection Already Exists",
        title: "to a second Connect to the same peer",
        proofs: &[],
    },
    Statement {
        id: "447",
        rfc: "Error codes",
        section: "Connection Timeout or Failure",
        title: "to a Connect to a peer that refuses",
        proofs: &[],
    },
];
