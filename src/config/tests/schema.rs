//! Tests the JSON schema with values that the exporter accepts or rejects.

use regex::Regex;
use serde_json::{Value, json};
use yaml_rust2::{Yaml, YamlLoader};

use super::samples::samples;
use super::{from_file, yaml_of};
use crate::config::{KEYS, KeyDefault, SCHEMA};

fn schema() -> Value {
    serde_json::from_str(SCHEMA).unwrap()
}

fn key_schema(path: &str) -> Value {
    let pointer: String = path.split('.').map(|name| format!("/properties/{name}")).collect();
    schema().pointer(&pointer).unwrap().clone()
}

/// Returns why a value violates a schema; `None` if it does not. Supports only the JSON Schema keywords that [`SCHEMA`]
/// uses, and panics on others.
fn problem(schema: &Value, value: &Value, at: &str) -> Option<String> {
    let keywords = schema.as_object().unwrap();
    keywords.iter().find_map(|(keyword, argument)| {
        let is_fine = match keyword.as_str() {
            "$schema" | "title" | "description" | "default" | "writeOnly" => true,
            "type" => {
                let is_type = |name: &Value| match name.as_str().unwrap() {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "number" => value.is_number(),
                    "integer" => value.is_i64(),
                    "boolean" => value.is_boolean(),
                    "null" => value.is_null(),
                    other => panic!("{other}"),
                };
                argument
                    .as_array()
                    .map_or_else(|| is_type(argument), |types| types.iter().any(is_type))
            }
            "enum" => argument.as_array().unwrap().contains(value),
            "pattern" => {
                let pattern = Regex::new(argument.as_str().unwrap()).unwrap();
                value.as_str().is_none_or(|text| pattern.is_match(text))
            }
            "minLength" => value
                .as_str()
                .is_none_or(|text| text.chars().count() as u64 >= argument.as_u64().unwrap()),
            "minimum" => value.as_f64().is_none_or(|number| number >= argument.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|number| number <= argument.as_f64().unwrap()),
            "exclusiveMinimum" => value.as_f64().is_none_or(|number| number > argument.as_f64().unwrap()),
            "required" => {
                let names = argument.as_array().unwrap();
                value.is_null() || names.iter().all(|name| !value[name.as_str().unwrap()].is_null())
            }
            "items" => {
                let mut items = value.as_array().into_iter().flatten().enumerate();
                return items.find_map(|(index, item)| problem(argument, item, &format!("{at}[{index}]")));
            }
            "properties" => {
                let mut entries = value.as_object().into_iter().flatten();
                return entries.find_map(|(name, value)| problem(argument.get(name)?, value, &format!("{at}.{name}")));
            }
            "additionalProperties" => {
                assert_eq!(argument, &json!(false));
                let known = schema["properties"].as_object().unwrap();
                let entries = value.as_object();
                entries.is_none_or(|entries| entries.keys().all(|name| known.contains_key(name)))
            }
            other => panic!("unsupported keyword: {other}"),
        };
        (!is_fine).then(|| format!("{at}: {keyword}"))
    })
}

/// Converts a document to JSON, as an editor does to validate it.
fn json_of(yaml: &Yaml) -> Value {
    match yaml {
        Yaml::Null => Value::Null,
        Yaml::Boolean(value) => json!(value),
        Yaml::Integer(number) => json!(number),
        Yaml::Real(text) => json!(text.parse::<f64>().unwrap()),
        Yaml::String(text) => json!(text),
        Yaml::Array(items) => items.iter().map(json_of).collect(),
        Yaml::Hash(entries) => {
            let entries = entries
                .iter()
                .map(|(name, value)| (name.as_str().unwrap().to_owned(), json_of(value)));
            Value::Object(entries.collect())
        }
        other => panic!("{other:?}"),
    }
}

fn check(yaml: &str) -> Option<String> {
    let documents = YamlLoader::load_from_str(yaml).unwrap_or_else(|error| panic!("{yaml}: {error}"));
    documents
        .iter()
        .find_map(|document| problem(&schema(), &json_of(document), ""))
}

/// Returns the shipped example with every key uncommented.
fn example() -> String {
    let lines = include_str!("../../../deploy/config/elements.yml").lines();
    let lines = lines.map(|line| match line.strip_prefix('#') {
        Some(rest) if !rest.starts_with('#') => rest,
        _ => line,
    });
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn samples_and_defaults_validate() {
    assert_eq!(check(""), None);
    for (path, value, _) in samples() {
        assert_eq!(check(&yaml_of(path, value)), None, "{path}: {value}");
    }
    for key in KEYS.iter() {
        if let KeyDefault::Value(text) = key.default {
            let schema = key_schema(key.path);
            assert_eq!(problem(&schema, &schema["default"], key.path), None);
            assert_eq!(check(&yaml_of(key.path, text)), None, "{}: {text}", key.path);
        }
    }
}

#[test]
fn shipped_example_validates() {
    let example = example();
    assert!(
        example.contains("\nrpo:\n") && example.contains("\n  default: 26h\n"),
        "{example}"
    );
    assert_eq!(check(&example), None);
    // In the installed file, every key is commented out.
    assert_eq!(check(include_str!("../../../deploy/config/elements.yml")), None);
}

#[test]
fn misspelt_key_does_not_validate() {
    for key in KEYS.iter() {
        let misspelt = format!("{}x", key.path);
        let found = check(&yaml_of(&misspelt, "5"));
        assert!(
            found
                .as_deref()
                .is_some_and(|found| found.ends_with(": additionalProperties")),
            "{misspelt}"
        );
        let (section, _) = key.path.split_once('.').unwrap();
        let misspelt = key.path.replacen(section, &format!("{section}s"), 1);
        assert_eq!(
            check(&yaml_of(&misspelt, "5")).as_deref(),
            Some(": additionalProperties")
        );
    }
    let found = check("rpo: {overrides: [{customers: x, rpo: 1h}]}");
    assert_eq!(found.as_deref(), Some(".rpo.overrides[0]: additionalProperties"));
}

#[test]
fn values_that_the_exporter_rejects_do_not_validate() {
    for yaml in [
        "api: {version: v2}",
        "api: {environment: european}",
        "api: {timeout: soon}",
        "api: {timeout: 30}",
        "api: {requests_per_second: 0}",
        "api: {requests_per_second: 1001}",
        "api: {max_concurrency: 257}",
        "api: {max_concurrency: 1.5}",
        "api: [x]",
        "auth: {client_id: [a]}",
        "customers: {include: 'Contoso, Fabrikam'}",
        "collectors: {jobs: {enabled: maybe}}",
        "collectors: {jobs: {interval: 5}}",
        "metrics: {series_limit: 0}",
        "rpo: {overrides: {rpo: 1h}}",
        "rpo: {overrides: [{customer: x}]}",
        "rpo: {overrides: [{rpo: never}]}",
        "rpo: {default: none}",
        "rpo: {overrides: [{rpo: none, until: soon}]}",
        "rpo: {overrides: [{rpo: none, until: 20270131}]}",
        "rpo: {overrides: [{rpo: none, customer: ''}]}",
    ] {
        assert!(check(yaml).is_some(), "{yaml}");
        let refused = from_file(&format!("{yaml}\n")).unwrap_err().to_string();
        assert!(!refused.contains("is required"), "{yaml}: {refused}");
    }
    assert_eq!(
        check("rpo: {overrides: [{module: 303, rpo: None}, {scope: '*', rpo: 4h 30m}]}"),
        None
    );
}
