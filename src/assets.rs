//! Dashboards and rules, compiled in, so that they are always those of this version.

use std::io;
use std::path::Path;

/// A file that comes with the exporter.
#[derive(Clone, Copy, Debug)]
pub struct Asset {
    /// Its name.
    pub name: &'static str,
    /// Its content, byte for byte that of the repository.
    pub content: &'static str,
}

impl Asset {
    /// The value of `Content-Type` that goes with it.
    pub fn content_type(&self) -> &'static str {
        if self.name.ends_with(".json") {
            "application/json"
        } else {
            "application/yaml; charset=utf-8"
        }
    }
}

/// Dashboards for Grafana.
pub const DASHBOARDS: &[Asset] = &[
    Asset {
        name: "elements-fleet.json",
        content: include_str!("../dashboards/elements-fleet.json"),
    },
    Asset {
        name: "elements-customer.json",
        content: include_str!("../dashboards/elements-customer.json"),
    },
    Asset {
        name: "elements-jobs.json",
        content: include_str!("../dashboards/elements-jobs.json"),
    },
    Asset {
        name: "elements-protection.json",
        content: include_str!("../dashboards/elements-protection.json"),
    },
    Asset {
        name: "elements-licences.json",
        content: include_str!("../dashboards/elements-licences.json"),
    },
    Asset {
        name: "elements-exporter.json",
        content: include_str!("../dashboards/elements-exporter.json"),
    },
];

/// Rules for Prometheus.
pub const RULES: &[Asset] = &[
    Asset {
        name: "elements-recording.yml",
        content: include_str!("../deploy/prometheus/elements-recording.yml"),
    },
    Asset {
        name: "elements-alerts.yml",
        content: include_str!("../deploy/prometheus/elements-alerts.yml"),
    },
];

/// What to do about each alert, in Markdown.
pub const RUNBOOKS: &str = include_str!("../docs/runbooks.md");

/// Whether every name consists of letters, digits, `-`, `_` and `.`, so that it can stand in a page as it is.
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

/// Writes all assets under `directory`: dashboards in `dashboards`, rules in `rules`.
///
/// # Errors
/// Where a directory or file cannot be written.
pub fn write(directory: &Path) -> io::Result<usize> {
    let mut written = 0;
    for (folder, assets) in [("dashboards", DASHBOARDS), ("rules", RULES)] {
        let folder = directory.join(folder);
        std::fs::create_dir_all(&folder)?;
        for asset in assets {
            std::fs::write(folder.join(asset.name), asset.content)?;
            written += 1;
        }
    }
    Ok(written)
}
