use super::*;

fn text_of(mut renderer: Renderer) -> String {
    let mut text = Vec::new();
    while let Some(frame) = renderer.next_frame() {
        text.extend(frame);
    }
    String::from_utf8(text).unwrap()
}

#[derive(Debug)]
struct Records(Vec<(Table, i64)>);

impl Block for Records {
    fn record(&self, position: usize) -> Option<RecordView<'_>> {
        let (table, good_at) = self.0.get(position)?;
        Some(RecordView {
            tables: std::slice::from_ref(table),
            good_at: Some(Timestamp::from_unix_seconds(*good_at)),
        })
    }
}

const NOW: i64 = 1_800_000_000;
const STALE_AFTER: Duration = Duration::from_secs(60);

fn snapshot_of(blocks: Vec<Records>) -> Snapshot {
    let blocks = blocks.into_iter().map(|block| Arc::new(block) as Arc<dyn Block>);
    Snapshot {
        groups: vec![Group {
            blocks: blocks.collect(),
            stale_after: STALE_AFTER,
        }],
        now: Timestamp::from_unix_seconds(NOW),
    }
}

fn snapshot(second_good_at: i64) -> Snapshot {
    let first = Table::single(&[("customer_id", "a")], &[Some(2.0), Some(1.5), None]);
    let second = Table::single(&[("customer_id", "b")], &[Some(3.0), Some(1e21), Some(7.0)]);
    snapshot_of(vec![
        Records(vec![(first, NOW - 60)]),
        Records(Vec::new()),
        Records(vec![(second, second_good_at)]),
    ])
}

fn source(column: usize) -> Source {
    Source {
        group: 0,
        shape: 0,
        column,
    }
}

fn all() -> Arc<[Family]> {
    families([
        (Metric::gauge("elements_now", "Now"), source(0)),
        (Metric::timestamp("elements_then_timestamp_seconds", "Then"), source(1)),
        (Metric::counter("elements_runs_total", "Runs"), source(2)),
        (Metric::info("elements_x_info", "X"), source(0)),
    ])
    .into()
}

#[test]
fn stale_records_expose_only_dated_facts() {
    let text = text_of(Renderer::new(
        all(),
        snapshot(NOW - 61),
        Filter::default(),
        Format::Text,
    ));
    assert_eq!(
        text,
        "# HELP elements_now Now.\n# TYPE elements_now gauge\n\
             elements_now{customer_id=\"a\"} 2\n\
             # HELP elements_then_timestamp_seconds Then.\n# TYPE elements_then_timestamp_seconds gauge\n\
             elements_then_timestamp_seconds{customer_id=\"a\"} 1.5\n\
             elements_then_timestamp_seconds{customer_id=\"b\"} 1000000000000000000000\n\
             # HELP elements_x_info X.\n# TYPE elements_x_info gauge\n\
             elements_x_info{customer_id=\"a\"} 2\nelements_x_info{customer_id=\"b\"} 3\n"
    );
}

#[test]
fn openmetrics_names_families_without_their_suffix() {
    let text = text_of(Renderer::new(
        all(),
        snapshot(NOW),
        Filter::default(),
        Format::OpenMetrics,
    ));
    assert!(text.contains("# TYPE elements_runs counter\nelements_runs_total{customer_id=\"b\"} 7\n"));
    assert!(text.contains("# TYPE elements_x info\nelements_x_info{customer_id=\"a\"} 2\n"));
}

#[test]
fn concatenated_frames_are_the_whole_text() {
    let rows = 20_000;
    let record = |n: usize| {
        (
            Table::single(&[("customer_id", &n.to_string())], &[Some(n as f64)]),
            NOW,
        )
    };
    let blocks = (0..rows / 10).map(|block| Records((block * 10..block * 10 + 10).map(record).collect()));
    let snapshot = snapshot_of(blocks.collect());
    let families: Arc<[Family]> = families([(Metric::gauge("elements_now", "Now"), source(0))]).into();
    let mut renderer = Renderer::new(families, snapshot, Filter::default(), Format::Text);
    let mut frames = Vec::new();
    while let Some(frame) = renderer.next_frame() {
        assert!(frame.len() < FRAME_BYTES + FRAME_SLACK);
        frames.push(frame);
    }
    assert!(frames.len() > 1);
    let text = String::from_utf8(frames.concat()).unwrap();
    assert_eq!(
        text.lines().filter(|line| line.starts_with("elements_now{")).count(),
        rows
    );
    assert_eq!(text.matches("# TYPE").count(), 1);
}

#[test]
fn changed_record_changes_only_its_frame() {
    let rows = 20_000;
    let frames = |changed: Option<usize>| {
        let record = |n: usize| {
            let value = if changed == Some(n) { 1e12 } else { 1.0 };
            (Table::single(&[("customer_id", &n.to_string())], &[Some(value)]), NOW)
        };
        let blocks = (0..rows / 50).map(|block| Records((block * 50..block * 50 + 50).map(record).collect()));
        let families: Arc<[Family]> = families([(Metric::gauge("elements_now", "Now"), source(0))]).into();
        let mut renderer = Renderer::new(families, snapshot_of(blocks.collect()), Filter::default(), Format::Text);
        std::iter::from_fn(move || renderer.next_frame()).collect::<Vec<_>>()
    };
    let before = frames(None);
    assert!(before.len() > 5);
    for changed in [0, rows / 2, rows - 1] {
        let after = frames(Some(changed));
        assert_eq!(after.len(), before.len());
        assert_eq!(
            after
                .iter()
                .zip(&before)
                .filter(|(after, before)| after != before)
                .count(),
            1
        );
    }
}

#[test]
fn text_is_constant_until_the_first_record_is_stale() {
    let until = |second| snapshot(second).valid_until();
    assert_eq!(until(NOW - 30), Some(Timestamp::from_unix_seconds(NOW)));
    let later = snapshot_of(vec![Records(vec![
        (Table::default(), NOW - 90),
        (Table::default(), NOW - 10),
    ])]);
    assert_eq!(later.valid_until(), Some(Timestamp::from_unix_seconds(NOW + 50)));
    assert_eq!(snapshot_of(Vec::new()).valid_until(), None);
}

#[test]
fn values_are_the_shortest_that_parse_to_the_same_number() {
    let written = |value| {
        let mut text = Vec::new();
        write_value(&mut text, value);
        String::from_utf8(text).unwrap()
    };
    for value in [
        0.0,
        -1.0,
        1e15,
        9_007_199_254_740_991.0,
        9_007_199_254_740_992.0,
        1e21,
        0.1,
        -2.5,
        1e-7,
        f64::MAX,
    ] {
        assert_eq!(written(value), format!("{value}"), "{value}");
    }
    assert_eq!(written(-0.0), "0");
}

#[test]
fn families_with_the_same_name_are_merged() {
    let joined = families([
        (Metric::gauge("elements_t", "T"), source(0)),
        (Metric::gauge("elements_t", "T"), source(1)),
    ]);
    assert_eq!(joined.len(), 1);
    assert_eq!(joined[0].sources.len(), 2);
}
