//! The configuration. The YAML file overrides the defaults, and the environment overrides the file.
//!
//! [`load`] merges the layers and parses all values. Unknown keys are rejected, because a mistyped key would otherwise
//! have no effect. [`KEYS`] is the table of keys. The code that reads a key repeats the key's path, and tests check
//! that the code and the table agree. The process environment is passed as an argument, so that tests need not change
//! it.

mod api;
mod attributes;
mod auth;
mod collectors;
mod keys;
mod layers;
mod rpo;
mod value_format;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub use self::api::{Api, Environment, ProxyUrl};
pub(crate) use self::attributes::MAX_CSV_BYTES;
pub use self::attributes::{AttributesError, read_attributes};
pub use self::auth::{Auth, Credential};
pub(crate) use self::collectors::DEFAULT_STALE_INTERVALS;
pub use self::collectors::{Jobs, Licenses};
pub use self::keys::{KEYS, Key, KeyDefault, OVERRIDE_KEYS, PREFIX};
use self::layers::Layers;
pub use self::value_format::ValueFormat;
use crate::collector::{PerCollector, Plan};
use crate::domain::{CustomerFilter, Objectives, Pattern, Shard};
pub use crate::settings::Error;
use crate::settings::Field;

/// Exit code for an invalid configuration: `EX_CONFIG` from `sysexits.h`.
pub const EXIT_CODE: u8 = 78;

/// The JSON schema of the configuration file, generated from [`KEYS`]. Editors use it to complete and check the file.
pub const SCHEMA: &str = include_str!("../deploy/config/elements.schema.json");

/// The complete configuration.
///
/// It implements [`PartialEq`], so that a reload can detect changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// API address and limits.
    pub api: Api,
    /// Identity and credential.
    pub auth: Auth,
    /// Customer filters. The shard comes from a command-line flag, because it is the only difference between exporters
    /// that share a configuration file.
    pub customers: CustomerFilter,
    /// File with customer attributes.
    pub attributes_file: Option<PathBuf>,
    /// Schedule of each collector.
    pub plans: PerCollector<Plan>,
    /// Job filters.
    pub jobs: Jobs,
    /// Whether changed objects are also counted per container.
    pub scan_changes_objects: bool,
    /// Licence filters.
    pub licenses: Licenses,
    /// Products whose app consent is polled.
    pub consent_products: Vec<String>,
    /// Recovery point objectives.
    pub rpo: Objectives,
    /// Filters and limits of the exposition.
    pub metrics: Metrics,
    /// Whether newly completed job runs are logged.
    pub run_events: bool,
    /// State file that preserves runs and last known values across restarts.
    pub state_file: Option<PathBuf>,
}

/// Filters and limits of the exposition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Patterns for the names of metrics to exclude from every exposition.
    pub exclude: Vec<Pattern>,
    /// Whether the owner's email address is a label of `elements_customer_info`. Disabled by default, because the
    /// address is personal data.
    pub owner_email: bool,
    /// Maximum number of exposed series; unlimited if `None`.
    pub series_limit: Option<usize>,
}

/// Reads the configuration from a file and from the environment. The environment overrides the file.
///
/// # Errors
///
/// Returns the first problem. The checks run in this order: structure of the file; names, encoding and lists in
/// environment variables; all other values; missing keys.
pub fn load(file: Option<&Path>, environment: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Config, Error> {
    Config::read(&Layers::read(file, environment)?)
}

impl Config {
    /// Returns the files, besides the configuration file, whose changes require a reload.
    pub fn reloaded_files(&self) -> Vec<PathBuf> {
        self.api.ca_file.iter().cloned().collect()
    }

    fn read(layers: &Layers) -> Result<Self, Error> {
        let flag = |path| layers.read_required(path, Field::boolean);
        let patterns = |path| {
            layers
                .read_optional(path, Field::patterns)
                .map(Option::unwrap_or_default)
        };
        // `auth`, the only section with required keys, comes last, so that invalid values are reported before missing
        // keys.
        Ok(Self {
            customers: CustomerFilter {
                include: patterns("customers.include")?,
                exclude: patterns("customers.exclude")?,
                shard: Shard::WHOLE,
            },
            attributes_file: layers.read_optional("customers.attributes_file", Field::path)?,
            plans: collectors::read_plans(layers)?,
            jobs: Jobs::read(layers)?,
            scan_changes_objects: flag("collectors.scan_changes.objects")?,
            licenses: Licenses::read(layers)?,
            consent_products: collectors::read_consent_products(layers)?,
            rpo: rpo::read_objectives(layers)?,
            metrics: Metrics {
                exclude: patterns("metrics.exclude")?,
                owner_email: flag("metrics.owner_email")?,
                series_limit: layers
                    .read_optional("metrics.series_limit", |field| field.whole_number(1..=usize::MAX))?,
            },
            run_events: flag("events.runs")?,
            state_file: layers.read_optional("state.file", Field::path)?,
            api: Api::read(layers)?,
            auth: Auth::read(layers)?,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
