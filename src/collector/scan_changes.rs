//! Daily scan reports: how the last scan went, and what it found new, moved and gone.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Collector, Context, Reach, Reading, Target, scan_profiles, shape, tabulate};
use crate::api::wire::{Names, Row};
use crate::api::{Api, Endpoint, Error, Failure, v1, v3};
use crate::domain::{CustomerId, JobStatus, Timestamp};
use crate::exposition::{Column, Label, Metric, Shape, ShapeMetrics, Table};

/// The most containers shown of a report. Reports of large tenants name thousands; the rest is summed up as
/// [`OTHER_CONTAINERS`], so that the sum stays true.
const MAX_CONTAINERS: usize = 200;

/// The container that stands for those beyond [`MAX_CONTAINERS`].
const OTHER_CONTAINERS: &str = "(other)";

/// The daily report of a scan profile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Report {
    /// Whether it is held from an earlier answer, because the newest could not be read whole.
    #[serde(default)]
    held: bool,
    profile_id: String,
    status: Option<JobStatus>,
    updated: Option<Timestamp>,
    new: Option<u64>,
    moved: Option<u64>,
    removed: Option<u64>,
    /// Changed objects by change and container, where they are asked for.
    objects: BTreeMap<Change, BTreeMap<String, u32>>,
}

impl super::Held for Report {
    fn is_held(&self) -> bool {
        self.held
    }

    fn hold(&mut self) {
        self.held = true;
    }
}

/// Fields of which every report has some.
const TELLING: Names = &[
    "profileId",
    "profileName",
    "lastScanStatus",
    "lastUpdateTime",
    "scanMode",
];

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Change {
    New,
    Moved,
    Removed,
}

impl Change {
    fn label(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Moved => "moved",
            Self::Removed => "removed",
        }
    }
}

/// The collector.
pub(super) struct ScanChanges;

impl Collector for ScanChanges {
    const NAME: &'static str = "scan_changes";
    const ENDPOINT: Endpoint = Endpoint::ScanChanges;
    const ENDPOINTS: &'static [Endpoint] = &[Endpoint::ScanChanges, Endpoint::ScanChangeObjects];
    const INTERVAL: Duration = Duration::from_secs(3600);
    const SCOPE_V1: &'static str = v1::scope::SCAN_PROFILES;
    const SCOPE_V3: &'static str = v3::scope::SCAN_PROFILES;
    const REACH: Reach = Reach::Customer;
    type Record = Vec<Report>;

    async fn poll(
        api: &Api,
        target: &Target,
        _previous: Option<&Self::Record>,
        context: &Context,
    ) -> Result<Reading<Self::Record>, Failure> {
        let Target::Customer(customer) = target else {
            return Err(Error::UnusableId.at(Endpoint::ScanChanges));
        };
        let scan_profiles::Listed {
            ids, mut unreadable, ..
        } = scan_profiles::list(api, customer).await?;
        let mut reports = Vec::with_capacity(ids.len());
        for id in ids.into_iter().flatten() {
            let answer = match ask(api, customer, &id, context.settings.scan_objects).await {
                // A profile that was deleted since the list was made is gone, and the rest is complete without it.
                Err(failure) if matches!(failure.error, Error::Status(404)) => continue,
                answer => answer?,
            };
            match read(&answer, id, api) {
                Some(report) => reports.push(report),
                None => unreadable += 1,
            }
        }
        Ok(Reading::one(customer, reports, unreadable, Endpoint::ScanChanges))
    }

    fn complete(previous: &Self::Record, partial: Self::Record) -> Self::Record {
        super::keep_missing(previous, partial, |report| report.profile_id.clone())
    }

    fn split(record: &Self::Record) -> Option<(Self::Record, Self::Record)> {
        super::split_rows(record)
    }

    fn metrics() -> Vec<ShapeMetrics> {
        vec![shape(&SHAPE_REPORT), shape(&SHAPE_OBJECTS)]
    }

    fn tables(record: &Self::Record, customer: &CustomerId, _context: &Context) -> (Vec<Table>, u64) {
        let objects: Vec<Objects> = record.iter().flat_map(Report::objects).collect();
        tabulate([
            SHAPE_REPORT.table(customer.as_str(), record),
            SHAPE_OBJECTS.table(customer.as_str(), &objects),
        ])
    }
}

/// What the API says of one report: the numbers, and the objects where they are asked for.
struct Answer {
    numbers: Vec<Box<RawValue>>,
    objects: Option<Vec<Box<RawValue>>>,
}

async fn ask(api: &Api, customer: &CustomerId, id: &str, with_objects: bool) -> Result<Answer, Failure> {
    match api {
        Api::V1(client) => {
            let scope = v1::scope::SCAN_PROFILES;
            let path = |last| ["customers", customer.as_str(), "scanProfiles", id, last];
            let numbers = client
                .entity(Endpoint::ScanChanges, scope, &path("dailyNewSummary"))
                .await?;
            let objects = if with_objects {
                let path = path("dailyNewDetails");
                Some(client.entity(Endpoint::ScanChangeObjects, scope, &path).await?)
            } else {
                None
            };
            Ok(Answer { numbers, objects })
        }
        Api::V3(client) => {
            let path = ["customers", customer.as_str(), "scan-profiles", id, "changes"];
            let numbers = client
                .entity(Endpoint::ScanChanges, v3::scope::SCAN_PROFILES, &path)
                .await?;
            let objects = with_objects.then(|| numbers.clone());
            Ok(Answer { numbers, objects })
        }
    }
}

/// Reads a report; `None` where the answer is there and no report. An empty answer says that there is none yet.
fn read(answer: &Answer, profile_id: String, api: &Api) -> Option<Report> {
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
    if let Some(json) = answer.numbers.first() {
        let row = Row::read(json, Endpoint::ScanChanges, observer).filter(|row| row.has_any(TELLING))?;
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
    if let Some(json) = answer.objects.as_ref().and_then(|objects| objects.first()) {
        let row = Row::read(json, Endpoint::ScanChangeObjects, observer)?;
        let lists: [(Change, Names); 3] = [
            (Change::New, &["newRegisteredContent", "newRegistedContent"]),
            (
                Change::Moved,
                &["movedToAnotherContainerObjects", "movedToAnotherContainer"],
            ),
            (
                Change::Removed,
                &[
                    "removedFromMicrosoft365OrOutOfPolicyObjects",
                    "removedFromMicrosoft365OrOutOfPolicy",
                ],
            ),
        ];
        for (change, names) in lists {
            for json in row.list(names).unwrap_or_default() {
                report.count(change, container(&row, json));
            }
        }
    }
    Some(report)
}

/// The container of a changed object; empty where the object comes as a bare name.
fn container(row: &Row<'_>, json: &RawValue) -> String {
    let object = row.nested(json);
    let name = object.and_then(|object| object.name(&["containerName", "containersName"]));
    name.unwrap_or_default()
}

impl Report {
    fn count(&mut self, change: Change, container: String) {
        let containers = self.objects.entry(change).or_default();
        let shown = containers.len() < MAX_CONTAINERS || containers.contains_key(&container);
        let container = if shown { container } else { OTHER_CONTAINERS.to_owned() };
        *containers.entry(container).or_default() += 1;
    }

    fn objects(&self) -> impl Iterator<Item = Objects> {
        self.objects.iter().flat_map(|(change, containers)| {
            containers.iter().map(|(container, count)| Objects {
                profile_id: self.profile_id.clone(),
                change: change.label(),
                container: container.clone(),
                count: *count,
            })
        })
    }
}

/// Changed objects of one container.
struct Objects {
    profile_id: String,
    change: &'static str,
    container: String,
    count: u32,
}

const SHAPE_REPORT: Shape<Report> = Shape {
    labels: &[Label {
        name: "profile_id",
        value: |report| Some(Cow::Borrowed(&report.profile_id)),
    }],
    columns: &[
        Column {
            metric: Metric::gauge(
                "elements_scan_status",
                "Status of the last scan: 1 running, 2 finished, 3 failed, 4 finished with exception, 5 skipped, 10 \
                 stopped, and the others of elements_job_status, -1 unknown",
            ),
            value: |report| report.status.map(|status| f64::from(status.code())),
        },
        Column {
            metric: Metric::timestamp(
                "elements_scan_report_timestamp_seconds",
                "When the daily report was made; when the profile was modified if there is none yet",
            ),
            value: |report| report.updated.map(Timestamp::as_unix_seconds),
        },
        Column {
            metric: Metric::gauge(
                "elements_scan_new_objects",
                "Objects newly registered in the daily report",
            ),
            value: |report| report.new.map(super::float),
        },
        Column {
            metric: Metric::gauge(
                "elements_scan_moved_objects",
                "Objects moved to another container in the daily report",
            ),
            value: |report| report.moved.map(super::float),
        },
        Column {
            metric: Metric::gauge(
                "elements_scan_removed_objects",
                "Objects removed from Microsoft 365 or out of policy in the daily report",
            ),
            value: |report| report.removed.map(super::float),
        },
    ],
};

const SHAPE_OBJECTS: Shape<Objects> = Shape {
    labels: &[
        Label {
            name: "profile_id",
            value: |row| Some(Cow::Borrowed(&row.profile_id)),
        },
        Label {
            name: "change",
            value: |row| Some(Cow::Borrowed(row.change)),
        },
        Label {
            name: "container",
            value: |row| Some(Cow::Borrowed(&row.container)),
        },
    ],
    columns: &[Column {
        metric: Metric::gauge(
            "elements_scan_changed_objects",
            "Changed objects of the daily report by container; only with collectors.scan_changes.objects",
        ),
        value: |row| Some(f64::from(row.count)),
    }],
};
