//! Negotiates the format and the encoding with the client.

use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, ACCEPT_ENCODING, HeaderName};

use crate::exposition::Format;

/// Returns OpenMetrics if the client lists it and does not prefer the text format. Otherwise, returns the text format.
/// The client can list the text format by name or with a wildcard.
pub(super) fn format(headers: &HeaderMap) -> Format {
    let mut openmetrics = 0.0_f32;
    let (mut text, mut wildcard) = (None::<f32>, 0.0_f32);
    for range in items(headers, &ACCEPT) {
        match range.name.as_str() {
            "application/openmetrics-text" if range.accepts(&["1.0.0", "0.0.1"]) => {
                openmetrics = openmetrics.max(range.quality);
            }
            "text/plain" if range.accepts(&["0.0.4"]) => {
                text = Some(text.map_or(range.quality, |text| text.max(range.quality)));
            }
            "text/*" | "*/*" => wildcard = wildcard.max(range.quality),
            _ => {}
        }
    }
    // The quality of a listed type takes precedence over the quality of a wildcard.
    if openmetrics > 0.0 && openmetrics >= text.unwrap_or(wildcard) {
        Format::OpenMetrics
    } else {
        Format::Text
    }
}

/// Returns whether the client accepts gzip and does not prefer an uncompressed response.
pub(super) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let (mut gzip, mut wildcard, mut identity) = (None::<f32>, 0.0_f32, 0.0_f32);
    for coding in items(headers, &ACCEPT_ENCODING) {
        match coding.name.as_str() {
            // Both names mean the same encoding.
            "gzip" | "x-gzip" => gzip = Some(gzip.map_or(coding.quality, |gzip| gzip.max(coding.quality))),
            "identity" => identity = coding.quality,
            "*" => wildcard = coding.quality,
            _ => {}
        }
    }
    let gzip = gzip.unwrap_or(wildcard);
    gzip > 0.0 && gzip >= identity
}

/// An item of an `Accept` or `Accept-Encoding` header.
struct Item {
    name: String,
    quality: f32,
    version: Option<String>,
}

impl Item {
    /// Returns whether the item accepts one of these versions, or any version.
    fn accepts(&self, versions: &[&str]) -> bool {
        self.version
            .as_deref()
            .is_none_or(|version| versions.contains(&version))
    }
}

fn items(headers: &HeaderMap, name: &HeaderName) -> impl Iterator<Item = Item> {
    let values = headers.get_all(name).into_iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(item)
}

fn item(text: &str) -> Item {
    let mut parts = text.split(';').map(str::trim);
    let mut item = Item {
        name: parts.next().unwrap_or_default().to_ascii_lowercase(),
        quality: 1.0,
        version: None,
    };
    for (key, value) in parts.filter_map(|part| part.split_once('=')) {
        match key.trim().to_ascii_lowercase().as_str() {
            // An invalid quality, such as NaN, counts as 0.
            "q" => {
                let quality = value.trim().parse().ok().filter(|quality: &f32| quality.is_finite());
                item.quality = quality.unwrap_or(0.0).clamp(0.0, 1.0);
            }
            "version" => item.version = Some(value.trim().trim_matches('"').to_owned()),
            _ => {}
        }
    }
    item
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    fn accepted(value: &str) -> Format {
        format(&with(ACCEPT, value))
    }

    #[test]
    fn prometheus_gets_openmetrics_and_a_browser_gets_text() {
        let prometheus_2 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                            text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;\
                            escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert_eq!(accepted(prometheus_2), Format::OpenMetrics);
        assert_eq!(accepted(prometheus_3), Format::OpenMetrics);
        assert_eq!(accepted("application/openmetrics-text"), Format::OpenMetrics);
        assert_eq!(accepted("text/html,application/xhtml+xml,*/*;q=0.8"), Format::Text);
        assert_eq!(accepted("*/*"), Format::Text);
        assert_eq!(format(&HeaderMap::new()), Format::Text);
    }

    #[test]
    fn preferences_are_respected() {
        assert_eq!(
            accepted("application/openmetrics-text;q=0.3,text/plain;q=0.9"),
            Format::Text
        );
        for preferred in ["*/*", "text/*", "*/*;q=0.2"] {
            let text = format!("{preferred}, application/openmetrics-text;q=0.1");
            assert_eq!(accepted(&text), Format::Text, "{preferred}");
        }
        assert_eq!(
            accepted("*/*, text/plain;q=0.1, application/openmetrics-text;q=0.2"),
            Format::OpenMetrics
        );
        assert_eq!(accepted("application/openmetrics-text;q=0"), Format::Text);
        assert_eq!(accepted("application/openmetrics-text;version=2.0.0"), Format::Text);
        assert_eq!(accepted("application/openmetrics-text;q=invalid,;;=,"), Format::Text);
        assert_eq!(
            accepted("application/openmetrics-text, text/plain;q=nan"),
            Format::OpenMetrics
        );
    }

    #[test]
    fn gzip_is_used_if_accepted() {
        let gzip = |value: &str| accepts_gzip(&with(ACCEPT_ENCODING, value));
        assert!(gzip("gzip") && gzip("deflate, GZIP;q=0.5") && gzip("*"));
        assert!(gzip("x-gzip;q=0, gzip") && gzip("identity, gzip") && gzip("identity;q=0.5, *"));
        assert!(!gzip("gzip;q=0.1, identity") && !gzip("identity;q=1, *;q=0.1"));
        assert!(!gzip("gzip;q=0") && !gzip("*, gzip;q=0") && !gzip("identity") && !gzip(""));
        assert!(!accepts_gzip(&HeaderMap::new()));
    }
}
