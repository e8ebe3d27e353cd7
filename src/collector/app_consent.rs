//! Tenants' consent to the apps of each product. Without consent, the product does not work for the tenant.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use super::per_tenant::{Parts, Rules, TenantResult, Tenants, poll_tenants, request_all};
use super::{Collector, CollectorId, CollectorSettings, Context, PollOutput, Price};
use crate::api::wire::{Names, Row};
use crate::api::{Api, Endpoint, Error, Failure, v3};
use crate::domain::{CustomerId, TenantId};
use crate::exposition::{Shape, ShapeSink, gauge, label};

/// A tenant's consent by product; `None` for a product without apps.
type Products = Parts<String, Option<bool>>;

/// Status 400, 403 or 404 means that the tenant lacks the product.
const PRODUCT_RULES: Rules = Rules {
    is_denial: |error| error.is_missing_service() || matches!(error, Error::Status(400)),
    all_denied: |_| Error::Status(404),
    keeps_empty: false,
    empty_problem: "the product has no apps, although it had some before",
};

/// The collector `app_consent`.
pub(super) struct AppConsent;

impl Collector for AppConsent {
    const NAME: &'static str = "app_consent";
    const ENDPOINT: Endpoint = Endpoint::AppConsent;
    const INTERVAL: Duration = Duration::from_secs(3600);
    const IS_OPTIONAL: bool = true;
    const PRICE: Price = Price {
        requests: 2.0,
        description: "1 per tenant and configured product",
        ..Price::ONE
    };
    const SCOPE_V3: &'static str = v3::scope::CUSTOMERS;
    const ITEMS_FROM: Option<CollectorId> = Some(CollectorId::CUSTOMERS);
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

    fn polls_alike(settings: &CollectorSettings, other: &CollectorSettings) -> bool {
        settings.consent_products == other.consent_products
    }

    fn split(record: &Self::Record) -> Option<(Self::Record, Self::Record)> {
        record.split(|products| {
            let split = products.split_by_key();
            split.unwrap_or_else(|| (products.clone(), Products::default()))
        })
    }

    fn without_tenants(record: &Self::Record, removed: &BTreeSet<TenantId>) -> Option<Self::Record> {
        record.without(removed)
    }

    fn tables(record: &Self::Record, _customer: &CustomerId, context: &Context, sink: &mut impl ShapeSink) {
        // The record may predate the current settings.
        let requested = &context.settings.consent_products;
        let rows: Vec<Consent> = record
            .iter()
            .flat_map(|(tenant, products)| {
                let consented = products.iter().filter(|(product, _)| requested.contains(product));
                consented.filter_map(|(product, is_given)| {
                    Some(Consent {
                        tenant: tenant.clone(),
                        product: product.clone(),
                        is_given: (*is_given)?,
                    })
                })
            })
            .collect();
        sink.add(&SHAPE, &rows);
    }
}

/// Fetches the tenant's consent status for each product. For products that the tenant lacks, a request is sent at most
/// once a day. If a request fails, the product's last known value is kept until it expires.
async fn poll_products(
    api: &Api,
    (customer, context): (&CustomerId, &Context),
    tenant: &TenantId,
    known: &Products,
) -> TenantResult<Products> {
    request_each(context, known, |product| async move {
        let is_given = fetch_consent(api, customer, tenant, &product).await?;
        Ok((is_given, None))
    })
    .await
}

async fn request_each<Request: Future<Output = TenantResult<Option<bool>>>>(
    context: &Context,
    known: &Products,
    request: impl Fn(String) -> Request,
) -> TenantResult<Products> {
    let products = context.settings.consent_products.clone();
    let (endpoint, rules) = (Endpoint::AppConsent, &PRODUCT_RULES);
    request_all(products, endpoint, context, Some(known), rules, |product, _| {
        request(product)
    })
    .await
}

const IS_CONSENT: Names = &["isConsent", "isConsented"];

/// Fetches the tenant's consent status for the apps of a product. Returns whether the tenant has consented to all apps;
/// `None` if the product has no apps.
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
    let apps = api.v3(endpoint, scope)?.fetch_entity(endpoint, scope, &path).await?;
    let mut is_given = None;
    for json in &apps {
        let row = Row::read(json, endpoint, api.observer().as_ref());
        let Some(app) = row.and_then(|row| row.flag(IS_CONSENT)) else {
            return Err(Error::Decode("an object with a consent status").at(endpoint));
        };
        is_given = Some(is_given.unwrap_or(true) && app);
    }
    Ok(is_given)
}

/// A tenant's consent to a product's apps.
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
    use crate::collector::CollectorDescriptor;
    use crate::domain::Timestamp;

    fn context(products: &[&str]) -> Context {
        let settings = CollectorSettings {
            consent_products: products.iter().map(|product| (*product).to_owned()).collect(),
            ..CollectorSettings::default()
        };
        Context::new(
            Timestamp::from_unix_seconds(1_000_000),
            Arc::new(settings),
            Arc::from(""),
        )
    }

    #[test]
    fn removed_product_is_not_exposed() {
        let record: Tenants<Products> = serde_json::from_value(serde_json::json!({
            "tenants": {"t": {"consented": {"a": true, "b": false}, "absent": {}}}, "lacking": {}}))
        .expect("a record");
        let customer = CustomerId::parse("c").expect("an id");
        let samples = |products: &[&str]| {
            let descriptor = CollectorDescriptor::of::<AppConsent>();
            let rendered = descriptor.render(Arc::new(record.clone()), &customer, &context(products));
            rendered.map(|(rendered, _)| rendered.samples()).expect("a record")
        };
        assert_eq!([samples(&["a", "b"]), samples(&["b"]), samples(&["c"])], [2, 1, 0]);
    }

    #[tokio::test]
    async fn last_known_consent_is_kept() {
        let context = context(&["a", "b", "c"]);
        let known: Products = serde_json::from_value(serde_json::json!({
            "consented": {"a": true, "b": true}, "absent": {}}))
        .expect("a record");
        for error in [None, Some(400), Some(403), Some(404), Some(500)] {
            let respond = |product: String| {
                let response = match (product.as_str(), error) {
                    ("a", Some(error)) => Err(Error::Status(error).at(Endpoint::AppConsent)),
                    ("a", None) => Ok((None, None)),
                    ("b", _) => Ok((Some(false), None)),
                    _ => Err(Error::Status(404).at(Endpoint::AppConsent)),
                };
                std::future::ready(response)
            };
            let (products, failure) = request_each(&context, &known, respond).await.expect("a response");
            assert!(failure.is_some(), "{error:?}");
            let (fresh, held) = products.split_by_key().expect("something held");
            let consents = |products: &Products| -> Vec<(String, Option<bool>)> {
                products
                    .iter()
                    .map(|(product, is_given)| (product.clone(), *is_given))
                    .collect()
            };
            assert_eq!(consents(&fresh), [("b".to_owned(), Some(false))]);
            assert_eq!(consents(&held), [("a".to_owned(), Some(true))]);
        }
    }

    #[tokio::test]
    async fn tenant_without_any_of_the_products_lacks_the_service() {
        let context = context(&["a", "b"]);
        let respond = |product: String| {
            let response = match product.as_str() {
                "a" => Ok((None, None)),
                _ => Err(Error::Status(400).at(Endpoint::AppConsent)),
            };
            std::future::ready(response)
        };
        let refused = request_each(&context, &Products::default(), respond).await;
        assert!(refused.is_err_and(|failure| matches!(failure.error, Error::Status(404))));
    }
}
