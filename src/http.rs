//! The way in: routes, and what each of them answers. Nothing in here asks the API.

mod body;
mod caller;
mod discovery;
mod gzip;
mod handshake;
mod negotiate;
mod page;
pub mod server;
pub mod web_config;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HOST, VARY};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use url::Url;

use crate::assets::{self, Asset};
use crate::collector::Target;
use crate::domain::{CustomerId, Shard};
use crate::health::Health;
use crate::scrape::{Narrowing, Scrape};
use crate::status::Status;
use caller::Caller;
use discovery::Place;
use page::{Page, Wanted};

/// Loads the configuration anew; the error is the message for whoever asked.
pub type Reload = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync>;

/// What the routes need.
pub struct Site {
    /// Answers scrapes.
    pub scrape: Arc<Scrape>,
    /// Answers the pages for people.
    pub status: Arc<Status>,
    /// Makes the bodies of the answers; the same for all sites of an exporter.
    pub bodies: Arc<Bodies>,
    /// Tells whether the loop lives and whether it is ready.
    pub health: Arc<Health>,
    /// Where the metrics are.
    pub telemetry_path: String,
    /// What all paths begin with; empty or `/…` without a slash at its end.
    pub route_prefix: String,
    /// The URL under which people and scrapers reach it from outside, where that is another.
    pub external_url: Option<Url>,
    /// Reloads, where that may be asked for over HTTP by those who may.
    pub reload: Option<Reload>,
    /// What the status page says of the source of the data.
    pub subtitle: String,
}

/// What makes the bodies of answers: the compressed ones are kept while they are good.
#[derive(Debug, Default)]
pub struct Bodies {
    compressor: gzip::Compressor,
    spare: body::Spare,
}

/// The routes of the exporter.
pub fn routes(site: Site) -> Router {
    let prefix = site.route_prefix.clone();
    let at = |path: &str| format!("{prefix}{path}");
    let mut router = Router::new()
        .route(&at("/"), get(index))
        .route(&at(&site.telemetry_path), get(metrics))
        .route(&at("/sd"), get(discover))
        .route(&at("/-/healthy"), get(healthy))
        .route(&at("/-/ready"), get(ready))
        .route(&at("/-/reload"), post(reload).put(reload))
        .route(
            &at("/dashboards/"),
            get(|state| list(state, assets::DASHBOARDS, "dashboards")),
        )
        .route(&at("/dashboards/{name}"), get(|name| asset(name, assets::DASHBOARDS)))
        .route(&at("/rules/"), get(|state| list(state, assets::RULES, "rules")))
        .route(&at("/rules/{name}"), get(|name| asset(name, assets::RULES)))
        .route(&at("/customers/{id}"), get(customer))
        .route(&at("/customers/"), get(customer_by_query))
        .route(&at("/runbooks/"), get(runbooks));
    let home = at("/");
    for (shortened, whole) in [
        ("/dashboards", "dashboards/"),
        ("/rules", "rules/"),
        ("/runbooks", "runbooks/"),
        ("/customers", "customers/"),
    ] {
        // From where it stands, so that it leads there behind a proxy that takes a prefix off as well.
        router = router.route(&at(shortened), get(move || async move { Redirect::permanent(whole) }));
    }
    if !prefix.is_empty() {
        let from_root = home.clone();
        router = router
            .route("/", get(|| async move { Redirect::temporary(&from_root) }))
            .route(&prefix, get(|| async move { Redirect::permanent(&home) }));
    }
    router.with_state(Arc::new(site))
}

async fn index(State(site): State<Arc<Site>>, RawQuery(query): RawQuery) -> Response {
    aside(move || page::front(&site, &Wanted::parse(query.as_deref()))).await
}

async fn customer(State(site): State<Arc<Site>>, Path(id): Path<String>, RawQuery(query): RawQuery) -> Response {
    aside(move || page::customer(&site, &id, &Wanted::parse(query.as_deref()))).await
}

/// The page of the customer that the query names; without one, the way to the list of all, which is the front page.
async fn customer_by_query(State(site): State<Arc<Site>>, RawQuery(query): RawQuery) -> Response {
    let mut pairs = url::form_urlencoded::parse(query.as_deref().unwrap_or_default().as_bytes());
    let Some((_, id)) = pairs.find(|(name, _)| name == "id") else {
        return Redirect::temporary("../").into_response();
    };
    let (id, wanted) = (id.into_owned(), Wanted::parse(query.as_deref()));
    aside(move || page::customer(&site, &id, &wanted)).await
}

async fn runbooks(State(site): State<Arc<Site>>) -> Page {
    page::runbooks(&site)
}

/// Makes an answer where it holds up neither scrapes nor polls: one about ten thousand customers takes a while.
async fn aside<R: IntoResponse + Send + 'static>(make: impl FnOnce() -> R + Send + 'static) -> Response {
    match tokio::task::spawn_blocking(make).await {
        Ok(answer) => answer.into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn metrics(State(site): State<Arc<Site>>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    let format = negotiate::format(&headers);
    let narrowing = narrowing(query.as_deref());
    if let Some(shards) = narrowing.shards_to_divide_into() {
        let scrape = Arc::clone(&site.scrape);
        // What it comes to is kept; where it panics, the answer finds out for itself.
        let _ = tokio::task::spawn_blocking(move || scrape.divide(shards)).await;
    }
    let mut response = if negotiate::accepts_gzip(&headers) {
        let body = site.bodies.compressor.answer(&site.scrape, &narrowing, format);
        let mut response = body.into_response();
        response
            .headers_mut()
            .insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response
    } else {
        let frames = site.scrape.frames(&narrowing, format);
        body::plain(frames, site.bodies.spare.clone()).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// What the query narrows the answer to. What it says besides is passed over: a scrape always has an answer.
fn narrowing(query: Option<&str>) -> Narrowing {
    let mut narrowing = Narrowing::default();
    for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        match name.as_ref() {
            "collector" | "collector[]" => narrowing.collectors.insert(value.into_owned()),
            "customer_id" | "customer_id[]" => {
                // What no customer can have for an id is one that is not known.
                let customers = narrowing.customers.get_or_insert_default();
                match CustomerId::parse(&value).filter(|id| id.as_str() == value) {
                    Some(id) => customers.insert(Target::Customer(id)),
                    None => value.is_empty() && customers.insert(Target::Partner),
                }
            }
            "shard" | "shard[]" => {
                // One that cannot be has no customers: showing them all would show them twice. All are shares of one
                // number, so that finding out who is in them costs the same however many are named.
                let shards = narrowing.shards.get_or_insert_default();
                let shard = value.parse::<Shard>().ok();
                let fits = |shard: &Shard| shards.first().is_none_or(|first| first.of() == shard.of());
                shard.filter(fits).is_some_and(|shard| shards.insert(shard))
            }
            _ => false,
        };
    }
    narrowing
}

/// The targets that Prometheus is to scrape here, at the address under which it reached us.
async fn discover(
    State(site): State<Arc<Site>>,
    RawQuery(query): RawQuery,
    caller: Option<Extension<Caller>>,
    headers: HeaderMap,
) -> Response {
    let is_over_tls = caller.is_some_and(|Extension(caller)| caller.is_over_tls());
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let place = host.and_then(|host| {
        let external = site.external_url.as_ref();
        Place::of_request(host, is_over_tls, external, &site.route_prefix, &site.telemetry_path)
    });
    let Some(place) = place else {
        return (StatusCode::BAD_REQUEST, "The request names no host.\n").into_response();
    };
    let shards = match discovery::shards(query.as_deref()) {
        Ok(shards) => shards,
        Err(invalid) => return (StatusCode::BAD_REQUEST, format!("{invalid}\n")).into_response(),
    };
    aside(move || {
        let customers;
        let groups = match shards {
            None => {
                customers = site.scrape.customers();
                discovery::of_customers(&place, &customers)
            }
            Some(shards) => discovery::of_shards(&place, shards),
        };
        let json = HeaderValue::from_static("application/json");
        match serde_json::to_vec(&groups) {
            Ok(body) => ([(CONTENT_TYPE, json)], body).into_response(),
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    })
    .await
}

async fn healthy(State(site): State<Arc<Site>>) -> (StatusCode, &'static str) {
    if site.health.is_alive() {
        (StatusCode::OK, "elements_exporter is healthy.\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "The poll loop does not turn any more.\n",
        )
    }
}

async fn ready(State(site): State<Arc<Site>>) -> (StatusCode, &'static str) {
    if site.health.is_ready() {
        (StatusCode::OK, "elements_exporter is ready.\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "The customer list has not been had yet.\n",
        )
    }
}

async fn reload(State(site): State<Arc<Site>>, caller: Option<Extension<Caller>>, headers: HeaderMap) -> Response {
    let Some(reload) = &site.reload else {
        let message = "Lifecycle API is not enabled; start with --web.enable-lifecycle, or send SIGHUP.\n";
        return (StatusCode::FORBIDDEN, message).into_response();
    };
    if let Err(refused) = caller::may_command(caller.map(|Extension(caller)| caller), &headers) {
        return refused.into_response();
    }
    match reload().await {
        Ok(()) => (StatusCode::OK, "Configuration reloaded.\n").into_response(),
        Err(message) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("The old configuration stays in force: {message}\n"),
        )
            .into_response(),
    }
}

async fn list(State(site): State<Arc<Site>>, assets: &'static [Asset], kind: &'static str) -> Page {
    page::list(&site, assets, kind)
}

async fn asset(Path(name): Path<String>, assets: &'static [Asset]) -> Response {
    let Some(asset) = assets.iter().find(|asset| asset.name == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    ([(CONTENT_TYPE, asset.content_type())], asset.content).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;
    use crate::domain::Timestamp;
    use crate::scrape::{Loaded, Vitals};
    use crate::store::Store;

    fn site(health: Health) -> State<Arc<Site>> {
        let health = Arc::new(health);
        let loaded = Loaded {
            config: true,
            config_at: Timestamp::from_unix_seconds(0),
            state: true,
        };
        let store = Arc::new(Store::new(&[], None));
        let scrape = Arc::new(Scrape::new(
            Arc::clone(&store),
            Arc::clone(&health),
            Arc::default(),
            Arc::new(Vitals::default),
            loaded,
        ));
        let status = Status::new(
            Arc::clone(&scrape),
            store,
            Arc::clone(&health),
            Arc::new(Arc::default),
            None,
        );
        State(Arc::new(Site {
            scrape,
            status: Arc::new(status),
            bodies: Arc::default(),
            health,
            telemetry_path: "/metrics".to_owned(),
            route_prefix: String::new(),
            external_url: None,
            reload: None,
            subtitle: String::new(),
        }))
    }

    #[tokio::test]
    async fn a_loop_that_hangs_is_not_healthy() {
        assert_eq!(healthy(site(Health::new())).await.0, StatusCode::OK);
        let hung = Health::silent_for(Duration::from_secs(60));
        assert_eq!(healthy(site(hung)).await.0, StatusCode::SERVICE_UNAVAILABLE);
    }

    #[test]
    fn queries_narrow_and_nonsense_is_passed_over() {
        let parsed = narrowing(Some(
            "collector=jobs&customer_id=a%26b&collector=licenses&x=1&=&%ff&collector",
        ));
        assert_eq!(parsed.collectors, ["", "jobs", "licenses"].map(String::from).into());
        let customer = |id: &str| CustomerId::parse(id).map(Target::Customer);
        assert_eq!(parsed.customers, Some(customer("a&b").into_iter().collect()));
        assert_eq!(parsed.shards, None);
        let shards = narrowing(Some("shard=0/2&shard=5/2&shard=1%2F3&shard=1%2F2&shard=0/2")).shards;
        let expected = ["0/2", "1/2"].iter().flat_map(|text| text.parse());
        assert_eq!(shards, Some(expected.collect()), "each once, and all of one number");
        assert_eq!(narrowing(Some("shard=all")).shards, Some(BTreeSet::new()));
        let guid = "0f1c3ded-26b1-443b-91bf-c9009b7c057a";
        let twice = format!("customer_id={guid}&customer_id={}&customer_id=", guid.to_uppercase());
        let customers = narrowing(Some(&twice)).customers.unwrap_or_default();
        assert_eq!(
            customers,
            [Some(Target::Partner), customer(guid)].into_iter().flatten().collect()
        );
        assert_eq!(narrowing(None), Narrowing::default());
    }
}
