//! A customer's subscriptions.

use super::{AZURE, CustomerGenerator, DAY, DYNAMICS, GOOGLE, MICROSOFT_365, Role, SALESFORCE};
use crate::simulator::customer::{Module, Product};
use crate::simulator::response::format_time;

impl CustomerGenerator<'_> {
    pub(super) fn products(&mut self, modules: &[Module]) -> Vec<Product> {
        let has = |job_type: u16| modules.iter().any(|module| module.job_type == job_type);
        let mut products = Vec::new();
        if has(MICROSOFT_365) {
            products.push(self.microsoft_365());
        }
        if self.index.is_multiple_of(10) {
            products.push(self.second_microsoft_365());
        }
        if has(GOOGLE) {
            products.push(self.seats("Cloud Backup for Google Workspace"));
        }
        if has(AZURE) {
            products.push(self.pooled_azure());
        }
        if has(SALESFORCE) {
            products.push(self.seats("Cloud Backup for Salesforce"));
        }
        if has(DYNAMICS) {
            products.push(self.seats("Cloud Backup for Dynamics 365"));
        }
        match self.index % 4 {
            1 => products.push(self.fly()),
            2 => products.push(self.governance()),
            _ => {}
        }
        products
    }

    fn microsoft_365(&mut self) -> Product {
        let seats = self.rng.between(10, 900);
        let assigned = match self.role {
            Role::Exceptional => seats + 25,
            _ => seats - self.rng.below(seats / 4 + 1),
        };
        let expires = match self.role {
            Role::UnlistedModule if self.rules.churn => self.in_future(self.rules.compressed(3 * DAY)),
            Role::UnlistedModule => self.in_future(i64::from(20 * DAY)),
            _ => self.some_day(),
        };
        // The expiry of a subscription that expires during a test needs a time of day.
        let form = if self.role == Role::UnlistedModule {
            1
        } else {
            self.number
        };
        Product {
            subscription_model: "User-based".to_owned(),
            purchased_user_seats: seats.to_string(),
            microsoft_license_assigned: assigned.to_string(),
            microsoft_license_available: (seats + 40).to_string(),
            protected_capacity: self.rng.gigabytes(4000),
            storage: "AvePoint storage".to_owned(),
            retention: self.rng.pick(&["1 year", "7 years", "Unlimited"]).to_owned(),
            consumed_storage: match self.role {
                // The comma could be a decimal or a thousands separator, so the value must not be parsed.
                Role::UnlistedModule => "1,5 TB".to_owned(),
                _ => self.rng.gigabytes(3000),
            },
            expiration_date: date(expires, form),
            change: self.rng.pick(&["N/A", "+5", "-3", "0", "12"]).to_owned(),
            source: "AvePoint".to_owned(),
            payment_type: self.rng.pick(&["Annual", "Monthly"]).to_owned(),
            package: "Essentials".to_owned(),
            contract_end_date: date(expires.saturating_add(i64::from(30 * DAY)), self.number + 2),
            ..Product::new("Cloud Backup for Microsoft 365")
        }
    }

    fn second_microsoft_365(&mut self) -> Product {
        let expires = self.some_day();
        Product {
            subscription_model: "Capacity-based".to_owned(),
            purchased_units: "2".to_owned(),
            purchased_capacity: "3072 GB".to_owned(),
            protected_capacity: "812.5 GB".to_owned(),
            storage: "BYOS".to_owned(),
            expiration_date: date(expires, 0),
            source: "Marketplace".to_owned(),
            package: "Enterprise".to_owned(),
            ..Product::new("Cloud Backup for Microsoft 365")
        }
    }

    fn pooled_azure(&mut self) -> Product {
        let expires = self.some_day();
        let pooled = if self.role == Role::Stuck {
            "0/1 GB"
        } else {
            "120.5/2048 GB"
        };
        Product {
            subscription_model: "Pooled".to_owned(),
            purchased_capacity: pooled.to_owned(),
            protected_capacity: self.rng.gigabytes(900),
            storage: "AvePoint storage".to_owned(),
            consumed_storage: self.rng.gigabytes(500),
            expiration_date: date(expires, 1),
            source: "Pool".to_owned(),
            payment_type: "Monthly".to_owned(),
            ..Product::new("Cloud Backup for IaaS + PaaS")
        }
    }

    fn seats(&mut self, service: &str) -> Product {
        let expires = self.some_day();
        Product {
            subscription_model: "User-based".to_owned(),
            purchased_user_seats: self.rng.between(5, 400).to_string(),
            consumed_storage: self.rng.gigabytes(700),
            expiration_date: date(expires, 2),
            change: self.rng.pick(&["N/A", "-1", "+2"]).to_owned(),
            source: "AvePoint".to_owned(),
            ..Product::new(service)
        }
    }

    fn fly(&mut self) -> Product {
        let expires = match self.role {
            // This customer's subscription has already expired.
            Role::Failing => self.rules.started.saturating_sub(i64::from(10 * DAY)),
            _ => self.some_day(),
        };
        Product {
            subscription_model: "Project-based".to_owned(),
            purchased_user_seats: "150".to_owned(),
            expiration_date: date(expires, 3),
            subscription_name: format!("Migration {}", self.index),
            ..Product::new("Fly")
        }
    }

    fn governance(&mut self) -> Product {
        let expires = self.some_day();
        Product {
            subscription_model: "User-based".to_owned(),
            purchased_user_seats: "75".to_owned(),
            expiration_date: date(expires, 1),
            ..Product::new("Cloud Governance")
        }
    }

    fn some_day(&mut self) -> i64 {
        let ahead = self.rng.seconds(40 * DAY, 700 * DAY);
        self.in_future(ahead)
    }

    fn in_future(&self, seconds: i64) -> i64 {
        self.rules.started.saturating_add(seconds)
    }
}

/// Formats a date in one of four formats that occur in API responses.
fn date(at: i64, form: u64) -> String {
    let pattern = match form % 4 {
        0 => "%Y-%m-%d",
        1 => "%Y-%m-%dT%H:%M:%SZ",
        2 => "%Y/%m/%d",
        _ => "%m/%d/%Y",
    };
    format_time(Some(at), pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_have_four_formats() {
        let at = 1_758_844_800;
        let forms: Vec<String> = (0..4).map(|form| date(at, form)).collect();
        assert_eq!(
            forms,
            ["2025-09-26", "2025-09-26T00:00:00Z", "2025/09/26", "09/26/2025"]
        );
        assert_eq!(date(i64::MAX, 0), "N/A");
    }
}
