//! What is measured, and the goals it is held against.

/// One line of the report for every server.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    /// The word for `--only`.
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) load: Load,
    pub(crate) goal: Goal,
}

#[derive(Clone, Copy)]
pub(crate) enum Load {
    /// Binding requests from many clients.
    Bindings,
    /// 401, Allocate, CreatePermission, ChannelBind, Refresh 0, each by a client that never came before.
    Cycles,
    Relay(Relay),
    /// One allocation with one channel against one with 64, in turn on the same server.
    Channels,
    /// Resident memory of idle allocations with a permission and a channel.
    Memory,
    /// One-way time through 100 allocations at 5,000 packets a second.
    Latency,
}

/// Datagrams through the server, both ways.
#[derive(Clone, Copy)]
pub(crate) struct Relay {
    pub(crate) allocations: usize,
    pub(crate) channels: usize,
    pub(crate) size: usize,
    pub(crate) framing: Framing,
    /// Datagrams that the sender hands to the kernel as one segmented buffer.
    pub(crate) burst: usize,
    /// Datagrams of one flow before the next flow has its turn.
    pub(crate) run: usize,
    /// Datagrams in flight each way to begin with; it is halved until nothing is lost.
    pub(crate) window: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    ChannelData,
    Indications,
}

/// What turnd is to reach.
#[derive(Clone, Copy, Default)]
pub(crate) struct Goal {
    pub(crate) to_coturn: Option<f64>,
    pub(crate) to_forwarder: Option<f64>,
    /// The most that the figure itself may be: bytes, or times as much for 64 channels.
    pub(crate) at_most: Option<f64>,
}

const NONE: Goal = Goal {
    to_coturn: None,
    to_forwarder: None,
    at_most: None,
};

impl Goal {
    const fn to_coturn(times: f64) -> Self {
        Self {
            to_coturn: Some(times),
            ..NONE
        }
    }

    const fn at_most(most: f64) -> Self {
        Self {
            at_most: Some(most),
            ..NONE
        }
    }
}

impl Relay {
    const fn channel_data(allocations: usize, size: usize) -> Load {
        let window = if size > 500 { 256 } else { 512 };
        Load::Relay(Self {
            allocations,
            channels: 1,
            size,
            framing: Framing::ChannelData,
            burst: 1,
            run: 1,
            window,
        })
    }

    /// One allocation with this many channels, in runs as long as what the generator sends at once: so a server that joins
    /// neighbours for one peer can do it with 64 channels as with one, and the difference is that of the look-ups.
    pub(crate) const fn with_channels(channels: usize) -> Self {
        Self {
            allocations: 1,
            channels,
            size: 160,
            framing: Framing::ChannelData,
            burst: 1,
            run: 32,
            window: 512,
        }
    }
}

pub(crate) const SCENARIOS: [Scenario; 13] = [
    Scenario {
        id: "bindings",
        title: "Binding requests",
        load: Load::Bindings,
        goal: Goal::to_coturn(1.5),
    },
    Scenario {
        id: "allocate-cycles",
        title: "Allocate cycles: 401, allocation, permission, channel, release",
        load: Load::Cycles,
        goal: Goal::to_coturn(5.0),
    },
    Scenario {
        id: "channel-data-160-1",
        title: "ChannelData both ways, 160 bytes, 1 allocation",
        load: Relay::channel_data(1, 160),
        goal: NONE,
    },
    Scenario {
        id: "channel-data-160-100",
        title: "ChannelData both ways, 160 bytes, 100 allocations",
        load: Relay::channel_data(100, 160),
        goal: NONE,
    },
    Scenario {
        id: "channel-data-160-1000",
        title: "ChannelData both ways, 160 bytes, 1000 allocations",
        load: Relay::channel_data(1000, 160),
        goal: Goal {
            to_coturn: Some(2.0),
            to_forwarder: Some(0.9),
            at_most: None,
        },
    },
    Scenario {
        id: "channel-data-1100-1",
        title: "ChannelData both ways, 1100 bytes, 1 allocation",
        load: Relay::channel_data(1, 1100),
        goal: NONE,
    },
    Scenario {
        id: "channel-data-1100-100",
        title: "ChannelData both ways, 1100 bytes, 100 allocations",
        load: Relay::channel_data(100, 1100),
        goal: NONE,
    },
    Scenario {
        id: "channel-data-1100-1000",
        title: "ChannelData both ways, 1100 bytes, 1000 allocations",
        load: Relay::channel_data(1000, 1100),
        goal: NONE,
    },
    Scenario {
        id: "send-data",
        title: "Send and Data indications, 160 bytes, 100 allocations",
        load: Load::Relay(Relay {
            allocations: 100,
            channels: 0,
            size: 160,
            framing: Framing::Indications,
            burst: 1,
            run: 1,
            window: 512,
        }),
        goal: Goal::to_coturn(2.0),
    },
    Scenario {
        id: "burst",
        title: "One flow in bursts of 16 x 1100 bytes, ChannelData both ways",
        load: Load::Relay(Relay {
            allocations: 1,
            channels: 1,
            size: 1100,
            framing: Framing::ChannelData,
            burst: 16,
            run: 1,
            window: 512,
        }),
        goal: Goal::to_coturn(2.0),
    },
    Scenario {
        id: "channels-64",
        title: "64 channels on one allocation against 1 channel, time per packet",
        load: Load::Channels,
        goal: Goal::at_most(1.05),
    },
    Scenario {
        id: "idle-memory",
        title: "Resident memory per idle allocation (of 2000)",
        load: Load::Memory,
        goal: Goal::at_most(2048.0),
    },
    Scenario {
        id: "latency",
        title: "One-way latency at 5,000 packets/s over 100 allocations",
        load: Load::Latency,
        goal: NONE,
    },
];
