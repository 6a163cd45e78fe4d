//! What this host is like: its addresses, its user, its limits. Everything the configuration needs to know of the
//! outside is asked here, once, so that the rest can be tested without it.

use std::env;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, geteuid, getrlimit};
use socket2::{SockAddr, Socket, Type};

use super::secrets::{Secret, StateDirectory, generate};

/// `EADDRNOTAVAIL` and `EAFNOSUPPORT` of Linux.
const NO_SUCH_ADDRESS: [i32; 2] = [99, 97];

/// What this host is like. Not `Debug`: there is a key in it.
#[derive(Clone)]
pub struct Host {
    /// The user that the process runs as.
    pub uid: u32,
    /// The users of whom the kernel says who they are: all of them, but in a namespace of users.
    pub known_users: Vec<RangeInclusive<u32>>,
    /// Likewise the groups.
    pub known_groups: Vec<RangeInclusive<u32>>,
    /// Seconds since 1970.
    pub unix: i64,
    /// Cores to run on.
    pub cores: NonZeroUsize,
    /// How many descriptors the process may have at most.
    pub descriptors: u64,
    /// Can sockets of IPv6 be bound?
    pub has_ipv6: bool,
    /// Where the service manager puts credentials.
    pub credentials_directory: Option<PathBuf>,
    /// Where the server keeps what it made itself.
    pub state: StateDirectory,
    /// Where the service manager wants sockets to lie.
    pub runtime_directory: Option<PathBuf>,
    /// Random bytes of this process, for want of any that are kept.
    pub process_key: Secret,
}

impl Host {
    /// The host as this process sees it.
    pub fn of_process() -> Self {
        Self {
            uid: geteuid().as_raw(),
            known_users: mapped("/proc/self/uid_map"),
            known_groups: mapped("/proc/self/gid_map"),
            unix: unix_now(),
            cores: thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            descriptors: getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX),
            has_ipv6: Self::has_address(Ipv6Addr::LOCALHOST.into()),
            credentials_directory: env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from),
            state: StateDirectory::new(state_directory()),
            runtime_directory: first_of("RUNTIME_DIRECTORY"),
            process_key: generate()
                .map(|text| text.as_bytes().to_vec().into())
                .expect("the kernel gives random bytes"),
        }
    }

    /// The addresses that packets to the world leave from, at most one of each family.
    pub fn relay_addresses() -> Vec<IpAddr> {
        relay_addresses().0
    }

    /// Can a socket be bound to this address? In doubt, as when a unit forbids the port, the answer is yes.
    pub fn has_address(address: IpAddr) -> bool {
        match UdpSocket::bind((address, 0)) {
            Ok(_) => true,
            Err(error) => !NO_SUCH_ADDRESS.contains(&error.raw_os_error().unwrap_or(0)),
        }
    }
}

/// What a map of users or groups has (user_namespaces(7)); everything, if it cannot be read.
fn mapped(path: &str) -> Vec<RangeInclusive<u32>> {
    let Ok(text) = std::fs::read_to_string(path) else {
        return vec![0..=u32::MAX];
    };
    let ranges = text.lines().filter_map(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        let (first, _, count) = (numbers.next()?, numbers.next()?, numbers.next()?);
        let (first, count) = (first.ok()?, count.ok()?);
        Some(first..=first.saturating_add(count.checked_sub(1)?))
    });
    ranges.collect()
}

/// Seconds since 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "credentials and certificates are dated by the wall clock"
)]
pub fn unix_now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// The service manager's choice, else the user's, else the custom of the place.
fn state_directory() -> PathBuf {
    let given = |name: &str| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(first) = first_of("STATE_DIRECTORY") {
        return first;
    }
    given("XDG_STATE_HOME")
        .or_else(|| given("HOME").map(|home| home.join(".local/state")))
        .unwrap_or_else(|| PathBuf::from("/var/lib"))
        .join("turnd")
}

/// The first of the directories that the service manager has made for this purpose.
fn first_of(name: &str) -> Option<PathBuf> {
    let directories = env::var_os(name)?;
    env::split_paths(&directories).find(|path| path.is_absolute())
}

/// How the relay addresses were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundBy {
    /// Packets to the world leave from them.
    DefaultRoute,
    /// There is no way to the world; these are on some interface.
    Interface,
    /// There is no network: only programs on this host can be reached.
    Loopback,
}

/// Addresses to relay from, at most one of each family.
pub(super) fn relay_addresses() -> (Vec<IpAddr>, FoundBy) {
    // Addresses of documentation (RFC 5737, RFC 3849): nothing is sent there, only the route is looked up.
    let world = [
        IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)),
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    ];
    let routed: Vec<IpAddr> = world
        .into_iter()
        .filter_map(source_towards)
        .filter(is_useful)
        .collect();
    if !routed.is_empty() {
        return (routed, FoundBy::DefaultRoute);
    }
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let mut addresses: Vec<IpAddr> = interfaces
        .iter()
        .map(if_addrs::Interface::ip)
        .filter(is_useful)
        .collect();
    addresses.sort_by_key(IpAddr::is_ipv6);
    match addresses.first() {
        Some(first) => (vec![*first], FoundBy::Interface),
        None => (vec![IpAddr::V4(Ipv4Addr::LOCALHOST)], FoundBy::Loopback),
    }
}

/// The address that packets to `target` would leave from. Nothing is bound by name: a unit may forbid that.
fn source_towards(target: IpAddr) -> Option<IpAddr> {
    let target = SockAddr::from(SocketAddr::new(target, 9));
    let socket = Socket::new(target.domain(), Type::DGRAM, None).ok()?;
    socket.connect(&target).ok()?;
    Some(socket.local_addr().ok()?.as_socket()?.ip())
}

fn is_useful(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_unspecified() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unspecified() && !v6.is_unicast_link_local(),
    }
}
