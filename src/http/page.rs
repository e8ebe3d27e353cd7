//! The pages for people: complete without scripts, with nothing from elsewhere, and dark or light as the system is.

mod customer;
mod front;
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
use pulldown_cmark::{CowStr, Event, Parser, Tag, TagEnd};
use ring::digest::{SHA256, digest};

use crate::args::{REVISION, VERSION};
use crate::assets::{self, Asset};
use crate::domain::Timestamp;

pub(super) use customer::customer;
pub(super) use front::{Wanted, front};

const STYLE: &str = include_str!("page/style.css");
const SCRIPT: &str = include_str!("page/live.js");

/// A small disc, so that no browser asks for an icon.
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Ccircle cx='8' \
                    cy='8' r='6' fill='%232da44e'/%3E%3C/svg%3E";

/// How often a page renews itself where scripts are off, in seconds. Less often than the script does, because it takes
/// the whole page and with it what is being typed.
const RENEWAL_SECONDS: u32 = 60;

/// What the pages may load and do: their own style and script by their hashes, themselves again, and nothing else.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let policy = format!(
        "default-src 'none'; style-src {}; script-src {}; connect-src 'self'; img-src data:; form-action 'self'; \
         base-uri 'none'; frame-ancestors 'none'",
        hash(STYLE),
        hash(SCRIPT)
    );
    // It is made of letters, digits and punctuation alone; nothing allowed at all is what is left otherwise.
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

fn hash(text: &str) -> String {
    format!("'sha256-{}'", BASE64_STANDARD.encode(digest(&SHA256, text.as_bytes())))
}

/// The way from a page to the root of all pages. Links are relative, so that they lead home behind any proxy.
#[derive(Clone, Copy)]
enum Depth {
    Root,
    Below,
}

impl Depth {
    fn root(self) -> &'static str {
        match self {
            Self::Root => "./",
            Self::Below => "../",
        }
    }
}

/// A page with the headers that go with it.
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

/// What every page has around it.
struct Frame<'a> {
    title: &'a str,
    subtitle: &'a str,
    telemetry_path: &'a str,
    depth: Depth,
    /// Whether the page renews itself.
    live: bool,
}

impl Frame<'_> {
    fn page(&self, status: StatusCode, content: &Markup, foot: &Markup) -> Page {
        let root = self.depth.root();
        let markup = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    title { (self.title) }
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    link rel="icon" href=(ICON);
                    style { (PreEscaped(STYLE)) }
                    @if self.live {
                        noscript { meta http-equiv="refresh" content=(RENEWAL_SECONDS); }
                    }
                }
                body {
                    a.skip href="#content" { "Skip to the content" }
                    header {
                        div {
                            h1 { a href=(root) { "elements_exporter" } }
                            p.soft { (self.subtitle) }
                        }
                        nav aria-label="Pages" {
                            ul {
                                li { a href=(format!("{root}{}", self.telemetry_path.trim_start_matches('/'))) { "Metrics" } }
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
                    @if self.live {
                        script { (PreEscaped(SCRIPT)) }
                    }
                }
            }
        };
        Page { status, markup }
    }
}

/// The page that lists assets.
pub(super) fn list(site: &super::Site, assets: &[Asset], kind: &str) -> Page {
    let content = html! {
        h2 { (kind) }
        ul {
            @for Asset { name, .. } in assets {
                li { a href=(name) { (name) } }
            }
        }
        p.soft { "The same files, written to disk: " code { "elements_exporter assets DIR" } }
    };
    below(site, kind, &content)
}

/// The page with what to do about each alert.
pub(super) fn runbooks(site: &super::Site) -> Page {
    let content = html! {
        div.card.text { (PreEscaped(as_html(assets::RUNBOOKS))) }
    };
    below(site, "runbooks", &content)
}

/// When a page was made.
fn as_of(at: Timestamp) -> Markup {
    let exact = jiff::Timestamp::from_second(at.as_whole_unix_seconds()).map(|at| at.to_string());
    let exact = exact.unwrap_or_default().replace('T', " ").replace('Z', " UTC");
    html! { "As of " time #as-of data-live { (exact) } "." }
}

/// How to stop a page from renewing itself, and to have it go on.
fn pause(is_live: bool, live: &str, paused: &str) -> Markup {
    html! {
        @if is_live { "It renews itself; " a href=(paused) { "pause" } "." }
        @else { "It is paused; " a href=(live) { "resume" } "." }
    }
}

/// What is said of a page that is not there.
fn missing(site: &super::Site, what: &str, way_out: &str) -> Page {
    let content = html! {
        h2 { "Not found" }
        p.card.empty { (what) " " a href=(Depth::Below.root()) { (way_out) } }
    };
    let mut page = below(site, "not found", &content);
    page.status = StatusCode::NOT_FOUND;
    page
}

fn below(site: &super::Site, title: &str, content: &Markup) -> Page {
    let title = format!("{title} – elements_exporter");
    let frame = Frame {
        title: &title,
        subtitle: &site.subtitle,
        telemetry_path: &site.telemetry_path,
        depth: Depth::Below,
        live: false,
    };
    frame.page(StatusCode::OK, content, &html! {})
}

/// Our own Markdown as HTML. Headings get the anchors that the alerts name, and what leads to other files of the
/// repository is no link, because those files are not served.
fn as_html(markdown: &str) -> String {
    let mut events: Vec<Event<'_>> = Vec::new();
    let mut heading = None;
    let mut dead_link = false;
    for event in Parser::new_ext(markdown, pulldown_cmark::Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Heading { .. }) => {
                heading = Some(events.len());
                events.push(event);
            }
            Event::End(TagEnd::Heading(_)) => {
                events.push(event);
                if let Some(from) = heading.take() {
                    name_heading(&mut events, from);
                }
            }
            Event::Start(Tag::Link { ref dest_url, .. }) if !dest_url.starts_with('#') => dead_link = true,
            Event::End(TagEnd::Link) if dead_link => dead_link = false,
            // What a runbook says in bold begins a line of its own.
            Event::Start(Tag::Strong) if matches!(events.last(), Some(Event::SoftBreak)) => {
                events.pop();
                events.extend([Event::HardBreak, event]);
            }
            event => events.push(event),
        }
    }
    let mut text = String::with_capacity(2 * markdown.len());
    pulldown_cmark::html::push_html(&mut text, events.into_iter());
    text
}

/// Gives the heading that begins at `from` the anchor that repositories give it.
fn name_heading(events: &mut [Event<'_>], from: usize) {
    let Some((Event::Start(Tag::Heading { id, .. }), rest)) = events.get_mut(from..).and_then(<[_]>::split_first_mut)
    else {
        return;
    };
    let words = rest.iter().filter_map(|event| match event {
        Event::Text(text) | Event::Code(text) => Some(text.to_lowercase()),
        _ => None,
    });
    let anchor: String = words
        .flat_map(|text| text.chars().collect::<Vec<_>>())
        .filter_map(|character| match character {
            ' ' => Some('-'),
            character if character.is_alphanumeric() || matches!(character, '-' | '_') => Some(character),
            _ => None,
        })
        .collect();
    *id = Some(CowStr::from(anchor));
}

/// The assets that the pages list must have names that can stand in a relative link as they are.
const _: () = assert!(assets::NAMES_ARE_PLAIN);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runbooks_have_the_anchors_that_alerts_name_and_no_dead_links() {
        let html = as_html(assets::RUNBOOKS);
        assert!(
            html.contains("<h3 id=\"elementsapidown\">ElementsApiDown</h3>"),
            "{html}"
        );
        assert!(html.contains("<a href=\"#elementsauthfailing\">"));
        assert!(html.contains("<br />\n<strong>Do</strong>"));
        assert!(!html.contains("href=\"..") && !html.contains("<script"));
    }

    #[test]
    fn the_policy_allows_no_script_but_ours() {
        let policy = POLICY.to_str().unwrap_or_default();
        assert!(
            policy.starts_with("default-src 'none'") && policy.contains("script-src 'sha256-"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"));
    }
}
