//! The dialects: what other services are asked in, so that programs written for those need another address and no more.
//! Each reads a request, asks [`Site::grant`](super::site::Site::grant), and writes what came of it, in words of its own.

mod aws;
mod azure;
mod cloudflare;
mod turn_rest;
mod twilio;

use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse, Response};
use reqwest::Url;

use super::Dialect;
use super::refusal::{Kind, Refusal};
use super::site::{Call, Site};

/// The paths of these dialects.
pub(super) fn routes(dialects: &[Dialect]) -> Router<Arc<Site>> {
    let has = |dialect| dialects.contains(&dialect);
    let mut router = Router::new();
    if has(Dialect::TurnRest) {
        router = router.merge(turn_rest::routes());
    }
    if has(Dialect::Stunner) {
        router = router.merge(turn_rest::ice());
    }
    if has(Dialect::TurnRest) || has(Dialect::Stunner) {
        router = router.merge(turn_rest::root());
    }
    if has(Dialect::Cloudflare) {
        router = router.merge(cloudflare::routes());
    }
    if has(Dialect::Twilio) {
        router = router.merge(twilio::routes());
    }
    if has(Dialect::Aws) {
        router = router.merge(aws::routes());
    }
    router
}

/// What no route is for: one dialect writes its path in capitals and small letters as it likes.
pub(super) async fn other(call: Call) -> Response {
    let is_on = call.site.settings.dialects.contains(&Dialect::Azure);
    if is_on && azure::is_path(call.parts.uri.path()) {
        return azure::answer(call).await;
    }
    let detail =
        "see /openapi.json for what there is; dialects are switched on in [token] dialects";
    Refusal::new(Kind::NotFound, detail).into_response()
}

/// What dialects add to `/openapi.json`.
pub(super) fn document(dialect: Dialect) -> Option<&'static str> {
    match dialect {
        Dialect::Native => None,
        Dialect::TurnRest => Some(include_str!("../openapi/turn-rest.json")),
        Dialect::Stunner => Some(include_str!("../openapi/stunner.json")),
        Dialect::Azure => Some(include_str!("../openapi/azure.json")),
        Dialect::Cloudflare => Some(include_str!("../openapi/cloudflare.json")),
        Dialect::Twilio => Some(include_str!("../openapi/twilio.json")),
        Dialect::Aws => Some(include_str!("../openapi/aws.json")),
    }
}

/// The fields of a query, or of a form.
struct Fields(Vec<(String, String)>);

impl Fields {
    fn of(text: &str) -> Self {
        let mut url = Url::parse("http://localhost/").expect("it is a URL");
        url.set_query(Some(text));
        let pairs = url.query_pairs();
        Self(
            pairs
                .map(|(name, value)| (name.into_owned(), value.into_owned()))
                .collect(),
        )
    }

    /// The first of this name.
    fn get(&self, name: &str) -> Option<&str> {
        let mut fields = self.0.iter();
        let found = fields.find(|(own, _)| own == name);
        found.map(|(_, value)| value.as_str())
    }

    /// A number of seconds.
    fn seconds(&self, name: &str) -> Result<Option<u64>, Refusal> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let seconds = text.parse().ok().filter(|seconds| digits && *seconds > 0);
        let wrong = || Refusal::malformed(format!("`{name}` must be a number of seconds"));
        seconds.map(Some).ok_or_else(wrong)
    }
}

/// What has to be asked for anew cannot be had: dialects without a 422 call it a bad request.
fn as_bad_request(refusal: Refusal) -> Refusal {
    if refusal.kind == Kind::Unprocessable {
        Refusal {
            kind: Kind::Malformed,
            ..refusal
        }
    } else {
        refusal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_as_forms_have_them() {
        let fields = Fields::of("a=1&b=x+y%20z%26&a=2&c&ttl=60&zero=0&minus=-1&#=h");
        assert_eq!(fields.get("a"), Some("1"), "the first counts");
        assert_eq!(fields.get("b"), Some("x y z&"));
        assert_eq!(fields.get("c"), Some(""));
        assert_eq!(fields.get("d"), None);
        assert_eq!(fields.seconds("ttl").unwrap(), Some(60));
        assert_eq!(fields.seconds("d").unwrap(), None);
        for wrong in ["b", "c", "zero", "minus"] {
            fields.seconds(wrong).unwrap_err();
        }
    }
}
