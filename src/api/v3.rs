//! The second generation: filters in a body, lists under `data`, pages by number.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::envelope::Envelope;
use super::rows::{self, Rows};
use super::transport::{Answer, Call, Transport};
use super::wire::field;
use super::{Endpoint, Error, Failure, json, told_rows, v1};

/// Where the second generation lives below the base.
const BASE_PATH: &str = "/partner/external/v3/general";

/// Where the rows of a list stand.
const LIST: &str = "data";

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
        let rows = self.walk_until_sure(&list).await;
        told_rows(&self.transport, list.endpoint, rows)
    }

    async fn walk_until_sure(&self, list: &List<'_>) -> Result<Vec<Box<RawValue>>, Error> {
        let hashes = RandomState::new();
        let mut before = None;
        let mut doubt = Error::Incomplete("its total and its rows disagree");
        for _ in 0..WALKS {
            let walked = match self.walk(list, &hashes).await {
                Err(error @ Error::Incomplete(_)) => {
                    doubt = error;
                    continue;
                }
                walked => walked?,
            };
            // Rows that moved to a later page while we walked come twice, and another is then missed. A list that gives
            // the same rows twice in both walks just holds them twice.
            let same_twice = walked.total == Some(walked.served) && before.as_ref() == Some(&walked.seen);
            let holds_repeats = same_twice && !walked.overlaps;
            let whole = walked.total.is_none_or(|total| total == walked.rows.len());
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
        told_rows(&self.transport, endpoint, read.await)
    }

    async fn walk(&self, list: &List<'_>, hashes: &RandomState) -> Result<Walked, Error> {
        let mut walked = Walked::default();
        for index in 1..=MAX_PAGES {
            let body = match self.transport.call(&self.page(list, index)?).await? {
                Answer::Body(body) => body,
                // Where no total announces more, nothing is what comes after the last page.
                Answer::Empty if walked.total.is_none() => return Ok(walked),
                Answer::Empty => return Err(Error::Incomplete("a page that should be there is empty")),
            };
            let page = Page::read(json(&body)?)?;
            if index > 1 && page.total != walked.total {
                return Err(Error::Incomplete("its total changed while it was walked"));
            }
            let size = page.rows.len();
            let identities: Vec<u64> = page
                .rows
                .iter()
                .map(|row| hashes.hash_one(identity(row, list.key)))
                .collect();
            let repeated = size > 0 && identities.iter().all(|identity| walked.seen.contains(identity));
            match page.total {
                // A bare array of just one page's size may be all there is, from a server that does not page.
                None if repeated && index == 2 => return Ok(walked),
                None if repeated => return Err(Error::Incomplete("the same page came again")),
                // The last page is shorter and may hold nothing but rows that moved there; a whole page is another's.
                Some(_) if repeated && size >= walked.page_size => {
                    return Err(Error::Incomplete("the same page came again"));
                }
                _ => {}
            }
            let last = identities.last().copied();
            walked.overlaps |= walked.last.is_some_and(|last| identities.contains(&last));
            walked.last = last;
            let (total, may_go_on) = (page.total, size > 0 && page.may_go_on(size));
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

/// What one walk over the pages of a list brought.
#[derive(Default)]
struct Walked {
    rows: Rows,
    /// Rows whose key had come before, on an earlier page.
    repeats: Rows,
    /// How many rows came, repeated ones too.
    served: usize,
    /// What tells the rows apart, as hashes: of a list without a key it would be all of it a second time.
    seen: HashSet<u64>,
    /// What tells the last row of the newest page.
    last: Option<u64>,
    /// Whether a page begins before the end of the one before, so that what comes twice has taken the place of others.
    overlaps: bool,
    /// The most rows of a page.
    page_size: usize,
    total: Option<usize>,
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
struct Page<'a> {
    rows: Vec<&'a RawValue>,
    total: Option<usize>,
    /// How many rows a page has, where that is said.
    size: Option<usize>,
    /// Whether it says anything of pages.
    is_paged: bool,
}

impl<'a> Page<'a> {
    /// A page in its envelope, or a bare array, as some lists have been seen.
    fn read(body: &'a [u8]) -> Result<Self, Error> {
        if body.first() == Some(&b'[') {
            let page: rows::Page<'a> = serde_json::from_slice(body).map_err(|_| Error::Decode("JSON"))?;
            let rows = page.rows()?;
            return Ok(Self {
                rows,
                total: None,
                size: None,
                is_paged: false,
            });
        }
        let envelope = Envelope::read(body, LIST)?;
        Ok(Self {
            rows: envelope.rows.ok_or(Error::Decode("a list under \"data\""))?.rows()?,
            total: envelope.total,
            size: envelope.page_size.filter(|size| *size > 0),
            is_paged: envelope.is_paged,
        })
    }

    /// Whether another page may follow this one of so many rows, where no total tells: it is as full as pages are or as
    /// it says that they are, or it speaks of pages and says nothing more.
    fn may_go_on(&self, rows: usize) -> bool {
        let is_full = [PAGE_SIZE, DEFAULT_PAGE_SIZE].contains(&rows);
        is_full || self.is_paged && self.size.is_none_or(|size| rows >= size)
    }
}
