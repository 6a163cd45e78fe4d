//! `[admin]`: from names to the users, the files and the token of the operator's seat.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use super::assemble::Assembly;
use super::check::is_private;
use super::secrets::{SHORT_SECRET, Secret};
use super::{Admin, AdminSocket, Sources};

/// The kernel keeps so many bytes for the path of a socket, the last of them for itself.
pub(super) const LONGEST_SOCKET: usize = 108;
/// The name of the socket in its directory.
const SOCKET: &str = "admin.sock";
/// The runtime directory that the unit has made for the server.
const CUSTOMARY_DIRECTORY: &str = "/run/turnd";

/// What the operator's seat is told.
pub struct Seat {
    /// Where the socket lies.
    pub socket: Option<PathBuf>,
    /// Has the configuration named it? If it has not, the server runs without one if need be.
    pub is_named: bool,
    /// Users who may use it.
    pub users: Vec<u32>,
    /// The group that may use it.
    pub group: Option<u32>,
    /// Where else it listens, and what opens that.
    pub listen: Option<(SocketAddr, Secret)>,
    /// Names that this host is asked for by.
    pub hosts: Vec<String>,
}

/// Where the commands of the operator look for the socket of a running server: where the configuration says, or else
/// at each of the places where it may be.
///
/// # Errors
///
/// The report, if the configuration cannot be read, or says something wrong about this.
pub fn admin_sockets(sources: &Sources, host: &super::Host) -> Result<Vec<PathBuf>, super::Report> {
    let (config, report) = super::read(sources);
    if report
        .errors()
        .any(|problem| problem.key.is_empty() || problem.key == "admin.socket")
    {
        return Err(report);
    }
    Ok(match config.admin.socket {
        AdminSocket::At(path) => vec![path],
        AdminSocket::Off => Vec::new(),
        AdminSocket::Customary => {
            let mut places = vec![
                customary(host),
                PathBuf::from(CUSTOMARY_DIRECTORY).join(SOCKET),
            ];
            places.dedup();
            places
        }
    })
}

/// In the runtime directory of the service, or with what the server keeps.
fn customary(host: &super::Host) -> PathBuf {
    match &host.runtime_directory {
        Some(directory) => directory.join(SOCKET),
        None => host.state.path(SOCKET),
    }
}

impl Assembly<'_> {
    pub(super) fn admin(&mut self) -> Seat {
        let Admin {
            socket,
            group,
            users,
            listen,
            token_file,
            hosts,
        } = &self.config.admin;
        let group = group.as_ref().and_then(|name| self.group(name));
        let mut admitted: Vec<u32> = users.iter().filter_map(|name| self.user(name)).collect();
        self.check_visitors(group.as_ref().map(|(id, _)| *id), &admitted);
        admitted.extend(group.iter().flat_map(|(_, members)| members));
        // The kernel gives all whom it does not name the same number, which may be one of these.
        admitted.retain(|user| is_known(&self.host.known_users, *user));
        let group = group.filter(|(group, _)| is_known(&self.host.known_groups, *group));
        let token = token_file
            .as_ref()
            .and_then(|file| self.read_secret("admin.token_file", file));
        if let Some(token) = &token {
            self.check_admin_token(token);
        }
        if let Some(address) = listen
            && !address.ip().is_loopback()
        {
            let danger = if is_private(address.ip()) {
                "that network"
            } else {
                "the world"
            };
            let remedy = "listen on 127.0.0.1 and come by ssh, or put a proxy with TLS before it";
            let what =
                format!("the token and what is told go through {danger} unencrypted at {address}");
            self.warning("admin.listen", what, remedy);
        }
        if let AdminSocket::At(path) = socket
            && path.as_os_str().len() >= LONGEST_SOCKET
        {
            let length = path.as_os_str().len();
            let what = format!("this path has {length} bytes; that of a socket may have 107");
            self.error(
                "admin.socket",
                what,
                "name a shorter one, as in \"/run/turnd/admin.sock\"",
            );
        }
        Seat {
            socket: match socket {
                AdminSocket::At(path) => Some(path.clone()),
                AdminSocket::Customary => Some(customary(self.host)),
                AdminSocket::Off => None,
            },
            is_named: matches!(socket, AdminSocket::At(_)),
            users: admitted,
            group: group.map(|(id, _)| id),
            listen: listen.zip(token),
            hosts: hosts.clone(),
        }
    }

    /// Whether those who are named can come in at all.
    fn check_visitors(&mut self, group: Option<u32>, users: &[u32]) {
        if group.is_none() && users.iter().all(|user| *user == 0) {
            return;
        }
        let key = if users.is_empty() {
            "admin.group"
        } else {
            "admin.users"
        };
        let admin = &self.config.admin;
        if admin.socket == AdminSocket::Customary && self.host.runtime_directory.is_none() {
            let remedy = "name another place: socket = \"/run/turnd.sock\"";
            let what = "the socket lies in the state directory, which is closed to other users";
            self.warning(key, what, remedy);
        }
        let host = self.host;
        let unknown = [
            (
                "admin.users",
                users.iter().any(|user| !is_known(&host.known_users, *user)),
            ),
            (
                "admin.group",
                group.is_some_and(|group| !is_known(&host.known_groups, group)),
            ),
        ];
        for (key, _) in unknown.iter().filter(|(_, unknown)| *unknown) {
            let what = "the server cannot tell other users apart, so that they are turned away: it runs in a namespace of users of its own";
            let remedy =
                "under systemd, write PrivateUsers=no into a drop-in: systemctl edit turnd";
            self.warning(key, what, remedy);
        }
    }

    fn check_admin_token(&mut self, token: &Secret) {
        let remedy = "put another one into the file: `turnd genkey` prints a good one";
        if token.len() < SHORT_SECRET {
            let what = format!("this token has {} bytes: it can be guessed", token.len());
            self.error("admin.token_file", what, remedy);
        } else if !token.iter().all(u8::is_ascii_graphic) {
            let what = "this token has spaces or letters that cannot stand in a header of HTTP";
            self.error("admin.token_file", what, remedy);
        }
    }

    /// A group, and the users who are in it beside those whose own it is.
    fn group(&mut self, name: &str) -> Option<(u32, Vec<u32>)> {
        let found = match name.parse() {
            Ok(number) => uzers::get_group_by_gid(number).ok_or(Some(number)),
            Err(_) => uzers::get_group_by_name(name).ok_or(None),
        };
        match found {
            Ok(group) => {
                let members = uzers::os::unix::GroupExt::members(&group).iter();
                let members = members.filter_map(uzers::get_user_by_name);
                Some((group.gid(), members.map(|user| user.uid()).collect()))
            }
            // A number may be of a group that has no name here.
            Err(Some(number)) => Some((number, Vec::new())),
            Err(None) => {
                let what = format!("there is no group `{name}` on this host");
                self.error("admin.group", what, "make it: groupadd --system NAME");
                None
            }
        }
    }

    fn user(&mut self, name: &str) -> Option<u32> {
        let found = match name.parse() {
            Ok(number) => Some(number),
            Err(_) => uzers::get_user_by_name(name).map(|user| user.uid()),
        };
        if found.is_none() {
            let what = format!("there is no user `{name}` on this host");
            let remedy = "write a name as in /etc/passwd, or a number";
            self.error("admin.users", what, remedy);
        }
        found
    }
}

/// Whether the kernel says of this one who it is.
fn is_known(known: &[RangeInclusive<u32>], id: u32) -> bool {
    known.iter().any(|range| range.contains(&id))
}
