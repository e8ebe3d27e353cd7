//! Tests of the hostile and realistic worlds.

use std::collections::BTreeSet;

use super::super::names;
use super::*;

const NOW: i64 = 1_790_000_000;
const DAY: i64 = 86_400;

fn world(settings: &Settings) -> World {
    World::new(settings, NOW)
}

fn hostile() -> World {
    world(&Settings {
        hostile: true,
        ..Settings::default()
    })
}

#[test]
fn worlds_with_the_same_seed_stay_equal() {
    let settings = Settings {
        speed: 60.0,
        ..Settings::default()
    };
    let (mut one, mut two) = (world(&settings), world(&settings));
    assert_eq!(one, two);
    for step in 1..50 {
        one.advance(NOW + step * 600);
        two.advance(NOW + step * 600);
    }
    assert_eq!(one, two);
    assert_ne!(one, world(&settings));
    assert_ne!(world(&settings), world(&Settings { seed: 2, ..settings }));
}

#[test]
fn world_has_every_type_and_module_of_the_reference() {
    let world = hostile();
    let modules = || world.customers.iter().flat_map(|customer| &customer.modules);
    let types: BTreeSet<u16> = modules().map(|module| module.job_type).collect();
    let numbers: BTreeSet<u16> = modules().map(|module| module.number).collect();
    assert_eq!(types, names::JOB_TYPES.iter().map(|(number, _)| *number).collect());
    let mut listed: BTreeSet<u16> = names::MODULES.iter().map(|(number, _)| *number).collect();
    listed.insert(names::UNLISTED_MODULE.0);
    assert_eq!(numbers, listed);
}

#[test]
fn world_has_every_customer_status_and_special_module() {
    let world = hostile();
    let statuses: BTreeSet<i64> = world.customers.iter().map(|customer| customer.status).collect();
    assert_eq!(statuses, (0..=6).collect());
    let modules = || world.customers.iter().flat_map(|customer| &customer.modules);
    assert!(
        modules().any(|module| module.runs.is_empty()),
        "at least one module must have no runs"
    );
    let runs = || modules().flat_map(|module| &module.runs);
    assert!(runs().any(|run| run.id == "N/A" && run.end.is_some()));
    assert!(runs().any(|run| run.status == 3 && run.failed == 0));
    let stuck = runs().find(|run| run.status == 1 && run.start.unwrap() < NOW - 2 * DAY);
    assert!(stuck.is_some(), "at least one run must be stuck");
    let silent = world.customers.iter().find(|customer| customer.status == 6).unwrap();
    assert!(
        silent
            .modules
            .iter()
            .flat_map(|module| &module.runs)
            .all(|run| run.instant().is_none_or(|at| at < NOW - 4 * DAY))
    );
}

#[test]
fn rows_and_ids_are_unique() {
    for hostile in [true, false] {
        check_rows_and_ids(&world(&Settings {
            customers: 200,
            hostile,
            ..Settings::default()
        }));
    }
}

fn check_rows_and_ids(world: &World) {
    let ids: BTreeSet<&str> = world.customers.iter().map(|customer| customer.id.as_str()).collect();
    assert_eq!(ids.len(), 200);
    for customer in &world.customers {
        let modules: BTreeSet<(u16, u16, Option<&str>)> = customer
            .modules
            .iter()
            .map(|module| (module.job_type, module.number, module.scope.as_deref()))
            .collect();
        assert_eq!(modules.len(), customer.modules.len());
    }
}

#[test]
fn customers_join_and_leave_only_with_churn() {
    let mut without_churn = world(&Settings {
        churn: false,
        ..Settings::default()
    });
    let mut churning = world(&Settings {
        churn: true,
        ..Settings::default()
    });
    let before: BTreeSet<String> = churning.customers.iter().map(|customer| customer.id.clone()).collect();
    without_churn.advance(NOW + 10 * DAY);
    churning.advance(NOW + 10 * DAY);
    assert_eq!(without_churn.customers.len(), 40);
    let after: BTreeSet<String> = churning.customers.iter().map(|customer| customer.id.clone()).collect();
    assert!(after.difference(&before).count() >= 6);
    assert!(before.difference(&after).count() >= 4);
    let joined = churning
        .customers
        .iter()
        .find(|customer| !before.contains(&customer.id))
        .unwrap();
    let mut runs = joined.modules.iter().flat_map(|module| &module.runs);
    assert!(runs.all(|run| run.instant().is_none_or(|at| at > NOW)));
}

#[test]
fn speed_compresses_the_schedule_but_not_the_clock() {
    let mut world = world(&Settings {
        speed: 1440.0,
        ..Settings::default()
    });
    let ended = |world: &World| {
        let modules = world.customers.iter().flat_map(|customer| &customer.modules);
        modules
            .flat_map(|module| &module.runs)
            .filter(|run| run.end > Some(NOW))
            .count()
    };
    assert_eq!(ended(&world), 0);
    world.advance(NOW + 120);
    assert!(ended(&world) > 200, "two scheduled days must pass in two minutes");
    assert!(
        world
            .customers
            .iter()
            .flat_map(|customer| &customer.modules)
            .flat_map(|module| &module.runs)
            .all(|run| run.end.unwrap_or(0) <= NOW + 120 && run.instant().unwrap_or(0) <= NOW + 120)
    );
}

#[test]
fn scan_profile_starts_to_fail() {
    let mut world = hostile();
    let failed = |world: &World| {
        let profiles = world.customers.iter().flat_map(|customer| &customer.scan_profiles);
        profiles.filter(|profile| profile.report.status == 3).count()
    };
    let before = failed(&world);
    world.advance(NOW + 3 * DAY);
    assert!(failed(&world) > before);
}

#[test]
fn clock_jumps_do_not_break_the_world() {
    let mut world = world(&Settings {
        speed: 10_000.0,
        ..Settings::default()
    });
    world.advance(i64::MAX);
    world.advance(0);
    assert_eq!(world.now(), i64::MAX);
    assert!(world.customers.len() < 400);
}

#[test]
fn large_world_keeps_fewer_runs() {
    let world = world(&Settings {
        customers: 5000,
        ..Settings::default()
    });
    let runs: usize = world
        .customers
        .iter()
        .flat_map(|customer| &customer.modules)
        .map(|module| module.runs.len())
        .sum();
    assert!(runs < 250_000, "{runs}");
}

/// Returns the age of a module's latest restore point in seconds, or `None` if the module has no RPO.
fn age(module: &Module) -> Option<i64> {
    module.schedule.as_ref().filter(|_| !matches!(module.number, 8 | 10))?;
    let points = module.runs.iter().filter(|run| run.is_restore_point());
    Some(
        NOW - points
            .filter_map(|run| run.end.or(run.last_modified))
            .max()
            .unwrap_or(0),
    )
}

#[test]
fn fleet_meets_objectives_except_in_three_scenarios() {
    for (seed, speed) in [(1, 60.0), (2, 60.0), (1, 1.0), (2, 1.0), (3, 1.0)] {
        let world = world(&Settings {
            seed,
            speed,
            customers: 75,
            ..Settings::default()
        });
        let is_late = |customer: &Customer| customer.modules.iter().filter_map(age).any(|age| age > 26 * 3600);
        let late: Vec<usize> = (0..)
            .zip(&world.customers)
            .filter(|(_, c)| is_late(c))
            .map(|(nth, _)| nth)
            .collect();
        assert_eq!(late, [3, 6, 9], "seed {seed}, speed {speed}");
    }
}

/// Returns the fraction of customers that meet all their RPOs, at intervals of four hours during the 28 days before
/// `NOW`. Customers without RPOs are not counted.
fn within_objectives(seed: u64) -> Vec<f64> {
    let settings = Settings {
        seed,
        speed: 60.0,
        customers: 75,
        churn: false,
        scenarios_from: Some(NOW),
        ..Settings::default()
    };
    let mut world = World::new(&settings, NOW - 30 * DAY);
    let mut points: BTreeMap<(usize, usize), i64> = BTreeMap::new();
    let mut fractions = Vec::new();
    for hour in (-30 * 24..=0).step_by(4) {
        let at = NOW + hour * 3600;
        world.advance(at);
        let (mut late, mut counted) = (0_u32, 0_u32);
        for (nth, customer) in world.customers.iter().enumerate() {
            let mut oldest = None;
            for (position, module) in customer.modules.iter().enumerate() {
                if module.schedule.is_none() || matches!(module.number, 8 | 10) {
                    continue;
                }
                let ended = module.runs.iter().filter(|run| run.is_restore_point());
                let newest = ended.filter_map(|run| run.end.or(run.last_modified)).max();
                let known = points.entry((nth, position)).or_default();
                *known = newest.unwrap_or_default().max(*known);
                oldest = Some(oldest.map_or(*known, |oldest: i64| oldest.min(*known)));
            }
            counted += u32::from(oldest.is_some());
            late += u32::from(oldest.is_some_and(|oldest| at - oldest > 26 * 3600));
        }
        if hour >= -28 * 24 {
            fractions.push(1.0 - f64::from(late) / f64::from(counted));
        }
    }
    fractions
}

#[test]
fn history_of_a_fleet_has_incidents_that_last_for_days() {
    for seed in [1, 2] {
        let fractions = within_objectives(seed);
        let mean = fractions.iter().sum::<f64>() / fractions.len() as f64;
        assert!((0.95..0.97).contains(&mean), "seed {seed}: {mean}");
        assert!(
            fractions.iter().all(|fraction| (0.93..0.99).contains(fraction)),
            "seed {seed}: {fractions:?}"
        );
        let changes = fractions.windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert!(changes > 20, "seed {seed}: only {changes} changes");
        let last = fractions.last().copied().unwrap();
        assert!((0.95..0.97).contains(&last), "seed {seed}: {last}");
    }
}

#[test]
fn fleet_has_every_scenario() {
    let world = world(&Settings {
        speed: 60.0,
        customers: 75,
        ..Settings::default()
    });
    let statuses = |nth: usize| -> Vec<i64> {
        let modules = world.customers[nth].modules.iter();
        modules
            .filter_map(|module| module.runs.last())
            .map(|run| run.status)
            .collect()
    };
    assert!(statuses(1).contains(&6), "at least one run must be queued");
    assert!(world.customers[1].products.len() > 35);
    let ends: BTreeSet<&str> = world.customers[1]
        .products
        .iter()
        .map(|p| p.expiration_date.as_str())
        .collect();
    assert_eq!(ends.len(), 1);
    assert!(
        statuses(3).iter().filter(|status| **status == 3).count() > 5,
        "backups without consent must fail"
    );
    let gap = world.customers[4]
        .protected
        .iter()
        .find(|row| row.module == 305)
        .unwrap();
    assert!((60..75).contains(&(gap.total_protected * 100 / gap.total_scanned)));
    let hung = world.customers[5]
        .modules
        .iter()
        .find(|module| module.number == 302)
        .unwrap();
    assert_eq!(hung.runs.last().unwrap().status, 1);
    assert!(hung.runs.last().unwrap().start.unwrap() < NOW - 12 * 3600);
    let dormant = world.customers[7]
        .modules
        .iter()
        .filter_map(|module| module.runs.last()?.end);
    assert_eq!(dormant.filter(|end| *end < NOW - 90 * DAY).count(), 2);
    assert!(statuses(8).contains(&12));
    let scopes: Vec<i64> = world.customers[9]
        .modules
        .iter()
        .filter(|module| module.number == 363)
        .map(|module| module.runs.last().unwrap().status)
        .collect();
    assert!(
        scopes.contains(&3) && scopes.iter().any(|status| *status != 3),
        "{scopes:?}"
    );
    assert!(world.customers[10].modules.is_empty() && world.customers[10].protected.is_empty());
    assert!(world.customers[11].modules.iter().any(|module| module.runs.is_empty()));
    assert!(world.customers.iter().any(|customer| customer.tenants.is_empty()));
}

#[test]
fn backfilled_history_leads_to_the_same_world() {
    let settings = Settings {
        speed: 60.0,
        customers: 75,
        churn: false,
        ..Settings::default()
    };
    let now = world(&settings);
    let mut past = World::new(
        &Settings {
            scenarios_from: Some(NOW),
            ..settings
        },
        NOW - 2 * DAY,
    );
    assert_ne!(past.customers, now.customers);
    for hour in 1..=48 {
        past.advance(NOW - 2 * DAY + hour * 3600);
    }
    let newest = |world: &World| -> Vec<Option<Run>> {
        let modules = world.customers.iter().flat_map(|customer| &customer.modules);
        modules.map(|module| module.runs.last().cloned()).collect()
    };
    assert_eq!(newest(&past), newest(&now));
}
