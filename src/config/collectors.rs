//! The section `collectors`: what is polled, how often, and how long it counts.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Names;
use super::error::Error;
use super::layers::Settings;
use super::pattern;
use super::setting::{LONGEST, SHORTEST, Setting};
use crate::collector;

/// The longest interval that can be configured, 30 days: what is asked for less often is not watched.
pub const LONGEST_INTERVAL: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How many intervals values outlive the last good poll by default: two polls may fail, as polls do, before anything disappears.
pub const DEFAULT_STALE_INTERVALS: u32 = 3;

/// What one collector does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Collector {
    /// Whether it runs.
    pub enabled: bool,
    /// How often it polls; 1 s to 30 days.
    pub interval: Duration,
    /// How long values outlive the last good poll; no shorter than the interval.
    pub stale_after: Duration,
}

/// What every collector does, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collectors(BTreeMap<&'static str, Collector>);

impl Collectors {
    pub(super) fn read(settings: &Settings) -> Result<Self, Error> {
        collector::ALL
            .iter()
            .map(|entry| Ok((entry.name, Collector::read(settings, entry.name, entry.interval)?)))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// What the collector of this name does; `None` for a name that is not in [`collector::ALL`].
    pub fn get(&self, name: &str) -> Option<&Collector> {
        self.0.get(name)
    }

    /// Every collector by name, in alphabetical order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Collector)> {
        self.0.iter().map(|(name, collector)| (*name, collector))
    }
}

impl Collector {
    fn read(settings: &Settings, name: &str, default: Duration) -> Result<Self, Error> {
        let key = |key: &str| format!("collectors.{name}.{key}");
        let interval = settings
            .read(&key("interval"), |setting| {
                setting.duration(SHORTEST..=LONGEST_INTERVAL)
            })?
            .unwrap_or(default);
        let stale_after = settings
            .read(&key("stale_after"), |setting| setting.duration(SHORTEST..=LONGEST))?
            .unwrap_or_else(|| interval.saturating_mul(DEFAULT_STALE_INTERVALS));
        let enabled = settings.read(&key("enabled"), |setting| match setting.boolean()? {
            false if name == collector::CUSTOMERS => Err(setting.invalid(
                "would leave nothing to ask about; expected true, since every other collector stands on this one",
            )),
            enabled => Ok(enabled),
        })?;
        Ok(Self {
            enabled: enabled.unwrap_or(true),
            interval,
            stale_after,
        })
    }
}

/// Which jobs are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Jobs {
    /// The numbers of the job types; all where this is empty.
    pub job_types: Vec<u16>,
    /// The numbers of the job modules; all where this is empty.
    pub job_modules: Vec<u16>,
}

impl Jobs {
    pub(super) fn read(settings: &Settings, names: Names) -> Result<Self, Error> {
        let numbers = |path: &str, number_of: fn(&str) -> Option<u16>, kind: &str| {
            settings
                .read(path, |setting| numbers(setting, number_of, kind))
                .map(Option::unwrap_or_default)
        };
        Ok(Self {
            job_types: numbers("collectors.jobs.job_types", names.service, "service")?,
            job_modules: numbers("collectors.jobs.job_modules", names.module, "module")?,
        })
    }
}

/// The numbers of a list of names and numbers, each once, in the order of the list.
fn numbers(setting: &Setting, number_of: fn(&str) -> Option<u16>, kind: &str) -> Result<Vec<u16>, Error> {
    let mut numbers = Vec::new();
    for item in setting.list()? {
        let number = pattern::number(&item.word()?, number_of).ok_or_else(|| {
            item.invalid(format!(
                "is not a {kind}; expected one of the API's names or numbers of {kind}s"
            ))
        })?;
        if !numbers.contains(&number) {
            numbers.push(number);
        }
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::config::Config;
    use crate::config::tests::{from_file, message};

    fn config(collectors: &str) -> Config {
        from_file(&format!(
            "auth: {{client_id: demo, client_secret: x}}\ncollectors: {collectors}"
        ))
        .unwrap()
    }

    #[test]
    fn staleness_follows_the_interval() {
        let config = config("{jobs: {interval: 10m}, licenses: {stale_after: 1day, enabled: false}}");
        assert_eq!(
            *config.collectors.get("jobs").unwrap(),
            Collector {
                enabled: true,
                interval: Duration::from_secs(600),
                stale_after: Duration::from_secs(1800),
            }
        );
        assert_eq!(
            *config.collectors.get("licenses").unwrap(),
            Collector {
                enabled: false,
                interval: Duration::from_secs(3600),
                stale_after: Duration::from_secs(86_400),
            }
        );
        assert_eq!(config.collectors.get("job"), None);
        assert_eq!(config.collectors.iter().count(), collector::ALL.len());
    }

    #[test]
    fn intervals_have_bounds() {
        for text in ["0s", "500ms", "31days"] {
            assert_eq!(
                message(from_file(&format!("collectors: {{protected: {{interval: {text}}}}}"))),
                format!(
                    "elements.yml: collectors.protected.interval: \"{text}\" is out of range; expected a duration from 1s to 30days"
                )
            );
        }
    }

    #[test]
    fn jobs_go_by_name_or_number() {
        let config = config("{jobs: {job_types: [Microsoft 365, 7, 99], job_modules: [303, Exchange Online, 302]}}");
        assert_eq!(config.jobs.job_types, [7, 99]);
        assert_eq!(config.jobs.job_modules, [303, 302]);
        assert_eq!(
            message(from_file("collectors: {jobs: {job_types: [7, Post]}}")),
            "elements.yml: collectors.jobs.job_types[1]: \"Post\" is not a service; expected one of the API's names or numbers of services"
        );
    }
}
