//! Customer attributes that the operator assigns: tier, region and team.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::{CustomerId, InvalidPattern, Pattern, folded};

/// Characters that make a name a glob.
const GLOB_CHARACTERS: [char; 4] = ['*', '?', '[', '{'];

/// A value for each attribute. Iterators return the values in the order of the fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerAttribute<T> {
    /// Importance of the customer, such as `gold`.
    pub tier: T,
    /// Region of the customer.
    pub region: T,
    /// Team responsible for the customer.
    pub team: T,
}

/// A customer's attributes.
pub type Attributes = PerAttribute<Option<Box<str>>>;

impl Attributes {
    /// The attribute names, as used in labels, columns and configuration keys.
    pub const NAMES: PerAttribute<&'static str> = PerAttribute {
        tier: "tier",
        region: "region",
        team: "team",
    };

    /// Returns the values as text.
    pub fn values(&self) -> PerAttribute<Option<&str>> {
        self.each_ref().map(Option::as_deref)
    }

    /// Returns the distinct values of each attribute.
    pub fn distinct_values<'a>(all: impl Iterator<Item = &'a Self>) -> PerAttribute<BTreeSet<&'a str>> {
        let mut values: PerAttribute<BTreeSet<&str>> = PerAttribute::default();
        for attributes in all {
            for (known, value) in values.iter_mut().zip(attributes.values()) {
                known.extend(value);
            }
        }
        values
    }

    /// Returns whether the customer has no attributes.
    pub fn is_empty(&self) -> bool {
        self.iter().all(Option::is_none)
    }
}

impl<T> PerAttribute<T> {
    /// Returns references to the values.
    pub fn each_ref(&self) -> PerAttribute<&T> {
        PerAttribute {
            tier: &self.tier,
            region: &self.region,
            team: &self.team,
        }
    }

    /// Converts each value.
    pub fn map<U>(self, mut convert: impl FnMut(T) -> U) -> PerAttribute<U> {
        PerAttribute {
            tier: convert(self.tier),
            region: convert(self.region),
            team: convert(self.team),
        }
    }

    /// Converts each value.
    ///
    /// # Errors
    /// Returns the first conversion error.
    pub fn try_map<U, E>(self, mut convert: impl FnMut(T) -> Result<U, E>) -> Result<PerAttribute<U>, E> {
        Ok(PerAttribute {
            tier: convert(self.tier)?,
            region: convert(self.region)?,
            team: convert(self.team)?,
        })
    }

    /// Returns the value of the attribute with this name.
    pub fn get(&self, name: &str) -> Option<&T> {
        Attributes::NAMES
            .into_iter()
            .zip(self.iter())
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
    }

    /// Returns a mutable reference to the value of the attribute with this name.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut T> {
        Attributes::NAMES
            .into_iter()
            .zip(self.iter_mut())
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
    }

    /// Returns the values in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.each_ref().into_iter()
    }

    /// Returns mutable references to the values, in order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        [&mut self.tier, &mut self.region, &mut self.team].into_iter()
    }
}

impl<T> IntoIterator for PerAttribute<T> {
    type Item = T;
    type IntoIter = std::array::IntoIter<T, 3>;

    fn into_iter(self) -> Self::IntoIter {
        [self.tier, self.region, self.team].into_iter()
    }
}

/// Attributes by customer. Each row contains a customer's id, an organization's name, or a glob for the names of
/// organizations. The first matching row applies.
#[derive(Debug, Default)]
pub struct AttributeTable {
    rows: Vec<Arc<Attributes>>,
    /// Index of the first row with each [`folded`] id or name. This is a map, because there may be a row for each
    /// customer.
    names: HashMap<String, usize>,
    globs: Vec<(usize, Pattern)>,
}

impl AttributeTable {
    /// Appends a row. A row without attributes matches no customer, so that it does not hide a later row.
    ///
    /// # Errors
    /// Returns an error if the pattern is not a valid glob.
    pub fn push(&mut self, pattern: &str, attributes: Attributes) -> Result<(), InvalidPattern> {
        let index = self.rows.len();
        let glob = pattern
            .contains(GLOB_CHARACTERS)
            .then(|| Pattern::parse(pattern))
            .transpose()?;
        if attributes.is_empty() {
            return Ok(());
        }
        self.globs.extend(glob.map(|glob| (index, glob)));
        // A glob also matches its own text, so it is added to both collections.
        self.names.entry(folded(pattern)).or_insert(index);
        self.rows.push(Arc::new(attributes));
        Ok(())
    }

    /// Returns the attributes of a customer; `None` if no row matches.
    pub fn of(&self, id: &CustomerId, organization: &str) -> Option<&Arc<Attributes>> {
        let name = folded(organization);
        let by_id = self.names.get(&folded(id.as_str()));
        // An empty name is an unknown name, which matches nothing.
        let by_name = self.names.get(&name).filter(|_| !name.is_empty());
        let named = by_id.into_iter().chain(by_name).min().copied();
        let globs = self.globs.iter().filter(|_| !name.is_empty());
        let glob = globs
            .take_while(|(index, _)| named.is_none_or(|named| *index < named))
            .find(|(_, glob)| glob.matches_folded(&name))
            .map(|(index, _)| *index);
        self.rows.get(glob.or(named)?)
    }

    /// Returns the number of rows with attributes.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Returns whether the table has no row with attributes.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Returns the number of globs.
    pub fn globs(&self) -> usize {
        self.globs.len()
    }

    /// Returns the distinct values of each attribute in all rows.
    pub fn values(&self) -> PerAttribute<BTreeSet<&str>> {
        Attributes::distinct_values(self.rows.iter().map(Arc::as_ref))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "5f0c3a2e-0000-4000-8000-00000000000A";

    fn table(rows: &[(&str, &str)]) -> AttributeTable {
        let mut table = AttributeTable::default();
        for (pattern, tier) in rows {
            let attributes = Attributes {
                tier: (!tier.is_empty()).then(|| Box::from(*tier)),
                ..Attributes::default()
            };
            table.push(pattern, attributes).unwrap();
        }
        table
    }

    fn tier<'a>(table: &'a AttributeTable, id: &str, organization: &str) -> Option<&'a str> {
        let id = CustomerId::parse(id).unwrap();
        table.of(&id, organization)?.tier.as_deref()
    }

    #[test]
    fn first_matching_row_applies_regardless_of_its_kind() {
        let table = table(&[
            ("Contoso E*", "silver"),
            ("contoso europe", "bronze"),
            (&ID.to_lowercase(), "gold"),
            ("Contoso [EU]", "iron"),
            ("*", "rest"),
            ("Fabrikam", "never"),
        ]);
        assert_eq!(tier(&table, "x", "Contoso Europe"), Some("silver"));
        assert_eq!(tier(&table, ID, "Contoso East"), Some("silver"));
        assert_eq!(tier(&table, ID, "Contoso West"), Some("gold"));
        assert_eq!(tier(&table, ID, ""), Some("gold"));
        assert_eq!(tier(&table, "x", "contoso [eu]"), Some("iron"));
        assert_eq!(tier(&table, "x", "Fabrikam"), Some("rest"));
        assert_eq!(tier(&table, "x", " "), None, "an unknown name must match nothing");
        assert_eq!(table.len(), 6);
    }

    #[test]
    fn names_match_in_any_case_and_composition() {
        let table = table(&[
            ("Cafe\u{301} du Nord", "gold"),
            ("MÜLLER*", "silver"),
            ("Contoso [EU]", "iron"),
        ]);
        assert_eq!(tier(&table, "x", " CAF\u{c9} du nord "), Some("gold"));
        assert_eq!(tier(&table, "x", "Müller & Söhne"), Some("silver"));
        assert_eq!(
            tier(&table, "x", "CONTOSO [EU]"),
            Some("iron"),
            "a glob must match its own text"
        );
        assert_eq!(tier(&table, "cafe", "Cafe"), None);
    }

    #[test]
    fn rows_without_attributes_match_no_customer() {
        let table = table(&[(ID, ""), ("Contoso*", "gold")]);
        assert_eq!(tier(&table, ID, "Contoso"), Some("gold"));
        assert_eq!(tier(&table, ID, "Fabrikam"), None);
        assert!(AttributeTable::default().push("[a", Attributes::default()).is_err());
    }
}
