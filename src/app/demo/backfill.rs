//! Writes four weeks of metrics of the demo with timestamps. The simulated time advances step by step, and in each step
//! the exporter polls and renders as in production.

mod recorded;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::{StreamExt as _, stream};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use recorded::recorded;

use super::{attributes, environment};
use crate::app::{Error, Parts};
use crate::args;
use crate::collector::{CollectorId, Context, Customer, PollOutput, Record, RecordSource, Target, TargetKind, ids};
use crate::config;
use crate::domain::{CustomerId, Timestamp};
use crate::exposition::Format;
use crate::scrape::ScrapeFilter;
use crate::simulator::{self, Clock, Simulator};

/// Number of days: the longest range of a panel.
const DAYS: u32 = 28;

/// Seconds between samples. With half an hour, the file has about two gigabytes. `--query.lookback-delta` of Prometheus
/// must be at least this long.
const STEP: u32 = 30 * 60;

/// Number of concurrent polls.
const CONCURRENCY: usize = 8;

/// Number of steps between polls of collectors that need few samples.
const SLOW_POLL_STEPS: u32 = 12;

/// Prefixes of the metrics that panels and rules query over weeks.
const HISTORY_METRICS: &[&str] = &[
    "elements_up",
    "elements_customer_info",
    "elements_job_status",
    "elements_job_last_backup_timestamp_seconds",
    "elements_job_consecutive_failures",
    "elements_job_rpo_seconds",
    "elements_job_runs_total",
    "elements_protected_size_bytes",
    "elements_exporter_customers",
];

/// Prefixes of the metrics that are written for the last days only. All other metrics are available from the first
/// scrape on.
const RECENT_METRICS: &[&str] = &[
    "elements_job_end_timestamp_seconds",
    "elements_job_duration_seconds",
    "elements_job_objects",
    "elements_job_abandoned",
    "elements_protected_objects",
    "elements_protected_scanned_objects",
    "elements_license_info",
    "elements_license_expiration_timestamp_seconds",
    "elements_tenant_scan_status",
    "elements_exporter_collector_",
];

/// Days for [`RECENT_METRICS`].
const RECENT_DAYS: u32 = 2;

/// The label of all series.
const JOB: &str = r#"job="elements""#;

/// Result of a backfill.
#[derive(Clone, Copy, Debug)]
pub struct Backfilled {
    /// Number of samples.
    pub samples: u64,
    /// Number of days.
    pub days: u32,
    /// False if the command was stopped before the end.
    pub is_complete: bool,
}

/// Writes the history of the demo.
///
/// # Errors
/// Returns an error if the simulated partner's address cannot be bound, or the file cannot be written.
pub async fn backfill(
    simulator: &args::Simulator,
    options: &args::Backfill,
    stop: CancellationToken,
) -> Result<Backfilled, Error> {
    let write_error = |source| Error::Write {
        path: options.file.clone(),
        source,
    };
    let now = Timestamp::from(SystemTime::now()).as_unix_seconds();
    #[expect(clippy::cast_possible_truncation, reason = "whole seconds of our time")]
    let now = now as i64;
    let begin = now - i64::from(DAYS * 24 * 3600);
    let partner = partner(simulator, begin, now).await?;
    let handle = partner.handle();
    let recorder = HistoryRecorder::new(&partner, simulator)?;
    let _serving = stop.clone().drop_guard();
    tokio::spawn(partner.run(stop.clone()));

    let mut output = Output::new(&options.file, &options.instance).map_err(write_error)?;
    for step in 0..=(DAYS * 24 * 3600 / STEP) {
        if stop.is_cancelled() {
            break;
        }
        let at = begin + i64::from(step) * i64::from(STEP);
        recorder.poll(step, Timestamp::from_unix_seconds(at)).await;
        let is_recent = (DAYS - RECENT_DAYS) * 24 * 3600 <= step * STEP;
        output
            .write(&recorder.exposition(Timestamp::from_unix_seconds(at)), at, is_recent)
            .map_err(write_error)?;
        handle.advance(Duration::from_secs(u64::from(STEP)));
    }
    let is_complete = !stop.is_cancelled();
    let samples = output.end().map_err(write_error)?;
    Ok(Backfilled {
        samples,
        days: DAYS,
        is_complete,
    })
}

async fn partner(options: &args::Simulator, begin: i64, now: i64) -> Result<Simulator, Error> {
    let settings = simulator::Settings {
        clock: Clock::Manual(begin),
        scenarios_from: Some(now),
        churn: false,
        // Tokens expire by the simulated clock, which advances faster than real time.
        token_lifetime: Duration::from_secs(u64::from(DAYS) * 2 * 24 * 3600),
        latency: simulator::Latency::None,
        ..super::settings(options)
    };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Simulator::bind(settings, address).await.map_err(|source| Error::Bind {
        address: address.to_string(),
        source,
    })
}

/// The exporter without its poll loop, which can only poll at the current time.
struct HistoryRecorder {
    parts: Parts,
}

impl HistoryRecorder {
    fn new(partner: &Simulator, options: &args::Simulator) -> Result<Self, Error> {
        // The file is read once, below.
        let attributes = attributes();
        let mut config = config::load(
            None,
            with_step_intervals(environment(partner, options, attributes.as_ref())),
        )?;
        // No other client uses the simulated partner, so requests are not limited.
        config.api.requests_per_second = f64::from(u16::MAX);
        config.api.max_concurrency = CONCURRENCY;
        let parts = Parts::new(&config)?;
        parts
            .schedule_status
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .customers_listed = Some(true);
        Ok(Self { parts })
    }

    /// Polls the collectors that are due in a step, at the time `now`.
    async fn poll(&self, step: u32, now: Timestamp) {
        for collector in ids() {
            let is_due = [CollectorId::CUSTOMERS, CollectorId::JOBS].contains(&collector)
                || step.is_multiple_of(SLOW_POLL_STEPS);
            if !is_due {
                continue;
            }
            let targets = match collector.descriptor().target_kind {
                TargetKind::Partner => vec![Target::Partner],
                TargetKind::Customer => self.parts.store.customers().into_iter().map(Target::Customer).collect(),
            };
            let polls = targets
                .into_iter()
                .map(|target| self.poll_target(collector, target, now));
            stream::iter(polls)
                .buffer_unordered(CONCURRENCY)
                .collect::<Vec<()>>()
                .await;
        }
    }

    async fn poll_target(&self, collector: CollectorId, target: Target, now: Timestamp) {
        let store = &self.parts.store;
        store.add_target(collector, &target);
        let context = self.context(
            now,
            match &target {
                Target::Partner => Arc::from(""),
                Target::Customer(id) => store.organization(id),
            },
        );
        let source = Arc::clone(store) as Arc<dyn RecordSource>;
        let polled = match self.parts.schedule_config.client.api().await {
            Ok(api) => collector.poll(api, target.clone(), source, context).await,
            Err(failure) => Err(failure),
        };
        match polled {
            Ok(output) => self.commit(collector, &target, output, now),
            Err(failure) if collector.descriptor().is_unlicensed(&failure.error) => {
                store.mark_unlicensed(collector, &target, now)
            }
            Err(failure) => warn!(collector = collector.name(), error = %failure.error, "poll failed"),
        }
    }

    fn context(&self, now: Timestamp, organization: Arc<str>) -> Context {
        Context::new(now, Arc::clone(&self.parts.schedule_config.settings), organization)
    }

    fn commit(&self, collector: CollectorId, target: &Target, output: PollOutput, now: Timestamp) {
        let store = &self.parts.store;
        let organization = |record: &dyn Record| {
            let customer = Customer::of(record);
            customer.map_or_else(|| Arc::from(""), |customer| Arc::from(customer.organization.as_str()))
        };
        if collector == CollectorId::CUSTOMERS {
            let listed: BTreeMap<CustomerId, Arc<str>> = output
                .records
                .iter()
                .map(|(id, kept)| (id.clone(), organization(kept.as_ref())))
                .collect();
            // The list of the simulated partner is always complete, and no customer is removed.
            let (_, _) = store.reconcile(&listed, true);
        }
        // `metrics.series_limit` is not set here.
        let context_of = |id: &CustomerId| self.context(now, store.organization(id));
        let (rendered, _) = collector.descriptor().render_all(output.records, context_of);
        let _ = store.commit(collector, target, rendered, output.incomplete.is_none(), now);
    }

    /// Renders all metrics at the time `now`.
    fn exposition(&self, now: Timestamp) -> Vec<u8> {
        let unfiltered = ScrapeFilter::default();
        let mut text = self.parts.scrape.exporter_metrics(&unfiltered, Format::Text, now).head;
        let mut stored = self.parts.scrape.stored(&unfiltered, Format::Text, now);
        let mut frame = Vec::new();
        loop {
            frame.clear();
            stored.fill(&mut frame);
            if frame.is_empty() {
                return text;
            }
            text.append(&mut frame);
        }
    }
}

/// Replaces the poll intervals with the duration of a step.
fn with_step_intervals(mut environment: Vec<(OsString, OsString)>) -> Vec<(OsString, OsString)> {
    let is_interval = |name: &OsString| name.to_string_lossy().ends_with("__INTERVAL");
    for (_, value) in environment.iter_mut().filter(|(name, _)| is_interval(name)) {
        *value = format!("{}s", STEP * SLOW_POLL_STEPS).into();
    }
    environment
}

/// The output file. Its samples are sorted by step, which promtool accepts, and not by family.
struct Output {
    out: BufWriter<File>,
    labels: String,
    samples: u64,
}

impl Output {
    fn new(path: &std::path::Path, instance: &str) -> io::Result<Self> {
        let instance = instance.replace(['"', '\\', '\n'], "");
        Ok(Self {
            out: BufWriter::new(File::create(path)?),
            labels: format!("{JOB},instance=\"{instance}\""),
            samples: 0,
        })
    }

    fn write(&mut self, exposition: &[u8], at: i64, is_recent: bool) -> io::Result<()> {
        writeln!(self.out, "up{{{}}} 1 {at}", self.labels)?;
        self.samples += 1;
        let exposition = String::from_utf8_lossy(exposition);
        for line in exposition.lines() {
            let Some((name, labels, value)) = sample(line) else {
                continue;
            };
            // Counters that are always zero are omitted.
            let never_counted = name.ends_with("_total") && value == "0";
            let has_prefix = |names: &[&str]| names.iter().any(|beginning| name.starts_with(beginning));
            if !never_counted && (has_prefix(HISTORY_METRICS) || is_recent && has_prefix(RECENT_METRICS)) {
                let separator = if labels.is_empty() { "" } else { "," };
                writeln!(self.out, "{name}{{{}{separator}{labels}}} {value} {at}", self.labels)?;
                self.samples += 1;
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "whole seconds of our time")]
        for one in recorded(&exposition, at as f64) {
            let separator = if one.labels.is_empty() { "" } else { "," };
            let (name, labels, value) = (one.name, one.labels, one.value);
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

/// Returns name, labels and value of a line in the text format, unless it is a comment.
fn sample(line: &str) -> Option<(&str, &str, &str)> {
    if line.starts_with('#') {
        return None;
    }
    let (series, value) = line.rsplit_once(' ')?;
    match series.split_once('{') {
        Some((name, labels)) => Some((name, labels.strip_suffix('}')?, value)),
        None => Some((series, "", value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_split_into_their_parts() {
        let labelled = sample(r#"elements_jobs{a="} 1",b="x y"} 3"#);
        assert_eq!(labelled, Some(("elements_jobs", r#"a="} 1",b="x y""#, "3")));
        assert_eq!(sample("elements_up 1"), Some(("elements_up", "", "1")));
        assert_eq!(sample("# HELP elements_up 1"), None);
        assert_eq!(sample(""), None);
    }
}
