//! What stands in two places says the same in both: the catalogue and the README, the keys and the example
//! configuration, the exposition and the catalogue.

use std::collections::BTreeSet;
use std::path::Path;

use elements_exporter::api::auth;
use elements_exporter::app::budget;
use elements_exporter::{api, catalogue, config};

use crate::support::{OBJECTS, once};
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
fn every_reason_of_a_failure_is_explained() {
    let page = read("docs/troubleshooting.md");
    let (_, table) = page.split_once("## The reasons").unwrap();
    let (table, _) = table.split_once("\n## ").unwrap();
    let mut explained = BTreeSet::new();
    for row in table.lines().filter(|line| line.starts_with("| `")) {
        let cell = row.split('|').nth(1).unwrap();
        explained.extend(cell.split(',').map(|reason| reason.trim().trim_matches('`')));
    }
    let reasons: BTreeSet<&str> = api::REASONS.iter().chain(auth::REASONS).copied().collect();
    assert_eq!(explained, reasons);
}

#[test]
fn the_scaling_guide_says_what_is_computed() {
    let rate = config::KEYS.iter().find(|key| key.path == "api.requests_per_second");
    let rate = rate.unwrap().default.text().parse().unwrap();
    section("docs/scaling.md", "prices", &budget::prices());
    section("docs/scaling.md", "examples", &budget::examples(rate));
}

#[tokio::test]
async fn a_round_costs_what_the_scaling_guide_says() {
    for (customers, profiles) in [(7, 2), (120, 1)] {
        let partner = start(still(customers)).await;
        partner.handle.with_world(|world| {
            for customer in &mut world.customers {
                let model = customer.scan_profiles.first().cloned();
                customer.scan_profiles = (0..profiles)
                    .filter_map(|n| {
                        let mut profile = model.clone()?;
                        profile.id = format!("{}-{n}", profile.id);
                        Some(profile)
                    })
                    .collect();
            }
            world
                .customers
                .retain(|customer| customer.scan_profiles.len() == profiles);
        });
        let left = partner.handle.with_world(|world| world.customers.len());
        assert!(left > customers / 2, "{left}");
        let (text, good) = once(&crate::support::config(&partner.base, &[])).await;
        assert!(good, "{text}");
        let said: f64 = budget::costs(left, profiles)
            .iter()
            .map(|(_, cost)| cost.requests * cost.targets as f64)
            .sum();
        let requests = partner.handle.requests().into_iter();
        let asked = requests.filter(|request| request.path.starts_with("/partner/")).count();
        assert_eq!(asked as f64, said, "{left} customers with {profiles} profiles");
    }
}

/// The dotted paths of the keys in a YAML file whose keys are commented out with one `#`, and its prose with two.
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
fn the_example_configuration_has_every_key_and_no_other() {
    let example = commented_keys(&read("deploy/config/elements.yml"));
    let keys: BTreeSet<String> = config::KEYS.iter().map(|key| key.path.to_owned()).collect();
    assert_eq!(example, keys);
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
