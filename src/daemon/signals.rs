//! The signals that the daemon obeys.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use tokio::signal::unix::{self, SignalKind};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// SIGHUP
    Reload,
    /// SIGTERM or SIGINT
    Stop,
}

/// The signals, from now on.
pub(super) struct Signals([(unix::Signal, Signal); 3]);

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self([
            (unix::signal(SignalKind::terminate())?, Signal::Stop),
            (unix::signal(SignalKind::interrupt())?, Signal::Stop),
            (unix::signal(SignalKind::hangup())?, Signal::Reload),
        ]))
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) -> Signal {
        poll_fn(|context| {
            let came = self.0.iter_mut().find_map(|(signal, meaning)| {
                signal.poll_recv(context).is_ready().then_some(*meaning)
            });
            came.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}
