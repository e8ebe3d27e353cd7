//! The status of runs and scans.

use serde::{Deserialize, Serialize};

use super::super::{labelled, present};
use super::{number, without_separators};

labelled! {
    /// The status of a run or a scan. The label of a status is also its value in the state file.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    #[repr(i8)]
    pub enum JobStatus, label {
        /// No status.
        None = 0 => "none",
        /// In progress.
        Running = 1 => "running",
        /// Ended with a complete restore point; also called "Successful".
        Finished = 2 => "finished",
        /// Ended without a restore point.
        Failed = 3 => "failed",
        /// Ended with an incomplete restore point.
        FinishedWithException = 4 => "finished_with_exception",
        /// Ended without a backup, because there was nothing to do.
        Skipped = 5 => "skipped",
        /// Queued.
        Pending = 6 => "pending",
        /// Could not start.
        FailedToStart = 7 => "failed_to_start",
        /// Stopped by a user.
        Canceled = 8 => "canceled",
        /// Rejected.
        Rejected = 9 => "rejected",
        /// Stopped by a user or a program.
        Stopped = 10 => "stopped",
        /// Not scanned.
        NotScanned = 11 => "not_scanned",
        /// Switched off.
        Disabled = 12 => "disabled",
        /// Has not run.
        NotStarted = 13 => "not_started",
        /// Cannot run yet.
        WaitingForConfiguration = 14 => "waiting_for_configuration",
        /// A number or word that is not in the reference.
        Unknown = -1 => "unknown",
    }
}

impl JobStatus {
    /// Returns the status number from the reference; −1 for [`JobStatus::Unknown`].
    pub const fn code(self) -> i8 {
        self as i8
    }

    /// Returns the severity, which is different for every status. Of two rows for one run, the row with the higher
    /// severity applies, unless the run has ended only according to the other row.
    ///
    /// The order, from low to high, is: complete restore point, incomplete restore point, restore point still possible,
    /// no restore point, failure. A restore point therefore counts only if it is not contradicted by another row in
    /// which the run has ended. [`JobStatus::Unknown`] is below failures, because an unknown status is not necessarily
    /// a failure and must not hide one.
    pub const fn severity(self) -> u8 {
        match self {
            Self::Finished => 0,
            Self::FinishedWithException => 1,
            Self::Running => 2,
            Self::Pending => 3,
            Self::NotStarted => 4,
            Self::Skipped => 5,
            Self::NotScanned => 6,
            Self::None => 7,
            Self::WaitingForConfiguration => 8,
            Self::Disabled => 9,
            Self::Unknown => 10,
            Self::Stopped => 11,
            Self::Canceled => 12,
            Self::Rejected => 13,
            Self::FailedToStart => 14,
            Self::Failed => 15,
        }
    }

    /// Returns whether a run with this status has ended. An unknown status counts as ended only if there is an end
    /// time.
    pub const fn has_ended(self, has_end_time: bool) -> bool {
        match self {
            Self::Finished
            | Self::Failed
            | Self::FinishedWithException
            | Self::Skipped
            | Self::FailedToStart
            | Self::Canceled
            | Self::Rejected
            | Self::Stopped => true,
            Self::Unknown => has_end_time,
            Self::None
            | Self::Running
            | Self::Pending
            | Self::NotScanned
            | Self::Disabled
            | Self::NotStarted
            | Self::WaitingForConfiguration => false,
        }
    }

    /// Returns whether the run was completely successful.
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Finished)
    }

    /// Returns whether the run created a restore point.
    pub const fn is_restore_point(self) -> bool {
        matches!(self, Self::Finished | Self::FinishedWithException)
    }

    /// Returns whether the run ended without a restore point and was not skipped.
    pub const fn counts_as_failure(self, has_end_time: bool) -> bool {
        self.has_ended(has_end_time) && !self.is_restore_point() && !matches!(self, Self::Skipped)
    }

    /// Returns the status for a word in lower case without separators; `None` if the word is not in the reference.
    fn from_word(word: &str) -> Option<Self> {
        let is_label = |status: &Self| status.label().bytes().filter(|byte| *byte != b'_').eq(word.bytes());
        Self::ALL
            .into_iter()
            .find(|status| *status != Self::Unknown && is_label(status))
    }

    fn from_code(code: u64) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|status| u64::try_from(status.code()) == Ok(code))
    }
}

/// Meaning of a status text, regardless of the other fields of its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobStatusWord {
    /// A status in the reference.
    Known(JobStatus),
    /// "Not Finished" in API v1; its meaning depends on the start time.
    NotFinished,
    /// A number or word that is not in the reference.
    Unknown,
}

impl JobStatusWord {
    /// Returns the status of a run, given whether the run has a start time.
    pub const fn resolve(self, has_start: bool) -> JobStatus {
        match self {
            Self::Known(status) => status,
            Self::NotFinished if has_start => JobStatus::Running,
            Self::NotFinished => JobStatus::NotStarted,
            Self::Unknown => JobStatus::Unknown,
        }
    }
}

/// Parses the status of a run or a scan: a number, or a word in any case and spacing. `None` if absent.
pub fn job_status(text: &str) -> Option<JobStatusWord> {
    let text = present(text)?;
    if let Some(code) = number(text) {
        return Some(JobStatus::from_code(code).map_or(JobStatusWord::Unknown, JobStatusWord::Known));
    }
    Some(match without_separators(text).as_str() {
        "inprogress" => JobStatusWord::Known(JobStatus::Running),
        "successful" => JobStatusWord::Known(JobStatus::Finished),
        "finishedwithexceptions" => JobStatusWord::Known(JobStatus::FinishedWithException),
        "cancelled" => JobStatusWord::Known(JobStatus::Canceled),
        "notfinished" => JobStatusWord::NotFinished,
        word => JobStatus::from_word(word).map_or(JobStatusWord::Unknown, JobStatusWord::Known),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    /// "Job and scan status" in the reference.
    const JOB_STATUSES: [(i8, &str, JobStatus); 15] = [
        (0, "None", JobStatus::None),
        (1, "Running", JobStatus::Running),
        (2, "Finished", JobStatus::Finished),
        (3, "Failed", JobStatus::Failed),
        (4, "Finished with exception", JobStatus::FinishedWithException),
        (5, "Skipped", JobStatus::Skipped),
        (6, "Pending", JobStatus::Pending),
        (7, "Failed to start", JobStatus::FailedToStart),
        (8, "Canceled", JobStatus::Canceled),
        (9, "Rejected", JobStatus::Rejected),
        (10, "Stopped", JobStatus::Stopped),
        (11, "Not scanned", JobStatus::NotScanned),
        (12, "Disabled", JobStatus::Disabled),
        (13, "Not started", JobStatus::NotStarted),
        (14, "Waiting for configuration", JobStatus::WaitingForConfiguration),
    ];

    #[test]
    fn job_statuses_match_the_reference() {
        for (code, word, status) in JOB_STATUSES {
            let known = Some(JobStatusWord::Known(status));
            assert_eq!(status.code(), code);
            assert_eq!(status.label(), word.to_lowercase().replace(' ', "_"));
            for text in [
                code.to_string(),
                format!("{code}.0"),
                format!(" {code} "),
                word.to_owned(),
                word.to_uppercase(),
                word.replace(' ', ""),
                word.replace(' ', "_"),
                word.replace(' ', " \u{a0}"),
                status.label().to_owned(),
            ] {
                assert_eq!(job_status(&text), known, "{text:?}");
            }
        }
    }

    #[test]
    fn job_statuses_are_recognized_in_other_spellings() {
        for (text, status) in [
            ("In progress", JobStatus::Running),
            ("In Progress", JobStatus::Running),
            ("InProgress", JobStatus::Running),
            ("Cancelled", JobStatus::Canceled),
            ("Successful", JobStatus::Finished),
            ("Finished with Exceptions", JobStatus::FinishedWithException),
        ] {
            assert_eq!(job_status(text), Some(JobStatusWord::Known(status)), "{text:?}");
        }
    }

    #[test]
    fn unlisted_status_is_unknown_and_never_a_success() {
        for text in [
            "15",
            "-1",
            "99999999999999999999",
            "2.5",
            "2.",
            "+2",
            "2e0",
            "Completed",
            "Success",
            "Finished?",
            "Unfinished",
            "Finished, Failed",
            "unknown",
            "null",
            "true",
            "Ｆinished",
        ] {
            let word = job_status(text).unwrap();
            assert_eq!(word, JobStatusWord::Unknown, "{text:?}");
            for has_start in [true, false] {
                assert_eq!(word.resolve(has_start), JobStatus::Unknown);
            }
        }
        assert_eq!(JobStatus::Unknown.code(), -1);
        assert!(!JobStatus::Unknown.is_success());
        assert!(!JobStatus::Unknown.is_restore_point());
    }

    #[test]
    fn not_finished_depends_on_the_start() {
        for text in ["Not Finished", "not finished", "NotFinished"] {
            let word = job_status(text).unwrap();
            assert_eq!(word.resolve(true), JobStatus::Running);
            assert_eq!(word.resolve(false), JobStatus::NotStarted);
        }
    }

    #[test]
    fn completed_statuses_are_distinguished() {
        use JobStatus::*;
        for status in JobStatus::ALL {
            let expected = matches!(
                status,
                Finished | Failed | FinishedWithException | Skipped | FailedToStart | Canceled | Rejected | Stopped
            );
            assert_eq!(status.has_ended(false), expected, "{status:?}");
            assert_eq!(status.has_ended(true), expected || status == Unknown, "{status:?}");
        }
    }

    #[test]
    fn success_restore_point_and_failure_are_distinguished() {
        use JobStatus::*;
        for status in JobStatus::ALL {
            assert_eq!(status.is_success(), status == Finished);
            assert_eq!(
                status.is_restore_point(),
                matches!(status, Finished | FinishedWithException)
            );
            let failure = matches!(status, Failed | FailedToStart | Canceled | Rejected | Stopped);
            assert_eq!(status.counts_as_failure(false), failure, "{status:?}");
            assert_eq!(
                status.counts_as_failure(true),
                failure || status == Unknown,
                "{status:?}"
            );
        }
    }

    #[test]
    fn severity_orders_all_statuses() {
        let severities: HashSet<u8> = JobStatus::ALL.iter().map(|s| s.severity()).collect();
        assert_eq!(severities.len(), JobStatus::ALL.len());
        let worst = |a: JobStatus, b: JobStatus| if a.severity() > b.severity() { a } else { b };
        for status in JobStatus::ALL {
            assert_eq!(worst(status, JobStatus::Finished), status);
            assert_eq!(worst(status, JobStatus::Failed), JobStatus::Failed);
            if !status.is_restore_point() {
                assert_eq!(worst(status, JobStatus::FinishedWithException), status);
            }
            if !status.counts_as_failure(false) {
                assert_eq!(worst(status, JobStatus::Unknown), JobStatus::Unknown);
            } else {
                assert_eq!(worst(status, JobStatus::Unknown), status);
            }
        }
    }

    #[test]
    fn job_status_is_saved_as_its_label() {
        for status in JobStatus::ALL {
            let json = serde_json::to_string(&status).unwrap();
            assert_eq!(json, format!("{:?}", status.label()));
            assert_eq!(serde_json::from_str::<JobStatus>(&json).unwrap(), status);
        }
    }

    proptest! {
        #[test]
        fn parser_does_not_panic(text in any::<String>()) {
            let _ = job_status(&text);
        }

        /// A combination of words from statuses is a success only if, apart from separators, it is exactly the text of
        /// a successful status.
        #[test]
        fn success_needs_an_exact_word(text in "((un|not|finished|successful|failed|with|exception|2|[-_ .,?]){1,4})") {
            let success = ["finished", "successful", "2"];
            if job_status(&text) == Some(JobStatusWord::Known(JobStatus::Finished)) {
                let word = text.replace(['-', '_', ' '], "");
                prop_assert!(success.contains(&word.as_str()), "{}", text);
            }
        }

        #[test]
        fn unlisted_numbers_are_unknown(code in any::<i64>(), small in 0_i64..20) {
            for code in [code, small] {
                let listed = JOB_STATUSES.iter().find(|(listed, ..)| i64::from(*listed) == code);
                prop_assert_eq!(
                    job_status(&code.to_string()),
                    Some(listed.map_or(JobStatusWord::Unknown, |(.., status)| JobStatusWord::Known(*status)))
                );
            }
        }
    }
}
