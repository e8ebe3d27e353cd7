//! Shares the slots for polls among resources, so that one that hangs cannot use all of them.
//!
//! A kind of resource leaves some slots free, even if no other kind waits, so that a new poll finds a free slot without
//! waiting for a timeout. While others wait, a kind uses at most an equal share as long as one of them has less; while
//! one of them uses none, the free slots are reserved for first polls. A single slot goes to another kind each time. The
//! queue decides which of the admitted polls starts.

/// Fraction of the slots that no single kind may use: one in this number, and at least one if there are two.
const SPARE_PART: usize = 4;

/// Maximum number of slots that no single kind may use. First polls of a few kinds need no more, and with many slots a
/// quarter would prolong the cycle of a large fleet by a third.
const MAX_SPARE: usize = 4;

/// Fraction of the slots that all optional collectors together may use: one in this number.
const OPTIONAL_PART: usize = 4;

/// Slots used by a kind of resource, and whether it waits for more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    /// Running polls.
    pub(super) held: usize,
    /// Whether a poll is due and not running.
    pub(super) is_waiting: bool,
    /// Whether it is polled at all.
    pub(super) is_enabled: bool,
    /// Whether it was the last to use a slot.
    pub(super) is_last: bool,
}

/// Returns whether a kind may use another of `slots` slots, if at least one is free, given the `others`.
pub(super) fn admits(own: Load, mut others: impl Iterator<Item = Load> + Clone, slots: usize) -> bool {
    let is_contender = |load: &Load| load.held > 0 || load.is_waiting;
    let contenders = others.clone().chain([own]).filter(is_contender).count().max(1);
    let share = (slots / contenders).max(1);
    let held = others.clone().map(|load| load.held).sum::<usize>() + own.held;
    let is_idle_somewhere = others.clone().any(|load| load.is_enabled && load.held == 0);
    if is_idle_somewhere && own.held > 0 && slots.saturating_sub(held) <= spare(slots) {
        return false;
    }
    let is_turn_of_another = slots == 1 && own.is_last && others.clone().any(|load| load.is_waiting);
    if is_turn_of_another {
        return false;
    }
    let is_kept_waiting = others.any(|load| load.is_waiting && load.held < share);
    own.held
        < if is_kept_waiting {
            share
        } else {
            most_of_one_kind(slots)
        }
}

/// Returns the maximum number of slots for all optional collectors together, so that other polls do not wait for
/// theirs.
pub(super) fn max_optional(slots: usize) -> usize {
    (slots / OPTIONAL_PART).max(1)
}

/// Returns the maximum number of slots for one kind.
fn most_of_one_kind(slots: usize) -> usize {
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

    /// A kind of resource: how long its polls take, and how often one becomes due.
    struct Kind {
        takes: u64,
        every: u64,
    }

    /// Results of a simulation for one kind.
    #[derive(Clone, Default)]
    struct Seen {
        most: usize,
        started: usize,
        longest_wait: u64,
    }

    /// Simulates polls of these kinds, second by second. Of the admitted polls, the one that has waited longest starts.
    fn simulate(slots: usize, seconds: u64, kinds: &[Kind]) -> Vec<Seen> {
        let mut due: Vec<Vec<u64>> = kinds.iter().map(|_| Vec::new()).collect();
        let mut ends: Vec<Vec<u64>> = due.clone();
        let mut seen = vec![Seen::default(); kinds.len()];
        let mut last = None;
        for now in 0..seconds {
            for (kind, what) in kinds.iter().enumerate() {
                ends[kind].retain(|end| *end > now);
                if now % what.every == 0 {
                    due[kind].push(now);
                }
            }
            while ends.iter().map(Vec::len).sum::<usize>() < slots {
                let loads: Vec<Load> = std::iter::zip(&due, &ends)
                    .enumerate()
                    .map(|(kind, (due, ends))| Load {
                        held: ends.len(),
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
                ends[kind].push(now + kinds[kind].takes);
                seen[kind].started += 1;
                seen[kind].most = seen[kind].most.max(ends[kind].len());
                seen[kind].longest_wait = seen[kind].longest_wait.max(now - since);
            }
        }
        seen
    }

    #[test]
    fn hanging_kind_leaves_slots_to_others_immediately() {
        // Polls of this kind are always due, and each uses its slot for a hundred seconds.
        let hanging = || Kind { takes: 100, every: 1 };
        for slots in 2..=64 {
            let seen = simulate(slots, 2_000, &[hanging(), Kind { takes: 1, every: 7 }]);
            assert_eq!(seen[0].most, most_of_one_kind(slots), "{slots}");
            assert!(seen[0].most < slots, "{slots}");
            assert_eq!(seen[1].longest_wait, 0, "{slots}");
        }
    }

    #[test]
    fn kind_uses_an_equal_share_while_others_wait() {
        let busy = || Kind { takes: 10, every: 1 };
        let loads = |held: [usize; 2]| {
            held.map(|held| Load {
                held,
                is_waiting: true,
                is_enabled: true,
                is_last: false,
            })
        };
        assert!(admits_kind(&loads([3, 4]), 0, 8) && !admits_kind(&loads([3, 4]), 1, 8));
        assert!(!admits_kind(&loads([4, 3]), 0, 8));
        let seen = simulate(8, 10_000, &[busy(), busy()]);
        assert!(seen[0].started.abs_diff(seen[1].started) <= 8);
    }

    #[test]
    fn kinds_do_not_starve_with_few_slots() {
        for slots in [1, 2, 3, 5, 8] {
            let kinds: Vec<Kind> = (0..6)
                .map(|kind| Kind {
                    takes: 1 + kind,
                    every: 1,
                })
                .collect();
            let seen = simulate(slots, 10_000, &kinds);
            assert!(seen.iter().all(|seen| seen.started >= 100), "{slots}");
        }
    }

    #[test]
    fn two_hanging_kinds_leave_slots_to_others() {
        let hanging = || Kind { takes: 100, every: 1 };
        for slots in 8..=64 {
            let seen = simulate(slots, 2_000, &[hanging(), hanging(), Kind { takes: 1, every: 7 }]);
            assert_eq!(seen[2].longest_wait, 0, "{slots}");
        }
    }

    #[test]
    fn single_slot_is_used_in_turns() {
        let seen = simulate(1, 1_000, &[Kind { takes: 5, every: 1 }, Kind { takes: 1, every: 20 }]);
        assert!(seen[1].longest_wait <= 5, "{}", seen[1].longest_wait);
    }

    #[test]
    fn single_slot_is_shared_by_all_kinds() {
        assert!(admits_kind(&[Load::default()], 0, 1));
        assert_eq!([1, 2, 3, 4, 8, 256].map(most_of_one_kind), [1, 1, 2, 3, 6, 252]);
    }
}
