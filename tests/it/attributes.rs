//! Customer attributes that are read from a file and reloaded at runtime, and exemptions that expire.

use std::path::PathBuf;
use std::time::SystemTime;

use elements_exporter::simulator::Settings;

use crate::harness::exporter::Exporter;
use crate::harness::partner::{Partner, frozen_partner, start};
use crate::harness::program::Program;
use crate::harness::{eventually, every_second_all, samples, value};

const WITHOUT_ATTRIBUTES: &str = "elements_exporter_customers_without_attributes";
const RELOAD_SUCCESSFUL: &str = "elements_exporter_config_last_reload_successful";
const ATTRIBUTES_FILE: &str = "ELEMENTS_CUSTOMERS__ATTRIBUTES_FILE";

/// A simulated partner with four customers, and an attributes file that can be rewritten.
struct Site {
    partner: Partner,
    file: PathBuf,
    directory: tempfile::TempDir,
}

impl Site {
    async fn start(rows: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("customers.csv");
        std::fs::write(&file, rows).unwrap();
        Self {
            partner: start(Settings {
                hostile: false,
                ..frozen_partner(4)
            })
            .await,
            file,
            directory,
        }
    }

    /// Replaces the file atomically, as editors do.
    fn write(&self, rows: &str) {
        let new = self.directory.path().join("new");
        std::fs::write(&new, rows).unwrap();
        std::fs::rename(new, &self.file).unwrap();
    }

    fn settings(&self) -> [(&str, &str); 1] {
        [(ATTRIBUTES_FILE, self.file.to_str().unwrap())]
    }
}

fn info_of<'a>(text: &'a str, id: &str) -> &'a str {
    let start = format!("elements_customer_info{{customer_id=\"{id}\",");
    text.lines().find(|line| line.starts_with(&start)).unwrap()
}

fn ids(text: &str) -> Vec<String> {
    let infos = samples(text, "elements_customer_info{");
    infos
        .lines()
        .map(|line| line.split('"').nth(1).unwrap().to_owned())
        .collect()
}

fn count_tier(text: &str, tier: &str) -> usize {
    let infos = samples(text, "elements_customer_info{");
    infos.matches(&format!("tier=\"{tier}\"")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_become_labels_and_are_reloaded() {
    let site = Site::start("customer,tier,team\n*,bronze,\n").await;
    let program = Program::start_collectors(&site.partner.base, &["jobs"], &site.settings()).await;
    let text = program
        .wait_until("all customers have a tier", |text| {
            value(text, WITHOUT_ATTRIBUTES) == Some(0.0) && count_tier(text, "bronze") == 4
        })
        .await;
    let ids = ids(&text);
    assert!(info_of(&text, &ids[0]).contains(",tier=\"bronze\"}"), "{text}");
    let first = format!(
        "customer,tier,region,team\n{},gold,emea,\"North, A\"\n",
        ids[0].to_uppercase()
    );
    site.write(&first);
    let text = program
        .wait_until("three customers have no tier", |text| {
            value(text, WITHOUT_ATTRIBUTES) == Some(3.0)
                && count_tier(text, "bronze") == 0
                && count_tier(text, "gold") == 1
        })
        .await;
    let ending = ",tier=\"gold\",region=\"emea\",team=\"North, A\"} 1";
    assert!(info_of(&text, &ids[0]).ends_with(ending), "{text}");
    assert!(
        !info_of(&text, &ids[1]).contains("tier="),
        "the label must be absent, not empty"
    );
    // An invalid file changes nothing, and its invalid lines are reported.
    site.write("customer,tier\n[a,gold\n,silver\n");
    let text = program
        .wait_until("the invalid file is rejected", |text| {
            value(text, RELOAD_SUCCESSFUL) == Some(0.0)
        })
        .await;
    assert!(info_of(&text, &ids[0]).ends_with(ending));
    let stderr = program.stderr();
    let line = stderr
        .lines()
        .find(|line| line.contains("attributes reload failed"))
        .unwrap();
    assert!(line.contains("level=warn"), "{line}");
    assert!(
        line.contains("customers.csv:2: ") && line.contains("customers.csv:3: "),
        "{line}"
    );
    site.write(&first);
    program
        .wait_until("the file is reloaded", |text| {
            value(text, RELOAD_SUCCESSFUL) == Some(1.0)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reload_fails_until_the_attributes_file_is_valid() {
    let site = Site::start("customer,tier\n*,gold\n").await;
    let extra_env = site.settings();
    let exporter = Exporter::start(&site.partner.base, &["jobs"], &extra_env).await;
    exporter
        .wait_until("all customers have a tier", |text| {
            value(text, WITHOUT_ATTRIBUTES) == Some(0.0) && count_tier(text, "gold") == 4
        })
        .await;
    site.write("customer,teir\n*,gold\n");
    let (status, response) = exporter
        .reload(|variables| variables.push(("ELEMENTS_RPO__DEFAULT".into(), "3h".into())))
        .await;
    assert_eq!(status, 500);
    let problem = "customers.csv:1: unknown column \"teir\"; did you mean \"tier\"?";
    assert!(
        response.contains("customers.attributes_file: ") && response.contains(problem),
        "{response}"
    );
    let text = exporter.metrics().await;
    assert_eq!(value(&text, RELOAD_SUCCESSFUL), Some(0.0));
    assert!(text.contains("tier=\"gold\"") && !samples(&text, "elements_job_rpo_seconds{").contains(" 10800\n"));
    site.write("customer,tier\n*,silver\n");
    let text = exporter
        .wait_until("attributes are reloaded", |text| {
            value(text, RELOAD_SUCCESSFUL) == Some(1.0) && count_tier(text, "silver") == 4
        })
        .await;
    let text = match samples(&text, "elements_job_rpo_seconds{").contains(" 10800\n") {
        true => text,
        false => {
            exporter
                .wait_until("objectives are reloaded", |text| text.contains(" 10800\n"))
                .await
        }
    };
    assert!(!text.contains("tier=\"gold\""));
    // Without a file, neither the labels nor the count of customers without attributes is exported.
    let (status, _) = exporter
        .reload(|variables| variables.retain(|(name, _)| name != ATTRIBUTES_FILE))
        .await;
    assert_eq!(status, 200);
    exporter
        .wait_until("the attributes are removed", |text| {
            value(text, WITHOUT_ATTRIBUTES).is_none() && !text.contains("tier=")
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_attributes_file_at_startup_exits_with_78() {
    let site = Site::start("customer,tier\n[a,gold\nb,x,y\n").await;
    for command in [&[][..], &["check"], &["once"], &["customers"]] {
        let output = Program::spawn(every_second_all(&site.partner.base, &site.settings()), command)
            .wait()
            .await;
        assert_eq!(output.code, Some(78), "{command:?}");
        let stderr = output.stderr;
        assert!(
            stderr.contains("customers.csv:2: ") && stderr.contains("customers.csv:3: "),
            "{stderr}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn customers_command_writes_a_valid_attributes_file() {
    let site = Site::start("customer,tier\nnobody,gold\n").await;
    let list = |output: &'static str| {
        Program::spawn(
            every_second_all(&site.partner.base, &site.settings()),
            &["customers", output],
        )
        .wait()
    };
    let csv = list("--output=csv").await;
    assert_eq!(csv.code, Some(0), "{}", csv.stderr);
    let lines: Vec<&str> = csv.stdout.lines().collect();
    assert_eq!(lines[0], "id,organization,country,tier,region,team,modules");
    assert!(csv.stdout.contains("Microsoft 365 / Exchange Online"), "{}", csv.stdout);
    let table = list("--output=table").await;
    assert!(
        table.stdout.starts_with("id ") && table.stdout.lines().count() >= 5,
        "{}",
        table.stdout
    );
    // The output is a valid attributes file. Its rows are ignored, because they contain no attributes yet.
    site.write(&csv.stdout);
    let check = Program::spawn(every_second_all(&site.partner.base, &site.settings()), &["check"])
        .wait()
        .await;
    assert!(
        check
            .stdout
            .contains("no match in customers.attributes_file for 4 customers:\n"),
        "{}",
        check.stdout
    );
    let id = lines[1].split(',').next().unwrap().to_owned();
    assert!(check.stdout.contains(&format!("  {id} (")));
    site.write(&format!("id,tier\n{id},gold\n"));
    let check = Program::spawn(
        every_second_all(&site.partner.base, &site.settings()),
        &["check", "--output=json"],
    )
    .wait()
    .await;
    assert_eq!(
        check.stdout.matches("\"organization\"").count(),
        3 + 1,
        "expected three unmatched customers and the polled one: {}",
        check.stdout
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_discovery_show_attributes() {
    let site = Site::start("customer,tier\n*,bronze\n").await;
    let exporter = Exporter::start(&site.partner.base, &["jobs"], &site.settings()).await;
    let text = exporter.wait_until_settled().await;
    let ids = ids(&text);
    site.write(&format!("customer,tier,team\n{},gold,A & B\n*,bronze,\n", ids[0]));
    exporter
        .wait_until("the file is reloaded", |text| text.contains("tier=\"gold\""))
        .await;
    let (_, discovered) = exporter.get("/sd").await;
    let groups: Vec<serde_json::Value> = serde_json::from_str(&discovered).unwrap();
    let group_of = |id: &str| {
        groups
            .iter()
            .find(|group| group["labels"]["__meta_elements_customer_id"] == id)
            .unwrap()
    };
    assert_eq!(group_of(&ids[0])["labels"]["__meta_elements_tier"], "gold");
    assert_eq!(group_of(&ids[0])["labels"]["__meta_elements_team"], "A & B");
    assert_eq!(group_of(&ids[1])["labels"]["__meta_elements_tier"], "bronze");
    assert!(group_of(&ids[1])["labels"].get("__meta_elements_team").is_none());
    let is_listed = |page: &str, id: &str| page.contains(&format!("<code>{id}</code>"));
    let page = eventually("the page offers the tier", || async {
        let (_, page) = exporter.get("/?tier=gold").await;
        page.contains("<option value=\"gold\" selected>gold</option>")
            .then_some(page)
    })
    .await;
    assert!(is_listed(&page, &ids[0]) && !is_listed(&page, &ids[1]), "{page}");
    assert!(page.contains("tier gold · team A &amp; B"), "{page}");
    assert!(
        page.contains(">All 1</a>"),
        "counts must include only the selected customers: {page}"
    );
    let (_, page) = exporter.get("/?team=A+%26+B&tier=bronze").await;
    assert!(page.contains("No customers match."), "{page}");
    let (_, page) = exporter.get(&format!("/customers/{}", ids[0])).await;
    assert!(page.contains("tier gold · team A &amp; B"), "{page}");
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap().as_secs()
}

fn rfc3339(seconds: u64) -> String {
    let at = jiff::Timestamp::from_second(i64::try_from(seconds).unwrap());
    at.unwrap().to_string()
}

const EXEMPT_UNTIL: &str = "elements_job_exempt_until_timestamp_seconds{";
const RPO: &str = "elements_job_rpo_seconds{";

#[tokio::test(flavor = "multi_thread")]
async fn exemption_expires_while_polls_fail() {
    let site = Site::start("customer,tier\n*,bronze\n").await;
    let end = now() + 20;
    let overrides = format!(
        "[{{tier: Bronze, rpo: none, until: '{}', reason: 'Migrated, <7>'}}]",
        rfc3339(end)
    );
    let [file] = site.settings();
    let extra_env = [file, ("ELEMENTS_RPO__OVERRIDES", overrides.as_str())];
    let exporter = Exporter::start(&site.partner.base, &["jobs"], &extra_env).await;
    let text = exporter.wait_until_settled().await;
    let exempt = samples(&text, EXEMPT_UNTIL);
    if now() + 5 < end {
        assert!(
            !exempt.is_empty() && exempt.lines().all(|line| line.ends_with(&format!(" {end}"))),
            "{exempt}"
        );
        assert!(samples(&text, RPO).is_empty());
        let info = samples(&text, "elements_job_exemption_info{");
        assert!(info.contains(",reason=\"Migrated, <7>\"} 1"), "{info}");
        let id = ids(&text)[0].clone();
        let (_, page) = exporter.get(&format!("/customers/{id}")).await;
        assert!(
            page.contains("exempt") && page.contains(": Migrated, &lt;7&gt;"),
            "{page}"
        );
    }
    site.partner.handle.set_secret("another".to_owned());
    let text = exporter
        .wait_until("the exemption has expired", |text| {
            samples(text, EXEMPT_UNTIL).is_empty() && !samples(text, RPO).is_empty()
        })
        .await;
    assert!(samples(&text, "elements_job_exemption_info{").is_empty());
    assert!(now() >= end);
}

#[tokio::test(flavor = "multi_thread")]
async fn override_with_an_unknown_attribute_value_is_unmatched() {
    let site = Site::start("customer,tier\n*,gold\n").await;
    let [file] = site.settings();
    let extra_env = [
        file,
        (
            "ELEMENTS_RPO__OVERRIDES",
            "[{tier: glod, rpo: 1h}, {tier: gold, rpo: 4h}]",
        ),
    ];
    let exporter = Exporter::start(&site.partner.base, &["jobs"], &extra_env).await;
    let text = exporter
        .wait_until("objectives are applied", |text| {
            value(text, "elements_exporter_config_unmatched_patterns") == Some(1.0) && text.contains(RPO)
        })
        .await;
    assert!(
        samples(&text, RPO).lines().all(|line| line.ends_with(" 14400")),
        "{text}"
    );
}
