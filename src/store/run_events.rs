//! Newly completed job runs that have not been logged yet.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use crate::collector::CompletedRun;
use crate::domain::CustomerId;
use crate::lock::lock;

/// Maximum number of runs that can wait to be logged, for example while the state cannot be saved. With ten thousand
/// customers, about this many runs complete per hour.
const MAX_WAITING: usize = 10_000;

/// A newly completed job run, and its customer.
#[derive(Clone, Debug, PartialEq)]
pub struct RunEvent {
    /// Id of the customer.
    pub customer: CustomerId,
    /// Name of the customer.
    pub organization: Arc<str>,
    /// The completed run, with its service, module and scope.
    pub ended: CompletedRun,
}

/// Job runs that are waiting to be logged, in the order in which they were polled.
#[derive(Debug, Default)]
pub struct RunEvents(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<RunEvent>,
    dropped: u64,
}

impl RunEvents {
    /// Adds runs. The records that contain them must be committed first.
    pub fn add(&self, events: impl IntoIterator<Item = RunEvent>) {
        let mut waiting = lock(&self.0);
        waiting.events.extend(events);
        waiting.drop_oldest();
    }

    /// Returns whether no runs are waiting.
    pub fn is_empty(&self) -> bool {
        let waiting = lock(&self.0);
        waiting.events.is_empty()
    }

    /// Removes and returns the waiting runs and the number of dropped runs. Any state saved after this call contains
    /// the returned runs.
    pub fn take(&self) -> (Vec<RunEvent>, u64) {
        let mut waiting = lock(&self.0);
        (waiting.events.drain(..).collect(), std::mem::take(&mut waiting.dropped))
    }

    /// Puts back runs that cannot be logged yet.
    pub fn put_back(&self, (events, dropped): (Vec<RunEvent>, u64)) {
        let mut waiting = lock(&self.0);
        for event in events.into_iter().rev() {
            waiting.events.push_front(event);
        }
        waiting.dropped += dropped;
        waiting.drop_oldest();
    }
}

impl Waiting {
    fn drop_oldest(&mut self) {
        let over = self.events.len().saturating_sub(MAX_WAITING);
        self.events.drain(..over);
        self.dropped += u64::try_from(over).unwrap_or(u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{JobStatus, ModuleKey, PastRun};

    fn event(id: usize) -> RunEvent {
        let run = PastRun {
            id: Some(id.to_string().into()),
            status: JobStatus::Finished,
            start: None,
            end: None,
            processed: None,
            successful: None,
            failed: None,
            skipped: None,
            warning: None,
        };
        RunEvent {
            customer: CustomerId::parse("caf94a75-2cc6-43aa-b04b-794c8baf5ea3").unwrap(),
            organization: Arc::from("Contoso"),
            ended: CompletedRun {
                key: ModuleKey {
                    service: "Microsoft 365".into(),
                    module: "OneDrive".into(),
                    scope: None,
                },
                run,
            },
        }
    }

    #[test]
    fn events_put_back_are_returned_first() {
        let events = RunEvents::default();
        events.add([event(1), event(2)]);
        let taken = events.take();
        assert!(events.is_empty());
        events.add([event(3)]);
        events.put_back(taken);
        assert_eq!(events.take(), (vec![event(1), event(2), event(3)], 0));
    }

    #[test]
    fn oldest_events_are_dropped_and_counted() {
        let events = RunEvents::default();
        events.add((0..MAX_WAITING).map(event));
        events.add([event(MAX_WAITING)]);
        let taken = events.take();
        assert_eq!((taken.0.len(), &taken.0[0], taken.1), (MAX_WAITING, &event(1), 1));
        events.add([event(0)]);
        events.put_back(taken);
        let (kept, dropped) = events.take();
        assert_eq!((kept.len(), dropped, kept.last()), (MAX_WAITING, 2, Some(&event(0))));
    }
}
