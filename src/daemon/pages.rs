//! The listeners of the operators' pages, and who comes to them otherwise.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use super::{Refusal, first_run};
use crate::config::{Config, Sources};
use crate::http::{self, Source};
use crate::plane::Handle;

/// The listeners that are taken.
pub(super) struct Pages {
    metrics: Option<TcpListener>,
    /// Of a first run that has no other.
    self_test: Option<TcpListener>,
}

impl Pages {
    /// Takes the addresses, so that a mistake shows at the start.
    ///
    /// # Errors
    /// If that of the metrics cannot be bound.
    pub(super) async fn bind(sources: &Sources, config: &Config) -> Result<Self, Refusal> {
        let Some(listen) = config.metrics else {
            return Ok(Self {
                metrics: None,
                self_test: if first_run::is_this(sources) {
                    first_run::bind_self_test().await
                } else {
                    None
                },
            });
        };
        let bound = http::bind(http::Settings { listen }).await;
        bound
            .map(|listener| Self {
                metrics: Some(listener),
                self_test: None,
            })
            .map_err(|error| Refusal::listen(&format!("{listen} (metrics)"), &error))
    }

    /// Where the self-test is found.
    pub(super) fn self_test(&self) -> Option<SocketAddr> {
        let listener = self.metrics.as_ref().or(self.self_test.as_ref())?;
        listener.local_addr().ok()
    }

    /// Serves them, and the web clients of the relay's own listeners, beside what the caller does.
    pub(super) fn serve(self, source: Source, plane: &Handle) {
        if let Some(clients) = plane.web_clients() {
            tokio::spawn(http::serve_public(clients, source.clone()));
        }
        if let Some(listener) = self.metrics {
            tokio::spawn(http::serve(listener, source));
        }
        if let Some(listener) = self.self_test {
            tokio::spawn(http::serve_self_test(listener));
        }
    }
}
