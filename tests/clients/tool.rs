//! What the clients need that cargo does not bring.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Something that `.ci/install` installs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    /// coturn's server, the one that the rig itself is checked with.
    Coturn,
    /// coturn's load generator and probes.
    CoturnClients,
    /// A web client, and Python's web server.
    Web,
    /// The command of OpenSSL.
    OpenSsl,
    /// coturn's probe of NATs, and a NAT.
    NatDiscovery,
    /// Debian's browser, with Node, which drives it, and the certificate store's tool.
    Chromium,
    /// Python with aiortc.
    Aiortc,
    /// Node with libdatachannel and libjuice.
    Libjuice,
    /// A media server.
    Janus,
}

/// Tells whether all of `tools` and what every rig needs are there. When not, says so where it is seen even
/// though the test passes.
///
/// # Panics
///
/// With `CI=true`, where a skipped test would be a lie.
pub(crate) fn present(tools: &[Tool]) -> bool {
    let mut missing: Vec<String> = Vec::new();
    if !is_root() {
        missing.push("root, for the network namespaces".into());
    }
    let common = [
        command("ip"),
        command("setpriv"),
        command("timeout"),
        command("dnsmasq"),
    ];
    for (name, found) in common
        .into_iter()
        .chain(tools.iter().flat_map(|tool| tool.parts()))
    {
        if !found && !missing.contains(&name) {
            missing.push(name);
        }
    }
    if missing.is_empty() {
        return true;
    }
    let what = missing.join(", ");
    assert!(!in_ci(), "missing: {what}; run .ci/install");
    say_skipped(&format!("{what}, run .ci/install"));
    false
}

/// Says that this thread's test did not run.
pub(crate) fn say_skipped(why: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    // Not eprintln!, which is captured and then shown by failing tests only.
    _ = io::stderr().write_all(format!("SKIPPED: {why} ({test})\n").as_bytes());
}

/// Returns the directory that `.ci/install` puts packages in.
pub(crate) fn directory() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("cargo's own directory has a parent");
    target.join("clients")
}

/// Returns the directory of Debian's Janus with folders of modules, whatever architecture it is for.
pub(crate) fn janus_modules() -> Option<PathBuf> {
    let mut libraries = std::fs::read_dir("/usr/lib").ok()?;
    libraries.find_map(|entry| {
        let modules = entry.ok()?.path().join("janus");
        let echo = modules.join("plugins/libjanus_echotest.so");
        echo.is_file().then_some(modules)
    })
}

/// Returns the Python interpreter that has aiortc.
pub(crate) fn python() -> PathBuf {
    directory().join("venv/bin/python")
}

impl Tool {
    fn parts(self) -> Vec<(String, bool)> {
        match self {
            Self::Coturn => vec![command("turnserver")],
            Self::CoturnClients => vec![
                command("turnutils_uclient"),
                command("turnutils_stunclient"),
            ],
            Self::Web => vec![command("curl"), command("python3")],
            Self::OpenSsl => vec![command("openssl")],
            Self::NatDiscovery => vec![command("turnutils_natdiscovery"), command("nft")],
            Self::Chromium => vec![
                command("chromium"),
                command("node"),
                command("certutil"),
                (
                    "playwright-core".into(),
                    directory().join("node_modules/playwright-core").exists(),
                ),
            ],
            Self::Aiortc => vec![("aiortc".into(), python().exists())],
            Self::Libjuice => vec![
                command("node"),
                (
                    "node-datachannel".into(),
                    directory().join("node_modules/node-datachannel").exists(),
                ),
            ],
            Self::Janus => vec![
                command("janus"),
                ("modules of Janus".into(), janus_modules().is_some()),
            ],
        }
    }
}

fn command(name: &str) -> (String, bool) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    (
        name.to_owned(),
        std::env::split_paths(&path).any(|directory| directory.join(name).is_file()),
    )
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|data| data.uid() == 0)
}

fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| value == "true")
}
