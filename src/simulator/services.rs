//! Tenant data other than backups: seats, users, consent, signs of ransomware, and baselines. This file also contains
//! job reports.

use std::collections::BTreeMap;

use super::rng::SeededRng;
use super::run::{Run, status};

/// Object types for which signs of ransomware are counted.
pub(crate) const SIGN_TYPES: [&str; 4] = ["teams", "sharePointSites", "oneDrives", "groups"];

/// Signs of ransomware, worst first.
pub(crate) const SIGNS: [&str; 3] = [
    "UnderPotentialRansomwareAttack",
    "WithUnusualActivities",
    "WithSuspiciousObjects",
];

/// Maximum number of rows with the same status in a report: enough for several pages, but few enough for a fast test.
const MAX_REPORT_ROWS: u64 = 50_000;

/// A tenant's data other than backups.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Services {
    /// Seats, by the number of the tenant type.
    pub seats: BTreeMap<u16, Seats>,
    /// Number of users.
    pub users: u64,
    /// Number of users with an unprotected mailbox, and number of users with an unprotected OneDrive.
    pub unprotected: [u64; 2],
    /// Products whose apps require consent. If consent was withdrawn, the value is the Unix time of the withdrawal.
    pub consent: BTreeMap<String, Option<i64>>,
    /// Number of objects by object type and sign of ransomware; `None` if the tenant has no ransomware detection.
    pub signs: Option<[[u64; 3]; 4]>,
    /// State of the baselines, if any.
    pub baseline: Option<Baseline>,
}

impl Services {
    /// Returns data in which every field has a value.
    pub(crate) fn some() -> Self {
        let seats = Seats {
            assigned: 9,
            available: 10,
        };
        Self {
            seats: BTreeMap::from([(0, seats)]),
            users: 9,
            unprotected: [0, 1],
            consent: BTreeMap::from([("Office365Backup".to_owned(), None)]),
            signs: Some([[0, 0, 1], [0; 3], [0; 3], [0; 3]]),
            baseline: Some(Baseline {
                status: 19,
                drifts: 1,
                drifted: Some(1_757_560_876),
                deployed: Some(1_756_706_400),
            }),
        }
    }
}

/// Seats of a tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seats {
    /// Assigned seats.
    pub assigned: i64,
    /// Available seats, including assigned seats.
    pub available: i64,
}

/// State of a tenant's baselines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Baseline {
    /// Number of the status in the reference.
    pub status: i64,
    /// Number of detected drifts.
    pub drifts: i64,
    /// Unix time of the latest drift.
    pub drifted: Option<i64>,
    /// Unix time of the latest deployment of the baselines.
    pub deployed: Option<i64>,
}

/// A row of a job's report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReportRow {
    pub(crate) title: String,
    /// Number of the status in the reference.
    pub(crate) status: i64,
    pub(crate) error_code: &'static str,
    pub(crate) comment: String,
}

const SUCCESS: i64 = 0;
const FAILED: i64 = 1;
const SKIPPED: i64 = 2;
const WARNING: i64 = 4;

/// Returns the rows of a run's objects, failed objects first. If the run failed before it processed any objects,
/// returns one row with the reason.
pub(crate) fn report(run: &Run, domain: &str, has_consent: bool) -> Vec<ReportRow> {
    let mut rng = SeededRng::from_path(&[run
        .id
        .bytes()
        .fold(0, |sum, byte| sum << 5 ^ u64::from(byte) ^ sum >> 3)]);
    let mut rows = Vec::new();
    let counts = [
        (FAILED, run.failed.max(u64::from(run.status == status::FAILED))),
        (WARNING, run.warning),
        (SKIPPED, run.skipped),
        (SUCCESS, run.successful),
    ];
    for (status, count) in counts {
        for nth in 0..count.min(MAX_REPORT_ROWS) {
            let title = format!("user{nth}@{domain}");
            let (error_code, comment) = match status {
                FAILED if !has_consent => ("", without_consent(domain)),
                FAILED | WARNING => problem(&mut rng, &title, domain),
                SKIPPED => ("", "The object has not changed since the last backup.".to_owned()),
                _ => ("", String::new()),
            };
            rows.push(ReportRow {
                title,
                status,
                error_code,
                comment,
            });
        }
    }
    rows
}

fn without_consent(domain: &str) -> String {
    format!(
        "Consent to the app \"AvePoint Cloud Backup for Microsoft 365\" was withdrawn in {domain}. AADSTS65001: the \
         administrator has not consented to use the application."
    )
}

fn problem(rng: &mut SeededRng, title: &str, domain: &str) -> (&'static str, String) {
    match rng.below(10) {
        0..5 => (
            "",
            format!("The request for https://graph.microsoft.com/v1.0/users/{title} failed: 429 Too Many Requests"),
        ),
        5..8 => ("ErrorMailboxStoreUnavailable", String::new()),
        8 => ("", format!("The site \"Projects of {domain}\" is locked.")),
        _ => ("", format!("The mailbox {title} does not exist or has no licence.")),
    }
}
