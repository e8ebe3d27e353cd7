//! Overrides of objectives that end while the exporter runs: their modules are rendered again at that time, even if no
//! poll succeeds.

use tracing::info;

use super::{Scheduler, wall_clock};

impl Scheduler {
    /// Stores the time when the next override ends.
    pub(super) fn note_next_end(&mut self) {
        self.next_end = self.config.settings.rpo.next_end(wall_clock());
    }

    /// Renders all customers again when an override has ended. It then no longer applies.
    pub(super) fn end_overrides(&mut self) {
        let now = wall_clock();
        let Some(until) = self.next_end.filter(|end| *end <= now) else {
            return;
        };
        info!(
            until = until.to_calendar().map(tracing::field::display),
            "an entry of rpo.overrides has ended"
        );
        self.store
            .render_anew(&self.store.customers(), &self.config.settings, now);
        self.note_next_end();
        // Its patterns are no longer reported if they match nothing.
        self.check_patterns();
    }
}
