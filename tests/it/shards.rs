//! Sharding of customers across exporters and scrapes, and target discovery by Prometheus.

use std::collections::BTreeSet;

use serde_json::Value;
use yaml_rust2::YamlLoader;

use crate::harness::client;
use crate::harness::parser;
use crate::harness::partner::{frozen_partner, start};
use crate::harness::program::Program;
use crate::harness::servers::Server;
use crate::harness::{eventually, samples};

const CUSTOMERS: usize = 12;

async fn json(exporter: &Program, path: &str) -> Value {
    serde_json::from_str(&exporter.get(path).await.text().await.unwrap()).unwrap()
}

fn customers(text: &str) -> BTreeSet<String> {
    let infos = samples(text, "elements_customer_info{");
    let ids = infos.lines().filter_map(|line| line.split('"').nth(1));
    ids.map(ToOwned::to_owned).collect()
}

async fn wait_until_polled(exporter: &Program) -> String {
    exporter
        .wait_until("all customers were polled", |text| {
            let pending = samples(text, "elements_exporter_customers{");
            let mut pending = pending.lines().filter(|line| line.contains("pending"));
            !customers(text).is_empty() && pending.all(|line| line.ends_with(" 0"))
        })
        .await
}

#[tokio::test]
async fn discovered_shards_export_every_customer_once() {
    let partner = start(frozen_partner(CUSTOMERS)).await;
    let first = Program::start(&partner.base, &["--shard=0/2"], &[]).await;
    let second = Program::start(&partner.base, &["--shard=1/2"], &[]).await;
    let (first_ids, second_ids) = (
        customers(&wait_until_polled(&first).await),
        customers(&wait_until_polled(&second).await),
    );
    assert!(first_ids.is_disjoint(&second_ids));
    let all_ids: BTreeSet<String> = first_ids.union(&second_ids).cloned().collect();
    assert_eq!(all_ids.len(), CUSTOMERS);

    let directory = tempfile::tempdir().unwrap();
    let job = |name: &str, query: &str| {
        let sources = [&first, &second].map(|exporter| {
            format!(
                "      - url: {}/sd{query}\n        refresh_interval: 1s\n",
                exporter.base
            )
        });
        let sources = sources.concat();
        format!(
            "  - job_name: {name}\n    http_sd_configs:\n{sources}    relabel_configs:\n      - {{source_labels: \
             [__meta_elements_organization], target_label: tenant}}\n"
        )
    };
    let jobs = job("customers", "") + &job("shards", "?shards=3");
    let configuration = format!("global:\n  scrape_interval: 1s\nscrape_configs:\n{jobs}");
    let prometheus = Server::prometheus(directory.path(), &configuration).await;
    let query = async |query: &str| prometheus.series("query", &[("query", query)]).await.unwrap();
    for (name, targets) in [("customers", CUSTOMERS), ("shards", 6)] {
        let up = format!("up{{job=\"{name}\"}} == 1");
        let infos = format!("elements_customer_info{{job=\"{name}\"}}");
        let found = eventually("Prometheus has all customers", || async {
            let up = query(&up).await;
            let infos = query(&infos).await;
            (up.len() == targets && infos.len() >= CUSTOMERS).then_some(infos)
        })
        .await;
        let ids = found.iter().filter_map(|series| series.get("customer_id").cloned());
        let ids: Vec<String> = ids.collect();
        assert_eq!(ids.len(), CUSTOMERS, "{name}: a customer occurs twice");
        assert_eq!(BTreeSet::from_iter(ids), all_ids, "{name}: a customer is missing");
        let tenants = found
            .iter()
            .filter(|series| series.contains_key("tenant") && series.get("tenant") == series.get("organization"));
        assert_eq!(tenants.count(), if name == "customers" { CUSTOMERS } else { 0 });
    }
    // Series without a customer are in the first shard of each exporter.
    let up = query("elements_up{job=\"shards\"}").await;
    assert_eq!(up.len(), 2);
}

#[tokio::test]
async fn shards_add_up_to_the_unfiltered_scrape() {
    let partner = start(frozen_partner(CUSTOMERS)).await;
    let exporter = Program::start(&partner.base, &[], &[]).await;
    wait_until_polled(&exporter).await;
    let shards: Vec<String> = (0..4).map(|shard| format!("shard={shard}/4")).collect();
    let (complete, combined) = stable_series(&exporter, "", &shards).await;
    assert_eq!(combined, complete);
    let mut shards_with_exporter_metrics = 0;
    for shard in &shards {
        let part = scrape(&exporter, shard).await;
        parser::assert_text_format(&part);
        shards_with_exporter_metrics += usize::from(part.contains("elements_up "));
    }
    assert_eq!(shards_with_exporter_metrics, 1);

    let out_of_range = exporter.get("/metrics?shard=4/4").await;
    assert_eq!(out_of_range.status().as_u16(), 200);
    assert_eq!(
        out_of_range.text().await.unwrap(),
        "",
        "a shard out of range must be empty"
    );
    let exporter_only = scrape(&exporter, "collector=exporter").await;
    assert!(exporter_only.contains("elements_up ") && customers(&exporter_only).is_empty());
    assert!(exporter_only.contains("elements_exporter_collector_success{collector=\"customers\",customer_id=\"\"}"));
}

async fn scrape(exporter: &Program, query: &str) -> String {
    exporter.get(&format!("/metrics?{query}")).await.text().await.unwrap()
}

/// Returns the series in a response without their values. Ignores series that may change with every scrape.
fn series(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let mut series: Vec<String> = lines
        .filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned()))
        .filter(|series| !series.contains("request_duration") && !series.starts_with("process_"))
        .collect();
    series.sort();
    series
}

/// Returns the series in one response, and the combined series in several others. Repeats the requests until no series
/// appears or disappears between them.
async fn stable_series(exporter: &Program, complete: &str, parts: &[String]) -> (Vec<String>, Vec<String>) {
    let series_of = async |query: &str| series(&scrape(exporter, query).await);
    eventually(complete, || async {
        let before = series_of(complete).await;
        let mut combined = Vec::new();
        for part in parts {
            combined.extend(series_of(part).await);
        }
        combined.sort();
        (before == series_of(complete).await).then_some((before, combined))
    })
    .await
}

#[tokio::test]
async fn filtered_scrapes_contain_each_series_once() {
    let partner = start(frozen_partner(CUSTOMERS)).await;
    let exporter = Program::start(&partner.base, &[], &[]).await;
    let complete = wait_until_polled(&exporter).await;
    for collectors in [
        "collector=licenses",
        "collector=customers&collector=jobs",
        "collector=exporter",
        "collector=exporter&collector=licenses",
    ] {
        let shards: Vec<String> = (0..3).map(|shard| format!("{collectors}&shard={shard}/3")).collect();
        let (complete, combined) = stable_series(&exporter, collectors, &shards).await;
        assert_eq!(combined, complete, "{collectors}");
    }
    let id = customers(&complete).pop_first().unwrap();
    let uppercase = id.to_uppercase();
    assert_ne!(id, uppercase);
    let repeated_shard = "&shard=0/1000".repeat(400);
    for (query, equivalent) in [
        ("collector=exporter", "collector=exporter&collector=nope".to_owned()),
        (&format!("customer_id={id}"), format!("customer_id={uppercase}")),
        (
            &format!("customer_id={id}"),
            format!("customer_id={id}&customer_id={uppercase}"),
        ),
        (
            &format!("customer_id={id}"),
            format!("customer_id={uppercase}&shard=0/1"),
        ),
        ("shard=0/1000", repeated_shard),
    ] {
        let (series, others) = stable_series(&exporter, query, std::slice::from_ref(&equivalent)).await;
        assert_eq!(others, series, "{equivalent}");
        assert!(!series.is_empty() || query.starts_with("shard"), "{query}");
    }
}

#[tokio::test]
async fn discovered_targets_can_be_scraped() {
    let partner = start(frozen_partner(3)).await;
    let exporter = Program::start(
        &partner.base,
        &["--web.route-prefix=/elements", "--web.telemetry-path=/m"],
        &[],
    )
    .await;
    // For a moment, a new customer may have only an id.
    let groups = eventually("all customers have a country", || async {
        let groups = json(&exporter, "/elements/sd").await;
        let listed = groups.as_array()?;
        let has_country = |group: &Value| group["labels"]["__meta_elements_country"] != "";
        (listed.len() == 3 && listed.iter().all(has_country)).then_some(groups)
    })
    .await;
    for group in groups.as_array().unwrap() {
        let labels = &group["labels"];
        let (address, path) = (
            group["targets"][0].as_str().unwrap(),
            labels["__metrics_path__"].as_str().unwrap(),
        );
        let id = labels["__param_customer_id"].as_str().unwrap();
        assert_eq!(labels["__meta_elements_customer_id"], id);
        assert_ne!(labels["__meta_elements_country"], "");
        let scraped = client()
            .get(format!("http://{address}{path}?customer_id={id}"))
            .send()
            .await
            .unwrap();
        let text = scraped.text().await.unwrap();
        assert_eq!(customers(&text), BTreeSet::from([id.to_owned()]));
    }
    let shards = json(&exporter, "/elements/sd?shards=2").await;
    let shards: Vec<&str> = shards
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|group| group["labels"]["__param_shard"].as_str())
        .collect();
    assert_eq!(shards, ["0/2", "1/2"]);
    assert_eq!(exporter.get("/elements/sd?shards=0").await.status().as_u16(), 400);
}

#[test]
fn stateful_set_gives_each_pod_its_shard() {
    let text = include_str!("../../deploy/kubernetes/sharded/statefulset.yml");
    let documents = YamlLoader::load_from_str(text).unwrap();
    let set = documents
        .iter()
        .find(|document| document["kind"].as_str() == Some("StatefulSet"))
        .unwrap();
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    let environment = container["env"].as_vec().unwrap();
    let variable = |name: &str| {
        environment
            .iter()
            .find(|variable| variable["name"].as_str() == Some(name))
            .unwrap()
    };
    let shards = variable("SHARDS")["value"].as_str().unwrap();
    assert_eq!(set["spec"]["replicas"].as_i64(), shards.parse().ok());
    let field = variable("POD_INDEX")["valueFrom"]["fieldRef"]["fieldPath"].as_str();
    assert_eq!(field, Some("metadata.labels['apps.kubernetes.io/pod-index']"));
    // The program must accept the arguments as Kubernetes expands them.
    let arguments = container["args"]
        .as_vec()
        .unwrap()
        .iter()
        .map(|argument| argument.as_str().unwrap());
    let arguments = arguments.map(|argument| argument.replace("$(POD_INDEX)", "1").replace("$(SHARDS)", shards));
    let parsed =
        elements_exporter::args::parse(std::iter::once("elements_exporter".to_owned()).chain(arguments)).unwrap();
    assert_eq!(parsed.shard.to_string(), format!("1/{shards}"));
}
