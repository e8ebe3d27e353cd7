//! Tests of restoring state files.

use std::fs;
use std::time::Duration;

use super::*;
use crate::collector::{PerCollector, Plan, RecordSource as _};

/// Returns plans in which all collectors run every minute.
fn plans() -> PerCollector<Plan> {
    let plan = Plan {
        enabled: true,
        interval: Duration::from_secs(60),
        stale_after: Duration::from_secs(180),
    };
    PerCollector::from_fn(|_| plan)
}

#[test]
fn customer_is_restored_with_a_normalized_id() {
    const ID: &str = "caf94a75-2cc6-43aa-b04b-794c8baf5ea3";
    let plans = plans();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let now = Timestamp::from_unix_seconds(1_790_000_000);
    let customer = CustomerId::parse(&ID.to_uppercase()).unwrap();
    let record = serde_json::json!([{"service": "Microsoft 365", "module": "OneDrive", "scanned": 1, "protected": 1,
        "avepoint_bytes": null, "byos_bytes": null}]);
    let protected = CollectorId::named("protected").unwrap();
    let text = [
        serde_json::json!({"state": {"format": FORMAT, "version": "0"}}),
        serde_json::json!({"customer": {"id": ID, "organization": "Contoso"}}),
        serde_json::json!({"record": {"collector": "protected", "customer": customer, "good_at": now, "record": record}}),
        serde_json::json!({"freshness": {"collector": "protected", "customer": customer, "attempt": "succeeded",
            "last_success": now}}),
    ];
    let mut text: String = text.iter().map(|line| line.to_string() + "\n").collect();
    let end = Line::End {
        lines: 4,
        crc32: crc32fast::hash(text.as_bytes()),
    };
    text.push_str(&serde_json::to_string(&end).unwrap());
    text.push('\n');
    fs::write(&path, text).unwrap();
    let store = Store::new(&plans, None);
    assert_eq!(
        store
            .restore(&path, &Arc::default(), &CustomerFilter::default(), now)
            .unwrap(),
        1
    );
    let families = crate::exposition::families(crate::store::columns());
    let mut renderer = crate::exposition::Renderer::new(
        families.into(),
        store.snapshot(None, now).1,
        crate::exposition::Filter::default(),
        crate::exposition::Format::Text,
    );
    let mut shown = Vec::new();
    while renderer.append_frame(&mut shown) {}
    let shown = String::from_utf8(shown).unwrap();
    assert!(shown.contains("elements_protected_objects{"), "{shown}");
    assert!(shown.contains(ID) && !shown.contains(customer.as_str()), "{shown}");
    assert!(store.succeeded(protected, &Target::Customer(customer)));
}

#[test]
fn clock_that_went_back_leaves_no_future_times() {
    let plans = plans();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let then = Timestamp::from_unix_seconds(1_790_000_000);
    let before = Store::new(&plans, None);
    before.add_target(CollectorId::CUSTOMERS, &Target::Partner);
    before
        .commit(CollectorId::CUSTOMERS, &Target::Partner, BTreeMap::new(), true, then)
        .unwrap();
    before
        .saved_state()
        .save(&StateFile::open(path.clone()).unwrap())
        .unwrap();
    for (now, expected) in [
        (then.plus(Duration::from_secs(3600)), then),
        (
            then.minus(Duration::from_secs(3600)),
            then.minus(Duration::from_secs(3600)),
        ),
    ] {
        let after = Store::new(&plans, None);
        after
            .restore(&path, &Arc::default(), &CustomerFilter::default(), now)
            .unwrap();
        assert_eq!(
            after.last_success(CollectorId::CUSTOMERS, &Target::Partner),
            Some(expected)
        );
    }
}

#[test]
fn missing_service_is_restored_with_its_time() {
    let plans = plans();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let then = Timestamp::from_unix_seconds(1_790_000_000);
    let ransomware = CollectorId::named("ransomware").unwrap();
    let before = Store::new(&plans, None);
    before.add_target(ransomware, &Target::Partner);
    assert_eq!(before.unlicensed_at(ransomware, &Target::Partner), None);
    before.mark_unlicensed(ransomware, &Target::Partner, then);
    before.clamp_times(then);
    before
        .saved_state()
        .save(&StateFile::open(path.clone()).unwrap())
        .unwrap();
    let after = Store::new(&plans, None);
    let now = then.plus(Duration::from_secs(3600));
    after
        .restore(&path, &Arc::default(), &CustomerFilter::default(), now)
        .unwrap();
    assert_eq!(after.unlicensed_at(ransomware, &Target::Partner), Some(then));
    after.mark_failed(ransomware, &Target::Partner);
    assert_eq!(after.unlicensed_at(ransomware, &Target::Partner), None);
}

/// The seeds of the fuzz target contain a record of each collector that can be restored.
#[test]
fn corpus_has_a_record_of_each_collector() {
    for collector in crate::collector::ids() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/state");
        let input = fs::read(path.join(collector.name())).unwrap_or_default();
        let mut file = input.get(1..).unwrap_or_default().to_vec();
        let end = Line::End {
            lines: u64::try_from(file.split_inclusive(|byte| *byte == b'\n').count()).unwrap(),
            crc32: crc32fast::hash(&file),
        };
        file.extend(serde_json::to_vec(&end).unwrap());
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        fs::write(&path, file).unwrap();
        let settings = CollectorSettings {
            consent_products: vec!["Office365Backup".to_owned()],
            ..CollectorSettings::default()
        };
        let store = Store::new(&plans(), None);
        let now = Timestamp::from_unix_seconds(1_800_000_000);
        store
            .restore(&path, &settings.into(), &CustomerFilter::default(), now)
            .unwrap();
        let customer = store.customers().pop().unwrap();
        assert!(store.record(collector, &customer).is_some(), "{}", collector.name());
    }
}

proptest::proptest! {
    /// Gauges must not change after a restart, even above 2^53 bytes.
    #[test]
    fn size_is_restored_exactly(bytes in 0.0..9e18_f64) {
        let json = serde_json::value::to_raw_value(&bytes).unwrap();
        let back: f64 = serde_json::from_str(json.get()).unwrap();
        proptest::prop_assert_eq!(back.to_bits(), bytes.to_bits());
    }
}
