//! The text of `/metrics`: a snapshot under the names that dashboards know. Add a metric here, and where it happens.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use prometheus::TextEncoder;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use super::{Status, process};
use crate::metrics::{
    BATCH_BOUNDS, Cells, DELAY_BOUNDS, Dialect, Direction, DtlsCells, DtlsDrop, Snapshot,
    SocketError, TokenRefusal, Tokens,
};
use crate::turn::{Cause, Census, EndReason, Family, Limit, MoveResult, Refusal, Transport};

/// Makes the page.
///
/// # Errors
///
/// If a metric has no name or no sample, which is a bug.
pub(super) fn render(snapshot: &Snapshot, status: &Status) -> prometheus::Result<String> {
    let mut page = Page::default();
    page.census(&snapshot.census);
    page.traffic(&snapshot.cells);
    page.requests(&snapshot.cells);
    page.secrets(&snapshot.secret_uses);
    page.quotas(snapshot);
    page.sockets(&snapshot.cells);
    page.dtls(&snapshot.cells.dtls);
    page.workers(snapshot);
    page.server(snapshot, status);
    if let Some(tokens) = &status.tokens {
        page.tokens(tokens);
    }
    page.process(status.started);
    TextEncoder::new().encode_to_string(&page.families)
}

#[derive(Default)]
struct Page {
    families: Vec<MetricFamily>,
}

type Labels<'a> = &'a [(&'a str, &'a str)];

impl Page {
    fn census(&mut self, census: &Census) {
        let mut family = Series::gauge(
            "turn_allocations",
            "Allocations that live, by the client's transport and the relay's family.",
        );
        for transport in Transport::ALL {
            for address in Family::ALL {
                let live = census.allocations[transport.index()][address.index()];
                family.add(
                    &[
                        ("transport", transport.label()),
                        ("family", address.label()),
                    ],
                    live as f64,
                );
            }
        }
        self.push(family);
        self.one_gauge(
            "turn_tcp_allocations",
            "Allocations with a TCP relay, which are among the others.",
            census.tcp_allocations as f64,
        );
        self.one_gauge(
            "turn_permissions",
            "Permissions that live.",
            census.permissions as f64,
        );
        self.one_gauge(
            "turn_channels",
            "Channels that live.",
            census.channels as f64,
        );
    }

    fn traffic(&mut self, cells: &Cells) {
        let mut packets = Series::counter("turn_relayed_packets_total", "Packets relayed.");
        let mut bytes = Series::counter(
            "turn_relayed_bytes_total",
            "Payload relayed, without any header.",
        );
        for direction in Direction::ALL {
            for transport in Transport::ALL {
                for address in Family::ALL {
                    let labels = [
                        ("direction", direction.label()),
                        ("transport", transport.label()),
                        ("family", address.label()),
                    ];
                    let traffic = cells.traffic(direction, transport, address);
                    packets.add(&labels, traffic.packets as f64);
                    bytes.add(&labels, traffic.bytes as f64);
                }
            }
        }
        self.push(packets);
        self.push(bytes);
        let mut drops = Series::counter("turn_dropped_packets_total", "Packets that went nowhere.");
        for cause in Cause::ALL {
            drops.add(&[("reason", cause.label())], cells.drops(*cause) as f64);
        }
        self.push(drops);
    }

    fn requests(&mut self, cells: &Cells) {
        let mut requests = Series::counter(
            "turn_requests_total",
            "Requests answered, by error code; 0 is success.",
        );
        for (method, code, count) in cells.answers() {
            let code_text = code.map_or_else(|| "other".to_owned(), |code| code.to_string());
            requests.add(&[("method", method), ("code", &code_text)], count as f64);
        }
        self.push(requests);
        let help = "Answers to Allocate: granted, asked for (fresh) credentials, or refused.";
        let mut family = Series::counter("turn_allocations_total", help);
        for (result, count) in allocates(cells) {
            family.add(&[("result", result)], count as f64);
        }
        self.push(family);
        let help = "Allocations that ended, by reason.";
        let mut family = Series::counter("turn_allocations_ended_total", help);
        for reason in EndReason::ALL {
            family.add(&[("reason", reason.label())], cells.ends(*reason) as f64);
        }
        self.push(family);
        let mut refusals = Series::counter(
            "turn_auth_failures_total",
            "Requests that did not authenticate.",
        );
        for refusal in Refusal::ALL {
            refusals.add(
                &[("reason", refusal.label())],
                cells.refusals(*refusal) as f64,
            );
        }
        self.push(refusals);
        let mut moves = Series::counter(
            "turn_moves_total",
            "Moves of allocations to another address of their client: asked for and completed.",
        );
        for result in MoveResult::ALL {
            moves.add(&[("result", result.label())], cells.moves(*result) as f64);
        }
        self.push(moves);
        let help = "Messages of clients that had moved, handed on to the worker that has their allocation.";
        self.one_counter(
            "turn_passed_on_messages_total",
            help,
            cells.passed_on as f64,
        );
    }

    /// The names are the operator's: nobody else adds to them.
    fn secrets(&mut self, uses: &BTreeMap<String, u64>) {
        let help = "Allocate requests that each shared secret in force has vouched for.";
        let mut family = Series::counter("turn_auth_secret_used_total", help);
        for (id, uses) in uses {
            family.add(&[("id", id)], *uses as f64);
        }
        if !uses.is_empty() {
            self.push(family);
        }
    }

    fn quotas(&mut self, snapshot: &Snapshot) {
        let help = "Allocations that a limit stood against: of the user, the network of the client, the tenant, or in total.";
        let mut family = Series::counter("turn_quota_rejected_total", help);
        for limit in Limit::ALL {
            let count = snapshot.rejected[limit.index()];
            family.add(&[("limit", limit.label())], count as f64);
        }
        self.push(family);
    }

    fn sockets(&mut self, cells: &Cells) {
        let mut errors = Series::counter(
            "turn_socket_errors_total",
            "What the kernel said instead of moving a packet; full also: a stream client took too little or left.",
        );
        for error in SocketError::ALL {
            errors.add(
                &[("kind", error.label())],
                cells.socket_errors(error) as f64,
            );
        }
        self.push(errors);
        let told = "ICMP errors about packets to peers, told to clients.";
        self.one_counter("turn_icmp_indications_total", told, cells.icmp as f64);
        for (name, help, outcomes) in [
            (
                "turn_tls_handshakes_total",
                "TLS handshakes of clients.",
                cells.handshakes,
            ),
            (
                "turn_proxy_headers_total",
                "PROXY headers of trusted proxies, read or broken.",
                cells.proxy_headers,
            ),
            (
                "turn_dtls_handshakes_total",
                "DTLS handshakes of clients that showed a cookie.",
                cells.dtls.handshakes,
            ),
            (
                "turn_streams_total",
                "Connections of clients, taken or refused by a limit.",
                cells.streams,
            ),
            (
                "turn_web_connections_total",
                "Connections of web clients, passed on or refused by a limit.",
                cells.web,
            ),
        ] {
            let mut family = Series::counter(name, help);
            family.add(&[("result", "ok")], outcomes.ok as f64);
            family.add(&[("result", "failed")], outcomes.failed as f64);
            self.push(family);
        }
        self.push(batches(cells));
        self.push(delays(cells));
    }

    fn dtls(&mut self, cells: &DtlsCells) {
        self.one_gauge(
            "turn_dtls_associations",
            "DTLS associations that live, handshakes included.",
            cells.associations as f64,
        );
        self.one_counter(
            "turn_dtls_cookies_total",
            "Cookies sent to DTLS clients that showed none.",
            cells.cookies as f64,
        );
        let help = "Datagrams at DTLS listeners that went nowhere.";
        let mut drops = Series::counter("turn_dtls_dropped_datagrams_total", help);
        for cause in DtlsDrop::ALL {
            drops.add(&[("reason", cause.label())], cells.drops(cause) as f64);
        }
        self.push(drops);
    }

    fn tokens(&mut self, tokens: &Tokens) {
        let help = "Credentials that the token service handed out.";
        let mut issued = Series::counter("turn_tokens_issued_total", help);
        for dialect in Dialect::ALL {
            let labels = [("dialect", dialect.label())];
            issued.add(&labels, tokens.issued(dialect) as f64);
        }
        self.push(issued);
        let help = "Requests that the token service refused.";
        let mut refused = Series::counter("turn_tokens_refused_total", help);
        for reason in TokenRefusal::ALL {
            let labels = [("reason", reason.label())];
            refused.add(&labels, tokens.refused(reason) as f64);
        }
        self.push(refused);
    }

    fn workers(&mut self, snapshot: &Snapshot) {
        self.one_gauge(
            "turn_workers",
            "Workers that answered this scrape.",
            snapshot.workers as f64,
        );
        let restarts = "Workers started afresh after a panic.";
        self.one_counter(
            "turn_worker_restarts_total",
            restarts,
            snapshot.cells.restarts as f64,
        );
        let help = "Time on a processor, of each worker: one that is at 1 a second can do no more.";
        let mut family = Series::counter("turn_worker_cpu_seconds_total", help);
        for (number, time) in snapshot.processors.iter().enumerate() {
            let number = number.to_string();
            family.add(&[("worker", &number)], time.as_secs_f64());
        }
        if !snapshot.processors.is_empty() {
            self.push(family);
        }
    }

    fn server(&mut self, snapshot: &Snapshot, status: &Status) {
        let ports = snapshot.ports;
        self.one_gauge(
            "turn_port_pool_size",
            "Relay ports there are.",
            ports.total as f64,
        );
        self.one_gauge(
            "turn_port_pool_free",
            "Relay ports not in use.",
            ports.total.saturating_sub(ports.used) as f64,
        );
        self.one_gauge(
            "turn_peer_connections",
            "Connections between TCP relays and peers, in use or waiting for their client.",
            snapshot.peer_connections as f64,
        );
        let flag = |flag: bool| f64::from(u8::from(flag));
        let ready = status.ready.load(Ordering::Relaxed);
        self.one_gauge(
            "turn_ready",
            "1 while new calls are welcome; 0 while draining.",
            flag(ready),
        );
        let stale = status.config_stale.load(Ordering::Relaxed);
        self.one_gauge(
            "turn_config_stale",
            "1 if the last reload failed and older settings are in force.",
            flag(stale),
        );
        let end = status.certificate_end.load(Ordering::Relaxed);
        if end != 0 {
            self.one_gauge(
                "turn_tls_certificate_expiry_timestamp_seconds",
                "When the certificate in use ends.",
                end as f64,
            );
            let stale = status.certificate_stale.load(Ordering::Relaxed);
            let help = "1 if the certificate files changed to something that cannot be used.";
            self.one_gauge("turn_tls_certificate_stale", help, flag(stale));
        }
        let revocations = status.revocations.load(Ordering::Relaxed);
        self.one_gauge(
            "turn_revocations",
            "Revocations of credentials, users and tenants that are remembered.",
            revocations as f64,
        );
        let dropped = status.log_lines_dropped.load(Ordering::Relaxed);
        self.one_counter(
            "turn_log_lines_dropped_total",
            "Log lines that nobody read in time.",
            dropped as f64,
        );
        let lost = status.events_lost.load(Ordering::Relaxed);
        self.one_counter(
            "turn_events_lost_total",
            "Session events that nobody was told of: too many waited, or they were refused.",
            lost as f64,
        );
        let mut build = Series::gauge("turn_build_info", "The version that runs.");
        build.add(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
        self.push(build);
    }

    fn process(&mut self, started: i64) {
        for (name, help, value) in process::counters() {
            self.one_counter(name, help, value);
        }
        let help = "When the process started, in seconds since 1970.";
        self.one_gauge("process_start_time_seconds", help, started as f64);
        for (name, help, value) in process::gauges() {
            self.one_gauge(name, help, value);
        }
    }

    fn one_gauge(&mut self, name: &str, help: &str, value: f64) {
        let mut family = Series::gauge(name, help);
        family.add(&[], value);
        self.push(family);
    }

    fn one_counter(&mut self, name: &str, help: &str, value: f64) {
        let mut family = Series::counter(name, help);
        family.add(&[], value);
        self.push(family);
    }

    fn push(&mut self, family: Series) {
        self.families.push(family.0);
    }
}

/// A metric with its samples.
struct Series(MetricFamily);

impl Series {
    fn new(name: &str, help: &str, kind: MetricType) -> Self {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        Self(family)
    }

    fn gauge(name: &str, help: &str) -> Self {
        Self::new(name, help, MetricType::GAUGE)
    }

    fn counter(name: &str, help: &str) -> Self {
        Self::new(name, help, MetricType::COUNTER)
    }

    /// `counts` are of what is below each of the `bounds` and above the one before, and above the last.
    fn histogram(name: &str, help: &str, (bounds, counts): (&[f64], &[u64]), sum: f64) -> Self {
        let mut histogram = Histogram::default();
        let mut below = 0;
        let mut buckets = Vec::with_capacity(bounds.len());
        for (bound, count) in bounds.iter().zip(counts) {
            below += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(below);
            buckets.push(bucket);
        }
        histogram.set_bucket(buckets);
        histogram.set_sample_count(counts.iter().sum());
        histogram.set_sample_sum(sum);
        let mut metric = Metric::default();
        metric.set_histogram(histogram);
        let mut family = Self::new(name, help, MetricType::HISTOGRAM);
        family.0.set_metric(vec![metric]);
        family
    }

    fn add(&mut self, labels: Labels<'_>, value: f64) {
        let pairs = labels.iter().map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        });
        let mut metric = Metric::from_label(pairs.collect());
        if self.0.get_field_type() == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.0.mut_metric().push(metric);
    }
}

/// What became of Allocate requests.
pub(super) fn allocates(cells: &Cells) -> [(&'static str, u64); 3] {
    let mut results = [("granted", 0), ("challenged", 0), ("refused", 0)];
    for (_, code, count) in cells.answers().filter(|(method, ..)| *method == "allocate") {
        let result = match code {
            Some(0) => 0,
            Some(401 | 438) => 1,
            Some(_) | None => 2,
        };
        results[result].1 += count;
    }
    results
}

fn batches(cells: &Cells) -> Series {
    let bounds = BATCH_BOUNDS.map(|bound| bound as f64);
    Series::histogram(
        "turn_batch_size",
        "Packets that one receive call brought.",
        (&bounds, &cells.batches.calls),
        cells.batches.packets as f64,
    )
}

fn delays(cells: &Cells) -> Series {
    let bounds = DELAY_BOUNDS.map(|bound| bound.as_secs_f64());
    Series::histogram(
        "turn_forward_seconds",
        "From when a worker woke up to when it had sent what came in: of 61 rounds, one.",
        (&bounds, &cells.forward.rounds),
        cells.forward.sum.as_secs_f64(),
    )
}
