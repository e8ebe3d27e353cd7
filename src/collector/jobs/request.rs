//! Requests for all job runs, or for the job runs of the configured types and modules.

use serde_json::value::RawValue;

use crate::api::{Api, Endpoint, Failure, v1, v3};
use crate::collector::CollectorSettings;
use crate::domain::{self, CustomerId};

/// Fetches a customer's job runs, either in one list or in a list for each selected type and module. The rows may
/// include runs that the settings do not select.
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
            let pairs = settings.v1_pairs();
            if pairs.is_empty() {
                return client
                    .fetch_list(Endpoint::Jobs, scope, &["customers", id, "jobs"])
                    .await;
            }
            for (job_type, job_module) in pairs {
                let path = ["customers", id, "jobs", "jobType", job_type, "jobModule", job_module];
                rows.extend(client.fetch_list(Endpoint::Jobs, scope, &path).await?);
            }
        }
        Api::V3(client) => {
            for filter in settings.v3_filters() {
                let list = v3::List {
                    endpoint: Endpoint::Jobs,
                    scope: v3::scope::JOBS,
                    path: &["customers", id, "avpt-products", "jobs", "batch"],
                    filter: Some(&filter),
                    key: None,
                };
                rows.extend(client.fetch_list(list).await?);
            }
        }
    }
    Ok(rows)
}

impl CollectorSettings {
    /// Returns whether the settings select job runs of a service and module, given their current names. A service or
    /// module whose name has no number is selected only if the respective filter is empty.
    pub(in crate::collector) fn selects(&self, service: &str, job_module: &str) -> bool {
        let contains = |selected: &[u16], number_of: fn(&str) -> Option<u16>, name: &str| {
            selected.is_empty() || number_of(name).is_some_and(|number| selected.contains(&number))
        };
        contains(&self.job_types, domain::service_number, service)
            && contains(&self.job_modules, domain::module_number, job_module)
    }

    /// Returns the type and module of each v1 request, whose path contains both. Returns no pairs if only types are
    /// configured, if a module's type is unknown, or if a type or module has no v1 name. The whole list is then fetched
    /// and filtered.
    fn v1_pairs(&self) -> Vec<(&'static str, &'static str)> {
        let mut pairs = Vec::new();
        for job_module in self.job_modules.iter().copied() {
            let types = match domain::service_of_module(job_module) {
                Some(job_type) => vec![job_type],
                None if self.job_types.is_empty() => return Vec::new(),
                None => self.job_types.clone(),
            };
            for job_type in types {
                if !self.job_types.is_empty() && !self.job_types.contains(&job_type) {
                    continue;
                }
                match (domain::v1_service_word(job_type), domain::v1_module_word(job_module)) {
                    (Some(job_type), Some(job_module)) => pairs.push((job_type, job_module)),
                    _ => return Vec::new(),
                }
            }
        }
        pairs
    }

    /// Returns the bodies of the v3 requests.
    fn v3_filters(&self) -> Vec<String> {
        let each_or_all = |numbers: &[u16]| match numbers {
            [] => vec![None],
            numbers => numbers.iter().copied().map(Some).collect(),
        };
        let modules = each_or_all(&self.job_modules);
        let mut filters = Vec::new();
        for job_type in each_or_all(&self.job_types) {
            for job_module in modules.iter().copied() {
                let type_of_module = job_module.and_then(domain::service_of_module);
                if job_type.is_some() && type_of_module.is_some() && type_of_module != job_type {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(job_modules: &[u16]) -> CollectorSettings {
        CollectorSettings {
            job_modules: job_modules.to_vec(),
            ..CollectorSettings::default()
        }
    }

    #[test]
    fn v1_fetches_the_whole_list_for_a_module_of_unknown_type() {
        assert_eq!(settings(&[303]).v1_pairs().len(), 1);
        assert!(settings(&[303, 399]).v1_pairs().is_empty());
    }

    #[test]
    fn unlisted_module_is_selected_by_its_number() {
        assert!(settings(&[399]).selects("Microsoft 365", "unknown_399"));
        assert!(!settings(&[399]).selects("Microsoft 365", "Exchange Online"));
    }
}
