//! Who may know whom: what the modules must not use of each other, held over their `crate::` paths.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use elements_exporter::api::Endpoint;
use elements_exporter::collector;

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The files of a module: its own and those of its folder, at any depth.
fn files(module: &str) -> Vec<PathBuf> {
    let mut files = vec![source().join(format!("{module}.rs"))];
    let mut folders = vec![source().join(module)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files
}

/// The top modules of the crate that a source names, in a `use` of one or of several, or in a path.
fn named(source: &str) -> BTreeSet<String> {
    let code: String = source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .fold(String::new(), |code, line| code + line + "\n");
    let mut modules = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            Some(group) => modules.extend(heads(group)),
            None => modules.extend(identifier(rest)),
        }
    }
    modules
}

/// The first names of the paths in a group, whose opening brace is gone.
fn heads(group: &str) -> Vec<String> {
    let mut heads = Vec::new();
    let (mut depth, mut fresh) = (0, true);
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            _ if character.is_whitespace() => {}
            _ if fresh => {
                heads.extend(identifier(&group[at..]));
                fresh = false;
            }
            _ => {}
        }
    }
    heads
}

fn identifier(text: &str) -> Option<String> {
    let end = text
        .find(|c: char| !(c.is_alphanumeric() || c == '_'))
        .unwrap_or(text.len());
    (end > 0).then(|| text[..end].to_owned())
}

/// Every file of `module` that names one of `others`.
fn trespasses(module: &str, others: &[&str]) -> Vec<String> {
    let files = files(module);
    assert!(files[0].exists(), "there is no {module}");
    let mut found = Vec::new();
    for file in files {
        let named = named(&fs::read_to_string(&file).unwrap());
        for other in others.iter().filter(|other| named.contains(**other)) {
            found.push(format!("{} names {other}", file.display()));
        }
    }
    found
}

#[test]
fn paths_are_found_in_every_form() {
    let source = "use crate::api::{self, auth};\nuse crate::{domain::Run, store::{state, Store}, health};\n\
                  fn f() { crate::http::routes() }\n// crate::config is only spoken of\npub(crate) fn g() {}\n";
    let expected = ["api", "domain", "health", "http", "store"].map(ToOwned::to_owned);
    assert_eq!(named(source), BTreeSet::from(expected));
}

#[test]
fn the_domain_knows_nothing_but_itself() {
    let all: Vec<String> = fs::read_dir(source())
        .unwrap()
        .filter_map(|entry| Some(entry.unwrap().path().file_stem()?.to_str()?.to_owned()))
        .filter(|module| module != "domain")
        .collect();
    let others: Vec<&str> = all.iter().map(String::as_str).collect();
    assert_eq!(trespasses("domain", &others), [""; 0]);
}

#[test]
fn the_api_knows_nothing_of_metrics_or_of_who_asks() {
    let others = [
        "app",
        "collector",
        "store",
        "exposition",
        "health",
        "http",
        "schedule",
        "scrape",
        "config",
    ];
    assert_eq!(trespasses("api", &others), [""; 0]);
}

#[test]
fn a_scrape_cannot_call_the_api() {
    assert_eq!(
        trespasses("http", &["api", "schedule", "app", "config", "simulator"]),
        [""; 0]
    );
    assert_eq!(
        trespasses(
            "exposition",
            &["api", "schedule", "app", "config", "store", "collector"]
        ),
        [""; 0]
    );
}

#[test]
fn a_page_for_people_cannot_reach_the_loop() {
    assert_eq!(
        trespasses("status", &["schedule", "app", "config", "http", "simulator"]),
        [""; 0]
    );
}

#[test]
fn the_simulated_partner_is_a_witness_of_its_own() {
    assert_eq!(
        trespasses("simulator", &["api", "domain", "collector", "store", "exposition"]),
        [""; 0]
    );
}

#[test]
fn every_collector_has_its_row() {
    let files: BTreeSet<String> = fs::read_dir(source().join("collector"))
        .unwrap()
        .filter_map(|entry| Some(entry.unwrap().path().file_stem()?.to_str()?.to_owned()))
        .collect();
    let rows: BTreeSet<String> = collector::ALL.iter().map(|entry| entry.name.to_owned()).collect();
    assert_eq!(files, rows);
}

#[test]
fn every_endpoint_but_the_token_is_of_one_collector() {
    for endpoint in Endpoint::ALL {
        let collectors = collector::ALL
            .iter()
            .filter(|entry| entry.endpoints.contains(&endpoint));
        assert_eq!(
            collectors.count(),
            usize::from(endpoint != Endpoint::Token),
            "{endpoint}"
        );
    }
}
