//! What the pages for people are made of: how the exporter does, and how every customer stands, worst first.
//!
//! Like a scrape it never asks the API and never waits for a poll. What walks all customers is made at most once a
//! second, however many people look.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::api::Endpoint;
use crate::collector::{self, Context, Settings};
use crate::domain::{CustomerId, ModuleStanding, Standing, Timestamp};
use crate::health::{Counted, Health};
use crate::scrape::{Loaded, Scrape, Vitals};
use crate::store::{Answer, Dossier, Overview, Roll, Roster, State, Store, Trouble};

/// How long a walk over all customers is used. With ten thousand of them it takes some hundredths of a second, and
/// nobody reads a page twice within this.
const CENSUS_LIFE: Duration = Duration::from_secs(1);

/// Reads the settings in force.
pub type ReadSettings = Arc<dyn Fn() -> Arc<Settings> + Send + Sync>;

/// Answers the pages for people.
pub struct Status {
    scrape: Arc<Scrape>,
    store: Arc<Store>,
    health: Arc<Health>,
    settings: ReadSettings,
    config_file: Option<PathBuf>,
    census: Mutex<Option<(Instant, Arc<Census>)>>,
}

/// How the exporter does.
pub struct Summary {
    /// The moment of all this.
    pub now: Timestamp,
    /// Whether the newest token and the newest customer list were both had.
    pub up: bool,
    /// Whether the poll loop turns.
    pub alive: bool,
    /// How long ago the poll loop last turned.
    pub silence: Duration,
    /// What is read of the client.
    pub vitals: Vitals,
    /// Whether the newest attempt at the customer list succeeded, `None` before the first has ended.
    pub listed: Option<bool>,
    /// What went wrong at the newest attempt at the customer list.
    pub list_trouble: Option<Trouble>,
    /// The enabled collectors.
    pub collectors: Vec<CollectorSummary>,
    /// What was counted of all endpoints.
    pub counted: Counted,
    /// What was counted of the token endpoint, which belongs to no collector.
    pub for_tokens: Counted,
    /// How configuration and state were loaded.
    pub loaded: Loaded,
    /// The configuration file; `None` where the environment alone configures.
    pub config_file: Option<PathBuf>,
    /// How long the exporter has been running.
    pub uptime: Duration,
    /// How many series it holds.
    pub series: usize,
    /// All customers.
    pub census: Arc<Census>,
}

/// How one collector does.
pub struct CollectorSummary {
    /// How it is run, and its customers by state.
    pub overview: Overview,
    /// When any poll last succeeded.
    pub newest: Option<Timestamp>,
    /// Since when every poll has succeeded once; `None` before.
    pub oldest: Option<Timestamp>,
    /// How late the most overdue poll is.
    pub lag: Duration,
    /// How long the last full round took.
    pub cycle: Option<Duration>,
    /// What was counted of its endpoints.
    pub counted: Counted,
    /// What went wrong last, where the newest attempt at anything failed.
    pub trouble: Option<Trouble>,
}

/// What is the matter with a customer, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Concern {
    /// A module has no restore point that is new enough.
    Overdue,
    /// A module's runs fail, and its restore point is still new enough.
    Failing,
    /// What is known is not fresh: polls fail, are refused, or come too late.
    Unfresh,
    /// Not everything has been asked for yet.
    Pending,
    /// Nothing is known to be, but its backups are not looked at.
    Unknown,
    /// Nothing.
    Fine,
}

impl Concern {
    /// All of them, worst first.
    pub const ALL: [Self; 6] = [
        Self::Overdue,
        Self::Failing,
        Self::Unfresh,
        Self::Pending,
        Self::Unknown,
        Self::Fine,
    ];
}

/// One customer among all.
#[derive(Clone, Debug)]
pub struct Citizen {
    /// The customer.
    pub id: CustomerId,
    /// The name of its organization.
    pub organization: Arc<str>,
    /// The worst that is the matter.
    pub concern: Concern,
    /// Modules without a restore point that is new enough.
    pub overdue: usize,
    /// Modules whose runs fail.
    pub failing: usize,
    /// Collectors whose values are not fresh.
    pub unfresh: usize,
    /// When the first module was, or will be, overdue.
    first_deadline: Option<Timestamp>,
}

/// All customers, worst first.
#[derive(Debug, Default)]
pub struct Census {
    citizens: Vec<Citizen>,
    by_concern: BTreeMap<Concern, usize>,
    knows_backups: bool,
    rolls: Vec<Roll>,
    overviews: Vec<Overview>,
}

/// One customer with everything that people are told of it.
pub struct Portrait {
    /// How it stands with each collector.
    pub dossier: Dossier,
    /// How its modules stand, worst first.
    pub modules: Vec<ModuleStanding>,
    /// When the poll succeeded that the modules are from.
    pub modules_at: Option<Timestamp>,
}

impl Status {
    /// Answers over these sources.
    pub fn new(
        scrape: Arc<Scrape>,
        store: Arc<Store>,
        health: Arc<Health>,
        settings: ReadSettings,
        config_file: Option<PathBuf>,
    ) -> Self {
        Self {
            scrape,
            store,
            health,
            settings,
            config_file,
            census: Mutex::new(None),
        }
    }

    /// How the exporter does, now.
    pub fn summary(&self) -> Summary {
        let now = Timestamp::from(SystemTime::now());
        let pulse = self.scrape.pulse();
        let census = self.census(now);
        let collectors = census.overviews.iter().map(|overview| {
            let place = collector::index_of(overview.name);
            let endpoints = place.and_then(|place| collector::ALL.get(place));
            let roll = census.rolls.iter().find(|roll| roll.name == overview.name);
            CollectorSummary {
                newest: roll.and_then(|roll| roll.newest),
                oldest: roll.and_then(|roll| roll.oldest),
                trouble: roll.and_then(|roll| roll.trouble.clone()),
                lag: place
                    .and_then(|place| pulse.lag.get(place).copied())
                    .unwrap_or_default(),
                cycle: place.and_then(|place| pulse.cycle.get(place).copied().flatten()),
                counted: endpoints.map_or_else(Counted::default, |entry| self.health.counted(entry.endpoints)),
                overview: overview.clone(),
            }
        });
        let collectors = collectors.collect();
        Summary {
            collectors,
            now,
            up: self.scrape.is_up(),
            alive: self.health.is_alive(),
            silence: self.health.silence(),
            vitals: self.scrape.vitals(),
            listed: pulse.customers_listed,
            list_trouble: collector::index_of(collector::CUSTOMERS)
                .and_then(|customers| self.store.partner_trouble(customers)),
            counted: self.health.counted(&Endpoint::ALL),
            for_tokens: self.health.counted(&[Endpoint::Token]),
            loaded: self.scrape.loaded(),
            config_file: self.config_file.clone(),
            uptime: self.health.uptime(),
            series: self.store.series(),
            census,
        }
    }

    /// All about these customers, in this order; those that are gone are left out.
    pub fn portraits(&self, ids: &[CustomerId], now: Timestamp) -> Vec<Portrait> {
        let settings = (self.settings)();
        let dossiers = self.store.dossiers(ids, now).into_iter();
        dossiers.map(|dossier| portrait(dossier, &settings, now)).collect()
    }

    /// All customers as they stood at most a [`CENSUS_LIFE`] ago.
    fn census(&self, now: Timestamp) -> Arc<Census> {
        // Whoever comes while it is made waits for it, instead of making another.
        let mut kept = self.census.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made, census)) = kept.as_ref()
            && made.elapsed() < CENSUS_LIFE
        {
            return Arc::clone(census);
        }
        let census = Arc::new(Census {
            overviews: self.store.overview(now),
            ..Census::of(self.store.roster(now), now)
        });
        *kept = Some((Instant::now(), Arc::clone(&census)));
        census
    }
}

impl Census {
    fn of(roster: Roster, now: Timestamp) -> Self {
        let mut citizens: Vec<Citizen> = roster
            .customers
            .into_iter()
            .map(|(id, organization)| Citizen {
                id,
                organization,
                concern: Concern::Fine,
                overdue: 0,
                failing: 0,
                unfresh: 0,
                first_deadline: None,
            })
            .collect();
        for roll in &roster.rolls {
            // A permission that is missing is said of the collector and not of each customer.
            if roll.permitted != Some(false) {
                join(&mut citizens, &roll.states, |citizen, state| citizen.note_state(*state));
            }
            join(&mut citizens, &roll.standings, |citizen, standing| {
                citizen.note_standing(standing, now);
            });
        }
        let mut jobs = roster.rolls.iter().filter(|roll| roll.name == collector::JOBS);
        let knows_backups = jobs.any(|roll| roll.permitted != Some(false));
        if !knows_backups {
            for citizen in &mut citizens {
                citizen.concern = citizen.concern.min(Concern::Unknown);
            }
        }
        let mut by_concern = BTreeMap::from(Concern::ALL.map(|concern| (concern, 0)));
        for citizen in &citizens {
            *by_concern.entry(citizen.concern).or_default() += 1;
        }
        citizens.sort_by_cached_key(Citizen::rank);
        Self {
            citizens,
            by_concern,
            knows_backups,
            rolls: roster.rolls,
            overviews: Vec::new(),
        }
    }

    /// How many customers there are.
    pub fn len(&self) -> usize {
        self.citizens.len()
    }

    /// Whether there is no customer.
    pub fn is_empty(&self) -> bool {
        self.citizens.is_empty()
    }

    /// Whether backups are looked at at all: jobs are collected, and permitted.
    pub fn knows_backups(&self) -> bool {
        self.knows_backups
    }

    /// How many customers have this as the worst that is the matter.
    pub fn count(&self, concern: Concern) -> usize {
        self.by_concern.get(&concern).copied().unwrap_or_default()
    }

    /// The customers of this concern, or all, whose name or id holds `text` in either case, worst first.
    pub fn find(&self, text: &str, concern: Option<Concern>) -> Vec<&Citizen> {
        let text = text.trim().to_lowercase();
        let holds = |hay: &str| hay.to_lowercase().contains(&text);
        let citizens = self.citizens.iter();
        citizens
            .filter(|citizen| concern.is_none_or(|concern| citizen.concern == concern))
            .filter(|citizen| text.is_empty() || holds(&citizen.organization) || holds(citizen.id.as_str()))
            .collect()
    }
}

impl Citizen {
    fn note_state(&mut self, state: State) {
        match state {
            State::Fresh => {}
            State::Pending => self.concern = self.concern.min(Concern::Pending),
            State::Stale | State::Failed | State::Forbidden => {
                self.unfresh += 1;
                self.concern = self.concern.min(Concern::Unfresh);
            }
        }
    }

    fn note_standing(&mut self, standing: &Standing, now: Timestamp) {
        self.overdue += standing.overdue(now);
        self.failing += standing.failing();
        self.first_deadline = standing.first_deadline();
        if self.overdue > 0 {
            self.concern = Concern::Overdue;
        } else if self.failing > 0 {
            self.concern = self.concern.min(Concern::Failing);
        }
    }

    /// Worst first, and who is as bad as another by name.
    fn rank(&self) -> impl Ord + use<> {
        use std::cmp::Reverse;
        let many = Reverse((self.overdue, self.failing, self.unfresh));
        let since = if self.overdue > 0 { self.first_deadline } else { None };
        (
            self.concern,
            many,
            since,
            Arc::clone(&self.organization),
            self.id.clone(),
        )
    }
}

/// Tells citizens what is said of them. Both lists are ordered by id.
fn join<T>(citizens: &mut [Citizen], said: &[(CustomerId, T)], mut tell: impl FnMut(&mut Citizen, &T)) {
    let mut said = said.iter().peekable();
    for citizen in citizens {
        while said.next_if(|(id, _)| *id < citizen.id).is_some() {}
        if let Some((_, what)) = said.next_if(|(id, _)| *id == citizen.id) {
            tell(citizen, what);
        }
    }
}

fn portrait(dossier: Dossier, settings: &Arc<Settings>, now: Timestamp) -> Portrait {
    let context = Context {
        now,
        settings: Arc::clone(settings),
        organization: Arc::clone(&dossier.organization),
    };
    let mut modules = Vec::new();
    let mut modules_at = None;
    for answer in &dossier.answers {
        let told = modules_of(answer, &dossier.id, &context);
        if !told.is_empty() {
            modules_at = answer.last_success;
            modules.extend(told);
        }
    }
    modules.sort_by_key(|module| {
        let deadline = module.deadline();
        (
            !module.is_overdue(now),
            !module.is_failing(),
            deadline.is_none(),
            deadline,
            module.service.clone(),
            module.module.clone(),
        )
    });
    Portrait {
        dossier,
        modules,
        modules_at,
    }
}

fn modules_of(answer: &Answer, id: &CustomerId, context: &Context) -> Vec<ModuleStanding> {
    let entry = collector::ALL.get(answer.collector);
    let told = entry.zip(answer.record.as_deref());
    told.map_or_else(Vec::new, |(entry, record)| entry.modules(record, id, context))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn id(n: usize) -> CustomerId {
        CustomerId::parse(&format!("customer-{n:05}")).unwrap()
    }

    fn roster(customers: usize, states: &[(usize, State)]) -> Roster {
        Roster {
            customers: (0..customers)
                .map(|n| (id(n), Arc::from(format!("Contoso {n}"))))
                .collect(),
            rolls: vec![Roll {
                name: "jobs",
                permitted: Some(true),
                states: states.iter().map(|(n, state)| (id(*n), *state)).collect(),
                standings: Vec::new(),
                newest: None,
                oldest: None,
                trouble: None,
            }],
        }
    }

    fn order(census: &Census) -> Vec<&str> {
        census.citizens.iter().map(|citizen| &*citizen.organization).collect()
    }

    #[test]
    fn the_worst_come_first_and_what_was_said_of_whom_stays_with_them() {
        let states = [
            (0, State::Fresh),
            (1, State::Pending),
            (2, State::Failed),
            (7, State::Stale),
            (9, State::Fresh),
        ];
        let census = Census::of(roster(4, &states), Timestamp::from_unix_seconds(0));
        assert_eq!(order(&census), ["Contoso 2", "Contoso 1", "Contoso 0", "Contoso 3"]);
        assert_eq!(census.count(Concern::Unfresh), 1);
        assert_eq!(census.count(Concern::Pending), 1);
        assert_eq!(census.count(Concern::Fine), 2);
    }

    #[test]
    fn a_permission_that_is_missing_is_not_held_against_customers_but_without_jobs_none_is_fine() {
        let counted = |name, permitted| {
            let mut roster = roster(1, &[(0, State::Fresh)]);
            roster.rolls.push(Roll {
                name,
                permitted,
                states: vec![(id(0), State::Forbidden)],
                standings: Vec::new(),
                newest: None,
                oldest: None,
                trouble: None,
            });
            if name == collector::JOBS {
                roster.rolls.remove(0);
            }
            let census = Census::of(roster, Timestamp::from_unix_seconds(0));
            [Concern::Fine, Concern::Unknown, Concern::Unfresh].map(|concern| census.count(concern))
        };
        assert_eq!(counted("protected", Some(false)), [1, 0, 0]);
        assert_eq!(counted("protected", Some(true)), [0, 0, 1]);
        assert_eq!(counted(collector::JOBS, Some(false)), [0, 1, 0]);
        let mut none = roster(1, &[]);
        none.rolls.clear();
        assert_eq!(
            Census::of(none, Timestamp::from_unix_seconds(0)).count(Concern::Unknown),
            1
        );
    }

    #[test]
    fn customers_are_found_by_name_and_by_id_in_either_case() {
        let census = Census::of(roster(30, &[(29, State::Failed)]), Timestamp::from_unix_seconds(0));
        assert_eq!(census.find(" CONTOSO 2", None).len(), 11);
        assert_eq!(census.find("customer-00003", None).len(), 1);
        assert_eq!(census.find("", Some(Concern::Unfresh)).len(), 1);
        assert_eq!(census.find("nobody", None).len(), 0);
    }
}
