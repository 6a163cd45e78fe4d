//! Watches a turnd as its operators do: a scraper of the metrics, and a dashboard with its live figures and its table of
//! sessions. It is far more eager than they are, and shares the generator's core.

use std::{
    error::Error,
    fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::Duration,
};

/// Prometheus asks every 15 seconds unless it is told otherwise, the dashboard for its table every three.
const SCRAPE_EVERY: Duration = Duration::from_millis(200);
/// Scrapes for each look at the table.
const SCRAPES_PER_TABLE: u32 = 2;
const PATIENCE: Duration = Duration::from_secs(5);
const TOKEN: &str = "watcher-watcher-watcher-watcher-watcher";

/// The doors through which a server is watched.
pub(crate) struct Doors {
    metrics: SocketAddr,
    admin: SocketAddr,
}

impl Doors {
    /// Takes two ports, and writes the token into `folder`.
    pub(crate) fn prepare(folder: &Path) -> io::Result<Self> {
        let mut options = fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(folder.join("token"))?;
        file.write_all(TOKEN.as_bytes())?;
        // Both are held until both are known, or they might be one.
        let taken = [free()?, free()?];
        Ok(Self {
            metrics: taken[0].local_addr()?,
            admin: taken[1].local_addr()?,
        })
    }

    /// What the server's configuration says of them.
    pub(crate) fn config(&self, folder: &Path) -> String {
        let (metrics, admin) = (self.metrics, self.admin);
        let token = folder.join("token");
        format!(
            "[metrics]\nlisten = \"{metrics}\"\n[admin]\nlisten = \"{admin}\"\ntoken_file = \"{}\"\n",
            token.display()
        )
    }
}

fn free() -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
}

/// Watches until it is told to stop.
pub(crate) struct Watcher {
    stop: Sender<()>,
    live: TcpStream,
    threads: [JoinHandle<io::Result<()>>; 2],
}

impl Watcher {
    pub(crate) fn start(doors: &Doors) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let live = ask(doors.admin, "/v1/live")?;
        let stream = live.try_clone()?;
        let (metrics, admin) = (doors.metrics, doors.admin);
        let threads = [
            thread::spawn(move || take_in(stream)),
            thread::spawn(move || {
                for round in 0.. {
                    if stopped.recv_timeout(SCRAPE_EVERY) != Err(RecvTimeoutError::Timeout) {
                        break;
                    }
                    take_in(ask(metrics, "/metrics")?)?;
                    if round % SCRAPES_PER_TABLE == 0 {
                        take_in(ask(admin, "/v1/sessions?limit=100")?)?;
                    }
                }
                Ok(())
            }),
        ];
        Ok(Self {
            stop,
            live,
            threads,
        })
    }

    /// Ends it. Whoever was not let see makes the run worth nothing.
    pub(crate) fn finish(self) -> Result<(), Box<dyn Error>> {
        drop(self.stop);
        self.live.shutdown(Shutdown::Both)?;
        for thread in self.threads {
            thread.join().map_err(|_| "a watcher panicked")??;
        }
        Ok(())
    }
}

fn ask(at: SocketAddr, path: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&at, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {at}\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
    )?;
    Ok(stream)
}

/// Reads an answer to its end, which must be the one that was hoped for.
fn take_in(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    let first = stream.read(&mut buffer)?;
    if !buffer[..first].starts_with(b"HTTP/1.1 200") {
        let line = String::from_utf8_lossy(&buffer[..first]);
        let line = line.lines().next().unwrap_or_default().to_owned();
        return Err(io::Error::other(format!("the watcher was told: {line}")));
    }
    while stream.read(&mut buffer)? > 0 {}
    Ok(())
}
