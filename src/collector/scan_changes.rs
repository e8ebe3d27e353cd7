//! Daily scan reports: the result of the last scan, and the numbers of new, moved and removed objects.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Collector, CollectorId, CollectorSettings, Context, PollOutput, Price, scan_profiles};
use crate::api::wire::{Names, Row};
use crate::api::{Api, Endpoint, Error, Failure, v1, v3};
use crate::domain::{CustomerId, JobStatus, Timestamp, labelled};
use crate::exposition::{Shape, ShapeSink, gauge, label, timestamp};

/// Maximum number of containers that are stored per report and kind of change. Reports of large tenants contain
/// thousands of containers. Objects in the remaining containers are counted under [`OTHER_CONTAINERS`], so that the
/// total is still correct.
const MAX_CONTAINERS: usize = 200;

/// Label value that stands for all containers beyond [`MAX_CONTAINERS`].
const OTHER_CONTAINERS: &str = "(other)";

/// A scan profile's daily report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Report {
    /// Whether the report is carried over from an earlier response because the latest poll was incomplete.
    #[serde(default)]
    held: bool,
    profile_id: String,
    status: Option<JobStatus>,
    updated: Option<Timestamp>,
    new: Option<u64>,
    moved: Option<u64>,
    removed: Option<u64>,
    /// Number of changed objects by change and container, if requested.
    objects: BTreeMap<Change, BTreeMap<String, u32>>,
}

/// Fields by which a report is recognized: each report contains at least one of them.
const REPORT_FIELDS: Names = &[
    "profileId",
    "profileName",
    "lastScanStatus",
    "lastUpdateTime",
    "scanMode",
];

labelled! {
    /// A change to an object.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
    enum Change, label {
        New => "new",
        Moved => "moved",
        Removed => "removed",
    }
}

impl Change {
    /// Returns the possible names of the field that lists the objects.
    fn fields(self) -> Names {
        match self {
            Self::New => &["newRegisteredContent", "newRegistedContent"],
            Self::Moved => &["movedToAnotherContainerObjects", "movedToAnotherContainer"],
            Self::Removed => &[
                "removedFromMicrosoft365OrOutOfPolicyObjects",
                "removedFromMicrosoft365OrOutOfPolicy",
            ],
        }
    }
}

/// The collector `scan_changes`.
pub(super) struct ScanChanges;

impl Collector for ScanChanges {
    const NAME: &'static str = "scan_changes";
    const ENDPOINT: Endpoint = Endpoint::ScanChanges;
    const ENDPOINTS: &'static [Endpoint] = &[Endpoint::ScanChanges, Endpoint::ScanChangeObjects];
    const INTERVAL: Duration = Duration::from_secs(3600);
    const PRICE: Price = Price::PER_PROFILE;
    const SCOPE_V1: &'static str = v1::scope::SCAN_PROFILES;
    const SCOPE_V3: &'static str = v3::scope::SCAN_PROFILES;
    const ITEMS_FROM: Option<CollectorId> = Some(CollectorId::SCAN_PROFILES);
    type Target = CustomerId;
    type Record = Vec<Report>;

    async fn poll(
        api: &Api,
        customer: &CustomerId,
        previous: Option<&Self::Record>,
        context: &Context,
    ) -> Result<PollOutput<Self::Record>, Failure> {
        let scan_profiles::ProfileList { rows, unreadable } = scan_profiles::fetch_list(api, customer).await?;
        let mut unknown = 0;
        let mut reports = Vec::with_capacity(rows.len());
        for (id, _) in rows {
            let report = match fetch_report(api, customer, &id, context.settings.scan_objects).await {
                // The profile may have been deleted, but only its absence from the list proves that.
                Err(failure) if matches!(failure.error, Error::Status(404)) => None,
                response => parse_report(&response?, id.clone(), api),
            };
            unknown += usize::from(report.is_none());
            let held = || super::hold_known(previous, |known| known.profile_id == id, |row| row.held = true);
            reports.extend(report.or_else(held));
        }
        // Any known report may belong to a profile whose row has no id.
        if let Some(previous) = previous.filter(|_| unreadable > 0) {
            reports = super::keep_missing(previous, reports, |row| row.profile_id.clone(), |row| row.held = true);
        }
        Ok(PollOutput::of_customer(
            customer,
            reports,
            unreadable + unknown,
            Endpoint::ScanChanges,
        ))
    }

    fn split(record: &Self::Record) -> Option<(Self::Record, Self::Record)> {
        super::split_rows(record, |row| row.held)
    }

    fn polls_alike(settings: &CollectorSettings, other: &CollectorSettings) -> bool {
        settings.scan_objects == other.scan_objects
    }

    fn tables(record: &Self::Record, _customer: &CustomerId, context: &Context, sink: &mut impl ShapeSink) {
        // The record may predate the current settings, and contain objects that are no longer requested.
        let reports = record.iter().filter(|_| context.settings.scan_objects);
        let objects: Vec<ChangedObjects> = reports.flat_map(Report::changed_objects).collect();
        sink.add(&SHAPE_REPORT, record);
        sink.add(&SHAPE_OBJECTS, &objects);
    }
}

/// The API's response for one report. API v1 returns the summary and the objects separately.
struct ReportResponse {
    summary: Vec<Box<RawValue>>,
    /// `None` if objects are not requested.
    objects: Option<Vec<Box<RawValue>>>,
}

async fn fetch_report(
    api: &Api,
    customer: &CustomerId,
    id: &str,
    with_objects: bool,
) -> Result<ReportResponse, Failure> {
    match api {
        Api::V1(client) => {
            let scope = v1::scope::SCAN_PROFILES;
            let path = |last| ["customers", customer.as_str(), "scanProfiles", id, last];
            let summary = client
                .fetch_entity(Endpoint::ScanChanges, scope, &path("dailyNewSummary"))
                .await?;
            let objects = if with_objects {
                let path = path("dailyNewDetails");
                Some(client.fetch_entity(Endpoint::ScanChangeObjects, scope, &path).await?)
            } else {
                None
            };
            Ok(ReportResponse { summary, objects })
        }
        Api::V3(client) => {
            let path = ["customers", customer.as_str(), "scan-profiles", id, "changes"];
            let summary = client
                .fetch_entity(Endpoint::ScanChanges, v3::scope::SCAN_PROFILES, &path)
                .await?;
            let objects = with_objects.then(|| summary.clone());
            Ok(ReportResponse { summary, objects })
        }
    }
}

/// Parses a report; `None` if the response is invalid. An empty response means that there is no report yet.
fn parse_report(response: &ReportResponse, profile_id: String, api: &Api) -> Option<Report> {
    let observer = api.observer().as_ref();
    let mut report = Report {
        held: false,
        profile_id,
        status: None,
        updated: None,
        new: None,
        moved: None,
        removed: None,
        objects: BTreeMap::new(),
    };
    if let Some(json) = response.summary.first() {
        let row = Row::read(json, Endpoint::ScanChanges, observer).filter(|row| row.has_any(REPORT_FIELDS))?;
        report.status = row.job_status(&["lastScanStatus"]).map(|word| word.resolve(true));
        report.updated = row.timestamp(&["lastUpdateTime"]);
        report.new = row.count_unless_list(&[
            "newRegisteredContentCount",
            "newRegistedContentCount",
            "newRegisteredContent",
            "newRegistedContent",
        ]);
        report.moved = row.count_unless_list(&["movedToAnotherContainer", "movedToAnotherContainerObjects"]);
        report.removed = row.count_unless_list(&[
            "removedFromMicrosoft365OrOutofPolicy",
            "removedFromMicrosoft365OrOutofPolicyObjects",
        ]);
    }
    if let Some(json) = response.objects.as_ref().and_then(|objects| objects.first()) {
        let row = Row::read(json, Endpoint::ScanChangeObjects, observer)?;
        for change in Change::ALL {
            for json in row.list(change.fields()).unwrap_or_default() {
                report.add_object(change, parse_container(&row, json));
            }
        }
    }
    Some(report)
}

/// Returns the container of a changed object; empty if the API returns only the name of the object.
fn parse_container(row: &Row<'_>, json: &RawValue) -> String {
    let object = row.nested(json);
    let name = object.and_then(|object| object.name(&["containerName", "containersName"]));
    name.unwrap_or_default()
}

impl Report {
    fn add_object(&mut self, change: Change, container: String) {
        let containers = self.objects.entry(change).or_default();
        let is_separate = containers.len() < MAX_CONTAINERS || containers.contains_key(&container);
        let container = if is_separate {
            container
        } else {
            OTHER_CONTAINERS.to_owned()
        };
        *containers.entry(container).or_default() += 1;
    }

    fn changed_objects(&self) -> impl Iterator<Item = ChangedObjects> {
        self.objects.iter().flat_map(|(change, containers)| {
            containers.iter().map(|(container, count)| ChangedObjects {
                profile_id: self.profile_id.clone(),
                change: change.label(),
                container: container.clone(),
                count: *count,
            })
        })
    }
}

/// Number of changed objects in one container.
struct ChangedObjects {
    profile_id: String,
    change: &'static str,
    container: String,
    count: u32,
}

const SHAPE_REPORT: Shape<Report> = Shape {
    labels: &[label("profile_id", |report| Some(&report.profile_id))],
    columns: &[
        gauge(
            "elements_scan_status",
            "Status number of the latest scan; -1 if unknown",
            |report| report.status.map(|status| f64::from(status.code())),
        ),
        timestamp(
            "elements_scan_report_timestamp_seconds",
            "Creation of the daily report, Unix time; last modification of the profile if there is no report yet",
            |report| report.updated.map(Timestamp::as_unix_seconds),
        ),
        gauge(
            "elements_scan_new_objects",
            "New objects in the daily report",
            |report| report.new.map(super::float),
        ),
        gauge(
            "elements_scan_moved_objects",
            "Objects moved to another container, according to the daily report",
            |report| report.moved.map(super::float),
        ),
        gauge(
            "elements_scan_removed_objects",
            "Objects deleted from Microsoft 365 or no longer covered by a policy, according to the daily report",
            |report| report.removed.map(super::float),
        ),
    ],
};

const SHAPE_OBJECTS: Shape<ChangedObjects> = Shape {
    labels: &[
        label("profile_id", |row| Some(&row.profile_id)),
        label("change", |row| Some(row.change)),
        label("container", |row| Some(&row.container)),
    ],
    columns: &[gauge(
        "elements_scan_changed_objects",
        "Changed objects in the daily report, by change and container; only with collectors.scan_changes.objects",
        |row| Some(f64::from(row.count)),
    )],
};
