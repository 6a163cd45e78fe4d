//! User tokens: JSON Web Tokens (RFC 7519) of the issuers that the operator names.

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation, dangerous, decode, decode_header};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::caller::{By, Caller, ISSUE};
use super::key_set::{KeySet, NoKey};
use super::refusal::{Kind, Refusal};
use crate::turn::is_plain;

/// Who signs tokens, and what must be in them.
#[derive(Clone)]
pub struct Issuer {
    /// `iss`
    pub name: String,
    /// What must be in `aud`.
    pub audience: String,
    /// What it signs with; others are refused, whatever a token says.
    pub algorithms: Vec<Algorithm>,
    /// What it signs with.
    pub keys: KeySet,
    /// The claim that names the tenant.
    pub tenant_claim: Option<String>,
    /// The tenant of tokens without that claim; empty where there are no tenants. Without both a token is refused: who is
    /// nobody's customer could take back what is any customer's.
    pub tenant: String,
    /// What must be in `scope` or `scp`, all of it.
    pub scopes: Vec<String>,
    /// How much its clock may differ, in seconds.
    pub leeway: u64,
}

/// A longer token is none.
const LONGEST: usize = 8192;

#[derive(Deserialize)]
struct Peek {
    iss: Option<String>,
}

/// Who the token speaks of.
pub(super) async fn verify(issuers: &[Issuer], token: &str) -> Result<Caller, Refusal> {
    let bad = || Refusal::bad_credentials("this is no key and no token that is good here");
    if token.len() > LONGEST || token.split('.').count() != 3 {
        return Err(bad());
    }
    // Nothing of this is believed; it says which issuer's keys to try.
    let header = decode_header(token).map_err(|_| bad())?;
    let peek: Peek = dangerous::insecure_decode_claims(token).map_err(|_| bad())?;
    let issuer = issuers
        .iter()
        .find(|issuer| Some(&issuer.name) == peek.iss.as_ref())
        .ok_or_else(|| Refusal::bad_credentials("no such issuer is trusted here"))?;
    if !issuer.algorithms.contains(&header.alg) || header.crit.is_some() {
        return Err(Refusal::bad_credentials(
            "tokens of this issuer are not signed like that",
        ));
    }
    let key = issuer.keys.find(header.kid.as_deref(), header.alg).await;
    let key = key.map_err(|no_key| match no_key {
        NoKey::Unknown => Refusal::bad_credentials("the issuer has no such key"),
        NoKey::Unavailable => Refusal::new(
            Kind::Unavailable,
            "the issuer's keys cannot be had at the moment",
        ),
    })?;
    let claims = decode::<Map<String, Value>>(token, &key, &issuer.validation(header.alg));
    let claims = claims.map_err(|error| explain(error.kind()))?.claims;
    issuer.caller(&claims)
}

impl Issuer {
    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.set_issuer(&[&self.name]);
        validation.set_audience(&[&self.audience]);
        validation.validate_nbf = true;
        validation.leeway = self.leeway;
        validation
    }

    /// The caller by claims that are to be believed.
    fn caller(&self, claims: &Map<String, Value>) -> Result<Caller, Refusal> {
        let subject = claims.get("sub").and_then(Value::as_str);
        let subject = subject
            .filter(|subject| !subject.is_empty())
            .ok_or_else(|| Refusal::bad_credentials("the token names nobody (sub)"))?;
        let has = |scope: &str| has_scope(claims, scope);
        let issues = has(ISSUE);
        if let Some(missing) = self.scopes.iter().find(|scope| !has(scope))
            && !issues
        {
            return Err(Refusal::forbidden(format!(
                "the token lacks the scope `{missing}`"
            )));
        }
        Ok(Caller {
            by: By::Issuer(self.name.clone()),
            subject: Some(subject.to_owned()),
            tenant: self.tenant_of(claims)?,
            issues,
            revokes: has(super::caller::REVOKE),
            max_ttl: None,
        })
    }

    fn tenant_of(&self, claims: &Map<String, Value>) -> Result<String, Refusal> {
        let claim = self.tenant_claim.as_ref().and_then(|name| claims.get(name));
        match claim {
            None if self.tenant.is_empty() && self.tenant_claim.is_some() => Err(
                Refusal::forbidden("the token does not say whose user this is"),
            ),
            None => Ok(self.tenant.clone()),
            Some(Value::String(tenant)) if is_plain(tenant) => Ok(tenant.clone()),
            Some(_) => Err(Refusal::forbidden(
                "the tenant in the token is not 1 to 64 letters, digits, `.`, `_` and `-`",
            )),
        }
    }
}

/// `scope` (RFC 8693 §4.2) or `scp`, words with spaces between or a list of them.
fn has_scope(claims: &Map<String, Value>, scope: &str) -> bool {
    let claims = ["scope", "scp"]
        .into_iter()
        .filter_map(|name| claims.get(name));
    claims.into_iter().any(|claim| match claim {
        Value::String(words) => words.split(' ').any(|word| word == scope),
        Value::Array(words) => words.iter().any(|word| word == scope),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
    })
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kinds of the crate are open"
)]
fn explain(kind: &ErrorKind) -> Refusal {
    Refusal::bad_credentials(match kind {
        ErrorKind::ExpiredSignature => "the token has expired",
        ErrorKind::ImmatureSignature => "the token is not good yet (nbf)",
        ErrorKind::InvalidAudience => "the token is for somebody else (aud)",
        ErrorKind::InvalidSignature => "the token's signature is not good",
        ErrorKind::MissingRequiredClaim(_) => "the token lacks one of exp, iss, aud and sub",
        _ => "the token is broken",
    })
}

#[cfg(test)]
mod tests {
    use std::slice;

    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::json;

    use super::*;

    const SECRET: &[u8] = b"north-north-north-north-north-north";

    fn issuer() -> Issuer {
        Issuer {
            name: "https://login.test".to_owned(),
            audience: "turn".to_owned(),
            algorithms: vec![Algorithm::HS256],
            keys: KeySet::shared(SECRET),
            tenant_claim: Some("tid".to_owned()),
            tenant: "home".to_owned(),
            scopes: vec!["voip".to_owned()],
            leeway: 5,
        }
    }

    fn claims() -> Value {
        let now = super::super::clock::unix();
        json!({ "iss": "https://login.test", "aud": "turn", "sub": "8:acme:ann", "exp": now + 60, "scope": "chat voip" })
    }

    fn with(more: Value) -> Value {
        let (Value::Object(mut all), Value::Object(more)) = (claims(), more) else {
            unreachable!("both are objects");
        };
        all.extend(more);
        all.retain(|_, value| !value.is_null());
        Value::Object(all)
    }

    fn sign(claims: &Value) -> String {
        encode(
            &Header::new(Algorithm::HS256),
            claims,
            &EncodingKey::from_secret(SECRET),
        )
        .unwrap()
    }

    async fn kind(token: &str) -> Result<Caller, Kind> {
        verify(&[issuer()], token)
            .await
            .map_err(|refusal| refusal.kind)
    }

    #[tokio::test]
    async fn a_good_token_names_its_user() {
        let caller = kind(&sign(&claims())).await.unwrap();
        assert_eq!(caller.subject.as_deref(), Some("8:acme:ann"));
        assert_eq!(caller.tenant, "home");
        assert!(!caller.issues && !caller.revokes);
        let token = sign(&with(
            json!({ "tid": "acme", "aud": ["x", "turn"], "scope": null, "scp": ["relay.issue"] }),
        ));
        let caller = kind(&token).await.unwrap();
        assert_eq!(caller.tenant, "acme");
        assert!(caller.issues, "and that is scope enough");
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_token_is_told() {
        let now = super::super::clock::unix();
        for wrong in [
            json!({ "exp": now - 60 }),
            json!({ "exp": null }),
            json!({ "exp": "tomorrow" }),
            json!({ "nbf": now + 60 }),
            json!({ "iss": "https://other.test" }),
            json!({ "iss": null }),
            json!({ "aud": "chat" }),
            json!({ "aud": null }),
            json!({ "sub": null }),
            json!({ "sub": "" }),
            json!({ "sub": 17 }),
        ] {
            let token = sign(&with(wrong.clone()));
            assert_eq!(
                kind(&token).await.unwrap_err(),
                Kind::BadCredentials,
                "{wrong}"
            );
        }
        for forbidden in [
            json!({ "scope": "chat" }),
            json!({ "scope": null }),
            json!({ "scope": "voipx" }),
            json!({ "tid": "a~b" }),
            json!({ "tid": "" }),
            json!({ "tid": 17 }),
        ] {
            let token = sign(&with(forbidden.clone()));
            assert_eq!(
                kind(&token).await.unwrap_err(),
                Kind::Forbidden,
                "{forbidden}"
            );
        }
        // A clock that is a little off.
        kind(&sign(&with(json!({ "exp": now - 2, "nbf": now + 2 }))))
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn who_is_no_tenants_user_is_not_taken_for_one_of_none() {
        let token = sign(&claims());
        let strict = Issuer {
            tenant: String::new(),
            ..issuer()
        };
        let refusal = verify(slice::from_ref(&strict), &token).await.unwrap_err();
        assert_eq!(refusal.kind, Kind::Forbidden);
        let without_tenants = Issuer {
            tenant_claim: None,
            ..strict
        };
        let caller = verify(&[without_tenants], &token).await.unwrap();
        assert_eq!(caller.tenant, "");
    }

    #[tokio::test]
    async fn no_token_chooses_how_it_is_checked() {
        let good = sign(&claims());
        let (_, rest) = good.split_once('.').unwrap();
        let (payload, signature) = rest.split_once('.').unwrap();
        let part = |value: Value| {
            use base64::Engine as _;
            base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string())
        };
        for header in [
            json!({ "alg": "none" }),
            json!({ "alg": "None" }),
            json!({ "alg": "HS384" }),
            json!({ "alg": "RS256" }),
            json!({ "alg": "HS256", "crit": ["b64"], "b64": false }),
            json!({ "typ": "JWT" }),
        ] {
            for signature in [signature, ""] {
                let token = format!("{}.{payload}.{signature}", part(header.clone()));
                assert_eq!(
                    kind(&token).await.unwrap_err(),
                    Kind::BadCredentials,
                    "{header}"
                );
            }
        }
        for broken in [
            "",
            "..",
            "a.b.c",
            "a.b",
            &format!("{good}.x"),
            &good[..good.len() - 2],
            &"a".repeat(9000),
        ] {
            assert_eq!(kind(broken).await.unwrap_err(), Kind::BadCredentials);
        }
    }
}
