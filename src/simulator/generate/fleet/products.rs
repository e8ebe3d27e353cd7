//! A customer's subscriptions to backups and to other services.

use super::{AZURE, CustomerGenerator, DAY, DYNAMICS, GOOGLE, MICROSOFT_365, SALESFORCE, Scenario};
use crate::simulator::customer::Product;
use crate::simulator::response::format_time;
use crate::simulator::run::ABSENT;
use crate::simulator::schedule::gigabytes;

const AVEPOINT_STORAGE: &str = "AvePoint storage (Microsoft Azure Blob)";

/// Services other than backups, for a customer that subscribes to everything. All are licensed per seat.
const OTHER_SERVICES: [&str; 27] = [
    "Cense",
    "Cloud Archiving",
    "Cloud Governance",
    "Cloud Management",
    "Compliance Guardian",
    "EnPower",
    "Entrust",
    "Fly Migration",
    "Fly Server",
    "Insights for Microsoft 365",
    "Insights for Google Workspace",
    "MyHub",
    "Opus - Discovery and analysis for Microsoft 365",
    "Opus - Information Lifecycle for Microsoft 365",
    "Opus - Storage optimization",
    "Policies for Google Workspace",
    "Policies for Microsoft 365",
    "Portal Manager",
    "ReCenter",
    "Records",
    "Risk management",
    "tyGraph - Copilot",
    "tyGraph - Microsoft",
    "tyGraph - Pages",
    "tyGraph - Power BI Embedded",
    "User and device management",
    "Workspace management",
];

impl CustomerGenerator<'_> {
    pub(super) fn products(&mut self) -> Vec<Product> {
        let ends = self.ends();
        let licenses = MicrosoftLicenses {
            assigned: self.seats - self.rng.below(self.seats / 5 + 1),
            available: self.rng.below(self.seats / 3 + 2),
        };
        let mut products = self.backups(licenses);
        if self.scenario == Scenario::Busiest {
            products.extend(OTHER_SERVICES.map(|service| self.seats_of(service, licenses)));
        } else if self.index % 6 != 5 {
            products.push(self.seats_of("Workspace management", licenses));
            if self.index.is_multiple_of(4) {
                products.push(self.seats_of("User and device management", licenses));
            }
            if self.index % 7 == 2 {
                products.push(self.seats_of("tyGraph - Microsoft", licenses));
            }
        }
        products.push(Product {
            purchased_units: "1".to_owned(),
            ..Product::new("Baseline management")
        });
        for product in &mut products {
            product.expiration_date.clone_from(&ends);
            if self.scenario == Scenario::Busiest {
                product.source = "AvePoint subscription".to_owned();
            } else {
                product.source = "AvePoint pooled subscription".to_owned();
                product.payment_type = "Prepaid".to_owned();
            }
        }
        products
    }

    /// Returns the day on which all subscriptions of the customer expire.
    fn ends(&mut self) -> String {
        let spread = u32::try_from(self.rng.between(45, 700)).unwrap_or(365);
        let at = match self.scenario {
            Scenario::LicenseExpiring => self.ahead(11 * DAY),
            _ => self.ahead(spread.saturating_mul(DAY)),
        };
        // The vendor formats midnight with a 12-hour clock, so the time is always 12:00.
        format_time(Some(at), "%m-%d-%YT12:00:00Z")
    }

    fn backups(&mut self, licenses: MicrosoftLicenses) -> Vec<Product> {
        let mut products = Vec::new();
        if self.has(MICROSOFT_365) {
            products.push(Product {
                package: "Standard".to_owned(),
                consumed_storage: gigabytes(self.seats * self.rng.between(300, 1500)),
                ..self.backup("Cloud Backup for Microsoft 365 - Microsoft 365 services", licenses)
            });
            if self.has_power_platform() {
                products.push(Product {
                    consumed_storage: gigabytes(self.rng.between(1, 300)),
                    ..self.backup("Cloud Backup for Microsoft 365 - Power Platform", licenses)
                });
            }
        }
        if self.has(AZURE) {
            products.push(Product {
                subscription_model: "Capacity".to_owned(),
                retention: ABSENT.to_owned(),
                ..self.backup("Cloud Backup for IaaS + PaaS - User Seats", licenses)
            });
        }
        if matches!(self.scenario, Scenario::Busiest | Scenario::DormantScopes) {
            products.push(Product {
                purchased_user_seats: "2".to_owned(),
                ..self.backup("Cloud Backup for IaaS + PaaS - Amazon EC2", licenses)
            });
            products.push(Product {
                purchased_user_seats: ABSENT.to_owned(),
                purchased_capacity: "120.50/2048 GB".to_owned(),
                ..self.backup("Cloud Backup for IaaS + PaaS - Azure Virtual Machine", licenses)
            });
        }
        let none = MicrosoftLicenses::NONE;
        if self.has(GOOGLE) {
            products.push(Product {
                retention: "Retain data for 1 years".to_owned(),
                ..self.backup("Cloud Backup for Google Workspace - Workspace", none)
            });
        }
        if self.has(SALESFORCE) {
            products.push(self.backup("Cloud Backup for Salesforce", none));
        }
        if self.has(DYNAMICS) {
            products.push(Product {
                subscription_model: "Dynamics 365 (Dataverse)".to_owned(),
                consumed_storage: gigabytes(self.rng.below(400)),
                ..self.backup("Cloud Backup for Dynamics 365", none)
            });
        }
        products
    }

    fn backup(&self, service: &str, licenses: MicrosoftLicenses) -> Product {
        Product {
            subscription_model: "Unlimited organizations".to_owned(),
            storage: AVEPOINT_STORAGE.to_owned(),
            retention: "Unlimited retention".to_owned(),
            ..self.seats_of(service, licenses)
        }
    }

    fn seats_of(&self, service: &str, licenses: MicrosoftLicenses) -> Product {
        let mut product = Product {
            purchased_user_seats: (self.seats + self.seats / 10).to_string(),
            ..Product::new(service)
        };
        if licenses != MicrosoftLicenses::NONE {
            product.microsoft_license_assigned = licenses.assigned.to_string();
            product.microsoft_license_available = licenses.available.to_string();
        }
        product
    }
}

/// The tenant's Microsoft licences, which the API reports for nearly every product.
#[derive(Clone, Copy, PartialEq, Eq)]
struct MicrosoftLicenses {
    assigned: u64,
    available: u64,
}

impl MicrosoftLicenses {
    const NONE: Self = Self {
        assigned: 0,
        available: 0,
    };
}
