//! Text that must not be displayed or logged.

use std::fmt;
use std::path::PathBuf;

/// A secret string. It implements neither `Display` nor `Serialize`, so that it leaves the process only through
/// explicit calls to [`expose`](Secret::expose). Comparison is not constant-time, because it is used only to detect
/// changes on reload, and never for authentication.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Returns the text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// A configured secret, or the file that contains the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// The secret itself.
    Value(Secret),
    /// A file that is read each time the secret is used.
    File(PathBuf),
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn debug_output_is_hidden() {
        let secret = Secret::from("hunter2".to_owned());
        assert_eq!(format!("{secret:?}"), "Secret(hidden)");
        assert_eq!(secret.expose(), "hunter2");
    }
}
