//! Panels are green or red only for a reason. The tests apply Grafana's colour rules to the responses of a Prometheus
//! server whose data is stale, missing or sparse. All cases are in one long file, because they share that data.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use regex::Regex;
use serde_json::Value;

use super::dashboards::{self, Dashboard, Values, interpolate, list, text};
use super::rules;
use crate::harness::servers::{Server, backfill};

/// Seconds between samples.
const STEP: i64 = 30;

/// How long a situation lasts before it is evaluated: twice the look-back of panels.
const DURATION: i64 = 600;

/// Time between two situations, long enough for the previous data to disappear from panels.
const GAP: i64 = 3 * 3600;

/// A situation, described by its samples at each time.
struct Situation {
    at: i64,
    /// Age of the series that are added next, in seconds.
    duration: i64,
    text: BTreeMap<i64, String>,
    /// Whether each customer's data is fresh.
    customers: Vec<bool>,
}

impl Situation {
    fn new(at: i64) -> Self {
        Self {
            at,
            duration: DURATION,
            text: BTreeMap::new(),
            customers: Vec::new(),
        }
    }

    fn with(self, series: &str, value: impl Fn(i64) -> f64) -> Self {
        self.with_until(0, series, value)
    }

    /// Adds a series whose last sample has the given age.
    fn with_until(mut self, last_age: i64, series: &str, value: impl Fn(i64) -> f64) -> Self {
        for age in (last_age..=self.duration).filter(|age| age % STEP == 0) {
            let time = self.at - age;
            let _ = writeln!(self.text.entry(time).or_default(), "{series} {} {time}", value(age));
        }
        self
    }

    fn with_value(self, series: &str, value: f64) -> Self {
        self.with(series, |_| value)
    }

    /// Adds a scraped exporter whose API last responded `api_failed_for` seconds ago.
    fn exporter(self, api_failed_for: i64) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "an age of minutes")]
        let requests = |answered: bool| {
            move |age: i64| {
                let since_failure = (api_failed_for - age).max(0);
                let until_failure = DURATION - age - since_failure;
                (if answered { until_failure } else { since_failure }) as f64
            }
        };
        self.with_value(r#"up{job="e",instance="i"}"#, 1.0)
            .with_value(r#"elements_up{job="e",instance="i"}"#, 1.0)
            .with(
                r#"elements_exporter_api_requests_total{job="e",instance="i",endpoint="jobs",code="200"}"#,
                requests(true),
            )
            .with(
                r#"elements_exporter_api_requests_total{job="e",instance="i",endpoint="jobs",code="0"}"#,
                requests(false),
            )
            .long_running()
    }

    /// Adds the series that show that the exporter has been running for days.
    fn long_running(self) -> Self {
        self.with_value(r#"elements_exporter_build_info{job="e",instance="i"}"#, 1.0)
    }

    /// Returns the time of a customer's latest successful poll.
    fn read_at(&self, is_fresh: bool) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a time of this century")]
        let read = (self.at - if is_fresh { 60 } else { 3600 }) as f64;
        read
    }

    /// Adds the series that aggregate all customers.
    fn with_totals(self) -> Self {
        let count = self.customers.len();
        if count == 0 {
            return self;
        }
        let fresh = self.customers.iter().filter(|is_fresh| **is_fresh).count();
        let oldest = self.read_at(fresh == count);
        let read = self.read_at(true);
        #[expect(clippy::cast_precision_loss, reason = "a few customers")]
        let totals = [
            ("fleet:elements_jobs_fresh:sum", fresh as f64),
            ("fleet:elements_jobs_fresh:count", count as f64),
            ("fleet:elements_customers_with_rpo:count", count as f64),
            ("fleet:elements_jobs_read_timestamp_seconds:min", oldest),
        ];
        let mut it = self;
        for (name, value) in totals {
            it = it.with_value(&format!(r#"{name}{{job="e"}}"#), value);
        }
        if fresh > 0 {
            it = it.with_value(r#"fleet:elements_jobs_read_timestamp_seconds:min_fresh{job="e"}"#, read);
        }
        it
    }

    /// Adds a customer with fresh or stale data and one module.
    fn customer(mut self, id: &str, is_fresh: bool, rank: Option<f64>, failures: f64) -> Self {
        self.customers.push(is_fresh);
        let read = self.read_at(is_fresh);
        let module = format!(r#"job="e",customer_id="{id}",service="Microsoft 365",module="OneDrive""#);
        let mut it = self
            .with_value(
                &format!(r#"customer:elements_customer_info:max{{job="e",customer_id="{id}",organization="{id}"}}"#),
                1.0,
            )
            .with_value(
                &format!(r#"elements_customer_info{{job="e",instance="i",customer_id="{id}",organization="{id}"}}"#),
                1.0,
            )
            .with_value(
                &format!(r#"customer:elements_jobs_fresh:bool{{job="e",customer_id="{id}"}}"#),
                f64::from(u8::from(is_fresh)),
            )
            .with_value(
                &format!(r#"customer:elements_jobs_read_timestamp_seconds:max{{job="e",customer_id="{id}"}}"#),
                read,
            )
            .with_value(
                &format!("customer_module:elements_job_rpo_seconds:max{{{module}}}"),
                93_600.0,
            )
            .with_value(
                &format!(r#"customer:elements_job_rpo_seconds:min{{job="e",customer_id="{id}"}}"#),
                93_600.0,
            )
            .with_value(
                &format!("customer_module:elements_job_last_backup_timestamp_seconds:max{{{module}}}"),
                read - 7200.0,
            )
            .with_value(
                &format!("customer_module:elements_job_last_backup_age_seconds:min{{{module}}}"),
                9360.0,
            )
            .with_value(
                &format!("customer_module:elements_job_consecutive_failures:max{{{module}}}"),
                failures,
            );
        if failures >= 3.0 {
            it = it.with_value(
                &format!("customer_module:elements_job_consecutive_failures:max_attention{{{module}}}"),
                failures,
            );
        }
        if let Some(rank) = rank {
            it = it.with_value(
                &format!(r#"customer_module:elements_attention:rank{{{module},why="overdue"}}"#),
                rank,
            );
        }
        it
    }

    fn firing(self, name: &str, area: &str, severity: &str) -> Self {
        self.with_value(
            &format!(r#"ALERTS{{job="e",alertname="{name}",alertstate="firing",area="{area}",severity="{severity}"}}"#),
            1.0,
        )
    }
}

/// Appearance of a value in a stat panel.
#[derive(Debug, PartialEq)]
struct Appearance {
    name: String,
    text: String,
    colour: String,
}

/// A Prometheus server with the data of one situation, and the time to evaluate.
struct Evaluation {
    prometheus: Server,
    at: i64,
    values: Values,
    _directory: tempfile::TempDir,
}

impl Evaluation {
    async fn at(situations: Vec<Situation>) -> Vec<Self> {
        let mut evaluations = Vec::new();
        for situation in situations.into_iter().map(Situation::with_totals) {
            let directory = tempfile::tempdir().unwrap();
            let file = directory.path().join("history");
            let document: String = situation.text.values().map(String::as_str).collect();
            std::fs::write(&file, document + "# EOF\n").unwrap();
            backfill(directory.path(), &file);
            evaluations.push(Self {
                prometheus: Server::prometheus(directory.path(), "global: {}\n").await,
                at: situation.at,
                values: dashboards::select_all("1m"),
                _directory: directory,
            });
        }
        evaluations
    }

    /// Returns the responses with a different value for one variable.
    async fn responses_with(&self, target: &Value, variable: &str, value: &str) -> Vec<Value> {
        let mut values = self.values.clone();
        values.insert(variable.to_owned(), value.to_owned());
        self.query(target, &values).await
    }

    async fn responses(&self, target: &Value) -> Vec<Value> {
        self.query(target, &self.values).await
    }

    async fn query(&self, target: &Value, values: &Values) -> Vec<Value> {
        let expr = interpolate(&with_rules_of_the_state(text(&target["expr"])), values);
        let form = [("query", expr.as_str()), ("time", &self.at.to_string())];
        let data = self.prometheus.api("query", &form).await;
        let data = data.unwrap_or_else(|error| panic!("{error}\n{expr}"));
        list(&data["result"]).cloned().collect()
    }

    /// Returns the values that a stat panel displays.
    async fn stat(&self, uid: &str, title: &str) -> Vec<Appearance> {
        let panel = panel(uid, title);
        let mut appearances = Vec::new();
        for target in list(&panel["targets"]) {
            for series in self.responses(target).await {
                let mut name = text(&target["legendFormat"]).to_owned();
                for (label, value) in series["metric"].as_object().unwrap() {
                    name = name.replace(&format!("{{{{{label}}}}}"), text(value));
                }
                appearances.push(appearance(&panel, name, text(&series["value"][1]).parse().unwrap()));
            }
        }
        if appearances.is_empty() {
            appearances.push(Appearance {
                name: String::new(),
                text: text(&panel["fieldConfig"]["defaults"]["noValue"]).to_owned(),
                colour: null_colour(&panel["fieldConfig"]["defaults"]["mappings"]).unwrap_or("none".to_owned()),
            });
        }
        appearances
    }

    async fn only(&self, uid: &str, title: &str) -> Appearance {
        let mut appearances = self.stat(uid, title).await;
        assert_eq!(appearances.len(), 1, "{title}: {appearances:?}");
        appearances.remove(0)
    }

    async fn named(&self, uid: &str, title: &str, name: &str) -> Appearance {
        let appearances = self.stat(uid, title).await;
        let listed = format!("{appearances:?}");
        appearances
            .into_iter()
            .find(|appearance| appearance.name == name)
            .unwrap_or_else(|| panic!("{title}: no {name} in {listed}"))
    }
}

/// Replaces the recorded series that describe the state of the data with the expressions of their rules, because the
/// situations contain only the series that these rules read.
fn with_rules_of_the_state(expr: &str) -> String {
    static RULES: LazyLock<Vec<rules::Rule>> = LazyLock::new(rules::all);
    let rule = |name: &str| &RULES.iter().find(|rule| rule.name == name).unwrap().expr;
    let mut expr = expr.to_owned();
    for name in [
        "fleet:elements_data:state",
        "fleet:elements_api_up:bool",
        "instance:elements_exporter_up:bool",
    ] {
        let inlined = format!("({})", rule(name));
        expr = expr
            .replace(&format!(r#"{name}{{job=~"$job"}}"#), &inlined)
            .replace(name, &inlined);
    }
    expr
}

fn panel(uid: &str, title: &str) -> Value {
    let all = dashboards::all();
    let dashboard = all.iter().find(|dashboard| dashboard.json["uid"] == uid).unwrap();
    let panels = dashboard.panels();
    let found = panels.into_iter().find(|panel| panel["title"] == title);
    found.unwrap_or_else(|| panic!("{uid} has no {title}")).clone()
}

/// Returns a property of a field: from an override if one exists, otherwise the default.
fn property<'a>(panel: &'a Value, name: &str, id: &str) -> &'a Value {
    let overridden = list(&panel["fieldConfig"]["overrides"])
        .filter(|one| one["matcher"]["options"] == name)
        .flat_map(|one| list(&one["properties"]))
        .find(|property| property["id"] == id);
    overridden.map_or(&panel["fieldConfig"]["defaults"][id], |property| &property["value"])
}

/// Returns the appearance of a value in Grafana. A mapping determines text and colour. If no mapping applies, the
/// highest threshold that is reached determines the colour.
fn appearance(panel: &Value, name: String, value: f64) -> Appearance {
    for mapping in list(property(panel, &name, "mappings")) {
        let options = &mapping["options"];
        let result = match text(&mapping["type"]) {
            "value" => &options[value.to_string()],
            "range" if value >= options["from"].as_f64().unwrap() && value <= options["to"].as_f64().unwrap() => {
                &options["result"]
            }
            _ => continue,
        };
        if !result.is_null() {
            let (text, colour) = (text(&result["text"]).to_owned(), text(&result["color"]).to_owned());
            return Appearance { name, text, colour };
        }
    }
    let steps = list(&property(panel, &name, "thresholds")["steps"]);
    let reached = steps.filter(|step| step["value"].as_f64().is_none_or(|minimum| value >= minimum));
    let colour = text(&reached.last().unwrap()["color"]).to_owned();
    let text = value.to_string();
    Appearance { name, text, colour }
}

fn null_colour(mappings: &Value) -> Option<String> {
    let mapping = list(mappings).find(|one| text(&one["options"]["match"]).starts_with("null"));
    mapping.map(|one| text(&one["options"]["result"]["color"]).to_owned())
}

const FLEET: &str = "elements-fleet";
const CUSTOMER: &str = "elements-customer";
const EXPORTER: &str = "elements-exporter";
const JOBS: &str = "elements-jobs";
const PROTECTION: &str = "elements-protection";
const LICENCES: &str = "elements-licences";

/// Colour of values that are missing or not live.
const GREY: &str = "#7b7f87";

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn panels_are_green_or_red_only_with_a_reason() {
    let at = |nth: i64| now() / STEP * STEP - nth * GAP;
    let coverage = |module: &str, scanned: f64, protected: f64| {
        let labels =
            format!(r#"job="e",instance="i",customer_id="a",service="Microsoft 365",module="{module}",tenant_id="t""#);
        move |it: Situation| {
            it.with_value(&format!("elements_protected_scanned_objects{{{labels}}}"), scanned)
                .with_value(&format!("elements_protected_objects{{{labels}}}"), protected)
        }
    };
    let live = Situation::new(at(1))
        .exporter(0)
        .customer("a", true, Some(7.0), 0.0)
        .customer("b", true, None, 0.0)
        .customer("c", true, None, 0.0)
        .customer("d", true, None, 0.0)
        .customer("e", true, None, 0.0)
        .customer("f", true, None, 0.0)
        .firing("ElementsWatchdog", "exporter", "none");
    let live = coverage("OneDrive", 100.0, 95.0)(live);
    let live = coverage("Teams Chat", 35.0, 0.0)(live);
    let down = Situation::new(at(2))
        .long_running()
        .with_value(r#"up{job="e",instance="i"}"#, 0.0)
        .customer("a", false, None, 3.0)
        .customer("b", false, None, 0.0)
        .firing("ElementsBackupOverdueCritical", "backup", "critical")
        .firing("ElementsCollectorStale", "exporter", "warning")
        .firing("ElementsExporterDown", "exporter", "critical")
        .firing("ElementsWatchdog", "exporter", "none");
    let outage = Situation::new(at(3))
        .exporter(240)
        .customer("a", true, None, 0.0)
        .firing("ElementsWatchdog", "exporter", "none");
    let outage = outage.with_value(r#"elements_exporter_state_load_successful{job="e",instance="i"}"#, 1.0);
    let stale = Situation::new(at(4))
        .exporter(0)
        .customer("a", false, None, 4.0)
        .customer("b", false, None, 0.0);
    let stored = r#"module_storage:elements_protected_size_bytes:sum{job="e",service="Microsoft 365",module="OneDrive",storage="avepoint"}"#;
    let customers = |mut it: Situation, fresh: f64, stale: f64| {
        for collector in ["licenses", "protected"] {
            for (state, count) in [("fresh", fresh), ("stale", stale)] {
                let labels = format!(r#"job="e",instance="i",collector="{collector}",state="{state}""#);
                it = it.with_value(&format!("elements_exporter_customers{{{labels}}}"), count);
            }
        }
        it
    };
    let licence = r#"license:elements_license_time_left_seconds:max{job="e",customer_id="a",service="Cloud Backup for Microsoft 365",backup="true"}"#;
    let live = customers(live.with_value(stored, 5.0).with_value(licence, 9e6), 6.0, 0.0);
    let stale = customers(stale.with_value(stored, 5.0).with_value(licence, 9e6), 1.0, 1.0);
    let down = down.with_value(licence, 9e6);
    let failed = r#"customer_module:elements_job_objects:max_failed{job="e",customer_id="b",service="Microsoft 365",module="OneDrive"}"#;
    let down = down.with_value(failed, 5.0);
    // The recorded series of a ransomware sign continues after the exporter's value has expired.
    let attack = r#"tenant:elements_tenant_ransomware_objects:sum{job="e",customer_id="b",tenant_id="t",sign="potential_attack"}"#;
    let stale = stale.with_value(attack, 2.0);
    // Adds seats that customer `b` has paid for. The customer's protected objects were polled `read_ago` seconds ago.
    let paid = |it: Situation, read_ago: f64| {
        #[expect(clippy::cast_precision_loss, reason = "a time of this century")]
        let read = it.at as f64 - read_ago;
        it.with_value(
            r#"elements_license_purchased_seats{job="e",instance="i",customer_id="b",license="",service="Cloud Backup for Microsoft 365"}"#,
            5.0,
        )
        .with_value(
            r#"elements_exporter_collector_last_success_timestamp_seconds{job="e",instance="i",customer_id="b",collector="protected"}"#,
            read,
        )
        .with_value(
            r#"elements_exporter_collector_stale_after_seconds{job="e",instance="i",collector="protected"}"#,
            10_800.0,
        )
    };
    let live = paid(live, 60.0);
    let stale = paid(stale, 20_000.0);
    let pending =
        r#"ALERTS{job="e",alertname="ElementsExporterDown",alertstate="pending",area="exporter",severity="critical"}"#;
    let starting = Situation::new(at(6))
        .long_running()
        .with_value(r#"up{job="e",instance="i"}"#, 0.0)
        .with_value(pending, 1.0)
        .customer("a", true, None, 0.0)
        .firing("ElementsWatchdog", "exporter", "none");
    let single = Situation::new(at(5)).exporter(0).customer("a", true, Some(8.0), 1.0);
    #[expect(clippy::cast_precision_loss, reason = "an age of minutes")]
    let throttled_requests = |age: i64| (DURATION - age) as f64;
    let throttled = Situation::new(at(7))
        .with_value(r#"up{job="e",instance="i"}"#, 1.0)
        .with_value(r#"elements_up{job="e",instance="i"}"#, 1.0)
        .with(
            r#"elements_exporter_api_requests_total{job="e",instance="i",endpoint="jobs",code="429"}"#,
            throttled_requests,
        )
        .long_running()
        .customer("a", true, None, 0.0);
    let mut new_rules =
        Situation::new(at(8))
            .exporter(0)
            .customer("a", true, None, 0.0)
            .firing("ElementsWatchdog", "exporter", "none");
    // Every series has only three samples.
    new_rules.duration = 2 * STEP;
    let alert = |state| {
        format!(
            r#"ALERTS{{job="e",alertname="ElementsBackupOverdueCritical",alertstate="{state}",area="backup",severity="critical"}}"#
        )
    };
    // The last sample from before the restart is older than the look-back of an instant query.
    let restarted = Situation::new(at(9))
        .exporter(0)
        .customer("a", true, None, 0.0)
        .firing("ElementsWatchdog", "exporter", "none")
        .with_until(330, &alert("firing"), |_| 1.0)
        .with_value(&alert("pending"), 1.0);
    let situations = vec![
        live, down, outage, stale, single, starting, throttled, new_rules, restarted,
    ];
    let [
        live,
        down,
        outage,
        stale,
        single,
        starting,
        throttled,
        new_rules,
        restarted,
    ] = Evaluation::at(situations)
        .await
        .try_into()
        .unwrap_or_else(|_| panic!("nine situations"));

    // A good state is green. *Within RPO* is orange rather than red if only one customer is overdue.
    let data = live.named(FLEET, "Data", "Data").await;
    assert_eq!((data.text.as_str(), data.colour.as_str()), ("live", "green"));
    let within = live.only(FLEET, "Within RPO").await;
    assert_eq!((within.name.as_str(), within.colour.as_str()), ("5 of 6", "orange"));
    assert_eq!(live.only(FLEET, "Never backed up").await.colour, "green");
    assert_eq!(live.only(EXPORTER, "API").await.text, "up");
    // Coverage excludes modules without an RPO, such as disabled modules.
    let covered = live.only(CUSTOMER, "Coverage").await;
    assert_eq!((covered.text.as_str(), covered.colour.as_str()), ("0.95", "green"));

    let read = live.named(FLEET, "Data", "oldest data").await;
    assert_eq!(read.colour, "green");

    // While the exporter is down, its alert comes first. The panels display the last known failures, and zeros are not
    // green.
    let data = down.named(FLEET, "Data", "Data").await;
    assert_eq!((data.text.as_str(), data.colour.as_str()), ("EXPORTER DOWN", "red"));
    let api = down.named(FLEET, "Data", "API").await;
    assert_eq!((api.text.as_str(), api.colour.as_str()), ("unknown", GREY));
    assert_eq!(down.named(FLEET, "Failing 3× or more", "modules").await.text, "1");
    assert_eq!(down.only(JOBS, "Failed objects").await.text, "5");
    assert_eq!(down.only(FLEET, "Never backed up").await.colour, GREY);
    assert_eq!(down.only(FLEET, "Overdue").await.colour, GREY);
    let within = down.only(FLEET, "Within RPO").await;
    assert_eq!((within.name.as_str(), within.colour.as_str()), ("2 of 2", GREY));
    assert_eq!(down.only(EXPORTER, "API").await.colour, GREY);
    assert_eq!(down.only(EXPORTER, "State file").await.text, "no data");
    // If all data is stale, its age is red.
    let read = down.named(FLEET, "Data", "oldest data, stale").await;
    assert_eq!(read.colour, "red");
    let critical = down.named(FLEET, "Critical alerts", "exporter and API").await;
    assert_eq!((critical.text.as_str(), critical.colour.as_str()), ("1", "red"));
    for uid in [FLEET, CUSTOMER] {
        let mut alerts = down.responses(&panel(uid, "Alerts")["targets"][0]).await;
        let rank = |alert: &Value| text(&alert["value"][1]).parse::<f64>().unwrap();
        alerts.sort_by(|one, other| rank(other).total_cmp(&rank(one)));
        assert_eq!(alerts[0]["metric"]["alertname"], "ElementsExporterDown", "{alerts:?}");
        let sorted = &panel(uid, "Alerts")["options"]["sortBy"][0];
        assert_eq!(
            (&sorted["displayName"], &sorted["desc"]),
            (&"Rank".into(), &true.into())
        );
    }

    // While an alert is pending, the panel does not display a green zero.
    let appearances = starting.stat(FLEET, "Critical alerts").await;
    let of_exporter: Vec<_> = appearances
        .iter()
        .filter(|appearance| appearance.name.starts_with("exporter and API"))
        .collect();
    assert_eq!(of_exporter.len(), 1, "{appearances:?}");
    assert_eq!(of_exporter[0].name, "exporter and API, pending");
    assert_eq!(of_exporter[0].colour, "orange");
    // The data is still fresh, but no zero is green while the exporter is down.
    for (uid, title) in [
        (FLEET, "Within RPO"),
        (FLEET, "Overdue"),
        (FLEET, "Never backed up"),
        (FLEET, "Failing 3× or more"),
        (JOBS, "Modules with a failed last run"),
        (JOBS, "Failed objects"),
        (CUSTOMER, "Needs attention"),
        (CUSTOMER, "Failing now"),
        (CUSTOMER, "Worst module"),
    ] {
        for tile in starting.stat(uid, title).await {
            assert_eq!(tile.colour, GREY, "{title}: {tile:?}");
        }
        assert!(
            live.stat(uid, title).await.iter().all(|tile| tile.colour != GREY),
            "{title}"
        );
    }
    let age = starting.only(CUSTOMER, "Data age").await;
    assert_eq!((age.name.as_str(), age.colour.as_str()), ("not live", "orange"));
    for (name, value) in [("oldest data, not live", "60"), ("customers unknown", "?")] {
        let tile = starting.named(FLEET, "Data", name).await;
        assert_eq!((tile.text.as_str(), tile.colour.as_str()), (value, GREY));
    }
    for uid in [FLEET, CUSTOMER] {
        let rows = starting.responses(&panel(uid, "Alerts")["targets"][0]).await;
        let severities: Vec<_> = rows.iter().map(|row| text(&row["metric"]["severity"])).collect();
        assert_eq!(severities, ["pending"]);
    }

    // The outage has lasted four minutes, and the customer list has not been polled again yet.
    let api = outage.only(EXPORTER, "API").await;
    assert_eq!((api.text.as_str(), api.colour.as_str()), ("unreachable", "red"));
    let data = outage.named(FLEET, "Data", "Data").await;
    assert_eq!((data.text.as_str(), data.colour.as_str()), ("API UNREACHABLE", "red"));
    // No alert about the outage is firing yet, but the outage still keeps the panel from being green.
    for of in ["exporter and API", "customers"] {
        let tile = outage.named(FLEET, "Critical alerts", of).await;
        assert_eq!((tile.text.as_str(), tile.colour.as_str()), ("unknown", GREY));
    }
    for of in ["exporter and API", "customers"] {
        assert_eq!(live.named(FLEET, "Critical alerts", of).await.colour, "green");
    }

    // After three evaluations of one rule group, Prometheus may not have evaluated the alerts of other groups yet.
    // After a restart, Prometheus writes alerts as pending at first.
    for evaluation in [&new_rules, &restarted] {
        let data = evaluation.named(FLEET, "Data", "Data").await;
        assert_eq!((data.text.as_str(), data.colour.as_str()), ("live", "green"));
        let tile = evaluation.named(FLEET, "Critical alerts", "customers").await;
        assert_eq!((tile.text.as_str(), tile.colour.as_str()), ("unknown", GREY));
        for uid in [FLEET, CUSTOMER] {
            let target = &panel(uid, "Alerts")["targets"][0];
            let rows = evaluation.responses(target).await;
            assert_eq!(rows.len(), 1, "{rows:?}");
            assert_eq!(rows[0]["metric"]["alertname"], "The alert rules have just started");
            assert_eq!(live.responses(target).await, Vec::<Value>::new());
        }
    }

    // An API that answers every request with 429 is reachable.
    let data = throttled.named(FLEET, "Data", "Data").await;
    assert_eq!((data.text.as_str(), data.colour.as_str()), ("live", "green"));

    // A request without a response has the code 0, which is red.
    let requests = panel(EXPORTER, "Requests");
    let series = outage.responses(&requests["targets"][0]).await;
    let codes: Vec<_> = series.iter().map(|series| text(&series["metric"]["code"])).collect();
    assert!(codes.contains(&"0"), "{series:?}");
    let colour = text(&property(&requests, "0", "color")["fixedColor"]);
    assert!(colour.contains("red"), "{colour}");

    // Unless exempt, tiles follow the variables: they are empty or zero if the service or module does not exist.
    let mut tiles = 0;
    for (place, has_module_variable, panel) in all_panels() {
        let follows = has_module_variable && panel["type"] == "stat" && !is_exempt_from_variables(&panel);
        for target in list(&panel["targets"]).filter(|_| follows) {
            for variable in ["service", "module"] {
                let series = live.responses_with(target, variable, "none of these").await;
                let zero = |series: &Value| text(&series["value"][1]) == "0";
                assert!(series.iter().all(zero), "{place}, {variable}: {series:?}");
            }
            tiles += 1;
        }
    }
    assert!(tiles > 10, "{tiles}");

    // Stale data does not lower a count of failures.
    let data = stale.named(FLEET, "Data", "Data").await;
    assert_eq!((data.text.as_str(), data.colour.as_str()), ("STALE", "red"));
    assert_eq!(stale.named(FLEET, "Failing 3× or more", "modules").await.text, "1");
    assert_eq!(stale.named(CUSTOMER, "Failing now", "modules").await.text, "1");
    assert_eq!(stale.only(CUSTOMER, "Needs attention").await.colour, GREY);
    assert_eq!(stale.named(CUSTOMER, "Data age", "STALE").await.colour, "red");
    // With stale data, the age of a restore point is neither green nor red, because there may be a newer one.
    let worst = stale.only(CUSTOMER, "Worst module").await;
    assert_eq!((worst.text.as_str(), worst.colour.as_str()), ("not live", GREY));
    assert_eq!(live.only(CUSTOMER, "Worst module").await.colour, "green");
    let modules = panel(CUSTOMER, "Modules");
    let target = list(&modules["targets"]).find(|target| target["refId"] == "C").unwrap();
    for (evaluation, expected) in [(&live, "green"), (&stale, GREY)] {
        for used in evaluation.responses(target).await {
            let value = text(&used["value"][1]).parse().unwrap();
            assert_eq!(
                appearance(&modules, "RPO used".to_owned(), value).colour,
                expected,
                "{used}"
            );
        }
    }
    assert_eq!(stale.only(JOBS, "Failed objects").await.colour, GREY);
    // The sum is not displayed if data is stale for more than 5 % of the customers, because it would be too low.
    assert_eq!(stale.only(PROTECTION, "Stored").await.text, "no data");
    assert_eq!(live.only(PROTECTION, "Stored").await.text, "5");
    // The licences of a customer with stale data may have expired in the meantime.
    for tile in ["Within 30 days", "Expired (30 d)"] {
        assert_eq!(live.only(LICENCES, tile).await.colour, "green");
        assert_eq!(stale.only(LICENCES, tile).await.colour, GREY);
        assert_eq!(down.only(LICENCES, tile).await.colour, GREY);
    }
    let attacked = stale.only(FLEET, "Signs of attack").await;
    assert_eq!((attacked.text.as_str(), attacked.colour.as_str()), ("2", "red"));
    assert_eq!(stale.only(FLEET, "Consent missing").await.colour, GREY);
    // Without fresh data about protection, it is unknown whether customers are unprotected.
    let unprotected = panel(LICENCES, "Paid for but not protected");
    assert_eq!(live.responses(&unprotected["targets"][0]).await.len(), 1);
    assert!(stale.responses(&unprotected["targets"][0]).await.is_empty());

    // A single customer that is overdue does not make the tile red.
    let within = single.only(FLEET, "Within RPO").await;
    assert_eq!((within.name.as_str(), within.colour.as_str()), ("0 of 1", "orange"));
    let state = single.only(EXPORTER, "State file").await;
    assert_eq!((state.text.as_str(), state.colour.as_str()), ("none", GREY));
    // Stops the Prometheus servers.
    drop((
        live, down, outage, stale, single, starting, throttled, new_rules, restarted,
    ));
}

fn all_panels() -> Vec<(String, bool, Value)> {
    let of = |dashboard: &Dashboard| {
        let has = |name: &str| dashboard.variables().any(|variable| variable["name"] == name);
        let panels: Vec<_> = dashboard.panels().into_iter().cloned().collect();
        let has_module_variable = has("module");
        panels
            .into_iter()
            .map(move |panel| {
                (
                    format!("{}: {}", dashboard.file, text(&panel["title"])),
                    has_module_variable,
                    panel,
                )
            })
            .collect::<Vec<_>>()
    };
    dashboards::all().iter().flat_map(of).collect()
}

#[test]
fn missing_values_are_not_green() {
    let mut green = Vec::new();
    for (place, _, panel) in all_panels() {
        let defaults = &panel["fieldConfig"]["defaults"];
        let coloured = text(&panel["type"]) == "stat" && panel["options"]["colorMode"] == "background";
        if coloured && null_colour(&defaults["mappings"]).is_none_or(|colour| colour == "green") {
            green.push(place.clone());
        }
        for one in list(&panel["fieldConfig"]["overrides"]) {
            let property = |id: &str| list(&one["properties"]).find(|property| property["id"] == id);
            let cell = property("custom.cellOptions").map_or("", |cell| text(&cell["value"]["type"]));
            let base = property("thresholds").map_or("", |found| text(&found["value"]["steps"][0]["color"]));
            let null = property("mappings").and_then(|found| null_colour(&found["value"]));
            if cell == "color-background" && base == "green" && null.is_none_or(|colour| colour == "green") {
                green.push(format!("{place}, {}", one["matcher"]["options"]));
            }
        }
    }
    assert!(green.is_empty(), "{green:#?}");
}

/// Grafana displays the text `noValue` not only in tables without rows, but also in every cell without a value. An
/// override must therefore remove the text from the cells.
#[test]
fn empty_tables_explain_what_is_missing() {
    // A table may also be empty because of an outage, so its text must not claim that there are no such objects.
    let claims_nothing = Regex::new("known|data|alert|exporter is down|in this month").unwrap();
    let mut problems = Vec::new();
    for (place, _, panel) in all_panels()
        .into_iter()
        .filter(|(_, _, panel)| panel["type"] == "table")
    {
        let config = &panel["fieldConfig"];
        let words = text(&config["defaults"]["noValue"]);
        let cells = list(&config["overrides"])
            .filter(|one| one["matcher"]["options"] == "/.*/")
            .flat_map(|one| list(&one["properties"]))
            .find(|property| property["id"] == "noValue");
        if !claims_nothing.is_match(words) || cells.is_none_or(|property| property["value"] != "") {
            problems.push(place);
        }
    }
    assert!(problems.is_empty(), "{problems:#?}");
}

/// Values exposed by the exporter disappear when they expire or the exporter is down, while values recorded by the
/// rules may remain.
#[test]
fn panels_that_an_outage_empties_say_so() {
    let exposed = Regex::new(r"(?:^|[^:\w])(?:elements_\w+|up)\{").unwrap();
    let reason = Regex::new("stale|not live|exporter is down|can scrape the exporter").unwrap();
    let silent: Vec<_> = all_panels()
        .into_iter()
        .filter(|(_, _, panel)| ["stat", "table", "bargauge"].contains(&text(&panel["type"])))
        .filter(|(_, _, panel)| list(&panel["targets"]).all(|target| exposed.is_match(text(&target["expr"]))))
        .filter(|(_, _, panel)| !reason.is_match(text(&panel["description"])))
        .map(|(place, ..)| place)
        .collect();
    assert!(silent.is_empty(), "{silent:#?}");
}

/// Returns whether a panel states that it does not follow the variables.
fn is_exempt_from_variables(panel: &Value) -> bool {
    text(&panel["description"]).contains("Not filtered by") || text(&panel["title"]).contains("all customers")
}

#[test]
fn tiles_are_filtered_by_module_or_document_the_exception() {
    let problems: Vec<_> = all_panels()
        .into_iter()
        .filter(|(_, has_module_variable, panel)| *has_module_variable && panel["type"] == "stat")
        .filter(|(_, _, panel)| {
            let narrows = |target: &Value| text(&target["expr"]).contains("$module");
            !list(&panel["targets"]).all(narrows) && !is_exempt_from_variables(panel)
        })
        .map(|(place, ..)| place)
        .collect();
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn instance_variable_is_only_on_the_exporter_dashboard() {
    let with: Vec<_> = dashboards::all()
        .iter()
        .filter(|dashboard| dashboard.variables().any(|variable| variable["name"] == "instance"))
        .map(|dashboard| text(&dashboard.json["uid"]).to_owned())
        .collect();
    assert_eq!(with, [EXPORTER]);
}
