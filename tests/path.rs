//! A router between relay and peer: what it says of packets, and what it does to them, in network namespaces.
//!
//! ```text
//!     server (and client)       router                      peer
//!     10.98.1.1   ────────  10.98.1.2
//!     fd98:1::1             fd98:1::2
//!                           10.98.2.1  ── MTU 1280 ──   10.98.2.2 (an echo)
//!                           fd98:2::1                   fd98:2::2
//!                           10.98.3.0/24, fd98:3::/64: unreachable
//! ```
//!
//! Needs root and `ip`; without these it says `SKIPPED` and passes, except with `CI=true`.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod wire;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};

use socket2::{Domain, Protocol, Socket, Type};
use turnd::plane::RelayAddress;
use turnd::stun::{Attribute, Class, Icmp, Message, Method, TransactionId, Writer};
use wire::{Client, Plane, ip};

const ECHO: &str = "10.98.2.2:3480";
const ECHO6: &str = "[fd98:2::2]:3480";

#[test]
fn d4_a_client_hears_what_routers_say_of_its_packets() {
    behind_a_router("d4_a_client_hears_what_routers_say_of_its_packets", || {
        let plane = plane();
        for mut client in [Client::udp(plane.udp), Client::tcp(plane.tcp)] {
            dual(&mut client);
            // No route, and no such port.
            assert_eq!(refusal(&mut client, "10.98.3.7:9"), (3, 1, 0));
            assert_eq!(refusal(&mut client, "[fd98:3::7]:9"), (1, 0, 0));
            assert_eq!(refusal(&mut client, "10.98.1.2:9"), (3, 3, 0));
            assert_eq!(refusal(&mut client, "[fd98:1::2]:9"), (1, 4, 0));
            // Out of hops.
            hop_limit(1);
            assert_eq!(refusal(&mut client, ECHO), (11, 0, 0));
            assert_eq!(refusal(&mut client, ECHO6), (3, 0, 0));
            hop_limit(64);
        }
    });
}

#[test]
fn h1_a_packet_is_fragmented_unless_the_client_forbids_it() {
    behind_a_router(
        "h1_a_packet_is_fragmented_unless_the_client_forbids_it",
        || {
            let plane = plane();
            for mut client in [Client::udp(plane.udp), Client::tcp(plane.tcp)] {
                dual(&mut client);
                let (peer, data) = (address(ECHO), vec![7; 1400]);
                assert_eq!(client.permit(peer).code(), 0);
                // Longer than the router's next link: it cuts the packet in two.
                client.send_indication(peer, &data);
                assert_eq!(client.receive_data(), (peer, data.clone()));
                // It may not, and says so; the packet before and the one behind are none of its business.
                client.send_indication(peer, b"before");
                forbid_fragments(&mut client, peer, &data);
                client.send_indication(peer, &data);
                let mut heard = Vec::new();
                for _ in 0..3 {
                    let bytes = client.receive();
                    match icmp(&bytes) {
                        Some(error) => assert_eq!(error, (peer, too_big(3, 4))),
                        None => {
                            let data = Message::parse(&bytes).unwrap().data().unwrap();
                            heard.push(bytes[data].to_vec());
                        }
                    }
                }
                assert_eq!(heard, [b"before".to_vec(), data.clone()]);
                // What the first link does not take, the kernel says itself; the port is not known to it.
                forbid_fragments(&mut client, peer, &[7; 1600]);
                let (at, error) = icmp(&client.receive()).unwrap();
                assert_eq!(at.ip(), peer.ip());
                assert_eq!((error.kind, error.code, error.data), (3, 4, 1500));
                assert!([0, peer.port()].contains(&at.port()));
            }
        },
    );
}

/// A router's word takes its time: by then, the relay has long sent other packets, which may be cut.
#[test]
fn h1_what_is_too_big_is_told_however_late() {
    behind_a_router("h1_what_is_too_big_is_told_however_late", || {
        let plane = plane();
        let mut client = Client::udp(plane.udp);
        let relayed = dual(&mut client);
        let peer = address(ECHO);
        assert_eq!(client.permit(peer).code(), 0);
        forbid_fragments(&mut client, peer, b"a long one, to be lost at a far router");
        assert_eq!(client.receive_data().0, peer);
        client.send_indication(peer, b"another");
        assert_eq!(client.receive_data(), (peer, b"another".to_vec()));
        say_too_big(relayed, peer, 1280);
        assert_eq!(icmp(&client.receive()), Some((peer, too_big(3, 4))));
    });
}

/// Routers do not cut packets of IPv6: they say what they take, the client hears of it, and the server itself cuts
/// the next one, whether the client forbade it or not ([H4]).
#[test]
fn h4_packets_of_ipv6_are_cut_by_the_server_once_it_knows() {
    behind_a_router(
        "h4_packets_of_ipv6_are_cut_by_the_server_once_it_knows",
        || {
            let plane = plane();
            let mut client = Client::udp(plane.udp);
            dual(&mut client);
            let (peer, data) = (address(ECHO6), vec![7; 1400]);
            assert_eq!(client.permit(peer).code(), 0);
            forbid_fragments(&mut client, peer, &data);
            assert_eq!(icmp(&client.receive()), Some((peer, too_big(2, 0))));
            forbid_fragments(&mut client, peer, &data);
            assert_eq!(client.receive_data(), (peer, data));
        },
    );
}

fn too_big(kind: u8, code: u8) -> Icmp {
    let data = 1280;
    Icmp { kind, code, data }
}

fn plane() -> Plane {
    let own = |text| RelayAddress {
        local: ip(text),
        advertised: ip(text),
    };
    let addresses = vec![own("10.98.1.1"), own("fd98:1::1")];
    Plane::start_with(1, addresses, |settings| {
        let prefixes = ["10.98.0.0/16", "fd98::/16"];
        settings.peers.allow = prefixes.map(|text| text.parse().unwrap()).to_vec();
    })
}

/// An allocation of both families; its relayed address of IPv4.
fn dual(client: &mut Client) -> SocketAddr {
    let answer = client.request(Method::ALLOCATE, |writer| {
        writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
        writer.u8(Attribute::ADDITIONAL_ADDRESS_FAMILY, 2);
    });
    let answer = answer.success();
    assert_eq!(answer.xor_relayed_addresses().count(), 2);
    answer.xor_relayed_address().unwrap().unwrap()
}

/// What is said of a packet to `peer`: type, code and data.
fn refusal(client: &mut Client, peer: &str) -> (u8, u8, u32) {
    let peer = address(peer);
    assert_eq!(client.permit(peer).code(), 0);
    client.send_indication(peer, b"is this the way?");
    let (about, Icmp { kind, code, data }) = icmp(&client.receive()).expect("an ICMP error");
    assert_eq!(about, peer);
    (kind, code, data)
}

fn forbid_fragments(client: &mut Client, peer: SocketAddr, data: &[u8]) {
    let mut bytes = Vec::new();
    let id = TransactionId([9; 12]);
    let mut writer = Writer::new(&mut bytes, Class::Indication, Method::SEND, id);
    writer
        .xor_address(Attribute::XOR_PEER_ADDRESS, peer)
        .bytes(Attribute::DATA, data)
        .flag(Attribute::DONT_FRAGMENT);
    writer.finish();
    client.send(&bytes);
}

/// The peer and the error of a Data indication that tells one.
fn icmp(bytes: &[u8]) -> Option<(SocketAddr, Icmp)> {
    let message = Message::parse(bytes).unwrap();
    let peer = message.xor_peer_address().unwrap().unwrap();
    Some((peer, message.icmp()?.unwrap()))
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Says what a router would of a datagram between these two: that it is too big for the next link.
fn say_too_big(from: SocketAddr, to: SocketAddr, mtu: u16) {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (from.ip(), to.ip()) else {
        panic!("not IPv4");
    };
    let mut message = vec![3, 4, 0, 0, 0, 0];
    message.extend(mtu.to_be_bytes());
    // The header of the datagram: 1428 bytes, DF, UDP; then its ports, length and checksum.
    message.extend([0x45, 0, 0x05, 0x94, 0, 1, 0x40, 0, 64, 17, 0, 0]);
    message.extend(source.octets().into_iter().chain(destination.octets()));
    for word in [from.port(), to.port(), 1408, 0] {
        message.extend(word.to_be_bytes());
    }
    let word = |pair: &[u8]| u32::from(u16::from_be_bytes([pair[0], pair[1]]));
    let sum: u32 = message.chunks(2).map(word).sum();
    let checksum = !((sum & 0xFFFF) + (sum >> 16)) as u16;
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).unwrap();
    let host = SocketAddr::new(from.ip(), 0);
    socket.send_to(&message, &host.into()).unwrap();
}

/// How many hops packets of the server may take.
fn hop_limit(hops: u8) {
    for file in ["ipv4/ip_default_ttl", "ipv6/conf/to-r/hop_limit"] {
        fs::write(format!("/proc/sys/net/{file}"), hops.to_string()).unwrap();
    }
}

/// Runs `inside` on the server's host: this program once more, in that network namespace.
fn behind_a_router(test: &str, inside: fn()) {
    match std::env::var(ROLE).as_deref() {
        Ok("echo") => return echo(),
        Ok(_) => {
            inside();
            return say(DONE);
        }
        Err(_) => {}
    }
    let Some(network) = Network::new() else {
        return;
    };
    let program = std::env::current_exe().unwrap();
    let run = |host, role| {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &network.name(host)])
            .arg(&program)
            .args(["--exact", test, "--nocapture"])
            .env(ROLE, role)
            .stdout(Stdio::piped());
        command
    };
    let mut echo = Ended(run('p', "echo").spawn().unwrap());
    let lines = BufReader::new(echo.0.stdout.take().unwrap()).lines();
    let ready = lines.map_while(Result::ok).any(|line| line.contains(READY));
    assert!(ready, "the echo did not start");
    let output = run('s', "inside").output().unwrap();
    let output = [output.stdout, output.stderr].concat();
    let output = String::from_utf8_lossy(&output);
    // Exactly one test ran there, and to its end.
    assert!(output.contains(DONE), "{output}");
}

/// Sends every datagram back, until it is ended.
fn echo() {
    let echoes = [ECHO, ECHO6].map(|text| {
        let socket = UdpSocket::bind(address(text)).unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                socket.send_to(&buffer[..length], from).unwrap();
            }
        })
    });
    say(READY);
    for thread in echoes {
        thread.join().unwrap();
    }
}

/// A process that ends with its owner.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// The three hosts: network namespaces whose names carry the process and the thread, taken away at the end.
struct Network(String);

impl Network {
    /// The hosts, or nothing where they cannot be.
    ///
    /// # Panics
    ///
    /// With `CI=true` where they cannot be.
    fn new() -> Option<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let root = fs::metadata("/proc/self").is_ok_and(|data| data.uid() == 0);
        let has_ip = Command::new("ip").arg("-V").output().is_ok();
        if !root || !has_ip {
            let in_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
            assert!(!in_ci, "needs root and `ip`");
            // Not eprintln!, which is captured and then shown by failing tests only.
            _ = std::io::stderr().write_all(b"SKIPPED: no root, or no `ip`\n");
            return None;
        }
        let thread = format!("{:?}", std::thread::current().id());
        let thread: String = thread.chars().filter(char::is_ascii_digit).collect();
        let network = Self(format!("turnd-path-{}-{thread}", std::process::id()));
        network.build();
        Some(network)
    }

    fn name(&self, host: char) -> String {
        format!("{}-{host}", self.0)
    }

    fn build(&self) {
        for host in ['s', 'r', 'p'] {
            ip_command(&format!("netns add {}", self.name(host)));
            self.ip(host, "link set lo up");
        }
        let (r, p) = (self.name('r'), self.name('p'));
        self.ip(
            's',
            &format!("link add to-r type veth peer name to-s netns {r}"),
        );
        self.ip(
            'r',
            &format!("link add to-p mtu 1280 type veth peer name to-r mtu 1280 netns {p}"),
        );
        for (host, device, v4, v6) in [
            ('s', "to-r", "10.98.1.1/24", "fd98:1::1/64"),
            ('r', "to-s", "10.98.1.2/24", "fd98:1::2/64"),
            ('r', "to-p", "10.98.2.1/24", "fd98:2::1/64"),
            ('p', "to-r", "10.98.2.2/24", "fd98:2::2/64"),
        ] {
            self.ip(host, &format!("link set {device} up"));
            self.ip(host, &format!("address add {v4} dev {device}"));
            self.ip(host, &format!("address add {v6} dev {device} nodad"));
        }
        for (host, v4, v6) in [
            ('s', "10.98.1.2", "fd98:1::2"),
            ('p', "10.98.2.1", "fd98:2::1"),
        ] {
            self.ip(host, &format!("route add default via {v4}"));
            self.ip(host, &format!("-6 route add default via {v6}"));
        }
        self.ip('r', "route add unreachable 10.98.3.0/24");
        self.ip('r', "-6 route add unreachable fd98:3::/64");
        let set = "cd /proc/sys/net && echo 1 > ipv4/ip_forward && echo 1 > ipv6/conf/all/forwarding \
                   && echo 0 > ipv4/icmp_ratemask && echo 0 > ipv6/icmp/ratelimit";
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &r, "sh", "-c", set]);
        succeed(&mut command);
    }

    fn ip(&self, host: char, arguments: &str) {
        ip_command(&format!("-n {} {arguments}", self.name(host)));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in ['s', 'r', 'p'] {
            _ = Command::new("ip")
                .args(["netns", "del", &self.name(host)])
                .output();
        }
    }
}

fn ip_command(arguments: &str) {
    succeed(Command::new("ip").args(arguments.split(' ')));
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Tells the outer run something.
fn say(line: &str) {
    writeln!(std::io::stdout(), "{line}").expect("the outer run listens");
}

const ROLE: &str = "TURND_TEST_PATH_ROLE";
const READY: &str = "the echo is ready";
const DONE: &str = "the client is content";
