//! The layers of the configuration. The file overrides the defaults, and the environment overrides the file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use ::config::{Source as _, Value, ValueKind};

use super::keys::{self, KEYS, Key, KeyDefault, PREFIX};
use crate::settings::{Error, FILE_LIMIT, Field, nearest_key, parse, parse_variable, reject_unknown_keys};
use crate::text_file;

/// Location in errors about defaults. Only a bug can cause such an error.
const DEFAULT: &str = "default";

/// Location in errors about missing keys if there is no file.
const ENVIRONMENT: &str = "environment";

/// The merged layers. A null value counts as not set.
pub(super) struct Layers {
    merged: Value,
    /// Location in errors about missing keys.
    location: String,
}

/// The values of one layer by key.
type Layer = Vec<(&'static str, Value)>;

impl Layers {
    /// Reads all layers and rejects unknown keys.
    pub(super) fn read(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, Error> {
        let Some(path) = file else {
            return Self::merge(None, environment);
        };
        Self::merge(Some((path, &text_file::read(path, FILE_LIMIT)?)), environment)
    }

    /// Merges the layers, given the text of the file.
    pub(super) fn merge(
        file: Option<(&Path, &str)>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, Error> {
        let of_file = file.map_or(Ok(Layer::new()), |(path, text)| file_layer(path, text))?;
        let mut builder = ::config::Config::builder();
        for (key, value) in default_layer().chain(of_file) {
            builder = builder.set_default(key, value)?;
        }
        for (key, value) in environment_layer(environment)? {
            builder = builder.set_override(key, value)?;
        }
        Ok(Self {
            merged: Value::new(None, builder.build()?.collect()?),
            location: file.map_or_else(|| ENVIRONMENT.to_owned(), |(path, _)| path.display().to_string()),
        })
    }

    /// Returns the value of a key; `None` if the key is not set and has no default.
    pub(super) fn get(&self, path: &str) -> Option<Field<'_>> {
        let key = keys::find(path);
        debug_assert!(key.is_some(), "{path} must be in the table of keys");
        let key = key?;
        let field = Field::root(&self.merged).at(path)?;
        Some(if key.secret { field.secret() } else { field })
    }

    /// Reads the value of a key, if there is one.
    pub(super) fn read_optional<'a, T>(
        &'a self,
        path: &str,
        read: impl FnOnce(&Field<'a>) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        self.get(path).as_ref().map(read).transpose()
    }

    /// Reads the value of a key that is required or has a default.
    pub(super) fn read_required<'a, T>(
        &'a self,
        path: &str,
        read: impl FnOnce(&Field<'a>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let field = self.get(path).ok_or_else(|| self.missing(path, "is required"))?;
        read(&field)
    }

    /// Returns an error about a missing key.
    pub(super) fn missing(&self, path: &str, problem: &str) -> Error {
        let variable = keys::variable(path);
        self.error(path, format!("{problem}; set it in the file or as {variable}"))
    }

    /// Returns an error about a key that is not set.
    pub(super) fn error(&self, path: &str, problem: String) -> Error {
        Error::Value {
            location: self.location.clone(),
            key: path.to_owned(),
            problem,
        }
    }
}

fn default_layer() -> impl Iterator<Item = (&'static str, Value)> {
    KEYS.iter().filter_map(|key| match key.default {
        KeyDefault::Value(text) => Some((key.path, parse_variable_value(key, DEFAULT, text).ok()?)),
        _ => None,
    })
}

fn file_layer(path: &Path, text: &str) -> Result<Layer, Error> {
    let document = parse(path, text)?;
    let root = Field::root(&document);
    let known: Vec<&str> = KEYS.iter().map(|key| key.path).collect();
    reject_unknown_keys(&root, &known)?;
    let fields = KEYS.iter().filter_map(|key| Some((key, root.at(key.path)?)));
    fields
        .map(|(key, field)| Ok((key.path, field.value_of(&key.format.to_string())?)))
        .collect()
}

/// Reads the exporter's variables from an environment.
fn environment_layer(environment: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Layer, Error> {
    let variables: BTreeMap<_, _> = environment
        .into_iter()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty() && !is_from_kubernetes(name))
        .collect();
    let mut layer = Layer::new();
    for (name, value) in variables {
        let key = KEYS
            .iter()
            .find(|key| key.variable() == name)
            .ok_or_else(|| unknown_variable(&name))?;
        let text = value.into_string().map_err(|_| Error::Value {
            location: name.clone(),
            key: key.path.to_owned(),
            problem: "is not valid UTF-8".to_owned(),
        })?;
        layer.push((key.path, parse_variable_value(key, &name, &text)?));
    }
    Ok(layer)
}

fn unknown_variable(name: &str) -> Error {
    let path = name
        .strip_prefix(PREFIX)
        .unwrap_or(name)
        .to_lowercase()
        .replace("__", ".");
    let known: Vec<&str> = KEYS.iter().map(|key| key.path).collect();
    let hint = nearest_key(&path, &known).map_or_else(
        || {
            format!(
                "expected {PREFIX} followed by a key, such as {}",
                keys::variable("api.timeout")
            )
        },
        |key| format!("did you mean {}?", keys::variable(key)),
    );
    Error::Document {
        location: name.to_owned(),
        problem: format!("unknown environment variable; {hint}"),
    }
}

/// Parses a default or the value of an environment variable. The items of a list are separated by commas, or written in
/// brackets as in YAML or JSON.
fn parse_variable_value(key: &Key, name: &str, text: &str) -> Result<Value, Error> {
    let origin = name.to_owned();
    let written = Value::new(Some(&origin), text);
    if !key.format.is_list() {
        return Ok(written);
    }
    let text = text.trim();
    if !text.starts_with('[') {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        let items: Vec<Value> = items.map(|item| Value::new(Some(&origin), item)).collect();
        return Ok(Value::new(Some(&origin), items));
    }
    let invalid_list = |problem: &str| {
        Field::new(key.path, &written).invalid(format!(
            "is not a list ({problem}); expected a list such as [a, b] or a,b"
        ))
    };
    match parse_variable(name, text) {
        Ok(list) if matches!(list.kind, ValueKind::Array(_)) => Ok(list),
        Ok(_) => Err(invalid_list("there is text after the list")),
        Err(Error::Document { problem, .. }) => Err(invalid_list(&problem)),
        Err(error) => Err(error),
    }
}

/// Returns whether Kubernetes sets this variable for a service whose name begins with `elements`, such as the
/// exporter's service. Kubernetes replaces hyphens with single underscores, whereas the variables of keys contain
/// double underscores.
fn is_from_kubernetes(name: &str) -> bool {
    // Keeps the underscore that ends `PREFIX`, because the suffixes below start with it.
    let rest = name.get(PREFIX.len().saturating_sub(1)..).unwrap_or_default();
    !rest.contains("__")
        && (rest.ends_with("_SERVICE_HOST")
            || rest.ends_with("_SERVICE_PORT")
            || rest.contains("_SERVICE_PORT_")
            || rest.ends_with("_PORT")
            || is_link_variable(rest))
}

/// Returns whether a name ends like `_PORT_10027_TCP` or `_PORT_10027_TCP_ADDR`.
fn is_link_variable(name: &str) -> bool {
    let link = ["_PROTO", "_PORT", "_ADDR"]
        .iter()
        .find_map(|suffix| name.strip_suffix(suffix))
        .unwrap_or(name);
    ["_TCP", "_UDP", "_SCTP"]
        .iter()
        .find_map(|suffix| link.strip_suffix(suffix))
        .and_then(|link| link.rsplit_once("_PORT_"))
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_variables_are_recognized() {
        for name in [
            "ELEMENTS_SERVICE_HOST",
            "ELEMENTS_SERVICE_PORT",
            "ELEMENTS_SERVICE_PORT_HTTP_METRICS",
            "ELEMENTS_PORT",
            "ELEMENTS_PORT_10027_TCP",
            "ELEMENTS_PORT_10027_TCP_PROTO",
            "ELEMENTS_PORT_10027_TCP_PORT",
            "ELEMENTS_PORT_10027_TCP_ADDR",
            "ELEMENTS_PORT_53_UDP_ADDR",
            "ELEMENTS_EXPORTER_SERVICE_HOST",
            "ELEMENTS_EXPORTER_SERVICE_PORT_METRICS",
            "ELEMENTS_EXPORTER_PORT",
            "ELEMENTS_EXPORTER_PORT_10027_TCP_ADDR",
        ] {
            assert!(is_from_kubernetes(name), "{name}");
        }
        for name in [
            "ELEMENTS_API__TIMEOUT",
            "ELEMENTS_API__PORT",
            "ELEMENTS_AUTH_CLIENT_ID",
            "ELEMENTS_PORTS",
            "ELEMENTS_PORT_HTTP_TCP",
            "ELEMENTS_",
        ] {
            assert!(!is_from_kubernetes(name), "{name}");
        }
    }
}
