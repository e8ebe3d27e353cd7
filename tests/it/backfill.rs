//! The history of the demo, written to a file for promtool.

use std::collections::BTreeSet;

use elements_exporter::app;
use elements_exporter::args::{Backfill, ListenAddress, Simulator};
use elements_exporter::simulator::Latency;
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread")]
async fn backfill_covers_four_weeks_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let backfill = Backfill {
        file: directory.path().join("past"),
        instance: "exporter:10027".to_owned(),
    };
    let simulator = Simulator {
        listen_address: ListenAddress::All(0),
        customers: 1,
        seed: 1,
        speed: 60.0,
        hostile: false,
        latency: Latency::None,
    };
    let written = app::backfill(&simulator, &backfill, CancellationToken::new())
        .await
        .unwrap();
    assert!(written.is_complete);
    let text = std::fs::read_to_string(&backfill.file).unwrap();
    let lines = text.strip_suffix("# EOF\n").unwrap().lines();
    assert_eq!(u64::try_from(lines.clone().count()).unwrap(), written.samples);
    let samples_of = |name: &str| -> Vec<(f64, i64)> {
        let samples = lines.clone().filter(|line| line.starts_with(&format!("{name}{{")));
        samples
            .map(|line| {
                let mut words = line.rsplit(' ');
                let at = words.next().unwrap().parse().unwrap();
                (words.next().unwrap().parse().unwrap(), at)
            })
            .collect()
    };
    let up = samples_of("elements_up");
    assert!(up.iter().all(|(value, _)| *value == 1.0));
    assert!(up.windows(2).all(|pair| pair[1].1 - pair[0].1 == 3 * 3600));
    assert_eq!(up[up.len() - 1].1 - up[0].1, 28 * 24 * 3600);
    // All modules of the only customer are backed up regularly.
    let backups = samples_of("customer_module:elements_job_last_backup_timestamp_seconds:max");
    let distinct: BTreeSet<u64> = backups.iter().map(|(end, _)| end.to_bits()).collect();
    assert!(distinct.len() > 100, "{}", distinct.len());
    assert!(backups.iter().all(|(end, at)| *end <= *at as f64 && *end > 0.0));
    let ended = samples_of("customer_module_status:elements_job_runs:increase1h");
    assert!(ended.iter().map(|(runs, _)| runs).sum::<f64>() > 3000.0);
    // These metrics have a sample at the last step, so that rules that look back have no gap when the demo starts.
    let last_at = up[up.len() - 1].1;
    for name in [
        "customer_module:elements_job_rpo_breached:bool",
        "customer_module:elements_job_rpo_state_seconds:sum1h",
        "elements_job_status",
        "elements_tenant_app_consented",
    ] {
        assert!(samples_of(name).iter().any(|(_, at)| *at == last_at), "{name}");
    }
    // Detects a metric that is added to the backfill by mistake and has a series per run.
    assert!(written.samples < 50_000, "{}", written.samples);
    // The rules remove the label `instance`.
    let (recorded, scraped): (Vec<&str>, Vec<&str>) =
        lines.partition(|line| line.split('{').next().unwrap().contains(':'));
    assert!(
        scraped
            .iter()
            .all(|line| line.contains("job=\"elements\",instance=\"exporter:10027\""))
    );
    assert!(
        recorded
            .iter()
            .all(|line| line.contains("{job=\"elements\"") && !line.contains("instance="))
    );
    let within = recorded
        .iter()
        .filter(|line| line.starts_with("fleet:elements_customers_within_rpo:ratio{"));
    assert_eq!(within.count(), up.len());
}
