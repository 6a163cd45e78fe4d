//! How many credentials the token service hands out in a second: `turnd token` as a process, asked over connections that
//! are kept. The service has one thread, so what it does in a second of its own processor time is what one core does,
//! however many cores the clients leave it. The log is on, and goes nowhere.
//!
//! Goal: 5,000 a second.
#![allow(
    clippy::unwrap_used,
    reason = "a measurement ends where something is missing"
)]
#![allow(clippy::disallowed_methods, reason = "a measurement takes time")]
#![allow(clippy::print_stdout, reason = "it tells what it measured")]

#[path = "../tests/token/http.rs"]
mod http;

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const KEY: &str = "bench-bench-bench-bench-bench-bench";
const GOAL: f64 = 5000.0;
const CONNECTIONS: usize = 8;
const WARM_UP: Duration = Duration::from_millis(500);
const MEASURED: Duration = Duration::from_secs(5);
/// Of `/proc/PID/stat`, on every Linux there is.
const TICKS: f64 = 100.0;

fn main() {
    let place = Place::new();
    let at = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    place.write("secret", "north-north-north-north-north-north");
    place.write("key", KEY);
    let configuration = format!(
        "auth.secrets = [{{ id = 'k1', file = 'secret', claims = true }}]\n\
         [revocation]\nenabled = false\n\
         [token]\nlisten = ['http://{at}']\nper_subject = 0\nper_tenant = 0\n\
         urls = ['stun:turn.test:3478', 'turn:turn.test:3478?transport=udp', 'turns:turn.test:443?transport=tcp']\n\
         api_keys = [{{ id = 'bench', file = 'key', tenant = 'bench' }}]\n"
    );
    let file = place.write("turnd.toml", &configuration);
    let service = Service::start(&file, at);
    let (rate, by_core, slowest) = measure(&service, at);
    let verdict = if by_core >= GOAL { "reached" } else { "missed" };
    println!(
        "{rate:.0} credentials a second over {CONNECTIONS} connections, the slowest in {slowest:?}"
    );
    println!("{by_core:.0} for each second of processor time; the goal of {GOAL:.0} is {verdict}");
}

/// Credentials a second, credentials a second of processor time, and the longest wait.
fn measure(service: &Service, at: SocketAddr) -> (f64, f64, Duration) {
    let (counting, ended) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CONNECTIONS)
            .map(|number| {
                let (counting, ended) = (&counting, &ended);
                scope.spawn(move || ask(number, at, counting, ended))
            })
            .collect();
        thread::sleep(WARM_UP);
        counting.store(true, Ordering::Relaxed);
        let (start, busy) = (Instant::now(), service.processor_time());
        thread::sleep(MEASURED);
        ended.store(true, Ordering::Relaxed);
        let (elapsed, busy) = (start.elapsed(), service.processor_time() - busy);
        let results: Vec<(u32, Duration)> = clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .collect();
        let issued = f64::from(results.iter().map(|(count, _)| count).sum::<u32>());
        let slowest = results.iter().map(|(_, slowest)| *slowest).max().unwrap();
        (issued / elapsed.as_secs_f64(), issued / busy, slowest)
    })
}

/// One connection: a credential after the other, each for another user.
fn ask(
    number: usize,
    at: SocketAddr,
    counting: &AtomicBool,
    ended: &AtomicBool,
) -> (u32, Duration) {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_nodelay(true).unwrap();
    let bearer = format!("Bearer {KEY}");
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Content-Type", "application/json"),
    ];
    let (mut count, mut slowest, mut user) = (0, Duration::ZERO, 0_u64);
    while !ended.load(Ordering::Relaxed) {
        user += 1;
        let body = format!("{{\"user\":\"user-{number}-{user}\",\"ttl\":3600}}");
        let request = http::request("POST", "/v1/relay/credentials", &headers, body.as_bytes());
        let start = Instant::now();
        let reply = http::exchange(&mut stream, &request);
        assert_eq!(reply.status, 201, "{}", reply.body);
        if user == 1 {
            // What is counted is what clients can use.
            assert_eq!(reply.header("content-type"), Some("application/json"));
            let handed_out = reply.expect(201);
            assert!(handed_out["iceServers"][1]["credential"].is_string());
        }
        if counting.load(Ordering::Relaxed) {
            count += 1;
            slowest = slowest.max(start.elapsed());
        }
    }
    (count, slowest)
}

struct Service(Child);

impl Service {
    /// Starts it and waits until it answers.
    fn start(file: &Path, at: SocketAddr) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_turnd"))
            .args(["token", "--config"])
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let service = Self(child);
        let patience = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(at).is_err() {
            assert!(Instant::now() < patience, "turnd token does not start");
            thread::sleep(Duration::from_millis(20));
        }
        service
    }

    /// Seconds of processor time that it has used so far, its log included.
    fn processor_time(&self) -> f64 {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let fields: Vec<&str> = text.rsplit(')').next().unwrap().split(' ').collect();
        let ticks = |index: usize| fields[index].parse::<f64>().unwrap();
        // utime and stime, counted from behind the name.
        (ticks(12) + ticks(13)) / TICKS
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A directory of its own.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("turnd-bench-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
