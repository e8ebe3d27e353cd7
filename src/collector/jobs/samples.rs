//! Samples of the jobs collector.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::record::{Module, Record, Scan};
use crate::collector::Context;
use crate::domain::{self, CustomerId, Gigabyte, History, JobStatus, ModuleName, Objective, Run, Timestamp};
use crate::exposition::{Label, Metric, Shape, column, counter, gauge, label, timestamp};

/// A module or backup scope with the values that depend on the current settings.
pub(super) struct RenderedModule {
    pub(super) module: Arc<Module>,
    /// The objective; `Objective::default()` if none applies.
    pub(super) objective: Objective,
    /// Whether the module or backup scope is abandoned; `None` if no run has a start or an end, known or assumed.
    pub(super) is_abandoned: Option<bool>,
    pub(super) makes_restore_points: bool,
    gigabyte: Gigabyte,
}

/// Number of runs with one status, or of objects with one result.
pub(super) struct LabelledCount {
    pub(super) module: Arc<Module>,
    /// The status or result.
    label: &'static str,
    value: f64,
}

impl RenderedModule {
    /// Returns the record's listed modules that the settings select.
    pub(super) fn all(record: &Record, customer: &CustomerId, context: &Context) -> impl Iterator<Item = Self> {
        let attributes = context.attributes(customer);
        let is_selected = |module: &&Arc<Module>| context.settings.selects(&module.service, &module.module);
        record.listed().filter(is_selected).map(move |module| {
            let (history, rpo) = (&module.history, &context.settings.rpo);
            let is_abandoned = history.is_abandoned(context.now, rpo.abandoned_after);
            let makes_restore_points = !domain::is_housekeeping(&module.module);
            let applies = makes_restore_points && history.expects_backups() && is_abandoned != Some(true);
            let objective = applies.then(|| {
                let name = ModuleName {
                    customer_id: customer.as_str(),
                    organization: &context.organization,
                    service: &module.service,
                    module: &module.module,
                    scope: module.scope.as_deref(),
                    attributes: attributes.map(Arc::as_ref),
                };
                rpo.of(&name, context.now)
            });
            Self {
                module: Arc::clone(module),
                objective: objective.unwrap_or_default(),
                is_abandoned,
                makes_restore_points,
                gigabyte: context.settings.gigabyte,
            }
        })
    }

    pub(super) fn newest(&self) -> Option<&Run> {
        self.module.history.newest()
    }

    pub(super) fn latest_completed(&self) -> Option<&Run> {
        self.module.history.latest_completed()
    }

    /// Returns the history if the module creates restore points and has a completed run.
    pub(super) fn backup_history(&self) -> Option<&History> {
        let history = &self.module.history;
        (self.makes_restore_points && history.has_run()).then_some(history)
    }

    /// Returns a time from the backup history, or 0 if the history has no such time; `None` without a backup history.
    fn time_or_zero(&self, time_of: fn(&History) -> Option<Timestamp>) -> Option<f64> {
        let history = self.backup_history()?;
        Some(time_of(history).map_or(0.0, Timestamp::as_unix_seconds))
    }

    pub(super) fn by_status(
        &self,
        counts: fn(&History) -> &BTreeMap<JobStatus, u64>,
    ) -> impl Iterator<Item = LabelledCount> {
        counts(&self.module.history)
            .iter()
            .map(|(status, count)| LabelledCount {
                module: Arc::clone(&self.module),
                label: status.label(),
                value: crate::collector::float(*count),
            })
    }

    pub(super) fn objects(&self) -> impl Iterator<Item = LabelledCount> {
        let results = self.latest_completed().map(|run| {
            [
                ("successful", run.successful),
                ("failed", run.failed),
                ("skipped", run.skipped),
                ("warning", run.warning),
            ]
        });
        results.into_iter().flatten().filter_map(|(label, count)| {
            Some(LabelledCount {
                module: Arc::clone(&self.module),
                label,
                value: crate::collector::float(count?),
            })
        })
    }
}

const fn service<R>(value: fn(&R) -> Option<&str>) -> Label<R> {
    label("service", value)
}

const SERVICE: Label<RenderedModule> = service(|rendered| Some(&rendered.module.service));
const MODULE: Label<RenderedModule> = label("module", |rendered| Some(&rendered.module.module));
const SCOPE: Label<RenderedModule> = label("scope", |rendered| rendered.module.scope.as_deref());

pub(super) const SHAPE_MODULE: Shape<RenderedModule> = Shape {
    labels: &[SERVICE, MODULE, SCOPE],
    columns: &[
        gauge(
            "elements_job_status",
            "Status number of the newest run; -1 if unknown",
            |rendered| rendered.newest().map(|run| f64::from(run.status.code())),
        ),
        timestamp(
            "elements_job_start_timestamp_seconds",
            "Start of the newest run, Unix time",
            |rendered| rendered.newest()?.start.map(Timestamp::as_unix_seconds),
        ),
        timestamp(
            "elements_job_end_timestamp_seconds",
            "End of the latest completed run, Unix time",
            |rendered| rendered.latest_completed()?.end.map(Timestamp::as_unix_seconds),
        ),
        timestamp(
            "elements_job_last_modified_timestamp_seconds",
            "Last modification of the latest completed run, Unix time",
            |rendered| rendered.latest_completed()?.modified.map(Timestamp::as_unix_seconds),
        ),
        gauge(
            "elements_job_duration_seconds",
            "Duration of the latest completed run",
            |rendered| {
                rendered
                    .latest_completed()?
                    .duration
                    .map(|duration| duration.as_secs_f64())
            },
        ),
        gauge(
            "elements_job_backup_size_bytes",
            "Bytes backed up by the latest completed run",
            |rendered| Some(rendered.latest_completed()?.backup_size?.bytes(rendered.gigabyte)),
        ),
        gauge(
            "elements_job_processed_objects",
            "Objects processed by the latest completed run",
            |rendered| rendered.latest_completed()?.processed.map(crate::collector::float),
        ),
        timestamp(
            "elements_job_last_success_timestamp_seconds",
            "End of the latest successful run, Unix time; 0 if none yet",
            |rendered| rendered.time_or_zero(History::last_success),
        ),
        timestamp(
            "elements_job_last_backup_timestamp_seconds",
            "End of the latest run that created a restore point, Unix time; 0 if none yet",
            |rendered| rendered.time_or_zero(History::last_restore_point),
        ),
        gauge(
            "elements_job_consecutive_failures",
            "Failed runs since the latest restore point; skipped runs do not count",
            |rendered| {
                rendered
                    .backup_history()
                    .map(|history| crate::collector::float(history.consecutive_failures()))
            },
        ),
        gauge(
            "elements_job_rpo_seconds",
            "Recovery point objective in force; absent if none applies",
            |rendered: &RenderedModule| rendered.objective.rpo.map(|objective| objective.as_secs_f64()),
        )
        .dated(),
        timestamp(
            "elements_job_exempt_until_timestamp_seconds",
            "Expiry of the rpo.overrides entry in force, Unix time; absent if it does not expire",
            |rendered: &RenderedModule| rendered.objective.until.map(Timestamp::as_unix_seconds),
        )
        .experimental(),
        gauge(
            "elements_job_abandoned",
            "1 if the newest run is older than rpo.abandoned_after, 0 otherwise; absent before the first run",
            |rendered: &RenderedModule| rendered.is_abandoned.map(f64::from),
        )
        .dated()
        .experimental(),
        timestamp(
            "elements_job_pending_since_timestamp_seconds",
            "Last modification of the pending run, Unix time; absent if no run is pending",
            |rendered: &RenderedModule| rendered.module.history.pending_since().map(Timestamp::as_unix_seconds),
        )
        .experimental(),
    ],
};

/// The overrides in force, with their reasons. The reason is a label of a separate metric, so that a changed reason
/// does not start new series of other metrics.
pub(super) const SHAPE_EXEMPTION: Shape<RenderedModule> = Shape {
    labels: &[
        SERVICE,
        MODULE,
        SCOPE,
        label("reason", |rendered| rendered.objective.reason.as_deref()),
    ],
    columns: &[column(
        Metric::info(
            "elements_job_exemption_info",
            "rpo.overrides entry in force; absent if it has neither a reason nor an expiry",
        ),
        |rendered: &RenderedModule| {
            let objective = &rendered.objective;
            (objective.reason.is_some() || objective.until.is_some()).then_some(1.0)
        },
    )
    .experimental()],
};

/// Returns the labels of a count; `name` is the name of the last label.
const fn count_labels(name: &'static str) -> [Label<LabelledCount>; 4] {
    [
        service(|count| Some(&count.module.service)),
        label("module", |count| Some(&count.module.module)),
        label("scope", |count| count.module.scope.as_deref()),
        label(name, |count| Some(count.label)),
    ]
}

pub(super) const SHAPE_LISTED: Shape<LabelledCount> = Shape {
    labels: &count_labels("status"),
    columns: &[gauge("elements_jobs", "Listed runs by status", |count| {
        Some(count.value)
    })],
};

pub(super) const SHAPE_ENDED: Shape<LabelledCount> = Shape {
    labels: &count_labels("status"),
    columns: &[counter(
        "elements_job_runs_total",
        "Completed runs by final status",
        |count| Some(count.value),
    )],
};

pub(super) const SHAPE_OBJECTS: Shape<LabelledCount> = Shape {
    labels: &count_labels("result"),
    columns: &[gauge(
        "elements_job_objects",
        "Objects of the latest completed run by result",
        |count| Some(count.value),
    )],
};

pub(super) const SHAPE_SCAN: Shape<Scan> = Shape {
    labels: &[service(|scan| Some(&scan.service))],
    columns: &[gauge(
        "elements_tenant_scan_status",
        "Status number of the latest tenant scan; -1 if unknown",
        |scan: &Scan| Some(f64::from(scan.status.code())),
    )
    .experimental()],
};
