//! The query parameters of the status pages.

use url::form_urlencoded;

use super::ROOT;
use crate::domain::{Attributes, PerAttribute};
use crate::status::CustomerHealth;

/// Parsed query of a status page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::http) struct PageQuery {
    pub(super) text: String,
    pub(super) health: Option<CustomerHealth>,
    /// Selected values of the customers' attributes.
    pub(super) attributes: PerAttribute<Option<String>>,
    /// Page number, starting at 1.
    pub(super) page: usize,
    /// Whether the page refreshes automatically.
    pub(super) is_live: bool,
}

impl PageQuery {
    /// Parses a query. Unknown parameters are ignored, and defaults replace invalid values.
    pub(in crate::http) fn parse(query: Option<&str>) -> Self {
        let mut parsed = Self {
            text: String::new(),
            health: None,
            attributes: PerAttribute::default(),
            page: 1,
            is_live: true,
        };
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match name.as_ref() {
                "q" => parsed.text = value.trim().to_owned(),
                "show" => parsed.health = CustomerHealth::ALL.into_iter().find(|health| health.word() == value),
                "page" => parsed.page = value.parse().unwrap_or(1).max(1),
                "live" => parsed.is_live = value != "off",
                name => {
                    if let Some(selected) = parsed.attributes.get_mut(name) {
                        *selected = Some(value.into_owned()).filter(|value| !value.is_empty());
                    }
                }
            }
        }
        parsed
    }

    /// Returns the link to the page with this query.
    pub(super) fn link(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        if !self.text.is_empty() {
            query.append_pair("q", &self.text);
        }
        if let Some(health) = self.health {
            query.append_pair("show", health.word());
        }
        for (name, selected) in Attributes::NAMES.iter().zip(self.attributes.iter()) {
            if let Some(selected) = selected {
                query.append_pair(name, selected);
            }
        }
        if self.page > 1 {
            query.append_pair("page", &self.page.to_string());
        }
        if !self.is_live {
            query.append_pair("live", "off");
        }
        match query.finish() {
            query if query.is_empty() => ROOT.to_owned(),
            query => format!("?{query}"),
        }
    }

    /// Returns the link to a page of the customers with this health, or of all customers if `health` is `None`.
    pub(super) fn link_to(&self, health: Option<CustomerHealth>, page: usize) -> String {
        let query = Self {
            health,
            page,
            ..self.clone()
        };
        query.link()
    }

    /// Returns the link to the same page with automatic refresh switched on or off.
    pub(super) fn link_live(&self, is_live: bool) -> String {
        let query = Self {
            is_live,
            ..self.clone()
        };
        query.link()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_parsed_and_invalid_parts_skipped() {
        let query = PageQuery::parse(Some(
            "q=a%26b+c&show=outdated&page=3&live=off&x=1&%ff&tier=gold&region=&team=A%26B",
        ));
        let attributes = query.attributes.each_ref().map(Option::as_deref);
        let expected = PerAttribute {
            tier: Some("gold"),
            region: None,
            team: Some("A&B"),
        };
        assert_eq!(attributes, expected);
        assert_eq!(query.text, "a&b c");
        assert_eq!(
            (query.health, query.page, query.is_live),
            (Some(CustomerHealth::Outdated), 3, false)
        );
        assert_eq!(PageQuery::parse(Some(query.link().trim_start_matches('?'))), query);
        for query in ["page=0", "page=-1", "page=99999999999999999999", "show=x", ""] {
            assert_eq!(PageQuery::parse(Some(query)), PageQuery::parse(None), "{query}");
        }
        assert_eq!(PageQuery::parse(None).link(), "./");
    }
}
