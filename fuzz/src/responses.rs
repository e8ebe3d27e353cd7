//! Parses API responses with every collector, for both API versions. Exposed counts must occur in the responses.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use elements_exporter::api::auth::{self, TokenSource};
use elements_exporter::api::credential::Credential;
use elements_exporter::api::exchange::http_client;
use elements_exporter::api::rate_limiter::RequestLimits;
use elements_exporter::api::transport::{Call, ResponseBody, Transport, TransportSettings};
use elements_exporter::api::{Api, Endpoint, Observer, v1, v3};
use elements_exporter::collector::{
    self, CollectorDescriptor, CollectorId, CollectorSettings, Context, PollOutput, Record, RecordSource,
    RenderedRecord, Target, TargetKind,
};
use elements_exporter::domain::{CustomerId, Timestamp};
use elements_exporter::exposition::{Filter, Format, Renderer, Source, families};
use url::Url;

use crate::parser::{Sample, parse};
use crate::snapshot::snapshot;

/// Customer whose data is polled by collectors that poll per customer.
const CUSTOMER: &str = "caf94a75-2cc6-43aa-b04b-794c8baf5ea3";

/// Separator between two responses: a byte that cannot occur in JSON.
const SEPARATOR: u8 = 0xff;

/// Metrics whose values must occur in the responses.
const COUNTS: &[&str] = &[
    "elements_job_processed_objects",
    "elements_job_objects",
    "elements_protected_scanned_objects",
    "elements_protected_objects",
    "elements_license_purchased_seats",
    "elements_license_purchased_units",
    "elements_license_microsoft_assigned",
    "elements_license_microsoft_available",
    "elements_scan_new_objects",
    "elements_scan_moved_objects",
    "elements_scan_removed_objects",
    "elements_tenant_ransomware_objects",
    "elements_tenant_drift_detected",
];

/// Checks an input: a byte that selects the collector, the API version, the target and a setting, followed by the
/// responses in the order of the requests. Further requests get status 204.
pub fn check(data: &[u8]) {
    let Some((choice, responses)) = data.split_first() else {
        return;
    };
    let choice = usize::from(*choice);
    let Some(collector) = collector::ids().nth(choice % collector::ALL.len()) else {
        return;
    };
    let descriptor = collector.descriptor();
    let choice = choice / collector::ALL.len();
    let (is_v3, objects, is_one_customer) = (choice % 2 == 1, choice / 2 % 2 == 1, choice / 4 % 2 == 1);
    let id = CustomerId::parse(CUSTOMER).expect("an id");
    let target = match descriptor.target_kind {
        TargetKind::Partner if !is_one_customer || descriptor.is_optional => Target::Partner,
        _ => Target::Customer(id),
    };
    let settings = CollectorSettings {
        scan_objects: objects,
        consent_products: vec!["Office365Backup".to_owned(), "PartnerWorkspaceOnboarding".to_owned()],
        ..CollectorSettings::default()
    };
    let now = Timestamp::from_unix_seconds(1_800_000_000);
    let context = Context::new(now, Arc::new(settings), Arc::from("Contoso"));
    let bodies: Vec<&[u8]> = responses.split(|byte| *byte == SEPARATOR).collect();
    let script = Arc::new(Mutex::new(ScriptedApi::new(&bodies)));
    let poll = |records: Arc<dyn RecordSource>| {
        let api = api(is_v3, &script);
        let poll = collector.poll(api, target.clone(), records, context.clone());
        tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime")
            .block_on(poll)
    };
    let Ok(first) = poll(Arc::new(PreviousRecords::new(descriptor, Vec::new(), &context))) else {
        return;
    };
    let rendered = |output: &PollOutput| -> Vec<RenderedRecord> {
        let render = |(id, record): (_, &Arc<dyn Record>)| descriptor.render(Arc::clone(record), id, &context);
        output
            .records
            .iter()
            .map(|each| render(each).expect("its own record").0)
            .collect()
    };
    let first_rendered = rendered(&first);
    let text = render(descriptor, first_rendered.iter(), Format::Text);
    let samples = parse(&text, false);
    parse(&render(descriptor, first_rendered.iter(), Format::OpenMetrics), true);
    assert_counts_occur_in(&samples, responses);
    assert_only_target(&first, &target);
    assert_restores_from_state(descriptor, &first, &context, &text);
    let records: Vec<(CustomerId, Arc<dyn Record>)> = first
        .records
        .iter()
        .map(|(id, record)| (id.clone(), Arc::clone(record)))
        .collect();
    script.lock().expect("not poisoned").repeat();
    let second = poll(Arc::new(PreviousRecords::new(descriptor, records, &context)))
        .expect("the same responses must be parsed again");
    assert_eq!(
        render(descriptor, rendered(&second).iter(), Format::Text),
        text,
        "the same responses must not change the result"
    );
}

/// An API with scripted responses. It returns them in order, and records which request got which response. After
/// `repeat`, each request gets its recorded response again, even if the second poll sends fewer requests than the
/// first.
struct ScriptedApi {
    bodies: VecDeque<Vec<u8>>,
    recorded: HashMap<String, VecDeque<Option<Vec<u8>>>>,
    is_repeating: bool,
}

impl ScriptedApi {
    fn new(bodies: &[&[u8]]) -> Self {
        Self {
            bodies: bodies.iter().map(|body| body.to_vec()).collect(),
            recorded: HashMap::new(),
            is_repeating: false,
        }
    }

    fn repeat(&mut self) {
        self.is_repeating = true;
    }

    fn next(&mut self, call: &Call) -> Option<Vec<u8>> {
        let request = format!("{} {:?}", call.url, call.body);
        if self.is_repeating {
            return self.recorded.get_mut(&request)?.pop_front()?;
        }
        let response = self.bodies.pop_front();
        self.recorded.entry(request).or_default().push_back(response.clone());
        response
    }
}

/// Records of the previous poll, and records of other collectors, with two tenants and one failed run.
#[derive(Debug)]
struct PreviousRecords {
    own: &'static str,
    records: Vec<(CustomerId, Arc<dyn Record>)>,
    others: Vec<(&'static str, Arc<dyn Record>)>,
}

/// Stored records of the customer list and of the job list.
const OTHERS: [(&str, &str); 2] = [
    (
        "customers",
        r#"{"organization":"Contoso","country":"","status":null,"management_mode":null,"tenants":2,
            "named_tenants":[{"id":"t1","name":""},{"id":"t2","name":""}]}"#,
    ),
    (
        "jobs",
        r#"{"modules":[{"service":"Microsoft 365","module":"OneDrive","listed":true,"history":{"newest":null,
            "newest_ended":{"key":1,"report":"r1","status":"failed","start":null,"end":null,"modified":null,"duration":null,
            "backup_size":null,"processed":null,"successful":null,"failed":null,"skipped":null,"warning":null},
            "listed":{},"ended":{},"remembered":[],"forgotten":{"until":null,"success":null,"restore_point":null,
            "failures":0,"newest_failure":null}}}],"scans":[]}"#,
    ),
];

impl PreviousRecords {
    fn new(descriptor: &CollectorDescriptor, records: Vec<(CustomerId, Arc<dyn Record>)>, context: &Context) -> Self {
        let id = CustomerId::parse(CUSTOMER).expect("an id");
        let others = OTHERS.map(|(name, json)| {
            let other = collector::ALL
                .iter()
                .find(|other| other.name == name)
                .expect("a collector");
            let json = serde_json::from_str(json).expect("JSON");
            (name, other.restore(json, &id, context).expect("a record").record)
        });
        Self {
            own: descriptor.name,
            records,
            others: others.into(),
        }
    }
}

impl RecordSource for PreviousRecords {
    fn record(&self, collector: CollectorId, customer: &CustomerId) -> Option<Arc<dyn Record>> {
        if collector.name() != self.own {
            let mut others = self.others.iter();
            return others
                .find(|(name, _)| *name == collector.name())
                .map(|(_, record)| Arc::clone(record));
        }
        let own = self.records.iter().find(|(id, _)| id == customer);
        own.map(|(_, record)| Arc::clone(record))
    }

    fn canonical_id(&self, customer: CustomerId) -> CustomerId {
        customer
    }

    fn organization(&self, _customer: &CustomerId) -> Arc<str> {
        Arc::from("")
    }
}

/// Asserts that each value of the metrics in [`COUNTS`] occurs in the responses. Checks nothing if the responses
/// contain a backslash, because an escape sequence can encode a digit.
fn assert_counts_occur_in(samples: &[Sample], responses: &[u8]) {
    if responses.contains(&b'\\') {
        return;
    }
    let digits: String = String::from_utf8_lossy(responses)
        .chars()
        .filter(|c| *c != ',')
        .collect();
    for sample in samples.iter().filter(|sample| COUNTS.contains(&sample.name.as_str())) {
        assert!(sample.value >= 0.0, "{sample:?}");
        assert!(
            digits.contains(&format!("{}", sample.value)),
            "{sample:?} does not occur in the responses"
        );
    }
    for sample in samples
        .iter()
        .filter(|sample| sample.name == "elements_job_consecutive_failures")
    {
        assert!(sample.value >= 0.0, "{sample:?}");
    }
}

/// Asserts that a poll of one customer returns no record of another customer.
fn assert_only_target(output: &PollOutput, target: &Target) {
    if let Target::Customer(customer) = target {
        let customers: BTreeSet<_> = output.records.keys().collect();
        assert!(
            customers.is_empty() || customers == BTreeSet::from([customer]),
            "{customers:?}"
        );
    }
}

fn assert_restores_from_state(
    descriptor: &CollectorDescriptor,
    output: &PollOutput,
    context: &Context,
    expected: &str,
) {
    let restored = output.records.iter().map(|(id, record)| {
        let json = record.to_json().expect("a record is JSON");
        descriptor
            .restore(&json, id, context)
            .expect("its own record is restored")
    });
    let restored: Vec<RenderedRecord> = restored.collect();
    let restored_text = render(descriptor, restored.iter(), Format::Text);
    assert_eq!(restored_text, expected, "saving and restoring changed the record");
}

/// Renders records as a scrape does.
fn render<'a>(
    descriptor: &CollectorDescriptor,
    records: impl Iterator<Item = &'a RenderedRecord>,
    format: Format,
) -> String {
    let tables = records.flat_map(|record| [Arc::clone(&record.tables), Arc::clone(&record.held)]);
    let snapshot = snapshot(tables);
    let mut columns = Vec::new();
    for (shape, metrics) in descriptor.metrics().into_iter().enumerate() {
        for (column, (metric, _)) in metrics.into_iter().enumerate() {
            columns.push((
                metric,
                Source {
                    group: 0,
                    shape,
                    column,
                },
            ));
        }
    }
    let mut renderer = Renderer::new(families(columns).into(), snapshot, Filter::default(), format);
    let mut text = Vec::new();
    while let Some(frame) = renderer.next_frame() {
        text.extend_from_slice(&frame);
    }
    String::from_utf8(text).expect("UTF-8")
}

/// Returns an API client that gets its responses from the script instead of the network.
fn api(is_v3: bool, script: &Arc<Mutex<ScriptedApi>>) -> Api {
    let script = Arc::clone(script);
    let responses = move |call: &Call| {
        let next = script.lock().expect("not poisoned").next(call);
        Ok(next.map_or(ResponseBody::Empty, ResponseBody::Content))
    };
    let (client, tokens) = unused_client();
    let settings = TransportSettings {
        base_url: Url::parse("https://api.example").expect("an address"),
        timeout: Duration::from_secs(1),
        limits: RequestLimits {
            requests_per_second: 1.0,
            max_concurrency: 1,
        },
    };
    let transport = Transport::new(
        client,
        tokens,
        settings,
        Arc::new(CheckingObserver),
        Some(Box::new(responses)),
    );
    if is_v3 {
        Api::V3(v3::Client::new(transport))
    } else {
        Api::V1(v1::Client::new(transport, "/partner"))
    }
}

/// Returns an HTTP client and a token source, which are required but never used.
fn unused_client() -> (reqwest::Client, Arc<TokenSource>) {
    static UNUSED: OnceLock<(reqwest::Client, Arc<TokenSource>)> = OnceLock::new();
    UNUSED
        .get_or_init(|| {
            let _ = rustls::crypto::ring::default_provider().install_default();
            let timeout = Duration::from_secs(1);
            let client = http_client(timeout, None, &[]).expect("a client");
            let tokens = TokenSource::new(
                client.clone(),
                Url::parse("https://tokens.example").expect("an address"),
                "client".to_owned(),
                Credential::secret("secret".into()).expect("a secret"),
                timeout,
                Vec::new(),
                Arc::new(CheckingObserver),
            );
            (client, Arc::new(tokens))
        })
        .clone()
}

/// An observer that only checks its arguments.
#[derive(Debug)]
struct CheckingObserver;

impl Observer for CheckingObserver {
    fn request(&self, _: Endpoint, _: Option<u16>, _: Duration) {}
    fn retry(&self, _: Endpoint) {}
    fn throttled(&self, _: Endpoint) {}
    fn decode_error(&self, _: Endpoint, _: &'static str, shape: &str) {
        assert!(shape.chars().count() <= 40, "{shape}");
    }
    fn unknown_value(&self, _: Endpoint, _: &'static str, value: &str) {
        assert!(value.chars().count() <= 257, "{value}");
    }
    fn duplicate_rows(&self, _: Endpoint, rows: u64) {
        assert!(rows > 0);
    }
    fn token_failure(&self, _: &auth::Error) {}
    fn token(&self, _: Duration) {}
}
