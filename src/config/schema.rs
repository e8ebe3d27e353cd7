//! The JSON schema of the configuration file, generated from the table of keys, with which editors complete and check
//! it.

use serde_json::{Map, Value, json};

use super::{KEYS, Key, OVERRIDE_KEYS, Preset, Takes};

/// Dialect of the schema.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// A date, alone or with a time.
const DATE: &str = r"^\s*[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ].+)?\s*$";

/// A duration in the format of [`humantime`], without limits: one or more numbers with units.
const DURATION: &str = r"\s*([0-9][0-9\s]*(\.[0-9\s]+)?(nanos|nsec|ns|usec|us|µs|millis|msec|ms|seconds|second|secs|sec|s|minutes|minute|mins|min|m|hours|hour|hrs|hr|h|days|day|d|weeks|week|wks|wk|w|months|month|M|years|year|yrs|yr|y)\s*)+";

/// Returns the schema of the configuration file.
pub fn schema() -> Value {
    let mut root = section();
    for key in KEYS.iter() {
        insert(&mut root, key.path, of_key(key));
    }
    root.insert("$schema".to_owned(), json!(DIALECT));
    root.insert("title".to_owned(), json!("Configuration of elements_exporter"));
    Value::Object(root)
}

/// Returns the schema as text, indented.
pub fn schema_text() -> String {
    format!("{:#}\n", schema())
}

/// Returns the schema of a section without keys. Its keys may all be commented out, which leaves null.
fn section() -> Map<String, Value> {
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
            let below = properties.entry(name).or_insert_with(|| Value::Object(self::section()));
            if let Value::Object(below) = below {
                insert(below, rest, schema);
            }
        }
    }
}

fn of_key(key: &Key) -> Value {
    let Value::Object(mut schema) = form(key.takes) else {
        return Value::Null;
    };
    let mut description = format!("{} Takes {}.", key.about, key.takes);
    match key.default {
        Preset::Value(text) => {
            schema.insert("default".to_owned(), value(key.takes, text));
        }
        Preset::Otherwise(words) => description += &format!(" Default: {words}."),
        Preset::Required => description += " Required.",
    }
    if key.secret {
        schema.insert("writeOnly".to_owned(), json!(true));
    }
    schema.insert("description".to_owned(), json!(description));
    Value::Object(schema)
}

/// Returns the form of values. YAML parses digits as a number, which the exporter accepts as text.
fn form(takes: Takes) -> Value {
    match takes {
        Takes::Text(_) => json!({"type": ["string", "number"], "minLength": 1}),
        Takes::Date(_) => json!({"type": "string", "pattern": DATE}),
        Takes::Word(words) => json!({"enum": words}),
        Takes::Boolean => json!({"type": "boolean"}),
        Takes::Duration(_) | Takes::DurationUpTo(_) => json!({"type": "string", "pattern": format!("^{DURATION}$")}),
        Takes::DurationOr(word, _) => json!({"type": "string", "pattern": format!("^({DURATION}|{word})$")}),
        Takes::Number(most) => json!({"type": "number", "exclusiveMinimum": 0, "maximum": most}),
        Takes::Whole(least, Some(most)) => json!({"type": "integer", "minimum": least, "maximum": most}),
        Takes::Whole(least, None) => json!({"type": "integer", "minimum": least}),
        // A single item needs no brackets, but a comma would be part of it.
        Takes::List(_) => json!({
            "type": ["array", "string", "number"],
            "items": {"type": ["string", "number"]},
            "pattern": "^[^,]*$",
        }),
        Takes::Overrides(_) => {
            let properties = OVERRIDE_KEYS.iter().map(|key| (key.path.to_owned(), of_key(key)));
            let required = OVERRIDE_KEYS.iter().filter(|key| key.default == Preset::Required);
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

/// Returns a default, which is text in the table, as the value that YAML would parse.
fn value(takes: Takes, text: &str) -> Value {
    match takes {
        Takes::Boolean | Takes::Number(_) | Takes::Whole(..) => {
            serde_json::from_str(text).unwrap_or_else(|_| json!(text))
        }
        Takes::List(_) => {
            let items = text.strip_prefix('[').and_then(|items| items.strip_suffix(']'));
            json!(items.map_or_else(|| vec![text], |items| items.split(',').map(str::trim).collect()))
        }
        _ => json!(text),
    }
}

#[cfg(test)]
mod tests;
