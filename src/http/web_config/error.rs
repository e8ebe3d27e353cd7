//! What can be wrong with a web configuration, each in one line that says what would be right.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why a web configuration was refused. No message holds a password's hash or a key.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be opened or read, or is not UTF-8.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },

    /// The file is larger than any web configuration.
    #[error("{}: is larger than {limit} bytes; is this the web configuration file?", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The cap in bytes.
        limit: u64,
    },

    /// The file is not YAML, or holds a key twice.
    #[error("{place}: {message}")]
    Syntax {
        /// Where.
        place: Place,
        /// What is wrong there.
        message: String,
    },

    /// A key that the format does not have.
    #[error("{place}: unknown key \"{key}\"; {hint}")]
    UnknownKey {
        /// Where it stands.
        place: Place,
        /// The key, dotted.
        key: String,
        /// The nearest known key, or all that could stand there.
        hint: String,
    },

    /// A value that its key cannot take.
    #[error("{place}: {key}: {problem}")]
    Invalid {
        /// Where it stands.
        place: Place,
        /// The key, dotted, with the index where it is an item of a list.
        key: String,
        /// What is wrong with it and what would be right.
        problem: String,
    },

    /// Certificates or a key that the file holds or names, and that cannot be used.
    #[error("{place}: {key}: {}{problem}", file.as_ref().map_or_else(String::new, |file| format!("{}: ", file.display())))]
    Material {
        /// Where it is named.
        place: Place,
        /// The key that names it.
        key: String,
        /// The file that is named, where there is one.
        file: Option<PathBuf>,
        /// What is wrong with it and what would be right.
        problem: String,
    },

    /// The file, as it is now, protects less than what is in force.
    #[error("{}: {key} is gone, and what protects is not taken away without a restart", path.display())]
    Weaker {
        /// The file.
        path: PathBuf,
        /// What is missing.
        key: &'static str,
    },

    /// The operating system gives no random numbers.
    #[error("the system gives no random numbers")]
    NoRandomness,
}

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, as given on the command line.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: line {}", self.path.display(), self.line)
    }
}
