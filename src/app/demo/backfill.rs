//! Writes four weeks of the demo's metrics in the OpenMetrics format, with timestamps.

mod recorded;
mod samples;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::time::SystemTime;

use tokio_util::sync::CancellationToken;

use recorded::{Recorded, Recorder};
use samples::sample;

use super::past::PastExporter;
use crate::app::Error;
use crate::args;
use crate::collector::CollectorId;
use crate::domain::Timestamp;
use crate::exposition::write_label;

/// Number of days in the history, equal to the longest time range that a panel sets with `timeFrom`.
const DAYS: u32 = 28;

/// Hours between samples. Prometheus' `--query.lookback-delta` must be longer.
pub(super) const STEP: u32 = 3;

/// Number of steps from the first sample to the last. A series can therefore have one sample more than this.
const STEPS: u32 = DAYS * 24 / STEP;

/// Number of steps with polls before the first sample. These polls fetch restore points from before an incident.
const EARLIER_STEPS: u32 = 2 * 24 / STEP;

/// Number of steps between polls of collectors whose data changes slowly.
const SLOW_POLL_STEPS: u32 = 12 / STEP;

/// Collectors for the metrics in [`SCRAPED`] and for the metrics on which the recorded series depend, in poll order.
const COLLECTORS: &[&str] = &[
    "customers",
    "jobs",
    "protected",
    "licenses",
    "scan_profiles",
    "scan_changes",
    "app_consent",
];

/// Selects which samples of a metric are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kept {
    /// Number of steps before the last step that may have samples.
    steps: u32,
    /// Number of steps from one sample to the next.
    every: u32,
}

impl Kept {
    const fn days(days: u32) -> Self {
        Self {
            steps: days * 24 / STEP,
            every: 1,
        }
    }

    const fn every(self, hours: u32) -> Self {
        Self {
            every: hours / STEP,
            ..self
        }
    }

    /// Returns whether a step has a sample. The last step always has one.
    fn includes(self, step: u32) -> bool {
        let left = STEPS.saturating_sub(step);
        left <= self.steps && left.is_multiple_of(self.every.max(1))
    }
}

/// Samples of the last 12 hours, for rules that look back and for panels about recent hours.
const RECENT: Kept = Kept {
    steps: 12 / STEP,
    every: 1,
};

/// Prefixes of the names of scraped metrics, each with the samples that panels and rules query. Other metrics need no
/// history.
const SCRAPED: &[(&str, Kept)] = &[
    ("elements_up", Kept::days(DAYS)),
    ("elements_exporter_build_info", Kept::days(7)),
    ("elements_exporter_customers", Kept::days(7)),
    ("elements_exporter_collector_", RECENT),
    ("elements_customer_info", RECENT),
    ("elements_job_status", Kept::days(7)),
    ("elements_job_duration_seconds", Kept::days(7)),
    ("elements_job_start_timestamp_seconds", RECENT),
    ("elements_job_end_timestamp_seconds", RECENT),
    ("elements_job_last_backup_timestamp_seconds", RECENT),
    ("elements_job_consecutive_failures", RECENT),
    ("elements_job_rpo_seconds", RECENT),
    ("elements_job_abandoned", RECENT),
    ("elements_protected_size_bytes", Kept::days(7)),
    ("elements_protected_objects", RECENT),
    ("elements_protected_scanned_objects", RECENT),
    ("elements_license_consumed_storage_bytes", Kept::days(DAYS)),
    ("elements_license_info", RECENT),
    ("elements_license_purchased_seats", RECENT),
    ("elements_license_expiration_timestamp_seconds", RECENT),
    ("elements_scan_new_objects", Kept::days(7)),
    ("elements_scan_moved_objects", Kept::days(7)),
    ("elements_scan_removed_objects", Kept::days(7)),
    // The rule for this metric uses its maximum over a week.
    ("elements_tenant_app_consented", Kept::days(7).every(6)),
];

/// Label of all series.
const JOB: &str = r#"job="elements""#;

/// Result of a backfill.
#[derive(Clone, Copy, Debug)]
pub struct Backfilled {
    /// Number of samples.
    pub samples: u64,
    /// Number of days in the history.
    pub days: u32,
    /// Whether the whole history was written. False if the command was stopped early.
    pub is_complete: bool,
}

/// Writes the history of the demo.
///
/// # Errors
/// Returns an error if the simulated partner's address cannot be bound or the file cannot be written.
pub async fn backfill(
    simulator: &args::Simulator,
    options: &args::Backfill,
    stop: CancellationToken,
) -> Result<Backfilled, Error> {
    let write_error = |source| Error::Write {
        path: options.file.clone(),
        source,
    };
    let mut output = Output::new(&options.file, &options.instance).map_err(write_error)?;
    let now = Timestamp::from(SystemTime::now()).as_unix_seconds();
    #[expect(clippy::cast_possible_truncation, reason = "Unix time in whole seconds")]
    let now = now as i64;
    let seconds = STEP * 3600;
    let begin = now - i64::from((EARLIER_STEPS + STEPS) * seconds);
    let mut exporter = PastExporter::start(simulator, COLLECTORS, begin, now).await?;
    let mut recorder = Recorder::default();
    for step in 0..=EARLIER_STEPS + STEPS {
        if stop.is_cancelled() {
            break;
        }
        let is_slow_due = step.is_multiple_of(SLOW_POLL_STEPS);
        let is_due =
            |collector: &CollectorId| is_slow_due || [CollectorId::CUSTOMERS, CollectorId::JOBS].contains(collector);
        let enabled = COLLECTORS.iter().filter_map(|name| CollectorId::named(name));
        exporter.poll(enabled.filter(is_due)).await;
        if let Some(step) = step.checked_sub(EARLIER_STEPS) {
            let exposition = exporter.exposition();
            let exposition = String::from_utf8_lossy(&exposition);
            let at = exporter.now();
            output.write_scraped(&exposition, step, at).map_err(write_error)?;
            let recorded = recorder.record(&exposition, step, at);
            output.write_recorded(&recorded, at).map_err(write_error)?;
        }
        exporter.advance(seconds);
    }
    let is_complete = !stop.is_cancelled();
    let samples = output.end().map_err(write_error)?;
    Ok(Backfilled {
        samples,
        days: DAYS,
        is_complete,
    })
}

/// The output file. Its samples are sorted by step instead of by metric family. promtool accepts this order.
struct Output {
    out: BufWriter<File>,
    labels: String,
    samples: u64,
}

impl Output {
    fn new(path: &std::path::Path, instance: &str) -> io::Result<Self> {
        let mut labels = JOB.to_owned();
        write_label(&mut labels, "instance", instance);
        Ok(Self {
            out: BufWriter::new(File::create(path)?),
            labels,
            samples: 0,
        })
    }

    fn write_scraped(&mut self, exposition: &str, step: u32, at: i64) -> io::Result<()> {
        writeln!(self.out, "up{{{}}} 1 {at}", self.labels)?;
        self.samples += 1;
        let due: Vec<&str> = SCRAPED
            .iter()
            .filter(|(_, kept)| kept.includes(step))
            .map(|(prefix, _)| *prefix)
            .collect();
        for line in exposition
            .lines()
            .filter(|line| due.iter().any(|prefix| line.starts_with(prefix)))
        {
            let Some((name, labels, value)) = sample(line) else {
                continue;
            };
            if name.ends_with("_total") && value == "0" {
                continue;
            }
            let separator = if labels.is_empty() { "" } else { "," };
            writeln!(self.out, "{name}{{{}{separator}{labels}}} {value} {at}", self.labels)?;
            self.samples += 1;
        }
        Ok(())
    }

    fn write_recorded(&mut self, recorded: &[Recorded], at: i64) -> io::Result<()> {
        for one in recorded {
            let separator = if one.labels.is_empty() { "" } else { "," };
            let (name, labels, value) = (one.name, &one.labels, one.value);
            writeln!(self.out, "{name}{{{JOB}{separator}{labels}}} {value} {at}")?;
            self.samples += 1;
        }
        Ok(())
    }

    fn end(mut self) -> io::Result<u64> {
        self.out.write_all(b"# EOF\n")?;
        self.out.flush()?;
        Ok(self.samples)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_ends_with_the_last_step() {
        let kept = Kept::days(7).every(6);
        let steps: Vec<u32> = (0..=STEPS).filter(|step| kept.includes(*step)).collect();
        assert_eq!(steps.last(), Some(&STEPS));
        assert_eq!(steps.first(), Some(&(STEPS - 7 * 24 / STEP)));
        assert_eq!(steps.len(), 7 * 4 + 1);
        assert!(Kept::days(DAYS).includes(0));
    }
}
