//! RFC 8656 §11.5 and §13 to §16: what is in the headers of IP, and the errors of ICMP.

use crate::statement::Statement;

pub(crate) const STATEMENTS: &[Statement] = &[
    Statement {
        id: "D4",
        rfc: "RFC 8656",
        section: "11.5, 18.13",
        title: "an ICMP error of a permitted peer comes as a Data indication with ICMP and without DATA",
        proofs: &[],
    },
    Statement {
        id: "H1",
        rfc: "RFC 8656",
        section: "14",
        title: "between datagrams DSCP and ECN are copied, and DF is set by DONT-FRAGMENT",
        proofs: &[],
    },
    Statement {
        id: "H2",
        rfc: "RFC 8656",
        section: "15",
        title: "from a stream to datagrams: ECN is Not-ECT, DF only by DONT-FRAGMENT",
        proofs: &[],
    },
    Statement {
        id: "H3",
        rfc: "RFC 8656",
        section: "16",
        title: "from datagrams to a stream: what their headers say is ignored",
        proofs: &[],
    },
    Statement {
        id: "H4",
        rfc: "RFC 8656",
        section: "13",
        title: "towards IPv6 peers DONT-FRAGMENT is ignored",
        proofs: &[],
    },
    Statement {
        id: "H5",
        rfc: "RFC 8656",
        section: "14",
        title: "congestion marks reach the other side both ways, without taking DSCP with them",
        proofs: &[],
    },
];
