//! `docs/faults.md` lists exactly the tests of faults, and refers only to existing unit tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::use_lines::test_names;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Returns the names of the tests in a source file, in the page's format.
fn tests(module: &str) -> BTreeSet<String> {
    let source = read(&format!("tests/it/faults/{module}.rs"));
    let names = test_names(&source).into_iter();
    names.map(|name| format!("{module}::{name}")).collect()
}

#[test]
fn page_lists_exactly_the_existing_tests() {
    const MODULES: [&str; 16] = [
        "body",
        "hostile",
        "identity",
        "meaning",
        "memory",
        "paging",
        "process",
        "reloads",
        "scrape",
        "signals",
        "soak",
        "state_file",
        "status",
        "streams",
        "time",
        "transport",
    ];
    let modules = MODULES.into_iter();
    let existing: BTreeSet<String> = modules.clone().flat_map(tests).collect();
    let page = read("docs/faults.md");
    let spans = page.split('`').skip(1).step_by(2);
    let documented: BTreeSet<String> = spans
        .filter(|name| modules.clone().any(|module| name.starts_with(&format!("{module}::"))))
        .map(ToOwned::to_owned)
        .collect();
    assert_eq!(documented, existing);
    // The page refers to unit tests by file and name.
    let mut pieces = page.split('`').peekable();
    while let Some(piece) = pieces.next() {
        if piece.starts_with("src/") && Path::new(piece).extension().is_some_and(|extension| extension == "rs") {
            let source = read(piece);
            let name = pieces.clone().nth(1).filter(|_| pieces.peek() == Some(&" "));
            if let Some(name) = name {
                assert!(source.contains(&format!("fn {name}()")), "{piece} has no {name}");
            }
        }
    }
}
