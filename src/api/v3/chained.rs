//! Lists whose pages are chained: each page contains the token for the next page.

use std::collections::BTreeSet;

use serde_json::value::RawValue;

use super::{Client, LIST, base_path};
use crate::api::body::json;
use crate::api::envelope::Envelope;
use crate::api::rows::Rows;
use crate::api::transport::{Call, ResponseBody};
use crate::api::{Endpoint, Error, Failure, RequestId, url};

/// The pages of a chained list, fetched one at a time, so that only one page is in memory.
#[derive(Debug)]
pub struct ChainedPages<'a> {
    client: &'a Client,
    endpoint: Endpoint,
    scope: &'static str,
    path: &'a [&'a str],
    page_size: usize,
    next: NextPage,
    seen_tokens: BTreeSet<String>,
    /// Number of rows fetched so far.
    rows: usize,
    /// Total number of rows according to the first page that states it.
    total: Option<usize>,
}

#[derive(Debug)]
enum NextPage {
    First,
    Token(String),
    None,
}

/// A parsed page.
#[derive(Default)]
struct Page {
    rows: Vec<Box<RawValue>>,
    next: Option<String>,
    total: Option<usize>,
}

impl Client {
    /// Returns the pages of a chained list, with at most `page_size` rows each.
    pub fn chained_pages<'a>(
        &'a self,
        (endpoint, scope): (Endpoint, &'static str),
        path: &'a [&'a str],
        page_size: usize,
    ) -> ChainedPages<'a> {
        ChainedPages {
            client: self,
            endpoint,
            scope,
            path,
            page_size,
            next: NextPage::First,
            seen_tokens: BTreeSet::new(),
            rows: 0,
            total: None,
        }
    }
}

impl ChainedPages<'_> {
    /// Fetches the next page and returns its rows. Returns `None` after the last page.
    ///
    /// # Errors
    /// Returns an error if the page cannot be fetched or parsed, or [`Error::Incomplete`] if a page is repeated or the
    /// number of rows differs from the total.
    pub async fn next_page(&mut self) -> Result<Option<Vec<Box<RawValue>>>, Failure> {
        let token = match std::mem::replace(&mut self.next, NextPage::None) {
            NextPage::First => None,
            NextPage::Token(token) => Some(token),
            NextPage::None => return Ok(None),
        };
        let mut request_id = None;
        let page = self.fetch_page(token.as_deref(), &mut request_id).await;
        let page = page.map_err(|error| Failure {
            request_id,
            ..error.at(self.endpoint)
        })?;
        self.client.transport().observer().rows(self.endpoint, page.rows.len());
        self.rows += page.rows.len();
        self.total = self.total.or(page.total);
        let is_last = page.rows.is_empty() || self.total.is_some_and(|total| self.rows >= total);
        // The last page may also contain a token.
        if let Some(token) = page.next.filter(|_| !is_last) {
            if !self.seen_tokens.insert(token.clone()) {
                return Err(Error::Incomplete("a page was repeated").at(self.endpoint));
            }
            self.next = NextPage::Token(token);
        }
        if self.is_complete() && self.total.is_some_and(|total| total != self.rows) {
            return Err(Error::Incomplete("the total does not match the number of rows").at(self.endpoint));
        }
        Ok(Some(page.rows))
    }

    /// Returns whether all pages have been fetched.
    pub fn is_complete(&self) -> bool {
        matches!(self.next, NextPage::None)
    }

    async fn fetch_page(&self, token: Option<&str>, request_id: &mut Option<RequestId>) -> Result<Page, Error> {
        let transport = self.client.transport();
        let mut url = url(transport.base_url(), base_path(self.endpoint), self.path)?;
        url.query_pairs_mut()
            .append_pair("pageSize", &self.page_size.to_string());
        if let Some(token) = token {
            url.query_pairs_mut().append_pair("skipToken", token);
        }
        let call = Call::get(self.endpoint, self.scope, url);
        let ResponseBody::Content(mut body) = transport.call(&call, request_id).await? else {
            return match token {
                None => Ok(Page::default()),
                Some(_) => Err(Error::Incomplete("an expected page is empty")),
            };
        };
        let envelope = Envelope::read(json(&mut body)?, LIST)?;
        let mut rows = Rows::default();
        rows.extend(
            envelope
                .rows
                .ok_or(Error::Decode("an object with a list under \"data\""))?,
        )?;
        Ok(Page {
            rows: rows.into_vec(),
            next: envelope.skip_token,
            total: envelope.total,
        })
    }
}
