//! Dashboards, rules and runbooks, embedded so that they match the exporter's version.

mod links;

use std::borrow::Cow;
use std::fs::Permissions;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use yaml_rust2::{EmitError, Yaml, YamlEmitter};

pub use links::Links;

/// A bundled file.
#[derive(Clone, Copy, Debug)]
pub struct Asset {
    /// File name.
    pub name: &'static str,
    /// Content, identical to the file in the repository.
    pub content: &'static str,
}

impl Asset {
    /// Returns the `Content-Type` of the file.
    pub fn content_type(&self) -> &'static str {
        if self.name.ends_with(".json") {
            "application/json"
        } else {
            "application/yaml; charset=utf-8"
        }
    }
}

/// Returns the file with this name in a directory of the repository.
macro_rules! asset {
    ($directory:literal, $name:literal) => {
        Asset {
            name: $name,
            content: include_str!(concat!("../", $directory, "/", $name)),
        }
    };
}

/// Dashboards for Grafana.
pub const DASHBOARDS: &[Asset] = &[
    asset!("dashboards", "elements-fleet.json"),
    asset!("dashboards", "elements-customer.json"),
    asset!("dashboards", "elements-jobs.json"),
    asset!("dashboards", "elements-protection.json"),
    asset!("dashboards", "elements-licences.json"),
    asset!("dashboards", "elements-report.json"),
    asset!("dashboards", "elements-exporter.json"),
];

/// Rules for Prometheus.
pub const RULES: &[Asset] = &[
    asset!("deploy/prometheus", "elements-recording.yml"),
    asset!("deploy/prometheus", "elements-alerts.yml"),
];

/// Alert rules for Grafana, converted from [`RULES`] for users without Alertmanager.
pub const GRAFANA_ALERTS: Asset = Asset {
    name: "elements-alerts.yaml",
    content: include_str!("../deploy/grafana/elements-alerts.yaml"),
};

/// UID of the data source in [`GRAFANA_ALERTS`]. This data source exists in every Grafana Cloud stack.
pub const DEFAULT_DATASOURCE: &str = "grafanacloud-prom";

/// Runbooks of the alerts, in Markdown.
pub const RUNBOOKS: &str = include_str!("../docs/runbooks.md");

/// Whether the file names of all dashboards and rules consist only of ASCII letters, digits, `-`, `_` and `.`. Pages
/// need not escape such names.
pub const NAMES_ARE_PLAIN: bool = names_are_plain(DASHBOARDS) && names_are_plain(RULES);

const fn names_are_plain(assets: &[Asset]) -> bool {
    let mut rest = assets;
    while let [asset, others @ ..] = rest {
        let mut bytes = asset.name.as_bytes();
        while let [byte, following @ ..] = bytes {
            if !(byte.is_ascii_alphanumeric() || matches!(*byte, b'-' | b'_' | b'.')) {
                return false;
            }
            bytes = following;
        }
        rest = others;
    }
    true
}

/// Writes the dashboards to `dashboards` and the rules to `rules` under `directory`. Returns the number of files.
///
/// # Errors
/// Returns an error if a directory or file cannot be written.
pub fn write(directory: &Path, links: &Links) -> io::Result<usize> {
    let dashboards = DASHBOARDS
        .iter()
        .map(|asset| ("dashboards", asset, Cow::Borrowed(asset.content)));
    let rules = RULES
        .iter()
        .map(|asset| ("rules", asset, links.absolute(asset.content)));
    let mut written = 0;
    for (folder, asset, content) in dashboards.chain(rules) {
        let folder = directory.join(folder);
        std::fs::create_dir_all(&folder)?;
        replace_file(&folder.join(asset.name), &content)?;
        written += 1;
    }
    Ok(written)
}

/// Writes the Grafana alert rules under `directory`. Their queries use the data source whose UID is `datasource`.
/// Returns the number of files.
///
/// # Errors
/// Returns an error if the directory or the file cannot be written.
pub fn write_grafana_alerts(directory: &Path, datasource: &str, links: &Links) -> io::Result<usize> {
    let rules = grafana_alerts(datasource, links).map_err(io::Error::other)?;
    std::fs::create_dir_all(directory)?;
    replace_file(&directory.join(GRAFANA_ALERTS.name), &rules)?;
    Ok(1)
}

/// Returns the Grafana alert rules. Their queries use the data source whose UID is `datasource`.
///
/// # Errors
/// Returns an error if the UID cannot be emitted as YAML.
pub fn grafana_alerts(datasource: &str, links: &Links) -> Result<String, EmitError> {
    let mut document = String::new();
    YamlEmitter::new(&mut document).dump(&Yaml::String(datasource.to_owned()))?;
    let datasource = document.trim_start_matches("---\n");
    let lines = GRAFANA_ALERTS.content.lines().map(|line| {
        let (name, value) = line.split_once(": ").unwrap_or((line, ""));
        match (name.trim_start(), value.trim_matches('"')) {
            ("datasourceUid", DEFAULT_DATASOURCE) => format!("{name}: {datasource}\n"),
            ("runbook_url" | "dashboard_url", path) => match links.url(path) {
                Some(url) => format!("{name}: \"{url}\"\n"),
                None => format!("{line}\n"),
            },
            _ => format!("{line}\n"),
        }
    });
    Ok(lines.collect())
}

/// Replaces a file atomically, so that a full disk cannot truncate it.
fn replace_file(path: &Path, content: &str) -> io::Result<()> {
    // If the path is a symbolic link, its target is replaced.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    // Other users can read the file, unless the umask prevents it.
    let mut file = builder.permissions(Permissions::from_mode(0o666)).tempfile_in(folder)?;
    file.write_all(content.as_bytes())?;
    file.persist(path)?;
    Ok(())
}
