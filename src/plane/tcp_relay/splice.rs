//! Two connections made one: what either side sends goes to the other, as it is (RFC 6062 §5.4).
//!
//! Each direction has one buffer and reads only when that is empty: a side that does not read makes the other
//! wait, and nothing else. An end is passed on as an end, and the other direction goes on without it
//! (\[6062-6\]); an error ends both.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, sleep, timeout};

use super::PeerConnection;
use super::connections::{Meter, Tie};
use crate::turn::{Allowance, Towards};

/// What is moved at a time, in each direction.
const BUFFER: usize = 32 * 1024;

/// How long nothing may happen.
#[derive(Clone, Copy)]
struct Patience {
    /// Until a side takes what there is for it.
    stalled: Duration,
    /// Until the other side comes to its end, when one has.
    half_closed: Duration,
}

const PATIENCE: Patience = Patience {
    stalled: Duration::from_secs(300),
    half_closed: Duration::from_secs(120),
};

/// Joins a client's connection to a peer's until both have ended, one of them breaks, or the allocation ends.
/// `early` is what the client has sent already.
pub(in crate::plane) async fn splice(
    reader: impl AsyncRead + Unpin,
    writer: impl AsyncWrite + Unpin,
    early: &[u8],
    peer: PeerConnection,
) {
    let (stream, tie) = peer.open();
    let Ok(stream) = tokio::net::TcpStream::from_std(stream) else {
        return;
    };
    let (from_peer, to_peer) = stream.into_split();
    // Whatever it was, the ends know as much as can be told them: both connections are closed now.
    let _ = join((reader, writer), (from_peer, to_peer), early, tie, PATIENCE).await;
}

async fn join(
    (from_client, to_client): (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    (from_peer, to_peer): (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    early: &[u8],
    tie: Tie,
    patience: Patience,
) -> io::Result<()> {
    let Tie {
        carried,
        mut cut,
        counted: _counted,
        allowance,
    } = tie;
    let Meter {
        to_peer: up_meter,
        to_client: down_meter,
    } = &*carried;
    let pace = |towards| Pace {
        allowance: allowance.as_deref(),
        towards,
    };
    let up = forward(
        from_client,
        to_peer,
        early,
        up_meter,
        (pace(Towards::Peer), patience.stalled),
    );
    let down = forward(
        from_peer,
        to_client,
        &[],
        down_meter,
        (pace(Towards::Client), patience.stalled),
    );
    tokio::pin!(up, down);
    tokio::select! {
        _ = &mut cut => Ok(()),
        ended = &mut up => {
            ended?;
            tokio::select! {
                _ = &mut cut => Ok(()),
                ended = &mut down => ended,
                () = idle(down_meter, patience.half_closed) => Ok(()),
            }
        }
        ended = &mut down => {
            ended?;
            tokio::select! {
                _ = &mut cut => Ok(()),
                ended = &mut up => ended,
                () = idle(up_meter, patience.half_closed) => Ok(()),
            }
        }
    }
}

/// Moves all that comes, and at last the end of it.
async fn forward(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    early: &[u8],
    meter: &AtomicU64,
    (pace, patience): (Pace<'_>, Duration),
) -> io::Result<()> {
    pace.keep(early.len()).await;
    write(&mut to, early, meter, patience).await?;
    let mut buffer = vec![0; BUFFER];
    loop {
        let most = pace.portion();
        match from.read(&mut buffer[..most]).await? {
            0 => return timeout(patience, to.shutdown()).await?,
            length => {
                pace.keep(length).await;
                write(&mut to, &buffer[..length], meter, patience).await?;
            }
        }
    }
}

/// How fast one direction may be. What is too fast is not read, so the kernel tells its sender to wait.
#[derive(Clone, Copy)]
struct Pace<'a> {
    allowance: Option<&'a Allowance>,
    towards: Towards,
}

impl Pace<'_> {
    /// How much is read at once.
    fn portion(self) -> usize {
        let most = self
            .allowance
            .map_or(BUFFER, |allowance| allowance.portion(self.towards));
        most.min(BUFFER)
    }

    /// Waits until so many bytes may pass.
    async fn keep(self, bytes: usize) {
        let Some(allowance) = self.allowance.filter(|_| bytes > 0) else {
            return;
        };
        while let Err(excess) = allowance.pass(self.towards, bytes, Instant::now().into_std()) {
            sleep(excess.wait).await;
        }
    }
}

/// Writes everything, however slowly it is taken, as long as it is taken.
async fn write(
    to: &mut (impl AsyncWrite + Unpin),
    mut bytes: &[u8],
    meter: &AtomicU64,
    patience: Duration,
) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = timeout(patience, to.write(bytes)).await??;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        meter.fetch_add(written as u64, Ordering::Relaxed);
        bytes = &bytes[written..];
    }
    // TLS keeps records in a buffer of its own until it is flushed.
    timeout(patience, to.flush()).await?
}

/// Ends when a meter has stood still for this long.
async fn idle(meter: &AtomicU64, patience: Duration) {
    let mut last = meter.load(Ordering::Relaxed);
    loop {
        sleep(patience).await;
        let now = meter.load(Ordering::Relaxed);
        if now == last {
            return;
        }
        last = now;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{DuplexStream, duplex, split};
    use tokio::sync::oneshot;

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);
    const NEVER: Duration = Duration::from_secs(3600);

    /// What joins the far ends of two pipes of 64 bytes: the client's, the peer's, the task's, and the tie's.
    struct Bench {
        client: DuplexStream,
        peer: DuplexStream,
        joined: tokio::task::JoinHandle<io::Result<()>>,
        tie: oneshot::Sender<std::convert::Infallible>,
        carried: Arc<Meter>,
    }

    fn bench(early: &'static [u8], patience: Patience) -> Bench {
        let ((client, near_client), (peer, near_peer)) = (duplex(64), duplex(64));
        let (tie, cut) = oneshot::channel();
        let carried = Arc::new(Meter::default());
        let tied = Tie {
            carried: Arc::clone(&carried),
            cut,
            counted: Arc::default(),
            allowance: None,
        };
        let joined = tokio::spawn(join(
            split(near_client),
            split(near_peer),
            early,
            tied,
            patience,
        ));
        Bench {
            client,
            peer,
            joined,
            tie,
            carried,
        }
    }

    #[tokio::test]
    async fn what_was_sent_early_goes_first_and_is_counted() {
        let mut bench = bench(b"early ", PATIENCE);
        bench.client.write_all(b"late").await.unwrap();
        bench.peer.write_all(b"answer").await.unwrap();
        let mut heard = [0; 10];
        bench.peer.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"early late");
        let mut heard = [0; 6];
        bench.client.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"answer");
        drop((bench.client, bench.peer));
        let _ = bench.joined.await.unwrap();
        assert_eq!(bench.carried.to_peer.load(Ordering::Relaxed), 10);
        assert_eq!(bench.carried.to_client.load(Ordering::Relaxed), 6);
    }

    #[tokio::test]
    async fn who_takes_nothing_for_too_long_ends_it() {
        let patience = Patience {
            stalled: SHORT,
            half_closed: NEVER,
        };
        let mut bench = bench(b"", patience);
        // More than the pipes hold, so that it ends by itself or never.
        let written = bench.client.write_all(&[7; 100_000]).await;
        assert!(written.is_err());
        let ended = bench.joined.await.unwrap().unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn the_second_end_may_take_its_time_as_long_as_something_comes() {
        let patience = Patience {
            stalled: NEVER,
            half_closed: SHORT,
        };
        let mut bench = bench(b"", patience);
        bench.client.shutdown().await.unwrap();
        assert_eq!(bench.peer.read(&mut [0; 1]).await.unwrap(), 0);
        bench.peer.write_all(b"still there").await.unwrap();
        let mut heard = Vec::new();
        bench.client.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"still there");
        bench.joined.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn an_allocation_that_ends_cuts_it() {
        let mut bench = bench(b"", PATIENCE);
        bench.client.write_all(b"x").await.unwrap();
        assert_eq!(bench.peer.read(&mut [0; 1]).await.unwrap(), 1);
        assert!(!bench.tie.is_closed());
        drop(bench.tie);
        assert_eq!(bench.client.read(&mut [0; 1]).await.unwrap(), 0);
        assert_eq!(bench.peer.read(&mut [0; 1]).await.unwrap(), 0);
        bench.joined.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_connection_that_has_ended_is_known_to_have() {
        let bench = bench(b"", PATIENCE);
        let mut tie = bench.tie;
        drop((bench.client, bench.peer));
        tie.closed().await;
    }
}
