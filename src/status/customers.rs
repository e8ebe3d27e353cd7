//! The list of all customers, worst first.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::collector::{CollectorId, RansomwareSigns, Target, ransomware_signs};
use crate::domain::{Attributes, CustomerId, PerAttribute, Timestamp, labelled};
use crate::store::{CollectorSnapshot, State, StatusSnapshot};

labelled! {
    /// A finding about a customer. The variants are ordered from worst to best, and several can apply to one customer.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum CustomerHealth, word {
        /// A tenant shows signs of ransomware.
        Ransomware => "ransomware",
        /// A module is overdue.
        Overdue => "overdue",
        /// A module is failing.
        Failing => "failing",
        /// The backup status is currently unknown.
        Unknown => "unknown",
        /// The values of a collector are outdated; see [`State::is_outdated`].
        Outdated => "outdated",
        /// A collector's first poll has not completed yet.
        Pending => "pending",
        /// No module has both an RPO and a completed run, for example because no module is listed.
        NotAssessed => "not assessed",
        /// None of the other findings applies.
        Ok => "OK",
    }
}

/// A customer in the list.
#[derive(Clone, Debug)]
pub struct CustomerRow {
    /// Id of the customer.
    pub id: CustomerId,
    /// The name of the organization.
    pub organization: Arc<str>,
    /// The attributes that the operator assigned to the customer.
    pub attributes: Arc<Attributes>,
    /// Signs of ransomware in the customer's tenants, if there are any. While polls fail, these are the last known
    /// signs.
    pub signs: Option<RansomwareSigns>,
    /// Number of modules that were overdue at [`as_of`](Self::as_of).
    pub overdue: usize,
    /// Number of modules that were failing at the last successful poll.
    pub failing: usize,
    /// Number of collectors whose values for the customer are outdated; see [`State::is_outdated`].
    pub outdated: usize,
    /// Whether the backup status is currently known.
    pub is_known: bool,
    /// Time to which the backup status refers. If the status is not currently known, this is the time of the last
    /// successful poll, because there may be newer restore points. Otherwise, or if no poll has succeeded, it is the
    /// current time.
    pub as_of: Timestamp,
    /// Whether any collector's first poll has not completed yet.
    pub is_pending: bool,
    /// Time at which the first module became or becomes overdue.
    first_deadline: Option<Timestamp>,
}

/// All customers, worst first.
#[derive(Clone, Debug, Default)]
pub struct CustomerList {
    rows: Vec<CustomerRow>,
    /// Whether the backup status is collected at all.
    pub is_backup_status_collected: bool,
}

impl CustomerRow {
    /// Returns the row of a customer, built from a snapshot and its collectors.
    pub(super) fn of(
        id: &CustomerId,
        snapshot: &StatusSnapshot,
        collectors: &[CollectorSnapshot<'_>],
        now: Timestamp,
    ) -> Self {
        let mut row = Self {
            id: id.clone(),
            organization: snapshot.organization(id).map(Arc::clone).unwrap_or_default(),
            attributes: snapshot.attributes(id).map(Arc::clone).unwrap_or_default(),
            signs: None,
            overdue: 0,
            failing: 0,
            outdated: 0,
            is_known: false,
            as_of: now,
            is_pending: false,
            first_deadline: None,
        };
        let target = Target::Customer(id.clone());
        for collector in collectors {
            row.add_poll(collector, &target);
            row.signs = row.signs.or_else(|| signs_of(collector, id));
            if let Some(health) = collector.health_of(id) {
                row.overdue += health.overdue(row.as_of);
                row.failing += health.failing();
                row.first_deadline = health.first_deadline();
            }
        }
        row
    }

    /// Adds the result of a collector's latest poll to the row, unless the result applies to all customers, as with a
    /// bulk poll or a missing permission.
    fn add_poll(&mut self, collector: &CollectorSnapshot<'_>, target: &Target) {
        let poll = collector.poll_of(target);
        if collector.permitted == Some(false) || poll.is_for_all {
            return;
        }
        if collector.id == CollectorId::JOBS {
            self.is_known = poll.has_current_values();
            self.as_of = poll.last_success.filter(|_| !self.is_known).unwrap_or(self.as_of);
        }
        self.is_pending |= poll.state == State::Pending;
        self.outdated += usize::from(poll.state.is_outdated());
    }

    /// Returns whether a finding applies to the customer.
    pub fn is(&self, health: CustomerHealth) -> bool {
        match health {
            CustomerHealth::Ransomware => self.signs.is_some(),
            CustomerHealth::Overdue => self.overdue > 0,
            CustomerHealth::Failing => self.failing > 0,
            CustomerHealth::Unknown => !self.is_known && !self.is_pending,
            CustomerHealth::Outdated => self.outdated > 0,
            CustomerHealth::Pending => self.is_pending,
            CustomerHealth::NotAssessed => self.is_known && self.first_deadline.is_none(),
            CustomerHealth::Ok => self.health() == CustomerHealth::Ok,
        }
    }

    /// Returns the worst finding that applies to the customer.
    pub fn health(&self) -> CustomerHealth {
        let [bad @ .., ok] = CustomerHealth::ALL;
        bad.into_iter().find(|health| self.is(*health)).unwrap_or(ok)
    }

    /// Returns the sort key: worst first, and then by name.
    fn rank(&self) -> impl Ord + use<> {
        let counts = Reverse((self.signs, self.overdue, self.failing, self.outdated));
        let since = self.first_deadline.filter(|_| self.overdue > 0);
        let name = (Arc::clone(&self.organization), self.id.clone());
        (self.health(), counts, since, name)
    }
}

/// Returns the signs of ransomware in a collector's record of a customer, if there are any and the customer has the
/// service.
pub(super) fn signs_of(collector: &CollectorSnapshot<'_>, id: &CustomerId) -> Option<RansomwareSigns> {
    let signs = ransomware_signs(collector.record_of(id)?)?;
    let state = collector.poll_of(&Target::Customer(id.clone())).state;
    (state != State::Unlicensed).then_some(signs)
}

impl CustomerList {
    /// Builds the list from a snapshot.
    pub fn of(snapshot: &StatusSnapshot, now: Timestamp) -> Self {
        let collectors: Vec<_> = snapshot.collectors().collect();
        let customers = snapshot.customers();
        let mut rows: Vec<CustomerRow> = customers
            .map(|(id, _)| CustomerRow::of(id, snapshot, &collectors, now))
            .collect();
        rows.sort_by_cached_key(CustomerRow::rank);
        let mut jobs = collectors.iter().filter(|collector| collector.id == CollectorId::JOBS);
        Self {
            rows,
            is_backup_status_collected: jobs.any(|jobs| jobs.permitted != Some(false)),
        }
    }

    /// Returns the number of customers.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Returns whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Returns the number of customers to which a finding applies.
    pub fn count(&self, health: CustomerHealth) -> usize {
        self.rows.iter().filter(|row| row.is(health)).count()
    }

    /// Returns the number of customers whose backup status is currently known.
    pub fn known(&self) -> usize {
        self.rows.iter().filter(|row| row.is_known).count()
    }

    /// Returns the customers' distinct values of each attribute.
    pub fn attribute_values(&self) -> PerAttribute<BTreeSet<&str>> {
        Attributes::distinct_values(self.rows.iter().map(|row| &*row.attributes))
    }

    /// Returns the customers that have these attributes, or all customers if no attributes are given.
    pub fn with_attributes(&self, attributes: &PerAttribute<Option<String>>) -> Cow<'_, Self> {
        if attributes.iter().all(Option::is_none) {
            return Cow::Borrowed(self);
        }
        let is_match = |row: &&CustomerRow| {
            let mut pairs = attributes.iter().zip(row.attributes.values());
            pairs.all(|(selected, value)| selected.is_none() || selected.as_deref() == value)
        };
        Cow::Owned(Self {
            rows: self.rows.iter().filter(is_match).cloned().collect(),
            is_backup_status_collected: self.is_backup_status_collected,
        })
    }

    /// Returns the customers whose name or id contains `text`, ignoring case, worst first. If `health` is given,
    /// returns only customers to which that finding applies.
    pub fn find(&self, text: &str, health: Option<CustomerHealth>) -> Vec<&CustomerRow> {
        let text = text.trim().to_lowercase();
        let contains = |field: &str| field.to_lowercase().contains(&text);
        let rows = self.rows.iter();
        rows.filter(|row| health.is_none_or(|health| row.is(health)))
            .filter(|row| text.is_empty() || contains(&row.organization) || contains(row.id.as_str()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::collector::{PerCollector, Plan, RenderedRecord};
    use crate::domain::{HealthSummary, JobStatus, ModuleHealth, ModuleKey, RunSummary};
    use crate::exposition::Table;
    use crate::store::Store;

    fn row(name: &str, change: impl FnOnce(&mut CustomerRow)) -> CustomerRow {
        let id = CustomerId::parse(&format!("id-of-{name}"));
        let mut row = CustomerRow {
            id: id.unwrap_or_else(|| unreachable!()),
            organization: Arc::from(name),
            attributes: Arc::default(),
            signs: None,
            overdue: 0,
            failing: 0,
            outdated: 0,
            is_known: true,
            as_of: Timestamp::from_unix_seconds(1_750_000_000),
            is_pending: false,
            first_deadline: Some(Timestamp::from_unix_seconds(1_750_000_000)),
        };
        change(&mut row);
        row
    }

    fn signs(potential_attack: u64, suspicious_objects: u64) -> RansomwareSigns {
        RansomwareSigns {
            potential_attack,
            suspicious_objects,
            ..RansomwareSigns::default()
        }
    }

    fn list(mut rows: Vec<CustomerRow>) -> CustomerList {
        rows.sort_by_cached_key(CustomerRow::rank);
        CustomerList {
            rows,
            is_backup_status_collected: true,
        }
    }

    #[test]
    fn customers_are_sorted_worst_first_and_counted() {
        let list = list(vec![
            row("fine", |_| {}),
            row("pending", |row| (row.is_known, row.is_pending) = (false, true)),
            row("stale", |row| (row.is_known, row.outdated) = (false, 2)),
            row("late and failing", |row| (row.overdue, row.failing) = (1, 3)),
            row("failing", |row| row.failing = 1),
            row("late", |row| row.overdue = 2),
            row("off", |row| row.is_known = false),
            row("without modules", |row| row.first_deadline = None),
            row("suspicious", |row| row.signs = Some(signs(0, 9))),
            row("attacked", |row| row.signs = Some(signs(1, 0))),
        ]);
        let names: Vec<&str> = list.rows.iter().map(|row| &*row.organization).collect();
        assert_eq!(
            names,
            [
                "attacked",
                "suspicious",
                "late",
                "late and failing",
                "failing",
                "stale",
                "off",
                "pending",
                "without modules",
                "fine"
            ]
        );
        assert_eq!(
            CustomerHealth::ALL.map(|health| list.count(health)),
            [2, 2, 2, 2, 1, 1, 1, 1]
        );
        assert_eq!((list.len(), list.known()), (10, 7));
    }

    #[test]
    fn customers_are_found_by_name_and_id_ignoring_case() {
        let rows = (0..30).map(|number| row(&format!("Contoso {number:02}"), |row| row.failing = number / 29));
        let list = list(rows.collect());
        let find = |text, health| list.find(text, health).len();
        assert_eq!(find(" CONTOSO 2", None), 10);
        assert_eq!(find("ID-of-contoso 03", None), 1);
        assert_eq!(find("", Some(CustomerHealth::Failing)), 1);
        assert_eq!(find("nobody", None), 0);
    }

    #[test]
    fn customers_are_found_by_all_of_their_attributes() {
        let with = |name, tier: &str, team: &str| {
            let value = |text: &str| (!text.is_empty()).then(|| Box::from(text));
            row(name, |row| {
                row.attributes = Arc::new(Attributes {
                    tier: value(tier),
                    region: None,
                    team: value(team),
                })
            })
        };
        let list = list(vec![
            with("a", "gold", "North"),
            with("b", "gold", ""),
            with("c", "", "North"),
        ]);
        let found = |tier: Option<&str>, team: Option<&str>| {
            let selected = PerAttribute {
                tier: tier.map(str::to_owned),
                region: None,
                team: team.map(str::to_owned),
            };
            let filtered = list.with_attributes(&selected);
            let rows = filtered.find("", None);
            rows.iter().map(|row| row.organization.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(found(Some("gold"), None), ["a", "b"]);
        assert_eq!(found(Some("gold"), Some("North")), ["a"]);
        assert!(found(Some("Gold"), None).is_empty());
        assert_eq!(list.attribute_values().tier.len(), 1);
    }

    /// Returns a store with one customer, whose only module has a restore point at 0 s and the given RPO in seconds.
    /// The jobs were polled at 100 s, and their values become stale 180 seconds later.
    fn polled(rpo: u64) -> (Store, CustomerId) {
        let plan = Plan {
            enabled: true,
            interval: Duration::from_secs(60),
            stale_after: Duration::from_secs(180),
        };
        let store = Store::new(&PerCollector::from_fn(|_| plan), None);
        let id = CustomerId::parse("id").unwrap_or_else(|| unreachable!());
        let list = BTreeMap::from([(id.clone(), Arc::from("Contoso"))]);
        assert!(store.reconcile(&list, true).1.is_ok());
        let run = RunSummary {
            status: JobStatus::Finished,
            at: Some(at(0)),
            has_failed_objects: false,
        };
        let module = ModuleHealth {
            key: ModuleKey {
                service: "Microsoft 365".into(),
                module: "OneDrive".into(),
                scope: None,
            },
            latest: Some(run),
            latest_completed: Some(run),
            restore_point: Some(at(0)),
            rpo: Some(Duration::from_secs(rpo)),
            until: None,
            reason: None,
            failures: 0,
            makes_restore_points: true,
            is_abandoned: false,
        };
        let record = RenderedRecord {
            record: Arc::new(0_usize),
            tables: Arc::new([Table::single(&[("customer_id", "id")], &[Some(1.0)])]),
            held: Arc::new([]),
            health: Some(Arc::new(HealthSummary::of(&[module]))),
        };
        let target = Target::Customer(id.clone());
        store.add_target(CollectorId::JOBS, &target);
        let records = BTreeMap::from([(id.clone(), record)]);
        assert!(store.commit(CollectorId::JOBS, &target, records, true, at(100)).is_ok());
        (store, id)
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(1_800_000_000 + seconds)
    }

    #[test]
    fn stale_data_neither_becomes_overdue_nor_recovers() {
        let row = |rpo, now| {
            let (store, id) = polled(rpo);
            let snapshot = store.status_snapshot(at(now));
            let collectors: Vec<_> = snapshot.collectors().collect();
            let row = CustomerRow::of(&id, &snapshot, &collectors, at(now));
            (row.overdue, row.is_known)
        };
        assert_eq!((row(150, 140), row(150, 160)), ((0, true), (1, true)));
        assert_eq!(
            row(300, 10_000),
            (0, false),
            "stale data must not make a module overdue"
        );
        assert_eq!(row(90, 10_000), (1, false));
    }
}
