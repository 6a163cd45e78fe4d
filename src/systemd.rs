//! The service manager: what it hands over, and what it wants to hear. Without one, all of this does nothing.

use std::io;
use std::time::Duration;

use listenfd::ListenFd;
use sd_notify::NotifyState;

use crate::plane::Adopted;

/// The sockets that the service manager opened for this process.
///
/// # Errors
///
/// If one of them is neither a UDP nor a listening TCP socket.
pub fn adopted() -> io::Result<Adopted> {
    let mut handed = ListenFd::from_env();
    let mut adopted = Adopted::default();
    for index in 0..handed.len() {
        // A socket of the other kind is an error and stays where it is.
        if let Ok(Some(socket)) = handed.take_udp_socket(index) {
            adopted.udp.push(socket);
        } else if let Ok(Some(socket)) = handed.take_tcp_listener(index) {
            adopted.tcp.push(socket);
        } else {
            let what =
                format!("socket {index} of the service manager is neither UDP nor listening TCP");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
    }
    Ok(adopted)
}

/// How often the service manager wants to hear that all is well, if it does: half of what it waits.
pub fn heartbeat() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|patience| patience / 2)
}

/// The server is ready, with a word on how it does.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// A reload has begun; [`ready`] ends it.
pub fn reloading() {
    // `Type=notify-reload` of systemd 253 wants the time with it; older ones pass over it.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// The server is about to end.
pub fn stopping(status: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// All is well.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// The end takes its time: do not lose patience before so long.
pub fn bear_with_me(patience: Duration) {
    let microseconds = u32::try_from(patience.as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::ExtendTimeoutUsec(microseconds)]);
}

/// A service manager that does not listen is no reason to stop.
fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}
