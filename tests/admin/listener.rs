//! Talks to the seat through its listener.

use std::net::{SocketAddr, TcpStream};

use crate::seat::{Answer, exchange};
use crate::wire::PATIENCE;

/// Asks through the listener.
pub(crate) fn ask_http(address: SocketAddr, method: &str, path: &str, headers: &[&str]) -> Answer {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE * 3)).unwrap();
    exchange(stream, method, path, headers, "")
}
