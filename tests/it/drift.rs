//! What stands in two places says the same in both: the catalogue and the README, the keys and the example
//! configuration, the exposition and the catalogue.

use std::collections::BTreeSet;
use std::path::Path;

use elements_exporter::{catalogue, config};

use crate::support::{OBJECTS, environment, once};
use crate::world::{start, still};

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Holds the part of a page between two markers to what the code says. With `UPDATE_EXPECTED` set it is written instead.
fn section(path: &str, name: &str, content: &str) {
    let page = read(path);
    let (begin, end) = (format!("<!-- {name}:begin -->\n"), format!("<!-- {name}:end -->"));
    let (before, rest) = page
        .split_once(&begin)
        .unwrap_or_else(|| panic!("{path} has no {begin}"));
    let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("{path} has no {end}"));
    let written = format!("{before}{begin}{}\n{end}{after}", content.trim_end());
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(path), &written).unwrap();
    }
    assert_eq!(
        read(path),
        written,
        "{path} is out of date; UPDATE_EXPECTED=1 writes it anew"
    );
}

#[test]
fn the_reference_of_metrics_is_that_of_the_catalogue() {
    section("README.md", "metrics", &catalogue::reference());
}

#[test]
fn the_reference_of_the_configuration_is_that_of_the_keys() {
    section("README.md", "config", &config::reference());
}

#[test]
fn the_example_configuration_has_every_key() {
    let example = read("deploy/config/elements.yml");
    for key in config::KEYS {
        let last = key.path.rsplit('.').next().unwrap();
        assert!(
            example.contains(&format!("{last}:")),
            "deploy/config/elements.yml lacks {}",
            key.path
        );
    }
}

#[test]
fn every_collector_can_be_configured_and_runs_as_documented() {
    let defaults = elements_exporter::app::load_config(None, environment("http://127.0.0.1:1", &[])).unwrap();
    for entry in elements_exporter::collector::ALL {
        let configured = defaults
            .collectors
            .get(entry.name)
            .unwrap_or_else(|| panic!("no keys for {}", entry.name));
        assert_eq!(configured.interval, entry.interval, "{}", entry.name);
    }
}

#[tokio::test]
async fn what_is_exposed_is_what_the_catalogue_says() {
    let partner = start(still(40)).await;
    let settings = [
        OBJECTS,
        ("ELEMENTS_AUTH__CLIENT_SECRET_EXPIRES", "2030-01-01"),
        ("ELEMENTS_METRICS__OWNER_EMAIL", "true"),
    ];
    let (text, _) = once(&crate::support::config(&partner.base, &settings)).await;
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let exposed: BTreeSet<&str> = families.filter_map(|line| line.split(' ').next()).collect();
    let catalogue: BTreeSet<&str> = catalogue::metrics().iter().map(|entry| entry.metric.name).collect();
    let missing: Vec<_> = catalogue.difference(&exposed).collect();
    let unknown: Vec<_> = exposed.difference(&catalogue).collect();
    assert!(unknown.is_empty(), "exposed and not in the catalogue: {unknown:?}");
    assert!(missing.is_empty(), "in the catalogue and not exposed: {missing:?}");
    for entry in catalogue::metrics() {
        let sample = text
            .lines()
            .find(|line| line.starts_with(&format!("{}{{", entry.metric.name)));
        for label in sample.map(|_| entry.labels.iter()).into_iter().flatten() {
            assert!(
                sample.unwrap().contains(&format!("{label}=\"")),
                "{} lacks {label}",
                entry.metric.name
            );
        }
    }
}

#[test]
fn every_collector_file_has_its_row() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/collector");
    for file in std::fs::read_dir(directory).unwrap() {
        let name = file.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned();
        assert!(
            elements_exporter::collector::index_of(&name).is_some(),
            "src/collector/{name}.rs has no row in ALL"
        );
    }
}
