//! `[tcp_relay]`: its keys, and whether anybody could use what is asked for.

use std::time::Duration;

use crate::plane::Listen;
use crate::turn;

use super::TcpRelay;
use super::assemble::Assembly;
use super::problem::Complaint;
use super::section::Section;
use super::values;

/// RFC 6062 §5.2; longer than any kernel tries is of no use.
const SHORTEST_CONNECT: Duration = Duration::from_secs(30);
const LONGEST_CONNECT: Duration = Duration::from_secs(120);
/// The ports that are closed unless they are named.
const LOW_PORTS: std::ops::Range<u16> = 1..1024;

pub(super) fn read(section: &mut Section<'_>) -> TcpRelay {
    let default = turn::TcpRelay::default();
    let enabled = section.flag("enabled").unwrap_or(false);
    let rules = turn::TcpRelay {
        connections: section
            .number("connections", 1, 256)
            .map_or(default.connections, |number| number as usize),
        connect_timeout: section
            .parsed("connect_timeout", |text| {
                values::duration_within(text, SHORTEST_CONNECT..=LONGEST_CONNECT)
            })
            .unwrap_or(default.connect_timeout),
        low_ports: section.list("low_ports", low_port).unwrap_or_default(),
        ..default
    };
    TcpRelay { enabled, rules }
}

fn low_port(text: &str) -> Result<u16, Complaint> {
    let port = text.trim().parse();
    port.ok()
        .filter(|port| LOW_PORTS.contains(port))
        .ok_or_else(|| {
            Complaint::new(
                format!("`{text}` is not a port below 1024"),
                "write single ports, as in [\"80\", \"443\"]; those from 1024 on are open",
            )
        })
}

impl Assembly<'_> {
    /// What the machine is told, if TCP allocations are wanted.
    pub(super) fn tcp_relay(&mut self, listeners: &[Listen]) -> Option<turn::TcpRelay> {
        let TcpRelay { enabled, rules } = &self.config.tcp_relay;
        let rules = enabled.then(|| rules.clone())?;
        if !listeners.iter().any(|listen| listen.transport.is_stream()) {
            self.warning(
                "tcp_relay.enabled",
                "nobody can use TCP relays: nothing listens for TCP or TLS",
                "add a [[listen]] with transport = \"tcp\" or \"tls\"",
            );
        }
        Some(rules)
    }
}
