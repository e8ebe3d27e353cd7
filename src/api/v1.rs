//! Client for API v1. All requests are GET requests, rows are in the member `value`, and each page links to the next.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};

use serde_json::value::RawValue;
use url::Url;

use super::body::json;
use super::envelope::{self, Envelope};
use super::rows::Rows;
use super::transport::{Call, ResponseBody, Transport};
use super::{Endpoint, Error, Failure, LIST_ATTEMPTS, RequestId, report_rows};

/// Maximum number of pages in a list, so that an endless list does not exhaust memory. With the API's fifty rows per
/// page, this is enough for a hundred thousand customers.
const MAX_PAGES: usize = 2_000;

/// Member that contains the rows of a list.
const LIST: &str = "value";

/// Maximum length of a link to the next page, in bytes: the longest URL that most servers accept. Links are stored to
/// detect repetitions.
const MAX_LINK_BYTES: usize = 8 << 10;

/// Scopes of API v1.
pub mod scope {
    /// Permission to read the customer list.
    pub const CUSTOMERS: &str = "partner.customers.read.all";
    /// Permission to read subscriptions.
    pub const LICENSES: &str = "partner.license.read.all";
    /// Permission to read job runs.
    pub const JOBS: &str = "partner.jobs.read.all";
    /// Permission to read protected data.
    pub const PROTECTED: &str = "partner.cbprotected.read.all";
    /// Permission to read scan profiles and their daily reports.
    pub const SCAN_PROFILES: &str = "partner.scanprofiles.read.all";
}

/// A client for API v1.
#[derive(Clone, Debug)]
pub struct Client {
    transport: Transport,
    /// `/partner`, or the older `/partner/api/V1.1`.
    base_path: String,
}

impl Client {
    /// Creates a client for the resources under `base_path`, which is relative to the transport's base URL.
    pub fn new(transport: Transport, base_path: &str) -> Self {
        Self {
            transport,
            base_path: base_path.to_owned(),
        }
    }

    pub(super) fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Fetches all pages of a list and returns their rows.
    ///
    /// # Errors
    /// Returns the first error, or [`Error::Incomplete`] if pages or rows are repeated, or if a page states a total
    /// that exceeds the number of fetched rows.
    pub async fn fetch_list(
        &self,
        endpoint: Endpoint,
        scope: &'static str,
        path: &[&str],
    ) -> Result<Vec<Box<RawValue>>, Failure> {
        let mut request_id = None;
        let rows = self.fetch_complete_list(endpoint, scope, path, &mut request_id).await;
        report_rows(&self.transport, endpoint, rows, request_id)
    }

    /// Fetches one entity. The response can be the entity itself or a list. Returns no rows for a 204.
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
            let call = Call::get(endpoint, scope, self.url(path)?);
            let ResponseBody::Content(mut body) = self.transport.call(&call, &mut request_id).await? else {
                return Ok(Vec::new());
            };
            let body = json(&mut body)?;
            match Envelope::read(body, LIST) {
                Ok(envelope) if envelope.rows.is_some() => single_page_rows(envelope),
                _ => parse_entity(body),
            }
        };
        let rows = rows.await;
        report_rows(&self.transport, endpoint, rows, request_id)
    }

    async fn fetch_complete_list(
        &self,
        endpoint: Endpoint,
        scope: &'static str,
        path: &[&str],
        request_id: &mut Option<RequestId>,
    ) -> Result<Vec<Box<RawValue>>, Error> {
        let hashes = RandomState::new();
        let mut before = None;
        for _ in 0..LIST_ATTEMPTS {
            let fetched = self.fetch_pages(endpoint, scope, path, &hashes, request_id).await?;
            let matches_total = fetched.min_total.is_none_or(|count| count <= fetched.rows.len());
            // Rows that move to a later page between two requests are fetched twice, and others may be missed. If both
            // fetches of the list repeat the same rows, the list itself contains them twice.
            if matches_total && (fetched.repeated.is_empty() || before.as_ref() == Some(&fetched.repeated)) {
                return Ok(fetched.rows.into_vec());
            }
            before = Some(fetched.repeated);
        }
        Err(Error::Incomplete("rows are missing or repeated"))
    }

    async fn fetch_pages(
        &self,
        endpoint: Endpoint,
        scope: &'static str,
        path: &[&str],
        hashes: &RandomState,
        request_id: &mut Option<RequestId>,
    ) -> Result<FetchedPages, Error> {
        let first = self.url(path)?;
        let mut seen = HashSet::from([first.clone()]);
        let mut url = first;
        let mut fetched = FetchedPages::default();
        let mut seen_rows = HashSet::new();
        for _ in 0..MAX_PAGES {
            let call = Call::get(endpoint, scope, url.clone());
            let mut body = match self.transport.call(&call, request_id).await? {
                ResponseBody::Content(body) => body,
                ResponseBody::Empty if fetched.rows.is_empty() => return Ok(fetched),
                ResponseBody::Empty => return Err(Error::Incomplete("an expected page is empty")),
            };
            let body = json(&mut body)?;
            if body.first() == Some(&b'[') {
                // The API v1 reference does not mention bare arrays, but a server may send one.
                fetched
                    .rows
                    .extend(serde_json::from_slice(body).map_err(|_| Error::Decode("JSON"))?)?;
                return Ok(fetched);
            }
            let page = Envelope::read(body, LIST)?;
            fetched.min_total = fetched.min_total.max(page.min_total);
            let page_rows = page
                .rows
                .ok_or(Error::Decode("an object with a list under \"value\""))?
                .rows()?;
            let page_hashes: Vec<u64> = page_rows.iter().map(|row| hashes.hash_one(row.get())).collect();
            let is_seen = |hash: &&u64| seen_rows.contains(*hash);
            // A server may repeat a page under new links.
            if !page_rows.is_empty() && page_hashes.iter().all(|hash| is_seen(&hash)) {
                return Err(Error::Incomplete("a page was repeated"));
            }
            fetched.repeated.extend(page_hashes.iter().filter(is_seen));
            seen_rows.extend(page_hashes);
            for row in page_rows {
                fetched.rows.push(row)?;
            }
            let Some(link) = page.link else {
                return Ok(fetched);
            };
            if link.len() > MAX_LINK_BYTES {
                return Err(Error::Incomplete("the link to the next page is too long"));
            }
            url = self.follow(&url, &link)?;
            if !seen.insert(url.clone()) {
                return Err(Error::Incomplete("a page links to an earlier page"));
            }
        }
        Err(Error::Incomplete("too many pages"))
    }

    /// Returns the URL of the next page, which must have the scheme, host and port of the base URL, and no credentials.
    fn follow(&self, from: &Url, link: &str) -> Result<Url, Error> {
        let mut url = from.join(link).map_err(|_| Error::ForeignLink)?;
        // Fragments are not sent, so links that differ only in the fragment refer to the same page.
        url.set_fragment(None);
        let is_same_origin =
            url.origin() == self.transport.base_url().origin() && url.username().is_empty() && url.password().is_none();
        if is_same_origin {
            Ok(url)
        } else {
            Err(Error::ForeignLink)
        }
    }

    fn url(&self, path: &[&str]) -> Result<Url, Error> {
        super::url(self.transport.base_url(), &self.base_path, path)
    }
}

/// Result of fetching the pages of a list.
#[derive(Default)]
struct FetchedPages {
    rows: Rows,
    /// Hashes of the rows that repeat a row of an earlier page.
    repeated: HashSet<u64>,
    /// Lower bound for the total: the largest count stated by any page.
    min_total: Option<usize>,
}

/// Returns the rows of a list with a single page.
///
/// # Errors
/// Returns [`Error::Incomplete`] if there is another page, or if the page states a total that exceeds its number of
/// rows.
pub(super) fn single_page_rows(page: Envelope<'_>) -> Result<Vec<Box<RawValue>>, Error> {
    let mut rows = Rows::default();
    rows.extend(page.rows.ok_or(Error::Decode("a list"))?)?;
    if page.link.is_some() || page.min_total.is_some_and(|count| count > rows.len()) {
        return Err(Error::Incomplete("more than one page"));
    }
    Ok(rows.into_vec())
}

/// Parses a body that is a single object, and returns it as the only row.
pub(super) fn parse_entity(body: &[u8]) -> Result<Vec<Box<RawValue>>, Error> {
    let json: Box<RawValue> = serde_json::from_slice(body).map_err(|_| Error::Decode("JSON"))?;
    if !json.get().starts_with('{') {
        return Err(Error::Decode("a JSON object"));
    }
    envelope::reject_failure(&json)?;
    Ok(vec![json])
}
