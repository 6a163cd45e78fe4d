//! The keys that user tokens are signed with: one that is shared, public ones in a file, or a set behind a URL.
//!
//! The URL stands in the configuration and nowhere else: no token can make the service ask another place. It is
//! HTTPS, or on loopback; redirects are not followed; answers are few, short and soon.

use std::net::Ipv6Addr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use reqwest::{Client, Url, redirect};
use serde_json::Value;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

/// More keys than this are left out, and a longer set is none.
const MOST_KEYS: usize = 64;
const LONGEST_SET: usize = 256 * 1024;
/// How long the other side may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is asked, whoever sends tokens with keys that nobody knows; and if there was no answer.
const BETWEEN_FETCHES: Duration = Duration::from_secs(60);
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// When a set is asked for anew, so that keys that were taken out go. An older one than the second is not used.
const FRESH: Duration = Duration::from_secs(3600);
const STALE: Duration = Duration::from_secs(24 * 3600);

/// The keys of one issuer.
#[derive(Clone)]
pub struct KeySet(Source);

#[derive(Clone)]
enum Source {
    Shared(Arc<DecodingKey>),
    Public(Arc<[PublicKey]>),
    Remote(Arc<Remote>),
}

#[derive(Clone)]
struct PublicKey {
    kid: Option<String>,
    /// What it is for, if it says so.
    algorithm: Option<Algorithm>,
    key: DecodingKey,
}

/// Why there is no key for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoKey {
    /// The issuer has no such key.
    Unknown,
    /// Nobody knows: its keys cannot be had.
    Unavailable,
}

impl KeySet {
    /// A key that the issuer shares, for HS256, HS384 and HS512. Nobody can sign with a public key instead, for
    /// there is none.
    pub fn shared(secret: &[u8]) -> Self {
        Self(Source::Shared(Arc::new(DecodingKey::from_secret(secret))))
    }

    /// Public keys: a JSON Web Key Set (RFC 7517), or one key as PEM (SubjectPublicKeyInfo).
    pub fn public(text: &str) -> Option<Self> {
        let keys = if text.trim_start().starts_with('{') {
            parse_set(text.as_bytes())?
        } else {
            let pem = text.as_bytes();
            let key = DecodingKey::from_rsa_pem(pem)
                .or_else(|_| DecodingKey::from_ec_pem(pem))
                .or_else(|_| DecodingKey::from_ed_pem(pem))
                .ok()?;
            vec![PublicKey {
                kid: None,
                algorithm: None,
                key,
            }]
        };
        (!keys.is_empty()).then(|| Self(Source::Public(keys.into())))
    }

    /// A set behind a URL: HTTPS, or HTTP on loopback.
    pub fn remote(url: &str) -> Option<Self> {
        let url = Url::parse(url).ok()?;
        let is_loopback = match url.host_str()? {
            "127.0.0.1" | "localhost" => true,
            host => host
                .trim_matches(['[', ']'])
                .parse()
                .is_ok_and(|ip: Ipv6Addr| ip.is_loopback()),
        };
        let is_fit = url.scheme() == "https" || (url.scheme() == "http" && is_loopback);
        let says_more = !url.username().is_empty() || url.password().is_some();
        (is_fit && !says_more).then(|| {
            Self(Source::Remote(Arc::new(Remote {
                url,
                known: ArcSwapOption::empty(),
                asked: Arc::default(),
            })))
        })
    }

    /// The key that a token with this header is signed with.
    pub(super) async fn find(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<DecodingKey, NoKey> {
        match &self.0 {
            Source::Shared(key) if key.family() == algorithm.family() => Ok((**key).clone()),
            Source::Shared(_) => Err(NoKey::Unknown),
            Source::Public(keys) => choose(keys, kid, algorithm).ok_or(NoKey::Unknown),
            Source::Remote(remote) => remote.find(kid, algorithm).await,
        }
    }

    /// Whether the keys of both come from the same URL.
    pub(super) fn comes_from_where(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Source::Remote(one), Source::Remote(other)) => one.url == other.url,
            _ => false,
        }
    }

    /// Asks for the keys beforehand and from time to time, so that nobody has to wait for them. Ends when nobody has
    /// them any more.
    pub(super) fn keep_fresh(&self) -> impl Future<Output = ()> + Send + use<> {
        let remote = match &self.0 {
            Source::Remote(remote) => Arc::downgrade(remote),
            Source::Shared(_) | Source::Public(_) => Weak::new(),
        };
        async move {
            while let Some(remote) = remote.upgrade() {
                let due = remote.refresh().await;
                drop(remote);
                sleep(due).await;
            }
        }
    }
}

/// The one key that fits: with the token's `kid`, or the only one where either has none.
fn choose(keys: &[PublicKey], kid: Option<&str>, algorithm: Algorithm) -> Option<DecodingKey> {
    let fit = |key: &&PublicKey| {
        key.key.family() == algorithm.family() && key.algorithm.is_none_or(|only| only == algorithm)
    };
    let named = |key: &&PublicKey| kid.is_none() || key.kid.as_deref() == kid;
    let nameless = |key: &&PublicKey| key.kid.is_none();
    let mut fitting: Vec<_> = keys.iter().filter(fit).filter(named).collect();
    if fitting.is_empty() {
        fitting = keys.iter().filter(fit).filter(nameless).collect();
    }
    match fitting[..] {
        [key] => Some(key.key.clone()),
        _ => None,
    }
}

/// The usable keys of a set. A shared key in a set is left out: what anybody may fetch is no secret.
fn parse_set(text: &[u8]) -> Option<Vec<PublicKey>> {
    let set: Value = serde_json::from_slice(text).ok()?;
    let keys = set.get("keys")?.as_array()?;
    let usable = keys.iter().filter_map(|key| {
        let jwk: Jwk = serde_json::from_value(key.clone()).ok()?;
        if let AlgorithmParameters::OctetKey(_) = jwk.algorithm {
            return None;
        }
        if !matches!(
            jwk.common.public_key_use,
            None | Some(PublicKeyUse::Signature)
        ) {
            return None;
        }
        let algorithm = match jwk.common.key_algorithm {
            Some(algorithm) => Some(algorithm.try_into().ok()?),
            None => None,
        };
        Some(PublicKey {
            key: DecodingKey::from_jwk(&jwk).ok()?,
            kid: jwk.common.key_id,
            algorithm,
        })
    });
    Some(usable.take(MOST_KEYS).collect())
}

struct Remote {
    url: Url,
    known: ArcSwapOption<Known>,
    /// Held while it is asked.
    asked: Arc<Mutex<Option<Asked>>>,
}

struct Known {
    keys: Vec<PublicKey>,
    since: Instant,
}

impl Known {
    fn age(&self) -> Duration {
        self.since.elapsed()
    }
}

/// When it was asked last, and whether there was an answer.
#[derive(Clone, Copy)]
struct Asked {
    at: Instant,
    answered: bool,
}

impl Asked {
    /// How long it is until it may be asked again.
    fn pause(self, now: Instant) -> Duration {
        let pause = match self.answered {
            true => BETWEEN_FETCHES,
            false => AFTER_FAILURE,
        };
        pause.saturating_sub(now.saturating_duration_since(self.at))
    }
}

impl Remote {
    async fn find(
        self: &Arc<Self>,
        kid: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<DecodingKey, NoKey> {
        if let Some(key) = self.look(kid, algorithm) {
            return Ok(key);
        }
        self.fetch().await;
        match self.look(kid, algorithm) {
            Some(key) => Ok(key),
            None if self.age().is_some_and(|age| age < STALE) => Err(NoKey::Unknown),
            None => Err(NoKey::Unavailable),
        }
    }

    fn look(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<DecodingKey> {
        let known = self.known.load();
        let known = known.as_ref().filter(|known| known.age() < STALE)?;
        choose(&known.keys, kid, algorithm)
    }

    fn age(&self) -> Option<Duration> {
        self.known.load().as_ref().map(|known| known.age())
    }

    /// Asks for the set if what is known of it is not fresh, and tells when that will be so.
    async fn refresh(self: &Arc<Self>) -> Duration {
        let left = || FRESH.saturating_sub(self.age().unwrap_or(FRESH));
        if left().is_zero() {
            self.fetch().await;
        }
        left().max(AFTER_FAILURE)
    }

    /// Asks for the set, unless that was done a moment ago. Others who want it wait for the same answer.
    async fn fetch(self: &Arc<Self>) {
        let asked = Arc::clone(&self.asked).lock_owned().await;
        if asked.is_some_and(|asked| !asked.pause(Instant::now()).is_zero()) {
            return;
        }
        // Whoever wanted it may go away: the others want it, too.
        let _ = tokio::spawn(Arc::clone(self).fetch_now(asked)).await;
    }

    async fn fetch_now(self: Arc<Self>, mut asked: OwnedMutexGuard<Option<Asked>>) {
        let answer = self.ask().await;
        let at = Instant::now();
        *asked = Some(Asked {
            at,
            answered: answer.is_ok(),
        });
        match answer {
            Ok(keys) => {
                info!(url = %self.url, keys = keys.len(), "the issuer's keys have come");
                self.known.store(Some(Arc::new(Known { keys, since: at })));
            }
            Err(error) => warn!(url = %self.url, "the issuer's keys cannot be had: {error}"),
        }
    }

    async fn ask(&self) -> Result<Vec<PublicKey>, String> {
        let said = |error: reqwest::Error| error.without_url().to_string();
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .timeout(PATIENCE)
            .no_proxy()
            .https_only(self.url.scheme() == "https")
            .user_agent("turnd")
            .build()
            .map_err(said)?;
        let mut answer = client.get(self.url.clone()).send().await.map_err(said)?;
        if answer.status() != reqwest::StatusCode::OK {
            return Err(format!("the answer is {}", answer.status()));
        }
        let mut text = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(said)? {
            if text.len() + piece.len() > LONGEST_SET {
                return Err("the answer is too long".to_owned());
            }
            text.extend_from_slice(&piece);
        }
        match parse_set(&text) {
            Some(keys) if !keys.is_empty() => Ok(keys),
            Some(_) => Err("there is no usable key in it".to_owned()),
            None => Err("the answer is no key set".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_url_is_https_or_on_loopback() {
        for good in [
            "https://login.example.org/jwks.json",
            "http://127.0.0.1:8080/jwks",
            "http://[::1]/jwks",
            "http://localhost/jwks",
        ] {
            assert!(KeySet::remote(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "jwks.json",
            "http://login.example.org/jwks.json",
            "http://127.0.0.1.example.org/",
            "http://169.254.169.254/latest",
            "file:///etc/passwd",
            "https://user:password@login.example.org/",
            "ftp://127.0.0.1/",
        ] {
            assert!(KeySet::remote(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn what_anybody_may_read_is_no_shared_key() {
        let set = r#"{"keys":[{"kty":"oct","kid":"a","k":"bm9ydGg","alg":"HS256"}]}"#;
        assert!(KeySet::public(set).is_none());
        assert!(KeySet::public("{}").is_none());
        assert!(KeySet::public("hello").is_none());
    }

    #[test]
    fn keys_for_other_things_are_left_out() {
        let key = |more: &str| {
            format!(
                r#"{{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"{more}}}"#
            )
        };
        let set = |keys: &[String]| format!(r#"{{"keys":[{}]}}"#, keys.join(","));
        let usable = |text: &str| parse_set(text.as_bytes()).unwrap().len();
        assert_eq!(usable(&set(&[key("")])), 1);
        assert_eq!(usable(&set(&[key(r#","use":"sig","alg":"EdDSA""#)])), 1);
        assert_eq!(usable(&set(&[key(r#","use":"enc""#)])), 0);
        assert_eq!(usable(&set(&[key(r#","alg":"RSA-OAEP""#)])), 0);
        assert_eq!(usable(&set(&["17".to_owned(), key("")])), 1);
        let many: Vec<String> = (0..100).map(|_| key("")).collect();
        assert_eq!(usable(&set(&many)), MOST_KEYS);
    }

    #[test]
    fn a_key_is_chosen_if_it_is_the_only_one_that_fits() {
        let key = |kid: Option<&str>| PublicKey {
            kid: kid.map(str::to_owned),
            algorithm: None,
            key: DecodingKey::from_ed_der(&[7; 32]),
        };
        let keys = [key(Some("a")), key(Some("b"))];
        let finds = |keys: &[PublicKey], kid| choose(keys, kid, Algorithm::EdDSA).is_some();
        assert!(finds(&keys, Some("a")));
        assert!(!finds(&keys, Some("c")));
        assert!(!finds(&keys, None), "which of them?");
        assert!(finds(&keys[..1], None));
        assert!(finds(&[key(None)], Some("a")));
        assert!(
            finds(&[key(None), key(Some("a"))], Some("a")),
            "by its name"
        );
        assert!(!finds(&[key(None), key(Some("a"))], None));
        assert!(!finds(&[key(Some("a")), key(Some("a"))], Some("a")));
        assert!(choose(&keys, Some("a"), Algorithm::RS256).is_none());
    }

    const SET: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

    /// Whoever asks for the keys and goes away takes nothing from the others.
    #[tokio::test]
    async fn an_answer_is_waited_for_though_who_wanted_it_has_gone() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", server.local_addr().unwrap());
        let keys = KeySet::remote(&url).unwrap();
        let impatient = keys.clone();
        let asking =
            tokio::spawn(async move { impatient.find(Some("a"), Algorithm::EdDSA).await.is_ok() });
        let (mut stream, _) = server.accept().await.unwrap();
        stream.read_u8().await.unwrap();
        asking.abort();
        assert!(asking.await.unwrap_err().is_cancelled());
        let length = SET.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{SET}");
        stream.write_all(answer.as_bytes()).await.unwrap();
        keys.find(Some("a"), Algorithm::EdDSA).await.unwrap();
    }

    #[test]
    fn a_place_that_does_not_answer_is_asked_again_sooner() {
        let at = Instant::now();
        let pause = |answered, later| Asked { at, answered }.pause(at + later);
        let second = Duration::from_secs(1);
        assert_eq!(pause(true, 59 * second), second);
        assert_eq!(pause(false, 4 * second), second);
        assert_eq!(pause(false, 5 * second), Duration::ZERO);
        assert_eq!(pause(true, 60 * second), Duration::ZERO);
    }

    #[tokio::test]
    async fn nobody_asks_for_keys_that_nobody_has() {
        let keys = KeySet::remote("https://a.test/").unwrap();
        let watch = keys.keep_fresh();
        drop(keys);
        watch.await;
    }
}
