//! The example configuration, the exposition and the generated parts of the documentation match the code.

mod grafana_alerts;
mod schema;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use elements_exporter::api::{Generation, auth};
use elements_exporter::exposition::{Metric, Stability};
use elements_exporter::{catalogue, collector, config, schedule};

use crate::harness::partner::{frozen_partner, start};
use crate::harness::{OBJECTS, poll_once};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository(path)).unwrap()
}

fn update_expected() -> bool {
    std::env::var_os("UPDATE_EXPECTED").is_some()
}

/// Compares the part of a page between two markers with the generated content. If `UPDATE_EXPECTED` is set, first
/// writes the content to the page.
pub(crate) fn section(path: &str, name: &str, content: &str) {
    let page = read(path);
    let (begin, end) = (format!("<!-- {name}:begin -->\n"), format!("<!-- {name}:end -->"));
    let (before, rest) = page
        .split_once(&begin)
        .unwrap_or_else(|| panic!("{path} has no {begin}"));
    let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("{path} has no {end}"));
    let expected = format!("{before}{begin}{}\n{end}{after}", content.trim_end());
    if update_expected() {
        std::fs::write(repository(path), &expected).unwrap();
    }
    assert_eq!(
        read(path),
        expected,
        "{path} is out of date; UPDATE_EXPECTED=1 updates it"
    );
}

/// Returns the pages of the metrics reference: one per collector, and `exporter` for the metrics about the exporter.
fn metric_pages() -> Vec<&'static str> {
    let mut pages = Vec::new();
    for entry in catalogue::metrics() {
        let page = entry.collector.unwrap_or("exporter");
        if pages.last() != Some(&page) {
            pages.push(page);
        }
    }
    pages
}

/// Returns a page's metrics as a Markdown table.
fn metric_table(page: &str) -> String {
    let mut table = String::from("| metric | type | labels | stability | meaning |\n|---|---|---|---|---|\n");
    let entries = catalogue::metrics().into_iter();
    for entry in entries.filter(|entry| entry.collector.unwrap_or("exporter") == page) {
        let Metric { name, kind, help, .. } = entry.metric;
        let labels: Vec<String> = entry.labels.iter().map(|label| format!("`{label}`")).collect();
        let stability = match entry.metric.stability {
            Stability::Stable => "stable",
            Stability::Experimental => "experimental",
        };
        let (kind, labels) = (kind.as_str(), labels.join(", "));
        writeln!(table, "| `{name}` | {kind} | {labels} | {stability} | {help} |").unwrap();
    }
    table
}

/// Returns the collectors as a Markdown table, with links to their pages.
fn collector_table() -> String {
    let mut table = String::from(
        "| collector | interval | permission for API v3 | permission for API v1 | metrics |\n\
         |---|---|---|---|---|\n",
    );
    for page in metric_pages() {
        let metrics = catalogue::metrics().into_iter();
        let count = metrics
            .filter(|entry| entry.collector.unwrap_or("exporter") == page)
            .count();
        let plural = if count == 1 { "" } else { "s" };
        let link = format!("[{count} metric{plural}]({page}.md)");
        match collector::ALL.iter().find(|entry| entry.name == page) {
            Some(entry) => {
                let interval = humantime::format_duration(entry.interval);
                let scope = |generation| {
                    entry
                        .scope(generation)
                        .map_or_else(String::new, |scope| format!("`{scope}`"))
                };
                let (v3, v1) = (scope(Generation::V3), scope(Generation::V1));
                writeln!(table, "| `{page}` | {interval} | {v3} | {v1} | {link} |").unwrap();
            }
            None => writeln!(table, "| none: the exporter itself | | | | {link} |").unwrap(),
        }
    }
    table
}

/// Returns the configuration keys as a Markdown table.
fn key_table() -> String {
    let mut table = String::from("| key | environment | default | value | meaning |\n|---|---|---|---|---|\n");
    for key in config::KEYS.iter() {
        let default = match key.default {
            config::KeyDefault::Value(text) => format!("`{text}`"),
            other => other.text().to_owned(),
        };
        writeln!(
            table,
            "| `{}` | `{}` | {default} | {} | {} |",
            key.path,
            key.variable(),
            key.format,
            key.description
        )
        .unwrap();
    }
    table
}

#[test]
fn metrics_reference_matches_the_catalogue() {
    for page in metric_pages() {
        let path = format!("docs/metrics/{page}.md");
        if update_expected() && !repository(&path).exists() {
            let empty = format!("# Collector `{page}`\n\n<!-- metrics:begin -->\n<!-- metrics:end -->\n");
            std::fs::write(repository(&path), empty).unwrap();
        }
        section(&path, "metrics", &metric_table(page));
    }
    section("docs/metrics/README.md", "collectors", &collector_table());
    let files = std::fs::read_dir(repository("docs/metrics")).unwrap();
    let files: BTreeSet<String> = files
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    let pages = metric_pages().into_iter().chain(["README"]);
    assert_eq!(files, pages.map(|page| format!("{page}.md")).collect());
}

#[test]
fn configuration_reference_matches_the_keys() {
    section("docs/configuration.md", "config", &key_table());
}

/// The README is short, because newcomers read it first. Details belong on other pages.
#[test]
fn readme_has_at_most_150_lines() {
    let lines = read("README.md").lines().count();
    assert!(lines <= 150, "README.md has {lines} lines; move some of it to docs/");
}

#[test]
fn failure_reasons_are_explained() {
    let page = read("docs/troubleshooting.md");
    let (_, table) = page.split_once("## Reasons").unwrap();
    let (table, _) = table.split_once("\n## ").unwrap();
    let mut explained = BTreeSet::new();
    for row in table.lines().filter(|line| line.starts_with("| `")) {
        let cell = row.split('|').nth(1).unwrap();
        explained.extend(cell.split(',').map(|reason| reason.trim().trim_matches('`')));
    }
    let of_tokens = auth::REASONS.iter().copied();
    let reasons: BTreeSet<&str> = schedule::reasons().chain(of_tokens).collect();
    assert_eq!(explained, reasons);
}

/// Returns the dotted paths of the keys in a YAML file. A key may be commented out with one `#` in the first column.
/// Comments start with `##` or are indented.
fn commented_keys(yaml: &str) -> BTreeSet<String> {
    let mut sections: Vec<(usize, String)> = Vec::new();
    let mut keys = BTreeSet::new();
    for line in yaml.lines().filter(|line| !line.starts_with("##")) {
        let line = line.strip_prefix('#').unwrap_or(line);
        let name = line.trim_start();
        let indent = line.len() - name.len();
        let Some((name, value)) = name.split_once(':') else {
            continue;
        };
        if name.contains(' ') || name.starts_with('#') || name.starts_with('-') {
            continue;
        }
        sections.retain(|(outer, _)| *outer < indent);
        let path: String = sections.iter().map(|(_, section)| format!("{section}.")).collect();
        if value.trim().is_empty() && !config::KEYS.iter().any(|key| key.path == format!("{path}{name}")) {
            sections.push((indent, name.to_owned()));
        } else {
            keys.insert(format!("{path}{name}"));
        }
    }
    keys
}

#[test]
fn example_configuration_has_all_keys_and_no_others() {
    let example = commented_keys(&read("deploy/config/elements.yml"));
    let keys: BTreeSet<String> = config::KEYS.iter().map(|key| key.path.to_owned()).collect();
    assert_eq!(example, keys);
}

#[tokio::test]
async fn exposition_matches_the_catalogue() {
    let partner = start(frozen_partner(40)).await;
    partner.handle.with_world(|world| {
        let customers = world.customers.iter_mut();
        let module = customers
            .flat_map(|customer| &mut customer.modules)
            .find(|module| module.job_type == 7)
            .unwrap();
        let run = module.runs.last_mut().unwrap();
        (run.id, run.name, run.status, run.failed) = ("EIB1".to_owned(), "Board".to_owned(), 4, 1);
        run.end = run.end.or(Some(1_760_000_000));
    });
    let optional = elements_exporter::collector::ALL
        .iter()
        .filter(|entry| entry.is_optional);
    let optional = optional.map(|entry| format!("ELEMENTS_COLLECTORS__{}__ENABLED", entry.name.to_uppercase()));
    let optional: Vec<String> = optional.collect();
    let directory = tempfile::tempdir().unwrap();
    let attributes = directory.path().join("customers.csv");
    std::fs::write(&attributes, "customer,tier,region,team\n*,gold,emea,North\n").unwrap();
    let mut settings = vec![
        OBJECTS,
        ("ELEMENTS_CUSTOMERS__ATTRIBUTES_FILE", attributes.to_str().unwrap()),
        (
            "ELEMENTS_RPO__OVERRIDES",
            "[{rpo: 26h, until: 2199-12-31, reason: Migrated}]",
        ),
        ("ELEMENTS_AUTH__CLIENT_SECRET_EXPIRES", "2030-01-01"),
        ("ELEMENTS_METRICS__OWNER_EMAIL", "true"),
    ];
    settings.extend(optional.iter().map(|switch| (switch.as_str(), "true")));
    let (text, _) = poll_once(&crate::harness::config(&partner.base, &settings)).await;
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let exposed: BTreeSet<&str> = families.filter_map(|line| line.split(' ').next()).collect();
    let catalogue: BTreeSet<&str> = catalogue::metrics().iter().map(|entry| entry.metric.name).collect();
    // `once` loads no state file.
    let without_state = "elements_exporter_state_load_successful";
    let missing = catalogue.difference(&exposed).filter(|name| **name != without_state);
    let missing: Vec<_> = missing.collect();
    let unknown: Vec<_> = exposed.difference(&catalogue).collect();
    assert!(unknown.is_empty(), "exposed, but not in the catalogue: {unknown:?}");
    assert!(missing.is_empty(), "in the catalogue, but not exposed: {missing:?}");
    for entry in catalogue::metrics() {
        // At least one sample must have the label. Others lack it if the API does not report the value.
        let start = format!("{}{{", entry.metric.name);
        let samples: Vec<_> = text.lines().filter(|line| line.starts_with(&start)).collect();
        for label in entry.labels.iter().filter(|_| !samples.is_empty()) {
            assert!(
                samples.iter().any(|sample| sample.contains(&format!("{label}=\""))),
                "{} lacks {label}",
                entry.metric.name
            );
        }
    }
}
