//! Divides the slots for concurrent polls among kinds of resources, so that hanging polls of one kind cannot use all
//! slots. Collectors with the same permission form one kind, and so do all optional collectors.
//!
//! If there are two or more slots, a kind always leaves some free, so that a poll of another kind finds a free slot
//! without waiting for a timeout. While another kind waits and has less than an equal share of the slots, each kind is
//! limited to an equal share. The last free slots are reserved for enabled kinds without a running poll, if there are
//! such kinds. If there is only one slot, it goes to a different kind each time, as long as another kind waits. The
//! queue decides which of the admitted polls starts.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::api::Generation;
use crate::collector::{CollectorId, PerCollector, Target, ids};

/// Each kind leaves one in this many slots free, and at least one if there are two or more slots.
const SPARE_PART: usize = 4;

/// Maximum number of slots that a kind must leave free. This is enough for the first polls of the few other kinds. With
/// many slots, leaving a quarter free would prolong the cycle of a large fleet by a third.
const MAX_SPARE: usize = 4;

/// All optional collectors together may use one in this many slots, but always at least one.
const OPTIONAL_PART: usize = 4;

/// Polls of a single customer may use one in this many slots, but always at least one.
const CUSTOMERS_AT_ONCE: usize = 4;

/// The running polls. Each occupies a slot.
#[derive(Debug, Default)]
pub(super) struct RunningPolls {
    by_collector: PerCollector<usize>,
    by_target: HashMap<Target, usize>,
    /// The collector of the poll that was started last.
    last_started: Option<CollectorId>,
}

impl RunningPolls {
    /// Records that a poll has started and occupies a slot.
    pub(super) fn start(&mut self, collector: CollectorId, target: &Target) {
        *self.by_collector.get_mut(collector) += 1;
        *self.by_target.entry(target.clone()).or_default() += 1;
        self.last_started = Some(collector);
    }

    /// Records that a poll has finished and freed its slot.
    pub(super) fn finish(&mut self, collector: CollectorId, target: &Target) {
        let running = self.by_collector.get_mut(collector);
        *running = running.saturating_sub(1);
        if let Some(running) = self.by_target.get_mut(target) {
            *running = running.saturating_sub(1);
            if *running == 0 {
                self.by_target.remove(target);
            }
        }
    }

    /// Returns whether a customer's running polls use all the slots that one customer may use. A few customers whose
    /// polls hang must not delay the others.
    pub(super) fn is_at_customer_limit(&self, target: &Target, slots: usize) -> bool {
        let limit = (slots / CUSTOMERS_AT_ONCE).max(1);
        *target != Target::Partner && self.by_target.get(target).is_some_and(|running| *running >= limit)
    }

    /// Returns how many slots each kind of resource uses, and whether it waits for more.
    pub(super) fn loads(
        &self,
        is_waiting: impl Fn(CollectorId) -> bool,
        is_enabled: impl Fn(CollectorId) -> bool,
    ) -> Loads {
        let mut loads = PerCollector::<Load>::default();
        for (collector, running) in self.by_collector.iter() {
            let load = loads.get_mut(resource_kind(collector));
            load.running += running;
            load.is_waiting |= is_waiting(collector);
            load.is_enabled |= is_enabled(collector);
            load.is_last |= self.last_started == Some(collector);
        }
        Loads(loads)
    }
}

/// Load of each kind of resource. A kind is identified by its first collector.
#[derive(Debug)]
pub(super) struct Loads(PerCollector<Load>);

impl Loads {
    /// Returns whether a collector may use one more of `slots` slots. At least one slot must be free.
    pub(super) fn admits(&self, collector: CollectorId, slots: usize) -> bool {
        let own = resource_kind(collector);
        let is_optional = collector.descriptor().is_optional;
        if is_optional && self.0.get(own).running >= max_optional(slots) {
            return false;
        }
        // A collector that is not optional need not leave slots for optional collectors.
        let counts = move |other: CollectorId| is_optional || !other.descriptor().is_optional;
        let others = self
            .0
            .iter()
            .filter(move |(other, _)| *other != own && resource_kind(*other) == *other && counts(*other));
        admits(*self.0.get(own), others.map(|(_, load)| *load), slots)
    }
}

/// Returns the kind of resource that a collector reads, identified by the first collector with the same permission.
/// All optional collectors form one kind.
fn resource_kind(collector: CollectorId) -> CollectorId {
    // Cached, because the scheduler looks up the kinds of all collectors before each poll.
    static KINDS: LazyLock<PerCollector<CollectorId>> = LazyLock::new(|| {
        let permission = |id: CollectorId| {
            let descriptor = id.descriptor();
            (!descriptor.is_optional).then(|| descriptor.scope(Generation::V3))
        };
        PerCollector::from_fn(|id| ids().find(|first| permission(*first) == permission(id)).unwrap_or(id))
    });
    *KINDS.get(collector)
}

/// Slots used by a kind of resource, and whether it waits for more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Load {
    /// Number of running polls.
    running: usize,
    /// Whether a poll is due and not running.
    is_waiting: bool,
    /// Whether any of its collectors is enabled.
    is_enabled: bool,
    /// Whether the poll that started last is of this kind.
    is_last: bool,
}

/// Returns whether a kind may use one more of `slots` slots, given the loads of the `others`. At least one slot must
/// be free.
fn admits(own: Load, mut others: impl Iterator<Item = Load> + Clone, slots: usize) -> bool {
    let is_competing = |load: &Load| load.running > 0 || load.is_waiting;
    let competing = others.clone().chain([own]).filter(is_competing).count().max(1);
    let equal_part = (slots / competing).max(1);
    let running = others.clone().map(|load| load.running).sum::<usize>() + own.running;
    let is_any_idle = others.clone().any(|load| load.is_enabled && load.running == 0);
    if is_any_idle && own.running > 0 && slots.saturating_sub(running) <= spare(slots) {
        return false;
    }
    let is_turn_of_another = slots == 1 && own.is_last && others.clone().any(|load| load.is_waiting);
    if is_turn_of_another {
        return false;
    }
    let is_another_short = others.any(|load| load.is_waiting && load.running < equal_part);
    own.running
        < if is_another_short {
            equal_part
        } else {
            max_of_one_kind(slots)
        }
}

/// Returns the maximum number of slots for all optional collectors together. This limit keeps other polls from waiting
/// for optional polls.
fn max_optional(slots: usize) -> usize {
    (slots / OPTIONAL_PART).max(1)
}

fn max_of_one_kind(slots: usize) -> usize {
    slots.saturating_sub(spare(slots)).max(1)
}

fn spare(slots: usize) -> usize {
    (slots / SPARE_PART).clamp(1, MAX_SPARE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits_kind(loads: &[Load], kind: usize, slots: usize) -> bool {
        let others = loads.iter().enumerate().filter(|(other, _)| *other != kind);
        admits(loads[kind], others.map(|(_, load)| *load), slots)
    }

    /// A kind of resource, with the duration and the interval of its polls in seconds.
    struct Kind {
        duration: u64,
        interval: u64,
    }

    /// Results of a simulation for one kind.
    #[derive(Clone, Default)]
    struct Observed {
        max_running: usize,
        started: usize,
        longest_wait: u64,
    }

    /// Simulates polls of these kinds, second by second. Of the admitted polls, the poll that has waited longest
    /// starts.
    fn simulate(slots: usize, seconds: u64, kinds: &[Kind]) -> Vec<Observed> {
        let mut due: Vec<Vec<u64>> = kinds.iter().map(|_| Vec::new()).collect();
        let mut ends: Vec<Vec<u64>> = due.clone();
        let mut observed = vec![Observed::default(); kinds.len()];
        let mut last = None;
        for now in 0..seconds {
            for (kind, polls) in kinds.iter().enumerate() {
                ends[kind].retain(|end| *end > now);
                if now % polls.interval == 0 {
                    due[kind].push(now);
                }
            }
            while ends.iter().map(Vec::len).sum::<usize>() < slots {
                let loads: Vec<Load> = std::iter::zip(&due, &ends)
                    .enumerate()
                    .map(|(kind, (due, ends))| Load {
                        running: ends.len(),
                        is_waiting: !due.is_empty(),
                        is_enabled: true,
                        is_last: last == Some(kind),
                    })
                    .collect();
                let admitted =
                    (0..kinds.len()).filter(|kind| !due[*kind].is_empty() && admits_kind(&loads, *kind, slots));
                let Some(kind) = admitted.min_by_key(|kind| due[*kind][0]) else {
                    break;
                };
                let since = due[kind].remove(0);
                last = Some(kind);
                ends[kind].push(now + kinds[kind].duration);
                observed[kind].started += 1;
                observed[kind].max_running = observed[kind].max_running.max(ends[kind].len());
                observed[kind].longest_wait = observed[kind].longest_wait.max(now - since);
            }
        }
        observed
    }

    #[test]
    fn hanging_kind_leaves_slots_to_others_immediately() {
        // Polls of this kind are always due, and each uses its slot for a hundred seconds.
        let hanging = || Kind {
            duration: 100,
            interval: 1,
        };
        for slots in 2..=64 {
            let observed = simulate(
                slots,
                2_000,
                &[
                    hanging(),
                    Kind {
                        duration: 1,
                        interval: 7,
                    },
                ],
            );
            assert_eq!(observed[0].max_running, max_of_one_kind(slots), "{slots}");
            assert!(observed[0].max_running < slots, "{slots}");
            assert_eq!(observed[1].longest_wait, 0, "{slots}");
        }
    }

    #[test]
    fn kind_uses_an_equal_share_while_others_wait() {
        let busy = || Kind {
            duration: 10,
            interval: 1,
        };
        let loads = |running: [usize; 2]| {
            running.map(|running| Load {
                running,
                is_waiting: true,
                is_enabled: true,
                is_last: false,
            })
        };
        assert!(admits_kind(&loads([3, 4]), 0, 8) && !admits_kind(&loads([3, 4]), 1, 8));
        assert!(!admits_kind(&loads([4, 3]), 0, 8));
        let observed = simulate(8, 10_000, &[busy(), busy()]);
        assert!(observed[0].started.abs_diff(observed[1].started) <= 8);
    }

    #[test]
    fn kinds_do_not_starve_with_few_slots() {
        for slots in [1, 2, 3, 5, 8] {
            let kinds: Vec<Kind> = (0..6)
                .map(|kind| Kind {
                    duration: 1 + kind,
                    interval: 1,
                })
                .collect();
            let observed = simulate(slots, 10_000, &kinds);
            assert!(observed.iter().all(|observed| observed.started >= 100), "{slots}");
        }
    }

    #[test]
    fn two_hanging_kinds_leave_slots_to_others() {
        let hanging = || Kind {
            duration: 100,
            interval: 1,
        };
        for slots in 8..=64 {
            let observed = simulate(
                slots,
                2_000,
                &[
                    hanging(),
                    hanging(),
                    Kind {
                        duration: 1,
                        interval: 7,
                    },
                ],
            );
            assert_eq!(observed[2].longest_wait, 0, "{slots}");
        }
    }

    #[test]
    fn single_slot_alternates_between_kinds() {
        let observed = simulate(
            1,
            1_000,
            &[
                Kind {
                    duration: 5,
                    interval: 1,
                },
                Kind {
                    duration: 1,
                    interval: 20,
                },
            ],
        );
        assert!(observed[1].longest_wait <= 5, "{}", observed[1].longest_wait);
    }

    #[test]
    fn slots_of_one_kind_are_limited() {
        assert!(admits_kind(&[Load::default()], 0, 1));
        assert_eq!([1, 2, 3, 4, 8, 256].map(max_of_one_kind), [1, 1, 2, 3, 6, 252]);
    }
}
