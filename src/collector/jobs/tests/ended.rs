//! Tests of newly completed runs and of stored runs.

use super::*;

impl Customer {
    /// Returns the ids of the newly completed runs in a list.
    async fn ended(&mut self, now: i64, rows: &[Value]) -> Vec<String> {
        self.list(now, rows).await;
        let ids = self
            .ended
            .iter()
            .map(|ended| ended.run.id.as_deref().unwrap_or("none").to_owned());
        ids.collect()
    }

    /// Saves and restores the record, as a restart with a state file does.
    fn restarted(self) -> Self {
        let saved = serde_json::to_string(self.record.as_ref().unwrap()).unwrap();
        Self {
            record: Some(serde_json::from_str(&saved).unwrap()),
            ..self
        }
    }

    /// Restores the record as an older version, which stored no trails, would have saved it.
    fn upgraded(self) -> Self {
        let mut saved = serde_json::to_value(self.record.as_ref().unwrap()).unwrap();
        saved.as_object_mut().unwrap().remove("listed_at");
        for module in saved["modules"].as_array_mut().unwrap() {
            module["history"].as_object_mut().unwrap().remove("trail").unwrap();
        }
        Self {
            record: Some(serde_json::from_value(saved).unwrap()),
            ..self
        }
    }

    fn stored_runs(&self) -> Vec<ModuleRuns> {
        past_runs(self.record.as_ref().unwrap(), &self.settings)
    }
}

fn ended_at(end: i64, generation: Generation) -> Value {
    Kind::Failed.row(end + HOUR / 2, generation)
}

fn id(end: i64) -> String {
    format!("IB{}", end - HOUR / 2)
}

fn of_module(mut row: Value, module: i64) -> Value {
    row["jobModule"] = json!(module);
    row
}

#[tokio::test]
async fn run_completes_once() {
    for generation in [Generation::V1, Generation::V3] {
        let row = |end| ended_at(end, generation);
        let mut customer = Customer::default();
        let none: [String; 0] = [];
        assert_eq!(
            customer.ended(NOW, &[row(NOW - HOUR)]).await,
            none,
            "the run completed before the first poll"
        );
        let running = Kind::Running.row(NOW + HOUR, generation);
        assert_eq!(customer.ended(NOW + HOUR, &[running]).await, none);
        let both = [row(NOW + 2 * HOUR), row(NOW - HOUR)];
        assert_eq!(customer.ended(NOW + 2 * HOUR, &both).await, [id(NOW + 2 * HOUR)]);
        let CompletedRun { key, run } = &customer.ended[0];
        assert_eq!(
            (&*key.service, &*key.module, &key.scope),
            ("Microsoft 365", "Exchange Online", &None)
        );
        assert_eq!(
            (run.status, run.processed, run.failed, run.successful),
            (JobStatus::Failed, Some(3), Some(3), Some(0))
        );
        assert_eq!(run.end, Some(Timestamp::from_unix_seconds(NOW + 2 * HOUR)));
        assert_eq!(customer.ended(NOW + 3 * HOUR, &both).await, none);
        let mut corrected = both.clone();
        corrected[0]["failedCount"] = json!("1");
        corrected[0]["status"] = Kind::WithException.row(NOW, generation)["status"].clone();
        assert_eq!(customer.ended(NOW + 4 * HOUR, &corrected).await, none);
        let runs = &customer.stored_runs()[0].runs;
        let statuses: Vec<_> = runs.iter().map(|run| (run.status, run.failed)).collect();
        assert_eq!(
            statuses,
            [
                (JobStatus::FinishedWithException, Some(1)),
                (JobStatus::Failed, Some(3))
            ]
        );
        // Both runs completed while the exporter was down.
        let mut customer = customer.restarted();
        let week = NOW + 7 * DAY;
        let now = [row(week - DAY), row(week - 2 * DAY)];
        assert_eq!(customer.ended(week, &now).await, [id(week - DAY), id(week - 2 * DAY)]);
        assert_eq!(customer.ended(week + HOUR, &now).await, none);
        assert_eq!(customer.restarted().ended(week + HOUR, &now).await, none);
    }
}

#[tokio::test]
async fn runs_revealed_by_a_filter_change_are_not_newly_completed() {
    let row = |end| ended_at(end, Generation::V3);
    let mut customer = Customer::default();
    customer.list(NOW, &[row(NOW - HOUR)]).await;
    // `past`: the known run, an older run, and a run that was listed late. `new`: runs of two modules that are listed
    // for the first time. `since`: the next run of one of these modules.
    let past = [row(NOW - HOUR), row(NOW - 9 * DAY), row(NOW - 2 * HOUR)];
    let new = [305, 304].map(|module| of_module(row(NOW - 3 * HOUR + module), module));
    let since = of_module(row(NOW + HOUR), 304);
    let rows = [past.as_slice(), &new, &[since]].concat();
    let mut ended = customer.ended(NOW + 2 * HOUR, &rows).await;
    ended.sort();
    assert_eq!(ended, [id(NOW - 2 * HOUR), id(NOW + HOUR)]);
    let modules: Vec<_> = customer
        .stored_runs()
        .into_iter()
        .map(|module| (module.key.module, module.runs.len()))
        .collect();
    assert_eq!(modules.iter().map(|(_, runs)| runs).sum::<usize>(), 6, "{modules:?}");
}

#[tokio::test]
async fn trail_is_created_after_an_upgrade() {
    let row = |end| ended_at(end, Generation::V3);
    let mut customer = Customer::default();
    customer.list(NOW, &[row(NOW - HOUR)]).await;
    let mut customer = customer.upgraded();
    assert_eq!(customer.stored_runs(), []);
    let rows = [row(NOW + HOUR), row(NOW - HOUR)];
    assert_eq!(customer.ended(NOW + 2 * HOUR, &rows).await, [id(NOW + HOUR)]);
    assert_eq!(customer.stored_runs()[0].runs.len(), 2);
}

#[tokio::test]
async fn runs_of_a_removed_module_stay_stored() {
    let mut customer = Customer::default();
    customer.list(NOW, &[ended_at(NOW - HOUR, Generation::V3)]).await;
    customer.list(NOW + HOUR, &[]).await;
    assert_eq!(customer.stored_runs()[0].runs.len(), 1);
    customer.settings.job_modules = vec![305];
    assert_eq!(customer.stored_runs(), [], "the run must not be returned");
}
