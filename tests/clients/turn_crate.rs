//! The client of the `turn` crate (Pion's lineage), which sends by indications until its channel is bound.

use std::any::Any;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::UdpSocket;
use turn::client::{Client, ClientConfig};
use webrtc_util::Conn;

use crate::inside::{ECHO, address, payload};
use crate::rig::{Host, RELAY};
use crate::server::Credential;

/// Allocates, and sends 200 datagrams to the echo.
///
/// # Panics
///
/// When one of them does not come back as it was, or indications or channels were not used both ways.
pub(crate) fn exchange(credential: &Credential) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let socket = UdpSocket::bind("10.99.1.2:0")
            .await
            .expect("the address is this host's");
        let wire = Arc::new(Wire {
            socket,
            sent: Counts::default(),
            received: Counts::default(),
        });
        let server = format!("{}:3478", Host::A.server());
        let client = Client::new(ClientConfig {
            stun_serv_addr: server.clone(),
            turn_serv_addr: server,
            username: credential.username.clone(),
            password: credential.password.clone(),
            realm: String::new(),
            software: String::new(),
            rto_in_ms: 0,
            conn: Arc::<Wire>::clone(&wire),
            vnet: None,
        });
        let client = client.await.expect("a client");
        client.listen().await.expect("it listens");
        let mapped = client
            .send_binding_request()
            .await
            .expect("a Binding response");
        assert_eq!(mapped, wire.socket.local_addr().expect("it is bound"));
        let relay = client.allocate().await.expect("an allocation");
        assert_eq!(
            relay
                .local_addr()
                .expect("a relayed address")
                .ip()
                .to_string(),
            RELAY
        );
        for number in 0..200 {
            let sent = payload(number);
            relay.send_to(&sent, address(ECHO)).await.expect("it sends");
            let mut buffer = [0; 2048];
            let reply =
                tokio::time::timeout(Duration::from_secs(5), relay.recv_from(&mut buffer)).await;
            let (length, from) = reply
                .unwrap_or_else(|_| panic!("datagram {number} lost: {wire:?}"))
                .expect("data");
            assert_eq!(from, address(ECHO));
            assert_eq!(&buffer[..length], &sent, "datagram {number} changed");
        }
        client.close().await.expect("it closes");
        for counts in [&wire.sent, &wire.received] {
            assert!(counts.messages.load(Ordering::Relaxed) > 0, "{wire:?}");
            assert!(counts.channels.load(Ordering::Relaxed) > 0, "{wire:?}");
        }
    });
}

/// A socket that counts what kinds of frames pass.
#[derive(Debug)]
struct Wire {
    socket: UdpSocket,
    sent: Counts,
    received: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    messages: AtomicUsize,
    channels: AtomicUsize,
}

impl Counts {
    fn count(&self, frame: &[u8]) {
        let is_channel = frame.first().is_some_and(|byte| byte >> 6 == 1);
        let counter = if is_channel {
            &self.channels
        } else {
            &self.messages
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, webrtc_util::Error>> + Send + 'a>>;

// Written out: the trait is an `async_trait`, of which this package needs no more than this.
impl Conn for Wire {
    fn connect<'a: 'f, 'f>(&'a self, server: SocketAddr) -> Answer<'f, ()> {
        Box::pin(async move { Ok(self.socket.connect(server).await?) })
    }

    fn recv<'a: 'f, 'b: 'f, 'f>(&'a self, buffer: &'b mut [u8]) -> Answer<'f, usize> {
        Box::pin(async move { Ok(self.recv_from(buffer).await?.0) })
    }

    fn recv_from<'a: 'f, 'b: 'f, 'f>(
        &'a self,
        buffer: &'b mut [u8],
    ) -> Answer<'f, (usize, SocketAddr)> {
        Box::pin(async move {
            let (length, from) = self.socket.recv_from(buffer).await?;
            self.received.count(&buffer[..length]);
            Ok((length, from))
        })
    }

    fn send<'a: 'f, 'b: 'f, 'f>(&'a self, frame: &'b [u8]) -> Answer<'f, usize> {
        Box::pin(async move { Ok(self.socket.send(frame).await?) })
    }

    fn send_to<'a: 'f, 'b: 'f, 'f>(&'a self, frame: &'b [u8], to: SocketAddr) -> Answer<'f, usize> {
        self.sent.count(frame);
        Box::pin(async move { Ok(self.socket.send_to(frame, to).await?) })
    }

    fn local_addr(&self) -> Result<SocketAddr, webrtc_util::Error> {
        Ok(self.socket.local_addr()?)
    }

    fn remote_addr(&self) -> Option<SocketAddr> {
        None
    }

    fn close<'a: 'f, 'f>(&'a self) -> Answer<'f, ()> {
        Box::pin(async { Ok(()) })
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync) {
        self
    }
}
