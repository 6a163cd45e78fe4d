//! NAT behaviour discovery (RFC 5780): the rules at the border of the machine, and the four sockets over loopback.

#![allow(clippy::unwrap_used)]

mod support;
mod wire;

use std::net::{SocketAddr, UdpSocket};

use support::*;
use turnd::plane::Listen;
use turnd::stun::{Attribute, ChangeRequest, Message, Method, TransactionId, Writer};
use turnd::turn::{Cause, Client, NatDiscovery, OwnAddress, Transport, Verdict};

const A1_P1: &str = "203.0.113.1:3478";
const A1_P2: &str = "203.0.113.1:3479";
const A2_P1: &str = "203.0.113.2:3478";
const A2_P2: &str = "203.0.113.2:3479";
const CLIENT: &str = "198.51.100.1:5000";

fn own(local: &str, advertised: &str) -> OwnAddress {
    OwnAddress {
        local: local.parse().unwrap(),
        advertised: advertised.parse().unwrap(),
    }
}

fn discovery() -> NatDiscovery {
    NatDiscovery {
        addresses: ["203.0.113.1", "203.0.113.2"].map(|ip| own(ip, ip)),
        ports: [3478, 3479],
    }
}

fn discovering() -> Turn {
    Turn::with(|settings| settings.nat_discovery = vec![discovery()])
}

/// A client that asks at `server`.
fn asking(server: &str) -> Client {
    let mut client = udp(CLIENT);
    client.five_tuple.server = address(server);
    client
}

fn change(ip: bool, port: bool) -> impl Fn(&mut Writer<'_>) {
    move |writer| {
        writer.change_request(ChangeRequest { ip, port });
    }
}

fn nothing(_: &mut Writer<'_>) {}

/// An answer, and where it goes.
struct Heard {
    from: Option<SocketAddr>,
    to: SocketAddr,
    code: u16,
    bytes: Vec<u8>,
}

impl Heard {
    fn message(&self) -> Message<'_> {
        Message::parse(&self.bytes).unwrap()
    }

    fn kinds(&self) -> Vec<Attribute> {
        self.message().attributes().map(|(kind, _)| kind).collect()
    }

    fn unknown(&self) -> Vec<Attribute> {
        self.message().unknown_attributes().collect()
    }
}

fn binding(turn: &mut Turn, put: impl Fn(&mut Writer<'_>)) -> Vec<u8> {
    request(turn.id(), Method::BINDING, |writer| put(writer))
}

fn ask(turn: &mut Turn, from: Client, put: impl Fn(&mut Writer<'_>)) -> Heard {
    let bytes = binding(turn, put);
    let (verdict, reply) = turn.input(from, &bytes);
    let Verdict::Reply(told) = verdict else {
        panic!("{verdict:?}");
    };
    assert!(!told.authenticated);
    assert_eq!(told.to.path, from.path);
    Heard {
        from: told.via,
        to: told.to.five_tuple.client,
        code: told.code,
        bytes: reply,
    }
}

// the machine

/// \[5780-2\] \[5780-3\] Table 1, asked at each of the four.
#[test]
fn s5780_3_table_1() {
    let all = [A1_P1, A1_P2, A2_P1, A2_P2];
    // For each place: change IP, change port, both (which is OTHER-ADDRESS).
    let other = [
        [A2_P1, A1_P2, A2_P2],
        [A2_P2, A1_P1, A2_P1],
        [A1_P1, A2_P2, A1_P2],
        [A1_P2, A2_P1, A1_P1],
    ];
    let mut turn = discovering();
    for (asked, [other_ip, other_port, both]) in all.into_iter().zip(other) {
        for (ip, port, from) in [
            (false, false, asked),
            (true, false, other_ip),
            (false, true, other_port),
            (true, true, both),
        ] {
            let heard = ask(&mut turn, asking(asked), change(ip, port));
            assert_eq!(heard.code, 0);
            let source = heard.from.unwrap_or_else(|| address(asked));
            assert_eq!(source, address(from), "asked at {asked}: {ip} {port}");
            assert_eq!(heard.from.is_none(), from == asked);
            assert_eq!(heard.to, address(CLIENT));
            let message = heard.message();
            assert_eq!(message.response_origin(), Some(Ok(source)));
            assert_eq!(message.other_address(), Some(Ok(address(both))));
            assert_eq!(message.mapped_address(), Some(Ok(address(CLIENT))));
            assert_eq!(message.xor_mapped_address(), Some(Ok(address(CLIENT))));
        }
    }
}

/// \[5780-2\] Also for a request without any attribute of RFC 5780.
#[test]
fn s5780_2_a_plain_request_is_told_of_the_other_address() {
    let mut turn = discovering();
    let heard = ask(&mut turn, asking(A1_P1), nothing);
    assert_eq!(
        heard.kinds(),
        [
            Attribute::MAPPED_ADDRESS,
            Attribute::XOR_MAPPED_ADDRESS,
            Attribute::RESPONSE_ORIGIN,
            Attribute::OTHER_ADDRESS
        ]
    );
    assert_eq!(heard.bytes.len(), 68);
}

/// \[5780-1\] \[A16\] Without a second address, and where there is one, but over TCP or at another listener.
#[test]
fn s5780_1_elsewhere_nothing_of_it_is_understood() {
    for (mut turn, from) in [
        (Turn::new(), asking(A1_P1)),
        (discovering(), client(CLIENT, Transport::Tcp)),
        (discovering(), asking("203.0.113.1:3480")),
        (discovering(), asking("203.0.113.3:3478")),
    ] {
        let turn = &mut turn;
        for (ip, port) in [(true, true), (true, false), (false, true)] {
            let heard = ask(turn, from, change(ip, port));
            assert_eq!(heard.code, 420);
            assert_eq!(heard.unknown(), [Attribute::CHANGE_REQUEST]);
            assert_eq!((heard.from, heard.to), (None, address(CLIENT)));
        }
        let heard = ask(turn, from, |writer| {
            writer.u16(Attribute::RESPONSE_PORT, 6000);
        });
        assert_eq!(heard.unknown(), [Attribute::RESPONSE_PORT]);
        assert_eq!((heard.from, heard.to), (None, address(CLIENT)));
        let heard = ask(turn, from, |writer| {
            writer.bytes(Attribute::PADDING, &[0; 64]);
            writer.bytes(Attribute(0x7ABC), b"");
        });
        assert_eq!(heard.unknown(), [Attribute(0x7ABC), Attribute::PADDING]);
        // A malformed one is no different.
        let heard = ask(turn, from, |writer| {
            writer.bytes(Attribute::CHANGE_REQUEST, b"x");
        });
        assert_eq!(heard.unknown(), [Attribute::CHANGE_REQUEST]);
        // Asks for no change, and gets none: some clients send it to every server.
        let heard = ask(turn, from, change(false, false));
        assert_eq!(heard.kinds(), [Attribute::XOR_MAPPED_ADDRESS]);
        assert_eq!(ask(turn, from, nothing).bytes.len(), 32);
    }
}

#[test]
fn an_unknown_attribute_is_420_there_too() {
    let mut turn = discovering();
    let heard = ask(&mut turn, asking(A1_P1), |writer| {
        writer.bytes(Attribute(0x7ABC), b"");
        change(true, true)(writer);
    });
    assert_eq!(heard.unknown(), [Attribute(0x7ABC)]);
    assert_eq!((heard.code, heard.from), (420, None));
}

/// \[5780-4\] RESPONSE-PORT: the same host, that port, together with CHANGE-REQUEST.
#[test]
fn s5780_4_the_answer_goes_to_the_port_that_is_wanted() {
    let mut turn = discovering();
    let heard = ask(&mut turn, asking(A1_P1), |writer| {
        writer.u16(Attribute::RESPONSE_PORT, 6000);
    });
    assert_eq!((heard.code, heard.from), (0, None));
    assert_eq!(heard.to, address("198.51.100.1:6000"));
    // It tells where the request came from.
    assert_eq!(
        heard.message().xor_mapped_address(),
        Some(Ok(address(CLIENT)))
    );
    let heard = ask(&mut turn, asking(A1_P1), |writer| {
        writer.u16(Attribute::RESPONSE_PORT, 6000);
        change(true, true)(writer);
    });
    assert_eq!(heard.from, Some(address(A2_P2)));
    assert_eq!(heard.to, address("198.51.100.1:6000"));
    assert_eq!(heard.message().response_origin(), Some(Ok(address(A2_P2))));
}

/// \[5780-5\] \[A14\] \[A16\] Nobody's services are knocked at, nor our own.
#[test]
fn s5780_5_some_ports_are_not_answered_at() {
    let mut turn = discovering();
    for port in [0, 1, 53, 443, 1023] {
        let heard = ask(&mut turn, asking(A1_P1), |writer| {
            writer.u16(Attribute::RESPONSE_PORT, port);
        });
        assert_eq!((heard.code, heard.to), (400, address(CLIENT)), "{port}");
    }
    // A client that is at such a port itself is answered there, as without the attribute.
    let mut low = asking(A1_P1);
    low.five_tuple.client = address("198.51.100.1:500");
    let heard = ask(&mut turn, low, |writer| {
        writer.u16(Attribute::RESPONSE_PORT, 500);
    });
    assert_eq!((heard.code, heard.to), (0, low.five_tuple.client));

    // Neither is a relay of ours, in the name of this host.
    let relayed = ann().allocate(&mut turn).relayed();
    let mut forged = asking(A1_P1);
    forged.five_tuple.client = SocketAddr::new(relayed.ip(), 9);
    let bytes = binding(&mut turn, |writer| {
        writer.u16(Attribute::RESPONSE_PORT, relayed.port());
    });
    assert_eq!(turn.silent(forged, &bytes), Cause::NoWayBack);
}

/// \[5780-5\] Every answer is paid for, wherever it goes.
#[test]
fn s5780_5_answers_are_few_for_each_network() {
    let mut turn = Turn::with(|settings| {
        settings.nat_discovery = vec![discovery()];
        settings.limits.unauthenticated_replies = 10;
    });
    let mut answers = 0;
    for number in 0..1000u16 {
        let mut from = asking([A1_P1, A1_P2, A2_P1, A2_P2][usize::from(number % 4)]);
        from.five_tuple.client.set_port(2000 + number);
        let bytes = binding(&mut turn, |writer| {
            writer.u16(Attribute::RESPONSE_PORT, 7000);
            change(true, number % 2 == 0)(writer);
        });
        let verdict = turn.input(from, &bytes).0;
        if matches!(verdict, Verdict::Reply(_)) {
            answers += 1;
        } else {
            assert_eq!(verdict, Verdict::Drop(Cause::ReplyBudget));
        }
    }
    assert_eq!(answers, 10);
}

/// \[5780-4\] PADDING comes back, and the answer is no longer than the question.
#[test]
fn s5780_4_padding_comes_back_but_does_not_amplify() {
    let mut turn = discovering();
    let mut v6 = client("[2001:db8::1]:5000", Transport::Udp);
    v6.five_tuple.server = address(A1_P1);
    for from in [asking(A1_P1), v6] {
        for length in [
            0, 1, 2, 3, 4, 44, 45, 48, 52, 99, 100, 101, 1472, 1500, 9000, 60_000,
        ] {
            let value: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let question = binding(&mut turn, |writer| {
                writer.bytes(Attribute::PADDING, &value);
            });
            let (verdict, reply) = turn.input(from, &question);
            assert!(matches!(verdict, Verdict::Reply(told) if told.code == 0));
            let message = Message::parse(&reply).unwrap();
            let padding = message.padding().unwrap().unwrap();
            assert_eq!(padding, &value[..padding.len()], "{length}");
            let bare = reply.len() - padding.len().next_multiple_of(4);
            assert!(reply.len() <= question.len().max(bare), "{length}");
            // As long as it may be: what is asked for, in a message as long as the question.
            assert!(
                length <= 200 || reply.len() + 4 > question.len(),
                "{length}: {} of {}",
                reply.len(),
                question.len()
            );
        }
    }
    let heard = ask(&mut turn, asking(A1_P1), |writer| {
        writer
            .bytes(Attribute::PADDING, &[0; 100])
            .u16(Attribute::RESPONSE_PORT, 6000);
    });
    assert_eq!((heard.code, heard.to), (400, address(CLIENT)));
}

#[test]
fn what_is_malformed_is_400() {
    let mut turn = discovering();
    for kind in [Attribute::CHANGE_REQUEST, Attribute::RESPONSE_PORT] {
        let heard = ask(&mut turn, asking(A1_P1), |writer| {
            writer.bytes(kind, b"x");
        });
        assert_eq!(heard.code, 400, "{kind}");
    }
}

#[test]
fn behind_a_nat_clients_are_told_what_the_world_sees() {
    let mut turn = Turn::with(|settings| {
        settings.nat_discovery = vec![NatDiscovery {
            addresses: [
                own("10.0.0.1", "203.0.113.1"),
                own("10.0.0.2", "203.0.113.2"),
            ],
            ports: [3478, 3479],
        }];
    });
    let heard = ask(&mut turn, asking("10.0.0.1:3478"), change(true, false));
    assert_eq!(heard.from, Some(address("10.0.0.2:3478")));
    let message = heard.message();
    assert_eq!(message.response_origin(), Some(Ok(address(A2_P1))));
    assert_eq!(message.other_address(), Some(Ok(address(A2_P2))));
}

/// Its sockets are those of the start.
#[test]
fn a_reload_does_not_change_the_addresses() {
    let mut turn = discovering();
    turn.reload(|settings| settings.nat_discovery = Vec::new());
    let heard = ask(&mut turn, asking(A1_P1), change(true, true));
    assert_eq!(heard.from, Some(address(A2_P2)));
    let mut turn = Turn::new();
    turn.reload(|settings| settings.nat_discovery = vec![discovery()]);
    assert_eq!(ask(&mut turn, asking(A1_P1), nothing).bytes.len(), 32);
}

#[test]
fn both_families_at_once() {
    let six = NatDiscovery {
        addresses: ["2001:db8:1::1", "2001:db8:1::2"].map(|ip| own(ip, ip)),
        ports: [3478, 3479],
    };
    let mut turn = Turn::with(|settings| settings.nat_discovery = vec![discovery(), six]);
    let mut from = client("[2001:db8::1]:5000", Transport::Udp);
    from.five_tuple.server = address("[2001:db8:1::2]:3479");
    let heard = ask(&mut turn, from, change(true, false));
    assert_eq!(heard.from, Some(address("[2001:db8:1::1]:3479")));
    let heard = ask(&mut turn, asking(A2_P2), change(true, false));
    assert_eq!(heard.from, Some(address(A1_P2)));
}

// real sockets

/// Two ports that are free on both loopback addresses.
fn free_ports() -> [u16; 2] {
    let free = || {
        (0..100)
            .find_map(|_| {
                let one = UdpSocket::bind("127.0.0.1:0").unwrap();
                let port = one.local_addr().unwrap().port();
                UdpSocket::bind(("127.0.0.2", port)).ok().map(|_| port)
            })
            .unwrap()
    };
    let first = free();
    let second = std::iter::repeat_with(free)
        .find(|second| *second != first)
        .unwrap();
    [first, second]
}

/// \[5780-3\] Over real sockets, with several workers: the answers come from where they say.
#[test]
fn s5780_3_the_kernel_sees_the_addresses_of_table_1() {
    let real = NatDiscovery {
        addresses: ["127.0.0.1", "127.0.0.2"].map(|ip| own(ip, ip)),
        ports: free_ports(),
    };
    let plane = wire::Plane::start_as(
        3,
        vec![wire::loopback()],
        |settings| settings.nat_discovery = vec![real],
        |plane| {
            let sockets = real.sockets();
            let listen = sockets.map(|socket| Listen::new(socket, Transport::Udp));
            plane.listeners.extend(listen);
        },
    );
    let [a, b] = ["127.0.0.1", "127.0.0.2"].map(wire::ip);
    let [p, q] = real.ports;
    for client in 0..6 {
        let socket = wire::peer("127.0.0.3");
        let second = wire::peer("127.0.0.3");
        for (ip, port, from) in [
            (false, false, (a, p)),
            (true, false, (b, p)),
            (false, true, (a, q)),
            (true, true, (b, q)),
        ] {
            let id = TransactionId([client; 12]);
            let question = request(id, Method::BINDING, |writer| change(ip, port)(writer));
            socket.send_to(&question, (a, p)).unwrap();
            let (answer, source) = wire::receive_from(&socket);
            assert_eq!(source, SocketAddr::from(from));
            let message = Message::parse(&answer).unwrap();
            assert_eq!(message.response_origin(), Some(Ok(source)));
            assert_eq!(
                message.xor_mapped_address(),
                Some(Ok(socket.local_addr().unwrap()))
            );

            let question = request(id, Method::BINDING, |writer| {
                change(ip, port)(writer);
                writer.u16(
                    Attribute::RESPONSE_PORT,
                    second.local_addr().unwrap().port(),
                );
            });
            socket.send_to(&question, (a, p)).unwrap();
            let (_, source) = wire::receive_from(&second);
            assert_eq!(source, SocketAddr::from(from));
        }
        // More than one packet's worth, both ways.
        let question = request(TransactionId([client; 12]), Method::BINDING, |writer| {
            writer.bytes(Attribute::PADDING, &[7; 3000]);
        });
        socket.send_to(&question, (b, q)).unwrap();
        let (answer, source) = wire::receive_from(&socket);
        assert_eq!((answer.len(), source), (question.len(), (b, q).into()));
    }
    // At the plane's other listener all is as ever.
    let socket = wire::peer("127.0.0.3");
    let question = request(TransactionId([9; 12]), Method::BINDING, |_| {});
    socket.send_to(&question, plane.udp).unwrap();
    assert_eq!(wire::receive_from(&socket).0.len(), 32);
    // And here are relays, too.
    wire::Client::udp((a, p).into()).allocate();
}
