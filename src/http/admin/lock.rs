//! The lock of the HTTP listener: a token, and no page of somebody else.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header, uri::Authority};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::problem::Problem;
use super::serve::Known;

/// What opens the listener.
pub struct Lock {
    token: Zeroizing<Vec<u8>>,
    hosts: Vec<String>,
}

impl Lock {
    /// A lock that opens for who has the token and asks for one of the hosts, or for a bare address.
    pub fn new(token: Zeroizing<Vec<u8>>, hosts: Vec<String>) -> Self {
        Self { token, hosts }
    }

    /// # Errors
    /// Why not.
    fn open(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let host = text(headers, header::HOST).and_then(|host| host.parse::<Authority>().ok());
        let Some(host) = host.filter(|host| self.is_ours(host.host())) else {
            // A page of somebody else, whose name has been made to point here (DNS rebinding).
            let detail = "this is not the name of this server; ask for its address, or name it under [admin] hosts";
            return Err(Problem::new(StatusCode::FORBIDDEN, detail));
        };
        if headers.contains_key(header::ORIGIN) {
            let origin =
                text(headers, header::ORIGIN).and_then(|origin| origin.parse::<Uri>().ok());
            if origin.as_ref().and_then(Uri::authority) != Some(&host) {
                let detail = "a page of another site has asked for this";
                return Err(Problem::new(StatusCode::FORBIDDEN, detail));
            }
        }
        let given = text(headers, header::AUTHORIZATION).and_then(|given| {
            let (scheme, token) = given.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        let fits = given.is_some_and(|given| given.as_bytes().ct_eq(&self.token).into());
        if fits {
            return Ok(());
        }
        let detail = "send the token of [admin] token_file, as in `Authorization: Bearer TOKEN`";
        Err(Problem::new(StatusCode::UNAUTHORIZED, detail))
    }

    /// An address cannot be made to point elsewhere.
    fn is_ours(&self, host: &str) -> bool {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        bare.parse::<std::net::IpAddr>().is_ok()
            || host.eq_ignore_ascii_case("localhost")
            || self.hosts.iter().any(|own| own.eq_ignore_ascii_case(host))
    }
}

/// Lets through what opens the lock. Who is turned away is not kept waiting, and not kept.
pub(super) async fn guard(State(lock): State<Arc<Lock>>, request: Request, next: Next) -> Response {
    match lock.open(request.headers()) {
        Ok(()) => {
            if let Some(known) = request.extensions().get::<Known>() {
                known.set();
            }
            next.run(request).await
        }
        Err(problem) => {
            let challenge = (problem.status == StatusCode::UNAUTHORIZED)
                .then_some([(header::WWW_AUTHENTICATE, "Bearer realm=\"turnd admin\"")]);
            ([(header::CONNECTION, "close")], challenge, problem).into_response()
        }
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    let mut all = headers.get_all(name).iter();
    let first = all.next()?;
    // Two that differ are an attempt to be understood in two ways.
    if all.next().is_some() {
        return None;
    }
    first.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(headers: &[(&'static str, &str)]) -> u16 {
        let lock = Lock::new(
            Zeroizing::new(b"open sesame".to_vec()),
            vec!["turn.example.org".to_owned()],
        );
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        lock.open(&map)
            .map_or_else(|problem| problem.status, |()| 200)
    }

    const TOKEN: (&str, &str) = ("authorization", "Bearer open sesame");

    #[test]
    fn only_the_token_opens() {
        let host = ("host", "127.0.0.1:9642");
        assert_eq!(open(&[host, TOKEN]), 200);
        assert_eq!(open(&[host, ("authorization", "bearer open sesame")]), 200);
        for wrong in [
            "Bearer open",
            "Bearer open sesame!",
            "Bearer ",
            "Basic open sesame",
            "open sesame",
        ] {
            assert_eq!(open(&[host, ("authorization", wrong)]), 401, "{wrong}");
        }
        assert_eq!(open(&[host]), 401);
        assert_eq!(open(&[host, TOKEN, TOKEN]), 401);
    }

    #[test]
    fn only_our_own_names_are_answered_to() {
        for host in [
            "127.0.0.1",
            "[::1]:9642",
            "localhost:9642",
            "turn.example.org",
            "TURN.example.org:443",
        ] {
            assert_eq!(open(&[("host", host), TOKEN]), 200, "{host}");
        }
        for host in [
            "evil.example",
            "127.0.0.1.evil.example",
            "turn.example.org.evil.example",
            "",
        ] {
            assert_eq!(open(&[("host", host), TOKEN]), 403, "{host}");
        }
        assert_eq!(open(&[TOKEN]), 403);
        assert_eq!(
            open(&[("host", "localhost"), ("host", "evil.example"), TOKEN]),
            403
        );
    }

    #[test]
    fn pages_of_others_are_turned_away() {
        let host = ("host", "localhost:9642");
        assert_eq!(
            open(&[host, TOKEN, ("origin", "http://localhost:9642")]),
            200
        );
        for origin in [
            "http://evil.example",
            "http://localhost",
            "null",
            "http://localhost:9642.evil.example",
        ] {
            assert_eq!(open(&[host, TOKEN, ("origin", origin)]), 403, "{origin}");
        }
    }
}
