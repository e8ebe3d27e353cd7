//! Links in the annotations of the rules. In the bundled files, each link is a path to a runbook in the repository or
//! to a dashboard in Grafana. If base URLs are configured, the paths become absolute URLs, which also work in
//! notifications.

use std::borrow::Cow;

use url::Url;

/// Prefix of every link to a runbook in the bundled files.
const RUNBOOK: &str = "docs/runbooks.md#";

/// Prefix of every link to a dashboard in the bundled files.
const DASHBOARD: &str = "/d/";

/// Base URLs of the links in the rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// URL of the exporter, without a trailing slash.
    exporter: Option<String>,
    /// URL of Grafana, without a trailing slash.
    grafana: Option<String>,
}

impl Links {
    /// Creates links under the exporter's external URL and Grafana's URL. Neither URL may have a query or fragment. If
    /// a URL is missing, its links remain paths.
    pub fn new(exporter: Option<&Url>, grafana: Option<&Url>) -> Self {
        let base = |url: &Url| url.as_str().trim_end_matches('/').to_owned();
        Self {
            exporter: exporter.map(base),
            grafana: grafana.map(base),
        }
    }

    /// Returns the text of the rules with URLs instead of paths.
    pub fn absolute(&self, rules: &'static str) -> Cow<'static, str> {
        let mut text = Cow::Borrowed(rules);
        for (key, path) in [("runbook_url", RUNBOOK), ("dashboard_url", DASHBOARD)] {
            if let Some(url) = self.url(path) {
                text = Cow::Owned(text.replace(&format!("{key}: {path}"), &format!("{key}: {url}")));
            }
        }
        text
    }

    /// Returns the URL for a path in the bundled files; `None` if its base URL is not configured.
    pub fn url(&self, path: &str) -> Option<String> {
        match (path.strip_prefix(RUNBOOK), &self.exporter, &self.grafana) {
            (Some(alert), Some(exporter), _) => Some(format!("{exporter}/runbooks/#{alert}")),
            (None, _, Some(grafana)) => Some(format!("{grafana}{path}")),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assets::RULES;

    const ALERT: &str = "
          runbook_url: docs/runbooks.md#elementsapidown
          dashboard_url: /d/elements-exporter?var-job={{ $labels.job }}
";

    fn absolute(exporter: Option<&str>, grafana: Option<&str>) -> String {
        let url = |text: Option<&str>| text.and_then(|text| Url::parse(text).ok());
        let links = Links::new(url(exporter).as_ref(), url(grafana).as_ref());
        links.absolute(ALERT).into_owned()
    }

    #[test]
    fn links_are_below_both_urls() {
        assert_eq!(absolute(None, None), ALERT);
        for (url, base) in [
            ("https://x.example.com", "https://x.example.com"),
            ("https://x.example.com/a/b/", "https://x.example.com/a/b"),
            ("http://[::1]:3000/it's", "http://[::1]:3000/it's"),
        ] {
            let runbook = format!("runbook_url: {base}/runbooks/#elementsapidown\n");
            let dashboard = format!("dashboard_url: {base}/d/elements-exporter?var-job={{{{ $labels.job }}}}\n");
            let both = absolute(Some(url), Some(url));
            assert!(both.contains(&runbook) && both.contains(&dashboard), "{both}");
            let one = absolute(Some(url), None);
            assert!(one.contains(&runbook) && one.contains(": /d/"), "{one}");
            let other = absolute(None, Some(url));
            assert!(other.contains(": docs/") && other.contains(&dashboard), "{other}");
        }
    }

    #[test]
    fn links_in_rules_become_absolute() {
        let url = Url::parse("https://x.example.com").ok();
        let links = Links::new(url.as_ref(), url.as_ref());
        let mut annotations = 0;
        for asset in RULES {
            let text = links.absolute(asset.content);
            for line in text.lines().map(str::trim_start) {
                let value = ["runbook_url:", "dashboard_url:"]
                    .into_iter()
                    .find_map(|name| line.strip_prefix(name));
                if let Some(value) = value {
                    assert!(value.starts_with(" https://x.example.com/"), "{line}");
                    annotations += 1;
                }
            }
        }
        assert!(annotations > 100, "{annotations}");
    }
}
