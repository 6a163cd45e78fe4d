//! RFC 7635: users whom a third party has authorised.

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{AeadInOut as _, KeyInit as _, Nonce};

use crate::client::{Client, code_or_success};
use crate::ground::{Ground, SharedKey, now};
use crate::packet::{Build, Class, Key, Stun, attr};
use crate::statement::Proof::{Seen as Shown, Test};
use crate::statement::{Seen, Statement, Trouble, ensure};

pub(crate) const STATEMENTS: &[Statement] = &[
    Statement {
        id: "7635-1",
        rfc: "RFC 7635",
        section: "6.1",
        title: "a 401 names the server in THIRD-PARTY-AUTHORIZATION",
        proofs: &[Shown(s7635_1_name)],
    },
    Statement {
        id: "7635-2",
        rfc: "RFC 7635",
        section: "6.2, 7",
        title: "an access token opens with the key that USERNAME names, and only then: 401",
        proofs: &[Shown(s7635_2_tokens)],
    },
    Statement {
        id: "7635-3",
        rfc: "RFC 7635",
        section: "7",
        title: "a token is good for its lifetime and 5 s more, from its time stamp",
        proofs: &[
            Shown(s7635_3_time),
            Test("tests/rfc7635.rs::s7635_3_a_token_is_judged_by_its_time"),
        ],
    },
    Statement {
        id: "7635-4",
        rfc: "RFC 7635",
        section: "9",
        title: "no allocation outlives its token; a new token refreshes it",
        proofs: &[Shown(s7635_4_lifetime)],
    },
    Statement {
        id: "7635-5",
        rfc: "RFC 7635",
        section: "7",
        title: "a token that nobody asked for is 420",
        proofs: &[Shown(s7635_5_not_asked_for)],
    },
    Statement {
        id: "2.3-7635",
        rfc: "RFC 7635",
        section: "7",
        title: "Allocate with a token at a server without third parties is 420",
        proofs: &[Shown(allocate_with_a_token)],
    },
];

/// A client with a token.
struct Holder {
    client: Client,
    kid: String,
    token: Vec<u8>,
    key: Key,
}

impl Holder {
    /// With a token that was made `age` seconds ago, for so many.
    fn new(ground: &Ground, age: u64, lifetime: u32) -> Seen<Self> {
        let shared = shared(ground)?;
        let mut client = ground.client()?;
        client.challenge()?;
        Ok(Self {
            client,
            kid: shared.kid.clone(),
            token: seal(&shared.key, &shared.server, age, lifetime)?,
            key: Key::raw(&MAC_KEY),
        })
    }

    fn ask(&mut self, build: Build) -> Seen<Stun> {
        let request = build
            .attr(attr::USERNAME, self.kid.as_bytes())
            .attr(attr::REALM, &self.client.realm)
            .attr(attr::NONCE, &self.client.nonce)
            .attr(attr::ACCESS_TOKEN, &self.token)
            .sign(&self.key);
        self.client.exchange(&request)
    }

    fn succeed(&mut self, build: Build) -> Seen<Stun> {
        let answer = self.ask(build)?;
        let word = code_or_success(&answer);
        ensure!(answer.class == Class::Success, "{word} for a good token");
        let signed = answer.is_signed_by(&self.key);
        ensure!(signed, "the answer is not signed with the key in the token");
        Ok(answer)
    }

    fn refused(&mut self, what: &str) -> Seen {
        let answer = self.ask(Build::allocate())?;
        let word = code_or_success(&answer);
        ensure!(answer.code() == 401, "{word} for {what}");
        Ok(())
    }
}

fn shared(ground: &Ground) -> Seen<&SharedKey> {
    let missing = || Trouble::absent("no key is shared with an authorization server");
    ground.oauth.as_ref().ok_or_else(missing)
}

/// A token as an authorization server makes it (RFC 7635 §6.2).
fn seal(key: &[u8; 32], server: &str, age: u64, lifetime: u32) -> Seen<Vec<u8>> {
    let mut block = (MAC_KEY.len() as u16).to_be_bytes().to_vec();
    block.extend(MAC_KEY);
    // Seconds, and 16 bits of their fractions.
    block.extend(((now()? - age) << 16).to_be_bytes());
    block.extend(lifetime.to_be_bytes());
    let nonce = [7; 12];
    let tag = Aes256Gcm::new(key.into())
        .encrypt_inout_detached(
            &Nonce::<Aes256Gcm>::from(nonce),
            server.as_bytes(),
            block.as_mut_slice().into(),
        )
        .map_err(|error| error.to_string())?;
    Ok([&[0, 12], &nonce[..], &block, &tag].concat())
}

const MAC_KEY: [u8; 20] = [9; 20];

fn s7635_1_name(ground: &Ground) -> Seen {
    let name = &shared(ground)?.server;
    let answer = ground.client()?.challenge()?;
    let told = answer.get(attr::THIRD_PARTY_AUTHORIZATION);
    ensure!(
        told == Some(name.as_bytes()) && answer.has(attr::REALM),
        "THIRD-PARTY-AUTHORIZATION {:?} instead of {name}",
        told.map(String::from_utf8_lossy)
    );
    Ok(())
}

fn s7635_2_tokens(ground: &Ground) -> Seen {
    let mut holder = Holder::new(ground, 0, 3600)?;
    let good = holder.token.clone();
    for at in [14, good.len() - 1] {
        holder.token[at] ^= 1;
        holder.refused("a token with a changed bit")?;
        holder.token = good.clone();
    }
    let shared = shared(ground)?;
    holder.token = seal(&shared.key, "turn.elsewhere.test", 0, 3600)?;
    holder.refused("a token for another server")?;
    holder.token = seal(&[1; 32], &shared.server, 0, 3600)?;
    holder.refused("a token by another key")?;
    holder.token = good;
    let kid = std::mem::replace(&mut holder.kid, "nobody".into());
    holder.refused("a key that nobody has")?;
    holder.kid = kid;
    let key = std::mem::replace(&mut holder.key, Key::raw(&[8; 20]));
    holder.refused("a request that another key signs")?;
    holder.key = key;
    holder.succeed(Build::allocate()).map(drop)
}

fn s7635_3_time(ground: &Ground) -> Seen {
    for (age, lifetime) in [(1000, 600), (1000, 0), (4000, 3600)] {
        let mut holder = Holder::new(ground, age, lifetime)?;
        holder.refused(&format!("{lifetime} s that began {age} s ago"))?;
    }
    for (age, lifetime) in [(0, 1), (1000, 2000), (3500, 3600)] {
        Holder::new(ground, age, lifetime)?.succeed(Build::allocate())?;
    }
    Ok(())
}

fn s7635_4_lifetime(ground: &Ground) -> Seen {
    let mut holder = Holder::new(ground, 1000, 2000)?;
    let long = || Build::allocate().u32(attr::LIFETIME, 3600);
    let granted = holder.succeed(long())?.u32(attr::LIFETIME);
    ensure!(
        granted.is_some_and(|seconds| (900..=1005).contains(&seconds)),
        "LIFETIME {granted:?} with a token of 1000 s more"
    );
    let shared = shared(ground)?;
    holder.token = seal(&shared.key, &shared.server, 0, 2000)?;
    let granted = holder.succeed(Build::refresh(3600))?.u32(attr::LIFETIME);
    ensure!(
        granted.is_some_and(|seconds| (1900..=2005).contains(&seconds)),
        "LIFETIME {granted:?} with a new token of 2000 s"
    );
    Ok(())
}

fn s7635_5_not_asked_for(ground: &Ground) -> Seen {
    let mut client = ground.plain_client()?;
    let challenge = client.challenge()?;
    let named = challenge.has(attr::THIRD_PARTY_AUTHORIZATION);
    ensure!(
        !named,
        "THIRD-PARTY-AUTHORIZATION of a server that has none"
    );
    client.allocate()?;
    not_understood(&mut client, Build::refresh(600))
}

fn allocate_with_a_token(ground: &Ground) -> Seen {
    let mut client = ground.plain_client()?;
    not_understood(&mut client, Build::allocate())
}

fn not_understood(client: &mut Client, build: Build) -> Seen {
    let answer = client.refused_signed(build.attr(attr::ACCESS_TOKEN, b"a token"), 420)?;
    let listed = answer.get(attr::UNKNOWN_ATTRIBUTES);
    ensure!(
        listed == Some(&[0, 0x1B]),
        "UNKNOWN-ATTRIBUTES {listed:02x?}"
    );
    Ok(())
}
