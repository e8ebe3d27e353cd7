//! The state file is restored completely or not at all. Saving the restored state and restoring it again yields the
//! same state.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use elements_exporter::collector::{CollectorSettings, PerCollector, Plan};
use elements_exporter::domain::Timestamp;
use elements_exporter::exposition::{Filter, Format, Renderer, families};
use elements_exporter::store::state_file::StateFile;
use elements_exporter::store::{Store, columns};

use crate::parser::parse;

/// Checks an input: a flag, followed by the lines of a state file. If the flag is odd, appends a valid last line with
/// the count and the checksum, because random input would not contain such a line.
pub fn check(data: &[u8]) {
    let Some((flag, lines)) = data.split_first() else {
        return;
    };
    let mut file = lines.to_vec();
    if flag % 2 == 1 {
        if !file.ends_with(b"\n") {
            file.push(b'\n');
        }
        let count = file.split_inclusive(|byte| *byte == b'\n').count();
        let crc32 = crc32fast::hash(&file);
        file.extend_from_slice(format!("{{\"end\":{{\"lines\":{count},\"crc32\":{crc32}}}}}\n").as_bytes());
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("state");
    std::fs::write(&path, &file).expect("written");
    let store = new_store();
    // If the file contains a later time of a poll, restoring replaces that time with this one.
    let now = Timestamp::from_unix_seconds(1_800_000_000);
    match restore(&store, &path, now) {
        None => {
            assert!(!store.was_restored() && store.customers().is_empty() && store.series() == 0);
            assert!(
                exposition(&store, now, Format::Text).is_empty(),
                "a rejected file was partially restored"
            );
        }
        Some(customers) => {
            assert_eq!(customers, store.customers().len());
            let text = exposition(&store, now, Format::Text);
            let samples = parse(&text, false);
            parse(&exposition(&store, now, Format::OpenMetrics), true);
            let listed: BTreeMap<String, ()> = store
                .customers()
                .iter()
                .map(|id| (crate::labels::sanitize_label(id.as_str()), ()))
                .collect();
            for sample in &samples {
                let (_, id) = sample
                    .labels
                    .iter()
                    .find(|(name, _)| name == "customer_id")
                    .expect("every series has a customer");
                assert!(
                    id.is_empty() || listed.contains_key(id),
                    "{sample:?} belongs to an unknown customer"
                );
                let is_exporter_time =
                    sample.name.starts_with("elements_exporter_") && sample.name.ends_with("_timestamp_seconds");
                assert!(
                    !is_exporter_time || sample.value <= now.as_unix_seconds(),
                    "{sample:?} is in the future"
                );
            }
            let saved = StateFile::open(directory.path().join("again")).expect("opened");
            store.saved_state().save(&saved).expect("saved");
            let restored = new_store();
            assert_eq!(
                restore(&restored, saved.path(), now),
                Some(customers),
                "the saved state was not restored"
            );
            assert_eq!(
                exposition(&restored, now, Format::Text),
                text,
                "saving and restoring changed the exposition"
            );
            assert_eq!(restored.series(), store.series());
        }
    }
}

fn new_store() -> Store {
    let plan = Plan {
        enabled: true,
        interval: Duration::from_secs(60),
        stale_after: Duration::from_secs(180),
    };
    Store::new(&PerCollector::from_fn(|_| plan), None)
}

fn restore(store: &Store, path: &Path, now: Timestamp) -> Option<usize> {
    let settings = Arc::new(CollectorSettings {
        consent_products: vec!["Office365Backup".to_owned()],
        ..CollectorSettings::default()
    });
    store
        .restore(
            path,
            &settings,
            &elements_exporter::domain::CustomerFilter::default(),
            now,
        )
        .ok()
}

fn exposition(store: &Store, now: Timestamp, format: Format) -> String {
    let snapshot = store.snapshot(None, now).1;
    let mut renderer = Renderer::new(families(columns()).into(), snapshot, Filter::default(), format);
    let mut text = Vec::new();
    while let Some(frame) = renderer.next_frame() {
        text.extend_from_slice(&frame);
    }
    String::from_utf8(text).expect("UTF-8")
}
