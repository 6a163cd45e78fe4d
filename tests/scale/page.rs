//! The metrics page, and what is read from it.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::sync::oneshot;
use turnd::http::{self, Settings, Source, Status};
use turnd::metrics::Snapshot;
use turnd::plane::Handle;

use crate::wire::PATIENCE;

/// The pages of a plane, as the daemon serves them.
pub(crate) struct Pages {
    at: SocketAddr,
    stop: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Pages {
    pub(crate) fn of(plane: &Handle, workers: usize) -> Self {
        let plane = plane.clone();
        Self::made_of(workers, move || {
            let plane = plane.clone();
            async move { plane.snapshot().await }
        })
    }

    fn made_of<F>(workers: usize, ask: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Snapshot> + Send + 'static,
    {
        let (tell, told) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let serve = async move {
            let listen = "127.0.0.1:0".parse().unwrap();
            let listener = http::bind(Settings { listen }).await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            let status = Status {
                tokens: Some(Arc::default()),
                ..Status::default()
            };
            let source = Source::new(workers, Arc::new(status), ask);
            tokio::select! {
                served = http::serve(listener, source) => served.unwrap(),
                _ = stopped => {}
            }
        };
        let thread = thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.enable_all().build().unwrap().block_on(serve);
        });
        Self {
            at: told.recv().unwrap(),
            stop: Some((stop, thread)),
        }
    }

    pub(crate) fn metrics(&self) -> Page {
        Page::at(self.at).expect("the workers answer in time")
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.stop.take() {
            let _ = stop.send(());
            let _ = thread.join();
        }
    }
}

/// A page.
pub(crate) struct Page(String);

impl Page {
    /// That of a server whose workers have counted this.
    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        let snapshot = snapshot.clone();
        Pages::made_of(1, move || std::future::ready(snapshot.clone())).metrics()
    }

    /// That of a server; nothing if its workers do not answer in time.
    pub(crate) fn at(at: SocketAddr) -> Option<Self> {
        let mut stream = TcpStream::connect(at).unwrap();
        stream.set_read_timeout(Some(PATIENCE * 6)).unwrap();
        let request = "GET /metrics HTTP/1.1\r\nHost: turnd\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        if head.starts_with("HTTP/1.1 503 ") {
            return None;
        }
        assert!(head.starts_with("HTTP/1.1 200 "), "{text}");
        Some(Self(body.to_owned()))
    }

    /// Every name with its labels.
    pub(crate) fn series(&self) -> BTreeSet<&str> {
        let samples = self.0.lines().filter(|line| !line.starts_with('#'));
        let series: Vec<&str> = samples
            .map(|line| line.rsplit_once(' ').unwrap().0)
            .collect();
        let distinct: BTreeSet<&str> = series.iter().copied().collect();
        assert_eq!(distinct.len(), series.len(), "each is there once");
        distinct
    }

    /// The sum of all samples of a metric whose labels have this in them.
    pub(crate) fn sum(&self, name: &str, label: &str) -> u64 {
        let samples = self.0.lines().filter(|line| {
            let (own, labels) = line.split_once(['{', ' ']).unwrap_or_default();
            own == name && labels.contains(label)
        });
        let values = samples.map(|line| line.rsplit_once(' ').unwrap().1);
        values
            .map(|value| value.parse::<f64>().unwrap() as u64)
            .sum()
    }
}
