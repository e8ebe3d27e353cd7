//! Checks of the source: the dependencies between modules (derived from their `crate::` and `super::` paths), the table
//! of collectors, and the length of test names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use elements_exporter::api::Endpoint;
use elements_exporter::collector;

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Returns the files of a module: its own file, and the files in its folder at any depth.
fn files(module: &str) -> Vec<PathBuf> {
    let mut files = vec![source().join(format!("{module}.rs"))];
    files.extend(files_below(&source().join(module)));
    files
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// Returns the code of a source file, without comments and without the tests at its end.
fn code(source: &str) -> String {
    let without_tests = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let lines = without_tests.lines();
    let code = lines.filter(|line| !line.trim_start().starts_with("//"));
    code.collect::<Vec<_>>().join("\n")
}

/// Returns the paths that start with `crate::` or `super::`, in `use` items and elsewhere. Each member of a group is a
/// separate path.
fn paths(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    let mut rest = code;
    while let Some(at) = ["crate::", "super::"].iter().filter_map(|start| rest.find(start)).min() {
        rest = &rest[at..];
        rest = &rest[add_paths("", rest, &mut paths)..];
    }
    paths
}

/// Adds the paths at the start of `text`, and returns their length.
fn add_paths(prefix: &str, text: &str, paths: &mut Vec<String>) -> usize {
    let is_outside = |c: char| !(c.is_alphanumeric() || c == '_' || c == ':');
    let end = text.find(is_outside).unwrap_or(text.len());
    let path = format!("{prefix}{}", &text[..end]);
    if !text[end..].starts_with('{') {
        paths.push(path);
        return end;
    }
    let mut at = end + 1;
    loop {
        at += text[at..].find(|c: char| !(c.is_whitespace() || c == ',')).unwrap();
        if text[at..].starts_with('}') {
            return at + 1;
        }
        at += add_paths(&path, &text[at..], paths);
        at += text[at..].find([',', '}']).unwrap();
    }
}

fn imported_modules(source: &str) -> BTreeSet<String> {
    let paths = paths(&code(source));
    let tops = paths
        .iter()
        .filter_map(|path| path.strip_prefix("crate::")?.split("::").next());
    tops.map(ToOwned::to_owned).collect()
}

/// The segments of a module's path.
type Module = Vec<String>;

/// Returns the siblings that each module and its submodules import, ignoring tests.
fn sibling_imports(sources: &BTreeMap<Module, String>) -> BTreeMap<Module, BTreeSet<Module>> {
    let mut imports: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
    for (module, source) in sources {
        for path in paths(&code(source)) {
            let mut target = module.clone();
            for segment in path.split("::") {
                match segment {
                    "crate" => target.clear(),
                    "super" => _ = target.pop(),
                    name => {
                        target.push(name.to_owned());
                        if !sources.contains_key(&target) {
                            target.pop();
                            break;
                        }
                    }
                }
            }
            let shared = module.iter().zip(&target).take_while(|(one, other)| one == other);
            let shared = shared.count();
            if let (Some(from), Some(to)) = (module.get(..=shared), target.get(..=shared)) {
                imports.entry(from.to_vec()).or_default().insert(to.to_vec());
            }
        }
    }
    imports
}

/// Returns the imports that form cycles: those that remain after repeatedly removing modules that import nothing or
/// that no module imports.
fn import_cycles(mut imports: BTreeMap<Module, BTreeSet<Module>>) -> Vec<String> {
    loop {
        let before = imports.clone();
        let imported: BTreeSet<&Module> = before.values().flatten().collect();
        imports.retain(|module, others| {
            others.retain(|other| before.contains_key(other));
            imported.contains(module) && !others.is_empty()
        });
        if imports == before {
            break;
        }
    }
    let pairs = imports
        .iter()
        .flat_map(|(from, others)| others.iter().map(move |to| (from, to)));
    pairs
        .map(|(from, to)| format!("{} imports {}", from.join("::"), to.join("::")))
        .collect()
}

/// Helpers without dependencies, which all modules except the [`INDEPENDENT`] ones may import.
const HELPERS: [&str; 6] = [
    "build_info",
    "error_chain",
    "lock",
    "log_throttle",
    "secret",
    "text_file",
];

/// Modules that import no other module.
const INDEPENDENT: [&str; 2] = ["domain", "simulator"];

/// Returns the table of modules and imports on the architecture page.
fn documented_imports() -> BTreeMap<String, BTreeSet<String>> {
    let page = fs::read_to_string(source().join("../docs/architecture.md")).unwrap();
    let (_, table) = page.split_once("| module | imports |\n|---|---|\n").unwrap();
    let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect();
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let mut cells = row.split('|').skip(1);
        let module: BTreeSet<String> = names(cells.next().unwrap());
        (module.into_iter().next().unwrap(), names(cells.next().unwrap()))
    })
    .collect()
}

/// Returns the modules that the production code of a module imports.
fn actual_imports(module: &str) -> BTreeSet<String> {
    let is_test = |file: &&PathBuf| !file.iter().any(|part| part == "tests" || part == "tests.rs");
    let files = files(module);
    assert!(files[0].exists(), "{module} does not exist");
    let sources = files
        .iter()
        .filter(is_test)
        .map(|file| fs::read_to_string(file).unwrap());
    let mut imports: BTreeSet<String> = sources.flat_map(|source| imported_modules(&source)).collect();
    imports.remove(module);
    imports
}

#[test]
fn paths_are_found_in_every_form() {
    let source = "use crate::api::{self, auth};\nuse crate::{domain::Run, store::{state, Store}, health};\n\
                  fn f() { crate::http::routes() }\n// crate::config in a comment\npub(crate) fn g() {}\n";
    let expected = ["api", "domain", "health", "http", "store"].map(ToOwned::to_owned);
    assert_eq!(imported_modules(source), BTreeSet::from(expected));
}

#[test]
fn sibling_modules_have_no_import_cycles() {
    let mut sources = BTreeMap::new();
    for file in files_below(&source()) {
        let path = file.strip_prefix(source()).unwrap().with_extension("");
        let module: Module = path.iter().map(|name| name.to_str().unwrap().to_owned()).collect();
        let is_root = module == ["lib"] || module == ["main"];
        if !is_root && !module.iter().any(|name| name == "tests") {
            sources.insert(module, fs::read_to_string(&file).unwrap());
        }
    }
    assert_eq!(import_cycles(sibling_imports(&sources)), [""; 0]);
}

#[test]
fn import_cycles_are_found_in_every_form_of_path() {
    let module = |path: &str| path.split("::").map(ToOwned::to_owned).collect::<Module>();
    let sources = [
        ("a", "use crate::{\n    b::{self, deep},\n    d,\n};"),
        ("b", ""),
        ("b::deep", "fn f() { super::super::c::g() }"),
        ("b::other", "use super::deep;"),
        ("c", "use super::a as first;"),
        ("d", "// crate::a in a comment"),
        ("e", "use crate::a;"),
    ];
    let sources = BTreeMap::from(sources.map(|(path, source)| (module(path), source.to_owned())));
    assert_eq!(
        import_cycles(sibling_imports(&sources)),
        ["a imports b", "b imports c", "c imports a"]
    );
}

#[test]
fn modules_import_what_the_documentation_lists() {
    let documented = documented_imports();
    let files = fs::read_dir(source()).unwrap().map(|entry| entry.unwrap().path());
    let modules: BTreeSet<String> = files
        .filter(|path| path.is_file())
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|module| !["lib", "main"].contains(&module.as_str()) && !HELPERS.contains(&module.as_str()))
        .collect();
    assert_eq!(documented.keys().cloned().collect::<BTreeSet<_>>(), modules);
    for (module, expected) in documented {
        let mut actual = actual_imports(&module);
        if !INDEPENDENT.contains(&module.as_str()) {
            actual.retain(|import| !HELPERS.contains(&import.as_str()));
        }
        assert_eq!(actual, expected, "{module}");
    }
}

#[test]
fn helpers_import_no_modules() {
    for helper in HELPERS {
        assert_eq!(actual_imports(helper), BTreeSet::new(), "{helper}");
    }
}

/// Modules that collectors share.
const SHARED: [&str; 5] = ["descriptor", "id", "per_tenant", "rows", "table"];

#[test]
fn every_collector_has_a_table_row() {
    let files: BTreeSet<String> = fs::read_dir(source().join("collector"))
        .unwrap()
        .filter_map(|entry| Some(entry.unwrap().path().file_stem()?.to_str()?.to_owned()))
        .filter(|file| !SHARED.contains(&file.as_str()))
        .collect();
    let rows: BTreeSet<String> = collector::ALL.iter().map(|entry| entry.name.to_owned()).collect();
    assert_eq!(files, rows);
}

#[test]
fn endpoints_except_tokens_belong_to_one_collector() {
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

/// Returns the names of the test functions in a source file.
pub(crate) fn test_names(source: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim_start) {
        is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        let name = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        if let Some(name) = name.filter(|_| std::mem::take(&mut is_test)) {
            names.extend(name.split('(').next());
        }
    }
    names
}

#[test]
fn test_names_are_shorter_than_sixty_characters() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = ["src", "tests", "benches", "fuzz/src"].map(|folder| files_below(&root.join(folder)));
    let sources: Vec<String> = files
        .iter()
        .flatten()
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    let names: Vec<&str> = sources.iter().flat_map(|source| test_names(source)).collect();
    assert!(names.contains(&"test_names_are_shorter_than_sixty_characters"));
    let long: Vec<&&str> = names.iter().filter(|name| name.len() >= 60).collect();
    assert!(long.is_empty(), "{long:?}");
}
