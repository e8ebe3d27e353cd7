//! Generates the configuration file's JSON schema from the table of keys.

use elements_exporter::config::{KEYS, Key, KeyDefault, OVERRIDE_KEYS, ValueFormat};
use regex::Regex;
use serde_json::{Map, Value, json};

use super::{read, repository, update_expected};

/// Dialect of the schema.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Pattern of a date with or without a time.
const DATE: &str = r"^\s*[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ].+)?\s*$";

/// Pattern of a duration in [`humantime`]'s format: one or more numbers with units. It does not check limits.
const DURATION: &str = r"\s*([0-9][0-9\s]*(\.[0-9\s]+)?(nanos|nsec|ns|usec|us|µs|millis|msec|ms|seconds|second|secs|sec|s|minutes|minute|mins|min|m|hours|hour|hrs|hr|h|days|day|d|weeks|week|wks|wk|w|months|month|M|years|year|yrs|yr|y)\s*)+";

fn schema_text() -> String {
    let mut root = empty_section();
    for key in KEYS.iter() {
        insert(&mut root, key.path, key_schema(key));
    }
    root.insert("$schema".to_owned(), json!(DIALECT));
    root.insert("title".to_owned(), json!("Configuration of elements_exporter"));
    format!("{:#}\n", Value::Object(root))
}

/// Returns the schema of a section without keys. In YAML, a section whose keys are all commented out is null.
fn empty_section() -> Map<String, Value> {
    let mut section = Map::new();
    section.insert("type".to_owned(), json!(["object", "null"]));
    section.insert("additionalProperties".to_owned(), json!(false));
    section.insert("properties".to_owned(), json!({}));
    section
}

/// Inserts the schema of a key at a dotted path below a section.
fn insert(section: &mut Map<String, Value>, path: &str, schema: Value) {
    let Some(Value::Object(properties)) = section.get_mut("properties") else {
        return;
    };
    match path.split_once('.') {
        None => {
            properties.insert(path.to_owned(), schema);
        }
        Some((name, rest)) => {
            let below = properties.entry(name).or_insert_with(|| Value::Object(empty_section()));
            if let Value::Object(below) = below {
                insert(below, rest, schema);
            }
        }
    }
}

fn key_schema(key: &Key) -> Value {
    let Value::Object(mut schema) = format_schema(key.format) else {
        return Value::Null;
    };
    let mut description = format!("{} Takes {}.", key.description, key.format);
    match key.default {
        KeyDefault::Value(text) => {
            schema.insert("default".to_owned(), default_value(key.format, text));
        }
        KeyDefault::Described(words) => description += &format!(" Default: {words}."),
        KeyDefault::Required => description += " Required.",
    }
    if key.secret {
        schema.insert("writeOnly".to_owned(), json!(true));
    }
    schema.insert("description".to_owned(), json!(description));
    Value::Object(schema)
}

/// Returns the schema of a format. Where text is expected, numbers are also accepted, because YAML parses digits as a
/// number.
fn format_schema(format: ValueFormat) -> Value {
    match format {
        ValueFormat::Text(_) => json!({"type": ["string", "number"], "minLength": 1}),
        ValueFormat::Date(_) => json!({"type": "string", "pattern": DATE}),
        ValueFormat::Choice(words) => json!({"enum": words}),
        ValueFormat::Boolean => json!({"type": "boolean"}),
        ValueFormat::Duration(_) | ValueFormat::DurationUpTo(_) => {
            json!({"type": "string", "pattern": format!("^{DURATION}$")})
        }
        ValueFormat::DurationOr(word, _) => json!({"type": "string", "pattern": format!("^({DURATION}|{word})$")}),
        ValueFormat::Number(most) => json!({"type": "number", "exclusiveMinimum": 0, "maximum": most}),
        ValueFormat::Integer(least, Some(most)) => json!({"type": "integer", "minimum": least, "maximum": most}),
        ValueFormat::Integer(least, None) => json!({"type": "integer", "minimum": least}),
        // A single item may be written without brackets, but must not contain a comma.
        ValueFormat::List(_) => json!({
            "type": ["array", "string", "number"],
            "items": {"type": ["string", "number"]},
            "pattern": "^[^,]*$",
        }),
        ValueFormat::Overrides(_) => {
            let properties = OVERRIDE_KEYS.iter().map(|key| (key.path.to_owned(), key_schema(key)));
            let required = OVERRIDE_KEYS.iter().filter(|key| key.default == KeyDefault::Required);
            json!({
                "type": "array",
                "items": {
                    "type": "object",
                    "additionalProperties": false,
                    "properties": properties.collect::<Map<_, _>>(),
                    "required": required.map(|key| key.path).collect::<Vec<_>>(),
                },
            })
        }
    }
}

/// Converts a default from the table to the value that YAML would parse.
fn default_value(format: ValueFormat, text: &str) -> Value {
    match format {
        ValueFormat::Boolean | ValueFormat::Number(_) | ValueFormat::Integer(..) => {
            serde_json::from_str(text).unwrap_or_else(|_| json!(text))
        }
        ValueFormat::List(_) => {
            let items = text.strip_prefix('[').and_then(|items| items.strip_suffix(']'));
            json!(items.map_or_else(|| vec![text], |items| items.split(',').map(str::trim).collect()))
        }
        _ => json!(text),
    }
}

/// The schema is also in the repository and in the package, for editors.
#[test]
fn configuration_schema_matches_the_keys() {
    let (path, expected) = ("deploy/config/elements.schema.json", schema_text());
    if update_expected() {
        std::fs::write(repository(path), &expected).unwrap();
    }
    assert_eq!(read(path), expected, "UPDATE_EXPECTED=1 updates {path}");
}

#[test]
fn duration_pattern_matches_the_parser() {
    let pattern = Regex::new(&format!("^{DURATION}$")).unwrap();
    for text in [
        "30s",
        "5m",
        "26h",
        "7days",
        "1h 30m",
        "1h30m",
        " 2 weeks ",
        "1.5h",
        "500ms",
        "3 µs",
        "1month 2years",
        "1M",
        "1 2s",
        "2.5 days",
        "",
        "5",
        "h",
        "1x",
        "-1s",
        "1,5s",
        "1.s",
        "1h 5",
        "soon",
        "1H",
        ".5h",
        "none",
        "1h none",
    ] {
        let is_parsed = humantime::parse_duration(text.trim()).is_ok();
        assert_eq!(pattern.is_match(text), is_parsed, "{text:?}");
    }
}
