//! The two sources of settings, the file and the environment, laid over each other.

use std::collections::{BTreeMap, HashMap};
use std::error::Error as StdError;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use ::config::{ConfigError, FileFormat, Source as _, Value, ValueKind};

use super::error::{Error, Origin};
use super::keys::{self, KEYS, PREFIX};
use super::setting::{self, Setting};

/// The largest file that is read, in bytes. A configuration of ten thousand customers is far smaller, and a path that names a
/// device or a log must not fill the memory.
const FILE_LIMIT: u64 = 1 << 20;

/// What was set, by key; the environment over the file. What was set to nothing is not here.
#[derive(Debug, Default)]
pub(super) struct Settings(BTreeMap<&'static str, Setting>);

impl Settings {
    /// Reads both layers and refuses every key in them that does not exist.
    pub(super) fn collect(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, Error> {
        let mut settings = Self::default();
        if let Some(path) = file {
            settings.add_text(path, &read_file(path)?)?;
        }
        settings.add_environment(environment)?;
        Ok(settings)
    }

    pub(super) fn get(&self, path: &str) -> Option<&Setting> {
        debug_assert!(keys::find(path).is_some(), "{path} is not a key");
        self.0.get(path)
    }

    /// The value of a key as `read` understands it, `None` where the key is not set.
    pub(super) fn read<'a, T>(
        &'a self,
        path: &str,
        read: impl FnOnce(&'a Setting) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        self.get(path).map(read).transpose()
    }

    /// Adds the text of a file.
    pub(super) fn add_text(&mut self, path: &Path, text: &str) -> Result<(), Error> {
        let table = parse(text).map_err(|problem| match problem {
            Problem::Root => Error::Root { path: path.into() },
            Problem::Syntax(message) => Error::Syntax {
                path: path.into(),
                message,
            },
        })?;
        self.add_table("", table, &Origin::File(path.into()))
    }

    /// Adds the leaves of a table whose dotted path is `section`.
    fn add_table(&mut self, section: &str, table: HashMap<String, Value>, origin: &Origin) -> Result<(), Error> {
        let sorted: BTreeMap<_, _> = table.into_iter().collect();
        for (name, value) in sorted {
            if name.contains('.') {
                return Err(dotted(section, &name, origin));
            }
            let path = if section.is_empty() {
                name
            } else {
                format!("{section}.{name}")
            };
            self.add_value(&path, value.kind, origin)?;
        }
        Ok(())
    }

    fn add_value(&mut self, path: &str, value: ValueKind, origin: &Origin) -> Result<(), Error> {
        if let Some(key) = keys::find(path) {
            if value != ValueKind::Nil {
                let setting = Setting::new(path, origin.clone(), value, key.secret);
                self.0.insert(key.path, setting);
            }
            return Ok(());
        }
        match (value, keys::example_below(path)) {
            (ValueKind::Nil, Some(_)) => Ok(()),
            (ValueKind::Table(table), Some(_)) => self.add_table(path, table, origin),
            (value, Some(example)) => Err(Error::Section {
                origin: origin.clone(),
                key: path.to_owned(),
                found: setting::kind(&value),
                example,
            }),
            // The keys below an unknown section say more about what was meant than the section alone.
            (ValueKind::Table(table), None) if !table.is_empty() => self.add_table(path, table, origin),
            (_, None) => Err(Error::UnknownKey {
                origin: origin.clone(),
                key: path.to_owned(),
                suggestion: keys::suggest(path).map(quoted),
            }),
        }
    }

    /// Adds the variables of an environment that are the exporter's.
    pub(super) fn add_environment(
        &mut self,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<(), Error> {
        let ours: BTreeMap<_, _> = environment
            .into_iter()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty() && !is_from_kubernetes(name))
            .collect();
        for (name, value) in ours {
            self.add_variable(name, value)?;
        }
        Ok(())
    }

    fn add_variable(&mut self, name: String, value: OsString) -> Result<(), Error> {
        let Some(key) = KEYS.iter().find(|key| key.variable() == name) else {
            let suggestion = keys::suggest_variable(&name);
            return Err(Error::UnknownVariable { name, suggestion });
        };
        let Ok(text) = value.into_string() else {
            return Err(Error::NotUtf8 { name });
        };
        let value = ValueKind::String(text);
        let setting = Setting::new(key.path, Origin::Variable(name), value, key.secret);
        self.0.insert(key.path, setting);
        Ok(())
    }
}

fn quoted(path: &str) -> String {
    format!("\"{path}\"")
}

fn dotted(section: &str, name: &str, origin: &Origin) -> Error {
    let key = if section.is_empty() {
        name.to_owned()
    } else {
        format!("{section}.{name}")
    };
    let (outer, inner) = key.rsplit_once('.').unwrap_or_default();
    let suggestion = match (keys::find(&key), outer.is_empty()) {
        (Some(_), false) => Some(format!("\"{inner}:\" below \"{}:\"", outer.replace('.', ": "))),
        _ => keys::suggest(&key).map(quoted),
    };
    Error::UnknownKey {
        origin: origin.clone(),
        key,
        suggestion,
    }
}

/// Whether a variable is one of those that Kubernetes puts into every pod for a service whose name begins with `elements`, such
/// as the exporter's own. It writes the hyphens of a name as single underscores, so these never look like a key's.
fn is_from_kubernetes(name: &str) -> bool {
    // PREFIX ends in the underscore with which the suffixes begin.
    let rest = name.get(PREFIX.len().saturating_sub(1)..).unwrap_or_default();
    !rest.contains("__")
        && (rest.ends_with("_SERVICE_HOST")
            || rest.ends_with("_SERVICE_PORT")
            || rest.contains("_SERVICE_PORT_")
            || rest.ends_with("_PORT")
            || is_link_of_port(rest))
}

/// Whether a name ends as in `_PORT_10027_TCP` or `_PORT_10027_TCP_ADDR`.
fn is_link_of_port(name: &str) -> bool {
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

fn read_file(path: &Path) -> Result<String, Error> {
    let mut text = String::new();
    let length = File::open(path)
        .and_then(|file| file.take(FILE_LIMIT + 1).read_to_string(&mut text))
        .map_err(|source| Error::Read {
            path: path.into(),
            source,
        })?;
    if u64::try_from(length).is_ok_and(|length| length <= FILE_LIMIT) {
        Ok(text)
    } else {
        Err(Error::TooLarge {
            path: path.into(),
            limit: FILE_LIMIT,
        })
    }
}

enum Problem {
    /// The outermost value is not a mapping.
    Root,
    Syntax(String),
}

fn parse(text: &str) -> Result<HashMap<String, Value>, Problem> {
    // Windows editors begin a file with a byte order mark, which the parser would take for part of the first key.
    let text = text.trim_start_matches('\u{feff}');
    let error = match ::config::File::from_str(text, FileFormat::Yaml).collect() {
        Ok(table) => return Ok(table),
        Err(error) => error,
    };
    let ConfigError::FileParse { cause, .. } = error else {
        return Err(Problem::Syntax(error.to_string()));
    };
    match wrong_root(cause.as_ref()) {
        // A file of comments below a "---" is a document that is null.
        Some(ConfigError::Type { unexpected, .. }) if unexpected.to_string() == "unit value" => Ok(HashMap::new()),
        // Its message would show the whole text, which is the secret when the path of a secret file was given.
        Some(_) => Err(Problem::Root),
        None => Err(Problem::Syntax(syntax_message(cause.as_ref()))),
    }
}

/// The error about the outermost value, which the parser hands out boxed.
fn wrong_root<'a>(cause: &'a (dyn StdError + 'static)) -> Option<&'a ConfigError> {
    cause
        .downcast_ref::<Box<ConfigError>>()
        .map(AsRef::as_ref)
        .or_else(|| cause.downcast_ref())
}

/// Turns `String("api"): duplicated key in mapping at byte 9 line 2 column 1` into `line 2 column 1: duplicate key "api"`.
fn syntax_message(cause: &dyn StdError) -> String {
    let text = cause.to_string().replace('\n', " ");
    if let Some((what, place)) = text.rsplit_once(" at byte ") {
        let place = place.split_once(' ').map_or(place, |(_, place)| place);
        return format!("{place}: {}", duplicate_key(what).unwrap_or(what.to_owned()));
    }
    if text.contains("YAML documents") {
        return "holds more than one YAML document; expected one".to_owned();
    }
    // What is left are keys that are mappings, as an unfilled template makes them, and .inf. The parser's message would show them.
    "holds a key or a number that cannot be read; put it in quotes".to_owned()
}

fn duplicate_key(what: &str) -> Option<String> {
    let key = what.strip_suffix(": duplicated key in mapping")?;
    let key = key.strip_prefix("String(").unwrap_or(key);
    Some(format!("duplicate key {}", key.trim_end_matches(')')))
}

/// The items of a list written on one line or more, as in YAML or JSON.
pub(super) fn inline_list(text: &str) -> Result<Vec<ValueKind>, String> {
    // Inside braces the text may span lines without indentation; the line break ends a comment.
    let document = format!("{{list: {text}\n}}");
    let mut table = parse(&document).map_err(|problem| match problem {
        Problem::Root => "not a list".to_owned(),
        Problem::Syntax(message) => message,
    })?;
    match (table.remove("list").map(|value| value.kind), table.len()) {
        (Some(ValueKind::Array(items)), 0) => Ok(items.into_iter().map(|item| item.kind).collect()),
        _ => Err("more than a list".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_what_kubernetes_injects() {
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
