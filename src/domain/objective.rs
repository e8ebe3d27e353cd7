//! Recovery point objectives (RPOs). An RPO is the maximum age of a module's latest restore point.

use std::sync::Arc;
use std::time::Duration;

use super::attributes::{Attributes, PerAttribute};
use super::pattern::{NumberedPattern, Pattern};
use super::time::Timestamp;

/// The default objective: one day, plus two hours in case a backup takes longer than on the previous day.
pub const DEFAULT_RPO: Duration = Duration::from_secs(26 * 60 * 60);

/// By default, a module is abandoned if its newest run is older than this. Common schedules have shorter intervals.
pub const DEFAULT_ABANDONED_AFTER: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// The customer id, names and attributes by which the objective of a module or backup scope is selected.
#[derive(Clone, Copy, Debug)]
pub struct ModuleName<'a> {
    /// The customer's id.
    pub customer_id: &'a str,
    /// The organization's name; empty if unknown.
    pub organization: &'a str,
    /// Name of the service.
    pub service: &'a str,
    /// Name of the module.
    pub module: &'a str,
    /// The backup scope, if the module has scopes.
    pub scope: Option<&'a str>,
    /// The attributes that the operator assigned to the customer.
    pub attributes: Option<&'a Attributes>,
}

/// The configured objectives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objectives {
    /// Objective of modules that match no override.
    pub default: Duration,
    /// Overrides. The first one that matches and has not ended applies.
    pub overrides: Vec<Override>,
    /// Maximum age of a module's newest run. If the run is older, the module is abandoned.
    pub abandoned_after: Duration,
}

/// An objective for the modules that match all patterns. A pattern that is `None` matches everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// Pattern for customers.
    pub customer: Option<Pattern>,
    /// Pattern for services.
    pub service: Option<NumberedPattern>,
    /// Pattern for modules.
    pub module: Option<NumberedPattern>,
    /// Pattern for backup scopes; `*` also matches a module without scopes.
    pub scope: Option<Pattern>,
    /// Patterns for customer attributes; `*` also matches a customer without the attribute.
    pub attributes: PerAttribute<Option<Pattern>>,
    /// Objective of the matching modules.
    pub objective: Objective,
}

/// The objective of a module, with the end of the override that sets it, and the reason for that override.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Objective {
    /// The maximum age of the latest restore point; `None` if the module is exempt, or if no objective applies to the
    /// module.
    pub rpo: Option<Duration>,
    /// End of the override; `None` without an override or an end.
    pub until: Option<Timestamp>,
    /// Reason for the override.
    pub reason: Option<Arc<str>>,
}

impl Default for Objectives {
    fn default() -> Self {
        Self {
            default: DEFAULT_RPO,
            overrides: Vec::new(),
            abandoned_after: DEFAULT_ABANDONED_AFTER,
        }
    }
}

impl Objectives {
    /// Returns the objective of a module at `now`. The names of the service and the module must be the vendor's current
    /// names.
    pub fn of(&self, name: &ModuleName<'_>, now: Timestamp) -> Objective {
        let mut in_force = self.overrides.iter().filter(|candidate| candidate.is_in_force(now));
        let of_default = || Objective {
            rpo: Some(self.default),
            ..Objective::default()
        };
        in_force
            .find(|candidate| candidate.matches(name))
            .map_or_else(of_default, |matching| matching.objective.clone())
    }

    /// Returns the earliest time after `now` at which an override ends.
    pub fn next_end(&self, now: Timestamp) -> Option<Timestamp> {
        let ends = self.overrides.iter().filter_map(|entry| entry.objective.until);
        ends.filter(|end| *end > now).min()
    }
}

impl Override {
    /// Returns whether the override has not ended at `now`.
    pub fn is_in_force(&self, now: Timestamp) -> bool {
        self.objective.until.is_none_or(|until| now < until)
    }

    fn matches(&self, name: &ModuleName<'_>) -> bool {
        let numbered = |pattern: &Option<NumberedPattern>, name: &str| {
            pattern.as_ref().is_none_or(|pattern| pattern.matches(name))
        };
        let customer = self.customer.as_ref();
        let may_lack = |pattern: &Option<Pattern>, name: Option<&str>| {
            pattern.as_ref().is_none_or(|pattern| match name {
                Some(name) => pattern.matches_name(name),
                None => pattern.is_any(),
            })
        };
        let values = name.attributes.map(Attributes::values).unwrap_or_default();
        let mut attributes = self.attributes.iter().zip(values);
        customer.is_none_or(|customer| customer.matches_customer(name.customer_id, name.organization))
            && numbered(&self.service, name.service)
            && numbered(&self.module, name.module)
            && may_lack(&self.scope, name.scope)
            && attributes.all(|(pattern, value)| may_lack(pattern, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(scope: Option<&str>) -> ModuleName<'_> {
        ModuleName {
            customer_id: "c-1",
            organization: "Contoso",
            service: "IaaS + PaaS",
            module: "Microsoft Entra ID",
            scope,
            attributes: None,
        }
    }

    fn objective(overrides: Vec<Override>, scope: Option<&str>) -> Option<u64> {
        let objectives = Objectives {
            overrides,
            ..Objectives::default()
        };
        let objective = objectives.of(&name(scope), Timestamp::from_unix_seconds(0));
        objective.rpo.map(|objective| objective.as_secs() / 3600)
    }

    fn of_scope(pattern: &str, rpo: Option<u64>) -> Override {
        Override {
            customer: None,
            service: None,
            module: None,
            scope: Some(Pattern::parse(pattern).unwrap()),
            attributes: PerAttribute::default(),
            objective: Objective {
                rpo: rpo.map(|hours| Duration::from_secs(hours * 3600)),
                ..Objective::default()
            },
        }
    }

    #[test]
    fn missing_scope_matches_only_a_star() {
        let overrides = || vec![of_scope("Test*", None), of_scope("*", Some(50))];
        assert_eq!(objective(overrides(), Some("test tenant")), None);
        assert_eq!(objective(overrides(), Some("Production")), Some(50));
        assert_eq!(objective(overrides(), None), Some(50));
        assert_eq!(objective(vec![of_scope("Test*", None)], None), Some(26));
    }

    #[test]
    fn missing_attribute_matches_only_a_star() {
        let by_tier = |pattern: &str, rpo| Override {
            scope: None,
            attributes: PerAttribute {
                tier: Some(Pattern::parse(pattern).unwrap()),
                ..PerAttribute::default()
            },
            ..of_scope("*", rpo)
        };
        let objectives = Objectives {
            overrides: vec![by_tier("Gold", Some(4)), by_tier("b*", None), by_tier("*", Some(50))],
            ..Objectives::default()
        };
        let hours = |tier: Option<&str>| {
            let attributes = Attributes {
                tier: tier.map(Box::from),
                ..Attributes::default()
            };
            let name = ModuleName {
                customer_id: "c-1",
                organization: "Contoso",
                service: "Microsoft 365",
                module: "OneDrive",
                scope: None,
                attributes: Some(&attributes),
            };
            let objective = objectives.of(&name, Timestamp::from_unix_seconds(0));
            objective.rpo.map(|objective| objective.as_secs() / 3600)
        };
        assert_eq!(hours(Some("gold")), Some(4));
        assert_eq!(hours(Some("bronze")), None);
        assert_eq!(hours(Some("silver")), Some(50));
        assert_eq!(hours(None), Some(50));
    }

    #[test]
    fn ended_override_is_ignored() {
        let at = Timestamp::from_unix_seconds;
        let ending = |rpo, until| Override {
            objective: Objective {
                until: Some(at(until)),
                ..of_scope("*", rpo).objective
            },
            ..of_scope("*", rpo)
        };
        let objectives = Objectives {
            overrides: vec![ending(None, 100), ending(Some(50), 200)],
            ..Objectives::default()
        };
        let in_force_at = |now| {
            let objective = objectives.of(&name(Some("Production")), at(now));
            (objective.rpo.map(|rpo| rpo.as_secs() / 3600), objective.until)
        };
        assert_eq!(in_force_at(99), (None, Some(at(100))));
        assert_eq!(in_force_at(100), (Some(50), Some(at(200))));
        assert_eq!(in_force_at(200), (Some(26), None));
        assert_eq!(
            [99, 100, 200].map(|now| objectives.next_end(at(now))),
            [Some(at(100)), Some(at(200)), None]
        );
    }
}
