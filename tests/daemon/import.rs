//! A server with the configuration that its predecessor had.

use std::fs;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};

use crate::process::{Start, certificate, free_address};
use crate::{handshake, login};

/// The shared secret that the homeserver has.
const SECRET: &str = "MARKER-hs-7Yw2kQ9tVx4Lr8Zp1Nd6";

#[test]
fn who_logged_in_to_coturn_logs_in_to_turnd() {
    let start = Start::with("");
    let place = start.place.0.clone();
    let trusted = certificate(&place, 2040);
    let tls = free_address();
    let directory = place.display().to_string();
    let old = include_str!("../import/matrix.conf")
        .replace(
            "/etc/letsencrypt/live/turn.example.org/fullchain.pem",
            &format!("{directory}/cert.pem"),
        )
        .replace(
            "/etc/letsencrypt/live/turn.example.org/privkey.pem",
            &format!("{directory}/key.pem"),
        );
    let here = format!(
        "listening-ip=127.0.0.1\nlistening-port={}\ntls-listening-port={}\nmin-port=40000\nmax-port=40999\n",
        start.udp.port(),
        tls.port()
    );
    let file = start.place.write("turnserver.conf", &(old + &here));
    fs::remove_file(place.join("turnd.toml")).unwrap();
    let imported = Command::new(env!("CARGO_BIN_EXE_turnd"))
        .args(["import", "coturn"])
        .arg(file)
        .arg("-o")
        .arg(place.join("turnd.toml"))
        .arg("--secrets-dir")
        .arg(place.join("secrets"))
        .output()
        .unwrap();
    // It opens an address of a private network, as it is told to.
    assert_eq!(
        imported.status.code(),
        Some(1),
        "{}",
        String::from_utf8_lossy(&imported.stderr)
    );
    let server = start.udp;
    let mut daemon = start.ready();
    let username = "4102444800:@ann:example.org";
    let password = |secret: &str| {
        let mac = <Hmac<sha1::Sha1>>::new_from_slice(secret.as_bytes()).unwrap();
        STANDARD.encode(mac.chain_update(username).finalize().into_bytes())
    };
    assert_eq!(login(server, username, &password(SECRET), 0), (0, 0));
    assert_eq!(login(server, username, &password("another one"), 0).0, 401);
    assert!(handshake(tls, &trusted));
    assert!(daemon.lives());
}
