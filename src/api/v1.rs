//! First generation: only GET, lists under `value`, further pages by link.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};

use serde_json::value::RawValue;
use url::Url;

use super::body::json;
use super::envelope::{self, Envelope};
use super::rows::Rows;
use super::transport::{Answer, Call, Transport};
use super::{Endpoint, Error, Failure, RequestId, WALKS, report_rows};

/// Maximum pages of one list. At the API's fifty rows per page this is a fleet of a hundred thousand; an endless list
/// must not exhaust the memory.
const MAX_PAGES: usize = 2_000;

/// Member with the rows of a list.
const LIST: &str = "value";

/// Maximum length of a link to the next page, in bytes: the longest URL that servers accept. All links of a list are
/// stored to detect repetitions.
const MAX_LINK_BYTES: usize = 8 << 10;

/// Scopes of the first generation.
pub mod scope {
    /// Customers.
    pub const CUSTOMERS: &str = "partner.customers.read.all";
    /// Subscriptions.
    pub const LICENSES: &str = "partner.license.read.all";
    /// Jobs.
    pub const JOBS: &str = "partner.jobs.read.all";
    /// Protected data.
    pub const PROTECTED: &str = "partner.cbprotected.read.all";
    /// Scan profiles and their daily reports.
    pub const SCAN_PROFILES: &str = "partner.scanprofiles.read.all";
}

/// A client of the first generation.
#[derive(Clone, Debug)]
pub struct Client {
    transport: Transport,
    /// `/partner`, or the older `/partner/api/V1.1`.
    base_path: String,
}

impl Client {
    /// Creates a client below `base_path` of the transport's base URL.
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
    /// Returns the first error, or [`Error::Incomplete`] if a count exceeds the number of fetched rows; no row counts
    /// then.
    pub async fn list(
        &self,
        endpoint: Endpoint,
        scope: &'static str,
        path: &[&str],
    ) -> Result<Vec<Box<RawValue>>, Failure> {
        let mut last = None;
        let rows = self.walk_until_sure(endpoint, scope, path, &mut last).await;
        report_rows(&self.transport, endpoint, rows, last)
    }

    /// Fetches one entity: the bare entity, or the rows of a list. Empty after a 204.
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
            let call = Call::get(endpoint, scope, self.url(path)?);
            let Answer::Body(mut body) = self.transport.call(&call, &mut last).await? else {
                return Ok(Vec::new());
            };
            let body = json(&mut body)?;
            match Envelope::read(body, LIST) {
                Ok(envelope) if envelope.rows.is_some() => only_page(envelope),
                _ => entity(body),
            }
        };
        let rows = read.await;
        report_rows(&self.transport, endpoint, rows, last)
    }

    async fn walk_until_sure(
        &self,
        endpoint: Endpoint,
        scope: &'static str,
        path: &[&str],
        last: &mut Option<RequestId>,
    ) -> Result<Vec<Box<RawValue>>, Error> {
        for _ in 0..WALKS {
            let walked = self.walk(endpoint, scope, path, last).await?;
            if walked.at_least.is_none_or(|count| count <= walked.rows.len()) {
                return Ok(walked.rows.into_vec());
            }
        }
        Err(Error::Incomplete("the total does not match the number of rows"))
    }

    async fn walk(
        &self,
        endpoint: Endpoint,
        scope: &'static str,
        path: &[&str],
        last: &mut Option<RequestId>,
    ) -> Result<Walked, Error> {
        let first = self.url(path)?;
        let mut seen = HashSet::from([first.clone()]);
        let mut url = first;
        let mut walked = Walked::default();
        let (hashes, mut row_hashes) = (RandomState::new(), HashSet::new());
        for _ in 0..MAX_PAGES {
            let call = Call::get(endpoint, scope, url.clone());
            let mut body = match self.transport.call(&call, last).await? {
                Answer::Body(body) => body,
                Answer::Empty if walked.rows.is_empty() => return Ok(walked),
                Answer::Empty => return Err(Error::Incomplete("a page that should be there is empty")),
            };
            let body = json(&mut body)?;
            if body.first() == Some(&b'[') {
                // The reference of this generation has no bare arrays, but servers may send them.
                walked
                    .rows
                    .extend(serde_json::from_slice(body).map_err(|_| Error::Decode("JSON"))?)?;
                return Ok(walked);
            }
            let page = Envelope::read(body, LIST)?;
            walked.at_least = walked.at_least.max(page.at_least);
            let page_rows = page.rows.ok_or(Error::Decode("a list under \"value\""))?.rows()?;
            // Without this check, a server that repeats one page under new links would seem to have no more rows.
            let before = row_hashes.len();
            row_hashes.extend(page_rows.iter().map(|row| hashes.hash_one(row.get())));
            if before > 0 && !page_rows.is_empty() && row_hashes.len() == before {
                return Err(Error::Incomplete("a page was repeated"));
            }
            for row in page_rows {
                walked.rows.push(row)?;
            }
            let Some(link) = page.link else {
                return Ok(walked);
            };
            if link.len() > MAX_LINK_BYTES {
                return Err(Error::Incomplete(
                    "the link to its next page is longer than any address",
                ));
            }
            url = self.follow(&url, &link)?;
            if !seen.insert(url.clone()) {
                return Err(Error::Incomplete("its pages go in a circle"));
            }
        }
        Err(Error::Incomplete("too many pages"))
    }

    /// Returns the URL of the next page, if it has the same scheme, host and port, and no user.
    fn follow(&self, from: &Url, link: &str) -> Result<Url, Error> {
        let mut url = from.join(link).map_err(|_| Error::ForeignLink)?;
        // Fragments are never sent, so links that differ only in them refer to the same page.
        url.set_fragment(None);
        let at_home =
            url.origin() == self.transport.base_url().origin() && url.username().is_empty() && url.password().is_none();
        if at_home { Ok(url) } else { Err(Error::ForeignLink) }
    }

    fn url(&self, path: &[&str]) -> Result<Url, Error> {
        super::url(self.transport.base_url(), &self.base_path, path)
    }
}

/// Result of fetching the pages of a list.
#[derive(Default)]
struct Walked {
    rows: Rows,
    /// The largest count announced by a page.
    at_least: Option<usize>,
}

/// Returns the rows of a list that must have a single page.
///
/// # Errors
/// Returns [`Error::Incomplete`] if a count exceeds the number of rows.
pub(super) fn only_page(page: Envelope<'_>) -> Result<Vec<Box<RawValue>>, Error> {
    let mut rows = Rows::default();
    rows.extend(page.rows.ok_or(Error::Decode("a list"))?)?;
    if page.link.is_some() || page.at_least.is_some_and(|count| count > rows.len()) {
        return Err(Error::Incomplete("there is more of it than one page"));
    }
    Ok(rows.into_vec())
}

/// Parses a body with a single object.
pub(super) fn entity(body: &[u8]) -> Result<Vec<Box<RawValue>>, Error> {
    let json: Box<RawValue> = serde_json::from_slice(body).map_err(|_| Error::Decode("JSON"))?;
    if !json.get().starts_with('{') {
        return Err(Error::Decode("a JSON object"));
    }
    envelope::refuse_failure(&json)?;
    Ok(vec![json])
}
