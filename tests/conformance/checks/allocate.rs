//! RFC 8656 §5 to §8: Allocate, and what holds for every request.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::client::{Client, code_or_success, relayed};
use crate::ground::Ground;
use crate::packet::{Build, Class, attr, channel_data, method};
use crate::servers::QUOTA;
use crate::statement::Proof::{Seen as Shown, Test};
use crate::statement::{Seen, Statement, Trouble, ensure};
use crate::wire::Transport;

pub(crate) const STATEMENTS: &[Statement] = &[
    Statement {
        id: "2.3-0",
        rfc: "RFC 8656",
        section: "7.2",
        title: "an Allocate that is broken, or whose FINGERPRINT is wrong, is dropped",
        proofs: &[Shown(row_0_broken)],
    },
    Statement {
        id: "2.3-1",
        rfc: "RFC 8656",
        section: "7.2 (1)",
        title: "credentials come first, however wrong the rest is",
        proofs: &[Shown(row_1_credentials)],
    },
    Statement {
        id: "2.3-1b",
        rfc: "RFC 8656",
        section: "7.2 (1)",
        title: "then attributes that are not understood: 420",
        proofs: &[Shown(row_1b_unknown_attribute)],
    },
    Statement {
        id: "2.3-2",
        rfc: "RFC 8656",
        section: "7.2 (2)",
        title: "a second Allocate on a 5-tuple is 437; the same one again is answered as at first",
        proofs: &[Shown(row_2_second_allocate)],
    },
    Statement {
        id: "2.3-3",
        rfc: "RFC 8656",
        section: "7.2 (3)",
        title: "REQUESTED-TRANSPORT missing or broken: 400; a protocol that is not relayed: 442",
        proofs: &[Shown(row_3_transport)],
    },
    Statement {
        id: "2.3-4",
        rfc: "RFC 8656",
        section: "7.2 (4)",
        title: "DONT-FRAGMENT is accepted, or refused as unknown (420) where DF cannot be set",
        proofs: &[Shown(row_4_dont_fragment)],
    },
    Statement {
        id: "2.3-5",
        rfc: "RFC 8656",
        section: "7.2 (5)",
        title: "RESERVATION-TOKEN stands alone (400), and must be good (508)",
        proofs: &[
            Shown(row_5_reservation_token),
            Test(
                "tests/rfc8656.rs::q5_a_held_port_is_given_to_its_owner_once_and_for_half_a_minute",
            ),
        ],
    },
    Statement {
        id: "2.3-6",
        rfc: "RFC 8656",
        section: "7.2 (6)",
        title: "one family and an additional one together: 400",
        proofs: &[Shown(row_6_both_families)],
    },
    Statement {
        id: "2.3-7",
        rfc: "RFC 8656",
        section: "7.2 (7)",
        title: "the family is the requested one, otherwise IPv4; one that is not there is 440",
        proofs: &[Shown(row_7_family), Shown(row_7_family_that_is_off)],
    },
    Statement {
        id: "2.3-8",
        rfc: "RFC 8656",
        section: "7.2 (8)",
        title: "EVEN-PORT gives an even port; with a reservation and an additional family it is 400",
        proofs: &[
            Shown(row_8_even_port),
            Test("tests/rfc8656.rs::q8_no_port_is_508"),
        ],
    },
    Statement {
        id: "2.3-9",
        rfc: "RFC 8656",
        section: "7.2 (9)",
        title: "an additional family is IPv6 or 400; where one of two cannot be had, the reason comes with the other",
        proofs: &[
            Shown(row_9_additional_family),
            Shown(row_9_one_of_two),
            Test("tests/rfc8656.rs::q9_one_of_two_families_is_told_with_the_reason_for_the_other"),
        ],
    },
    Statement {
        id: "2.3-10",
        rfc: "RFC 8656",
        section: "7.2 (10)",
        title: "a user over the quota is 486, and other users are not concerned",
        proofs: &[Shown(row_10_quota)],
    },
    Statement {
        id: "2.3-ok",
        rfc: "RFC 8656",
        section: "7.2",
        title: "the success tells relayed address, LIFETIME and the client's address, and is signed",
        proofs: &[Shown(row_success)],
    },
    Statement {
        id: "T1",
        rfc: "RFC 8656",
        section: "7.2",
        title: "a lifetime is at least 600 s, at most a maximum, and in between what was asked for",
        proofs: &[Shown(t1_lifetime)],
    },
    Statement {
        id: "T2",
        rfc: "RFC 8656",
        section: "7.2",
        title: "relay ports are dynamic and random; a reserved port is given on another 5-tuple and transport",
        proofs: &[
            Shown(t2_ports),
            Shown(t2_reservation),
            Test(
                "tests/rfc8656.rs::q5_a_held_port_is_given_to_its_owner_once_and_for_half_a_minute",
            ),
        ],
    },
    Statement {
        id: "T3",
        rfc: "RFC 8656",
        section: "5",
        title: "no two allocations have the same relayed transport address",
        proofs: &[Shown(t3_unique)],
    },
    Statement {
        id: "T4",
        rfc: "RFC 8656",
        section: "5",
        title: "without an allocation, requests are 437 and data is dropped",
        proofs: &[Shown(t4_without_allocation)],
    },
    Statement {
        id: "T5",
        rfc: "RFC 8656",
        section: "5",
        title: "a request of another user on the 5-tuple of an allocation is 441",
        proofs: &[Shown(t5_another_user)],
    },
    Statement {
        id: "T6",
        rfc: "RFC 8656",
        section: "5",
        title: "quotas go by user, and give back what is deleted",
        proofs: &[
            Shown(t6_quotas),
            Test("src/turn/quota.rs::each_limit_stands_by_itself"),
        ],
    },
    Statement {
        id: "T6-rate",
        rfc: "RFC 8656",
        section: "5",
        title: "traffic beyond what a user may send is dropped, and not queued",
        proofs: &[
            Test("tests/limits.rs::the_allocations_of_a_user_share_what_the_user_may"),
            Test("tests/streams/limits.rs::a_client_over_udp_passes_no_more_than_its_rate"),
            Test("tests/streams/limits.rs::a_client_over_tcp_passes_no_more_than_its_user_may"),
        ],
    },
];

fn row_0_broken(ground: &Ground) -> Seen {
    let mut client = ground.client()?;
    let wrong = Build::allocate().wrong_fingerprint();
    client.expect_silence(&wrong.bytes(), "an Allocate with a wrong FINGERPRINT")?;
    // The last attribute says that it is longer than the message.
    let mut bytes = Build::allocate().bytes();
    bytes[23] = 40;
    client.expect_silence(&bytes, "an Allocate with an attribute beyond its end")
}

fn row_1_credentials(ground: &Ground) -> Seen {
    let mut client = ground.client()?;
    let wrong = || {
        Build::request(method::ALLOCATE)
            .attr(attr::REQUESTED_TRANSPORT, &[99, 0, 0, 0])
            .family(7)
            .additional(9)
            .attr(0x7F01, b"")
    };
    let answer = client.exchange(&wrong())?;
    ensure!(
        answer.code() == 401,
        "{} for a stranger",
        code_or_success(&answer)
    );
    client.learn(&answer)?;
    client.login.password.push('x');
    let answer = client.exchange(&client.signed(wrong()))?;
    ensure!(
        answer.code() == 401,
        "{} for a wrong password",
        code_or_success(&answer)
    );
    Ok(())
}

fn row_1b_unknown_attribute(ground: &Ground) -> Seen {
    let mut client = ground.client()?;
    let request = Build::request(method::ALLOCATE)
        .attr(attr::REQUESTED_TRANSPORT, &[99, 0, 0, 0])
        .attr(0x7F01, b"");
    client.refused_signed(request, 420)?;
    let (mut client, _) = ground.allocated()?;
    let second = Build::allocate().attr(0x7F01, b"");
    client.refused_signed(second, 420).map(drop)
}

fn row_2_second_allocate(ground: &Ground) -> Seen {
    let mut client = ground.client()?;
    client.challenge()?;
    let request = client.signed(
        Build::allocate()
            .attr(attr::EVEN_PORT, &[0x80])
            .u32(attr::LIFETIME, 900),
    );
    let first = client.exchange(&request)?;
    let again = client.exchange(&request)?;
    ensure!(
        first.class == Class::Success && again.class == Class::Success,
        "{}, and {} for the same again",
        code_or_success(&first),
        code_or_success(&again)
    );
    ensure!(
        relayed(&first)? == relayed(&again)?,
        "another relayed address for the same request"
    );
    let token = first.get(attr::RESERVATION_TOKEN);
    ensure!(
        token.is_some() && token == again.get(attr::RESERVATION_TOKEN),
        "another reservation for the same request"
    );
    let lifetime = again.u32(attr::LIFETIME);
    ensure!(
        lifetime.is_some_and(|seconds| (800..=900).contains(&seconds)),
        "LIFETIME {lifetime:?} for the same request"
    );
    client.refused_signed(Build::allocate(), 437).map(drop)
}

fn row_3_transport(ground: &Ground) -> Seen {
    let mut client = ground.plain_client()?;
    let allocate =
        |value: &[u8]| Build::request(method::ALLOCATE).attr(attr::REQUESTED_TRANSPORT, value);
    client.refused_signed(Build::request(method::ALLOCATE), 400)?;
    client.refused_signed(allocate(&[17]), 400)?;
    for protocol in [0, 1, 6, 99, 132] {
        client.refused_signed(allocate(&[protocol, 0, 0, 0]), 442)?;
    }
    client.allocate().map(drop)
}

fn row_4_dont_fragment(ground: &Ground) -> Seen {
    let mut client = ground.client()?;
    let answer = client.ask(Build::allocate().attr(attr::DONT_FRAGMENT, b""))?;
    let refused = answer.code() == 420 && answer.get(attr::UNKNOWN_ATTRIBUTES) == Some(&[0, 0x1A]);
    ensure!(
        answer.class == Class::Success || refused,
        "{}",
        code_or_success(&answer)
    );
    Ok(())
}

fn row_5_reservation_token(ground: &Ground) -> Seen {
    let mut client = ground.client()?;
    let token = || Build::allocate().attr(attr::RESERVATION_TOKEN, b"no token");
    client.refused_signed(token(), 508)?;
    client.refused_signed(token().attr(attr::EVEN_PORT, &[0]), 400)?;
    client.refused_signed(token().family(1), 400)?;
    client.refused_signed(token().additional(2), 400)?;
    let short = Build::allocate().attr(attr::RESERVATION_TOKEN, b"short");
    client.refused_signed(short, 400).map(drop)
}

fn row_6_both_families(ground: &Ground) -> Seen {
    let mut client = ground.client()?;
    let both = Build::allocate().family(1).additional(2);
    client.refused_signed(both, 400).map(drop)
}

fn row_7_family(ground: &Ground) -> Seen {
    for (family, v6) in [(None, false), (Some(1), false), (Some(2), true)] {
        for mut client in [ground.client()?, ground.client6()?] {
            let request = Build::allocate();
            let request = match family {
                Some(family) => request.family(family),
                None => request,
            };
            let address = relayed(&client.succeed(request)?)?;
            ensure!(
                address.is_ipv6() == v6,
                "{address} for family {family:?}, asked through {}",
                client.link.server
            );
        }
    }
    ground
        .client()?
        .refused_signed(Build::allocate().family(3), 440)?;
    Ok(())
}

fn row_7_family_that_is_off(ground: &Ground) -> Seen {
    let mut client = ground.plain_client()?;
    client
        .refused_signed(Build::allocate().family(2), 440)
        .map(drop)
}

fn row_8_even_port(ground: &Ground) -> Seen {
    let even = |reserve: u8| Build::allocate().attr(attr::EVEN_PORT, &[reserve]);
    ground
        .client()?
        .refused_signed(even(0x80).additional(2), 400)?;
    for reserve in [0, 0x80] {
        for _ in 0..4 {
            let answer = ground.client()?.succeed(even(reserve))?;
            let address = relayed(&answer)?;
            ensure!(address.port() % 2 == 0, "port {} is odd", address.port());
            let token = answer.get(attr::RESERVATION_TOKEN);
            ensure!(
                token.is_some() == (reserve != 0),
                "RESERVATION-TOKEN {token:02x?} for EVEN-PORT {reserve:#x}"
            );
        }
    }
    Ok(())
}

fn row_9_additional_family(ground: &Ground) -> Seen {
    let mut client = ground.client()?;
    for family in [1, 3] {
        client.refused_signed(Build::allocate().additional(family), 400)?;
    }
    let answer = client.succeed(Build::allocate().additional(2))?;
    let relayed = answer.xor_addresses(attr::XOR_RELAYED_ADDRESS);
    let families: Vec<bool> = relayed.iter().map(SocketAddr::is_ipv6).collect();
    ensure!(
        families.len() == 2 && families[0] != families[1],
        "the relayed addresses are {relayed:?}"
    );
    Ok(())
}

fn row_9_one_of_two(ground: &Ground) -> Seen {
    let mut client = ground.plain_client()?;
    let answer = client.succeed(Build::allocate().additional(2))?;
    let relayed = answer.xor_addresses(attr::XOR_RELAYED_ADDRESS);
    ensure!(
        relayed.len() == 1 && relayed[0].is_ipv4(),
        "the relayed addresses are {relayed:?}"
    );
    let error = answer.get(attr::ADDRESS_ERROR_CODE);
    ensure!(
        error.is_some_and(|value| value.starts_with(&[2, 0, 4, 40])),
        "ADDRESS-ERROR-CODE {error:02x?} instead of IPv6 and 440"
    );
    Ok(())
}

fn row_10_quota(ground: &Ground) -> Seen {
    let clients = exhaust(ground)?;
    let mut other = ground.plain_client()?;
    other.allocate()?;
    drop(clients);
    Ok(())
}

/// Takes allocations of one user until there is 486; the last client is the one that was refused.
fn exhaust(ground: &Ground) -> Seen<Vec<Client>> {
    if ground.logins.secret.is_none() {
        return Err(Trouble::absent(
            "one user, whose quota the other checks use",
        ));
    }
    let mut clients: Vec<Client> = Vec::new();
    for taken in 0..=QUOTA {
        let mut client = ground.plain_client()?;
        if let Some(first) = clients.first() {
            client.login = first.login.clone();
        }
        if taken == QUOTA {
            client.refused_signed(Build::allocate(), 486)?;
        } else {
            client.allocate()?;
        }
        clients.push(client);
    }
    Ok(clients)
}

fn row_success(ground: &Ground) -> Seen {
    for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
        let mut client = ground.client_over(transport)?;
        let answer = client.succeed(Build::allocate())?;
        relayed(&answer)?;
        let lifetime = answer.u32(attr::LIFETIME);
        ensure!(lifetime == Some(600), "LIFETIME {lifetime:?}");
        let mapped = answer.xor_address(attr::XOR_MAPPED_ADDRESS);
        let local = client.link.local()?;
        ensure!(
            mapped == Some(local) || (mapped.is_some() && local.ip().is_unspecified()),
            "XOR-MAPPED-ADDRESS {mapped:?} instead of {local}"
        );
    }
    Ok(())
}

fn t1_lifetime(ground: &Ground) -> Seen {
    let mut granted = Vec::new();
    for asked in [60, 600, 1000, 4_000_000] {
        let mut client = ground.client()?;
        let answer = client.succeed(Build::allocate().u32(attr::LIFETIME, asked))?;
        granted.push(answer.u32(attr::LIFETIME).unwrap_or_default());
        let answer = client.succeed(Build::refresh(asked))?;
        granted.push(answer.u32(attr::LIFETIME).unwrap_or_default());
    }
    let [a, b, c, d, e, f, most, g] = granted[..] else {
        return Err("four times two lifetimes".into());
    };
    ensure!(
        [a, b, c, d, e, f] == [600, 600, 600, 600, 1000, 1000] && most == g,
        "{granted:?} for 60, 600, 1000 and 4000000, each twice"
    );
    ensure!((1000..=3600).contains(&most), "a maximum of {most}");
    Ok(())
}

fn t2_ports(ground: &Ground) -> Seen {
    let mut ports = Vec::new();
    for _ in 0..8 {
        ports.push(ground.allocated()?.1.port());
    }
    ensure!(
        ports.iter().all(|port| *port >= 49_152),
        "ports {ports:?} are below 49152"
    );
    let steps = ports.windows(2).map(|pair| pair[0].abs_diff(pair[1]));
    ensure!(
        steps.filter(|step| *step <= 2).count() < 3,
        "ports {ports:?} follow each other"
    );
    Ok(())
}

fn t2_reservation(ground: &Ground) -> Seen {
    // Several, so that some meet another thread of the server.
    for transport in [
        Transport::Udp,
        Transport::Tcp,
        Transport::Tls,
        Transport::Udp,
    ] {
        let mut first = ground.client()?;
        let answer = first.succeed(Build::allocate().attr(attr::EVEN_PORT, &[0x80]))?;
        let even = relayed(&answer)?;
        let token = answer
            .get(attr::RESERVATION_TOKEN)
            .ok_or("no RESERVATION-TOKEN")?;
        let mut second = ground.client_over(transport)?;
        second.login = first.login.clone();
        let request = || Build::allocate().attr(attr::RESERVATION_TOKEN, token);
        let next = relayed(&second.succeed(request())?)?;
        ensure!(
            next.ip() == even.ip() && next.port() == even.port() + 1,
            "{next} was reserved behind {even}"
        );
        let mut third = ground.client()?;
        third.login = first.login.clone();
        third.refused_signed(request(), 508)?;
    }
    Ok(())
}

fn t3_unique(ground: &Ground) -> Seen {
    let mut clients = Vec::new();
    let mut seen = BTreeSet::new();
    for number in 0..24 {
        let transport = [Transport::Udp, Transport::Tcp][number % 2];
        let mut client = ground.client_over(transport)?;
        let address = client.allocate()?;
        ensure!(seen.insert(address), "{address} is given twice");
        clients.push(client);
    }
    Ok(())
}

fn t4_without_allocation(ground: &Ground) -> Seen {
    let peer = ground.peer()?;
    let mut client = ground.client()?;
    for request in [
        Build::refresh(600),
        Build::refresh(0),
        Build::permission(peer.address),
        Build::channel(0x4000, peer.address),
    ] {
        client.refused_signed(request, 437)?;
    }
    let send = Build::send(peer.address, b"lost").bytes();
    client.expect_silence(&send, "Send without an allocation")?;
    let data = channel_data(0x4000, b"lost");
    client.expect_silence(&data, "ChannelData without an allocation")
}

fn t5_another_user(ground: &Ground) -> Seen {
    if ground.logins.secret.is_none() {
        return Err(Trouble::absent("one user"));
    }
    let (mut client, _) = ground.allocated()?;
    let peer = ground.peer()?;
    let owner = client.login.clone();
    client.login = ground.logins.next()?;
    for request in [
        Build::refresh(600),
        Build::refresh(0),
        Build::permission(peer.address),
        Build::channel(0x4000, peer.address),
    ] {
        client.refused_signed(request, 441)?;
    }
    client.login.password.push('x');
    client.refused(Build::refresh(600), 401)?;
    client.login = owner;
    client.succeed(Build::refresh(600)).map(drop)
}

fn t6_quotas(ground: &Ground) -> Seen {
    let mut clients = exhaust(ground)?;
    let mut refused = clients.pop().ok_or("a client that was refused")?;
    let first = clients.first_mut().ok_or("a client that was served")?;
    first.succeed(Build::refresh(0))?;
    refused.allocate().map(drop)
}
