//! Past incidents of a fleet. Each interrupts one customer's backups for days, and ends before the scenarios begin.
//!
//! Each group of [`SCENARIO_PERIOD`] customers has several independent sequences of incidents, called lanes. The first
//! lane always has an incident, the second and third have pauses between incidents, and the others have an incident on
//! some weekends. Until about two days before the scenarios begin, one to five customers per group therefore exceed
//! their RPO at any time, with more on weekends than on other days.

use std::collections::BTreeMap;

use super::rng::SeededRng;

/// Number of customers with fixed scenarios at the start of the list. Each of them has a different scenario.
pub(crate) const SPECIAL_CUSTOMERS: usize = 12;

/// Number of customers after which the scenarios repeat. Three of these customers exceed their RPO.
pub(crate) const SCENARIO_PERIOD: usize = 75;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
const HOUR_U32: u32 = 3600;

/// Time between the first incidents and the start of the scenarios; longer than the history that a demo backfills.
const FIRST: i64 = 34 * DAY;

/// Time after which a module without a new restore point exceeds its RPO: the exporter's default RPO.
const OBJECTIVE: i64 = 26 * HOUR;

/// Shortest and longest time for which an incident makes a customer exceed its RPO, in seconds, except in lanes whose
/// `pause` is `None`. [`resolved`] may postpone the end, but no incident lasts beyond the end of its lane.
const SHORTEST: u32 = 10 * HOUR_U32;
const LONGEST: u32 = 56 * HOUR_U32;

/// Percentage of weekends with an incident, in lanes whose `pause` is `None`.
const WEEKENDS: u64 = 75;

/// Weekday of the Unix epoch, a Thursday; Monday is 0.
const EPOCH_WEEKDAY: i64 = 3;

/// Effect of a past incident on a module's runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interruption {
    /// Each run failed before it processed any objects.
    Failing,
    /// No run started.
    Silent,
    /// The first run hung until it was cancelled. No other run started.
    Hung,
}

/// Modules affected by a past incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Affected {
    /// All modules of the customer's main service.
    Service,
    /// One of the main modules of that service. The index is less than [`MAIN_MODULES`].
    Module(usize),
}

/// Number of main modules of a service.
pub(crate) const MAIN_MODULES: usize = 4;

/// A period in which the runs of a module were interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interval {
    pub(crate) interruption: Interruption,
    /// Unix time of the start.
    pub(crate) from: i64,
    /// Unix time of the end.
    pub(crate) to: i64,
}

impl Interval {
    pub(crate) fn contains(&self, time: i64) -> bool {
        (self.from..self.to).contains(&time)
    }
}

/// A past incident of a customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Incident {
    pub(crate) affected: Affected,
    pub(crate) interval: Interval,
}

/// A sequence of incidents of different customers.
#[derive(Clone, Copy)]
struct Lane {
    /// Maximum pause between two incidents in seconds; `None` if the lane has incidents only on weekends.
    pause: Option<u32>,
    /// Time without incidents before the scenarios. Each of the first three lanes ends when a customer with a scenario
    /// first exceeds its RPO.
    quiet: i64,
}

const LANES: [Lane; 5] = [
    Lane {
        pause: Some(0),
        quiet: 49 * HOUR,
    },
    Lane {
        pause: Some(60 * HOUR_U32),
        quiet: 27 * HOUR,
    },
    Lane {
        pause: Some(60 * HOUR_U32),
        quiet: 15 * HOUR,
    },
    Lane {
        pause: None,
        quiet: 15 * HOUR,
    },
    Lane {
        pause: None,
        quiet: 15 * HOUR,
    },
];

/// Returns the incidents before `started`, by customer index. Each ends at least `recovery` seconds before `started`,
/// so that every module can complete another run.
pub(crate) fn incidents(seed: u64, customers: usize, started: i64, recovery: i64) -> BTreeMap<usize, Vec<Incident>> {
    let mut all: BTreeMap<usize, Vec<Incident>> = BTreeMap::new();
    for group in 0..customers.div_ceil(SCENARIO_PERIOD) {
        let group_number = u64::try_from(group).unwrap_or(u64::MAX);
        let first = group.saturating_mul(SCENARIO_PERIOD);
        let mut rng = SeededRng::from_path(&[seed, 0x19C1, group_number]);
        let mut members = shuffled_members(&mut rng).into_iter().cycle();
        for lane in LANES {
            let end = started.saturating_sub(lane.quiet.max(recovery));
            for (from, to) in lane.breaches(started.saturating_sub(FIRST), end, &mut rng) {
                let Some(member) = members.next() else { continue };
                let incident = incident(from, to, &mut rng);
                let index = first.saturating_add(member);
                // Customers beyond the end of a small fleet have no incidents.
                if index < customers {
                    all.entry(index).or_default().push(incident);
                }
            }
        }
    }
    all
}

/// Returns the customers of a group that have no scenario, in random order.
fn shuffled_members(rng: &mut SeededRng) -> Vec<usize> {
    let mut members: Vec<(u64, usize)> = (SPECIAL_CUSTOMERS..SCENARIO_PERIOD)
        .map(|member| (rng.next(), member))
        .collect();
    members.sort_unstable();
    members.into_iter().map(|(_, member)| member).collect()
}

/// Returns an incident that makes a customer exceed its RPO from `from` until `to`.
fn incident(from: i64, to: i64, rng: &mut SeededRng) -> Incident {
    let module = usize::try_from(rng.below(4)).unwrap_or(0);
    let (affected, interruption) = match rng.below(100) {
        0..45 => (Affected::Service, Interruption::Failing),
        45..70 => (Affected::Module(module), Interruption::Failing),
        70..88 => (Affected::Module(module), Interruption::Silent),
        _ => (Affected::Module(module), Interruption::Hung),
    };
    Incident {
        affected,
        interval: Interval {
            interruption,
            from: from.saturating_sub(OBJECTIVE),
            to,
        },
    }
}

impl Lane {
    /// Returns the periods in which one of the lane's customers exceeds its RPO.
    fn breaches(self, begin: i64, end: i64, rng: &mut SeededRng) -> Vec<(i64, i64)> {
        let mut breaches = Vec::new();
        let mut at = begin;
        while at < end {
            let Some(pause) = self.pause else {
                let saturday = next_monday(at).saturating_sub(2 * DAY);
                let from = saturday
                    .saturating_sub(10 * HOUR)
                    .saturating_add(rng.seconds(0, 20 * HOUR_U32));
                let monday = next_monday(at).saturating_add(rng.seconds(8 * HOUR_U32, 30 * HOUR_U32));
                if rng.chance(WEEKENDS) && from < end {
                    breaches.push((from, monday.min(end)));
                }
                at = at.saturating_add(7 * DAY);
                continue;
            };
            let to = resolved(at.saturating_add(rng.seconds(SHORTEST, LONGEST)), rng).min(end);
            breaches.push((at, to));
            at = to.saturating_add(rng.seconds(0, pause));
        }
        breaches
    }
}

/// If an end falls on a weekend, postpones it to working hours on Monday.
fn resolved(at: i64, rng: &mut SeededRng) -> i64 {
    let working_hours = rng.seconds(8 * HOUR_U32, 14 * HOUR_U32);
    match weekday(at) {
        5 | 6 => next_monday(at).saturating_add(working_hours),
        _ => at,
    }
}

/// Returns the weekday of a Unix time: 0 for Monday.
fn weekday(at: i64) -> i64 {
    at.div_euclid(DAY).saturating_add(EPOCH_WEEKDAY).rem_euclid(7)
}

fn next_monday(at: i64) -> i64 {
    let midnight = at.div_euclid(DAY).saturating_mul(DAY);
    midnight.saturating_add((7 - weekday(at)).saturating_mul(DAY))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_790_000_000;

    #[test]
    fn week_begins_on_monday() {
        // 2026-09-21 was a Monday.
        let monday = 1_789_948_800;
        assert_eq!((weekday(monday), weekday(monday - 1)), (0, 6));
        assert_eq!(next_monday(monday - 1), monday);
        assert_eq!(next_monday(monday), monday + 7 * DAY);
        assert_eq!((weekday(0), weekday(-1)), (3, 2));
    }

    #[test]
    fn one_to_five_customers_of_a_group_exceed_their_rpo() {
        for seed in 0..20 {
            let all = incidents(seed, SCENARIO_PERIOD, NOW, 0);
            let late_at = |at: i64| {
                let of_all = all.values().flatten().map(|incident| incident.interval);
                of_all
                    .filter(|one| one.contains(at) && at >= one.from + OBJECTIVE)
                    .count()
            };
            let hours: Vec<usize> = (0..26 * 24)
                .map(|hour| late_at(NOW - 28 * DAY + hour * HOUR - HOUR))
                .collect();
            let before_scenarios = hours.iter().take(25 * 24);
            assert!(
                before_scenarios.clone().all(|late| (1..=5).contains(late)),
                "seed {seed}"
            );
            let mean = before_scenarios.sum::<usize>() as f64 / (25.0 * 24.0);
            assert!((2.2..3.6).contains(&mean), "seed {seed}: {mean}");
        }
    }

    #[test]
    fn incidents_are_over_at_the_start() {
        for recovery in [0, 27 * HOUR] {
            let all = incidents(1, 1000, NOW, recovery);
            let last = all.values().flatten().map(|incident| incident.interval.to).max();
            assert!(last <= Some(NOW - recovery.max(15 * HOUR)));
            assert!(
                all.keys()
                    .all(|index| index % SCENARIO_PERIOD >= SPECIAL_CUSTOMERS && *index < 1000)
            );
        }
        assert!(incidents(1, SPECIAL_CUSTOMERS, NOW, 0).is_empty());
        assert_ne!(incidents(1, 75, NOW, 0), incidents(2, 75, NOW, 0));
    }
}
