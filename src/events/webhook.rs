//! Posts events, signed, until they are taken or refused for good.
//!
//! The signature is that of the Standard Webhooks convention, which libraries of many languages check: an HMAC-SHA256
//! over the id, the time and the body.

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use rand::{
    RngExt as _, SeedableRng as _,
    rngs::{StdRng, SysRng},
};
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode};
use sha2::{Digest as _, Sha256};
use tokio::time::sleep;
use tracing::{info, warn};

use super::{Key, Webhook};

/// Events in one request.
const MOST: usize = 100;
/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Posts to one receiver.
pub(super) struct Deliverer {
    webhook: Webhook,
    client: Client,
}

impl Deliverer {
    pub(super) fn new(webhook: Webhook) -> io::Result<Self> {
        let client = Client::builder()
            .timeout(webhook.timeout)
            .redirect(Policy::none())
            .no_proxy()
            .user_agent(concat!("turnd/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(io::Error::other)?;
        Ok(Self { webhook, client })
    }

    /// Returns when each of the lines is delivered or refused; of those, `refused` is told.
    pub(super) async fn deliver_all(
        &self,
        lines: &[String],
        mut refused: impl FnMut(&str, StatusCode),
    ) {
        // The last of them is the next.
        let mut batches: Vec<&[String]> = lines.chunks(MOST).rev().collect();
        while let Some(batch) = batches.pop() {
            let body = format!("{{\"events\":[{}]}}", batch.join(","));
            match (self.deliver(&body).await, batch) {
                (Ok(()), _) => {}
                (Err(status), [line]) => refused(line, status),
                // One event that is not wanted takes no others with it.
                (Err(_), many) => {
                    let (first, rest) = many.split_at(many.len() / 2);
                    batches.extend([rest, first]);
                }
            }
        }
    }

    /// # Errors
    /// The answer by which it was refused.
    async fn deliver(&self, body: &str) -> Result<(), StatusCode> {
        let mut pause = self.webhook.retry;
        let mut tries = 1_u32;
        loop {
            match self.post(body).await {
                Ok(()) => {
                    if tries > 1 {
                        info!(tries, "the webhook of session events takes them again");
                    }
                    return Ok(());
                }
                Err(Failure::Refused(status)) => return Err(status),
                Err(Failure::Again(error)) => warn!(
                    tries,
                    again_in = pause.as_secs_f32(),
                    "the webhook of session events does not take them: {error}"
                ),
            }
            sleep(jittered(pause)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            tries = tries.saturating_add(1);
        }
    }

    async fn post(&self, body: &str) -> Result<(), Failure> {
        let id = id(body);
        let time = unix_now();
        let answer = self
            .client
            .post(&self.webhook.url)
            .header("content-type", "application/json")
            .header("webhook-id", &id)
            .header("webhook-timestamp", time)
            .header(
                "webhook-signature",
                sign(&self.webhook.secret, &id, time, body),
            )
            .body(body.to_owned())
            .send()
            .await
            // Without the URL: there may be a token in it.
            .map_err(|error| Failure::Again(reason(&error.without_url())))?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            StatusCode::GONE => {
                let what = "410: it is gone for good; take it out of the configuration";
                Err(Failure::Again(what.to_owned()))
            }
            status if status.is_client_error() && !SENDS_AWAY.contains(&status) => {
                Err(Failure::Refused(status))
            }
            status => Err(Failure::Again(format!("it answers {status}"))),
        }
    }
}

/// Answers that are about who asks, where or when, not about the events: later, or once somebody has mended the one end
/// or the other, they are taken.
const SENDS_AWAY: [StatusCode; 11] = [
    StatusCode::UNAUTHORIZED,
    StatusCode::PAYMENT_REQUIRED,
    StatusCode::FORBIDDEN,
    StatusCode::NOT_FOUND,
    StatusCode::METHOD_NOT_ALLOWED,
    StatusCode::PROXY_AUTHENTICATION_REQUIRED,
    StatusCode::REQUEST_TIMEOUT,
    StatusCode::GONE,
    StatusCode::MISDIRECTED_REQUEST,
    StatusCode::TOO_EARLY,
    StatusCode::TOO_MANY_REQUESTS,
];

/// Why events were not taken.
enum Failure {
    /// They may be the next time.
    Again(String),
    /// They never will.
    Refused(StatusCode),
}

/// An error with what is behind it.
pub(super) fn reason(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// The same for the same events: a receiver knows a repetition by it.
fn id(body: &str) -> String {
    let hash = Sha256::digest(body.as_bytes());
    let digits: String = hash
        .iter()
        .take(12)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("msg_{digits}")
}

/// `v1,` and the base64 of an HMAC-SHA256 over `id.time.body`.
fn sign(key: &Key, id: &str, time: u64, body: &str) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(&key.0).expect("an HMAC key has any length");
    let mac = mac.chain_update(format!("{id}.{time}.{body}"));
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

/// Half to one and a half of a pause, so that many servers do not come at once.
fn jittered(pause: Duration) -> Duration {
    let factor =
        StdRng::try_from_rng(&mut SysRng).map_or(1.0, |mut random| random.random_range(0.5..1.5));
    pause.mul_f64(factor)
}

#[expect(
    clippy::disallowed_methods,
    reason = "receivers refuse what was signed too long ago, by the wall clock"
)]
fn unix_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with `openssl dgst -sha256 -hmac north -binary | base64`.
    #[test]
    fn the_signature_is_that_of_standard_webhooks() {
        let key = Key(zeroize::Zeroizing::new(b"north".to_vec()));
        let signature = sign(&key, "msg_1", 1_800_000_000, "{}");
        assert_eq!(signature, SIGNATURE);
        assert_eq!(id("{}"), id("{}"));
        assert_ne!(id("{}"), id("{} "));
    }

    #[test]
    fn pauses_are_spread() {
        for _ in 0..100 {
            let pause = jittered(Duration::from_secs(2));
            assert!((1.0..3.0).contains(&pause.as_secs_f64()));
        }
    }

    const SIGNATURE: &str = "v1,DSXezdch+BRlytgpqkRDKm6zaI5p/ZAhi4creRFJBdI=";
}
