//! Backup jobs: what ran, what did not, and since when there is no restore point.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Collector, Context, Reach, Reading, Settings, Target, shape, tabulate};
use crate::api::wire::{Names, Row};
use crate::api::{Api, Endpoint, Error, Failure, v1, v3};
use crate::domain::{
    self, CustomerId, Glimpse, History, JobStatus, JobStatusWord, ModuleStanding, Run, RunKey, Timestamp,
};
use crate::exposition::{Column, Label, Metric, Shape, ShapeMetrics, Table};

/// How far ahead of our clock a run may end before its end is not believed. Clocks differ by a few minutes at most.
const FUTURE_TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// The most modules kept of a customer. The reference lists about sixty; names beyond all reason must not pile up.
const MAX_MODULES: usize = 1_000;

/// A module of a customer and its runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Module {
    service: Cow<'static, str>,
    module: Cow<'static, str>,
    history: History,
    /// Whether the newest list has it. What is known of a module that is not listed is not shown, but kept for its
    /// return, so that no run is counted twice and no restore point is forgotten.
    listed: bool,
    /// Whether it is held from an earlier list, because the newest could not be read whole.
    #[serde(default)]
    held: bool,
}

/// The collector.
pub(super) struct Jobs;

impl Collector for Jobs {
    const NAME: &'static str = "jobs";
    const ENDPOINT: Endpoint = Endpoint::Jobs;
    const INTERVAL: Duration = Duration::from_secs(5 * 60);
    const SCOPE_V1: &'static str = v1::scope::JOBS;
    const SCOPE_V3: &'static str = v3::scope::JOBS;
    const REACH: Reach = Reach::Customer;
    const FOLLOWS_STATUS: bool = true;
    type Record = Vec<Arc<Module>>;

    async fn poll(
        api: &Api,
        target: &Target,
        previous: Option<&Self::Record>,
        context: &Context,
    ) -> Result<Reading<Self::Record>, Failure> {
        let Target::Customer(customer) = target else {
            return Err(Error::UnusableId.at(Endpoint::Jobs));
        };
        let rows = ask(api, customer, &context.settings).await?;
        let mut modules: BTreeMap<Name, Module> = previous
            .into_iter()
            .flatten()
            .map(|module| (module.name(), Module::clone(module)))
            .collect();
        let mut listed: BTreeMap<Name, Vec<Run>> = BTreeMap::new();
        let mut unreadable = 0;
        for (position, json) in rows.iter().enumerate() {
            super::turn(position).await;
            let row = Row::read(json, Endpoint::Jobs, api.observer().as_ref());
            match row.and_then(|row| read(&row, api, context)) {
                None => unreadable += 1,
                Some(Read { numbers, .. }) if !context.settings.wants(numbers) => {}
                Some(Read { name, run, .. }) => listed.entry(name).or_default().push(run),
            }
        }
        for module in modules.values_mut() {
            module.held = unreadable > 0 && module.listed;
            module.listed = module.held;
        }
        let mut duplicates = 0;
        for (name, runs) in listed {
            let module = modules.entry(name.clone()).or_insert_with(|| Module::new(name));
            module.listed = true;
            module.held = false;
            duplicates += module.history.absorb(runs);
        }
        if duplicates > 0 {
            api.observer().duplicate_rows(Endpoint::Jobs, duplicates);
        }
        let mut modules: Vec<_> = modules.into_values().map(Arc::new).collect();
        modules.sort_by_key(|module| !module.listed);
        modules.truncate(MAX_MODULES);
        Ok(Reading::one(customer, modules, unreadable, Endpoint::Jobs))
    }

    fn split(record: &Self::Record) -> Option<(Self::Record, Self::Record)> {
        let (held, told): (Self::Record, Self::Record) = record.iter().cloned().partition(|module| module.held);
        (!held.is_empty()).then_some((told, held))
    }

    fn is_quiet(record: &Self::Record) -> bool {
        !record
            .iter()
            .any(|module| module.listed && module.history.is_under_way())
    }

    fn metrics() -> Vec<ShapeMetrics> {
        vec![
            shape(&SHAPE_MODULE),
            shape(&SHAPE_LISTED),
            shape(&SHAPE_OBJECTS),
            shape(&SHAPE_ENDED),
        ]
    }

    fn tables(record: &Self::Record, customer: &CustomerId, context: &Context) -> (Vec<Table>, u64) {
        let id = customer.as_str();
        let shown: Vec<Shown> = Shown::all(record, customer, context).collect();
        let listed: Vec<_> = shown
            .iter()
            .flat_map(|shown| shown.by_status(History::listed))
            .collect();
        let ended: Vec<_> = shown.iter().flat_map(|shown| shown.by_status(History::ended)).collect();
        let objects: Vec<_> = shown.iter().flat_map(Shown::objects).collect();
        tabulate([
            SHAPE_MODULE.table(id, &shown),
            SHAPE_LISTED.table(id, &listed),
            SHAPE_OBJECTS.table(id, &objects),
            SHAPE_ENDED.table(id, &ended),
        ])
    }

    fn modules(record: &Self::Record, customer: &CustomerId, context: &Context) -> Vec<ModuleStanding> {
        Shown::all(record, customer, context)
            .map(|shown| ModuleStanding {
                service: shown.module.service.clone(),
                module: shown.module.module.clone(),
                newest: shown.newest().map(Glimpse::from),
                newest_ended: shown.ended().map(Glimpse::from),
                restore_point: shown.module.history.last_restore_point(),
                objective: shown.objective,
                failures: shown.module.history.consecutive_failures(),
            })
            .collect()
    }
}

/// Service and module.
type Name = (Cow<'static, str>, Cow<'static, str>);

impl Module {
    fn new((service, module): Name) -> Self {
        Self {
            service,
            module,
            history: History::default(),
            listed: true,
            held: false,
        }
    }

    fn name(&self) -> Name {
        (self.service.clone(), self.module.clone())
    }
}

/// Asks for the jobs that the operator wants: all of them in one list, or each wanted type and module by itself.
async fn ask(api: &Api, customer: &CustomerId, settings: &Settings) -> Result<Vec<Box<RawValue>>, Failure> {
    let id = customer.as_str();
    let mut rows = Vec::new();
    match api {
        Api::V1(client) => {
            let scope = v1::scope::JOBS;
            let pairs = settings.first_generation_pairs();
            if pairs.is_empty() {
                return client.list(Endpoint::Jobs, scope, &["customers", id, "jobs"]).await;
            }
            for (job_type, job_module) in pairs {
                let path = ["customers", id, "jobs", "jobType", job_type, "jobModule", job_module];
                rows.extend(client.list(Endpoint::Jobs, scope, &path).await?);
            }
        }
        Api::V3(client) => {
            for filter in settings.second_generation_filters() {
                let list = v3::List {
                    endpoint: Endpoint::Jobs,
                    scope: v3::scope::JOBS,
                    path: &["customers", id, "avpt-products", "jobs", "batch"],
                    filter: Some(&filter),
                    key: None,
                };
                rows.extend(client.list(list).await?);
            }
        }
    }
    Ok(rows)
}

impl Settings {
    /// Whether a row of this type and module is wanted; a number that is not known passes where nothing is said of it.
    fn wants(&self, (job_type, job_module): (Option<u16>, Option<u16>)) -> bool {
        let admits = |wanted: &[u16], number: Option<u16>| {
            wanted.is_empty() || number.is_some_and(|number| wanted.contains(&number))
        };
        admits(&self.job_types, job_type) && admits(&self.job_modules, job_module)
    }

    /// The words of the pairs to ask the first generation for. Its path needs both words, so where only types are
    /// wanted, or a module's type is not certain, the whole list is asked for and sieved instead.
    fn first_generation_pairs(&self) -> Vec<(&'static str, &'static str)> {
        let mut pairs = Vec::new();
        for job_module in self.job_modules.iter().copied() {
            let types = match domain::service_of_module(job_module) {
                Some(job_type) => vec![job_type],
                None => self.job_types.clone(),
            };
            for job_type in types {
                if !self.job_types.is_empty() && !self.job_types.contains(&job_type) {
                    continue;
                }
                match (
                    domain::first_generation_service(job_type),
                    domain::first_generation_module(job_module),
                ) {
                    (Some(job_type), Some(job_module)) => pairs.push((job_type, job_module)),
                    _ => return Vec::new(),
                }
            }
        }
        pairs
    }

    /// The bodies to ask the second generation with.
    fn second_generation_filters(&self) -> Vec<String> {
        let some_or_any = |numbers: &[u16]| match numbers {
            [] => vec![None],
            numbers => numbers.iter().copied().map(Some).collect(),
        };
        let modules = some_or_any(&self.job_modules);
        let mut filters = Vec::new();
        for job_type in some_or_any(&self.job_types) {
            for job_module in modules.iter().copied() {
                let home = job_module.and_then(domain::service_of_module);
                if job_type.is_some() && home.is_some() && home != job_type {
                    continue;
                }
                let mut filter = serde_json::Map::new();
                filter.extend(job_type.map(|number| ("jobType".to_owned(), number.into())));
                filter.extend(job_module.map(|number| ("jobModule".to_owned(), number.into())));
                filters.push(serde_json::Value::Object(filter).to_string());
            }
        }
        filters
    }
}

/// A row, read.
struct Read {
    name: Name,
    numbers: (Option<u16>, Option<u16>),
    run: Run,
}

/// Reads a row; `None` where it does not say what it is about.
fn read(row: &Row<'_>, api: &Api, context: &Context) -> Option<Read> {
    let service = row.named(&["jobType"], domain::service)?;
    let job_module = row.named(&["jobModule"], domain::module)?;
    let numbers = (domain::service_number(&service), domain::module_number(&job_module));
    let id = row.text(&["jobId"]);
    let start = Moment::read(row, &["startTime"], context.now);
    let modified = Moment::read(row, &["lastModifyTime", "lastModifiedTime"], context.now);
    let end = Moment::read(row, &["endTime"], context.now);
    if start.past.is_some() && end.past.is_some() && end.past < start.past {
        row.not_understood(&["endTime"], "a time before the start");
    }
    let has_begun = start.past.is_some();
    let is_to_come = start.is_future() || end.is_future();
    let status = match row.job_status(&["status"]) {
        // A run that says that it left a restore point, and that this is yet to come, is not believed.
        Some(word) if is_to_come && word.resolve(has_begun).is_restore_point() => JobStatus::Unknown,
        Some(word) => word.resolve(has_begun),
        None if start.told.is_none() && end.told.is_none() => JobStatusWord::NotFinished.resolve(false),
        None => {
            row.not_understood(&["status"], "nothing, of a run");
            JobStatus::Unknown
        }
    };
    let key = RunKey::new(id.as_deref(), start.told, end.told);
    let (start, end, modified) = (start.past, end.past, modified.past);
    let run = Run {
        key,
        status,
        start,
        end,
        dated: dated(status, start.or(modified), end, context.now),
        modified,
        duration: row.duration(&["jobDuration"]),
        backup_size: row.size(&["backupSize"], api.gigabyte()),
        processed: row.count(&["totalCount"]),
        successful: row.count(&["successfulCount"]),
        failed: row.count(&["failedCount"]),
        skipped: row.count(&["skippedCount"]),
        warning: row.count(&["warningCount"]),
    };
    Some(Read {
        name: (service, job_module),
        numbers,
        run,
    })
}

/// When a run that says that it ended, and not when, is taken to have ended: one that left a restore point when it began,
/// because what it restores is no younger, and one that failed and says of no moment now, because it must not hide.
fn dated(status: JobStatus, said: Option<Timestamp>, end: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    match (end, said) {
        (None, said) if status.is_restore_point() => said,
        (None, None) if status.counts_as_failure(false) => Some(now),
        _ => None,
    }
}

/// What a row says of a moment of its run.
#[derive(Clone, Copy, Debug)]
struct Moment {
    told: Option<Timestamp>,
    /// The same, where it is not yet to come: what is would stand before everything that really happened.
    past: Option<Timestamp>,
}

impl Moment {
    /// Reads a moment. One in the future is counted as not understood; one that is so by the difference of two clocks
    /// is now.
    fn read(row: &Row<'_>, names: Names, now: Timestamp) -> Self {
        let told = row.timestamp(names);
        let past = told.filter(|at| *at <= now.plus(FUTURE_TOLERANCE));
        if told.is_some() && past.is_none() {
            row.not_understood(names, "a time in the future");
        }
        Self {
            told,
            past: past.map(|at| at.min(now)),
        }
    }

    fn is_future(self) -> bool {
        self.told.is_some() && self.past.is_none()
    }
}

/// A module as it is shown, with the objective in force.
struct Shown {
    module: Arc<Module>,
    objective: Option<Duration>,
}

/// A value beside a word that is a label.
struct Counted {
    module: Arc<Module>,
    word: &'static str,
    value: f64,
}

impl Shown {
    /// The modules of a record that the newest list has.
    fn all<'r>(
        record: &'r [Arc<Module>],
        customer: &'r CustomerId,
        context: &'r Context,
    ) -> impl Iterator<Item = Self> {
        let listed = record.iter().filter(|module| module.listed);
        listed.map(|module| {
            let objective = context.settings.rpo.of(&super::Module {
                customer_id: customer.as_str(),
                organization: &context.organization,
                service: &module.service,
                module: &module.module,
            });
            Self {
                module: Arc::clone(module),
                objective,
            }
        })
    }

    fn newest(&self) -> Option<&Run> {
        self.module.history.newest()
    }

    fn ended(&self) -> Option<&Run> {
        self.module.history.newest_ended()
    }

    fn by_status(&self, counts: fn(&History) -> &BTreeMap<JobStatus, u64>) -> impl Iterator<Item = Counted> {
        counts(&self.module.history).iter().map(|(status, count)| Counted {
            module: Arc::clone(&self.module),
            word: status.label(),
            value: super::float(*count),
        })
    }

    fn objects(&self) -> impl Iterator<Item = Counted> {
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
                value: super::float(count?),
            })
        })
    }

    /// A moment that a module which has run always has an answer for: 0 where it never came.
    fn moment_or_never(&self, moment: Option<Timestamp>) -> Option<f64> {
        let never = self.module.history.has_run().then_some(0.0);
        moment.map(Timestamp::as_unix_seconds).or(never)
    }
}

const SERVICE: &str = "service";
const MODULE: &str = "module";

const SHAPE_MODULE: Shape<Shown> = Shape {
    labels: &[
        Label {
            name: SERVICE,
            value: |shown| Some(Cow::Borrowed(&shown.module.service)),
        },
        Label {
            name: MODULE,
            value: |shown| Some(Cow::Borrowed(&shown.module.module)),
        },
    ],
    columns: &[
        Column {
            metric: Metric::gauge(
                "elements_job_status",
                "Status of the newest run: 0 none, 1 running, 2 finished, 3 failed, 4 finished with exception, 5 skipped, \
                 6 pending, 7 failed to start, 8 canceled, 9 rejected, 10 stopped, 11 not scanned, 12 disabled, 13 not \
                 started, 14 waiting for configuration, -1 unknown",
            ),
            value: |shown| shown.newest().map(|run| f64::from(run.status.code())),
        },
        Column {
            metric: Metric::timestamp("elements_job_start_timestamp_seconds", "When the newest run started"),
            value: |shown| shown.newest()?.start.map(Timestamp::as_unix_seconds),
        },
        Column {
            metric: Metric::timestamp(
                "elements_job_end_timestamp_seconds",
                "When the newest run that ended did so",
            ),
            value: |shown| shown.ended()?.end.map(Timestamp::as_unix_seconds),
        },
        Column {
            metric: Metric::timestamp(
                "elements_job_last_modified_timestamp_seconds",
                "When the newest run that ended was last modified",
            ),
            value: |shown| shown.ended()?.modified.map(Timestamp::as_unix_seconds),
        },
        Column {
            metric: Metric::gauge(
                "elements_job_duration_seconds",
                "How long the newest run that ended took",
            ),
            value: |shown| shown.ended()?.duration.map(|duration| duration.as_secs_f64()),
        },
        Column {
            metric: Metric::gauge(
                "elements_job_backup_size_bytes",
                "How much the newest run that ended backed up",
            ),
            value: |shown| shown.ended()?.backup_size,
        },
        Column {
            metric: Metric::gauge(
                "elements_job_processed_objects",
                "Objects that the newest run that ended processed",
            ),
            value: |shown| shown.ended()?.processed.map(super::float),
        },
        Column {
            metric: Metric::timestamp(
                "elements_job_last_success_timestamp_seconds",
                "When the newest run that ended Finished did so; 0 if none was ever seen of a module that has run",
            ),
            value: |shown| shown.moment_or_never(shown.module.history.last_success()),
        },
        Column {
            metric: Metric::timestamp(
                "elements_job_last_backup_timestamp_seconds",
                "When the newest restore point was made, by a run that ended Finished or Finished with exception; 0 if \
                 none was ever seen of a module that has run",
            ),
            value: |shown| shown.moment_or_never(shown.module.history.last_restore_point()),
        },
        Column {
            metric: Metric::gauge(
                "elements_job_consecutive_failures",
                "Runs that ended since the newest restore point, skipped ones not counted",
            ),
            value: |shown| {
                let history = &shown.module.history;
                history.has_run().then(|| super::float(history.consecutive_failures()))
            },
        },
        Column {
            metric: Metric::gauge(
                "elements_job_rpo_seconds",
                "How old the newest restore point may be; absent where the module is exempt",
            )
            .dated(),
            value: |shown| shown.objective.map(|objective| objective.as_secs_f64()),
        },
    ],
};

const COUNTED_LABELS_STATUS: &[Label<Counted>] = &[
    Label {
        name: SERVICE,
        value: |counted| Some(Cow::Borrowed(&counted.module.service)),
    },
    Label {
        name: MODULE,
        value: |counted| Some(Cow::Borrowed(&counted.module.module)),
    },
    Label {
        name: "status",
        value: |counted| Some(Cow::Borrowed(counted.word)),
    },
];

const SHAPE_LISTED: Shape<Counted> = Shape {
    labels: COUNTED_LABELS_STATUS,
    columns: &[Column {
        metric: Metric::gauge("elements_jobs", "Runs that the API lists, by status"),
        value: |counted| Some(counted.value),
    }],
};

const SHAPE_ENDED: Shape<Counted> = Shape {
    labels: COUNTED_LABELS_STATUS,
    columns: &[Column {
        metric: Metric::counter(
            "elements_job_runs_total",
            "Runs seen to end, each once, by the status they ended in",
        ),
        value: |counted| Some(counted.value),
    }],
};

const SHAPE_OBJECTS: Shape<Counted> = Shape {
    labels: &[
        Label {
            name: SERVICE,
            value: |counted| Some(Cow::Borrowed(&counted.module.service)),
        },
        Label {
            name: MODULE,
            value: |counted| Some(Cow::Borrowed(&counted.module.module)),
        },
        Label {
            name: "result",
            value: |counted| Some(Cow::Borrowed(counted.word)),
        },
    ],
    columns: &[Column {
        metric: Metric::gauge(
            "elements_job_objects",
            "Objects of the newest run that ended, by result",
        ),
        value: |counted| Some(counted.value),
    }],
};
