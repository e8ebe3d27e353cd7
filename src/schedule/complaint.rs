//! What failed is said at once and then less and less often: a log that repeats itself hides what is new.

use std::collections::HashMap;
use std::time::Duration;

use super::queue::Moment;

/// The pause after the first line about a thing; each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(60);

/// The longest pause. Once an hour, an outage that goes on is worth a line.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// What is being complained about, by collector and reason. Both are bounded, so this is.
#[derive(Debug, Default)]
pub(super) struct Complaints(HashMap<(&'static str, &'static str), Complaint>);

#[derive(Debug)]
struct Complaint {
    next: Moment,
    pause: Duration,
    silent: u64,
}

impl Complaints {
    /// Whether to say it now, and if so how often it happened since it was last said.
    pub(super) fn raise(&mut self, collector: &'static str, reason: &'static str, now: Moment) -> Option<u64> {
        let complaint = self.0.entry((collector, reason)).or_insert(Complaint {
            next: now,
            pause: FIRST_PAUSE,
            silent: 0,
        });
        if now < complaint.next {
            complaint.silent += 1;
            return None;
        }
        complaint.next = now.saturating_add(complaint.pause);
        complaint.pause = (complaint.pause * 2).min(LONGEST_PAUSE);
        Some(std::mem::take(&mut complaint.silent))
    }

    /// A target of the collector recovered: pauses stop growing, but what is still failing stays quiet for its pause.
    pub(super) fn settle(&mut self, collector: &'static str) {
        for ((complained, _), complaint) in &mut self.0 {
            if *complained == collector {
                complaint.pause = FIRST_PAUSE.max(complaint.pause / 2);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_said_and_the_rest_counted_with_a_growing_pause() {
        let mut complaints = Complaints::default();
        let mut said = Vec::new();
        for second in 0..7200 {
            if let Some(silent) = complaints.raise("jobs", "timeout", Duration::from_secs(second)) {
                said.push((second, silent));
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
        assert_eq!(said, expected);
        assert_eq!(
            complaints.raise("jobs", "dns", Duration::from_secs(1)),
            Some(0),
            "another reason is news"
        );
    }
}
