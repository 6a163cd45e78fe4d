//! Drives relay servers through real sockets and compares them: turnd, an installed coturn, and a bare forwarder.
//!
//! `cargo bench --bench load` measures all; `cargo bench --bench load -- --help` tells how to measure less. Each server has
//! core 1 for itself, the generator core 0, and the servers take turns in every round, so that what disturbs the
//! machine disturbs all alike. The load is a closed loop: a fixed number of datagrams is kept in flight each way, so a server
//! is as busy as it can be and loses nothing for lack of room.

mod load {
    pub(crate) mod client;
    pub(crate) mod crowd;
    pub(crate) mod field;
    pub(crate) mod flows;
    pub(crate) mod forwarder;
    pub(crate) mod generator;
    pub(crate) mod measure;
    pub(crate) mod report;
    pub(crate) mod run;
    pub(crate) mod scenarios;
    pub(crate) mod servers;
    pub(crate) mod sys;
    pub(crate) mod watcher;
}

use std::{
    collections::HashMap,
    env,
    error::Error,
    fs,
    io::{self, Write},
    net::{SocketAddr, SocketAddrV4, ToSocketAddrs},
    path::PathBuf,
    process::ExitCode,
};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

use load::{
    report::{Record, Report},
    run,
    scenarios::{SCENARIOS, Scenario},
    servers::{self, Environment, Kind, Running, Server},
    sys,
};

/// Measures turnd, an installed coturn and a bare forwarder under load.
#[derive(Parser)]
#[command(name = "load")]
struct Options {
    /// How often everything is measured
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How long each load is kept up
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// One round of 0.3 seconds, to see that all works
    #[arg(long)]
    quick: bool,
    /// Only scenarios whose name contains one of these words
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Which servers; `watched` is turnd under the eyes of an eager scraper and dashboard
    #[arg(long, value_delimiter = ',', default_value = "turnd,coturn,forwarder")]
    servers: Vec<String>,
    /// Another build of turnd, measured beside the others
    #[arg(long, value_name = "PROGRAM")]
    baseline: Option<PathBuf>,
    /// A server on this machine's loopback that runs already, measured in turnd's place
    #[arg(long, requires = "secret_file", value_name = "HOST:PORT")]
    server_address: Option<String>,
    /// The shared secret of that server
    #[arg(long)]
    secret_file: Option<PathBuf>,
    /// The process of that server, for its processor time and memory
    #[arg(long)]
    server_pid: Option<u32>,
    /// Where the figures go besides the table
    #[arg(long, default_value = concat!(env!("CARGO_TARGET_TMPDIR"), "/../load.json"))]
    json: PathBuf,
    /// A socket technique of the bare forwarder, as name=value
    #[arg(long)]
    forwarder: Vec<String>,
    /// Names the scenarios
    #[arg(long)]
    list: bool,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1).peekable();
    let result = match arguments.peek().map(String::as_str) {
        Some(servers::FORWARDER) => load::forwarder::run(arguments.skip(1)),
        // Run without `--bench`, as `cargo test --all-targets` does, there is nothing to check.
        None => Ok(()),
        Some(_) => measure(&Options::parse()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> Result<(), Box<dyn Error>> {
    let scenarios: Vec<&Scenario> = SCENARIOS
        .iter()
        .filter(|scenario| chosen(scenario, &options.only))
        .collect();
    if options.list || scenarios.is_empty() {
        for scenario in &SCENARIOS {
            writeln!(io::stdout(), "{:<24}{}", scenario.id, scenario.title)?;
        }
        return if options.list {
            Ok(())
        } else {
            Err("no such scenario".into())
        };
    }
    sys::raise_descriptor_limit()?;
    sys::pin(servers::SERVER_CORE).map_err(|error| format!("two cores are needed: {error}"))?;
    sys::pin(servers::GENERATOR_CORE)?;
    let coturn = servers::find_coturn();
    let environment = Environment {
        coturn: coturn.as_ref().map(|(program, _)| program.clone()),
        baseline: options.baseline.clone(),
        running: running(options)?,
        forwarder_options: options.forwarder.clone(),
    };
    let kinds = kinds(options, &environment)?;
    let (rounds, seconds) = if options.quick {
        (1, 0.3)
    } else {
        (options.rounds.max(1), options.seconds)
    };
    let servers = kinds
        .iter()
        .map(|kind| {
            (
                *kind,
                title(*kind, coturn.as_ref().map(|(_, version)| version.as_str())),
            )
        })
        .collect();
    let mut report = Report {
        records: Vec::new(),
        servers,
        machine: machine(),
        rounds,
        seconds,
    };

    let nanoseconds = (seconds * 1e9) as u64;
    measure_all(&mut report, &scenarios, &kinds, &environment, nanoseconds)?;
    report.write_table(&mut io::stdout())?;
    fs::write(
        &options.json,
        serde_json::to_string_pretty(&report.to_json())?,
    )?;
    Ok(())
}

/// A word that is a scenario's whole name means only that one.
fn chosen(scenario: &Scenario, words: &[String]) -> bool {
    let is_name = |word: &str| SCENARIOS.iter().any(|scenario| scenario.id == word);
    words.is_empty()
        || words.iter().any(|word| {
            scenario.id == word || (!is_name(word) && scenario.id.contains(word.as_str()))
        })
}

fn measure_all(
    report: &mut Report,
    scenarios: &[&'static Scenario],
    kinds: &[Kind],
    environment: &Environment,
    nanoseconds: u64,
) -> Result<(), Box<dyn Error>> {
    let bar = ProgressBar::new((report.rounds * scenarios.len() * kinds.len()) as u64);
    bar.set_style(ProgressStyle::with_template(
        "{bar:30} {pos}/{len}  {elapsed} of about {duration}  {msg}",
    )?);
    let mut windows: HashMap<(&str, &str), Option<u64>> = HashMap::new();
    for round in 0..report.rounds {
        for scenario in scenarios {
            // Each round begins with another server: none is always the first on a cold, or the last on a warm, machine.
            for turn in 0..kinds.len() {
                let kind = kinds[(round + turn) % kinds.len()];
                bar.set_message(format!("{}: {}", scenario.id, kind.name()));
                if run::applies(scenario.load, kind)
                    && !(kind == Kind::Coturn && environment.coturn.is_none())
                {
                    let window = windows.entry((scenario.id, kind.name())).or_default();
                    let result = Server::start(kind, environment)
                        .and_then(|mut server| {
                            run::run(&mut server, scenario.load, nanoseconds, window)
                        })
                        .map_err(|error| error.to_string());
                    report.records.push(Record {
                        scenario: scenario.id,
                        server: kind,
                        round,
                        result,
                    });
                }
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    Ok(())
}

fn kinds(options: &Options, environment: &Environment) -> Result<Vec<Kind>, Box<dyn Error>> {
    let mut kinds = Vec::new();
    for name in &options.servers {
        let kind = Kind::parse(name)
            .ok_or_else(|| format!("no server {name}: turnd, watched, coturn, forwarder"))?;
        kinds.push(if kind == Kind::Turnd && environment.running.is_some() {
            Kind::Running
        } else {
            kind
        });
    }
    kinds.extend(environment.baseline.is_some().then_some(Kind::Baseline));
    Ok(kinds)
}

fn running(options: &Options) -> Result<Option<Running>, Box<dyn Error>> {
    let (Some(address), Some(file)) = (&options.server_address, &options.secret_file) else {
        return Ok(None);
    };
    let address = address
        .to_socket_addrs()?
        .find_map(loopback)
        .ok_or("the address must be one of 127.0.0.0/8")?;
    let secret = fs::read(file)?.trim_ascii().to_vec();
    Ok(Some(Running {
        address,
        secret,
        pid: options.server_pid,
    }))
}

/// The generator speaks for its clients from addresses of 127.0.0.0/8, so only there is a server that it reaches.
fn loopback(address: SocketAddr) -> Option<SocketAddrV4> {
    match address {
        SocketAddr::V4(address) if address.ip().is_loopback() => Some(address),
        SocketAddr::V4(_) | SocketAddr::V6(_) => None,
    }
}

fn title(kind: Kind, coturn_version: Option<&str>) -> String {
    match (kind, coturn_version) {
        (Kind::Turnd, _) => format!("turnd {}", env!("CARGO_PKG_VERSION")),
        (Kind::Coturn, Some(version)) => format!("coturn {version}"),
        _ => kind.name().to_owned(),
    }
}

fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let processors = read("/proc/cpuinfo");
    let model = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or_default();
    let count = processors
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    format!(
        "{count} x {}, Linux {}, plain loopback",
        model.trim_start_matches([' ', '\t', ':']),
        read("/proc/sys/kernel/osrelease").trim()
    )
}
