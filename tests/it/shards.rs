//! More than one: exporters that share the customers, and a Prometheus that discovers what to scrape of whom.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use yaml_rust2::YamlLoader;

use crate::faults::client;
use crate::parser;
use crate::program::Program;
use crate::support::{eventually, samples};
use crate::world::{start, still};

const CUSTOMERS: usize = 12;

/// A Prometheus server, which ends with this value.
struct Prometheus {
    child: Child,
    base: String,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    /// Starts the one that promtool came with.
    fn start(directory: &Path, scrape_configs: &str) -> Self {
        let config = directory.join("prometheus.yml");
        std::fs::write(
            &config,
            format!("global:\n  scrape_interval: 1s\nscrape_configs:\n{scrape_configs}"),
        )
        .unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let program = PathBuf::from(parser::promtool()).with_file_name("prometheus");
        let child = Command::new(program)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", directory.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=error")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            child,
            base: format!("http://{address}/api/v1/query"),
        }
    }

    /// The series that a query gives now, each with its value; `None` while there is no answer.
    async fn query(&self, query: &str) -> Option<Vec<(Value, String)>> {
        let mut url = url::Url::parse(&self.base).unwrap();
        url.query_pairs_mut().append_pair("query", query);
        let answer = client().get(url).send().await.ok()?.text().await.ok()?;
        let answer: Value = serde_json::from_str(&answer).ok()?;
        let series = answer["data"]["result"].as_array()?;
        let value = |series: &Value| series["value"][1].as_str().unwrap_or_default().to_owned();
        Some(
            series
                .iter()
                .map(|series| (series["metric"].clone(), value(series)))
                .collect(),
        )
    }
}

async fn json(exporter: &Program, path: &str) -> Value {
    serde_json::from_str(&exporter.get(path).await.text().await.unwrap()).unwrap()
}

fn customers(text: &str) -> BTreeSet<String> {
    let infos = samples(text, "elements_customer_info{");
    let ids = infos.lines().filter_map(|line| line.split('"').nth(1));
    ids.map(ToOwned::to_owned).collect()
}

async fn all_asked(exporter: &Program) -> String {
    exporter
        .until("everybody was asked about", |text| {
            let pending = samples(text, "elements_exporter_customers{");
            let mut pending = pending.lines().filter(|line| line.contains("pending"));
            !customers(text).is_empty() && pending.all(|line| line.ends_with(" 0"))
        })
        .await
}

#[tokio::test]
async fn two_exporters_and_a_prometheus_that_discovers_them_have_every_customer_once() {
    let partner = start(still(CUSTOMERS)).await;
    let first = Program::start(&partner.base, &["--shard=0/2"], &[]).await;
    let second = Program::start(&partner.base, &["--shard=1/2"], &[]).await;
    let (of_first, of_second) = (
        customers(&all_asked(&first).await),
        customers(&all_asked(&second).await),
    );
    assert!(of_first.is_disjoint(&of_second));
    let everybody: BTreeSet<String> = of_first.union(&of_second).cloned().collect();
    assert_eq!(everybody.len(), CUSTOMERS);

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
    let prometheus = Prometheus::start(directory.path(), &jobs);
    for (name, targets) in [("customers", CUSTOMERS), ("shards", 6)] {
        let up = format!("up{{job=\"{name}\"}} == 1");
        let infos = format!("elements_customer_info{{job=\"{name}\"}}");
        let found = eventually("Prometheus has everybody", || async {
            let up = prometheus.query(&up).await?;
            let infos = prometheus.query(&infos).await?;
            (up.len() == targets && infos.len() >= CUSTOMERS).then_some(infos)
        })
        .await;
        let ids: Vec<&str> = found
            .iter()
            .filter_map(|(series, _)| series["customer_id"].as_str())
            .collect();
        assert_eq!(ids.len(), CUSTOMERS, "{name}: nobody twice");
        assert_eq!(
            ids.into_iter().map(ToOwned::to_owned).collect::<BTreeSet<_>>(),
            everybody,
            "{name}: nobody lost"
        );
        let tenants = found
            .iter()
            .filter(|(series, _)| series["tenant"] == series["organization"]);
        assert_eq!(tenants.count(), if name == "customers" { CUSTOMERS } else { 0 });
    }
    // What belongs to no customer comes with the first share of each exporter.
    let up = prometheus.query("elements_up{job=\"shards\"}").await.unwrap();
    assert_eq!(up.len(), 2);
}

#[tokio::test]
async fn shares_of_a_scrape_add_up_to_the_whole() {
    let partner = start(still(CUSTOMERS)).await;
    let exporter = Program::start(&partner.base, &[], &[("ELEMENTS_COLLECTORS__JOBS__INTERVAL", "1h")]).await;
    let whole = all_asked(&exporter).await;
    let mut parts = Vec::new();
    for share in 0..4 {
        let part = exporter.get(&format!("/metrics?shard={share}/4")).await;
        parts.push(part.text().await.unwrap());
    }
    let nobody = exporter.get("/metrics?shard=4/4").await;
    let own = exporter.get("/metrics?collector=exporter").await.text().await.unwrap();
    let with_exporter = parts.iter().filter(|part| part.contains("elements_up ")).count();
    let mut lines = Vec::new();
    for part in &parts {
        parser::accepts_text(part);
        lines.extend(
            samples(part, "elements_job_rpo_seconds{")
                .lines()
                .map(ToOwned::to_owned),
        );
    }
    assert_eq!(with_exporter, 1);
    lines.sort();
    let mut expected: Vec<String> = samples(&whole, "elements_job_rpo_seconds{")
        .lines()
        .map(ToOwned::to_owned)
        .collect();
    expected.sort();
    assert_eq!(lines, expected);

    assert_eq!(nobody.status().as_u16(), 200);
    assert_eq!(nobody.text().await.unwrap(), "", "a share that cannot be has nobody");
    assert!(own.contains("elements_up 1") && customers(&own).is_empty());
    assert!(own.contains("elements_exporter_collector_success{collector=\"customers\",customer_id=\"\"} 1"));
}

/// The series of an answer, without their values and without what is new at every scrape.
fn series(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let mut series: Vec<String> = lines
        .filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned()))
        .filter(|series| !series.contains("request_duration") && !series.starts_with("process_"))
        .collect();
    series.sort();
    series
}

#[tokio::test]
async fn what_narrows_a_scrape_shows_each_series_once_however_it_is_combined() {
    let partner = start(still(CUSTOMERS)).await;
    let exporter = Program::start(&partner.base, &[], &[]).await;
    let whole = all_asked(&exporter).await;
    let scrape = async |query: &str| series(&exporter.get(&format!("/metrics?{query}")).await.text().await.unwrap());
    for collectors in [
        "",
        "collector=licenses",
        "collector=customers&collector=jobs",
        "collector=exporter",
        "collector=exporter&collector=licenses",
    ] {
        let mut parts = Vec::new();
        for share in 0..3 {
            parts.extend(scrape(&format!("{collectors}&shard={share}/3")).await);
        }
        parts.sort();
        assert_eq!(parts, scrape(collectors).await, "{collectors}");
    }
    assert_eq!(
        scrape("collector=exporter&collector=nope").await,
        scrape("collector=exporter").await
    );
    let id = customers(&whole).pop_first().unwrap();
    let capitals = id.to_uppercase();
    assert_ne!(id, capitals);
    let one = scrape(&format!("customer_id={id}")).await;
    assert!(!one.is_empty());
    assert_eq!(scrape(&format!("customer_id={capitals}")).await, one);
    assert_eq!(scrape(&format!("customer_id={id}&customer_id={capitals}")).await, one);
    assert_eq!(scrape(&format!("customer_id={capitals}&shard=0/1")).await, one);
    let many = "&shard=0/1000".repeat(400);
    assert_eq!(scrape(&many).await, scrape("shard=0/1000").await);
}

#[tokio::test]
async fn discovery_names_targets_that_can_be_scraped_as_they_are() {
    let partner = start(still(3)).await;
    let exporter = Program::start(
        &partner.base,
        &["--web.route-prefix=/elements", "--web.telemetry-path=/m"],
        &[],
    )
    .await;
    // For a moment a customer may be known by nothing but its id.
    let groups = eventually("customers are known with what was told of them", || async {
        let groups = json(&exporter, "/elements/sd").await;
        let listed = groups.as_array()?;
        let is_told = |group: &Value| group["labels"]["__meta_elements_country"] != "";
        (listed.len() == 3 && listed.iter().all(is_told)).then_some(groups)
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
    let shares = json(&exporter, "/elements/sd?shards=2").await;
    let shares: Vec<&str> = shares
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|group| group["labels"]["__param_shard"].as_str())
        .collect();
    assert_eq!(shares, ["0/2", "1/2"]);
    assert_eq!(exporter.get("/elements/sd?shards=0").await.status().as_u16(), 400);
}

#[test]
fn the_stateful_set_gives_each_pod_its_share() {
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
    // What Kubernetes makes of the arguments, the program understands.
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
