//! One seeded world in both API versions, and its complete exposition.

use elements_exporter::simulator::{History, Settings};

use crate::harness::partner::{Partner, frozen_partner, start};
use crate::harness::{OBJECTS, about_customers, assert_expected, config, poll_once_validated, value};

async fn exposition_of(partner: &Partner, generation: &str) -> String {
    let config = config(&partner.base, &[("ELEMENTS_API__VERSION", generation), OBJECTS]);
    let (text, succeeded) = poll_once_validated(&config).await;
    assert!(succeeded, "{text}");
    text
}

fn without_label_value(line: &str, label: &str) -> String {
    match line.split_once(&format!("{label}=\"")) {
        Some((before, after)) => {
            let rest = after.split_once('"').map_or("", |(_, rest)| rest);
            format!("{before}{label}=\"\"{rest}")
        }
        None => line.to_owned(),
    }
}

/// Returns the lines that both API versions have in common. Only API v3 provides the management mode, the names of
/// tenants, an empty list of tenants, and protected data by tenant. Only API v1 provides the containers of removed
/// objects, and the name of a module that is not in the reference.
fn common(text: &str, by_tenant: &[String]) -> Vec<String> {
    let without_names = |line: &str| without_label_value(&without_label_value(line, "management_mode"), "tenant_name");
    let is_in_both_versions = |line: &&str| {
        let in_one_version = ["change=\"removed\"", "module=\"Loop Backup\"", "module=\"unknown_399\""];
        let is_by_tenant =
            line.starts_with("elements_protected_") && by_tenant.iter().any(|id| line.contains(id.as_str()));
        let has_no_tenant = line.starts_with("elements_customer_tenants{") && line.ends_with(" 0");
        !is_by_tenant && !has_no_tenant && !in_one_version.iter().any(|part| line.contains(part))
    };
    let text = about_customers(text);
    let mut lines: Vec<String> = text.lines().filter(is_in_both_versions).map(without_names).collect();
    lines.sort();
    lines
}

fn customers_by_tenant(partner: &Partner) -> Vec<String> {
    partner.handle.with_world(|world| {
        let customers = world.customers.iter();
        let matching = customers.filter(|customer| customer.protected.iter().any(|row| row.tenant_id.is_some()));
        matching.map(|customer| customer.id.clone()).collect()
    })
}

#[tokio::test]
async fn both_api_versions_expose_the_same_world() {
    for (history, hostile) in [
        (History::Newest, true),
        (History::Runs(20), true),
        (History::Newest, false),
    ] {
        let partner = start(Settings {
            history,
            hostile,
            v1_page_size: Some(3),
            ..frozen_partner(40)
        })
        .await;
        let (v1, v3) = (exposition_of(&partner, "v1").await, exposition_of(&partner, "v3").await);
        let by_tenant = customers_by_tenant(&partner);
        let (v1, v3) = (common(&v1, &by_tenant), common(&v3, &by_tenant));
        let only_v1: Vec<_> = v1.iter().filter(|line| v3.binary_search(line).is_err()).collect();
        let only_v3: Vec<_> = v3.iter().filter(|line| v1.binary_search(line).is_err()).collect();
        assert!(
            only_v1.is_empty() && only_v3.is_empty(),
            "only v1: {only_v1:#?}\nonly v3: {only_v3:#?}"
        );
    }
}

#[tokio::test]
async fn exposition_of_a_seeded_world_is_unchanged() {
    let partner = start(frozen_partner(3)).await;
    assert_expected("world", &about_customers(&exposition_of(&partner, "v3").await));
}

#[tokio::test]
async fn modules_in_the_reference_are_exposed() {
    let partner = start(frozen_partner(40)).await;
    let text = exposition_of(&partner, "v1").await;
    for module in [
        "Exchange Online",
        "Amazon EC2",
        "Viva Engage",
        "Shared Drives",
        "Dynamics CRM Backup",
    ] {
        assert!(text.contains(&format!("module=\"{module}\"")), "{module}");
    }
    let unknown = "elements_exporter_unknown_values_total{endpoint=\"jobs\",field=\"jobModule\"}";
    assert!(
        value(&text, unknown).is_some_and(|count| count > 0.0),
        "an unlisted module must be counted"
    );
}

#[tokio::test]
async fn api_version_follows_the_registration() {
    let partner = start(frozen_partner(3)).await;
    poll_once_validated(&config(&partner.base, &[])).await;
    assert!(
        partner
            .handle
            .requests()
            .iter()
            .any(|request| request.path.contains("/external/v3/"))
    );
    let first: Vec<String> = ["customers", "license", "jobs", "cbprotected", "scanprofiles"]
        .map(|name| format!("partner.{name}.read.all"))
        .into();
    partner.handle.set_scopes(first);
    partner.handle.clear_requests();
    let (text, succeeded) = poll_once_validated(&config(&partner.base, &[])).await;
    assert!(succeeded, "{text}");
    assert!(
        partner
            .handle
            .requests()
            .iter()
            .any(|request| request.path == "/partner/customers")
    );
    assert!(
        !partner
            .handle
            .requests()
            .iter()
            .any(|request| request.path.contains("/external/v3/"))
    );
}
