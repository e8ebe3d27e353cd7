//! Information about the build.

/// The version of the exporter.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit that the exporter was built from.
pub(crate) const REVISION: &str = env!("ELEMENTS_EXPORTER_REVISION");

/// The version of the compiler.
pub(crate) const RUSTVERSION: &str = env!("ELEMENTS_EXPORTER_RUSTVERSION");
