//! Attributes of customers, and exemptions that end: read from files, shown everywhere, taken in while running.

use std::path::PathBuf;
use std::time::SystemTime;

use elements_exporter::simulator::Settings;

use crate::harness::exporter::Exporter;
use crate::harness::partner::{Partner, start, still};
use crate::harness::program::Program;
use crate::harness::{eventually, quick, samples, value};

const WITHOUT: &str = "elements_exporter_customers_without_attributes";
const RELOADED: &str = "elements_exporter_config_last_reload_successful";
const FILE: &str = "ELEMENTS_CUSTOMERS__ATTRIBUTES_FILE";

/// A partner of four customers, and a file of attributes that can be rewritten.
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
                ..still(4)
            })
            .await,
            file,
            directory,
        }
    }

    /// Replaces the file at once, as an editor does.
    fn write(&self, rows: &str) {
        let new = self.directory.path().join("new");
        std::fs::write(&new, rows).unwrap();
        std::fs::rename(new, &self.file).unwrap();
    }

    fn settings(&self) -> [(&str, &str); 1] {
        [(FILE, self.file.to_str().unwrap())]
    }
}

/// The labels of a customer's info.
fn info_of<'a>(text: &'a str, id: &str) -> &'a str {
    let start = format!("elements_customer_info{{customer_id=\"{id}\",");
    text.lines().find(|line| line.starts_with(&start)).unwrap()
}

/// The ids of the customers, in order.
fn ids(text: &str) -> Vec<String> {
    let infos = samples(text, "elements_customer_info{");
    infos
        .lines()
        .map(|line| line.split('"').nth(1).unwrap().to_owned())
        .collect()
}

/// The number of customers that are shown with this tier.
fn with_tier(text: &str, tier: &str) -> usize {
    let infos = samples(text, "elements_customer_info{");
    infos.matches(&format!("tier=\"{tier}\"")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_are_labels_and_follow_their_file() {
    let site = Site::start("customer,tier,team\n*,bronze,\n").await;
    let program = Program::start_collectors(&site.partner.base, &["jobs"], &site.settings()).await;
    let text = program
        .until("all have a tier", |text| {
            value(text, WITHOUT) == Some(0.0) && with_tier(text, "bronze") == 4
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
        .until("three have none", |text| {
            value(text, WITHOUT) == Some(3.0) && with_tier(text, "bronze") == 0 && with_tier(text, "gold") == 1
        })
        .await;
    let ending = ",tier=\"gold\",region=\"emea\",team=\"North, A\"} 1";
    assert!(info_of(&text, &ids[0]).ends_with(ending), "{text}");
    assert!(!info_of(&text, &ids[1]).contains("tier="), "absent, not empty");
    // A bad file changes nothing, and is named with its line.
    site.write("customer,tier\n[a,gold\n,silver\n");
    let text = program
        .until("it is refused", |text| value(text, RELOADED) == Some(0.0))
        .await;
    assert!(info_of(&text, &ids[0]).ends_with(ending));
    let stderr = program.stderr();
    let line = stderr
        .lines()
        .find(|line| line.contains("attributes not reloaded"))
        .unwrap();
    assert!(line.contains("level=warn"), "{line}");
    assert!(
        line.contains("customers.csv:2: ") && line.contains("customers.csv:3: "),
        "{line}"
    );
    site.write(&first);
    program
        .until("it is read again", |text| value(text, RELOADED) == Some(1.0))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reload_waits_for_a_good_file_of_attributes() {
    let site = Site::start("customer,tier\n*,gold\n").await;
    let more = site.settings();
    let exporter = Exporter::start(&site.partner.base, &["jobs"], &more).await;
    exporter
        .until("all have a tier", |text| {
            value(text, WITHOUT) == Some(0.0) && with_tier(text, "gold") == 4
        })
        .await;
    site.write("customer,teir\n*,gold\n");
    let (status, answer) = exporter
        .reload(|variables| variables.push(("ELEMENTS_RPO__DEFAULT".into(), "3h".into())))
        .await;
    assert_eq!(status, 500);
    let problem = "customers.csv:1: unknown column \"teir\"; did you mean \"tier\"?";
    assert!(
        answer.contains("customers.attributes_file: ") && answer.contains(problem),
        "{answer}"
    );
    let text = exporter.metrics().await;
    assert_eq!(value(&text, RELOADED), Some(0.0));
    assert!(text.contains("tier=\"gold\"") && !samples(&text, "elements_job_rpo_seconds{").contains(" 10800\n"));
    site.write("customer,tier\n*,silver\n");
    let text = exporter
        .until("all is reloaded", |text| {
            value(text, RELOADED) == Some(1.0) && with_tier(text, "silver") == 4
        })
        .await;
    let text = match samples(&text, "elements_job_rpo_seconds{").contains(" 10800\n") {
        true => text,
        false => exporter.until("the rest, too", |text| text.contains(" 10800\n")).await,
    };
    assert!(!text.contains("tier=\"gold\""));
    // Without the file there are neither labels nor the count.
    let (status, _) = exporter
        .reload(|variables| variables.retain(|(name, _)| name != FILE))
        .await;
    assert_eq!(status, 200);
    exporter
        .until("it is gone", |text| {
            value(text, WITHOUT).is_none() && !text.contains("tier=")
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_file_of_attributes_at_the_start_ends_with_78() {
    let site = Site::start("customer,tier\n[a,gold\nb,x,y\n").await;
    for command in [&[][..], &["check"], &["once"], &["customers"]] {
        let output = Program::spawn(quick(&site.partner.base, &site.settings()), command)
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
async fn listed_customers_are_a_file_of_attributes() {
    let site = Site::start("customer,tier\nnobody,gold\n").await;
    let list = |output: &'static str| {
        Program::spawn(quick(&site.partner.base, &site.settings()), &["customers", output]).wait()
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
    // It can be used as it is, and no customer matches before it is filled in.
    site.write(&csv.stdout);
    let check = Program::spawn(quick(&site.partner.base, &site.settings()), &["check"])
        .wait()
        .await;
    assert!(
        check
            .stdout
            .contains("no row of customers.attributes_file matches 4 customers:\n"),
        "{}",
        check.stdout
    );
    let id = lines[1].split(',').next().unwrap().to_owned();
    assert!(check.stdout.contains(&format!("  {id} (")));
    site.write(&format!("id,tier\n{id},gold\n"));
    let check = Program::spawn(quick(&site.partner.base, &site.settings()), &["check", "--output=json"])
        .wait()
        .await;
    assert_eq!(
        check.stdout.matches("\"organization\"").count(),
        3 + 1,
        "and the example: {}",
        check.stdout
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_discovery_know_attributes() {
    let site = Site::start("customer,tier\n*,bronze\n").await;
    let exporter = Exporter::start(&site.partner.base, &["jobs"], &site.settings()).await;
    let text = exporter.settled().await;
    let ids = ids(&text);
    site.write(&format!("customer,tier,team\n{},gold,A & B\n*,bronze,\n", ids[0]));
    exporter
        .until("it is read again", |text| text.contains("tier=\"gold\""))
        .await;
    let (_, discovered) = exporter.get("/sd").await;
    let groups: Vec<serde_json::Value> = serde_json::from_str(&discovered).unwrap();
    let of = |id: &str| {
        groups
            .iter()
            .find(|group| group["labels"]["__meta_elements_customer_id"] == id)
            .unwrap()
    };
    assert_eq!(of(&ids[0])["labels"]["__meta_elements_tier"], "gold");
    assert_eq!(of(&ids[0])["labels"]["__meta_elements_team"], "A & B");
    assert_eq!(of(&ids[1])["labels"]["__meta_elements_tier"], "bronze");
    assert!(of(&ids[1])["labels"].get("__meta_elements_team").is_none());
    let shows = |page: &str, id: &str| page.contains(&format!("<code>{id}</code>"));
    let page = eventually("the page has the choice", || async {
        let (_, page) = exporter.get("/?tier=gold").await;
        page.contains("<option value=\"gold\" selected>gold</option>")
            .then_some(page)
    })
    .await;
    assert!(shows(&page, &ids[0]) && !shows(&page, &ids[1]), "{page}");
    assert!(page.contains("tier gold · team A &amp; B"), "{page}");
    assert!(page.contains(">All 1</a>"), "the counts are of those chosen: {page}");
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

const UNTIL: &str = "elements_job_exempt_until_timestamp_seconds{";
const RPO: &str = "elements_job_rpo_seconds{";

#[tokio::test(flavor = "multi_thread")]
async fn exemption_ends_by_itself_while_no_poll_succeeds() {
    let site = Site::start("customer,tier\n*,bronze\n").await;
    let end = now() + 20;
    let overrides = format!(
        "[{{tier: Bronze, rpo: none, until: '{}', reason: 'Let go, <7>'}}]",
        rfc3339(end)
    );
    let [file] = site.settings();
    let more = [file, ("ELEMENTS_RPO__OVERRIDES", overrides.as_str())];
    let exporter = Exporter::start(&site.partner.base, &["jobs"], &more).await;
    let text = exporter.settled().await;
    let exempt = samples(&text, UNTIL);
    if now() + 5 < end {
        assert!(
            !exempt.is_empty() && exempt.lines().all(|line| line.ends_with(&format!(" {end}"))),
            "{exempt}"
        );
        assert!(samples(&text, RPO).is_empty());
        let info = samples(&text, "elements_job_exemption_info{");
        assert!(info.contains(",reason=\"Let go, <7>\"} 1"), "{info}");
        let id = ids(&text)[0].clone();
        let (_, page) = exporter.get(&format!("/customers/{id}")).await;
        assert!(
            page.contains("exempt") && page.contains(": Let go, &lt;7&gt;"),
            "{page}"
        );
    }
    site.partner.handle.set_secret("another".to_owned());
    let text = exporter
        .until("it has ended", |text| {
            samples(text, UNTIL).is_empty() && !samples(text, RPO).is_empty()
        })
        .await;
    assert!(samples(&text, "elements_job_exemption_info{").is_empty());
    assert!(now() >= end);
}

#[tokio::test(flavor = "multi_thread")]
async fn overrides_by_an_unknown_attribute_match_nothing() {
    let site = Site::start("customer,tier\n*,gold\n").await;
    let [file] = site.settings();
    let more = [
        file,
        (
            "ELEMENTS_RPO__OVERRIDES",
            "[{tier: glod, rpo: 1h}, {tier: gold, rpo: 4h}]",
        ),
    ];
    let exporter = Exporter::start(&site.partner.base, &["jobs"], &more).await;
    let text = exporter
        .until("it is judged", |text| {
            value(text, "elements_exporter_config_unmatched_patterns") == Some(1.0) && text.contains(RPO)
        })
        .await;
    assert!(
        samples(&text, RPO).lines().all(|line| line.ends_with(" 14400")),
        "{text}"
    );
}
