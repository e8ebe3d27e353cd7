//! Watches files for changes: always the attributes file, and with `--config.auto-reload` also the configuration file
//! and `api.ca_file`.
//!
//! Files are compared by content, so it does not matter whether a file is edited, replaced, or reached through a
//! symbolic link whose target changes, as in a Kubernetes volume.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use xxhash_rust::xxh3::xxh3_64;

use super::LoadConfig;
use crate::config;
use crate::http::Reload;
use crate::text_file;

/// Time between two checks of a watched file.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// Maximum size of a watched file: the limit for attributes files, which is the highest.
const MAX_FILE_BYTES: u64 = config::MAX_CSV_BYTES;

/// A value that is watched for changes.
#[derive(Clone, Debug, Default)]
struct Watched<T> {
    /// The value when it was last read.
    read: T,
    /// The value when it was last checked.
    seen: T,
}

impl<T: Clone + PartialEq> Watched<T> {
    fn new(now: T) -> Self {
        Self {
            read: now.clone(),
            seen: now,
        }
    }

    /// Returns whether the value has changed since it was read, but not since the last check. A file is therefore not
    /// read while it is being written. If this returns true, the caller must read the value.
    fn has_stable_change(&mut self, now: T) -> bool {
        let has_stable_change = now != self.read && now == self.seen;
        if has_stable_change {
            self.read.clone_from(&now);
        }
        self.seen = now;
        has_stable_change
    }
}

/// A file that is reread when it changes.
#[derive(Clone, Debug)]
pub(super) struct WatchedFile {
    /// Path of the file; `None` if no file is configured.
    pub(super) path: Option<PathBuf>,
    content: Watched<Option<u64>>,
    /// Whether the latest reload failed because of this file.
    pub(super) failed_reload: bool,
}

impl WatchedFile {
    /// Watches a file that the caller is about to read.
    pub(super) fn new(path: Option<&Path>) -> Self {
        Self {
            path: path.map(Path::to_owned),
            content: Watched::new(path.and_then(hash)),
            failed_reload: false,
        }
    }

    /// Checks the file. Returns whether it must be reread.
    pub(super) fn has_stable_change(&mut self) -> bool {
        self.content.has_stable_change(self.path.as_deref().and_then(hash))
    }
}

/// Content hashes by path; `None` for a file that cannot be read.
type Contents = BTreeMap<PathBuf, Option<u64>>;

/// Watches the configuration file and the files in [`config::Config::reloaded_files`], and reloads when one of them
/// changes.
pub struct Watch {
    load: LoadConfig,
    config_file: Option<PathBuf>,
    contents: Watched<Contents>,
    /// Whether the set of files to which the configuration refers may have changed.
    must_find_files: bool,
}

impl Watch {
    /// Hashes the configuration file. Must be called before the file is loaded, so that no change is missed.
    pub fn new(load: LoadConfig, config_file: Option<PathBuf>) -> Self {
        Self {
            load,
            contents: Watched::new(config_file.iter().map(|file| (file.clone(), hash(file))).collect()),
            config_file,
            must_find_files: true,
        }
    }

    /// Reloads after each change until `stop` is cancelled.
    pub async fn run(mut self, reload: Reload, stop: CancellationToken) {
        if self.config_file.as_ref().is_some_and(|file| !file.is_file()) {
            warn!("--config.auto-reload has no effect: the configuration is not read from a regular file");
            return;
        }
        while stop
            .run_until_cancelled(tokio::time::sleep(CHECK_INTERVAL))
            .await
            .is_some()
        {
            // Reading files may block.
            let checked = tokio::task::spawn_blocking(move || (self.has_changed(), self)).await;
            let Ok((has_changed, watch)) = checked else { return };
            self = watch;
            if has_changed {
                info!("configuration file or api.ca_file changed; reloading");
                let _ = reload().await;
            }
        }
    }

    /// Checks the files. Returns whether the configuration must be reloaded.
    fn has_changed(&mut self) -> bool {
        if self.must_find_files {
            self.find_files();
        }
        let files = self.contents.seen.keys();
        let now = files.map(|file| (file.clone(), hash(file))).collect();
        self.must_find_files = self.contents.has_stable_change(now);
        self.must_find_files && !self.is_emptied()
    }

    /// Returns whether the configuration file is empty, for example after a write to a full disk. Loading it would
    /// reset all settings to their defaults.
    fn is_emptied(&self) -> bool {
        let read = |file: &PathBuf| text_file::read_bytes(file, MAX_FILE_BYTES).ok();
        let is_emptied = self
            .config_file
            .as_ref()
            .and_then(read)
            .is_some_and(|content| content.trim_ascii().is_empty());
        if is_emptied {
            warn!("configuration file is empty; keeping the previous configuration");
        }
        is_emptied
    }

    /// Updates the list of files to which the configuration refers, unless the configuration is invalid. The current
    /// content of a new file counts as read, because the reload that added the file has read it.
    fn find_files(&mut self) {
        let Ok(config) = (self.load)() else { return };
        let files: Vec<PathBuf> = self
            .config_file
            .iter()
            .cloned()
            .chain(config.reloaded_files())
            .collect();
        for contents in [&mut self.contents.read, &mut self.contents.seen] {
            let known = std::mem::take(contents);
            contents.extend(files.iter().map(|file| {
                let content = known.get(file).copied().unwrap_or_else(|| hash(file));
                (file.clone(), content)
            }));
        }
    }
}

fn hash(file: &Path) -> Option<u64> {
    let bytes = text_file::read_bytes(file, MAX_FILE_BYTES).ok()?;
    Some(xxh3_64(&bytes))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::Arc;

    use super::*;

    const VALID: &str = "auth: {client_id: a, client_secret: b}\n";

    fn watch(file: &Path) -> Watch {
        let path = file.to_owned();
        let load: LoadConfig = Arc::new(move || config::load(Some(&path), []));
        Watch::new(load, Some(file.to_owned()))
    }

    /// Returns the results of consecutive checks.
    fn check(watch: &mut Watch, times: usize) -> Vec<bool> {
        (0..times).map(|_| watch.has_changed()).collect()
    }

    #[test]
    fn changed_file_is_loaded_once_it_is_stable() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.csv");
        let mut watched = WatchedFile::new(Some(&path));
        let mut check = |count: usize| (0..count).map(|_| watched.has_stable_change()).collect::<Vec<_>>();
        assert_eq!(check(2), [false, false]);
        fs::write(&path, "a").unwrap();
        assert_eq!(check(3), [false, true, false]);
        fs::write(directory.path().join("b.csv"), "b").unwrap();
        fs::rename(directory.path().join("b.csv"), &path).unwrap();
        assert_eq!(check(3), [false, true, false]);
        fs::remove_file(&path).unwrap();
        assert_eq!(check(3), [false, true, false]);
        assert!(!WatchedFile::new(None).has_stable_change());
    }

    #[test]
    fn change_is_reported_once_after_two_equal_checks() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("elements.yml");
        fs::write(&file, VALID).unwrap();
        let mut watch = watch(&file);
        assert_eq!(check(&mut watch, 2), [false, false]);
        for partial in ["auth: {client", "auth: {client_id: c, client_"] {
            fs::write(&file, partial).unwrap();
            assert!(!watch.has_changed(), "{partial}");
        }
        fs::write(&file, "auth: {client_id: c, client_secret: d}\n").unwrap();
        assert_eq!(check(&mut watch, 3), [false, true, false]);
        // An invalid, missing or restored file triggers one reload.
        fs::write(&file, "auth: [").unwrap();
        assert_eq!(check(&mut watch, 3), [false, true, false]);
        fs::remove_file(&file).unwrap();
        assert_eq!(check(&mut watch, 3), [false, true, false]);
        fs::write(&file, "auth: [").unwrap();
        assert_eq!(check(&mut watch, 3), [false, true, false]);
        // An empty file triggers no reload, but the restored file does.
        fs::write(&file, "\n").unwrap();
        assert_eq!(check(&mut watch, 3), [false, false, false]);
        fs::write(&file, "auth: [").unwrap();
        assert_eq!(check(&mut watch, 3), [false, true, false]);
        // Writing the same content is not a change.
        fs::remove_file(&file).unwrap();
        fs::write(&file, "auth: [").unwrap();
        assert_eq!(check(&mut watch, 2), [false, false]);
    }

    #[test]
    fn changed_target_of_a_link_is_a_change() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for (volume, text) in [("1", VALID), ("2", "auth: {client_id: c, client_secret: d}\n")] {
            fs::create_dir(at(volume)).unwrap();
            fs::write(at(volume).join("elements.yml"), text).unwrap();
        }
        symlink("1", at("..data")).unwrap();
        symlink("..data/elements.yml", at("elements.yml")).unwrap();
        let mut watch = watch(&at("elements.yml"));
        symlink("2", at("new")).unwrap();
        fs::rename(at("new"), at("..data")).unwrap();
        assert_eq!(check(&mut watch, 3), [false, true, false]);
    }

    #[test]
    fn files_referenced_by_the_configuration_are_watched() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("elements.yml"), VALID).unwrap();
        let mut watch = watch(&at("elements.yml"));
        fs::write(at("ca.pem"), "one").unwrap();
        assert_eq!(check(&mut watch, 2), [false, false], "the file is not referenced yet");
        let named = format!("{VALID}api: {{ca_file: {}}}\n", at("ca.pem").display());
        fs::write(at("elements.yml"), named).unwrap();
        assert_eq!(check(&mut watch, 2), [false, true]);
        assert_eq!(check(&mut watch, 2), [false, false]);
        fs::write(at("ca.pem"), "other").unwrap();
        assert_eq!(check(&mut watch, 3), [false, true, false]);
        // The files of an invalid configuration are unknown, so the previous files are still watched.
        fs::write(at("elements.yml"), "auth: [").unwrap();
        assert_eq!(check(&mut watch, 2), [false, true]);
        fs::write(at("ca.pem"), "third").unwrap();
        assert_eq!(check(&mut watch, 2), [false, true]);
    }

    #[test]
    fn pipe_instead_of_a_file_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("elements.yml");
        fs::write(&file, VALID).unwrap();
        let load = crate::app::config_source(Some(file.clone()), crate::domain::Shard::WHOLE);
        fs::remove_file(&file).unwrap();
        let created = std::process::Command::new("mkfifo").arg(&file).status().unwrap();
        assert!(created.success());
        // Without the check for a regular file, opening the pipe would block forever.
        let error = load().unwrap_err().to_string();
        assert!(error.contains("is not a regular file"), "{error}");
    }
}
