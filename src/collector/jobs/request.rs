//! Requested jobs: all, or those of the configured types and modules.

use serde_json::value::RawValue;

use crate::api::{Api, Endpoint, Failure, v1, v3};
use crate::collector::CollectorSettings;
use crate::domain::{self, CustomerId};

/// Requests the jobs that the settings select: all in one list, or one list per selected type and module.
pub(super) async fn fetch_rows(
    api: &Api,
    customer: &CustomerId,
    settings: &CollectorSettings,
) -> Result<Vec<Box<RawValue>>, Failure> {
    let id = customer.as_str();
    let mut rows = Vec::new();
    match api {
        Api::V1(client) => {
            let scope = v1::scope::JOBS;
            let pairs = settings.first_generation_pairs();
            if pairs.is_empty() {
                return client.list(Endpoint::Jobs, scope, &["customers", id, "jobs"]).await;
            }
            for (job_type, job_module) in pairs {
                let path = ["customers", id, "jobs", "jobType", job_type, "jobModule", job_module];
                rows.extend(client.list(Endpoint::Jobs, scope, &path).await?);
            }
        }
        Api::V3(client) => {
            for filter in settings.second_generation_filters() {
                let list = v3::List {
                    endpoint: Endpoint::Jobs,
                    scope: v3::scope::JOBS,
                    path: &["customers", id, "avpt-products", "jobs", "batch"],
                    filter: Some(&filter),
                    key: None,
                };
                rows.extend(client.list(list).await?);
            }
        }
    }
    Ok(rows)
}

impl CollectorSettings {
    /// Returns whether the settings select jobs of this service and module, by their current names. A name without a
    /// number is selected only if nothing is configured.
    pub(in crate::collector) fn wants(&self, service: &str, job_module: &str) -> bool {
        let admits = |wanted: &[u16], number: fn(&str) -> Option<u16>, name: &str| {
            wanted.is_empty() || number(name).is_some_and(|number| wanted.contains(&number))
        };
        admits(&self.job_types, domain::service_number, service)
            && admits(&self.job_modules, domain::module_number, job_module)
    }

    /// Returns the names of the type and module of each request in the first generation. Its path needs both. If only
    /// types are configured, or the type of a module is ambiguous, the whole list is requested and filtered instead.
    fn first_generation_pairs(&self) -> Vec<(&'static str, &'static str)> {
        let mut pairs = Vec::new();
        for job_module in self.job_modules.iter().copied() {
            let types = match domain::service_of_module(job_module) {
                Some(job_type) => vec![job_type],
                None => self.job_types.clone(),
            };
            for job_type in types {
                if !self.job_types.is_empty() && !self.job_types.contains(&job_type) {
                    continue;
                }
                match (
                    domain::first_generation_service(job_type),
                    domain::first_generation_module(job_module),
                ) {
                    (Some(job_type), Some(job_module)) => pairs.push((job_type, job_module)),
                    _ => return Vec::new(),
                }
            }
        }
        pairs
    }

    /// Returns the bodies of the requests in the second generation.
    fn second_generation_filters(&self) -> Vec<String> {
        let some_or_any = |numbers: &[u16]| match numbers {
            [] => vec![None],
            numbers => numbers.iter().copied().map(Some).collect(),
        };
        let modules = some_or_any(&self.job_modules);
        let mut filters = Vec::new();
        for job_type in some_or_any(&self.job_types) {
            for job_module in modules.iter().copied() {
                let home = job_module.and_then(domain::service_of_module);
                if job_type.is_some() && home.is_some() && home != job_type {
                    continue;
                }
                let mut filter = serde_json::Map::new();
                filter.extend(job_type.map(|number| ("jobType".to_owned(), number.into())));
                filter.extend(job_module.map(|number| ("jobModule".to_owned(), number.into())));
                filters.push(serde_json::Value::Object(filter).to_string());
            }
        }
        filters
    }
}
