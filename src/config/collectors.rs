//! The section `collectors`: schedules and filters of the collectors.

use super::api::read_version;
use super::keys::LONGEST_INTERVAL;
use super::layers::Layers;
use crate::collector::{CollectorId, PerCollector, Plan};
use crate::domain::{self, Generation, GenerationChoice, Pattern};
use crate::settings::{Error, Field, MAX_DURATION, MIN_DURATION};

/// Default `stale_after`, as a multiple of the interval. With this default, values are still served after two failed
/// polls.
pub(crate) const DEFAULT_STALE_INTERVALS: u32 = 3;

pub(super) fn read_plans(layers: &Layers) -> Result<PerCollector<Plan>, Error> {
    let mut plans = PerCollector::from_fn(|_| Plan::OFF);
    for (collector, plan) in plans.iter_mut() {
        *plan = read_plan(layers, collector)?;
    }
    Ok(plans)
}

fn read_plan(layers: &Layers, collector: CollectorId) -> Result<Plan, Error> {
    let (descriptor, name) = (collector.descriptor(), collector.name());
    let key = |key: &str| format!("collectors.{name}.{key}");
    let interval = layers.read_required(&key("interval"), |field| {
        field.duration(MIN_DURATION..=LONGEST_INTERVAL)
    })?;
    let stale_after = layers
        .read_optional(&key("stale_after"), |field| field.duration(MIN_DURATION..=MAX_DURATION))?
        .unwrap_or_else(|| interval.saturating_mul(DEFAULT_STALE_INTERVALS));
    let enabled = layers.read_required(&key("enabled"), |field| match field.boolean()? {
        false if collector == CollectorId::CUSTOMERS => {
            Err(field.invalid("disables a collector that every other collector needs; expected true"))
        }
        true if descriptor.is_optional && read_version(layers)? == GenerationChoice::Fixed(Generation::V1) => {
            Err(field.invalid("requires API v3; expected false, or api.version: v3 or auto"))
        }
        enabled => Ok(enabled),
    })?;
    if let Some(prerequisite) = descriptor.after().filter(|_| enabled) {
        layers.read_required(
            &format!("collectors.{}.enabled", prerequisite.name()),
            |field| match field.boolean()? {
                true => Ok(()),
                false => Err(field.invalid(format!(
                    "disables a collector that collectors.{name} needs; expected true"
                ))),
            },
        )?;
    }
    Ok(Plan {
        enabled,
        interval,
        stale_after,
    })
}

/// Job filters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Jobs {
    /// Numbers of the services whose job runs are collected; all if empty. In the API, services are called job types.
    pub job_types: Vec<u16>,
    /// Numbers of the modules whose job runs are collected; all if empty.
    pub job_modules: Vec<u16>,
}

impl Jobs {
    pub(super) fn read(layers: &Layers) -> Result<Self, Error> {
        let numbers = |path: &str, number_of: fn(&str) -> Option<u16>, kind: &str| {
            layers
                .read_optional(path, |field| read_numbers(field, number_of, kind))
                .map(Option::unwrap_or_default)
        };
        Ok(Self {
            job_types: numbers("collectors.jobs.job_types", domain::service_number, "service")?,
            job_modules: numbers("collectors.jobs.job_modules", domain::module_number, "module")?,
        })
    }
}

/// Licence filters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Licenses {
    /// Products whose licences are collected; all if empty.
    pub services: Vec<Pattern>,
    /// Products that count as backup licences in alerts and dashboards.
    pub backup_services: Vec<Pattern>,
}

impl Licenses {
    pub(super) fn read(layers: &Layers) -> Result<Self, Error> {
        Ok(Self {
            services: layers
                .read_optional("collectors.licenses.services", Field::patterns)?
                .unwrap_or_default(),
            backup_services: layers.read_required("collectors.licenses.backup_services", Field::patterns)?,
        })
    }
}

/// Maximum number of products whose app consent is polled. Each product takes one request per tenant.
const MAX_CONSENT_PRODUCTS: usize = 32;

pub(super) fn read_consent_products(layers: &Layers) -> Result<Vec<String>, Error> {
    layers.read_required("collectors.app_consent.products", |field| {
        let mut products: Vec<String> = Vec::new();
        for item in field.items()? {
            let product = item.text()?;
            if product.chars().count() > domain::MAX_TEXT_CHARS || matches!(product, "." | "..") {
                return Err(item.invalid("is not a product name; expected a name such as Office365Backup"));
            }
            if !products.iter().any(|known| known == product) {
                products.push(product.to_owned());
            }
        }
        if products.is_empty() || products.len() > MAX_CONSENT_PRODUCTS {
            return Err(field.error(format!(
                "has {} products; expected 1 to {MAX_CONSENT_PRODUCTS}",
                products.len()
            )));
        }
        Ok(products)
    })
}

/// Converts a list of names and numbers to numbers. Removes duplicates and keeps the order of the list.
fn read_numbers(field: &Field<'_>, number_of: fn(&str) -> Option<u16>, kind: &str) -> Result<Vec<u16>, Error> {
    let mut numbers = Vec::new();
    for item in field.items()? {
        let number = number_of(item.text()?)
            .ok_or_else(|| item.invalid(format!("is not a {kind}; expected the name or number of a {kind}")))?;
        if !numbers.contains(&number) {
            numbers.push(number);
        }
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Config;
    use crate::config::tests::{config_with, from_file, message};

    fn config(collectors: &str) -> Config {
        config_with(&format!("collectors: {collectors}"))
    }

    #[test]
    fn staleness_follows_the_interval() {
        let config = config("{jobs: {interval: 10m}, licenses: {stale_after: 1day, enabled: false}}");
        assert_eq!(
            *config.plans.get(CollectorId::JOBS),
            Plan {
                enabled: true,
                interval: Duration::from_secs(600),
                stale_after: Duration::from_secs(1800),
            }
        );
        assert_eq!(
            *config.plans.get(CollectorId::LICENSES),
            Plan {
                enabled: false,
                interval: Duration::from_secs(3600),
                stale_after: Duration::from_secs(86_400),
            }
        );
    }

    #[test]
    fn intervals_have_limits() {
        for text in ["0s", "500ms", "31days"] {
            assert_eq!(
                message(from_file(&format!("collectors: {{protected: {{interval: {text}}}}}"))),
                format!(
                    "elements.yml:1: collectors.protected.interval: \"{text}\" is out of range; expected a duration from 1s to 30days"
                )
            );
        }
    }

    #[test]
    fn jobs_are_selected_by_name_or_number() {
        let config = config("{jobs: {job_types: [Microsoft 365, 7, 99], job_modules: [303, Exchange Online, 302]}}");
        assert_eq!(config.jobs.job_types, [7, 99]);
        assert_eq!(config.jobs.job_modules, [303, 302]);
        assert_eq!(
            message(from_file("collectors: {jobs: {job_types: [7, Post]}}")),
            "elements.yml:1: collectors.jobs.job_types[1]: \"Post\" is not a service; expected the name or number of a service"
        );
    }
}
