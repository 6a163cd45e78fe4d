//! The pages that people open in a browser: each one file that needs nothing else.
//!
//! A page brings its style and its script along, and the policy that it is served with names these two by their
//! hashes: nothing else runs in it, it loads nothing, talks to nobody but the server it came from, and is shown in
//! nobody's frame. There is no secret in a page, so whoever listens to people may serve one: `http`, and whatever
//! gives out credentials. What a page asks for is its own business; nothing here knows of the workers.

use std::sync::LazyLock;

use axum::http::header::{self, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

/// Where the self-test is served.
pub const SELF_TEST: &str = "/self-test";
/// Where the dashboard is served.
pub const DASHBOARD: &str = "/dashboard";

/// A page with its policy.
struct Page {
    html: &'static str,
    policy: HeaderValue,
}

static SELF_TEST_PAGE: LazyLock<Page> = LazyLock::new(|| Page::new(include_str!("self_test.html")));

static DASHBOARD_PAGE: LazyLock<Page> = LazyLock::new(|| Page::new(include_str!("dashboard.html")));

/// The page that calls itself through the relay, and tells what works and what to do about the rest: for
/// [`SELF_TEST`] of any router.
pub fn self_test<S: Clone + Send + Sync + 'static>() -> MethodRouter<S> {
    get(async || SELF_TEST_PAGE.response())
}

/// The page that shows what the server does: for [`DASHBOARD`] of a router with `/v1/live` and `/v1/sessions`, which it
/// asks with the token that is typed into it, or that its link brings.
pub fn dashboard<S: Clone + Send + Sync + 'static>() -> MethodRouter<S> {
    get(async || DASHBOARD_PAGE.response())
}

/// The address of a self-test at `origin` that begins at once, with the `RTCConfiguration` that is given as JSON. It
/// stands behind the `#`, which browsers send to nobody.
pub fn self_test_link(origin: &str, configuration: &str) -> String {
    format!(
        "{origin}{SELF_TEST}#{}",
        URL_SAFE_NO_PAD.encode(configuration)
    )
}

/// The address of a dashboard at `origin` that asks with `token`, which stands behind the `#` likewise. It must be of
/// letters that an address may hold.
pub fn dashboard_link(origin: &str, token: &str) -> String {
    format!("{origin}{DASHBOARD}#{token}")
}

impl Page {
    fn new(html: &'static str) -> Self {
        let policy = format!(
            "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; img-src data:; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'",
            hash(html, "script"),
            hash(html, "style"),
        );
        Self {
            html,
            policy: HeaderValue::try_from(policy).expect("a policy is ASCII"),
        }
    }

    fn response(&self) -> Response {
        let headers = [
            (
                header::CONTENT_TYPE,
                HeaderValue::from_static("text/html; charset=utf-8"),
            ),
            (header::CONTENT_SECURITY_POLICY, self.policy.clone()),
            (
                header::X_CONTENT_TYPE_OPTIONS,
                HeaderValue::from_static("nosniff"),
            ),
            (
                header::REFERRER_POLICY,
                HeaderValue::from_static("no-referrer"),
            ),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ];
        (headers, self.html).into_response()
    }
}

/// The source expression of the page's one element of this kind.
fn hash(html: &str, tag: &str) -> String {
    let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
    let inside = html
        .split_once(&open)
        .and_then(|(_, rest)| rest.split_once(&close))
        .map_or("", |(inside, _)| inside);
    format!("'sha256-{}'", STANDARD.encode(Sha256::digest(inside)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [&str; 2] = [
        include_str!("dashboard.html"),
        include_str!("self_test.html"),
    ];

    #[test]
    fn a_page_needs_nothing_else_and_runs_nothing_else() {
        for html in ALL {
            assert_eq!(html.matches("<script").count(), 1);
            assert_eq!(html.matches("<style").count(), 1);
            for word in [
                " src=",
                "@import",
                "url(",
                "<link rel=\"style",
                " style=\"",
                " onclick=",
                "eval(",
                "innerHTML",
                "document.write",
            ] {
                assert!(!html.contains(word), "{word}");
            }
            // Names of things, and what people read, but nothing to be fetched.
            for (at, _) in html.match_indices("https://") {
                assert!(
                    html[at..].starts_with("https://${at}/"),
                    "{}",
                    &html[at..at + 40]
                );
            }
            for (at, _) in html.match_indices("http://") {
                assert!(html[at..].starts_with("http://www.w3.org/2000/svg"));
            }
        }
    }

    #[test]
    fn the_policy_names_the_script_and_the_style_by_their_hashes() {
        let page = Page::new("<style>a{}</style><script>let a;</script>");
        let policy = page.policy.to_str().unwrap();
        // printf 'let a;' | openssl dgst -sha256 -binary | base64
        for part in [
            "default-src 'none'",
            "script-src 'sha256-81WALLbUROF1pWdYjuQYKuIcGgY/+TqVJr8UsV6Tkvo=';",
            "style-src 'sha256-X1RutGBrXCt9KkSaXMK7tHftWiRscFHOhxsS8tv8hBk=';",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(part), "{part}: {policy}");
        }
        assert!(!policy.contains("unsafe"));
    }

    #[test]
    fn a_link_keeps_its_configuration_behind_the_hash() {
        let link = self_test_link("http://127.0.0.1:9641", "{\"iceServers\":[]}");
        assert_eq!(
            link,
            "http://127.0.0.1:9641/self-test#eyJpY2VTZXJ2ZXJzIjpbXX0"
        );
    }
}
