//! Reads small files, most of which are text: secrets, certificates, keys and configuration.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// UTF-8 byte order mark, which some editors on Windows write at the start of a file. It is not part of the text.
pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reason why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system returned an error.
    #[error("cannot read {path}")]
    Unreadable {
        /// Path of the file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The path is a pipe, directory, device or socket.
    #[error("{0} is not a regular file; expected a file that can be reread")]
    NotRegular(PathBuf),
    /// The file is too large.
    #[error("{path} is larger than {limit} bytes; is it the right file?")]
    TooLarge {
        /// Path of the file.
        path: PathBuf,
        /// Maximum size.
        limit: u64,
    },
    /// The file is not UTF-8.
    #[error("{0} is not UTF-8 text; save it as UTF-8")]
    NotUtf8(PathBuf),
}

impl Error {
    /// Returns the path of the file that cannot be read.
    pub fn path(&self) -> &Path {
        match self {
            Self::Unreadable { path, .. } | Self::TooLarge { path, .. } => path,
            Self::NotRegular(path) | Self::NotUtf8(path) => path,
        }
    }
}

/// Reads a text file of at most `limit` bytes, and removes its byte order mark. A pipe is read to its end.
///
/// # Errors
/// Returns an error if the file cannot be read, is too large, or is not UTF-8.
pub fn read(path: &Path, limit: u64) -> Result<String, Error> {
    decode_utf8(path, open_and_read(path, limit)?)
}

/// Like [`read`], but rejects files that are not regular, because they cannot be reread.
///
/// # Errors
/// See [`read`]. Also returns an error if the path is not a regular file.
pub fn read_regular(path: &Path, limit: u64) -> Result<String, Error> {
    decode_utf8(path, read_bytes(path, limit)?)
}

/// Reads the bytes of a regular file of at most `limit` bytes. A byte order mark is removed, which is safe because no
/// binary format in use starts with these bytes.
///
/// # Errors
/// Returns an error if the file cannot be read, is too large, or is not a regular file.
pub fn read_bytes(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    require_regular(path)?;
    open_and_read(path, limit)
}

/// Checks that a path is a regular file. The file is not opened, because opening a pipe blocks until it has a writer.
///
/// # Errors
/// Returns an error if the path is not a regular file, does not exist, or is inaccessible.
pub fn require_regular(path: &Path) -> Result<(), Error> {
    let metadata = fs::metadata(path).map_err(|source| unreadable(path, source))?;
    if !metadata.is_file() {
        return Err(Error::NotRegular(path.to_owned()));
    }
    Ok(())
}

/// Removes all byte order marks, because each part of a concatenated file may start with one.
pub fn without_marks(text: &[u8]) -> Vec<u8> {
    let mut rest = text;
    let mut clean = Vec::with_capacity(text.len());
    while let Some(at) = rest
        .windows(BYTE_ORDER_MARK.len())
        .position(|window| window == BYTE_ORDER_MARK)
    {
        let (before, after) = rest.split_at(at);
        clean.extend_from_slice(before);
        rest = after.get(BYTE_ORDER_MARK.len()..).unwrap_or_default();
    }
    clean.extend_from_slice(rest);
    clean
}

fn open_and_read(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let mut content = Vec::new();
    File::open(path)
        .and_then(|file| file.take(limit.saturating_add(1)).read_to_end(&mut content))
        .map_err(|source| unreadable(path, source))?;
    if u64::try_from(content.len()).is_ok_and(|length| length > limit) {
        return Err(Error::TooLarge {
            path: path.to_owned(),
            limit,
        });
    }
    if content.starts_with(BYTE_ORDER_MARK) {
        content.drain(..BYTE_ORDER_MARK.len());
    }
    Ok(content)
}

fn decode_utf8(path: &Path, content: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(content).map_err(|_| Error::NotUtf8(path.to_owned()))
}

fn unreadable(path: &Path, source: io::Error) -> Error {
    Error::Unreadable {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        file
    }

    #[test]
    fn byte_order_mark_is_skipped() {
        for reader in [read, read_regular] {
            let read = |content: &[u8]| reader(file(content).path(), 8).unwrap();
            assert_eq!(read("\u{feff}abc\n".as_bytes()), "abc\n");
            assert_eq!(read("\u{feff}".as_bytes()), "");
            assert_eq!(read("a\u{feff}".as_bytes()), "a\u{feff}");
        }
        assert_eq!(read_bytes(file(b"\xef\xbb\xbf\xff").path(), 8).unwrap(), b"\xff");
    }

    #[test]
    fn errors_contain_the_path() {
        let (large, latin) = (file(b"123456789"), file(b"\xff\xfea\0"));
        let directory = tempfile::tempdir().unwrap();
        let absent = directory.path().join("absent");
        for (path, expected) in [
            (large.path(), "is larger than 8 bytes"),
            (latin.path(), "is not UTF-8 text"),
            (directory.path(), "is not a regular file"),
            (absent.as_path(), "cannot read"),
        ] {
            let error = read_regular(path, 8).unwrap_err();
            assert_eq!(error.path(), path);
            let text = error.to_string();
            assert!(
                text.contains(expected) && text.contains(&path.display().to_string()),
                "{text}"
            );
        }
        assert!(matches!(read(directory.path(), 8), Err(Error::Unreadable { .. })));
        assert_eq!(read(file(b"12345678").path(), 8).unwrap().len(), 8);
    }
}
