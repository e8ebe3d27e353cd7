//! Client for API v3. Filters are in the request body, rows are in the member `data`, and pages are numbered or
//! chained.

mod chained;

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};

use serde_json::value::RawValue;

use super::body::json;
use super::envelope::{self, Envelope};
use super::rows::{self, Rows};
use super::transport::{Call, ResponseBody, Transport};
use super::wire::field;
use super::{Endpoint, Error, Failure, LIST_ATTEMPTS, RequestId, report_rows, v1};

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

/// Member that contains the rows of a list.
const LIST: &str = "data";

/// Rows requested per page: the API's maximum.
const PAGE_SIZE: usize = 100;

/// Rows per page if a server ignores the requested number.
const DEFAULT_PAGE_SIZE: usize = 50;

/// Maximum number of pages in a list, so that an endless list does not exhaust memory. This is enough for two hundred
/// thousand customers.
const MAX_PAGES: usize = 2_000;

/// Scopes of API v3.
pub mod scope {
    /// Permission to read the customer list.
    pub const CUSTOMERS: &str = "elements.customers.read.all";
    /// Permission to read subscriptions.
    pub const LICENSES: &str = "elements.license.read.all";
    /// Permission to read job runs.
    pub const JOBS: &str = "elements.jobs.read.all";
    /// Permission to read protected data.
    pub const PROTECTED: &str = "elements.cbprotected.read.all";
    /// Permission to read scan profiles and their daily reports.
    pub const SCAN_PROFILES: &str = "elements.scanprofiles.read.all";
    /// Permission to read workspaces and the signs of ransomware in them.
    pub const WORKSPACES: &str = "elements.wm.read.all";
    /// Permission to read the baselines of tenants.
    pub const BASELINES: &str = "elements.bm.tenant.read.all";
}

/// A client for API v3.
#[derive(Clone, Debug)]
pub struct Client {
    transport: Transport,
}

/// A list to fetch.
#[derive(Clone, Copy, Debug)]
pub struct List<'a> {
    /// Endpoint that returns the list.
    pub endpoint: Endpoint,
    /// Required scope.
    pub scope: &'static str,
    /// Segments below the base path.
    pub path: &'a [&'a str],
    /// JSON filter of a POST; `None` for a GET.
    pub filter: Option<&'a str>,
    /// Field that identifies rows, if any. It is used to detect repeated rows and pages.
    pub key: Option<&'static str>,
}

impl Client {
    /// Creates a client for the resources under the transport's base URL.
    pub fn new(transport: Transport) -> Self {
        Self { transport }
    }

    pub(super) fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Fetches all pages of a list and returns their rows.
    ///
    /// # Errors
    /// Returns the first error, or [`Error::Incomplete`] if pages or rows are repeated, or if the number of rows
    /// differs from the total.
    pub async fn fetch_list(&self, list: List<'_>) -> Result<Vec<Box<RawValue>>, Failure> {
        let mut request_id = None;
        let rows = self.fetch_complete_list(&list, &mut request_id).await;
        report_rows(&self.transport, list.endpoint, rows, request_id)
    }

    async fn fetch_complete_list(
        &self,
        list: &List<'_>,
        request_id: &mut Option<RequestId>,
    ) -> Result<Vec<Box<RawValue>>, Error> {
        let hashes = RandomState::new();
        let mut before = None;
        let mut last_error = Error::Incomplete("rows are missing or repeated");
        for _ in 0..LIST_ATTEMPTS {
            let fetched = match self.fetch_pages(list, &hashes, request_id).await {
                Err(error @ Error::Incomplete(_)) => {
                    last_error = error;
                    continue;
                }
                fetched => fetched?,
            };
            // Rows that move to a later page between two requests are fetched twice, and others may be missed. If both
            // fetches of the list repeat the same rows, the list itself contains them twice.
            let matches_total = fetched.total.is_none_or(|total| total == fetched.row_count);
            let is_confirmed = matches_total && before.as_ref() == Some(fetched.identities(list));
            // In a list with a key and a total, repeated rows that may have moved by one position in both fetches do
            // not count as duplicates.
            let may_have_moved = fetched.overlaps && list.key.is_some() && fetched.total.is_some();
            let has_duplicate_rows = is_confirmed && !may_have_moved;
            let has_all_rows = match fetched.total {
                Some(total) => total == fetched.rows.len(),
                None => fetched.repeated.is_empty(),
            };
            let is_complete = has_all_rows && fetched.min_total.is_none_or(|count| count <= fetched.row_count);
            if is_complete || has_duplicate_rows {
                let mut rows = fetched.rows.into_vec();
                if has_duplicate_rows {
                    rows.append(&mut fetched.repeats.into_vec());
                }
                return Ok(rows);
            }
            before = Some(fetched.identities(list).clone());
        }
        Err(last_error)
    }

    /// Fetches one entity. The response can be the entity, a list, or an object whose member `data` is one of these.
    /// Returns no rows for a 204.
    ///
    /// # Errors
    /// See [`Client::fetch_list`].
    pub async fn fetch_entity(
        &self,
        endpoint: Endpoint,
        scope: &'static str,
        path: &[&str],
    ) -> Result<Vec<Box<RawValue>>, Failure> {
        let mut request_id = None;
        let rows = async {
            let url = super::url(self.transport.base_url(), base_path(endpoint), path)?;
            let call = Call::get(endpoint, scope, url);
            let ResponseBody::Content(mut body) = self.transport.call(&call, &mut request_id).await? else {
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
                    envelope::reject_failure(whole)?;
                    v1::parse_entity(data.get().as_bytes())
                }
                Some(data) if data.get().starts_with('[') => v1::single_page_rows(Envelope::read(body, LIST)?),
                _ => v1::parse_entity(body),
            }
        };
        let rows = rows.await;
        report_rows(&self.transport, endpoint, rows, request_id)
    }

    async fn fetch_pages(
        &self,
        list: &List<'_>,
        hashes: &RandomState,
        request_id: &mut Option<RequestId>,
    ) -> Result<FetchedPages, Error> {
        let mut fetched = FetchedPages::default();
        for index in 1..=MAX_PAGES {
            let mut body = match self.transport.call(&self.page_call(list, index)?, request_id).await? {
                ResponseBody::Content(body) => body,
                // Without a total, an empty response may follow the last page.
                ResponseBody::Empty if fetched.total.is_none() => return Ok(fetched),
                ResponseBody::Empty => return Err(Error::Incomplete("an expected page is empty")),
            };
            let page = Page::parse(json(&mut body)?)?;
            // Not every page contains the total.
            let total = match (fetched.total, page.total) {
                (Some(before), Some(now)) if before != now => {
                    return Err(Error::Incomplete("the total changed between two pages"));
                }
                (before, now) => before.or(now),
            };
            let size = page.rows.len();
            let identities: Vec<u64> = page
                .rows
                .iter()
                .map(|row| hashes.hash_one(identity(row, list.key)))
                .collect();
            let repeated = size > 0 && identities.iter().all(|identity| fetched.seen.contains(identity));
            match total {
                // A server that does not use pages returns the complete list for each page number.
                None if repeated && index == 2 => return Ok(fetched),
                None if repeated => return Err(Error::Incomplete("a page was repeated")),
                // A short last page may contain only rows that moved there. A full page of repeated rows is an error.
                Some(_) if repeated && size >= fetched.page_size => {
                    return Err(Error::Incomplete("a page was repeated"));
                }
                _ => {}
            }
            let last = identities.last().copied();
            fetched.overlaps |= fetched.last.is_some_and(|last| identities.contains(&last));
            fetched.last = last;
            let may_have_next = size > 0 && page.may_have_next(size);
            fetched.min_total = fetched.min_total.max(page.min_total);
            for (row, identity) in page.rows.into_iter().zip(&identities) {
                if fetched.seen.contains(identity) {
                    fetched.repeated.insert(*identity);
                    fetched.repeats.push(row)?;
                } else {
                    fetched.rows.push(row)?;
                }
            }
            fetched.seen.extend(identities);
            fetched.row_count += size;
            fetched.page_size = fetched.page_size.max(size);
            fetched.total = total;
            match total {
                Some(total) if size == 0 || fetched.row_count >= total => return Ok(fetched),
                None if !may_have_next => return Ok(fetched),
                _ => {}
            }
        }
        Err(Error::Incomplete("too many pages"))
    }

    fn page_call(&self, list: &List<'_>, index: usize) -> Result<Call, Error> {
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
struct FetchedPages {
    rows: Rows,
    /// Rows with the same identity as a row on an earlier page.
    repeats: Rows,
    /// Hashes of the identities of `repeats`.
    repeated: HashSet<u64>,
    /// Number of rows, including repeated rows.
    row_count: usize,
    /// Hashes of the identities of all rows.
    seen: HashSet<u64>,
    /// Hash of the identity of the last row of the latest page.
    last: Option<u64>,
    /// Whether a page contains the last row of the previous page. In that case, rows have moved to a later page, and
    /// others may be missing.
    overlaps: bool,
    /// Largest number of rows on a page.
    page_size: usize,
    /// Total number of rows according to the pages.
    total: Option<usize>,
    /// Lower bound for the total: the largest count stated by any page, under any name.
    min_total: Option<usize>,
}

impl FetchedPages {
    /// Returns the identities that must be the same in two fetches of the list before repeated rows count as
    /// duplicates. Rows without a key can change between the fetches, so only the repeated rows are compared.
    fn identities(&self, list: &List<'_>) -> &HashSet<u64> {
        match list.key {
            Some(_) => &self.seen,
            None => &self.repeated,
        }
    }
}

/// Returns the identity of a row: the value of its key or, without a key, the whole row.
fn identity<'a>(row: &'a RawValue, key: Option<&str>) -> &'a str {
    key.and_then(|key| field(row, key)).unwrap_or(row).get()
}

/// A page with its rows, and details of the whole list.
struct Page<'a> {
    rows: Vec<&'a RawValue>,
    total: Option<usize>,
    /// Lower bound for the total number of rows.
    min_total: Option<usize>,
    /// Rows per page, if present.
    size: Option<usize>,
    /// Whether `metadata` has any members.
    is_paged: bool,
    /// Whether the response links to another page. The link itself is not used, because the pages are numbered.
    has_link: bool,
}

impl<'a> Page<'a> {
    /// Parses a page: an envelope, or the bare array that some resources return.
    fn parse(body: &'a [u8]) -> Result<Self, Error> {
        if body.first() == Some(&b'[') {
            let page: rows::Page<'a> = serde_json::from_slice(body).map_err(|_| Error::Decode("JSON"))?;
            let rows = page.rows()?;
            return Ok(Self {
                rows,
                total: None,
                min_total: None,
                size: None,
                is_paged: false,
                has_link: false,
            });
        }
        let envelope = Envelope::read(body, LIST)?;
        Ok(Self {
            rows: envelope
                .rows
                .ok_or(Error::Decode("an object with a list under \"data\""))?
                .rows()?,
            total: envelope.total,
            min_total: envelope.min_total,
            size: envelope.page_size.filter(|size| *size > 0),
            is_paged: envelope.is_paged,
            has_link: envelope.link.is_some(),
        })
    }

    /// Returns whether another page may follow this page of `rows` rows, if there is no total. The page must be full,
    /// link to another page, or have `metadata` in which the page size is missing or is at most `rows`.
    fn may_have_next(&self, rows: usize) -> bool {
        let is_full = [PAGE_SIZE, DEFAULT_PAGE_SIZE].contains(&rows);
        is_full || self.has_link || self.is_paged && self.size.is_none_or(|size| rows >= size)
    }
}
