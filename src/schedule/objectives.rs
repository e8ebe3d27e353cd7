//! Handles RPO overrides that end while the exporter runs. When an override ends, records are rendered again, even if
//! no poll succeeds.

use tracing::info;

use super::{Scheduler, wall_clock};

impl Scheduler {
    /// Updates the time at which the next override ends.
    pub(super) fn update_next_override_end(&mut self) {
        self.next_override_end = self.config.settings.rpo.next_end(wall_clock());
    }

    /// Renders the records of all customers again if an override has ended.
    pub(super) fn handle_override_end(&mut self) {
        let now = wall_clock();
        let Some(until) = self.next_override_end.filter(|end| *end <= now) else {
            return;
        };
        info!(
            until = until.to_calendar().map(tracing::field::display),
            "entry in rpo.overrides has expired and no longer applies"
        );
        self.store
            .render_anew(&self.store.customers(), &self.config.settings, now);
        self.update_next_override_end();
        // The patterns of an override that has ended no longer need to match anything.
        self.check_patterns();
    }
}
