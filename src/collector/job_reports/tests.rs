use super::*;

fn runs(runs: &[(&'static str, Option<&str>)]) -> Vec<ReportableRun> {
    let reported = |(module, run): &(&'static str, Option<&str>)| ReportableRun {
        key: ModuleKey {
            service: Cow::Borrowed("Microsoft 365"),
            module: Cow::Borrowed(module),
            scope: None,
        },
        run: run.map(Box::from),
        started: None,
    };
    runs.iter().map(reported).collect()
}

async fn poll(
    modules: &mut Vec<ModuleReport>,
    listed: &[(&'static str, Option<&str>)],
    status: u16,
) -> Result<(Option<Failure>, usize), Failure> {
    // `status` is the response status for runs whose ids start with "bad".
    update_reports(modules, runs(listed), |id| {
        let response = match (id.starts_with("bad"), status) {
            (false, _) => Ok((Some(Report::default()), 0)),
            (true, 204) => Ok((None, 0)),
            (true, status) => Err(Error::Status(status).at(Endpoint::JobReport)),
        };
        std::future::ready(response)
    })
    .await
}

fn reports(modules: &[ModuleReport]) -> Vec<(bool, u32)> {
    let summary = |module: &ModuleReport| (module.report.is_some(), module.tries);
    modules.iter().map(summary).collect()
}

#[tokio::test]
async fn missing_report_is_requested_three_times() {
    for status in [204, 400, 403, 404] {
        let mut modules = Vec::new();
        for tries in [1, 2, 3, 3] {
            let listed = [("a", Some("bad")), ("b", Some("good"))];
            poll(&mut modules, &listed, status).await.expect("a response");
            assert_eq!(reports(&modules), [(false, tries), (true, 0)], "{status}");
        }
        poll(&mut modules, &[("a", Some("good"))], status)
            .await
            .expect("a response");
        assert_eq!(reports(&modules), [(true, 0)]);
        let refused = poll(&mut modules, &[("a", Some("bad"))], 403).await;
        assert!(refused.is_ok(), "the module had a report before");
    }
    assert!(poll(&mut Vec::new(), &[("a", Some("bad"))], 403).await.is_err());
}

#[tokio::test]
async fn runs_with_the_same_id_have_separate_reports() {
    let at = |start: i64| {
        let mut listed = runs(&[("a", Some("good"))]);
        listed[0].started = Some(Timestamp::from_unix_seconds(start));
        listed
    };
    let mut modules = Vec::new();
    let mut requests = Vec::new();
    for start in [1, 1, 2, 2] {
        let count = std::cell::Cell::new(0);
        let respond = |_| {
            count.set(count.get() + 1);
            std::future::ready(Ok((Some(Report::default()), 0)))
        };
        update_reports(&mut modules, at(start), respond)
            .await
            .expect("a response");
        requests.push(count.get());
    }
    assert_eq!(requests, [1, 0, 1, 0]);
}

#[tokio::test]
async fn report_is_not_requested_after_too_many_failures() {
    let mut modules = Vec::new();
    let listed = [("a", Some("bad"))];
    let mut failures = 0;
    for _ in 0..2 * MAX_FAILED_TRIES {
        let (failure, _) = poll(&mut modules, &listed, 500).await.expect("a response");
        failures += u32::from(failure.is_some());
    }
    assert_eq!(failures, MAX_FAILED_TRIES);
    assert_eq!(reports(&modules), [(false, MAX_FAILED_TRIES)]);
    // Server errors do not count towards the limit for missing reports.
    let mut modules = Vec::new();
    poll(&mut modules, &listed, 500).await.expect("a response");
    for tries in [2, 3, 4, 4] {
        poll(&mut modules, &listed, 404).await.expect("a response");
        assert_eq!(reports(&modules), [(false, tries)]);
    }
}

#[test]
fn module_excluded_by_the_settings_has_no_series() {
    let module = |module: &'static str| ModuleReport {
        key: ModuleKey {
            service: Cow::Borrowed("Microsoft 365"),
            module: Cow::Borrowed(module),
            scope: None,
        },
        run_key: RunKey::new(Some("1"), None, None),
        started: None,
        tries: 0,
        failed: 0,
        report: Some(Report {
            objects: None,
            errors: vec![("E".to_owned(), 1)],
        }),
    };
    let record = vec![module("OneDrive"), module("Exchange Online")];
    let customer = CustomerId::parse("c").expect("an id");
    let samples = |job_modules: Vec<u16>| {
        let settings = crate::collector::CollectorSettings {
            job_modules,
            ..Default::default()
        };
        let now = Timestamp::from_unix_seconds(1_000_000);
        let context = Context::new(now, std::sync::Arc::new(settings), std::sync::Arc::from(""));
        let descriptor = crate::collector::CollectorDescriptor::of::<JobReports>();
        let rendered = descriptor.render(std::sync::Arc::new(record.clone()), &customer, &context);
        rendered.map(|(rendered, _)| rendered.samples()).expect("a record")
    };
    assert_eq!([samples(vec![]), samples(vec![305]), samples(vec![302])], [2, 1, 0]);
}

#[tokio::test]
async fn failing_report_does_not_stop_others() {
    let mut modules = Vec::new();
    let listed = [("a", Some("bad")), ("b", Some("good"))];
    let (failure, _) = poll(&mut modules, &listed, 500).await.expect("a response");
    assert!(failure.is_some());
    assert_eq!(reports(&modules), [(false, 1), (true, 0)]);
}

#[tokio::test]
async fn report_is_removed_when_a_newer_run_has_ended() {
    for (newer, status) in [(None, 0), (Some("bad"), 404), (Some("bad"), 500)] {
        let mut modules = Vec::new();
        poll(&mut modules, &[("a", Some("good"))], 0).await.expect("a response");
        poll(&mut modules, &[("a", newer)], status).await.expect("a response");
        assert!(modules.iter().all(|module| module.report.is_none()), "{newer:?}");
    }
}

#[test]
fn error_code_without_visible_characters_is_ignored() {
    let health = crate::health::Health::default();
    let label_of = |code: &str| {
        let row = serde_json::json!({"errorCode": code, "comment": "Mailbox locked"});
        let row = serde_json::value::to_raw_value(&row).unwrap();
        error_label(&Row::read(&row, Endpoint::JobReport, &health).unwrap())
    };
    assert_eq!(label_of("\u{200b}\u{feff} \u{2060}"), "Mailbox locked");
    assert_eq!(label_of("\u{feff}E_LOCKED"), "E_LOCKED");
    assert_eq!(label_of(""), "Mailbox locked");
}
