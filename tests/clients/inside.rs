//! Runs a part of a test on one of the rig's hosts: this program once more, in that network namespace.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::process::Stdio;

use crate::rig::{Host, Rig};
use crate::server::{Credential, Server, Setup};

/// The addresses at which the echo on the second client's host is found.
pub(crate) const ECHO: &str = "10.99.2.2:3480";
/// The same over IPv6.
pub(crate) const ECHO6: &str = "[fd99:2::2]:3480";

/// Lets `client` talk through the server to an echo, on hosts that only the server connects.
///
/// `test` is the name of the test that calls this; it is run again on either host.
pub(crate) fn on_client_host(test: &str, client: fn(&Credential)) {
    let credential = Credential::lasting(3600);
    on_client_host_with(test, &Setup::default(), &credential, client);
}

/// The same with a server of another setup, which lets `credential` in.
pub(crate) fn on_client_host_with(
    test: &str,
    setup: &Setup,
    credential: &Credential,
    client: fn(&Credential),
) {
    match std::env::var(ROLE).as_deref() {
        Ok("echo") => return echo(),
        Ok(_) => {
            let variable = |name| std::env::var(name).expect("the outer run set it");
            client(&Credential {
                username: variable(USERNAME),
                password: variable(PASSWORD),
            });
            return say(DONE);
        }
        Err(_) => {}
    }
    let Some(rig) = Rig::new(Server::tools()) else {
        return;
    };
    let _server = Server::start_with(&rig, setup);
    let program = std::env::current_exe()
        .expect("this program has a path")
        .display()
        .to_string();
    let once_more = [program.as_str(), "--exact", test, "--nocapture"];

    let mut echo = rig.command(Host::B, &program);
    let mut echo = echo
        .args(&once_more[1..])
        .env(ROLE, "echo")
        .stdout(Stdio::piped())
        .spawn()
        .expect("setpriv exists");
    let lines = BufReader::new(echo.stdout.take().expect("it was piped")).lines();
    assert!(
        lines.map_while(Result::ok).any(|line| line.contains(READY)),
        "the echo did not start"
    );

    let Credential { username, password } = credential;
    let variables = [
        format!("{ROLE}=client"),
        format!("{USERNAME}={username}"),
        format!("{PASSWORD}={password}"),
        format!("{AUTHORITY}={}", rig.dir().join("ca.pem").display()),
    ];
    let arguments: Vec<&str> = variables
        .iter()
        .map(String::as_str)
        .chain(once_more)
        .collect();
    let output = rig.run(Host::A, "env", &arguments);
    // Exactly one test ran there, and to its end.
    assert!(output.contains(DONE), "{output}");
    _ = echo.kill();
    _ = echo.wait();
}

/// Sends every datagram back, until it is ended.
fn echo() {
    let sockets =
        [ECHO, ECHO6].map(|address| UdpSocket::bind(address).expect("the address is this host's"));
    let echoes = sockets.map(|socket| {
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                socket
                    .send_to(&buffer[..length], from)
                    .expect("the way back is open");
            }
        })
    });
    say(READY);
    for thread in echoes {
        thread.join().expect("an echo does not fail");
    }
}

/// Tells the outer run something.
fn say(line: &str) {
    writeln!(std::io::stdout(), "{line}").expect("the outer run listens");
}

/// Returns a datagram unlike the others.
pub(crate) fn payload(number: u8) -> Vec<u8> {
    (0..1000u16)
        .map(|index| number.wrapping_add(index.to_le_bytes()[0]))
        .collect()
}

/// Parses an address that is written in these tests.
pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address and port")
}

/// Names the file with the certificate of the rig's authority, for a client on its host.
pub(crate) const AUTHORITY: &str = "TURND_TEST_AUTHORITY";
const ROLE: &str = "TURND_TEST_ROLE";
const USERNAME: &str = "TURND_TEST_USERNAME";
const PASSWORD: &str = "TURND_TEST_PASSWORD";
const READY: &str = "the echo is ready";
const DONE: &str = "the client is content";
