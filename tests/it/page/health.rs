//! Customer health on the pages. Without data, a customer is neither healthy nor unhealthy.

use elements_exporter::simulator::{Fault, FaultKind, Run};
use serde_json::{Value, json};
use tokio::task::block_in_place;

use super::browser::Browser;
use super::{REFRESH_OFTEN, assert_quiet_console, exporter, open_fresh_page, partner};
use crate::harness;
use crate::harness::program::Program;

const DAY: i64 = 86_400;

/// Returns a run that covers a backup scope and ended at the Unix time `end`.
fn run(status: i64, scope: &str, end: i64) -> Run {
    Run {
        id: format!("run-of-{scope}-{end}"),
        name: scope.to_owned(),
        start: Some(end - 60),
        end: Some(end),
        last_modified: Some(end),
        ..Run::bare(status)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn modules_without_objective_are_grey_with_a_reason() {
    let partner = partner(1).await;
    let id = partner.handle.with_world(|world| {
        let now = world.now();
        let customer = &mut world.customers[0];
        let mut module = customer.modules[0].clone();
        let waiting = Run {
            last_modified: Some(now),
            ..Run::bare(6)
        };
        let rows = [
            (7, vec![run(3, "exempt", now - 9 * DAY)]),
            (3, vec![Run::bare(12)]),
            (4, Vec::new()),
            (5, vec![waiting]),
            (2, vec![run(3, "abandoned", now - 400 * DAY)]),
            (2, vec![run(2, "good", now - 60)]),
            (2, vec![run(2, "late", now - 3 * DAY)]),
            (2, vec![run(3, "never", now - 60)]),
        ];
        customer.modules.clear();
        for (number, runs) in rows {
            module.job_type = 1;
            module.number = number;
            module.scope = None;
            module.runs = runs;
            customer.modules.push(module.clone());
        }
        customer.id.clone()
    });
    let settings = [
        ("ELEMENTS_RPO__ABANDONED_AFTER", "90days"),
        ("ELEMENTS_RPO__OVERRIDES", r#"[{"scope":"exempt","rpo":"none"}]"#),
    ];
    let grafana = ["--web.grafana-url=https://grafana.example.com/g/"];
    let exporter = exporter(&partner.base, &grafana, &settings).await;
    block_in_place(|| {
        let mut browser = open_fresh_page(&exporter);
        let tabs = browser.text(".tabs");
        for words in ["Overdue 1", "Failing 1", "Unknown 0", "OK 0"] {
            assert!(
                tabs.contains(words),
                "the customer must count as overdue and as failing: {tabs}"
            );
        }
        browser.go(&format!("{}customers/{id}", exporter.base));
        assert_eq!(browser.text("#health").trim(), "2 modules overdue 1 module failing");
        let states = browser.eval(
            "[...document.querySelectorAll('#modules tbody .chip')].map((chip) => `${chip.innerText}: ${chip.classList[1]}`)",
        );
        let expected = [
            "never backed up: bad",
            "overdue: bad",
            "OK: good",
            "pending: idle",
            "exempt: idle",
            "not configured: idle",
            "disabled: idle",
            "dormant: idle",
        ];
        assert_eq!(states, json!(expected));
        let coloured = "[...document.querySelectorAll('#modules tbody tr')].filter((row) => row.querySelector('.idle') \
                        && row.querySelector('.bad-text, .warn-text, .good, .bad')).map((row) => row.innerText)";
        assert_eq!(browser.eval(coloured), json!([]));
        assert!(
            browser.text("#modules").contains(" / abandoned"),
            "scopes must be named"
        );
        let link =
            browser.eval("[...document.querySelectorAll('main a')].find((link) => link.innerText === 'Grafana').href");
        let dashboard = format!("https://grafana.example.com/g/d/elements-customer?var-customer={id}");
        assert_eq!(link, json!(dashboard));
        assert_quiet_console(&mut browser);
    });
}

/// Returns the first part of a page between two strings.
fn between<'a>(page: &'a str, begin: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = page.split_once(begin)?;
    Some(rest.split_once(end)?.0)
}

#[tokio::test]
async fn customer_page_shows_the_same_health_as_the_list() {
    let partner = partner(1).await;
    let id = partner.handle.with_world(|world| world.customers[0].id.clone());
    let granted = ["customers", "jobs"].map(|name| format!("elements.{name}.read.all"));
    partner.handle.set_scopes(granted.into());
    let exporter = Program::start_collectors(&partner.base, &["jobs", "licenses", "protected"], &[]).await;
    let is_polled = |text: &str| {
        let permitted = |collector, value| {
            let series = format!("elements_exporter_collector_permitted{{collector=\"{collector}\"}}");
            harness::value(text, &series) == Some(value)
        };
        let is_denied = ["licenses", "protected"]
            .into_iter()
            .all(|collector| permitted(collector, 0.0));
        is_denied && harness::fresh(text, "jobs") == Some(1.0)
    };
    exporter
        .wait_until("only the permission for jobs is granted", is_polled)
        .await;
    let (list, page) = (
        exporter.text("/").await,
        exporter.text(&format!("/customers/{id}")).await,
    );
    let of_list = between(&list, "<div class=\"chips\">", "</div>").unwrap();
    assert_eq!(between(&page, "<p id=\"health\" data-live>", "</p>"), Some(of_list));
    // A poll without permission says nothing about the customer's health.
    assert!(
        page.contains("forbidden") && !of_list.contains("outdated data"),
        "{page}"
    );
}

/// Returns the text that follows the name in a tab.
fn tab(browser: &mut Browser, name: &str) -> Value {
    browser.eval(&format!(
        "[...document.querySelectorAll('.tabs a')].map((tab) => tab.innerText) \
         .find((text) => text.startsWith('{name} ')).slice('{name} '.length)"
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn stale_data_is_not_counted_as_good() {
    let partner = partner(4).await;
    partner.handle.with_world(|world| {
        let now = world.now();
        for customer in &mut world.customers {
            customer.modules.truncate(1);
            let module = &mut customer.modules[0];
            (module.job_type, module.number) = (1, 2);
            module.runs = vec![run(2, "scope", now - 3600)];
        }
    });
    let stale_after = [("ELEMENTS_COLLECTORS__JOBS__STALE_AFTER", "2s")];
    let exporter = Program::start(&partner.base, &[], &stale_after).await;
    let tab_has_text =
        |words: &str| format!("[...document.querySelectorAll('.tabs a')].some((tab) => tab.innerText === '{words}')");
    block_in_place(|| {
        let mut browser = Browser::start();
        browser.before_each(REFRESH_OFTEN);
        browser.go(&format!("{}/", exporter.base));
        browser.wait_until(&tab_has_text("OK 4"));
        partner.handle.with_world(|world| {
            let now = world.now();
            world.customers[0].modules[0].runs.push(run(3, "scope", now - 60));
        });
        // The counts are checked together, because on a busy machine the data may become stale between two checks.
        browser.wait_until(&["OK 3", "Overdue 0", "Failing 1"].map(tab_has_text).join(" && "));
        let not_found = FaultKind::Status { code: 404, body: None };
        partner.handle.set_faults(vec![Fault::new("*jobs*", not_found)]);
        browser.wait_until(&tab_has_text("Unknown 4"));
        let counts = (tab(&mut browser, "Overdue"), tab(&mut browser, "Failing"));
        assert_eq!(counts, (json!("unknown"), json!("1")));
        assert_eq!(tab(&mut browser, "OK"), json!("0"));
        let succeeded = browser.eval("document.querySelectorAll('.customers .good').length");
        assert_eq!(succeeded, json!(0));
        let banner = browser.text(".banner");
        assert!(banner.contains("jobs: 4 customers with stale data."), "{banner}");
    });
}
