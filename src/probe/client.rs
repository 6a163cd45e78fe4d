//! A client of a server: asks, repeats what may have been lost, logs in as the server wants it.

use std::net::SocketAddr;
use std::time::Duration;

use rand::TryRng as _;
use rand::rngs::SysRng;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::stun::{
    Attribute, ChannelData, ChannelNumber, Class, ErrorCode, Integrity, Key, Kind, Message, Method,
    PasswordAlgorithm, TransactionId, Writer,
};

use super::fault::Fault;
use super::link::Link;

/// When a request over UDP is first repeated; the wait doubles each time (RFC 8489 §6.2.1).
const FIRST_REPEAT: Duration = Duration::from_millis(250);
/// PASSWORD-ALGORITHMS of a server that means it: there are two, of four bytes.
const LONGEST_LIST: usize = 256;
/// The bits before a nonce that mean something (RFC 8489 §9.2).
const NONCE_COOKIE: &[u8] = b"obMatJos2";

/// A name with its password.
pub(super) struct Credential {
    pub(super) username: String,
    pub(super) password: Zeroizing<String>,
}

/// A client, on a way of its own.
pub(super) struct Client {
    pub(super) link: Link,
    patience: Duration,
    login: Option<Login>,
}

/// What a request needs that is to be believed.
struct Login {
    username: String,
    realm: Vec<u8>,
    nonce: Vec<u8>,
    /// The list to repeat, for servers that want SHA-256.
    algorithms: Option<Vec<u8>>,
    key: Key,
    integrity: Integrity,
}

/// What a server wants to know of those that ask.
#[derive(Clone, Debug)]
pub(super) struct Challenge {
    pub(super) realm: Vec<u8>,
    pub(super) nonce: Vec<u8>,
    /// The value of PASSWORD-ALGORITHMS.
    pub(super) offered: Option<Vec<u8>>,
    pub(super) software: Option<Vec<u8>>,
    pub(super) third_party: Option<Vec<u8>>,
}

/// An answer, and what it took.
pub(super) struct Answer {
    bytes: Vec<u8>,
    pub(super) tries: u32,
    /// Since the request was sent for the last time.
    pub(super) after: Duration,
}

/// What came from a peer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Data {
    /// Through a channel.
    Channel(u16, Vec<u8>),
    /// In an indication, from this peer.
    Indication(SocketAddr, Vec<u8>),
}

impl Client {
    /// A client that waits so long for each answer.
    pub(super) fn new(link: Link, patience: Duration) -> Self {
        Self {
            link,
            patience,
            login: None,
        }
    }

    /// Asks without a credential.
    pub(super) async fn ask_openly(
        &mut self,
        method: Method,
        fill: impl FnOnce(&mut Writer<'_>),
    ) -> Result<Answer, Fault> {
        let id = fresh_id();
        let mut request = Vec::new();
        let mut writer = Writer::new(&mut request, Class::Request, method, id);
        fill(&mut writer);
        writer.finish();
        self.exchange(&request, method, id).await
    }

    /// Asks with the credential that was given to [`Client::log_in`].
    ///
    /// # Errors
    ///
    /// Whatever the server answers that is no success, or that is not signed.
    pub(super) async fn ask(
        &mut self,
        method: Method,
        fill: impl Fn(&mut Writer<'_>),
    ) -> Result<Answer, Fault> {
        let answer = self.ask_for_any(method, fill).await?;
        answer.success()?;
        Ok(answer)
    }

    /// The same, but an error of the server is an answer, too. A nonce that has become stale is replaced once.
    pub(super) async fn ask_for_any(
        &mut self,
        method: Method,
        fill: impl Fn(&mut Writer<'_>),
    ) -> Result<Answer, Fault> {
        let answer = self.ask_once(method, &fill).await?;
        let message = answer.message();
        if !matches!(message.error_code(), Some(Ok((ErrorCode::STALE_NONCE, _)))) {
            return Ok(answer);
        }
        let nonce = message.nonce().and_then(Result::ok).map(<[u8]>::to_vec);
        if let (Some(login), Some(nonce)) = (&mut self.login, nonce) {
            login.nonce = nonce;
        }
        self.ask_once(method, &fill).await
    }

    async fn ask_once(
        &mut self,
        method: Method,
        fill: &impl Fn(&mut Writer<'_>),
    ) -> Result<Answer, Fault> {
        let id = fresh_id();
        let login = self.login.as_ref().expect("only who has logged in asks so");
        let request = login.request(method, id, fill);
        let answer = self.exchange(&request, method, id).await?;
        if answer.message().class() == Class::Success && !self.signed(&answer) {
            return Err(Fault::Unsigned);
        }
        Ok(answer)
    }

    /// Whether an answer is signed with the password.
    pub(super) fn signed(&self, answer: &Answer) -> bool {
        let login = self.login.as_ref();
        login.is_some_and(|login| answer.message().verify(&login.key))
    }

    /// Remembers what it will take to be believed.
    pub(super) fn log_in(&mut self, challenge: &Challenge, credential: &Credential) {
        let algorithm = challenge.algorithm();
        let (username, password) = (
            credential.username.as_bytes(),
            credential.password.as_bytes(),
        );
        let realm = &challenge.realm;
        let (key, integrity) = match algorithm {
            PasswordAlgorithm::Md5 => (Key::md5(username, realm, password), Integrity::Sha1),
            PasswordAlgorithm::Sha256 => {
                (Key::sha256(username, realm, password), Integrity::Sha256)
            }
        };
        self.login = Some(Login {
            username: credential.username.clone(),
            realm: realm.clone(),
            nonce: challenge.nonce.clone(),
            algorithms: match algorithm {
                PasswordAlgorithm::Md5 => None,
                PasswordAlgorithm::Sha256 => challenge.offered.clone(),
            },
            key,
            integrity,
        });
    }

    async fn exchange(
        &mut self,
        request: &[u8],
        method: Method,
        id: TransactionId,
    ) -> Result<Answer, Fault> {
        let end = Instant::now() + self.patience;
        let mut wait = FIRST_REPEAT;
        let mut tries = 0;
        loop {
            let sent = Instant::now();
            self.link.send(request).await?;
            tries += 1;
            let until = if self.link.transport().is_stream() {
                end
            } else {
                (sent + wait).min(end)
            };
            wait *= 2;
            while let Some(bytes) = self.link.receive(until).await? {
                let answers = Message::parse(&bytes).is_ok_and(|message| {
                    (message.transaction_id(), message.method()) == (id, method)
                        && matches!(message.class(), Class::Success | Class::Error)
                });
                if answers {
                    let after = sent.elapsed();
                    return Ok(Answer {
                        bytes,
                        tries,
                        after,
                    });
                }
            }
            if Instant::now() >= end {
                return Err(Fault::Silence);
            }
        }
    }

    /// Sends data to a peer through a channel.
    pub(super) async fn send_channel(
        &mut self,
        channel: ChannelNumber,
        data: &[u8],
    ) -> Result<(), Fault> {
        let length = u16::try_from(data.len()).unwrap_or(u16::MAX);
        let message = [&channel.header(length)[..], data].concat();
        self.link.send(&message).await
    }

    /// Sends data to a peer in an indication.
    pub(super) async fn send_indication(
        &mut self,
        peer: SocketAddr,
        data: &[u8],
        dont_fragment: bool,
    ) -> Result<(), Fault> {
        let mut message = Vec::new();
        let mut writer = Writer::new(&mut message, Class::Indication, Method::SEND, fresh_id());
        writer.xor_address(Attribute::XOR_PEER_ADDRESS, peer);
        if dont_fragment {
            writer.flag(Attribute::DONT_FRAGMENT);
        }
        writer.bytes(Attribute::DATA, data);
        writer.finish();
        self.link.send(&message).await
    }

    /// The next data from a peer, or nothing until `deadline`. May be given up at any time without loss.
    pub(super) async fn data(&mut self, deadline: Instant) -> Result<Option<Data>, Fault> {
        while let Some(bytes) = self.link.receive(deadline).await? {
            if let Some(data) = data(&bytes) {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

fn data(bytes: &[u8]) -> Option<Data> {
    if Kind::of(bytes) == Kind::ChannelData {
        let found = ChannelData::parse(bytes)?;
        return Some(Data::Channel(found.number.get(), found.data.to_vec()));
    }
    let message = Message::parse(bytes).ok()?;
    if (message.class(), message.method()) != (Class::Indication, Method::DATA) {
        return None;
    }
    let peer = message.xor_peer_address()?.ok()?;
    Some(Data::Indication(
        peer,
        message.get(Attribute::DATA)?.to_vec(),
    ))
}

impl Login {
    fn request(
        &self,
        method: Method,
        id: TransactionId,
        fill: &impl Fn(&mut Writer<'_>),
    ) -> Vec<u8> {
        let mut request = Vec::new();
        let mut writer = Writer::new(&mut request, Class::Request, method, id);
        fill(&mut writer);
        writer.bytes(Attribute::USERNAME, self.username.as_bytes());
        writer.bytes(Attribute::REALM, &self.realm);
        writer.bytes(Attribute::NONCE, &self.nonce);
        if let Some(algorithms) = &self.algorithms {
            writer.bytes(Attribute::PASSWORD_ALGORITHMS, algorithms);
            writer.password_algorithm(self.key.algorithm());
        }
        writer.finish_with_integrity(&self.key, self.integrity);
        request
    }
}

impl Challenge {
    /// What a 401 or 438 asks for.
    pub(super) fn of(message: &Message<'_>) -> Result<Self, Fault> {
        let realm = message.realm().and_then(Result::ok);
        let nonce = message.nonce().and_then(Result::ok);
        let (Some(realm), Some(nonce)) = (realm, nonce) else {
            return Err(Fault::Garbled("a challenge without realm and nonce"));
        };
        let text = |value: Option<Result<&[u8], _>>| value.and_then(Result::ok).map(<[u8]>::to_vec);
        if message.password_algorithms().map_or(0, <[u8]>::len) > LONGEST_LIST {
            return Err(Fault::Garbled("more password algorithms than there are"));
        }
        Ok(Self {
            realm: realm.to_vec(),
            nonce: nonce.to_vec(),
            offered: message.password_algorithms().map(<[u8]>::to_vec),
            software: text(message.software()),
            third_party: text(message.third_party_authorization()),
        })
    }

    /// What passwords may be hashed with, as the server says it.
    pub(super) fn algorithms(&self) -> Vec<PasswordAlgorithm> {
        let Some(offered) = self
            .offered
            .as_ref()
            .filter(|_| self.nonce.starts_with(NONCE_COOKIE))
        else {
            return vec![PasswordAlgorithm::Md5];
        };
        let offers = |algorithm: &PasswordAlgorithm| {
            let number = [0, *algorithm as u8];
            entries(offered).any(|entry| entry == number)
        };
        [PasswordAlgorithm::Md5, PasswordAlgorithm::Sha256]
            .into_iter()
            .filter(offers)
            .collect()
    }

    /// MD5 where it is taken, since it is what browsers use.
    fn algorithm(&self) -> PasswordAlgorithm {
        self.algorithms()
            .first()
            .copied()
            .unwrap_or(PasswordAlgorithm::Md5)
    }
}

/// The numbers in PASSWORD-ALGORITHMS, without their parameters.
fn entries(list: &[u8]) -> impl Iterator<Item = [u8; 2]> + '_ {
    let mut rest = list;
    std::iter::from_fn(move || {
        let (&[n0, n1, l0, l1], behind) = rest.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes([l0, l1])).next_multiple_of(4);
        rest = behind.get(length..).unwrap_or_default();
        Some([n0, n1])
    })
}

impl Answer {
    /// The message.
    pub(super) fn message(&self) -> Message<'_> {
        Message::parse(&self.bytes).expect("it was parsed when it came")
    }

    /// The message, unless it is an error.
    pub(super) fn success(&self) -> Result<Message<'_>, Fault> {
        let message = self.message();
        match (message.class(), message.error_code()) {
            (Class::Success, _) => Ok(message),
            (_, Some(Ok((code, phrase)))) => Err(Fault::of_code(code, phrase)),
            (_, Some(Err(_)) | None) => Err(Fault::Garbled("an error without its code")),
        }
    }
}

pub(super) fn fresh_id() -> TransactionId {
    let mut id = [0; 12];
    SysRng
        .try_fill_bytes(&mut id)
        .expect("the kernel gives random bytes");
    TransactionId(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(nonce: &str, offered: Option<&[u8]>) -> Challenge {
        Challenge {
            realm: b"realm".to_vec(),
            nonce: nonce.into(),
            offered: offered.map(<[u8]>::to_vec),
            software: None,
            third_party: None,
        }
    }

    #[test]
    fn md5_is_used_where_it_is_taken() {
        use PasswordAlgorithm::{Md5, Sha256};
        let both = PasswordAlgorithm::list(&[Sha256, Md5]);
        let one = PasswordAlgorithm::list(&[Sha256]);
        let cases: [(&str, Option<&[u8]>, PasswordAlgorithm); 5] = [
            ("any", None, Md5),
            // Without the cookie the list is somebody else's addition.
            ("any", Some(&one), Md5),
            ("obMatJos2AAAA", Some(&both), Md5),
            ("obMatJos2AAAA", Some(&one), Sha256),
            (
                "obMatJos2AAAA",
                Some(&[0, 9, 0, 3, 1, 2, 3, 0, 0, 2, 0, 0]),
                Sha256,
            ),
        ];
        for (nonce, offered, expected) in cases {
            assert_eq!(
                challenge(nonce, offered).algorithm(),
                expected,
                "{nonce} {offered:?}"
            );
        }
    }

    #[test]
    fn data_is_told_from_answers() {
        assert_eq!(
            data(&[0x40, 0, 0, 1, 7, 0, 0, 0]),
            Some(Data::Channel(0x4000, vec![7]))
        );
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, Class::Indication, Method::DATA, fresh_id());
        let peer = "192.0.2.1:9".parse().unwrap();
        writer.xor_address(Attribute::XOR_PEER_ADDRESS, peer);
        writer.bytes(Attribute::DATA, b"x");
        writer.finish();
        assert_eq!(data(&bytes), Some(Data::Indication(peer, b"x".to_vec())));
        let mut bytes = Vec::new();
        Writer::new(&mut bytes, Class::Success, Method::REFRESH, fresh_id()).finish();
        assert_eq!(data(&bytes), None);
    }
}
