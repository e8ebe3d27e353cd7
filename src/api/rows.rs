//! Collects the rows of a list from all its pages, and limits their number and size.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::Error;

/// Maximum total size of a list's rows on all pages. The size limit for bodies applies to one page, and two thousand
/// pages of that size would exhaust memory. The subscriptions of fifty thousand customers take about 175 MB.
pub const MAX_LIST_BYTES: usize = 256 << 20;

/// Maximum number of rows in a list, or in a list within a row: two thousand pages with a hundred rows each. Without a
/// limit, the rows of a body such as `[0,0,0]` would use thirty times the size of the body in memory.
pub const MAX_LIST_ROWS: usize = 200_000;

/// Rows of a list that have been fetched so far.
#[derive(Debug, Default)]
pub(super) struct Rows {
    rows: Vec<Box<RawValue>>,
    bytes: usize,
}

impl Rows {
    /// Adds a row.
    ///
    /// # Errors
    /// Returns an error if the list exceeds its limits.
    pub(super) fn push(&mut self, row: &RawValue) -> Result<(), Error> {
        self.bytes = self.bytes.saturating_add(row.get().len());
        if self.bytes > MAX_LIST_BYTES {
            return Err(Error::TooLarge(MAX_LIST_BYTES));
        }
        if self.rows.len() >= MAX_LIST_ROWS {
            return Err(Error::TooMany(MAX_LIST_ROWS));
        }
        self.rows.push(row.to_owned());
        Ok(())
    }

    /// Adds the rows of a page.
    ///
    /// # Errors
    /// See [`Rows::push`].
    pub(super) fn extend(&mut self, page: Page<'_>) -> Result<(), Error> {
        page.rows()?.into_iter().try_for_each(|row| self.push(row))
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn into_vec(self) -> Vec<Box<RawValue>> {
        self.rows
    }
}

/// A JSON list, with each row as raw JSON. If the list is too long, its rows are discarded.
#[derive(Debug)]
pub(super) enum Page<'a> {
    /// All rows of the list.
    Whole(Vec<&'a RawValue>),
    /// The list has more than [`MAX_LIST_ROWS`] rows.
    TooLong,
}

impl<'a> Page<'a> {
    /// Returns the rows.
    ///
    /// # Errors
    /// Returns an error if there are too many.
    pub(super) fn rows(self) -> Result<Vec<&'a RawValue>, Error> {
        match self {
            Self::Whole(rows) => Ok(rows),
            Self::TooLong => Err(Error::TooMany(MAX_LIST_ROWS)),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Page<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PageVisitor;
        impl<'de> Visitor<'de> for PageVisitor {
            type Value = Page<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut rows = Vec::new();
                while let Some(row) = list.next_element::<&'de RawValue>()? {
                    if rows.len() >= MAX_LIST_ROWS {
                        // The rest is still parsed, so that invalid JSON is reported as such.
                        while list.next_element::<IgnoredAny>()?.is_some() {}
                        return Ok(Page::TooLong);
                    }
                    rows.push(row);
                }
                Ok(Page::Whole(rows))
            }
        }
        deserializer.deserialize_seq(PageVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zeros(count: usize) -> String {
        format!("[{}0]", "0,".repeat(count - 1))
    }

    #[test]
    fn list_has_a_maximum_number_of_rows() {
        let (most, more) = (zeros(MAX_LIST_ROWS), zeros(MAX_LIST_ROWS + 1));
        let page: Page<'_> = serde_json::from_str(&most).unwrap();
        let mut rows = Rows::default();
        rows.extend(page).unwrap();
        assert_eq!(rows.len(), MAX_LIST_ROWS);
        let page: Page<'_> = serde_json::from_str("[0]").unwrap();
        assert!(matches!(rows.extend(page), Err(Error::TooMany(MAX_LIST_ROWS))));
        let page: Page<'_> = serde_json::from_str(&more).unwrap();
        assert!(matches!(page, Page::TooLong));
        assert!(
            serde_json::from_str::<Page<'_>>(&more.replace("0]", "0")).is_err(),
            "a list that is too long must still be valid JSON"
        );
    }

    #[test]
    fn list_has_a_maximum_size_across_pages() {
        let text = format!("\"{}\"", "x".repeat(1 << 20));
        let row: &RawValue = serde_json::from_str(&text).unwrap();
        let mut rows = Rows::default();
        let accepted = (0..1000).take_while(|_| rows.push(row).is_ok()).count();
        assert_eq!(accepted, MAX_LIST_BYTES / text.len());
        assert!(matches!(rows.push(row), Err(Error::TooLarge(MAX_LIST_BYTES))));
    }
}
