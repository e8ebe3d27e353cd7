//! Limits repeated log lines: the first is logged at once, repetitions after growing pauses.

use std::collections::HashMap;
use std::time::Duration;

/// Pause after the first line of a kind; each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(60);

/// Longest pause. A lasting outage is logged once an hour.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// Time at which each kind of failure may be logged again, by collector and reason, both of which are bounded.
#[derive(Debug, Default)]
pub(crate) struct LogThrottle(HashMap<(&'static str, &'static str), Entry>);

#[derive(Debug)]
struct Entry {
    next: Duration,
    pause: Duration,
    silent: u64,
}

impl LogThrottle {
    /// Returns how many failures were not logged since the last line; `None` while the pause lasts.
    pub(crate) fn raise(&mut self, collector: &'static str, reason: &'static str, now: Duration) -> Option<u64> {
        let entry = self.0.entry((collector, reason)).or_insert(Entry {
            next: now,
            pause: FIRST_PAUSE,
            silent: 0,
        });
        if now < entry.next {
            entry.silent += 1;
            return None;
        }
        entry.next = now.saturating_add(entry.pause);
        entry.pause = (entry.pause * 2).min(LONGEST_PAUSE);
        Some(std::mem::take(&mut entry.silent))
    }

    /// Halves the pauses of a collector after one of its targets recovered. Targets that still fail stay quiet for
    /// their pause.
    pub(crate) fn settle(&mut self, collector: &'static str) {
        for ((name, _), entry) in &mut self.0 {
            if *name == collector {
                entry.pause = FIRST_PAUSE.max(entry.pause / 2);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_line_is_logged_and_others_are_counted() {
        let mut log_throttle = LogThrottle::default();
        let mut logged = Vec::new();
        for second in 0..7200 {
            if let Some(silent) = log_throttle.raise("jobs", "timeout", Duration::from_secs(second)) {
                logged.push((second, silent));
            }
        }
        let expected = [
            (0, 0),
            (60, 59),
            (180, 119),
            (420, 239),
            (900, 479),
            (1860, 959),
            (3780, 1919),
        ];
        assert_eq!(logged, expected);
        assert_eq!(
            log_throttle.raise("jobs", "dns", Duration::from_secs(1)),
            Some(0),
            "another reason is news"
        );
    }
}
