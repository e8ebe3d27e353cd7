//! Layout of the pages: colours, widths, and what is visible without scrolling.

use std::time::UNIX_EPOCH;

use elements_exporter::simulator::{Fault, FaultKind};
use serde_json::json;
use tokio::task::block_in_place;

use super::{EXPAND, assert_quiet_console, exporter, open_fresh_page, partner};

/// Viewport sizes of a desktop, a tablet and a phone.
const SCREENS: [(u32, u32); 3] = [(1280, 800), (768, 1024), (390, 844)];

/// Returns the visible strings whose contrast is below WCAG 2.2 level AA, and the number of examined strings.
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

/// Returns the table cells that are not completely visible, and the content that overflows the page.
const CUT: &str = r#"(() => {
  const cut = [];
  for (const cell of document.querySelectorAll("th, td")) {
    if (!cell.checkVisibility() || getComputedStyle(cell).clipPath !== "none") continue;
    if (cell.closest("thead") && getComputedStyle(cell.closest("thead")).clipPath !== "none") continue;
    const { left, right } = cell.getBoundingClientRect();
    const outside = left < 0 || right > innerWidth || cell.scrollWidth > cell.clientWidth + 1;
    if (outside) cut.push(`${cell.dataset.label ?? cell.tagName}: ${cell.innerText}`);
  }
  for (const box of document.querySelectorAll(".scroll")) {
    if (box.scrollWidth > box.clientWidth) cut.push("a table requires horizontal scrolling");
  }
  const overflow = document.documentElement.scrollWidth - innerWidth;
  if (overflow > 0) cut.push(`the page is ${overflow} px too wide`);
  return cut;
})()"#;

/// Returns an expression that is true if the first matching element is completely visible without scrolling.
fn is_in_first_screen(selector: &str) -> String {
    format!(
        "(() => {{ const box = document.querySelector('{selector}').getBoundingClientRect(); \
         return box.height > 0 && box.top >= 0 && box.bottom <= innerHeight && box.right <= innerWidth; }})()"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn colour_schemes_have_enough_contrast_at_any_width() {
    let partner = partner(12).await;
    let exporter = exporter(&partner.base, &[], &[]).await;
    let id = partner.handle.with_world(|world| {
        let customer = &mut world.customers[3];
        let run = customer.modules[0].runs.last_mut().unwrap();
        run.name = "scope-without-a-space-in-its-name".repeat(6);
        customer.id.clone()
    });
    block_in_place(|| {
        let mut browser = open_fresh_page(&exporter);
        partner.handle.set_faults(vec![Fault::new(
            &format!("/partner/*customers/{id}/*jobs/batch"),
            FaultKind::Status { code: 404, body: None },
        )]);
        browser.wait_until("document.querySelector('.customers').innerText.includes('Last error')");
        let mut backgrounds = Vec::new();
        for scheme in ["light", "dark"] {
            browser.set_colour_scheme(scheme);
            for (width, name) in [(1280, "wide"), (768, "tablet"), (390, "phone"), (320, "narrow")] {
                browser.set_size(width, 900);
                for (path, page) in [
                    (String::new(), "front"),
                    (format!("customers/{id}"), "customer"),
                    ("dashboards/".to_owned(), "list"),
                    ("runbooks/".to_owned(), "runbooks"),
                ] {
                    browser.go(&format!("{}{path}", exporter.base));
                    browser.eval(EXPAND);
                    let contrast = browser.eval(POOR_CONTRAST);
                    assert_eq!(contrast["poor"], json!([]), "{scheme} {page}");
                    assert!(contrast["looked"].as_u64() > Some(10), "{scheme} {page}: {contrast}");
                    assert_eq!(browser.eval(CUT), json!([]), "{scheme} {name} {page}");
                    browser.screenshot(&format!("{page}-{scheme}-{name}"));
                }
            }
            browser.go(&exporter.base);
            backgrounds.push(browser.eval("getComputedStyle(document.body).backgroundColor"));
        }
        assert_ne!(backgrounds[0], backgrounds[1]);
        assert_quiet_console(&mut browser);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn first_screen_shows_the_worst_customer_at_any_width() {
    let partner = partner(12).await;
    // For the customer with the most modules, all backups stopped weeks ago.
    let worst = "Worst Ltd.";
    partner.handle.with_world(|world| {
        let stopped = i64::try_from(UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap() - 20 * 86_400;
        let customers = world.customers.iter_mut();
        let customer = customers.max_by_key(|customer| customer.modules.len()).unwrap();
        worst.clone_into(&mut customer.organization);
        for run in customer.modules.iter_mut().flat_map(|module| &mut module.runs) {
            run.end = run.end.map(|_| stopped);
            run.start = run.start.map(|_| stopped - 60);
        }
    });
    let exporter = exporter(&partner.base, &[], &[]).await;
    block_in_place(|| {
        let mut browser = open_fresh_page(&exporter);
        for state in ["up", "down"] {
            if state == "down" {
                let down = FaultKind::Status { code: 503, body: None };
                partner.handle.set_faults(vec![Fault::new("/partner/*", down)]);
                browser.wait_until(
                    "document.querySelector('.banner strong').innerText.startsWith('API unreachable. Showing data from ')",
                );
                assert_ne!(browser.text(".banner ul"), "", "the reason must be displayed");
                let banner = browser.text(".banner");
                assert!(!banner.contains("API up") && banner.contains("API down"), "{banner}");
            }
            for (width, height) in SCREENS {
                browser.set_size(width, height);
                browser.go(&exporter.base);
                assert_eq!(browser.text(".customers h3"), worst);
                for selector in [
                    ".banner strong",
                    ".customers h3",
                    ".customers .chip",
                    ".customers .modules tr",
                ] {
                    let is_visible = browser.eval(&is_in_first_screen(selector));
                    assert_eq!(is_visible, json!(true), "{selector} at {width}, {state}");
                }
                browser.screenshot(&format!("first-{width}-{state}"));
                browser.eval("document.querySelector('.customers h3 a').click()");
                browser.wait_until("location.pathname.includes('/customers/')");
                assert_eq!(browser.text("main h2"), worst);
                for selector in ["main h2", "#health .chip", "#modules tbody tr"] {
                    let is_visible = browser.eval(&is_in_first_screen(selector));
                    assert_eq!(is_visible, json!(true), "{selector} at {width}, {state}");
                }
                assert_eq!(browser.eval(CUT), json!([]), "{width}, {state}");
                browser.screenshot(&format!("first-customer-{width}-{state}"));
            }
            browser.go(&exporter.base);
        }
    });
}
