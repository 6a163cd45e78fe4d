//! A second server, for clients that the first one sends away.

use std::fs;

use crate::rig::{Host, NAME, RELAY, Rig};

/// What the first server is configured with: every client is sent to the second one.
pub(crate) const ENTRY: &str = "[redirect]\nto = [\"10.99.0.1:3479\"]\nwhen = [\"always\"]\n";

/// Starts the second server, with the secret of the first, where both clients reach it.
pub(crate) fn start(rig: &Rig) {
    let config = format!(
        r#"
[server]
realm = "{NAME}"
[[listen]]
address = "{RELAY}:3479"
transport = "udp"
[[listen]]
address = "{RELAY}:3479"
transport = "tcp"
[relay]
addresses = ["{RELAY}"]
ports = "51000-51999"
[auth]
secrets = [{{ id = "main", file = "{dir}/secret" }}]
[peers]
allow = ["10.99.0.0/16"]
[metrics]
listen = "127.0.0.1:{PAGES}"
[revocation]
enabled = false
"#,
        dir = rig.dir().display()
    );
    fs::write(rig.dir().join(CONFIG), config).expect("the rig's directory is writable");
    rig.start(
        Host::S,
        env!("CARGO_BIN_EXE_turnd"),
        &["run", "--config", CONFIG],
    );
    let ready =
        "for i in $(seq 100); do : < /dev/tcp/10.99.0.1/3479 && exit 0; sleep 0.1; done; exit 1";
    rig.run(Host::S, "bash", &["-c", ready]);
}

/// Where the second server shows its metrics.
pub(crate) const PAGES: u16 = 9642;
const CONFIG: &str = "second.conf";
