//! Where the service listens: TCP with TLS or without, or a Unix socket for a reverse proxy of this host.

use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

/// Connections that wait in the kernel.
const BACKLOG: i32 = 1024;
/// For this user and its group.
const MODE: u32 = 0o660;

/// A place to listen at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// HTTP without TLS, for behind a proxy.
    Http(SocketAddr),
    /// HTTP over TLS.
    Https(SocketAddr),
    /// HTTP at a socket in the file system.
    Unix(PathBuf),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(address) => write!(f, "http://{address}"),
            Self::Https(address) => write!(f, "https://{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Sockets that clients may connect to already.
#[derive(Debug)]
pub struct Listeners(pub(super) Vec<Bound>);

#[derive(Debug)]
pub(super) enum Bound {
    Tcp {
        socket: TcpListener,
        tls: bool,
    },
    Unix {
        socket: UnixListener,
        file: SocketFile,
    },
}

impl Listeners {
    /// Takes all places, so that a mistake shows at the start.
    ///
    /// # Errors
    /// The first that cannot be had, and why.
    pub fn bind(places: &[Listen]) -> Result<Self, (Listen, io::Error)> {
        let bound = places.iter().map(|place| {
            let bound = match place {
                Listen::Http(address) => tcp(*address, false),
                Listen::Https(address) => tcp(*address, true),
                Listen::Unix(path) => unix(path),
            };
            bound.map_err(|error| (place.clone(), error))
        });
        Ok(Self(bound.collect::<Result<_, _>>()?))
    }

    /// Where that is, for places that the kernel chose.
    pub fn addresses(&self) -> Vec<Listen> {
        let places = self.0.iter().filter_map(|bound| match bound {
            Bound::Tcp { socket, tls } => {
                let address = socket.local_addr().ok()?;
                Some(if *tls {
                    Listen::Https(address)
                } else {
                    Listen::Http(address)
                })
            }
            Bound::Unix { file, .. } => Some(Listen::Unix(file.path.clone())),
        });
        places.collect()
    }
}

fn tcp(address: SocketAddr, tls: bool) -> io::Result<Bound> {
    let socket = TcpListener::bind(address)?;
    socket.set_nonblocking(true)?;
    Ok(Bound::Tcp { socket, tls })
}

/// Nobody can connect before the mode is right: that takes `listen`, which comes last.
fn unix(path: &Path) -> io::Result<Bound> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::of(path)?;
    fs::set_permissions(path, Permissions::from_mode(MODE))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(Bound::Unix {
        socket: socket.into(),
        file,
    })
}

/// Takes away the socket of a process that has ended without doing so. What is no socket stays, and so do links and
/// sockets at which somebody listens.
fn remove_stale(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is a file of this name that is no socket",
        ));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) => Err(error),
    }
}

/// The file of a socket, which goes with it.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            identity: identity(path)?,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another server may have put its own in the place.
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use super::*;

    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("turnd-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn bind(path: &Path) -> io::Result<Listeners> {
        Listeners::bind(&[Listen::Unix(path.to_owned())]).map_err(|(_, error)| error)
    }

    #[test]
    fn a_socket_is_for_its_user_and_group_and_goes_at_the_end() {
        let place = Place::new("socket");
        let path = place.0.join("token.sock");
        let listeners = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o660);
        UnixStream::connect(&path).unwrap();
        assert_eq!(
            bind(&path).unwrap_err().kind(),
            io::ErrorKind::AddrInUse,
            "somebody listens there"
        );
        drop(listeners);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_left_of_the_dead_goes_and_what_is_of_others_stays() {
        let place = Place::new("stale");
        let path = place.0.join("token.sock");
        drop(UnixListener::bind(&path).unwrap());
        bind(&path).unwrap();

        let file = place.0.join("file");
        fs::write(&file, "of somebody").unwrap();
        bind(&file).unwrap_err();
        let link = place.0.join("link");
        let target = place.0.join("target.sock");
        drop(UnixListener::bind(&target).unwrap());
        symlink(&target, &link).unwrap();
        bind(&link).unwrap_err();
        assert!(target.exists() && link.is_symlink());
        assert_eq!(fs::read_to_string(&file).unwrap(), "of somebody");
    }

    #[test]
    fn the_file_of_a_successor_stays() {
        let place = Place::new("successor");
        let path = place.0.join("token.sock");
        let first = bind(&path).unwrap();
        fs::rename(&path, place.0.join("away")).unwrap();
        let second = bind(&path).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    }
}
