//! Computes the results of those recording rules whose earlier values are queried by panels or other rules. Prometheus
//! does not evaluate rules for the past, so without these results, the panels would be empty at first.

mod attention;
mod report;

use std::collections::BTreeMap;

use super::samples::{Groups, Samples, add, grouped, only, series_of};
use super::{Kept, RECENT};
use attention::record_attention;
use report::Report;

/// Metrics that the rules read.
const RPO: &str = "elements_job_rpo_seconds";
const LAST_BACKUP: &str = "elements_job_last_backup_timestamp_seconds";
const START: &str = "elements_job_start_timestamp_seconds";
const END: &str = "elements_job_end_timestamp_seconds";
const DURATION: &str = "elements_job_duration_seconds";
const FAILURES: &str = "elements_job_consecutive_failures";
const STATUS: &str = "elements_job_status";
const ABANDONED: &str = "elements_job_abandoned";
const RUNS: &str = "elements_job_runs_total";
const SIZE: &str = "elements_protected_size_bytes";
const PROTECTED: &str = "elements_protected_objects";
const SCANNED: &str = "elements_protected_scanned_objects";
const CUSTOMER_INFO: &str = "elements_customer_info";
const LICENSE_INFO: &str = "elements_license_info";
const EXPIRATION: &str = "elements_license_expiration_timestamp_seconds";
const SEATS: &str = "elements_license_purchased_seats";
const CUSTOMERS: &str = "elements_exporter_customers";
const READ: &[&str] = &[
    RPO,
    LAST_BACKUP,
    START,
    END,
    DURATION,
    FAILURES,
    STATUS,
    ABANDONED,
    RUNS,
    SIZE,
    PROTECTED,
    SCANNED,
    CUSTOMER_INFO,
    LICENSE_INFO,
    EXPIRATION,
    SEATS,
    CUSTOMERS,
];

const CUSTOMER: &[&str] = &["customer_id"];
const ATTRIBUTES: &[&str] = &["customer_id", "organization", "country", "tier", "region", "team"];
const MODULE: &[&str] = &["service", "module"];
const CUSTOMER_MODULE: &[&str] = &["customer_id", "service", "module"];
const SCOPE: &[&str] = &["customer_id", "service", "module", "scope"];
const LICENSE: &[&str] = &["customer_id", "license", "service"];

/// Window of `module:elements_job_failing:sum26h` and `module:elements_job_failing:ratio26h`.
const FAILING_WINDOW: f64 = 26.0 * 3600.0;

/// Factor for rounding: the rules round ratios to millionths.
const ROUNDING: f64 = 1e6;

/// Minimum number of seconds after which a run counts as running long. The run must also have taken more than
/// [`TIMES_LONGER`] times as long as the latest completed run.
const LONG: f64 = 43_200.0;
const TIMES_LONGER: f64 = 10.0;

const DAY: f64 = 86_400.0;

const MONTH: Kept = Kept::days(super::DAYS);
const WEEK: Kept = Kept::days(7);
/// Samples of the last two days, for `offset 26h` and for panels that show changes since the previous day.
const TWO_DAYS: Kept = Kept::days(2);
/// Samples of the last eight days, for the daily growth over a week. The growth is the difference between each sample
/// and the sample from a day earlier.
const EIGHT_DAYS: Kept = Kept::days(8);
/// Samples every six hours, for panels that take the maximum of each day.
const QUARTER_DAILY: Kept = MONTH.every(6);
/// Samples every six hours, for the sums of the monthly report.
const REPORT: Kept = MONTH.every(6);
/// Samples every twelve hours, for values in the monthly report, which uses only the last value of each day.
const HALF_DAILY: Kept = MONTH.every(12);

/// Recorded series, and which of their samples are written.
const RECORDED: &[(&str, Kept)] = &[
    ("alert:elements_firing_seconds:sum1h", REPORT),
    ("customer:elements_customer_info:max", TWO_DAYS),
    ("customer:elements_customer_info:max1h", HALF_DAILY),
    ("customer:elements_job_rpo_seconds:min", TWO_DAYS),
    ("customer:elements_jobs_fresh:bool", MONTH),
    ("customer_module:elements_attention:rank", TWO_DAYS),
    ("customer_module:elements_attention:since_timestamp_seconds", RECENT),
    ("customer_module:elements_job_consecutive_failures:max", RECENT),
    (
        "customer_module:elements_job_consecutive_failures:max_attention",
        RECENT,
    ),
    ("customer_module:elements_job_last_backup_age_seconds:max1h", REPORT),
    (
        "customer_module:elements_job_last_backup_timestamp_seconds:max",
        TWO_DAYS,
    ),
    (
        "customer_module:elements_job_last_backup_timestamp_seconds:max1h",
        HALF_DAILY,
    ),
    (
        "customer_module:elements_job_last_backup_timestamp_seconds:max_attention",
        RECENT,
    ),
    ("customer_module:elements_job_rpo_breached:bool", QUARTER_DAILY),
    ("customer_module:elements_job_rpo_seconds:max", TWO_DAYS),
    ("customer_module:elements_job_rpo_seconds:max_attention", RECENT),
    ("customer_module:elements_job_rpo_state_seconds:sum1h", REPORT),
    ("customer_module:elements_protected_objects:sum1h", HALF_DAILY),
    ("customer_module:elements_protected_size_bytes:sum", EIGHT_DAYS),
    ("customer_module:elements_protected_size_bytes:sum1h", HALF_DAILY),
    ("customer_module_status:elements_job_runs:increase1h", REPORT),
    ("fleet:elements_customers:sum", MONTH),
    ("fleet:elements_customers_overdue:sum", MONTH),
    ("fleet:elements_customers_with_rpo:count", RECENT),
    ("fleet:elements_customers_within_rpo:ratio", MONTH),
    ("fleet:elements_jobs_fresh:count", MONTH),
    ("fleet:elements_jobs_fresh:sum", MONTH),
    ("fleet:elements_report_covered_seconds:sum1h", REPORT),
    (
        "license:elements_license_expiration_timestamp_seconds:max1h",
        HALF_DAILY,
    ),
    ("license:elements_license_purchased_seats:max1h", HALF_DAILY),
    ("module:elements_customers:count", MONTH),
    ("module:elements_customers_overdue:count", MONTH),
    ("module:elements_job_failing:ratio26h", MONTH),
    ("module:elements_job_failing:sum", MONTH),
    ("module:elements_job_failing:sum26h", MONTH),
    ("module_status:elements_job_runs:increase10m", WEEK),
    ("module_status:elements_job_status:count", MONTH),
    ("module_storage:elements_protected_size_bytes:sum", MONTH),
];

/// A recorded sample of one step. It has the label `job`, but no label `instance`.
pub(super) struct Recorded {
    pub(super) name: &'static str,
    pub(super) labels: String,
    pub(super) value: f64,
}

/// Computes the results of the rules for each step of the history.
#[derive(Default)]
pub(super) struct Recorder {
    report: Report,
    /// Counters of the previous step.
    runs: BTreeMap<String, f64>,
}

impl Recorder {
    /// Returns the samples that the rules would record from an exporter's exposition. Must be called once for each
    /// step, in order.
    pub(super) fn record(&mut self, exposition: &str, step: u32, at: i64) -> Vec<Recorded> {
        let samples = Samples::of(exposition, READ);
        #[expect(clippy::cast_precision_loss, reason = "a double represents Unix times exactly")]
        let now = at as f64;
        let mut out = Output {
            step,
            recorded: Vec::new(),
        };
        let jobs = JobState::new(&samples, now);
        jobs.record(&samples, &mut out);
        self.record_runs(&samples, step, &mut out);
        record_customers(&samples, &jobs, &mut out);
        record_sizes(&samples, &mut out);
        record_attention(&samples, &jobs, &mut out);
        self.report.record(&samples, &jobs, &mut out);
        out.recorded
    }

    /// Records the runs that completed since the previous step.
    fn record_runs(&mut self, samples: &Samples<'_>, step: u32, out: &mut Output) {
        let runs: BTreeMap<String, f64> = samples
            .series(RUNS)
            .map(|(labels, runs)| (labels.to_owned(), runs))
            .collect();
        // The first step has no earlier counters to compare with.
        if step > 0 {
            let increases = runs.iter().map(|(labels, runs)| {
                let before = self.runs.get(labels).copied().unwrap_or_default();
                (labels.as_str(), runs - before)
            });
            let increases: Vec<(&str, f64)> = increases.collect();
            out.groups(
                "module_status:elements_job_runs:increase10m",
                grouped(increases.iter().copied(), &["service", "module", "status"], add),
            );
            self.report.add_runs(increases.into_iter());
        }
        self.runs = runs;
    }
}

/// Recorded samples of one step, except for series that are not due.
struct Output {
    step: u32,
    recorded: Vec<Recorded>,
}

impl Output {
    fn is_due(&self, name: &str) -> bool {
        let kept = RECORDED.iter().find(|(known, _)| *known == name);
        kept.is_some_and(|(_, kept)| kept.includes(self.step))
    }

    fn series<'a>(&mut self, name: &'static str, series: impl Iterator<Item = (&'a str, f64)>) {
        if self.is_due(name) {
            self.recorded.extend(series.map(|(labels, value)| Recorded {
                name,
                labels: labels.to_owned(),
                value,
            }));
        }
    }

    fn groups(&mut self, name: &'static str, groups: Groups) {
        if self.is_due(name) {
            self.recorded.extend(
                groups
                    .into_iter()
                    .map(|(labels, value)| Recorded { name, labels, value }),
            );
        }
    }

    fn fleet(&mut self, name: &'static str, value: f64) {
        self.series(name, std::iter::once(("", value)));
    }
}

/// State of a module or backup scope with an RPO.
struct Module<'a> {
    labels: &'a str,
    rpo: f64,
    /// End of the run that created the latest restore point; 0 if there is no restore point, `None` if unknown.
    last_backup: Option<f64>,
    failures: Option<f64>,
    /// Start of the run in progress.
    running_since: Option<f64>,
    duration: Option<f64>,
}

impl Module<'_> {
    fn age(&self, now: f64) -> Option<f64> {
        self.last_backup.filter(|at| *at > 0.0).map(|at| now - at)
    }

    fn is_breached(&self, now: f64) -> Option<bool> {
        self.last_backup.map(|at| now - at > self.rpo)
    }

    /// Returns the age of the latest restore point, if it exceeds the RPO.
    fn past_rpo(&self, now: f64) -> Option<f64> {
        self.age(now).filter(|age| *age > self.rpo)
    }

    fn is_failing_repeatedly(&self) -> bool {
        self.failures.is_some_and(|failures| failures >= 3.0)
    }

    fn is_running_long(&self, now: f64) -> bool {
        let limit = self
            .duration
            .map_or(2.0 * DAY, |duration| (TIMES_LONGER * duration).max(LONG));
        self.running_since.is_some_and(|since| now - since > limit)
    }
}

/// State of all modules with RPOs. Their values are fresh, because every step polls all customers.
struct JobState<'a> {
    now: f64,
    modules: Vec<Module<'a>>,
}

impl<'a> JobState<'a> {
    fn new(samples: &Samples<'a>, now: f64) -> Self {
        let module = |(labels, rpo)| {
            let start = samples.value(START, labels);
            let end = samples.value(END, labels);
            Module {
                labels,
                rpo,
                last_backup: samples.value(LAST_BACKUP, labels),
                failures: samples.value(FAILURES, labels),
                running_since: start.filter(|start| end.is_none_or(|end| end < *start)),
                duration: samples.value(DURATION, labels),
            }
        };
        Self {
            now,
            modules: samples.series(RPO).map(module).collect(),
        }
    }

    fn breached(&self) -> impl Iterator<Item = (&'a str, f64)> {
        let now = self.now;
        let modules = self.modules.iter();
        modules.filter_map(move |module| Some((module.labels, as_number(module.is_breached(now)?))))
    }

    fn failing(&self) -> impl Iterator<Item = (&'a str, f64)> {
        let modules = self.modules.iter();
        modules.filter_map(|module| Some((module.labels, as_number(module.failures? > 0.0))))
    }

    fn record(&self, samples: &Samples<'_>, out: &mut Output) {
        let modules = || self.modules.iter();
        out.series("customer_module:elements_job_rpo_breached:bool", self.breached());
        out.series(
            "customer_module:elements_job_rpo_seconds:max",
            modules().map(|module| (module.labels, module.rpo)),
        );
        out.series(
            "customer_module:elements_job_last_backup_timestamp_seconds:max",
            samples.series(LAST_BACKUP),
        );
        out.series(
            "customer_module:elements_job_consecutive_failures:max",
            modules().filter_map(|module| Some((module.labels, module.failures?))),
        );

        let failing_modules = grouped(self.failing(), MODULE, add);
        out.groups("module:elements_job_failing:sum", failing_modules);
        let failing_lately = self.failing().filter(|(module, _)| {
            let end = samples.value(END, module);
            end.is_some_and(|end| end > self.now - FAILING_WINDOW)
        });
        let scopes_failing = grouped(failing_lately, SCOPE, f64::max);
        let customers_failing = grouped(series_of(&scopes_failing), CUSTOMER_MODULE, f64::max);
        out.groups(
            "module:elements_job_failing:sum26h",
            grouped(series_of(&customers_failing), MODULE, add),
        );
        let mut ratios = mean_by(&mean_by(&scopes_failing, CUSTOMER_MODULE), MODULE);
        for ratio in ratios.values_mut() {
            *ratio = (*ratio * ROUNDING).round() / ROUNDING;
        }
        out.groups("module:elements_job_failing:ratio26h", ratios);

        let customers_breached = grouped(self.breached(), CUSTOMER, add);
        let customers = customers_breached.values().map(|_| 1.0).sum::<f64>();
        if customers > 0.0 {
            let overdue: f64 = customers_breached
                .values()
                .map(|modules| as_number(*modules > 0.0))
                .sum();
            out.fleet("fleet:elements_customers_overdue:sum", overdue);
            out.fleet(
                "fleet:elements_customers_within_rpo:ratio",
                (customers - overdue) / customers,
            );
        }
        let states: Vec<String> = samples
            .series(STATUS)
            .filter(|(module, _)| samples.value(ABANDONED, module) != Some(1.0))
            .map(|(module, status)| format!(r#"{},status="{status}""#, only(module, MODULE)))
            .collect();
        out.groups(
            "module_status:elements_job_status:count",
            grouped(
                states.iter().map(|state| (state.as_str(), 1.0)),
                &["service", "module", "status"],
                add,
            ),
        );
    }
}

fn record_customers(samples: &Samples<'_>, jobs: &JobState<'_>, out: &mut Output) {
    let infos: Vec<String> = samples
        .series(CUSTOMER_INFO)
        .map(|(labels, _)| only(labels, ATTRIBUTES))
        .collect();
    let info = || infos.iter().map(|labels| (labels.as_str(), 1.0));
    out.series("customer:elements_customer_info:max", info());
    out.series("customer:elements_customer_info:max1h", info());
    out.groups("customer:elements_jobs_fresh:bool", grouped(info(), CUSTOMER, f64::max));
    let customers = info().map(|(_, one)| one).sum();
    out.fleet("fleet:elements_jobs_fresh:sum", customers);
    out.fleet("fleet:elements_jobs_fresh:count", customers);
    let objectives = jobs.modules.iter().map(|module| (module.labels, module.rpo));
    let objectives = grouped(objectives, CUSTOMER, f64::min);
    out.fleet(
        "fleet:elements_customers_with_rpo:count",
        objectives.values().map(|_| 1.0).sum(),
    );
    out.groups("customer:elements_job_rpo_seconds:min", objectives);
    let of_customers = samples
        .series(CUSTOMERS)
        .filter(|(labels, _)| labels.contains(r#"collector="customers""#));
    out.groups("fleet:elements_customers:sum", grouped(of_customers, &[], add));
}

fn record_sizes(samples: &Samples<'_>, out: &mut Output) {
    let by_module = grouped(samples.series(SIZE), CUSTOMER_MODULE, add);
    out.series(
        "customer_module:elements_protected_size_bytes:sum",
        series_of(&by_module),
    );
    out.groups("customer_module:elements_protected_size_bytes:sum1h", by_module);
    out.groups(
        "module_storage:elements_protected_size_bytes:sum",
        grouped(samples.series(SIZE), &["service", "module", "storage"], add),
    );
}

/// Returns the licences of backup products.
fn backup_licences(samples: &Samples<'_>) -> Groups {
    let infos = samples.series(LICENSE_INFO);
    let backups = infos.filter(|(labels, _)| labels.contains(r#"backup="true""#));
    grouped(backups, LICENSE, f64::max)
}

fn as_number(is: bool) -> f64 {
    f64::from(u8::from(is))
}

fn mean_by(series: &Groups, by: &[&str]) -> Groups {
    let counts = grouped(series_of(series).map(|(labels, _)| (labels, 1.0)), by, add);
    let sums = grouped(series_of(series), by, add);
    sums.into_iter()
        .filter_map(|(labels, sum)| {
            let mean = sum / counts.get(&labels)?;
            Some((labels, mean))
        })
        .collect()
}
