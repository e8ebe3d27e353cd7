//! Sample values for all keys, each with a check that the value takes effect.

use std::path::Path;

use crate::collector::{CollectorId, Plan, ids};
use crate::config::{Config, Credential, keys};
use crate::domain::Gigabyte;
use crate::domain::{Generation, GenerationChoice};
use crate::secret::SecretSource;

pub(crate) type Sample = (&'static str, &'static str, Box<dyn Fn(&Config) -> bool>);

type SectionSample = (&'static str, &'static str, fn(&Config) -> bool);

/// A non-default value for each key, and a check that the value takes effect. [`samples`] adds the keys that every
/// collector has.
const SAMPLES: &[SectionSample] = &[
    ("api.version", "v3", |c| {
        c.api.version == GenerationChoice::Fixed(Generation::V3)
    }),
    ("api.environment", "aos2", |c| c.api.environment.name == "aos2"),
    ("api.base_url", "https://graph-us.example.com", |c| {
        c.api.base_url.as_str() == "https://graph-us.example.com/"
    }),
    ("api.token_url", "https://id.example.com/token", |c| {
        c.api.token_url.as_str() == "https://id.example.com/token"
    }),
    ("api.v1_base_path", "/partner/api/V1.1", |c| {
        c.api.v1_base_path == "/partner/api/V1.1"
    }),
    ("api.proxy_url", "http://proxy:3128", |c| {
        c.api.proxy_url.as_ref().unwrap().expose().as_str() == "http://proxy:3128/"
    }),
    ("api.ca_file", "ca.pem", |c| c.api.ca_file == Some("ca.pem".into())),
    ("api.timeout", "45s", |c| c.api.timeout.as_secs() == 45),
    ("api.requests_per_second", "2.5", |c| c.api.requests_per_second == 2.5),
    ("api.max_concurrency", "3", |c| c.api.max_concurrency == 3),
    ("api.gigabyte", "decimal", |c| c.api.gigabyte == Gigabyte::Decimal),
    ("auth.client_id", "other", |c| c.auth.client_id == "other"),
    ("auth.client_secret", "other", |c| {
        c.auth.credential == Credential::Secret("other".into())
    }),
    ("auth.client_secret_file", "secret", |c| {
        c.auth.credential == Credential::SecretFile("secret".into())
    }),
    ("auth.client_secret_expires", "1970-01-02", |c| {
        c.auth.secret_expires == Some(86_400)
    }),
    (
        "auth.certificate_file",
        "id.pem",
        |c| matches!(&c.auth.credential, Credential::Certificate { file, .. } if file == Path::new("id.pem")),
    ),
    (
        "auth.private_key_file",
        "key.pem",
        |c| matches!(&c.auth.credential, Credential::Certificate { private_key: Some(file), .. } if file == Path::new("key.pem")),
    ),
    ("auth.certificate_password", "pass", |c| {
        matches!(
            &c.auth.credential,
            Credential::Certificate {
                password: Some(SecretSource::Value(_)),
                ..
            }
        )
    }),
    ("auth.certificate_password_file", "pass", |c| {
        matches!(
            &c.auth.credential,
            Credential::Certificate {
                password: Some(SecretSource::File(_)),
                ..
            }
        )
    }),
    ("customers.include", "[Contoso]", |c| c.customers.include.len() == 1),
    ("customers.exclude", "[Contoso]", |c| c.customers.exclude.len() == 1),
    ("customers.attributes_file", "customers.csv", |c| {
        c.attributes_file == Some("customers.csv".into())
    }),
    ("collectors.jobs.job_types", "[7]", |c| c.jobs.job_types == [7]),
    ("collectors.jobs.job_modules", "[Power BI]", |c| {
        c.jobs.job_modules == [310]
    }),
    ("collectors.scan_changes.objects", "true", |c| c.scan_changes_objects),
    ("collectors.app_consent.products", "[Office365Backup]", |c| {
        c.consent_products == ["Office365Backup"]
    }),
    ("rpo.default", "30h", |c| c.rpo.default.as_secs() == 108_000),
    ("rpo.overrides", "[{rpo: none}]", |c| c.rpo.overrides.len() == 1),
    ("rpo.abandoned_after", "30days", |c| {
        c.rpo.abandoned_after.as_secs() == 30 * 86_400
    }),
    ("collectors.licenses.services", "[\"Cloud *\"]", |c| {
        c.licenses.services.len() == 1
    }),
    (
        "collectors.licenses.backup_services",
        "[\"Acme Backup\", \"Other *\"]",
        |c| c.licenses.backup_services.len() == 2,
    ),
    ("metrics.exclude", "[\"elements_scan_*\"]", |c| {
        c.metrics.exclude.len() == 1
    }),
    ("metrics.owner_email", "true", |c| c.metrics.owner_email),
    ("metrics.series_limit", "100000", |c| {
        c.metrics.series_limit == Some(100_000)
    }),
    ("events.runs", "true", |c| c.run_events),
    ("state.file", "state.bin", |c| c.state_file == Some("state.bin".into())),
];

/// Returns the samples of all keys.
pub(crate) fn samples() -> Vec<Sample> {
    let of_sections = SAMPLES.iter().map(|(path, value, took_effect)| -> Sample {
        let took_effect = *took_effect;
        (*path, *value, Box::new(took_effect))
    });
    let of_collectors = ids().flat_map(|collector| {
        let of = |key: &str, value, took_effect: fn(&Plan) -> bool| -> Sample {
            let path = keys::find(&format!("collectors.{}.{key}", collector.name()))
                .unwrap()
                .path;
            let took_effect = move |config: &Config| took_effect(config.plans.get(collector));
            (path, value, Box::new(took_effect))
        };
        // The customer list cannot be disabled, because every other collector needs it.
        let enabled = if collector.descriptor().is_optional || collector == CollectorId::CUSTOMERS {
            of("enabled", "true", |plan| plan.enabled)
        } else {
            of("enabled", "false", |plan| !plan.enabled)
        };
        [
            enabled,
            of("interval", "2m", |plan| plan.interval.as_secs() == 120),
            of("stale_after", "1day", |plan| plan.stale_after.as_secs() == 86_400),
        ]
    });
    of_sections.chain(of_collectors).collect()
}
