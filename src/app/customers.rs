//! The command `customers`: prints the customers with their attributes and modules as a table or CSV.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use tokio_util::sync::CancellationToken;

use super::{Error, Parts};
use crate::collector::{CollectorId, Context, RecordSource as _};
use crate::config::Config;
use crate::domain::{NO_MODULE, PerAttribute, Timestamp, is_misleading};
use crate::scrape::KnownCustomer;

/// Columns of the listing. `customers.attributes_file` accepts all of them.
const COLUMNS: [&str; 7] = ["id", "organization", "country", "tier", "region", "team", "modules"];

/// Leading characters that make spreadsheets execute a cell as a formula. Customer names are untrusted input.
const FORMULA_PREFIXES: [char; 4] = ['=', '+', '-', '@'];

/// Rows of customers, sorted by organization.
#[derive(Debug)]
pub struct CustomerListing(Vec<[String; COLUMNS.len()]>);

/// Polls the customers and their jobs once. Returns the customers, and whether the polls succeeded. A missing
/// permission does not count as a failure.
///
/// # Errors
/// Returns an error if the configuration is invalid.
pub async fn customers(mut config: Config, stop: CancellationToken) -> Result<(CustomerListing, bool), Error> {
    for (collector, plan) in config.plans.iter_mut() {
        plan.enabled &= [CollectorId::CUSTOMERS, CollectorId::JOBS].contains(&collector);
    }
    let parts = Parts::new(&config)?;
    let all_succeeded = parts.poll_once(stop).await;
    Ok((CustomerListing::of(&parts), all_succeeded))
}

impl CustomerListing {
    fn of(parts: &Parts) -> Self {
        let mut customers = parts.scrape.customers();
        customers.sort_by_cached_key(|customer| (customer.organization.to_lowercase(), customer.id.clone()));
        Self(customers.iter().map(|customer| row(customer, parts)).collect())
    }

    /// Returns the customers as CSV with a header.
    pub fn csv(&self) -> String {
        let mut writer = csv::Writer::from_writer(Vec::new());
        // Writing to memory cannot fail, and all rows have the same length.
        let _ = writer.write_record(COLUMNS);
        for [id, organization, country, attributes @ .., modules] in &self.0 {
            let [organization, country] = [organization, country].map(|text| escape_formula(text));
            let cells = [id, &organization, &country].into_iter().chain(attributes);
            let _ = writer.write_record(cells.chain([modules]));
        }
        let text = writer.into_inner().unwrap_or_default();
        String::from_utf8(text).unwrap_or_default()
    }

    /// Returns the customers as a table with aligned columns.
    pub fn table(&self) -> String {
        let head = COLUMNS.map(str::to_owned);
        let rows = || std::iter::once(&head).chain(&self.0);
        let mut widths = [0; COLUMNS.len()];
        for row in rows() {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        let mut text = String::new();
        for row in rows() {
            let cells: Vec<String> = row
                .iter()
                .zip(widths)
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect();
            text.push_str(cells.join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

fn row(customer: &KnownCustomer, parts: &Parts) -> [String; COLUMNS.len()] {
    let record = parts.store.record(CollectorId::JOBS, &customer.id);
    let organization: Arc<str> = Arc::from(customer.organization.as_str());
    let settings = Arc::clone(&parts.schedule_config.settings);
    let context = Context::new(Timestamp::from(SystemTime::now()), settings, organization);
    let modules = record.map_or_else(Vec::new, |record| {
        CollectorId::JOBS.descriptor().modules(&*record, &customer.id, &context)
    });
    let modules: BTreeSet<String> = modules
        .iter()
        .map(|module| match &*module.key.module {
            NO_MODULE => module.key.service.to_string(),
            name => format!("{} / {name}", module.key.service),
        })
        .collect();
    let modules = modules.into_iter().collect::<Vec<_>>().join("; ");
    let PerAttribute { tier, region, team } = customer.attributes.values().map(Option::unwrap_or_default);
    let texts = [
        customer.id.as_str(),
        &customer.organization,
        &customer.country,
        tier,
        region,
        team,
        &modules,
    ];
    texts.map(|text| text.replace(is_misleading, " "))
}

/// Escapes a cell so that spreadsheets do not execute it.
fn escape_formula(text: &str) -> String {
    match text.starts_with(FORMULA_PREFIXES) {
        true => format!("'{text}"),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing() -> CustomerListing {
        let row = |cells: [&str; 7]| cells.map(str::to_owned);
        CustomerListing(vec![
            row([
                "c-1",
                "=cmd",
                "DE",
                "gold",
                "",
                "North",
                "Microsoft 365 / OneDrive; Salesforce",
            ]),
            row(["c-2", "Müller, \"A\"", "", "", "", "", ""]),
        ])
    }

    #[test]
    fn csv_cells_are_quoted_and_contain_no_formulas() {
        assert_eq!(
            listing().csv(),
            "id,organization,country,tier,region,team,modules\n\
             c-1,'=cmd,DE,gold,,North,Microsoft 365 / OneDrive; Salesforce\n\
             c-2,\"Müller, \"\"A\"\"\",,,,,\n"
        );
    }

    #[test]
    fn table_columns_fit_their_content() {
        assert_eq!(
            listing().table(),
            "id   organization  country  tier  region  team   modules\n\
             c-1  =cmd          DE       gold          North  Microsoft 365 / OneDrive; Salesforce\n\
             c-2  Müller, \"A\"\n"
        );
    }
}
