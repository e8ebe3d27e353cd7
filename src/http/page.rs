//! The pages for people: what there is, and where.

use std::fmt::Write as _;

use super::Site;
use crate::assets::{self, Asset};

const STYLE: &str = ":root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;\
                     margin:3rem auto;padding:0 1rem}code{font-size:.95em}li{margin:.2rem 0}";

/// The page at `/`.
pub(super) fn index(site: &Site) -> String {
    let prefix = escape(&site.route_prefix);
    let metrics = escape(&site.telemetry_path);
    let up = match (site.health.is_ready(), site.scrape.is_up()) {
        (_, true) => "The newest attempts at a token and at the customer list succeeded.",
        (true, false) => "The newest attempt at a token or at the customer list failed; what is shown stands and ages.",
        (false, false) => "The customer list has not been had yet.",
    };
    let mut body = format!("<p>{}</p><p>{up}</p><ul>", escape(&site.subtitle));
    let links = [
        (metrics.as_str(), "metrics"),
        ("/-/healthy", "whether the process and its poll loop live"),
        ("/-/ready", "whether there is something to show"),
        ("/dashboards/", "dashboards for Grafana"),
        ("/rules/", "rules for Prometheus"),
    ];
    for (path, what) in links {
        let _ = write!(
            body,
            "<li><a href=\"{prefix}{path}\"><code>{path}</code></a> {what}</li>"
        );
    }
    let _ = write!(
        body,
        "</ul><p>Narrow the metrics with <code>?collector=NAME</code> and <code>?customer_id=ID</code>, each as often \
         as needed.</p><p><small>version {}, revision {}</small></p>",
        env!("CARGO_PKG_VERSION"),
        env!("ELEMENTS_EXPORTER_REVISION"),
    );
    page("elements_exporter", &body)
}

/// The page that lists assets.
pub(super) fn list(site: &Site, assets: &[Asset], kind: &str) -> String {
    let prefix = escape(&site.route_prefix);
    let mut body = String::from("<ul>");
    for Asset { name, .. } in assets {
        let _ = write!(body, "<li><a href=\"{prefix}/{kind}/{name}\">{name}</a></li>");
    }
    let _ = write!(
        body,
        "</ul><p>The same files, written to disk: <code>elements_exporter assets DIR</code></p><p><a \
         href=\"{prefix}/\">elements_exporter</a></p>"
    );
    page(kind, &body)
}

fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title><meta name=\"viewport\" \
         content=\"width=device-width\"><style>{STYLE}</style></head><body><h1>{title}</h1>{body}</body></html>\n"
    )
}

/// Text that is inert in HTML, in content and in attributes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// The assets that the pages list must have names that need no escaping.
const _: () = assert!(assets::NAMES_ARE_PLAIN);
