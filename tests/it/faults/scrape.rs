//! Scrapes, of any state of the world and by anybody.

use std::io::Read as _;
use std::time::{Duration, Instant};

use elements_exporter::simulator::{Fault, FaultKind};
use futures_util::future::join_all;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::meaning::{job, tell, telling};
use super::{COLLECTORS, Exporter, errors, is_settled, nowhere};
use crate::parser;
use crate::support::{eventually, value};
use crate::world::{start, still};

const OPENMETRICS: &str = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";

/// Scrapes in both formats, each in its encoding, and has independent parsers read them.
async fn accepted(exporter: &Exporter, encodings: [&str; 2]) {
    let formats = [
        (
            OPENMETRICS,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        ),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
    ];
    for ((accept, content_type), encoding) in formats.into_iter().zip(encodings) {
        let request = exporter.client.get(format!("{}/metrics", exporter.base));
        let request = request.header("accept", accept).header("accept-encoding", encoding);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], content_type);
        let compressed = response.headers().contains_key("content-encoding");
        assert_eq!(compressed, encoding == "gzip");
        let bytes = response.bytes().await.unwrap();
        let text = if compressed {
            let mut text = String::new();
            flate2::read::GzDecoder::new(bytes.as_ref())
                .read_to_string(&mut text)
                .unwrap();
            text
        } else {
            String::from_utf8(bytes.to_vec()).unwrap()
        };
        if accept == OPENMETRICS {
            assert!(text.ends_with("\n# EOF\n"));
            parser::accepts_openmetrics(&text);
        } else {
            parser::accepts_text(&text);
        }
    }
}

#[tokio::test]
async fn any_state_of_the_world_is_a_complete_answer() {
    // Nothing was ever known.
    let lost = Exporter::start(&nowhere(), &COLLECTORS, &[]).await;
    accepted(&lost, ["identity", "gzip"]).await;
    lost.until("it failed", |text| {
        value(text, &errors("customers", "auth")) >= Some(1.0)
    })
    .await;
    accepted(&lost, ["gzip", "identity"]).await;
    // All is known, and then the API goes.
    let partner = start(still(3)).await;
    let short: Vec<String> = COLLECTORS
        .iter()
        .map(|name| format!("ELEMENTS_COLLECTORS__{}__STALE_AFTER", name.to_uppercase()))
        .collect();
    let short: Vec<(&str, &str)> = short.iter().map(|name| (name.as_str(), "1s")).collect();
    let exporter = Exporter::start(&partner.base, &COLLECTORS, &short).await;
    exporter.settled().await;
    accepted(&exporter, ["identity", "gzip"]).await;
    partner
        .handle
        .set_faults(vec![Fault::new("/partner/*", FaultKind::Reset)]);
    exporter
        .until("it goes stale", |text| !text.contains("\nelements_job_status{"))
        .await;
    accepted(&exporter, ["gzip", "identity"]).await;
    for query in [
        "collector=jobs",
        "customer_id=nobody",
        "collector=nothing",
        "collector=jobs&collector=licenses",
    ] {
        let (status, text) = exporter.get(&format!("/metrics?{query}")).await;
        assert_eq!(status, 200, "{query}");
        if !text.is_empty() {
            parser::accepts_openmetrics(&format!("{}# EOF\n", without_types(&text)));
        }
    }
}

/// The samples alone, which are the same in both formats.
fn without_types(text: &str) -> String {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .fold(String::new(), |text, line| text + line + "\n")
}

#[tokio::test]
async fn a_scrape_during_a_poll_is_one_consistent_picture() {
    const MODULES: [&str; 6] = [
        "Exchange Online",
        "SharePoint Online",
        "OneDrive",
        "Teams Chat",
        "Power BI",
        "Power Apps",
    ];
    let all = |status: &str, count: &str| -> Vec<_> {
        let row = |module: &&str| {
            job(
                module,
                json!({"jobModule": module, "status": status, "totalCount": count}),
            )
        };
        MODULES.iter().map(row).collect()
    };
    let worlds = [all("Finished", "1"), all("Failed", "2")];
    let canned = telling(&worlds[0]).await;
    let exporter = Exporter::start(&canned.base, &["jobs"], &[("ELEMENTS_API__VERSION", "v1")]).await;
    exporter.settled().await;
    let mut seen = [0, 0];
    for turn in 0..4 {
        let world = turn % 2;
        tell(&canned, &worlds[1 - world]);
        let expected = [2.0, 3.0][1 - world];
        exporter
            .until("the other world", |text| {
                let shown = |name: &str| -> Vec<f64> {
                    let lines = text.lines().filter(|line| line.starts_with(name));
                    lines
                        .map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
                        .collect()
                };
                let (status, count) = (shown("elements_job_status{"), shown("elements_job_processed_objects{"));
                assert_eq!(status.len(), MODULES.len());
                let one = [(2.0, 1.0), (3.0, 2.0)]
                    .iter()
                    .position(|(a, b)| status.iter().all(|s| s == a) && count.iter().all(|c| c == b));
                assert!(one.is_some(), "{status:?} {count:?}");
                status[0] == expected
            })
            .await;
        seen[1 - world] += 1;
    }
    assert_eq!(seen, [2, 2]);
}

/// A raw connection that has sent this.
async fn connection(exporter: &Exporter, head: &str) -> TcpStream {
    let mut stream = TcpStream::connect(exporter.base.trim_start_matches("http://"))
        .await
        .unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn two_hundred_scrapers_and_worse_cost_no_call_and_harm_nobody() {
    const INTERVALS: [&str; 6] = [
        "customers",
        "jobs",
        "protected",
        "licenses",
        "scan_profiles",
        "scan_changes",
    ];
    let partner = start(still(4)).await;
    let hours: Vec<String> = INTERVALS
        .iter()
        .map(|name| format!("ELEMENTS_COLLECTORS__{}__INTERVAL", name.to_uppercase()))
        .collect();
    let hours: Vec<(&str, &str)> = hours.iter().map(|name| (name.as_str(), "1h")).collect();
    let exporter = Exporter::start(&partner.base, &COLLECTORS, &hours).await;
    let whole = exporter.settled().await;
    let asked = partner.handle.requests().len();
    let scrape = "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n";
    // Some read nothing, some go away in the middle, some never end their headers.
    let mut slow = Vec::new();
    for _ in 0..20 {
        slow.push(connection(&exporter, scrape).await);
        let mut aborted = connection(&exporter, scrape).await;
        let mut some = [0; 100];
        aborted.read_exact(&mut some).await.unwrap();
        drop(aborted);
    }
    let began = Instant::now();
    let mut dawdlers = Vec::new();
    for _ in 0..20 {
        dawdlers.push(connection(&exporter, "GET /metrics HTTP/1.1\r\nhost: x\r\nx-slow: ").await);
    }
    let samples = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
    let expected = samples(&whole);
    let texts = join_all((0..200).map(|_| exporter.metrics())).await;
    for text in &texts {
        // Counters of requests may have come in meanwhile, but nothing goes.
        assert!(samples(text) >= expected, "a complete answer");
    }
    assert!(
        began.elapsed() < Duration::from_secs(9),
        "nobody waited for those who dawdle"
    );
    assert_eq!(partner.handle.requests().len(), asked, "no call to the API");
    // Those who dawdle are cut off in the end.
    for mut stream in dawdlers {
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(15), stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "slow headers are cut off");
    }
    drop(slow);
    exporter.stop().await;
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_let_go() {
    let partner = start(still(40)).await;
    let exporter = Exporter::start(&partner.base, &["jobs"], &[]).await;
    exporter.settled().await;
    // More answers than all buffers in between hold.
    let scrape = "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n";
    let dawdler = connection(&exporter, &scrape.repeat(100)).await;
    eventually("it is let go", || {
        let write = dawdler.try_write(b"GET");
        let is_open = write.is_ok() || write.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        async move { (!is_open).then_some(()) }
    })
    .await;
    assert!(is_settled(&exporter.metrics().await));
}

#[tokio::test]
async fn absurd_requests_are_answered_and_do_no_harm() {
    let partner = start(still(2)).await;
    let exporter = Exporter::start(&partner.base, &["jobs"], &[]).await;
    exporter.settled().await;
    let many = "collector=x&".repeat(4_000);
    for query in [
        many.as_str(),
        "%",
        "%00%ff%zz",
        "collector[]=jobs&customer_id=%22%7D%0a",
        "&&&===",
        "customer_id=../../etc/passwd",
    ] {
        assert_eq!(
            exporter.get(&format!("/metrics?{query}")).await.0,
            200,
            "{}",
            &query[..query.len().min(40)]
        );
    }
    for (name, value) in [
        ("accept", "q=,;;;version=\"".to_owned()),
        ("accept", "application/openmetrics-text;version=99".to_owned()),
        ("accept-encoding", ",;q=gzip;gzip;q=nan".to_owned()),
        ("accept", "a/b,".repeat(1_000)),
        ("x-prometheus-scrape-timeout-seconds", "-1e999".to_owned()),
    ] {
        let request = exporter
            .client
            .get(format!("{}/metrics", exporter.base))
            .header(name, value);
        assert_eq!(request.send().await.unwrap().status(), 200, "{name}");
    }
    let endless = connection(&exporter, "GET /metrics HTTP/1.1\r\nhost: x\r\n").await;
    let refused = eventually("headers without end are refused", || {
        let write = endless.try_write(format!("x-{}: y\r\n", "a".repeat(8_000)).as_bytes());
        async move {
            write
                .is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock)
                .then_some(true)
        }
    });
    assert!(refused.await);
    assert!(is_settled(&exporter.metrics().await));
}
