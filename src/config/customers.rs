//! The section `customers`: which of the partner's customers are watched.

use super::error::Error;
use super::layers::Settings;
use super::pattern::Pattern;
use super::setting::Setting;
use crate::domain::looks_like_id;

/// Which customers are watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Customers {
    /// Those to watch; every one where this is empty.
    pub include: Vec<Pattern>,
    /// Those to leave out all the same.
    pub exclude: Vec<Pattern>,
    ids: Vec<String>,
}

impl Customers {
    pub(super) fn read(settings: &Settings) -> Result<Self, Error> {
        let include = settings.read("customers.include", Setting::list)?;
        let exclude = settings.read("customers.exclude", Setting::list)?;
        let include = include.unwrap_or_default();
        Ok(Self {
            ids: ids(&include),
            include: patterns(&include)?,
            exclude: patterns(&exclude.unwrap_or_default())?,
        })
    }

    /// Whether the customer with this id and this name is watched.
    pub fn admits(&self, id: &str, organization: &str) -> bool {
        let names = |pattern: &Pattern| pattern.matches_customer(id, organization);
        (self.include.is_empty() || self.include.iter().any(names)) && !self.exclude.iter().any(names)
    }

    /// The ids of all customers that can be admitted, where the configuration names them by id alone, so that the API need be
    /// asked for no others.
    pub fn ids_only(&self) -> Option<&[String]> {
        let all = !self.include.is_empty() && self.ids.len() == self.include.len();
        all.then_some(self.ids.as_slice())
    }

    /// The customers that the configuration names by id, among whatever else it names.
    pub fn ids(&self) -> &[String] {
        &self.ids
    }
}

fn patterns(items: &[Setting]) -> Result<Vec<Pattern>, Error> {
    items.iter().map(Pattern::read).collect()
}

fn ids(items: &[Setting]) -> Vec<String> {
    items
        .iter()
        .filter_map(|item| item.text().ok())
        .filter(|text| looks_like_id(text))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::config::tests::{from_file, message};

    const ID: &str = "5f0c3a2e-0000-4000-8000-00000000000A";
    const OTHER: &str = "5f0c3a2e-0000-4000-8000-00000000000b";

    fn customers(keys: &str) -> Customers {
        from_file(&format!(
            "auth: {{client_id: demo, client_secret: x}}\ncustomers: {{{keys}}}"
        ))
        .unwrap()
        .customers
    }

    #[test]
    fn admits_everyone_by_default() {
        assert!(customers("").admits(ID, "Contoso"));
        assert!(customers("include: []").admits(ID, "Contoso"));
    }

    #[test]
    fn exclusion_wins() {
        let customers = customers(&format!("include: [{ID}, 'Cont*'], exclude: ['*oso', {OTHER}]"));
        assert!(customers.admits(ID, "Fabrikam"));
        assert!(customers.admits("x", "Continental"));
        assert!(!customers.admits("x", "Contoso"));
        assert!(!customers.admits(OTHER, "Continental"));
        assert!(!customers.admits("x", "Fabrikam"));
    }

    #[test]
    fn knows_when_ids_suffice() {
        let ids = |keys: &str| customers(keys).ids_only().map(<[String]>::to_vec);
        assert_eq!(
            ids(&format!("include: [{ID}, {OTHER}]")),
            Some(vec![ID.to_owned(), OTHER.to_owned()])
        );
        assert_eq!(ids(&format!("include: [{ID}, Contoso]")), None);
        assert_eq!(ids("include: [face-bed]"), None);
        assert_eq!(ids("include: [faceb00cfaceb00cfaceb00c]"), None);
        assert_eq!(ids(&format!("exclude: [{ID}]")), None);
    }

    #[test]
    fn refuses_what_is_no_glob() {
        let shown = message(from_file("customers: {include: [Contoso, '[a']}"));
        assert!(
            shown.starts_with("elements.yml: customers.include[1]: \"[a\" is not a glob ("),
            "{shown}"
        );
        assert!(
            shown.ends_with("); expected a name, in which * stands for anything"),
            "{shown}"
        );
    }
}
