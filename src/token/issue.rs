//! The one function that makes credentials. Every dialect is a way to ask for it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::TryRng as _;
use rand::rngs::SysRng;
use zeroize::Zeroizing;

use super::caller::Caller;
use super::refusal::{Kind, Refusal};
use super::url::{IceUrl, Way};
use super::{Region, Settings};
use crate::turn::{Claims, Issued, escape, is_plain};

/// RFC 8489 §14.3: fewer than 509 bytes.
const LONGEST_USERNAME: usize = 508;
/// Random bytes in the name of a credential.
const ID_BYTES: usize = 9;

/// What is asked for. What is not said is as the operator has it.
#[derive(Clone, Debug, Default)]
pub(super) struct Wish<'a> {
    /// Whom it is for; the caller, or nobody in particular.
    pub(super) user: Option<&'a str>,
    /// For how many seconds.
    pub(super) ttl: Option<u64>,
    /// For how many seconds at most, where the dialect has a word in it.
    pub(super) longest: Option<u64>,
    pub(super) allocations: Option<u32>,
    pub(super) bits_per_second: Option<u64>,
    /// The name of the policy of peers.
    pub(super) policy: Option<&'a str>,
    /// Nothing, or `auto`, for the first.
    pub(super) region: Option<&'a str>,
    /// Nothing for all.
    pub(super) ways: Option<Vec<Way>>,
}

/// What is handed out. Not `Debug`: the password is good until it ends.
pub(super) struct Credential<'s> {
    pub(super) username: String,
    pub(super) password: Zeroizing<String>,
    /// When it ends, in seconds since 1970.
    pub(super) expiry: u64,
    pub(super) ttl: u64,
    /// By which it can be revoked, if its secret vouches for claims.
    pub(super) id: Option<String>,
    /// Whom it is for.
    pub(super) subject: String,
    pub(super) region: Option<&'s str>,
    pub(super) urls: Vec<&'s IceUrl>,
}

impl Credential<'_> {
    /// Those for finding one's own address.
    pub(super) fn stun(&self) -> Vec<&str> {
        self.texts(false)
    }

    /// Those for relaying.
    pub(super) fn turn(&self) -> Vec<&str> {
        self.texts(true)
    }

    fn texts(&self, relays: bool) -> Vec<&str> {
        let urls = self.urls.iter().filter(|url| url.relays() == relays);
        urls.map(|url| url.as_str()).collect()
    }
}

/// Makes a credential for `caller`, who has proved who that is, at the time `now`.
///
/// # Errors
/// If the caller may not have it, or it cannot be had.
pub(super) fn issue<'s>(
    settings: &'s Settings,
    caller: &Caller,
    wish: &Wish<'_>,
    now: u64,
) -> Result<Credential<'s>, Refusal> {
    let id = fresh_id()?;
    let subject = subject(caller, wish, &id)?;
    let ttl = ttl(settings, caller, wish)?;
    let region = region(settings, wish.region)?;
    let urls = urls(region, wish.ways.as_deref())?;
    if wish.policy.is_some() && !caller.issues {
        return Err(Refusal::forbidden(
            "choosing `limits.peers` takes the scope `relay.issue`",
        ));
    }
    let expiry = now.saturating_add(ttl);
    let vouches = settings.secret.vouches_for_claims();
    let username = if vouches {
        let claims = Claims {
            ttl: Some(ttl),
            allocations: wish.allocations,
            bits_per_second: wish.bits_per_second,
            policy: wish.policy,
            region: region.name.as_deref(),
            id: Some(&id),
        };
        with_claims(settings, caller, subject, expiry, claims)?
    } else {
        plain(wish, subject, expiry)?
    };
    if username.len() > LONGEST_USERNAME {
        return Err(Refusal::unprocessable("the user's name is too long"));
    }
    Ok(Credential {
        password: settings.secret.password(username.as_bytes()),
        username,
        expiry,
        ttl,
        subject: subject.to_owned(),
        id: vouches.then_some(id),
        region: region.name.as_deref(),
        urls,
    })
}

/// `expiry:kid~tenant~subject~claims`
fn with_claims(
    settings: &Settings,
    caller: &Caller,
    subject: &str,
    expiry: u64,
    claims: Claims<'_>,
) -> Result<String, Refusal> {
    if let Some(policy) = claims.policy
        && !is_plain(policy)
    {
        return Err(Refusal::unprocessable("there can be no such policy"));
    }
    let issued = Issued {
        expiry,
        kid: settings.secret.id(),
        tenant: &caller.tenant,
        subject: &escape(subject),
        claims,
    };
    Ok(issued.to_string())
}

/// `expiry:user`
fn plain(wish: &Wish<'_>, subject: &str, expiry: u64) -> Result<String, Refusal> {
    if wish.allocations.is_some() || wish.bits_per_second.is_some() || wish.policy.is_some() {
        return Err(Refusal::unprocessable(
            "the secret in use vouches for no limits (claims = true in [auth] secrets)",
        ));
    }
    // With a tilde it might pass for one with claims.
    if subject.contains('~') || subject.chars().any(char::is_control) {
        return Err(Refusal::unprocessable(
            "the user's name has `~` or a control character in it",
        ));
    }
    Ok(format!("{expiry}:{subject}"))
}

/// Users have credentials for themselves, backends for whom they like. Where nobody is named each credential is
/// somebody else's, so that limits for a user do not hold for all of them together.
fn subject<'w>(caller: &'w Caller, wish: &Wish<'w>, id: &'w str) -> Result<&'w str, Refusal> {
    let subject = match (wish.user, caller.subject.as_deref()) {
        (Some(user), own) if caller.issues || own == Some(user) => user,
        (Some(_), _) => {
            return Err(Refusal::forbidden(
                "a credential for somebody else takes the scope `relay.issue`",
            ));
        }
        (None, Some(own)) => own,
        (None, None) if caller.issues => id,
        (None, None) => {
            return Err(Refusal::forbidden("this key lacks the scope `relay.issue`"));
        }
    };
    if subject.is_empty() {
        return Err(Refusal::unprocessable("the user's name is empty"));
    }
    Ok(subject)
}

/// Lowered to what is allowed, not refused: the answer tells.
fn ttl(settings: &Settings, caller: &Caller, wish: &Wish<'_>) -> Result<u64, Refusal> {
    let asked = wish.ttl.unwrap_or(settings.ttl);
    if asked == 0 {
        return Err(Refusal::unprocessable("`ttl` must be 1 at least"));
    }
    let bounds = [Some(settings.max_ttl), caller.max_ttl, wish.longest];
    Ok(bounds.into_iter().flatten().fold(asked, u64::min))
}

fn region<'s>(settings: &'s Settings, wanted: Option<&str>) -> Result<&'s Region, Refusal> {
    let mut regions = settings.regions.iter();
    let found = match wanted {
        None | Some("auto") => regions.next(),
        Some(name) => regions.find(|region| region.name.as_deref() == Some(name)),
    };
    found.ok_or_else(|| {
        Refusal::unprocessable("there is no such region; /.well-known/relay lists them")
    })
}

fn urls<'s>(region: &'s Region, ways: Option<&[Way]>) -> Result<Vec<&'s IceUrl>, Refusal> {
    let is_wanted = |url: &&IceUrl| ways.is_none_or(|ways| ways.contains(&url.way()));
    let urls: Vec<&IceUrl> = region.urls.iter().filter(is_wanted).collect();
    if urls.iter().any(|url| url.relays()) {
        Ok(urls)
    } else {
        Err(Refusal::unprocessable(
            "there is no relay for these transports",
        ))
    }
}

fn fresh_id() -> Result<String, Refusal> {
    let mut bytes = [0; ID_BYTES];
    SysRng
        .try_fill_bytes(&mut bytes)
        .map_err(|_| Refusal::new(Kind::Unavailable, "the kernel gives no random bytes"))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::caller::By;
    use super::*;
    use crate::turn::{SecretAlgorithm, SharedSecret};

    const NOW: u64 = 1_700_000_000;

    fn settings(claims: bool) -> Settings {
        let secret = SharedSecret::new("k2", b"north", SecretAlgorithm::Sha1);
        let url = |text| IceUrl::parse(text).unwrap();
        Settings {
            secret: if claims { secret.with_claims() } else { secret },
            regions: vec![
                Region {
                    name: Some("eu-west".to_owned()),
                    urls: vec![
                        url("stun:a.test:3478"),
                        url("turn:a.test:3478?transport=udp"),
                        url("turns:a.test:443?transport=tcp"),
                    ],
                },
                Region {
                    name: Some("us-east".to_owned()),
                    urls: vec![url("turn:b.test:3478?transport=tcp")],
                },
            ],
            ..Settings::for_tests()
        }
    }

    fn user(subject: &str, tenant: &str) -> Caller {
        Caller {
            by: By::Issuer("i".to_owned()),
            subject: Some(subject.to_owned()),
            tenant: tenant.to_owned(),
            issues: false,
            revokes: false,
            max_ttl: None,
        }
    }

    fn backend() -> Caller {
        Caller {
            subject: None,
            issues: true,
            ..user("", "acme")
        }
    }

    fn refused(settings: &Settings, caller: &Caller, wish: &Wish<'_>) -> Kind {
        issue(settings, caller, wish, NOW).err().unwrap().kind
    }

    #[test]
    fn everything_that_is_wished_is_in_the_name() {
        let settings = settings(true);
        let wish = Wish {
            user: Some("8:acme:ann"),
            ttl: Some(60),
            allocations: Some(8),
            bits_per_second: Some(4_000_000),
            policy: Some("media"),
            region: Some("eu-west"),
            ..Wish::default()
        };
        let credential = issue(&settings, &backend(), &wish, NOW).ok().unwrap();
        let id = credential.id.as_deref().unwrap();
        assert_eq!(
            credential.username,
            format!("1700000060:k2~acme~8_3aacme_3aann~t60~a8~b4000k~pmedia~reu-west~j{id}")
        );
        assert_eq!(
            *credential.password,
            *settings.secret.password(credential.username.as_bytes())
        );
        assert_eq!((credential.ttl, credential.expiry), (60, NOW + 60));
    }

    #[test]
    fn a_secret_that_vouches_for_nothing_makes_plain_names() {
        let settings = settings(false);
        let credential = issue(&settings, &user("ann", "acme"), &Wish::default(), NOW);
        let credential = credential.ok().unwrap();
        assert_eq!(credential.username, format!("{}:ann", NOW + settings.ttl));
        assert_eq!(credential.id, None);
        for subject in ["a~b~c", "a\nb", "k2~acme~ann~a99"] {
            let kind = refused(&settings, &user(subject, ""), &Wish::default());
            assert_eq!(kind, Kind::Unprocessable, "{subject}");
        }
        for wish in [
            Wish {
                allocations: Some(1),
                ..Wish::default()
            },
            Wish {
                bits_per_second: Some(1),
                ..Wish::default()
            },
        ] {
            assert_eq!(
                refused(&settings, &user("ann", ""), &wish),
                Kind::Unprocessable
            );
        }
    }

    #[test]
    fn a_lifetime_is_lowered_and_never_raised() {
        let settings = settings(true);
        let ttl = |asked, max_ttl, longest| {
            let wish = Wish {
                ttl: asked,
                longest,
                ..Wish::default()
            };
            let caller = Caller {
                max_ttl,
                ..user("ann", "")
            };
            issue(&settings, &caller, &wish, NOW).ok().unwrap().ttl
        };
        assert_eq!(ttl(None, None, None), settings.ttl);
        assert_eq!(ttl(Some(1), None, None), 1);
        assert_eq!(ttl(Some(u64::MAX), None, None), settings.max_ttl);
        assert_eq!(ttl(Some(90), Some(60), None), 60);
        assert_eq!(ttl(Some(90), Some(60), Some(30)), 30);
        let none = Wish {
            ttl: Some(0),
            ..Wish::default()
        };
        assert_eq!(
            refused(&settings, &user("ann", ""), &none),
            Kind::Unprocessable
        );
    }

    #[test]
    fn users_have_credentials_for_themselves() {
        let settings = settings(true);
        let wish = |user| Wish {
            user: Some(user),
            ..Wish::default()
        };
        assert!(issue(&settings, &user("ann", ""), &wish("ann"), NOW).is_ok());
        assert_eq!(
            refused(&settings, &user("ann", ""), &wish("bob")),
            Kind::Forbidden
        );
        assert!(issue(&settings, &backend(), &wish("bob"), NOW).is_ok());
        assert_eq!(
            refused(&settings, &backend(), &wish("")),
            Kind::Unprocessable
        );
        let nobody = || {
            issue(&settings, &backend(), &Wish::default(), NOW)
                .ok()
                .unwrap()
        };
        assert_ne!(nobody().subject, nobody().subject);
        let powerless = Caller {
            issues: false,
            ..backend()
        };
        assert_eq!(
            refused(&settings, &powerless, &Wish::default()),
            Kind::Forbidden
        );
        let chooser = Wish {
            policy: Some("media"),
            ..Wish::default()
        };
        assert_eq!(
            refused(&settings, &user("ann", ""), &chooser),
            Kind::Forbidden
        );
    }

    #[test]
    fn regions_and_transports_choose_the_urls() {
        let settings = settings(true);
        let urls = |region, ways| {
            let wish = Wish {
                region,
                ways,
                ..Wish::default()
            };
            issue(&settings, &user("ann", ""), &wish, NOW).map(|credential| {
                (
                    credential.region,
                    credential.stun().len(),
                    credential.turn().len(),
                )
            })
        };
        assert_eq!(urls(None, None).unwrap(), (Some("eu-west"), 1, 2));
        assert_eq!(urls(Some("auto"), None).unwrap(), (Some("eu-west"), 1, 2));
        assert_eq!(
            urls(Some("us-east"), None).unwrap(),
            (Some("us-east"), 0, 1)
        );
        assert_eq!(urls(None, Some(vec![Way::Tls])).unwrap().2, 1);
        for (region, ways) in [
            (Some("mars"), None),
            (None, Some(vec![])),
            (None, Some(vec![Way::Tcp])),
        ] {
            assert_eq!(urls(region, ways).unwrap_err().kind, Kind::Unprocessable);
        }
    }

    proptest! {
        /// Whatever a user is called, the name says that, and nothing else.
        #[test]
        fn no_name_breaks_out_of_its_field(subject in "\\PC{1,40}|[a-z~:_.%\\\\\n-]{1,80}", tenant in "[A-Za-z0-9._-]{0,64}") {
            let settings = settings(true);
            if let Ok(credential) = issue(&settings, &user(&subject, &tenant), &Wish::default(), NOW) {
                prop_assert!(credential.username.len() <= LONGEST_USERNAME);
                prop_assert!(credential.username.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":~._-".contains(&byte)));
                let issued = Issued::parse(credential.username.as_bytes()).unwrap().unwrap();
                prop_assert_eq!(crate::turn::unescape(issued.subject), subject.as_str());
                prop_assert_eq!(issued.tenant, tenant.as_str());
                prop_assert_eq!(issued.kid, "k2");
                prop_assert_eq!(issued.claims.allocations, None);
                prop_assert_eq!(issued.claims.ttl, Some(settings.ttl));
                prop_assert_eq!(issued.claims.id, credential.id.as_deref());
            }
        }

        /// A plain name is the user's, and never one with claims.
        #[test]
        fn no_plain_name_passes_for_one_with_claims(subject in "\\PC{1,40}|[a-z~:0-9]{1,40}") {
            let settings = settings(false);
            if let Ok(credential) = issue(&settings, &user(&subject, "acme"), &Wish::default(), NOW) {
                prop_assert_eq!(credential.username.split_once(':').unwrap().1, subject.as_str());
                prop_assert!(Issued::parse(credential.username.as_bytes()).is_none());
            }
        }
    }
}
