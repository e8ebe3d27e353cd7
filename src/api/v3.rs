//! Second generation: filters in a body, lists under `data`, pages by number.

mod chained;

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};

use serde_json::value::RawValue;

use super::body::json;
use super::envelope::{self, Envelope};
use super::rows::{self, Rows};
use super::transport::{Answer, Call, Transport};
use super::wire::field;
use super::{Endpoint, Error, Failure, RequestId, WALKS, report_rows, v1};

pub use chained::ChainedPages;

/// Base path of most resources.
const GENERAL_PATH: &str = "/partner/external/v3/general";

/// Base path of the resources of optional services.
const SERVICES_PATH: &str = "/partner/external/v3";

/// Returns the base path of a resource.
fn base_path(endpoint: Endpoint) -> &'static str {
    match endpoint {
        Endpoint::Ransomware | Endpoint::Baselines => SERVICES_PATH,
        _ => GENERAL_PATH,
    }
}

/// Member with the rows of a list.
const LIST: &str = "data";

/// Rows requested per page: the maximum of the API.
const PAGE_SIZE: usize = 100;

/// Rows per page of a server that ignores the requested number.
const DEFAULT_PAGE_SIZE: usize = 50;

/// Maximum pages of one list: a fleet of two hundred thousand. An endless list must not exhaust the memory.
const MAX_PAGES: usize = 2_000;

/// Scopes of the second generation.
pub mod scope {
    /// Customers.
    pub const CUSTOMERS: &str = "elements.customers.read.all";
    /// Subscriptions.
    pub const LICENSES: &str = "elements.license.read.all";
    /// Jobs.
    pub const JOBS: &str = "elements.jobs.read.all";
    /// Protected data.
    pub const PROTECTED: &str = "elements.cbprotected.read.all";
    /// Scan profiles and their daily reports.
    pub const SCAN_PROFILES: &str = "elements.scanprofiles.read.all";
    /// Workspaces and the signs of ransomware in them.
    pub const WORKSPACES: &str = "elements.wm.read.all";
    /// Baselines of tenants.
    pub const BASELINES: &str = "elements.bm.tenant.read.all";
}

/// A client of the second generation.
#[derive(Clone, Debug)]
pub struct Client {
    transport: Transport,
}

/// A list to fetch.
#[derive(Clone, Copy, Debug)]
pub struct List<'a> {
    /// Endpoint.
    pub endpoint: Endpoint,
    /// The scope that it needs.
    pub scope: &'static str,
    /// Segments below the base path.
    pub path: &'a [&'a str],
    /// JSON filter of a POST; `None` for a GET.
    pub filter: Option<&'a str>,
    /// Field that identifies rows, if any, to detect a server that repeats a page.
    pub key: Option<&'static str>,
}

impl Client {
    /// Creates a client below the transport's base URL.
    pub fn new(transport: Transport) -> Self {
        Self { transport }
    }

    pub(super) fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Fetches all pages of a list and returns their rows.
    ///
    /// # Errors
    /// Returns the first error, or [`Error::Incomplete`] if pages repeat or the number of rows differs from the total;
    /// no row counts then.
    pub async fn list(&self, list: List<'_>) -> Result<Vec<Box<RawValue>>, Failure> {
        let mut last = None;
        let rows = self.walk_until_sure(&list, &mut last).await;
        report_rows(&self.transport, list.endpoint, rows, last)
    }

    async fn walk_until_sure(
        &self,
        list: &List<'_>,
        last: &mut Option<RequestId>,
    ) -> Result<Vec<Box<RawValue>>, Error> {
        let hashes = RandomState::new();
        let mut before = None;
        let mut doubt = Error::Incomplete("the total does not match the number of rows");
        for _ in 0..WALKS {
            let walked = match self.walk(list, &hashes, last).await {
                Err(error @ Error::Incomplete(_)) => {
                    doubt = error;
                    continue;
                }
                walked => walked?,
            };
            // If rows move to a later page during a walk, they are repeated and others are missed. If both walks repeat
            // the same rows, the list itself contains them twice.
            let same_twice = walked.total == Some(walked.served) && before.as_ref() == Some(&walked.seen);
            let holds_repeats = same_twice && !walked.overlaps;
            let whole = walked.total.is_none_or(|total| total == walked.rows.len())
                && walked.at_least.is_none_or(|count| count <= walked.served);
            let mut rows = walked.rows.into_vec();
            if holds_repeats {
                rows.append(&mut walked.repeats.into_vec());
            }
            if whole || holds_repeats {
                return Ok(rows);
            }
            before = Some(walked.seen);
        }
        Err(doubt)
    }

    /// Fetches one entity: bare, alone in a list or under `data`. Empty after a 204.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn entity(
        &self,
        endpoint: Endpoint,
        scope: &'static str,
        path: &[&str],
    ) -> Result<Vec<Box<RawValue>>, Failure> {
        let mut last = None;
        let read = async {
            let url = super::url(self.transport.base_url(), base_path(endpoint), path)?;
            let call = Call::get(endpoint, scope, url);
            let Answer::Body(mut body) = self.transport.call(&call, &mut last).await? else {
                return Ok(Vec::new());
            };
            let body = json(&mut body)?;
            if body.first() == Some(&b'[') {
                let mut rows = Rows::default();
                rows.extend(serde_json::from_slice(body).map_err(|_| Error::Decode("JSON"))?)?;
                return Ok(rows.into_vec());
            }
            let whole: &RawValue = serde_json::from_slice(body).map_err(|_| Error::Decode("JSON"))?;
            match field(whole, LIST) {
                Some(data) if data.get().starts_with('{') => {
                    envelope::refuse_failure(whole)?;
                    v1::entity(data.get().as_bytes())
                }
                Some(data) if data.get().starts_with('[') => v1::only_page(Envelope::read(body, LIST)?),
                _ => v1::entity(body),
            }
        };
        let rows = read.await;
        report_rows(&self.transport, endpoint, rows, last)
    }

    async fn walk(
        &self,
        list: &List<'_>,
        hashes: &RandomState,
        last_call: &mut Option<RequestId>,
    ) -> Result<Walked, Error> {
        let mut walked = Walked::default();
        for index in 1..=MAX_PAGES {
            let mut body = match self.transport.call(&self.page(list, index)?, last_call).await? {
                Answer::Body(body) => body,
                // Without a total, an empty response may follow the last page.
                Answer::Empty if walked.total.is_none() => return Ok(walked),
                Answer::Empty => return Err(Error::Incomplete("a page that should be there is empty")),
            };
            let page = Page::read(json(&mut body)?)?;
            // A page without a total does not contradict it.
            let total = match (walked.total, page.total) {
                (Some(before), Some(now)) if before != now => {
                    return Err(Error::Incomplete("its total changed while it was walked"));
                }
                (before, now) => before.or(now),
            };
            let size = page.rows.len();
            let identities: Vec<u64> = page
                .rows
                .iter()
                .map(|row| hashes.hash_one(identity(row, list.key)))
                .collect();
            let repeated = size > 0 && identities.iter().all(|identity| walked.seen.contains(identity));
            match total {
                // A bare array of exactly one page may be complete, if the server does not use pages.
                None if repeated && index == 2 => return Ok(walked),
                None if repeated => return Err(Error::Incomplete("a page was repeated")),
                // The last page is shorter, and may contain only rows that moved there. A full page of repeated rows is
                // an error.
                Some(_) if repeated && size >= walked.page_size => {
                    return Err(Error::Incomplete("a page was repeated"));
                }
                _ => {}
            }
            let last = identities.last().copied();
            walked.overlaps |= walked.last.is_some_and(|last| identities.contains(&last));
            walked.last = last;
            let may_go_on = size > 0 && page.may_go_on(size);
            walked.at_least = walked.at_least.max(page.at_least);
            for (row, identity) in page.rows.into_iter().zip(&identities) {
                let repeats = list.key.is_some() && walked.seen.contains(identity);
                let rows = if repeats { &mut walked.repeats } else { &mut walked.rows };
                rows.push(row)?;
            }
            walked.seen.extend(identities);
            walked.served += size;
            walked.page_size = walked.page_size.max(size);
            walked.total = total;
            match total {
                Some(total) if size == 0 || walked.served >= total => return Ok(walked),
                None if !may_go_on => return Ok(walked),
                _ => {}
            }
        }
        Err(Error::Incomplete("too many pages"))
    }

    fn page(&self, list: &List<'_>, index: usize) -> Result<Call, Error> {
        let mut url = super::url(self.transport.base_url(), base_path(list.endpoint), list.path)?;
        url.query_pairs_mut()
            .append_pair("pageIndex", &index.to_string())
            .append_pair("pageSize", &PAGE_SIZE.to_string());
        Ok(Call {
            endpoint: list.endpoint,
            url,
            body: list.filter.map(ToOwned::to_owned),
            scope: list.scope,
        })
    }
}

/// Result of fetching the pages of a list.
#[derive(Default)]
struct Walked {
    rows: Rows,
    /// Number of rows whose key occurred on an earlier page.
    repeats: Rows,
    /// Number of rows, including repeated ones.
    served: usize,
    /// Hashes of the keys. Without keys, this would contain hashes of whole rows.
    seen: HashSet<u64>,
    /// Key of the last row of the newest page.
    last: Option<u64>,
    /// Whether a page starts before the end of the previous one, so that repeated rows replaced others.
    overlaps: bool,
    /// Maximum rows of a page.
    page_size: usize,
    /// Total number of rows according to a page.
    total: Option<usize>,
    /// The largest count announced by a page, under any name.
    at_least: Option<usize>,
}

/// Returns the identity of a row: its key if it has one, otherwise all of it.
fn identity<'a>(row: &'a RawValue, key: Option<&str>) -> &'a str {
    key.and_then(|key| field(row, key)).unwrap_or(row).get()
}

/// A page: its rows, and the size of the whole list.
struct Page<'a> {
    rows: Vec<&'a RawValue>,
    total: Option<usize>,
    /// Lower bound of the total number of rows.
    at_least: Option<usize>,
    /// Rows per page, if present.
    size: Option<usize>,
    /// Whether it contains members about pages.
    is_paged: bool,
    /// Whether it links to another page. The link itself is not followed, because pages have numbers in this
    /// generation.
    has_link: bool,
}

impl<'a> Page<'a> {
    /// Parses a page in its envelope, or a bare array, as some lists return.
    fn read(body: &'a [u8]) -> Result<Self, Error> {
        if body.first() == Some(&b'[') {
            let page: rows::Page<'a> = serde_json::from_slice(body).map_err(|_| Error::Decode("JSON"))?;
            let rows = page.rows()?;
            return Ok(Self {
                rows,
                total: None,
                at_least: None,
                size: None,
                is_paged: false,
                has_link: false,
            });
        }
        let envelope = Envelope::read(body, LIST)?;
        Ok(Self {
            rows: envelope.rows.ok_or(Error::Decode("a list under \"data\""))?.rows()?,
            total: envelope.total,
            at_least: envelope.at_least,
            size: envelope.page_size.filter(|size| *size > 0),
            is_paged: envelope.is_paged,
            has_link: envelope.link.is_some(),
        })
    }

    /// Returns whether another page may follow this one, with this many rows, if there is no total: the page is full,
    /// mentions pages without details, or links to another.
    fn may_go_on(&self, rows: usize) -> bool {
        let is_full = [PAGE_SIZE, DEFAULT_PAGE_SIZE].contains(&rows);
        is_full || self.has_link || self.is_paged && self.size.is_none_or(|size| rows >= size)
    }
}
