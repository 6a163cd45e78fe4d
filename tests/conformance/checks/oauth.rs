//! RFC 7635: users whom a third party has authorised.

use crate::statement::Statement;

pub(crate) const STATEMENTS: &[Statement] = &[
    Statement {
        id: "7635-1",
        rfc: "RFC 7635",
        section: "6.1",
        title: "a 401 names the server in THIRD-PARTY-AUTHORIZATION",
        proofs: &[],
    },
    Statement {
        id: "7635-2",
        rfc: "RFC 7635",
        section: "6.2, 7",
        title: "an access token opens with the key that USERNAME names, and only then: 401",
        proofs: &[],
    },
    Statement {
        id: "7635-3",
        rfc: "RFC 7635",
        section: "7",
        title: "a token is good for its lifetime and 5 s more, from its time stamp",
        proofs: &[],
    },
    Statement {
        id: "7635-4",
        rfc: "RFC 7635",
        section: "9",
        title: "no allocation outlives its token; a new token refreshes it",
        proofs: &[],
    },
    Statement {
        id: "7635-5",
        rfc: "RFC 7635",
        section: "7",
        title: "a token that nobody asked for is 420",
        proofs: &[],
    },
    Statement {
        id: "2.3-7635",
        rfc: "RFC 7635",
        section: "7",
        title: "Allocate with a token at a server without third parties is 420",
        proofs: &[],
    },
];
