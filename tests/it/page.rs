//! The HTML pages in a real browser.
//!
//! The tests are in one long file, because they share the scripts that control the browser.

mod browser;
mod health;
mod screens;

use browser::Browser;
use elements_exporter::simulator::{Clock, Fault, FaultKind, Settings};
use serde_json::{Value, json};
use tokio::task::block_in_place;

use crate::harness::exporter::Exporter;
use crate::harness::partner::{Partner, frozen_partner, start};
use crate::harness::program::Program;
use crate::harness::{TIMEOUT, eventually, every_second_all};

/// Returns the focused element, and whether its focus is visible.
const FOCUS: &str = r#"(() => {
  const element = document.activeElement;
  const style = getComputedStyle(element);
  const box = element.getBoundingClientRect();
  return {
    name: element === document.body ? "BODY" : element.id || element.getAttribute("href") || element.textContent.trim(),
    visible: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0 && box.width > 0 && box.left >= 0,
  };
})()"#;

/// Expands the exporter's section.
const EXPAND: &str = "document.querySelector('#exporter details')?.setAttribute('open', '')";

const ALL_DATA_IS_FRESH: &str = "document.querySelector('.banner strong').innerText.startsWith('Data is up to date')";

/// Checks that the numbers of collector and token requests add up to the total.
const REQUESTS_EQUAL_TOTAL: &str = r"(() => {
  const number = (text) => Number(text.replaceAll(',', '').match(/\d+/)[0]);
  const card = (name) => [...document.querySelectorAll('.facts > div')].find((card) => card.innerText.startsWith(name)).innerText;
  const of = (name) => number(card(name).match(/([\d,]+) requests?/)[1]);
  const column = [...document.querySelectorAll('#exporter td[data-label=Requests]')].map((cell) => number(cell.innerText));
  return column.length === 6 && column.reduce((sum, one) => sum + one, of('Token')) === of('Request rate');
})()";

/// Counts the page's requests, and lets a test shorten their timeout.
const WATCH: &str = "{ const original = window.fetch; window.requested = 0; \
                     window.fetch = (...request) => { window.requested += 1; return original(...request); }; \
                     const after = AbortSignal.timeout.bind(AbortSignal); \
                     AbortSignal.timeout = (ms) => after(Math.min(ms, window.maxTimeout ?? ms)); }";

/// Shortens the refresh interval, so that tests need not wait.
const REFRESH_OFTEN: &str =
    "{ const later = window.setTimeout; window.setTimeout = (f, ms) => later(f, Math.min(ms, 100)); }";

async fn exporter(api: &str, flags: &[&str], extra_env: &[(&str, &str)]) -> Exporter {
    let variables = every_second_all(api, extra_env);
    let mut exporter = Exporter::serve(variables, flags).await;
    // URLs on pages are relative to the base URL with a trailing slash.
    exporter.base.push('/');
    exporter
}

/// Starts a simulated partner that uses the current time.
async fn partner(customers: usize) -> Partner {
    start(Settings {
        clock: Clock::Wall,
        ..frozen_partner(customers)
    })
    .await
}

/// Opens the front page, and waits until all data is fresh.
fn open_fresh_page(exporter: &Exporter) -> Browser {
    let mut browser = Browser::start();
    browser.before_each(REFRESH_OFTEN);
    browser.go(&exporter.base);
    browser.wait_until(ALL_DATA_IS_FRESH);
    browser
}

fn names(browser: &mut Browser) -> Vec<String> {
    let names = browser.eval("[...document.querySelectorAll('.customers h3')].map((name) => name.innerText)");
    serde_json::from_value(names).unwrap()
}

fn assert_quiet_console(browser: &mut Browser) {
    assert_eq!(browser.console_messages(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn front_page_starts_with_customers_and_refreshes() {
    let partner = partner(5).await;
    let exporter = exporter(&partner.base, &[], &[]).await;
    let customer = partner.handle.with_world(|world| world.customers[0].id.clone());
    block_in_place(|| {
        let mut browser = open_fresh_page(&exporter);
        browser.screenshot("fresh");
        assert_eq!(browser.text("h1"), "elements_exporter");
        let banner = browser.text(".banner");
        for part in ["Data is up to date, oldest ", "API up · 5 customers"] {
            assert!(banner.contains(part), "{banner} lacks {part}");
        }
        assert_eq!(browser.text(".banner ul"), "", "the banner must not list problems");
        let is_after =
            "document.querySelector('.customers').compareDocumentPosition(document.querySelector('#exporter')) & 4";
        assert_eq!(browser.eval(is_after), json!(4), "customers must come first");
        assert_eq!(
            browser.eval("document.querySelector('#exporter details').open"),
            json!(false)
        );
        browser.eval(EXPAND);
        let facts = browser.text(".facts");
        for part in [
            "API\nup",
            "min left",
            "1000/s",
            " requests in total, ",
            "Uptime",
            "elements.yml",
            "/etc/elements_exporter/elements.yml, loaded",
        ] {
            assert!(facts.contains(part), "{facts} lacks {part}");
        }
        let collectors = browser.eval(
            "[...document.querySelectorAll('#exporter tbody th')].map((head) => head.innerText + ' ' + \
             head.parentElement.children[1].innerText + ' ' + head.parentElement.children[4].innerText)",
        );
        let expected = elements_exporter::collector::ALL
            .iter()
            .filter(|entry| !entry.is_optional);
        let expected: Vec<String> = expected.map(|entry| format!("{} granted 5", entry.name)).collect();
        assert_eq!(collectors, json!(expected));
        for link in ["metrics", "dashboards/", "rules/", "runbooks/"] {
            let has_link = format!("!!document.querySelector('nav a[href=\"./{link}\"]')");
            assert_eq!(browser.eval(&has_link), json!(true), "{link}");
        }
        browser.wait_until(REQUESTS_EQUAL_TOTAL);
        assert!(browser.text("footer").contains(env!("CARGO_PKG_VERSION")));
        let customers = browser.text(".customers");
        assert!(
            customers.contains("restore point") && customers.contains(" ago"),
            "{customers}"
        );

        // The page changes without being reloaded.
        browser.eval("window.marked = true");
        partner.handle.set_faults(vec![Fault::new(
            "/partner/*customers/batch",
            FaultKind::Status { code: 404, body: None },
        )]);
        browser.wait_until("document.querySelector('.banner').innerText.includes('status 404')");
        assert_eq!(browser.eval("window.marked"), json!(true));
        let banner = browser.text(".banner");
        for part in [
            "Customer list unavailable, last fetched ",
            " UTC.",
            "customers: the latest poll failed.",
        ] {
            assert!(banner.contains(part), "{banner} lacks {part}");
        }
        assert_eq!(
            browser.eval("document.querySelector('#exporter details').open"),
            json!(true),
            "the section was collapsed"
        );
        assert!(browser.text(".facts").contains("API\ndown: no customer list"));
        browser
            .wait_until("document.querySelector('#exporter').innerText.includes('Last error customers: status 404')");

        // A failure that affects one customer is displayed with that customer.
        let customer_jobs = format!("/partner/*customers/{customer}/*jobs/batch");
        let forbidden = FaultKind::Status { code: 403, body: None };
        partner.handle.set_faults(vec![Fault::new(&customer_jobs, forbidden)]);
        browser.wait_until("document.querySelector('.banner strong').innerText.startsWith('Some data is out of date')");
        browser.wait_until("document.querySelector('.customers').innerText.includes('Last error jobs: status 403')");
        browser.go(&format!("{}customers/{customer}", exporter.base));
        let sources = browser.text("#sources");
        assert!(
            sources.contains("forbidden") && sources.contains("jobs: status 403"),
            "{sources}"
        );
        assert!(browser.text("#health").contains("backup status unknown"));
        browser.screenshot("customer");
        assert!(browser.text("#modules").contains("Latest restore point"));
        let link = browser.eval("document.querySelector('a[href*=\"customer_id=\"]').href");
        let link = reqwest::Url::parse(link.as_str().unwrap()).unwrap();
        assert_eq!(link.path(), "/metrics");
        assert_eq!(
            link.query_pairs().next(),
            Some(("customer_id".into(), customer.as_str().into()))
        );
        assert_quiet_console(&mut browser);

        // After its customer is removed, the page says so, instead of reporting that the exporter is unreachable.
        browser.go(&format!("{}customers/{customer}", exporter.base));
        partner.handle.clear_faults();
        partner
            .handle
            .with_world(|world| world.customers.retain(|other| other.id != customer));
        browser.wait_until("document.body.innerText.includes('No customer with this id is known')");
        browser.go(&exporter.base);

        // After the exporter has stopped, the open page reports that the exporter is unreachable.
        drop(exporter);
        browser.wait_until("!document.getElementById('lost').hidden");
    });
}

/// Starts an exporter, and returns its page once the page contains `expected`.
async fn page_that_contains(base: &str, settings: &[(&str, &str)], expected: &str) -> String {
    let exporter = Program::start(base, &[], settings).await;
    eventually(expected, || async {
        let page = exporter.get("/").await.text().await.unwrap();
        Some(page).filter(|page| page.contains(expected))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn page_shows_no_status_that_is_not_collected() {
    let partner = partner(5).await;
    let off = [("ELEMENTS_COLLECTORS__JOBS__ENABLED", "false")];
    let page = page_that_contains(&partner.base, &off, "Unknown 5").await;
    assert!(page.contains("Backup status is not collected"));
    assert!(page.contains("jobs: disabled"), "the reason must be displayed");
    assert!(page.contains("Overdue unknown") && page.contains("Failing unknown") && page.contains("OK 0"));

    let no_match = [("ELEMENTS_CUSTOMERS__INCLUDE", "No such customer")];
    let page = page_that_contains(&partner.base, &no_match, "No customers match.").await;
    assert!(!page.contains("Data is up to date"));

    let wrong_secret = [("ELEMENTS_AUTH__CLIENT_SECRET", "not-the-secret")];
    page_that_contains(&partner.base, &wrong_secret, "No API token. No data yet.").await;

    let jobs = Fault::new("*jobs*", FaultKind::Status { code: 500, body: None });
    partner.handle.set_faults(vec![jobs]);
    let page = page_that_contains(&partner.base, &[], "Most data is out of date").await;
    assert!(
        page.contains("Overdue unknown") && !page.contains("customers failed"),
        "{page}"
    );
    page_that_contains(&partner.base, &[], "jobs: 5 failed polls.").await;
    // Even a cycle without a successful poll has a duration.
    page_that_contains(&partner.base, &[], "<small>cycle ").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn page_reports_a_hanging_exporter_and_keeps_its_state() {
    let partner = partner(5).await;
    let exporter = Program::start(&partner.base, &[], &[]).await;
    block_in_place(|| {
        let mut browser = Browser::start();
        browser.before_each(REFRESH_OFTEN);
        browser.before_each(WATCH);
        browser.go(&format!("{}/", exporter.base));
        browser.wait_until(ALL_DATA_IS_FRESH);
        browser.wait_until("!!document.querySelector('.customers details')");

        // Expanded sections and the focus are preserved while the content around them is replaced.
        browser.eval(
            "{ const details = document.querySelector('.customers details'); details.open = true; \
             details.querySelector('summary').focus(); window.key = details.dataset.key; window.part = document.getElementById('customers'); }",
        );
        browser.wait_until("!window.part.isConnected");
        let state = browser.eval(
            "[document.querySelector(`.customers details[data-key=\"${window.key}\"]`).open, \
             document.activeElement.closest('details')?.dataset.key === window.key]",
        );
        assert_eq!(state, json!([true, true]));

        // A scrolled section keeps its position and the focus.
        browser.eval(
            "{ document.styleSheets[0].insertRule('.scroll > table { width: 200rem }'); \
             document.querySelector('#exporter details').open = true; const box = document.querySelector('#exporter .scroll'); box.focus(); box.scrollLeft = 120; \
             window.part = document.getElementById('exporter'); }",
        );
        browser.wait_until("!window.part.isConnected");
        let scroll_state = browser.eval(
            "[document.activeElement === document.querySelector('#exporter .scroll'), \
             document.querySelector('#exporter .scroll').scrollLeft]",
        );
        assert_eq!(scroll_state, json!([true, 120]));

        // While text is selected, the page still sends requests, but keeps its content and its date.
        browser.eval(
            "{ getSelection().selectAllChildren(document.querySelector('.banner strong')); \
             window.selected = document.querySelector('.banner strong'); window.requested = 0; \
             window.since = Date.now(); window.date = document.getElementById('as-of').innerText; }",
        );
        browser.wait_until("window.requested > 5 && Date.now() - window.since > 2500");
        let selection_is_kept = "[window.selected.isConnected, getSelection().toString() === window.selected.innerText, \
                      document.getElementById('as-of').innerText === window.date, document.getElementById('lost').hidden]";
        assert_eq!(browser.eval(selection_is_kept), json!([true, true, true, true]));

        // A hanging exporter still accepts connections. The page must nevertheless report that its data is outdated.
        browser.eval("window.maxTimeout = 500");
        exporter.signal("STOP");
        browser.wait_until("!document.getElementById('lost').hidden && document.body.classList.contains('lost')");
        browser.screenshot("hung");
        assert_eq!(browser.eval(selection_is_kept), json!([true, true, true, false]));
        exporter.signal("CONT");
        browser.wait_until("document.getElementById('lost').hidden && !document.body.classList.contains('lost')");
        browser.eval("getSelection().removeAllRanges()");
        browser.wait_until("document.getElementById('as-of').innerText !== window.date");
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn customers_with_path_like_ids_have_pages() {
    let partner = partner(3).await;
    partner.handle.with_world(|world| {
        for (customer, id) in world.customers.iter_mut().zip([".", "..", "a/b?c#d%2e"]) {
            customer.id = id.to_owned();
            customer.organization = format!("Known as {id}");
        }
    });
    let exporter = exporter(&partner.base, &[], &[]).await;
    block_in_place(|| {
        let mut browser = Browser::start();
        browser.before_each(REFRESH_OFTEN);
        for id in [".", "..", "a/b?c#d%2e"] {
            browser.go(&exporter.base);
            browser.wait_until("document.querySelectorAll('.customers > li').length === 3");
            let name = format!("Known as {id}");
            browser.eval(&format!(
                "[...document.querySelectorAll('h3 a')].find((link) => link.innerText === {}).click()",
                json!(name)
            ));
            browser.wait_until("location.pathname.includes('/customers/')");
            assert_eq!(browser.text("main h2"), name);
            // Pausing and resuming do not navigate to another page.
            for word in ["pause", "resume"] {
                browser.eval(&format!(
                    "[...document.querySelectorAll('footer a')].find((link) => link.innerText === '{word}').click()"
                ));
                let other = if word == "pause" { "resume" } else { "pause" };
                browser.wait_until(&format!(
                    "[...document.querySelectorAll('footer a')].some((link) => link.innerText === '{other}')"
                ));
                assert_eq!(browser.text("main h2"), name);
            }
        }
        assert_quiet_console(&mut browser);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn customers_are_searched_filtered_and_paged() {
    let partner = partner(60).await;
    partner.handle.with_world(|world| {
        for (number, customer) in world.customers.iter_mut().enumerate() {
            customer.organization = format!("Fabrikam {number:02}");
        }
        world.customers[17].organization = "Łódź Ärzte & Söhne".to_owned();
    });
    let exporter = exporter(&partner.base, &[], &[]).await;
    let id = partner.handle.with_world(|world| world.customers[17].id.clone());
    block_in_place(|| {
        let mut browser = open_fresh_page(&exporter);
        let first = names(&mut browser);
        assert_eq!(first.len(), 25);
        browser.eval("[...document.querySelectorAll('.pages a')].find((link) => link.innerText === 'Last').click()");
        browser.wait_until(
            "location.search.includes('page=3') && document.querySelectorAll('.customers > li').length === 10",
        );
        let last = names(&mut browser);
        assert!(last.iter().all(|name| !first.contains(name)));
        assert!(browser.text(".pages").contains("Page 3 of 3"));

        browser.eval("document.getElementById('q').focus()");
        browser.write("łódź ä");
        browser.enter();
        browser
            .wait_until("location.search.includes('q=') && document.querySelectorAll('.customers > li').length === 1");
        assert_eq!(names(&mut browser), ["Łódź Ärzte & Söhne"]);
        assert_eq!(browser.eval("document.getElementById('q').value"), json!("łódź ä"));
        browser.go(&format!("{}?q={}", exporter.base, &id[..13]));
        assert_eq!(names(&mut browser), ["Łódź Ärzte & Söhne"]);
        browser.go(&format!("{}?q=nobody&page=7", exporter.base));
        assert!(browser.text("#customers").contains("No customers match."));

        // The worst customers come first, and each filter selects the number of customers that its tab displays.
        browser.go(&exporter.base);
        let ranks = browser.eval(
            "[...document.querySelectorAll('.customers .chips > :first-child')].map((chip) => \
             ['overdue', 'failing', 'unknown', 'outdated', 'pending', 'OK'].findIndex((word) => chip.innerText.includes(word)))",
        );
        let ranks: Vec<i64> = serde_json::from_value(ranks).unwrap();
        assert!(ranks.is_sorted() && ranks.iter().all(|rank| *rank >= 0), "{ranks:?}");
        let counts =
            browser.eval("[...document.querySelectorAll('.tabs a')].map((tab) => +tab.innerText.split(' ').pop())");
        let counts: Vec<u64> = serde_json::from_value(counts).unwrap();
        assert_eq!(counts[0], 60);
        assert!(
            counts[1..].iter().all(|count| *count <= 60) && counts[6] < 60,
            "{counts:?}"
        );
        browser.go(&format!("{}?show=overdue", exporter.base));
        let range = browser.text(".pages");
        assert!(range.contains(&format!("{} customer", counts[1])), "{range} {counts:?}");
        assert_quiet_console(&mut browser);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn hostile_names_run_no_scripts_and_addresses_are_masked() {
    const HOSTILE: &str = "</title><script>window.taken=1</script>\"'><img src=x onerror=\"window.taken=2\"><b>&amp;";
    let partner = partner(2).await;
    let id = partner.handle.with_world(|world| {
        world.customers[0].organization = HOSTILE.to_owned();
        world.customers[1].organization = "Ann ann.owner@contoso.example".to_owned();
        world.customers[0].id.clone()
    });
    let exporter = exporter(&partner.base, &[], &[("ELEMENTS_METRICS__OWNER_EMAIL", "true")]).await;
    block_in_place(|| {
        let mut browser = open_fresh_page(&exporter);
        let search = format!(
            "{}?q=%22%3E%3Cimg%20src%3Dx%20onerror%3Dwindow.taken%3D3%3E",
            exporter.base
        );
        for url in [
            exporter.base.clone(),
            format!("{}customers/{id}", exporter.base),
            search,
            format!("{}?q=%3C/title%3E&show=%22%3E%3Cimg%3E", exporter.base),
        ] {
            browser.go(&url);
            assert_eq!(
                browser.eval(
                    "[typeof window.taken, document.images.length, document.querySelectorAll('main b b').length]"
                ),
                json!(["undefined", 0, 0]),
                "{url}"
            );
            assert_eq!(
                browser.eval("document.documentElement.innerText.includes('@') || document.documentElement.innerHTML.includes('contoso.example')"),
                json!(false),
                "{url}"
            );
        }
        browser.go(&exporter.base);
        assert!(names(&mut browser).contains(&HOSTILE.to_owned()));
        assert!(names(&mut browser).contains(&"Ann (email address)".to_owned()));
        browser.eval("[...document.querySelectorAll('h3 a')].find((link) => link.innerText.includes('img')).click()");
        browser.wait_until("location.pathname.includes('/customers/')");
        assert_eq!(browser.text("main h2"), HOSTILE);
        assert_quiet_console(&mut browser);
        // Even if a name were not escaped, the content security policy would prevent scripts from running.
        browser.eval("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.taken=4\">')");
        browser.eval("{ const s = document.createElement('script'); s.textContent = 'window.taken = 5'; document.body.append(s); }");
        assert_eq!(browser.eval("typeof window.taken"), json!("undefined"));
        assert!(
            browser
                .console_messages()
                .iter()
                .any(|printed| printed.contains("Content Security Policy"))
        );
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn controls_are_reachable_by_keyboard_with_visible_focus() {
    let partner = partner(3).await;
    let exporter = exporter(&partner.base, &[], &[]).await;
    block_in_place(|| {
        let mut browser = open_fresh_page(&exporter);
        // Refreshing is turned off, so that nothing is replaced between two key presses.
        browser.go(&format!("{}?live=off", exporter.base));
        let mut reached: Vec<String> = Vec::new();
        loop {
            browser.tab();
            let focus = browser.eval(FOCUS);
            let name = focus["name"].as_str().unwrap().to_owned();
            if name == "BODY" || reached.len() > 60 || reached.first() == Some(&name) {
                break;
            }
            assert_eq!(
                focus["visible"],
                json!(true),
                "{name} has the focus, but no visible outline"
            );
            reached.push(name);
        }
        let place = |text: &str| reached.iter().position(|name| name.contains(text));
        let order = [
            "#content",
            "./",
            "metrics",
            "runbooks/",
            "q",
            "Search",
            "show=overdue",
            "customers/",
            "./",
        ];
        let places: Vec<_> = order.iter().map(|text| place(text)).collect();
        assert!(places.iter().all(Option::is_some), "{reached:?}");
        assert!(places[..8].is_sorted(), "{reached:?}");
        let customers = reached.iter().filter(|name| name.starts_with("customers/")).count();
        assert_eq!(customers, 3, "{reached:?}");
        // The first link skips the header.
        browser.go(&exporter.base);
        browser.tab();
        browser.enter();
        browser.wait_until("location.hash === '#content'");
        assert_quiet_console(&mut browser);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn page_is_complete_without_scripts() {
    let partner = partner(30).await;
    let exporter = exporter(&partner.base, &[], &[]).await;
    block_in_place(|| {
        let mut browser = open_fresh_page(&exporter);
        browser.without_scripts();
        browser.go(&exporter.base);
        assert!(browser.text(".banner").contains("Data is up to date"));
        assert_eq!(names(&mut browser).len(), 25);
        let refresh_seconds = browser.eval("document.querySelector('noscript meta')?.content ?? null");
        assert_eq!(refresh_seconds, json!("60"));
        browser.eval("document.getElementById('q').focus()");
        let name = names(&mut browser).remove(7);
        browser.write(&name);
        browser.enter();
        browser.wait_until("location.search.includes('q=')");
        assert!(names(&mut browser).contains(&name));
        browser.go(&format!("{}?live=off", exporter.base));
        assert_eq!(browser.eval("document.querySelector('noscript meta')"), Value::Null);
        assert_quiet_console(&mut browser);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn links_work_below_any_prefix() {
    let partner = partner(3).await;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().build().unwrap();
    for flags in [
        &[][..],
        &["--web.route-prefix=/a/b"],
        &["--web.external-url=https://monitoring.example.com/elements/"],
        &["--web.telemetry-path=/scrape/here"],
    ] {
        let exporter = exporter(&partner.base, flags, &[]).await;
        let base = reqwest::Url::parse(&exporter.base).unwrap();
        let has_customers = || async {
            let text = client.get(base.clone()).send().await.unwrap().text().await.unwrap();
            text.contains("href=\"customers/").then_some(())
        };
        eventually("customers are listed", has_customers).await;
        let mut visited = vec![base.clone()];
        let mut next = 0;
        while next < visited.len() && next < 200 {
            let url = visited[next].clone();
            next += 1;
            let response = client.get(url.clone()).send().await.unwrap();
            assert_eq!(response.status().as_u16(), 200, "{url}");
            let is_page = response.headers()["content-type"]
                .to_str()
                .unwrap()
                .starts_with("text/html");
            if !is_page {
                continue;
            }
            let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
            assert!(
                header("content-security-policy").starts_with("default-src 'none';"),
                "{url}"
            );
            assert_eq!(header("x-content-type-options"), "nosniff");
            assert_eq!(header("referrer-policy"), "no-referrer");
            let text = response.text().await.unwrap();
            for (_, rest) in text
                .match_indices("href=\"")
                .map(|(at, quote)| text[at..].split_at(quote.len()))
            {
                let link = rest.split('"').next().unwrap().replace("&amp;", "&");
                let mut target = url.join(&link).unwrap();
                target.set_fragment(None);
                if target.scheme() != "data" && !visited.contains(&target) {
                    assert!(target.as_str().starts_with(base.as_str()), "{link} is not below {base}");
                    visited.push(target);
                }
            }
        }
        for shortened in ["customers", "customers/", "rules"] {
            let response = client.get(base.join(shortened).unwrap()).send().await.unwrap();
            assert_eq!(response.status().as_u16(), 200, "{shortened}");
            let target = if shortened == "rules" {
                base.join("rules/").unwrap()
            } else {
                base.clone()
            };
            assert_eq!(*response.url(), target, "{shortened}");
        }
        for unknown in ["customers/nobody", "customers/?id=nobody"] {
            let response = client.get(base.join(unknown).unwrap()).send().await.unwrap();
            assert_eq!(response.status().as_u16(), 404, "{unknown}");
            let text = response.text().await.unwrap();
            assert!(
                text.contains("No customer with this id is known")
                    && text.contains("<a href=\"../\">All customers</a>"),
                "{text}"
            );
        }
        for path in ["dashboards/", "rules/", "runbooks/", "-/healthy"] {
            assert!(visited.contains(&base.join(path).unwrap()), "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn page_with_ten_thousand_customers_works() {
    let partner = partner(10_000).await;
    let off = ["JOBS", "PROTECTED", "LICENSES", "SCAN_PROFILES", "SCAN_CHANGES"]
        .map(|name| format!("ELEMENTS_COLLECTORS__{name}__ENABLED"));
    let extra_env: Vec<(&str, &str)> = off.iter().map(|name| (name.as_str(), "false")).collect();
    let exporter = exporter(&partner.base, &[], &extra_env).await;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().timeout(TIMEOUT).build().unwrap();
    let get = |query: &str| {
        let request = client.get(format!("{}{query}", exporter.base));
        async move { request.send().await.unwrap().text().await.unwrap() }
    };
    eventually("all customers are listed", || async {
        get("").await.contains("10,000 customers</span>").then_some(())
    })
    .await;
    let customers = |text: &str| text.matches("href=\"customers/").count();
    let (first, last) = (get("").await, get("?page=400").await);
    assert!(first.contains("Page 1 of 400") && last.contains("Page 400 of 400"));
    assert_eq!((customers(&first), customers(&last)), (25, 25));
    assert_eq!(customers(&get("?page=401").await), 25);
    assert!(first.len() < 100_000, "{}", first.len());
}
