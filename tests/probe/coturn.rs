//! Somebody else's server: Debian's coturn, on addresses of its own.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::fake::Authority;
use crate::process::{Place, SECRET, free_address};
use crate::{Ended, Test, advice, step};

#[test]
fn coturn_is_found_to_work_over_every_transport() {
    let Some(coturn) = Coturn::start("allow-loopback-peers\n") else {
        return;
    };
    let (plain, secure) = (coturn.plain, coturn.secure);
    let urls = [
        format!("turn:{plain}?transport=udp"),
        format!("turn:{plain}?transport=tcp"),
        format!("turns:{secure}?transport=tcp"),
        format!("turns:{secure}?transport=udp"),
    ];
    let ended = coturn.test(&urls);
    assert_eq!(ended.code, 0, "{}", ended.all());
    let report = ended.json();
    for number in 0..urls.len() {
        let server = &report["urls"][number]["servers"][0];
        assert_eq!(step(server, "round-trip")["result"], "ok", "{server:#}");
        assert_eq!(step(server, "release")["result"], "ok", "{server:#}");
    }
    let challenge = step(&report["urls"][0]["servers"][0], "challenge");
    assert!(
        challenge["software"].as_str().unwrap().contains("Coturn"),
        "{challenge:#}"
    );
}

/// It has no relay of IPv4 for those who name no family, which is told; and names an empty address beside the other.
#[test]
fn coturn_of_ipv6_alone_is_tested_by_asking_for_ipv6() {
    let ip = "::1".parse().unwrap();
    let Some(coturn) = Coturn::start_at(ip, "allow-loopback-peers\n") else {
        return;
    };
    let ended = coturn.test(&[
        format!("turn:{}", coturn.plain),
        format!("turns:{}", coturn.secure),
    ]);
    assert_eq!(ended.code, 0, "{}", ended.all());
    for number in [0, 1] {
        let report = ended.json();
        let server = &report["urls"][number]["servers"][0];
        let relayed = step(server, "allocate")["relayed_addresses"].as_array();
        assert_eq!(relayed.map(Vec::len), Some(1), "{server:#}");
        assert_eq!(step(server, "round-trip")["result"], "ok", "{server:#}");
    }
}

#[test]
fn coturn_keeps_its_relays_from_loopback_and_that_is_no_failure() {
    let Some(coturn) = Coturn::start("") else {
        return;
    };
    let ended = coturn.test(&[format!("turn:{}", coturn.plain)]);
    assert_eq!(ended.code, 0, "{}", ended.all());
    let report = ended.json();
    let permission = step(&report["urls"][0]["servers"][0], "permission");
    assert_eq!(
        (&permission["result"], &permission["code"]),
        (&"note".into(), &403.into())
    );
}

#[test]
fn coturn_with_another_secret_is_told() {
    let Some(coturn) = Coturn::start("") else {
        return;
    };
    coturn.place.write("secret", "not the secret of the server");
    let ended = coturn.test(&[format!("turn:{}", coturn.plain)]);
    let allocate = ended.failed("allocate");
    assert_eq!(allocate["code"], 401);
    assert!(
        advice(&allocate).contains("does not know this secret"),
        "{allocate:#}"
    );
}

/// It shows its whole chain, over DTLS as over TLS; its own certificate alone would be nobody's.
#[test]
fn the_chain_of_coturn_is_believed_over_dtls() {
    let Some(coturn) = Coturn::start("allow-loopback-peers\n") else {
        return;
    };
    let ended = coturn.test(&[format!("turns:{}?transport=udp", coturn.secure)]);
    assert_eq!(ended.code, 0, "{}", ended.all());
    let report = ended.json();
    let connect = step(&report["urls"][0]["servers"][0], "connect");
    assert_eq!(
        connect["certificates"].as_array().unwrap().len(),
        2,
        "{connect:#}"
    );
    assert!(
        connect["cipher"]
            .as_str()
            .unwrap()
            .starts_with("TLS_ECDHE_"),
        "{connect:#}"
    );
}

/// Whoever is told the right secret with the wrong hash is told so: coturn signs what it says.
#[test]
fn coturn_with_another_hash_is_told() {
    let Some(coturn) = Coturn::start("") else {
        return;
    };
    let file = coturn.place.0.join("secret");
    let ended = Test::new()
        .flag("--secret-file", file.to_str().unwrap())
        .arg("--sha256")
        .arg(&format!("turn:{}", coturn.plain))
        .json();
    let allocate = ended.failed("allocate");
    assert!(
        advice(&allocate).contains("leave --sha256 out"),
        "{allocate:#}"
    );
}

struct Coturn {
    place: Place,
    plain: SocketAddr,
    secure: SocketAddr,
    process: Child,
}

impl Coturn {
    /// A server, or nothing where it is not installed.
    fn start(more: &str) -> Option<Self> {
        Self::start_at(IpAddr::from([127, 0, 0, 1]), more)
    }

    fn start_at(ip: IpAddr, more: &str) -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        if !std::env::split_paths(&path).any(|directory| directory.join("turnserver").is_file()) {
            let in_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
            assert!(!in_ci, "missing: turnserver; run .ci/install");
            eprintln!("SKIPPED: turnserver is not there, run .ci/install");
            return None;
        }
        let place = Place::new();
        let authority = Authority::new();
        let (chain, key) = authority.chain(&ip.to_string());
        place.write("ca.pem", &authority.pem);
        place.write("cert.pem", &chain);
        place.write("key.pem", &key);
        let [plain, secure] = [(); 2].map(|()| SocketAddr::new(ip, free_address().port()));
        let dir = place.0.display();
        let config = format!(
            "listening-ip={ip}\nrelay-ip={ip}\nlistening-port={}\ntls-listening-port={}\n\
             min-port=41000\nmax-port=41999\nuse-auth-secret\nstatic-auth-secret={SECRET}\nrealm=coturn.test\n\
             cert={dir}/cert.pem\npkey={dir}/key.pem\nno-cli\nlog-file=stdout\nuserdb={dir}/users\n\
             pidfile={dir}/pid\n{more}",
            plain.port(),
            secure.port()
        );
        let config = place.write("turnserver.conf", &config);
        let process = Command::new("turnserver")
            .arg("-c")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let coturn = Self {
            place,
            plain,
            secure,
            process,
        };
        // It says nothing when it is ready; its last listener is that of TLS.
        let ready = (0..200).any(|_| {
            let ready = TcpStream::connect(secure).is_ok();
            if !ready {
                thread::park_timeout(Duration::from_millis(50));
            }
            ready
        });
        assert!(ready, "turnserver does not listen at {secure}");
        Some(coturn)
    }

    fn test(&self, urls: &[String]) -> Ended {
        let file = |name: &str| self.place.0.join(name).display().to_string();
        let test = Test::new()
            .flag("--secret-file", &file("secret"))
            .flag("--ca", &file("ca.pem"))
            .flag("--count", "10")
            .flag("--timeout", "60s");
        urls.iter().fold(test, |test, url| test.arg(url)).json()
    }
}

impl Drop for Coturn {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
