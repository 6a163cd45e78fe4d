//! One port for calls and web pages: a web server of a few lines behind the relay.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use turnd::plane::Web;
use turnd::turn::Transport;

use crate::wire::{Client, Plane, peer, receive_from};
use crate::{Trust, connect, is_closed, mapped, start, until};

/// A web server: `/hello` greets, `/slow` thinks a second, `/big` is large, and what is posted comes back.
struct Site {
    address: SocketAddr,
    /// Connections at the moment.
    here: Arc<AtomicUsize>,
}

const BIG: usize = 10 << 20;

impl Site {
    fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let here = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&here);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let here = Arc::clone(&counted);
                here.fetch_add(1, Ordering::Relaxed);
                thread::spawn(move || {
                    // However the client ends it, it has ended.
                    let _ = serve(stream);
                    here.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        Self { address, here }
    }
}

/// Requests one after the other, until the client has had enough or asks to close.
fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if reader.read_until(b'\n', &mut head)? == 0 {
                return Ok(());
            }
        }
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let length = head
            .split("content-length: ")
            .nth(1)
            .and_then(|rest| rest.split("\r\n").next());
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        reader.read_exact(&mut body)?;
        let body = match head.split(' ').nth(1).unwrap() {
            "/hello" => b"hello\n".to_vec(),
            "/slow" => {
                thread::park_timeout(Duration::from_secs(1));
                b"at last\n".to_vec()
            }
            "/big" => pattern(BIG),
            _ => body,
        };
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )?;
        stream.write_all(&body)?;
        if head.contains("connection: close") {
            return Ok(());
        }
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 + i / 251) as u8).collect()
}

/// A request and its answer's body.
fn fetch(stream: &mut (impl Read + Write), request: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("{request} HTTP/1.1\r\nHost: turn.test\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    stream.flush().unwrap();
    answer(stream)
}

fn answer(stream: &mut impl Read) -> Vec<u8> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(
            stream.read(&mut byte).unwrap(),
            1,
            "{}",
            head.escape_ascii()
        );
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let length = head
        .split("Content-Length: ")
        .nth(1)
        .unwrap()
        .split("\r\n")
        .next()
        .unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    body
}

fn with_site(transport: Transport) -> (Plane, Trust, Site) {
    let site = Site::open();
    let (plane, trust) = start(transport, |listen| {
        listen.web = Some(Web::Backend(site.address))
    });
    (plane, trust, site)
}

/// A call that hears itself through its relay.
struct Call(Client, std::net::UdpSocket, SocketAddr);

impl Call {
    fn new(mut client: Client) -> Self {
        let relayed = client.allocate();
        let peer = peer("127.0.0.2");
        assert_eq!(client.bind(0x4000, peer.local_addr().unwrap()).code(), 0);
        Self(client, peer, relayed)
    }

    /// How long it takes a word to come round.
    fn round(&mut self, word: &[u8]) -> Duration {
        #[expect(
            clippy::disallowed_methods,
            reason = "the time a call takes is what is measured"
        )]
        let start = Instant::now();
        self.0.send_channel(0x4000, word);
        assert_eq!(receive_from(&self.1), (word.to_vec(), self.2));
        self.1.send_to(word, self.2).unwrap();
        assert_eq!(self.0.receive_channel(), (0x4000, word.to_vec()));
        start.elapsed()
    }
}

/// \[ALPN\] With HTTP in the handshake, without any protocol, and without TLS: pages and calls on one port.
#[test]
fn alpn_pages_and_calls_share_a_port() {
    for transport in [Transport::Tls, Transport::Tcp] {
        let (plane, trust, _site) = with_site(transport);
        let mut call = Call::new(trust.client(plane.tcp));
        for (offered, chosen) in [
            (&["http/1.1"][..], Some(&b"http/1.1"[..])),
            (&["h2", "http/1.1"], Some(b"http/1.1")),
            (&[], None),
        ] {
            let mut tls = trust.connect(plane.tcp, offered).unwrap();
            assert_eq!(tls.conn.alpn_protocol(), chosen);
            // One connection carries many requests.
            for number in 0..3 {
                assert_eq!(fetch(&mut tls, "GET /hello", b""), b"hello\n");
                let posted = pattern(1000 * number);
                assert_eq!(fetch(&mut tls, "POST /echo", &posted), posted);
            }
            call.round(b"in between");
        }
        assert!(
            trust.connect(plane.tcp, &["h2"]).is_err(),
            "the backend may not speak it"
        );
        // Who says what protocol it wants gets that one, whatever it says then.
        let mut liar = trust.connect(plane.tcp, &["stun.turn"]).unwrap();
        liar.write_all(b"GET /hello HTTP/1.1\r\n\r\n").unwrap();
        is_closed(&mut liar);
        if transport == Transport::Tcp {
            let mut plain = connect(plane.tcp);
            assert_eq!(fetch(&mut plain, "GET /hello", b""), b"hello\n");
            mapped(&mut Client::tcp(plane.tcp));
        }
        call.round(b"at the end");
        until(&plane, |snapshot| {
            snapshot.cells.web.ok >= 3 && snapshot.cells.web.failed == 0
        });
    }
}

/// Whatever the cut, the request reaches the web server whole.
#[test]
fn a_request_may_be_cut_anywhere() {
    let (plane, trust, _site) = with_site(Transport::Tcp);
    let request = b"GET /hello HTTP/1.1\r\nHost: turn.test\r\n\r\n";
    for cut in 1..request.len() {
        let mut stream = connect(plane.tcp);
        stream.write_all(&request[..cut]).unwrap();
        thread::yield_now();
        stream.write_all(&request[cut..]).unwrap();
        assert_eq!(answer(&mut stream), b"hello\n", "cut at {cut}");
    }
    for cut in 1..8 {
        let mut tls = trust.connect(plane.tcp, &[]).unwrap();
        tls.write_all(&request[..cut]).unwrap();
        tls.flush().unwrap();
        tls.write_all(&request[cut..]).unwrap();
        assert_eq!(answer(&mut tls), b"hello\n", "cut at {cut}");
    }
}

/// Large pages arrive whole, and a call beside them does not wait for them.
#[test]
fn large_and_slow_pages_do_not_hold_up_calls() {
    let (plane, trust, _site) = with_site(Transport::Tls);
    let mut call = Call::new(trust.client(plane.tcp));
    let fetched = thread::scope(|scope| {
        let readers: Vec<_> = (0..4)
            .map(|number| {
                let (trust, server) = (trust.clone(), plane.tcp);
                scope.spawn(move || {
                    let mut tls = trust.connect(server, &["http/1.1"]).unwrap();
                    let page = if number == 0 { "GET /slow" } else { "GET /big" };
                    fetch(&mut tls, page, b"")
                })
            })
            .collect();
        let mut slowest = Duration::ZERO;
        while readers.iter().any(|reader| !reader.is_finished()) {
            slowest = slowest.max(call.round(b"meanwhile"));
        }
        assert!(slowest < Duration::from_secs(2), "a word took {slowest:?}");
        readers
            .into_iter()
            .map(|reader| reader.join().unwrap())
            .collect::<Vec<_>>()
    });
    assert_eq!(fetched[0], b"at last\n");
    assert!(fetched[1..].iter().all(|page| *page == pattern(BIG)));
    // And the other way.
    let mut tls = trust.connect(plane.tcp, &[]).unwrap();
    let posted = pattern(BIG / 2);
    let echoed = thread::scope(|scope| {
        scope
            .spawn(|| fetch(&mut tls, "POST /echo", &posted))
            .join()
            .unwrap()
    });
    assert!(echoed == posted);
}

/// The end of either side is the end of both, said properly.
#[test]
fn ends_are_passed_on() {
    let (plane, trust, site) = with_site(Transport::Tls);
    let mut tls = trust.connect(plane.tcp, &[]).unwrap();
    tls.write_all(b"GET /hello HTTP/1.1\r\nConnection: close\r\n\r\n")
        .unwrap();
    assert_eq!(answer(&mut tls), b"hello\n");
    assert_eq!(
        tls.read(&mut [0]).unwrap(),
        0,
        "close_notify, not a broken stream"
    );
    drop(tls);
    let mut plain = trust.connect(plane.tcp, &[]).unwrap();
    assert_eq!(fetch(&mut plain, "GET /hello", b""), b"hello\n");
    drop(plain);
    let gone = (0..500).any(|_| {
        thread::park_timeout(Duration::from_millis(20));
        site.here.load(Ordering::Relaxed) == 0
    });
    assert!(
        gone,
        "the web server keeps no connection of a client that is gone"
    );
}

/// A web server that is not there costs its clients a closed connection, and nobody else anything.
#[test]
fn a_dead_web_server_closes_web_clients_only() {
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let (plane, trust) = start(Transport::Tcp, |listen| {
        listen.web = Some(Web::Backend(nobody))
    });
    let mut call = Call::new(trust.client(plane.tcp));
    let mut tls = trust.connect(plane.tcp, &["http/1.1"]).unwrap();
    tls.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(
        tls.read(&mut [0]).unwrap(),
        0,
        "close_notify, not a broken stream"
    );
    let mut plain = connect(plane.tcp);
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    is_closed(&mut plain);
    call.round(b"still here");
}

/// A31: web clients have places of their own; however many they are, calls find theirs.
#[test]
fn a31_web_clients_are_few_and_take_no_places_from_calls() {
    let (plane, trust, site) = with_site(Transport::Tcp);
    let mut visitors: Vec<TcpStream> = (0..40)
        .map(|_| {
            let mut stream = connect(plane.tcp);
            stream.write_all(b"GET ").unwrap();
            stream
        })
        .collect();
    until(&plane, |snapshot| {
        let web = snapshot.cells.web;
        (web.ok, web.failed) == (32, 8)
    });
    let mut calls: Vec<Call> = (0..3).map(|_| Call::new(trust.client(plane.tcp))).collect();
    for call in &mut calls {
        call.round(b"calls go on");
    }
    let strangers: Vec<Client> = (0..60)
        .map(|_| {
            let mut stranger = Client::tcp(plane.tcp);
            mapped(&mut stranger);
            stranger
        })
        .collect();
    drop(strangers);
    // Places are free again when visitors leave.
    visitors.clear();
    let gone = (0..500).any(|_| {
        thread::park_timeout(Duration::from_millis(20));
        site.here.load(Ordering::Relaxed) == 0
    });
    assert!(gone);
    let mut next = connect(plane.tcp);
    assert_eq!(fetch(&mut next, "GET /hello", b""), b"hello\n");
}
