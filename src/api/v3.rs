//! The second generation: filters in a body, lists under `data`, pages by number.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::rows::{Page, Rows};
use super::transport::{Answer, Call, Transport};
use super::wire::field;
use super::{Endpoint, Error, Failure, json, v1};

/// Where the second generation lives below the base.
const BASE_PATH: &str = "/partner/external/v3/general";

/// Rows a page: the most that the API gives.
const PAGE_SIZE: usize = 100;

/// Rows a page where a server does not heed what we ask for.
const DEFAULT_PAGE_SIZE: usize = 50;

/// The most pages of one list: a fleet of two hundred thousand. A list without end must not take memory without end.
const MAX_PAGES: usize = 2_000;

/// How often a list whose total and rows disagree is walked. Customers come and go between two pages; twice in a row
/// it is something else.
const WALKS: usize = 2;

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
}

/// A client of the second generation.
#[derive(Clone, Debug)]
pub struct Client {
    transport: Transport,
}

/// A list to ask for.
#[derive(Clone, Copy, Debug)]
pub struct List<'a> {
    /// What is asked for.
    pub endpoint: Endpoint,
    /// The scope that it needs.
    pub scope: &'static str,
    /// The segments below the base path.
    pub path: &'a [&'a str],
    /// The JSON filter of a POST; a GET where there is none.
    pub filter: Option<&'a str>,
    /// The field that tells rows apart, where rows have one, to notice a server that gives a page twice.
    pub key: Option<&'static str>,
}

impl Client {
    /// A client below the transport's base.
    pub fn new(transport: Transport) -> Self {
        Self { transport }
    }

    pub(super) fn transport(&self) -> &Transport {
        &self.transport
    }

    /// All rows of a list, every page.
    ///
    /// # Errors
    /// The first error, or [`Error::Incomplete`] where pages repeat or rows are fewer or more than the total says;
    /// then none of the rows count.
    pub async fn list(&self, list: List<'_>) -> Result<Vec<Box<RawValue>>, Failure> {
        let mut outcome = Err(Error::Incomplete("its total and its rows disagree"));
        for _ in 0..WALKS {
            outcome = self.walk(&list).await;
            if !matches!(outcome, Err(Error::Incomplete(_))) {
                break;
            }
        }
        outcome.map_err(|error| error.at(list.endpoint))
    }

    /// One entity, bare or under `data`. Empty after a 204.
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
            let url = super::url(self.transport.base_url(), BASE_PATH, path)?;
            let call = Call {
                endpoint,
                url,
                body: None,
                scope,
            };
            let Answer::Body(body) = self.transport.call(&call).await? else {
                return Ok(Vec::new());
            };
            let body = json(&body)?;
            match serde_json::from_slice::<Wrapped<'_>>(body) {
                Ok(Wrapped { data: Some(data) }) if data.get().starts_with('{') => Ok(vec![data.to_owned()]),
                Ok(Wrapped { data: Some(data) }) if data.get().starts_with('[') => {
                    v1::owned(serde_json::from_str(data.get()).map_err(|_| Error::Decode("JSON"))?)
                }
                _ => v1::entity(body),
            }
        };
        read.await.map_err(|error: Error| error.at(endpoint))
    }

    async fn walk(&self, list: &List<'_>) -> Result<Vec<Box<RawValue>>, Error> {
        let mut rows = Rows::default();
        let mut seen = HashSet::new();
        // What tells rows apart is kept as a hash: of a list without a key it would be all of it a second time.
        let hashes = RandomState::new();
        for index in 1..=MAX_PAGES {
            let body = match self.transport.call(&self.page(list, index)?).await? {
                Answer::Body(body) => body,
                Answer::Empty if index == 1 => return Ok(rows.into_vec()),
                Answer::Empty => return Err(Error::Incomplete("a page that should be there is empty")),
            };
            let page = Envelope::read(json(&body)?)?;
            let size = page.rows.len();
            let identities: Vec<u64> = page
                .rows
                .iter()
                .map(|row| hashes.hash_one(identity(row, list.key)))
                .collect();
            let repeated = size > 0 && identities.iter().all(|identity| seen.contains(identity));
            match (repeated, page.total) {
                (false, _) => {}
                // A bare array of just one page's size may be all there is, from a server that does not page.
                (true, None) if index == 2 => return Ok(rows.into_vec()),
                (true, _) => return Err(Error::Incomplete("the same page came again")),
            }
            for (row, identity) in page.rows.into_iter().zip(&identities) {
                // Rows that moved to a later page while we walked come twice; the total then shows what was missed.
                if list.key.is_none() || !seen.contains(identity) {
                    rows.push(row)?;
                }
            }
            seen.extend(identities);
            match page.total {
                Some(total) if size == 0 || rows.len() >= total => return whole(rows, total),
                None if ![PAGE_SIZE, DEFAULT_PAGE_SIZE].contains(&size) => return Ok(rows.into_vec()),
                _ => {}
            }
        }
        Err(Error::Incomplete("it has more pages than any honest list"))
    }

    fn page(&self, list: &List<'_>, index: usize) -> Result<Call, Error> {
        let mut url = super::url(self.transport.base_url(), BASE_PATH, list.path)?;
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

fn whole(rows: Rows, total: usize) -> Result<Vec<Box<RawValue>>, Error> {
    if total == rows.len() {
        Ok(rows.into_vec())
    } else {
        Err(Error::Incomplete("its total and its rows disagree"))
    }
}

/// What tells a row from another: its key where it has one, else all of it.
fn identity<'a>(row: &'a RawValue, key: Option<&str>) -> &'a str {
    key.and_then(|key| field(row, key)).unwrap_or(row).get()
}

#[derive(Deserialize)]
struct Wrapped<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// A page: its rows, and how many the whole list has.
struct Envelope<'a> {
    rows: Vec<&'a RawValue>,
    total: Option<usize>,
}

impl<'a> Envelope<'a> {
    /// A page in its envelope, or a bare array, as some lists have been seen.
    fn read(body: &'a [u8]) -> Result<Self, Error> {
        if body.first() == Some(&b'[') {
            let page: Page<'a> = serde_json::from_slice(body).map_err(|_| Error::Decode("JSON"))?;
            let rows = page.rows()?;
            return Ok(Self { rows, total: None });
        }
        let envelope: Fields<'a> =
            serde_json::from_slice(body).map_err(|_| Error::Decode("a JSON list under \"data\""))?;
        let total = envelope
            .metadata
            .and_then(|metadata| metadata.total_count)
            .and_then(|total| total.get().trim_matches('"').parse().ok());
        Ok(Self {
            rows: envelope.data.ok_or(Error::Decode("a list under \"data\""))?.rows()?,
            total,
        })
    }
}

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    data: Option<Page<'a>>,
    #[serde(borrow)]
    metadata: Option<Metadata<'a>>,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(rename = "totalCount", borrow)]
    total_count: Option<&'a RawValue>,
}
