//! Tests for restoring state files.

use std::fs;
use std::time::Duration;

use super::*;
use crate::collector::{PerCollector, Plan, RecordSource as _};

/// Returns plans in which all collectors poll every minute.
fn plans() -> PerCollector<Plan> {
    let plan = Plan {
        enabled: true,
        interval: Duration::from_secs(60),
        stale_after: Duration::from_secs(180),
    };
    PerCollector::from_fn(|_| plan)
}

/// Writes a state file with these lines, followed by an end line.
fn write_state(path: &Path, mut lines: Vec<u8>) {
    let end = Line::End {
        lines: u64::try_from(lines.split_inclusive(|byte| *byte == b'\n').count()).unwrap(),
        crc32: crc32fast::hash(&lines),
    };
    lines.extend(serde_json::to_vec(&end).unwrap());
    fs::write(path, lines).unwrap();
}

fn restored(path: &Path, settings: CollectorSettings, now: Timestamp) -> Store {
    let store = Store::new(&plans(), None);
    let count = store.restore(path, &settings.into(), &CustomerFilter::default(), now);
    assert_eq!(count.unwrap(), store.customers().len());
    store
}

#[test]
fn customer_is_restored_with_a_normalized_id() {
    const ID: &str = "caf94a75-2cc6-43aa-b04b-794c8baf5ea3";
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
    let text: String = text.iter().map(|line| line.to_string() + "\n").collect();
    write_state(&path, text.into_bytes());
    let store = restored(&path, CollectorSettings::default(), now);
    assert_eq!(store.customers().len(), 1);
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

/// Returns a store that is restored from another store's saved state.
fn saved_and_restored(store: &Store, now: Timestamp) -> Store {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let file = StateFile::open(path.clone()).unwrap();
    store.saved_state().save(&file).unwrap();
    restored(&path, CollectorSettings::default(), now)
}

#[test]
fn clock_that_went_back_leaves_no_future_times() {
    let hour = Duration::from_secs(3600);
    let then = Timestamp::from_unix_seconds(1_790_000_000);
    let (collector, target) = (CollectorId::CUSTOMERS, Target::Partner);
    let before = Store::new(&plans(), None);
    before.add_target(collector, &target);
    before.commit(collector, &target, BTreeMap::new(), true, then).unwrap();
    for (now, expected) in [(then.plus(hour), then), (then.minus(hour), then.minus(hour))] {
        let after = saved_and_restored(&before, now);
        assert_eq!(after.last_success(collector, &target), Some(expected));
    }
}

#[test]
fn missing_service_is_restored_with_its_time() {
    let then = Timestamp::from_unix_seconds(1_790_000_000);
    let (ransomware, target) = (CollectorId::named("ransomware").unwrap(), Target::Partner);
    let before = Store::new(&plans(), None);
    before.add_target(ransomware, &target);
    assert_eq!(before.unlicensed_at(ransomware, &target), None);
    before.mark_unlicensed(ransomware, &target, then);
    before.clamp_times(then);
    let after = saved_and_restored(&before, then.plus(Duration::from_secs(3600)));
    assert_eq!(after.unlicensed_at(ransomware, &target), Some(then));
    after.mark_failed(ransomware, &target);
    assert_eq!(after.unlicensed_at(ransomware, &target), None);
}

/// The seeds of the fuzz target must contain a restorable record of each collector.
#[test]
fn corpus_has_a_record_of_each_collector() {
    for collector in crate::collector::ids() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/state");
        let input = fs::read(path.join(collector.name())).unwrap_or_default();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        write_state(&path, input.get(1..).unwrap_or_default().to_vec());
        let settings = CollectorSettings {
            consent_products: vec!["Office365Backup".to_owned()],
            ..CollectorSettings::default()
        };
        let store = restored(&path, settings, Timestamp::from_unix_seconds(1_800_000_000));
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
