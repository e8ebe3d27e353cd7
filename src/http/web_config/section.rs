//! Sections and values of a web configuration, and the readers that turn them into types.

use std::path::Path;

use super::document::{Entry, Node, Value};
use super::error::{Error, Place};
use crate::spelling::nearest;

/// How much of a value an error shows, in characters: enough to recognise it, short enough for one line.
const SHOWN_CHARACTERS: usize = 80;

/// The keys of the format, dotted. What stands below `basic_auth_users` are names of users.
const KEYS: &[&str] = &[
    "tls_server_config.cert_file",
    "tls_server_config.key_file",
    "tls_server_config.cert",
    "tls_server_config.key",
    "tls_server_config.client_auth_type",
    "tls_server_config.client_ca_file",
    "tls_server_config.client_ca",
    "tls_server_config.client_allowed_sans",
    "tls_server_config.min_version",
    "tls_server_config.max_version",
    "tls_server_config.cipher_suites",
    "tls_server_config.prefer_server_cipher_suites",
    "tls_server_config.curve_preferences",
    "http_server_config.http2",
    "http_server_config.headers.Strict-Transport-Security",
    "http_server_config.headers.X-Content-Type-Options",
    "http_server_config.headers.X-Frame-Options",
    "http_server_config.headers.X-XSS-Protection",
    "http_server_config.headers.Content-Security-Policy",
    "basic_auth_users",
];

/// The section of the format that is known and never suggested, because it is refused with words of its own.
pub(super) const RATE_LIMIT: &str = "rate_limit";

/// A mapping whose keys are all known.
#[derive(Clone)]
pub(super) struct Section<'a> {
    file: &'a Path,
    path: String,
    entries: &'a [Entry],
}

impl<'a> Section<'a> {
    /// The outermost mapping.
    pub(super) fn root(file: &'a Path, node: &'a Node) -> Result<Self, Error> {
        let section = Self {
            file,
            path: String::new(),
            entries: match &node.value {
                Value::Null => &[],
                Value::Mapping(entries) => entries,
                _ => {
                    return Err(Error::Syntax {
                        place: place(file, node.line),
                        message: format!("expected the sections {}", children("").join(", ")),
                    });
                }
            },
        };
        section.refuse_unknown()?;
        Ok(section)
    }

    /// The section of that name; `None` where it is not there or holds nothing.
    pub(super) fn section(&self, name: &str) -> Result<Option<Self>, Error> {
        let section = self.free_section(name)?;
        section.as_ref().map_or(Ok(()), Self::refuse_unknown)?;
        Ok(section)
    }

    /// The section of that name, whose keys are free to choose.
    pub(super) fn free_section(&self, name: &str) -> Result<Option<Self>, Error> {
        let Some(field) = self.get(name) else { return Ok(None) };
        let Value::Mapping(entries) = &field.node.value else {
            return Err(field.invalid("is not a section; expected keys below it"));
        };
        Ok((!entries.is_empty()).then_some(Self {
            file: self.file,
            path: field.key,
            entries,
        }))
    }

    /// The value of that name; `None` where there is none or it is null.
    pub(super) fn get(&self, name: &str) -> Option<Field<'a>> {
        self.fields()
            .find(|field| field.name == name && field.node.value != Value::Null)
    }

    /// The value of that name as `read` understands it.
    pub(super) fn read<T>(
        &self,
        name: &str,
        read: impl FnOnce(&Field<'a>) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        self.get(name).as_ref().map(read).transpose()
    }

    /// All that stands in it.
    pub(super) fn fields(&self) -> impl Iterator<Item = Field<'a>> {
        self.entries.iter().map(|entry| Field {
            file: self.file,
            name: &entry.key,
            key: join(&self.path, &entry.key),
            line: entry.line,
            node: &entry.node,
        })
    }

    /// An error about what is missing in it.
    pub(super) fn lacks(&self, name: &str, problem: impl Into<String>) -> Error {
        Error::Invalid {
            place: place(self.file, self.entries.first().map_or(1, |entry| entry.line)),
            key: join(&self.path, name),
            problem: problem.into(),
        }
    }

    fn refuse_unknown(&self) -> Result<(), Error> {
        let known = children(&self.path);
        let is_known = |field: &Field<'_>| known.contains(&field.name) || field.key == RATE_LIMIT;
        let Some(unknown) = self.fields().find(|field| !is_known(field)) else {
            return Ok(());
        };
        let hint = suggest(&self.path, unknown.name).map_or_else(
            || format!("expected {}", known.join(", ")),
            |key| format!("did you mean \"{key}\"?"),
        );
        Err(Error::UnknownKey {
            place: unknown.place(),
            key: unknown.key,
            hint,
        })
    }
}

/// A key and its value, not yet read.
pub(super) struct Field<'a> {
    file: &'a Path,
    pub(super) name: &'a str,
    pub(super) key: String,
    line: usize,
    node: &'a Node,
}

impl<'a> Field<'a> {
    pub(super) fn place(&self) -> Place {
        place(self.file, self.line)
    }

    /// Text that may be empty.
    pub(super) fn text(&self) -> Result<&'a str, Error> {
        match &self.node.value {
            Value::Scalar(text) => Ok(text),
            _ => Err(self.invalid("is not text")),
        }
    }

    /// Text that is not empty.
    pub(super) fn some_text(&self) -> Result<&'a str, Error> {
        match self.text()? {
            text if text.trim().is_empty() => Err(self.invalid("is empty; leave the key out, or give it a value")),
            text => Ok(text),
        }
    }

    pub(super) fn boolean(&self) -> Result<bool, Error> {
        // The toolkit reads YAML 1.1, whose truth has these names.
        match self.text().unwrap_or_default().to_lowercase().as_str() {
            "true" | "yes" | "on" | "y" => Ok(true),
            "false" | "no" | "off" | "n" => Ok(false),
            _ => Err(self.refused("is not a truth value; expected true or false")),
        }
    }

    /// The items of a list.
    pub(super) fn items(&self) -> Result<Vec<Field<'a>>, Error> {
        let Value::Sequence(items) = &self.node.value else {
            return Err(self.invalid("is not a list"));
        };
        let item = |(index, node): (usize, &'a Node)| Field {
            file: self.file,
            name: self.name,
            key: format!("{}[{index}]", self.key),
            line: node.line,
            node,
        };
        Ok(items.iter().enumerate().map(item).collect())
    }

    /// An error that does not show what stands there.
    pub(super) fn invalid(&self, problem: impl Into<String>) -> Error {
        Error::Invalid {
            place: self.place(),
            key: self.key.clone(),
            problem: problem.into(),
        }
    }

    /// An error that begins with what stands there; not for secrets.
    pub(super) fn refused(&self, problem: impl AsRef<str>) -> Error {
        let shown: String = match &self.node.value {
            Value::Scalar(text) => format!("{:?}", text.chars().take(SHOWN_CHARACTERS).collect::<String>()),
            Value::Null => "nothing".to_owned(),
            Value::Sequence(_) => "a list".to_owned(),
            Value::Mapping(_) => "a section".to_owned(),
        };
        self.invalid(format!("{shown} {}", problem.as_ref()))
    }
}

fn place(file: &Path, line: usize) -> Place {
    Place {
        path: file.to_owned(),
        line,
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// The names that may stand in a section.
fn children(section: &str) -> Vec<&'static str> {
    let mut names: Vec<&str> = Vec::new();
    for key in KEYS {
        let below = if section.is_empty() {
            Some(*key)
        } else {
            key.strip_prefix(section).and_then(|rest| rest.strip_prefix('.'))
        };
        let name = below.and_then(|rest| rest.split('.').next());
        names.extend(name.filter(|name| !names.contains(name)));
    }
    names
}

/// The key that was probably meant by `name` in a section: one of that section, else one of another.
fn suggest(section: &str, name: &str) -> Option<String> {
    let sibling = nearest(name, children(section).into_iter()).map(|sibling| join(section, sibling));
    sibling.or_else(|| nearest(name, KEYS.iter().copied()).map(str::to_owned))
}
