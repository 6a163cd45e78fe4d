//! The Unix socket that the operator's commands come through: where it lies, and who may use it.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use tokio::net::unix::UCred;

/// Owner and group may use it.
const MODE: u32 = 0o660;
/// Everybody may knock. Who may come in is judged by what the kernel says of them.
const OPEN: u32 = 0o666;

/// Who may use the socket, beside root and the user that the server runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admitted {
    /// The user that the server runs as.
    pub own: u32,
    /// Other users.
    pub users: Vec<u32>,
    /// A group, whose members may.
    pub group: Option<u32>,
}

impl Admitted {
    /// Whether this peer is one of them.
    pub(super) fn admits(&self, peer: UCred) -> bool {
        let uid = peer.uid();
        uid == 0
            || uid == self.own
            || self.users.contains(&uid)
            || self
                .group
                .is_some_and(|group| group == peer.gid() || is_member(uid, group))
    }

    /// What the file says of it. A group of others could be given to it by few, and a user by nobody.
    fn mode(&self) -> u32 {
        let is_for_others = self.group.is_some() || !self.users.is_empty();
        if is_for_others { OPEN } else { MODE }
    }
}

/// Whether a user is in a group, if only as one of many. The kernel tells of a peer its first group alone.
fn is_member(uid: u32, group: u32) -> bool {
    let user = uzers::get_user_by_uid(uid);
    let groups = user.and_then(|user| uzers::get_user_groups(user.name(), user.primary_group_id()));
    groups.is_some_and(|groups| groups.iter().any(|one| one.gid() == group))
}

/// The socket.
#[derive(Debug)]
pub struct Socket {
    pub(super) listener: UnixListener,
    pub(super) admitted: Admitted,
}

/// The file of a socket. It is removed when this is let go of.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Socket {
    /// Opens it. What a server that has ended left behind is replaced; nothing else is.
    ///
    /// # Errors
    ///
    /// If another server listens there, if something else lies there, or if the kernel refuses.
    pub fn bind(path: &Path, admitted: Admitted) -> io::Result<(Self, SocketFile)> {
        make_way(path)?;
        let listener = UnixListener::bind(path)?;
        let file = SocketFile {
            path: path.to_owned(),
            inode: fs::symlink_metadata(path)?.ino(),
        };
        listener.set_nonblocking(true)?;
        fs::set_permissions(path, fs::Permissions::from_mode(admitted.mode()))?;
        Ok((Self { listener, admitted }, file))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another server may have taken the place since.
        if fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn make_way(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !found.file_type().is_socket() {
        let what = "there is a file that is not a socket";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another server listens there",
        )),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the file that says it, whoever is on this host.
    #[test]
    fn members_are_those_that_the_user_database_names() {
        assert!(is_member(0, 0) && !is_member(65_534, 0));
        assert!(!is_member(4_000_000_000, 0), "nobody is called that");
        let groups = fs::read_to_string("/etc/group").unwrap();
        for line in groups.lines() {
            let fields: Vec<&str> = line.split(':').collect();
            let [_, _, gid, members] = fields[..] else {
                continue;
            };
            for member in members.split(',') {
                if let Some(user) = uzers::get_user_by_name(member) {
                    assert!(is_member(user.uid(), gid.parse().unwrap()), "{line}");
                }
            }
        }
    }
}
