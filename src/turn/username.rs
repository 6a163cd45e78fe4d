//! What the name of a time-limited credential says: `expiry:user`, or `expiry:kid~tenant~subject~claims`.
//!
//! The password is a keyed hash of the whole name, so whoever holds the secret vouches for every word of it, and the
//! relay needs no list of users, tenants and limits. Names have letters, digits and `~ . _ -` only after the colon: they
//! pass through URIs, SIP accounts and command lines unharmed.

use std::borrow::Cow;
use std::fmt;
use std::fmt::Write as _;

/// The name of a credential that carries claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued<'a> {
    /// When the credential ends, in seconds since 1970.
    pub expiry: u64,
    /// The id of the secret that vouches for it.
    pub kid: &'a str,
    /// Whose customer the subject is; empty where there are no tenants.
    pub tenant: &'a str,
    /// The user, [escaped](escape).
    pub subject: &'a str,
    /// What the credential is good for.
    pub claims: Claims<'a>,
}

/// What a credential is good for. What is not said is not limited by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims<'a> {
    /// `t`: for how many seconds it was issued, so when: that long before the expiry.
    pub ttl: Option<u64>,
    /// `a`: how many allocations its user may have at once.
    pub allocations: Option<u32>,
    /// `b`: bits per second of each of its allocations, in each direction.
    pub bits_per_second: Option<u64>,
    /// `p`: the name of the policy that says which peers it reaches.
    pub policy: Option<&'a str>,
    /// `r`: the region it was issued for.
    pub region: Option<&'a str>,
    /// `j`: its own name, by which it can be revoked.
    pub id: Option<&'a str>,
}

/// A name with claims that say nothing, or nothing that can be kept: it must not be taken for one without limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadClaims;

impl<'a> Issued<'a> {
    /// Reads a name; nothing if it is of another form, as `expiry:user` is.
    ///
    /// # Errors
    /// [`BadClaims`] if there is a claim that is unknown, broken or said twice.
    pub fn parse(username: &'a [u8]) -> Option<Result<Self, BadClaims>> {
        let (expiry, rest) = std::str::from_utf8(username).ok()?.split_once(':')?;
        let expiry = whole(expiry)?;
        let mut words = rest.split('~');
        let (kid, tenant, subject) = (words.next()?, words.next()?, words.next()?);
        if kid.is_empty() || subject.is_empty() {
            return None;
        }
        Some(Claims::parse(words).map(|claims| Self {
            expiry,
            kid,
            tenant,
            subject,
            claims,
        }))
    }

    /// When the credential was issued, in seconds since 1970, if it says so.
    pub fn issued_at(&self) -> Option<u64> {
        self.claims.ttl.map(|ttl| self.expiry.saturating_sub(ttl))
    }

    /// The user and whose customer that is, as they stand in the name: the same for all credentials of a person.
    pub(super) fn person(username: &'a [u8]) -> Option<&'a [u8]> {
        let Self {
            kid,
            tenant,
            subject,
            ..
        } = Self::parse(username)?.ok()?;
        let start = username.iter().position(|&byte| byte == b':')? + 1 + kid.len() + 1;
        username.get(start..start + tenant.len() + 1 + subject.len())
    }
}

impl fmt::Display for Issued<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            expiry,
            kid,
            tenant,
            subject,
            claims,
        } = self;
        write!(f, "{expiry}:{kid}~{tenant}~{subject}{claims}")
    }
}

impl<'a> Claims<'a> {
    fn parse(words: impl Iterator<Item = &'a str>) -> Result<Self, BadClaims> {
        let mut claims = Self::default();
        for word in words {
            let mut letters = word.chars();
            let name = letters.next().ok_or(BadClaims)?;
            let value = letters.as_str();
            match name {
                't' => once(&mut claims.ttl, whole(value)),
                'a' => once(&mut claims.allocations, whole(value)),
                'b' => once(&mut claims.bits_per_second, rate(value)),
                'p' => once(&mut claims.policy, is_plain(value).then_some(value)),
                'r' => once(&mut claims.region, is_plain(value).then_some(value)),
                'j' => once(&mut claims.id, is_plain(value).then_some(value)),
                _ => Err(BadClaims),
            }?;
        }
        Ok(claims)
    }
}

impl fmt::Display for Claims<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(ttl) = self.ttl {
            write!(f, "~t{ttl}")?;
        }
        if let Some(allocations) = self.allocations {
            write!(f, "~a{allocations}")?;
        }
        match self.bits_per_second {
            Some(rate) if rate > 0 && rate % 1000 == 0 => write!(f, "~b{}k", rate / 1000)?,
            Some(rate) => write!(f, "~b{rate}")?,
            None => {}
        }
        for (name, value) in [('p', self.policy), ('r', self.region), ('j', self.id)] {
            if let Some(value) = value {
                write!(f, "~{name}{value}")?;
            }
        }
        Ok(())
    }
}

/// The word that would be the id of a secret, of a name that has one.
pub(super) fn kid(username: &[u8]) -> Option<&[u8]> {
    let colon = username.iter().position(|&byte| byte == b':')?;
    let rest = &username[colon + 1..];
    let tilde = rest.iter().position(|&byte| byte == b'~')?;
    Some(&rest[..tilde])
}

/// A user's name as it may stand in a credential: everything but letters, digits, `.` and `-` as `_` and two
/// hexadecimal digits for each byte.
pub fn escape(subject: &str) -> Cow<'_, str> {
    let is_free = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
    if subject.bytes().all(is_free) {
        return Cow::Borrowed(subject);
    }
    let mut text = String::with_capacity(subject.len() * 3);
    for byte in subject.bytes() {
        if is_free(byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a text cannot fail.
            let _ = write!(text, "_{byte:02x}");
        }
    }
    Cow::Owned(text)
}

/// The name that [`escape`] made this of. What it did not make stays as it is.
pub fn unescape(subject: &str) -> Cow<'_, str> {
    if !subject.contains('_') {
        return Cow::Borrowed(subject);
    }
    let mut parts = subject.split('_');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let byte = part
            .get(..2)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        let Some(byte) = byte else {
            return Cow::Borrowed(subject);
        };
        bytes.push(byte);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).map_or(Cow::Borrowed(subject), Cow::Owned)
}

/// Whether a word may stand in a name as it is: a tenant, a policy, a region, the id of a secret or a credential.
pub fn is_plain(word: &str) -> bool {
    let is_free = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=64).contains(&word.len()) && word.bytes().all(is_free)
}

fn once<T>(place: &mut Option<T>, value: Option<T>) -> Result<(), BadClaims> {
    if place.is_some() || value.is_none() {
        return Err(BadClaims);
    }
    *place = value;
    Ok(())
}

/// A whole number in digits and nothing else.
fn whole<T: std::str::FromStr>(text: &str) -> Option<T> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

fn rate(text: &str) -> Option<u64> {
    match text.strip_suffix('k') {
        Some(thousands) => whole::<u64>(thousands)?.checked_mul(1000),
        None => whole(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<Result<Issued<'_>, BadClaims>> {
        Issued::parse(text.as_bytes())
    }

    const FULL: &str = "1795370786:k2~acme~alice~t3600~a8~b4000k~pmedia~reu-west~jj8Qh2";

    #[test]
    fn a_full_name_says_everything_and_is_written_as_it_was_read() {
        let issued = parse(FULL).unwrap().unwrap();
        assert_eq!(
            issued,
            Issued {
                expiry: 1_795_370_786,
                kid: "k2",
                tenant: "acme",
                subject: "alice",
                claims: Claims {
                    ttl: Some(3600),
                    allocations: Some(8),
                    bits_per_second: Some(4_000_000),
                    policy: Some("media"),
                    region: Some("eu-west"),
                    id: Some("j8Qh2"),
                },
            }
        );
        assert_eq!(issued.to_string(), FULL);
        assert_eq!(issued.issued_at(), Some(1_795_367_186));
        assert_eq!(Issued::person(FULL.as_bytes()), Some(&b"acme~alice"[..]));
    }

    #[test]
    fn little_is_enough() {
        let issued = parse("17:k~~ann").unwrap().unwrap();
        assert_eq!((issued.tenant, issued.subject), ("", "ann"));
        assert_eq!(issued.claims, Claims::default());
        assert_eq!(Issued::person(b"17:k~~ann"), Some(&b"~ann"[..]));
    }

    #[test]
    fn other_forms_are_none_of_these() {
        for other in [
            "",
            "ann",
            "17",
            "17:",
            "17:ann",
            "17:k~ann",
            "x:k~t~ann",
            ":k~t~ann",
            "17:~t~ann",
            "17:k~t~",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
        assert_eq!(Issued::parse(b"17:k~t~\xff"), None);
    }

    #[test]
    fn a_claim_that_cannot_be_kept_spoils_the_name() {
        for claims in [
            "",
            "x1",
            "t",
            "t-1",
            "t+1",
            "tx",
            "t1~t1",
            "a99999999999",
            "b1m",
            "bk",
            "b99999999999999999999k",
            "p",
            "p!",
            "jä",
            "a1~",
        ] {
            assert_eq!(
                parse(&format!("17:k~t~ann~{claims}")),
                Some(Err(BadClaims)),
                "{claims}"
            );
            assert_eq!(
                Issued::person(format!("17:k~t~ann~{claims}").as_bytes()),
                None
            );
        }
    }

    #[test]
    fn escaped_names_are_plain_and_come_back() {
        for name in [
            "alice",
            "8:acme:alice",
            "ann@example.org",
            "a_b~c",
            "Ünü",
            "_5f",
            "",
        ] {
            let escaped = escape(name);
            assert!(escaped.is_empty() || is_plain(&escaped), "{escaped}");
            assert_eq!(unescape(&escaped), name);
        }
        assert_eq!(escape("8:acme:alice"), "8_3aacme_3aalice");
        for foreign in ["a_b", "_", "_g0", "_ff", "a__"] {
            assert_eq!(unescape(foreign), foreign);
        }
    }
}
