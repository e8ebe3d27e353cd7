//! The first generation: GET everywhere, lists under `value`, further pages by link.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};

use serde_json::value::RawValue;
use url::Url;

use super::envelope::Envelope;
use super::rows::{Page, Rows};
use super::transport::{Answer, Call, Transport};
use super::{Endpoint, Error, Failure, json, told_rows};

/// The most pages of one list. At the fifty rows that the API gives a page this is a fleet of a hundred thousand; a
/// list without end must not take memory without end.
const MAX_PAGES: usize = 2_000;

/// Where the rows of a list stand.
const LIST: &str = "value";

/// The longest link to a further page, in bytes: the longest address that servers take. All links of a list are kept,
/// to notice one that comes again.
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
    /// A client below `base_path` of the transport's base.
    pub fn new(transport: Transport, base_path: &str) -> Self {
        Self {
            transport,
            base_path: base_path.to_owned(),
        }
    }

    pub(super) fn transport(&self) -> &Transport {
        &self.transport
    }

    /// All rows of a list, every page.
    ///
    /// # Errors
    /// The first error; then none of the rows count.
    pub async fn list(
        &self,
        endpoint: Endpoint,
        scope: &'static str,
        path: &[&str],
    ) -> Result<Vec<Box<RawValue>>, Failure> {
        let rows = self.walk(endpoint, scope, path).await;
        told_rows(&self.transport, endpoint, rows)
    }

    /// What a path for one entity answers: the bare entity, or the rows where it comes as a list. Empty after a 204.
    ///
    /// # Errors
    /// As [`Client::list`].
    pub async fn entity(
        &self,
        endpoint: Endpoint,
        scope: &'static str,
        path: &[&str],
    ) -> Result<Vec<Box<RawValue>>, Failure> {
        let read = async {
            let call = self.call(endpoint, scope, self.url(path)?);
            let Answer::Body(body) = self.transport.call(&call).await? else {
                return Ok(Vec::new());
            };
            let body = json(&body)?;
            match Envelope::read(body, LIST) {
                Ok(Envelope { rows: Some(page), .. }) => owned(page),
                _ => entity(body),
            }
        };
        told_rows(&self.transport, endpoint, read.await)
    }

    async fn walk(&self, endpoint: Endpoint, scope: &'static str, path: &[&str]) -> Result<Vec<Box<RawValue>>, Error> {
        let first = self.url(path)?;
        let mut seen = HashSet::from([first.clone()]);
        let mut url = first;
        let mut rows = Rows::default();
        let (hashes, mut told) = (RandomState::new(), HashSet::new());
        for _ in 0..MAX_PAGES {
            let call = self.call(endpoint, scope, url.clone());
            let body = match self.transport.call(&call).await? {
                Answer::Body(body) => body,
                Answer::Empty if rows.is_empty() => return Ok(rows.into_vec()),
                Answer::Empty => return Err(Error::Incomplete("a page that should be there is empty")),
            };
            let body = json(&body)?;
            if body.first() == Some(&b'[') {
                // A bare array is not in the reference of this generation, but a list it is.
                rows.extend(serde_json::from_slice(body).map_err(|_| Error::Decode("JSON"))?)?;
                return Ok(rows.into_vec());
            }
            let page = Envelope::read(body, LIST)?;
            let page_rows = page.rows.ok_or(Error::Decode("a list under \"value\""))?.rows()?;
            // A server that gives one page again and again under new links would else look like one that has no more.
            let before = told.len();
            told.extend(page_rows.iter().map(|row| hashes.hash_one(row.get())));
            if before > 0 && !page_rows.is_empty() && told.len() == before {
                return Err(Error::Incomplete("the same page came again"));
            }
            for row in page_rows {
                rows.push(row)?;
            }
            let Some(link) = page.link else {
                return Ok(rows.into_vec());
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
        Err(Error::Incomplete("it has more pages than any honest list"))
    }

    /// The next page, if it is where we are: same scheme, host and port, and no user in it.
    fn follow(&self, from: &Url, link: &str) -> Result<Url, Error> {
        let mut url = from.join(link).map_err(|_| Error::ForeignLink)?;
        // A fragment is never sent, so that links that differ in it alone lead to one page.
        url.set_fragment(None);
        let at_home =
            url.origin() == self.transport.base_url().origin() && url.username().is_empty() && url.password().is_none();
        if at_home { Ok(url) } else { Err(Error::ForeignLink) }
    }

    fn url(&self, path: &[&str]) -> Result<Url, Error> {
        super::url(self.transport.base_url(), &self.base_path, path)
    }

    fn call(&self, endpoint: Endpoint, scope: &'static str, url: Url) -> Call {
        Call {
            endpoint,
            url,
            body: None,
            scope,
        }
    }
}

/// The rows of a list that is one page.
pub(super) fn owned(page: Page<'_>) -> Result<Vec<Box<RawValue>>, Error> {
    let mut rows = Rows::default();
    rows.extend(page)?;
    Ok(rows.into_vec())
}

/// A body that is one object.
pub(super) fn entity(body: &[u8]) -> Result<Vec<Box<RawValue>>, Error> {
    let json: Box<RawValue> = serde_json::from_slice(body).map_err(|_| Error::Decode("JSON"))?;
    if json.get().starts_with('{') {
        Ok(vec![json])
    } else {
        Err(Error::Decode("a JSON object"))
    }
}
