//! Who may know whom: the table that keeps the house in order.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A part of the crate, and the parts that it may name.
const LAYERS: &[(&str, &[&str])] = &[
    ("stun", &[]),
    ("turn", &["stun"]),
    ("metrics", &["stun", "turn"]),
    ("plane", &["stun", "turn", "metrics"]),
    ("events", &["plane", "turn"]),
    ("explain", &["stun", "turn"]),
    ("pages", &[]),
    (
        "http",
        &["explain", "metrics", "pages", "plane", "revocation", "turn"],
    ),
    ("probe", &["stun", "turn"]),
    ("revocation", &["plane", "turn"]),
    ("token", &["metrics", "pages", "revocation", "turn"]),
    (
        "config",
        &["events", "plane", "revocation", "token", "turn"],
    ),
    ("credential", &["plane", "turn"]),
    ("systemd", &["plane"]),
    (
        "daemon",
        &[
            "config",
            "credential",
            "events",
            "http",
            "metrics",
            "pages",
            "plane",
            "revocation",
            "systemd",
            "token",
            "turn",
        ],
    ),
    ("import", &["config", "turn"]),
    (
        "cli",
        &[
            "config",
            "credential",
            "daemon",
            "explain",
            "http",
            "import",
            "plane",
            "probe",
            "revocation",
            "token",
            "turn",
        ],
    ),
    ("main", &["cli"]),
];

/// What the two lowest layers never do: read a clock, wait, lock, open a socket, log.
const NOT_IN_THE_MACHINE: [&str; 10] = [
    "Instant::now",
    "SystemTime",
    "async ",
    "tracing",
    "tokio",
    "std::thread",
    "UdpSocket",
    "TcpStream",
    "Mutex",
    "RwLock",
];

/// The one lock: quotas are shared by all workers.
const HAS_THE_LOCK: &str = "turn/quota.rs";

#[test]
fn nobody_knows_those_above() {
    let mut seen = BTreeSet::new();
    for (file, part, text) in sources() {
        let (_, may) = LAYERS
            .iter()
            .find(|(name, _)| *name == part)
            .unwrap_or_else(|| panic!("{part} has no place in the table"));
        for named in parts_named(&text) {
            assert!(
                named == part || may.contains(&named.as_str()),
                "{file} names {named}; {part} may name {may:?}"
            );
        }
        seen.insert(part);
    }
    assert_eq!(
        seen.len(),
        LAYERS.len(),
        "the table names parts that are not there: {seen:?}"
    );
}

#[test]
fn the_machine_has_no_clock_no_socket_and_no_log() {
    for (file, part, text) in sources() {
        if !["stun", "turn", "metrics"].contains(&part.as_str()) {
            continue;
        }
        for word in NOT_IN_THE_MACHINE {
            let excepted = word == "Mutex" && file.ends_with(HAS_THE_LOCK);
            assert!(excepted || !text.contains(word), "{file} contains `{word}`");
        }
    }
}

#[test]
fn only_the_plane_is_unsafe() {
    for (file, part, text) in sources() {
        let is_unsafe =
            text.contains("unsafe {") || text.contains("unsafe fn") || text.contains("unsafe impl");
        assert!(!is_unsafe || part == "plane", "{file} is unsafe");
        assert!(
            !text.contains("allow(unsafe_code)") || file.contains("plane/udp"),
            "{file} allows unsafe code"
        );
    }
}

#[test]
fn no_function_is_excused_for_its_length() {
    for (file, _, text) in sources() {
        assert!(!text.contains("allow(clippy::too_many_lines)"), "{file}");
    }
}

#[test]
fn the_core_needs_nothing_of_the_server() {
    let tree = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--locked",
            "--no-default-features",
            "--edges",
            "normal",
            "--prefix",
            "none",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(
        tree.status.success(),
        "{}",
        String::from_utf8_lossy(&tree.stderr)
    );
    let text = String::from_utf8(tree.stdout).unwrap();
    let crates: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert!(
        crates.contains("hmac"),
        "this is the tree of the core: {text}"
    );
    for name in [
        "tokio",
        "mio",
        "socket2",
        "rustls",
        "tracing",
        "clap",
        "axum",
        "stun",
        "turn",
        "webrtc-util",
    ] {
        assert!(!crates.contains(name), "the core depends on {name}");
    }
}

#[test]
fn the_table_finds_what_it_is_to_find() {
    let text = "use crate::{config::Host, plane};\nuse crate::turn::Server;\nlet x = crate::http::bind();\nuse turnd::daemon;\n// crate::stun";
    let named: Vec<String> = parts_named(&code(text)).into_iter().collect();
    assert_eq!(named, ["config", "daemon", "http", "plane", "turn"]);
}

/// Every source file: its path, the part it belongs to, and its code without comments and tests.
fn sources() -> Vec<(String, String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(files.len() > 30, "the sources are there");
    let mut sources = Vec::new();
    for path in files {
        let inside = path.strip_prefix(&root).unwrap();
        let part = inside
            .components()
            .next()
            .unwrap()
            .as_os_str()
            .to_str()
            .unwrap();
        let part = part.strip_suffix(".rs").unwrap_or(part).to_owned();
        if part != "lib" {
            sources.push((
                path.display().to_string(),
                part,
                code(&fs::read_to_string(&path).unwrap()),
            ));
        }
    }
    sources
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The lines that are neither comments nor tests; tests stand at the end of their file.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The parts of the crate that some code names, each once.
fn parts_named(text: &str) -> BTreeSet<String> {
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let mut named = BTreeSet::new();
    for root in ["crate::", "turnd::"] {
        for (at, _) in text.match_indices(root) {
            if text[..at].ends_with(is_name) || text[..at].ends_with('$') {
                continue;
            }
            let rest = &text[at + root.len()..];
            let first = |text: &str| {
                text.trim()
                    .chars()
                    .take_while(|letter| is_name(*letter))
                    .collect::<String>()
            };
            match rest.strip_prefix('{') {
                // Inner braces hold names of the part, not parts.
                Some(group) => named.extend(group.split('}').next().unwrap().split(',').map(first)),
                None => named.extend([first(rest)]),
            }
        }
    }
    named.retain(|name| LAYERS.iter().any(|(part, _)| part == name));
    named
}
