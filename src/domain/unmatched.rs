//! Patterns in the configuration that match no known name, for example because of a typo.

use std::collections::{BTreeSet, HashSet};

use super::module::{module_names, service_names};
use super::spelling::nearest_glob as nearest;
use super::{
    AttributeTable, Attributes, CustomerFilter, CustomerId, Override, Pattern, PerAttribute, Timestamp, folded,
};

/// Names that patterns can match.
#[derive(Clone, Debug, Default)]
pub struct KnownNames {
    /// Ids and organizations of all customers, monitored or not.
    customers: Vec<(String, String)>,
    services: BTreeSet<String>,
    modules: BTreeSet<String>,
    scopes: BTreeSet<String>,
    products: BTreeSet<String>,
    /// Values of each customer attribute.
    attributes: PerAttribute<BTreeSet<String>>,
}

/// The kind of name that a pattern matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Customer,
    /// The attribute with this name.
    Attribute(&'static str),
    Service,
    Module,
    Scope,
    Product,
}

/// A pattern that matches no known name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnmatchedPattern {
    /// The configuration key, such as `rpo.overrides[2].module`.
    pub key: String,
    /// The pattern as written.
    pub pattern: String,
    subject: Subject,
}

impl UnmatchedPattern {
    /// Returns whether the pattern is for customers.
    pub fn is_customer(&self) -> bool {
        self.subject == Subject::Customer
    }

    /// Returns whether the pattern is for backup scopes.
    pub fn is_scope(&self) -> bool {
        self.subject == Subject::Scope
    }

    /// Returns the end of the sentence "The pattern matches …", such as "no customer".
    pub fn what(&self) -> &'static str {
        match self.subject {
            Subject::Customer => "no customer",
            Subject::Attribute(_) => "no row in customers.attributes_file",
            Subject::Service => "no service",
            Subject::Module => "no module",
            Subject::Scope => "no backup scope",
            Subject::Product => "no product",
        }
    }
}

impl KnownNames {
    /// Adds a customer.
    pub fn add_customer(&mut self, id: &CustomerId, organization: &str) {
        self.customers.push((id.as_str().to_owned(), organization.to_owned()));
    }

    /// Adds the attribute values in a table.
    pub fn add_attributes(&mut self, table: &AttributeTable) {
        for (known, values) in self.attributes.iter_mut().zip(table.values()) {
            known.extend(values.into_iter().map(str::to_owned));
        }
    }

    /// Adds the names of a customer's module, its service and, if it has one, its backup scope.
    pub fn add_module(&mut self, service: &str, module: &str, scope: Option<&str>) {
        let named = [
            (&mut self.services, Some(service)),
            (&mut self.modules, Some(module)),
            (&mut self.scopes, scope),
        ];
        for (names, name) in named {
            if let Some(name) = name.filter(|name| !names.contains(*name)) {
                names.insert(name.to_owned());
            }
        }
    }

    /// Adds a product that a customer has bought.
    pub fn add_product(&mut self, name: &str) {
        if !self.products.contains(name) {
            self.products.insert(name.to_owned());
        }
    }

    /// Returns the patterns of a key that match no product, or no patterns if no product is known.
    pub fn unmatched_products(&self, key: &str, patterns: &[Pattern]) -> BTreeSet<UnmatchedPattern> {
        let is_known = |pattern: &Pattern| self.products.iter().any(|name| pattern.matches_product(name));
        let unmatched = patterns.iter().enumerate().filter(|(_, pattern)| !is_known(pattern));
        let unmatched = unmatched.map(|(index, pattern)| UnmatchedPattern {
            key: format!("{key}[{index}]"),
            pattern: pattern.written().to_owned(),
            subject: Subject::Product,
        });
        match self.products.is_empty() {
            true => BTreeSet::new(),
            false => unmatched.collect(),
        }
    }

    /// Adds the services and modules in the vendor's reference.
    pub fn add_reference(&mut self) {
        self.services.extend(service_names().map(str::to_owned));
        self.modules.extend(module_names().map(str::to_owned));
    }

    /// Checks the patterns of the filter and of the overrides that have not ended. Returns the patterns that match no
    /// known name. Patterns for services, modules and scopes are checked only if at least one module is known.
    pub fn unmatched(
        &self,
        filter: &CustomerFilter,
        overrides: &[Override],
        now: Timestamp,
    ) -> BTreeSet<UnmatchedPattern> {
        let folded_customers: Vec<_> = self
            .customers
            .iter()
            .map(|(id, name)| (folded(id), folded(name)))
            .collect();
        let texts: HashSet<&str> = folded_customers
            .iter()
            .flat_map(|(id, name)| [id.as_str(), name.as_str()])
            .collect();
        // A customer whose name is unknown matches no pattern by name.
        let names = || {
            folded_customers
                .iter()
                .map(|(_, name)| name)
                .filter(|name| !name.is_empty())
        };
        let is_customer = |pattern: &Pattern| {
            // Ids are looked up in a set, because there may be thousands of ids among the patterns.
            texts.contains(pattern.as_str()) || names().any(|name| pattern.matches_folded(name))
        };
        let mut unmatched = BTreeSet::new();
        let mut check = |key: String, pattern: &Pattern, subject, is_matched: bool| {
            if !is_matched {
                unmatched.insert(UnmatchedPattern {
                    key,
                    pattern: pattern.written().to_owned(),
                    subject,
                });
            }
        };
        for (key, patterns) in [
            ("customers.include", &filter.include),
            ("customers.exclude", &filter.exclude),
        ] {
            for (index, pattern) in patterns.iter().enumerate() {
                check(
                    format!("{key}[{index}]"),
                    pattern,
                    Subject::Customer,
                    is_customer(pattern),
                );
            }
        }
        let in_force = overrides.iter().enumerate().filter(|(_, entry)| entry.is_in_force(now));
        for (index, entry) in in_force {
            let key = |name: &str| format!("rpo.overrides[{index}].{name}");
            if let Some(pattern) = &entry.customer {
                check(key("customer"), pattern, Subject::Customer, is_customer(pattern));
            }
            let attributes = Attributes::NAMES.into_iter().zip(entry.attributes.iter());
            for ((name, pattern), values) in attributes.zip(self.attributes.iter()) {
                if let Some(pattern) = pattern {
                    let is_matched = pattern.is_any() || values.iter().any(|value| pattern.matches_name(value));
                    check(key(name), pattern, Subject::Attribute(name), is_matched);
                }
            }
            if self.modules.is_empty() {
                continue;
            }
            let numbered = [
                ("service", &entry.service, Subject::Service, &self.services),
                ("module", &entry.module, Subject::Module, &self.modules),
            ];
            for (name, pattern, subject, names) in numbered {
                if let Some(pattern) = pattern {
                    let is_matched = names.iter().any(|name| pattern.matches(name));
                    check(key(name), pattern.pattern(), subject, is_matched);
                }
            }
            if let Some(scope) = &entry.scope {
                let is_matched = scope.is_any() || self.scopes.iter().any(|name| scope.matches_name(name));
                check(key("scope"), scope, Subject::Scope, is_matched);
            }
        }
        unmatched
    }

    /// Returns the known name that is most similar to a pattern, if any is similar enough.
    pub fn nearest(&self, unmatched: &UnmatchedPattern) -> Option<&str> {
        let names = match unmatched.subject {
            Subject::Customer => {
                let texts = self
                    .customers
                    .iter()
                    .flat_map(|(id, name)| [id.as_str(), name.as_str()]);
                return nearest(&unmatched.pattern, texts);
            }
            Subject::Attribute(name) => self.attributes.get(name)?,
            Subject::Service => &self.services,
            Subject::Module => &self.modules,
            Subject::Scope => &self.scopes,
            Subject::Product => &self.products,
        };
        nearest(&unmatched.pattern, names.iter().map(String::as_str))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{NumberedPattern, Objective};

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_000);

    const ID: &str = "5f0c3a2e-0000-4000-8000-00000000000a";

    fn names() -> KnownNames {
        let mut names = KnownNames::default();
        names.add_customer(&CustomerId::parse(ID).unwrap(), "Contoso Ltd");
        names.add_customer(&CustomerId::parse("x").unwrap(), "Cafe\u{301} du Nord");
        names
    }

    fn patterns(texts: &[&str]) -> Vec<Pattern> {
        texts.iter().map(|text| Pattern::parse(text).unwrap()).collect()
    }

    fn with_modules() -> KnownNames {
        let mut names = names();
        names.add_module("Microsoft 365", "Exchange Online", None);
        names.add_module("IaaS + PaaS", "Dev Ops", Some("Production"));
        names
    }

    fn override_of(service: Option<&str>, module: Option<&str>, scope: Option<&str>) -> Override {
        Override {
            customer: None,
            service: service.map(|text| NumberedPattern::service(text).unwrap()),
            module: module.map(|text| NumberedPattern::module(text).unwrap()),
            scope: scope.map(|text| Pattern::parse(text).unwrap()),
            attributes: PerAttribute::default(),
            objective: Objective::default(),
        }
    }

    fn keys(unmatched: &BTreeSet<UnmatchedPattern>) -> Vec<&str> {
        unmatched.iter().map(|unmatched| unmatched.key.as_str()).collect()
    }

    #[test]
    fn products_are_checked_when_any_product_is_known() {
        let mut names = KnownNames::default();
        let patterns = patterns(&["Cloud Backup *", "cloud backup for salesforce", "Clod Backup *"]);
        assert!(names.unmatched_products("k", &patterns).is_empty());
        names.add_product("Cloud Backup for Salesforce®");
        let unmatched = names.unmatched_products("k", &patterns);
        let [typo] = unmatched.iter().collect::<Vec<_>>()[..] else {
            panic!("{unmatched:?}")
        };
        assert_eq!((typo.key.as_str(), typo.what()), ("k[2]", "no product"));
        assert_eq!(names.nearest(typo), Some("Cloud Backup for Salesforce®"));
    }

    #[test]
    fn customers_match_in_any_case_and_composition() {
        let filter = CustomerFilter {
            include: patterns(&[&ID.to_uppercase(), "contoso ltd", "CAF\u{c9}*", "Fabrikam", "Contso*"]),
            exclude: patterns(&["caf\u{e9} du nord", "*gmbh"]),
            ..CustomerFilter::default()
        };
        let unmatched = names().unmatched(&filter, &[], NOW);
        assert_eq!(
            keys(&unmatched),
            ["customers.exclude[1]", "customers.include[3]", "customers.include[4]"]
        );
        let nearest: Vec<_> = unmatched
            .iter()
            .map(|unmatched| names().nearest(unmatched).map(str::to_owned))
            .collect();
        assert_eq!(nearest, [None, None, Some("Contoso Ltd".to_owned())]);
    }

    #[test]
    fn modules_are_checked_when_any_module_is_known() {
        let overrides = [
            override_of(Some("Microsoft 365"), Some("303"), None),
            override_of(Some("Salesforce"), Some("Exchange Onlin"), None),
            override_of(None, Some("Dev*"), Some("*")),
            override_of(None, None, Some("Prodution")),
        ];
        let filter = CustomerFilter::default();
        assert!(names().unmatched(&filter, &overrides, NOW).is_empty());
        let unmatched = with_modules().unmatched(&filter, &overrides, NOW);
        assert_eq!(
            keys(&unmatched),
            [
                "rpo.overrides[1].module",
                "rpo.overrides[1].service",
                "rpo.overrides[3].scope"
            ]
        );
        let names = with_modules();
        let nearest: Vec<_> = unmatched.iter().map(|unmatched| names.nearest(unmatched)).collect();
        assert_eq!(nearest, [Some("Exchange Online"), None, Some("Production")]);
    }

    #[test]
    fn attributes_are_matched_against_the_values_of_the_table() {
        let mut table = AttributeTable::default();
        table
            .push(
                "c-1",
                Attributes {
                    tier: Some("gold".into()),
                    region: None,
                    team: Some("North".into()),
                },
            )
            .unwrap();
        let mut names = names();
        names.add_attributes(&table);
        let pattern = |text: &str| Some(Pattern::parse(text).unwrap());
        let overrides = [
            Override {
                attributes: PerAttribute {
                    tier: pattern("Gold"),
                    region: pattern("*"),
                    team: pattern("nor*"),
                },
                ..override_of(None, None, None)
            },
            Override {
                attributes: PerAttribute {
                    tier: pattern("glod"),
                    region: pattern("emea"),
                    team: None,
                },
                ..override_of(None, None, None)
            },
        ];
        let unmatched = names.unmatched(&CustomerFilter::default(), &overrides, NOW);
        assert_eq!(keys(&unmatched), ["rpo.overrides[1].region", "rpo.overrides[1].tier"]);
        let nearest: Vec<_> = unmatched.iter().map(|unmatched| names.nearest(unmatched)).collect();
        assert_eq!(nearest, [None, Some("gold")]);
    }

    #[test]
    fn ended_overrides_are_not_checked() {
        let ending = |seconds| Override {
            customer: Some(Pattern::parse("Gone").unwrap()),
            objective: Objective {
                until: Some(Timestamp::from_unix_seconds(seconds)),
                ..Objective::default()
            },
            ..override_of(None, None, None)
        };
        let overrides = [ending(1_000), ending(1_001)];
        let unmatched = names().unmatched(&CustomerFilter::default(), &overrides, NOW);
        assert_eq!(keys(&unmatched), ["rpo.overrides[1].customer"]);
    }
}
