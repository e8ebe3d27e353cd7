//! All dashboards and rules in the repository are embedded. They and the runbooks use only existing metrics.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use elements_exporter::assets::{Asset, DASHBOARDS, RULES};
use elements_exporter::catalogue;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Returns the names of the files in a directory that start with `start` and end with `end`.
fn files(directory: &str, start: &str, end: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(repository(directory)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .filter(|name| name.starts_with(start) && name.ends_with(end))
        .collect()
}

fn names(assets: &[Asset]) -> BTreeSet<String> {
    assets.iter().map(|asset| asset.name.to_owned()).collect()
}

#[test]
fn dashboards_and_rules_are_all_embedded() {
    assert_eq!(names(DASHBOARDS), files("dashboards", "elements-", ".json"));
    assert_eq!(names(RULES), files("deploy/prometheus", "elements-", ".yml"));
    for dashboard in DASHBOARDS {
        let json: serde_json::Value = serde_json::from_str(dashboard.content).unwrap();
        let title = json["title"].as_str().unwrap();
        assert!(title.starts_with("Elements / "), "{}: {title}", dashboard.name);
    }
}

/// Returns the words in a text that look like names of the exporter's metrics.
fn metric_names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|character: char| !(character.is_ascii_alphanumeric() || "_:".contains(character)));
    words
        .filter(|word| word.starts_with("elements_") && !word.contains(':') && !word.ends_with('_'))
        .collect()
}

#[test]
fn dashboards_rules_and_runbooks_use_existing_metrics() {
    let mut existing: BTreeSet<String> = catalogue::metrics()
        .iter()
        .map(|entry| entry.metric.name.to_owned())
        .collect();
    for suffix in ["_bucket", "_sum", "_count"] {
        existing.insert(format!("elements_exporter_api_request_duration_seconds{suffix}"));
    }
    let runbooks = std::fs::read_to_string(repository("docs/runbooks.md")).unwrap();
    let files = DASHBOARDS.iter().chain(RULES).map(|asset| (asset.name, asset.content));
    for (name, content) in files.chain([("runbooks.md", runbooks.as_str())]) {
        let unknown: Vec<_> = metric_names(content)
            .into_iter()
            .filter(|word| !existing.contains(*word) && *word != "elements_exporter")
            .collect();
        assert!(unknown.is_empty(), "{name} uses unknown metrics {unknown:?}");
    }
}
