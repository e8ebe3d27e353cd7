//! Scan profiles: mode, schedule, options and containers of scans.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Collector, Context, PollOutput, Price};
use crate::api::wire::{Names, Row};
use crate::api::{Api, Endpoint, Error, Failure, v1, v3};
use crate::domain::{self, CustomerId, DailyScan, ScanMode, Timestamp, scan_mode};
use crate::exposition::{Label, Shape, ShapeSink, gauge, info, label, timestamp};

/// A scan profile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Profile {
    /// Whether the profile is carried over from an earlier response because the latest poll was incomplete. Also true
    /// for a new profile if the request for its details returned status 404.
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
    /// Modification time that the list contained when the details were requested.
    #[serde(default)]
    listed_modified: Option<Timestamp>,
    /// Whether the details are from the previous poll.
    #[serde(rename = "details_kept", default)]
    are_details_reused: bool,
}

/// Fields by which a profile's details are recognized: each response contains at least one of them.
const DETAIL_FIELDS: Names = &[
    "profileId",
    "profileName",
    "tenantId",
    "createdTime",
    "modifiedTime",
    "containers",
];

/// The collector `scan_profiles`.
pub(super) struct ScanProfiles;

impl Collector for ScanProfiles {
    const NAME: &'static str = "scan_profiles";
    const ENDPOINT: Endpoint = Endpoint::ScanProfiles;
    const ENDPOINTS: &'static [Endpoint] = &[Endpoint::ScanProfiles, Endpoint::ScanProfile];
    const INTERVAL: Duration = Duration::from_secs(3600);
    const PRICE: Price = Price::PER_PROFILE;
    const SCOPE_V1: &'static str = v1::scope::SCAN_PROFILES;
    const SCOPE_V3: &'static str = v3::scope::SCAN_PROFILES;
    type Target = CustomerId;
    type Record = Vec<Profile>;

    async fn poll(
        api: &Api,
        customer: &CustomerId,
        previous: Option<&Self::Record>,
        _context: &Context,
    ) -> Result<PollOutput<Self::Record>, Failure> {
        let ProfileList { rows, unreadable } = fetch_list(api, customer).await?;
        let observer = api.observer().as_ref();
        let mut unknown = 0;
        let mut profiles = Vec::with_capacity(rows.len());
        for (id, json) in rows {
            let Some(listed) = Row::read(&json, Endpoint::ScanProfiles, observer) else {
                continue;
            };
            if let Some(unmodified) = find_unmodified(&listed, &id, previous) {
                profiles.push(unmodified);
                continue;
            }
            let known = || super::hold_known(previous, |known| known.id == id, |row| row.held = true);
            let details = match fetch_details(api, customer, &id).await {
                // The profile may have been deleted, but only its absence from the list proves that.
                Err(failure) if matches!(failure.error, Error::Status(404)) => {
                    unknown += 1;
                    let from_list = || Profile {
                        held: true,
                        ..parse_profile(id.clone(), &listed, &listed)
                    };
                    profiles.push(known().unwrap_or_else(from_list));
                    continue;
                }
                details => details?,
            };
            let Some(details) = details.first() else {
                // There are no details yet.
                profiles.push(parse_profile(id, &listed, &listed));
                continue;
            };
            match Row::read(details, Endpoint::ScanProfile, observer).filter(|row| row.has_any(DETAIL_FIELDS)) {
                Some(detailed) => profiles.push(parse_profile(id, &detailed, &listed)),
                None => {
                    unknown += 1;
                    profiles.extend(known());
                }
            }
        }
        // A row without an id may belong to any known profile.
        if let Some(previous) = previous.filter(|_| unreadable > 0) {
            profiles = super::keep_missing(previous, profiles, |row| row.id.clone(), |row| row.held = true);
        }
        Ok(PollOutput::of_customer(
            customer,
            profiles,
            unreadable + unknown,
            Endpoint::ScanProfiles,
        ))
    }

    fn split(record: &Self::Record) -> Option<(Self::Record, Self::Record)> {
        super::split_rows(record, |row| row.held)
    }

    fn lists_other_items(record: &Self::Record, previous: &Self::Record) -> bool {
        let known: BTreeSet<&str> = previous.iter().map(|profile| profile.id.as_str()).collect();
        record.iter().any(|profile| !known.contains(profile.id.as_str()))
    }

    fn tables(record: &Self::Record, _customer: &CustomerId, _context: &Context, sink: &mut impl ShapeSink) {
        let containers: Vec<ContainerCount> = record.iter().flat_map(Profile::container_counts).collect();
        sink.add(&SHAPE_INFO, record);
        sink.add(&SHAPE_PROFILE, record);
        sink.add(&SHAPE_CONTAINERS, &containers);
    }
}

/// Returns the last known profile if, according to the list, it has not been modified since its details were requested.
/// Details are reused for one poll only, because the list may not show all modifications.
fn find_unmodified(listed: &Row<'_>, id: &str, previous: Option<&Vec<Profile>>) -> Option<Profile> {
    let known = previous?.iter().find(|profile| profile.id == id)?;
    let modified = listed.timestamp(MODIFIED)?;
    let is_unmodified = known.listed_modified == Some(modified) && !known.are_details_reused && !known.held;
    is_unmodified.then(|| Profile {
        are_details_reused: true,
        ..known.clone()
    })
}

const MODIFIED: Names = &["modifiedTime"];

/// The list of a customer's profiles.
pub(super) struct ProfileList {
    /// The valid rows of the list with their ids, without duplicates.
    pub(super) rows: Vec<(String, Box<RawValue>)>,
    /// Number of invalid rows.
    pub(super) unreadable: usize,
}

pub(super) async fn fetch_list(api: &Api, customer: &CustomerId) -> Result<ProfileList, Failure> {
    let endpoint = Endpoint::ScanProfiles;
    let rows = match api {
        Api::V1(client) => {
            let path = ["customers", customer.as_str(), "scanProfiles"];
            client.fetch_list(endpoint, v1::scope::SCAN_PROFILES, &path).await?
        }
        Api::V3(client) => {
            let list = v3::List {
                endpoint,
                scope: v3::scope::SCAN_PROFILES,
                path: &["customers", customer.as_str(), "scan-profiles", "batch"],
                filter: Some("{}"),
                key: Some("profileId"),
            };
            client.fetch_list(list).await?
        }
    };
    let observer = api.observer().as_ref();
    let (mut seen, mut unreadable, mut duplicates) = (BTreeSet::new(), 0, 0);
    let mut listed = Vec::with_capacity(rows.len());
    for json in rows {
        match Row::read(&json, endpoint, observer).and_then(|row| row.id(&["profileId"])) {
            None => unreadable += 1,
            Some(id) if !seen.insert(id.clone()) => duplicates += 1,
            Some(id) => listed.push((id, json)),
        }
    }
    if duplicates > 0 {
        observer.duplicate_rows(endpoint, duplicates);
    }
    Ok(ProfileList {
        rows: listed,
        unreadable,
    })
}

async fn fetch_details(api: &Api, customer: &CustomerId, id: &str) -> Result<Vec<Box<RawValue>>, Failure> {
    let endpoint = Endpoint::ScanProfile;
    match api {
        Api::V1(client) => {
            let path = ["customers", customer.as_str(), "scanProfiles", id];
            client.fetch_entity(endpoint, v1::scope::SCAN_PROFILES, &path).await
        }
        Api::V3(client) => {
            let path = ["customers", customer.as_str(), "scan-profiles", id];
            client.fetch_entity(endpoint, v3::scope::SCAN_PROFILES, &path).await
        }
    }
}

/// Parses a profile from its details. Some values come from the list if the details lack them.
fn parse_profile(id: String, detailed: &Row<'_>, listed: &Row<'_>) -> Profile {
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
        scan_mode: detailed.known_word(mode_names, mode, scan_mode, |mode| mode == ScanMode::Unknown),
        modified: detailed.timestamp(MODIFIED).or_else(|| listed.timestamp(MODIFIED)),
        listed_modified: listed.timestamp(MODIFIED),
        are_details_reused: false,
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
        containers: count_containers(detailed),
    }
}

/// Counts a profile's containers by object type.
fn count_containers(row: &Row<'_>) -> BTreeMap<Cow<'static, str>, u32> {
    const NAMES: Names = &["containers"];
    let mut counts = BTreeMap::new();
    for json in row.list(NAMES).unwrap_or_default() {
        let object_type = row
            .nested(json)
            .and_then(|container| container.named(&["objectType"], domain::object_type));
        match object_type {
            Some(object_type) => *counts.entry(object_type).or_default() += 1,
            None => row.invalid(NAMES, "a container without an object type"),
        }
    }
    counts
}

impl Profile {
    fn container_counts(&self) -> impl Iterator<Item = ContainerCount> {
        self.containers.iter().map(|(object_type, count)| ContainerCount {
            profile_id: self.id.clone(),
            object_type: object_type.clone(),
            count: *count,
        })
    }
}

/// Number of a profile's containers for one object type.
struct ContainerCount {
    profile_id: String,
    object_type: Cow<'static, str>,
    count: u32,
}

const PROFILE_ID: Label<Profile> = label("profile_id", |profile| Some(&profile.id));

const SHAPE_INFO: Shape<Profile> = Shape {
    labels: &[
        PROFILE_ID,
        label("profile_name", |profile| Some(&profile.name)),
        label("tenant_id", |profile| Some(&profile.tenant_id)),
        label("tenant_domain", |profile| Some(&profile.tenant_domain)),
        label("scan_mode", |profile| {
            Some(profile.scan_mode.map_or("", ScanMode::label))
        }),
    ],
    columns: &[info("elements_scan_profile_info", "Scan profile of a customer")],
};

const SHAPE_PROFILE: Shape<Profile> = Shape {
    labels: &[PROFILE_ID],
    columns: &[
        timestamp(
            "elements_scan_profile_modified_timestamp_seconds",
            "Last modification of the scan profile, Unix time",
            |profile| profile.modified.map(Timestamp::as_unix_seconds),
        ),
        timestamp(
            "elements_scan_profile_created_timestamp_seconds",
            "Creation of the scan profile, Unix time",
            |profile| profile.created.map(Timestamp::as_unix_seconds),
        ),
        gauge(
            "elements_scan_profile_daily_scan_enabled",
            "1 if the profile scans daily, 0 otherwise",
            |profile| match profile.daily_scan? {
                DailyScan::Off => Some(0.0),
                DailyScan::At(_) => Some(1.0),
            },
        ),
        gauge(
            "elements_scan_profile_daily_scan_start_seconds",
            "Start of the daily scan in seconds after midnight; absent without a daily scan",
            |profile| match profile.daily_scan? {
                DailyScan::Off => None,
                DailyScan::At(seconds) => Some(f64::from(seconds)),
            },
        ),
        gauge(
            "elements_scan_profile_archived_mailboxes_enabled",
            "1 if in-place archived mailboxes are scanned, 0 otherwise",
            |profile| profile.archived_mailboxes.map(f64::from),
        ),
        gauge(
            "elements_scan_profile_ignore_locked_enabled",
            "1 if locked objects do not affect the job status, 0 otherwise",
            |profile| profile.ignore_locked.map(f64::from),
        ),
        gauge(
            "elements_scan_profile_out_of_policy_notification_enabled",
            "1 if recipients are notified of moved and removed objects, 0 otherwise",
            |profile| profile.out_of_policy_notification.map(f64::from),
        ),
    ],
};

const SHAPE_CONTAINERS: Shape<ContainerCount> = Shape {
    labels: &[
        label("profile_id", |row| Some(&row.profile_id)),
        label("object_type", |row| Some(&row.object_type)),
    ],
    columns: &[gauge(
        "elements_scan_profile_containers",
        "Containers of the scan profile by object type",
        |row| Some(f64::from(row.count)),
    )],
};
