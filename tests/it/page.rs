//! The pages for people, in a real browser.

mod browser;

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use browser::Browser;
use elements_exporter::app::{App, load_config};
use elements_exporter::args;
use elements_exporter::simulator::{Clock, Fault, FaultKind, Settings};
use serde_json::{Value, json};
use tokio::task::block_in_place;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::program::Program;
use crate::support::{environment, eventually};
use crate::world::{Partner, start, still};

/// The colours of every piece of text that is in sight and whose contrast is less than WCAG 2.2 asks for at level AA.
const POOR_CONTRAST: &str = r#"(() => {
  const parse = (text) => {
    const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number);
    return { r, g, b, a };
  };
  const over = (top, ground) => ({
    r: top.r * top.a + ground.r * (1 - top.a), g: top.g * top.a + ground.g * (1 - top.a),
    b: top.b * top.a + ground.b * (1 - top.a), a: 1,
  });
  const ground = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.push(parse(getComputedStyle(at).backgroundColor));
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    let colour = dark ? { r: 18, g: 18, b: 18, a: 1 } : { r: 255, g: 255, b: 255, a: 1 };
    for (const layer of layers.reverse()) colour = over(layer, colour);
    return colour;
  };
  const light = ({ r, g, b }) => {
    const [x, y, z] = [r, g, b].map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const contrast = (one, other) => {
    const [high, low] = [light(one), light(other)].sort((a, b) => b - a);
    return (high + 0.05) / (low + 0.05);
  };
  const poor = [];
  let looked = 0;
  const look = (element, style, text) => {
    const behind = ground(element);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    const ratio = contrast(over(parse(style.color), behind), behind);
    looked += 1;
    if (ratio < (large ? 3 : 4.5)) poor.push(`${ratio.toFixed(2)} ${text}`);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const text = walker.currentNode.textContent.trim();
    if (!text || ["SCRIPT", "STYLE", "NOSCRIPT"].includes(element.tagName) || !element.checkVisibility()) continue;
    look(element, getComputedStyle(element), text);
  }
  for (const input of document.querySelectorAll("input[placeholder]")) {
    look(input, getComputedStyle(input, "::placeholder"), input.placeholder);
  }
  return { poor, looked };
})()"#;

/// What has the focus, and whether it can be seen to have it.
const FOCUS: &str = r#"(() => {
  const element = document.activeElement;
  const style = getComputedStyle(element);
  const box = element.getBoundingClientRect();
  return {
    is: element === document.body ? "BODY" : element.id || element.getAttribute("href") || element.textContent.trim(),
    seen: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0 && box.width > 0 && box.left >= 0,
  };
})()"#;

const EVERYTHING_IS_FRESH: &str = "document.querySelector('.verdict strong').innerText.startsWith('Yes')";

/// What each collector and the token took is what all took.
const REQUESTS_ADD_UP: &str = r"(() => {
  const number = (text) => Number(text.replaceAll(',', '').match(/\d+/)[0]);
  const card = (name) => [...document.querySelectorAll('.facts > div')].find((card) => card.innerText.startsWith(name)).innerText;
  const of = (name) => number(card(name).match(/([\d,]+) requests?/)[1]);
  const column = [...document.querySelectorAll('#collectors td[data-label=Requests]')].map((cell) => number(cell.innerText));
  return column.length === 6 && column.reduce((sum, one) => sum + one, of('Token')) === of('Rate');
})()";

/// Counts how often the page asks, and loses patience with an exporter that hangs sooner than it would for a person.
const WATCH: &str = "{ const ask = window.fetch; window.asked = 0; \
                     window.fetch = (...what) => { window.asked += 1; return ask(...what); }; \
                     const after = AbortSignal.timeout.bind(AbortSignal); \
                     AbortSignal.timeout = (ms) => after(Math.min(ms, 500)); }";

/// Renews the page often, so that a test need not wait.
const HASTEN: &str = "{ const later = window.setTimeout; window.setTimeout = (f, ms) => later(f, Math.min(ms, 100)); }";

/// An exporter in this process that polls every second.
struct Exporter {
    base: String,
    _stop: DropGuard,
}

async fn exporter(api: &str, flags: &[&str], more: &[(&str, &str)]) -> Exporter {
    let mut variables = environment(api, more);
    for name in [
        "CUSTOMERS",
        "JOBS",
        "PROTECTED",
        "LICENSES",
        "SCAN_PROFILES",
        "SCAN_CHANGES",
    ] {
        variables.push((format!("ELEMENTS_COLLECTORS__{name}__INTERVAL").into(), "1s".into()));
        variables.push((format!("ELEMENTS_COLLECTORS__{name}__STALE_AFTER").into(), "1h".into()));
    }
    let flags = [&["", "--web.listen-address=127.0.0.1:0"], flags].concat();
    let web = args::parse(flags.into_iter().map(OsString::from)).unwrap().web;
    let prefix = web.route_prefix.clone();
    let app = App::bind(
        Arc::new(move || load_config(None, variables.clone())),
        web,
        "Under test.".to_owned(),
    )
    .await
    .unwrap()
    .read_from(Some("/etc/elements_exporter/elements.yml".into()));
    let base = format!("http://{}{prefix}/", app.addresses()[0]);
    let stop = CancellationToken::new();
    tokio::spawn(app.run(stop.clone()));
    Exporter {
        base,
        _stop: stop.drop_guard(),
    }
}

/// A partner whose time is ours.
async fn partner(customers: usize) -> Partner {
    start(Settings {
        clock: Clock::Wall,
        ..still(customers)
    })
    .await
}

/// A browser at the front page of an exporter whose data is all fresh.
fn settled(exporter: &Exporter) -> Browser {
    let mut browser = Browser::start();
    browser.before_each(HASTEN);
    browser.go(&exporter.base);
    browser.until(EVERYTHING_IS_FRESH);
    browser
}

fn names(browser: &mut Browser) -> Vec<String> {
    let names = browser.eval("[...document.querySelectorAll('.people h3')].map((name) => name.innerText)");
    serde_json::from_value(names).unwrap()
}

fn is_quiet(browser: &mut Browser) {
    assert_eq!(browser.complaints(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_tells_at_a_glance_how_things_stand_and_renews_itself() {
    let partner = partner(5).await;
    let exporter = exporter(&partner.base, &[], &[]).await;
    let customer = partner.handle.with_world(|world| world.customers[0].id.clone());
    block_in_place(|| {
        let mut browser = settled(&exporter);
        browser.picture("fresh");
        assert_eq!(browser.text("h1"), "elements_exporter");
        let facts = browser.text(".facts");
        for part in [
            "API\nup",
            "Customers\n5",
            "min left",
            "1000/s",
            " requests in all, ",
            "Uptime",
            "elements.yml",
            "/etc/elements_exporter/elements.yml, read",
        ] {
            assert!(facts.contains(part), "{facts} lacks {part}");
        }
        let collectors = browser.eval(
            "[...document.querySelectorAll('#collectors tbody th')].map((head) => head.innerText + ' ' + \
             head.parentElement.children[1].innerText + ' ' + head.parentElement.children[5].innerText)",
        );
        let expected = elements_exporter::collector::ALL.iter();
        let expected: Vec<String> = expected.map(|entry| format!("{} yes 5", entry.name)).collect();
        assert_eq!(collectors, json!(expected));
        for link in ["metrics", "dashboards/", "rules/", "runbooks/"] {
            let there = format!("!!document.querySelector('nav a[href=\"./{link}\"]')");
            assert_eq!(browser.eval(&there), json!(true), "{link}");
        }
        browser.until(REQUESTS_ADD_UP);
        assert!(browser.text("footer").contains(env!("CARGO_PKG_VERSION")));
        let people = browser.text(".people");
        assert!(people.contains("restore point") && people.contains(" ago"), "{people}");

        // The page changes without being loaded anew.
        browser.eval("window.marked = true");
        partner.handle.set_faults(vec![Fault::new(
            "/partner/*customers/batch",
            FaultKind::Status { code: 404, body: None },
        )]);
        browser.until("document.querySelector('.verdict').innerText.includes('status 404')");
        browser.picture("down");
        assert_eq!(browser.eval("window.marked"), json!(true));
        let verdict = browser.text(".verdict");
        assert!(
            verdict.contains("Not any more: the API does not tell the customers"),
            "{verdict}"
        );
        assert!(browser.text(".facts").contains("API\ndown"));
        browser.until("document.querySelector('#collectors').innerText.includes('Last error customers: status 404')");

        // What fails of one customer is said of that customer.
        let of_one = format!("/partner/*customers/{customer}/*jobs/batch");
        let refusal = FaultKind::Status { code: 403, body: None };
        partner.handle.set_faults(vec![Fault::new(&of_one, refusal)]);
        browser.until("document.querySelector('.verdict strong').innerText.startsWith('Mostly')");
        browser.until("document.querySelector('.people').innerText.includes('Last error jobs: status 403')");
        browser.go(&format!("{}customers/{customer}", exporter.base));
        let answers = browser.text("#answers");
        assert!(
            answers.contains("forbidden") && answers.contains("jobs: status 403"),
            "{answers}"
        );
        browser.picture("customer");
        assert!(browser.text("#modules").contains("Restore point"));
        let link = browser.eval("document.querySelector('a[href*=\"customer_id=\"]').href");
        let link = reqwest::Url::parse(link.as_str().unwrap()).unwrap();
        assert_eq!(link.path(), "/metrics");
        assert_eq!(
            link.query_pairs().next(),
            Some(("customer_id".into(), customer.as_str().into()))
        );
        is_quiet(&mut browser);

        // A customer that is gone is said to be, and not the exporter.
        browser.go(&format!("{}customers/{customer}", exporter.base));
        partner.handle.clear_faults();
        partner
            .handle
            .with_world(|world| world.customers.retain(|known| known.id != customer));
        browser.until("document.body.innerText.includes('No customer of this id is known')");
        browser.go(&exporter.base);

        // An exporter that is gone is said to be, by what it left on the screen.
        drop(exporter);
        browser.until("!document.getElementById('lost').hidden");
    });
}

/// The page's answer to whether the data is true, once it begins as wanted.
async fn verdict(base: &str, settings: &[(&str, &str)], wanted: &str) -> String {
    let exporter = Program::start(base, &[], settings).await;
    eventually(wanted, || async {
        let page = exporter.get("/").await.text().await.unwrap();
        Some(page).filter(|page| page.contains(wanted))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_true_that_is_not_looked_at() {
    let partner = partner(5).await;
    let off = [("ELEMENTS_COLLECTORS__JOBS__ENABLED", "false")];
    let page = verdict(&partner.base, &off, "Not known 5").await;
    assert!(page.contains("Not of backups: jobs are not collected."));
    assert!(page.contains("jobs: switched off"), "it says why");
    assert!(page.contains("their backups are not known") && page.contains("Fine 0"));

    let nobody = [("ELEMENTS_CUSTOMERS__INCLUDE", "Nobody of that name")];
    let page = verdict(&partner.base, &nobody, "There is nobody").await;
    assert!(!page.contains("Yes: everything is fresh"));

    let wrong = [("ELEMENTS_AUTH__CLIENT_SECRET", "not-the-secret")];
    verdict(&partner.base, &wrong, "No: there has never been a token").await;

    let jobs = Fault::new("*jobs*", FaultKind::Status { code: 500, body: None });
    partner.handle.set_faults(vec![jobs]);
    verdict(&partner.base, &[], "No: much of it is not fresh.").await;
    // A round without a success has no newest one to tell of, and took its time all the same.
    verdict(&partner.base, &[], "<small>took ").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_says_when_the_exporter_hangs_and_takes_nothing_from_whoever_reads() {
    let partner = partner(5).await;
    let exporter = Program::start(&partner.base, &[], &[]).await;
    block_in_place(|| {
        let mut browser = Browser::start();
        browser.before_each(HASTEN);
        browser.before_each(WATCH);
        browser.go(&format!("{}/", exporter.base));
        browser.until(EVERYTHING_IS_FRESH);
        browser.until("!!document.querySelector('.people details')");

        // What is open stays open and what has the focus keeps it, while the parts around it are exchanged.
        browser.eval(
            "{ const more = document.querySelector('.people details'); more.open = true; \
             more.querySelector('summary').focus(); window.key = more.dataset.key; window.part = document.getElementById('customers'); }",
        );
        browser.until("!window.part.isConnected");
        let kept = browser.eval(
            "[document.querySelector(`.people details[data-key=\"${window.key}\"]`).open, \
             document.activeElement.closest('details')?.dataset.key === window.key]",
        );
        assert_eq!(kept, json!([true, true]));

        // A part that is scrolled stays where it is, with the focus in it.
        browser.eval(
            "{ document.styleSheets[0].insertRule('.scroll > table { width: 200rem }'); \
             const box = document.querySelector('#collectors .scroll'); box.focus(); box.scrollLeft = 120; \
             window.part = document.getElementById('collectors'); }",
        );
        browser.until("!window.part.isConnected");
        let stays = browser.eval(
            "[document.activeElement === document.querySelector('#collectors .scroll'), \
             document.querySelector('#collectors .scroll').scrollLeft]",
        );
        assert_eq!(stays, json!([true, 120]));

        // What is selected is not taken away: the whole page stands still, its date too.
        browser.eval(
            "{ getSelection().selectAllChildren(document.querySelector('.verdict strong')); \
             window.selected = document.querySelector('.verdict strong'); window.asked = 0; \
             window.since = Date.now(); window.date = document.getElementById('as-of').innerText; }",
        );
        browser.until("window.asked > 5 && Date.now() - window.since > 2500");
        let stands = "[window.selected.isConnected, getSelection().toString() === window.selected.innerText, \
                      document.getElementById('as-of').innerText === window.date, document.getElementById('lost').hidden]";
        assert_eq!(browser.eval(stands), json!([true, true, true, true]));

        // An exporter that hangs still takes connections. That it is out of date is said even then.
        exporter.signal("STOP");
        browser.until("!document.getElementById('lost').hidden && document.body.classList.contains('lost')");
        browser.picture("hung");
        assert_eq!(browser.eval(stands), json!([true, true, true, false]));
        exporter.signal("CONT");
        browser.until("document.getElementById('lost').hidden && !document.body.classList.contains('lost')");
        browser.eval("getSelection().removeAllRanges()");
        browser.until("document.getElementById('as-of').innerText !== window.date");
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn customers_whose_ids_are_ways_have_pages_too() {
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
        browser.before_each(HASTEN);
        for id in [".", "..", "a/b?c#d%2e"] {
            browser.go(&exporter.base);
            browser.until("document.querySelectorAll('.people > li').length === 3");
            let name = format!("Known as {id}");
            browser.eval(&format!(
                "[...document.querySelectorAll('h3 a')].find((link) => link.innerText === {}).click()",
                json!(name)
            ));
            browser.until("location.pathname.includes('/customers/') && document.readyState === 'complete'");
            assert_eq!(browser.text("main h2"), name);
            // Pausing stays on the page, and so does going on.
            for word in ["pause", "resume"] {
                browser.eval(&format!(
                    "[...document.querySelectorAll('footer a')].find((link) => link.innerText === '{word}').click()"
                ));
                let other = if word == "pause" { "resume" } else { "pause" };
                browser.until(&format!(
                    "document.readyState === 'complete' && [...document.querySelectorAll('footer a')].some((link) => link.innerText === '{other}')"
                ));
                assert_eq!(browser.text("main h2"), name);
            }
        }
        is_quiet(&mut browser);
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
        let mut browser = settled(&exporter);
        let first = names(&mut browser);
        assert_eq!(first.len(), 25);
        browser.eval("[...document.querySelectorAll('.pages a')].find((link) => link.innerText === 'Last').click()");
        browser.until("location.search.includes('page=3') && document.querySelectorAll('.people > li').length === 10");
        let last = names(&mut browser);
        assert!(last.iter().all(|name| !first.contains(name)));
        assert!(browser.text(".pages").contains("Page 3 of 3"));

        browser.eval("document.getElementById('q').focus()");
        browser.write("łódź ä");
        browser.enter();
        browser.until("location.search.includes('q=') && document.querySelectorAll('.people > li').length === 1");
        assert_eq!(names(&mut browser), ["Łódź Ärzte & Söhne"]);
        assert_eq!(browser.eval("document.getElementById('q').value"), json!("łódź ä"));
        browser.go(&format!("{}?q={}", exporter.base, &id[..13]));
        assert_eq!(names(&mut browser), ["Łódź Ärzte & Söhne"]);
        browser.go(&format!("{}?q=nobody&page=7", exporter.base));
        assert!(browser.text("#customers").contains("No customer fits."));

        // The worst stand first, and each kind by itself.
        browser.go(&exporter.base);
        let concerns = browser.eval(
            "[...document.querySelectorAll('.people .chip')].map((chip) => \
             ['overdue', 'failing', 'not fresh', 'pending', 'fine'].findIndex((word) => chip.innerText.includes(word)))",
        );
        let concerns: Vec<i64> = serde_json::from_value(concerns).unwrap();
        assert!(
            concerns.is_sorted() && concerns.iter().all(|concern| *concern >= 0),
            "{concerns:?}"
        );
        let counts =
            browser.eval("[...document.querySelectorAll('.tabs a')].map((tab) => +tab.innerText.split(' ').pop())");
        let counts: Vec<u64> = serde_json::from_value(counts).unwrap();
        assert_eq!(counts[0], 60);
        assert_eq!(counts[1..].iter().sum::<u64>(), 60);
        browser.go(&format!("{}?show=overdue", exporter.base));
        let shown = browser.text(".pages");
        assert!(shown.contains(&format!("{} customer", counts[1])), "{shown} {counts:?}");
        is_quiet(&mut browser);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hostile_name_is_inert_and_addresses_are_not_shown() {
    const HOSTILE: &str = "</title><script>window.taken=1</script>\"'><img src=x onerror=\"window.taken=2\"><b>&amp;";
    let partner = partner(2).await;
    let id = partner.handle.with_world(|world| {
        world.customers[0].organization = HOSTILE.to_owned();
        world.customers[1].organization = "Ann ann.owner@contoso.example".to_owned();
        world.customers[0].id.clone()
    });
    let exporter = exporter(&partner.base, &[], &[("ELEMENTS_METRICS__OWNER_EMAIL", "true")]).await;
    block_in_place(|| {
        let mut browser = settled(&exporter);
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
        assert!(names(&mut browser).contains(&"Ann (an address)".to_owned()));
        browser.eval("[...document.querySelectorAll('h3 a')].find((link) => link.innerText.includes('img')).click()");
        browser.until("location.pathname.includes('/customers/') && document.readyState === 'complete'");
        assert_eq!(browser.text("main h2"), HOSTILE);
        is_quiet(&mut browser);
        // Were anything of it alive, the policy would still not let it run.
        browser.eval("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.taken=4\">')");
        browser.eval("{ const s = document.createElement('script'); s.textContent = 'window.taken = 5'; document.body.append(s); }");
        assert_eq!(browser.eval("typeof window.taken"), json!("undefined"));
        assert!(
            browser
                .complaints()
                .iter()
                .any(|said| said.contains("Content Security Policy"))
        );
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn both_colour_schemes_are_easy_to_read_at_any_width() {
    let partner = partner(12).await;
    let exporter = exporter(&partner.base, &[], &[]).await;
    let id = partner.handle.with_world(|world| world.customers[3].id.clone());
    block_in_place(|| {
        let mut browser = settled(&exporter);
        partner.handle.set_faults(vec![Fault::new(
            &format!("/partner/*customers/{id}/*jobs/batch"),
            FaultKind::Status { code: 404, body: None },
        )]);
        browser.until("document.querySelector('.people').innerText.includes('Last error')");
        let mut grounds = Vec::new();
        for scheme in ["light", "dark"] {
            browser.scheme(scheme);
            for (width, name) in [(1280, "wide"), (390, "phone"), (320, "narrow")] {
                browser.size(width, 900);
                for (path, page) in [
                    (String::new(), "front"),
                    (format!("customers/{id}"), "customer"),
                    ("dashboards/".to_owned(), "list"),
                    ("runbooks/".to_owned(), "runbooks"),
                ] {
                    browser.go(&format!("{}{path}", exporter.base));
                    let contrast = browser.eval(POOR_CONTRAST);
                    assert_eq!(contrast["poor"], json!([]), "{scheme} {page}");
                    assert!(contrast["looked"].as_u64() > Some(10), "{scheme} {page}: {contrast}");
                    let overflow = browser.eval("document.documentElement.scrollWidth - innerWidth");
                    assert!(
                        overflow.as_i64() <= Some(0),
                        "{scheme} {name} {page}: {overflow} too wide"
                    );
                    let tables = browser.eval(
                        "[...document.querySelectorAll('.scroll')].filter((table) => table.scrollWidth > table.clientWidth).length",
                    );
                    assert_eq!(
                        tables,
                        json!(0),
                        "{scheme} {name} {page}: a table has to be pushed to and fro"
                    );
                    browser.picture(&format!("{page}-{scheme}-{name}"));
                }
            }
            browser.go(&exporter.base);
            grounds.push(browser.eval("getComputedStyle(document.body).backgroundColor"));
        }
        assert_ne!(grounds[0], grounds[1]);
        is_quiet(&mut browser);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn everything_is_reached_by_keyboard_and_seen_to_be() {
    let partner = partner(3).await;
    let exporter = exporter(&partner.base, &[], &[]).await;
    block_in_place(|| {
        let mut browser = settled(&exporter);
        // Standing still, so that no part is exchanged between two keys.
        browser.go(&format!("{}?live=off", exporter.base));
        let mut reached: Vec<String> = Vec::new();
        loop {
            browser.tab();
            let focus = browser.eval(FOCUS);
            let is = focus["is"].as_str().unwrap().to_owned();
            if is == "BODY" || reached.len() > 60 || reached.first() == Some(&is) {
                break;
            }
            assert_eq!(focus["seen"], json!(true), "{is} cannot be seen to have the focus");
            reached.push(is);
        }
        let place = |what: &str| reached.iter().position(|is| is.contains(what));
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
        let places: Vec<_> = order.iter().map(|what| place(what)).collect();
        assert!(places.iter().all(Option::is_some), "{reached:?}");
        assert!(places[..8].is_sorted(), "{reached:?}");
        let customers = reached.iter().filter(|is| is.starts_with("customers/")).count();
        assert_eq!(customers, 3, "{reached:?}");
        // The first leads past what every page begins with.
        browser.go(&exporter.base);
        browser.tab();
        browser.enter();
        browser.until("location.hash === '#content'");
        is_quiet(&mut browser);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_is_whole_without_scripts() {
    let partner = partner(30).await;
    let exporter = exporter(&partner.base, &[], &[]).await;
    block_in_place(|| {
        let mut browser = settled(&exporter);
        browser.without_scripts();
        browser.go(&exporter.base);
        assert!(browser.text(".verdict").contains("Yes: everything is fresh."));
        assert_eq!(names(&mut browser).len(), 25);
        let renewal = browser.eval("document.querySelector('noscript meta')?.content ?? null");
        assert_eq!(renewal, json!("60"));
        browser.eval("document.getElementById('q').focus()");
        let name = names(&mut browser).remove(7);
        browser.write(&name);
        browser.enter();
        browser.until("location.search.includes('q=') && document.readyState === 'complete'");
        assert!(names(&mut browser).contains(&name));
        browser.go(&format!("{}?live=off", exporter.base));
        assert_eq!(browser.eval("document.querySelector('noscript meta')"), Value::Null);
        is_quiet(&mut browser);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_link_leads_somewhere_below_any_prefix() {
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
        let ready = || async {
            let text = client.get(base.clone()).send().await.unwrap().text().await.unwrap();
            text.contains("href=\"customers/").then_some(())
        };
        eventually("customers are listed", ready).await;
        let mut seen = vec![base.clone()];
        let mut next = 0;
        while next < seen.len() && next < 200 {
            let url = seen[next].clone();
            next += 1;
            let answer = client.get(url.clone()).send().await.unwrap();
            assert_eq!(answer.status().as_u16(), 200, "{url}");
            let is_page = answer.headers()["content-type"]
                .to_str()
                .unwrap()
                .starts_with("text/html");
            if !is_page {
                continue;
            }
            let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
            assert!(
                header("content-security-policy").starts_with("default-src 'none';"),
                "{url}"
            );
            assert_eq!(header("x-content-type-options"), "nosniff");
            assert_eq!(header("referrer-policy"), "no-referrer");
            let text = answer.text().await.unwrap();
            for (_, rest) in text
                .match_indices("href=\"")
                .map(|(at, quote)| text[at..].split_at(quote.len()))
            {
                let link = rest.split('"').next().unwrap().replace("&amp;", "&");
                let mut target = url.join(&link).unwrap();
                target.set_fragment(None);
                if target.scheme() != "data" && !seen.contains(&target) {
                    assert!(
                        target.as_str().starts_with(base.as_str()),
                        "{link} leads away from {base}"
                    );
                    seen.push(target);
                }
            }
        }
        for shortened in ["customers", "customers/", "rules"] {
            let answer = client.get(base.join(shortened).unwrap()).send().await.unwrap();
            assert_eq!(answer.status().as_u16(), 200, "{shortened}");
            let there = if shortened == "rules" {
                base.join("rules/").unwrap()
            } else {
                base.clone()
            };
            assert_eq!(*answer.url(), there, "{shortened}");
        }
        for unknown in ["customers/nobody", "customers/?id=nobody"] {
            let answer = client.get(base.join(unknown).unwrap()).send().await.unwrap();
            assert_eq!(answer.status().as_u16(), 404, "{unknown}");
            let text = answer.text().await.unwrap();
            assert!(
                text.contains("No customer of this id is known") && text.contains("<a href=\"../\">All customers</a>"),
                "{text}"
            );
        }
        for path in ["dashboards/", "rules/", "runbooks/", "-/healthy"] {
            assert!(seen.contains(&base.join(path).unwrap()), "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_thousand_customers_are_a_page_like_any_other() {
    let partner = partner(10_000).await;
    let off = ["JOBS", "PROTECTED", "LICENSES", "SCAN_PROFILES", "SCAN_CHANGES"]
        .map(|name| format!("ELEMENTS_COLLECTORS__{name}__ENABLED"));
    let mut more: Vec<(&str, &str)> = off.iter().map(|name| (name.as_str(), "false")).collect();
    more.push(("ELEMENTS_API__TIMEOUT", "60s"));
    let exporter = exporter(&partner.base, &[], &more).await;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(60))
        .build()
        .unwrap();
    let get = |query: &str| {
        let request = client.get(format!("{}{query}", exporter.base));
        async move { request.send().await.unwrap().text().await.unwrap() }
    };
    eventually("all are listed", || async {
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
