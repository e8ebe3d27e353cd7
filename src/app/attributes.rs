//! Attributes file: read at start, at reloads, and whenever it changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Error;
use crate::config::{self, Config};
use crate::domain::AttributeTable;
use crate::error_chain::error_chain;

const KEY: &str = "customers.attributes_file";

/// Time between two checks of a watched file: long enough to cost nothing, short enough for a person who waits for a
/// change. A change is read at the second check that sees it, so that a file being written is not read.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Reads the attributes; `None` if no file is configured.
///
/// # Errors
/// If the file cannot be read, or contains invalid rows.
pub(super) fn read_attributes(config: &Config) -> Result<Option<Arc<AttributeTable>>, Error> {
    read_file(config.attributes_file.as_deref())
}

/// Reads the attributes of this file.
///
/// # Errors
/// See [`read_attributes`].
pub(super) fn read_file(file: Option<&Path>) -> Result<Option<Arc<AttributeTable>>, Error> {
    let table = file.map(config::read_attributes).transpose();
    let table = table.map_err(|error| Error::Material {
        key: KEY,
        problem: error_chain(&error),
    })?;
    Ok(table.map(Arc::new))
}

/// A file that is reread when it changes.
#[derive(Clone, Debug, Default)]
pub(super) struct WatchedFile {
    /// Its path; `None` without one.
    pub(super) path: Option<PathBuf>,
    /// Its metadata just before it was last read.
    read: Option<Stamp>,
    /// Its metadata at the last check.
    seen: Option<Stamp>,
    /// Whether the newest reload failed because of it.
    pub(super) fails_reload: bool,
}

/// Metadata of a file that changes with its contents, or when another file replaces it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    length: u64,
    modified: Option<SystemTime>,
    #[cfg(unix)]
    identity: (u64, u64, i64, i64),
}

impl Stamp {
    /// Returns `None` if there is no metadata, for example because the file is missing.
    fn of(path: &Path) -> Option<Self> {
        #[cfg(unix)]
        use std::os::unix::fs::MetadataExt as _;
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            length: metadata.len(),
            modified: metadata.modified().ok(),
            #[cfg(unix)]
            identity: (metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

impl WatchedFile {
    /// Returns a file that is about to be read.
    pub(super) fn new(path: Option<&Path>) -> Self {
        let stamp = path.and_then(Stamp::of);
        Self {
            path: path.map(Path::to_owned),
            read: stamp.clone(),
            seen: stamp,
            fails_reload: false,
        }
    }

    /// Checks the file. Returns whether it has changed since it was read, but not since the last check; it is then
    /// about to be read.
    pub(super) fn has_settled(&mut self) -> bool {
        let Some(path) = &self.path else { return false };
        let now = Stamp::of(path);
        let has_settled = now != self.read && now == self.seen;
        if has_settled {
            self.read.clone_from(&now);
        }
        self.seen = now;
        has_settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_is_read_once_after_each_change_has_settled() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.csv");
        let mut watched = WatchedFile::new(Some(&path));
        let mut looks = |count: usize| (0..count).map(|_| watched.has_settled()).collect::<Vec<_>>();
        assert_eq!(looks(2), [false, false]);
        fs::write(&path, "a").unwrap();
        assert_eq!(looks(3), [false, true, false]);
        fs::write(directory.path().join("b.csv"), "b").unwrap();
        fs::rename(directory.path().join("b.csv"), &path).unwrap();
        assert_eq!(looks(3), [false, true, false]);
        fs::remove_file(&path).unwrap();
        assert_eq!(looks(3), [false, true, false]);
        assert!(!WatchedFile::new(None).has_settled());
    }
}
