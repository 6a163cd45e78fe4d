//! A NAT before a client: one more host behind the first client's, which translates for it.
//!
//! ```text
//!     client n            NAT (host a)              server s
//!     10.99.9.2  ──────  10.99.9.1 | 10.99.1.2  ──────  10.99.1.1
//! ```

use std::process::Command;

use crate::rig::{Host, Rig, remove_host, succeed};

/// How a NAT chooses ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ports {
    /// The client's own.
    Preserved,
    /// Any, another one for each server and port: a "symmetric" NAT.
    Random,
}

/// A NAT with its client.
pub(crate) struct Nat<'a> {
    rig: &'a Rig,
    client: String,
}

impl<'a> Nat<'a> {
    /// Makes the first client's host a NAT, with a client behind it.
    pub(crate) fn new(rig: &'a Rig, ports: Ports) -> Self {
        let client = format!("{}n", rig.namespace(Host::A));
        let nat = Self { rig, client };
        let (inside, router) = (&nat.client, rig.namespace(Host::A));
        let masquerade = match ports {
            Ports::Preserved => "masquerade",
            Ports::Random => "masquerade fully-random",
        };
        let script = format!(
            "set -e
             ip netns add {inside}
             ip -n {inside} link set lo up
             ip -n {router} link add inside type veth peer name eth0 netns {inside}
             ip -n {router} address add 10.99.9.1/24 dev inside
             ip -n {router} link set inside up
             ip -n {inside} address add 10.99.9.2/24 dev eth0
             ip -n {inside} link set eth0 up
             ip -n {inside} route add default via 10.99.9.1
             ip netns exec {router} sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
             ip netns exec {router} nft 'add table ip nat; \
                add chain ip nat out {{ type nat hook postrouting priority 100; }}; \
                add rule ip nat out oifname \"eth0\" {masquerade}'"
        );
        succeed(Command::new("sh").args(["-c", &script]));
        nat
    }

    /// Runs `program` on the client's host, and returns all that it printed.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> String {
        let inside = ["netns", "exec", &self.client, program];
        self.rig
            .run(Host::A, "ip", &[&inside[..], arguments].concat())
    }
}

impl Drop for Nat<'_> {
    fn drop(&mut self) {
        remove_host(&self.client);
    }
}
