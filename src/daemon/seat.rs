//! The operator's seat: its doors are opened here, and it is given a thread of its own, so that whoever asks it for
//! much does not keep the watchdog waiting.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use tracing::{error, info, warn};
use zeroize::Zeroizing;

use super::{Refusal, remedy};
use crate::config::{Config, Host, Parts, Seat as Wanted, generate};
use crate::http::admin::{
    Admitted, Facts, Lock, Seat, Socket, SocketFile, serve_listener, serve_socket,
};

/// The port that the manual gives to the operator's listener.
const CUSTOMARY_PORT: u16 = 9642;

/// The doors to the seat.
#[derive(Default)]
pub(super) struct Doors {
    socket: Option<(Socket, SocketFile)>,
    listener: Option<(TcpListener, Lock)>,
}

/// Opens what the configuration asks for. A socket that it does not name is not worth failing for.
pub(super) fn open(wanted: &Wanted, host: &Host) -> Result<Doors, Refusal> {
    let mut doors = Doors::default();
    if let Some(path) = &wanted.socket {
        let admitted = Admitted {
            own: host.uid,
            users: wanted.users.clone(),
            group: wanted.group,
        };
        match bind(path, admitted, wanted.is_named) {
            Ok(socket) => {
                info!(socket = %path.display(), "the operator is listened for");
                doors.socket = Some(socket);
            }
            Err(error) if wanted.is_named => return Err(refusal(path, &error)),
            Err(error) => {
                let path = path.display();
                warn!(%path, %error, "there is no admin socket: `turnd status` and its like cannot be used");
            }
        }
    }
    if let Some((address, token)) = &wanted.listen {
        let listener = listen(*address)?;
        doors.listener = Some((listener, Lock::new(token.clone(), wanted.hosts.clone())));
    }
    Ok(doors)
}

/// A door for whoever started the server by hand: only this very host reaches it, its token is known to nobody else,
/// and both end with the server.
pub(super) struct OwnDoor {
    pub(super) address: SocketAddr,
    pub(super) token: Zeroizing<String>,
}

impl Doors {
    /// Opens such a door if there is none with a token yet. That it cannot be opened is no reason not to relay.
    pub(super) fn open_own(&mut self) -> Option<OwnDoor> {
        if self.listener.is_some() {
            return None;
        }
        let listener = [CUSTOMARY_PORT, 0]
            .into_iter()
            .find_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok())?;
        let address = listener.local_addr().ok()?;
        let token = generate().ok()?;
        let lock = Lock::new(Zeroizing::new(token.as_bytes().to_vec()), Vec::new());
        self.listener = Some((listener, lock));
        Some(OwnDoor { address, token })
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener, Refusal> {
    let bound = TcpListener::bind(address);
    bound.map_err(|error| Refusal::listen(&format!("{address} (admin)"), &error))
}

fn bind(path: &Path, admitted: Admitted, is_named: bool) -> io::Result<(Socket, SocketFile)> {
    if let (Some(directory), false) = (path.parent(), is_named) {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
    }
    Socket::bind(path, admitted)
}

fn refusal(path: &Path, error: &io::Error) -> Refusal {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the standard library's kinds are open"
    )]
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another turnd has it: give each a [admin] socket of its own, or write socket = \"off\""
        }
        io::ErrorKind::AlreadyExists => {
            "nothing but the socket of a server that has ended is replaced: name another path under [admin] socket"
        }
        io::ErrorKind::NotFound => {
            "make its directory, or leave the key out to have the socket lie where sockets lie"
        }
        io::ErrorKind::PermissionDenied => {
            "the server must be able to write to its directory, and to be in the [admin] group, if there is one"
        }
        _ => remedy(error),
    };
    Refusal {
        what: format!("cannot listen on {} (admin): {error}", path.display()),
        remedy: remedy.into(),
    }
}

/// Serves whoever comes through the doors, until the process ends. The file of the socket is to be kept until then.
pub(super) fn serve(doors: Doors, seat: Arc<Seat>) -> Option<SocketFile> {
    let Doors { socket, listener } = doors;
    let (socket, file) = socket.unzip();
    if socket.is_none() && listener.is_none() {
        return None;
    }
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let through_socket = async {
                match socket {
                    Some(socket) => serve_socket(socket, Arc::clone(&seat)).await,
                    None => Ok(()),
                }
            };
            let through_listener = async {
                match listener {
                    Some((listener, lock)) => {
                        serve_listener(listener, lock, Arc::clone(&seat)).await
                    }
                    None => Ok(()),
                }
            };
            tokio::try_join!(through_socket, through_listener)
        })?;
        io::Result::Ok(())
    };
    let run = move || {
        if let Err(error) = run() {
            error!(%error, "the operator cannot be listened for");
        }
    };
    if let Err(error) = thread::Builder::new().name("admin".to_owned()).spawn(run) {
        error!(%error, "the operator cannot be listened for");
    }
    file
}

/// What the seat shows of the configuration.
pub(super) fn facts(config: &Config, parts: &Parts) -> Facts {
    let listeners = parts.plane.listeners.iter();
    let relays = parts.plane.relay.addresses.iter();
    let users = config.auth.users.len();
    let secrets = parts.secrets.iter().map(|secret| secret.id().to_owned());
    Facts {
        listeners: listeners
            .map(|listen| (listen.transport, listen.address))
            .collect(),
        relays: relays.map(|relay| relay.advertised).collect(),
        secrets: secrets.collect(),
        users,
        log_level: config.log.level.clone(),
    }
}
