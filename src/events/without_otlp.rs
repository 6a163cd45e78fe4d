//! What stands where spans would be made, in a server that is built without the feature `otel`: nothing.

use std::future::Pending;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::{Otlp, Sighting};

/// There are none.
pub(super) enum Spans {}

impl Spans {
    /// # Errors
    /// Always.
    pub(super) fn new(_: &Otlp, _: bool, _: &Arc<AtomicU64>) -> io::Result<Self> {
        Err(io::Error::other(
            "there are no spans without the feature `otel`",
        ))
    }

    pub(super) fn take(&self, _: &Sighting) {
        match *self {}
    }

    pub(super) fn post(&self) -> Pending<()> {
        match *self {}
    }

    pub(super) fn emptied(&self) -> Pending<()> {
        match *self {}
    }

    pub(super) fn give_up(&self) {
        match *self {}
    }
}
