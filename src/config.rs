//! The configuration: defaults, under the YAML file, under the environment.
//!
//! [`load`] lays the layers over each other and lets only parsed types out: past this module no setting is read as text. A key
//! that nobody knows is refused, since a mistyped one would silently leave a default in force. [`KEYS`] is the one place that
//! knows the keys. The process environment is passed in, never asked for, so that tests need not change it.

mod api;
mod auth;
mod collectors;
mod customers;
mod error;
mod keys;
mod layers;
mod pattern;
mod rpo;
mod setting;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub use self::api::{
    Api, DEFAULT_MAX_CONCURRENCY, DEFAULT_REQUESTS_PER_SECOND, DEFAULT_TIMEOUT, DEFAULT_V1_BASE_PATH, Environment,
    LONGEST_TIMEOUT, MOST_CONCURRENCY, MOST_REQUESTS_PER_SECOND, ProxyUrl, Version,
};
pub use self::auth::{Auth, Credential, Password};
pub use self::collectors::{Collector, Collectors, DEFAULT_STALE_INTERVALS, Jobs, LONGEST_INTERVAL};
pub use self::customers::Customers;
pub use self::error::{Error, Origin};
pub use self::keys::{KEYS, Key, PREFIX, Preset, reference};
use self::layers::Settings;
pub use self::pattern::{NumberedPattern, Pattern};
pub use self::rpo::{DEFAULT_RPO, Override, Rpo};
use self::setting::Setting;
use crate::domain::Shard;

/// How the process ends on a bad configuration: `EX_CONFIG` of `sysexits.h`.
pub const EXIT_CODE: u8 = 78;

/// Everything that can be configured.
///
/// Its parts can be compared, so that a reload can tell what changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where the API is and how hard it may be asked.
    pub api: Api,
    /// Who the exporter is and how it proves it.
    pub auth: Auth,
    /// Which customers are watched.
    pub customers: Customers,
    /// What is polled, and how often.
    pub collectors: Collectors,
    /// Which jobs are asked for.
    pub jobs: Jobs,
    /// Whether changed objects are counted per container, too.
    pub scan_changes_objects: bool,
    /// How old the newest restore point of a module may be.
    pub rpo: Rpo,
    /// What is exposed.
    pub metrics: Metrics,
    /// Where runs and last values are remembered across restarts.
    pub state_file: Option<PathBuf>,
    /// The share of the customers that is watched. It is the one thing that differs between exporters that share one
    /// configuration, so it comes from a flag and not from here.
    pub shard: Shard,
}

/// What is exposed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Whether the owner's address is a label of `elements_customer_info`. It is personal data, hence not by default.
    pub owner_email: bool,
    /// How many series to expose at most; no limit where `None`.
    pub series_limit: Option<usize>,
}

/// How the API's names of services and modules become its numbers; `None` for a name that it does not have.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// The number of a service, which the API calls a job type.
    pub service: fn(&str) -> Option<u16>,
    /// The number of a job module.
    pub module: fn(&str) -> Option<u16>,
}

/// Reads the configuration from a file and from an environment that overrides it.
///
/// # Errors
///
/// The first problem found: in the shape of the file, then in the names of the environment, then in the values of either, last
/// in what is missing.
pub fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    names: Names,
) -> Result<Config, Error> {
    Config::read(&Settings::collect(file, environment)?, names).map_err(|error| error.of(file))
}

impl Config {
    fn read(settings: &Settings, names: Names) -> Result<Self, Error> {
        let flag = |path| settings.read(path, Setting::boolean).map(Option::unwrap_or_default);
        // The sections with required keys come last: what is missing is told after what is wrong.
        Ok(Self {
            customers: Customers::read(settings)?,
            collectors: Collectors::read(settings)?,
            jobs: Jobs::read(settings, names)?,
            scan_changes_objects: flag("collectors.scan_changes.objects")?,
            rpo: Rpo::read(settings, names)?,
            metrics: Metrics {
                owner_email: flag("metrics.owner_email")?,
                series_limit: settings.read("metrics.series_limit", |setting| setting.whole_number(1..=usize::MAX))?,
            },
            state_file: settings.read("state.file", Setting::path)?,
            shard: Shard::WHOLE,
            api: Api::read(settings)?,
            auth: Auth::read(settings)?,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
