//! Pages and examples use existing metrics, and their links work.

use std::collections::BTreeSet;
use std::path::Path;

use regex::Regex;

use super::gates::{assert_none, read};
use super::labels::LabelCatalogue;

#[test]
fn pages_and_examples_use_existing_metrics_and_labels() {
    let catalogue = LabelCatalogue::read().unwrap();
    let selector = Regex::new(r#"(elements_[a-z0-9_]+)\{([^}`]*)\}"#).unwrap();
    let label = Regex::new(r#"([a-z_]+)\s*(?:=~|!~|!=|=)\s*\\?""#).unwrap();
    let mut problems = Vec::new();
    let examples = [
        "deploy/prometheus/scrape.yml",
        "deploy/alertmanager/alertmanager.yml",
        "deploy/alertmanager/alertmanager-large.yml",
        "deploy/compose/prometheus.yml",
        "deploy/config/elements.yml",
    ];
    for path in pages().into_iter().chain(examples.map(ToOwned::to_owned)) {
        let page = read(&path);
        for found in selector.captures_iter(&page) {
            let labels = match catalogue.metric(&found[1]) {
                Ok(labels) => labels,
                Err(error) => {
                    problems.push(format!("{path}: {error}"));
                    continue;
                }
            };
            let matcher = label.captures_iter(&found[2]).map(|matcher| matcher[1].to_owned());
            let unknown: Vec<String> = matcher.filter(|name| !labels.contains(name)).collect();
            if !unknown.is_empty() {
                problems.push(format!("{path}: {} has no {unknown:?}", &found[1]));
            }
        }
    }
    assert_none(&problems);
}

#[test]
fn links_between_pages_work() {
    let link = Regex::new(r"\]\(([^)\s]+)\)").unwrap();
    let mut problems = Vec::new();
    for path in pages() {
        let folder = Path::new(&path).parent().unwrap().to_str().unwrap();
        let page = read(&path);
        for found in link.captures_iter(&page).filter(|found| !found[1].contains("://")) {
            let (file, anchor) = found[1].split_once('#').unwrap_or((&found[1], ""));
            let file = if file.is_empty() {
                path.clone()
            } else {
                format!("{folder}/{file}").trim_start_matches('/').to_owned()
            };
            let target = Path::new(env!("CARGO_MANIFEST_DIR")).join(&file);
            if !target.exists() {
                problems.push(format!("{path}: {file} does not exist"));
            } else if !anchor.is_empty() && !anchors(&read(&file)).contains(anchor) {
                problems.push(format!("{path}: {file} has no heading {anchor}"));
            }
        }
    }
    assert_none(&problems);
}

/// Returns all pages of the documentation.
fn pages() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = Vec::new();
    let mut folders = vec![String::new(), "docs/".to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(root.join(&folder)).unwrap().map(Result::unwrap) {
            let path = format!("{folder}{}", entry.file_name().into_string().unwrap());
            if !folder.is_empty() && entry.file_type().unwrap().is_dir() {
                folders.push(format!("{path}/"));
            } else if path.ends_with(".md") {
                pages.push(path);
            }
        }
    }
    assert!(pages.len() > 20, "pages are no longer found: {pages:?}");
    pages
}

fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    let titles = headings.map(|line| line.trim_start_matches('#').trim().to_lowercase());
    let anchor = |title: String| {
        let characters = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        characters.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    titles.map(anchor).collect()
}
