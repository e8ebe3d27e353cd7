//! Scan profiles: what is scanned, how and how often.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Collector, Context, Reach, Reading, Target, shape, tabulate};
use crate::api::wire::{Names, Row};
use crate::api::{Api, Endpoint, Error, Failure, v1, v3};
use crate::domain::{self, CustomerId, DailyScan, ScanMode, Timestamp, scan_mode};
use crate::exposition::{Column, Label, Metric, Shape, ShapeMetrics, Table};

/// A scan profile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Profile {
    /// Whether it is held from an earlier answer, because the newest could not be read whole.
    #[serde(default)]
    held: bool,
    id: String,
    name: String,
    tenant_id: String,
    tenant_domain: String,
    scan_mode: Option<ScanMode>,
    modified: Option<Timestamp>,
    created: Option<Timestamp>,
    daily_scan: Option<DailyScan>,
    archived_mailboxes: Option<bool>,
    ignore_locked: Option<bool>,
    out_of_policy_notification: Option<bool>,
    containers: BTreeMap<Cow<'static, str>, u32>,
    /// When it was last modified according to the list that its details were asked for after.
    #[serde(default)]
    listed_modified: Option<Timestamp>,
    /// Whether its details are those of the poll before.
    #[serde(default)]
    details_kept: bool,
}

impl super::Held for Profile {
    fn is_held(&self) -> bool {
        self.held
    }

    fn hold(&mut self) {
        self.held = true;
    }
}

/// Fields of which every profile's details have some.
const TELLING: Names = &[
    "profileId",
    "profileName",
    "tenantId",
    "createdTime",
    "modifiedTime",
    "containers",
];

/// The collector.
pub(super) struct ScanProfiles;

impl Collector for ScanProfiles {
    const NAME: &'static str = "scan_profiles";
    const ENDPOINT: Endpoint = Endpoint::ScanProfiles;
    const ENDPOINTS: &'static [Endpoint] = &[Endpoint::ScanProfiles, Endpoint::ScanProfile];
    const INTERVAL: Duration = Duration::from_secs(3600);
    const SCOPE_V1: &'static str = v1::scope::SCAN_PROFILES;
    const SCOPE_V3: &'static str = v3::scope::SCAN_PROFILES;
    const REACH: Reach = Reach::Customer;
    type Record = Vec<Profile>;

    async fn poll(
        api: &Api,
        target: &Target,
        previous: Option<&Self::Record>,
        _context: &Context,
    ) -> Result<Reading<Self::Record>, Failure> {
        let Target::Customer(customer) = target else {
            return Err(Error::UnusableId.at(Endpoint::ScanProfiles));
        };
        let Listed {
            rows,
            ids,
            mut unreadable,
        } = list(api, customer).await?;
        let mut profiles = Vec::with_capacity(ids.len());
        for (json, id) in rows.iter().zip(ids) {
            let Some(id) = id else { continue };
            if let Some(kept) = unchanged(json, &id, previous, api) {
                profiles.push(kept);
                continue;
            }
            let details = detail(api, customer, &id).await;
            let details = match details {
                // A profile that was deleted since the list was made is gone, and the rest is complete without it.
                Err(failure) if matches!(failure.error, Error::Status(404)) => continue,
                details => details?,
            };
            let observer = api.observer().as_ref();
            let listed = Row::read(json, Endpoint::ScanProfiles, observer);
            // There may be no details yet of a profile; what the list says of it stands then.
            let detailed = match details.first() {
                None => Row::read(json, Endpoint::ScanProfiles, observer),
                Some(details) => Row::read(details, Endpoint::ScanProfile, observer).filter(|row| row.has_any(TELLING)),
            };
            match (listed, detailed) {
                (Some(listed), Some(detailed)) => profiles.push(read(id, &detailed, &listed)),
                _ => unreadable += 1,
            }
        }
        Ok(Reading::one(customer, profiles, unreadable, Endpoint::ScanProfiles))
    }

    fn complete(previous: &Self::Record, partial: Self::Record) -> Self::Record {
        super::keep_missing(previous, partial, |profile| profile.id.clone())
    }

    fn split(record: &Self::Record) -> Option<(Self::Record, Self::Record)> {
        super::split_rows(record)
    }

    fn metrics() -> Vec<ShapeMetrics> {
        vec![shape(&SHAPE_INFO), shape(&SHAPE_PROFILE), shape(&SHAPE_CONTAINERS)]
    }

    fn tables(record: &Self::Record, customer: &CustomerId, _context: &Context) -> (Vec<Table>, u64) {
        let id = customer.as_str();
        let containers: Vec<Containers> = record.iter().flat_map(Profile::containers).collect();
        tabulate([
            SHAPE_INFO.table(id, record),
            SHAPE_PROFILE.table(id, record),
            SHAPE_CONTAINERS.table(id, &containers),
        ])
    }
}

/// The profile as it is kept, where the list says that it was not modified since its details were asked for. They are kept
/// once and then asked for again, so that a change that the list does not tell is not overlooked for longer than that.
fn unchanged(json: &RawValue, id: &str, previous: Option<&Vec<Profile>>, api: &Api) -> Option<Profile> {
    let known = previous?.iter().find(|profile| profile.id == id)?;
    let observer = api.observer().as_ref();
    let modified = Row::read(json, Endpoint::ScanProfiles, observer)?.timestamp(MODIFIED)?;
    let same = known.listed_modified == Some(modified) && !known.details_kept;
    same.then(|| Profile {
        details_kept: true,
        ..known.clone()
    })
}

const MODIFIED: Names = &["modifiedTime"];

/// The profiles of a customer as a list shows them.
pub(super) struct Listed {
    /// The rows.
    pub(super) rows: Vec<Box<RawValue>>,
    /// The id of each row, `None` for a row that cannot be read or repeats another.
    pub(super) ids: Vec<Option<String>>,
    /// How many could not be read.
    pub(super) unreadable: usize,
}

/// Lists the profiles of a customer.
pub(super) async fn list(api: &Api, customer: &CustomerId) -> Result<Listed, Failure> {
    let endpoint = Endpoint::ScanProfiles;
    let rows = match api {
        Api::V1(client) => {
            let path = ["customers", customer.as_str(), "scanProfiles"];
            client.list(endpoint, v1::scope::SCAN_PROFILES, &path).await?
        }
        Api::V3(client) => {
            let list = v3::List {
                endpoint,
                scope: v3::scope::SCAN_PROFILES,
                path: &["customers", customer.as_str(), "scan-profiles", "batch"],
                filter: Some("{}"),
                key: Some("profileId"),
            };
            client.list(list).await?
        }
    };
    let observer = api.observer().as_ref();
    let mut seen = std::collections::BTreeSet::new();
    let (mut unreadable, mut duplicates) = (0, 0);
    let mut ids = Vec::with_capacity(rows.len());
    for json in &rows {
        let id = Row::read(json, endpoint, observer).and_then(|row| row.id(&["profileId"]));
        let repeats = id.as_ref().is_some_and(|id| !seen.insert(id.clone()));
        unreadable += usize::from(id.is_none());
        duplicates += u64::from(repeats);
        ids.push(id.filter(|_| !repeats));
    }
    if duplicates > 0 {
        observer.duplicate_rows(endpoint, duplicates);
    }
    Ok(Listed { rows, ids, unreadable })
}

async fn detail(api: &Api, customer: &CustomerId, id: &str) -> Result<Vec<Box<RawValue>>, Failure> {
    let endpoint = Endpoint::ScanProfile;
    match api {
        Api::V1(client) => {
            let path = ["customers", customer.as_str(), "scanProfiles", id];
            client.entity(endpoint, v1::scope::SCAN_PROFILES, &path).await
        }
        Api::V3(client) => {
            let path = ["customers", customer.as_str(), "scan-profiles", id];
            client.entity(endpoint, v3::scope::SCAN_PROFILES, &path).await
        }
    }
}

/// Reads a profile from its details, and from the list what the details lack.
fn read(id: String, detailed: &Row<'_>, listed: &Row<'_>) -> Profile {
    let either = |names: Names| {
        let text = detailed.name(names).or_else(|| listed.name(names));
        text.unwrap_or_default()
    };
    let mode_names: Names = &["scanMode"];
    let mode = detailed.text(mode_names).or_else(|| listed.text(mode_names));
    Profile {
        held: false,
        id,
        name: either(&["profileName"]),
        tenant_id: either(&["tenantId"]),
        tenant_domain: either(&["tenantDomain"]),
        scan_mode: mode.and_then(|word| {
            let mode = scan_mode(&word)?;
            if mode == ScanMode::Unknown {
                detailed.unknown(mode_names, &word);
            }
            Some(mode)
        }),
        modified: detailed.timestamp(MODIFIED).or_else(|| listed.timestamp(MODIFIED)),
        listed_modified: listed.timestamp(MODIFIED),
        details_kept: false,
        created: detailed.timestamp(&["createdTime"]),
        daily_scan: detailed.daily_scan(&["enableDailyScan"]),
        archived_mailboxes: detailed.flag(&["scanInplaceArchivedMailboxes"]),
        ignore_locked: detailed.flag(&[
            "isIgnoreLockedSiteEnabled",
            "ignoreTheLockedObjectsWhenUpdatingTheJobStatus",
        ]),
        out_of_policy_notification: detailed.flag(&[
            "isSendOutOfPolicyNotification",
            "sendAnEmailNotificationToTheFollowingRecipientsWhenObjectsAreMovedTooTherContainerOrRemovedFromAnyContainers",
        ]),
        containers: containers(detailed),
    }
}

/// How many containers there are of each object type.
fn containers(row: &Row<'_>) -> BTreeMap<Cow<'static, str>, u32> {
    const NAMES: Names = &["containers"];
    let mut counts = BTreeMap::new();
    for json in row.list(NAMES).unwrap_or_default() {
        let object_type = row
            .nested(json)
            .and_then(|container| container.named(&["objectType"], domain::object_type));
        match object_type {
            Some(object_type) => *counts.entry(object_type).or_default() += 1,
            None => row.not_understood(NAMES, "a container without an object type"),
        }
    }
    counts
}

impl Profile {
    fn containers(&self) -> impl Iterator<Item = Containers> {
        self.containers.iter().map(|(object_type, count)| Containers {
            profile_id: self.id.clone(),
            object_type: object_type.clone(),
            count: *count,
        })
    }
}

/// The containers of one object type of a profile.
struct Containers {
    profile_id: String,
    object_type: Cow<'static, str>,
    count: u32,
}

const PROFILE_ID: Label<Profile> = Label {
    name: "profile_id",
    value: |profile| Some(Cow::Borrowed(&profile.id)),
};

const SHAPE_INFO: Shape<Profile> = Shape {
    labels: &[
        PROFILE_ID,
        Label {
            name: "profile_name",
            value: |profile| Some(Cow::Borrowed(&profile.name)),
        },
        Label {
            name: "tenant_id",
            value: |profile| Some(Cow::Borrowed(&profile.tenant_id)),
        },
        Label {
            name: "tenant_domain",
            value: |profile| Some(Cow::Borrowed(&profile.tenant_domain)),
        },
        Label {
            name: "scan_mode",
            value: |profile| Some(Cow::Borrowed(profile.scan_mode.map_or("", ScanMode::label))),
        },
    ],
    columns: &[Column {
        metric: Metric::info("elements_scan_profile_info", "A scan profile of a customer"),
        value: |_| Some(1.0),
    }],
};

const SHAPE_PROFILE: Shape<Profile> = Shape {
    labels: &[PROFILE_ID],
    columns: &[
        Column {
            metric: Metric::timestamp(
                "elements_scan_profile_modified_timestamp_seconds",
                "When the scan profile was last modified",
            ),
            value: |profile| profile.modified.map(Timestamp::as_unix_seconds),
        },
        Column {
            metric: Metric::timestamp(
                "elements_scan_profile_created_timestamp_seconds",
                "When the scan profile was created",
            ),
            value: |profile| profile.created.map(Timestamp::as_unix_seconds),
        },
        Column {
            metric: Metric::gauge(
                "elements_scan_profile_daily_scan_enabled",
                "Whether the profile scans daily",
            ),
            value: |profile| match profile.daily_scan? {
                DailyScan::Off => Some(0.0),
                DailyScan::At(_) => Some(1.0),
            },
        },
        Column {
            metric: Metric::gauge(
                "elements_scan_profile_daily_scan_start_seconds",
                "When the daily scan starts, in seconds after midnight",
            ),
            value: |profile| match profile.daily_scan? {
                DailyScan::Off => None,
                DailyScan::At(seconds) => Some(f64::from(seconds)),
            },
        },
        Column {
            metric: Metric::gauge(
                "elements_scan_profile_archived_mailboxes_enabled",
                "Whether in-place archived mailboxes are scanned",
            ),
            value: |profile| profile.archived_mailboxes.map(f64::from),
        },
        Column {
            metric: Metric::gauge(
                "elements_scan_profile_ignore_locked_enabled",
                "Whether locked objects are ignored when the job status is made",
            ),
            value: |profile| profile.ignore_locked.map(f64::from),
        },
        Column {
            metric: Metric::gauge(
                "elements_scan_profile_out_of_policy_notification_enabled",
                "Whether recipients are told of objects that moved or left",
            ),
            value: |profile| profile.out_of_policy_notification.map(f64::from),
        },
    ],
};

const SHAPE_CONTAINERS: Shape<Containers> = Shape {
    labels: &[
        Label {
            name: "profile_id",
            value: |row| Some(Cow::Borrowed(&row.profile_id)),
        },
        Label {
            name: "object_type",
            value: |row| Some(Cow::Borrowed(&row.object_type)),
        },
    ],
    columns: &[Column {
        metric: Metric::gauge(
            "elements_scan_profile_containers",
            "Containers of the profile, by object type",
        ),
        value: |row| Some(f64::from(row.count)),
    }],
};
