//! Consent to the apps of products. Without it, the products stop working for a tenant.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::per_tenant::{Answer, Tenants, is_due_again, is_given_up, is_of_one, poll_tenants};
use super::{Collector, Context, PollOutput, Price, Question, Settings};
use crate::api::wire::{Names, Row};
use crate::api::{Api, Endpoint, Error, Failure, v3};
use crate::domain::{CustomerId, TenantId, Timestamp};
use crate::exposition::{Shape, ShapeMetrics, ShapeTable, gauge, label};

/// The products of a tenant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Products {
    consented: BTreeMap<String, bool>,
    /// Products whose consent is held from earlier responses, with the time since when.
    #[serde(default)]
    held: BTreeMap<String, Timestamp>,
    /// Products that the tenant lacks, with the time of the response.
    absent: BTreeMap<String, Timestamp>,
}

impl Products {
    /// Returns the products of the newest responses, and the held ones.
    fn split(&self) -> (Self, Self) {
        let of = |is_held: bool| Self {
            consented: (self.consented.iter())
                .filter(|(product, _)| self.held.contains_key(*product) == is_held)
                .map(|(product, is_given)| (product.clone(), *is_given))
                .collect(),
            ..Self::default()
        };
        (of(false), of(true))
    }
}

/// The collector.
pub(super) struct AppConsent;

impl Collector for AppConsent {
    const NAME: &'static str = "app_consent";
    const ENDPOINT: Endpoint = Endpoint::AppConsent;
    const INTERVAL: Duration = Duration::from_secs(3600);
    const IS_OPTIONAL: bool = true;
    const PRICE: Price = Price {
        requests: 2.0,
        of: "1 per tenant for each of its products",
        ..Price::ONE
    };
    const SCOPE_V3: &'static str = v3::scope::CUSTOMERS;
    const ITEMS_OF: Option<&'static str> = Some(super::customers::Customers::NAME);
    type Target = CustomerId;
    type Record = Tenants<Products>;

    async fn poll(
        api: &Api,
        customer: &CustomerId,
        previous: Option<&Self::Record>,
        context: &Context,
    ) -> Result<PollOutput<Self::Record>, Failure> {
        let about = (customer, context);
        poll_tenants(api, Endpoint::AppConsent, about, previous, |tenant, known| async move {
            poll_products(api, about, &tenant, &known.unwrap_or_default()).await
        })
        .await
    }

    fn question(settings: &Settings) -> Question {
        Question {
            consent_products: settings.consent_products.clone(),
            ..Question::default()
        }
    }

    fn split(record: &Self::Record) -> Option<(Self::Record, Self::Record)> {
        record.split(Products::split)
    }

    fn without_tenants(record: &Self::Record, gone: &BTreeSet<TenantId>) -> Option<Self::Record> {
        record.without(gone)
    }

    fn metrics() -> Vec<ShapeMetrics> {
        vec![SHAPE.metrics()]
    }

    fn tables(record: &Self::Record, customer: &CustomerId, context: &Context) -> Vec<ShapeTable> {
        // A record may be older than the settings.
        let requested = &context.settings.consent_products;
        let rows: Vec<Consent> = record
            .iter()
            .flat_map(|(tenant, products)| {
                let consented = products
                    .consented
                    .iter()
                    .filter(|(product, _)| requested.contains(product));
                consented.map(|(product, is_given)| Consent {
                    tenant: tenant.clone(),
                    product: product.clone(),
                    is_given: *is_given,
                })
            })
            .collect();
        vec![SHAPE.table(customer.as_str(), &rows)]
    }
}

/// Requests the consent to each product. Status 400, 403 or 404 means that the tenant lacks the product, which is then
/// requested once a day. If its consent was known before, the last known value is held instead.
async fn poll_products(
    api: &Api,
    (customer, context): (&CustomerId, &Context),
    tenant: &TenantId,
    known: &Products,
) -> Answer<Products> {
    let requested = &context.settings.consent_products;
    request_each(requested, context, known, |product| async move {
        fetch_consent(api, customer, tenant, &product).await
    })
    .await
}

async fn request_each<Request: Future<Output = Result<Option<bool>, Failure>>>(
    requested: &[String],
    context: &Context,
    known: &Products,
    request: impl Fn(String) -> Request,
) -> Answer<Products> {
    let now = context.now;
    let mut products = Products::default();
    let (mut refusal, mut failure, mut is_answered) = (None, None, false);
    for product in requested {
        let absent = known.absent.get(product);
        if let Some(since) = absent.filter(|since| !is_due_again(Some(since), now)) {
            products.absent.insert(product.clone(), *since);
            continue;
        }
        let since = known.held.get(product).copied().unwrap_or(now);
        let before = known.consented.get(product).copied();
        let held = before.filter(|_| !is_given_up(since, context));
        let response = match request(product.clone()).await {
            Ok(None) if held.is_some() => {
                Err(Error::Incomplete("no apps listed, unlike before").at(Endpoint::AppConsent))
            }
            response => response,
        };
        match response {
            Ok(Some(is_given)) => {
                is_answered = true;
                products.consented.insert(product.clone(), is_given);
            }
            Ok(None) => {}
            Err(cause) if !is_of_one(&cause.error) => return Err(cause),
            Err(cause) => {
                let is_refusal = matches!(cause.error, Error::Status(400 | 403 | 404));
                let kept = if is_refusal { held } else { before };
                if let Some(is_given) = kept {
                    products.consented.insert(product.clone(), is_given);
                    products.held.insert(product.clone(), since);
                    failure = failure.or(Some(cause));
                } else if is_refusal {
                    products.absent.insert(product.clone(), now);
                    refusal = Some(cause);
                } else {
                    failure = failure.or(Some(cause));
                }
            }
        }
    }
    match (refusal, failure) {
        (_, Some(failure)) if !is_answered => Err(failure),
        (Some(refusal), None) if !is_answered => Err(Failure {
            error: Error::Status(404),
            ..refusal
        }),
        (_, failure) => Ok((products, failure)),
    }
}

const IS_CONSENT: Names = &["isConsent", "isConsented"];

/// Returns whether consent is given to all apps of a product; `None` if it has no apps.
async fn fetch_consent(
    api: &Api,
    customer: &CustomerId,
    tenant: &TenantId,
    product: &str,
) -> Result<Option<bool>, Failure> {
    let endpoint = Endpoint::AppConsent;
    let path = [
        "customers",
        customer.as_str(),
        "tenants",
        tenant.as_str(),
        "product",
        product,
        "apps",
    ];
    let scope = AppConsent::SCOPE_V3;
    let apps = api.v3(endpoint, scope)?.entity(endpoint, scope, &path).await?;
    let mut is_given = None;
    for json in &apps {
        let row = Row::read(json, endpoint, api.observer().as_ref());
        let Some(app) = row.and_then(|row| row.flag(IS_CONSENT)) else {
            return Err(Error::Decode("about consent").at(endpoint));
        };
        is_given = Some(is_given.unwrap_or(true) && app);
    }
    Ok(is_given)
}

/// The consent of a tenant to a product's apps.
struct Consent {
    tenant: TenantId,
    product: String,
    is_given: bool,
}

const SHAPE: Shape<Consent> = Shape {
    labels: &[
        label("tenant_id", |row| Some(row.tenant.as_str())),
        label("product", |row| Some(&row.product)),
    ],
    columns: &[gauge(
        "elements_tenant_app_consented",
        "1 if the tenant has consented to all apps of the product, 0 otherwise",
        |row| Some(f64::from(row.is_given)),
    )],
};

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::collector::Settings;

    #[test]
    fn removed_product_is_not_shown() {
        let record: Tenants<Products> = serde_json::from_value(serde_json::json!({
            "tenants": {"t": {"consented": {"a": true, "b": false}, "absent": {}}}, "lacking": {}}))
        .expect("a record");
        let customer = CustomerId::parse("c").expect("an id");
        let samples = |products: &[&str]| {
            let settings = Settings {
                consent_products: products.iter().map(|product| (*product).to_owned()).collect(),
                ..Settings::default()
            };
            let now = Timestamp::from_unix_seconds(1_000_000);
            let context = Context::new(now, Arc::new(settings), Arc::from(""));
            let tables = AppConsent::tables(&record, &customer, &context);
            tables.iter().map(|table| table.table.samples()).sum::<usize>()
        };
        assert_eq!([samples(&["a", "b"]), samples(&["b"]), samples(&["c"])], [2, 1, 0]);
    }

    #[tokio::test]
    async fn product_with_a_known_consent_is_held() {
        let requested = ["a".to_owned(), "b".to_owned(), "c".to_owned()];
        let now = Timestamp::from_unix_seconds(1_000_000);
        let context = Context::new(now, Arc::default(), Arc::from(""));
        let known = Products {
            consented: BTreeMap::from([("a".to_owned(), true), ("b".to_owned(), true)]),
            ..Products::default()
        };
        for error in [None, Some(400), Some(403), Some(404), Some(500)] {
            let respond = |product: String| {
                let response = match (product.as_str(), error) {
                    ("a", Some(error)) => Err(Error::Status(error).at(Endpoint::AppConsent)),
                    ("a", None) => Ok(None),
                    ("b", _) => Ok(Some(false)),
                    _ => Err(Error::Status(404).at(Endpoint::AppConsent)),
                };
                std::future::ready(response)
            };
            let (products, failure) = request_each(&requested, &context, &known, respond)
                .await
                .expect("a response");
            assert!(failure.is_some(), "{error:?}");
            let (fresh, held) = products.split();
            assert_eq!(fresh.consented, BTreeMap::from([("b".to_owned(), false)]));
            assert_eq!(held.consented, BTreeMap::from([("a".to_owned(), true)]));
            assert_eq!(products.absent.keys().collect::<Vec<_>>(), ["c"]);
        }
    }
}
