//! Dependencies between modules, checked by their `crate::` paths.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use elements_exporter::api::Endpoint;
use elements_exporter::collector;

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Returns the files of a module: its own and those in its folder, at any depth.
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

/// Returns the top-level modules of the crate that a source refers to, in `use` items or paths.
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

/// Returns the first names of the paths in a group, after its opening brace.
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

/// Returns every file of `module` that refers to one of `others`.
fn forbidden_imports(module: &str, others: &[&str]) -> Vec<String> {
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
fn domain_imports_only_itself() {
    let all: Vec<String> = fs::read_dir(source())
        .unwrap()
        .filter_map(|entry| Some(entry.unwrap().path().file_stem()?.to_str()?.to_owned()))
        .filter(|module| module != "domain")
        .collect();
    let others: Vec<&str> = all.iter().map(String::as_str).collect();
    assert_eq!(forbidden_imports("domain", &others), [""; 0]);
}

#[test]
fn api_does_not_import_metrics_or_its_callers() {
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
    assert_eq!(forbidden_imports("api", &others), [""; 0]);
}

#[test]
fn scrapes_cannot_call_the_api() {
    assert_eq!(
        forbidden_imports("http", &["api", "schedule", "app", "config", "simulator"]),
        [""; 0]
    );
    assert_eq!(
        forbidden_imports(
            "exposition",
            &["api", "schedule", "app", "config", "store", "collector"]
        ),
        [""; 0]
    );
}

#[test]
fn status_pages_do_not_import_the_poll_loop() {
    assert_eq!(
        forbidden_imports("status", &["schedule", "app", "config", "http", "simulator"]),
        [""; 0]
    );
}

#[test]
fn simulator_does_not_import_the_client() {
    assert_eq!(
        forbidden_imports("simulator", &["api", "domain", "collector", "store", "exposition"]),
        [""; 0]
    );
}

/// Modules shared by collectors.
const SHARED: [&str; 4] = ["entry", "id", "per_tenant", "rows"];

#[test]
fn collectors_all_have_a_row() {
    let files: BTreeSet<String> = fs::read_dir(source().join("collector"))
        .unwrap()
        .filter_map(|entry| Some(entry.unwrap().path().file_stem()?.to_str()?.to_owned()))
        .filter(|file| !SHARED.contains(&file.as_str()))
        .collect();
    let rows: BTreeSet<String> = collector::ALL.iter().map(|entry| entry.name.to_owned()).collect();
    assert_eq!(files, rows);
}

#[test]
fn endpoints_except_the_token_belong_to_one_collector() {
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
