//! A web server behind the relay's port, and curl before it.

use std::fs;

use crate::rig::{Host, NAME, Rig};

/// The port that calls and pages share.
pub(crate) const PORT: u16 = 8443;
/// What makes them.
pub(crate) const LISTEN: &str =
    "[[listen]]\naddress = \"0.0.0.0:8443\"\ntransport = \"tcp\"\nhttp = \"127.0.0.1:8080\"\n";
const PAGE: &str = "<p>a page</p>\n";

/// Starts Python's web server with one page, where only the relay's host reaches it.
pub(crate) fn start(rig: &Rig) {
    let site = rig.dir().join("site");
    fs::create_dir_all(&site).expect("the rig's directory is writable");
    fs::write(site.join("index.html"), PAGE).expect("the directory is writable");
    let site = site.display().to_string();
    let arguments = [
        "-m",
        "http.server",
        "--bind",
        "127.0.0.1",
        "--directory",
        &site,
        "8080",
    ];
    rig.start(Host::S, "python3", &arguments);
    let ready =
        "for i in $(seq 100); do : < /dev/tcp/127.0.0.1/8080 && exit 0; sleep 0.1; done; exit 1";
    rig.run(Host::S, "bash", &["-c", ready]);
}

/// Fetches the page as curl does it: with ALPN, without, and without TLS.
pub(crate) fn fetch(rig: &Rig, from: Host) {
    let authority = rig.dir().join("ca.pem").display().to_string();
    let curl = [
        "--silent",
        "--show-error",
        "--fail",
        "--max-time",
        "20",
        "--cacert",
        &authority,
    ];
    for (flags, scheme) in [
        (&[][..], "https"),
        (&["--no-alpn"], "https"),
        (&["--http1.1"], "https"),
        (&[], "http"),
    ] {
        let url = format!("{scheme}://{NAME}:{PORT}/");
        let page = rig.run(from, "curl", &[&curl[..], flags, &[&url]].concat());
        assert!(page.contains(PAGE), "{flags:?} {url}: {page}");
    }
}
