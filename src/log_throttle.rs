//! Limits repeated log lines. The first line is logged immediately, and repetitions are logged after increasingly long
//! pauses.

use std::collections::HashMap;
use std::time::Duration;

/// Pause after the first line of a kind. Each later pause is twice as long as the one before it, up to [`MAX_PAUSE`].
const INITIAL_PAUSE: Duration = Duration::from_secs(60);

/// Longest pause: in a long outage, a line of each kind is logged once an hour.
const MAX_PAUSE: Duration = Duration::from_secs(3600);

/// Time at which each kind of failure may be logged again, by collector and reason. The map stays small, because there
/// are few collectors and reasons.
#[derive(Debug, Default)]
pub(crate) struct LogThrottle(HashMap<(&'static str, &'static str), Entry>);

#[derive(Debug)]
struct Entry {
    next: Duration,
    pause: Duration,
    suppressed: u64,
}

impl LogThrottle {
    /// Permits a log line, and returns the number of lines suppressed since the last permitted line. Returns `None`
    /// during a pause.
    pub(crate) fn permit(&mut self, collector: &'static str, reason: &'static str, now: Duration) -> Option<u64> {
        let entry = self.0.entry((collector, reason)).or_insert(Entry {
            next: now,
            pause: INITIAL_PAUSE,
            suppressed: 0,
        });
        if now < entry.next {
            entry.suppressed += 1;
            return None;
        }
        entry.next = now.saturating_add(entry.pause);
        entry.pause = (entry.pause * 2).min(MAX_PAUSE);
        Some(std::mem::take(&mut entry.suppressed))
    }

    /// Halves the next pause for each reason of a collector, but not below [`INITIAL_PAUSE`]. Current pauses are not
    /// shortened. Called after a target of the collector has recovered.
    pub(crate) fn relax(&mut self, collector: &'static str) {
        for ((name, _), entry) in &mut self.0 {
            if *name == collector {
                entry.pause = INITIAL_PAUSE.max(entry.pause / 2);
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
            if let Some(suppressed) = log_throttle.permit("jobs", "timeout", Duration::from_secs(second)) {
                logged.push((second, suppressed));
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
            log_throttle.permit("jobs", "dns", Duration::from_secs(1)),
            Some(0),
            "another reason is logged immediately"
        );
    }
}
