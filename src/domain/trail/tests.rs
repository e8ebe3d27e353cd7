use proptest::prelude::*;

use super::*;

/// Maximum average size of a run in bytes, for a module with daily runs that have ids in the vendor's format.
const MAX_BYTES_PER_RUN: usize = 45;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(seconds)
}

/// Returns the run of a day, with an id in the vendor's format.
fn run(day: u64) -> PastRun {
    let end = 1_790_000_000 + i64::try_from(day).unwrap() * 86_400;
    let noise = day.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    PastRun {
        id: Some(format!("EIB{noise:020}").into()),
        status: JobStatus::FinishedWithException,
        start: Some(at(end - 1800 - i64::try_from(noise % 3600).unwrap())),
        end: Some(at(end)),
        processed: Some(20_000 + noise % 1000),
        successful: Some(19_900 + noise % 1000),
        failed: Some(noise % 100),
        skipped: Some(noise % 7),
        warning: Some(0),
    }
}

#[test]
fn newest_runs_are_kept_newest_first() {
    let mut trail = Trail::default();
    for day in [3, 1, 2] {
        trail.add(vec![run(day)]);
    }
    assert_eq!(trail.runs(), [run(3), run(2), run(1)]);
    trail.add((4..40).map(run).collect());
    let newest: Vec<PastRun> = (20..40).rev().map(run).collect();
    assert_eq!(trail.runs(), newest);
    trail.add(vec![run(5)]);
    assert_eq!(trail.runs(), newest, "an older run must be ignored");
}

#[test]
fn corrected_run_replaces_the_previous_version() {
    let without_id = PastRun { id: None, ..run(1) };
    let undated = PastRun {
        start: None,
        end: None,
        ..run(2)
    };
    let mut trail = Trail::default();
    trail.add(vec![run(3), without_id.clone(), undated.clone()]);
    for known in [run(3), without_id, undated] {
        let corrected = PastRun {
            status: JobStatus::Failed,
            failed: None,
            ..known.clone()
        };
        trail.add(vec![corrected.clone()]);
        let runs = trail.runs();
        assert!(
            runs.len() == 3 && runs.contains(&corrected) && !runs.contains(&known),
            "{runs:?}"
        );
    }
}

#[test]
fn run_needs_few_bytes() {
    let mut trail = Trail::default();
    trail.add((0..20).map(run).collect());
    assert_eq!(trail.runs().len(), TRAIL_RUNS);
    let bytes = trail.0.len().div_ceil(TRAIL_RUNS);
    assert!(bytes <= MAX_BYTES_PER_RUN, "{bytes} bytes per run are too many");
    assert_eq!(size_of::<Trail>(), 16, "a trail must be as small as a boxed slice");
}

#[test]
fn trail_in_another_format_is_empty() {
    let mut trail = Trail::default();
    trail.add(vec![run(1), run(2)]);
    let saved = serde_json::to_string(&trail).unwrap();
    assert_eq!(serde_json::from_str::<Trail>(&saved).unwrap(), trail);
    for bytes in [
        &[2, 1][..],
        &[1, 0xff],
        &trail.0[..trail.0.len() - 1],
        &[1, 1, 2, 5, 1, 0x41],
    ] {
        let saved = serde_json::to_string(&BASE64_STANDARD.encode(bytes)).unwrap();
        assert!(serde_json::from_str::<Trail>(&saved).unwrap().is_empty(), "{bytes:?}");
    }
    assert!(serde_json::from_str::<Trail>("\"?\"").unwrap().is_empty());
}

fn any_run() -> impl Strategy<Value = PastRun> {
    let time = || proptest::option::of((315_532_800_i64..7_258_118_400).prop_map(at));
    let count = || proptest::option::of(any::<u64>());
    let id = proptest::option::of("[A-C]{0,3}\\PC{0,6}".prop_map(Box::from));
    let status = proptest::sample::select(JobStatus::ALL.to_vec());
    let counts = (count(), count(), count(), count(), count());
    (id, status, time(), time(), counts).prop_map(|(id, status, start, end, counts)| {
        let (processed, successful, failed, skipped, warning) = counts;
        PastRun {
            id,
            status,
            start,
            end,
            processed,
            successful,
            failed,
            skipped,
            warning,
        }
    })
}

proptest! {
    #[test]
    fn runs_are_packed_and_unpacked(runs in proptest::collection::vec(any_run(), 0..TRAIL_RUNS)) {
        prop_assert_eq!(packed::unpack(&packed::pack(&runs)), Some(runs));
    }

    #[test]
    fn invalid_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = packed::unpack(&bytes);
        let _ = packed::unpack(&[&[1], bytes.as_slice()].concat());
    }
}
