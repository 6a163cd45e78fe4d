//! `POST /v1/relay/revocations` and `DELETE /v1/relay/credentials/{id}`: credentials are taken back.

use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, post};

use super::caller::Caller;
use super::native::JSON;
use super::refusal::{Kind, Refusal};
use super::site::{Call, Site};
use super::{Dialect, Settings};
use crate::revocation::{Failure, Words};
use crate::turn::{Issued, Revoked};

pub(super) fn routes() -> Router<Arc<Site>> {
    Router::new()
        .route("/v1/relay/revocations", post(revocations))
        .route("/v1/relay/credentials/{id}", delete(credential))
}

async fn revocations(call: Call) -> Response {
    done(ordered(&call).await)
}

async fn credential(Path(id): Path<String>, call: Call) -> Response {
    done(one_credential(&call, id).await)
}

fn done(outcome: Result<(), Refusal>) -> Response {
    match outcome {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

async fn ordered(call: &Call) -> Result<(), Refusal> {
    let caller = call.site.authenticate(call.source, call.bearer()).await?;
    let about = |refusal: Refusal| refusal.about(Dialect::Native, &caller);
    let words = read(call).map_err(about)?;
    revoke(call, Dialect::Native, &caller, words).await
}

async fn one_credential(call: &Call, id: String) -> Result<(), Refusal> {
    let caller = call.site.authenticate(call.source, call.bearer()).await?;
    let words = Words {
        credential_id: Some(id),
        ..Words::default()
    };
    revoke(call, Dialect::Native, &caller, words).await
}

fn read(call: &Call) -> Result<Words, Refusal> {
    if !call.is_of_type(JSON) {
        let detail = "send the body as `Content-Type: application/json`";
        return Err(Refusal::new(Kind::MediaType, detail));
    }
    serde_json::from_slice(call.body()?).map_err(|error| {
        if error.is_data() {
            Refusal::unprocessable(error.to_string())
        } else {
            Refusal::malformed(error.to_string())
        }
    })
}

/// Revokes what a caller asks for, who has proved who they are.
pub(super) async fn revoke(
    call: &Call,
    dialect: Dialect,
    caller: &Caller,
    words: Words,
) -> Result<(), Refusal> {
    let revoked = carry_out(&call.site, caller, words).await;
    match revoked {
        Ok((revoked, ended)) => {
            let audit = &call.site.audit;
            audit.revoked((dialect, call.source), caller, &revoked, ended);
            Ok(())
        }
        Err(refusal) => Err(refusal.about(dialect, caller)),
    }
}

async fn carry_out(
    site: &Site,
    caller: &Caller,
    mut words: Words,
) -> Result<(Revoked, Option<usize>), Refusal> {
    if !caller.revokes {
        let detail = "to take credentials back takes the scope relay.revoke";
        return Err(Refusal::forbidden(detail));
    }
    let Some(revoker) = &site.revoker else {
        let detail = "nothing is revoked here: [revocation] is switched off";
        return Err(Refusal::new(Kind::NotFound, detail));
    };
    site.limits.revocation(&caller.tenant)?;
    stay_at_home(caller, &mut words)?;
    check_tenant(&site.settings, &words)?;
    let order = words
        .order()
        .map_err(|bad| Refusal::unprocessable(bad.to_string()))?;
    let revoked = order.revoked.clone();
    let outcome = revoker.revoke(order).await;
    let outcome = outcome.map_err(|failure| match failure {
        Failure::TooLate => Refusal::unprocessable(failure.to_string()),
        Failure::Full(_) | Failure::NotKept { .. } | Failure::Unreadable(_) | Failure::Absent => {
            Refusal::new(Kind::Unavailable, failure.to_string())
        }
    })?;
    Ok((revoked, outcome.ended))
}

/// Who belongs to a tenant takes back what is that tenant's, and need not say so.
fn stay_at_home(caller: &Caller, words: &mut Words) -> Result<(), Refusal> {
    if caller.tenant.is_empty() {
        return Ok(());
    }
    let is_own = match (&words.username, &words.tenant) {
        (Some(name), _) => {
            let issued = Issued::parse(name.as_bytes());
            issued.is_some_and(|issued| issued.is_ok_and(|issued| issued.tenant == caller.tenant))
        }
        (None, Some(tenant)) => *tenant == caller.tenant,
        (None, None) => {
            let says_whom = words.user.is_some() || words.credential_id.is_some();
            words.tenant = says_whom.then(|| caller.tenant.clone());
            true
        }
    };
    if is_own {
        Ok(())
    } else {
        Err(Refusal::forbidden("this belongs to another tenant"))
    }
}

/// What is handed out with a secret that vouches for no claims says not whose it is: nothing would be revoked.
fn check_tenant(settings: &Settings, words: &Words) -> Result<(), Refusal> {
    let Some(tenant) = &words.tenant else {
        return Ok(());
    };
    if settings.secret.vouches_for_claims() || settings.tenants.contains(tenant) {
        return Ok(());
    }
    Err(Refusal::unprocessable(
        "credentials do not say whose they are, so none of a tenant can be found (claims = true in [auth] secrets)",
    ))
}
