use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::member::PIECE_BYTES;
use super::*;
use crate::collector::{CollectorId, PerCollector, Plan, RenderedRecord as Record, Target};
use crate::domain::CustomerId;
use crate::exposition::Table;
use crate::health::Health;
use crate::http::body::FRAMES_AT_ONCE;
use crate::scrape::ExporterMetrics;
use crate::store::Store;

const CUSTOMERS: CollectorId = CollectorId::CUSTOMERS;

fn store(stale_after: std::time::Duration) -> Arc<Store> {
    let plan = Plan {
        enabled: true,
        interval: stale_after,
        stale_after,
    };
    let store = Store::new(&PerCollector::from_fn(|_| plan), None);
    store.add_target(CUSTOMERS, &Target::Partner);
    Arc::new(store)
}

fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}

/// Adds customers to the store.
fn fill(store: &Store, customers: usize) {
    let ids = (0..customers).filter_map(|n| CustomerId::parse(&format!("customer-{n}")));
    let listed: BTreeMap<_, Arc<str>> = ids.map(|id| (id, Arc::from("Contoso"))).collect();
    let record = |id: &CustomerId| Record {
        record: Arc::new(()),
        tables: Arc::new([Table::single(&[("customer_id", id.as_str())], &[Some(1.0)])]),
        held: Arc::new([]),
        health: None,
    };
    let records = listed.keys().map(|id| (id.clone(), record(id))).collect();
    store.reconcile(&listed, true).1.unwrap();
    store.commit(CUSTOMERS, &Target::Partner, records, true, now()).unwrap();
}

fn scrape(store: &Arc<Store>) -> Scrape {
    Scrape::new(Arc::clone(store), Arc::new(Health::new()), Arc::default())
}

/// Decompresses a body like a client that reads only the first member.
async fn unpacked(body: Body) -> String {
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let mut decoder = flate2::bufread::GzDecoder::new(&*bytes);
    let mut text = String::new();
    decoder.read_to_string(&mut text).unwrap();
    assert!(decoder.into_inner().is_empty(), "data after the member");
    text
}

/// Returns the customers' metrics, which do not change between scrapes.
fn stored(text: &str) -> Vec<&str> {
    text.lines()
        .filter(|line| line.starts_with("elements_customer"))
        .collect()
}

#[tokio::test]
async fn compressed_responses_equal_plain_ones() {
    let store = store(std::time::Duration::from_secs(3600));
    fill(&store, 20_000);
    let scrape = scrape(&store);
    let compressor = Compressor::default();
    let one = ScrapeFilter {
        customers: CustomerId::parse("customer-7").map(|id| [Target::Customer(id)].into()),
        ..ScrapeFilter::default()
    };
    let of_collector = ScrapeFilter {
        parts: Some([crate::scrape::Part::Collector(CUSTOMERS)].into()),
        ..ScrapeFilter::default()
    };
    for format in [Format::Text, Format::OpenMetrics] {
        for filter in [ScrapeFilter::default(), one.clone(), of_collector.clone()] {
            let plain: Vec<u8> = scrape.frames(&filter, format).flatten().collect();
            let plain = String::from_utf8(plain).unwrap();
            let streamed = unpacked(compressor.body(&scrape, &filter, format).unwrap()).await;
            let kept = unpacked(compressor.body(&scrape, &filter, format).unwrap()).await;
            assert!(!stored(&plain).is_empty());
            assert_eq!(stored(&streamed), stored(&plain));
            assert_eq!(stored(&kept), stored(&plain));
            // The values of the process metrics always change, but not their names.
            let last = |text: &str| {
                text.lines()
                    .last()
                    .and_then(|line| line.split(' ').next().map(str::to_owned))
            };
            assert_eq!(last(&streamed), last(&plain));
            assert_eq!(streamed.contains("elements_up"), filter == ScrapeFilter::default());
        }
    }
}

#[tokio::test]
async fn simultaneous_scrapes_share_one_compression() {
    let store = store(std::time::Duration::from_secs(3600));
    fill(&store, 20_000);
    let scrape = scrape(&store);
    let compressor = Compressor::default();
    let everything = ScrapeFilter::default();
    let join = |format| compressor.join(&scrape, format, now());
    let first = join(Format::Text);
    assert!((0..32).all(|_| join(Format::Text).same_channel(&first)));
    assert!(!join(Format::OpenMetrics).same_channel(&first));
    let whole = compressor.body(&scrape, &everything, Format::Text).unwrap();
    unpacked(whole).await;
    assert!(
        join(Format::Text).same_channel(&first),
        "the cached body is still valid"
    );
    fill(&store, 20_001);
    let second = join(Format::Text);
    assert!(!second.same_channel(&first), "the cached body is expired");
    let text = unpacked(compressor.body(&scrape, &everything, Format::Text).unwrap()).await;
    assert!(text.contains("elements_customer_info{customer_id=\"customer-20000\"} 1"));
    assert_eq!(lock(&compressor.kept).len(), 2, "one compression per format");
}

#[tokio::test]
async fn compression_is_limited_to_changed_chunks() {
    let store = store(std::time::Duration::from_secs(3600));
    fill(&store, 20_000);
    let scrape = scrape(&store);
    let compressor = Compressor::default();
    let everything = ScrapeFilter::default();
    let compressed = async || {
        unpacked(compressor.body(&scrape, &everything, Format::Text).unwrap()).await;
        let kept = compressor.join(&scrape, Format::Text, now());
        let progress = kept.borrow();
        let memory = |published: &Published| (published.digest, published.chunk.deflated.as_ptr() as usize);
        progress.chunks.iter().map(memory).collect::<BTreeMap<_, _>>()
    };
    let before = compressed().await;
    assert!(before.len() > 3);
    fill(&store, 20_001);
    let after = compressed().await;
    let anew = after
        .iter()
        .filter(|(digest, memory)| before.get(digest) != Some(memory));
    assert!(
        matches!(anew.count(), 1..=2),
        "the new customer is in one or two chunks"
    );
}

#[tokio::test]
async fn cached_chunks_let_other_tasks_run() {
    let store = store(std::time::Duration::from_secs(3600));
    fill(&store, 60_000);
    let scrape = scrape(&store);
    let compressor = Compressor::default();
    let everything = ScrapeFilter::default();
    unpacked(compressor.body(&scrape, &everything, Format::Text).unwrap()).await;
    // The compression is expired, although each of its chunks is still valid.
    lock(&compressor.kept)[0].valid_until = Some(Timestamp::from_unix_seconds(0));
    let turns = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&turns);
    let other = tokio::spawn(async move {
        loop {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    });
    unpacked(compressor.body(&scrape, &everything, Format::Text).unwrap()).await;
    other.abort();
    let kept = compressor.join(&scrape, Format::Text, now());
    let chunks = kept.borrow().chunks.len();
    let turns = turns.load(Ordering::Relaxed);
    assert!(
        chunks > 40 && turns >= chunks / (2 * FRAMES_AT_ONCE),
        "{turns} turns for {chunks} chunks"
    );
}

#[tokio::test]
async fn cached_body_expires_when_a_record_becomes_stale() {
    let store = store(std::time::Duration::ZERO);
    fill(&store, 10);
    let scrape = scrape(&store);
    let compressor = Compressor::default();
    let everything = ScrapeFilter::default();
    unpacked(compressor.body(&scrape, &everything, Format::Text).unwrap()).await;
    let first = compressor.join(&scrape, Format::Text, now());
    // All records are stale, so no value expires later.
    assert_eq!(lock(&compressor.kept)[0].valid_until, None);
    lock(&compressor.kept)[0].valid_until = Some(Timestamp::from_unix_seconds(0));
    assert!(!compressor.join(&scrape, Format::Text, now()).same_channel(&first));
}

#[tokio::test]
async fn texts_of_every_size_round_trip() {
    for length in [0, 1, 1000, PIECE_BYTES, 5 * PIECE_BYTES + 1] {
        // Random numbers, so that the compressed text takes several pieces.
        let text: Vec<u8> = (0..length)
            .flat_map(|n| fastrand::Rng::with_seed(n as u64).u64(..).to_le_bytes())
            .collect();
        let exporter_metrics = ExporterMetrics {
            head: text.clone(),
            tail: text.clone(),
        };
        let chunk = Chunk::new(&text, FlushCompress::Sync).unwrap();
        let body = member::body(&exporter_metrics, stream::iter([Ok((chunk.deflated, chunk.sum))])).unwrap();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let mut back = Vec::new();
        flate2::bufread::GzDecoder::new(&*bytes).read_to_end(&mut back).unwrap();
        assert!(back == text.repeat(3), "{length}");
    }
}
