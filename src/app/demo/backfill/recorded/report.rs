//! Series of the monthly report. The rules record hourly samples, which would make the backfill several times as large.
//! Here, each sample covers all hours since the previous one. The report uses only the sum or the maximum of samples,
//! or the last sample of each day, so its results are the same.

use std::collections::BTreeMap;

use super::{
    CUSTOMER, CUSTOMER_MODULE, EXPIRATION, Groups, JobState, LAST_BACKUP, LICENSE, Module, Output, PROTECTED, SEATS,
    Samples, add, backup_licences, grouped, only,
};
use crate::app::demo::backfill::STEP;

/// Seconds that a step covers.
const SECONDS: f64 = STEP as f64 * 3600.0;

/// Sums and maxima since the last samples.
#[derive(Default)]
pub(super) struct Report {
    states: Groups,
    ages: Groups,
    runs: Groups,
    alerts: Groups,
    covered: f64,
}

impl Report {
    /// Adds the runs that completed in a step.
    pub(super) fn add_runs<'a>(&mut self, runs: impl Iterator<Item = (&'a str, f64)>) {
        for (labels, runs) in runs.filter(|(_, runs)| *runs > 0.0) {
            *self.runs.entry(labels.to_owned()).or_default() += runs;
        }
    }

    /// Adds a step, and records the samples that are due. The first step adds nothing, because it only marks the start
    /// of the history.
    pub(super) fn record(&mut self, samples: &Samples<'_>, jobs: &JobState<'_>, out: &mut Output) {
        if out.step > 0 {
            self.add(jobs);
        }
        if out.is_due("fleet:elements_report_covered_seconds:sum1h") && self.covered > 0.0 {
            let sums = std::mem::take(self);
            out.fleet("fleet:elements_report_covered_seconds:sum1h", sums.covered);
            out.groups("customer_module:elements_job_rpo_state_seconds:sum1h", sums.states);
            out.groups("customer_module:elements_job_last_backup_age_seconds:max1h", sums.ages);
            out.groups("customer_module_status:elements_job_runs:increase1h", sums.runs);
            out.groups("alert:elements_firing_seconds:sum1h", sums.alerts);
        }
        out.series(
            "customer_module:elements_job_last_backup_timestamp_seconds:max1h",
            samples.series(LAST_BACKUP),
        );
        out.groups(
            "customer_module:elements_protected_objects:sum1h",
            grouped(samples.series(PROTECTED), CUSTOMER_MODULE, add),
        );
        if out.is_due("license:elements_license_expiration_timestamp_seconds:max1h") {
            record_licences(samples, out);
        }
    }

    fn add(&mut self, jobs: &JobState<'_>) {
        self.covered += SECONDS;
        for module in &jobs.modules {
            let state = match module.is_breached(jobs.now) {
                Some(false) => "within",
                Some(true) => "missed",
                None => "unknown",
            };
            let labels = format!(r#"{},state="{state}""#, module.labels);
            *self.states.entry(labels).or_default() += SECONDS;
            if let Some(age) = module.age(jobs.now) {
                let longest = self.ages.entry(module.labels.to_owned()).or_default();
                *longest = longest.max(age);
            }
        }
        let mut alerts: BTreeMap<String, Alert> = BTreeMap::new();
        for module in &jobs.modules {
            if let Some(alert) = Alert::about(module, jobs.now) {
                let worst = alerts.entry(only(module.labels, CUSTOMER)).or_insert(alert);
                *worst = alert.max(*worst);
            }
        }
        for (customer, alert) in alerts {
            let (name, severity) = alert.name_and_severity();
            let labels = format!(r#"{customer},alertname="{name}",severity="{severity}""#);
            *self.alerts.entry(labels).or_default() += SECONDS;
        }
    }
}

/// Alert about an incident at a customer. If several apply, only the one that is last in this list is recorded.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Alert {
    Overdue,
    RunningLong,
    FailingRepeatedly,
    OverdueCritical,
}

impl Alert {
    /// Returns the alert about a module, if there is one.
    fn about(module: &Module<'_>, now: f64) -> Option<Self> {
        let past_rpo = module.past_rpo(now);
        if past_rpo.is_some_and(|age| age > 2.0 * module.rpo) {
            Some(Self::OverdueCritical)
        } else if module.last_backup != Some(0.0) && module.is_failing_repeatedly() {
            Some(Self::FailingRepeatedly)
        } else if module.is_running_long(now) {
            Some(Self::RunningLong)
        } else {
            past_rpo.map(|_| Self::Overdue)
        }
    }

    fn name_and_severity(self) -> (&'static str, &'static str) {
        match self {
            Self::Overdue => ("ElementsBackupOverdue", "warning"),
            Self::RunningLong => ("ElementsBackupRunningLong", "warning"),
            Self::FailingRepeatedly => ("ElementsBackupFailingRepeatedly", "warning"),
            Self::OverdueCritical => ("ElementsBackupOverdueCritical", "critical"),
        }
    }
}

fn record_licences(samples: &Samples<'_>, out: &mut Output) {
    let backups = backup_licences(samples);
    let expirations: Vec<(String, f64)> = samples
        .series(EXPIRATION)
        .map(|(labels, expires)| match backups.contains_key(&only(labels, LICENSE)) {
            true => (format!(r#"{labels},backup="true""#), expires),
            false => (labels.to_owned(), expires),
        })
        .collect();
    out.series(
        "license:elements_license_expiration_timestamp_seconds:max1h",
        expirations.iter().map(|(labels, expires)| (labels.as_str(), *expires)),
    );
    out.groups(
        "license:elements_license_purchased_seats:max1h",
        grouped(samples.series(SEATS), LICENSE, f64::max),
    );
}
