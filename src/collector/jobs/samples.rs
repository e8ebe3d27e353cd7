//! The samples of jobs.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::record::{Module, Record, Scan};
use crate::collector::Context;
use crate::domain::{self, CustomerId, Gigabyte, History, JobStatus, ModuleName, Objective, Run, Timestamp};
use crate::exposition::{Label, Metric, Shape, column, counter, gauge, label, timestamp};

/// A module as rendered with the current settings.
pub(super) struct Shown {
    pub(super) module: Arc<Module>,
    /// Default if no objective applies.
    pub(super) objective: Objective,
    /// `None` if no run is known.
    pub(super) is_abandoned: Option<bool>,
    pub(super) makes_restore_points: bool,
    gigabyte: Gigabyte,
}

/// A value with the value of its last label.
pub(super) struct Counted {
    pub(super) module: Arc<Module>,
    word: &'static str,
    value: f64,
}

impl Shown {
    /// The modules of a record that the newest list has.
    pub(super) fn all(record: &Record, customer: &CustomerId, context: &Context) -> impl Iterator<Item = Self> {
        let attributes = context.attributes(customer);
        let wanted = |module: &&Arc<Module>| context.settings.wants(&module.service, &module.module);
        record.listed().filter(wanted).map(move |module| {
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

    pub(super) fn ended(&self) -> Option<&Run> {
        self.module.history.newest_ended()
    }

    /// The history of a module that makes restore points and has run.
    pub(super) fn history_of_backups(&self) -> Option<&History> {
        let history = &self.module.history;
        (self.makes_restore_points && history.has_run()).then_some(history)
    }

    /// A time; 0 if the module has run without it.
    fn moment_or_never(&self, moment: fn(&History) -> Option<Timestamp>) -> Option<f64> {
        let history = self.history_of_backups()?;
        Some(moment(history).map_or(0.0, Timestamp::as_unix_seconds))
    }

    pub(super) fn by_status(&self, counts: fn(&History) -> &BTreeMap<JobStatus, u64>) -> impl Iterator<Item = Counted> {
        counts(&self.module.history).iter().map(|(status, count)| Counted {
            module: Arc::clone(&self.module),
            word: status.label(),
            value: crate::collector::float(*count),
        })
    }

    pub(super) fn objects(&self) -> impl Iterator<Item = Counted> {
        let results = self.ended().map(|run| {
            [
                ("successful", run.successful),
                ("failed", run.failed),
                ("skipped", run.skipped),
                ("warning", run.warning),
            ]
        });
        results.into_iter().flatten().filter_map(|(word, count)| {
            Some(Counted {
                module: Arc::clone(&self.module),
                word,
                value: crate::collector::float(count?),
            })
        })
    }
}

const fn service<R>(value: fn(&R) -> Option<&str>) -> Label<R> {
    label("service", value)
}

const MODULE_LABELS: &[Label<Shown>] = &[
    service(|shown| Some(&shown.module.service)),
    label("module", |shown| Some(&shown.module.module)),
    label("scope", |shown| shown.module.scope.as_deref()),
];

pub(super) const SHAPE_MODULE: Shape<Shown> = Shape {
    labels: MODULE_LABELS,
    columns: &[
        gauge(
            "elements_job_status",
            "Status number of the newest run; -1 if unknown",
            |shown| shown.newest().map(|run| f64::from(run.status.code())),
        ),
        timestamp(
            "elements_job_start_timestamp_seconds",
            "Start of the newest run, Unix time",
            |shown| shown.newest()?.start.map(Timestamp::as_unix_seconds),
        ),
        timestamp(
            "elements_job_end_timestamp_seconds",
            "End of the latest completed run, Unix time",
            |shown| shown.ended()?.end.map(Timestamp::as_unix_seconds),
        ),
        timestamp(
            "elements_job_last_modified_timestamp_seconds",
            "Last modification of the latest completed run, Unix time",
            |shown| shown.ended()?.modified.map(Timestamp::as_unix_seconds),
        ),
        gauge(
            "elements_job_duration_seconds",
            "Duration of the latest completed run",
            |shown| shown.ended()?.duration.map(|duration| duration.as_secs_f64()),
        ),
        gauge(
            "elements_job_backup_size_bytes",
            "Bytes backed up by the latest completed run",
            |shown| Some(shown.ended()?.backup_size?.bytes(shown.gigabyte)),
        ),
        gauge(
            "elements_job_processed_objects",
            "Objects processed by the latest completed run",
            |shown| shown.ended()?.processed.map(crate::collector::float),
        ),
        timestamp(
            "elements_job_last_success_timestamp_seconds",
            "End of the latest successful run, Unix time; 0 if none yet",
            |shown| shown.moment_or_never(History::last_success),
        ),
        timestamp(
            "elements_job_last_backup_timestamp_seconds",
            "End of the latest run that left a restore point, Unix time; 0 if none yet",
            |shown| shown.moment_or_never(History::last_restore_point),
        ),
        gauge(
            "elements_job_consecutive_failures",
            "Failed runs since the latest restore point; skipped runs do not count",
            |shown| {
                shown
                    .history_of_backups()
                    .map(|history| crate::collector::float(history.consecutive_failures()))
            },
        ),
        gauge(
            "elements_job_rpo_seconds",
            "Recovery point objective in force; absent if none applies",
            |shown: &Shown| shown.objective.rpo.map(|objective| objective.as_secs_f64()),
        )
        .dated(),
        timestamp(
            "elements_job_exempt_until_timestamp_seconds",
            "Expiry of the rpo.overrides entry in force, Unix time; absent if it does not expire",
            |shown: &Shown| shown.objective.until.map(Timestamp::as_unix_seconds),
        )
        .experimental(),
        gauge(
            "elements_job_abandoned",
            "1 if the newest run is older than rpo.abandoned_after, 0 otherwise; absent before the first run",
            |shown: &Shown| shown.is_abandoned.map(f64::from),
        )
        .dated()
        .experimental(),
        timestamp(
            "elements_job_pending_since_timestamp_seconds",
            "Last modification of the pending run, Unix time; absent if no run is pending",
            |shown: &Shown| shown.module.history.pending_since().map(Timestamp::as_unix_seconds),
        )
        .experimental(),
    ],
};

/// Reason and end of the overrides of objectives. A separate metric, so that a changed reason does not start a new
/// series of the end.
pub(super) const SHAPE_EXEMPTION: Shape<Shown> = Shape {
    labels: &[
        service(|shown| Some(&shown.module.service)),
        label("module", |shown| Some(&shown.module.module)),
        label("scope", |shown| shown.module.scope.as_deref()),
        label("reason", |shown| shown.objective.reason.as_deref()),
    ],
    columns: &[column(
        Metric::info(
            "elements_job_exemption_info",
            "CollectorDescriptor in rpo.overrides in force that has a reason or an expiry; absent if there is none",
        ),
        |shown: &Shown| {
            let objective = &shown.objective;
            (objective.reason.is_some() || objective.until.is_some()).then_some(1.0)
        },
    )
    .experimental()],
};

/// The labels of a counted row, with `word` as the last one's name.
const fn counted(word: &'static str) -> [Label<Counted>; 4] {
    [
        service(|counted| Some(&counted.module.service)),
        label("module", |counted| Some(&counted.module.module)),
        label("scope", |counted| counted.module.scope.as_deref()),
        label(word, |counted| Some(counted.word)),
    ]
}

pub(super) const SHAPE_LISTED: Shape<Counted> = Shape {
    labels: &counted("status"),
    columns: &[gauge("elements_jobs", "Listed runs by status", |counted| {
        Some(counted.value)
    })],
};

pub(super) const SHAPE_ENDED: Shape<Counted> = Shape {
    labels: &counted("status"),
    columns: &[counter(
        "elements_job_runs_total",
        "Completed runs by final status",
        |counted| Some(counted.value),
    )],
};

pub(super) const SHAPE_OBJECTS: Shape<Counted> = Shape {
    labels: &counted("result"),
    columns: &[gauge(
        "elements_job_objects",
        "Objects of the latest completed run by result",
        |counted| Some(counted.value),
    )],
};

pub(super) const SHAPE_SCAN: Shape<Scan> = Shape {
    labels: &[service(|scan| Some(&scan.service))],
    columns: &[gauge(
        "elements_tenant_scan_status",
        "Status number of the newest tenant scan; -1 if unknown",
        |scan: &Scan| Some(f64::from(scan.status.code())),
    )
    .experimental()],
};
