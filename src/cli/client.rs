//! The commands' side of the admin socket: finds it, asks, and says what is wrong when there is no answer.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use turnd::config::{self, Host, Sources};
use turnd::daemon::{EXIT_CONFIG, complain};
use turnd::http::admin::Problem;

/// Answers that take longer are given up.
const PATIENCE: Duration = Duration::from_secs(40);
/// A longer answer is not read.
const LONGEST_ANSWER: usize = 64 * 1024 * 1024;

const OWN_VERSION: &str = env!("CARGO_PKG_VERSION");

/// Which server is meant.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct At {
    /// The admin socket of the server; that of the configuration, or the customary one, without it
    #[arg(long, value_name = "PATH", help_heading = "Server")]
    socket: Option<PathBuf>,
}

impl At {
    /// Does something with the server that is meant. What goes wrong is told.
    pub(super) fn ask(
        self,
        sources: &Sources,
        ask: impl FnOnce(&Client) -> Result<ExitCode, Failure>,
    ) -> ExitCode {
        match Client::find(self.socket, sources).and_then(|client| ask(&client)) {
            Ok(code) => code,
            Err(failure) => {
                complain(&failure);
                failure.code()
            }
        }
    }
}

impl At {
    /// The same; where there is no server that could be asked, something else is done.
    pub(super) fn ask_or(
        self,
        sources: &Sources,
        ask: impl FnOnce(&Client) -> Result<ExitCode, Failure>,
        otherwise: impl FnOnce() -> ExitCode,
    ) -> ExitCode {
        match Client::find(self.socket.clone(), sources) {
            Err(Failure::Off | Failure::NoServer(_)) => otherwise(),
            Ok(_) | Err(_) => self.ask(sources, ask),
        }
    }

    /// The server that is meant; nothing if nobody listens where none was named, so that there is another way to look for.
    pub(super) fn reach(self, sources: &Sources) -> Result<Option<Client>, Failure> {
        let is_named = self.socket.is_some();
        match Client::find(self.socket, sources) {
            Ok(client) => Ok(Some(client)),
            Err(failure) if !is_named && failure.is_nobody() => Ok(None),
            Err(failure) => Err(failure),
        }
    }
}

/// Talks to a running server.
pub(super) struct Client {
    path: PathBuf,
    runtime: Runtime,
}

impl Client {
    /// The first place where a server listens.
    fn find(socket: Option<PathBuf>, sources: &Sources) -> Result<Self, Failure> {
        let places = match socket {
            Some(path) => vec![path],
            None => config::admin_sockets(sources, &Host::of_process())
                .map_err(|report| Failure::Config(report.to_string()))?,
        };
        if places.is_empty() {
            return Err(Failure::Off);
        }
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::NoAnswer(error.to_string()))?;
        let mut refused = Vec::new();
        for path in &places {
            let connected = runtime.block_on(UnixStream::connect(path));
            match connected {
                Ok(_) => {
                    let path = path.clone();
                    return Ok(Self { path, runtime });
                }
                Err(error) => refused.push((path.clone(), error)),
            }
        }
        Err(Failure::NoServer(refused))
    }

    /// What is there.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.ask(Method::GET, path, Bytes::new())
    }

    /// Takes away what is there.
    pub(super) fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.ask(Method::DELETE, path, Bytes::new())
    }

    /// Does something with what a body says.
    pub(super) fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let body =
            serde_json::to_vec(body).map_err(|error| Failure::NoAnswer(error.to_string()))?;
        self.ask(method, path, body.into())
    }

    /// Does something.
    pub(super) fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, Failure> {
        self.send(Method::POST, path, body)
    }

    /// Replaces what is there.
    pub(super) fn put<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, Failure> {
        self.send(Method::PUT, path, body)
    }

    /// What an answer says.
    pub(super) fn understood<T: DeserializeOwned>(answer: Value) -> Result<T, Failure> {
        let version = Some(OWN_VERSION.to_owned());
        serde_json::from_value(answer).map_err(|error| Failure::Strange(version, error.to_string()))
    }

    /// Lets some time pass.
    pub(super) fn wait(&self, time: Duration) {
        self.runtime
            .block_on(async { tokio::time::sleep(time).await });
    }

    fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, Failure> {
        let (status, version, body) = self.runtime.block_on(async {
            let asked = timeout(PATIENCE, self.exchange(method, path, body)).await;
            asked.map_err(|_| Failure::NoAnswer("it takes too long".to_owned()))?
        })?;
        if status.is_success() {
            let read = serde_json::from_slice(&body);
            return read.map_err(|error| Failure::Strange(version, error.to_string()));
        }
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Err(Failure::Refused(version, problem)),
            Err(_) => Err(Failure::Strange(version, status.to_string())),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Option<String>, Bytes), Failure> {
        let broken = |error: &dyn fmt::Display| Failure::NoAnswer(error.to_string());
        let stream = UnixStream::connect(&self.path).await;
        let stream = stream.map_err(|error| Failure::NoServer(vec![(self.path.clone(), error)]))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(&error))?;
        // It ends with the sender.
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| broken(&error))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| broken(&error))?;
        let (status, version) = (response.status(), version(&response));
        let body = Limited::new(response.into_body(), LONGEST_ANSWER)
            .collect()
            .await;
        let body = body.map_err(|error| broken(&error))?.to_bytes();
        drop(sender);
        let _ = connection.await;
        Ok((status, version, body))
    }
}

fn version<B>(response: &Response<B>) -> Option<String> {
    let server = response.headers().get(header::SERVER)?.to_str().ok()?;
    server.strip_prefix("turnd/").map(str::to_owned)
}

/// A text as a part of a query.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            quoted.push(char::from(byte));
        } else {
            quoted.push_str(&format!("%{byte:02X}"));
        }
    }
    quoted
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The configuration cannot be read.
    Config(String),
    /// The configuration says that there is no socket.
    Off,
    /// Nobody listens at any of these places.
    NoServer(Vec<(PathBuf, io::Error)>),
    /// Somebody does, and does not answer.
    NoAnswer(String),
    /// The server refuses.
    Refused(Option<String>, Problem),
    /// The server answers something that cannot be understood.
    Strange(Option<String>, String),
    /// This command can say for itself why not.
    Own(String),
}

impl Failure {
    /// The exit code of a command that fails so.
    pub(super) fn code(&self) -> ExitCode {
        match self {
            Self::Config(_) => ExitCode::from(EXIT_CONFIG),
            Self::Refused(_, problem) if !problem.errors.is_empty() => ExitCode::from(EXIT_CONFIG),
            Self::Off
            | Self::NoServer(_)
            | Self::NoAnswer(_)
            | Self::Refused(..)
            | Self::Strange(..)
            | Self::Own(_) => ExitCode::FAILURE,
        }
    }

    /// Whether there is no server to be asked, as opposed to one that may not be.
    fn is_nobody(&self) -> bool {
        let absent = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
        match self {
            Self::Off => true,
            Self::NoServer(places) => places
                .iter()
                .all(|(_, error)| absent.contains(&error.kind())),
            Self::Config(_)
            | Self::NoAnswer(_)
            | Self::Refused(..)
            | Self::Strange(..)
            | Self::Own(_) => false,
        }
    }

    /// Whether the server has nothing of this name.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused(_, problem) if problem.status == StatusCode::NOT_FOUND.as_u16())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(report) => f.write_str(report),
            Self::Off => write!(
                f,
                "error: the configuration switches the admin socket off\n = help: take socket = \"off\" out of [admin] and start the server anew"
            ),
            Self::NoServer(places) => no_server(f, places),
            Self::NoAnswer(why) => write!(
                f,
                "error: the server does not answer: {why}\n = help: `systemctl status turnd` and its log tell more"
            ),
            Self::Refused(version, problem) => {
                write!(f, "error: {}", problem.detail)?;
                for mistake in &problem.errors {
                    write!(f, "\n\nerror: {}", mistake.what)?;
                    if let Some(place) = &mistake.place {
                        write!(f, "\n  --> {place}")?;
                    }
                    write!(f, "\n = help: {}", mistake.remedy)?;
                }
                other_version(f, version.as_deref())
            }
            Self::Strange(version, what) => {
                write!(f, "error: the server's answer cannot be understood: {what}")?;
                other_version(f, version.as_deref())
            }
            Self::Own(what) => f.write_str(what),
        }
    }
}

fn other_version(f: &mut fmt::Formatter<'_>, version: Option<&str>) -> fmt::Result {
    match version {
        Some(OWN_VERSION) => Ok(()),
        Some(other) => write!(
            f,
            "\n = help: the server is turnd {other}, this command is {OWN_VERSION}: use the one that was installed with the server, or restart the server"
        ),
        None => write!(f, "\n = help: what listens at this socket is no turnd"),
    }
}

fn no_server(f: &mut fmt::Formatter<'_>, places: &[(PathBuf, io::Error)]) -> fmt::Result {
    let found = |kind| places.iter().find(|(_, error)| error.kind() == kind);
    let show = |path: &Path| path.display().to_string();
    if let Some((path, _)) = found(io::ErrorKind::PermissionDenied) {
        return write!(
            f,
            "error: you may not use {}\n = help: be root, as with sudo, or be named by [admin] users or group",
            show(path)
        );
    }
    if let Some((path, _)) = found(io::ErrorKind::ConnectionRefused) {
        return write!(
            f,
            "error: no server listens at {} any more\n = help: it has ended: `systemctl status turnd` tells why",
            show(path)
        );
    }
    write!(f, "error: no server is running here that could be asked")?;
    for (path, error) in places {
        write!(f, "\n  looked at {}: {error}", show(path))?;
    }
    write!(
        f,
        "\n = help: start it; or if it runs, say where its socket is: --socket PATH, or --config FILE"
    )
}
