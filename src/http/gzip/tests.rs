use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::member::OUTPUT_BYTES;
use super::*;
use crate::collector::{CollectorId, PerCollector, Plan, RenderedRecord as Record, Target};
use crate::domain::CustomerId;
use crate::exposition::Table;
use crate::health::Health;
use crate::http::body::FRAMES_PER_BATCH;
use crate::scrape::ExporterMetrics;
use crate::store::Store;

const CUSTOMERS: CollectorId = CollectorId::CUSTOMERS;

fn store(stale_after: Duration) -> Arc<Store> {
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

/// A store with customers, and the compressor for its scrapes.
struct Site {
    store: Arc<Store>,
    scrape: Scrape,
    compressor: Compressor,
}

impl Site {
    fn new(customers: usize, stale_after: Duration) -> Self {
        let store = store(stale_after);
        fill(&store, customers);
        Self {
            scrape: Scrape::new(Arc::clone(&store), Arc::new(Health::new()), Arc::default()),
            store,
            compressor: Compressor::default(),
        }
    }

    /// Returns the decompressed body of a scrape.
    async fn fetch(&self, filter: &ScrapeFilter, format: Format) -> String {
        decompressed(self.compressor.body(&self.scrape, filter, format).unwrap()).await
    }

    async fn fetch_text(&self) -> String {
        self.fetch(&ScrapeFilter::default(), Format::Text).await
    }

    fn compression(&self, format: Format) -> watch::Receiver<Progress> {
        self.compressor.compression(&self.scrape, format, now())
    }
}

const HOUR: Duration = Duration::from_secs(3600);

/// Decompresses a body in the same way as a client that reads only the first member.
async fn decompressed(body: Body) -> String {
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let mut decoder = flate2::bufread::GzDecoder::new(&*bytes);
    let mut text = String::new();
    decoder.read_to_string(&mut text).unwrap();
    assert!(
        decoder.into_inner().is_empty(),
        "the body must end with the first member"
    );
    text
}

/// Returns the lines of the customers' metrics, which do not change between scrapes.
fn stored(text: &str) -> Vec<&str> {
    text.lines()
        .filter(|line| line.starts_with("elements_customer"))
        .collect()
}

#[tokio::test]
async fn compressed_responses_equal_plain_ones() {
    let site = Site::new(20_000, HOUR);
    let one_customer = ScrapeFilter {
        customers: CustomerId::parse("customer-7").map(|id| [Target::Customer(id)].into()),
        ..ScrapeFilter::default()
    };
    let one_collector = ScrapeFilter {
        parts: Some([crate::scrape::Part::Collector(CUSTOMERS)].into()),
        ..ScrapeFilter::default()
    };
    for format in [Format::Text, Format::OpenMetrics] {
        for filter in [ScrapeFilter::default(), one_customer.clone(), one_collector.clone()] {
            let plain: Vec<u8> = site.scrape.frames(&filter, format).flatten().collect();
            let plain = String::from_utf8(plain).unwrap();
            let streamed = site.fetch(&filter, format).await;
            let cached = site.fetch(&filter, format).await;
            assert!(!stored(&plain).is_empty());
            assert_eq!(stored(&streamed), stored(&plain));
            assert_eq!(stored(&cached), stored(&plain));
            // The values of the process metrics change between scrapes; their names do not.
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
async fn concurrent_scrapes_use_one_compression() {
    let site = Site::new(20_000, HOUR);
    let first = site.compression(Format::Text);
    assert!((0..32).all(|_| site.compression(Format::Text).same_channel(&first)));
    assert!(!site.compression(Format::OpenMetrics).same_channel(&first));
    site.fetch_text().await;
    assert!(
        site.compression(Format::Text).same_channel(&first),
        "an unchanged store must not start a new compression"
    );
    fill(&site.store, 20_001);
    let second = site.compression(Format::Text);
    assert!(
        !second.same_channel(&first),
        "a changed store must start a new compression"
    );
    let text = site.fetch_text().await;
    assert!(text.contains("elements_customer_info{customer_id=\"customer-20000\"} 1"));
    assert_eq!(
        lock(&site.compressor.cached).len(),
        2,
        "only one compression per format must be cached"
    );
}

#[tokio::test]
async fn compression_is_limited_to_changed_chunks() {
    let site = Site::new(20_000, HOUR);
    let compressed = async || {
        site.fetch_text().await;
        let cached = site.compression(Format::Text);
        let progress = cached.borrow();
        let memory = |published: &Published| (published.digest, published.chunk.deflated.as_ptr() as usize);
        progress.chunks.iter().map(memory).collect::<BTreeMap<_, _>>()
    };
    let before = compressed().await;
    assert!(before.len() > 3);
    fill(&site.store, 20_001);
    let after = compressed().await;
    let changed = after
        .iter()
        .filter(|(digest, memory)| before.get(digest) != Some(memory));
    assert!(
        matches!(changed.count(), 1..=2),
        "a new customer must change only one or two chunks"
    );
}

#[tokio::test]
async fn other_tasks_run_between_cached_chunks() {
    let site = Site::new(60_000, HOUR);
    site.fetch_text().await;
    // The cached body expires, although each of its chunks is still valid.
    lock(&site.compressor.cached)[0].valid_until = Some(Timestamp::from_unix_seconds(0));
    let yields = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&yields);
    let other = tokio::spawn(async move {
        loop {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    });
    site.fetch_text().await;
    other.abort();
    let chunks = site.compression(Format::Text).borrow().chunks.len();
    let yields = yields.load(Ordering::Relaxed);
    assert!(
        chunks > 40 && yields >= chunks / (2 * FRAMES_PER_BATCH),
        "{yields} yields for {chunks} chunks"
    );
}

#[tokio::test]
async fn cached_body_expires_when_a_record_becomes_stale() {
    let site = Site::new(10, Duration::ZERO);
    site.fetch_text().await;
    let first = site.compression(Format::Text);
    // All records are already stale, so none can become stale later.
    assert_eq!(lock(&site.compressor.cached)[0].valid_until, None);
    lock(&site.compressor.cached)[0].valid_until = Some(Timestamp::from_unix_seconds(0));
    assert!(!site.compression(Format::Text).same_channel(&first));
}

#[tokio::test]
async fn text_of_any_size_is_decompressed_unchanged() {
    for length in [0, 1, 1000, OUTPUT_BYTES, 5 * OUTPUT_BYTES + 1] {
        // Random numbers do not compress, so longer texts fill the output buffer several times.
        let text: Vec<u8> = (0..length)
            .flat_map(|n| fastrand::Rng::with_seed(n as u64).u64(..).to_le_bytes())
            .collect();
        let exporter_metrics = ExporterMetrics {
            head: text.clone(),
            tail: text.clone(),
        };
        let chunk = Chunk::new(&text, FlushCompress::Sync).unwrap();
        let body = member::body(&exporter_metrics, stream::iter([Ok((chunk.deflated, chunk.checksum))])).unwrap();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let mut decoded = Vec::new();
        flate2::bufread::GzDecoder::new(&*bytes)
            .read_to_end(&mut decoded)
            .unwrap();
        assert!(decoded == text.repeat(3), "{length}");
    }
}
