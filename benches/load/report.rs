//! The figures of all rounds as a table for people and as JSON for programs.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::{
    run::{Sample, Throughput},
    scenarios::{Load, SCENARIOS, Scenario},
    servers::Kind,
};

/// One run of one scenario against one server.
pub(crate) struct Record {
    pub(crate) scenario: &'static str,
    pub(crate) server: Kind,
    pub(crate) round: usize,
    pub(crate) result: Result<Sample, String>,
}

/// All that was measured, and on what.
pub(crate) struct Report {
    pub(crate) records: Vec<Record>,
    pub(crate) servers: Vec<(Kind, String)>,
    pub(crate) machine: String,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
}

/// Which figure the ratios of a scenario are made of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Basis {
    /// Every server was busy all the time: what it did is what it can do.
    PerSecond,
    /// Some server was not, or not alone on its core: what it did for each second of processor time.
    PerCpuSecond,
    /// The figure itself: bytes, microseconds, a ratio.
    Itself,
}

impl Report {
    pub(crate) fn write_table(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "\nturnd load benchmark: medians of {} rounds of {} s, servers in turn; server on core 1, generator on core 0",
            self.rounds, self.seconds
        )?;
        writeln!(out, "{}\n", self.machine)?;
        for scenario in self.measured() {
            self.write_scenario(out, scenario)?;
        }
        writeln!(
            out,
            "ns: processor time of the server for each packet. busy: share of the time that the server ran. idle: share of the time in\n\
             which the generator had nothing to send; where busy is near 100 % and idle above 0, the server set the rate. +-: half the\n\
             distance between the best and the worst round. Ratios are medians of the rounds' ratios, of packets/s where every\n\
             server was busy, else of packets per second of processor time; > 1 is better than the other. Loopback: the server pays\n\
             for receiving, sending and delivering what it sends; the generator pays for delivering to the server."
        )
    }

    fn measured(&self) -> impl Iterator<Item = &'static Scenario> {
        SCENARIOS.iter().filter(|scenario| {
            self.records
                .iter()
                .any(|record| record.scenario == scenario.id)
        })
    }

    fn write_scenario(&self, out: &mut impl Write, scenario: &Scenario) -> io::Result<()> {
        writeln!(out, "{}   [{}]", scenario.title, scenario.id)?;
        writeln!(
            out,
            "  {:<16}{}",
            "",
            self.headings(scenario.load).trim_end()
        )?;
        let basis = self.basis(scenario);
        for (kind, name) in &self.servers {
            let samples = self.samples(scenario, *kind);
            let line = if samples.is_empty() {
                self.complaint(scenario, *kind)
            } else {
                let comparison = self.comparison(scenario, *kind, basis);
                let limit = self.limit(scenario, *kind);
                let columns = columns(&samples, basis);
                format!("{columns}{limit}{comparison}{}", remark(&samples))
            };
            if let Some(line) = Some(line).filter(|line| !line.is_empty()) {
                writeln!(out, "  {name:<16}{}", line.trim_end())?;
            }
        }
        if basis == Basis::PerCpuSecond {
            writeln!(
                out,
                "  (ratios by processor time: not every server was busy all the time)"
            )?;
        }
        writeln!(out)
    }

    fn headings(&self, load: Load) -> String {
        let mut comparison = String::new();
        for (kind, title) in [
            (Kind::Coturn, "to coturn"),
            (Kind::Forwarder, "to forwarder"),
            (Kind::Turnd, "to turnd"),
        ] {
            if self.servers.iter().any(|(measured, _)| *measured == kind) {
                comparison += &format!("  {title:<COMPARISON$}");
            }
        }
        match load {
            Load::Bindings | Load::Cycles | Load::Relay(_) => {
                format!(
                    "{:>11}{:>11}{:>9}{:>9}{:>7}{:>7}{:>7}{comparison}",
                    "per s", "per CPU-s", "ns", "loss", "busy", "idle", "+-"
                )
            }
            Load::Channels => format!("{:>11}{:>11}{:>9}{:>7}", "1: ns", "64: ns", "times", "+-"),
            Load::Memory => format!("{:>11}{:>7}{comparison}", "bytes", "+-"),
            Load::Latency => format!(
                "{:>11}{:>11}{:>9}{:>7}{comparison}",
                "p50 us", "p99 us", "loss", "+-"
            ),
        }
    }

    /// Why there are no figures; empty where there should be none.
    fn complaint(&self, scenario: &Scenario, kind: Kind) -> String {
        let mut records = self
            .records
            .iter()
            .filter(|record| record.scenario == scenario.id && record.server == kind);
        match records.next() {
            Some(Record {
                result: Err(error), ..
            }) => format!("-  {error}"),
            _ if !super::run::applies(scenario.load, kind) => String::new(),
            _ => "not installed".to_owned(),
        }
    }

    fn samples(&self, scenario: &Scenario, kind: Kind) -> Vec<&Sample> {
        let records = self
            .records
            .iter()
            .filter(|record| record.scenario == scenario.id && record.server == kind);
        records
            .filter_map(|record| record.result.as_ref().ok())
            .collect()
    }

    fn basis(&self, scenario: &Scenario) -> Basis {
        let mut basis = Basis::Itself;
        for (kind, _) in &self.servers {
            let throughputs = throughputs(&self.samples(scenario, *kind));
            if throughputs.is_empty() {
                continue;
            }
            let busy = median(throughputs.iter().map(|throughput| throughput.busy));
            let known = throughputs
                .iter()
                .all(|throughput| throughput.nanoseconds > 0.0);
            if busy < NEARLY_ALL && known {
                return Basis::PerCpuSecond;
            }
            basis = Basis::PerSecond;
        }
        basis
    }

    /// The ratios to the other servers, and whether they reach the goal.
    fn comparison(&self, scenario: &Scenario, kind: Kind, basis: Basis) -> String {
        if let Load::Channels = scenario.load {
            return String::new();
        }
        let mut text = String::new();
        let goal = scenario.goal;
        for (other, goal) in [
            (Kind::Coturn, goal.to_coturn),
            (Kind::Forwarder, goal.to_forwarder),
            (Kind::Turnd, None),
        ] {
            if !self.servers.iter().any(|(kind, _)| *kind == other) {
                continue;
            }
            let ratio = self
                .ratio(scenario, kind, other, basis)
                .filter(|_| kind != other);
            let goal = goal.filter(|_| is_ours(kind));
            let cell = match (ratio, goal) {
                (Some(ratio), Some(goal)) => {
                    format!("{ratio:.2} x ({})", target(">=", goal, ratio >= goal))
                }
                (Some(ratio), None) => format!("{ratio:.2} x"),
                (None, _) => String::new(),
            };
            text += &format!("  {cell:<COMPARISON$}");
        }
        text
    }

    /// The goal for the figure itself, and whether it is reached.
    fn limit(&self, scenario: &Scenario, kind: Kind) -> String {
        let Some(most) = scenario.goal.at_most.filter(|_| is_ours(kind)) else {
            return String::new();
        };
        let figure = median(self.samples(scenario, kind).into_iter().map(itself));
        format!("  {}", target("<=", most, figure <= most))
    }

    /// How many times better a server is than another: the median over the rounds that both finished.
    fn ratio(&self, scenario: &Scenario, kind: Kind, other: Kind, basis: Basis) -> Option<f64> {
        let value = |kind: Kind, round: usize| {
            let mut records = self
                .records
                .iter()
                .filter(|record| record.scenario == scenario.id && record.round == round);
            let record = records.find(|record| record.server == kind)?;
            record
                .result
                .as_ref()
                .ok()
                .map(|sample| worth(sample, basis))
        };
        let ratios: Vec<f64> = (0..self.rounds)
            .filter_map(|round| Some(value(kind, round)? / value(other, round)?))
            .collect();
        (!ratios.is_empty()).then(|| median(ratios.into_iter()))
    }

    pub(crate) fn to_json(&self) -> Value {
        let scenarios: Vec<Value> = self
            .measured()
            .map(|scenario| self.scenario_json(scenario))
            .collect();
        json!({ "machine": self.machine, "rounds": self.rounds, "seconds": self.seconds, "scenarios": scenarios })
    }

    fn scenario_json(&self, scenario: &Scenario) -> Value {
        let basis = self.basis(scenario);
        let servers: Vec<Value> = self
            .servers
            .iter()
            .map(|(kind, name)| {
                let runs = self
                    .records
                    .iter()
                    .filter(|record| record.scenario == scenario.id && record.server == *kind);
                json!({
                    "server": name,
                    "median": median_json(&self.samples(scenario, *kind)),
                    "to_coturn": self.ratio(scenario, *kind, Kind::Coturn, basis),
                    "to_bare_forwarder": self.ratio(scenario, *kind, Kind::Forwarder, basis),
                    "to_turnd": self.ratio(scenario, *kind, Kind::Turnd, basis),
                    "runs": runs.map(run_json).collect::<Vec<_>>(),
                })
            })
            .collect();
        let goal = scenario.goal;
        json!({
            "id": scenario.id,
            "title": scenario.title,
            "goal": { "to_coturn": goal.to_coturn, "to_bare_forwarder": goal.to_forwarder, "at_most": goal.at_most },
            "ratios_of": match basis {
                Basis::PerSecond => "per_second",
                Basis::PerCpuSecond => "per_cpu_second",
                Basis::Itself => "figure",
            },
            "servers": servers,
        })
    }
}

/// How wide a ratio with its goal is.
const COMPARISON: usize = 24;
/// A server that ran for this share of the time was the bottleneck.
const NEARLY_ALL: f64 = 0.95;

/// What must be known to read a line right.
fn remark(samples: &[&Sample]) -> &'static str {
    let throughputs = throughputs(samples);
    let middle = |of: fn(&Throughput) -> f64| median(throughputs.iter().map(of));
    if throughputs.is_empty() {
        ""
    } else if middle(|one| one.delayed) > 0.05 {
        "  (disturbed: something else had the server's core)"
    } else if middle(|one| one.generator_idle) < 0.01 {
        "  (at least: the generator could send no more)"
    } else {
        ""
    }
}

fn target(relation: &str, goal: f64, met: bool) -> String {
    format!("{relation} {goal}: {}", if met { "met" } else { "MISSED" })
}

/// Whether the goals are for this server.
fn is_ours(kind: Kind) -> bool {
    matches!(kind, Kind::Turnd | Kind::Running)
}

fn columns(samples: &[&Sample], basis: Basis) -> String {
    let spread = format!(
        "{:>6.0}%",
        100.0 * spread(samples.iter().map(|sample| worth(sample, basis)))
    );
    let throughputs = throughputs(samples);
    let middle = |of: fn(&Throughput) -> f64| median(throughputs.iter().map(of));
    match samples[0] {
        Sample::Throughput(_) => {
            let nanoseconds = middle(|one| one.nanoseconds);
            let or_unknown = |text: String| {
                if nanoseconds > 0.0 {
                    text
                } else {
                    "-".to_owned()
                }
            };
            format!(
                "{:>11}{:>11}{:>9}{:>8.3}%{:>7}{:>6.0}%{spread}",
                grouped(middle(|one| one.per_second)),
                or_unknown(grouped(middle(Throughput::per_cpu_second))),
                or_unknown(grouped(nanoseconds)),
                100.0 * middle(|one| one.loss),
                or_unknown(format!("{:.0}%", 100.0 * middle(|one| one.busy))),
                100.0 * middle(|one| one.generator_idle),
            )
        }
        Sample::Channels { .. } => {
            let pairs = samples.iter().filter_map(|sample| {
                if let Sample::Channels { one, many } = sample {
                    Some((one, many))
                } else {
                    None
                }
            });
            let one = median(pairs.clone().map(|(one, _)| one.nanoseconds));
            let many = median(pairs.map(|(_, many)| many.nanoseconds));
            let times = median(samples.iter().map(|sample| itself(sample)));
            format!(
                "{:>11}{:>11}{times:>9.3}{spread}  ",
                grouped(one),
                grouped(many)
            )
        }
        Sample::Memory { .. } => format!(
            "{:>11}{spread}",
            grouped(median(samples.iter().map(|sample| itself(sample))))
        ),
        Sample::Latency { .. } => {
            let values = samples.iter().filter_map(|sample| {
                if let Sample::Latency { p50, p99, loss } = sample {
                    Some((*p50, *p99, *loss))
                } else {
                    None
                }
            });
            let (p50, p99, loss) = (
                median(values.clone().map(|value| value.0)),
                median(values.clone().map(|value| value.1)),
                median(values.map(|value| value.2)),
            );
            format!("{p50:>11.1}{p99:>11.1}{:>8.3}%{spread}", 100.0 * loss)
        }
    }
}

fn throughputs(samples: &[&Sample]) -> Vec<Throughput> {
    samples
        .iter()
        .filter_map(|sample| {
            if let Sample::Throughput(throughput) = sample {
                Some(*throughput)
            } else {
                None
            }
        })
        .collect()
}

/// The figure of a sample that its scenario is about.
fn itself(sample: &Sample) -> f64 {
    match sample {
        Sample::Throughput(throughput) => throughput.per_second,
        Sample::Channels { one, many } => many.nanoseconds / one.nanoseconds,
        Sample::Memory { bytes } => *bytes,
        Sample::Latency { p50, .. } => *p50,
    }
}

/// A number that is larger for the better server.
fn worth(sample: &Sample, basis: Basis) -> f64 {
    match (sample, basis) {
        (Sample::Throughput(throughput), Basis::PerCpuSecond) => throughput.per_cpu_second(),
        (Sample::Throughput(throughput), _) => throughput.per_second,
        (sample, _) => 1.0 / itself(sample).max(f64::MIN_POSITIVE),
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[odd / 2],
        even => f64::midpoint(values[even / 2 - 1], values[even / 2]),
    }
}

/// Half the distance between the extremes, as a share of the median.
fn spread(values: impl Iterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.collect();
    let (least, most) = values
        .iter()
        .fold((f64::MAX, 0.0_f64), |(least, most), &value| {
            (least.min(value), most.max(value))
        });
    let middle = median(values.into_iter());
    if middle > 0.0 {
        (most - least) / 2.0 / middle
    } else {
        0.0
    }
}

/// A whole number with its thousands apart.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn median_json(samples: &[&Sample]) -> Value {
    if samples.is_empty() {
        Value::Null
    } else {
        json!(median(samples.iter().map(|sample| itself(sample))))
    }
}

fn run_json(record: &Record) -> Value {
    match &record.result {
        Err(error) => json!({ "round": record.round, "error": error }),
        Ok(Sample::Throughput(throughput)) => {
            json!({ "round": record.round, "load": throughput_json(throughput) })
        }
        Ok(Sample::Channels { one, many }) => {
            json!({ "round": record.round, "one_channel": throughput_json(one), "many_channels": throughput_json(many) })
        }
        Ok(Sample::Memory { bytes }) => {
            json!({ "round": record.round, "bytes_per_allocation": bytes })
        }
        Ok(Sample::Latency { p50, p99, loss }) => {
            json!({ "round": record.round, "p50_us": p50, "p99_us": p99, "loss": loss })
        }
    }
}

fn throughput_json(throughput: &Throughput) -> Value {
    json!({
        "per_second": throughput.per_second,
        "per_cpu_second": throughput.per_cpu_second(),
        "nanoseconds_each": throughput.nanoseconds,
        "loss": throughput.loss,
        "server_busy": throughput.busy,
        "server_delayed": throughput.delayed,
        "generator_idle": throughput.generator_idle,
        "window": throughput.window,
    })
}
