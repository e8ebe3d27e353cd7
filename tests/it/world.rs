//! A seeded world: the same truth told by both generations, and the whole text of it.

use std::net::{Ipv4Addr, SocketAddr};

use elements_exporter::simulator::{Clock, Handle, History, Settings, Simulator};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::{OBJECTS, about_customers, config, expect, once, value};

/// Noon of a day in the past, so that no run of the world ends in the future.
const NOON: i64 = 1_760_961_600;

/// A simulated partner that runs as long as this is held.
pub struct Partner {
    pub base: String,
    pub handle: Handle,
    _stop: DropGuard,
}

/// A still world of a seed: its clock stands unless it is advanced.
pub fn still(customers: usize) -> Settings {
    Settings {
        seed: 7,
        customers,
        clock: Clock::Manual(NOON),
        churn: false,
        ..Settings::default()
    }
}

pub async fn start(settings: Settings) -> Partner {
    let simulator = Simulator::bind(settings, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .await
        .unwrap();
    let (base, handle) = (simulator.base_url(), simulator.handle());
    let stop = CancellationToken::new();
    let guard = stop.clone().drop_guard();
    tokio::spawn(simulator.run(stop));
    Partner {
        base,
        handle,
        _stop: guard,
    }
}

async fn told_by(partner: &Partner, generation: &str) -> String {
    let config = config(&partner.base, &[("ELEMENTS_API__VERSION", generation), OBJECTS]);
    let (text, good) = once(&config).await;
    assert!(good, "{text}");
    text
}

/// What both generations can tell. The management mode is known to the second alone; the containers of removed objects,
/// and the name of a module that is not in the reference, to the first alone.
fn common(text: &str) -> Vec<String> {
    let without_mode = |line: &str| match line.split_once("management_mode=\"") {
        Some((before, after)) => {
            let rest = after.split_once('"').map_or("", |(_, rest)| rest);
            format!("{before}management_mode=\"\"{rest}")
        }
        None => line.to_owned(),
    };
    let told_by_both = |line: &&str| {
        let by_one = ["change=\"removed\"", "module=\"Loop Backup\"", "module=\"unknown_399\""];
        !by_one.iter().any(|part| line.contains(part))
    };
    let text = about_customers(text);
    let mut lines: Vec<String> = text.lines().filter(told_by_both).map(without_mode).collect();
    lines.sort();
    lines
}

#[tokio::test]
async fn both_generations_tell_the_same_world() {
    for history in [History::Newest, History::Runs(20)] {
        let partner = start(Settings {
            history,
            v1_page_size: Some(3),
            ..still(40)
        })
        .await;
        let (v1, v3) = (told_by(&partner, "v1").await, told_by(&partner, "v3").await);
        let (v1, v3) = (common(&v1), common(&v3));
        let only_v1: Vec<_> = v1.iter().filter(|line| v3.binary_search(line).is_err()).collect();
        let only_v3: Vec<_> = v3.iter().filter(|line| v1.binary_search(line).is_err()).collect();
        assert!(
            only_v1.is_empty() && only_v3.is_empty(),
            "only v1: {only_v1:#?}\nonly v3: {only_v3:#?}"
        );
    }
}

#[tokio::test]
async fn the_exposition_of_a_known_world() {
    let partner = start(still(3)).await;
    expect("world", &about_customers(&told_by(&partner, "v3").await));
}

#[tokio::test]
async fn every_module_of_the_reference_comes_through() {
    let partner = start(still(40)).await;
    let text = told_by(&partner, "v1").await;
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
        "a module that is not listed is counted"
    );
}

#[tokio::test]
async fn the_api_is_asked_for_v3_where_the_registration_holds_it_and_for_v1_otherwise() {
    let partner = start(still(3)).await;
    once(&config(&partner.base, &[])).await;
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
    let (text, good) = once(&config(&partner.base, &[])).await;
    assert!(good, "{text}");
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
