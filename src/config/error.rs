//! What can be wrong with a configuration, each in one line that says what would be right.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a configuration was refused. Every one of these ends the process with [`EXIT_CODE`](super::EXIT_CODE).
///
/// No message holds the value of a secret, nor the credentials inside a URL.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be opened or read, or is not UTF-8.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// The file, as given on the command line.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },

    /// The file is larger than any configuration.
    #[error("{}: is larger than {limit} bytes; is this the configuration file?", path.display())]
    TooLarge {
        /// The file, as given on the command line.
        path: PathBuf,
        /// The cap in bytes.
        limit: u64,
    },

    /// The file is not YAML, or holds a key twice.
    #[error("{}: {message}", path.display())]
    Syntax {
        /// The file, as given on the command line.
        path: PathBuf,
        /// Line, column and what is wrong there.
        message: String,
    },

    /// The file is YAML, but not a mapping of sections.
    #[error("{}: is not a mapping; expected sections such as auth: and api:", path.display())]
    Root {
        /// The file, as given on the command line.
        path: PathBuf,
    },

    /// Something other than keys stands where a section belongs.
    #[error("{origin}: {key}: {found} is not a section; expected keys below it, such as {example}")]
    Section {
        /// Where it stood.
        origin: Origin,
        /// The section, dotted.
        key: String,
        /// The kind of what stood there; not its text, which may be a mistyped secret.
        found: &'static str,
        /// A key of that section.
        example: &'static str,
    },

    /// A key that this version does not know.
    #[error("{origin}: unknown key \"{key}\"{}", did_you_mean(suggestion.as_deref()))]
    UnknownKey {
        /// Where it stood.
        origin: Origin,
        /// The key, dotted.
        key: String,
        /// The nearest known key, quoted.
        suggestion: Option<String>,
    },

    /// An environment variable with the exporter's prefix that names no key.
    #[error("unknown environment variable {name}{}", did_you_mean(suggestion.as_deref()))]
    UnknownVariable {
        /// The variable.
        name: String,
        /// The nearest known variable.
        suggestion: Option<String>,
    },

    /// An environment variable that is not text.
    #[error("{name}: the value is not valid UTF-8")]
    NotUtf8 {
        /// The variable.
        name: String,
    },

    /// A value that its key cannot take.
    #[error("{origin}: {key}: {found} {problem}")]
    Invalid {
        /// Where it stood.
        origin: Origin,
        /// The key, dotted, with the index where it is an item of a list.
        key: String,
        /// What stood there, or `(hidden)`.
        found: String,
        /// What is wrong with it and what would be right.
        problem: String,
    },

    /// Two keys of which only one may be set.
    #[error("{first_key} ({first}) and {second_key} ({second}) exclude each other; set only one of them")]
    Conflict {
        /// The one key.
        first_key: &'static str,
        /// Where the one stood.
        first: Origin,
        /// The other key.
        second_key: &'static str,
        /// Where the other stood.
        second: Origin,
    },

    /// A key that means something only beside another.
    #[error("{origin}: {key} is of no use without {needs}")]
    Useless {
        /// Where it stood.
        origin: Origin,
        /// The key.
        key: &'static str,
        /// The key that is missing.
        needs: &'static str,
    },

    /// A key without a default that was not set.
    #[error("{key} is required{because}: set it in the file or as {variable}")]
    Missing {
        /// The key.
        key: &'static str,
        /// Why, with a leading space, where that is not plain.
        because: String,
        /// The environment variable that would set it.
        variable: String,
    },

    /// Neither a secret nor a certificate.
    #[error("a credential is required: set one of {keys} in the file, or one of {variables}")]
    NoCredential {
        /// The keys that would do.
        keys: String,
        /// The environment variables that would do.
        variables: String,
    },

    /// One of the above that is about what is not there, of a configuration with a file.
    #[error("{}: {lacking}", path.display())]
    Lacking {
        /// The file, as given on the command line.
        path: PathBuf,
        /// What is missing.
        lacking: Box<Error>,
    },
}

impl Error {
    /// The same error, naming the file that lacks something, where there is a file.
    pub(super) fn of(self, file: Option<&Path>) -> Self {
        match (self, file) {
            (lacking @ (Self::Missing { .. } | Self::NoCredential { .. }), Some(path)) => Self::Lacking {
                path: path.to_owned(),
                lacking: Box::new(lacking),
            },
            (error, _) => error,
        }
    }
}

fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map_or_else(String::new, |name| format!("; did you mean {name}?"))
}

/// Where a value was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The configuration file, as given on the command line.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(formatter),
            Self::Variable(name) => formatter.write_str(name),
        }
    }
}
