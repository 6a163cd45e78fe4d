//! `[limits]`: how much of everything there may be.

use std::time::Duration;

use crate::config::section::Section;
use crate::config::values;
use crate::turn::{Bandwidth, Limits, NewPeers};

const SHORTEST_LIFETIME: Duration = Duration::from_secs(1);
const LONGEST_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// The limits, and the longest lifetime of an allocation.
pub(super) fn read(section: &mut Section<'_>) -> (Limits, Duration) {
    let default = Limits::default();
    let limits = Limits {
        per_user: section
            .number("per_user", 1, u32::MAX)
            .unwrap_or(default.per_user),
        per_client: section
            .number("per_client", 1, u32::MAX)
            .unwrap_or(default.per_client),
        per_tenant: section
            .number("per_tenant", 0, u32::MAX)
            .filter(|most| *most != 0)
            .unwrap_or(default.per_tenant),
        total: section
            .number("total", 1, u32::MAX)
            .unwrap_or(default.total),
        permissions: section
            .number("permissions", 1, 1024)
            .map_or(default.permissions, |number| number as usize),
        channels: section
            .number("channels", 1, 1024)
            .map_or(default.channels, |number| number as usize),
        unauthenticated_replies: section
            .number("unauthenticated_replies", 0, u32::MAX)
            .unwrap_or(default.unauthenticated_replies),
        bandwidth: bandwidth(section),
        new_peers: new_peers(section),
    };
    let max_lifetime = section.parsed("max_lifetime", |text| {
        values::duration_within(text, SHORTEST_LIFETIME..=LONGEST_LIFETIME)
    });
    (limits, max_lifetime.unwrap_or(Duration::from_secs(3600)))
}

fn bandwidth(section: &mut Section<'_>) -> Bandwidth {
    let mut rate = |key| section.parsed(key, values::bit_rate).unwrap_or(0);
    Bandwidth {
        per_allocation: rate("bandwidth_per_allocation"),
        per_user: rate("bandwidth_per_user"),
        per_tenant: rate("bandwidth_per_tenant"),
        total: rate("bandwidth_total"),
    }
}

fn new_peers(section: &mut Section<'_>) -> NewPeers {
    let mut most = |key| section.number(key, 0, u32::MAX).unwrap_or(0);
    NewPeers {
        per_allocation: most("new_peers_per_allocation"),
        per_user: most("new_peers_per_user"),
    }
}
