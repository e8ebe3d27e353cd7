//! Status pages. They need no scripts or external resources, and follow the system's colour scheme.

mod banner;
mod customer;
mod exporter;
mod front;
mod modules;
mod query;
mod runbooks;
mod runs;
mod words;

use std::sync::LazyLock;

use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use ring::digest::{SHA256, digest};

use crate::assets::{self, Asset};
use crate::build_info::{REVISION, VERSION};
use crate::domain::Timestamp;

pub(super) use customer::customer;
pub(super) use front::front;
pub(super) use query::PageQuery;

const STYLE: &str = include_str!("page/style.css");
const SCRIPT: &str = include_str!("page/live.js");

/// A small disc as an inline icon, so that browsers do not request an icon.
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Ccircle cx='8' \
                    cy='8' r='6' fill='%232da44e'/%3E%3C/svg%3E";

/// Reload interval in seconds if scripts are disabled. It is longer than the script's interval, because reloading the
/// whole page discards text that the reader is typing.
const REFRESH_SECONDS: u32 = 60;

/// Text that the script shows when the exporter is not responding.
const CONNECTION_LOST: &str = "The exporter is not responding. This page shows the last data received.";

/// Content security policy. It allows only requests and forms that are sent to the exporter, inline images, and the
/// page's own style and script, which it identifies by their hashes.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let policy = format!(
        "default-src 'none'; style-src {}; script-src {}; connect-src 'self'; img-src data:; form-action 'self'; \
         base-uri 'none'; frame-ancestors 'none'",
        hash(STYLE),
        hash(SCRIPT)
    );
    // The policy is always a valid header value. The fallback allows nothing.
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

fn hash(text: &str) -> String {
    format!("'sha256-{}'", BASE64_STANDARD.encode(digest(&SHA256, text.as_bytes())))
}

/// Link from the front page to itself. Links are relative, so that they work behind any proxy.
const ROOT: &str = "./";

/// Link from any other page to the front page.
const ROOT_FROM_BELOW: &str = "../";

/// A page. Its response contains security headers.
pub(super) struct Page {
    status: StatusCode,
    markup: Markup,
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        headers.insert(CONTENT_SECURITY_POLICY, POLICY.clone());
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        (self.status, headers, self.markup.into_string()).into_response()
    }
}

/// Lays out a page. `root` is the page's link to the front page. A live page refreshes automatically.
fn layout(site: &super::Site, title: &str, root: &str, is_live: bool, content: &Markup, foot: &Markup) -> Page {
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                title { (title) }
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                link rel="icon" href=(ICON);
                style { (PreEscaped(STYLE)) }
                @if is_live {
                    noscript { meta http-equiv="refresh" content=(REFRESH_SECONDS); }
                }
            }
            body {
                a.skip href="#content" { "Skip to content" }
                header {
                    div {
                        h1 { a href=(root) { "elements_exporter" } }
                        p.soft { (site.subtitle) }
                    }
                    nav aria-label="Pages" {
                        ul {
                            li { a href=(format!("{root}{}", site.telemetry_path.trim_start_matches('/'))) { "Metrics" } }
                            li { a href=(format!("{root}dashboards/")) { "Dashboards" } }
                            li { a href=(format!("{root}rules/")) { "Rules" } }
                            li { a href=(format!("{root}runbooks/")) { "Runbooks" } }
                            li { a href=(format!("{root}-/healthy")) { "Health" } }
                            li { a href=(format!("{root}-/ready")) { "Readiness" } }
                        }
                    }
                }
                main #content { (content) }
                footer {
                    (foot)
                    p { "elements_exporter " (VERSION) ", revision " (REVISION) }
                }
                @if is_live {
                    script { (PreEscaped(SCRIPT)) }
                }
            }
        }
    };
    Page {
        status: StatusCode::OK,
        markup,
    }
}

/// Returns the page that lists assets.
pub(super) fn list(site: &super::Site, assets: &[Asset], kind: &str) -> Page {
    let content = html! {
        h2 { (kind) }
        ul {
            @for Asset { name, .. } in assets {
                li { a href=(name) { (name) } }
            }
        }
        p.soft { "To write these files to disk, run " code { "elements_exporter assets DIR" } "." }
    };
    subpage(site, kind, &content)
}

/// Returns the page with the runbooks of the alerts.
pub(super) fn runbooks(site: &super::Site) -> Page {
    subpage(site, "runbooks", &runbooks::runbooks())
}

/// Renders the time at which a page was created.
fn as_of(at: Timestamp) -> Markup {
    html! { "As of " time #as-of data-live { (words::in_utc(at, "%Y-%m-%d %H:%M:%S UTC")) } "." }
}

/// Returns the link that pauses or resumes the automatic refresh of a page.
fn pause(is_live: bool, live: &str, paused: &str) -> Markup {
    html! {
        @if is_live { "Refreshes automatically; " a href=(paused) { "pause" } "." }
        @else { "Paused; " a href=(live) { "resume" } "." }
    }
}

/// Returns the page for a missing resource.
fn missing(site: &super::Site, what: &str, link_text: &str) -> Page {
    let content = html! {
        h2 { "Not found" }
        p.card.empty { (what) " " a href=(ROOT_FROM_BELOW) { (link_text) } }
    };
    let mut page = subpage(site, "not found", &content);
    page.status = StatusCode::NOT_FOUND;
    page
}

fn subpage(site: &super::Site, title: &str, content: &Markup) -> Page {
    let title = format!("{title} – elements_exporter");
    layout(site, &title, ROOT_FROM_BELOW, false, content, &html! {})
}

/// The pages link to assets by name, so asset names must not need escaping in a relative link.
const _: () = assert!(assets::NAMES_ARE_PLAIN);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_allows_only_the_script_of_the_page() {
        let policy = POLICY.to_str().unwrap_or_default();
        assert!(
            policy.starts_with("default-src 'none'") && policy.contains("script-src 'sha256-"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"));
    }
}
