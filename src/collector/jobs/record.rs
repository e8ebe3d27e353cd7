//! The record of the jobs collector: a customer's modules with their runs, and the customer's scans.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::collector::FUTURE_TOLERANCE;
use crate::domain::{self, History, JobStatus, KnownNames, ModuleKey, PastRun, Run, Timestamp};

/// Maximum number of modules and backup scopes stored for a customer. The vendor's reference lists about forty modules,
/// and customers have dozens of scopes. The limit protects against names that keep changing.
const MAX_MODULES: usize = 1_000;

/// Maximum number of backup scopes per module in a list: about ten times as many as the largest known customer has. If
/// there are more, their names probably change from list to list, and each name would start a new series.
const MAX_SCOPES: usize = 200;

/// A customer's module or backup scope, with its runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Module {
    pub(super) service: Cow<'static, str>,
    pub(super) module: Cow<'static, str>,
    /// The backup scope, if the list contains one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) scope: Option<String>,
    pub(super) history: History,
    /// Whether the module is in the latest list or, if that list had invalid rows, is carried over. An unlisted module
    /// is stored but not rendered, so that no run is counted twice and no restore point is lost if the module is listed
    /// again.
    listed: bool,
    /// Whether the module is carried over from an earlier list because the latest list had invalid rows.
    #[serde(default)]
    held: bool,
}

/// The latest scan of a customer's tenants for one service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Scan {
    pub(super) service: Cow<'static, str>,
    pub(super) status: JobStatus,
    /// Whether the scan is carried over from an earlier list because the latest list had invalid rows.
    #[serde(default)]
    held: bool,
}

/// A customer's modules and scans.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Record {
    modules: Vec<Arc<Module>>,
    pub(super) scans: Vec<Scan>,
    /// Time of the latest list; missing from older state files.
    pub(super) listed_at: Option<Timestamp>,
}

/// A newly completed run.
#[derive(Clone, Debug, PartialEq)]
pub struct CompletedRun {
    /// The module or backup scope.
    pub key: ModuleKey,
    /// The completed run.
    pub run: PastRun,
}

/// Maximum age of a newly completed run at the time of the previous list. An older run of a known module counts as
/// newly completed only if it ended after the module's latest completed run. Otherwise, it is probably listed only
/// because the filter or the API version changed. The maximum age exceeds the delay between API replicas.
const MAX_COMPLETION_AGE: Duration = Duration::from_secs(24 * 3600);

/// The rows of a list: runs by module or backup scope, and scans by service.
#[derive(Debug, Default)]
pub(super) struct Listed {
    runs: BTreeMap<ModuleKey, Vec<Run>>,
    scans: BTreeMap<&'static str, JobStatus>,
    duplicate_scans: u64,
}

impl Listed {
    pub(super) fn add_run(&mut self, key: ModuleKey, run: Run) {
        self.runs.entry(key).or_default().push(run);
    }

    /// Adds a scan. If a service has several scans, the worst status is kept.
    pub(super) fn add_scan(&mut self, service: &'static str, status: JobStatus) {
        match self.scans.get_mut(service) {
            None => {
                self.scans.insert(service, status);
            }
            Some(known) => {
                self.duplicate_scans += 1;
                if status.severity() > known.severity() {
                    *known = status;
                }
            }
        }
    }

    /// Drops each module's scopes beyond [`MAX_SCOPES`], and modules and scopes beyond [`MAX_MODULES`]. Modules and
    /// scopes in the best state are dropped first, so that failures remain. Returns the number of dropped modules and
    /// scopes.
    pub(super) fn cap(&mut self) -> usize {
        let mut counts: BTreeMap<(Cow<'static, str>, Cow<'static, str>), usize> = BTreeMap::new();
        for key in self.runs.keys() {
            *counts.entry((key.service.clone(), key.module.clone())).or_default() += 1;
        }
        let before = self.runs.len();
        for ((service, module), _) in counts.into_iter().filter(|(_, count)| *count > MAX_SCOPES) {
            self.cap_best(MAX_SCOPES, |key| key.service == service && key.module == module);
        }
        if self.runs.len() > MAX_MODULES {
            self.cap_best(MAX_MODULES, |_| true);
        }
        before - self.runs.len()
    }

    fn cap_best(&mut self, limit: usize, is_counted: impl Fn(&ModuleKey) -> bool) {
        let worst = |runs: &Vec<Run>| runs.iter().map(|run| run.status.severity()).max();
        let counted = self.runs.iter().filter(|(key, _)| is_counted(key));
        let mut counted: Vec<_> = counted.map(|(key, runs)| (worst(runs), key.clone())).collect();
        counted.sort_by(|(one, key), (other, next)| other.cmp(one).then_with(|| key.cmp(next)));
        for (_, key) in counted.drain(limit..) {
            self.runs.remove(&key);
        }
    }
}

impl Record {
    /// Adds the names of all modules, for comparison with patterns.
    pub(super) fn add_names(&self, names: &mut KnownNames) {
        for module in &self.modules {
            names.add_module(&module.service, &module.module, module.scope.as_deref());
        }
    }

    /// Returns the modules, listed or not.
    pub(super) fn modules(&self) -> impl Iterator<Item = &Arc<Module>> {
        self.modules.iter()
    }

    /// Merges a list with the previous record. Returns the new record, the newly completed runs, and the number of
    /// duplicate rows. If the list is partial, the modules and scans that it lacks are carried over.
    pub(super) fn merge(
        previous: Option<&Self>,
        listed: Listed,
        is_partial: bool,
        now: Timestamp,
    ) -> (Self, Vec<CompletedRun>, u64) {
        let known = previous.into_iter().flat_map(|record| &record.modules);
        let mut modules: BTreeMap<ModuleKey, Module> =
            known.map(|module| (module.key(), Module::clone(module))).collect();
        for module in modules.values_mut() {
            module.history.clamp(now);
            module.held = is_partial && module.listed;
            module.listed = module.held;
        }
        let mut duplicates = listed.duplicate_scans;
        let mut newly_completed = Vec::new();
        for (key, runs) in listed.runs {
            let cutoff = previous.map(|previous| previous.completion_cutoff(modules.get(&key)));
            let module = modules.entry(key.clone()).or_insert_with(|| Module::new(key));
            module.listed = true;
            module.held = false;
            let update = module.history.update(runs);
            duplicates += update.duplicates;
            if let Some(cutoff) = cutoff {
                let ended = update.ended.into_iter().filter(|run| cutoff.admits(run));
                newly_completed.extend(ended.map(|run| CompletedRun { key: module.key(), run }));
            }
        }
        let mut modules: Vec<_> = modules.into_values().map(Arc::new).collect();
        modules.sort_by_key(|module| (!module.listed, std::cmp::Reverse(module.last_known_if_unlisted())));
        modules.truncate(MAX_MODULES);
        let mut scans: Vec<Scan> = listed.scans.into_iter().map(Scan::from).collect();
        if is_partial {
            let known = previous.into_iter().flat_map(|record| &record.scans);
            let missing: Vec<Scan> = known
                .filter(|known| scans.iter().all(|scan| scan.service != known.service))
                .map(|known| Scan {
                    held: true,
                    ..known.clone()
                })
                .collect();
            scans.extend(missing);
        }
        let record = Self {
            modules,
            scans,
            listed_at: Some(now),
        };
        (record, newly_completed, duplicates)
    }

    /// Returns the cutoff for a module's runs in the next list: runs that ended after the cutoff count as newly
    /// completed. The first list that contains a module also contains older runs, which do not count as newly
    /// completed.
    fn completion_cutoff(&self, known: Option<&Module>) -> CompletionCutoff {
        let listed_at = self.listed_at;
        match known {
            None => CompletionCutoff(listed_at.map_or(Some(Timestamp::MAX), |at| Some(at.minus(FUTURE_TOLERANCE)))),
            Some(module) => {
                let newest = module.history.latest_completed().and_then(Run::occurred_at);
                let oldest = listed_at.map(|at| at.minus(MAX_COMPLETION_AGE));
                CompletionCutoff(oldest.map(|oldest| newest.map_or(oldest, |newest| newest.min(oldest))))
            }
        }
    }

    /// Returns the modules of the latest list and, if that list was partial, those carried over from earlier lists.
    pub(super) fn listed(&self) -> impl Iterator<Item = &Arc<Module>> {
        self.modules.iter().filter(|module| module.listed)
    }

    /// Returns the record without the modules and scans that are carried over, and a record of only these; `None` if
    /// there are none.
    pub(super) fn split(&self) -> Option<(Self, Self)> {
        let (held, modules): (Vec<_>, Vec<_>) = self.modules.iter().cloned().partition(|module| module.held);
        let (held_scans, scans): (Vec<_>, Vec<_>) = self.scans.iter().cloned().partition(|scan| scan.held);
        let is_any_held = !held.is_empty() || !held_scans.is_empty();
        let part = |modules, scans| Self {
            modules,
            scans,
            listed_at: self.listed_at,
        };
        is_any_held.then(|| (part(modules, scans), part(held, held_scans)))
    }
}

impl Module {
    fn new(key: ModuleKey) -> Self {
        Self {
            service: key.service,
            module: key.module,
            scope: key.scope,
            history: History::default(),
            listed: true,
            held: false,
        }
    }

    pub(super) fn key(&self) -> ModuleKey {
        ModuleKey {
            service: self.service.clone(),
            module: self.module.clone(),
            scope: self.scope.clone(),
        }
    }

    /// Returns the last known time of an unlisted module; `None` for listed modules, which therefore stay sorted by
    /// key.
    fn last_known_if_unlisted(&self) -> Option<Timestamp> {
        self.history.last_known().filter(|_| !self.listed)
    }
}

/// Runs that ended after this time count as newly completed. If the time is `None`, all runs do.
#[derive(Clone, Copy)]
struct CompletionCutoff(Option<Timestamp>);

impl CompletionCutoff {
    /// Returns whether a run counts as newly completed. A run without a start or end always does.
    fn admits(self, run: &PastRun) -> bool {
        let occurred_at = run.occurred_at();
        self.0.is_none_or(|cutoff| occurred_at.is_none_or(|at| at > cutoff))
    }
}

impl From<(&'static str, JobStatus)> for Scan {
    fn from((service, status): (&'static str, JobStatus)) -> Self {
        Self {
            service: Cow::Borrowed(service),
            status,
            held: false,
        }
    }
}

/// Renames modules that were saved under their numbers and now have names.
fn with_current_names(mut modules: Vec<Arc<Module>>) -> Vec<Arc<Module>> {
    for module in &mut modules {
        let named = module
            .module
            .strip_prefix(domain::UNKNOWN_NUMBER)
            .and_then(domain::module);
        if let Some(named) = named.filter(|named| named.known) {
            Arc::make_mut(module).module = named.name;
        }
    }
    modules
}

/// Parses the current format and an older one: a list of modules without backup scopes, in which scans were stored as
/// modules.
impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Fields {
            modules: Vec<Arc<Module>>,
            scans: Vec<Scan>,
            #[serde(default)]
            listed_at: Option<Timestamp>,
        }

        struct FormatVisitor;
        impl<'de> Visitor<'de> for FormatVisitor {
            type Value = Record;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("modules and scans, or a list of modules")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Record, A::Error> {
                let fields = Fields::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Record {
                    modules: with_current_names(fields.modules),
                    scans: fields.scans,
                    listed_at: fields.listed_at,
                })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Record, A::Error> {
                let mut modules = Vec::<Arc<Module>>::deserialize(SeqAccessDeserializer::new(seq))?;
                modules.retain(|module| domain::scanned_service(&module.service).is_none());
                Ok(Record {
                    modules: with_current_names(modules),
                    scans: Vec::new(),
                    listed_at: None,
                })
            }
        }
        deserializer.deserialize_any(FormatVisitor)
    }
}
