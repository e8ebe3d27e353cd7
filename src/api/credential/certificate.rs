//! A certificate that is parsed again when its files change.

#[cfg(test)]
mod tests;

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use super::{
    CredentialError, Fingerprint,
    identity::{Contents, Identity, Source},
};
use crate::lock::lock;
use crate::secret::SecretSource;

/// A certificate and its files, which are read for each use.
#[derive(Debug)]
pub struct Certificate {
    source: Source,
    loaded: Mutex<Loaded>,
}

impl Certificate {
    pub(super) fn load(
        file: &Path,
        private_key: Option<&Path>,
        password: Option<SecretSource>,
    ) -> Result<Self, CredentialError> {
        let source = Source::new(file, private_key, password);
        let loaded = Loaded::parse(&source.read()?, &source)?;
        Ok(Self {
            source,
            loaded: Mutex::new(loaded),
        })
    }

    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        self.source.files()
    }

    /// Returns the identity in the current files. Unchanged files are not parsed again, because parsing can include a
    /// key derivation that takes up to a second.
    pub(super) fn current(&self) -> Result<Arc<Identity>, CredentialError> {
        let contents = self.source.read()?;
        let mut loaded = lock(&self.loaded);
        if loaded.fingerprint != contents.fingerprint() {
            *loaded = Loaded::parse(&contents, &self.source)?;
        }
        Ok(Arc::clone(&loaded.identity))
    }

    pub(super) fn expires(&self) -> i64 {
        lock(&self.loaded).identity.expires()
    }
}

#[derive(Debug)]
struct Loaded {
    fingerprint: Fingerprint,
    identity: Arc<Identity>,
}

impl Loaded {
    fn parse(contents: &Contents, source: &Source) -> Result<Self, CredentialError> {
        Ok(Self {
            fingerprint: contents.fingerprint(),
            identity: Arc::new(contents.identity(source)?),
        })
    }
}
