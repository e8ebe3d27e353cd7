//! Users of each tenant by protection state. Users are only counted; their identities are not stored.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::per_tenant::{TenantResult, Tenants, poll_tenants};
use super::{Collector, CollectorId, Context, PollOutput, Price};
use crate::api::wire::{Names, Row};
use crate::api::{Api, Endpoint, Error, Failure, Observer, v3};
use crate::domain::{self, CustomerId, TenantId};
use crate::exposition::{Shape, ShapeSink, exact, gauge, label};

/// Numbers of a tenant's protected and unprotected users, by module.
pub(super) type Users = BTreeMap<Cow<'static, str>, Counts>;

/// Numbers of users by protection state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counts {
    protected: usize,
    unprotected: usize,
}

/// Maximum number of distinct modules per tenant. The reference lists two.
const MAX_MODULES: usize = 16;

/// The collector `user_protection`.
pub(super) struct UserProtection;

impl Collector for UserProtection {
    const NAME: &'static str = "user_protection";
    const ENDPOINT: Endpoint = Endpoint::Users;
    const INTERVAL: Duration = Duration::from_secs(12 * 3600);
    const IS_OPTIONAL: bool = true;
    const PRICE: Price = Price {
        requests: 1.0,
        description: "1 per 100 users of each tenant",
        ..Price::ONE
    };
    const SCOPE_V3: &'static str = v3::scope::PROTECTED;
    const ITEMS_FROM: Option<CollectorId> = Some(CollectorId::CUSTOMERS);
    type Target = CustomerId;
    type Record = Tenants<Users>;

    async fn poll(
        api: &Api,
        customer: &CustomerId,
        previous: Option<&Self::Record>,
        context: &Context,
    ) -> Result<PollOutput<Self::Record>, Failure> {
        let about = (customer, context);
        poll_tenants(api, Endpoint::Users, about, previous, |tenant, _| async move {
            fetch_users(api, customer, &tenant).await
        })
        .await
    }

    fn split(record: &Self::Record) -> Option<(Self::Record, Self::Record)> {
        record.split_by_key()
    }

    fn without_tenants(record: &Self::Record, removed: &BTreeSet<TenantId>) -> Option<Self::Record> {
        record.without(removed)
    }

    fn tables(record: &Self::Record, _customer: &CustomerId, _context: &Context, sink: &mut impl ShapeSink) {
        let rows: Vec<StateCount> = record
            .iter()
            .flat_map(|(tenant, users)| {
                users.iter().flat_map(|(module, counts)| {
                    let states = [("protected", counts.protected), ("unprotected", counts.unprotected)];
                    states.map(|(state, users)| StateCount {
                        tenant: tenant.clone(),
                        module: module.clone(),
                        state,
                        users,
                    })
                })
            })
            .collect();
        sink.add(&SHAPE, &rows);
    }
}

async fn fetch_users(api: &Api, customer: &CustomerId, tenant: &TenantId) -> TenantResult<Users> {
    let endpoint = Endpoint::Users;
    let path = [
        "customers",
        customer.as_str(),
        "tenants",
        tenant.as_str(),
        "cloud-backup-m365",
        "users",
        "batch",
    ];
    let list = v3::List {
        endpoint,
        scope: UserProtection::SCOPE_V3,
        path: &path,
        filter: Some("{}"),
        key: Some("id"),
    };
    let rows = api.v3(endpoint, list.scope)?.fetch_list(list).await?;
    count_users(&rows, api.observer().as_ref()).await
}

/// Counts the users. If some rows are invalid, the result is incomplete.
///
/// # Errors
/// Returns an error if all rows are invalid.
async fn count_users(rows: &[Box<RawValue>], observer: &dyn Observer) -> TenantResult<Users> {
    let endpoint = Endpoint::Users;
    let mut users = Users::new();
    let unreadable = super::read_rows(rows, endpoint, observer, |row| {
        let statuses = parse_statuses(row)?;
        let added = statuses.keys().filter(|module| !users.contains_key(*module)).count();
        if users.len() + added > MAX_MODULES {
            observer.decode_error(endpoint, "module", "a module beyond the limit");
            return None;
        }
        for (module, is_protected) in statuses {
            let counts = users.entry(module).or_default();
            if is_protected {
                counts.protected += 1;
            } else {
                counts.unprotected += 1;
            }
        }
        Some(false)
    });
    let unreadable = unreadable.await;
    let failure = (unreadable > 0).then(|| Error::UnreadableRows(unreadable).at(endpoint));
    match failure {
        Some(failure) if unreadable == rows.len() => Err(failure),
        failure => Ok((users, failure)),
    }
}

/// Returns whether a user is protected, by module; `None` if the list of modules is missing or contains an invalid
/// entry.
fn parse_statuses(row: &Row<'_>) -> Option<BTreeMap<Cow<'static, str>, bool>> {
    const STATUSES: Names = &["moduleStatus"];
    let mut modules: BTreeMap<Cow<'static, str>, bool> = BTreeMap::new();
    for json in row.list(STATUSES)? {
        let status = row.nested(json)?;
        let module = status.named(&["module"], domain::user_module)?;
        let is_protected = status.flag(&["isProtected"])?;
        let known = modules.entry(module).or_insert(true);
        *known = *known && is_protected;
    }
    Some(modules)
}

/// Number of users with one protection state in one module.
struct StateCount {
    tenant: TenantId,
    module: Cow<'static, str>,
    state: &'static str,
    users: usize,
}

const SHAPE: Shape<StateCount> = Shape {
    labels: &[
        label("tenant_id", |row| Some(row.tenant.as_str())),
        label("module", |row| Some(&row.module)),
        label("state", |row| Some(row.state)),
    ],
    columns: &[gauge(
        "elements_tenant_users",
        "Users of the tenant by module and protection state",
        |row| exact(row.users),
    )],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Health;

    #[tokio::test]
    async fn invalid_user_row_affects_only_that_user() {
        let row = |json: &str| RawValue::from_string(json.to_owned()).expect("JSON");
        let good = r#"{"id": "1", "moduleStatus": [{"module": "OneDrive", "isProtected": true}]}"#;
        let bad = r#"{"id": "2", "moduleStatus": null}"#;
        let (users, failure) = count_users(&[row(good), row(bad)], &Health::new())
            .await
            .expect("a response");
        assert_eq!(users.values().map(|counts| counts.protected).collect::<Vec<_>>(), [1]);
        assert!(failure.is_some_and(|failure| matches!(failure.error, Error::UnreadableRows(1))));
        assert!(count_users(&[row(bad)], &Health::new()).await.is_err());
    }

    #[tokio::test]
    async fn modules_beyond_the_limit_are_reported() {
        let modules = |first: usize| {
            let module = |nth: usize| format!(r#"{{"module": "m{nth}", "isProtected": true}}"#);
            let listed: Vec<String> = (first..first + MAX_MODULES).map(module).collect();
            let json = format!(r#"{{"id": "1", "moduleStatus": [{}]}}"#, listed.join(","));
            RawValue::from_string(json).expect("JSON")
        };
        let (users, failure) = count_users(&[modules(0), modules(1), modules(0)], &Health::new())
            .await
            .expect("a response");
        assert_eq!(users.len(), MAX_MODULES);
        assert!(users.values().all(|counts| counts.protected == 2));
        assert!(failure.is_some_and(|failure| matches!(failure.error, Error::UnreadableRows(1))));
    }
}
